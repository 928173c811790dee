use amq_protocol::frame::{AMQPFrame, parse_frame};
use lapin::protocol::BasicProperties;
use lapin::types::AMQPValue;

use super::flaw::DEPTH_MAX;
use super::*;

mod properties;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(channel.to_be_bytes());
    bytes.extend((payload.len() as u32).to_be_bytes());
    bytes.extend(payload);
    bytes.push(0xce);
    bytes
}

fn short(text: &[u8]) -> Vec<u8> {
    [&[text.len() as u8], text].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

/// A content header for a body of 7 bytes.
fn header(channel: u16, flags: u16, values: &[Vec<u8>]) -> Vec<u8> {
    let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    payload.extend(flags.to_be_bytes());
    payload.extend(values.concat());
    frame(HEADER, channel, &payload)
}

const HEADERS: u16 = 1 << 13;
const CORRELATION_ID: u16 = 1 << 10;
const MESSAGE_ID: u16 = 1 << 7;

fn deliver(channel: u16, routing_key: &[u8]) -> Vec<u8> {
    let texts = [short(b"tag"), vec![0, 0, 0, 0, 0, 0, 0, 1, 0], short(b"commands"), short(routing_key)];
    frame(METHOD, channel, &[&[0, 60, 0, 60][..], &texts.concat()].concat())
}

fn tune(frame_max: u32) -> Vec<u8> {
    frame(METHOD, 0, &[&[0, 10, 0, 30, 0, 0][..], &frame_max.to_be_bytes(), &[0, 10]].concat())
}

/// Headers that are nested this many tables deep, including the outermost.
fn nested(levels: usize) -> Vec<u8> {
    (1..levels).fold(long(b""), |table, _| long(&[&short(b"a")[..], b"F", &table].concat()))
}

fn passed(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Frames::new(None).pass(bytes, &mut out);
    out
}

/// Parses the frames as lapin does; `None` if it would close the connection.
fn read(mut bytes: &[u8]) -> Option<Vec<AMQPFrame>> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (rest, frame) = parse_frame(bytes).ok()?;
        frames.push(frame);
        bytes = rest;
    }
    Some(frames)
}

fn only_header(bytes: &[u8]) -> BasicProperties {
    match read(bytes).expect("lapin reads it").pop() {
        Some(AMQPFrame::Header(_, header)) => {
            assert_eq!((header.class_id, header.body_size), (60, 7));
            header.properties
        }
        other => panic!("no content header: {other:?}"),
    }
}

/// Returns the flaw that a repaired message is marked with.
fn flaw(properties: &BasicProperties) -> Option<Flaw> {
    match properties.headers().as_ref()?.inner().get(MARKER)? {
        AMQPValue::LongString(text) => Flaw::read(text.as_bytes()),
        _ => None,
    }
}

#[test]
fn headers_may_be_nested_to_a_depth() {
    let deepest = header(1, HEADERS, &[nested(DEPTH_MAX)]);
    assert_eq!(passed(&deepest), deepest);
    assert!(read(&deepest).is_some(), "lapin's stack suffices");
    for levels in [DEPTH_MAX + 1, 1_147, 18_000] {
        let deep = header(1, HEADERS | MESSAGE_ID, &[nested(levels), short(b"m")]);
        let properties = only_header(&passed(&deep));
        assert_eq!(flaw(&properties), Some(Flaw::Depth), "{levels}");
        assert_eq!(properties.message_id().as_ref().map(|id| id.as_str()), Some("m"));
    }
}

#[test]
fn arrays_count_as_levels_too() {
    let arrays = (0..1_000).fold(long(b""), |array, _| long(&[b"A", &array[..]].concat()));
    let deep = header(1, HEADERS, &[long(&[&short(b"a")[..], b"A", &arrays].concat())]);
    assert_eq!(flaw(&only_header(&passed(&deep))), Some(Flaw::Depth));
}

#[test]
fn a_text_that_is_not_utf_8_is_left_out() {
    let latin = header(1, CORRELATION_ID | MESSAGE_ID, &[short(b"caf\xe9"), short("mé".as_bytes())]);
    let properties = only_header(&passed(&latin));
    assert_eq!(flaw(&properties), Some(Flaw::Encoding("correlation_id")));
    assert_eq!(properties.correlation_id(), &None);
    assert_eq!(properties.message_id().as_ref().map(|id| id.as_str()), Some("mé"));
}

/// They include the broker's own, which say where a dead letter comes from.
#[test]
fn the_headers_that_can_be_read_are_kept() {
    let deep = nested(100);
    let entry = |name: &[u8], value: &[u8]| [&short(name)[..], value].concat();
    let entries = [
        entry(b"first", b"t\x01"),
        entry(b"deep", &[b"F", &deep[..]].concat()),
        entry(b"caf\xe9", b"V"),
        entry(b"inner", &[b"F", &long(&entry(b"caf\xe9", b"V"))[..]].concat()),
        entry(b"binary", &[b"S", &long(b"\xe9")[..]].concat()),
        entry(b"unknown", b"?"),
        entry(b"behind", b"V"),
    ];
    let properties = only_header(&passed(&header(1, HEADERS, &[long(&entries.concat())])));
    let headers = properties.headers().clone().expect("headers");
    let names: Vec<&str> = headers.inner().keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["binary", "first", MARKER]);
}

#[test]
fn properties_that_are_cut_off_are_malformed() {
    let broken = [
        header(1, CORRELATION_ID, &[vec![9, b'a']]),
        header(1, CORRELATION_ID, &[short(b"a"), vec![0]]),
        header(1, HEADERS, &[long(b"\x05ab")]),
        header(1, HEADERS, &[vec![0xff, 0xff, 0xff, 0xff]]),
        header(1, HEADERS, &[long(b"\x01a?")]),
        frame(HEADER, 1, &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]),
        frame(HEADER, 1, &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0xff]),
    ];
    for bytes in broken {
        assert_eq!(read(&bytes), None);
        assert_eq!(flaw(&only_header(&passed(&bytes))), Some(Flaw::Malformed), "{bytes:?}");
    }
}

/// RabbitMQ sends a header even if its own additions made it larger than a frame.
#[test]
fn a_header_larger_than_a_frame_is_left_out() {
    let grown = |size: usize| header(1, HEADERS, &[long(&[&short(b"a")[..], b"S", &long(&vec![b'x'; size])].concat())]);
    let around = grown(0).len();
    let mut frames = Frames::new(None);
    let mut pass = |bytes: &[u8]| {
        let mut out = Vec::new();
        frames.pass(bytes, &mut out);
        out
    };
    assert_eq!(pass(&tune(8_192)), tune(8_192));
    let largest = grown(8_192 - around);
    assert_eq!(pass(&largest), largest);
    for size in [8_193 - around, 100_000, 1_000_000] {
        let behind = frame(BODY, 1, b"1234567");
        let out = pass(&[grown(size), behind.clone()].concat());
        let header = out.strip_suffix(&behind[..]).expect("the body");
        assert!(header.len() < 200);
        assert_eq!(flaw(&only_header(header)), Some(Flaw::Size));
    }
}

#[test]
fn a_repaired_header_fits_into_a_frame() {
    let entry = [&short(b"a")[..], b"S", &long(&[b'x'; 4_000])].concat();
    let full = header(1, HEADERS | CORRELATION_ID, &[long(&entry), short(b"\xe9")]);
    let mut frames = Frames::new(Some(4_096));
    let mut out = Vec::new();
    frames.pass(&full, &mut out);
    assert!(full.len() <= 4_096 && out.len() <= 4_096, "{} {}", full.len(), out.len());
    assert_eq!(flaw(&only_header(&out)), Some(Flaw::Encoding("correlation_id")));
}

#[test]
fn the_largest_frame_is_the_smaller_of_what_both_sides_ask_for() {
    let check = |asked, offered, size: usize, fits: bool| {
        let mut frames = Frames::new(asked);
        let mut out = Vec::new();
        frames.pass(&tune(offered), &mut out);
        out.clear();
        let text = [&short(b"a")[..], b"S", &long(&vec![b'x'; size])].concat();
        let bytes = header(1, HEADERS, &[long(&text)]);
        frames.pass(&bytes, &mut out);
        assert_eq!(out == bytes, fits, "{asked:?} {offered}");
    };
    check(None, 131_072, 131_000, true);
    check(None, 131_072, 132_000, false);
    check(Some(32_768), 131_072, 33_000, false);
    check(Some(131_072), 8_192, 9_000, false);
    check(Some(32_768), 0, 32_000, true);
    check(None, 0, 1_000_000, true);
}

#[test]
fn a_routing_key_that_is_not_utf_8_marks_the_message_behind_it() {
    let good = header(1, MESSAGE_ID, &[short(b"m")]);
    let other = [deliver(2, b"cards.payment.create"), header(2, MESSAGE_ID, &[short(b"m")])].concat();
    let bytes =
        [deliver(1, b"caf\xe9.payment.create"), other.clone(), good.clone(), frame(BODY, 1, b"1234567")].concat();
    let out = passed(&bytes);
    let first = deliver(1, b"caf?.payment.create");
    assert!(out.starts_with(&[first, other].concat()), "the channel between them is left alone");
    let frames = read(&out).expect("lapin reads it");
    let Some(AMQPFrame::Header(1, header)) = frames.get(3) else { panic!("{frames:?}") };
    assert_eq!(flaw(&header.properties), Some(Flaw::Encoding("routing_key")));
    let next = [deliver(1, b"cards.payment.create"), good].concat();
    let mut both = Vec::new();
    let mut frames = Frames::new(None);
    frames.pass(&bytes, &mut both);
    both.clear();
    frames.pass(&next, &mut both);
    assert_eq!(both, next, "and so is the next message");
}

#[test]
fn a_refusal_that_was_cut_within_a_character_can_be_read() {
    let close = frame(METHOD, 1, &[&[0, 20, 0, 40, 1, 0x94][..], &short(b"no queue '\xc3"), &[0, 50, 0, 10]].concat());
    assert_eq!(read(&close), None);
    let out = passed(&close);
    assert_eq!(out.len(), close.len());
    assert!(read(&out).is_some());
}

#[test]
fn all_other_frames_pass() {
    let frames = [
        b"AMQP\x00\x00\x09\x01".to_vec(),
        frame(8, 0, b""),
        frame(BODY, 1, b"caf\xe9"),
        frame(BODY, 1, &vec![0xce; 200_000]),
        frame(METHOD, 1, b""),
        frame(METHOD, 1, b"\x00\x3c\x00\x3c\xff"),
        frame(HEADER, 1, b"short"),
        frame(77, 1, b"unknown"),
    ];
    let bytes = frames.concat();
    assert_eq!(passed(&bytes), bytes);
}

#[test]
fn a_flaw_is_read_back_from_its_marker() {
    for flaw in Flaw::all().chain([0, 7, u64::MAX].map(Flaw::Body)) {
        assert_eq!(Flaw::read(flaw.to_string().as_bytes()).map(|flaw| flaw.to_string()), Some(flaw.to_string()));
    }
    let strangers = header(1, HEADERS, &[long(&[&short(MARKER.as_bytes())[..], b"S", &long(b"other words")].concat())]);
    assert_eq!(passed(&strangers), strangers);
    assert_eq!(flaw(&only_header(&strangers)), None);
}

/// A message on this channel whose body comes in frames of 100 bytes.
fn message(channel: u16, size: usize) -> Vec<u8> {
    let mut payload = vec![0, 60, 0, 0];
    payload.extend((size as u64).to_be_bytes());
    payload.extend(MESSAGE_ID.to_be_bytes());
    payload.extend(short(b"m"));
    let body: Vec<u8> = vec![b'x'; size].chunks(100).flat_map(|part| frame(BODY, channel, part)).collect();
    [deliver(channel, b"cards.payment.create"), frame(HEADER, channel, &payload), body].concat()
}

#[test]
fn a_body_that_is_too_large_is_left_out_and_its_size_reported() {
    let mut frames = Frames::new(None).bodies_up_to(1_000);
    let mut pass = |bytes: &[u8]| {
        let mut out = Vec::new();
        frames.pass(bytes, &mut out);
        out
    };
    assert_eq!(pass(&message(1, 1_000)), message(1, 1_000));
    for size in [1_001, 12_345, 1_000_000] {
        let frames = read(&pass(&message(1, size))).expect("lapin reads it");
        let [AMQPFrame::Method(1, _), AMQPFrame::Header(1, header)] = &frames[..] else { panic!("{frames:?}") };
        assert_eq!((header.class_id, header.body_size), (60, 0));
        assert_eq!(flaw(&header.properties), Some(Flaw::Body(size as u64)));
        assert_eq!(header.properties.message_id().as_ref().map(|id| id.as_str()), Some("m"));
        assert_eq!(pass(&message(1, 7)), message(1, 7), "the next message is whole");
    }
}

#[test]
fn the_messages_of_other_channels_between_the_frames_of_a_large_body_are_whole() {
    let mut frames = Frames::new(None).bodies_up_to(1_000);
    let large = message(1, 2_000);
    let mut passed = Vec::new();
    for at in 0..large.len() {
        frames.pass(&large[at..=at], &mut passed);
        // Between two frames of the body.
        if at + 1 == large.len() - 108 {
            let mut out = Vec::new();
            frames.pass(&message(2, 500), &mut out);
            assert_eq!(out, message(2, 500));
        }
    }
    assert!(read(&passed).is_some_and(|frames| frames.len() == 2));
}

#[test]
fn a_body_that_the_broker_ends_early_takes_nothing_from_the_next() {
    let mut frames = Frames::new(None).bodies_up_to(1_000);
    let (large, mut out) = (message(1, 2_000), Vec::new());
    frames.pass(&large[..large.len() - 108], &mut out);
    out.clear();
    frames.pass(&message(1, 300), &mut out);
    assert_eq!(out, message(1, 300));
}

/// Whatever else is wrong with a message, its body must not be collected.
#[test]
fn a_header_that_cannot_be_read_leaves_out_a_large_body_too() {
    let mut frames = Frames::new(Some(4_096)).bodies_up_to(6);
    for headers in [nested(100), long(&[&short(b"a")[..], b"S", &long(&[0; 5_000])].concat())] {
        let bytes = [header(1, HEADERS, &[headers]), frame(BODY, 1, b"1234567")].concat();
        let mut out = Vec::new();
        frames.pass(&bytes, &mut out);
        let parsed = read(&out).expect("lapin reads it");
        let [AMQPFrame::Header(1, header)] = &parsed[..] else { panic!("{parsed:?}") };
        assert_eq!((header.body_size, flaw(&header.properties)), (0, Some(Flaw::Body(7))));
    }
}

/// A stream of pieces that is pending before each of them.
struct Pieces {
    left: Vec<Vec<u8>>,
    was_pending: bool,
}

impl AsyncRead for Pieces {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.was_pending = !self.was_pending;
        if self.was_pending {
            return Poll::Pending;
        }
        if self.left.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let piece = self.left.remove(0);
        buffer[..piece.len()].copy_from_slice(&piece);
        Poll::Ready(Ok(piece.len()))
    }
}

#[test]
fn the_stream_ends_only_when_the_broker_hangs_up() {
    let bytes = [deliver(1, b"caf\xe9"), header(1, HEADERS, &[nested(100)]), frame(BODY, 1, b"1234567")].concat();
    let pieces = bytes.chunks(5).map(<[u8]>::to_vec).collect();
    let mut guard = Guard::new(Pieces { left: pieces, was_pending: false }, Frames::new(None));
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let (mut read, mut buffer, mut pending) = (Vec::<u8>::new(), [0; 16], 0);
    loop {
        match Pin::new(&mut guard).poll_read(&mut cx, &mut buffer) {
            Poll::Pending => pending += 1,
            Poll::Ready(Ok(0)) => break,
            Poll::Ready(Ok(count)) => read.extend(&buffer[..count]),
            Poll::Ready(Err(error)) => panic!("{error}"),
        }
    }
    assert_eq!(read, passed(&bytes));
    assert!(pending > 100, "{pending}");
}
