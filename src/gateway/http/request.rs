//! The bodies that go to the gateway. The members' order is the structs', so that one request is always the same bytes.

use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::gateway::{Ask, Question};
use crate::payment::json;
use crate::payment::money::Money;
use crate::payment::view::PaymentView;

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
}

/// The body of an operation that acts.
pub(super) fn action(ask: &Ask<'_>) -> String {
    json::write(&ActionBody {
        operation_id: ask.operation_id,
        operation: ask.action.as_str(),
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
    json::write(&StatusBody {
        operation_id: question.operation_id,
        operation: "status",
        payment: PaymentView::from(question.payment),
        currency: question.payment.currency().code(),
        target_operation_id: question.target.map(|target| target.operation_id),
    })
}
