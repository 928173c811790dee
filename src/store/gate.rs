//! Commits while the server does not answer them: one at a time, until one is answered. Each that is given up leaves a
//! connection behind on which the server may go on waiting, for a standby that is away, say. If every lane went on trying,
//! these would use up the connections that the server has.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

/// Where commits pass.
#[derive(Debug)]
pub(super) struct Gate {
    is_narrow: AtomicBool,
    probe: Semaphore,
}

impl Default for Gate {
    fn default() -> Gate {
        Gate { is_narrow: AtomicBool::new(false), probe: Semaphore::new(1) }
    }
}

impl Gate {
    /// Waits until no other commit is under way, unless commits are answered.
    pub async fn enter(&self) -> Option<SemaphorePermit<'_>> {
        if self.is_narrow.load(Ordering::Relaxed) { self.probe.acquire().await.ok() } else { None }
    }

    /// A commit was answered, whatever the answer is, or was given up.
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
