//! The contract's files are what the code says, and each is sound in itself.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::json;
use strum::IntoEnumIterator;

use super::*;
use crate::payment::operation::State;
use crate::payment::status::{Cause, Status};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contract")
}

fn validator(schema: &Value) -> jsonschema::Validator {
    jsonschema::draft202012::options().should_validate_formats(true).build(schema).unwrap()
}

fn check(name: &str, message: &Value) {
    let schema = &schemas()[name];
    let wrong: Vec<String> =
        validator(schema).iter_errors(message).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(wrong.is_empty(), "{name}: {wrong:#?} in {message:#}");
}

#[test]
fn the_files_are_what_the_code_says() {
    let renew = "renew them: cargo run -- schema --write contract";
    let mut known = BTreeSet::from(["README.md".to_owned()]);
    for document in documents() {
        let text = std::fs::read_to_string(folder().join(&document.file)).unwrap_or_default();
        assert!(text == document.text, "contract/{} differs from the code; {renew}", document.file);
        known.insert(document.file);
    }
    for file in files(&folder()) {
        assert!(known.contains(&file), "contract/{file} is no document of the code any more; delete it");
    }
}

/// The files below a folder, as names relative to it.
fn files(folder: &Path) -> Vec<String> {
    let below = |path: PathBuf| match path.is_dir() {
        true => {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            files(&path).into_iter().map(|file| format!("{name}/{file}")).collect()
        }
        false => vec![path.file_name().unwrap().to_str().unwrap().to_owned()],
    };
    std::fs::read_dir(folder).unwrap().flat_map(|entry| below(entry.unwrap().path())).collect()
}

#[test]
fn every_schema_is_one_of_its_draft() {
    for (name, schema) in schemas() {
        assert!(jsonschema::meta::is_valid(&schema), "{name}");
        validator(&schema);
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema", "{name}");
    }
}

#[test]
fn every_message_has_an_example_that_its_schema_accepts() {
    let commands = command_examples();
    for kind in CommandType::iter() {
        assert!(commands.iter().any(|example| example.kind == kind), "{kind}");
    }
    for example in commands {
        check(&command_name(example.kind), &example.message);
        check("commands/envelope", &example.message);
    }
    let events = event_examples();
    let kinds: Vec<EventType> = events.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, EventType::iter().collect::<Vec<_>>());
    for (kind, event) in events {
        check(&event_name(kind), &event);
        check("events/envelope", &event);
    }
}

#[test]
fn every_command_has_an_example_in_binary_mode() {
    for example in command_examples() {
        let schema = binary_mode::headers(example.kind, json!({ "type": "object" }));
        let sent = binary_mode::example(&example);
        let wrong: Vec<String> =
            validator(&schema).iter_errors(&sent["headers"]).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{wrong:#?} in {sent:#}");
        assert_eq!(sent["payload"], example.message["data"]);
        assert_eq!(sent["headers"]["cloudEvents:type"], example.kind.as_str());
    }
}

/// A schema of all messages that takes this definition alone.
fn type_of(name: &str) -> jsonschema::Validator {
    let mut schema = types::document();
    assert!(schema["$defs"].get(name).is_some(), "{name}");
    schema["anyOf"] = json!([shared(name)]);
    validator(&schema)
}

#[test]
fn every_example_is_of_the_type_of_its_message_and_of_no_other() {
    let commands = command_examples().into_iter().map(|example| (example.kind.as_str(), "command", example.message));
    let events = event_examples().into_iter().map(|(kind, event)| (kind.as_str(), "event", event));
    for (kind, what, message) in commands.chain(events) {
        let name = |kind: &str| format!("{}_{what}", kind.replace('.', "_"));
        assert!(type_of(&name(kind)).is_valid(&message), "{kind}: {message:#}");
        assert!(type_of(what).is_valid(&message), "{kind}");
        let other = if what == "command" { "payment.sync" } else { "command.delayed" };
        assert!(kind == other || !type_of(&name(other)).is_valid(&message), "{kind}");
    }
}

/// A type without its data, or with what an amount may not be, would be found out by the worker alone.
#[test]
fn a_type_holds_what_it_can() {
    let mut refund = json!({ "specversion": "1.0", "id": "1", "source": "shop", "type": "payment.refund" });
    refund["subject"] = json!("0192f0c1-7c5e-7000-8000-0000000000aa");
    let of_refunds = type_of("payment_refund_command");
    assert!(!of_refunds.is_valid(&refund), "no data");
    for (data, is_good) in [(json!({}), true), (json!({ "amount": "1" }), true), (json!({ "amount": 1 }), false)] {
        refund["data"] = data;
        assert_eq!(of_refunds.is_valid(&refund), is_good, "{refund}");
    }
}

/// By its name, and not by a pattern of its own: so that there is one type of it.
#[test]
fn every_amount_is_the_same_type() {
    let definitions = definitions();
    for (name, definition) in &definitions {
        for (member, schema) in definition["properties"].as_object().into_iter().flatten() {
            let is_amount =
                member.ends_with("amount") || ["total", "tax", "delivery", "asked", "answered"].contains(&&**member);
            let amount = json!([shared("amount")]);
            assert!(!is_amount || schema["allOf"] == amount, "{name}: {member}: {schema}");
        }
    }
}

/// Each example has a name of its own, or the second would be a duplicate of the first.
#[test]
fn every_example_is_another_command() {
    let names = command_examples()
        .into_iter()
        .map(|example| (example.message["subject"].clone(), example.message["id"].clone()));
    let names: Vec<_> = names.collect();
    for (index, name) in names.iter().enumerate() {
        assert!(!names[..index].contains(name), "{name:?}");
    }
}

#[test]
fn the_payments_schema_names_every_member_and_no_other() {
    let order = event_examples()[0].1["data"]["payment"].clone();
    let mut shown: BTreeSet<String> = order.as_object().unwrap().keys().cloned().collect();
    shown.insert("redirect_url".to_owned());
    let named: BTreeSet<String> = definitions()["payment"]["properties"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(shown, named);
}

#[test]
fn a_later_version_may_add_members() {
    let mut event = event_examples()[1].1.clone();
    event["data"]["settled_amount"] = json!("1.00");
    event["data"]["payment"]["payer"] = json!({});
    event["newattribute"] = json!("x");
    event["data"]["code"] = json!("a_code_of_tomorrow");
    check("events/payment.status_changed", &event);
}

/// The page on statuses has every transition and no other.
#[test]
fn the_documented_transitions_are_those_of_the_table() {
    let page = include_str!("../../docs/states.md");
    let causes = [
        ("process", Cause::Process),
        ("cancel", Cause::Cancel),
        ("capture", Cause::Capture),
        ("release", Cause::Release),
        ("refund", Cause::Refund),
        ("gateway", Cause::Proof),
    ];
    for from in Status::iter() {
        let begins = format!("| from `{from}` |");
        let row = page.lines().find(|line| line.starts_with(&begins)).unwrap_or_else(|| panic!("{from} has no row"));
        let cells: Vec<&str> = row.trim_end_matches('|').split('|').skip(2).map(str::trim).collect();
        assert_eq!(cells.len(), Status::iter().len(), "{row}");
        for (to, cell) in Status::iter().zip(cells) {
            for (word, cause) in causes {
                let named = cell.split(", ").any(|named| named == word);
                assert_eq!(named, from.may_become(to, cause), "{from} to {to} by {word}");
            }
        }
    }
}

#[test]
fn the_documented_states_of_operations_are_those_of_the_table() {
    let page = include_str!("../../docs/states.md");
    for from in State::iter() {
        let begins = format!("| `{from}` |");
        let row = page.lines().find(|line| line.starts_with(&begins)).unwrap_or_else(|| panic!("{from} has no row"));
        let leaves_by = row.trim_end_matches('|').rsplit('|').next().unwrap();
        for to in State::iter().filter(|to| *to != from) {
            assert_eq!(leaves_by.contains(&format!("`{to}`")), from.may_become(to), "{from} to {to}");
        }
    }
}
