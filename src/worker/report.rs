//! What the worker says of itself: readiness, and the figures that only the database knows.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{debug, info, warn};

use super::command::engine::Engine;
use super::prerequisites::DATABASE;
use super::unserved::UnservedWatch;
use crate::backoff;
use crate::bus::connection::ConnectionState;
use crate::bus::consumer::{Consumer, QueueState};
use crate::bus::publisher::Publisher;
use crate::bus::topology::queue_depths;
use crate::error_chain::chain;
use crate::http::health::Health;
use crate::http::metrics::{self, QueueCondition, QueueLabel};
use crate::store::{Store, StoreError};

/// How often the database is asked.
const EVERY: Duration = Duration::from_secs(5);
/// How often its clock is read.
const CLOCK_EVERY: u32 = 12;
/// How often a sample of the payments is held against the configuration.
const SAMPLE_EVERY: u32 = 720;

/// How often it is looked whether commits go through.
const COMMITS_EVERY: Duration = Duration::from_secs(1);
/// For how long none may go through before the worker is not ready.
const STALLED_AFTER: Duration = Duration::from_secs(10);

/// How often the broker is asked what waits in its queues.
const DEPTHS_EVERY: Duration = Duration::from_secs(10);

/// What readiness calls the variants, until stored operations were held against them once. What no variant serves makes no
/// replica unready: it would stop the payments of all others.
pub(super) const VARIANTS: &str = "variants";
/// What readiness calls the commits.
pub(super) const COMMITS: &str = "commits";
/// What keeps them up.
const NO_COMMIT: &str = "the database is away, its disk is full, or it waits for a standby that is away";

/// Who says nothing any more does not work any more.
const ENDED: &str = "its task has ended";

/// Watches over the database: reachable, its clock, its figures.
pub async fn database(engine: Arc<Engine>, health: Arc<Health>) {
    let mut round: u32 = 0;
    let mut pause = backoff::reconnect();
    let mut unserved = UnservedWatch::new(&engine.variants);
    loop {
        let asked = ask(&engine, &health, &mut unserved, round).await;
        match asked {
            Ok(()) => {
                health.set(DATABASE, Ok(()));
                pause.reset();
                round = round.wrapping_add(1);
                tokio::time::sleep(EVERY).await;
            }
            Err(error) => {
                warn!(error = chain(&error), "the database cannot be asked; trying again");
                health.set(DATABASE, Err(chain(&error)));
                tokio::time::sleep(pause.next_delay()).await;
            }
        }
    }
}

/// Watches over the commits: what can be read may still not take any.
pub async fn commits(store: Arc<Store>, health: Arc<Health>) {
    let mut is_told = false;
    loop {
        let stalled = store.progress().stalled_for(Instant::now());
        metrics::commits_stalled(stalled);
        let is_stalled = stalled >= STALLED_AFTER;
        if is_stalled && !is_told {
            warn!(seconds = stalled.as_secs(), "no commit goes through: {NO_COMMIT}; trying again");
        } else if is_told && !is_stalled {
            info!("commits go through again");
        }
        is_told = is_stalled;
        let now = if is_stalled { Err(format!("none for {} s: {NO_COMMIT}", stalled.as_secs())) } else { Ok(()) };
        health.set(COMMITS, now);
        tokio::time::sleep(COMMITS_EVERY).await;
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

/// Follows a connection's state.
pub async fn connection(mut state: watch::Receiver<ConnectionState>, health: Arc<Health>, component: String) {
    loop {
        let now = match &*state.borrow_and_update() {
            ConnectionState::Connected => Ok(()),
            ConnectionState::Blocked => Err("the broker blocks publishers: it is short of memory or disk".to_owned()),
            ConnectionState::Disconnected(reason) => Err(reason.clone()),
        };
        health.set(&component, now);
        if state.changed().await.is_err() {
            health.set(&component, Err(ENDED.to_owned()));
            return;
        }
    }
}

/// Asks the broker what waits in the queues, for ever.
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
                depth
                    .inspect_err(|error| debug!(queue = queue.name, error = chain(error), "a queue cannot be seen"))
                    .ok()
            });
            metrics::queue_depth(queue, depth.map(|depth| (depth.messages, depth.consumers)));
        }
    }
}

/// Follows whether the broker confirms what is published.
pub async fn confirms(publisher: Publisher, health: Arc<Health>, component: String) {
    let (mut silent, mut nacked) = (publisher.silent(), publisher.nacked());
    // Else it would keep the channels that it waits for alive.
    drop(publisher);
    loop {
        let (lanes, nacks) = (*silent.borrow_and_update(), *nacked.borrow_and_update());
        metrics::publish_nacks(nacks.total);
        let now = match (lanes, nacks.only) {
            (0, false) => Ok(()),
            (0, true) => Err("the broker takes nothing (basic.nack): a queue is full, or lost its leader".to_owned()),
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

/// Follows a queue's state. One that a breaker paused is as it should be.
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
