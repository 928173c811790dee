//! The published contract: what those who publish commands and those who consume events work from. JSON Schemas, an
//! AsyncAPI document and the table of codes, made of what the parser and the events' writer use, so that they cannot
//! drift from it. `contract/` holds them as files; a test fails where these differ, and `paybus schema --write contract`
//! renews them.
//!
//! - `commands`, `events`: the messages' schemas.
//! - `examples`: one of each message.
//! - `asyncapi`: exchanges, queues, routing keys and who sends what.
//! - `binary_mode`: commands whose attributes are headers.
//! - `codes`: the table of codes.
//! - `types`: all messages in one schema, for generators of types.

mod asyncapi;
mod binary_mode;
mod codes;
mod commands;
mod events;
mod examples;
mod types;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use strum::IntoEnumIterator;

pub use self::examples::{CommandExample, commands as command_examples, events as event_examples};
use crate::payment::command::CommandType;
use crate::payment::event::EventType;

/// The contract's major version: raised by what breaks its users, and by nothing else.
pub const VERSION: u32 = 1;

/// One document of the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its file below `contract/`.
    pub file: String,
    /// What it is, in a line.
    pub title: String,
    /// Its text.
    pub text: String,
}

/// Every document.
pub fn documents() -> Vec<Document> {
    let mut all = vec![
        document(
            "asyncapi.json",
            "Exchanges, queues, routing keys and messages as AsyncAPI 3.0",
            &asyncapi::document(),
        ),
        Document {
            file: "codes.md".to_owned(),
            title: "What the codes of answers mean and what to do".to_owned(),
            text: codes::page(),
        },
        document("codes.json", "The same codes for programs", &codes::table()),
        document("types.json", "All messages in one schema, for generators of types", &types::document()),
    ];
    all.extend(schemas().into_iter().map(|(name, schema)| {
        let title = schema["title"].as_str().unwrap_or_default().to_owned();
        document(&format!("{name}.json"), &title, &schema)
    }));
    all
}

fn document(file: &str, title: &str, value: &Value) -> Document {
    Document { file: file.to_owned(), title: title.to_owned(), text: format!("{value:#}\n") }
}

/// Every message's schema, each whole in itself, by its name: `commands/payment.create`.
pub fn schemas() -> BTreeMap<String, Value> {
    let definitions = definitions();
    let whole = |(name, schema): (String, Value)| {
        let schema = standalone(&name, schema, &definitions);
        (name, schema)
    };
    messages().into_iter().map(whole).collect()
}

/// The schemas of all messages; what they share is referred to.
fn messages() -> Vec<(String, Value)> {
    let mut all = vec![
        ("commands/envelope".to_owned(), commands::envelope()),
        ("events/envelope".to_owned(), events::envelope()),
    ];
    all.extend(CommandType::iter().map(|kind| (command_name(kind), commands::message(kind))));
    all.extend(EventType::iter().map(|kind| (event_name(kind), events::message(kind))));
    all
}

fn command_name(kind: CommandType) -> String {
    format!("commands/{kind}")
}

fn event_name(kind: EventType) -> String {
    format!("events/{}", kind.as_str())
}

/// What messages share, by its name.
fn definitions() -> BTreeMap<String, Value> {
    let mut all = commands::definitions();
    all.extend(events::definitions());
    // Those of commands have bounds besides.
    let amount = json!({
        "type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?$",
        "description": "Money in units of its currency: a decimal string such as 12.50.",
    });
    all.insert("amount".to_owned(), amount);
    all
}

/// A schema with a description. Beside a reference, older drafts of JSON Schema and generators of types ignore it.
fn described(schema: Value, about: &str) -> Value {
    let mut schema = if schema.get("$ref").is_some() { json!({ "allOf": [schema] }) } else { schema };
    schema["description"] = json!(about);
    schema
}

/// A reference to what messages share.
fn shared(name: &str) -> Value {
    json!({ "$ref": format!("{SHARED}{name}") })
}

/// The name of a message's definition, or of its data's.
fn name(kind: &str, what: &str) -> String {
    format!("{}_{what}", kind.replace('.', "_"))
}

/// The types of commands that may do without a payment.
fn without_subject() -> Vec<&'static str> {
    CommandType::iter().filter(|kind| kind.may_lack_subject()).map(CommandType::as_str).collect()
}

const SHARED: &str = "#/$defs/";

/// A schema with all that it refers to in it.
fn standalone(name: &str, schema: Value, definitions: &BTreeMap<String, Value>) -> Value {
    let mut found = Map::new();
    gather(&schema, definitions, &mut found);
    let mut schema = schema;
    if let Value::Object(members) = &mut schema {
        members.insert("$schema".to_owned(), Value::from("https://json-schema.org/draft/2020-12/schema"));
        members.insert("$id".to_owned(), Value::from(format!("urn:paybus:{VERSION}:{}", name.replace('/', ":"))));
        if !found.is_empty() {
            members.insert("$defs".to_owned(), Value::Object(found));
        }
    }
    schema
}

fn gather(schema: &Value, definitions: &BTreeMap<String, Value>, found: &mut Map<String, Value>) {
    match schema {
        Value::Object(members) => {
            let name = members.get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix(SHARED));
            if let Some((name, definition)) = name.and_then(|name| definitions.get_key_value(name))
                && !found.contains_key(name)
            {
                found.insert(name.clone(), definition.clone());
                gather(definition, definitions, found);
            }
            members.values().for_each(|member| gather(member, definitions, found));
        }
        Value::Array(items) => items.iter().for_each(|item| gather(item, definitions, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests;
