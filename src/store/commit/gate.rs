//! Limits commits to one at a time while the server does not answer them, until one is answered. Each commit that times
//! out leaves behind a connection on which the server may still be waiting, for an absent standby say. If all tasks
//! kept trying, these would use up the server's connections.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

/// The gate that commits pass through.
#[derive(Debug)]
pub(in crate::store) struct Gate {
    is_narrow: AtomicBool,
    probe: Semaphore,
}

impl Default for Gate {
    fn default() -> Gate {
        Gate { is_narrow: AtomicBool::new(false), probe: Semaphore::new(1) }
    }
}

impl Gate {
    /// Waits until no other commit is in flight; returns at once while commits are answered.
    pub async fn enter(&self) -> Option<SemaphorePermit<'_>> {
        if self.is_narrow.load(Ordering::Relaxed) { self.probe.acquire().await.ok() } else { None }
    }

    /// Records whether a commit was answered, whatever the answer, or timed out.
    pub fn note(&self, is_answered: bool) {
        self.is_narrow.store(!is_answered, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn after_one_that_was_not_answered_commits_go_one_by_one_until_one_is() {
        let gate = Gate::default();
        assert!(gate.enter().await.is_none(), "they pass side by side");
        gate.note(false);
        let first = gate.enter().await;
        assert!(first.is_some());
        let mut second = pin!(gate.enter());
        assert!(second.as_mut().now_or_never().is_none(), "the first is under way");
        drop(first);
        assert!(second.await.is_some());
        gate.note(true);
        assert!(gate.enter().await.is_none());
    }
}
