//! The broker's methods that contain text.

use self::Argument::{Octets, Text};
use super::flaw::Flaw;

/// An argument of a method.
#[derive(Debug, Clone, Copy)]
enum Argument {
    /// This many bytes.
    Octets(usize),
    /// A short string with this name.
    Text(&'static str),
}

const DELIVER: &[Argument] = &[Text("consumer_tag"), Octets(9), Text("exchange"), Text("routing_key")];
const GET_OK: &[Argument] = &[Octets(9), Text("exchange"), Text("routing_key")];
const RETURN: &[Argument] = &[Octets(2), Text("reply_text"), Text("exchange"), Text("routing_key")];
/// RabbitMQ cuts the text off after 252 bytes, even within a character.
const CLOSE: &[Argument] = &[Octets(2), Text("reply_text")];
const BLOCKED: &[Argument] = &[Text("reason")];
const DECLARED: &[Argument] = &[Text("queue")];
const CONSUMER: &[Argument] = &[Text("consumer_tag")];

/// Returns the arguments of a method up to its last text, by the ids of its class and of the method.
fn arguments(ids: [u8; 4]) -> &'static [Argument] {
    match ids {
        [0, 60, 0, 60] => DELIVER,
        [0, 60, 0, 71] => GET_OK,
        [0, 60, 0, 50] => RETURN,
        // connection.close and channel.close
        [0, 10, 0, 50] | [0, 20, 0, 40] => CLOSE,
        [0, 10, 0, 60] => BLOCKED,
        [0, 50, 0, 11] => DECLARED,
        // basic.consume-ok, basic.cancel and basic.cancel-ok
        [0, 60, 0, 21 | 30 | 31] => CONSUMER,
        _ => &[],
    }
}

/// Returns whether a content header follows: basic.return, basic.deliver and basic.get-ok.
pub(in crate::bus) fn has_content(ids: [u8; 4]) -> bool {
    matches!(ids, [0, 60, 0, 50 | 60 | 71])
}

/// Returns the names of the texts in methods that have content.
pub(in crate::bus) fn texts() -> impl Iterator<Item = &'static str> {
    DELIVER.iter().chain(RETURN).filter_map(|argument| match argument {
        Text(name) => Some(*name),
        Octets(_) => None,
    })
}

/// Replaces every byte that is not ASCII by a question mark in texts that are not UTF-8, so that their lengths stay the
/// same. Returns the first such text.
pub(in crate::bus) fn repair(payload: &mut [u8]) -> Option<Flaw> {
    let (ids, mut rest) = payload.split_first_chunk_mut()?;
    let mut flaw = None;
    for argument in arguments(*ids) {
        match argument {
            Octets(count) => {
                rest.split_off_mut(..*count)?;
            }
            Text(name) => {
                let length = usize::from(*rest.split_off_first_mut()?);
                let text = rest.split_off_mut(..length)?;
                if std::str::from_utf8(text).is_err() {
                    text.iter_mut().filter(|byte| !byte.is_ascii()).for_each(|byte| *byte = b'?');
                    flaw = flaw.or(Some(Flaw::Encoding(name)));
                }
            }
        }
    }
    flaw
}
