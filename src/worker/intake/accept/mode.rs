//! The two content modes of CloudEvents. A message of either mode is turned into one envelope as JSON text, which
//! everything after that reads.
//!
//! - Structured: the body is the envelope. Headers may repeat its attributes, and must then agree with it.
//! - Binary: the attributes are headers, `datacontenttype` is the AMQP `content_type`, and the body is `data`.

use std::borrow::Cow;

use serde_json::Value;
use serde_json::value::RawValue;

use super::data::{DATA, DATA_BASE64};
use crate::payment::code::{Code, Rejection};
use crate::payment::command::CommandType;
use crate::payment::field::{fields, quoted, time};
use crate::payment::json;
use crate::worker::intake::accept::{Message, reject};

/// The prefix of the media types of structured and batched mode.
const MEDIA_TYPE: &str = "application/cloudevents";

/// The members without which a JSON object is no envelope.
const REQUIRED: [&str; 5] = ["specversion", "id", "source", "type", "subject"];

/// A message as one JSON text.
pub(super) struct Envelope<'a> {
    /// The JSON text: an object, unless the body is not one.
    pub text: Cow<'a, str>,
    /// Why the message is ambiguous, if it mixes the modes.
    pub wrong: Option<Rejection>,
}

impl<'a> Envelope<'a> {
    /// Reads the body according to the message's mode.
    pub fn of(message: &Message<'_>, body: &'a str) -> Envelope<'a> {
        // The common case: avoids parsing the body twice.
        if message.headers.is_empty() {
            return Envelope { text: Cow::Borrowed(body), wrong: None };
        }
        let members = json::members(body).unwrap_or_default();
        let is_envelope = members.iter().any(|(name, _)| name == "specversion");
        let is_called_one = message.content_type.is_some_and(names_an_envelope) && !members.is_empty();
        let is_structured = match header(message, "specversion") {
            Some(_) => is_envelope && is_called_one,
            None => is_envelope || is_called_one,
        };
        if is_structured {
            return structured(message, &members, body);
        }
        let misplaced = message.headers.iter().find(|(name, _)| name == DATA || name == DATA_BASE64);
        let wrong = match misplaced {
            Some((name, _)) => Some(invalid(name, "belongs in the body")),
            None if is_envelope => Some(invalid(
                "specversion",
                "appears in a header and in the body; content_type must say which of them applies",
            )),
            None => None,
        };
        Envelope { text: Cow::Owned(binary(message, body)), wrong }
    }
}

/// Structured mode with headers. An attribute that is only in a header counts too. But if it is a required one, the
/// body by itself is no envelope: the attribute then only names the event, so that its rejection can be answered.
fn structured<'a>(message: &Message<'_>, members: &[(String, &RawValue)], body: &'a str) -> Envelope<'a> {
    let mut added = String::new();
    let mut wrong = None;
    for (name, value) in message.headers.iter().filter(|(_, value)| !value.is_null()) {
        let mut inside = members.iter().filter(|(member, _)| member == name).map(|(_, raw)| *raw).peekable();
        if name == DATA || name == DATA_BASE64 {
            wrong.get_or_insert_with(|| invalid(name, "belongs in the body"));
        } else if inside.peek().is_none() {
            added.push(',');
            added.push_str(&member(name, &value.to_string()));
            if REQUIRED.contains(&name.as_str()) {
                wrong.get_or_insert_with(|| invalid(name, "appears in a header but not in the body"));
            }
        } else if inside.any(|raw| !is_same(name, raw, value)) {
            wrong.get_or_insert_with(|| invalid(name, "differs between the header and the body"));
        }
    }
    let text = match body.trim_end().strip_suffix('}') {
        Some(open) if !added.is_empty() => Cow::Owned(format!("{open}{added}}}")),
        _ => Cow::Borrowed(body),
    };
    Envelope { text, wrong }
}

fn binary(message: &Message<'_>, body: &str) -> String {
    let attributes = message.headers.iter().filter(|(name, _)| name != DATA && name != DATA_BASE64);
    let mut members: Vec<String> = attributes.map(|(name, value)| member(name, &value.to_string())).collect();
    let content_type = message.content_type.filter(|kind| !kind.is_empty()).map(Value::from);
    // Added once, if a header already says the same.
    if let Some(kind) = content_type.filter(|kind| header(message, "datacontenttype") != Some(kind)) {
        members.push(member("datacontenttype", &kind.to_string()));
    }
    if let Some(data) = data(message, body) {
        members.push(member(DATA, &data));
    }
    format!("{{{}}}", members.join(","))
}

/// The body as JSON, or as a JSON string if it is not valid JSON, so that it is rejected under the command's own name.
/// An empty body means no data, which is right for a command without fields; any other command may have lost its data
/// on the way.
fn data<'a>(message: &Message<'_>, body: &'a str) -> Option<Cow<'a, str>> {
    if body.is_empty() {
        let kind = header(message, "type").and_then(Value::as_str).and_then(CommandType::from_word);
        return kind.filter(|kind| !fields(*kind).is_empty()).map(|_| Cow::Borrowed("null"));
    }
    Some(match serde_json::from_str::<&RawValue>(body) {
        Ok(raw) => Cow::Borrowed(raw.get()),
        Err(_) => Cow::Owned(Value::from(body).to_string()),
    })
}

fn header<'a>(message: &Message<'a>, name: &str) -> Option<&'a Value> {
    message.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value)
}

fn names_an_envelope(content_type: &str) -> bool {
    content_type.get(..MEDIA_TYPE.len()).is_some_and(|start| start.eq_ignore_ascii_case(MEDIA_TYPE))
}

/// Whether a member equals its header, which may use another notation for a time. `time` itself is not compared, as a
/// header may have it in whole seconds.
fn is_same(name: &str, raw: &RawValue, value: &Value) -> bool {
    let Ok(member) = serde_json::from_str::<Value>(raw.get()) else { return false };
    let as_time = |value: &Value| value.as_str().and_then(time);
    name == "time" || member == *value || as_time(&member).is_some_and(|at| as_time(value) == Some(at))
}

fn member(name: &str, json: &str) -> String {
    format!("{}:{json}", Value::from(name))
}

fn invalid(name: &str, what: &str) -> Rejection {
    reject(Code::InvalidEnvelope, format!("{}: {what}", quoted(name)))
}
