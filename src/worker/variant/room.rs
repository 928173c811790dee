//! The room of operations that lost more than one worker: one of a variant at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::timeout;

/// How long one waits for the room of those that lost workers before it is given back: meanwhile it takes up the room of a
/// message, or of due work.
const ROOM_PATIENCE: Duration = Duration::from_millis(500);

/// The room of a variant's operations that lost more than one worker: one at a time.
#[derive(Debug, Clone, Default)]
pub struct Room(Arc<Mutex<()>>);

impl Room {
    /// Waits a moment for it.
    pub(crate) async fn enter(&self) -> Option<OwnedMutexGuard<()>> {
        timeout(ROOM_PATIENCE, Arc::clone(&self.0).lock_owned()).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_at_a_time_is_in_the_room_and_nobody_waits_for_long() {
        let room = Room::default();
        let first = room.enter().await;
        assert!(first.is_some());
        assert!(room.enter().await.is_none());
        drop(first);
        assert!(room.enter().await.is_some());
        assert!(Room::default().enter().await.is_some(), "another variant has a room of its own");
    }
}
