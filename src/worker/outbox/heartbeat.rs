//! Heartbeats report how many events of a variant there are in each range of positions, so that a subscriber can detect
//! a missing event, even the last one.
//!
//! A range begins where the previous one ended, whichever replica sent that, and is reported once. The next heartbeat
//! reveals a lost one. All events in a reported range are visible, and none is ever added.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::{debug, warn};
use uuid::Uuid;

use super::Outbox;
use crate::bus::envelope::heartbeat_body;
use crate::bus::publish::publisher::Publisher;
use crate::error_chain::chain;
use crate::payment::event::EventType;
use crate::store::error::StoreError;
use crate::store::outbox::positions::{Beat, Frontier};

/// The heartbeat interval is divided into this many parts. Events of the last part are reported the next time, so that
/// subscribers most likely have those that a heartbeat covers.
const PARTS: u32 = 4;

/// How long the broker may take for a heartbeat.
const TIMEOUT: Duration = Duration::from_secs(5);

/// After how long a slow commit is logged.
const SLOW: Duration = Duration::from_secs(60);

/// What the next heartbeat may cover, once all transactions that were writing at that time have ended.
struct Next {
    frontier: Frontier,
    since: Instant,
    is_logged: bool,
}

/// Sends heartbeats.
pub struct Heartbeats {
    /// Where events are stored, and how they are published.
    pub outbox: Outbox,
    /// Publishes the heartbeats.
    pub publisher: Publisher,
    /// The variants whose events are counted.
    pub variants: Vec<String>,
    /// The interval between heartbeats, over all replicas; zero disables them.
    pub every: Duration,
}

impl Heartbeats {
    /// Sends heartbeats to each variant's subscribers, together with all other replicas, until the worker drains.
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
                debug!(error = chain(&error), "cannot send heartbeats; retrying");
            }
        }
    }

    async fn step(&self, next: &mut Option<Next>) -> Result<(), StoreError> {
        let store = &self.outbox.store;
        if let Some(waiting) = next {
            if !store.is_settled(&waiting.frontier).await? {
                if !waiting.is_logged && waiting.since.elapsed() >= SLOW {
                    waiting.is_logged = true;
                    warn!("a transaction that writes events stays open; heartbeats are paused until it ends");
                }
                return Ok(());
            }
            let mut since = self.every;
            while let Some(beat) = store.beat(&waiting.frontier, since).await? {
                self.send(&beat).await;
                if beat.to() >= waiting.frontier.position {
                    break;
                }
                // There was more than one heartbeat can cover.
                since = Duration::ZERO;
            }
        }
        *next = Some(Next { frontier: store.frontier().await?, since: Instant::now(), is_logged: false });
        Ok(())
    }

    async fn send(&self, beat: &Beat) {
        let now = self.outbox.store.clock().now();
        for variant in &self.variants {
            let id = Uuid::now_v7();
            let body = Bytes::from(heartbeat_body(id, variant, &beat.of(variant), now));
            let routing_key = format!("{variant}.{}", EventType::Heartbeat.as_str());
            self.publisher.publish_heartbeat(id, routing_key, body, TIMEOUT).await;
        }
    }
}
