//! The operations in progress in this process, so that none is executed twice at once, and the queue of each payment's
//! commands.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use uuid::Uuid;

/// The operations in progress in this process.
#[derive(Debug, Clone, Default)]
pub struct InProgress(Arc<Mutex<HashSet<Uuid>>>);

impl InProgress {
    /// Marks an operation as in progress until the guard is dropped. Returns `None` if it already is.
    pub fn take(&self, id: Uuid) -> Option<InProgressGuard> {
        lock(&self.0).insert(id).then(|| InProgressGuard { in_progress: self.clone(), id })
    }

    /// How many operations are in progress.
    pub fn count(&self) -> usize {
        lock(&self.0).len()
    }
}

/// Keeps an operation marked as in progress until it is dropped.
#[derive(Debug)]
pub struct InProgressGuard {
    in_progress: InProgress,
    id: Uuid,
}

impl Drop for InProgressGuard {
    fn drop(&mut self) {
        lock(&self.in_progress.0).remove(&self.id);
    }
}

/// Admits the commands of one payment one at a time, in the order in which they arrived at this process.
#[derive(Debug, Clone, Default)]
pub struct PaymentQueue(Arc<Mutex<HashMap<Uuid, Last>>>);

/// The last command in a payment's queue.
#[derive(Debug)]
struct Last {
    number: u64,
    done: oneshot::Receiver<()>,
}

impl PaymentQueue {
    /// Enters the queue behind the payment's last command. Must be called in order of arrival.
    pub fn enter(&self, payment: Uuid) -> Turn {
        let (sender, done) = oneshot::channel();
        let mut lines = lock(&self.0);
        let number = lines.get(&payment).map_or(0, |last| last.number + 1);
        let before = lines.insert(payment, Last { number, done }).map(|last| last.done);
        Turn { order: self.clone(), payment, number, before, _done: sender }
    }
}

/// A command's turn in the payment queue. Dropping it admits the next command.
#[derive(Debug)]
pub struct Turn {
    order: PaymentQueue,
    payment: Uuid,
    number: u64,
    before: Option<oneshot::Receiver<()>>,
    _done: oneshot::Sender<()>,
}

impl Turn {
    /// Waits until the previous command's turn has ended.
    pub async fn wait(&mut self) {
        if let Some(before) = self.before.take() {
            // Nothing is ever sent: the sender being dropped is the signal.
            before.await.unwrap_or_default();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut lines = lock(&self.order.0);
        if lines.get(&self.payment).is_some_and(|last| last.number == self.number) {
            lines.remove(&self.payment);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these locks; if it did, the map would still be consistent.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_in_progress_only_once() {
        let in_progress = InProgress::default();
        let guard = in_progress.take(Uuid::nil());
        assert!(guard.is_some());
        assert!(in_progress.take(Uuid::nil()).is_none());
        drop(guard);
        assert!(in_progress.take(Uuid::nil()).is_some());
    }

    #[tokio::test]
    async fn commands_of_one_payment_go_one_after_the_other() {
        let order = PaymentQueue::default();
        let (mut first, mut second) = (order.enter(Uuid::nil()), order.enter(Uuid::nil()));
        let mut other = order.enter(Uuid::max());
        first.wait().await;
        other.wait().await;
        {
            let mut waiting = std::pin::pin!(second.wait());
            assert!(futures_util::poll!(&mut waiting).is_pending());
            drop(first);
            assert!(futures_util::poll!(&mut waiting).is_ready());
        }
        drop((second, other));
        assert!(lock(&order.0).is_empty(), "nothing is kept of payments that nobody waits for");
    }
}
