//! Batches commits: those that arrive while a statement is in flight, and for a moment after it, share the next one.
//! Under load many share a statement; on an idle worker each goes at once. Commits overtake a statement only if it
//! takes unusually long, because another transaction has locked a row.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex as StdMutex;
use tokio::sync::{Mutex, Notify, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tracing::{error, warn};
use uuid::Uuid;

use super::{Stored, Unit, Wait, commit};
use crate::error_chain::chain;
use crate::store::connection::Connection;
use crate::store::connection::pools::Store;
use crate::store::error::StoreError;

/// Maximum number of payments that one statement stores.
const BATCH_MAX: usize = 128;

/// How long to wait for a statement before the next one starts concurrently. Concurrent statements carry less each, and
/// every one has a fixed cost: at half the load that two cores bear, that took a third of PostgreSQL's time.
const USUAL: Duration = Duration::from_millis(20);

/// Minimum interval between the starts of two statements, when commits arrive concurrently. A statement and its flush
/// to disk cost the database as much as several payments in it, and without a minimum eight hundred would start per
/// second.
const PACE: Duration = Duration::from_millis(4);

/// How long after a payment was last found locked it is tried outside the commit tasks.
const LOCKED_FOR: Duration = Duration::from_secs(30);

/// The result of one commit, which comes back with its unit.
#[derive(Debug)]
pub enum Committed {
    /// It is stored.
    Stored(Stored),
    /// Not stored, mostly because another writer was first: load and decide again.
    Conflict,
    /// The database will never accept it.
    Refused(String),
    /// The outcome is unknown: load and check.
    Unknown,
}

struct Job {
    unit: Unit,
    reply: oneshot::Sender<(Unit, Committed)>,
}

/// Commits units in batches, each on a connection of its own.
#[derive(Debug, Clone)]
pub struct Committer {
    sender: mpsc::UnboundedSender<Job>,
}

impl Committer {
    /// Spawns the tasks that commit; they end when the last `Committer` is dropped.
    pub fn spawn(store: Arc<Store>, concurrency: usize) -> Committer {
        // Unbounded, because the queues' prefetch bounds what is in flight.
        let (sender, receiver) = mpsc::unbounded_channel();
        let waiting = Mutex::new(Waiting { jobs: receiver, not_before: Instant::now() });
        let queue = Arc::new(Queue {
            waiting,
            at_work: AtomicUsize::new(0),
            done: Notify::new(),
            locked: Locked::default(),
            beside: Semaphore::new(1),
        });
        for _ in 0..concurrency {
            tokio::spawn(run_commits(Arc::clone(&store), Arc::clone(&queue)));
        }
        Committer { sender }
    }

    /// Commits one unit; `None` if the worker is ending.
    pub async fn commit(&self, unit: Unit) -> Option<(Unit, Committed)> {
        let (reply, answer) = oneshot::channel();
        self.sender.send(Job { unit, reply }).ok()?;
        answer.await.ok()
    }
}

/// What the commit tasks share.
struct Queue {
    waiting: Mutex<Waiting>,
    /// How many tasks have a statement in flight.
    at_work: AtomicUsize,
    /// Notified when one of them is done.
    done: Notify,
    /// Payments whose rows are locked by another transaction.
    locked: Locked,
    /// Lets one of these be tried at a time, outside the commit tasks: it takes a connection of its own.
    beside: Semaphore,
}

/// Jobs that wait for a task.
struct Waiting {
    jobs: mpsc::UnboundedReceiver<Job>,
    /// When the next statement may start, unless its batch is full.
    not_before: Instant,
}

impl Queue {
    /// Returns the next jobs; empty if there will be no more. One task collects at a time.
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

/// Counts a task as having a statement in flight, until dropped.
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

/// Payments whose rows are locked by another transaction, and when that was last seen.
#[derive(Debug, Default)]
struct Locked(StdMutex<HashMap<Uuid, Instant>>);

impl Locked {
    fn has(&self, unit: &Unit) -> bool {
        let seen = self.0.lock();
        seen.get(&unit.aggregate.payment_id()).is_some_and(|at| at.elapsed() < LOCKED_FOR)
    }

    fn note(&self, unit: &Unit) {
        let payment = unit.aggregate.payment_id();
        let mut seen = self.0.lock();
        seen.retain(|_, at| at.elapsed() < LOCKED_FOR);
        if seen.insert(payment, Instant::now()).is_none() {
            warn!(
                %payment,
                "another session has locked a payment's rows; committing the payment on its own until they are free"
            );
        }
    }

    /// Removes units that were stored: their rows are no longer locked.
    fn forget(&self, units: &[Unit]) {
        let mut seen = self.0.lock();
        if seen.is_empty() {
            return;
        }
        for unit in units {
            seen.remove(&unit.aggregate.payment_id());
        }
    }
}

/// Tries a payment that was found locked, alone. Waits only briefly for the lock: it is tried again, and others wait
/// for the same connection.
async fn commit_beside(store: Arc<Store>, queue: Arc<Queue>, job: Job) {
    let Ok(_permit) = queue.beside.acquire().await else { return };
    commit_round(&store, vec![job], &queue.locked, Wait::Briefly).await;
}

async fn run_commits(store: Arc<Store>, queue: Arc<Queue>) {
    loop {
        let jobs = queue.next().await;
        if jobs.is_empty() {
            return;
        }
        // Tried alone, so that nobody else waits for their locks.
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

/// Splits jobs into rounds without two jobs of one payment, because one statement changes a row once.
fn one_of_each_payment(jobs: Vec<Job>) -> Vec<Vec<Job>> {
    let mut rounds = Vec::new();
    let mut rest = jobs;
    while !rest.is_empty() {
        let mut seen = HashSet::new();
        let (mut round, later): (Vec<Job>, Vec<Job>) =
            rest.into_iter().partition(|job| seen.insert(job.unit.aggregate.payment_id()));
        // Sorted, so that replicas lock rows in the same order.
        round.sort_by_key(|job| job.unit.aggregate.payment_id());
        rounds.push(round);
        rest = later;
    }
    rounds
}

/// Commits one round and returns whether it stored anything.
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
            warn!(error = chain(&error), "cannot get a database connection for a commit; retrying");
            units.iter().map(|_| Committed::Conflict).collect()
        }
    };
    let stored = outcomes.iter().any(|outcome| matches!(outcome, Committed::Stored(_)));
    for ((unit, outcome), reply) in units.into_iter().zip(outcomes).zip(replies) {
        if reply.send((unit, outcome)).is_err() {
            // The waiting task was cancelled with the worker; what is stored stays stored.
            tracing::debug!("result of a commit dropped: its task has ended");
        }
    }
    stored
}

/// Commits all units. If the database refuses, retries in halves, so that one bad row does not fail the others. Neither
/// does a locked row: the halves wait only briefly for locks, and payments found locked are tried alone from then on.
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
                error!(error = chain(&error), "the database rejects the data of a command");
                vec![Committed::Refused(chain(&error))]
            }
            Err(error @ StoreError::Forbidden(_)) => {
                error!(error = chain(&error), commits = units.len(), "the database role may not commit; retrying");
                units.iter().map(|_| Committed::Conflict).collect()
            }
            Err(error) => {
                warn!(error = chain(&error), commits = units.len(), "the outcome of a commit is unknown");
                units.iter().map(|_| Committed::Unknown).collect()
            }
        }
    })
}

fn outcome(stored: Stored) -> Committed {
    if stored.stored { Committed::Stored(stored) } else { Committed::Conflict }
}
