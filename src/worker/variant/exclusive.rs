//! The exclusive slot of a variant: operations that lost more than one worker run one at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::timeout;

/// How long an operation waits for the slot before it is given back. Meanwhile it occupies a prefetched message or a
/// claimed operation.
const TIMEOUT: Duration = Duration::from_millis(500);

/// The exclusive slot of a variant.
#[derive(Debug, Clone, Default)]
pub struct Exclusive(Arc<Mutex<()>>);

impl Exclusive {
    /// Waits for the slot; `None` after [`TIMEOUT`].
    pub(crate) async fn enter(&self) -> Option<OwnedMutexGuard<()>> {
        timeout(TIMEOUT, Arc::clone(&self.0).lock_owned()).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_operation_has_the_slot_and_nobody_waits_for_long() {
        let slot = Exclusive::default();
        let first = slot.enter().await;
        assert!(first.is_some());
        assert!(slot.enter().await.is_none());
        drop(first);
        assert!(slot.enter().await.is_some());
        assert!(Exclusive::default().enter().await.is_some(), "another variant has a slot of its own");
    }
}
