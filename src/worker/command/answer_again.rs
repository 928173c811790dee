//! Answers a duplicate command at the `reply_to` of the new message: a sender that publishes a command again has most
//! likely lost the queue that the first answer went to.

use std::time::Duration;

use tracing::debug;

use super::engine::{Engine, until_answered};
use super::entry::Entry;
use super::stopped::Stopped;
use crate::bus::envelope::event_body;
use crate::bus::publish::publisher::Outgoing;
use crate::error_chain::chain;
use crate::payment::command::Reply;
use crate::payment::event::Event;
use crate::payment::machine::Aggregate;
use crate::payment::operation::Operation;
use crate::store::load::Loaded;
use crate::telemetry::metrics;
use crate::worker::outbox::announce::from_outbox;

/// How long the broker may take for a repeated answer; the message waits meanwhile.
const TIMEOUT: Duration = Duration::from_secs(10);

impl Engine {
    /// Answers a duplicate command at its `reply_to`. A settled command is answered with its stored answer. An open one
    /// is answered with its current state, and its final answer is redirected to the new `reply_to`. A redelivered
    /// message is not answered again if its answer already goes there.
    ///
    /// # Errors
    /// The worker is shutting down, or the database refuses it for good.
    pub(crate) async fn answer_again(&self, entry: &Entry) -> Result<(), Stopped> {
        let Entry::Command { command, id, redelivered, .. } = entry else { return Ok(()) };
        metrics::duplicate(&command.variant);
        let Some(reply) = &command.attributes.reply else { return Ok(()) };
        loop {
            let Loaded { aggregate, .. } = self.load(command.payment_id, &[*id]).await.ok_or(Stopped::Refused)?;
            let Some(operation) = aggregate.operation(*id).filter(|known| known.is_of(command)) else { return Ok(()) };
            let has_this_reply_to = operation.attributes.reply.as_ref() == Some(reply);
            if *redelivered && has_this_reply_to {
                return Ok(());
            }
            if operation.is_open() && !has_this_reply_to && !self.redirect_answer(operation, reply).await? {
                continue;
            }
            self.reply(self.answer_as_it_stands(&aggregate, operation).await, reply).await;
            return Ok(());
        }
    }

    /// Returns the event that answered an operation, or one that describes its current state.
    pub(crate) async fn answer_as_it_stands(&self, aggregate: &Aggregate, operation: &Operation) -> Option<Outgoing> {
        let stored = if operation.is_open() { None } else { self.stored_answer(operation).await };
        let standing = || aggregate.standing(operation.id, self.store.clock().now());
        stored.or_else(|| Some(outgoing(&standing()?)))
    }

    /// Stores where an operation's answer goes from now on. Returns false if it was answered meanwhile.
    async fn redirect_answer(&self, operation: &Operation, reply: &Reply) -> Result<bool, Stopped> {
        let redirect = || self.store.redirect_answer(operation.payment_id, operation.id, reply);
        until_answered("cannot store where to send an answer", redirect).await
    }

    /// Returns the event that answered an operation, if it is still kept and quick to find.
    async fn stored_answer(&self, operation: &Operation) -> Option<Outgoing> {
        match self.store.answer(operation).await {
            Ok(answer) => answer.map(from_outbox),
            Err(error) => {
                debug!(error = chain(&error), "cannot read a stored answer; generating it again");
                None
            }
        }
    }

    pub(crate) async fn reply(&self, answer: Option<Outgoing>, reply: &Reply) {
        let Some(answer) = answer else { return };
        self.reply_within(answer, reply, TIMEOUT).await;
    }

    /// Publishes an answer, and counts it if the broker does not confirm it in time.
    pub(crate) async fn reply_within(&self, answer: Outgoing, reply: &Reply, timeout: Duration) {
        if !self.announcer.reply(answer, reply.clone(), timeout).await {
            metrics::reply_unroutable();
        }
    }
}

/// An event that is not stored and has no position.
pub(crate) fn outgoing(event: &Event) -> Outgoing {
    Outgoing::of(event, 0, event_body(event))
}
