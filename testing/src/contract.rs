//! Every event that any test sees is held against the published schemas, which are closed here: a member that the contract
//! does not name is found, although consumers must ignore it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::files::{read, root};

static EVENTS: LazyLock<BTreeMap<String, Validator>> = LazyLock::new(|| {
    let names = root().join("contract/events").read_dir().expect("the schemas").map(|entry| entry.unwrap().file_name());
    let schema = |name: OsString| {
        let name = name.into_string().unwrap();
        let schema = serde_json::from_str(&read(format!("contract/events/{name}"))).expect("JSON");
        (name.trim_end_matches(".json").to_owned(), validator(&closed(schema)))
    };
    names.map(schema).collect()
});

/// A schema's validator, times and addresses included.
pub fn validator(schema: &Value) -> Validator {
    jsonschema::draft202012::options().should_validate_formats(true).build(schema).expect("a schema")
}

/// What is wrong with an event of this type and under this routing key, by the contract.
pub fn wrong(kind: &str, routing_key: &str, body: &Value) -> Vec<String> {
    let Some(schema) = EVENTS.get(kind) else {
        return vec![format!("there is no event {kind:?}")];
    };
    let mut wrong: Vec<String> =
        schema.iter_errors(body).map(|error| format!("{}: {error}", error.instance_path())).collect();
    let (variant, routed) = routing_key.split_once('.').unwrap_or_default();
    let expected = match kind {
        "payment.status_changed" => {
            format!("{kind}.{}", body["data"]["payment"]["status"].as_str().unwrap_or_default())
        }
        kind => kind.to_owned(),
    };
    if variant.is_empty() || routed != expected {
        wrong.push(format!("its routing key is {routing_key}"));
    }
    wrong
}

/// A schema that lets nothing come but what it names.
fn closed(schema: Value) -> Value {
    match schema {
        Value::Object(members) => {
            let mut members: serde_json::Map<String, Value> =
                members.into_iter().map(|(name, member)| (name, closed(member))).collect();
            if members.contains_key("properties") && members.get("type") == Some(&json!("object")) {
                members.entry("additionalProperties").or_insert(json!(false));
            }
            // Words that are known, and any other.
            if let Some(words) = members.get("anyOf").and_then(|any| any.get(0)?.get("enum")).cloned() {
                members.remove("anyOf");
                members.insert("enum".to_owned(), words);
            }
            Value::Object(members)
        }
        Value::Array(items) => items.into_iter().map(closed).collect(),
        other => other,
    }
}
