//! JSON texts.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};

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

/// A JSON text that was read.
#[derive(Debug)]
pub struct Read {
    /// What it holds. Of a member that an object has twice, the last.
    pub value: Value,
    /// The names of members that an object has twice. Readers differ on which of them counts, so that what its writer meant
    /// is not known.
    pub twice: Vec<String>,
}

/// Reads a JSON text.
///
/// # Errors
/// It is none, or nested deeper than 127 levels.
pub fn read(text: &str) -> serde_json::Result<Read> {
    let mut twice = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Reader(&mut twice).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(Read { value, twice })
}

/// The members of a JSON object as they stand, with those that come twice; what each holds is not read yet.
///
/// # Errors
/// It is no JSON object.
pub fn members(text: &str) -> serde_json::Result<Vec<(String, &RawValue)>> {
    serde_json::from_str(text).map(|Members(members)| members)
}

/// A member's name without what a slip changes: capitals, blanks, dashes.
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

/// Reads a value as `Value` does, and notes what comes twice.
struct Reader<'a>(&'a mut Vec<String>);

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

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(Reader(&mut *self.0))? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            let value = access.next_value_seed(Reader(&mut *self.0))?;
            if members.contains_key(&name) {
                self.0.push(name.clone());
            }
            members.insert(name, value);
        }
        Ok(Value::Object(members))
    }
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

    proptest! {
        #[test]
        fn it_reads_what_others_read(text in r#"[\[\]{}:, "a1.e\\u0-]{0,40}"#) {
            let others = serde_json::from_str::<Value>(&text).ok();
            prop_assert_eq!(read(&text).ok().map(|read| read.value), others);
        }
    }
}
