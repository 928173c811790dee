//! The bodies that go to the gateway. The members' order is the structs', so that one request is always the same bytes.

use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::gateway::{Action, Ask, Question};
use crate::payment::json;
use crate::payment::money::Money;
use crate::payment::view::PaymentView;

/// What completes a process that the customer has approved.
const CONFIRM: &str = "confirm";

#[derive(Serialize)]
struct ActionBody<'a> {
    operation_id: Uuid,
    operation: &'static str,
    payment: PaymentView<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<Money>,
    currency: &'static str,
    capture: bool,
    /// Only where it is not the last one.
    #[serde(rename = "final", skip_serializing_if = "Option::is_none")]
    is_final: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<&'a str>,
    data: &'a Map<String, Value>,
}

#[derive(Serialize)]
struct StatusBody<'a> {
    operation_id: Uuid,
    operation: &'static str,
    payment: PaymentView<'a>,
    currency: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_operation_id: Option<Uuid>,
    /// Of what is to be undone, the key it was sent under.
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<Uuid>,
}

/// What an operation is called, in its address and its body.
pub(super) fn operation(action: Action, confirms: bool) -> &'static str {
    if confirms { CONFIRM } else { action.as_str() }
}

/// The body of an operation that acts.
pub(super) fn action(ask: &Ask<'_>) -> String {
    json::write(&ActionBody {
        operation_id: ask.operation_id,
        operation: operation(ask.action, ask.confirms),
        payment: PaymentView::from(ask.payment).without_times(),
        amount: ask.amount,
        currency: ask.payment.currency().code(),
        capture: ask.capture,
        is_final: (!ask.is_final).then_some(false),
        parent: ask.reference,
        data: ask.data,
    })
}

/// The body of a look-up.
pub(super) fn status(question: &Question<'_>) -> String {
    json::write(&about("status", question, None))
}

/// The body of what undoes: it names the key, for another key of the same operation must stay.
pub(super) fn undo(question: &Question<'_>) -> String {
    json::write(&about("undo", question, question.target.map(|target| target.key.value())))
}

fn about<'a>(operation: &'static str, question: &Question<'a>, idempotency_key: Option<Uuid>) -> StatusBody<'a> {
    StatusBody {
        operation_id: question.operation_id,
        operation,
        payment: PaymentView::from(question.payment),
        currency: question.payment.currency().code(),
        target_operation_id: question.target.map(|target| target.operation_id),
        idempotency_key,
    }
}
