//! One batch of messages on one channel: everything is sent before any confirm is awaited, and messages are judged only
//! once all confirms of the batch are known.
//!
//! lapin attaches a returned message to whichever confirm completes next, not to its own. So a return is matched by its
//! `message_id` across the whole batch, and a channel belongs to one batch at a time. If a confirm is lost, the return
//! of another message may be lost with it; see `outcomes`.

use std::collections::HashMap;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{MaybeDone, maybe_done};
use lapin::message::BasicReturnMessage;
use lapin::options::BasicPublishOptions;
use lapin::protocol::AMQPSoftError;
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::time::timeout;

use super::verdict::Sent;
use crate::bus::connection::Connection;
use crate::bus::connection::refusal::refusal;

/// A message ready to be published. Its `message_id` must be set, because it identifies a return.
#[derive(Debug, Clone)]
pub(in crate::bus) struct Message {
    /// Whether the broker returns it if no queue takes it.
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

/// How a batch went.
#[derive(Debug)]
pub(in crate::bus) struct Report {
    /// The outcome of each message, in the order of the batch.
    pub sent: Vec<Sent>,
    /// Why the broker closed the channel, if it did and gave a reason.
    pub closed: Option<Closed>,
}

/// Why the broker closed a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::bus) struct Closed {
    /// The broker's own words.
    pub reason: String,
    /// Whether the exchange is missing or forbidden, so that every message would fail in the same way.
    pub by_topology: bool,
}

/// Publishes all messages, pipelined, and awaits their confirms. A confirm that is missing for `confirm_timeout` counts
/// as lost; each confirm that arrives restarts the wait, and so does a broker that blocks.
pub(in crate::bus) async fn publish(
    connection: &Connection,
    channel: &Channel,
    messages: impl Iterator<Item = &Message>,
    confirm_timeout: Duration,
) -> Report {
    let messages: Vec<&Message> = messages.collect();
    let mut confirms = Vec::with_capacity(messages.len());
    for message in &messages {
        let mut confirm = Box::pin(maybe_done(confirmed(channel, message)));
        // The first poll takes the delivery tag and queues the frames: this fixes the order on the wire.
        futures_util::poll!(confirm.as_mut()).is_ready();
        confirms.push(confirm);
    }
    let mut answers = Vec::with_capacity(confirms.len());
    let mut lost = false;
    for confirm in &mut confirms {
        // Once one confirm is lost, those that arrived in the meantime still count, but no other is awaited.
        lost = lost || !comes(connection, confirm.as_mut(), confirm_timeout).await;
        if lost {
            futures_util::poll!(confirm.as_mut()).is_ready();
        }
        answers.push(confirm.as_mut().take_output().map(Answer::from));
    }
    // A confirm that arrived during this loop is too late to count, but may carry the return of another message.
    let mut late = Vec::new();
    for (mut confirm, _) in confirms.into_iter().zip(&answers).filter(|(_, answer)| answer.is_none()) {
        futures_util::poll!(confirm.as_mut()).is_ready();
        late.extend(confirm.as_mut().take_output().map(Answer::from));
    }
    outcomes(&messages, answers, late)
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

/// Waits for a confirm; returns false if it is lost.
async fn comes<F: Future>(
    connection: &Connection,
    mut confirm: Pin<&mut MaybeDone<F>>,
    confirm_timeout: Duration,
) -> bool {
    while timeout(confirm_timeout, confirm.as_mut()).await.is_err() {
        // While the broker blocks, lapin keeps what it could not write and continues when the broker does. Sending it
        // again on another channel would only add to what waits.
        if !(connection.is_blocked() && connection.is_alive()) {
            return false;
        }
    }
    true
}

/// What lapin reports about one message, and the return, of this message or another, that it attached.
#[derive(Debug)]
enum Answer {
    Ack(Option<Returned>),
    Nack(Option<Returned>),
    Failed(Option<Closed>),
}

/// A message that was returned.
#[derive(Debug)]
struct Returned {
    id: ShortString,
    reason: String,
}

impl From<lapin::Result<Confirmation>> for Answer {
    fn from(answer: lapin::Result<Confirmation>) -> Answer {
        match answer {
            Ok(Confirmation::Ack(carried)) => Answer::Ack(carried.and_then(Returned::read)),
            Ok(Confirmation::Nack(carried)) => Answer::Nack(carried.and_then(Returned::read)),
            // The channel has no confirms, so nothing is proven.
            Ok(Confirmation::NotRequested) => Answer::Failed(None),
            Err(error) => Answer::Failed(closing(&error)),
        }
    }
}

impl Returned {
    fn read(message: BasicReturnMessage) -> Option<Returned> {
        let reason = format!("returned by the broker: {} {}", message.reply_code, message.reply_text);
        let id = message.delivery.properties.message_id().clone()?;
        Some(Returned { id, reason })
    }
}

/// Judges each message by its answer (`None` if the confirm is lost) and by the returns that late answers carried.
///
/// The broker sends a return before the confirm of the same message, and lapin attaches the oldest return to each
/// confirm that completes. So there are never more outstanding returns than returned messages without a confirm: as
/// long as each return that was seen belongs to a message with a confirm, every message with a confirm has its return.
/// Otherwise a bare ack proves nothing: the message may have been returned too, and its return not be attached yet.
fn outcomes(messages: &[&Message], answers: Vec<Option<Answer>>, late: Vec<Answer>) -> Report {
    let mut returned: HashMap<ShortString, String> = HashMap::new();
    let mut closed = None;
    let mut bare = Vec::with_capacity(answers.len());
    let mut note = |carried: Option<Returned>| {
        returned.extend(carried.map(|carried| (carried.id, carried.reason)));
    };
    for answer in answers {
        bare.push(match answer {
            Some(Answer::Ack(carried)) => {
                note(carried);
                Sent::Confirmed
            }
            Some(Answer::Nack(carried)) => {
                note(carried);
                Sent::Nacked("the broker did not store the message (basic.nack)".to_owned())
            }
            Some(Answer::Failed(why)) => {
                closed = closed.or(why);
                Sent::Unknown
            }
            None => Sent::Unknown,
        });
    }
    for answer in late {
        if let Answer::Ack(carried) | Answer::Nack(carried) = answer {
            note(carried);
        }
    }
    let reason = |message: &Message| message.id().and_then(|id| returned.get(id));
    let is_owed = bare.iter().zip(messages).any(|(sent, message)| *sent == Sent::Unknown && reason(message).is_some());
    let judged = bare.iter().zip(messages).map(|(sent, message)| match (sent, reason(message)) {
        (Sent::Confirmed, Some(reason)) => Sent::Refused(reason.clone()),
        (Sent::Confirmed, None) if is_owed && message.mandatory => Sent::Unknown,
        (sent, _) => sent.clone(),
    });
    Report { sent: judged.collect(), closed }
}

fn closing(error: &lapin::Error) -> Option<Closed> {
    let (kind, reason) = refusal(error)?;
    let by_topology = match kind {
        AMQPSoftError::NOTFOUND => true,
        // A topic permission forbids one routing key, any other permission the whole exchange.
        AMQPSoftError::ACCESSREFUSED => !reason.contains("access to topic"),
        _ => false,
    };
    Some(Closed { reason, by_topology })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: &str) -> Message {
        Message {
            mandatory: true,
            exchange: ShortString::default(),
            routing_key: ShortString::default(),
            properties: BasicProperties::default().with_message_id(id.into()),
            body: Bytes::new(),
        }
    }

    fn ack(carried: Option<&str>) -> Option<Answer> {
        Some(Answer::Ack(carried.map(|id| Returned { id: id.into(), reason: "no route".to_owned() })))
    }

    fn check(answers: Vec<Option<Answer>>, late: Vec<Answer>, expected: &[Sent]) {
        let messages: Vec<Message> = (0..answers.len()).map(|number| message(&number.to_string())).collect();
        let messages: Vec<&Message> = messages.iter().collect();
        assert_eq!(outcomes(&messages, answers, late).sent, expected);
    }

    fn refused() -> Sent {
        Sent::Refused("no route".to_owned())
    }

    #[test]
    fn a_return_is_matched_to_its_message_on_any_confirm() {
        check(vec![ack(Some("2")), ack(None), ack(None)], vec![], &[Sent::Confirmed, Sent::Confirmed, refused()]);
    }

    #[test]
    fn a_return_on_a_confirm_that_came_too_late_is_not_lost() {
        let late = ack(Some("1")).into_iter().collect();
        check(vec![None, ack(None), ack(None)], late, &[Sent::Unknown, refused(), Sent::Confirmed]);
    }

    #[test]
    fn a_lost_confirm_takes_no_others_with_it() {
        check(vec![None, ack(None), ack(None)], vec![], &[Sent::Unknown, Sent::Confirmed, Sent::Confirmed]);
    }

    /// Message 1 was confirmed and carried the return of message 0; its own return is still outstanding.
    #[test]
    fn while_a_return_is_owed_a_bare_ack_proves_nothing() {
        check(vec![None, ack(Some("0")), ack(None)], vec![], &[const { Sent::Unknown }; 3]);
        let failed = Some(Answer::Failed(None));
        check(vec![failed, ack(Some("0"))], vec![], &[const { Sent::Unknown }; 2]);
    }
}
