//! The OpenTelemetry spans of an execution, with the attribute names of the semantic conventions for messaging:
//! <https://opentelemetry.io/docs/specs/semconv/messaging/>. Attributes without a standard name begin with `paybus.`.

use std::time::SystemTime;

use opentelemetry::KeyValue;
use uuid::Uuid;

use super::entry::Entry;
use crate::bus::consume::delivery::Delivery;
use crate::payment::operation::Operation;
use crate::payment::outcome::GatewayError;
use crate::telemetry::spans::{Begin, Span, SpanKind};
use crate::worker::outbox::sent_span::conversation;
use crate::worker::variant::Variant;

/// The span of a command that arrived. Everything it causes is a child of this span, whichever worker continues.
pub fn command(entry: &mut Entry, delivery: &Delivery) -> Span {
    let Entry::Command { command, id, .. } = entry else { return Span::default() };
    let span = Span::of_operation(*id, command.attributes.trace.as_ref(), SystemTime::now(), || {
        let mut attributes = of_operation(command.payment_id, *id, command.kind.as_str(), &command.variant);
        attributes.extend([
            KeyValue::new("messaging.destination.name", delivery.queue.to_string()),
            KeyValue::new("messaging.rabbitmq.destination.routing_key", delivery.routing_key.clone()),
            KeyValue::new("messaging.message.id", command.name.id.clone()),
            KeyValue::new("messaging.message.body.size", size(delivery.body.len())),
            KeyValue::new("paybus.command.source", command.name.source.clone()),
            KeyValue::new("paybus.redelivered", delivery.redelivered),
        ]);
        attributes.extend(conversation(command.attributes.correlation_id.as_deref()));
        Begin { name: format!("process {}", delivery.queue), kind: SpanKind::Consumer, attributes }
    });
    if let Some(context) = span.context() {
        command.attributes.trace = Some(context);
    }
    span
}

/// The span of a genuine webhook, the parent of its command's span. Trace headers of the request are ignored, as no
/// signature covers them.
pub fn webhook(variant: &str, since: SystemTime) -> Span {
    let route = "/webhooks/{variant}";
    Span::root(since, || Begin {
        name: format!("POST {route}"),
        kind: SpanKind::Server,
        attributes: vec![
            KeyValue::new("http.request.method", "POST"),
            KeyValue::new("http.route", route),
            KeyValue::new("paybus.variant", variant.to_owned()),
        ],
    })
}

/// The span of a due operation, in the trace of its command.
pub fn due(operation: &Operation, since: SystemTime) -> Span {
    Span::of_operation(operation.id, operation.attributes.trace.as_ref(), since, || Begin {
        name: "resume operation".to_owned(),
        kind: SpanKind::Internal,
        attributes: of_operation(operation.payment_id, operation.id, operation.kind.as_str(), &operation.variant),
    })
}

/// The span of one attempt or query at the gateway, including all requests that it takes.
pub fn gateway(what: &str, variant: &Variant, operation: &Operation, within: &Span) -> Span {
    Span::within(within.context().as_ref(), || Begin {
        name: format!("{what} {}", variant.name),
        kind: SpanKind::Internal,
        attributes: vec![
            KeyValue::new("paybus.payment.id", operation.payment_id.to_string()),
            KeyValue::new("paybus.operation.id", operation.id.to_string()),
            KeyValue::new("paybus.attempt", i64::from(operation.counts.attempts)),
            KeyValue::new("paybus.gateway", variant.rules.gateway.clone()),
        ],
    })
}

/// Records how an attempt or a query ended.
pub fn record_outcome(mut span: Span, outcome: &'static str, error: Option<&GatewayError>) {
    span.set("paybus.outcome", outcome);
    if let Some(error) = error {
        span.fail(error.code.as_str());
    }
}

/// Records the command's answer, once there is one.
pub fn record_answer(span: &mut Span, operation: &Operation) {
    let Some(answer) = &operation.answer else { return };
    span.set("paybus.answer", answer.kind.as_str());
    if let Some(code) = answer.code {
        span.fail(code.as_str());
    }
}

fn of_operation(payment: Uuid, operation: Uuid, kind: &str, variant: &str) -> Vec<KeyValue> {
    vec![
        KeyValue::new("messaging.system", "rabbitmq"),
        KeyValue::new("messaging.operation.name", "process"),
        KeyValue::new("messaging.operation.type", "process"),
        KeyValue::new("paybus.payment.id", payment.to_string()),
        KeyValue::new("paybus.operation.id", operation.to_string()),
        KeyValue::new("paybus.command.type", kind.to_owned()),
        KeyValue::new("paybus.variant", variant.to_owned()),
    ]
}

fn size(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
