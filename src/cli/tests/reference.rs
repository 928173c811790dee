//! The pages of `docs/reference/`, generated from what they describe. `UPDATE_DOCS=1 cargo test --lib reference`
//! rewrites them.

use std::collections::BTreeMap;
use std::path::Path;

use clap::{Command, CommandFactory, Parser};
use serde_json::Value;
use strum::IntoEnumIterator;

use crate::cli::Arguments;
use crate::contract;
use crate::payment::command::CommandType;
use crate::payment::event::EventType;
use crate::telemetry::metrics::METRICS;

const COMMAND_LINE: &str = "\
# Command line

What `--help` prints for each command. Every command reads the [configuration](configuration.md); those that change or
delete something show what they would do until you add `--yes`.

This page is generated: `UPDATE_DOCS=1 cargo test --lib reference` rewrites it.

";

const CONFIGURATION: &str = "\
# Configuration

The text of [config/default.toml](../../config/default.toml). The sections of the example variants have the gateways'
own settings.

This page is generated: `UPDATE_DOCS=1 cargo test --lib reference` rewrites it.
";

const METRICS_BEFORE: &str = "\
# Metrics

Scrape `/metrics` of every replica, at `http.listen`. With several replicas, use `sum` for counters and histograms. For
gauges that are read from the database or the broker use `max`, because every replica reports the same value.
[On call](../on-call.md) explains the alerts that use these metrics.

This page is generated: `UPDATE_DOCS=1 cargo test --lib reference` rewrites it.

";

const METRICS_AFTER: &str = "
No label contains a payment's id. An unconfigured variant or unknown type counts as `other`. `currency` is missing if
there is none: a variant without unknown outcomes, or a command whose payment was never stored. Counters begin at zero,
gauges of database and broker with the first query, and call durations with the first call.
";

const COMMANDS: &str = "\
# Commands

The commands that you may publish, with their fields. [The contract](../../contract/README.md) explains how to send
them, [which is allowed when](../../contract/README.md#which-command-is-allowed-when) and [what is
answered](../../contract/README.md#what-is-answered); [codes.md](../../contract/codes.md) lists the answer codes. Every
command has a `subject`, the payment's id, unless its text says otherwise.

This page is generated from the JSON Schemas: `UPDATE_DOCS=1 cargo test --lib reference` rewrites it.

";

const EVENTS: &str = "\
# Events

The events that paybus publishes, with their members. More members, attributes and types may be added:
[the contract](../../contract/README.md#how-consumers-treat-what-they-do-not-know) says how to treat what you do not
know.

Routing keys are `<variant>.<type>`; a status change appends the new status: `default.payment.status_changed.confirmed`.

This page is generated from the JSON Schemas: `UPDATE_DOCS=1 cargo test --lib reference` rewrites it.

";

/// Compares a page with its file, or rewrites the file.
#[track_caller]
fn check(name: &str, page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference").join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, page).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == page, "docs/reference/{name} is stale; rewrite it: UPDATE_DOCS=1 cargo test --lib reference");
}

fn row(cells: &[&str]) -> String {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |\n", cells.join(" | "))
}

fn head(names: &[&str]) -> String {
    row(names) + &row(&vec!["---"; names.len()])
}

#[test]
fn the_command_line_is_its_help() {
    let all = commands(&Arguments::command(), "paybus");
    let mut page = COMMAND_LINE.to_owned() + &head(&["command", "purpose"]);
    for (name, about) in &all {
        page += &row(&[&format!("[`{name}`](#{})", name.replace(' ', "-")), about]);
    }
    let names = std::iter::once("paybus").chain(all.iter().map(|(name, _)| name.as_str()));
    for name in names {
        let help = Arguments::try_parse_from(name.split(' ').chain(["--help"])).expect_err("help").to_string();
        let help: Vec<&str> = help.lines().map(str::trim_end).collect();
        page += &format!("\n## `{name}`\n\n```text\n{}\n```\n", help.join("\n").trim());
    }
    check("cli.md", &page);
}

/// Every command as it is typed, and what it is for.
fn commands(command: &Command, above: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for command in command.get_subcommands() {
        let name = format!("{above} {}", command.get_name());
        if command.has_subcommands() {
            all.extend(commands(command, &name));
        } else {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            let words: Vec<&str> = about.trim_end_matches('.').split_whitespace().collect();
            all.push((name, words.join(" ")));
        }
    }
    all
}

#[test]
fn the_configuration_is_that_of_the_defaults() {
    let mut page = CONFIGURATION.to_owned();
    let mut comment: Vec<&str> = Vec::new();
    for line in include_str!("../../../config/default.toml").lines() {
        // A setting without a value is commented out, with no blank before its name.
        let setting = line.trim_start_matches('#');
        if let Some(text) = line.strip_prefix("# ") {
            comment.push(text);
        } else if setting.is_empty() {
            // Only the text at the top of the file is followed by an empty line.
            if !comment.is_empty() {
                page += &format!("\n{}\n", comment.join("\n"));
            }
            comment.clear();
        } else if setting.starts_with('[') {
            page += &format!("\n## `{setting}`\n\n");
            if !comment.is_empty() {
                page += &format!("{}\n\n", comment.join("\n"));
            }
            page += &head(&["setting", "meaning"]);
            comment.clear();
        } else {
            page += &row(&[&format!("`{line}`"), &comment.join(" ")]);
            comment.clear();
        }
    }
    check("configuration.md", &page);
}

#[test]
fn the_metrics_are_those_of_the_table() {
    let mut page = METRICS_BEFORE.to_owned() + &head(&["metric", "type", "labels", "meaning"]);
    for metric in METRICS {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        page += &row(&[&format!("`{}`", metric.name), metric.kind.as_str(), &labels.join(", "), metric.about]);
    }
    check("metrics.md", &(page + METRICS_AFTER));
}

#[test]
fn commands_and_events_are_those_of_the_contract() {
    check("commands.md", &messages(COMMANDS, "commands", CommandType::iter().map(CommandType::as_str)));
    check("events.md", &messages(EVENTS, "events", EventType::iter().map(EventType::as_str)));
}

/// A page of messages: all of them, their envelope, each with its data, and the values that they share.
fn messages(before: &str, folder: &str, kinds: impl Iterator<Item = &'static str> + Clone) -> String {
    let schemas = contract::schemas();
    let schema = |name: &str| &schemas[&format!("{folder}/{name}")];
    let mut page = before.to_owned() + &head(&["type", "meaning"]);
    for kind in kinds.clone() {
        page += &row(&[&format!("[`{kind}`](#{})", kind.replace('.', "")), about(schema(kind))]);
    }
    page += &format!("\n## Envelope\n\n{}\n\n{}", about(schema("envelope")), members(schema("envelope")));
    let mut shared: BTreeMap<&String, &Value> = BTreeMap::new();
    for kind in kinds {
        page += &format!("\n## `{kind}`\n\n{}\n\n", about(schema(kind)));
        page += &format!("JSON Schema: [{folder}/{kind}.json](../../contract/{folder}/{kind}.json)\n");
        for (name, definition) in schema(kind)["$defs"].as_object().into_iter().flatten() {
            if !name.ends_with("_data") {
                shared.insert(name, definition);
            } else if definition["properties"].as_object().is_some_and(|members| !members.is_empty()) {
                page += &format!("\n{}", members(definition));
            }
        }
    }
    page += "\n## Values in several messages\n";
    for (name, definition) in shared {
        page += &format!("\n### `{name}`\n");
        for text in [about(definition), &simple(definition)].into_iter().filter(|text| !text.is_empty()) {
            page += &format!("\n{text}\n");
        }
        if definition.get("properties").is_some() {
            page += &format!("\n{}", members(definition));
        }
    }
    page
}

fn about(schema: &Value) -> &str {
    schema["description"].as_str().unwrap_or_default()
}

/// The members of an object, those that are always there first.
fn members(schema: &Value) -> String {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let is_required = |name: &str| required.contains(&name);
    let mut members: Vec<(&String, &Value)> = schema["properties"].as_object().into_iter().flatten().collect();
    members.sort_by_key(|(name, _)| !is_required(name));
    let mut table = head(&["member", "required", "value", "meaning"]);
    for (name, member) in members {
        let required = if is_required(name) { "yes" } else { "" };
        table += &row(&[&format!("`{name}`"), required, &value(member), about(member)]);
    }
    table
}

/// What a member may be, in a few words.
fn value(schema: &Value) -> String {
    let reference = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str());
    match reference.and_then(|name| name.strip_prefix("#/$defs/")) {
        Some(name) => format!("[`{name}`](#{name})"),
        None => simple(schema),
    }
}

/// The same for one that refers to no other; nothing for an object whose members are listed.
fn simple(schema: &Value) -> String {
    if schema.get("properties").is_some() {
        return String::new();
    }
    if let Some(constant) = schema.get("const") {
        return format!("`{constant}`");
    }
    if let Some(words) = schema["enum"].as_array().or_else(|| schema["anyOf"][0]["enum"].as_array()) {
        let words: Vec<String> = words.iter().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect();
        return if words.len() > 60 { format!("one of {} codes", words.len()) } else { words.join(", ") };
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str());
    let mut text = kind.or_else(|| schema["anyOf"][0]["type"].as_str()).unwrap_or("any").to_owned();
    if let Some(format) = schema["format"].as_str() {
        text += &format!(", {format}");
    }
    if let Some(max) = schema["maxLength"].as_u64() {
        text += &format!(", at most {max} characters");
    }
    text
}
