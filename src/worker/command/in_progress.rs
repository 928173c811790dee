//! The operations in progress in this process, so that none is executed twice at once, and the queue of each payment's
//! commands.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use uuid::Uuid;

use crate::worker::finished::{Finished, Unfinished};

/// The operations in progress in this process.
#[derive(Debug, Clone, Default)]
pub struct InProgress(Arc<Mutex<HashSet<Uuid>>>);

impl InProgress {
    /// Marks an operation as in progress until the guard is dropped. Returns `None` if it already is.
    pub fn take(&self, id: Uuid) -> Option<InProgressGuard> {
        self.0.lock().insert(id).then(|| InProgressGuard { in_progress: self.clone(), id })
    }

    /// How many operations are in progress.
    pub fn count(&self) -> usize {
        self.0.lock().len()
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
        self.in_progress.0.lock().remove(&self.id);
    }
}

/// Admits the commands of one payment one at a time, in the order in which they arrived at this process.
#[derive(Debug, Clone, Default)]
pub struct PaymentQueue(Arc<Mutex<HashMap<Uuid, Last>>>);

/// The last command in a payment's queue.
#[derive(Debug)]
struct Last {
    number: u64,
    done: Finished,
}

impl PaymentQueue {
    /// Enters the queue behind the payment's last command. Must be called in order of arrival.
    pub fn enter(&self, payment: Uuid) -> Turn {
        let (unfinished, done) = Finished::signal();
        let mut lines = self.0.lock();
        let number = lines.get(&payment).map_or(0, |last| last.number + 1);
        let before = lines.insert(payment, Last { number, done }).map(|last| last.done);
        Turn { order: self.clone(), payment, number, before, _unfinished: unfinished }
    }
}

/// A command's turn in the payment queue. Dropping it admits the next command.
#[derive(Debug)]
pub struct Turn {
    order: PaymentQueue,
    payment: Uuid,
    number: u64,
    before: Option<Finished>,
    _unfinished: Unfinished,
}

impl Turn {
    /// Waits until the previous command's turn has ended.
    pub async fn wait(&mut self) {
        if let Some(before) = self.before.take() {
            before.wait().await;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut lines = self.order.0.lock();
        if lines.get(&self.payment).is_some_and(|last| last.number == self.number) {
            lines.remove(&self.payment);
        }
    }
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
        assert!(order.0.lock().is_empty(), "nothing is kept of payments that nobody waits for");
    }
}
