//! The bodies that go to the gateway. The members' order is the structs', so that one request is always the same bytes.

use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::gateway::{Ask, Question};
use crate::payment::view::PaymentView;

#[derive(Serialize)]
struct ActionBody<'a> {
    operation_id: Uuid,
    operation: &'static str,
    payment: PaymentView<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<String>,
    currency: &'static str,
    capture: bool,
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
}

/// The body of an operation that acts.
pub(super) fn action(ask: &Ask<'_>) -> String {
    write(&ActionBody {
        operation_id: ask.operation_id,
        operation: ask.action.as_str(),
        payment: PaymentView::from(ask.payment),
        amount: ask.amount.map(|amount| amount.to_string()),
        currency: ask.payment.currency().code(),
        capture: ask.capture,
        data: ask.data,
    })
}

/// The body of a look-up.
pub(super) fn status(question: &Question<'_>) -> String {
    write(&StatusBody {
        operation_id: question.operation_id,
        operation: "status",
        payment: PaymentView::from(question.payment),
        currency: question.payment.currency().code(),
        target_operation_id: question.target.map(|target| target.operation_id),
    })
}

/// JSON writing fails only on maps whose keys are no strings, which these bodies have not; a gateway would refuse the
/// empty text that stands in for that.
fn write(body: &impl Serialize) -> String {
    serde_json::to_string(body).unwrap_or_default()
}
