//! One schema of all messages, for generators of types: as programs write commands, and without the rules that no type holds.

use serde_json::{Map, Value, json};
use strum::IntoEnumIterator;

use super::{VERSION, commands, definitions, events, name, shared};
use crate::payment::command::CommandType;
use crate::payment::event::EventType;
use crate::payment::field::needs_data;

const COMMAND: &str = "A command. Distinguish commands by `type`.";

const EVENT: &str = "An event. Distinguish events by `type`, and ignore unknown types: more may be added.";

const DESCRIPTION: &str = "Every message, as far as types can express it. Validate a message with its own schema, \
                           which contains the rules that no type can express, such as the number of decimals of a \
                           currency.";

/// The document.
pub(super) fn document() -> Value {
    let commands: Vec<(String, Value)> =
        CommandType::iter().map(|kind| (name(kind.as_str(), "command"), command(kind))).collect();
    let events: Vec<(String, Value)> =
        EventType::iter().map(|kind| (name(kind.as_str(), "event"), events::message(kind))).collect();
    let mut all: Map<String, Value> = definitions().into_iter().collect();
    for (union, about, messages) in [("command", COMMAND, commands), ("event", EVENT, events)] {
        let any: Vec<Value> = messages.iter().map(|(name, _)| shared(name)).collect();
        all.insert(union.to_owned(), json!({ "anyOf": any, "description": about }));
        all.extend(messages);
    }
    all.values_mut().for_each(simplify);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": format!("urn:paybus:{VERSION}:types"),
        "title": "Message", "description": DESCRIPTION,
        "anyOf": [shared("command"), shared("event")],
        "$defs": all,
    })
}

/// Its data is an object, and its time a text.
fn command(kind: CommandType) -> Value {
    let mut schema = commands::message(kind);
    if let Some(properties) = schema["properties"].as_object_mut() {
        properties.remove("data_base64");
        let about = properties["time"]["description"].take();
        let time = json!({ "type": "string", "format": "date-time", "description": about });
        properties.insert("time".to_owned(), time);
    }
    if let (true, Some(required)) = (needs_data(kind), schema["required"].as_array_mut()) {
        required.push(json!("data"));
    }
    schema
}

/// Takes out the rules that no type holds, and keeps TypeScript from taking known words for any text.
fn simplify(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            for rule in ["if", "then", "else", "not"] {
                members.remove(rule);
            }
            members.values_mut().for_each(simplify);
            let words = members.get_mut("anyOf").and_then(Value::as_array_mut);
            if let Some([known, any]) = words.map(Vec::as_mut_slice)
                && known.get("enum").is_some()
            {
                any["tsType"] = json!("(string & {})");
            }
        }
        Value::Array(items) => items.iter_mut().for_each(simplify),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
