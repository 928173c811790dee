//! Events that their own worker did not get out: the relay of this replica's share of payments sends them, in order. It
//! also keeps the tables' marks moving and drops what is older than the retention.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tracing::{info, warn};

use super::engine::Engine;
use crate::store::error::{StoreError, chain};

/// How often the outbox is looked at.
const EVERY: Duration = Duration::from_secs(2);
/// How long a share of the payments is leased.
const LEASE: Duration = Duration::from_secs(15);
/// How many events are read at once.
const BATCH: i64 = 500;
/// Every how many rounds the watermark moves and old events go.
const HOUSEKEEPING_EVERY: u32 = 5;
/// How long a command is kept whose payment never came to be: a redelivery within that time is answered as before.
const ORPHANS_KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How many old events go at once.
const PURGE: i64 = 5000;

/// Relays until the worker drains, then leaves its share to the others.
pub async fn run(engine: Arc<Engine>, retention: Duration) {
    engine.draining.run_until_cancelled(relay_on(&engine, retention)).await;
    give_back(&engine).await;
}

async fn relay_on(engine: &Engine, retention: Duration) {
    let mut round: u32 = 0;
    loop {
        tokio::time::sleep(EVERY).await;
        round = round.wrapping_add(1);
        if !engine.announcer.is_connected() {
            // Another replica may reach the broker.
            give_back(engine).await;
        } else if let Err(error) = relay(engine).await {
            warn!(error = chain(&error), "the outbox cannot be relayed");
        }
        if round.is_multiple_of(HOUSEKEEPING_EVERY)
            && let Err(error) = keep_house(engine, retention).await
        {
            warn!(error = chain(&error), "the outbox cannot be tidied");
        }
    }
}

async fn give_back(engine: &Engine) {
    if let Err(error) = engine.store.release_buckets(engine.worker).await {
        info!(error = chain(&error), "the relay's share is not given back; its lease runs out");
    }
}

async fn relay(engine: &Engine) -> Result<(), StoreError> {
    let buckets = engine.store.lease_buckets(engine.worker, LEASE).await?;
    let mut after = 0;
    loop {
        let batch = engine.store.relay_batch(&buckets, after, BATCH).await?;
        let Some(last) = batch.last().map(|event| event.position) else { return Ok(()) };
        info!(events = batch.len(), "events of lost workers are sent");
        let announced = engine.announcer.announce(batch, Vec::new()).await;
        if tokio::time::timeout(LEASE, announced.confirmed()).await.is_err() {
            // They stay on their way; another replica may be faster.
            return Ok(());
        }
        after = last;
        engine.store.lease_buckets(engine.worker, LEASE).await?;
    }
}

async fn keep_house(engine: &Engine, retention: Duration) -> Result<(), StoreError> {
    engine.store.advance_outbox().await?;
    let age = SignedDuration::try_from(retention).unwrap_or(SignedDuration::MAX);
    let now = engine.store.clock().now();
    if let Ok(before) = now.checked_sub(age) {
        engine.store.purge_events(before, PURGE).await?;
    }
    if let Ok(before) = now.checked_sub(ORPHANS_KEPT) {
        engine.store.purge_orphans(before, PURGE).await?;
    }
    Ok(())
}
