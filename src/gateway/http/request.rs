//! Request bodies. The order of members is that of the structs, so that a request is always the same bytes.

use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::gateway::{Action, Ask, Question};
use crate::payment::json;
use crate::payment::money::Money;
use crate::payment::view::PaymentView;

/// Completes a process that the customer has approved.
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
    /// Present only if it is not the last capture.
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
    /// For an undo: the key under which the operation was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<Uuid>,
}

/// The operation's name, in the URL and in the body.
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

/// The body of an undo. It names the key, because other keys of the same operation must stay.
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
