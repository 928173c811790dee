//! Card numbers in base64.

use std::ops::Range;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::lookalike::end_of;
use super::number::DIGITS_MIN;

/// Base64 length of the digits of the shortest card number.
const LENGTH_MIN: usize = DIGITS_MIN / 3 * 4;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Returns the words of a plain text in which `contains_card` finds a card number after base64 decoding (either alphabet).
/// Encoded digits and spaces always produce capitals, so words without any, as most ids and names are, are skipped.
pub(super) fn card_numbers(bytes: &[u8], contains_card: impl Fn(&str) -> bool) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(begin) = bytes[at..].iter().position(is_base64) {
        let begin = at + begin;
        at = end_of(bytes, begin, is_base64);
        let word = &bytes[begin..at];
        if word.len() >= LENGTH_MIN
            && word.iter().any(u8::is_ascii_uppercase)
            && word_contains_card(word, &contains_card)
        {
            found.push(begin..at);
        }
    }
    found
}

fn is_base64(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_')
}

/// Tries all four alignments, because a prefix in the same word may shift the encoding.
fn word_contains_card(word: &[u8], contains_card: impl Fn(&str) -> bool) -> bool {
    let of_one_alphabet = |byte: &u8| match byte {
        b'-' => b'+',
        b'_' => b'/',
        byte => *byte,
    };
    let word: Vec<u8> = word.iter().map(of_one_alphabet).collect();
    let mut decoded = Vec::new();
    (0..4).any(|shift| {
        let part = &word[shift..];
        let whole = &part[..part.len() - usize::from(part.len() % 4 == 1)];
        decoded.clear();
        BASE64.decode_vec(whole, &mut decoded).is_ok()
            && match str::from_utf8(&decoded) {
                Ok(text) => contains_card(text),
                Err(_) => has_digits(&decoded) && contains_card(&String::from_utf8_lossy(&decoded)),
            }
    })
}

fn has_digits(bytes: &[u8]) -> bool {
    bytes.iter().filter(|byte| byte.is_ascii_digit()).nth(DIGITS_MIN - 1).is_some()
}
