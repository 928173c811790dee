//! Obstructions that may delay only what they obstruct: a subscriber whose queue is full, rows that somebody has
//! locked, and clients that connect to a replica and ask nothing. The answers of the healthy variant during each of
//! them are counted as well, so that a run without such answers is not clean.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::canary::Canary;
use crate::disruptions::{Obstructed, Timed};
use crate::script::CARDS;
use crate::support::World;
use crate::tally::Tally;

/// An obstruction, and that a fresh command was answered during it.
type Counted = [&'static str; 2];

const QUEUE: Counted = ["a subscriber's queue is full", "a well variant answers beside a full queue"];
const ROWS: Counted = ["payments' rows are locked by somebody", "a well variant answers beside locked rows"];
const PORT: Counted = ["half-open connections fill a replica's HTTP port", "a well variant answers beside a full port"];

/// How long the faults last in a run in which all of them must have happened.
const LONG: Duration = Duration::from_secs(60);
/// More connections than one client may have at a replica.
const CONNECTIONS: usize = 200;
/// How long opening one may take: a suspended replica accepts none.
const CONNECTING: Duration = Duration::from_secs(1);
/// How long until the broker is queried again.
const AGAIN: Duration = Duration::from_millis(250);

/// Payments in progress, or else past or future ones, as far as they are not locked.
const LOCK: &str = "SELECT id FROM payments p WHERE variant = $1
     ORDER BY EXISTS (SELECT FROM operations o WHERE o.payment_id = p.id AND o.state <> 'settled') DESC
     LIMIT 8 FOR UPDATE OF p SKIP LOCKED";

/// What must have happened in a run whose faults last this long, by the names under which it is counted. A short run
/// kills broker and database all the time, so that few obstructions last as long as planned; and with clusters, the
/// healthy variant itself lacks one of them most of the time.
pub fn kinds(length: Duration, is_cluster: bool) -> Vec<&'static str> {
    let obstructed = [QUEUE, ROWS, PORT];
    match length < LONG {
        true => Vec::new(),
        false if is_cluster => obstructed.map(|[happened, _]| happened).to_vec(),
        false => obstructed.concat(),
    }
}

/// Where and to what the obstructions happen.
#[derive(Clone, Copy)]
pub struct Obstructions<'a> {
    /// The world to obstruct.
    pub world: &'a World,
    /// Where they are counted.
    pub tally: &'a Tally,
    /// The variant that must not be delayed.
    pub canary: &'a Canary<'a>,
    /// When the soak began.
    pub begun: tokio::time::Instant,
}

impl Obstructions<'_> {
    /// Carries out the plan until the faults are over; nothing is obstructed when this returns.
    pub async fn run(self, plan: &Obstructed, over: &CancellationToken) {
        tokio::join!(
            self.each(&plan.queue, over, QUEUE, async |pause| self.fill_queue(pause).await),
            self.each(&plan.rows, over, ROWS, async |pause| self.lock_rows(pause).await),
            self.each(&plan.port, over, PORT, async |pause| self.fill_port(pause).await),
        );
    }

    /// Obstructs something at each of these times. It counts if it lasted as long as planned.
    async fn each(
        self,
        plan: &[Timed<Duration>],
        over: &CancellationToken,
        [happened, answered]: Counted,
        obstruct: impl AsyncFn(Duration) -> Option<Outcome>,
    ) {
        for obstruction in plan {
            over.run_until_cancelled(sleep_until(self.begun + obstruction.at)).await;
            if over.is_cancelled() {
                return;
            }
            if let Some(outcome) = obstruct(obstruction.what).await {
                self.tally.add(happened);
                if outcome.was_answered {
                    self.tally.add(answered);
                }
            }
        }
    }

    /// Waits while something is obstructed.
    async fn wait_out(self, pause: Duration) -> Outcome {
        let since = Instant::now();
        sleep(pause).await;
        Outcome { was_answered: self.canary.has_answered_since(since) }
    }

    /// A subscriber to a variant's answers accepts none.
    async fn fill_queue(self, pause: Duration) -> Option<Outcome> {
        let bus = self.world.bus.another();
        let name = bus.queue("full");
        let outcome = match bus.try_full_queue(&name, &format!("{CARDS}.command.#")).await {
            Ok(()) => Some(self.wait_out(pause).await),
            Err(_) => None,
        };
        while bus.try_delete_queue(&name).await.is_err() {
            sleep(AGAIN).await;
        }
        outcome
    }

    /// Holds a transaction open with locks on payments in progress.
    async fn lock_rows(self, pause: Duration) -> Option<Outcome> {
        let client = self.world.sql_client().await.ok()?;
        client.batch_execute("BEGIN").await.ok()?;
        let rows = client.query(LOCK, &[&CARDS]).await.ok()?;
        if rows.is_empty() {
            return None;
        }
        let outcome = self.wait_out(pause).await;
        // If its connection was lost meanwhile, so were its locks.
        client.batch_execute("ROLLBACK").await.ok().map(|()| outcome)
    }

    /// Clients send half a request to the replica that was started last.
    async fn fill_port(self, pause: Duration) -> Option<Outcome> {
        let worker = self.world.workers().into_iter().rfind(|worker| worker.exited().is_none())?;
        let address = worker.http().trim_start_matches("http://");
        let open: Vec<TcpStream> =
            join_all((0..CONNECTIONS).map(|_| half_open(address))).await.into_iter().flatten().collect();
        if open.len() < CONNECTIONS / 2 {
            return None;
        }
        let outcome = self.wait_out(pause).await;
        worker.exited().is_none().then_some(outcome)
    }
}

/// The outcome of an obstruction that lasted.
struct Outcome {
    /// Whether a fresh command was answered meanwhile.
    was_answered: bool,
}

/// A connection that has sent half of a request's head.
async fn half_open(address: &str) -> Option<TcpStream> {
    let mut stream = timeout(CONNECTING, TcpStream::connect(address)).await.ok()?.ok()?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: ").await.ok()?;
    Some(stream)
}
