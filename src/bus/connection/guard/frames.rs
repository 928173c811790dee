//! Splits the broker's bytes into frames and repairs those that lapin cannot read. All others pass unchanged.

use std::collections::BTreeMap;

use super::flaw::Flaw;
use super::header::{self, Header};
use super::method;

/// The length of a frame's head: type, channel and size of the payload.
const HEAD: usize = 7;
/// The length of what surrounds a payload: the head, and the byte that ends the frame.
const SURROUND: usize = HEAD + 1;
const END: u8 = 0xce;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
/// The first of 8 bytes from a broker that speaks another protocol.
const PROTOCOL_HEADER: u8 = b'A';

/// The smallest limit for frames that AMQP allows, in bytes.
const FRAME_MIN: u32 = 4096;
/// The largest frame before a limit is negotiated, in bytes.
const FRAME_DEFAULT: u32 = 128 * 1024;

/// The frames that a broker sends on one connection. At most one method or content header is held back until it is
/// complete: no more than the largest negotiated frame.
#[derive(Debug)]
pub struct Frames {
    /// The largest frame that lapin requests, in bytes; 0 leaves it to the broker.
    asked: u32,
    /// The largest frame that lapin accepts, in bytes.
    frame_max: usize,
    /// The beginning of a frame that is not complete yet.
    buffered: Vec<u8>,
    /// How many bytes must be held before the frame is examined again.
    wanted: usize,
    /// How many bytes of the current frame are still to be passed on without a check.
    passing: usize,
    /// How many bytes of the current frame are still to be left out.
    skipping: usize,
    /// By channel, the flaw of a method whose content header follows.
    flaws: BTreeMap<u16, Flaw>,
    /// The largest body that is passed on, in bytes.
    body_max: u64,
    /// By channel, how many bytes of a larger body are still to be left out.
    oversized: BTreeMap<u16, u64>,
}

/// The result of examining the beginning of a frame.
enum Step {
    /// This many bytes were consumed.
    Taken(usize),
    /// No bytes were consumed: the frame can be judged only from this many bytes.
    Wanted(usize),
}

/// The head of a frame.
#[derive(Debug, Clone, Copy)]
struct Head {
    kind: u8,
    channel: u16,
    /// The length of the whole frame, in bytes.
    length: usize,
}

impl Head {
    fn read(bytes: &[u8]) -> Option<Head> {
        let [kind, c0, c1, s0, s1, s2, s3] = *bytes.first_chunk::<HEAD>()?;
        let size = if kind == PROTOCOL_HEADER { 0 } else { u32::from_be_bytes([s0, s1, s2, s3]) };
        let length = usize::try_from(size).ok()?.saturating_add(SURROUND);
        Some(Head { kind, channel: u16::from_be_bytes([c0, c1]), length })
    }
}

impl Frames {
    /// Starts a new connection, for which lapin requests frames of at most `frame_max` bytes.
    pub fn new(frame_max: Option<u32>) -> Frames {
        let asked = frame_max.unwrap_or(0);
        Frames {
            asked,
            frame_max: agreed(asked, FRAME_DEFAULT),
            buffered: Vec::new(),
            wanted: 0,
            passing: 0,
            skipping: 0,
            flaws: BTreeMap::new(),
            body_max: u64::MAX,
            oversized: BTreeMap::new(),
        }
    }

    /// Also leaves out bodies of more than `max` bytes, so that they are never in memory. lapin sees an empty body, and
    /// the message is marked with the original size.
    pub fn bodies_up_to(self, max: u64) -> Frames {
        Frames { body_max: max, ..self }
    }

    /// Consumes the next bytes and appends to `out` what lapin may read.
    pub fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.passing > 0 {
                out.extend_from_slice(up_to(&mut rest, &mut self.passing));
            } else if self.skipping > 0 {
                up_to(&mut rest, &mut self.skipping);
            } else if self.buffered.is_empty() {
                match self.step(rest, out) {
                    Step::Taken(count) => rest = &rest[count..],
                    Step::Wanted(count) => {
                        self.wanted = count;
                        self.buffered.extend_from_slice(rest);
                        return;
                    }
                }
            } else {
                self.buffer(&mut rest, out);
            }
        }
    }

    /// Continues a frame that is held back.
    fn buffer(&mut self, rest: &mut &[u8], out: &mut Vec<u8>) {
        let mut missing = self.wanted - self.buffered.len();
        self.buffered.extend_from_slice(up_to(rest, &mut missing));
        if missing > 0 {
            return;
        }
        let mut buffered = std::mem::take(&mut self.buffered);
        match self.step(&buffered, out) {
            // All of it was consumed: no more is held than is wanted.
            Step::Taken(_) => buffered.clear(),
            Step::Wanted(count) => self.wanted = count,
        }
        self.buffered = buffered;
    }

    /// Examines bytes that begin with a frame.
    fn step(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Step {
        let Some(head) = Head::read(bytes) else { return Step::Wanted(HEAD) };
        match head.kind {
            METHOD | HEADER if head.length <= self.frame_max => {
                let Some(frame) = bytes.get(..head.length) else { return Step::Wanted(head.length) };
                match head.kind {
                    METHOD => self.method(head, frame, out),
                    _ => self.header(head, frame, out),
                }
                Step::Taken(head.length)
            }
            // RabbitMQ does not split a header, however large its own additions made it.
            HEADER => {
                let begin = HEAD + header::PREFIX;
                let Some(prefix) = bytes.get(HEAD..begin) else { return Step::Wanted(begin) };
                self.flaws.remove(&head.channel);
                let header = Header::bare(prefix);
                let flaw = self.too_large(head.channel, &header).unwrap_or(Flaw::Size);
                self.write(head, &header, flaw, out);
                self.skipping = head.length - begin;
                Step::Taken(begin)
            }
            BODY if self.oversized.contains_key(&head.channel) => {
                self.leave_out(head);
                self.skipping = head.length - HEAD;
                Step::Taken(HEAD)
            }
            _ => {
                out.extend_from_slice(&bytes[..HEAD]);
                self.passing = head.length - HEAD;
                Step::Taken(HEAD)
            }
        }
    }

    fn method(&mut self, head: Head, frame: &[u8], out: &mut Vec<u8>) {
        // If part of a body was still to come, the broker no longer sends it.
        self.oversized.remove(&head.channel);
        let start = out.len();
        out.extend_from_slice(frame);
        let payload = &mut out[start + HEAD..start + head.length - 1];
        let flaw = method::repair(payload);
        match *payload {
            // connection.tune: the broker's limits for channels and frames
            [0, 10, 0, 30, _, _, f0, f1, f2, f3, ..] => {
                self.frame_max = agreed(self.asked, u32::from_be_bytes([f0, f1, f2, f3]));
            }
            [c0, c1, m0, m1, ..] if method::has_content([c0, c1, m0, m1]) => {
                self.flaws.remove(&head.channel);
                self.flaws.extend(flaw.map(|flaw| (head.channel, flaw)));
            }
            _ => {}
        }
    }

    fn header(&mut self, head: Head, frame: &[u8], out: &mut Vec<u8>) {
        let of_method = self.flaws.remove(&head.channel);
        let header = Header::read(&frame[HEAD..head.length - 1]);
        let too_large = header.as_ref().and_then(|header| self.too_large(head.channel, header));
        let flaw = too_large.or(of_method).or(header.as_ref().and_then(|header| header.flaw));
        match (header, flaw) {
            (Some(header), Some(flaw)) => self.write(head, &header, flaw, out),
            _ => out.extend_from_slice(frame),
        }
    }

    /// Checks whether the body that follows a header is too large; if so, none of it is passed on.
    fn too_large(&mut self, channel: u16, header: &Header<'_>) -> Option<Flaw> {
        let size = header.body_size();
        self.oversized.remove(&channel);
        (size > self.body_max).then(|| {
            self.oversized.insert(channel, size);
            Flaw::Body(size)
        })
    }

    /// Counts down a frame of a body that is left out.
    fn leave_out(&mut self, head: Head) {
        let size = (head.length - SURROUND) as u64;
        let left = self.oversized.get(&head.channel).map_or(0, |left| left.saturating_sub(size));
        if left == 0 {
            self.oversized.remove(&head.channel);
        } else {
            self.oversized.insert(head.channel, left);
        }
    }

    /// Writes a repaired content header in place of the original one.
    fn write(&self, head: Head, header: &Header<'_>, flaw: Flaw, out: &mut Vec<u8>) {
        let payload = header.repaired(flaw, self.frame_max - SURROUND);
        out.push(head.kind);
        out.extend_from_slice(&head.channel.to_be_bytes());
        out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        out.extend_from_slice(&payload);
        out.push(END);
    }
}

/// Returns the largest frame that lapin accepts, in bytes: the smaller of the two, where 0 means any size.
fn agreed(asked: u32, offered: u32) -> usize {
    let sizes = [asked, offered].into_iter().filter(|size| *size != 0);
    sizes.min().unwrap_or(u32::MAX).max(FRAME_MIN) as usize
}

/// Splits off up to `count` bytes and counts them down.
fn up_to<'a>(rest: &mut &'a [u8], count: &mut usize) -> &'a [u8] {
    let (taken, behind) = rest.split_at(rest.len().min(*count));
    *count -= taken.len();
    *rest = behind;
    taken
}
