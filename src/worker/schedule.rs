//! Executes due operations: retries, waiting commands whose turn has come, look-ups, and operations of lost workers.
//! They are claimed by index and only as many as there is capacity for, so that a million due rows do not starve new
//! commands, nor new commands them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use strum::IntoEnumIterator;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::command::attempt::Purpose;
use super::command::engine::Engine;
use super::command::entry::{Entry, Execution};
use super::command::stopped::Stopped;
use super::variant::Variant;
use crate::error_chain::chain;
use crate::payment::command::CommandType;
use crate::store::connection::pools::VISIBLE_FOR_SURE;
use crate::store::error::StoreError;
use crate::store::lease::Due;
use crate::telemetry::spans::Span;

/// The maximum number of operations claimed at once.
const CLAIM_MAX: usize = 256;
/// How many due operations a probe is chosen from if the payment of the first one has already failed a probe.
const PROBE_CHOICE: usize = 32;
/// How far before now a claim reads if the previous one got everything. Rows that were due earlier had become visible
/// by then and were claimed; skipping them skips their dead index entries.
const LOOK_BACK: SignedDuration = SignedDuration::from_secs(VISIBLE_FOR_SURE.as_secs().cast_signed());
/// The commands whose operations are claimed of a paused variant: they ask, read or steer, and do not act.
static QUESTIONS: LazyLock<Vec<&str>> =
    LazyLock::new(|| CommandType::iter().filter(|kind| kind.is_inbound()).map(CommandType::as_str).collect());
/// When an operation that could not be executed now is due again.
const GIVE_BACK: Duration = Duration::from_secs(1);
/// After how long a claim reads from the beginning again.
const FULL_EVERY: Duration = Duration::from_secs(60);

/// Executes the due operations of one variant.
pub struct Schedule {
    engine: Arc<Engine>,
    variant: Arc<Variant>,
    tasks: TaskTracker,
    poll: Duration,
    under_way: Arc<AtomicUsize>,
    finished: Arc<Notify>,
}

impl Schedule {
    /// A schedule for a variant that polls at least every `poll`.
    pub fn new(engine: Arc<Engine>, variant: Arc<Variant>, tasks: TaskTracker, poll: Duration) -> Schedule {
        Schedule { engine, variant, tasks, poll, under_way: Arc::default(), finished: Arc::default() }
    }

    /// Executes due operations until the worker drains.
    pub async fn run(self) {
        let mut since = Timestamp::UNIX_EPOCH;
        let mut full_at: Option<Instant> = None;
        let mut was_paused = false;
        let mut more = false;
        while !self.engine.draining.is_cancelled() {
            let woken = self.engine.wake.notified();
            let finished = self.finished.notified();
            // Due operations may use half of the concurrency. They and new commands wait for call slots in the same
            // queue.
            let share = (self.variant.concurrency / 2).clamp(1, CLAIM_MAX);
            let room = share.saturating_sub(self.under_way.load(Ordering::Relaxed));
            // If more is due than there is capacity for, claim in batches rather than one by one.
            if room >= share.div_ceil(4) && self.engine.questions_paused_for(&self.variant).is_none() {
                // A claim during a pause passed over what would have acted.
                let is_paused = self.variant.pause.is_paused(self.engine.store.clock().now());
                let has_resumed = std::mem::replace(&mut was_paused, is_paused) && !is_paused;
                if has_resumed || full_at.is_none_or(|at| at.elapsed() >= FULL_EVERY) {
                    since = Timestamp::UNIX_EPOCH;
                    full_at = Some(Instant::now());
                }
                // A failed claim says nothing about what is due: read from the same place again.
                if let Some(due) = self.engine.claim_since(&self.variant, since, room, is_paused).await {
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
                if let Err(stopped) = engine.carry_out_due(due, variant, Purpose::Work).await {
                    debug!(operation = %due.id, ?stopped, "due operation not carried out");
                }
            });
        }
    }
}

/// Counts an operation as under way until its task ends, for whatever reason.
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

/// Where the next claim starts reading: where this one ended if it was full, else a little before now.
fn next_since(due: &[Due], room: usize, now: Timestamp) -> Timestamp {
    let last = due.iter().map(|due| due.due_at).max().filter(|_| due.len() == room);
    last.unwrap_or_else(|| now.checked_sub(LOOK_BACK).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// Chooses the operation that is due longest among payments that have not failed a probe, else `first`. Returns it and
/// the others.
fn choose(first: Due, others: Vec<Due>, has_failed: impl Fn(Uuid) -> bool) -> (Due, Vec<Due>) {
    let fresh = others.iter().filter(|due| !has_failed(due.payment_id)).min_by_key(|due| due.due_at);
    let chosen = fresh.copied().unwrap_or(first);
    let left = others.into_iter().chain([first]).filter(|due| *due != chosen).collect();
    (chosen, left)
}

/// Adds jitter, so that replicas that started together do not poll together.
fn jittered(poll: Duration) -> Duration {
    let part = f64::from(Timestamp::now().subsec_microsecond()) / 1_000_000.0;
    poll.mul_f64(0.75 + part / 2.0)
}

impl Engine {
    /// Claims due operations of a variant.
    pub async fn claim(&self, variant: &Variant, limit: usize) -> Vec<Due> {
        let is_paused = variant.pause.is_paused(self.store.clock().now());
        self.claim_since(variant, Timestamp::UNIX_EPOCH, limit, is_paused).await.unwrap_or_default()
    }

    async fn claim_since(
        &self,
        variant: &Variant,
        since: Timestamp,
        limit: usize,
        is_paused: bool,
    ) -> Option<Vec<Due>> {
        // When they are due again if this worker is lost before it has stored what it does with them.
        let again = variant.rules.lease.saturating_mul(2).max(Duration::from_secs(30));
        let only = is_paused.then_some(QUESTIONS.as_slice());
        match self.store.claim_due(&variant.name, since, limit, again, only).await {
            Ok(due) => Some(due),
            Err(error) => {
                warn!(error = chain(&error), variant = variant.name, "cannot claim due operations; retrying");
                None
            }
        }
    }

    /// Claims one due operation for a probe, preferably of a payment that has not failed a probe yet.
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

    /// Executes a claimed operation. It is given back if nothing was done with it: this process is still executing its
    /// previous step, another worker's lease is live by our estimate of the clock, another operation has the exclusive
    /// slot, or the worker is shutting down.
    pub async fn carry_out_due(&self, due: Due, variant: Arc<Variant>, purpose: Purpose) -> Result<(), Stopped> {
        let entry = Entry::Due { payment_id: due.payment_id, id: due.id };
        let span = Span::default();
        let done = self.execute(Execution { entry, variant: Some(variant), turn: None, purpose, span }).await;
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

    /// Gives back a claimed operation that was not executed.
    pub async fn give_back(&self, due: &Due, pause: Duration) {
        if let Err(error) = self.store.give_back(due, pause).await {
            info!(
                error = chain(&error),
                operation = %due.id,
                "cannot give a due operation back; it will become due again later"
            );
        }
    }

    /// Gives calls that have been in progress for longer than `every` a due time, so that those of lost workers are
    /// taken over. Repeats until the worker drains.
    pub async fn sweep(self: Arc<Self>, every: Duration) {
        while self.draining.run_until_cancelled(tokio::time::sleep(jittered(every))).await.is_some() {
            if let Err(error) = self.sweep_calls(every).await {
                warn!(error = chain(&error), "the sweep for lost workers failed; retrying");
            }
        }
    }

    async fn sweep_calls(&self, age: Duration) -> Result<(), StoreError> {
        while !self.draining.is_cancelled() {
            let first = self.store.sweep(age).await?;
            let late = self.store.sweep_late().await?;
            let lost = first.lost + late.lost;
            if lost > 0 {
                info!(operations = lost, "taking over operations of lost workers");
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
