//! Durations as written in settings: a whole number and its unit, `100ms`, `10s`, `5m`, `6h` or `90d`.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};

/// The longest accepted duration, a hundred years: added to any current time, it stays within every calendar's range.
pub const MAX: Duration = Duration::from_secs(36_500 * 86_400);

/// The milliseconds of each unit. `ms` comes before `s`, because it also ends in `s`.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("ms", 1), ("s", 1_000)];

/// Parses a duration. Returns `None` if the text is not one, or if it is longer than [`MAX`].
pub fn parse(text: &str) -> Option<Duration> {
    let (number, milliseconds) = UNITS.iter().find_map(|(unit, length)| Some((text.strip_suffix(unit)?, length)))?;
    // `parse` would accept a sign.
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let duration = Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(*milliseconds)?);
    (duration <= MAX).then_some(duration)
}

/// Formats a duration in the longest unit that is exact to the millisecond, so that [`parse`] can read it.
pub fn format(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let exact = |length: u64| milliseconds > 0 && milliseconds.is_multiple_of(u128::from(length));
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)]
        .into_iter()
        .find(|(_, length)| exact(*length))
        .map_or_else(
            || format!("{milliseconds}ms"),
            |(unit, length)| format!("{}{unit}", milliseconds / u128::from(length)),
        )
}

/// For `#[serde(deserialize_with = "crate::config::duration::deserialize")]`.
///
/// # Errors
///
/// The value is not a duration. The error says what is expected.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    Written::deserialize(deserializer).map(|written| written.0)
}

/// Like [`deserialize`], for an `Option<Duration>` with `#[serde(default)]`.
///
/// # Errors
///
/// Same as [`deserialize`].
pub fn option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    Option::<Written>::deserialize(deserializer).map(|written| written.map(|written| written.0))
}

/// Like [`deserialize`], for a `Vec<Duration>`.
///
/// # Errors
///
/// Same as [`deserialize`].
pub fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Duration>, D::Error> {
    Vec::<Written>::deserialize(deserializer).map(|list| list.into_iter().map(|written| written.0).collect())
}

struct Written(Duration);

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WrittenVisitor).map(Written)
    }
}

struct WrittenVisitor;

impl Visitor<'_> for WrittenVisitor {
    type Value = Duration;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(r#"a duration with its unit, "100ms", "10s", "5m", "6h" or "90d", at most "36500d""#)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Other("another text"), &self))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        for (text, milliseconds) in [
            ("0s", 0),
            ("100ms", 100),
            ("10s", 10_000),
            ("5m", 300_000),
            ("6h", 21_600_000),
            ("90d", 7_776_000_000),
            ("007s", 7_000),
            ("36500d", 3_153_600_000_000),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn everything_else_is_none() {
        for text in [
            "",
            "s",
            "ms",
            "10",
            "10 s",
            " 10s",
            "10s ",
            "+10s",
            "-10s",
            "1.5s",
            "1e3s",
            "10S",
            "10sec",
            "1h30m",
            "10us",
            "10w",
            "36501d",
            "18446744073709551615d",
            "18446744073709551616ms",
            "٣s",
            "é",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_duration_is_written_in_its_longest_unit() {
        for text in ["0ms", "1ms", "1500ms", "90s", "90m", "25h", "7d"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
        assert_eq!(format(Duration::from_secs(86_400)), "1d");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(milliseconds in 0..=MAX.as_millis() as u64) {
            let duration = Duration::from_millis(milliseconds);
            prop_assert_eq!(parse(&format(duration)), Some(duration));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            parse(&text);
        }
    }
}
