//! Repairs what a broker sends: lapin can read whatever comes of it, and a message without a marker is the one that was
//! sent.
//!
//! The first byte says what the rest is: the properties of a message, its routing key, its body, or bytes of a stream.

#![no_main]

use amq_protocol::frame::{AMQPFrame, parse_frame};
use amq_protocol::types::AMQPValue;
use libfuzzer_sys::fuzz_target;
use paybus::bus::connection::guard::{Flaw, Frames, MARKER};

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
/// Class 60, and a body of 7 bytes.
const PREFIX: [u8; 12] = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let size = (payload.len() as u32).to_be_bytes();
    [&[kind, 0, 1][..], &size, payload, &[0xce]].concat()
}

/// The largest body that is passed on, in bytes.
const BODY_MAX: u64 = 64;

fn passed(pieces: &[&[u8]]) -> Vec<u8> {
    let (mut frames, mut out) = (Frames::new(None).bodies_up_to(BODY_MAX), Vec::new());
    pieces.iter().for_each(|piece| frames.pass(piece, &mut out));
    out
}

/// What lapin reads; `None` where it would close the connection.
fn read(mut bytes: &[u8]) -> Option<Vec<AMQPFrame>> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (rest, frame) = parse_frame(bytes).ok()?;
        frames.push(frame);
        bytes = rest;
    }
    Some(frames)
}

fn flaw(frames: &[AMQPFrame]) -> Option<Flaw> {
    let Some(AMQPFrame::Header(1, header)) = frames.last() else { panic!("no content header: {frames:?}") };
    assert_eq!((header.class_id, header.body_size), (60, 7));
    match header.properties.headers().as_ref()?.inner().get(MARKER)? {
        AMQPValue::LongString(text) => Flaw::read(text.as_bytes()),
        _ => None,
    }
}

fn check(sent: &[u8]) {
    let out = passed(&[sent]);
    let frames = read(&out).expect("lapin can read it");
    if flaw(&frames).is_none() {
        assert!(out == sent, "it was changed and not marked");
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind {
        b'p' => check(&frame(HEADER, &[&PREFIX[..], bytes].concat())),
        b'r' => {
            let key = &bytes[..bytes.len().min(255)];
            let method = [&[0, 60, 0, 71][..], &[0; 9], &[0, key.len() as u8], key, &[0; 4]].concat();
            check(&[frame(METHOD, &method), frame(HEADER, &[&PREFIX[..], &[0, 0]].concat())].concat());
        }
        b'b' => {
            let header = [&[0, 60, 0, 0][..], &(bytes.len() as u64).to_be_bytes(), &[0, 0]].concat();
            let parts: Vec<u8> = bytes.chunks(50).flat_map(|part| frame(BODY, part)).collect();
            let sent = [frame(HEADER, &header), parts].concat();
            let out = passed(&[&sent]);
            let frames = read(&out).expect("lapin can read it");
            if bytes.len() as u64 <= BODY_MAX {
                assert!(out == sent, "a body that is not too large was changed");
            } else {
                let [AMQPFrame::Header(1, header)] = &frames[..] else { panic!("a body was passed on: {frames:?}") };
                assert_eq!(header.body_size, 0);
            }
        }
        size => {
            let pieces: Vec<&[u8]> = bytes.chunks(usize::from(*size).max(1)).collect();
            assert!(passed(&pieces) == passed(&[bytes]), "the pieces make a difference");
        }
    }
});
