//! Pauses a variant's calls for an operator, or lets them continue.
//!
//! The command concerns no payment. It is stored among the variant's pauses, under its own name: if it comes again, it
//! changes nothing and is answered again.

use super::answer_again::outgoing;
use super::engine::{Engine, until_answered};
use super::refusal::answer_to;
use super::stopped::Stopped;
use crate::payment::code::{Code, Rejection};
use crate::payment::command::{Body, Command, Pause};
use crate::payment::event::EventKind;
use crate::store::pauses::PauseOrder;
use crate::telemetry::metrics::{self, CommandOutcome};

/// What an operator ordered.
pub(crate) struct Ordered {
    user: String,
    pause: Option<Pause>,
    reason: String,
}

impl Engine {
    /// Returns what a command orders, or `None` for every other command. One that names no operator or no configured
    /// variant is rejected like other invalid commands.
    pub(crate) fn pause_wanted(&self, command: &mut Command) -> Option<Ordered> {
        let (pause, reason) = match &command.content {
            Ok(Body::Pause(pause)) => (Some(pause.clone()), pause.reason.clone()),
            Ok(Body::Resume(reason)) => (None, reason.clone()),
            _ => return None,
        };
        if !self.variants.contains_key(&command.variant) {
            return None;
        }
        let Some(user) = command.attributes.user_id.clone() else {
            command.content = Err(Rejection::new(Code::UserRequired, "the AMQP user_id must name the operator"));
            return None;
        };
        Some(Ordered { user, pause, reason })
    }

    /// Stores the order, follows it on this replica at once, and answers at the `reply_to`.
    ///
    /// # Errors
    /// The sender is not authorized, or the worker is shutting down.
    pub(crate) async fn order_pause(&self, command: &Command, ordered: Ordered) -> Result<(), Stopped> {
        if let Some(refusal) = self.authorization.refusal(command) {
            return Err(Stopped::NotAuthorized(refusal));
        }
        let order = PauseOrder {
            id: command.operation_id(),
            name: &command.name,
            user: &ordered.user,
            variant: &command.variant,
            pause: ordered.pause.as_ref(),
            reason: &ordered.reason,
        };
        let is_stored = until_answered("cannot store a pause", || self.store.record_pause(&order)).await?;
        let (kind, outcome) = if is_stored {
            let mut pauses = until_answered("cannot read pauses", || self.store.pauses()).await?;
            let pause = pauses.remove(&command.variant);
            (EventKind::PauseChanged(pause), CommandOutcome::Succeeded)
        } else {
            let Rejection { code, message } = Rejection::new(Code::InvalidData, "until: must be in the future");
            (EventKind::Rejected { code, message }, CommandOutcome::Rejected)
        };
        if let EventKind::PauseChanged(pause) = &kind
            && let Some(variant) = self.variants.get(&command.variant)
        {
            variant.pause.set(&command.variant, pause.clone());
        }
        if let Some(reply) = &command.attributes.reply {
            self.reply(Some(outgoing(&answer_to(command, kind, true, self.store.clock().now()))), reply).await;
        }
        metrics::command_settled(&command.kind, &command.variant, outcome);
        Ok(())
    }
}
