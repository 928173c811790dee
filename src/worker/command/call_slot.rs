//! A slot for one call: within the variant's limits, and exclusive for an operation that lost more than one worker, which runs
//! beside no other such operation of its variant.
//!
//! It is taken before an operation is begun, so that of those that may have taken the workers down only one is stored as
//! being called: if it does so once more, the others did not count. Whoever is under no such suspicion waits for none of them,
//! and while they wait for each other they hold nothing that others need.

use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit};
use uuid::Uuid;

use super::engine::{Engine, PATIENCE_MAX};
use super::entry::Entry;
use crate::payment::machine::{Aggregate, Step, TAKEOVERS_ALONE};
use crate::worker::variant::Variant;

/// A place among the calls in flight, until it is dropped.
#[derive(Debug, Default)]
pub struct CallSlot {
    permit: Option<OwnedSemaphorePermit>,
    room: Option<OwnedMutexGuard<()>>,
}

/// What an operation has to do for the slot that its next step needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// Nothing.
    Stays,
    /// It waited for the exclusive slot, so that what was decided meanwhile may no longer hold.
    Moved,
    /// Another one has the exclusive slot: it is tried again later.
    Full,
}

impl Engine {
    /// Waits for the slot that an entry needs before it is begun. While calls are paused it is one without a permit.
    pub async fn slot(&self, entry: &Entry, variant: Option<&Variant>, probe: bool) -> CallSlot {
        let Some(variant) = variant else { return CallSlot::default() };
        let permit = if entry.may_call() && !probe && !self.is_refused(entry) {
            self.permit(variant, PATIENCE_MAX).await
        } else {
            None
        };
        CallSlot { permit, room: None }
    }

    /// Waits for the slot that the next step of an operation needs. `None` where calls are paused meanwhile, or where
    /// the wait would use up the lease: then others would take the operation for lost. Such a one is tried again later.
    pub async fn slot_for(&self, aggregate: &Aggregate, step: Step, variant: &Variant) -> Option<CallSlot> {
        // The exclusive slot comes first, so that nobody who waits for it has a permit.
        let room = if lost_workers(aggregate, step).is_some() { Some(variant.room.enter().await?) } else { None };
        let permit = match step {
            Step::LookUp { .. } | Step::Undo(_) | Step::Locate(_) => None,
            _ => Some(self.permit(variant, self.patience(aggregate, step)).await?),
        };
        Some(CallSlot { permit, room })
    }

    /// Half of what is left of the operation's lease.
    fn patience(&self, aggregate: &Aggregate, step: Step) -> Duration {
        let (Step::Call(id) | Step::RetryNow(id)) = step else { return PATIENCE_MAX };
        let lease = aggregate.operation(id).and_then(|operation| operation.lease);
        let left = lease.map(|lease| lease.until.duration_since(self.store.clock().now()) / 2);
        left.and_then(|left| Duration::try_from(left).ok()).unwrap_or_default()
    }

    /// Moves into the exclusive slot where the entry, whose step this is, lost more than one worker.
    pub async fn move_if_alone(
        &self,
        entry: &Entry,
        aggregate: &Aggregate,
        step: Step,
        variant: Option<&Variant>,
        slot: &mut CallSlot,
    ) -> Move {
        let Some(variant) = variant.filter(|_| lost_workers(aggregate, step) == Some(entry.id())) else {
            return Move::Stays;
        };
        if slot.is_alone() {
            return Move::Stays;
        }
        // Given back first: whoever has a permit waits for nobody's call.
        let had_permit = slot.permit.take().is_some();
        let Some(room) = variant.room.enter().await else { return Move::Full };
        slot.room = Some(room);
        if had_permit {
            slot.permit = self.permit(variant, PATIENCE_MAX).await;
        }
        Move::Moved
    }
}

impl CallSlot {
    /// Whether it has the exclusive slot of those that lost more than one worker.
    pub fn is_alone(&self) -> bool {
        self.room.is_some()
    }
}

/// The operation that a step calls or asks for, where it lost more than one worker.
fn lost_workers(aggregate: &Aggregate, step: Step) -> Option<Uuid> {
    let (Step::Call(id) | Step::RetryNow(id) | Step::Undo(id) | Step::Locate(id) | Step::LookUp { operation: id, .. }) =
        step
    else {
        return None;
    };
    aggregate.operation(id).filter(|operation| operation.takeovers >= TAKEOVERS_ALONE).map(|operation| operation.id)
}
