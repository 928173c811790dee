//! Reading and writing JSON.

use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Error, Map, Number, Value};

/// Typical size of an event or request: most texts are written without reallocation.
const USUAL_BYTES: usize = 1536;

/// Prefix of the member names under which `serde_json` passes its own internal values, and the name used for a number.
const PRIVATE: &str = "$serde_json::private::";
const NUMBER: &str = "$serde_json::private::Number";

/// Maximum digits of a number before and after the decimal point. PostgreSQL can store 131,072 and 16,383.
const WHOLE_DIGITS_MAX: usize = 131_000;
const FRACTION_DIGITS_MAX: usize = 16_000;
/// Exponents that are expanded to digits. A number with any other exponent is rounded to 64 bits.
const EXPONENTS: RangeInclusive<isize> = -40..=40;

/// Writes a value that consists of strings, numbers and maps with string keys, which JSON can always represent. Returns
/// an empty string for anything else.
pub fn write(value: &impl Serialize) -> String {
    let mut text = Vec::with_capacity(USUAL_BYTES);
    match serde_json::to_writer(&mut text, value) {
        Ok(()) => String::from_utf8(text).unwrap_or_default(),
        Err(_) => String::new(),
    }
}

/// A parsed JSON text.
#[derive(Debug)]
pub struct Read {
    /// The value. Of a member that occurs twice in an object, the last one.
    pub value: Value,
    /// Names of members that occur twice in an object. Parsers disagree on which one counts, so the writer's intent is
    /// unknown.
    pub twice: Vec<String>,
}

/// Parses a JSON text. Numbers keep all their digits.
///
/// # Errors
/// The text is not JSON, is nested deeper than 127 levels, or contains a number that PostgreSQL could not store.
pub fn read(text: &str) -> serde_json::Result<Read> {
    read_with(text, exact)
}

fn read_with(text: &str, number: ReadNumber) -> serde_json::Result<Read> {
    let mut twice = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Reader { twice: &mut twice, number }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(Read { value, twice })
}

/// Returns the form of `value`, parsed from `text`, that is hashed. Numbers are rounded to 64 bits, as all numbers once
/// were: a command stored back then must have the same hash when it arrives again.
pub fn hashed(text: &str, value: &Value) -> String {
    let rounded = if has_only_integers(value) { None } else { read_with(text, rounded).ok() };
    rounded.map_or_else(|| value.to_string(), |read| read.value.to_string())
}

fn has_only_integers(value: &Value) -> bool {
    match value {
        // -0 is not one: rounding changes how it is written.
        Value::Number(number) => number.is_u64() || number.as_i64().is_some_and(|number| number != 0),
        Value::Array(items) => items.iter().all(has_only_integers),
        Value::Object(members) => members.values().all(has_only_integers),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

/// Returns the members of a JSON object in order, including duplicates; their values are not parsed yet.
///
/// # Errors
/// The text is not a JSON object.
pub fn members(text: &str) -> serde_json::Result<Vec<(String, &RawValue)>> {
    serde_json::from_str(text).map(|Members(members)| members)
}

/// Normalizes a member name, so that spellings that differ only in case, spaces or punctuation are equal.
pub fn letters(name: &str) -> String {
    name.chars().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members<'de>, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Members<'de>, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = access.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}

/// Parses a number that is not a 64-bit integer.
type ReadNumber = fn(&str) -> serde_json::Result<Number>;

/// Parses a value as `Value` does, and records duplicate members.
struct Reader<'a> {
    twice: &'a mut Vec<String>,
    number: ReadNumber,
}

impl Reader<'_> {
    fn reborrow(&mut self) -> Reader<'_> {
        Reader { twice: self.twice, number: self.number }
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(self.reborrow())? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut access: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            let value = access.next_value_seed(self.reborrow())?;
            if members.contains_key(&name) {
                self.twice.push(name.clone());
            }
            members.insert(name, value);
        }
        match members.keys().find(|name| name.starts_with(PRIVATE)) {
            None => Ok(Value::Object(members)),
            Some(_) => match members.get(NUMBER).filter(|_| members.len() == 1) {
                Some(Value::String(text)) => (self.number)(text).map(Value::Number).map_err(A::Error::custom),
                // Reading it back from the database would fail or return a different value.
                _ => Err(A::Error::custom("a member has a name that serde_json keeps for itself")),
            },
        }
    }
}

/// Keeps all digits and expands the exponent, as PostgreSQL returns it.
fn exact(text: &str) -> serde_json::Result<Number> {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, ""));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.len() > WHOLE_DIGITS_MAX || fraction.len() > FRACTION_DIGITS_MAX {
        return Err(Error::custom("a number has too many digits"));
    }
    match exponent.parse() {
        _ if exponent.is_empty() => text.parse(),
        Ok(places) if EXPONENTS.contains(&places) => shifted(whole, fraction, places).parse(),
        _ => finite(text.parse()),
    }
}

/// Moves the decimal point to the right by so many places. The result keeps a fraction, even `.0`, because it was not
/// written as an integer.
fn shifted(whole: &str, fraction: &str, places: isize) -> String {
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
    let zeros = "0".repeat(places.unsigned_abs());
    let (digits, point) = if places < 0 {
        (format!("{zeros}{whole}{fraction}"), whole.len())
    } else {
        (format!("{whole}{fraction}{zeros}"), whole.len() + zeros.len())
    };
    let (whole, fraction) = digits.split_at(point);
    let or_zero = |digits: &str| if digits.is_empty() { "0".to_owned() } else { digits.to_owned() };
    format!("{sign}{}.{}", or_zero(whole.trim_start_matches('0')), or_zero(fraction.trim_end_matches('0')))
}

/// Rounded to 64 bits, as `serde_json` does.
fn rounded(text: &str) -> serde_json::Result<Number> {
    finite(serde_json::from_str(text))
}

fn finite<E>(number: Result<f64, E>) -> serde_json::Result<Number> {
    number.ok().and_then(Number::from_f64).ok_or_else(|| Error::custom("a number is out of range"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_comes_twice_is_named_at_every_depth_and_however_it_is_written() {
        for (text, twice) in [
            (r#"{"a": 1, "b": {"a": 1}, "c": [{"a": 1}, {"a": 2}]}"#, &[][..]),
            (r#"{"a": 1, "a": 1}"#, &["a"]),
            (r#"{"amount": "1", "\u0061mount": "100"}"#, &["amount"]),
            (r#"{"x": [{"b": {"c": 1, "c": {}}}], "y": 1, "y": 2}"#, &["c", "y"]),
        ] {
            assert_eq!(read(text).unwrap().twice, twice, "{text}");
        }
        assert_eq!(read(r#"{"a": 1, "a": 2}"#).unwrap().value, serde_json::json!({"a": 2}));
        let names: Vec<String> = members(r#"{"a": {"b": 1}, "a": 2}"#).unwrap().into_iter().map(|it| it.0).collect();
        assert_eq!(names, ["a", "a"]);
        assert!(members("[]").is_err() && members("{} x").is_err() && read("{} x").is_err());
    }

    #[test]
    fn numbers_keep_all_their_digits() {
        for (written, exact, rounded) in [
            ("12345678901234567890123", "12345678901234567890123", "1.2345678901234568e+22"),
            ("-0.12345678901234567890", "-0.12345678901234567890", "-0.12345678901234568"),
            ("[1.10, 18446744073709551616]", "[1.10,18446744073709551616]", "[1.1,1.8446744073709552e+19]"),
            ("18446744073709551615", "18446744073709551615", "18446744073709551615"),
            ("1e2", "100.0", "100.0"),
            ("1.5E+20", "150000000000000000000.0", "1.5e+20"),
            ("-12e-3", "-0.012", "-0.012"),
            ("0.05e1", "0.5", "0.5"),
            ("1e-300", "1e-300", "1e-300"),
            ("-0", "-0", "-0.0"),
        ] {
            let value = read(written).unwrap().value;
            assert_eq!((&*value.to_string(), &*hashed(written, &value)), (exact, rounded), "{written}");
        }
        let long = "9".repeat(WHOLE_DIGITS_MAX);
        assert_eq!(read(&long).unwrap().value.to_string(), long);
        for wrong in ["1e400", &format!("{long}9"), &format!("0.{}", "1".repeat(FRACTION_DIGITS_MAX + 1))] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_that_serde_json_keeps_for_itself_is_refused() {
        for name in ["Number", "RawValue"] {
            assert!(read(&format!(r#"{{"a": {{"$serde_json::private::{name}": "x"}}}}"#)).is_err(), "{name}");
        }
    }

    /// Converts each number to 64 bits; `None` if one is out of range.
    fn in_64_bits(value: &Value) -> Option<Value> {
        Some(match value {
            Value::Number(number) => Value::Number(Number::from_f64(number.to_string().parse().ok()?)?),
            Value::Array(items) => Value::Array(items.iter().map(in_64_bits).collect::<Option<_>>()?),
            Value::Object(members) => {
                let members = members.iter().map(|(name, value)| Some((name.clone(), in_64_bits(value)?)));
                Value::Object(members.collect::<Option<_>>()?)
            }
            other => other.clone(),
        })
    }

    proptest! {
        #[test]
        fn it_reads_what_others_read(text in r#"[\[\]{}:, "a1.e\\u0-]{0,40}"#) {
            let others = serde_json::from_str::<Value>(&text).ok();
            let read = read(&text).ok().map(|read| read.value);
            prop_assert_eq!(read.as_ref().and_then(in_64_bits), others.as_ref().and_then(in_64_bits));
        }

        /// Stands in for a round trip through PostgreSQL: a number that was parsed once no longer changes.
        #[test]
        fn what_was_read_stays_as_it_is(text in "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?(e[+-]?[123]?[0-9])?") {
            let once = read(&text).unwrap().value.to_string();
            prop_assert_eq!(read(&once).unwrap().value.to_string(), once);
        }
    }
}
