//! Takes slots for gateway calls: bounded by the variant's limits, and exclusive for an operation that lost more than
//! one worker. Such an operation is a suspect and runs beside no other suspect of its variant.
//!
//! The exclusive slot is taken before the operation is begun, so that only one suspect at a time is stored as being
//! called. If a worker dies again, only that one counts another takeover. Other operations never wait for suspects, and
//! suspects that wait for each other hold nothing that others need.

use std::time::Duration;

use uuid::Uuid;

use super::attempt::{Attempt, CallSlot, Purpose};
use super::engine::{Engine, WAIT_MAX};
use super::entry::Entry;
use crate::payment::machine::{Aggregate, Step, TAKEOVERS_ALONE};
use crate::worker::variant::Variant;

/// What happened to an operation's slot before its next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// It keeps the slot that it has.
    Stays,
    /// It waited for the exclusive slot: decide again, as the payment may have changed meanwhile.
    Moved,
    /// Another operation has the exclusive slot: retried later.
    Full,
}

impl Engine {
    /// Waits for the slot that an entry needs before it is begun. While calls are paused, the slot has no permit.
    pub async fn slot(&self, entry: &Entry, variant: &Variant, purpose: Purpose) -> CallSlot {
        let needs_permit = entry.may_call() && purpose == Purpose::Work && !self.is_refused(entry);
        let permit = match entry {
            _ if !needs_permit => None,
            Entry::Command { .. } => self.permit(variant, WAIT_MAX).await,
            // It may turn out to be a look-up, which stays within the limits during a pause.
            Entry::Due { .. } => self.permit_to_ask(variant, WAIT_MAX).await,
        };
        CallSlot { permit, exclusive: None }
    }

    /// Waits for the slot that the next step of an operation needs. Returns `None` if calls are paused meanwhile, or if
    /// waiting would use up the lease, after which others would take the operation over. It is then retried later.
    pub async fn slot_for(&self, aggregate: &Aggregate, step: Step, variant: &Variant) -> Option<CallSlot> {
        // The exclusive slot comes first, so that no operation holds a permit while it waits for the slot.
        let exclusive =
            if lost_workers(aggregate, step).is_some() { Some(variant.exclusive.enter().await?) } else { None };
        let permit = match step {
            Step::LookUp { .. } | Step::Undo(_) | Step::Locate(_) => None,
            Step::RetryNow(id) if is_question(aggregate, id) => Some(self.permit_to_ask(variant, WAIT_MAX).await?),
            _ => Some(self.permit(variant, self.wait_max(aggregate, step)).await?),
        };
        Some(CallSlot { permit, exclusive })
    }

    /// The timeout for a permit: half of the remaining lease of the operation.
    fn wait_max(&self, aggregate: &Aggregate, step: Step) -> Duration {
        let (Step::Call(id) | Step::RetryNow(id)) = step else { return WAIT_MAX };
        let lease = aggregate.operation(id).and_then(|operation| operation.lease);
        let left = lease.map(|lease| lease.until.duration_since(self.store.clock().now()) / 2);
        left.and_then(|left| Duration::try_from(left).ok()).unwrap_or_default()
    }

    /// Switches to the exclusive slot if the entry's own operation, whose step this is, lost more than one worker.
    pub async fn move_if_alone(
        &self,
        entry: &Entry,
        aggregate: &Aggregate,
        step: Step,
        attempt: Option<&mut Attempt<'_>>,
    ) -> Move {
        let Some(attempt) = attempt.filter(|_| lost_workers(aggregate, step) == Some(entry.id())) else {
            return Move::Stays;
        };
        let (variant, slot) = (attempt.variant, attempt.slot.get_or_insert_default());
        if slot.is_alone() {
            return Move::Stays;
        }
        // Release the permit first: nobody may hold one while waiting for another call.
        let had_permit = slot.permit.take().is_some();
        let Some(exclusive) = variant.exclusive.enter().await else { return Move::Full };
        slot.exclusive = Some(exclusive);
        if had_permit {
            slot.permit = self.permit_to_ask(variant, WAIT_MAX).await;
        }
        Move::Moved
    }
}

/// Whether an operation only asks the gateway, as a `payment.sync` does.
pub fn is_question(aggregate: &Aggregate, id: Uuid) -> bool {
    aggregate.operation(id).is_some_and(|operation| operation.action().is_none())
}

/// Returns the operation of a step that calls the gateway, if it lost more than one worker.
fn lost_workers(aggregate: &Aggregate, step: Step) -> Option<Uuid> {
    let (Step::Call(id) | Step::RetryNow(id) | Step::Undo(id) | Step::Locate(id) | Step::LookUp { operation: id, .. }) =
        step
    else {
        return None;
    };
    aggregate
        .operation(id)
        .filter(|operation| operation.counts.takeovers >= TAKEOVERS_ALONE)
        .map(|operation| operation.id)
}
