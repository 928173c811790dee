//! Heartbeats: how many events of a variant there are in each stretch of positions, so that a subscriber can tell whether any
//! is missing, the last one too.
//!
//! A stretch begins where the one before ended, whichever replica sent that, and is told of once. Who misses a heartbeat sees
//! it by the next one. What is told of can all be seen, and nothing is ever added to it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::{debug, warn};
use uuid::Uuid;

use super::Outbox;
use crate::bus::envelope::heartbeat_body;
use crate::bus::publisher::Publisher;
use crate::error_chain::chain;
use crate::payment::event::EventType;
use crate::store::error::StoreError;
use crate::store::positions::{Beat, Frontier};

/// In how many parts the time between two heartbeats is cut. What happened in the last one is told of the next time: most
/// likely it is with its subscribers by then.
const PARTS: u32 = 4;

/// How long the broker may take for a heartbeat.
const PATIENCE: Duration = Duration::from_secs(5);

/// From how long on it is told that somebody is slow to commit.
const SLOW: Duration = Duration::from_secs(60);

/// What the next heartbeat may tell of, once all that wrote then have ended.
struct Next {
    frontier: Frontier,
    since: Instant,
    is_told: bool,
}

/// What heartbeats are sent with.
pub struct Heartbeats {
    /// Where events are stored, and how they go out.
    pub outbox: Outbox,
    /// How heartbeats go out.
    pub publisher: Publisher,
    /// The variants that events are counted of.
    pub variants: Vec<String>,
    /// How often one is sent, by all replicas together; never, where it is zero.
    pub every: Duration,
}

impl Heartbeats {
    /// Sends a heartbeat to each variant's subscribers, with all other replicas together, until the worker drains.
    pub async fn run(self) {
        if !self.every.is_zero() {
            self.outbox.draining.run_until_cancelled(self.beat_on()).await;
        }
    }

    async fn beat_on(&self) {
        let mut next = None;
        loop {
            tokio::time::sleep(self.every / PARTS).await;
            // Another replica may reach the broker.
            if !self.outbox.announcer.is_connected() {
                next = None;
            } else if let Err(error) = self.step(&mut next).await {
                debug!(error = chain(&error), "no heartbeat can be sent; trying again");
            }
        }
    }

    async fn step(&self, next: &mut Option<Next>) -> Result<(), StoreError> {
        let store = &self.outbox.store;
        if let Some(waiting) = next {
            if !store.is_settled(&waiting.frontier).await? {
                if !waiting.is_told && waiting.since.elapsed() >= SLOW {
                    waiting.is_told = true;
                    warn!("a transaction that writes events does not end; no heartbeat is sent until then");
                }
                return Ok(());
            }
            let mut since = self.every;
            while let Some(beat) = store.beat(&waiting.frontier, since).await? {
                self.send(&beat).await;
                if beat.to() >= waiting.frontier.position {
                    break;
                }
                // There was more than one heartbeat is about.
                since = Duration::ZERO;
            }
        }
        *next = Some(Next { frontier: store.frontier().await?, since: Instant::now(), is_told: false });
        Ok(())
    }

    async fn send(&self, beat: &Beat) {
        let now = self.outbox.store.clock().now();
        for variant in &self.variants {
            let id = Uuid::now_v7();
            let body = Bytes::from(heartbeat_body(id, variant, &beat.of(variant), now));
            let routing_key = format!("{variant}.{}", EventType::Heartbeat.as_str());
            self.publisher.publish_heartbeat(id, routing_key, body, PATIENCE).await;
        }
    }
}
