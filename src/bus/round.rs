//! One round of publishing on one channel: everything is sent before any confirm is awaited, and each message is judged
//! only when all confirms of the round are known.
//!
//! lapin hangs a returned message on whichever confirm completes next, not on its own. So a return is matched by its
//! `message_id`, over the whole round, and a channel belongs to one round at a time.

use std::collections::HashMap;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{MaybeDone, maybe_done};
use lapin::options::BasicPublishOptions;
use lapin::protocol::AMQPSoftError;
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::time::timeout;

use super::backlog::Sent;
use super::connection::Connection;
use super::refusal::refusal;

/// A message ready to be published. Its `message_id` must be set: a return is known by it.
#[derive(Debug, Clone)]
pub(super) struct Message {
    /// Whether the broker sends it back where no queue takes it.
    pub mandatory: bool,
    pub exchange: ShortString,
    pub routing_key: ShortString,
    pub properties: BasicProperties,
    pub body: Bytes,
}

impl Message {
    fn id(&self) -> Option<&ShortString> {
        self.properties.message_id().as_ref()
    }
}

/// How a round went.
#[derive(Debug)]
pub(super) struct Report {
    /// Of each message, in the round's order.
    pub sent: Vec<Sent>,
    /// Why the broker closed the channel, where it said so.
    pub closed: Option<Closed>,
}

/// Why the broker closed a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Closed {
    /// In the broker's words.
    pub reason: String,
    /// Whether the exchange is missing or barred, so that every message would meet the same.
    pub by_topology: bool,
}

/// Publishes all, pipelined, and awaits their confirms. A confirm may be missing for `patience` before it counts as
/// lost; each one that comes starts the wait anew, and so does a broker that blocks.
pub(super) async fn publish(
    connection: &Connection,
    channel: &Channel,
    messages: impl Iterator<Item = &Message>,
    patience: Duration,
) -> Report {
    let messages: Vec<&Message> = messages.collect();
    let mut confirms = Vec::with_capacity(messages.len());
    for message in &messages {
        let mut confirm = Box::pin(maybe_done(confirmed(channel, message)));
        // The first poll takes the delivery tag and queues the frames: here the order on the wire is made.
        futures_util::poll!(confirm.as_mut()).is_ready();
        confirms.push(confirm);
    }
    let mut answers = Vec::with_capacity(confirms.len());
    let mut lost = false;
    for mut confirm in confirms {
        let answer = match lost {
            // One confirm is lost: those that came in the meantime still count, but no other is waited for.
            true => {
                futures_util::poll!(confirm.as_mut()).is_ready();
                confirm.as_mut().take_output()
            }
            false => answer(connection, confirm.as_mut(), patience).await,
        };
        lost = lost || answer.is_none();
        answers.push(answer);
    }
    judge(&messages, answers)
}

async fn confirmed(channel: &Channel, message: &Message) -> lapin::Result<Confirmation> {
    let options = BasicPublishOptions { mandatory: message.mandatory, ..BasicPublishOptions::default() };
    let sending = channel.basic_publish(
        message.exchange.clone(),
        message.routing_key.clone(),
        options,
        &message.body,
        message.properties.clone(),
    );
    sending.await?.await
}

async fn answer<F: Future>(
    connection: &Connection,
    mut confirm: Pin<&mut MaybeDone<F>>,
    patience: Duration,
) -> Option<F::Output> {
    while timeout(patience, confirm.as_mut()).await.is_err() {
        // While the broker blocks, lapin keeps what it could not write and goes on when the broker does. Sending it
        // again on another channel would only add to what waits.
        if !(connection.is_blocked() && connection.is_alive()) {
            return None;
        }
    }
    confirm.take_output()
}

type Answer = Option<lapin::Result<Confirmation>>;

fn judge(messages: &[&Message], answers: Vec<Answer>) -> Report {
    let mut returned: HashMap<ShortString, String> = HashMap::new();
    let mut closed = None;
    let mut bare = Vec::with_capacity(answers.len());
    for answer in answers {
        bare.push(match answer {
            Some(Ok(Confirmation::Ack(carried))) => {
                note(carried, &mut returned);
                Sent::Confirmed
            }
            Some(Ok(Confirmation::Nack(carried))) => {
                note(carried, &mut returned);
                Sent::Nacked("the broker could not store it (nack)".to_owned())
            }
            Some(Err(error)) => {
                closed = closed.or_else(|| closing(&error));
                Sent::Unknown
            }
            // "Not requested" would be a channel without confirms: it proves nothing.
            Some(Ok(Confirmation::NotRequested)) | None => Sent::Unknown,
        });
    }
    let judged = bare.into_iter().zip(messages).map(|(sent, message)| {
        let reason = message.id().and_then(|id| returned.get(id));
        match (sent, reason) {
            (Sent::Confirmed, Some(reason)) => Sent::Refused(reason.clone()),
            (sent, _) => sent,
        }
    });
    Report { sent: judged.collect(), closed }
}

fn note(carried: Option<lapin::message::BasicReturnMessage>, returned: &mut HashMap<ShortString, String>) {
    if let Some(message) = carried
        && let Some(id) = message.delivery.properties.message_id()
    {
        let reason = format!("returned by the broker: {} {}", message.reply_code, message.reply_text);
        returned.insert(id.clone(), reason);
    }
}

fn closing(error: &lapin::Error) -> Option<Closed> {
    let (kind, reason) = refusal(error)?;
    let by_topology = match kind {
        AMQPSoftError::NOTFOUND => true,
        // A topic permission bars one routing key, any other the whole exchange.
        AMQPSoftError::ACCESSREFUSED => !reason.contains("access to topic"),
        _ => false,
    };
    Some(Closed { reason, by_topology })
}
