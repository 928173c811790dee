//! Gathers commits while the one before is under way, and for a moment after it: under load they share a statement, on an
//! idle worker each goes at once. Only where the one before takes unusually long, for a row that somebody else has locked,
//! do others pass it.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{Mutex, Notify, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tracing::{error, warn};
use uuid::Uuid;

use super::commit::{Stored, Unit, Wait, commit};
use super::connect::Store;
use super::connection::Connection;
use super::error::StoreError;
use crate::error_chain::chain;

/// How many payments one statement stores.
const BATCH_MAX: usize = 128;

/// How long a statement is waited for before the next one goes beside it. Statements beside each other carry less each, and
/// every one has its price whatever it carries: at half the load that two cores bear, that took a third of PostgreSQL's
/// time.
const USUAL: Duration = Duration::from_millis(20);

/// How long after one statement began the next one does at the earliest, where commits come side by side. Statement and flush
/// to the disk cost the database what several payments in it cost, and eight hundred of them would begin in a second.
const PACE: Duration = Duration::from_millis(4);

/// How long a payment is tried beside the lanes since it was last found locked.
const LOCKED_FOR: Duration = Duration::from_secs(30);

/// What became of one commit; the unit comes back with it.
#[derive(Debug)]
pub enum Committed {
    /// It is stored.
    Stored(Stored),
    /// Another writer was first: load and decide again.
    Conflict,
    /// The database will never take it.
    Refused(String),
    /// Nobody knows whether it was stored: load and look.
    Unknown,
}

struct Job {
    unit: Unit,
    reply: oneshot::Sender<(Unit, Committed)>,
}

/// Commits units in batches, on as many connections as it has lanes.
#[derive(Debug, Clone)]
pub struct Committer {
    sender: mpsc::UnboundedSender<Job>,
}

impl Committer {
    /// Starts the lanes; they end when the last `Committer` is dropped.
    pub fn spawn(store: Arc<Store>, lanes: usize) -> Committer {
        // Unbounded, for what is in flight is bounded by the prefetch of the queues.
        let (sender, receiver) = mpsc::unbounded_channel();
        let waiting = Mutex::new(Waiting { jobs: receiver, not_before: Instant::now() });
        let queue = Arc::new(Queue {
            waiting,
            at_work: AtomicUsize::new(0),
            done: Notify::new(),
            locked: Locked::default(),
            beside: Semaphore::new(1),
        });
        for _ in 0..lanes {
            tokio::spawn(run_lane(Arc::clone(&store), Arc::clone(&queue)));
        }
        Committer { sender }
    }

    /// Commits one unit; nothing where the worker ends.
    pub async fn commit(&self, unit: Unit) -> Option<(Unit, Committed)> {
        let (reply, answer) = oneshot::channel();
        self.sender.send(Job { unit, reply }).ok()?;
        answer.await.ok()
    }
}

/// What the lanes share.
struct Queue {
    waiting: Mutex<Waiting>,
    /// How many lanes have a statement under way.
    at_work: AtomicUsize,
    /// One of them is through.
    done: Notify,
    /// Payments whose rows somebody else has locked.
    locked: Locked,
    /// One of these is tried at a time, beside the lanes: it has a connection of its own.
    beside: Semaphore,
}

/// What waits for a lane.
struct Waiting {
    jobs: mpsc::UnboundedReceiver<Job>,
    /// When the next statement may begin, unless it is full.
    not_before: Instant,
}

impl Queue {
    /// The next jobs; none where there will be no more. One lane gathers at a time.
    async fn next(&self) -> Vec<Job> {
        let mut waiting = self.waiting.lock().await;
        let mut jobs = Vec::new();
        if waiting.jobs.recv_many(&mut jobs, BATCH_MAX).await == 0 {
            return jobs;
        }
        let beside = Instant::now() + USUAL;
        while jobs.len() < BATCH_MAX {
            let is_idle = self.at_work.load(Ordering::Acquire) == 0;
            let begin = if is_idle { waiting.not_before } else { beside };
            if begin <= Instant::now() {
                break;
            }
            let room = BATCH_MAX - jobs.len();
            tokio::select! {
                more = waiting.jobs.recv_many(&mut jobs, room) => if more == 0 { break },
                () = self.done.notified() => {}
                () = sleep_until(begin) => {}
            }
        }
        let pace = if jobs.len() > 1 { PACE } else { Duration::ZERO };
        waiting.not_before = Instant::now() + pace;
        jobs
    }
}

/// A lane has a statement under way, in whichever way that ends.
struct AtWork<'a>(&'a Queue);

impl AtWork<'_> {
    fn begin(queue: &Queue) -> AtWork<'_> {
        queue.at_work.fetch_add(1, Ordering::AcqRel);
        AtWork(queue)
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.at_work.fetch_sub(1, Ordering::AcqRel);
        self.0.done.notify_one();
    }
}

/// Payments whose rows somebody else has locked, and when that was seen last.
#[derive(Debug, Default)]
struct Locked(StdMutex<HashMap<Uuid, Instant>>);

impl Locked {
    fn has(&self, unit: &Unit) -> bool {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&unit.aggregate.payment_id()).is_some_and(|at| at.elapsed() < LOCKED_FOR)
    }

    fn note(&self, unit: &Unit) {
        let payment = unit.aggregate.payment_id();
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, at| at.elapsed() < LOCKED_FOR);
        if seen.insert(payment, Instant::now()).is_none() {
            warn!(%payment, "somebody has locked a payment's rows; it is tried alone until they are free");
        }
    }

    /// These were stored: nobody has them locked any more.
    fn forget(&self, units: &[Unit]) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.is_empty() {
            return;
        }
        for unit in units {
            seen.remove(&unit.aggregate.payment_id());
        }
    }
}

/// Tries a payment alone that was found locked. Briefly: it comes again, and others wait for the same connection.
async fn commit_beside(store: Arc<Store>, queue: Arc<Queue>, job: Job) {
    let Ok(_permit) = queue.beside.acquire().await else { return };
    commit_round(&store, vec![job], &queue.locked, Wait::Briefly).await;
}

async fn run_lane(store: Arc<Store>, queue: Arc<Queue>) {
    loop {
        let jobs = queue.next().await;
        if jobs.is_empty() {
            return;
        }
        // They are tried alone, so that nobody else waits for their locks.
        let (locked, jobs): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|job| queue.locked.has(&job.unit));
        for job in locked {
            tokio::spawn(commit_beside(Arc::clone(&store), Arc::clone(&queue), job));
        }
        let _at_work = AtWork::begin(&queue);
        for round in one_of_each_payment(jobs) {
            let under_way = store.progress().begin(Instant::now());
            if commit_round(&store, round, &queue.locked, Wait::Usual).await {
                under_way.stored(Instant::now());
            }
        }
    }
}

/// Splits jobs into rounds in which no payment occurs twice: one statement changes a row once.
fn one_of_each_payment(jobs: Vec<Job>) -> Vec<Vec<Job>> {
    let mut rounds = Vec::new();
    let mut rest = jobs;
    while !rest.is_empty() {
        let mut seen = HashSet::new();
        let (mut round, later): (Vec<Job>, Vec<Job>) =
            rest.into_iter().partition(|job| seen.insert(job.unit.aggregate.payment_id()));
        // Sorted, so that two replicas lock rows in the same order.
        round.sort_by_key(|job| job.unit.aggregate.payment_id());
        rounds.push(round);
        rest = later;
    }
    rounds
}

/// Whether it has stored anything.
async fn commit_round(store: &Store, round: Vec<Job>, locked: &Locked, wait: Wait) -> bool {
    let (mut units, replies): (Vec<Unit>, Vec<_>) = round.into_iter().map(|job| (job.unit, job.reply)).unzip();
    let _probe = store.gate().enter().await;
    let outcomes = match store.hot_client().await {
        Ok(client) => {
            let outcomes = commit_or_halve(&client, &mut units, locked, wait).await;
            store.gate().note(!outcomes.iter().any(|outcome| matches!(outcome, Committed::Unknown)));
            outcomes
        }
        Err(error) => {
            warn!(error = chain(&error), "no database connection for a commit");
            units.iter().map(|_| Committed::Conflict).collect()
        }
    };
    let stored = outcomes.iter().any(|outcome| matches!(outcome, Committed::Stored(_)));
    for ((unit, outcome), reply) in units.into_iter().zip(outcomes).zip(replies) {
        if reply.send((unit, outcome)).is_err() {
            // Whoever waited was cancelled with the worker; what is stored is stored.
            tracing::debug!("a commit's answer came after its task had ended");
        }
    }
    stored
}

/// Commits all; where the database refuses, in halves, so that one bad row does not fail the others. Nor does one that
/// somebody has locked: the halves wait only briefly, and the payments that are found locked are tried alone from then on.
fn commit_or_halve<'a>(
    client: &'a Connection,
    units: &'a mut [Unit],
    locked: &'a Locked,
    wait: Wait,
) -> BoxFuture<'a, Vec<Committed>> {
    Box::pin(async move {
        match commit(client, units, wait).await {
            Ok(stored) => {
                locked.forget(units);
                stored.into_iter().map(outcome).collect()
            }
            Err(error @ (StoreError::Conflict(_) | StoreError::Refused(_))) if units.len() > 1 => {
                let wait = if error.is_locked() { Wait::Briefly } else { wait };
                let (left, right) = units.split_at_mut(units.len() / 2);
                let mut outcomes = commit_or_halve(client, left, locked, wait).await;
                outcomes.extend(commit_or_halve(client, right, locked, wait).await);
                outcomes
            }
            Err(error @ StoreError::Conflict(_)) => {
                if error.is_locked() {
                    units.iter().for_each(|unit| locked.note(unit));
                }
                vec![Committed::Conflict]
            }
            Err(error @ StoreError::Refused(_)) => {
                error!(error = chain(&error), "the database refuses a command's data");
                vec![Committed::Refused(chain(&error))]
            }
            Err(error @ StoreError::Forbidden(_)) => {
                error!(error = chain(&error), commits = units.len(), "nothing can be committed; trying again");
                units.iter().map(|_| Committed::Conflict).collect()
            }
            Err(error) => {
                warn!(error = chain(&error), commits = units.len(), "a commit's outcome is unknown");
                units.iter().map(|_| Committed::Unknown).collect()
            }
        }
    })
}

fn outcome(stored: Stored) -> Committed {
    if stored.stored { Committed::Stored(stored) } else { Committed::Conflict }
}
