//! Consuming: one connection for all queues of a worker, and for each queue a channel, a prefetch and a supervisor.
//!
//! A consumer ends for many reasons, and only some of them are errors: a queue that is deleted, or a leader that moves,
//! ends the stream without a word. Whatever the reason, the supervisor makes channel, prefetch and consumer anew, with
//! growing pauses, and says in its state why nothing is consumed meanwhile.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::Channel;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::acks::Acks;
use super::connection::{Connection, ConnectionState};
use super::delivery::Delivery;
use super::reconnecting::{Reconnecting, Role};
use super::refusal::named;
use super::{BusError, BusSettings, bounded, describe, short};
use crate::backoff;

/// A consumer that lived this long was a good one: it is made anew soon.
const STEADY: Duration = Duration::from_secs(10);

/// How often a channel is looked at that says nothing.
const LOOK: Duration = Duration::from_secs(1);

/// How long what came on a channel that is not used any more may stay unsettled. Then it goes back to its queue, for the
/// broker may have delivered more on it, which nobody here has.
const SETTLING: Duration = Duration::from_secs(120);

/// How long the broker may take to close a channel that is not used any more; nobody waits for it.
const RETIRING: Duration = Duration::from_secs(60);

/// The most a quorum queue hands out unacknowledged to one consumer.
pub const MAX_PREFETCH: u16 = 2000;

/// The consuming connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Consumer {
    link: Reconnecting,
    shutdown: CancellationToken,
}

/// How the consumption of one queue is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueState {
    /// Deliveries come.
    Consuming,
    /// Paused on purpose; whatever had been prefetched is in the receiver.
    Paused,
    /// Nothing comes, and why; it is being tried again.
    Down(String),
}

/// The handle on one queue. Dropping it ends the consumption; unacknowledged deliveries then go back to the queue once
/// the connection closes.
#[derive(Debug)]
pub struct Consumption {
    wanted: watch::Sender<Wanted>,
    state: watch::Receiver<QueueState>,
    requests: mpsc::Sender<Request>,
}

type Request = oneshot::Sender<Result<Option<Delivery>, BusError>>;

/// What is wanted of a queue.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    /// Deliveries.
    consuming: bool,
    /// Nothing at all, and what was delivered goes back.
    left: bool,
}

impl Wanted {
    fn deliveries(self) -> bool {
        self.consuming && !self.left
    }
}

impl Consumer {
    /// Starts connecting, and connects again whenever the connection is lost. When the token is cancelled the
    /// connection closes, and what is not acknowledged by then goes back to its queue: drain first.
    pub fn spawn(settings: BusSettings, shutdown: CancellationToken) -> Consumer {
        Consumer { link: Reconnecting::spawn(settings, Role::Consumer, shutdown.clone()), shutdown }
    }

    /// How the connection is doing.
    pub fn state(&self) -> watch::Receiver<ConnectionState> {
        self.link.state()
    }

    /// The connection, where there is one now: to ask the broker something.
    pub fn connection(&self) -> Option<Arc<Connection>> {
        self.link.current()
    }

    /// Consumes a queue. The receiver holds at most `prefetch` deliveries (1 to 2,000) and ends with the consumption.
    pub fn subscribe(&self, queue: &str, prefetch: u16) -> (Consumption, mpsc::Receiver<Delivery>) {
        self.start(queue, prefetch, true)
    }

    /// Watches over a queue without consuming it yet; see `Consumption::resume`.
    pub fn subscribe_paused(&self, queue: &str, prefetch: u16) -> (Consumption, mpsc::Receiver<Delivery>) {
        self.start(queue, prefetch, false)
    }

    fn start(&self, queue: &str, prefetch: u16, consuming: bool) -> (Consumption, mpsc::Receiver<Delivery>) {
        // Never 0: that would be no limit, and lapin buffers without one.
        let prefetch = prefetch.clamp(1, MAX_PREFETCH);
        let (deliveries, receiver) = mpsc::channel(usize::from(prefetch));
        let (wanted, wants) = watch::channel(Wanted { consuming, left: false });
        let (states, state) = watch::channel(QueueState::Down("not connected yet".to_owned()));
        let (requests, requested) = mpsc::channel(1);
        let supervisor =
            Supervisor { link: self.link.clone(), queue: queue.into(), prefetch, deliveries, wants, states, requested };
        let shutdown = self.shutdown.clone();
        tokio::spawn(async move { shutdown.run_until_cancelled(supervisor.run()).await });
        let consumption = Consumption { wanted, state, requests };
        (consumption, receiver)
    }
}

impl Consumption {
    /// Stops consuming. Deliveries that were prefetched still come; when the state is `Paused` they are all in the
    /// receiver, which therefore must be read on.
    pub fn pause(&self) {
        self.wanted.send_modify(|wanted| wanted.consuming = false);
    }

    /// Consumes again.
    pub fn resume(&self) {
        self.wanted.send_modify(|wanted| wanted.consuming = true);
    }

    /// Leaves the queue to others: what was delivered and is not acknowledged goes back to it, in its order, and nothing more
    /// is taken, paused or not.
    pub fn leave(&self) {
        self.wanted.send_modify(|wanted| wanted.left = true);
    }

    /// Comes back to a queue that was left: it is consumed, or paused, as before.
    pub fn come_back(&self) {
        self.wanted.send_modify(|wanted| wanted.left = false);
    }

    /// Fetches one message while paused: the probe of a breaker.
    ///
    /// # Errors
    /// The queue cannot be reached now.
    pub async fn fetch_one(&self) -> Result<Option<Delivery>, BusError> {
        let (answer, fetched) = oneshot::channel();
        self.requests.send(answer).await.map_err(|_| BusError::Closed)?;
        fetched.await.map_err(|_| BusError::Closed)?
    }

    /// How it is doing, for readiness.
    pub fn state(&self) -> watch::Receiver<QueueState> {
        self.state.clone()
    }
}

/// Why one channel's life ended.
enum End {
    /// The handle or the receiver was dropped.
    Dropped,
    /// The queue is left to others.
    Left,
    /// Channel or consumer is gone; make it anew.
    Broken(String),
}

/// A channel and what came on it.
struct Opened {
    channel: Channel,
    acks: Acks,
    /// Deliveries and fetched messages that are not settled yet.
    unsettled: TaskTracker,
}

/// The task behind one queue.
struct Supervisor {
    link: Reconnecting,
    queue: Arc<str>,
    prefetch: u16,
    deliveries: mpsc::Sender<Delivery>,
    wants: watch::Receiver<Wanted>,
    states: watch::Sender<QueueState>,
    requested: mpsc::Receiver<Request>,
}

impl Supervisor {
    async fn run(mut self) {
        let mut backoff = backoff::reconnect();
        while let Some(connection) = self.next_connection().await {
            let since = Instant::now();
            let reason = match self.serve(&connection).await {
                Ok(End::Dropped) => return,
                Ok(End::Left) => {
                    info!(queue = %self.queue, "a queue is left to others");
                    self.tell(QueueState::Paused);
                    continue;
                }
                Ok(End::Broken(reason)) => reason,
                Err(error) => describe(&error),
            };
            warn!(queue = %self.queue, error = reason, "a queue is not consumed; trying again");
            self.tell(QueueState::Down(reason));
            if since.elapsed() > STEADY {
                backoff.reset();
            }
            sleep(backoff.next_delay()).await;
        }
    }

    /// A probe gets its answer even while there is no connection. None is needed while the queue is left to others.
    async fn next_connection(&mut self) -> Option<Arc<Connection>> {
        loop {
            let is_left = self.wants.borrow_and_update().left;
            tokio::select! {
                connection = self.link.connection(), if !is_left => return connection,
                changed = self.wants.changed() => changed.ok()?,
                request = self.requested.recv() => answer(request?, Err(BusError::Closed)),
            }
        }
    }

    /// One channel's life.
    async fn serve(&mut self, connection: &Connection) -> Result<End, BusError> {
        let patience = connection.patience();
        let mut opened = self.open(connection).await?;
        loop {
            let wanted = self.wants.borrow_and_update().deliveries();
            let end = match wanted {
                true => {
                    let end = self.consume(&opened, patience).await;
                    if let Ok(None) = end {
                        tokio::spawn(retire(opened, Arc::clone(&self.queue), self.wants.clone()));
                        opened = self.open(connection).await?;
                    }
                    end
                }
                false => self.idle(&opened, patience).await,
            };
            let ended = match end {
                Ok(None) => continue,
                Ok(Some(end)) => Ok(end),
                Err(error) => Err(error),
            };
            // Else it would live as long as acknowledgements for it may come, and what is unsettled with it.
            close(&opened.channel, patience).await;
            return ended;
        }
    }

    async fn open(&self, connection: &Connection) -> Result<Opened, BusError> {
        let channel = connection.channel().await?;
        let qos = channel.basic_qos(self.prefetch, BasicQosOptions::default());
        bounded("setting the prefetch", connection.patience(), qos).await?;
        // Those that wait are not in the broker's way: it sends on while most of the prefetch is settled.
        let acks = Acks::spawn(channel.clone(), usize::from(self.prefetch / 8), connection.patience());
        Ok(Opened { channel, acks, unsettled: TaskTracker::new() })
    }

    /// Consumes until it is no longer wanted, or until the end.
    async fn consume(&mut self, opened: &Opened, patience: Duration) -> Result<Option<End>, BusError> {
        let Opened { channel, acks, unsettled } = opened;
        let queue = short("name of a queue", self.queue.as_ref())?;
        let (options, nothing) = (BasicConsumeOptions::default(), FieldTable::default());
        let consuming = channel.basic_consume(queue, ShortString::default(), options, nothing);
        let stream = bounded("consuming a queue", patience, consuming).await;
        let mut stream = stream.map_err(|error| named(error, || format!("queue {}", self.queue)))?;
        info!(queue = %self.queue, prefetch = self.prefetch, "consuming a queue");
        self.tell(QueueState::Consuming);
        let mut cancelled = false;
        loop {
            // A place first, then a delivery: one that was taken from the stream is never lost to a cancelled wait.
            let next = async {
                let place = self.deliveries.reserve().await.ok()?;
                Some((place, stream.next().await))
            };
            tokio::select! {
                next = next => match next {
                    None => return Ok(Some(End::Dropped)),
                    Some((place, Some(Ok(delivery)))) => {
                        place.send(Delivery::new(delivery, &self.queue, patience).together(acks).counted(unsettled));
                    }
                    Some((_, Some(Err(source)))) => {
                        let error = BusError::Broker { doing: "consuming a queue", source };
                        return Err(named(error, || format!("queue {}", self.queue)));
                    }
                    Some((_, None)) if cancelled => return Ok(None),
                    Some((_, None)) => return Ok(Some(End::Broken("the broker cancelled the consumer".to_owned()))),
                },
                changed = self.wants.changed(), if !cancelled => {
                    let dropped = changed.is_err();
                    let wanted = *self.wants.borrow_and_update();
                    if wanted.left {
                        return Ok(Some(End::Left));
                    }
                    if dropped || !wanted.consuming {
                        let cancelling = channel.basic_cancel(stream.tag(), BasicCancelOptions::default());
                        bounded("cancelling a consumer", patience, cancelling).await?;
                        cancelled = true;
                    }
                }
                request = self.requested.recv() => match request {
                    Some(request) => answer(request, self.probe(opened, patience).await),
                    None => return Ok(Some(End::Dropped)),
                },
                // A stream may stay silent for ever once its channel is gone, and a full receiver keeps us from asking
                // it.
                () = sleep(LOOK) => if !channel.status().connected() {
                    return Ok(Some(End::Broken("the channel was closed".to_owned())));
                },
            }
        }
    }

    /// Keeps the channel, for acknowledgements and probes, until consuming is wanted.
    async fn idle(&mut self, opened: &Opened, patience: Duration) -> Result<Option<End>, BusError> {
        info!(queue = %self.queue, "a queue is paused");
        self.tell(QueueState::Paused);
        loop {
            if self.wants.borrow().left {
                return Ok(Some(End::Left));
            }
            tokio::select! {
                changed = self.wants.changed() => match changed {
                    Ok(()) if self.wants.borrow_and_update().deliveries() => return Ok(None),
                    Ok(()) => {}
                    Err(_) => return Ok(Some(End::Dropped)),
                },
                request = self.requested.recv() => match request {
                    Some(request) => answer(request, self.probe(opened, patience).await),
                    None => return Ok(Some(End::Dropped)),
                },
                // Nothing tells a paused consumer that its channel is gone.
                () = sleep(LOOK) => {}
            }
            if !opened.channel.status().connected() {
                return Ok(Some(End::Broken("the channel was closed".to_owned())));
            }
        }
    }

    async fn probe(&self, opened: &Opened, patience: Duration) -> Result<Option<Delivery>, BusError> {
        let fetched = fetch(&opened.channel, &self.queue, patience).await?;
        Ok(fetched.map(|delivery| delivery.together(&opened.acks).counted(&opened.unsettled)))
    }

    fn tell(&self, state: QueueState) {
        self.states.send_replace(state);
    }
}

/// Closes a channel on which nothing is consumed any more, as soon as what came on it is settled, or left to others. A quorum
/// queue goes on delivering for a moment after it confirmed the cancellation, and lapin drops that: it would be neither with
/// us nor in the queue for as long as the channel is open.
async fn retire(opened: Opened, queue: Arc<str>, wants: watch::Receiver<Wanted>) {
    let Opened { channel, unsettled, .. } = opened;
    if !until_settled(&unsettled, wants).await {
        warn!(%queue, unsettled = unsettled.len(), "messages take too long to be settled; they go back to their queue");
    }
    close(&channel, RETIRING).await;
}

/// Waits until all is settled, or left to others. False where that takes too long.
async fn until_settled(unsettled: &TaskTracker, mut wants: watch::Receiver<Wanted>) -> bool {
    unsettled.close();
    tokio::select! {
        () = unsettled.wait() => true,
        Ok(_) = wants.wait_for(|wanted| wanted.left) => true,
        () = sleep(SETTLING) => false,
    }
}

async fn close(channel: &Channel, patience: Duration) {
    let closing = channel.close(200, "consumed no more".into());
    if let Err(error) = bounded("closing a channel", patience, closing).await {
        debug!(error = describe(&error), "the channel of a consumer was closed already");
    }
}

/// Takes one message off a queue, to be settled.
pub(super) async fn fetch(
    channel: &Channel,
    queue: &Arc<str>,
    patience: Duration,
) -> Result<Option<Delivery>, BusError> {
    let name = short("name of a queue", queue.as_ref())?;
    let getting = channel.basic_get(name, BasicGetOptions::default());
    let fetched = bounded("fetching one message", patience, getting).await;
    let fetched = fetched.map_err(|error| named(error, || format!("queue {queue}")))?;
    Ok(fetched.map(|message| Delivery::new(message.delivery, queue, patience)))
}

fn answer(request: Request, answer: Result<Option<Delivery>, BusError>) {
    if let Err(Ok(Some(delivery))) = request.send(answer) {
        // Nobody waits for it any more; unacknowledged, it would be stuck for as long as the channel lives.
        debug!("a fetched message goes back to its queue");
        tokio::spawn(async move { delivery.acker.requeue().await });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call that hangs, or a gateway that takes its time, must not keep from others what only this channel has.
    #[tokio::test(start_paused = true)]
    async fn a_channel_waits_for_what_is_unsettled_but_not_for_ever() {
        let (wanted, wants) = watch::channel(Wanted { consuming: false, left: false });
        let unsettled = TaskTracker::new();
        let delivery = unsettled.token();
        let begun = Instant::now();
        assert!(!until_settled(&unsettled, wants.clone()).await);
        let took = begun.elapsed();
        assert!((SETTLING..SETTLING + LOOK).contains(&took), "{took:?}");
        wanted.send_modify(|wanted| wanted.left = true);
        assert!(until_settled(&unsettled, wants).await, "what is left to others is waited for no longer");
        drop(delivery);
        let (_wanted, wants) = watch::channel(Wanted { consuming: false, left: false });
        assert!(until_settled(&unsettled, wants).await);
        assert_eq!(begun.elapsed(), took, "nobody waits for what is settled");
    }
}
