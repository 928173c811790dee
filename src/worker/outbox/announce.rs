//! Events on their way out: published in order, confirmed, then marked in the background.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout_at};
use tracing::{debug, error, warn};
use uuid::Uuid;

use super::sent_span::sent;
use crate::bus::connection::ConnectionState;
use crate::bus::publisher::{Outgoing, Published, Publisher, ReplyState, event_type};
use crate::error_chain::chain;
use crate::http::metrics;
use crate::payment::command::Reply;
use crate::payment::event::Event;
use crate::spans::{Span, are_exported};
use crate::store::Store;
use crate::store::load::Unsent;
use crate::store::outbox::{OutboxEvent, Sent};
use crate::{backoff, failpoint};

/// How many marks one statement carries.
const MARKS_MAX: usize = 2000;
/// How often a mark is tried; after that the relay publishes the event again, under the same id.
const MARK_TRIES: u32 = 5;
/// How often marks are stored at most: each statement has its price. On an idle worker one goes at once, so that another
/// replica that loads the payment does not send its events again.
const GATHER: Duration = Duration::from_millis(50);

/// How long the events of another replica are given to be marked, before they are published by this one. Marks are gathered
/// for [`GATHER`] and then stored.
const UNTIL_MARKED: Duration = Duration::from_millis(150);

/// How long a marked event is remembered.
const MARKED_FOR: Duration = Duration::from_secs(2);

/// How long whoever posted events waits for them. They are in the outbox, so that a subscriber whose queue is full need not
/// cost a command its place in the prefetch: they stay with their channel, which tries again and keeps their order, and
/// after this process with the relay.
const PATIENCE: Duration = Duration::from_secs(2);

/// The same while others are left already: a queue is full, and what is not confirmed soon is most likely for it.
const PATIENCE_WITH_LEFT: Duration = Duration::from_millis(200);

/// How many events nobody waits for. Each is in the memory of its channel, which takes in four times as many in all: beyond
/// this, commands wait again, so that it is not the channels that fill up, and with them every variant that waits.
const LEFT_MAX: usize = 32_768;

/// Publishes events and marks them.
#[derive(Debug)]
pub struct Announcer {
    publisher: Publisher,
    store: Arc<Store>,
    in_flight: Mutex<HashMap<Uuid, Stage>>,
    posted: Notify,
    /// A permit of each event that may be left to its channel.
    leave: Arc<Semaphore>,
    marks: mpsc::UnboundedSender<Mark>,
}

/// How far an event of this process has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// So many tasks are committing it or about to post it; whoever has it unsent as well waits until it is posted, or
    /// takes it over when they have given it up.
    Promised(u32),
    /// It was handed to the publisher, behind everything before it.
    Posted,
}

/// Events that a task is about to post. Dropped before that, in whichever way the task ends, it gives them back to
/// whoever waits for them.
#[derive(Debug)]
pub struct Promise {
    announcer: Arc<Announcer>,
    ids: Vec<Uuid>,
}

impl Promise {
    /// Keeps those that `picks` names and gives back the others: they were not stored now.
    pub fn only(mut self, picks: impl Fn(Uuid) -> bool) -> Promise {
        let (kept, others) = std::mem::take(&mut self.ids).into_iter().partition(|id| picks(*id));
        self.ids = kept;
        self.announcer.give_back(others);
        self
    }

    /// All of them were handed to the publisher. Of some it may have told already what became of them: they stay gone.
    fn kept(mut self) {
        let mut in_flight = self.announcer.in_flight();
        for id in std::mem::take(&mut self.ids) {
            if let Some(stage) = in_flight.get_mut(&id) {
                *stage = Stage::Posted;
            }
        }
        drop(in_flight);
        self.announcer.posted.notify_waiters();
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.announcer.give_back(std::mem::take(&mut self.ids));
    }
}

/// Events on their way out.
#[derive(Debug, Default)]
pub struct Announced(Option<Box<OnTheWay>>);

/// What it takes to wait for them, or to leave them.
#[derive(Debug)]
struct OnTheWay {
    all: oneshot::Receiver<Infallible>,
    posted: tokio::time::Instant,
    /// How many there are.
    events: u32,
    announcer: Arc<Announcer>,
    left: Left,
}

/// The permit of events that nobody waits for any more: it is theirs until the fate of each is known.
type Left = Arc<OnceLock<OwnedSemaphorePermit>>;

impl Announced {
    /// Whether there are any: all may have been on their way already.
    pub fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Waits until the broker has confirmed all of them, or they were set aside. Where the broker is there and does not for
    /// a while, they are left: they are stored, and go out in their order when it takes them.
    pub async fn confirmed(self) {
        let Some(way) = self.0 else { return };
        let OnTheWay { all, posted, events, announcer, left } = *way;
        let decided = async {
            // Nothing is ever sent: that the last one who could is gone is the sign.
            let Err(_gone) = all.await;
        };
        tokio::select! {
            biased;
            () = decided => {}
            // Where the publisher is shut down, what was handed to it ends by itself.
            Some(permit) = Box::pin(announcer.permit_to_leave(posted, events)) => {
                debug!(events, "the broker does not confirm events yet; they are left in the outbox");
                left.get_or_init(|| permit);
            }
        }
    }
}

/// Waits until events need not be waited for any more. Not while the broker is away: then commands wait as well, for
/// theirs could not be acknowledged.
async fn may_leave(
    mut state: watch::Receiver<ConnectionState>,
    leave: Arc<Semaphore>,
    posted: tokio::time::Instant,
    events: u32,
) -> Option<OwnedSemaphorePermit> {
    let others_are_left = leave.available_permits() < LEFT_MAX;
    sleep_until(posted + if others_are_left { PATIENCE_WITH_LEFT } else { PATIENCE }).await;
    state.wait_for(|state| *state == ConnectionState::Connected).await.ok()?;
    leave.acquire_many_owned(events).await.ok()
}

impl Announcer {
    /// Starts the marking in the background; its handle ends when the announcer and all that is in flight are dropped.
    pub fn spawn(publisher: Publisher, store: Arc<Store>) -> (Arc<Announcer>, JoinHandle<()>) {
        let (marks, receiver) = mpsc::unbounded_channel();
        let announcer = Arc::new(Announcer {
            publisher,
            store,
            in_flight: Mutex::default(),
            posted: Notify::new(),
            leave: Arc::new(Semaphore::new(LEFT_MAX)),
            marks,
        });
        let marking = tokio::spawn(mark(Arc::downgrade(&announcer), Arc::clone(&announcer.store), receiver));
        (announcer, marking)
    }

    /// Promises events before their commit: from the moment it can be seen, another task of this process may read them
    /// from the outbox, and would send them a second time.
    pub fn promise(self: &Arc<Self>, events: &[Event]) -> Promise {
        let mut in_flight = self.in_flight();
        let mut ids = Vec::with_capacity(events.len());
        for event in events {
            // One that was posted before is only told again.
            if let Stage::Promised(by) = in_flight.entry(event.id).or_insert(Stage::Promised(0)) {
                *by += 1;
                ids.push(event.id);
            }
        }
        Promise { announcer: Arc::clone(self), ids }
    }

    /// Hands a payment's unsent events to the publisher, and returns without waiting for the broker. Those that this
    /// process has in flight already are not sent twice.
    pub async fn announce(self: &Arc<Self>, payment: Uuid, unsent: Unsent) -> Announced {
        self.announce_new(payment, unsent, Vec::new(), self.promise(&[])).await
    }

    /// The same, with the new events behind them that were promised. Where the payment's events are set aside, all of
    /// them stay in the outbox.
    pub async fn announce_new(
        self: &Arc<Self>,
        payment: Uuid,
        unsent: Unsent,
        new: Vec<Outgoing>,
        promise: Promise,
    ) -> Announced {
        let aside = self.publisher.aside();
        match unsent.read_at {
            Some(read_at) if unsent.set_aside => aside.stored(payment, read_at),
            Some(read_at) => aside.absent(payment, read_at),
            None => {}
        }
        if unsent.set_aside {
            return Announced::default();
        }
        let unsent = if unsent.fresh.is_empty() { unsent.events } else { Box::pin(self.without_marked(unsent)).await };
        let claim = self.claim(&unsent).await;
        let claimed = unsent.into_iter().filter(|event| claim.ids.contains(&event.id));
        let batch: Vec<Outgoing> = claimed.map(from_outbox).chain(new).collect();
        if batch.is_empty() {
            return Announced::default();
        }
        let announced = self.post(batch).await;
        claim.kept();
        promise.kept();
        announced
    }

    /// What is unsent, once those events that another replica stored a moment ago had time to be marked: it has most likely
    /// published them, and would publish each a second time.
    async fn without_marked(&self, unsent: Unsent) -> Vec<OutboxEvent> {
        let Unsent { mut events, mut fresh, .. } = unsent;
        {
            let in_flight = self.in_flight();
            fresh.retain(|position| {
                events.iter().any(|event| event.position == *position && !in_flight.contains_key(&event.id))
            });
        }
        let deadline = tokio::time::Instant::now() + UNTIL_MARKED;
        let mut backoff = backoff::contention();
        while !fresh.is_empty() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(backoff.next_delay()).await;
            // Published twice is better than late: an event's order and its arrival do not depend on this.
            let Ok(unmarked) = self.store.unmarked(&fresh).await else { break };
            events.retain(|event| !fresh.contains(&event.position) || unmarked.contains(&event.position));
            fresh = unmarked;
        }
        events
    }

    /// Hands events to the publisher; whoever is given them may wait for them.
    async fn post(self: &Arc<Self>, batch: Vec<Outgoing>) -> Announced {
        let (way, all) = oneshot::channel();
        let left = Left::default();
        // More than there are permits at all would wait for ever.
        let events = u32::try_from(batch.len().min(LEFT_MAX)).unwrap_or(u32::MAX);
        let places = batch.iter().map(CallSlot::of).collect();
        let spans = self.spans(&batch);
        let way = Way { announcer: Arc::clone(self), places, spans, _way: way, _left: Arc::clone(&left) };
        let way = Arc::new(way);
        self.publisher.post(batch, Arc::new(move |published| way.decide(published))).await;
        let (posted, announcer) = (tokio::time::Instant::now(), Arc::clone(self));
        Announced(Some(Box::new(OnTheWay { all, posted, events, announcer, left })))
    }

    /// Waits until so many events that were posted then may be left to their channel.
    async fn permit_to_leave(&self, posted: tokio::time::Instant, events: u32) -> Option<OwnedSemaphorePermit> {
        may_leave(self.publisher.state(), Arc::clone(&self.leave), posted, events).await
    }

    /// Hands events of many payments to the publisher, each payment's on their own: one that has to wait holds up no
    /// other. Tells of each payment how many they are.
    pub async fn relay(self: &Arc<Self>, events: Vec<OutboxEvent>, read_at: Instant) -> Vec<(usize, Announced)> {
        let mut payments: HashMap<Uuid, Vec<OutboxEvent>> = HashMap::new();
        for event in events {
            payments.entry(event.payment_id).or_default().push(event);
        }
        let relayed = payments.into_iter().map(async |(payment, events)| {
            let count = events.len();
            let unsent = Unsent { events, read_at: Some(read_at), ..Unsent::default() };
            (count, self.announce(payment, unsent).await)
        });
        join_all(relayed).await
    }

    /// Sends stored events once more, in their order: to this queue alone, or as at first. Tells how many of them, from the
    /// first on, the broker has taken in this time.
    pub async fn resend(&self, events: Vec<OutboxEvent>, reply: Option<Reply>, patience: Duration) -> usize {
        // Where their own commands wanted their answers, these went already.
        let again = |event: OutboxEvent| Outgoing { reply: None, ..from_outbox(event) };
        self.publisher.resend(events.into_iter().map(again).collect(), reply, patience).await
    }

    /// Sends an answer to its queue alone, once more or by itself. Tells whether the broker has it.
    pub async fn reply(&self, answer: Outgoing, reply: Reply, patience: Duration) -> bool {
        self.publisher.resend(vec![answer], Some(reply), patience).await == 1
    }

    /// A span of each event, until its fate is known.
    fn spans(&self, batch: &[Outgoing]) -> Mutex<Vec<(i64, Span)>> {
        if !are_exported() {
            return Mutex::default();
        }
        let exchange = self.publisher.names().events();
        Mutex::new(batch.iter().map(|event| (event.position, sent(event, &exchange))).collect())
    }

    /// Waits until what was confirmed by now is marked, or the marking has ended.
    pub async fn marked(&self) {
        let (wanted, marked) = oneshot::channel();
        if self.marks.send(Mark::Wanted(wanted)).is_ok() {
            marked.await.unwrap_or_default();
        }
    }

    /// Whether the broker takes events from here.
    pub fn is_connected(&self) -> bool {
        *self.publisher.state().borrow() == ConnectionState::Connected
    }

    /// Claims those of a payment's unsent events that this process has not in flight, once none of them is promised: what
    /// another task is about to post must go out before what comes later. Nothing is claimed while waiting, so that no
    /// two tasks ever wait for each other.
    async fn claim(self: &Arc<Self>, events: &[OutboxEvent]) -> Promise {
        loop {
            let posted = self.posted.notified();
            tokio::pin!(posted);
            // Listening before looking, or a post in between would be missed.
            posted.as_mut().enable();
            if let Some(claim) = self.try_claim(events) {
                return claim;
            }
            posted.await;
        }
    }

    fn try_claim(self: &Arc<Self>, events: &[OutboxEvent]) -> Option<Promise> {
        let mut in_flight = self.in_flight();
        if events.iter().any(|event| matches!(in_flight.get(&event.id), Some(Stage::Promised(_)))) {
            return None;
        }
        let mut ids = Vec::with_capacity(events.len());
        for event in events {
            if let Entry::Vacant(entry) = in_flight.entry(event.id) {
                entry.insert(Stage::Promised(1));
                ids.push(event.id);
            }
        }
        Some(Promise { announcer: Arc::clone(self), ids })
    }

    /// Takes back what was promised and will not be posted.
    fn give_back(&self, ids: Vec<Uuid>) {
        if ids.is_empty() {
            return;
        }
        let mut in_flight = self.in_flight();
        for id in ids {
            if let Entry::Occupied(mut entry) = in_flight.entry(id)
                && let Stage::Promised(by) = entry.get_mut()
            {
                *by -= 1;
                if *by == 0 {
                    entry.remove();
                }
            }
        }
        drop(in_flight);
        self.posted.notify_waiters();
    }

    /// Sets the event aside, with the later ones of its payment.
    async fn set_aside(&self, place: &CallSlot, reason: &str) {
        let (payment, position) = (place.payment, place.position);
        error!(%payment, position, reason, "the broker refuses an event; it and the later ones wait for a person");
        let mut backoff = backoff::reconnect();
        while let Err(error) = self.store.set_aside(payment, position, reason).await {
            warn!(error = chain(&error), %payment, position, "an event cannot be set aside yet; trying again");
            tokio::time::sleep(backoff.next_delay()).await;
        }
        self.publisher.aside().stored(payment, Instant::now());
        self.in_flight().remove(&place.event);
    }

    fn in_flight(&self) -> MutexGuard<'_, HashMap<Uuid, Stage>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Events that were handed over together, until the fate of each is known.
struct Way {
    announcer: Arc<Announcer>,
    places: Vec<CallSlot>,
    /// Of those whose fate is not known.
    spans: Mutex<Vec<(i64, Span)>>,
    /// Whoever waits for all of them waits for its end.
    _way: oneshot::Sender<Infallible>,
    /// Where nobody does any more.
    _left: Left,
}

impl Way {
    /// What became of one of them. Called by a channel's task: it does nothing that could take long.
    fn decide(self: &Arc<Self>, published: Published) {
        let Some(place) = self.places.iter().find(|place| place.position == published.position()) else { return };
        let mut span = self.span(place.position);
        match published {
            Published::Confirmed { position, reply } => {
                metrics::event_published(&place.event_type);
                let reply = match reply {
                    ReplyState::None => None,
                    ReplyState::Sent => Some("sent"),
                    ReplyState::Unroutable => {
                        metrics::reply_unroutable();
                        Some("unroutable")
                    }
                };
                failpoint::reach("confirmed", place.payment);
                if self.announcer.marks.send(Mark::Event(place.event, Sent { position, reply })).is_err() {
                    warn!(position, "an event is out and cannot be marked; it will be sent again");
                }
            }
            Published::SetAside { reason, .. } => {
                metrics::event_refused();
                span.fail("set_aside");
                let (way, place) = (Arc::clone(self), place.clone());
                tokio::spawn(async move { way.announcer.set_aside(&place, &reason).await });
            }
            // It stays in the outbox, and goes out with the others when the payment is released.
            Published::Behind { .. } => {
                span.fail("behind_set_aside");
                self.announcer.in_flight().remove(&place.event);
            }
        }
    }
}

impl Way {
    fn span(&self, position: i64) -> Span {
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        let place = spans.iter().position(|(other, _)| *other == position);
        place.map(|place| spans.swap_remove(place).1).unwrap_or_default()
    }
}

/// What an event is about, for when its fate is known.
#[derive(Debug, Clone)]
struct CallSlot {
    position: i64,
    event: Uuid,
    payment: Uuid,
    event_type: String,
}

impl CallSlot {
    fn of(event: &Outgoing) -> CallSlot {
        let event_type = event_type(&event.routing_key).to_owned();
        CallSlot { position: event.position, event: event.event_id, payment: event.payment_id, event_type }
    }
}

/// Marks confirmed events, as many at once as have gathered. Nothing waits for it: an event that is not marked is at worst
/// sent again.
async fn mark(announcer: std::sync::Weak<Announcer>, store: Arc<Store>, mut receiver: mpsc::UnboundedReceiver<Mark>) {
    let mut marks: Vec<Mark> = Vec::new();
    let mut last = tokio::time::Instant::now();
    let mut marked: VecDeque<(Instant, Vec<Uuid>)> = VecDeque::new();
    while receiver.recv_many(&mut marks, MARKS_MAX).await > 0 {
        let deadline = last + GATHER;
        while marks.len() < MARKS_MAX
            && !matches!(marks.last(), Some(Mark::Wanted(_)))
            && let room = MARKS_MAX - marks.len()
            && let Ok(1..) = timeout_at(deadline, receiver.recv_many(&mut marks, room)).await
        {}
        let (mut ids, mut sent, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
        for mark in marks.drain(..) {
            match mark {
                Mark::Event(id, event) => {
                    ids.push(id);
                    sent.push(event);
                }
                Mark::Wanted(by) => wanted.push(by),
            }
        }
        store_marks(&store, &sent).await;
        // Who waited for them is told by the end of `wanted`.
        drop(wanted);
        last = tokio::time::Instant::now();
        let now = last.into_std();
        marked.push_back((now, ids));
        if let Some(announcer) = announcer.upgrade() {
            // Kept a little longer: who read the outbox just before the mark would send them a second time.
            let mut in_flight = announcer.in_flight();
            while marked.front().is_some_and(|(at, _)| now.duration_since(*at) > MARKED_FOR) {
                for id in marked.pop_front().into_iter().flat_map(|(_, ids)| ids) {
                    in_flight.remove(&id);
                }
            }
        }
    }
}

async fn store_marks(store: &Store, sent: &[Sent]) {
    let mut backoff = backoff::reconnect();
    for attempt in 1..=MARK_TRIES {
        if sent.is_empty() {
            return;
        }
        match store.mark_sent(sent).await {
            Ok(()) => return,
            Err(error) => {
                warn!(
                    error = chain(&error),
                    attempt,
                    events = sent.len(),
                    "events are out and cannot be marked; trying again, else they go out once more"
                );
                tokio::time::sleep(backoff.next_delay()).await;
            }
        }
    }
}

/// What the marking is told.
#[derive(Debug)]
enum Mark {
    /// The broker confirmed this event.
    Event(Uuid, Sent),
    /// Somebody waits until all before is marked.
    Wanted(oneshot::Sender<()>),
}

/// The events of a commit that are new, with the positions that the database gave them.
pub fn outgoing(events: &[Event], bodies: Vec<String>, positions: &[(Uuid, i64)]) -> Vec<Outgoing> {
    let mut outgoing: Vec<Outgoing> = events
        .iter()
        .zip(bodies)
        .filter_map(|(event, body)| {
            let position = positions.iter().find(|(id, _)| *id == event.id).map(|(_, position)| *position)?;
            Some(Outgoing::of(event, position, body))
        })
        .collect();
    outgoing.sort_by_key(|event| event.position);
    outgoing
}

pub(crate) fn from_outbox(event: OutboxEvent) -> Outgoing {
    Outgoing {
        position: event.position,
        payment_id: event.payment_id,
        event_id: event.id,
        routing_key: event.routing_key,
        body: Bytes::from(event.body),
        correlation_id: event.correlation_id,
        trace: event.trace,
        reply: event.reply,
    }
}

#[cfg(test)]
mod tests;
