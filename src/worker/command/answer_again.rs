//! A command that came again is answered again, where it asks now: who published it once more most likely lost the queue
//! that the first answer went to.

use std::time::Duration;

use tracing::debug;

use super::engine::{Engine, until_answered};
use super::entry::Entry;
use super::stopped::Stopped;
use crate::bus::envelope::event_body;
use crate::bus::publisher::Outgoing;
use crate::error_chain::chain;
use crate::http::metrics;
use crate::payment::command::Reply;
use crate::payment::event::Event;
use crate::payment::machine::Aggregate;
use crate::payment::operation::Operation;
use crate::store::load::Loaded;

/// How long the broker may take for an answer that is given again; its message waits.
const PATIENCE: Duration = Duration::from_secs(10);

impl Engine {
    /// Answers a command that is known, where its message asks for it: by its stored answer, or by how it stands; then its
    /// answer goes there, too. A message that the broker delivers once more has the answer that its first delivery led to.
    ///
    /// # Errors
    /// The worker ends, or the database will never take it.
    pub(crate) async fn answer_again(&self, entry: &Entry) -> Result<(), Stopped> {
        let Entry::Command { command, id, redelivered, .. } = entry else { return Ok(()) };
        metrics::duplicate(&command.variant);
        let Some(reply) = &command.attributes.reply else { return Ok(()) };
        loop {
            let Loaded { aggregate, .. } = self.load(command.payment_id, &[*id]).await.ok_or(Stopped::Refused)?;
            let Some(operation) = aggregate.operation(*id).filter(|known| known.is_of(command)) else { return Ok(()) };
            let is_told = operation.attributes.reply.as_ref() == Some(reply);
            if *redelivered && is_told {
                return Ok(());
            }
            if operation.is_open() && !is_told && !self.redirect_answer(operation, reply).await? {
                continue;
            }
            self.reply(self.answer_as_it_stands(&aggregate, operation).await, reply).await;
            return Ok(());
        }
    }

    /// The event that answered an operation, or one that says how it stands.
    pub(crate) async fn answer_as_it_stands(&self, aggregate: &Aggregate, operation: &Operation) -> Option<Outgoing> {
        let stored = if operation.is_open() { None } else { self.stored_answer(operation).await };
        let standing = || aggregate.standing(operation.id, self.store.clock().now());
        stored.or_else(|| Some(outgoing(&standing()?)))
    }

    /// Stores where an operation's answer goes from now on. False where it was answered meanwhile.
    async fn redirect_answer(&self, operation: &Operation, reply: &Reply) -> Result<bool, Stopped> {
        let redirect = || self.store.redirect_answer(operation.payment_id, operation.id, reply);
        until_answered("where an answer goes cannot be stored", redirect).await
    }

    /// The event that answered an operation, where it is kept and is soon found.
    async fn stored_answer(&self, operation: &Operation) -> Option<Outgoing> {
        match self.store.answer(operation).await {
            Ok(answer) => answer.map(crate::worker::outbox::announce::from_outbox),
            Err(error) => {
                debug!(error = chain(&error), "an answer cannot be read; it is written anew");
                None
            }
        }
    }

    pub(crate) async fn reply(&self, answer: Option<Outgoing>, reply: &Reply) {
        let Some(answer) = answer else { return };
        if !self.announcer.reply(answer, reply.clone(), PATIENCE).await {
            metrics::reply_unroutable();
        }
    }
}

/// An event that is stored nowhere, and has no place among those that are.
pub(crate) fn outgoing(event: &Event) -> Outgoing {
    Outgoing::of(event, 0, event_body(event))
}
