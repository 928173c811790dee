//! CloudEvents attributes that arrive as headers: the binary mode of the AMQP protocol binding. RabbitMQ presents the
//! application properties of an AMQP 1.0 message as headers too.

use jiff::Timestamp;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::Value;

/// The prefixes of attributes' names. The underscore is for publishers whose libraries reject a colon.
const PREFIXES: [&str; 2] = ["cloudEvents:", "cloudEvents_"];

/// Returns the name of the attribute that a header holds; `None` if it holds none.
pub fn attribute_name(header: &str) -> Option<&str> {
    PREFIXES.iter().find_map(|prefix| header.strip_prefix(prefix))
}

/// Returns the attributes with their names, as JSON would hold them. An attribute is listed twice if the two prefixes
/// have different values.
pub fn attributes(headers: &FieldTable) -> Vec<(String, Value)> {
    let mut attributes = Vec::new();
    for (header, value) in headers.inner() {
        if let Some(name) = attribute_name(header.as_str()) {
            let attribute = (name.to_owned(), json(value));
            if !attributes.contains(&attribute) {
                attributes.push(attribute);
            }
        }
    }
    attributes
}

fn json(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::LongString(text) => text_of(text.as_bytes()),
        AMQPValue::ShortString(text) => Value::from(text.as_str()),
        // Some clients send text as bytes.
        AMQPValue::ByteArray(bytes) => text_of(bytes.as_slice()),
        AMQPValue::Timestamp(seconds) => time(*seconds),
        AMQPValue::Boolean(value) => Value::from(*value),
        AMQPValue::ShortShortInt(number) => Value::from(*number),
        AMQPValue::ShortShortUInt(number) => Value::from(*number),
        AMQPValue::ShortInt(number) => Value::from(*number),
        AMQPValue::ShortUInt(number) => Value::from(*number),
        AMQPValue::LongInt(number) => Value::from(*number),
        AMQPValue::LongUInt(number) => Value::from(*number),
        AMQPValue::LongLongInt(number) => Value::from(*number),
        AMQPValue::Void => Value::Null,
        // CloudEvents has no such types: whatever reads the attribute rejects this value.
        AMQPValue::Float(_)
        | AMQPValue::Double(_)
        | AMQPValue::DecimalValue(_)
        | AMQPValue::FieldArray(_)
        | AMQPValue::FieldTable(_) => unreadable(),
    }
}

fn text_of(bytes: &[u8]) -> Value {
    std::str::from_utf8(bytes).map_or_else(|_| unreadable(), Value::from)
}

/// Formats a time in RFC 3339, as structured mode does.
fn time(seconds: u64) -> Value {
    let time = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    time.map_or_else(unreadable, |time| Value::from(time.to_string()))
}

/// Returns a value that no attribute may have.
fn unreadable() -> Value {
    Value::Array(Vec::new())
}

#[cfg(test)]
mod tests {
    use lapin::types::ByteArray;
    use serde_json::json;

    use super::*;

    fn read(headers: &[(&str, AMQPValue)]) -> Vec<(String, Value)> {
        let mut table = FieldTable::default();
        for (name, value) in headers {
            table.insert((*name).into(), value.clone());
        }
        attributes(&table)
    }

    fn text(text: &str) -> AMQPValue {
        AMQPValue::LongString(text.into())
    }

    #[test]
    fn an_attribute_is_read_under_either_prefix_and_other_headers_are_none() {
        let headers = [
            ("cloudEvents:id", text("c-1")),
            ("cloudEvents_id", text("c-1")),
            ("cloudEvents:source", text("shop")),
            ("cloudEvents_source", text("other")),
            ("cloudevents:type", text("payment.create")),
            ("traceparent", text("00")),
        ];
        let named = |name: &str, value: &str| (name.to_owned(), json!(value));
        assert_eq!(read(&headers), [named("id", "c-1"), named("source", "shop"), named("source", "other")]);
    }

    #[test]
    fn values_become_what_json_would_hold() {
        for (value, expected) in [
            (text("é"), json!("é")),
            (AMQPValue::ShortString("a".into()), json!("a")),
            (AMQPValue::ByteArray(ByteArray::from(b"bytes".to_vec())), json!("bytes")),
            (AMQPValue::Timestamp(1_795_348_800), json!("2026-11-22T12:00:00Z")),
            (AMQPValue::Timestamp(u64::MAX), json!([])),
            (AMQPValue::LongLongInt(7), json!(7)),
            (AMQPValue::Boolean(true), json!(true)),
            (AMQPValue::Void, Value::Null),
            (AMQPValue::LongString(b"\xff".to_vec().into()), json!([])),
            (AMQPValue::Double(1.5), json!([])),
            (AMQPValue::FieldTable(FieldTable::default()), json!([])),
        ] {
            assert_eq!(read(&[("cloudEvents:x", value.clone())]), [("x".to_owned(), expected)], "{value:?}");
        }
    }
}
