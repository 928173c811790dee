//! The span of publishing an event.

use opentelemetry::KeyValue;

use crate::bus::publish::publisher::Outgoing;
use crate::telemetry::spans::{Begin, Span, SpanKind};

/// Starts the span of publishing an event; it ends when the broker has confirmed it. It belongs to the trace of the
/// event's command. The event itself carries the command's span rather than this one, so that it is the same whenever
/// it is published.
pub fn sent(event: &Outgoing, exchange: &str) -> Span {
    Span::within(event.trace.as_ref(), || {
        let mut attributes = vec![
            KeyValue::new("messaging.system", "rabbitmq"),
            KeyValue::new("messaging.operation.name", "send"),
            KeyValue::new("messaging.operation.type", "send"),
            KeyValue::new("messaging.destination.name", exchange.to_owned()),
            KeyValue::new("messaging.rabbitmq.destination.routing_key", event.routing_key.clone()),
            KeyValue::new("messaging.message.id", event.event_id.to_string()),
            KeyValue::new("paybus.payment.id", event.payment_id.to_string()),
        ];
        attributes.extend(conversation(event.correlation_id.as_deref()));
        Begin { name: format!("send {exchange}"), kind: SpanKind::Producer, attributes }
    })
}

/// The conversation id that all messages of one command share.
pub(crate) fn conversation(id: Option<&str>) -> Option<KeyValue> {
    id.map(|id| KeyValue::new("messaging.message.conversation_id", id.to_owned()))
}
