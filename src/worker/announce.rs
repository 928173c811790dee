//! Events on their way out: published in order, confirmed, then marked in the background.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{error, warn};
use uuid::Uuid;

use crate::backoff;
use crate::bus::publisher::{Outgoing, Published, Publisher, ReplyState};
use crate::http::metrics;
use crate::payment::event::Event;
use crate::store::Store;
use crate::store::error::chain;
use crate::store::outbox::{OutboxEvent, Sent};

/// How many marks one statement carries.
const MARKS_MAX: usize = 2000;
/// How often a mark is tried; after that the relay publishes the event again, under the same id.
const MARK_TRIES: u32 = 5;

/// Publishes events and marks them.
#[derive(Debug)]
pub struct Announcer {
    publisher: Publisher,
    store: Arc<Store>,
    in_flight: Mutex<HashSet<i64>>,
    marks: mpsc::UnboundedSender<Sent>,
}

/// Events on their way out.
#[derive(Debug, Default)]
pub struct Announced(Option<JoinHandle<()>>);

impl Announced {
    /// Waits until the broker has confirmed all of them, or they were set aside.
    pub async fn confirmed(self) {
        if let Some(task) = self.0
            && let Err(error) = task.await
        {
            warn!(%error, "events may not be out; the relay sends them");
        }
    }
}

impl Announcer {
    /// Starts the marking in the background; its handle ends when the announcer and all that is in flight are dropped.
    pub fn spawn(publisher: Publisher, store: Arc<Store>) -> (Arc<Announcer>, JoinHandle<()>) {
        let (marks, receiver) = mpsc::unbounded_channel();
        let announcer = Arc::new(Announcer { publisher, store, in_flight: Mutex::default(), marks });
        let marking = tokio::spawn(mark(Arc::downgrade(&announcer), Arc::clone(&announcer.store), receiver));
        (announcer, marking)
    }

    /// Hands events to the publisher, the unsent ones first, and returns at once; those that this process has in flight
    /// already are not sent twice.
    pub async fn announce(self: &Arc<Self>, unsent: Vec<OutboxEvent>, new: Vec<Outgoing>) -> Announced {
        let mut batch: Vec<Outgoing> = unsent.into_iter().map(from_outbox).chain(new).collect();
        batch.retain(|event| self.in_flight().insert(event.position));
        if batch.is_empty() {
            return Announced::default();
        }
        let places: HashMap<i64, Place> = batch.iter().map(|event| (event.position, Place::of(event))).collect();
        let posted = self.publisher.post(batch).await;
        let announcer = Arc::clone(self);
        Announced(Some(tokio::spawn(async move {
            for published in posted.published().await {
                announcer.decide(published, &places).await;
            }
        })))
    }

    async fn decide(&self, published: Published, places: &HashMap<i64, Place>) {
        match published {
            Published::Confirmed { position, reply } => {
                metrics::event_published(places.get(&position).map_or("", |place| place.event_type.as_str()));
                let reply = match reply {
                    ReplyState::None => None,
                    ReplyState::Sent => Some("sent"),
                    ReplyState::Unroutable => {
                        metrics::reply_unroutable();
                        Some("unroutable")
                    }
                };
                if self.marks.send(Sent { position, reply }).is_err() {
                    warn!(position, "an event is out and cannot be marked; it will be sent again");
                }
            }
            Published::SetAside { position, reason } => {
                metrics::event_refused();
                let payment = places.get(&position).map(|place| place.payment).unwrap_or_default();
                error!(%payment, position, reason, "the broker refuses an event; it and the later ones wait for a person");
                let mut backoff = backoff::reconnect();
                while let Err(error) = self.store.set_aside(payment, position, &reason).await {
                    warn!(error = chain(&error), "an event cannot be set aside yet");
                    tokio::time::sleep(backoff.next_delay()).await;
                }
                self.in_flight().remove(&position);
            }
        }
    }

    fn in_flight(&self) -> MutexGuard<'_, HashSet<i64>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an event is about, for when its fate is known.
#[derive(Debug, Clone)]
struct Place {
    payment: Uuid,
    event_type: String,
}

impl Place {
    fn of(event: &Outgoing) -> Place {
        Place { payment: event.payment_id, event_type: type_of(&event.routing_key) }
    }
}

/// The type in a routing key, which may have a status behind it.
fn type_of(routing_key: &str) -> String {
    let words: Vec<&str> = routing_key.split('.').skip(1).take(2).collect();
    words.join(".")
}

/// Marks confirmed events, as many at once as have gathered. Nothing waits for it: an event that is not marked is at worst
/// sent again.
async fn mark(announcer: std::sync::Weak<Announcer>, store: Arc<Store>, mut receiver: mpsc::UnboundedReceiver<Sent>) {
    let mut sent = Vec::new();
    while receiver.recv_many(&mut sent, MARKS_MAX).await > 0 {
        let mut backoff = backoff::reconnect();
        for attempt in 1..=MARK_TRIES {
            match store.mark_sent(&sent).await {
                Ok(()) => break,
                Err(error) => {
                    warn!(error = chain(&error), attempt, events = sent.len(), "events are out and cannot be marked");
                    tokio::time::sleep(backoff.next_delay()).await;
                }
            }
        }
        if let Some(announcer) = announcer.upgrade() {
            let mut in_flight = announcer.in_flight();
            for mark in &sent {
                in_flight.remove(&mark.position);
            }
        }
        sent.clear();
    }
}

/// The events of a commit that are new, with the positions that the database gave them.
pub fn outgoing(events: &[Event], bodies: Vec<String>, positions: &[(Uuid, i64)]) -> Vec<Outgoing> {
    let mut outgoing: Vec<Outgoing> = events
        .iter()
        .zip(bodies)
        .filter_map(|(event, body)| {
            let position = positions.iter().find(|(id, _)| *id == event.id).map(|(_, position)| *position)?;
            let cause = event.cause.as_ref();
            Some(Outgoing {
                position,
                payment_id: event.payment_id,
                event_id: event.id,
                routing_key: event.routing_key(),
                body: Bytes::from(body),
                correlation_id: cause.and_then(|cause| cause.correlation_id.clone()),
                traceparent: cause.and_then(|cause| cause.traceparent.clone()),
                tracestate: cause.and_then(|cause| cause.tracestate.clone()),
                reply: cause.and_then(|cause| cause.reply.clone()),
            })
        })
        .collect();
    outgoing.sort_by_key(|event| event.position);
    outgoing
}

fn from_outbox(event: OutboxEvent) -> Outgoing {
    Outgoing {
        position: event.position,
        payment_id: event.payment_id,
        event_id: event.id,
        routing_key: event.routing_key,
        body: Bytes::from(event.body),
        correlation_id: event.correlation_id,
        traceparent: event.traceparent,
        tracestate: event.tracestate,
        reply: event.reply,
    }
}
