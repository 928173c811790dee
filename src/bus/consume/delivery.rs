//! A message from a queue, and how to settle it.
//!
//! An acknowledgement that was sent proves nothing: the broker may have requeued the message already, and lapin reports
//! "sent" all the same. What must not happen twice is prevented by PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use lapin::BasicProperties;
use lapin::options::{BasicAckOptions, BasicRejectOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::debug;

use super::acks::Acks;
use crate::bus::connection::guard::{Flaw, MARKER};

/// One message from a queue.
#[derive(Debug)]
pub struct Delivery {
    /// The queue it came from.
    pub queue: Arc<str>,
    /// As its publisher set it; it survives dead-lettering.
    pub routing_key: String,
    /// Whether the broker has delivered it before.
    pub redelivered: bool,
    /// The payload.
    pub body: Vec<u8>,
    /// The AMQP properties.
    pub properties: Properties,
    /// Settles the delivery.
    pub acker: Acker,
}

/// The AMQP properties of a message.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Properties {
    /// Where to send a reply.
    pub reply_to: Option<String>,
    /// The id to return with the reply.
    pub correlation_id: Option<String>,
    /// The user that published it: the broker refuses a message that names another user than its connection's.
    pub user_id: Option<String>,
    /// The MIME type of the body.
    pub content_type: Option<String>,
    /// The publisher's id of the message.
    pub message_id: Option<String>,
    /// The publisher's type of the message.
    pub kind: Option<String>,
    /// Application headers and those of the broker.
    pub headers: FieldTable,
}

impl Properties {
    /// Returns the flaw of a message that could not be read completely.
    pub fn flaw(&self) -> Option<Flaw> {
        match self.headers.inner().get(MARKER)? {
            AMQPValue::LongString(text) => Flaw::read(text.as_bytes()),
            _ => None,
        }
    }

    /// Returns the size of the message's own body if it was too large to be read; `body` is what arrived in its place.
    pub fn unread_size(&self, body: &[u8]) -> Option<u64> {
        match self.flaw() {
            // A marker that the publisher wrote hides no body.
            Some(Flaw::Body(size)) if body.is_empty() => Some(size),
            _ => None,
        }
    }

    /// Returns the approximate size of the headers, in bytes.
    pub fn headers_size(&self) -> usize {
        table_size(&self.headers)
    }
}

/// Settles one delivery, once. After its channel is gone it does nothing, and the broker delivers the message again.
#[derive(Debug, Clone)]
pub struct Acker {
    lapin: lapin::Acker,
    timeout: Duration,
    tag: u64,
    /// Batches the acknowledgements of its channel.
    together: Option<Acks>,
    /// Keeps the channel open until it is dropped.
    _unsettled: Option<TaskTrackerToken>,
}

impl Delivery {
    pub(in crate::bus) fn new(lapin: lapin::message::Delivery, queue: &Arc<str>, timeout: Duration) -> Delivery {
        Delivery {
            queue: Arc::clone(queue),
            routing_key: lapin.routing_key.to_string(),
            redelivered: lapin.redelivered,
            properties: Properties::from(lapin.properties),
            body: lapin.data,
            acker: Acker { lapin: lapin.acker, timeout, tag: lapin.delivery_tag, together: None, _unsettled: None },
        }
    }

    /// Returns the same delivery, acknowledged together with others of its channel.
    pub(in crate::bus) fn together(mut self, acks: &Acks) -> Delivery {
        self.acker.together = Some(acks.clone());
        self
    }

    /// Returns the same delivery, counted among those that its channel waits for.
    pub(in crate::bus) fn counted(mut self, unsettled: &TaskTracker) -> Delivery {
        self.acker._unsettled = Some(unsettled.token());
        self
    }

    /// Creates a delivery that came from no broker. Settling it does nothing.
    #[cfg(test)]
    pub fn unconnected(queue: &str, routing_key: &str, body: Vec<u8>) -> Delivery {
        let nowhere = ShortString::default();
        let mock = lapin::message::Delivery::mock(0, nowhere.clone(), nowhere, false, body);
        Delivery { routing_key: routing_key.to_owned(), ..Delivery::new(mock, &queue.into(), Duration::from_secs(1)) }
    }
}

impl From<BasicProperties> for Properties {
    fn from(properties: BasicProperties) -> Properties {
        let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string);
        Properties {
            reply_to: text(properties.reply_to()),
            correlation_id: text(properties.correlation_id()),
            user_id: text(properties.user_id()),
            content_type: text(properties.content_type()),
            message_id: text(properties.message_id()),
            kind: text(properties.kind()),
            headers: properties.headers().clone().unwrap_or_default(),
        }
    }
}

impl Acker {
    /// Acknowledges the message: its result is in PostgreSQL. Returns whether the acknowledgement was sent, for a
    /// metric; a message whose acknowledgement was not sent is redelivered and answered from there.
    pub async fn ack(&self) -> bool {
        if let Some(together) = &self.together {
            return together.acknowledge(self.tag).await;
        }
        self.settle("ack", self.lapin.ack(BasicAckOptions::default())).await
    }

    /// Rejects the message to the dead-letter exchange without a reason, after publishing it there with one has failed.
    pub async fn reject(&self) -> bool {
        let options = BasicRejectOptions { requeue: false };
        self.settle("reject", self.lapin.reject(options)).await
    }

    /// Requeues the message, which counts towards the delivery limit.
    pub async fn requeue(&self) -> bool {
        let options = BasicRejectOptions { requeue: true };
        self.settle("requeue", self.lapin.reject(options)).await
    }

    async fn settle(&self, verb: &'static str, settling: impl Future<Output = lapin::Result<bool>>) -> bool {
        match timeout(self.timeout, settling).await {
            Ok(Ok(true)) => {
                if let Some(together) = &self.together {
                    together.settled(self.tag);
                }
                return true;
            }
            Ok(Ok(false)) => {
                debug!(verb, "cannot settle a delivery: its channel is closed; the broker will redeliver it")
            }
            Ok(Err(error)) => debug!(verb, %error, "cannot settle a delivery; the broker will redeliver it"),
            // It may still be sent later.
            Err(_) => debug!(verb, "settling a delivery timed out; the broker may redeliver it"),
        }
        false
    }
}

fn table_size(table: &FieldTable) -> usize {
    let sizes = table.inner().iter().map(|(name, value)| name.as_str().len() + 2 + value_size(value));
    sizes.sum()
}

fn value_size(value: &AMQPValue) -> usize {
    match value {
        AMQPValue::LongString(text) => 4 + text.as_bytes().len(),
        AMQPValue::ShortString(text) => 1 + text.as_str().len(),
        AMQPValue::ByteArray(bytes) => 4 + bytes.as_slice().len(),
        AMQPValue::FieldArray(values) => 4 + values.as_slice().iter().map(value_size).sum::<usize>(),
        AMQPValue::FieldTable(table) => 4 + table_size(table),
        _ => 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_headers_counts_what_is_nested() {
        let mut inner = FieldTable::default();
        inner.insert("reason".into(), AMQPValue::LongString("rejected".into()));
        let mut headers = FieldTable::default();
        headers.insert("x-death".into(), AMQPValue::FieldTable(inner));
        let properties = Properties { headers, ..Properties::default() };
        assert_eq!(properties.headers_size(), 9 + 4 + 8 + 4 + 8);
    }

    #[test]
    fn a_marker_in_other_words_than_the_guards_is_no_flaw() {
        let marked = |value: AMQPValue| {
            let mut headers = FieldTable::default();
            headers.insert(MARKER.into(), value);
            Properties { headers, ..Properties::default() }.flaw()
        };
        let text = |text: String| AMQPValue::LongString(text.into());
        assert_eq!(marked(text(Flaw::Depth.to_string())), Some(Flaw::Depth));
        assert_eq!(marked(text("anything".to_owned())), None);
        assert_eq!(marked(AMQPValue::Boolean(true)), None);
        assert_eq!(Properties::default().flaw(), None);
    }

    #[tokio::test]
    async fn a_delivery_is_settled_once() {
        let delivery = Delivery::unconnected("q", "cards.payment.create", b"{}".to_vec());
        assert!(delivery.acker.ack().await);
        assert!(!delivery.acker.reject().await);
    }
}
