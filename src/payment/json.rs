//! JSON texts.

use serde::Serialize;

/// What an event or a request of a usual payment takes: most texts are written without growing once.
const USUAL_BYTES: usize = 1536;

/// Writes a value whose members are strings, numbers and maps with string keys, which JSON can always hold; anything else
/// would be the empty text.
pub fn write(value: &impl Serialize) -> String {
    let mut text = Vec::with_capacity(USUAL_BYTES);
    match serde_json::to_writer(&mut text, value) {
        Ok(()) => String::from_utf8(text).unwrap_or_default(),
        Err(_) => String::new(),
    }
}
