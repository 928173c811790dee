//! Commands in binary mode, as the AsyncAPI document has them: the attributes are headers, the body is `data`.

use serde_json::{Map, Value, json};

use super::commands;
use super::examples::CommandExample;
use crate::payment::command::CommandType;

/// The media type of the body.
pub(super) const CONTENT_TYPE: &str = "application/json";

const ABOUT: &str = "AMQP properties, and the attributes as headers (application properties in AMQP 1.0). The prefix \
                     cloudEvents_ is equivalent to cloudEvents:, and an AMQP timestamp to a time as text.";

/// What of an envelope is no header.
const NO_HEADERS: [&str; 3] = ["data", "data_base64", "datacontenttype"];

/// The headers of a command, beside its AMQP properties.
pub(super) fn headers(kind: CommandType, properties: Value) -> Value {
    let mut headers = properties;
    let envelope = commands::message(kind);
    headers["description"] = json!(ABOUT);
    headers["properties"]["content_type"] = envelope["properties"]["datacontenttype"].clone();
    for (name, attribute) in envelope["properties"].as_object().into_iter().flatten() {
        if !NO_HEADERS.contains(&name.as_str()) {
            headers["properties"][header(name)] = attribute.clone();
        }
    }
    let names = envelope["required"].as_array().into_iter().flatten().filter_map(Value::as_str).map(header);
    let others = headers["required"].as_array().cloned().unwrap_or_default();
    headers["required"] = names.map(Value::from).chain(others).collect();
    headers
}

/// An example of a command, as it is sent in binary mode.
pub(super) fn example(example: &CommandExample) -> Value {
    let mut headers = Map::from_iter([("content_type".to_owned(), json!(CONTENT_TYPE))]);
    if example.kind.is_of_operators() {
        headers.insert("user_id".to_owned(), json!("operator"));
    }
    for (name, value) in example.message.as_object().into_iter().flatten() {
        if !NO_HEADERS.contains(&name.as_str()) {
            headers.insert(header(name), value.clone());
        }
    }
    json!({
        "name": example.message["id"], "summary": example.summary, "headers": headers,
        "payload": example.message["data"],
    })
}

fn header(attribute: &str) -> String {
    format!("cloudEvents:{attribute}")
}
