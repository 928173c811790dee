//! Consuming: one connection for all queues of a worker and, for each queue, a channel, a prefetch and a supervisor.
//!
//! A consumer ends for many reasons, and only some of them are errors: when a queue is deleted or its leader moves, the
//! stream ends without one. In every case the supervisor creates channel, prefetch and consumer again, with growing
//! delays, and its state says why nothing is consumed meanwhile.

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
use super::delivery::Delivery;
use crate::backoff;
use crate::bus::connection::Connection;
use crate::bus::connection::reconnecting::{Reconnecting, Role};
use crate::bus::connection::refusal::named;
use crate::bus::{BusError, BusSettings, bounded, describe, short};

/// A consumer that lived this long was healthy: its successor is created soon.
const STEADY: Duration = Duration::from_secs(10);

/// How often a silent channel is checked.
const LOOK: Duration = Duration::from_secs(1);

/// How long deliveries of a channel that is no longer used may stay unsettled. Then they go back to their queue,
/// because the broker may have delivered more on that channel, which nobody received.
const SETTLING: Duration = Duration::from_secs(120);

/// How long the broker may take to close a channel that is no longer used; nobody waits for it.
const RETIRING: Duration = Duration::from_secs(60);

/// The most unacknowledged messages that a quorum queue delivers to one consumer.
const MAX_PREFETCH: u16 = 2000;

/// The consuming connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Consumer {
    reconnecting: Reconnecting,
    shutdown: CancellationToken,
}

/// The state of the consumption of one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueState {
    /// Deliveries arrive.
    Consuming,
    /// Paused on purpose; everything that was prefetched is in the receiver.
    Paused,
    /// Nothing arrives, and why; it is being retried.
    Down(String),
}

/// The handle to the consumption of one queue. Dropping it ends the consumption, and its channel is closed, which
/// returns unacknowledged deliveries to the queue.
#[derive(Debug)]
pub struct Consumption {
    wanted: watch::Sender<Wanted>,
    state: watch::Receiver<QueueState>,
    requests: mpsc::Sender<Request>,
}

type Request = oneshot::Sender<Result<Option<Delivery>, BusError>>;

/// What the handle asks of the supervisor.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    /// Whether to consume.
    consuming: bool,
    /// Whether the queue is left to others, so that unacknowledged deliveries go back to it and none are taken.
    left: bool,
}

impl Wanted {
    fn deliveries(self) -> bool {
        self.consuming && !self.left
    }
}

impl Consumer {
    /// Starts connecting, and reconnects whenever the connection is lost. When the token is cancelled the connection
    /// closes, and everything unacknowledged goes back to its queue: drain first.
    pub fn spawn(settings: BusSettings, shutdown: CancellationToken) -> Consumer {
        Consumer { reconnecting: Reconnecting::spawn(settings, Role::Consumer, shutdown.clone()), shutdown }
    }

    /// Returns the current connection, if there is one, for other requests to the broker.
    pub fn connection(&self) -> Option<Arc<Connection>> {
        self.reconnecting.current()
    }

    /// Consumes a queue. The receiver holds at most `prefetch` deliveries (1 to 2,000) and ends with the consumption.
    pub fn subscribe(&self, queue: &str, prefetch: u16) -> (Consumption, mpsc::Receiver<Delivery>) {
        // Never 0: that would mean no limit, and lapin buffers without one.
        let prefetch = prefetch.clamp(1, MAX_PREFETCH);
        let (deliveries, receiver) = mpsc::channel(usize::from(prefetch));
        let (wanted, wants) = watch::channel(Wanted { consuming: true, left: false });
        let (states, state) = watch::channel(QueueState::Down("not connected yet".to_owned()));
        let (requests, requested) = mpsc::channel(1);
        let supervisor = Supervisor {
            reconnecting: self.reconnecting.clone(),
            queue: queue.into(),
            prefetch,
            deliveries,
            wants,
            states,
            requested,
        };
        let shutdown = self.shutdown.clone();
        tokio::spawn(async move { shutdown.run_until_cancelled(supervisor.run()).await });
        let consumption = Consumption { wanted, state, requests };
        (consumption, receiver)
    }
}

impl Consumption {
    /// Stops consuming. Prefetched deliveries still arrive; once the state is `Paused`, all of them are in the
    /// receiver, so it must be read on.
    pub fn pause(&self) {
        self.wanted.send_modify(|wanted| wanted.consuming = false);
    }

    /// Resumes consuming.
    pub fn resume(&self) {
        self.wanted.send_modify(|wanted| wanted.consuming = true);
    }

    /// Leaves the queue to others: unacknowledged deliveries go back to it, in order, and no more are taken, paused or
    /// not.
    pub fn leave(&self) {
        self.wanted.send_modify(|wanted| wanted.left = true);
    }

    /// Returns to a queue that was left: it is consumed or paused as before.
    pub fn come_back(&self) {
        self.wanted.send_modify(|wanted| wanted.left = false);
    }

    /// Fetches one message while paused, as the probe of a breaker.
    ///
    /// # Errors
    /// The queue cannot be reached at the moment.
    pub async fn fetch_one(&self) -> Result<Option<Delivery>, BusError> {
        let (answer, fetched) = oneshot::channel();
        self.requests.send(answer).await.map_err(|_| BusError::Closed)?;
        fetched.await.map_err(|_| BusError::Closed)?
    }

    /// Returns the state, for readiness.
    pub fn state(&self) -> watch::Receiver<QueueState> {
        self.state.clone()
    }
}

/// Why the use of a channel ended.
enum End {
    /// The handle or the receiver was dropped.
    Dropped,
    /// The queue is left to others.
    Left,
    /// The channel or the consumer is gone and must be created again.
    Broken(String),
}

/// A channel and its deliveries.
struct Opened {
    channel: Channel,
    acks: Acks,
    /// The deliveries and fetched messages that are not settled yet.
    unsettled: TaskTracker,
}

/// The task behind one queue.
struct Supervisor {
    reconnecting: Reconnecting,
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
                    info!(queue = %self.queue, "consumption stopped; other replicas consume the queue");
                    self.report(QueueState::Paused);
                    continue;
                }
                Ok(End::Broken(reason)) => reason,
                Err(error) => describe(&error),
            };
            warn!(queue = %self.queue, error = reason, "consumption of a queue failed; retrying");
            self.report(QueueState::Down(reason));
            if since.elapsed() > STEADY {
                backoff.reset();
            }
            sleep(backoff.next_delay()).await;
        }
    }

    /// Waits for a connection, and answers probes meanwhile. While the queue is left to others, no connection is
    /// needed.
    async fn next_connection(&mut self) -> Option<Arc<Connection>> {
        loop {
            let is_left = self.wants.borrow_and_update().left;
            tokio::select! {
                connection = self.reconnecting.connection(), if !is_left => return connection,
                changed = self.wants.changed() => changed.ok()?,
                request = self.requested.recv() => answer(request?, Err(BusError::Closed)),
            }
        }
    }

    /// Serves the queue on one connection.
    async fn serve(&mut self, connection: &Connection) -> Result<End, BusError> {
        let timeout = connection.timeout();
        let mut opened = self.open(connection).await?;
        loop {
            let wanted = self.wants.borrow_and_update().deliveries();
            let end = match wanted {
                true => {
                    let end = self.consume(&opened, timeout).await;
                    if let Ok(None) = end {
                        tokio::spawn(retire(opened, Arc::clone(&self.queue), self.wants.clone()));
                        opened = self.open(connection).await?;
                    }
                    end
                }
                false => self.idle(&opened, timeout).await,
            };
            let ended = match end {
                Ok(None) => continue,
                Ok(Some(end)) => Ok(end),
                Err(error) => Err(error),
            };
            // Otherwise the channel, and what is unsettled on it, would live as long as acknowledgements may come.
            close(&opened.channel, timeout).await;
            return ended;
        }
    }

    async fn open(&self, connection: &Connection) -> Result<Opened, BusError> {
        let channel = connection.channel().await?;
        let qos = channel.basic_qos(self.prefetch, BasicQosOptions::default());
        bounded("setting the prefetch", connection.timeout(), qos).await?;
        // Waiting acknowledgements do not stop the broker: it keeps sending while most of the prefetch is settled.
        let acks = Acks::spawn(channel.clone(), usize::from(self.prefetch / 8), connection.timeout());
        Ok(Opened { channel, acks, unsettled: TaskTracker::new() })
    }

    /// Consumes until it is no longer wanted, which returns `None`, or until the end.
    async fn consume(&mut self, opened: &Opened, timeout: Duration) -> Result<Option<End>, BusError> {
        let Opened { channel, acks, unsettled } = opened;
        let queue = short("queue name", self.queue.as_ref())?;
        let (options, nothing) = (BasicConsumeOptions::default(), FieldTable::default());
        let consuming = channel.basic_consume(queue, ShortString::default(), options, nothing);
        let stream = bounded("consuming from a queue", timeout, consuming).await;
        let mut stream = stream.map_err(|error| named(error, || format!("queue {}", self.queue)))?;
        info!(queue = %self.queue, prefetch = self.prefetch, "consuming from a queue");
        self.report(QueueState::Consuming);
        let mut cancelled = false;
        loop {
            // Reserves a permit before it takes a delivery: one that was taken from the stream is never lost to a
            // cancelled wait.
            let next = async {
                let permit = self.deliveries.reserve().await.ok()?;
                Some((permit, stream.next().await))
            };
            tokio::select! {
                next = next => match next {
                    None => return Ok(Some(End::Dropped)),
                    Some((permit, Some(Ok(delivery)))) => {
                        permit.send(Delivery::new(delivery, &self.queue, timeout).together(acks).counted(unsettled));
                    }
                    Some((_, Some(Err(source)))) => {
                        let error = BusError::Broker { doing: "consuming from a queue", source };
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
                        bounded("cancelling a consumer", timeout, cancelling).await?;
                        cancelled = true;
                    }
                }
                request = self.requested.recv() => match request {
                    Some(request) => answer(request, self.probe(opened, timeout).await),
                    None => return Ok(Some(End::Dropped)),
                },
                // A stream may stay silent forever once its channel is gone, and a full receiver keeps us from polling
                // it.
                () = sleep(LOOK) => if !channel.status().connected() {
                    return Ok(Some(End::Broken("the channel was closed".to_owned())));
                },
            }
        }
    }

    /// Keeps the channel, for acknowledgements and probes, until consuming is wanted.
    async fn idle(&mut self, opened: &Opened, timeout: Duration) -> Result<Option<End>, BusError> {
        info!(queue = %self.queue, "consumption of a queue paused");
        self.report(QueueState::Paused);
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
                    Some(request) => answer(request, self.probe(opened, timeout).await),
                    None => return Ok(Some(End::Dropped)),
                },
                // A paused consumer is not notified when its channel is gone.
                () = sleep(LOOK) => {}
            }
            if !opened.channel.status().connected() {
                return Ok(Some(End::Broken("the channel was closed".to_owned())));
            }
        }
    }

    async fn probe(&self, opened: &Opened, timeout: Duration) -> Result<Option<Delivery>, BusError> {
        let fetched = fetch(&opened.channel, &self.queue, timeout).await?;
        Ok(fetched.map(|delivery| delivery.together(&opened.acks).counted(&opened.unsettled)))
    }

    fn report(&self, state: QueueState) {
        self.states.send_replace(state);
    }
}

/// Closes a channel that no longer consumes, once its deliveries are settled or the queue is left to others. A quorum
/// queue keeps delivering for a moment after it has confirmed the cancellation, and lapin drops those messages: they
/// would be neither here nor in the queue for as long as the channel is open.
async fn retire(opened: Opened, queue: Arc<str>, wants: watch::Receiver<Wanted>) {
    let Opened { channel, unsettled, .. } = opened;
    if !until_settled(&unsettled, wants).await {
        warn!(%queue, unsettled = unsettled.len(), "messages were not settled in time; returning them to their queue");
    }
    close(&channel, RETIRING).await;
}

/// Waits until everything is settled or left to others; returns false if that takes too long.
async fn until_settled(unsettled: &TaskTracker, mut wants: watch::Receiver<Wanted>) -> bool {
    unsettled.close();
    tokio::select! {
        () = unsettled.wait() => true,
        Ok(_) = wants.wait_for(|wanted| wanted.left) => true,
        () = sleep(SETTLING) => false,
    }
}

async fn close(channel: &Channel, timeout: Duration) {
    let closing = channel.close(200, "no longer consumed".into());
    if let Err(error) = bounded("closing a channel", timeout, closing).await {
        debug!(error = describe(&error), "the consumer's channel was already closed");
    }
}

/// Fetches one message from a queue; the caller must settle it.
pub(in crate::bus) async fn fetch(
    channel: &Channel,
    queue: &Arc<str>,
    timeout: Duration,
) -> Result<Option<Delivery>, BusError> {
    let name = short("queue name", queue.as_ref())?;
    let getting = channel.basic_get(name, BasicGetOptions::default());
    let fetched = bounded("fetching one message", timeout, getting).await;
    let fetched = fetched.map_err(|error| named(error, || format!("queue {queue}")))?;
    Ok(fetched.map(|message| Delivery::new(message.delivery, queue, timeout)))
}

fn answer(request: Request, answer: Result<Option<Delivery>, BusError>) {
    if let Err(Ok(Some(delivery))) = request.send(answer) {
        // Nobody waits for the message any more. Unacknowledged, it would be stuck for as long as the channel lives.
        debug!("nothing waits for the fetched message any longer; requeueing it");
        tokio::spawn(async move { delivery.acker.requeue().await });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call that hangs, or a slow gateway, must not withhold messages that only this channel has.
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
