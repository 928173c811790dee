//! The relay publishes events that their own worker did not get out, in order, for this replica's share of the
//! payments. It also finds those events, and deletes what is older than the retention period.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::Outbox;
use super::announce::Announced;
use crate::config::Retention;
use crate::error_chain::chain;
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::outbox::Overdue;
use crate::telemetry::metrics;

/// How often the outbox is read.
const EVERY: Duration = Duration::from_secs(2);
/// How long this replica's share of the payments is leased.
const LEASE: Duration = Duration::from_secs(15);
/// How many events are read at once.
const BATCH: usize = 500;
/// How many unconfirmed events the relay waits for. Events that a full queue does not take are left to their channels,
/// like those of commands, so that they delay no other payment.
const OUT_MAX: usize = 8 * BATCH;
/// Once in this many rounds, late events are searched for and old ones deleted.
const HOUSEKEEPING_EVERY: u32 = 5;
/// How many old rows one statement deletes.
const PURGE: i64 = 5000;
/// How long one round continues with a chore that has more to do.
const TIDIED_FOR: Duration = Duration::from_secs(2);

/// Relays until the worker drains, then releases its share to the other replicas.
pub async fn run(outbox: Outbox, retention: Retention) {
    outbox.draining.run_until_cancelled(relay_on(&outbox, &retention)).await;
    give_back(&outbox).await;
}

async fn relay_on(outbox: &Outbox, retention: &Retention) {
    let mut round: u32 = 0;
    let mut out = Out::default();
    let mut after = 0;
    loop {
        tokio::time::sleep(EVERY).await;
        round = round.wrapping_add(1);
        tidy(outbox, Chore::NoteOverdue).await;
        if !outbox.announcer.is_connected() {
            // Another replica may reach the broker.
            give_back(outbox).await;
        } else if let Err(error) = relay(outbox, &mut after, &mut out).await {
            warn!(error = chain(&error), "cannot relay the outbox; retrying");
        }
        if round.is_multiple_of(HOUSEKEEPING_EVERY) {
            keep_house(outbox, retention).await;
        }
    }
}

/// Events that the relay waits for: not yet confirmed, set aside or left to their channels.
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

    /// Waits until there is room for another batch.
    async fn wait_for_capacity(&mut self) {
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

async fn give_back(outbox: &Outbox) {
    if let Err(error) = outbox.store.release_buckets(outbox.worker).await {
        info!(error = chain(&error), "cannot release the relay's share of the outbox; its lease will expire");
    }
}

/// Publishes overdue events, from a position to the end; the next round starts at the front again. It does not wait for
/// the broker between batches, so that a subscriber whose queue is full does not delay the others.
async fn relay(outbox: &Outbox, after: &mut i64, out: &mut Out) -> Result<(), StoreError> {
    loop {
        let buckets = outbox.store.lease_buckets(outbox.worker, LEASE).await?;
        let read_at = Instant::now();
        let limit = i64::try_from(BATCH).unwrap_or(i64::MAX);
        let Overdue { events, next } = outbox.store.relay_batch(&buckets, *after, limit).await?;
        *after = next.unwrap_or_default();
        let sent = async {
            out.wait_for_capacity().await;
            let announced = outbox.announcer.relay(events, read_at).await;
            let announced: Vec<_> = announced.into_iter().filter(|(_, announced)| announced.is_some()).collect();
            if !announced.is_empty() {
                let events = announced.iter().map(|(count, _)| count).sum();
                metrics::events_relayed(events);
                info!(payments = announced.len(), events, "sending events of lost workers");
            }
            announced.into_iter().for_each(|(count, announced)| out.add(count, announced));
        };
        // After the lease, another replica may be faster. What is in flight stays there.
        if tokio::time::timeout(LEASE, sent).await.is_err() || next.is_none() {
            return Ok(());
        }
    }
}

async fn keep_house(outbox: &Outbox, retention: &Retention) {
    let now = outbox.store.clock().now();
    let before = |kept: Duration| now.checked_sub(SignedDuration::try_from(kept).unwrap_or(SignedDuration::MAX)).ok();
    tidy(outbox, Chore::NoteLate).await;
    if let Some(before) = before(retention.events) {
        tidy(outbox, Chore::PurgeEvents(before)).await;
    }
    if let Some(before) = before(retention.notifications) {
        tidy(outbox, Chore::PurgeCommands(before)).await;
    }
}

/// A housekeeping task. They are independent: if one fails, the others still run.
#[derive(Debug, Clone, Copy)]
enum Chore {
    NoteOverdue,
    NoteLate,
    PurgeEvents(Timestamp),
    PurgeCommands(Timestamp),
}

impl Chore {
    /// Does a bounded part of it. Returns whether there is more.
    async fn step(self, store: &Store) -> Result<bool, StoreError> {
        match self {
            Chore::NoteOverdue => store.note_overdue().await,
            Chore::NoteLate => store.note_late().await,
            Chore::PurgeEvents(before) => Ok(store.purge_events(before, PURGE).await?.more),
            Chore::PurgeCommands(before) => Ok(store.purge_commands(before, PURGE).await?.more),
        }
    }
}

/// Repeats a chore while there is more to do, but only for a while, as the relay waits for it.
async fn tidy(outbox: &Outbox, chore: Chore) {
    let begun = Instant::now();
    loop {
        match chore.step(&outbox.store).await {
            Ok(true) if begun.elapsed() < TIDIED_FOR => tokio::task::yield_now().await,
            Ok(_) => return,
            Err(error) => {
                warn!(error = chain(&error), ?chore, "cannot delete outdated rows; retrying later");
                return;
            }
        }
    }
}
