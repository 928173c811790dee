//! Digits that are a different kind of number, recognized by their surroundings, their own check digits or a date. A
//! kind is listed only if fewer than one card number in a thousand looks like it.

use std::ops::{Range, RangeInclusive};

use super::number::{luhn_is_valid, value};

/// Length of an IBAN in characters: from Norway's 15 to the standard's maximum of 34.
const IBAN_LENGTH: RangeInclusive<usize> = 15..=34;

/// Maximum digits of a telephone number, including the country code (ITU-T E.164).
const TELEPHONE_DIGITS_MAX: usize = 15;

/// Hexadecimal digits in each part of a UUID.
const UUID_PARTS: [usize; 5] = [8, 4, 4, 4, 12];
const UUID_LENGTH: usize = 36;

/// Lengths of common hashes and random tokens, in hexadecimal digits.
const HASH_LENGTHS: [usize; 7] = [32, 40, 48, 56, 64, 96, 128];

/// Returns the IBANs, telephone numbers, UUIDs and hashes, in ascending order. Their digits are never part of a card
/// number.
pub(super) fn ranges(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while let Some(begin) = bytes[at..].iter().position(|byte| byte.is_ascii_alphanumeric()) {
        let begin = at + begin;
        let end = end_of(bytes, begin, u8::is_ascii_alphanumeric);
        let other = iban_end(bytes, begin)
            .or_else(|| uuid_end(bytes, begin, end))
            .or_else(|| is_hash(&bytes[begin..end]).then_some(end))
            .or_else(|| telephone_end(bytes, begin));
        ranges.extend(other.map(|end| begin..end));
        at = other.unwrap_or(end);
    }
    ranges
}

pub(super) fn end_of(bytes: &[u8], begin: usize, is_part: impl Fn(&u8) -> bool) -> usize {
    bytes[begin..].iter().position(|byte| !is_part(byte)).map_or(bytes.len(), |length| begin + length)
}

fn is_word(byte: Option<&u8>) -> bool {
    byte.is_some_and(u8::is_ascii_alphanumeric)
}

/// Returns the end of the IBAN or creditor reference at `begin` (ISO 7064, modulo 97), contiguous or with single spaces
/// or dashes.
fn iban_end(bytes: &[u8], begin: usize) -> Option<usize> {
    let head = bytes.get(begin..begin + 4)?;
    let is_head = head[..2].iter().all(u8::is_ascii_alphabetic) && head[2..].iter().all(u8::is_ascii_digit);
    if !is_head {
        return None;
    }
    let (mut at, mut length, mut remainder) = (begin + 4, 4, 0);
    while length < *IBAN_LENGTH.end() {
        at += usize::from(matches!(bytes.get(at), Some(b' ' | b'-')));
        let character = bytes.get(at).filter(|byte| byte.is_ascii_alphanumeric())?;
        remainder = modulo_97(remainder, *character);
        at += 1;
        length += 1;
        let is_valid = head.iter().fold(remainder, |remainder, byte| modulo_97(remainder, *byte)) == 1;
        if is_valid && IBAN_LENGTH.contains(&length) && !is_word(bytes.get(at)) {
            return Some(at);
        }
    }
    None
}

/// The remainder after appending one character. A letter counts as two digits: A is 10, Z is 35.
fn modulo_97(remainder: u32, character: u8) -> u32 {
    let value = char::from(character).to_digit(36).unwrap_or(0);
    (remainder * if value > 9 { 100 } else { 10 } + value) % 97
}

/// Returns the end of the UUID whose first part is `bytes[begin..end]`.
fn uuid_end(bytes: &[u8], begin: usize, end: usize) -> Option<usize> {
    if end - begin != UUID_PARTS[0] {
        return None;
    }
    let uuid = bytes.get(begin..begin + UUID_LENGTH)?;
    let mut parts = uuid.split(|byte| *byte == b'-');
    let is_uuid = UUID_PARTS
        .iter()
        .all(|length| parts.next().is_some_and(|part| part.len() == *length && part.iter().all(u8::is_ascii_hexdigit)));
    (is_uuid && !is_word(bytes.get(begin + UUID_LENGTH))).then_some(begin + UUID_LENGTH)
}

fn is_hash(word: &[u8]) -> bool {
    HASH_LENGTHS.contains(&word.len())
        && word.iter().all(u8::is_ascii_hexdigit)
        && word.iter().any(u8::is_ascii_alphabetic)
}

/// Returns the end of the telephone number whose digits start at `begin`, after a `+` that does not follow a word.
fn telephone_end(bytes: &[u8], begin: usize) -> Option<usize> {
    let is_telephone = match bytes[..begin] {
        [.., before, b'+'] => !before.is_ascii_alphanumeric(),
        [b'+'] => true,
        _ => false,
    };
    if !is_telephone {
        return None;
    }
    let (mut end, mut digits) = (begin, 0);
    for (index, byte) in bytes.iter().enumerate().skip(begin) {
        match byte {
            b'0'..=b'9' => {
                digits += 1;
                end = index + 1;
            }
            b' ' | b'-' | b'.' | b'/' | b'(' | b')' if index < end + 3 => {}
            _ => break,
        }
        if digits > TELEPHONE_DIGITS_MAX {
            return None;
        }
    }
    (digits > 0).then_some(end)
}

/// Returns whether contiguous digits, followed by `next`, are a different kind of number by their check digits or a
/// date.
pub(super) fn is_of_another_kind(digits: &[u8], next: Option<&u8>) -> bool {
    match (digits.len(), next) {
        (14, _) => is_siret(digits) || is_cnpj(digits) || is_egyptian_id(digits) || begins_with_date(digits),
        (16, _) => is_indonesian_id(digits) || begins_with_date(digits),
        (17, Some(b'X' | b'x')) => is_chinese_id(digits, 10),
        (18, _) => is_chinese_id(&digits[..17], u32::from(digits[17])),
        _ => false,
    }
}

/// Day, month and year, as in `30112026000123`.
fn begins_with_date(digits: &[u8]) -> bool {
    let [day, month] = [&digits[..2], &digits[2..4]].map(value);
    is_day(month, day) && (2000..2050).contains(&value(&digits[4..8]))
}

/// French establishment number: the company's nine digits pass the Luhn check on their own, and all 14 do.
fn is_siret(digits: &[u8]) -> bool {
    luhn_is_valid(&digits[..9]) && digits[9..11] == [0, 0]
}

/// Brazilian company number: eight digits, four for the branch, two check digits.
fn is_cnpj(digits: &[u8]) -> bool {
    let check = |digits: &[u8]| {
        let weighted = digits.iter().rev().zip((2..=9).cycle()).map(|(digit, weight)| u32::from(*digit) * weight);
        match weighted.sum::<u32>() % 11 {
            0 | 1 => 0,
            rest => 11 - rest,
        }
    };
    digits[8..10] == [0, 0]
        && u32::from(digits[12]) == check(&digits[..12])
        && u32::from(digits[13]) == check(&digits[..13])
}

/// Egyptian identity number: a century digit, the date of birth, the governorate.
fn is_egyptian_id(digits: &[u8]) -> bool {
    let [century_year, month, day, place] = [&digits[..3], &digits[3..5], &digits[5..7], &digits[7..9]].map(value);
    (300..350).contains(&century_year) && is_day(month, day) && matches!(place, 1..=35 | 88)
}

/// Indonesian identity number: place, date of birth (day plus 40 for women), serial number.
fn is_indonesian_id(digits: &[u8]) -> bool {
    let [day, month, serial] = [&digits[6..8], &digits[8..10], &digits[12..14]].map(value);
    is_day(month, day % 40) && serial == 0
}

/// Chinese identity number: place, date of birth, serial number, check digit (ISO 7064, modulo 11-2; X is 10).
fn is_chinese_id(digits: &[u8], check: u32) -> bool {
    let [year, month, day] = [&digits[6..10], &digits[10..12], &digits[12..14]].map(value);
    let sum: u32 = digits.iter().rev().zip(1..).map(|(digit, power)| u32::from(*digit) << power).sum();
    (1900..2050).contains(&year) && is_day(month, day) && (sum + check) % 11 == 1
}

fn is_day(month: u32, day: u32) -> bool {
    (1..=12).contains(&month) && (1..=31).contains(&day)
}
