//! The page of a payment for scripts. The payment is as in events; requests to the gateway are not included.

use serde_json::{Value, json};

use super::words::{Resolution, next, words};
use crate::cli::output::Style;
use crate::payment::code::Code;
use crate::payment::view::PaymentView;
use crate::store::query::report::{EventRecord, History, MovementRecord, OperationRecord};

/// The whole page.
pub fn value(history: &History) -> Value {
    let payment = history.payment.as_ref();
    let (style, sentence) = next(history);
    json!({
        "now": history.now,
        "payment": payment.map(PaymentView::from),
        "gateway": payment.map(|payment| &payment.gateway),
        "account": payment.map(|payment| &payment.account),
        "busy_operation": payment.and_then(|payment| payment.busy),
        "waiting": payment.map(|payment| payment.waiting),
        "archived_at": payment.and_then(|payment| payment.archived),
        "next": sentence,
        "needs_a_person": style == Style::Bad,
        "operations": history.operations.iter().map(|record| operation(record, history)).collect::<Vec<_>>(),
        "movements": history.movements.iter().map(movement).collect::<Vec<_>>(),
        "events": history.events.iter().map(event).collect::<Vec<_>>(),
        "truncated": history.truncated,
    })
}

fn operation(record: &OperationRecord, history: &History) -> Value {
    let operation = &record.operation;
    let words = words(operation, history);
    let answer = operation.answer.as_ref();
    json!({
        "id": operation.id,
        "type": operation.kind.as_str(),
        "source": operation.name.source,
        "command_id": operation.name.id,
        "user_id": operation.attributes.user_id,
        "resolution": Resolution::of(operation),
        "state": operation.state.as_str(),
        "sentence": words.sentence,
        "advice": words.advice,
        "amount": operation.amount().map(|amount| amount.to_string()),
        "created": operation.created,
        "settled_at": record.settled_at,
        "due_at": operation.due_at,
        "first_sent_at": operation.sent.first_at,
        "last_sent_at": operation.sent.last_at,
        "expires_at": operation.attributes.expires_at,
        "gateway_keys": operation.keys_sent(),
        "attempts": operation.counts.attempts,
        "rounds": operation.counts.rounds,
        "lookups": operation.counts.lookups,
        "takeovers": operation.counts.takeovers,
        "escalated": operation.escalated,
        "last_code": operation.last_code.map(Code::as_str),
        "last_message": operation.last_message,
        "answer": answer.map(|answer| answer.kind.as_str()),
        "answer_code": answer.and_then(|answer| answer.code).map(Code::as_str),
        "answer_message": answer.map(|answer| &answer.message),
    })
}

fn movement(record: &MovementRecord) -> Value {
    let movement = &record.movement;
    json!({
        "created": record.created,
        "kind": movement.kind.as_str(),
        "reference": movement.reference,
        "gateway_reference": movement.gateway_reference,
        "parent": movement.parent,
        "amount": movement.amount.to_string(),
        "currency": movement.amount.currency().code(),
        "operation": movement.operation,
    })
}

fn event(record: &EventRecord) -> Value {
    json!({
        "id": record.event.id,
        "type": record.event.event_type,
        "routing_key": record.event.routing_key,
        "sequence": record.sequence,
        "created": record.created,
        "sent_at": record.sent_at,
        "set_aside": record.set_aside,
    })
}

#[cfg(test)]
mod tests {
    use super::super::samples::history;
    use super::*;

    #[test]
    fn amounts_are_strings_and_times_rfc_3339() {
        let value = value(&history());
        assert_eq!(value["payment"]["total"], "120.00");
        assert_eq!(value["operations"][1]["state"], "unknown");
        assert_eq!(value["operations"][1]["amount"], "20.00");
        assert_eq!(value["operations"][1]["due_at"], "2026-11-22T12:03:42Z");
        assert_eq!(value["events"][2]["sent_at"], Value::Null);
        assert_eq!(value["needs_a_person"], false);
    }
}
