//! The table of codes, for people and for programs.

use serde_json::{Value, json};

use crate::payment::code::{CODES, CodeEntry, Told};

const HEAD: &str = "\
# Codes

Why a command was rejected or failed (`data.code`) or is delayed (`data.reason`). `command.failed` stands also for the
`payment.status_changed` or `payment.updated` that answers a command and has a `code`.

A command that was answered is answered for good: whatever is tried anew needs a new `id`. `command.delayed` is no answer:
wait for the one whose `data.command.final` is true. Other codes may come: treat one that you do not know by the event
that has it.

This page is made of the table in `src/payment/code.rs` by `paybus schema --write contract`.

| code | in | meaning | what to do |
| --- | --- | --- | --- |
";

/// The page.
pub(super) fn page() -> String {
    let rows = CODES.iter().map(|entry| {
        let told: Vec<String> = told(entry).map(|kind| format!("`{kind}`")).collect();
        format!("| `{}` | {} | {} | {} |", entry.word, told.join(", "), entry.meaning, entry.advice)
    });
    format!("{HEAD}{}\n", rows.collect::<Vec<_>>().join("\n"))
}

/// The same for programs.
pub(super) fn table() -> Value {
    let row = |entry: &CodeEntry| {
        let told: Vec<&str> = told(entry).collect();
        json!({ "code": entry.word, "in": told, "meaning": entry.meaning, "advice": entry.advice })
    };
    CODES.iter().map(row).collect()
}

fn told(entry: &CodeEntry) -> impl Iterator<Item = &'static str> {
    entry.told.iter().map(|told| match told {
        Told::Rejected => "command.rejected",
        Told::Failed => "command.failed",
        Told::Delayed => "command.delayed",
    })
}
