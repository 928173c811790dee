//! Makes text from outside safe to store and display: no card numbers, no NUL characters, bounded.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::excerpt::excerpt;
use crate::payment::card;

/// Maximum characters of a message that are kept.
pub(super) const MESSAGE_CHARACTERS_MAX: usize = 1_024;
/// Maximum characters of a gateway's own code that are kept.
pub(super) const CODE_CHARACTERS_MAX: usize = 255;
/// Maximum size of `extra_data` in one answer, in bytes of JSON.
pub(super) const EXTRA_DATA_BYTES_MAX: usize = 16 * 1_024;

/// Maximum nesting depth of `extra_data` in one answer: low enough for any consumer's JSON parser.
pub(super) const EXTRA_DATA_LEVELS_MAX: usize = 64;

/// Cleans a text for people, and truncates it to so many characters.
pub(super) fn text(raw: &str, characters_max: usize) -> String {
    excerpt(&scrubbed(raw), characters_max).into_owned()
}

/// PostgreSQL rejects NUL characters. They are removed first, because one could split a card number in two.
fn scrubbed(raw: &str) -> String {
    card::scrub(&raw.replace('\0', "")).into_owned()
}

/// Scrubs `extra_data` at every depth. If it is too large or too deep, a note replaces all of it: part of it could be
/// mistaken for the whole.
pub(super) fn extra_data(raw: Map<String, Value>) -> Map<String, Value> {
    let clean = Value::Object(object(raw));
    let (length, levels) = (clean.to_string().len(), levels(&clean));
    let note = match clean {
        _ if length > EXTRA_DATA_BYTES_MAX => format!("omitted: {length} bytes, the limit is {EXTRA_DATA_BYTES_MAX}"),
        _ if levels > EXTRA_DATA_LEVELS_MAX => {
            format!("omitted: {levels} levels, the limit is {EXTRA_DATA_LEVELS_MAX}")
        }
        Value::Object(clean) => return clean,
        _ => return Map::new(),
    };
    Map::from_iter([("extra_data".to_owned(), Value::from(note))])
}

/// Nesting depth of a value; recursion is safe because the parser bounds it.
fn levels(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(levels).max().unwrap_or_default(),
        Value::Object(fields) => 1 + fields.values().map(levels).max().unwrap_or_default(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

fn object(raw: Map<String, Value>) -> Map<String, Value> {
    raw.into_iter().map(|(key, value)| (scrubbed(&key), clean_value(value))).collect()
}

fn clean_value(raw: Value) -> Value {
    match raw {
        Value::String(string) => Value::from(scrubbed(&string)),
        Value::Array(items) => clean_list(items),
        Value::Object(fields) => Value::Object(object(fields)),
        // A card number may be unquoted.
        Value::Number(number) => match card::scrub(&number.to_string()) {
            Cow::Borrowed(_) => Value::Number(number),
            Cow::Owned(scrubbed) => Value::from(scrubbed),
        },
        Value::Null | Value::Bool(_) => raw,
    }
}

/// The items may be parts of one card number: the list then becomes a single text without it.
fn clean_list(raw: Vec<Value>) -> Value {
    let items: Vec<Value> = raw.into_iter().map(clean_value).collect();
    let joined = items.iter().map(scalar).collect::<Vec<_>>().join(", ");
    match card::scrub(&joined) {
        Cow::Borrowed(_) => Value::Array(items),
        Cow::Owned(scrubbed) => Value::from(scrubbed),
    }
}

/// A scalar as text. Nested values are checked separately.
fn scalar(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => Cow::Borrowed(text),
        Value::Number(number) => Cow::Owned(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => Cow::Borrowed("other"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cleaned(raw: Value) -> Value {
        match raw {
            Value::Object(fields) => Value::Object(extra_data(fields)),
            other => panic!("{other} is not an object"),
        }
    }

    #[test]
    fn text_is_scrubbed_then_cut() {
        assert_eq!(text("ok", 10), "ok");
        assert_eq!(text("grüße", 3), "gr…");
        assert_eq!(text("a\0b", 10), "ab");
        assert!(!text("card 4111\u{0}111111111111", 100).contains("1111"));
        let cut = text("xxxx 4111111111111111", 12);
        assert!(!cut.contains("4111"), "{cut}");
    }

    #[test]
    fn extra_data_is_scrubbed_at_every_depth() {
        let raw =
            json!({"card": {"numbers": ["4111 1111 1111 1111", 4_111_111_111_111_111_u64]}, "a\0": "b\0", "n": 5.5});
        let clean = cleaned(raw);
        assert!(!clean.to_string().contains("1111"), "{clean}");
        assert_eq!(clean["a"], "b");
        assert_eq!(clean["n"], 5.5);
        let clean = cleaned(json!({"pan": ["4111", "1111", "1111", "1111"], "sizes": ["4111", 1], "x": [[4111], []]}));
        assert_eq!(clean, json!({"pan": "[card number]", "sizes": ["4111", 1], "x": [[4111], []]}));
    }

    #[test]
    fn extra_data_beyond_its_limit_is_left_out_with_a_note() {
        let fits = json!({"a": "x".repeat(EXTRA_DATA_BYTES_MAX - 8)});
        assert_eq!(cleaned(fits.clone()), fits);
        let clean = cleaned(json!({"a": "x".repeat(EXTRA_DATA_BYTES_MAX - 7)}));
        assert_eq!(clean, json!({"extra_data": "omitted: 16385 bytes, the limit is 16384"}));
        let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!({"a": inner}));
        assert_eq!(cleaned(nested(EXTRA_DATA_LEVELS_MAX)), nested(EXTRA_DATA_LEVELS_MAX));
        let clean = cleaned(nested(EXTRA_DATA_LEVELS_MAX + 1));
        assert_eq!(clean, json!({"extra_data": "omitted: 65 levels, the limit is 64"}));
    }
}
