//! One example of each message. The commands tell a story, in their order: the tests publish them to a real worker.

use jiff::Timestamp;
use serde_json::{Value, json};
use strum::IntoEnumIterator;
use uuid::Uuid;

use crate::bus::envelope::{event_body, heartbeat_body};
use crate::payment::code::Code;
use crate::payment::command::{Body, CommandName, CommandType};
use crate::payment::event::{
    Event, EventCause, EventKind, EventOperation, EventType, Heartbeat, Progress, Reason, Resent,
};
use crate::payment::model::Payment;
use crate::payment::money::{Currency, Money};
use crate::payment::status::Status;

const BOOK: &str = "0192f0c1-7c5e-7000-8000-000000000001";
const LATER: &str = "0192f0c1-7c5e-7000-8000-000000000002";
const HELD: &str = "0192f0c1-7c5e-7000-8000-000000000003";
const GONE: &str = "0192f0c1-7c5e-7000-8000-000000000004";

/// A command, and how a worker whose variant `default` is a dummy answers it.
#[derive(Debug, Clone)]
pub struct CommandExample {
    /// Its type.
    pub kind: CommandType,
    /// What it shows.
    pub summary: &'static str,
    /// The type of the event that answers it.
    pub answer: EventType,
    /// The status of the payment, or the answer's code.
    pub word: &'static str,
    /// The message.
    pub message: Value,
}

/// The commands, in an order in which they can be carried out.
pub fn commands() -> Vec<CommandExample> {
    use CommandType::{
        Cancel, Capture, Create, Notification, Pause, Process, Refund, Release, Resend, Resolve, Resume, Retry,
        Snapshot, Status, Sync, Withdraw,
    };
    use EventType::{Created, Rejected, StatusChanged, Succeeded, Updated};
    let example = |kind, summary, subject, data, answer, word| {
        let message = message(kind, subject, data);
        CommandExample { kind, summary, answer, word, message }
    };
    let small = || json!({ "variant": "default", "total": "100.00", "currency": "EUR" });
    let held = json!({ "variant": "default", "total": "100.00", "currency": "EUR", "capture": false, "process": {} });
    let webhook = json!({
        "received_at": "2026-11-22T12:00:00Z", "method": "POST", "url": "/webhooks/default",
        "headers": [["content-type", "application/json"]], "body_base64": "e30=",
    });
    let word = json!({
        "operation": operation(BOOK, Create), "outcome": "approved", "amount": "120.00",
        "evidence": "Seen in the gateway's dashboard",
    });
    let waits = || json!({ "operation": operation(BOOK, Create), "reason": "The gateway is well again" });
    let asked_after = json!({ "id": name(BOOK, Create).id });
    vec![
        example(Create, "Pay for a book at once", BOOK, book(), StatusChanged, "confirmed"),
        example(Create, "Create a payment to process later", LATER, small(), Created, "waiting"),
        example(Process, "Authorize it", LATER, json!({ "capture": false, "process": {} }), StatusChanged, "preauth"),
        example(
            Capture,
            "Capture less than was authorized",
            LATER,
            json!({ "amount": "80.00" }),
            StatusChanged,
            "confirmed",
        ),
        example(Create, "Only authorize", HELD, held, StatusChanged, "preauth"),
        example(Release, "Release the authorization", HELD, json!({}), StatusChanged, "refunded"),
        example(Refund, "Refund a part", BOOK, json!({ "amount": "20.00" }), Updated, "confirmed"),
        example(Sync, "Look the payment up at the gateway", BOOK, json!({}), Succeeded, "confirmed"),
        example(Resend, "Resend from the second event on", BOOK, json!({ "from": "2" }), Succeeded, "confirmed"),
        example(Snapshot, "Report the payment as it is", BOOK, json!({}), EventType::Snapshot, "confirmed"),
        example(Create, "Create a payment to cancel", GONE, small(), Created, "waiting"),
        example(Cancel, "Cancel the payment before it is paid", GONE, json!({}), StatusChanged, "cancelled"),
        example(Notification, "A webhook for a gateway that has none", BOOK, webhook, Rejected, "unsupported"),
        example(
            Resolve,
            "An operator resolves an operation whose outcome is not unknown",
            BOOK,
            word,
            Rejected,
            "not_unknown",
        ),
        example(Retry, "An operator retries an operation that is over", BOOK, waits(), Rejected, "not_retryable"),
        example(
            Withdraw,
            "An operator withdraws an operation that is over",
            BOOK,
            waits(),
            Rejected,
            "not_withdrawable",
        ),
        events_resent(),
        about_variant(Pause, "An operator stops a variant's calls", json!({ "reason": "The gateway charges twice" })),
        about_variant(Resume, "An operator lets them continue", json!({ "reason": "Their fix is deployed" })),
        // It tells the event that answered, and is answered at its `reply_to` alone.
        example(Status, "Report how a command ended", BOOK, asked_after, StatusChanged, "confirmed"),
    ]
}

/// It is about no payment, and answered at its `reply_to` alone.
fn events_resent() -> CommandExample {
    let kind = CommandType::ResendEvents;
    let message = json!({
        "specversion": "1.0", "id": "catch-up-0", "source": "shop/fulfilment", "type": kind.as_str(),
        "time": "2026-11-22T12:00:00Z", "data": { "after": "0" },
    });
    CommandExample { kind, summary: "Resend every event that is kept", answer: EventType::Succeeded, word: "", message }
}

/// It is about no payment, and answered at its `reply_to` alone.
fn about_variant(kind: CommandType, summary: &'static str, data: Value) -> CommandExample {
    let message = json!({
        "specversion": "1.0", "id": format!("operations-{kind}"), "source": "shop/operations", "type": kind.as_str(),
        "time": "2026-11-22T12:00:00Z", "data": data,
    });
    CommandExample { kind, summary, answer: EventType::Succeeded, word: "", message }
}

fn book() -> Value {
    json!({
        "variant": "default", "description": "Book purchase", "total": "120.00", "tax": "20.00", "currency": "USD",
        "delivery": "10.00", "billing_first_name": "Sherlock", "billing_last_name": "Holmes",
        "billing_address_1": "221B Baker Street", "billing_address_2": "", "billing_city": "London",
        "billing_postcode": "NW1 6XE", "billing_country_code": "GB", "billing_country_area": "Greater London",
        "customer_ip_address": "127.0.0.1", "metadata": { "order": "1021" }, "capture": true,
        "process": { "status": "confirmed" },
    })
}

fn message(kind: CommandType, subject: &str, data: Value) -> Value {
    let name = name(subject, kind);
    json!({
        "specversion": "1.0", "id": name.id, "source": name.source, "type": kind.as_str(), "subject": subject,
        "time": "2026-11-22T12:00:00Z", "data": data,
    })
}

/// Each payment gets at most one command of a type.
fn name(subject: &str, kind: CommandType) -> CommandName {
    let payment = subject.trim_start_matches(|char| char != '8').trim_start_matches(['8', '-', '0']);
    CommandName { source: "shop/checkout".to_owned(), id: format!("order-{payment}-{}", &kind.as_str()[8..]) }
}

fn operation(subject: &str, kind: CommandType) -> Uuid {
    name(subject, kind).operation_id(subject)
}

/// An event of each type, as the worker writes it.
pub fn events() -> Vec<(EventType, Value)> {
    let time = Timestamp::from_second(TIME).unwrap_or_default();
    let written = |kind| {
        let event = match kind {
            EventType::Created => created(time),
            EventType::StatusChanged => confirmed(time),
            EventType::Updated => refunded(time),
            EventType::Rejected => Some(rejected(time)),
            EventType::Failed => Some(failed(time)),
            EventType::Delayed => Some(delayed(time)),
            EventType::Succeeded => succeeded(time),
            EventType::Snapshot => snapshot(time),
            EventType::Heartbeat => return Some((kind, serde_json::from_str(&heartbeat(time)).ok()?)),
        };
        Some((kind, serde_json::from_str(&event_body(&event?)).ok()?))
    };
    EventType::iter().filter_map(written).collect()
}

/// 2026-11-22T12:00:00Z
const TIME: i64 = 1_795_348_800;

fn event(kind: EventKind, sequence: Option<i64>, cause: CommandType, is_final: bool, time: Timestamp) -> Event {
    let payment_id = Uuid::parse_str(BOOK).unwrap_or_default();
    let id = match sequence {
        Some(sequence) => Uuid::new_v5(&payment_id, &sequence.to_be_bytes()),
        None => Uuid::new_v5(&operation(BOOK, cause), kind.type_name().as_bytes()),
    };
    let operation = is_at_gateway(cause).then(|| operation_of(&kind, cause, is_final));
    let metadata = waiting(time).filter(|_| !kind.has_payment()).map(|payment| payment.order.metadata);
    let cause = EventCause {
        subject: BOOK.to_owned(),
        name: name(BOOK, cause),
        kind: cause.as_str().to_owned(),
        is_final,
        is_answer: is_final,
        correlation_id: None,
        trace: None,
        reply: None,
        operation,
    };
    let metadata = metadata.unwrap_or_default();
    Event { id, payment_id, variant: "default".to_owned(), kind, sequence, cause: Some(cause), metadata, time }
}

fn is_at_gateway(cause: CommandType) -> bool {
    matches!(cause, CommandType::Create | CommandType::Capture | CommandType::Refund)
}

fn operation_of(kind: &EventKind, cause: CommandType, is_final: bool) -> EventOperation {
    let progress = match kind {
        EventKind::Rejected { .. } => Progress::Rejected,
        EventKind::Failed { .. } => Progress::Failed,
        _ if is_final => Progress::Succeeded,
        _ => Progress::InProgress,
    };
    let is_done = progress == Progress::Succeeded;
    let total = if cause == CommandType::Refund { "20.00" } else { "120.00" };
    let amount = Currency::from_code("USD").and_then(|currency| Money::parse(total, currency).ok());
    let reference = is_done.then(|| format!("dummy-{}", &operation(BOOK, cause).to_string()[..8]));
    EventOperation { id: operation(BOOK, cause), progress, amount, reference }
}

fn waiting(time: Timestamp) -> Option<Box<Payment>> {
    let Body::Create(new) = Body::parse(CommandType::Create, book().as_object()?).ok()? else { return None };
    let payment_id = Uuid::parse_str(BOOK).ok()?;
    Some(Box::new(Payment::new(payment_id, new.order, "dummy", "dummy", time)))
}

fn paid(time: Timestamp) -> Option<Box<Payment>> {
    let mut payment = waiting(time)?;
    payment.status = Status::Confirmed;
    payment.transaction_id = "dummy-0192f0c1".to_owned();
    payment.amounts.captured = payment.order.total;
    Some(payment)
}

fn partly_refunded(time: Timestamp) -> Option<Box<Payment>> {
    let mut payment = paid(time)?;
    let back = Money::parse("20.00", payment.currency()).ok()?;
    payment.amounts.captured = payment.amounts.captured.less(back).ok()?;
    payment.amounts.refunded = back;
    payment.last_sequence = 3;
    Some(payment)
}

fn created(time: Timestamp) -> Option<Event> {
    let kind = EventKind::Created { payment: waiting(time)? };
    Some(event(kind, Some(1), CommandType::Create, false, time))
}

fn confirmed(time: Timestamp) -> Option<Event> {
    let kind = EventKind::StatusChanged { payment: paid(time)?, previous: Status::Waiting, why: Reason::default() };
    Some(event(kind, Some(2), CommandType::Create, true, time))
}

fn refunded(time: Timestamp) -> Option<Event> {
    let changed = vec!["captured_amount", "refunded_amount"];
    let kind = EventKind::Updated { payment: partly_refunded(time)?, changed, why: Reason::default() };
    Some(event(kind, Some(3), CommandType::Refund, true, time))
}

fn succeeded(time: Timestamp) -> Option<Event> {
    let kind = EventKind::Succeeded { payment: Some(partly_refunded(time)?), resent: Some(Resent { from: 2, to: 3 }) };
    Some(event(kind, None, CommandType::Resend, true, time))
}

fn heartbeat(time: Timestamp) -> String {
    let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, b"heartbeat");
    heartbeat_body(id, "default", &Heartbeat { from: 41, to: 44, events: 3, set_aside: 0 }, time)
}

fn snapshot(time: Timestamp) -> Option<Event> {
    let kind = EventKind::Snapshot { payment: partly_refunded(time)? };
    Some(event(kind, None, CommandType::Snapshot, true, time))
}

fn rejected(time: Timestamp) -> Event {
    let message = "a capture is allowed from preauth; the payment is confirmed".to_owned();
    event(EventKind::Rejected { code: Code::NotAllowed, message }, None, CommandType::Capture, true, time)
}

fn failed(time: Timestamp) -> Event {
    let why = Reason {
        code: Some(Code::Refused),
        message: "the gateway refused the request".to_owned(),
        ..Reason::default()
    };
    event(EventKind::Failed { why, attempts: 1 }, None, CommandType::Refund, true, time)
}

fn delayed(time: Timestamp) -> Event {
    let kind = EventKind::Delayed {
        reason: Code::Unreachable,
        message: "the gateway could not be reached".to_owned(),
        next_attempt_at: Timestamp::from_second(TIME + 10).ok(),
        attempts: 3,
    };
    event(kind, None, CommandType::Create, false, time)
}
