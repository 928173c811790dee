//! A place among the calls in flight: within the variant's limits, and beside the others or alone.
//!
//! It is taken before an operation is begun, so that while one runs alone nothing else is stored as being called: if it
//! takes the worker down once more, only it was at the gateway.

use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, RwLockReadGuard, RwLockWriteGuard};

use super::begin::Entry;
use super::engine::{Engine, PATIENCE_MAX};
use super::variant::Variant;
use crate::payment::machine::{Aggregate, Step, TAKEOVERS_ALONE};

/// A place among the calls in flight, until it is dropped.
#[derive(Debug, Default)]
pub struct Place<'a> {
    // Always taken in this order, so that nobody who has a room waits for a permit.
    _permit: Option<OwnedSemaphorePermit>,
    room: Option<Room<'a>>,
}

#[derive(Debug)]
enum Room<'a> {
    Shared { _guard: RwLockReadGuard<'a, ()> },
    Own { _guard: RwLockWriteGuard<'a, ()> },
}

impl Engine {
    /// Waits for the place that an entry needs before it is begun. Where calls are held back it is one without a permit.
    pub async fn place(&self, entry: &Entry, variant: Option<&Variant>, probe: bool) -> Place<'_> {
        let Some(variant) = variant else { return Place::default() };
        let permit = if entry.may_call() && !probe { self.permit(variant, PATIENCE_MAX).await } else { None };
        Place { _permit: permit, room: Some(self.shared_room().await) }
    }

    /// Waits for the place that the next step of an operation needs. Nothing where calls are held back meanwhile, or where
    /// the wait would use up the lease: then others would take the operation for lost. Such a one is tried again later.
    pub async fn place_for(&self, aggregate: &Aggregate, step: Step, variant: &Variant) -> Option<Place<'_>> {
        let permit = match step {
            Step::LookUp { .. } | Step::Locate(_) => None,
            _ => Some(self.permit(variant, self.patience(aggregate, step)).await?),
        };
        let mut place = Place { _permit: permit, room: Some(self.shared_room().await) };
        self.move_if_alone(aggregate, step, &mut place).await;
        Some(place)
    }

    /// Half of what is left of the operation's lease.
    fn patience(&self, aggregate: &Aggregate, step: Step) -> Duration {
        let (Step::Call(id) | Step::RetryNow(id)) = step else { return PATIENCE_MAX };
        let lease = aggregate.operation(id).and_then(|operation| operation.lease);
        let left = lease.map(|lease| lease.until.duration_since(self.store.clock().now()) / 2);
        left.and_then(|left| Duration::try_from(left).ok()).unwrap_or_default()
    }

    /// Moves into a room of its own where the step's operation took workers down before; tells whether it waited for one,
    /// so that what was decided meanwhile may no longer hold.
    pub async fn move_if_alone<'a>(&'a self, aggregate: &Aggregate, step: Step, place: &mut Place<'a>) -> bool {
        let (Step::Call(id) | Step::RetryNow(id) | Step::Locate(id) | Step::LookUp { operation: id, .. }) = step else {
            return false;
        };
        let alone = aggregate.operation(id).is_some_and(|operation| operation.takeovers >= TAKEOVERS_ALONE);
        if !alone || place.is_alone() {
            return false;
        }
        // Given back first: the room of its own is free when all shared ones are.
        place.room = None;
        place.room = Some(Room::Own { _guard: self.alone.write().await });
        true
    }

    async fn shared_room(&self) -> Room<'_> {
        Room::Shared { _guard: self.alone.read().await }
    }
}

impl Place<'_> {
    /// Whether nothing else is called on this replica.
    pub fn is_alone(&self) -> bool {
        matches!(self.room, Some(Room::Own { .. }))
    }
}
