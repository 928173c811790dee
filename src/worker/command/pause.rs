//! Pauses a variant's calls for an operator, or lets them continue.
//!
//! The command concerns no payment. It is stored among the variant's pauses, under its own name: if it comes again, it
//! changes nothing and is answered again.

use std::collections::HashMap;

use jiff::Timestamp;
use tracing::warn;

use super::answer_again::outgoing;
use super::engine::{Engine, until_answered};
use super::refusal::answer_to;
use super::stopped::Stopped;
use crate::payment::code::{Code, Rejection};
use crate::payment::command::{Body, Command, Pause};
use crate::payment::event::EventKind;
use crate::store::error::StoreError;
use crate::store::pauses::{PauseOrder, Recorded};
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
            command.content = Err(Rejection::user_required());
            return None;
        };
        Some(Ordered { user, pause, reason })
    }

    /// Reads the pauses and follows them on this replica.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub(crate) async fn read_pauses(&self) -> Result<HashMap<String, Pause>, StoreError> {
        // One at a time: an older reading never replaces a newer one.
        let _reading = self.pauses.lock().await;
        let pauses = self.store.pauses().await?;
        for (name, variant) in self.variants.iter() {
            variant.pause.set(name, pauses.get(name).cloned());
        }
        Ok(pauses)
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
            expires_at: command.attributes.expires_at,
        };
        let recorded = until_answered("cannot store a pause", || self.store.record_pause(&order)).await?;
        let (kind, outcome) = match recorded {
            Recorded::Stored => {
                let mut pauses = until_answered("cannot read pauses", || self.read_pauses()).await?;
                (EventKind::PauseChanged(pauses.remove(&command.variant)), CommandOutcome::Succeeded)
            }
            Recorded::OfAnother => {
                let message = "this source and id were already used for another order";
                (Rejection::new(Code::IdReused, message).into(), CommandOutcome::Rejected)
            }
            Recorded::TooLate => (too_late(&ordered, self.store.clock().now()).into(), CommandOutcome::Rejected),
        };
        // The one final answer of a name belongs to the order that came first.
        let is_final = recorded != Recorded::OfAnother;
        match &command.attributes.reply {
            Some(reply) => {
                let answer = answer_to(command, kind, is_final, self.store.clock().now());
                self.reply(Some(outgoing(&answer)), reply).await;
            }
            None if outcome == CommandOutcome::Rejected => {
                warn!(variant = command.variant, ?recorded, "an operator's order is rejected, and names no reply_to");
            }
            None => {}
        }
        metrics::command_settled(&command.kind, &command.variant, outcome);
        Ok(())
    }
}

/// Why an order that came too late is rejected.
fn too_late(ordered: &Ordered, now: Timestamp) -> Rejection {
    match ordered.pause.as_ref().and_then(|pause| pause.until) {
        Some(until) if until <= now => Rejection::new(Code::InvalidData, "until: must be in the future"),
        _ => Rejection::expired(),
    }
}
