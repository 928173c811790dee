//! Any messages, split into any pieces.

use amq_protocol::frame::AMQPFrame;
use proptest::collection::vec;
use proptest::prelude::*;

use super::{BODY, HEADER, HEADERS, METHOD, flaw, frame, header, long, passed, read, short};
use crate::bus::connection::guard::{Frames, MARKER};

/// A text that may not be UTF-8.
fn any_text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => "[a-zA-Zé.-]{0,20}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..20),
    ]
}

/// A value with its type, possibly nested and sometimes malformed.
fn any_value() -> impl Strategy<Value = Vec<u8>> {
    let fixed = |kind: u8, count: usize| vec(any::<u8>(), count).prop_map(move |bytes| [&[kind], &bytes[..]].concat());
    let leaf = prop_oneof![
        Just(b"V".to_vec()),
        prop_oneof![fixed(b't', 1), fixed(b'b', 1), fixed(b'B', 1), fixed(b's', 2), fixed(b'U', 2), fixed(b'u', 2)],
        prop_oneof![fixed(b'I', 4), fixed(b'i', 4), fixed(b'f', 4), fixed(b'D', 5)],
        prop_oneof![fixed(b'L', 8), fixed(b'l', 8), fixed(b'd', 8), fixed(b'T', 8)],
        vec(any::<u8>(), 0..40).prop_map(|bytes| [b"S", &long(&bytes)[..]].concat()),
        vec(any::<u8>(), 0..40).prop_map(|bytes| [b"x", &long(&bytes)[..]].concat()),
        vec(any::<u8>(), 1..6),
    ];
    leaf.prop_recursive(6, 20, 3, |inner| {
        let array = vec(inner.clone(), 0..3).prop_map(|values| [b"A", &long(&values.concat())[..]].concat());
        prop_oneof![array, any_table(inner).prop_map(|table| [b"F", &table[..]].concat())]
    })
}

fn any_table(value: impl Strategy<Value = Vec<u8>> + 'static) -> BoxedStrategy<Vec<u8>> {
    let name = prop_oneof![9 => any_text(), 1 => Just(MARKER.as_bytes().to_vec())];
    let entry = (name, value).prop_map(|(name, value)| [short(&name), value].concat());
    vec(entry, 0..4).prop_map(|entries| long(&entries.concat())).boxed()
}

/// The payload of a content header.
fn payload(flags: u16, texts: Vec<Vec<u8>>, headers: &[u8], number: u64) -> Vec<u8> {
    let mut texts = texts.into_iter().map(|text| short(&text));
    let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    payload.extend(flags.to_be_bytes());
    for property in (0..14).filter(|property| flags & (0x8000 >> property) != 0) {
        payload.extend(match property {
            2 => headers.to_vec(),
            3 | 4 => vec![number as u8],
            9 => number.to_be_bytes().to_vec(),
            _ => texts.next().unwrap(),
        });
    }
    payload
}

/// A payload that is sometimes truncated or has one byte changed.
fn any_payload() -> impl Strategy<Value = Vec<u8>> {
    let good = (any::<u16>(), vec(any_text(), 11), any_table(any_value()), any::<u64>())
        .prop_map(|(flags, texts, headers, number)| payload(flags, texts, &headers, number));
    let damage = proptest::option::weighted(0.2, (any::<prop::sample::Index>(), any::<u8>(), any::<bool>()));
    (good, damage).prop_map(|(mut payload, damage)| {
        if let Some((index, byte, cut)) = damage {
            let index = 12 + index.index(payload.len() - 12);
            match cut {
                true => payload.truncate(index),
                false => payload[index] = byte,
            }
        }
        payload
    })
}

/// A message with any texts, a channel's close, or a heartbeat.
fn any_frames() -> impl Strategy<Value = Vec<u8>> {
    let texts = (any_text(), any_text(), any_text()).prop_map(|(a, b, c)| [short(&a), short(&b), short(&c)]);
    let message = (1..4_u16, 0..3_u8, texts, any_payload(), vec(any::<u8>(), 0..40)).prop_map(
        |(channel, kind, [a, b, c], header, body)| {
            let method = match kind {
                0 => [&[0, 60, 0, 60][..], &a, &[0; 9], &b, &c].concat(),
                1 => [&[0, 60, 0, 71][..], &[0; 9], &b, &c, &[0; 4]].concat(),
                _ => [&[0, 60, 0, 50, 1, 0x38][..], &a, &b, &c].concat(),
            };
            [frame(METHOD, channel, &method), frame(HEADER, channel, &header), frame(BODY, channel, &body)].concat()
        },
    );
    let close =
        any_text().prop_map(|text| frame(METHOD, 1, &[&[0, 20, 0, 40, 1, 0x94][..], &short(&text), &[0; 4]].concat()));
    prop_oneof![6 => message, 1 => close, 1 => Just(frame(8, 0, b""))]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// lapin can read the result for any header: the same bytes if it could read them before, otherwise a marked
    /// message.
    #[test]
    fn lapin_reads_any_header(payload in prop_oneof![4 => any_payload(), 1 => vec(any::<u8>(), 12..200)]) {
        let bytes = frame(HEADER, 1, &payload);
        let out = passed(&bytes);
        match read(&bytes) {
            Some(_) => prop_assert_eq!(out, bytes),
            None => {
                let frames = read(&out).expect("lapin reads it");
                let [AMQPFrame::Header(1, header)] = &frames[..] else { panic!("{frames:?}") };
                prop_assert!(flaw(&header.properties).is_some());
                prop_assert_eq!(header.class_id.to_be_bytes(), &payload[..2]);
                prop_assert_eq!(header.body_size.to_be_bytes(), &payload[4..12]);
            }
        }
    }

    /// lapin can read every frame of a message, and a message without a marker is unchanged.
    #[test]
    fn lapin_reads_any_stream(messages in vec(any_frames(), 1..6)) {
        let mut frames = Frames::new(None);
        for bytes in messages {
            let mut out = Vec::new();
            frames.pass(&bytes, &mut out);
            let parsed = read(&out).expect("lapin reads it");
            let header = parsed.iter().find_map(|frame| match frame {
                AMQPFrame::Header(_, header) => Some(flaw(&header.properties)),
                _ => None,
            });
            match header {
                Some(None) => prop_assert_eq!(out, bytes),
                // The publisher may have written the marker itself.
                Some(Some(_)) => prop_assert!(out != bytes || read(&bytes).is_some()),
                None => prop_assert_eq!(out.len(), bytes.len()),
            }
        }
    }

    #[test]
    fn it_makes_no_difference_in_which_pieces_the_bytes_arrive(
        messages in vec(any_frames(), 1..6),
        sizes in vec(1..40_usize, 1..20),
        body_max in 6..8_u64,
    ) {
        // This first header does not fit into the smallest frame.
        let big = header(1, HEADERS, &[long(&[&short(b"a")[..], b"S", &long(&[0; 5_000])].concat())]);
        let bytes = [big, messages.concat()].concat();
        // Content headers announce a body of 7 bytes, which some of the messages do not have.
        let new = || Frames::new(Some(4_096)).bodies_up_to(body_max);
        let mut whole = Vec::new();
        new().pass(&bytes, &mut whole);
        let (mut frames, mut out, mut rest) = (new(), Vec::new(), &bytes[..]);
        for size in sizes.iter().cycle() {
            let (piece, behind) = rest.split_at(rest.len().min(*size));
            frames.pass(piece, &mut out);
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(out, whole);
    }

    #[test]
    fn bytes_that_are_no_frames_do_no_harm(pieces in vec(vec(any::<u8>(), 0..300), 1..10)) {
        let mut frames = Frames::new(Some(4_096));
        let mut out = Vec::new();
        for piece in pieces {
            frames.pass(&piece, &mut out);
        }
    }
}
