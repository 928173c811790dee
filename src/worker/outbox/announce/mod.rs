//! Publishes events in order, awaits their confirms and marks them as sent in the background.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout_at};
use tracing::{debug, error, warn};
use uuid::Uuid;

use super::sent_span::sent;
use crate::backoff::retry;
use crate::bus::connection::ConnectionState;
use crate::bus::publish::publisher::{Outgoing, Published, Publisher, ReplyState, event_type};
use crate::bus::publish::verdict::Verdict;
use crate::error_chain::chain;
use crate::payment::command::Reply;
use crate::payment::event::Event;
use crate::store::Store;
use crate::store::load::Unsent;
use crate::store::outbox::{OutboxEvent, Sent};
use crate::telemetry::metrics;
use crate::telemetry::spans::{Span, are_exported};
use crate::worker::finished::{Finished, Unfinished};
use crate::{backoff, failpoint};

/// How many marks one statement carries.
const MARKS_MAX: usize = 2000;
/// How often a mark is tried. After that, the relay publishes the event again under the same id.
const MARK_TRIES: u32 = 5;
/// The minimum interval between two statements that store marks, as each has its cost. On an idle worker a mark is
/// stored at once, so that another replica that loads the payment does not publish its events again.
const GATHER: Duration = Duration::from_millis(50);

/// How long to wait for another replica to mark its events before publishing them here. Marks are gathered for
/// [`GATHER`] and then stored.
const UNTIL_MARKED: Duration = Duration::from_millis(150);

/// How long a marked event is remembered.
const MARKED_FOR: Duration = Duration::from_secs(2);

/// How long a command waits for the confirms of its events. They are in the outbox, so a subscriber whose queue is full
/// need not cost the command its prefetch slot: the events stay with their channel, which retries them in order, and
/// with the relay once this process has ended.
const CONFIRM_WAIT: Duration = Duration::from_secs(2);

/// The timeout while other events are left already: a queue is full, and events that are not confirmed soon are most
/// likely bound for it.
const CONFIRM_WAIT_WITH_LEFT: Duration = Duration::from_millis(200);

/// How many events may be left to their channels with no command waiting for them. They are kept in memory, and the
/// channels together hold four times as many. Beyond this limit commands wait again, so that the channels do not fill
/// up and block every variant.
const LEFT_MAX: usize = 32_768;

/// Publishes events and marks them.
#[derive(Debug)]
pub struct Announcer {
    publisher: Publisher,
    store: Arc<Store>,
    in_flight: Mutex<HashMap<Uuid, Stage>>,
    posted: Notify,
    /// A permit for each event that may be left to its channel.
    leave: Arc<Semaphore>,
    marks: mpsc::UnboundedSender<Mark>,
}

/// The progress of an event in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// This many tasks are committing the event or about to post it. A task that has read it as unsent waits until it
    /// is posted, or claims it once all of them have given it up.
    Promised(u32),
    /// It was handed to the publisher, behind all earlier events of its payment.
    Posted,
}

/// Events that a task is about to post. Dropping the promise before that, for whatever reason, gives them up to the
/// tasks that wait for them.
#[derive(Debug)]
pub struct Promise {
    announcer: Arc<Announcer>,
    ids: Vec<Uuid>,
}

impl Promise {
    /// Keeps the events that `picks` selects and gives up the others, which this commit did not store.
    pub fn only(mut self, picks: impl Fn(Uuid) -> bool) -> Promise {
        let (kept, others) = std::mem::take(&mut self.ids).into_iter().partition(|id| picks(*id));
        self.ids = kept;
        self.announcer.give_back(others);
        self
    }

    /// Records that all of them were handed to the publisher. Those whose fate is known already stay removed.
    fn kept(mut self) {
        let mut in_flight = self.announcer.in_flight.lock();
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

/// Events that were handed to the publisher.
#[derive(Debug, Default)]
pub struct Announced(Option<Box<HandedOver>>);

/// What it takes to await the events, or to leave them to their channel.
#[derive(Debug)]
struct HandedOver {
    all: Finished,
    posted: tokio::time::Instant,
    /// The number of events.
    events: u32,
    announcer: Arc<Announcer>,
    left: Left,
}

/// The permit of events that no command waits for any more. They hold it until the fate of each is known.
type Left = Arc<OnceLock<OwnedSemaphorePermit>>;

impl Announced {
    /// Whether there are any: all of them may have been in flight already.
    pub fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Waits until the broker has confirmed all of them, or they were set aside. If the broker is connected but does
    /// not confirm them in time, they are left to their channel: they are stored, and go out in order once the broker
    /// takes them.
    pub async fn confirmed(self) {
        let Some(handed_over) = self.0 else { return };
        let HandedOver { all, posted, events, announcer, left } = *handed_over;
        tokio::select! {
            biased;
            () = all.wait() => {}
            // `None` while the publisher shuts down: the events handed to it are then decided anyway.
            Some(permit) = Box::pin(announcer.permit_to_leave(posted, events)) => {
                debug!(events, "the broker has not confirmed events yet; leaving them to the outbox");
                left.get_or_init(|| permit);
            }
        }
    }
}

/// Waits until events may be left to their channel. Not while the broker is disconnected: commands wait then, as their
/// messages could not be acknowledged anyway.
async fn may_leave(
    mut state: watch::Receiver<ConnectionState>,
    leave: Arc<Semaphore>,
    posted: tokio::time::Instant,
    events: u32,
) -> Option<OwnedSemaphorePermit> {
    let others_are_left = leave.available_permits() < LEFT_MAX;
    sleep_until(posted + if others_are_left { CONFIRM_WAIT_WITH_LEFT } else { CONFIRM_WAIT }).await;
    state.wait_for(|state| *state == ConnectionState::Connected).await.ok()?;
    leave.acquire_many_owned(events).await.ok()
}

impl Announcer {
    /// Spawns the task that marks events. It ends once the announcer and everything in flight are dropped.
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

    /// Promises events before their commit. As soon as the commit is visible, another task of this process may read the
    /// events from the outbox and would publish them a second time.
    pub fn promise(self: &Arc<Self>, events: &[Event]) -> Promise {
        let mut in_flight = self.in_flight.lock();
        let mut ids = Vec::with_capacity(events.len());
        for event in events {
            // An event that was posted before is only emitted again; nothing is promised.
            if let Stage::Promised(by) = in_flight.entry(event.id).or_insert(Stage::Promised(0)) {
                *by += 1;
                ids.push(event.id);
            }
        }
        Promise { announcer: Arc::clone(self), ids }
    }

    /// Hands a payment's unsent events to the publisher without waiting for the broker. Events that this process
    /// already has in flight are not published twice.
    pub async fn announce(self: &Arc<Self>, payment: Uuid, unsent: Unsent) -> Announced {
        self.announce_new(payment, unsent, Vec::new(), self.promise(&[])).await
    }

    /// Like [`Announcer::announce`], with the promised new events behind the unsent ones. If the payment's events are
    /// set aside, all of them stay in the outbox.
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

    /// Returns the unsent events after giving another replica time to mark those it stored a moment ago. It has most
    /// likely published them, and each would go out a second time.
    async fn without_marked(&self, unsent: Unsent) -> Vec<OutboxEvent> {
        let Unsent { mut events, mut fresh, .. } = unsent;
        {
            let in_flight = self.in_flight.lock();
            fresh.retain(|position| {
                events.iter().any(|event| event.position == *position && !in_flight.contains_key(&event.id))
            });
        }
        let deadline = tokio::time::Instant::now() + UNTIL_MARKED;
        let mut backoff = backoff::contention();
        while !fresh.is_empty() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(backoff.next_delay()).await;
            // Publishing twice is better than late; order and delivery do not depend on this.
            let Ok(unmarked) = self.store.unmarked(&fresh).await else { break };
            events.retain(|event| !fresh.contains(&event.position) || unmarked.contains(&event.position));
            fresh = unmarked;
        }
        events
    }

    /// Hands events to the publisher. The returned value can be used to wait for them.
    async fn post(self: &Arc<Self>, batch: Vec<Outgoing>) -> Announced {
        let (unfinished, all) = Finished::signal();
        let left = Left::default();
        // More events than there are permits in total would wait for ever.
        let events = u32::try_from(batch.len().min(LEFT_MAX)).unwrap_or(u32::MAX);
        let in_flight = Arc::new(InFlightBatch {
            announcer: Arc::clone(self),
            events: batch.iter().map(InFlightEvent::of).collect(),
            spans: self.spans(&batch),
            _unfinished: unfinished,
            _left: Arc::clone(&left),
        });
        self.publisher.post(batch, Arc::new(move |published| in_flight.decide(published))).await;
        let (posted, announcer) = (tokio::time::Instant::now(), Arc::clone(self));
        Announced(Some(Box::new(HandedOver { all, posted, events, announcer, left })))
    }

    /// Waits until this many events, posted at this time, may be left to their channel.
    async fn permit_to_leave(&self, posted: tokio::time::Instant, events: u32) -> Option<OwnedSemaphorePermit> {
        may_leave(self.publisher.state(), Arc::clone(&self.leave), posted, events).await
    }

    /// Hands events of many payments to the publisher, each payment separately, so that one that has to wait delays no
    /// other. Returns the number of events of each payment.
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

    /// Publishes stored events again, in order: to the queue of `reply`, or to all subscribers. Returns how many of
    /// them, counted from the first, the broker confirmed in time.
    pub async fn resend(&self, events: Vec<OutboxEvent>, reply: Option<Reply>, timeout: Duration) -> usize {
        // Without the `reply_to` of their own commands, which were answered the first time.
        let again = |event: OutboxEvent| Outgoing { reply: None, ..from_outbox(event) };
        self.publisher.resend(events.into_iter().map(again).collect(), reply, timeout).await
    }

    /// Sends an answer to its queue only. Returns whether the broker has confirmed it.
    pub async fn reply(&self, answer: Outgoing, reply: Reply, timeout: Duration) -> bool {
        self.publisher.resend(vec![answer], Some(reply), timeout).await == 1
    }

    /// Starts a span for each event, until its fate is known.
    fn spans(&self, batch: &[Outgoing]) -> Mutex<Vec<(i64, Span)>> {
        if !are_exported() {
            return Mutex::default();
        }
        let exchange = self.publisher.names().events();
        Mutex::new(batch.iter().map(|event| (event.position, sent(event, &exchange))).collect())
    }

    /// Waits until everything confirmed so far is marked, or the marking task has ended.
    pub async fn marked(&self) {
        let (wanted, marked) = Finished::signal();
        if self.marks.send(Mark::Wanted(wanted)).is_ok() {
            marked.wait().await;
        }
    }

    /// Whether the publisher is connected.
    pub fn is_connected(&self) -> bool {
        *self.publisher.state().borrow() == ConnectionState::Connected
    }

    /// Claims the unsent events of a payment that this process does not have in flight. Waits until none of them is
    /// promised, as an event that another task is about to post must go out before later ones. Nothing is claimed while
    /// waiting, so no two tasks ever wait for each other.
    async fn claim(self: &Arc<Self>, events: &[OutboxEvent]) -> Promise {
        loop {
            let posted = self.posted.notified();
            tokio::pin!(posted);
            // Register before checking, or a post in between would be missed.
            posted.as_mut().enable();
            if let Some(claim) = self.try_claim(events) {
                return claim;
            }
            posted.await;
        }
    }

    fn try_claim(self: &Arc<Self>, events: &[OutboxEvent]) -> Option<Promise> {
        let mut in_flight = self.in_flight.lock();
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

    /// Gives up promised events that will not be posted.
    fn give_back(&self, ids: Vec<Uuid>) {
        if ids.is_empty() {
            return;
        }
        let mut in_flight = self.in_flight.lock();
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

    /// Sets the event aside, together with the later ones of its payment.
    async fn set_aside(&self, event: &InFlightEvent, reason: &str) {
        let (payment, position) = (event.payment, event.position);
        error!(
            %payment,
            position,
            reason,
            "the broker refuses an event; setting it and the payment's later events aside until an operator releases \
             them"
        );
        let store = || self.store.set_aside(payment, position, reason);
        let Ok(()) = retry(backoff::reconnect(), store, |error, _| -> Result<(), Infallible> {
            warn!(error = chain(&error), %payment, position, "cannot set an event aside; retrying");
            Ok(())
        })
        .await;
        self.publisher.aside().stored(payment, Instant::now());
        self.in_flight.lock().remove(&event.id);
    }
}

/// Events that were handed over together, until the fate of each is known.
struct InFlightBatch {
    announcer: Arc<Announcer>,
    events: Vec<InFlightEvent>,
    /// The spans of events whose fate is not known yet.
    spans: Mutex<Vec<(i64, Span)>>,
    /// Dropped once all are decided, which wakes the task that waits for them.
    _unfinished: Unfinished,
    /// The permit, if no task waits for them any more.
    _left: Left,
}

impl InFlightBatch {
    /// Records the fate of an event. Runs in a channel's task, so it does nothing that could take long.
    fn decide(self: &Arc<Self>, published: Published) {
        let Published { position, verdict, reply } = published;
        let Some(event) = self.events.iter().find(|event| event.position == position) else { return };
        let mut span = self.span(position);
        match verdict {
            Verdict::Confirmed => {
                metrics::event_published(&event.event_type);
                if reply == ReplyState::Unroutable {
                    metrics::reply_unroutable();
                }
                failpoint::reach("confirmed", event.payment);
                let sent = Sent { position, reply: reply.as_str() };
                if self.announcer.marks.send(Mark::Event(event.id, sent)).is_err() {
                    warn!(position, "an event was published but cannot be marked as sent; it will be sent again");
                }
            }
            Verdict::Refused(reason) => {
                metrics::event_refused();
                span.fail("set_aside");
                let (batch, event) = (Arc::clone(self), event.clone());
                tokio::spawn(async move { batch.announcer.set_aside(&event, &reason).await });
            }
            // It stays in the outbox and goes out with the others when the payment is released.
            Verdict::Behind => {
                span.fail("behind_set_aside");
                self.announcer.in_flight.lock().remove(&event.id);
            }
        }
    }
}

impl InFlightBatch {
    fn span(&self, position: i64) -> Span {
        let mut spans = self.spans.lock();
        let index = spans.iter().position(|(other, _)| *other == position);
        index.map(|index| spans.swap_remove(index).1).unwrap_or_default()
    }
}

/// What is needed of an event once its fate is known.
#[derive(Debug, Clone)]
struct InFlightEvent {
    position: i64,
    id: Uuid,
    payment: Uuid,
    event_type: String,
}

impl InFlightEvent {
    fn of(event: &Outgoing) -> InFlightEvent {
        let event_type = event_type(&event.routing_key).to_owned();
        InFlightEvent { position: event.position, id: event.event_id, payment: event.payment_id, event_type }
    }
}

/// Marks confirmed events in batches. Nothing waits for a mark: at worst, an unmarked event is sent again.
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
        // Dropping the senders wakes the tasks that waited for these marks.
        drop(wanted);
        last = tokio::time::Instant::now();
        let now = last.into_std();
        marked.push_back((now, ids));
        if let Some(announcer) = announcer.upgrade() {
            // Kept a little longer: a task that read the outbox just before the mark would publish them a second time.
            let mut in_flight = announcer.in_flight.lock();
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
                    "cannot mark published events as sent; retrying; if that fails, they are sent again"
                );
                tokio::time::sleep(backoff.next_delay()).await;
            }
        }
    }
}

/// A message to the marking task.
#[derive(Debug)]
enum Mark {
    /// The broker confirmed this event.
    Event(Uuid, Sent),
    /// A task waits until everything before this is marked.
    Wanted(Unfinished),
}

/// Returns the new events of a commit with the positions that the database assigned.
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
