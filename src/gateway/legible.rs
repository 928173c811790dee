//! A gateway's JSON, read for what it says: strict about money, lenient about its ornaments. A text that is damaged is
//! mended where it is, and a value that cannot be read is lost alone, for the answer around it may tell of money.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::payment::json;

/// A byte order mark, which some put before JSON.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// An answer's members.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// By their names. One that cannot be read is an empty list, which none may be: it is there, and it says nothing.
    pub fields: Map<String, Value>,
    /// Those that are there twice and say different things.
    contradicted: Vec<String>,
    /// Those that are there twice somewhere below.
    twice_below: Vec<String>,
}

/// Reads a body; nothing where it is no JSON object.
pub(super) fn read(body: &[u8]) -> Option<Members> {
    let text = String::from_utf8_lossy(body);
    let text = mended(text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text));
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
    /// One of these names that is there twice and says different things, of this object itself.
    pub fn contradicted(&self, names: &[&'static str]) -> Option<&'static str> {
        names.iter().find(|name| self.contradicted.iter().any(|other| other == *name)).copied()
    }

    /// The same for all that is below it, where it is not looked at whether they say the same.
    pub fn contradicted_anywhere(&self, names: &[&'static str]) -> Option<&'static str> {
        let below = || names.iter().find(|name| self.twice_below.iter().any(|other| other == *name)).copied();
        self.contradicted(names).or_else(below)
    }
}

/// One of these names that stands there in another spelling (`Amount`, `capturedAmount`) and says something that the name
/// itself does not: whoever wrote it meant it to count.
pub(super) fn misspelled(fields: &Map<String, Value>, names: &[&'static str]) -> Option<&'static str> {
    let is_other = |name: &&&str| {
        let letters = json::letters(name);
        let mut others = fields.iter().filter(|(other, _)| other != *name && json::letters(other) == letters);
        others.any(|(_, value)| fields.get(**name) != Some(value))
    };
    names.iter().find(is_other).copied()
}

/// A JSON text whose strings any reader of JSON takes: half a surrogate pair and an escape that there is none of become
/// U+FFFD, a control character its own escape.
fn mended(text: &str) -> Cow<'_, str> {
    let mut mended = String::new();
    // Up to here it is copied.
    let mut copied = 0;
    let mut replace = |place: usize, length: usize, by: char| {
        mended.push_str(&text[copied..place]);
        match by.is_control() {
            true => mended.push_str(&format!("\\u{:04x}", u32::from(by))),
            false => mended.push(by),
        }
        copied = place + length;
    };
    let (mut place, mut in_string) = (0, false);
    let bytes = text.as_bytes();
    while let Some(byte) = bytes.get(place) {
        place += match byte {
            b'"' => {
                in_string = !in_string;
                1
            }
            b'\\' if in_string => match escape(&bytes[place..]) {
                Ok(length) => length,
                Err(length) => {
                    replace(place, length, char::REPLACEMENT_CHARACTER);
                    length
                }
            },
            0..0x20 if in_string => {
                replace(place, 1, char::from(*byte));
                1
            }
            _ => 1,
        };
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    mended.push_str(&text[copied..]);
    Cow::Owned(mended)
}

/// How long an escape is; as an error, how much of it is no good. It begins with its backslash.
fn escape(bytes: &[u8]) -> Result<usize, usize> {
    match bytes.get(1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(2),
        Some(b'u') => match (unit(bytes), unit(bytes.get(6..).unwrap_or_default())) {
            (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => Ok(12),
            (Some(0xd800..0xe000), _) => Err(6),
            (Some(_), _) => Ok(6),
            (None, _) => Err(2),
        },
        // What follows may be a character of many bytes, or the end.
        _ => Err(1),
    }
}

/// The unit of UTF-16 that an escape such as `\u0041` stands for.
fn unit(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.strip_prefix(b"\\u")?.get(..4)?;
    let hex = digits.iter().map(|digit| char::from(*digit).to_digit(16));
    hex.into_iter().try_fold(0, |unit, digit| Some(unit * 16 + digit?))
}

/// What was said in a text. Of a number or a truth value, its JSON; nothing where it is null or cannot be said in a line.
pub(super) fn words<'a>(fields: &'a Map<String, Value>, name: &str) -> Cow<'a, str> {
    match fields.get(name) {
        None | Some(Value::Null) => Cow::default(),
        Some(Value::String(text)) => Cow::Borrowed(text),
        Some(value @ (Value::Number(_) | Value::Bool(_))) => Cow::Owned(value.to_string()),
        Some(Value::Array(_) | Value::Object(_)) => {
            leave_out(name, "it is no text");
            Cow::default()
        }
    }
}

/// Notes that an ornament of an answer is left out. What it held is not told: it may be anything.
pub(super) fn leave_out(member: &str, why: &str) {
    tracing::debug!(member, "left out of a gateway's answer: {why}");
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
        /// What any reader takes is read as any reader reads it.
        #[test]
        fn good_json_is_left_as_it_is(text in any::<String>(), other in any::<String>()) {
            let whole = json!({text.clone(): other, "x": [text]});
            prop_assert_eq!(Value::Object(fields(whole.to_string().as_bytes())), whole);
        }

        /// Wherever a string ends by its quotes, it can be read.
        #[test]
        fn any_string_is_mended(text in r#"(\\["\\/bnux'dD8]|[a0dD8cC\né\x00])*"#) {
            let quoted = format!("\"{text}\"");
            prop_assert!(serde_json::from_str::<Value>(&mended(&quoted)).is_ok(), "{quoted}");
        }
    }
}
