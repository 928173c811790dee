//! Card numbers in text: found, so that a command that holds one is refused, and scrubbed from what gateways say.
//!
//! A card number here is what somebody could pay with: a known network's prefix and length, a valid check digit (Luhn),
//! and written as people write cards: in one piece, in fours (a shorter last group), 4-6-5, 4-6-4 or 6-13, parted by
//! single spaces or dashes. A false alarm costs a payment and a miss leaks a card, so the surroundings count:
//!
//! - Digits that are part of something longer are no card: with a letter, a digit or `_` beside them, joined by a dash
//!   to more of a word (a UUID), in a decimal fraction, or between slashes or pluses of a path or of base64.
//! - But one between `B` and `^` is the first track of a magnetic stripe, and one before `=` may be the second.
//! - An international bank account number (IBAN) whose check digits are right is no card, nor is a telephone number
//!   with its `+` (at most 15 digits), nor an unbroken 13 digits that are a valid bar code (Visa issues no 13 digits
//!   any more; German bar codes begin with 4, too).
//! - Maestro's range (12 to 19 digits, everything that begins with 6) would take a tenth of all order numbers. Below 16
//!   digits only its published issuer prefixes count, and only in groups of four; from 16 on the whole range counts.
//!
//! What remains cannot be told apart: an order number of 16 digits that begins as a card does and ends in the right
//! digit (one in ten; always, where the number carries a Luhn digit of its own). Only ASCII digits are read, and
//! nothing is decoded: no percent-encoding, no base64, no `\u` escapes.

use std::borrow::Cow;
use std::ops::{Range, RangeInclusive};

use self::number::{DIGITS_MAX, DIGITS_MIN, is_card, modulo_97};

mod number;

/// What stands where a card number stood.
const REPLACEMENT: &str = "[card number]";

const GROUPS_MAX: usize = 5;
const TELEPHONE_DIGITS_MAX: usize = 15;

/// Letters and digits of an IBAN: Norway's 15 to the standard's 34.
const IBAN_LENGTH: RangeInclusive<usize> = 15..=34;

/// Whether a card number stands in `text`.
pub fn contains_card_number(text: &str) -> bool {
    find_card_number(text).is_some()
}

/// Where the first card number stands in `text`, in bytes, from its first digit to its last. Takes linear time.
pub fn find_card_number(text: &str) -> Option<Range<usize>> {
    let has_enough_digits = text.bytes().filter(u8::is_ascii_digit).nth(DIGITS_MIN - 1).is_some();
    if has_enough_digits { next_card(text.as_bytes(), 0) } else { None }
}

/// `text` with `[card number]` in the place of each card number; borrowed where there is none.
pub fn scrub(text: &str) -> Cow<'_, str> {
    let mut next = find_card_number(text);
    if next.is_none() {
        return Cow::Borrowed(text);
    }
    let mut scrubbed = String::with_capacity(text.len());
    let mut copied = 0;
    while let Some(card) = next {
        scrubbed.push_str(&text[copied..card.start]);
        scrubbed.push_str(REPLACEMENT);
        copied = card.end;
        next = next_card(text.as_bytes(), copied);
    }
    scrubbed.push_str(&text[copied..]);
    Cow::Owned(scrubbed)
}

/// The first card at or after `from`, which must not part two digits.
fn next_card(bytes: &[u8], from: usize) -> Option<Range<usize>> {
    let mut at = from;
    loop {
        let start = at + bytes[at..].iter().position(u8::is_ascii_digit)?;
        if let Some(end) = iban_end(bytes, start) {
            at = end;
        } else if let Some(end) = card_end(bytes, start) {
            return Some(start..end);
        } else {
            at = end_of_digits(bytes, start);
        }
    }
}

/// Where the longest card number ends that begins with the group of digits at `start`. Looks at no more than
/// [`GROUPS_MAX`] groups, which keeps the whole scan linear.
fn card_end(bytes: &[u8], start: usize) -> Option<usize> {
    let glued = glued_before(bytes, start);
    // The first track of a magnetic stripe, "%B4242...^": its format code stands right before the number.
    let may_be_track = matches!(before(bytes, start, 1), b'B' | b'b');
    if glued && !may_be_track {
        return None;
    }
    let (mut digits, mut digit_count) = ([0; DIGITS_MAX], 0);
    let (mut groups, mut group_count) = ([0; GROUPS_MAX], 0);
    let (mut at, mut found) = (start, None);
    while group_count < GROUPS_MAX {
        let end = end_of_digits(bytes, at);
        if digit_count + (end - at) > DIGITS_MAX {
            break;
        }
        for digit in &bytes[at..end] {
            digits[digit_count] = digit - b'0';
            digit_count += 1;
        }
        groups[group_count] = end - at;
        group_count += 1;
        let stands_alone = !glued || after(bytes, end) == b'^';
        if stands_alone
            && is_card(&digits[..digit_count], &groups[..group_count])
            && !part_of_more(bytes, start..end, digit_count)
        {
            found = Some(end);
        }
        match separator_length(&bytes[end..]) {
            Some(length) if bytes.get(end + length).is_some_and(u8::is_ascii_digit) => at = end + length,
            _ => break,
        }
    }
    found
}

fn end_of_digits(bytes: &[u8], start: usize) -> usize {
    bytes[start..].iter().position(|byte| !byte.is_ascii_digit()).map_or(bytes.len(), |length| start + length)
}

/// Bytes of the space or dash that `bytes` begins with: those of the keyboard, and those that word processors and web
/// pages make of them (no-break space, narrow no-break space, no-break hyphen, en dash).
fn separator_length(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [b' ' | b'-', ..] => Some(1),
        [0xc2, 0xa0, ..] => Some(2),
        [0xe2, 0x80, 0x91 | 0x93 | 0xaf, ..] => Some(3),
        _ => None,
    }
}

/// The byte `distance` before `at`; a space where the text begins.
fn before(bytes: &[u8], at: usize, distance: usize) -> u8 {
    at.checked_sub(distance).map_or(b' ', |index| bytes[index])
}

/// The byte at `at`; a space where the text ends.
fn after(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(b' ')
}

/// Only ASCII makes identifiers: a letter of another script beside a number is a sentence without spaces.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Whether what stands before `start` belongs to the same token.
fn glued_before(bytes: &[u8], start: usize) -> bool {
    match (before(bytes, start, 2), before(bytes, start, 1)) {
        // The end of an escape in raw JSON, as in "\n4242...".
        (b'\\', b'n' | b'r' | b't' | b'b' | b'f') => false,
        (far, b'-') => is_word(far),
        (far, b'.') => far.is_ascii_digit(),
        (_, near) => is_word(near),
    }
}

/// Whether the digits are only a part, or another kind, of number: what follows belongs to the same token, a telephone
/// number, a segment of a path or of base64.
fn part_of_more(bytes: &[u8], range: Range<usize>, digit_count: usize) -> bool {
    let (far_before, near_before) = (before(bytes, range.start, 2), before(bytes, range.start, 1));
    let (near_after, far_after) = (after(bytes, range.end), after(bytes, range.end + 1));
    let glued_after = match near_after {
        b'-' => is_word(far_after),
        b'.' => far_after.is_ascii_digit(),
        near => is_word(near),
    };
    let is_telephone = near_before == b'+' && digit_count <= TELEPHONE_DIGITS_MAX;
    // Letters on both sides: a date or another card beside a slash must not hide a card.
    let is_segment = matches!((near_before, near_after), (b'/' | b'+', b'/' | b'+'))
        && far_before.is_ascii_alphabetic()
        && far_after.is_ascii_alphabetic();
    glued_after || is_telephone || is_segment
}

/// Where the IBAN ends whose two check digits are at `start`, behind the two letters of its country; nothing where its
/// checksum (ISO 7064, modulo 97) is wrong. Written in one piece or with single spaces.
fn iban_end(bytes: &[u8], start: usize) -> Option<usize> {
    let begin = start.checked_sub(2)?;
    let head = bytes.get(begin..begin + 4)?;
    let is_head = matches!(head, [a, b, c, d]
        if a.is_ascii_uppercase() && b.is_ascii_uppercase() && c.is_ascii_digit() && d.is_ascii_digit());
    if !is_head || is_word(before(bytes, begin, 1)) {
        return None;
    }
    let (mut at, mut length, mut remainder) = (begin + 4, 4, 0);
    while length < *IBAN_LENGTH.end() {
        let skipped = usize::from(after(bytes, at) == b' ');
        let character = after(bytes, at + skipped);
        if !character.is_ascii_alphanumeric() {
            return None;
        }
        remainder = modulo_97(remainder, character);
        at += skipped + 1;
        length += 1;
        let is_valid = head.iter().fold(remainder, |remainder, byte| modulo_97(remainder, *byte)) == 1;
        if is_valid && IBAN_LENGTH.contains(&length) && !is_word(after(bytes, at)) {
            return Some(at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each `|card|` in the text is marked; the scanner must find those and no others.
    fn check(marked: &str) {
        let text = marked.replace('|', "");
        let scrubbed: String = marked
            .split('|')
            .enumerate()
            .map(|(index, part)| if index % 2 == 1 { REPLACEMENT } else { part })
            .collect();
        assert_eq!(scrub(&text), scrubbed, "{text}");
        assert_eq!(contains_card_number(&text), marked.contains('|'), "{text}");
        let first = marked.find('|').map(|start| start..start + marked.split('|').nth(1).unwrap().len());
        assert_eq!(find_card_number(&text), first, "{text}");
    }

    #[test]
    fn numbers_of_every_network_are_found() {
        for card in "4222222222222 4242424242424242 4000000000000000006 5105105105105100 2223003122003222 \
            2720990000000007 378282246310005 30569309025904 36227206271667 3056930009020004 6011111111111117 \
            6469000000000001 3528000000000007 3566002020360505 6200000000000005 620000000000000005 \
            6205500000000000004 2200000000000004 8100000000000002 5085000000000007 6759649826438453 5820000000000007"
            .split(' ')
        {
            check(&format!("|{card}|"));
        }
    }

    #[test]
    fn cards_are_found_as_people_write_them() {
        for marked in [
            "card |4242 4242 4242 4242| please",
            "|4242-4242-4242-4242|",
            "|4242\u{a0}4242\u{a0}4242\u{a0}4242|, |4242\u{2011}4242\u{2013}4242\u{202f}4242|",
            "|3782 822463 10005|, |3782-8224-6310-005| or |3056 930902 5904|",
            "|4222 2222 2222 2|; |620550 0000000000004|; |6205 5000 0000 0000 004|; |5018 0000 0009|",
            r#"{"number":"|4242424242424242|","cvc":123,"list":[|4000056655665556|]}"#,
            r#""note\n|4242424242424242|\n""#,
            "number=|4242424242424242|&exp=12/27, pan:|4242424242424242|.",
            "(|4242424242424242|)! <|4242424242424242|>; -|4242424242424242| - |4242424242424242|-",
            "1,|4242424242424242|,12/27 |4242424242424242|/12/27 12/27/|4242424242424242|/|5555555555554444|/a",
            "|4242 4242 4242 4242| 12 27 123",
            "12 27 |4242 4242 4242 4242| |5555 5555 5555 4444| 1111",
            "name=a+|4242424242424242|",
            "%B|4242424242424242|^HOLMES/SHERLOCK^2712101? B|4242 4242 4242 4242|^ \"b|378282246310005|^\"",
            ";|4242424242424242|=27121011234567890?",
            "卡号|4242424242424242|请 карта|4242424242424242|é €|4242424242424242|\u{1f4b3}",
        ] {
            check(marked);
        }
    }

    #[test]
    fn parts_of_longer_tokens_are_no_cards() {
        for text in [
            "B4242424242424242 %B4242424242424242 A4242424242424242^ B4242424242424242= B4242424242424241^",
            "pi_4242424242424242 4242424242424242_x x4242424242424242 4242424242424242x",
            "42424242-4242-4242-4242-424242424242 5f0c4242-4242-4242-4242-4242424242ab",
            "abcdefab-4242-4242-4242-424242424242 4242-4242-4242-4242-abcd order-4242424242424242",
            "4242-4242-4242-4242-4242 42424242424242424242 04242424242424242424242",
            "0.4242424242424242 4242424242424242.00",
            "QUJD4242424242424242REVG QUJD/4242424242424242+REVG= https://shop/orders/4242424242424242/pay",
        ] {
            check(text);
        }
    }

    #[test]
    fn other_numbers_are_no_cards() {
        for text in [
            "4242424242424241 4242 4242 4242 4241 1234567812345670",
            "42 42 42 42 42 42 42 42, 4242  4242  4242  4242, 4242 -4242-4242- 4242, 4242.4242.4242.4242",
            "45391488 03436467, 4539 148803436467, 424 242 424 242 424 2",
            "+4915112345678 +4915 1123 4567 8 +1 415 555 2671 0049 1511 2345678",
            "2026-11-22T12:00:00.000000Z 20261122120000 1795348800000 1795348800000000 1795348800000000000",
            "DE89510500152798358069 DE89 5105 0015 2798 3580 69 GB29 NWBK 6016 1331 9268 19 RF18 5390 0754 7034",
            "EAN 4006381333931, EAN 4622463907656",
            "order 501800000009, 630400000000, 5612345678903",
        ] {
            check(text);
        }
        check("DE89 5105 0015 2798 3580 69 |4242 4242 4242 4242|");
        check("DE88 |5105 0015 2798 3580| 69");
    }

    #[test]
    fn a_long_run_of_digits_takes_linear_time() {
        check(&"4".repeat(1 << 20));
        check(&"4241 ".repeat(1 << 18));
        assert_eq!(scrub(&"4242 ".repeat(1 << 18)).len(), (1 << 16) * (REPLACEMENT.len() + 1));
    }

    #[rustfmt::skip]
    const CARDS_AND_NEAR_MISSES: &[&str] = &[
        "4242424242424242", "4242 4242 4242 4242", "4000-0566-5566-5556", "4242", "5555", "378282246310005",
        "DE89 5105 0015 2798 3580 69", "DE89", "\\n", "4222222222222", "/4242424242424242/",
    ];

    /// Text made of what the rule looks at, so that cards and near misses come up often.
    fn pieces() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            4 => "[0-9]{1,20}| |-|[./+_,\\\\]|[a-zA-Z]{1,3}|\u{a0}|\u{2013}|é|卡",
            3 => proptest::sample::select(CARDS_AND_NEAR_MISSES).prop_map(String::from),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn nothing_is_left_after_scrubbing(text in prop_oneof![pieces(), any::<String>()]) {
            let scrubbed = scrub(&text);
            prop_assert!(!contains_card_number(&scrubbed), "{scrubbed}");
            prop_assert_eq!(contains_card_number(&text), scrubbed != text);
        }

        #[test]
        fn text_without_twelve_digits_is_borrowed(text in "([^0-9]*[0-9]){0,11}[^0-9]*") {
            let scrubbed = scrub(&text);
            prop_assert!(matches!(scrubbed, Cow::Borrowed(same) if same == text));
        }
    }
}
