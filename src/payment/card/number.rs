//! What makes digits a card number, a bar code or an IBAN: issued ranges and check digits.

use std::ops::RangeInclusive;

/// The fewest digits of a card number.
pub const DIGITS_MIN: usize = 12;

/// The most digits of a card number.
pub const DIGITS_MAX: usize = 19;

/// Which numbers a network issues: how many digits, beginning with a prefix out of these.
struct Network {
    lengths: &'static [usize],
    prefixes: &'static [RangeInclusive<u32>],
}

/// Visa, Mastercard, American Express, Diners Club, Discover, JCB, UnionPay, Mir, RuPay and Maestro, in this order.
#[rustfmt::skip]
const NETWORKS: &[Network] = &[
    Network { lengths: &[13, 16, 19], prefixes: &[4..=4] },
    Network { lengths: &[16], prefixes: &[51..=55, 2221..=2720] },
    Network { lengths: &[15], prefixes: &[34..=34, 37..=37] },
    Network { lengths: &[14, 16, 17, 18, 19], prefixes: &[300..=305, 3095..=3095, 36..=36, 38..=39] },
    Network { lengths: &[16, 17, 18, 19], prefixes: &[6011..=6011, 644..=649, 65..=65] },
    Network { lengths: &[16, 17, 18, 19], prefixes: &[3528..=3589] },
    Network { lengths: &[16, 17, 18, 19], prefixes: &[62..=62] },
    Network { lengths: &[16, 17, 18, 19], prefixes: &[2200..=2204] },
    Network { lengths: &[16], prefixes: &[60..=60, 65..=65, 81..=82, 508..=508] },
    Network { lengths: &[16, 17, 18, 19], prefixes: &[50..=50, 56..=58, 6..=6] },
];

/// Maestro's short numbers: counted only in groups of four, see above.
const MAESTRO_IN_FOURS: Network = Network {
    lengths: &[12, 13, 14, 15],
    prefixes: &[5018..=5018, 5020..=5020, 5038..=5038, 5893..=5893, 6304..=6304, 6759..=6759, 6761..=6763],
};

/// Whether these digits are a card number, given how many stand in each group as they are written.
pub fn is_card(digits: &[u8], groups: &[usize]) -> bool {
    let (in_one_piece, in_fours) = match groups {
        [_] => (true, false),
        [4, 6, 4 | 5] | [6, 13] => (false, false),
        [fours @ .., last] if fours.len() >= 2 && fours.iter().all(|&length| length == 4) && *last <= 4 => {
            (false, true)
        }
        _ => return false,
    };
    digits.len() >= DIGITS_MIN
        && luhn_is_valid(digits)
        && (NETWORKS.iter().any(|network| issues(network, digits)) || in_fours && issues(&MAESTRO_IN_FOURS, digits))
        && !(in_one_piece && digits.len() == 13 && is_bar_code(digits))
}

fn issues(network: &Network, digits: &[u8]) -> bool {
    network.lengths.contains(&digits.len())
        && network.prefixes.iter().any(|range| {
            let length = range.start().ilog10() as usize + 1;
            range.contains(&digits[..length].iter().fold(0, |number, digit| number * 10 + u32::from(*digit)))
        })
}

/// ISO/IEC 7812: every second digit from the right counts twice, a sum over nine less nine.
fn luhn_is_valid(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(index, &digit)| match (index % 2, digit) {
            (0, digit) => u32::from(digit),
            (_, 0..=4) => u32::from(digit) * 2,
            (_, _) => u32::from(digit) * 2 - 9,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// GTIN: every second digit from the right counts three times.
fn is_bar_code(digits: &[u8]) -> bool {
    let weighted = digits.iter().rev().enumerate().map(|(index, &digit)| u32::from(digit) * [1, 3][index % 2]);
    weighted.sum::<u32>().is_multiple_of(10)
}

/// The remainder after one more character, of which a letter counts as two digits: A is 10, Z is 35.
pub fn modulo_97(remainder: u32, character: u8) -> u32 {
    let value = char::from(character).to_digit(36).unwrap_or(0);
    (remainder * if value > 9 { 100 } else { 10 } + value) % 97
}
