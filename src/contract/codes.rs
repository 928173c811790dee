//! The table of codes, for people and for programs.

use serde_json::{Value, json};

use crate::payment::code::{CODES, Code, CodeEntry, Told};

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

const DELAYED: &str = "
## What to show a customer

A `command.delayed` is for programs. A checkout waits a few seconds for the answer, then shows one of three things, and
the answer when it comes. Where `data.operation.state` is `unknown`, an earlier attempt may have been received, whatever
the reason of this delay: then show the second.

| show | and |
| --- | --- |
| \"We are working on it.\" | nothing was charged so far. The customer may wait, or end it: `payment.cancel` |
| \"We do not know yet whether you were charged.\" | offer no other way to pay: it could be charged twice. The answer comes by itself, or from a person |
| \"Your payment was received; its confirmation takes time.\" | send the customer on: to an order that waits for `paid_in_full` |

For a refund, a capture or a release, tell the customer only that it is in progress.

| reason | show |
| --- | --- |
";

/// What a checkout shows while a charge is delayed for a reason; `None` where nothing is delayed for it.
fn shown(code: Code) -> Option<&'static str> {
    match code {
        Code::Accepted | Code::Held | Code::Unreachable | Code::RateLimited | Code::Misconfigured => {
            Some("We are working on it.")
        }
        Code::GatewayChanged
        | Code::Refused
        | Code::Timeout
        | Code::GatewayError
        | Code::Conflict
        | Code::InvalidAnswer
        | Code::Mismatch
        | Code::WorkerLost
        | Code::Escalated => Some("We do not know yet whether you were charged."),
        Code::Pending => Some("Your payment was received; its confirmation takes time."),
        _ => None,
    }
}

/// The page.
pub(super) fn page() -> String {
    let rows = CODES.iter().map(|entry| {
        let told: Vec<String> = told(entry).map(|kind| format!("`{kind}`")).collect();
        format!("| `{}` | {} | {} | {} |", entry.word, told.join(", "), entry.meaning, entry.advice)
    });
    let show = |entry: &CodeEntry| shown(entry.code).map(|text| format!("| `{}` | \"{text}\" |", entry.word));
    let (rows, shows): (Vec<String>, Vec<String>) = (rows.collect(), CODES.iter().filter_map(show).collect());
    format!("{HEAD}{}\n{DELAYED}{}\n", rows.join("\n"), shows.join("\n"))
}

/// The same for programs.
pub(super) fn table() -> Value {
    let row = |entry: &CodeEntry| {
        let told: Vec<&str> = told(entry).collect();
        let mut row = json!({ "code": entry.word, "in": told, "meaning": entry.meaning, "advice": entry.advice });
        if let Some(text) = shown(entry.code) {
            row["show"] = json!(text);
        }
        row
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_delays_has_something_to_show() {
        for entry in CODES {
            let delays = entry.told.contains(&Told::Delayed);
            assert_eq!(shown(entry.code).is_some(), delays, "{}", entry.word);
        }
    }
}
