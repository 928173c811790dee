//! Card numbers in text: a command that holds one is refused, and they are scrubbed from all other text that is kept.
//!
//! A card number is a sequence of digits that a network issues, with a valid check digit (Luhn), written in one of the
//! ways that people and programs write them. Other numbers look the same: a miss leaks a card, a false alarm costs a
//! payment. What is found, what is not, and both rates are in `docs/security.md`, and the tests hold them.
//!
//! - `plain` reads the text: any script's digits, without invisible characters, with or without its escapes undone
//!   (`escape`).
//! - `rule` groups the digits and decides; `number` knows what networks issue, `lookalike` other kinds of numbers.
//! - `encoded` decodes base64, and searches that in turn.
//!
//! All of it takes time linear in the text's length.

use std::borrow::Cow;
use std::ops::Range;

use self::plain::Plain;

mod encoded;
mod escape;
mod lookalike;
mod number;
mod plain;
mod rule;
#[cfg(test)]
mod tests;

/// What stands where a card number stood.
const REPLACEMENT: &str = "[card number]";

/// How deep base64 within base64 is read.
const BASE64_LEVELS: usize = 2;

/// How often a text is searched again after something in it was replaced.
const ROUNDS: usize = 4;

/// Whether a card number stands in `text`.
pub fn contains_card_number(text: &str) -> bool {
    holds_card(text, BASE64_LEVELS)
}

/// `text` with `[card number]` in the place of each card number; borrowed if there is none.
pub fn scrub(text: &str) -> Cow<'_, str> {
    let mut scrubbed = Cow::Borrowed(text);
    for _ in 0..ROUNDS {
        let found = find(&scrubbed);
        if found.is_empty() {
            return scrubbed;
        }
        scrubbed = Cow::Owned(replaced(&scrubbed, &found));
    }
    // What is left reads as another number each time.
    Cow::Owned(REPLACEMENT.to_owned())
}

fn holds_card(text: &str, levels: usize) -> bool {
    let holds =
        |plain: Plain<'_>| !rule::card_numbers(&plain.bytes).is_empty() || !in_base64(&plain, levels).is_empty();
    holds(Plain::written(text)) || Plain::decoded(text).is_some_and(holds)
}

fn in_base64(plain: &Plain<'_>, levels: usize) -> Vec<Range<usize>> {
    match levels.checked_sub(1) {
        Some(levels) => encoded::card_numbers(&plain.bytes, |text| holds_card(text, levels)),
        None => Vec::new(),
    }
}

/// Where card numbers stand in `text`, in bytes: in the text as it is written, and as it reads without its escapes. The
/// ranges may overlap.
fn find(text: &str) -> Vec<Range<usize>> {
    let find = |plain: Plain<'_>| {
        let numbers = rule::card_numbers(&plain.bytes);
        let words = in_base64(&plain, BASE64_LEVELS);
        [plain.in_text(numbers), plain.in_text(words)].concat()
    };
    let mut found = find(Plain::written(text));
    found.extend(Plain::decoded(text).into_iter().flat_map(find));
    found.sort_by_key(|range| range.start);
    found
}

fn replaced(text: &str, found: &[Range<usize>]) -> String {
    let mut replaced = String::with_capacity(text.len());
    let mut copied = 0;
    for range in found {
        if range.start >= copied {
            replaced.push_str(&text[copied..range.start]);
            replaced.push_str(REPLACEMENT);
        }
        copied = copied.max(range.end);
    }
    replaced.push_str(&text[copied..]);
    replaced
}
