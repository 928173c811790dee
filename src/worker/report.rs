//! The worker's readiness, and the metrics that only the database knows.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{debug, info, warn};

use super::command::engine::Engine;
use super::prerequisites::DATABASE;
use super::register::Replica;
use super::unserved::UnservedWatch;
use crate::backoff;
use crate::bus::connection::ConnectionState;
use crate::bus::consume::consumer::{Consumer, QueueState};
use crate::bus::publish::publisher::Publisher;
use crate::bus::topology::queue_depths;
use crate::error_chain::chain;
use crate::http::health::Health;
use crate::store::{Store, StoreError};
use crate::telemetry::metrics::{self, QueueCondition, QueueLabel};

/// How often the database is queried.
const EVERY: Duration = Duration::from_secs(5);
/// The database's clock is read once in this many rounds.
const CLOCK_EVERY: u32 = 12;
/// A sample of the payments is checked against the configuration once in this many rounds.
const SAMPLE_EVERY: u32 = 720;

/// How often the progress of commits is checked.
const COMMITS_EVERY: Duration = Duration::from_secs(1);
/// After how long without a successful commit the worker is not ready.
const STALLED_AFTER: Duration = Duration::from_secs(10);

/// How often the broker is asked for the depths of its queues.
const DEPTHS_EVERY: Duration = Duration::from_secs(10);

/// The readiness component for the variants, until stored operations were checked against them once. Unserved payments
/// make no replica unready: that would stop the payments of all other variants.
pub(super) const VARIANTS: &str = "variants";
/// The readiness component for commits.
pub(super) const COMMITS: &str = "commits";
/// What may be delaying commits.
const NO_COMMIT: &str = "the database is unavailable, its disk is full, or it waits for an unavailable standby";

/// The state of a component that no longer reports.
const ENDED: &str = "its task has ended";

/// Monitors the database: whether it is reachable, its clock and its metrics. Reports this replica there.
pub async fn database(engine: Arc<Engine>, health: Arc<Health>, replica: Replica) {
    let mut round: u32 = 0;
    let mut pause = backoff::reconnect();
    let mut unserved = UnservedWatch::new(&engine.variants);
    loop {
        let asked = ask(&engine, &health, &mut unserved, round).await;
        match asked {
            Ok(()) => {
                health.set(DATABASE, Ok(()));
                pause.reset();
                register(&engine, &health, &replica, round).await;
                round = round.wrapping_add(1);
                tokio::time::sleep(EVERY).await;
            }
            Err(error) => {
                warn!(error = chain(&error), "cannot query the database; retrying");
                health.set(DATABASE, Err(chain(&error)));
                tokio::time::sleep(pause.next_delay()).await;
            }
        }
    }
}

/// Monitors commits: a database that answers queries may still commit nothing.
pub async fn commits(store: Arc<Store>, health: Arc<Health>) {
    let mut is_logged = false;
    loop {
        let stalled = store.progress().stalled_for(Instant::now());
        metrics::commits_stalled(stalled);
        let is_stalled = stalled >= STALLED_AFTER;
        if is_stalled && !is_logged {
            warn!(seconds = stalled.as_secs(), "no commit succeeds: {NO_COMMIT}; retrying");
        } else if is_logged && !is_stalled {
            info!("commits succeed again");
        }
        is_logged = is_stalled;
        let now = if is_stalled { Err(format!("no commit for {} s: {NO_COMMIT}", stalled.as_secs())) } else { Ok(()) };
        health.set(COMMITS, now);
        tokio::time::sleep(COMMITS_EVERY).await;
    }
}

/// Reports this replica. It writes, and that it cannot makes no worker unready: commits say whether they succeed.
async fn register(engine: &Engine, health: &Health, replica: &Replica, round: u32) {
    let written = async {
        if round.is_multiple_of(CLOCK_EVERY) {
            engine.store.remove_lost_workers().await?;
        }
        replica.report(engine, health).await
    };
    if let Err(error) = written.await {
        debug!(error = chain(&error), "cannot report this replica in the database");
    }
}

async fn ask(engine: &Engine, health: &Health, unserved: &mut UnservedWatch, round: u32) -> Result<(), StoreError> {
    if round.is_multiple_of(CLOCK_EVERY) {
        let client = engine.store.client().await?;
        engine.store.clock().calibrate(&client).await?;
    }
    let mut figures = engine.store.figures().await?;
    figures.unserved = unserved.look(&engine.store, health, round.is_multiple_of(SAMPLE_EVERY)).await?;
    metrics::figures(&figures);
    health.set(VARIANTS, Ok(()));
    Ok(())
}

/// Reports a connection's state as readiness.
pub async fn connection(mut state: watch::Receiver<ConnectionState>, health: Arc<Health>, component: String) {
    loop {
        let now = match &*state.borrow_and_update() {
            ConnectionState::Connected => Ok(()),
            ConnectionState::Blocked => {
                Err("the broker blocks publishers: it is short of memory or disk space".to_owned())
            }
            ConnectionState::Disconnected(reason) => Err(reason.clone()),
        };
        health.set(&component, now);
        if state.changed().await.is_err() {
            health.set(&component, Err(ENDED.to_owned()));
            return;
        }
    }
}

/// Reports the depths of the queues, for ever.
pub async fn depths(consumer: Consumer, queues: Vec<QueueLabel>) {
    let mut ticks = tokio::time::interval(DEPTHS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let names: Vec<String> = queues.iter().map(|queue| queue.name.clone()).collect();
    loop {
        ticks.tick().await;
        let depths = match consumer.connection() {
            Some(connection) => queue_depths(&connection, &names).await,
            None => Vec::new(),
        };
        let mut depths = depths.into_iter();
        for queue in &queues {
            let depth = depths.next().and_then(|depth| {
                depth.inspect_err(|error| debug!(queue = queue.name, error = chain(error), "cannot check a queue")).ok()
            });
            metrics::queue_depth(queue, depth.map(|depth| (depth.messages, depth.consumers)));
        }
    }
}

/// Reports whether the broker confirms what is published.
pub async fn confirms(publisher: Publisher, health: Arc<Health>, component: String) {
    let (mut silent, mut nacked) = (publisher.silent(), publisher.nacked());
    // Otherwise it would keep alive the channels whose end this task waits for.
    drop(publisher);
    loop {
        let (channels, nacks) = (*silent.borrow_and_update(), *nacked.borrow_and_update());
        metrics::publish_nacks(nacks.total);
        let now = match (channels, nacks.only) {
            (0, false) => Ok(()),
            (0, true) => {
                Err("the broker rejects all messages (basic.nack): a queue is full or has no leader".to_owned())
            }
            _ => Err("the broker confirms nothing: a queue may have no leader".to_owned()),
        };
        health.set(&component, now);
        let changed = tokio::select! {
            changed = silent.changed() => changed,
            changed = nacked.changed() => changed,
        };
        if changed.is_err() {
            health.set(&component, Err(ENDED.to_owned()));
            return;
        }
    }
}

/// Reports a queue's state. A queue that the breaker paused counts as ready.
pub async fn queue(mut state: watch::Receiver<QueueState>, health: Arc<Health>, component: String, label: QueueLabel) {
    loop {
        let (condition, now) = match &*state.borrow_and_update() {
            QueueState::Consuming => (QueueCondition::Consuming, Ok(())),
            QueueState::Paused => (QueueCondition::Paused, Ok(())),
            QueueState::Down(reason) => (QueueCondition::Down, Err(reason.clone())),
        };
        metrics::queue_condition(&label, condition);
        health.set(&component, now);
        if state.changed().await.is_err() {
            health.set(&component, Err(ENDED.to_owned()));
            return;
        }
    }
}
