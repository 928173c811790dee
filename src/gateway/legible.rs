//! Tolerant parsing of a gateway's JSON: strict about money, lenient about details. Damaged text is repaired in place,
//! and an unreadable value is lost alone, because the answer around it may report money.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::payment::json;

/// A byte order mark, which some implementations put before JSON.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The members of an answer.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// The values by name. An unreadable value becomes an empty list, which no member may be: it is present but says
    /// nothing.
    pub fields: Map<String, Value>,
    /// Members that occur twice with different values.
    contradicted: Vec<String>,
    /// Members that occur twice at a deeper level.
    twice_below: Vec<String>,
}

/// Reads a body; `None` if it is not a JSON object.
pub(super) fn read(body: &[u8]) -> Option<Members> {
    let text = String::from_utf8_lossy(body);
    let text = fixed(text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text));
    let mut members = Members::default();
    for (name, raw) in json::members(&text).ok()? {
        let value = match json::read(raw.get()) {
            Ok(read) => {
                members.twice_below.extend(read.twice);
                read.value
            }
            Err(_) => Value::Array(Vec::new()),
        };
        if members.fields.get(&name).is_some_and(|other| *other != value) {
            members.contradicted.push(name.clone());
        }
        members.fields.insert(name, value);
    }
    Some(members)
}

impl Members {
    /// Returns one of these names that occurs twice with different values in the object itself.
    pub fn contradicted(&self, names: &[&'static str]) -> Option<&'static str> {
        names.iter().find(|name| self.contradicted.iter().any(|other| other == *name)).copied()
    }

    /// Also includes deeper levels, where duplicates count even if their values are equal.
    pub fn contradicted_anywhere(&self, names: &[&'static str]) -> Option<&'static str> {
        let below = || names.iter().find(|name| self.twice_below.iter().any(|other| other == *name)).copied();
        self.contradicted(names).or_else(below)
    }
}

/// Returns one of these names that is present in another spelling (`Amount`, `capturedAmount`) with a value that the
/// name itself does not have: its writer meant it to count.
pub(super) fn misspelled(fields: &Map<String, Value>, names: &[&'static str]) -> Option<&'static str> {
    let is_other = |name: &&&str| {
        let letters = json::letters(name);
        let mut others = fields.iter().filter(|(other, _)| other != *name && json::letters(other) == letters);
        others.any(|(_, value)| fields.get(**name) != Some(value))
    };
    names.iter().find(is_other).copied()
}

/// Repairs the strings of a JSON text for strict parsers: unpaired surrogates and invalid escapes become U+FFFD,
/// control characters become escapes.
fn fixed(text: &str) -> Cow<'_, str> {
    let mut fixed = String::new();
    // The text up to here has been copied.
    let mut copied = 0;
    let mut replace = |index: usize, length: usize, by: char| {
        fixed.push_str(&text[copied..index]);
        match by.is_control() {
            true => fixed.push_str(&format!("\\u{:04x}", u32::from(by))),
            false => fixed.push(by),
        }
        copied = index + length;
    };
    let (mut index, mut in_string) = (0, false);
    let bytes = text.as_bytes();
    while let Some(byte) = bytes.get(index) {
        index += match byte {
            b'"' => {
                in_string = !in_string;
                1
            }
            b'\\' if in_string => match escape(&bytes[index..]) {
                Ok(length) => length,
                Err(length) => {
                    replace(index, length, char::REPLACEMENT_CHARACTER);
                    length
                }
            },
            0..0x20 if in_string => {
                replace(index, 1, char::from(*byte));
                1
            }
            _ => 1,
        };
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    fixed.push_str(&text[copied..]);
    Cow::Owned(fixed)
}

/// Length of the escape at the start of `bytes`, including its backslash; if it is invalid, how much of it to replace.
fn escape(bytes: &[u8]) -> Result<usize, usize> {
    match bytes.get(1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(2),
        Some(b'u') => match (unit(bytes), unit(bytes.get(6..).unwrap_or_default())) {
            (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => Ok(12),
            (Some(0xd800..0xe000), _) => Err(6),
            (Some(_), _) => Ok(6),
            (None, _) => Err(2),
        },
        // The next character may have several bytes, or be missing.
        _ => Err(1),
    }
}

/// The UTF-16 code unit of an escape such as `\u0041`.
fn unit(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.strip_prefix(b"\\u")?.get(..4)?;
    let hex = digits.iter().map(|digit| char::from(*digit).to_digit(16));
    hex.into_iter().try_fold(0, |unit, digit| Some(unit * 16 + digit?))
}

/// The text of a member. A number or boolean is returned as JSON; null, lists and objects as an empty string.
pub(super) fn words<'a>(fields: &'a Map<String, Value>, name: &str) -> Cow<'a, str> {
    match fields.get(name) {
        None | Some(Value::Null) => Cow::default(),
        Some(Value::String(text)) => Cow::Borrowed(text),
        Some(value @ (Value::Number(_) | Value::Bool(_))) => Cow::Owned(value.to_string()),
        Some(Value::Array(_) | Value::Object(_)) => {
            leave_out(name, "it is not a text");
            Cow::default()
        }
    }
}

/// Logs that a detail of an answer is dropped. Its value is not logged, because it may be anything.
pub(super) fn leave_out(member: &str, why: &str) {
    tracing::debug!(member, "ignoring a member of the gateway's answer: {why}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn fields(body: &[u8]) -> Map<String, Value> {
        read(body).unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(body))).fields
    }

    #[test]
    fn a_damaged_text_costs_nothing_around_it() {
        for (body, message) in [
            (&b"\xef\xbb\xbf{\"message\": \"ok\", \"amount\": \"1\"}"[..], "ok"),
            (br#"{"message": "thanks \ud83d", "amount": "1"}"#, "thanks \u{fffd}"),
            (br#"{"message": "\ude00 thanks \ud83d\u0041", "amount": "1"}"#, "\u{fffd} thanks \u{fffd}A"),
            (br#"{"message": "\ud83d\ud83d\ude00", "amount": "1"}"#, "\u{fffd}\u{1f600}"),
            (b"{\"message\": \"caf\xe9\", \"amount\": \"1\"}", "caf\u{fffd}"),
            (b"{\"message\": \"two\nlines\t\x00\", \"amount\": \"1\"}", "two\nlines\t\0"),
            (br#"{"message": "it\'s \x41 \u00zz", "amount": "1"}"#, "it\u{fffd}'s \u{fffd}x41 \u{fffd}00zz"),
            (br#"{"message": "\\ud83d \" \/", "amount": "1"}"#, "\\ud83d \" /"),
        ] {
            let read = fields(body);
            assert_eq!((&read["message"], &read["amount"]), (&json!(message), &json!("1")));
        }
        for body in ["", "[]", "null", "{", "{} x", "<html>", r#"{"a": "b}"#, r#"{"a": "\"#, "\u{feff}"] {
            assert!(read(body.as_bytes()).is_none(), "{body}");
        }
    }

    #[test]
    fn a_value_that_cannot_be_read_is_lost_alone() {
        let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
        let read = fields(format!(r#"{{"extra": {deep}, "huge": 1e999, "amount": "1"}}"#).as_bytes());
        assert_eq!(Value::Object(read), json!({"extra": [], "huge": [], "amount": "1"}));
    }

    #[test]
    fn contradictions_and_other_spellings_are_seen() {
        let read_of = |body: &str| read(body.as_bytes()).unwrap();
        let names = ["result", "captured_amount"];
        assert_eq!(read_of(r#"{"result": 1, "result": 2}"#).contradicted(&names), Some("result"));
        assert_eq!(read_of(r#"{"result": 1, "result": 1, "x": 1, "x": 2}"#).contradicted(&names), None);
        let below = read_of(r#"{"x": {"result": 1, "result": 2}}"#);
        assert_eq!((below.contradicted(&names), below.contradicted_anywhere(&names)), (None, Some("result")));
        for (answer, found) in [
            (json!({"result": 1, "captured_amount": 1}), None),
            (json!({"Result": 1}), Some("result")),
            (json!({"result ": 1, "result": 2}), Some("result")),
            (json!({"capturedAmount": "1"}), Some("captured_amount")),
            (json!({"capturedAmount": "1", "captured_amount": "1"}), None),
            (json!({"results": 1, "amount": 1}), None),
        ] {
            assert_eq!(misspelled(answer.as_object().unwrap(), &names), found, "{answer}");
        }
    }

    proptest! {
        /// Valid JSON is read as by any other parser.
        #[test]
        fn good_json_is_left_as_it_is(text in any::<String>(), other in any::<String>()) {
            let whole = json!({text.clone(): other, "x": [text]});
            prop_assert_eq!(Value::Object(fields(whole.to_string().as_bytes())), whole);
        }

        /// Any string with a proper closing quote can be read.
        #[test]
        fn any_string_is_fixed(text in r#"(\\["\\/bnux'dD8]|[a0dD8cC\né\x00])*"#) {
            let quoted = format!("\"{text}\"");
            prop_assert!(serde_json::from_str::<Value>(&fixed(&quoted)).is_ok(), "{quoted}");
        }
    }
}
