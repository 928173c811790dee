//! Events that their own worker did not get out: the relay of this replica's share of payments sends them, in order. It
//! also keeps the tables' marks moving and drops what is older than the retention.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::announce::Announced;
use super::engine::Engine;
use crate::store::error::{StoreError, chain};

/// How often the outbox is looked at.
const EVERY: Duration = Duration::from_secs(2);
/// How long a share of the payments is leased.
const LEASE: Duration = Duration::from_secs(15);
/// How many events are read at once.
const BATCH: usize = 500;
/// How many may be out. They are in no queue's prefetch, so that this is the bound of their memory; where a full queue
/// takes none of them for long, the relay waits for it at last, and new events still do not.
const OUT_MAX: usize = 8 * BATCH;
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
    let mut out = Out::default();
    loop {
        tokio::time::sleep(EVERY).await;
        round = round.wrapping_add(1);
        if !engine.announcer.is_connected() {
            // Another replica may reach the broker.
            give_back(engine).await;
        } else if let Err(error) = relay(engine, &mut out).await {
            warn!(error = chain(&error), "the outbox cannot be relayed");
        }
        if round.is_multiple_of(HOUSEKEEPING_EVERY)
            && let Err(error) = keep_house(engine, retention).await
        {
            warn!(error = chain(&error), "the outbox cannot be tidied");
        }
    }
}

/// What the relay has out: events that are neither confirmed nor set aside.
#[derive(Default)]
struct Out {
    payments: JoinSet<usize>,
    events: usize,
}

impl Out {
    fn add(&mut self, count: usize, announced: Announced) {
        self.events += count;
        self.payments.spawn(async move {
            announced.confirmed().await;
            count
        });
    }

    /// Waits until there is room for a batch more.
    async fn room(&mut self) {
        loop {
            while let Some(ended) = self.payments.try_join_next() {
                self.events = self.events.saturating_sub(ended.unwrap_or_default());
            }
            if self.events + BATCH <= OUT_MAX {
                return;
            }
            if let Some(ended) = self.payments.join_next().await {
                self.events = self.events.saturating_sub(ended.unwrap_or_default());
            }
        }
    }
}

async fn give_back(engine: &Engine) {
    if let Err(error) = engine.store.release_buckets(engine.worker).await {
        info!(error = chain(&error), "the relay's share is not given back; its lease runs out");
    }
}

/// Goes through the outbox once, without waiting for the broker between the batches: a subscriber whose queue is full may
/// not hold up the others.
async fn relay(engine: &Engine, out: &mut Out) -> Result<(), StoreError> {
    let mut after = 0;
    loop {
        let buckets = engine.store.lease_buckets(engine.worker, LEASE).await?;
        let read_at = Instant::now();
        let batch = engine.store.relay_batch(&buckets, after, i64::try_from(BATCH).unwrap_or(i64::MAX)).await?;
        let Some(last) = batch.last().map(|event| event.position) else { return Ok(()) };
        let sent = async {
            out.room().await;
            let announced = engine.announcer.relay(batch, read_at).await;
            let announced: Vec<_> = announced.into_iter().filter(|(_, announced)| announced.is_some()).collect();
            if !announced.is_empty() {
                info!(payments = announced.len(), "events of lost workers are sent");
            }
            announced.into_iter().for_each(|(count, announced)| out.add(count, announced));
        };
        if tokio::time::timeout(LEASE, sent).await.is_err() {
            // What is out stays on its way; another replica may be faster.
            return Ok(());
        }
        after = last;
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
