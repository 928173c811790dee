//! One publishing channel and its task. While a batch is in flight, the next one gathers; no timer ever delays a
//! message.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use lapin::Channel;
use lapin::options::ConfirmSelectOptions;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use uuid::Uuid;

use super::batch::{Message, Report, publish};
use super::nacks::{Nacks, Replacement};
use super::pending::{BATCH_MAX, Pending, Policy};
use super::unordered::SetAside;
use super::verdict::{Sent, Verdict};
use crate::backoff::{self, Backoff};
use crate::bus::connection::Connection;
use crate::bus::connection::reconnecting::Reconnecting;
use crate::bus::{BusError, bounded, describe};

/// How many messages that could be sent at once a channel accepts beyond a batch.
const MOST: usize = 8 * BATCH_MAX;

/// How many messages a channel accepts beyond a batch in total; with those in its queue, this bounds its memory.
///
/// A full queue of a subscriber (`reject-publish`) nacks every event that is routed to it, for as long as it is full.
/// Such events pause here without counting towards `MOST`; otherwise they would soon fill the channel, and the events
/// of everybody else would wait for one subscriber. Their number is bounded as well: a task that posts an event waits
/// for it only for a while and then leaves it here, and only a limited number may be left. Beyond that, a command's
/// delivery stays unacknowledged until its events are confirmed, and the broker delivers no more of the commands whose
/// events go there. This bound is beyond both, because once it is reached, the channel's other payments wait as well.
/// It ensures that no setting can fill the memory.
const MOST_IN_ALL: usize = 64 * BATCH_MAX;

/// This many consecutive batches without any confirm are no accident.
const IN_VAIN: u32 = 2;

/// Called once with the verdict on a message; dropped if the channel is shut down before there is one.
pub(in crate::bus) type Answer = Box<dyn FnOnce(Verdict) + Send + Sync>;

/// A message that was handed to a channel.
pub(in crate::bus) struct Posted {
    /// Messages with the same value keep their order.
    pub order: Uuid,
    pub message: Message,
    pub answer: Answer,
}

/// The task behind one publishing channel.
pub(in crate::bus) struct PublishChannel {
    reconnecting: Reconnecting,
    confirm_timeout: Duration,
    /// Whether a missing or forbidden exchange is a fault of the connection and not of the message.
    needs_exchange: bool,
    posted: mpsc::Receiver<Posted>,
    closed: bool,
    pending: Pending<Posted>,
    /// For events only: replies and dead letters have no order, so that nothing waits behind them.
    aside: Option<SetAside>,
    session: Option<(Arc<Connection>, Channel)>,
    backoff: Backoff,
    /// The number of consecutive batches without any confirm.
    in_vain: u32,
    /// The number of channels that have reached `IN_VAIN`.
    silent: watch::Sender<usize>,
    nacks: Nacks,
    replacement: Replacement,
}

/// What the channels of a publisher share.
#[derive(Debug, Clone)]
pub(in crate::bus) struct Shared {
    /// The connection.
    pub reconnecting: Reconnecting,
    /// How long a confirm may be missing.
    pub confirm_timeout: Duration,
    /// The payments whose events are set aside.
    pub aside: SetAside,
    /// The number of channels that publish repeatedly without getting any confirm.
    pub silent: watch::Sender<usize>,
    /// The messages that the broker nacked.
    pub nacks: Nacks,
    /// Ends the channels.
    pub shutdown: CancellationToken,
}

impl PublishChannel {
    /// Starts a channel for events, which wait for as long as their exchange is missing.
    pub(in crate::bus) fn events(shared: Shared) -> mpsc::Sender<Posted> {
        let policy = Policy { refusals: 2, pause: Duration::from_secs(2) };
        let aside = shared.aside.clone();
        PublishChannel::spawn(shared, Some(aside), policy)
    }

    /// Starts a channel for replies, dead letters and webhooks, where the first refusal is final.
    pub(in crate::bus) fn side(shared: Shared) -> mpsc::Sender<Posted> {
        let policy = Policy { refusals: 1, pause: Duration::ZERO };
        PublishChannel::spawn(shared, None, policy)
    }

    fn spawn(shared: Shared, aside: Option<SetAside>, policy: Policy) -> mpsc::Sender<Posted> {
        let (sender, posted) = mpsc::channel(2 * BATCH_MAX);
        let Shared { reconnecting, confirm_timeout, silent, nacks, shutdown, .. } = shared;
        let task = PublishChannel {
            reconnecting,
            confirm_timeout,
            needs_exchange: aside.is_some(),
            posted,
            closed: false,
            pending: Pending::new(policy),
            aside,
            session: None,
            backoff: backoff::reconnect(),
            in_vain: 0,
            silent,
            nacks,
            replacement: Replacement::new(),
        };
        tokio::spawn(async move { shutdown.run_until_cancelled(task.run()).await });
        sender
    }

    async fn run(mut self) {
        while self.gather().await {
            let Some((connection, channel)) = self.session().await else {
                return;
            };
            let batch = self.pending.next_batch(Instant::now());
            let messages = batch.iter().map(|waiting| &waiting.message.message);
            let report = publish(&connection, &channel, messages, self.confirm_timeout).await;
            let closed = self.look_at(&connection, &report);
            let fruitless = closed.is_none() && report.sent.iter().all(|sent| *sent == Sent::Unknown);
            // Messages that were posted meanwhile wait too, and share the verdict on one before them.
            self.take_posted();
            let decided = self.pending.settle(batch, report.sent, closed.as_deref(), Instant::now());
            for (posted, verdict) in decided {
                if let (Verdict::Refused(_), Some(aside)) = (&verdict, &self.aside) {
                    // Before anything else is accepted, so that nothing later of that payment is published.
                    aside.refused(posted.order);
                }
                call_back(posted.answer, verdict);
            }
            self.note(fruitless, &connection);
            if fruitless {
                sleep(self.backoff.next_delay()).await;
            } else {
                self.backoff.reset();
            }
        }
    }

    /// Reports when the broker accepts messages and confirms none. A queue without a leader causes that, and nothing
    /// else would reveal it. A lost connection is reported by `Reconnecting`.
    fn note(&mut self, fruitless: bool, connection: &Connection) {
        let before = self.in_vain;
        if !fruitless {
            self.in_vain = 0;
        } else if connection.is_alive() {
            self.in_vain = self.in_vain.saturating_add(1);
            warn!(waiting = self.pending.len(), "the broker confirms no published messages; publishing them again");
        }
        if before < IN_VAIN && self.in_vain >= IN_VAIN {
            self.silent.send_modify(|channels| *channels = channels.saturating_add(1));
        } else if before >= IN_VAIN && self.in_vain < IN_VAIN {
            self.silent.send_modify(|channels| *channels = channels.saturating_sub(1));
        }
    }

    /// Accepts posted messages, and waits until something can be sent. Returns false when nothing will follow.
    async fn gather(&mut self) -> bool {
        loop {
            self.take_posted();
            if self.pending.is_ready(Instant::now()) {
                return true;
            }
            if self.closed && self.pending.is_empty() {
                return false;
            }
            let pause = self.pending.wake_at();
            let room = self.has_room() && !self.closed;
            tokio::select! {
                posted = self.posted.recv(), if room => match posted {
                    Some(posted) => self.take(posted),
                    None => self.closed = true,
                },
                () = sleep_until(pause.unwrap_or_else(Instant::now)), if pause.is_some() => {}
            }
        }
    }

    fn take_posted(&mut self) {
        while self.has_room()
            && let Ok(posted) = self.posted.try_recv()
        {
            self.take(posted);
        }
    }

    fn has_room(&self) -> bool {
        self.pending.fresh() < MOST && self.pending.len() < MOST_IN_ALL
    }

    fn take(&mut self, posted: Posted) {
        if self.aside.as_ref().is_some_and(|aside| aside.contains(posted.order)) {
            call_back(posted.answer, Verdict::Behind);
        } else {
            self.pending.push(posted.order, posted);
        }
    }

    /// Returns the channel in use or a new one, after waiting for the connection. `None` once that is shut down.
    async fn session(&mut self) -> Option<(Arc<Connection>, Channel)> {
        loop {
            if let Some((connection, channel)) = &self.session
                && connection.is_alive()
                && channel.status().connected()
            {
                return Some((Arc::clone(connection), channel.clone()));
            }
            self.session = None;
            let connection = self.reconnecting.connection().await?;
            match open(&connection).await {
                Ok(channel) => self.session = Some((connection, channel)),
                Err(error) => {
                    warn!(error = describe(&error), "cannot open a channel for publishing; retrying");
                    // A blocked connection answers nothing and is healthy; any other that is silent is not.
                    if matches!(error, BusError::TimedOut { .. }) && !connection.is_blocked() {
                        connection.abandon(describe(&error));
                    }
                    sleep(self.backoff.next_delay()).await;
                }
            }
        }
    }

    /// Updates channel and connection after a batch; returns why a message closed the channel, if one did.
    fn look_at(&mut self, connection: &Connection, report: &Report) -> Option<String> {
        if report.sent.contains(&Sent::Unknown) {
            // Late confirms and returns of this batch must never be mixed with those of another.
            self.session = None;
        }
        self.look_at_nacks(&report.sent);
        if self.needs_exchange && report.sent.iter().any(|sent| *sent != Sent::Unknown) {
            self.reconnecting.trust();
        }
        let closed = report.closed.as_ref()?;
        if closed.by_topology && self.needs_exchange {
            self.reconnecting.doubt();
            connection.abandon(closed.reason.clone());
            return None;
        }
        warn!(
            error = closed.reason,
            "the broker closed a channel because of a message; searching the unconfirmed messages for it"
        );
        Some(closed.reason.clone())
    }

    /// Reports nacks, and replaces the channel from time to time: it has no confirms outstanding.
    fn look_at_nacks(&mut self, sent: &[Sent]) {
        let now = Instant::now();
        if let Some(nacked) = self.nacks.note(sent, now) {
            warn!(
                nacked,
                waiting = self.pending.len(),
                "the broker rejects messages (basic.nack): a queue is full or has no leader; publishing them again"
            );
        }
        if self.replacement.is_due(sent, now) {
            self.session = None;
        }
    }
}

/// No answer is expected to panic; if one does, it must not end the channel's task.
fn call_back(answer: Answer, verdict: Verdict) {
    if std::panic::catch_unwind(AssertUnwindSafe(|| answer(verdict))).is_err() {
        error!("the handler of a publish result panicked; the relay will send the message again");
    }
}

/// Opens a channel with publisher confirms: without them, a lost message looks like a published one.
pub(in crate::bus) async fn open(connection: &Connection) -> Result<Channel, BusError> {
    let channel = connection.channel().await?;
    let selecting = channel.confirm_select(ConfirmSelectOptions::default());
    bounded("enabling publisher confirms", connection.timeout(), selecting).await?;
    Ok(channel)
}
