//! Refuses commands that are not authorized. Nothing is stored under their name and no event is published to
//! subscribers.

use jiff::Timestamp;
use uuid::Uuid;

use super::authorize::Refusal;
use super::engine::Engine;
use super::entry::Entry;
use super::stopped::Stopped;
use crate::payment::code::Rejection;
use crate::payment::command::Command;
use crate::payment::event::{Event, EventCause, EventKind};
use crate::payment::machine::Aggregate;
use crate::payment::model::Metadata;
use crate::payment::operation::State;
use crate::telemetry::metrics;

impl Engine {
    /// Whether a command is refused regardless of its payment.
    pub(crate) fn is_refused(&self, entry: &Entry) -> bool {
        self.refusal(entry).is_some()
    }

    fn refusal(&self, entry: &Entry) -> Option<Refusal> {
        match entry {
            Entry::Command { command, is_own: false, .. } => self.authorization.refusal(command),
            Entry::Command { .. } | Entry::Due { .. } => None,
        }
    }

    /// Whether to continue with a command, given the stored payment. Returns false if the command is refused and yet
    /// stored: it was authorized under earlier rules, or copied from a sender who was. The stored command goes on
    /// without this message.
    ///
    /// # Errors
    /// The command is refused.
    pub(crate) fn goes_on(&self, entry: &Entry, aggregate: &Aggregate) -> Result<bool, Stopped> {
        let Entry::Command { command, is_own: false, .. } = entry else { return Ok(true) };
        let user = command.attributes.user_id.as_deref();
        let is_theirs = aggregate.payment().is_none_or(|payment| self.authorization.may_act_on(user, payment));
        match self.refusal(entry).or((!is_theirs).then_some(Refusal::Payment)) {
            None => Ok(true),
            Some(_) if entry.is_known(aggregate.operation(entry.id())) => {
                metrics::duplicate(&command.variant);
                Ok(false)
            }
            Some(refusal) => Err(Stopped::NotAuthorized(refusal)),
        }
    }

    /// Why a waiting command is refused its turn: it arrived before its payment, and that belongs to another user.
    pub(crate) fn refusal_of_waiting(&self, aggregate: &Aggregate, id: Uuid) -> Option<Rejection> {
        let operation = aggregate.operation(id).filter(|operation| operation.state == State::Waiting)?;
        let user = operation.attributes.user_id.as_deref();
        let is_theirs = self.authorization.may_act_on(user, aggregate.payment()?);
        (!is_theirs).then(|| Refusal::Payment.into())
    }
}

/// The answer to a command that is not stored.
pub(crate) fn answer_to(command: &Command, kind: EventKind, is_final: bool, now: Timestamp) -> Event {
    let cause = EventCause { reply: None, ..EventCause::of_command(command, is_final) };
    Event {
        id: Uuid::now_v7(),
        payment_id: command.payment_id,
        variant: command.variant.clone(),
        kind,
        sequence: None,
        cause: Some(cause),
        metadata: Metadata::default(),
        time: now,
    }
}
