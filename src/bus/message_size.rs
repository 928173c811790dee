//! The broker's limit on the size of a message, `max_message_size`. AMQP 0-9-1 does not reveal it, so it is found by
//! publishing messages that no queue takes and the broker drops.

use bytes::Bytes;
use lapin::types::ShortString;
use uuid::Uuid;

use super::connection::Connection;
use super::publish::batch::{Message, publish};
use super::publish::channel::open;
use super::publish::publisher::base_properties;
use super::publish::verdict::{Refused, Sent};
use super::{BusError, BusSettings, short};

/// The limit that `deploy/rabbitmq/paybus.conf` sets, in bytes. No event takes as much.
pub const MESSAGE_MAX: usize = 4 * 1024 * 1024;

/// How the broker's limit compares with [`MESSAGE_MAX`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageLimit {
    /// It is the same.
    Same,
    /// Larger messages are accepted: anyone who may publish can fill the broker's memory with a few of them.
    Higher,
    /// The broker refuses a message of this size, with these words: an event could be too large to publish.
    Lower(String),
    /// The user may not publish to the default exchange, so the limit cannot be found.
    Unknown(String),
}

/// What the broker did with a message of some size.
enum Tried {
    Accepted,
    Refused(String),
    Forbidden(String),
}

/// Finds out how the broker's limit compares with [`MESSAGE_MAX`], by publishing up to two messages of that size.
///
/// # Errors
/// The connection is lost, or the broker does not answer.
pub async fn find(connection: &Connection, settings: &BusSettings) -> Result<MessageLimit, BusError> {
    match try_size(connection, settings, MESSAGE_MAX + 1).await? {
        Tried::Accepted => return Ok(MessageLimit::Higher),
        Tried::Forbidden(reason) => return Ok(MessageLimit::Unknown(reason)),
        Tried::Refused(_) => {}
    }
    Ok(match try_size(connection, settings, MESSAGE_MAX).await? {
        Tried::Accepted => MessageLimit::Same,
        Tried::Refused(reason) => MessageLimit::Lower(reason),
        Tried::Forbidden(reason) => MessageLimit::Unknown(reason),
    })
}

async fn try_size(connection: &Connection, settings: &BusSettings, bytes: usize) -> Result<Tried, BusError> {
    // The broker closes the channel over a message that is too large.
    let channel = open(connection).await?;
    let no_queue = format!("{}.none.{}", settings.prefix, Uuid::new_v4());
    let message = Message {
        mandatory: false,
        exchange: ShortString::default(),
        routing_key: short("routing key", no_queue.clone())?,
        properties: base_properties().with_delivery_mode(1).with_message_id(short("message id", no_queue)?),
        body: Bytes::from(vec![0; bytes]),
    };
    let report = publish(connection, &channel, std::iter::once(&message), settings.confirm_timeout).await;
    if let Some(closed) = report.closed {
        return Ok(if closed.by_topology { Tried::Forbidden(closed.reason) } else { Tried::Refused(closed.reason) });
    }
    match report.sent.into_iter().next().and_then(Sent::only_try) {
        Some(Ok(())) => Ok(Tried::Accepted),
        Some(Err(Refused(reason))) => Ok(Tried::Refused(reason)),
        None => Err(BusError::Closed),
    }
}
