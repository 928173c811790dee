//! Deserializes merged settings more strictly than the `config` crate does, which rounds 2.5 to 3, accepts 1 for true
//! and quotes values in its errors. Only strings are coerced, because the environment has nothing else; a list may be a
//! comma-separated string.

use std::fmt::Display;
use std::str::FromStr;

use ::config::{Value, ValueKind};
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::error::ConfigError;

/// Reads `value` as a `T`. The keys in errors are relative to `value`.
pub(super) fn read<T: DeserializeOwned>(value: Value) -> Result<T, ConfigError> {
    T::deserialize(Reader(value))
}

struct Reader(Value);

impl Reader {
    /// Returns the number, whether it is written as a number or as a string.
    fn integer<T: TryFrom<i64> + FromStr>(self, expected: &str) -> Result<T, ConfigError> {
        let number = match self.0.kind {
            ValueKind::I64(number) => T::try_from(number).ok(),
            ValueKind::String(text) => text.parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| wrong(expected))
    }
}

fn wrong(expected: impl Display) -> ConfigError {
    ConfigError::key("", format!("expected {expected}"))
}

macro_rules! deserialize_integers {
    ($($method:ident, $visit:ident, $expected:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
            visitor.$visit(self.integer($expected)?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader {
    type Error = ConfigError;

    deserialize_integers! {
        deserialize_i8, visit_i8, "a whole number";
        deserialize_i16, visit_i16, "a whole number";
        deserialize_i32, visit_i32, "a whole number";
        deserialize_i64, visit_i64, "a whole number";
        deserialize_u8, visit_u8, "a non-negative whole number";
        deserialize_u16, visit_u16, "a non-negative whole number";
        deserialize_u32, visit_u32, "a non-negative whole number";
        deserialize_u64, visit_u64, "a non-negative whole number";
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        match self.0.kind {
            ValueKind::Nil => visitor.visit_unit(),
            ValueKind::Boolean(value) => visitor.visit_bool(value),
            ValueKind::I64(value) => visitor.visit_i64(value),
            ValueKind::I128(value) => visitor.visit_i128(value),
            ValueKind::U64(value) => visitor.visit_u64(value),
            ValueKind::U128(value) => visitor.visit_u128(value),
            ValueKind::Float(value) => visitor.visit_f64(value),
            ValueKind::String(value) => visitor.visit_string(value),
            ValueKind::Array(values) => visitor.visit_seq(List { values: values.into_iter(), index: 0 }),
            ValueKind::Table(values) => visitor.visit_map(Table::new(values)),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        match &self.0.kind {
            ValueKind::Boolean(value) => visitor.visit_bool(*value),
            ValueKind::String(text) if text == "true" => visitor.visit_bool(true),
            ValueKind::String(text) if text == "false" => visitor.visit_bool(false),
            _ => Err(wrong("true or false")),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        let number = match self.0.kind {
            ValueKind::Float(number) => Some(number),
            ValueKind::I64(number) => Some(number as f64),
            ValueKind::String(text) => text.parse().ok(),
            _ => None,
        };
        visitor.visit_f64(number.filter(|number| number.is_finite()).ok_or_else(|| wrong("a number"))?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        match self.0.kind {
            ValueKind::String(text) => visitor.visit_string(text),
            _ => Err(wrong("a string, in quotes")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, ConfigError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        let values = match self.0.kind {
            ValueKind::Array(values) => values,
            ValueKind::String(text) if text.is_empty() => Vec::new(),
            ValueKind::String(text) => text.split(',').map(|part| Value::from(part.trim())).collect(),
            _ => return Err(wrong("a list")),
        };
        visitor.visit_seq(List { values: values.into_iter(), index: 0 })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        match self.0.kind {
            ValueKind::Table(_) => self.deserialize_any(visitor),
            _ => Err(wrong("a table of keys")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        self.deserialize_map(visitor)
    }

    /// Supports only enums without data: a name in a string.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        match self.0.kind {
            ValueKind::String(text) => visitor.visit_enum(StrDeserializer::new(&text)),
            _ => Err(wrong(super::error::one_of(names, '"'))),
        }
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

struct List {
    values: std::vec::IntoIter<Value>,
    index: usize,
}

impl<'de> SeqAccess<'de> for List {
    type Error = ConfigError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ConfigError> {
        let Some(value) = self.values.next() else {
            return Ok(None);
        };
        let index = self.index;
        self.index += 1;
        seed.deserialize(Reader(value)).map(Some).map_err(|error| error.under(&format!("[{index}]")))
    }
}

struct Table {
    entries: std::vec::IntoIter<(String, Value)>,
    /// The entry whose key was returned and whose value was not yet.
    current: Option<(String, Value)>,
}

impl Table {
    /// Sorts the entries, so that of two wrong keys the same one is always reported, and `retry` before the variants
    /// that inherit it.
    fn new(values: ::config::Map<String, Value>) -> Self {
        let mut entries: Vec<(String, Value)> = values.into_iter().collect();
        entries.sort_by(|(one, _), (other, _)| one.cmp(other));
        Table { entries: entries.into_iter(), current: None }
    }
}

impl<'de> MapAccess<'de> for Table {
    type Error = ConfigError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ConfigError> {
        self.current = self.entries.next();
        match &self.current {
            Some((key, _)) => seed.deserialize(key.as_str().into_deserializer()).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ConfigError> {
        let Some((key, value)) = self.current.take() else {
            return Err(wrong("a key before its value"));
        };
        seed.deserialize(Reader(value)).map_err(|error| error.under(&key))
    }
}
