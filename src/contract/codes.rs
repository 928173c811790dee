//! The table of codes, for people and for programs.

use serde_json::{Value, json};

use crate::payment::code::{CODES, Code, CodeEntry, ReportedIn};

const HEAD: &str = "\
# Codes

Why a command was rejected or failed (`data.code`) or is delayed (`data.reason`). `command.failed` here also stands for a
`payment.status_changed` or `payment.updated` that answers a command and has a `code`.

The answer to a command is final: to try again, send a new command with a new `id`. `command.delayed` is not an answer:
wait for the event whose `data.command.final` is true. Codes may be added: treat an unknown code by the type of the event
that contains it.

This page is generated from the table in `src/payment/code.rs` by `paybus schema --write contract`.

| code | in | meaning | what to do |
| --- | --- | --- | --- |
";

const DELAYED: &str = "
## What to show a customer

A `command.delayed` is for programs. A checkout waits a few seconds for the answer, then shows one of three messages, and
the answer when it arrives. If `data.operation.state` is `unknown`, an earlier attempt may have been received, whatever the
reason for this delay: show the second message.

| show | and |
| --- | --- |
| \"We are working on it.\" | nothing was charged so far. The customer may wait or cancel: `payment.cancel` |
| \"We do not know yet whether you were charged.\" | offer no other way to pay: the customer could be charged twice. The answer arrives by itself or from an operator |
| \"Your payment was received; its confirmation takes time.\" | send the customer on to an order that waits for `paid_in_full` |

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
        let event_types: Vec<String> = event_types(entry).map(|kind| format!("`{kind}`")).collect();
        format!("| `{}` | {} | {} | {} |", entry.code.as_str(), event_types.join(", "), entry.meaning, entry.advice)
    });
    let show = |entry: &CodeEntry| shown(entry.code).map(|text| format!("| `{}` | \"{text}\" |", entry.code.as_str()));
    let (rows, shows): (Vec<String>, Vec<String>) = (rows.collect(), CODES.iter().filter_map(show).collect());
    format!("{HEAD}{}\n{DELAYED}{}\n", rows.join("\n"), shows.join("\n"))
}

/// The same for programs.
pub(super) fn table() -> Value {
    let row = |entry: &CodeEntry| {
        let event_types: Vec<&str> = event_types(entry).collect();
        let mut row =
            json!({ "code": entry.code.as_str(), "in": event_types, "meaning": entry.meaning, "advice": entry.advice });
        if let Some(text) = shown(entry.code) {
            row["show"] = json!(text);
        }
        row
    };
    CODES.iter().map(row).collect()
}

fn event_types(entry: &CodeEntry) -> impl Iterator<Item = &'static str> {
    entry.reported_in.iter().map(|event| match event {
        ReportedIn::Rejected => "command.rejected",
        ReportedIn::Failed => "command.failed",
        ReportedIn::Delayed => "command.delayed",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_delaying_code_has_a_text_to_show() {
        for entry in CODES {
            let delays = entry.reported_in.contains(&ReportedIn::Delayed);
            assert_eq!(shown(entry.code).is_some(), delays, "{}", entry.code.as_str());
        }
    }
}
