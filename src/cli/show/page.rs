//! The page of a payment, as lines of text.

use serde_json::Value;
use uuid::Uuid;

use super::words::{Resolution, next, words};
use crate::cli::line::{EventSummary, style_of};
use crate::cli::output::{Output, Style};
use crate::cli::tame::tame;
use crate::cli::time::{clock, date, relative};
use crate::payment::model::Payment;
use crate::payment::status::FraudStatus;
use crate::plural::counted;
use crate::store::query::report::{EventRecord, History, MovementRecord, OperationRecord, SHOWN_MAX};

/// The page: the payment, what happens next, and the timeline.
pub fn lines(id: Uuid, history: &History, output: Output) -> Vec<String> {
    let mut lines = head(id, history, output);
    let sections: [(&str, Vec<String>); 3] = [
        ("operations", operations(history, output)),
        ("movements", history.movements.iter().map(|record| movement(record, history)).collect()),
        ("events", history.events.iter().map(|record| event(record, history, output)).collect()),
    ];
    for (title, rows) in sections {
        if !rows.is_empty() {
            lines.push(String::new());
            lines.push(output.paint(Style::Strong, title));
            lines.extend(rows);
        }
    }
    if history.truncated {
        lines.push(String::new());
        lines.push(format!("only the last {SHOWN_MAX} operations, movements and events are shown"));
    }
    lines
}

fn head(id: Uuid, history: &History, output: Output) -> Vec<String> {
    let mut rows = vec![("payment", id.to_string())];
    match &history.payment {
        Some(payment) => rows.extend(facts(payment, history, output)),
        None => rows.push(("status", "does not exist; the commands for it are listed below".to_owned())),
    }
    let (style, sentence) = next(history);
    rows.push(("next", output.paint(style, &sentence)));
    rows.iter().map(|(name, text)| format!("{}{text}", output.column(Style::Strong, name, 11))).collect()
}

fn facts(payment: &Payment, history: &History, output: Output) -> Vec<(&'static str, String)> {
    let status = payment.status.as_str();
    let amounts = &payment.amounts;
    let mut rows = vec![
        (
            "status",
            format!(
                "{}, last changed {} ({}), created {}",
                output.paint(style_of(status), status),
                date(payment.modified),
                relative(payment.modified, history.now),
                date(payment.created)
            ),
        ),
        (
            "money",
            format!(
                "total {} {}, authorized {}, captured {}, refunded {}",
                payment.order.total,
                payment.currency().code(),
                amounts.authorized,
                amounts.captured,
                amounts.refunded
            ),
        ),
        ("gateway", gateway(payment)),
    ];
    if payment.fraud_status != FraudStatus::Unknown {
        let said = [payment.fraud_status.as_str(), &payment.fraud_message];
        rows.push(("fraud", tame(&said.join(" "))));
    }
    for (name, text) in [("message", &payment.message), ("for", &payment.order.description)] {
        if !text.is_empty() {
            rows.push((name, tame(text)));
        }
    }
    if let Some(address) = &payment.redirect_url {
        rows.push(("customer", format!("must act at {}", tame(address))));
    }
    if let Some(archived) = payment.archived {
        let rest = "its operations, movements and events are in the archive file";
        rows.push(("archived", format!("{}; {rest}", date(archived))));
    }
    if payment.waiting > 0 {
        rows.push(("waiting", format!("{} in the payment queue", counted(payment.waiting, "command"))));
    }
    rows
}

fn gateway(payment: &Payment) -> String {
    let mut text = format!("variant {}, {}", tame(&payment.order.variant), tame(&payment.gateway));
    if !payment.account.is_empty() {
        text.push_str(&format!(" at {}", tame(&payment.account)));
    }
    match payment.transaction_id.as_str() {
        "" => text.push_str(", no reference yet"),
        reference => text.push_str(&format!(", reference {}", tame(reference))),
    }
    text
}

fn operations(history: &History, output: Output) -> Vec<String> {
    let numbered = history.operations.iter().enumerate();
    numbered.flat_map(|(index, record)| operation(index + 1, record, history, output)).collect()
}

/// A line with the command, and below it the details.
fn operation(number: usize, record: &OperationRecord, history: &History, output: Output) -> Vec<String> {
    let operation = &record.operation;
    let words = words(operation, history);
    let amount = operation.amount().map(|amount| format!("{amount} {}", amount.currency().code())).unwrap_or_default();
    let mut rows = vec![format!(
        "{number:>4}  {}  {}  {}  {amount:>15}  {}",
        output.column(Style::Faint, &date(operation.created), 19),
        output.column(Style::Plain, &tame(operation.kind.as_str()), 20),
        output.column(words.style, words.word, 10),
        counts(record),
    )];
    let mut under = |text: String| rows.push(format!("      {text}"));
    if !words.sentence.is_empty() {
        under(words.sentence);
    }
    if let Some(resolution) = Resolution::of(operation) {
        under(resolution.sentence(history));
    }
    if let Some(advice) = words.advice {
        under(output.paint(Style::Bad, &advice));
    }
    if operation.is_open() && !operation.last_message.is_empty() {
        let code = operation.last_code.map_or("", |code| code.as_str());
        under(format!("last error: {code}: {}", tame(&operation.last_message)));
    }
    let by = operation.attributes.user_id.as_ref().map(|user| format!(", user {}", tame(user)));
    let command = format!(
        "operation {}, command {} from {}{}",
        operation.id,
        tame(&operation.name.id),
        tame(&operation.name.source),
        by.unwrap_or_default()
    );
    under(output.paint(Style::Faint, &command));
    let keys: Vec<String> = operation.keys_sent().iter().map(Uuid::to_string).collect();
    if !keys.is_empty() {
        under(output.paint(Style::Faint, &format!("gateway key {}", keys.join(", then "))));
    }
    rows
}

/// `3 attempts, 2 look-ups, answered 2026-11-22 12:00:01`; omits what did not happen.
fn counts(record: &OperationRecord) -> String {
    let operation = &record.operation;
    let counts = [
        (operation.counts.attempts, "attempt"),
        (operation.counts.lookups, "look-up"),
        (operation.counts.takeovers, "takeover"),
    ];
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    let mut parts: Vec<String> = counts.map(|(count, noun)| counted(count, noun)).collect();
    parts.extend(record.settled_at.map(|time| format!("answered {}", date(time))));
    parts.join(", ")
}

fn movement(record: &MovementRecord, history: &History) -> String {
    let movement = &record.movement;
    let found = history.operations.iter().position(|record| Some(record.operation.id) == movement.operation);
    let by = match found {
        Some(index) => format!("by operation {}", index + 1),
        None => format!("reference {}", tame(&movement.reference)),
    };
    let amount = format!("{} {}", movement.amount, movement.amount.currency().code());
    format!("      {}  {:<20}  {amount:>27}  {by}", date(record.created), movement.kind.as_str())
}

fn event(record: &EventRecord, history: &History, output: Output) -> String {
    let body: Value = serde_json::from_str(&record.event.body).unwrap_or(Value::Null);
    let summary = EventSummary::read(&body);
    let number = record.sequence.map(|sequence| sequence.to_string()).unwrap_or_default();
    let sent = match (record.sent_at, &record.set_aside) {
        (Some(time), _) => output.column(Style::Faint, &format!("sent {}", clock(time)), 17),
        (None, Some(reason)) => output.paint(Style::Bad, &format!("set aside: {}", tame(reason))),
        (None, None) => {
            let age = relative(record.created, history.now);
            output.paint(Style::Open, &format!("not sent yet, stored {age}"))
        }
    };
    format!(
        "{number:>4}  {}  {}  {}  {sent}  {}",
        output.column(Style::Faint, &date(record.created), 19),
        output.column(Style::Plain, &tame(&record.event.event_type), 22),
        output.column(summary.style, &summary.status, 22),
        summary.remark(output),
    )
}

#[cfg(test)]
mod tests {
    use super::super::samples::{PAYMENT, at, history};
    use super::*;
    use crate::payment::outcome::GatewayKey;

    #[test]
    fn the_page_of_a_payment_with_an_unknown_refund() {
        let page = lines(PAYMENT, &history(), Output::plain());
        let page: Vec<&str> = page.iter().map(|line| line.trim_end()).collect();
        let two = Uuid::from_u128(2);
        assert_eq!(
            page[..7],
            [
                "payment    0192f0c1-7c5e-7000-8000-0123456789ab",
                "status     confirmed, last changed 2026-11-22 12:00:01 (2 min 59 s ago), created 2026-11-22 12:00:00",
                "money      total 120.00 USD, authorized 0.00, captured 120.00, refunded 0.00",
                "gateway    variant cards, http at http://127.0.0.1:9000, reference ch_123",
                "for        Book purchase",
                "waiting    1 command in the payment queue",
                "next       operation 2 is unknown: the gateway may have received a refund; resend with the same key, \
                 or look-up, in 42 s",
            ]
        );
        assert_eq!(
            page[8..15],
            [
                "operations",
                "   1  2026-11-22 12:00:00  payment.create        succeeded                    1 attempt, answered \
                 2026-11-22 12:00:01",
                &format!("      operation {}, command order-1 from shop/checkout", Uuid::from_u128(1)),
                &format!("      gateway key {}", GatewayKey::first(Uuid::from_u128(1)).value()),
                "   2  2026-11-22 12:00:00  payment.refund        unknown           20.00 USD  3 attempts",
                "      the gateway may have received a refund; resend with the same key, or look-up, in 42 s",
                "      last error: timeout: no answer within 10 s",
            ]
        );
        assert_eq!(page[15], format!("      operation {two}, command order-2 from shop/checkout"));
        assert_eq!(page[16], format!("      gateway key {}", GatewayKey::first(two).value()));
        assert_eq!(page[18], "      behind operation 2 in the payment queue");
        assert_eq!(
            page[21..],
            [
                "movements",
                "      2026-11-22 12:00:01  captured                               120.00 USD  by operation 1",
                "",
                "events",
                "   1  2026-11-22 12:00:00  payment.created         waiting                 sent 12:00:00.200",
                "   2  2026-11-22 12:00:00  payment.status_changed  waiting > confirmed     sent 12:00:01.200  \
                 [answers payment.create]",
                "      2026-11-22 12:00:00  command.delayed         timeout                 not sent yet, stored 3 min \
                 ago  no answer within 10 s",
            ]
        );
    }

    #[test]
    fn requests_to_the_gateway_are_not_shown() {
        let page = lines(PAYMENT, &history(), Output::plain()).join("\n");
        assert!(!page.contains("token"), "{page}");
        assert!(!super::super::json::value(&history()).to_string().contains("token"));
    }

    #[test]
    fn commands_without_a_payment_and_events_set_aside_are_shown() {
        let mut history = history();
        history.payment = None;
        history.operations.truncate(1);
        history.events[2].set_aside = Some("no queue".to_owned());
        history.truncated = true;
        history.now = at("12:05:00");
        let page = lines(PAYMENT, &history, Output::plain()).join("\n");
        assert!(page.contains("does not exist"), "{page}");
        assert!(page.contains("set aside: no queue"), "{page}");
        assert!(page.contains("the broker refused them"), "{page}");
        assert!(page.ends_with("are shown"), "{page}");
    }
}
