//! One publishing channel and its task. While a round is under way the next one gathers; no timer ever delays a
//! message.

use std::sync::Arc;
use std::time::Duration;

use lapin::Channel;
use lapin::options::ConfirmSelectOptions;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use super::backlog::{Backlog, Policy, ROUND, Sent, Verdict};
use super::connection::Connection;
use super::link::Link;
use super::round::{Message, Report, publish};
use super::{BusError, bounded, describe};
use crate::backoff::{self, Backoff};

/// How many messages a lane takes in beyond a round; with those in its queue, the bound of its memory.
const MOST: usize = 8 * ROUND;

/// A message given to a lane.
#[derive(Debug)]
pub(super) struct Posted {
    /// What has to keep its order among itself.
    pub order: Uuid,
    pub message: Message,
    /// Told the verdict, unless the lane is shut down before there is one.
    pub answer: oneshot::Sender<Verdict>,
}

/// A channel of its own.
#[derive(Debug)]
pub(super) struct Lane {
    link: Link,
    patience: Duration,
    /// Whether a missing or barred exchange is the connection's trouble and not the message's.
    needs_exchange: bool,
    posted: mpsc::Receiver<Posted>,
    closed: bool,
    backlog: Backlog<(Message, oneshot::Sender<Verdict>)>,
    session: Option<(Arc<Connection>, Channel)>,
    backoff: Backoff,
}

impl Lane {
    /// Starts a lane for events, which wait as long as their exchange is missing.
    pub(super) fn events(link: Link, patience: Duration, shutdown: CancellationToken) -> mpsc::Sender<Posted> {
        let policy = Policy { refusals: 2, pause: Duration::from_secs(2) };
        Lane::spawn(link, patience, true, policy, shutdown)
    }

    /// Starts a lane for replies and dead letters: the first refusal is the last word.
    pub(super) fn side(link: Link, patience: Duration, shutdown: CancellationToken) -> mpsc::Sender<Posted> {
        let policy = Policy { refusals: 1, pause: Duration::ZERO };
        Lane::spawn(link, patience, false, policy, shutdown)
    }

    fn spawn(
        link: Link,
        patience: Duration,
        needs_exchange: bool,
        policy: Policy,
        shutdown: CancellationToken,
    ) -> mpsc::Sender<Posted> {
        let (sender, posted) = mpsc::channel(2 * ROUND);
        let lane = Lane {
            link,
            patience,
            needs_exchange,
            posted,
            closed: false,
            backlog: Backlog::new(policy),
            session: None,
            backoff: backoff::reconnect(),
        };
        tokio::spawn(async move { shutdown.run_until_cancelled(lane.run()).await });
        sender
    }

    async fn run(mut self) {
        while self.gather().await {
            let Some((connection, channel)) = self.session().await else {
                return;
            };
            let round = self.backlog.next_round(Instant::now());
            let messages = round.iter().map(|waiting| &waiting.message.0);
            let report = publish(&connection, &channel, messages, self.patience).await;
            let closed = self.look_at(&connection, &report);
            let fruitless = closed.is_none() && report.sent.iter().all(|sent| *sent == Sent::Unknown);
            // What came in meanwhile waits too, and shares the fate of one before it.
            self.take_posted();
            let decided = self.backlog.settle(round, report.sent, closed.as_deref(), Instant::now());
            for ((_, answer), verdict) in decided {
                if answer.send(verdict).is_err() {
                    debug!("nobody waits for the verdict on a message any more");
                }
            }
            if fruitless {
                sleep(self.backoff.next_delay()).await;
            } else {
                self.backoff.reset();
            }
        }
    }

    /// Takes in what was posted, and waits until something can be sent. False when there will be nothing any more.
    async fn gather(&mut self) -> bool {
        loop {
            self.take_posted();
            if self.backlog.is_ready(Instant::now()) {
                return true;
            }
            if self.closed && self.backlog.is_empty() {
                return false;
            }
            let pause = self.backlog.wake_at();
            let room = self.backlog.len() < MOST && !self.closed;
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
        while self.backlog.len() < MOST
            && let Ok(posted) = self.posted.try_recv()
        {
            self.take(posted);
        }
    }

    fn take(&mut self, posted: Posted) {
        self.backlog.push(posted.order, (posted.message, posted.answer));
    }

    /// The channel in use, or a new one; waits for the link. Nothing once that is shut down.
    async fn session(&mut self) -> Option<(Arc<Connection>, Channel)> {
        loop {
            if let Some((connection, channel)) = &self.session
                && connection.is_alive()
                && channel.status().connected()
            {
                return Some((Arc::clone(connection), channel.clone()));
            }
            self.session = None;
            let connection = self.link.connection().await?;
            match open(&connection).await {
                Ok(channel) => self.session = Some((connection, channel)),
                Err(error) => {
                    warn!(error = describe(&error), "cannot open a channel to publish on");
                    // A blocked connection answers nothing and is well; any other that is silent is not.
                    if matches!(error, BusError::TimedOut { .. }) && !connection.is_blocked() {
                        connection.abandon(describe(&error));
                    }
                    sleep(self.backoff.next_delay()).await;
                }
            }
        }
    }

    /// Draws the consequences of a round for channel and connection; tells why a message closed the channel.
    fn look_at(&mut self, connection: &Connection, report: &Report) -> Option<String> {
        if report.sent.contains(&Sent::Unknown) {
            // Late confirms and returns of this round must never meet another one.
            self.session = None;
        }
        let closed = report.closed.as_ref()?;
        if closed.by_topology && self.needs_exchange {
            connection.abandon(closed.reason.clone());
            return None;
        }
        warn!(error = closed.reason, "the broker closed a channel because of a message");
        Some(closed.reason.clone())
    }
}

/// A channel with publisher confirms: without them a lost message looks like a published one.
pub(super) async fn open(connection: &Connection) -> Result<Channel, BusError> {
    let channel = connection.channel().await?;
    let selecting = channel.confirm_select(ConfirmSelectOptions::default());
    bounded("asking for publisher confirms", connection.patience(), selecting).await?;
    Ok(channel)
}
