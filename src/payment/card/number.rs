//! What makes digits a card number: an issued range and a valid check digit.

use std::ops::RangeInclusive;

/// Minimum digits of a card number.
pub(super) const DIGITS_MIN: usize = 12;

/// Maximum digits of a card number.
pub(super) const DIGITS_MAX: usize = 19;

/// Minimum digits of a card number written without separators. Shorter ones (Visa's 13, Maestro's 12 and 13) are no
/// longer issued, and would match many telephone numbers and national ids.
pub(super) const UNBROKEN_MIN: usize = 14;

/// Numbers that a network issues: their lengths and prefixes.
struct Network {
    lengths: &'static [usize],
    prefixes: &'static [RangeInclusive<u32>],
}

/// In order: Visa, Mastercard, American Express, Diners Club, Discover, JCB, UnionPay, Mir, RuPay, Maestro, and four
/// national schemes.
#[rustfmt::skip]
const NETWORKS: &[Network] = &[
    Network { lengths: &[16, 19], prefixes: &[4..=4] },
    Network { lengths: &[16], prefixes: &[51..=55, 2221..=2720] },
    Network { lengths: &[15], prefixes: &[34..=34, 37..=37] },
    Network { lengths: &[14, 16, 19], prefixes: &[300..=305, 3095..=3095, 36..=36, 38..=39] },
    Network { lengths: &[16, 19], prefixes: &[6011..=6011, 644..=649, 65..=65] },
    Network { lengths: &[16, 19], prefixes: &[3528..=3589] },
    Network { lengths: &[16, 17, 18, 19], prefixes: &[62..=62, 8100..=8171] },
    Network { lengths: &[16, 17, 18, 19], prefixes: &[2200..=2204] },
    Network { lengths: &[16], prefixes: &[508..=508, 60..=60, 8172..=8201] },
    Network { lengths: &[16, 17, 18, 19], prefixes: &[50..=50, 5641..=5641, 5893..=5893, 63..=63, 67..=67] },
    // Uzcard, mada, Humo and Troy.
    Network { lengths: &[16], prefixes: &[5614..=5614, 8600..=8600, 5888..=5888, 9860..=9860, 9792..=9792] },
];

/// Short Visa and Maestro numbers, recognized only in groups of four.
const IN_FOURS: &[Network] = &[
    Network { lengths: &[13], prefixes: &[4..=4] },
    Network {
        lengths: &[12, 13, 14, 15],
        prefixes: &[5018..=5018, 5020..=5020, 5038..=5038, 5893..=5893, 6304..=6304, 6759..=6759, 6761..=6763],
    },
];

/// Returns whether a network issues these digits and the check digit is valid.
pub(super) fn is_issued(digits: &[u8], in_fours: bool) -> bool {
    let is_of = |networks: &[Network]| networks.iter().any(|network| network.issues(digits));
    (is_of(NETWORKS) || in_fours && is_of(IN_FOURS)) && luhn_is_valid(digits)
}

impl Network {
    fn issues(&self, digits: &[u8]) -> bool {
        self.lengths.contains(&digits.len())
            && self.prefixes.iter().any(|range| {
                let length = range.start().ilog10() as usize + 1;
                range.contains(&value(&digits[..length]))
            })
    }
}

/// The value of a few decimal digits.
pub(super) fn value(digits: &[u8]) -> u32 {
    digits.iter().fold(0, |number, digit| number * 10 + u32::from(*digit))
}

/// ISO/IEC 7812: every second digit from the right is doubled; 9 is subtracted from results above 9.
pub(super) fn luhn_is_valid(digits: &[u8]) -> bool {
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
