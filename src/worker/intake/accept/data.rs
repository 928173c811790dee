//! A command's data: an object beside its attributes, or JSON in base64.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::excerpt::{NAME_MAX, excerpt};
use crate::payment::code::{Code, Rejection};
use crate::payment::command::{Body, Kind};
use crate::payment::command::{DEPTH_MAX, VALUES_MAX};
use crate::payment::fact::facts_data;
use crate::payment::{card, json};
use crate::worker::intake::accept::{Attributes, reject};

/// The CloudEvents member for data that is JSON.
pub(super) const DATA: &str = "data";
/// The CloudEvents member for binary data.
pub(super) const DATA_BASE64: &str = "data_base64";

/// A command's data, parsed once for its content and its hash.
pub(super) struct Data<'a> {
    /// The JSON text; empty if there is no data, or if it could not be decoded from base64.
    text: Cow<'a, str>,
    /// The raw members, if they could not be turned into a text.
    raw: String,
    /// `None` if there is no data or if it is invalid.
    value: Option<Value>,
    wrong: Option<Rejection>,
}

impl<'a> Data<'a> {
    /// Reads the data. Errors are only reported by [`Data::checked`].
    pub fn read(attributes: &Attributes<'a>) -> Data<'a> {
        let plain = attributes.get(DATA).map(|raw| raw.get());
        let encoded = attributes.get(DATA_BASE64).map(|raw| raw.get()).filter(|raw| *raw != "null");
        match (plain, encoded) {
            (None, None) => Data { text: Cow::default(), raw: String::new(), value: None, wrong: None },
            (Some(plain), None) => Data::of(Cow::Borrowed(plain)),
            (None, Some(encoded)) => match decode(encoded) {
                Ok(text) => Data::of(Cow::Owned(text)),
                Err(wrong) => Data::unread(encoded.to_owned(), invalid("data_base64", wrong)),
            },
            (Some(plain), Some(encoded)) => Data::unread(
                format!("{plain} {encoded}"),
                invalid("data_base64", "must not be given together with data"),
            ),
        }
    }

    fn of(text: Cow<'a, str>) -> Data<'a> {
        if let Err(wrong) = check_extent(&text) {
            return Data { text, raw: String::new(), value: None, wrong: Some(wrong) };
        }
        let (value, wrong) = match json::read(&text) {
            Ok(read) => match read.twice.first() {
                Some(name) => (None, Some(invalid(&excerpt(name, NAME_MAX), "is given twice"))),
                None => (Some(read.value), None),
            },
            Err(_) => (None, Some(invalid("data", "cannot be read"))),
        };
        Data { text, raw: String::new(), value, wrong }
    }

    fn unread(raw: String, wrong: Rejection) -> Data<'a> {
        Data { text: Cow::default(), raw, value: None, wrong: Some(wrong) }
    }

    /// Whether the base64 contains a card number, which a search of the message does not find.
    pub fn hides_card(&self) -> bool {
        matches!(self.text, Cow::Owned(_)) && card::contains_card_number(&self.text)
    }

    /// Returns the data as an object of limited depth, or `None` if it is absent.
    pub fn checked(&self) -> Result<Option<&Map<String, Value>>, Rejection> {
        if let Some(wrong) = &self.wrong {
            return Err(wrong.clone());
        }
        let data = match &self.value {
            Some(Value::Object(data)) => data,
            Some(_) => return Err(invalid("data", "must be an object")),
            None => return Ok(None),
        };
        // PostgreSQL cannot store NUL characters.
        if self.text.contains("\\u0000") && data.iter().any(|(name, value)| name.contains('\0') || has_nul(value)) {
            return Err(reject(Code::InvalidEncoding, "data: a text contains a NUL character"));
        }
        Ok(Some(data))
    }

    /// The hash of type and data, independent of whitespace and the order of members.
    pub fn hash(&self, kind: &Kind) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(kind.as_str().as_bytes());
        hasher.update([0]);
        // A card number is not kept in any form, and its hash could be guessed.
        let written = self.value.as_ref().map(|value| json::hashed(&self.text, value));
        let whole = written.as_deref().or_else(|| [&*self.text, &self.raw].into_iter().find(|text| !text.is_empty()));
        hasher.update(card::scrub(whole.unwrap_or("null")).as_bytes());
        hasher.finalize().into()
    }

    /// Returns the part that is stored with the operation.
    pub fn kept_of(self, body: &Body) -> Map<String, Value> {
        if let Body::Notification(facts) = body {
            return facts_data(facts);
        }
        let Some(Value::Object(mut data)) = self.value else { return Map::new() };
        if matches!(body, Body::Create(_)) {
            // The rest is stored with the payment; only these are needed when the command's turn comes.
            data.retain(|name, _| name == "process" || name == "capture");
        }
        data
    }
}

/// Returns the JSON text in a base64 string, given as it stands in the message.
fn decode(encoded: &str) -> Result<String, &'static str> {
    let encoded: String = serde_json::from_str(encoded).map_err(|_| "must be a string")?;
    let bytes = STANDARD.decode(encoded).map_err(|_| "must be base64")?;
    let text = String::from_utf8(bytes).map_err(|_| "must contain a JSON object")?;
    if json::members(&text).is_err() { Err("must contain a JSON object") } else { Ok(text) }
}

fn invalid(name: &str, what: &str) -> Rejection {
    reject(Code::InvalidData, format!("{name}: {what}"))
}

pub(super) fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(has_nul),
        Value::Object(map) => map.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Checked in the text, before memory is allocated for its values. The parser itself gives up at 128 levels.
fn check_extent(text: &str) -> Result<(), Rejection> {
    let (levels, values) = extent(text);
    if levels > DEPTH_MAX {
        return Err(reject(Code::TooDeep, format!("data: is nested deeper than {DEPTH_MAX} levels")));
    }
    if values > VALUES_MAX {
        let message = format!("data: has {values} commas and opening brackets; the limit is {VALUES_MAX}");
        return Err(reject(Code::TooLarge, message));
    }
    Ok(())
}

/// The nesting depth of a JSON text, and the number of its commas and opening brackets.
fn extent(json: &str) -> (usize, usize) {
    let (mut depth, mut deepest, mut values, mut in_string, mut escaped) = (0_usize, 0, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
                values += 1;
            }
            b',' if !in_string => values += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    (deepest, values)
}
