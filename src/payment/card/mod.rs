//! Card numbers in text: a command that contains one is rejected; in all other stored text they are scrubbed.
//!
//! A card number is a sequence of digits from a range that a network issues, with a valid check digit (Luhn), written
//! in one of the ways people and programs write them. Other numbers look the same: a miss leaks a card, a false
//! positive costs a payment. `docs/security.md` says what is found, what is not, and both rates; the tests enforce
//! them.
//!
//! - `plain` reads the text: digits of any script, invisible characters dropped, with or without escapes decoded
//!   (`escape`).
//! - `rule` groups the digits and decides; `number` knows what networks issue, `lookalike` other kinds of numbers.
//! - `encoded` decodes base64 and searches the result.
//!
//! Everything runs in time linear in the length of the text.

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

/// Replaces a card number.
const REPLACEMENT: &str = "[card number]";

/// Maximum nesting depth of base64 within base64 that is decoded.
const BASE64_LEVELS: usize = 2;

/// Maximum number of passes: a replacement may reveal another number.
const ROUNDS: usize = 4;

/// Returns whether `text` contains a card number.
pub fn contains_card_number(text: &str) -> bool {
    contains_card(text, BASE64_LEVELS)
}

/// Returns `text` with each card number replaced by `[card number]`; borrowed if there is none.
pub fn scrub(text: &str) -> Cow<'_, str> {
    let mut scrubbed = Cow::Borrowed(text);
    for _ in 0..ROUNDS {
        let found = find(&scrubbed);
        if found.is_empty() {
            return scrubbed;
        }
        scrubbed = Cow::Owned(replaced(&scrubbed, &found));
    }
    // Every pass revealed another number: give up and drop the whole text.
    Cow::Owned(REPLACEMENT.to_owned())
}

fn contains_card(text: &str, levels: usize) -> bool {
    let contains =
        |plain: Plain<'_>| !rule::card_numbers(&plain.bytes).is_empty() || !in_base64(&plain, levels).is_empty();
    contains(Plain::written(text)) || Plain::decoded(text).is_some_and(contains)
}

fn in_base64(plain: &Plain<'_>, levels: usize) -> Vec<Range<usize>> {
    match levels.checked_sub(1) {
        Some(levels) => encoded::card_numbers(&plain.bytes, |text| contains_card(text, levels)),
        None => Vec::new(),
    }
}

/// Returns the byte ranges of card numbers in `text`, both as written and with its escapes decoded. Ranges may overlap.
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
