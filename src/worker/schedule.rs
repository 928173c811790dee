//! What is due: retries, waiting commands whose turn came, look-ups, and operations of lost workers. Claimed by index, only
//! as much as there is room for, so that a million due rows starve no new command, nor new commands them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::command::engine::Engine;
use super::command::entry::Entry;
use super::command::stopped::Stopped;
use super::variant::Variant;
use crate::error_chain::chain;
use crate::spans::Span;
use crate::store::connect::VISIBLE_FOR_SURE;
use crate::store::error::StoreError;
use crate::store::lease::Due;

/// The most that is claimed at once.
const CLAIM_MAX: usize = 256;
/// Out of how much due work a probe is chosen where the first one's payment has failed as a probe before.
const PROBE_CHOICE: usize = 32;
/// How far back a claim reads beyond the last one. What was due before that could be seen by then and was claimed; its
/// dead index entries are skipped.
const LOOK_BACK: SignedDuration = SignedDuration::from_secs(VISIBLE_FOR_SURE.as_secs().cast_signed());
/// When what could not be done now is due again.
const GIVE_BACK: Duration = Duration::from_secs(1);
/// How many claims read from where the last one ended before one reads everything again.
const FULL_EVERY: u32 = 60;

/// Runs what is due of one variant.
pub struct Schedule {
    engine: Arc<Engine>,
    variant: Arc<Variant>,
    tasks: TaskTracker,
    poll: Duration,
    under_way: Arc<AtomicUsize>,
    finished: Arc<Notify>,
}

impl Schedule {
    /// The due work of a variant, looked for at least every `poll`.
    pub fn new(engine: Arc<Engine>, variant: Arc<Variant>, tasks: TaskTracker, poll: Duration) -> Schedule {
        Schedule { engine, variant, tasks, poll, under_way: Arc::default(), finished: Arc::default() }
    }

    /// Looks for due work until the worker drains.
    pub async fn run(self) {
        let mut since = Timestamp::UNIX_EPOCH;
        let mut claims: u32 = 0;
        let mut more = false;
        while !self.engine.draining.is_cancelled() {
            let woken = self.engine.wake.notified();
            let finished = self.finished.notified();
            // Half of the calls in flight may be of due work: each finds its place in the same line as new commands.
            let share = (self.variant.concurrency / 2).clamp(1, CLAIM_MAX);
            let room = share.saturating_sub(self.under_way.load(Ordering::Relaxed));
            // While more is due than there is room for, some are claimed at a time, not one by one.
            if room >= share.div_ceil(4) && self.engine.hold(&self.variant, false).is_none() {
                if claims.is_multiple_of(FULL_EVERY) {
                    since = Timestamp::UNIX_EPOCH;
                }
                claims = claims.wrapping_add(1);
                // One that failed says nothing of what is due: the next reads from the same place.
                if let Some(due) = self.engine.claim_since(&self.variant, since, room).await {
                    more = due.len() == room;
                    since = next_since(&due, room, self.engine.store.clock().now());
                    self.start(due);
                }
            }
            tokio::select! {
                () = woken => {}
                () = finished, if more => {}
                () = tokio::time::sleep(jittered(self.poll)) => {}
                () = self.engine.draining.cancelled() => return,
            }
        }
    }

    fn start(&self, due: Vec<Due>) {
        for due in due {
            let (engine, variant) = (Arc::clone(&self.engine), Arc::clone(&self.variant));
            let slot = UnderWay::new(&self.under_way, &self.finished);
            self.tasks.spawn(async move {
                let _slot = slot;
                if let Err(stopped) = engine.carry_out_due(due, variant, false).await {
                    debug!(operation = %due.id, ?stopped, "due work was not done");
                }
            });
        }
    }
}

/// One of the operations under way, until its task ends, whichever way.
struct UnderWay {
    count: Arc<AtomicUsize>,
    finished: Arc<Notify>,
}

impl UnderWay {
    fn new(count: &Arc<AtomicUsize>, finished: &Arc<Notify>) -> UnderWay {
        count.fetch_add(1, Ordering::Relaxed);
        UnderWay { count: Arc::clone(count), finished: Arc::clone(finished) }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.finished.notify_one();
    }
}

/// From where the next claim reads: where this one ended if it was full, else a little before now.
fn next_since(due: &[Due], room: usize, now: Timestamp) -> Timestamp {
    let last = due.iter().map(|due| due.due_at).max().filter(|_| due.len() == room);
    last.unwrap_or_else(|| now.checked_sub(LOOK_BACK).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// The longest due one of a payment whose probe did not fail, or else the first one; and what is left.
fn choose(first: Due, others: Vec<Due>, has_failed: impl Fn(Uuid) -> bool) -> (Due, Vec<Due>) {
    let fresh = others.iter().filter(|due| !has_failed(due.payment_id)).min_by_key(|due| due.due_at);
    let chosen = fresh.copied().unwrap_or(first);
    let left = others.into_iter().chain([first]).filter(|due| *due != chosen).collect();
    (chosen, left)
}

/// Replicas that started together do not ask together.
fn jittered(poll: Duration) -> Duration {
    let part = f64::from(Timestamp::now().subsec_microsecond()) / 1_000_000.0;
    poll.mul_f64(0.75 + part / 2.0)
}

impl Engine {
    /// Claims due operations of a variant.
    pub async fn claim(&self, variant: &Variant, limit: usize) -> Vec<Due> {
        self.claim_since(variant, Timestamp::UNIX_EPOCH, limit).await.unwrap_or_default()
    }

    async fn claim_since(&self, variant: &Variant, since: Timestamp, limit: usize) -> Option<Vec<Due>> {
        // Due again should this worker be lost before it has stored what it does with them.
        let again = variant.rules.lease.saturating_mul(2).max(Duration::from_secs(30));
        match self.store.claim_due(&variant.name, since, limit, again).await {
            Ok(due) => Some(due),
            Err(error) => {
                warn!(error = chain(&error), variant = variant.name, "due work cannot be claimed; trying again");
                None
            }
        }
    }

    /// Claims one due operation for a probe: of a payment whose probe did not fail yet, where one is due.
    pub async fn claim_for_probe(&self, variant: &Variant) -> Option<Due> {
        let first = self.claim(variant, 1).await.into_iter().next()?;
        if !variant.breaker.failed_a_probe(first.payment_id) {
            return Some(first);
        }
        let others = self.claim(variant, PROBE_CHOICE).await;
        let (chosen, left) = choose(first, others, |payment| variant.breaker.failed_a_probe(payment));
        for due in &left {
            self.give_back(due, Duration::ZERO).await;
        }
        Some(chosen)
    }

    /// Carries out what was claimed. It is given back where nothing was done with it: this process is still at its last
    /// step, another's lease is live by our estimate of the clock, operations that were taken over more than once wait for
    /// each other, or the worker ends.
    pub async fn carry_out_due(&self, due: Due, variant: Arc<Variant>, probe: bool) -> Result<(), Stopped> {
        let entry = Entry::Due { payment_id: due.payment_id, id: due.id };
        let done = self.execute(entry, Some(variant), None, probe, Span::default()).await;
        let pause = match done {
            Ok(false) => Some(GIVE_BACK),
            Err(Stopped::Ending) => Some(Duration::ZERO),
            Ok(true) | Err(Stopped::Refused | Stopped::NotAuthorized(_) | Stopped::Gone) => None,
        };
        if let Some(pause) = pause {
            self.give_back(&due, pause).await;
        }
        done.map(|_| ())
    }

    /// Gives back what was claimed and nothing was done with.
    pub async fn give_back(&self, due: &Due, pause: Duration) {
        if let Err(error) = self.store.give_back(due, pause).await {
            info!(error = chain(&error), operation = %due.id, "due work is not given back; it is due again later");
        }
    }

    /// Gives calls that have been under way for longer than `every` a due time, so that those of lost workers are taken
    /// over. Goes on until the worker drains.
    pub async fn sweep(self: Arc<Self>, every: Duration) {
        while self.draining.run_until_cancelled(tokio::time::sleep(jittered(every))).await.is_some() {
            if let Err(error) = self.sweep_calls(every).await {
                warn!(error = chain(&error), "the sweep for lost workers failed; it is made again");
            }
        }
    }

    async fn sweep_calls(&self, age: Duration) -> Result<(), StoreError> {
        while !self.draining.is_cancelled() {
            let first = self.store.sweep(age).await?;
            let late = self.store.sweep_late().await?;
            let lost = first.lost + late.lost;
            if lost > 0 {
                info!(operations = lost, "operations of lost workers are taken over");
                self.wake.notify_waiters();
            }
            if !first.more && !late.more {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_of_a_payment_whose_probe_did_not_fail_where_one_is_due() {
        let due = |number: u128, second: i64| Due {
            payment_id: Uuid::from_u128(number),
            id: Uuid::from_u128(100 + number),
            due_at: Timestamp::from_second(second).unwrap(),
            again_at: Timestamp::from_second(60).unwrap(),
        };
        let (ill, also_ill, later, sooner) = (due(1, 1), due(2, 2), due(3, 9), due(4, 5));
        let has_failed = |payment: Uuid| payment <= Uuid::from_u128(2);
        let (chosen, left) = choose(ill, vec![also_ill, later, sooner], has_failed);
        assert_eq!((chosen, left), (sooner, vec![also_ill, later, ill]));
        assert_eq!(choose(ill, vec![also_ill], has_failed), (ill, vec![also_ill]));
        assert_eq!(choose(ill, Vec::new(), has_failed), (ill, Vec::new()), "alone it probes again");
    }

    #[test]
    fn the_jitter_stays_near_the_poll() {
        let poll = Duration::from_secs(1);
        for _ in 0..1000 {
            let pause = jittered(poll);
            assert!(pause >= poll.mul_f64(0.74) && pause <= poll.mul_f64(1.26), "{pause:?}");
        }
    }
}
