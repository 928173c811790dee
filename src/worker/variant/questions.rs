//! Coalesces look-ups of whole payments, as a `payment.sync` makes them. Only one per payment is in flight. All that
//! arrive meanwhile share the answer to the next one, which is sent after they arrived. So many at once cost few calls.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Mutex as Line;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

/// How long a look-up waits for the one before it. If the gateway is slower, each is sent separately, so that no lease
/// ends while its operation waits.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// When the last look-up of a payment was sent, and its answer.
type Last<T> = Option<(Instant, T)>;

/// Look-ups by payment and the sequence of its last event: once a later event is known, an earlier look-up proves less.
type Lines<T> = HashMap<(Uuid, i64), Weak<Line<Last<T>>>>;

/// The look-ups of the payments of one variant.
#[derive(Debug)]
pub struct Questions<T> {
    lines: Mutex<Lines<T>>,
    wait_max: Duration,
}

impl<T> Questions<T> {
    /// For a variant whose leases outlast a call by `lease_margin`. Up to half of that is spent waiting.
    pub fn within(lease_margin: Duration) -> Questions<T> {
        Questions { lines: Mutex::default(), wait_max: WAIT_MAX.min(lease_margin / 2) }
    }
}

impl<T: Clone> Questions<T> {
    /// Sends a look-up, or takes the answer of one that was sent since this one arrived. Returns the answer and whether
    /// this look-up was sent.
    pub async fn ask(&self, payment: Uuid, sequence: i64, question: impl Future<Output = T>) -> (T, bool) {
        let came = Instant::now();
        let line = self.line((payment, sequence));
        let Ok(mut last) = timeout(self.wait_max, line.lock()).await else {
            return (question.await, true);
        };
        if let Some((_, answer)) = last.as_ref().filter(|(begun, _)| *begun > came) {
            return (answer.clone(), false);
        }
        let begun = Instant::now();
        let answer = question.await;
        *last = Some((begun, answer.clone()));
        (answer, true)
    }

    fn line(&self, key: (Uuid, i64)) -> Arc<Line<Last<T>>> {
        let mut lines = self.lines.lock();
        if let Some(line) = lines.get(&key).and_then(Weak::upgrade) {
            return line;
        }
        lines.retain(|_, line| line.strong_count() > 0);
        let line = Arc::new(Line::new(None));
        lines.insert(key, Arc::downgrade(&line));
        line
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;
    use tokio::time::sleep;

    use super::*;

    /// A look-up that takes this long, and is counted when it is sent.
    async fn question(asked: &AtomicUsize, takes: Duration) {
        asked.fetch_add(1, Ordering::Relaxed);
        sleep(takes).await;
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_come_during_a_question_share_the_next() {
        let (questions, asked) = (Questions::within(Duration::from_secs(5)), AtomicUsize::new(0));
        let takes = Duration::from_millis(100);
        let answers = join_all((0..300_u64).map(|number| {
            let (questions, asked) = (&questions, &asked);
            async move {
                // All but the first arrive while that one is in flight.
                sleep(Duration::from_millis(number.min(50))).await;
                questions.ask(Uuid::nil(), 1, question(asked, takes)).await
            }
        }));
        let own = answers.await.into_iter().filter(|(_, is_own)| *is_own).count();
        assert_eq!((own, asked.load(Ordering::Relaxed)), (2, 2));
        let ((), is_own) = questions.ask(Uuid::nil(), 1, question(&asked, takes)).await;
        assert!(is_own, "no answer of before counts");
    }

    #[tokio::test(start_paused = true)]
    async fn other_payments_and_later_states_ask_for_themselves_as_does_who_would_wait_for_long() {
        let (questions, asked) = (Questions::within(Duration::from_secs(5)), AtomicUsize::new(0));
        let slow = Duration::from_secs(30);
        let keys = [(1, 1), (2, 1), (1, 2), (1, 1), (1, 1)];
        let begun = Instant::now();
        let ask = |(payment, sequence)| questions.ask(Uuid::from_u128(payment), sequence, question(&asked, slow));
        let asking = keys.map(ask);
        join_all(asking).await;
        assert_eq!(asked.load(Ordering::Relaxed), 5);
        assert!(begun.elapsed() <= slow + WAIT_MAX, "{:?}", begun.elapsed());
    }
}
