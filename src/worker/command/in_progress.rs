//! What this process is at: operations, so that none is carried out twice at once, and the order of each payment's
//! commands.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use uuid::Uuid;

/// Operations that this process is at.
#[derive(Debug, Clone, Default)]
pub struct InProgress(Arc<Mutex<HashSet<Uuid>>>);

impl InProgress {
    /// Takes an operation until the guard is dropped; nothing where this process is at it already.
    pub fn take(&self, id: Uuid) -> Option<InProgressGuard> {
        lock(&self.0).insert(id).then(|| InProgressGuard { held: self.clone(), id })
    }

    /// How many operations this process is at.
    pub fn count(&self) -> usize {
        lock(&self.0).len()
    }
}

/// An operation that this process is at.
#[derive(Debug)]
pub struct InProgressGuard {
    held: InProgress,
    id: Uuid,
}

impl Drop for InProgressGuard {
    fn drop(&mut self) {
        lock(&self.held.0).remove(&self.id);
    }
}

/// Lets the commands of one payment in, one after the other, in the order in which they came to this process.
#[derive(Debug, Clone, Default)]
pub struct PaymentQueue(Arc<Mutex<HashMap<Uuid, Last>>>);

/// The last command of a payment's line.
#[derive(Debug)]
struct Last {
    number: u64,
    done: oneshot::Receiver<()>,
}

impl PaymentQueue {
    /// Lines up behind the payment's last command; must be called in the order of arrival.
    pub fn enter(&self, payment: Uuid) -> Turn {
        let (sender, done) = oneshot::channel();
        let mut lines = lock(&self.0);
        let number = lines.get(&payment).map_or(0, |last| last.number + 1);
        let before = lines.insert(payment, Last { number, done }).map(|last| last.done);
        Turn { order: self.clone(), payment, number, before, _done: sender }
    }
}

/// A place in a payment's line; dropped, it lets the next one in.
#[derive(Debug)]
pub struct Turn {
    order: PaymentQueue,
    payment: Uuid,
    number: u64,
    before: Option<oneshot::Receiver<()>>,
    _done: oneshot::Sender<()>,
}

impl Turn {
    /// Waits for the one before.
    pub async fn wait(&mut self) {
        if let Some(before) = self.before.take() {
            // It never sends: it is dropped, which is the sign.
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
    // Nothing panics while it holds one of these; and if it did, the map is still whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_held_once() {
        let held = InProgress::default();
        let guard = held.take(Uuid::nil());
        assert!(guard.is_some());
        assert!(held.take(Uuid::nil()).is_none());
        drop(guard);
        assert!(held.take(Uuid::nil()).is_some());
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
