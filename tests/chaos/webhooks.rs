//! Webhooks: what the gateway reports by itself is delivered immediately, late, twice or never, and again until a
//! replica has answered with 200, as gateways do.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::ledger::{Ledger, Report};
use crate::rng::Rng;
use crate::support::World;
use crate::tally::Tally;

const AT_ONCE: &str = "webhook is delivered at once";
const LATE: &str = "webhook is delivered late";
const TWICE: &str = "webhook is delivered twice";
const LOST: &str = "webhook is never delivered";

/// What can happen to webhooks, by the names under which it is counted.
pub const FATES: [&str; 4] = [AT_ONCE, LATE, TWICE, LOST];

/// How often new reports are looked for.
const LOOK: Duration = Duration::from_millis(50);
/// The pause before the gateway delivers a webhook again that was not answered with 200.
const AGAIN: Duration = Duration::from_millis(500);

/// The gateway's sender of webhooks.
pub struct Webhooks<'a> {
    world: &'a World,
    ledger: &'a dyn Ledger,
    tally: &'a Tally,
    /// The payments whose outcome only a webhook reports: none of these webhooks is lost.
    silent: BTreeSet<Uuid>,
    state: Mutex<State>,
    /// Which replica is next, as behind a load balancer.
    turn: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    /// Deliveries that were not answered with 200 yet.
    open: usize,
    /// The reports that were answered with 200.
    accepted: Vec<Report>,
}

impl<'a> Webhooks<'a> {
    /// A sender that loses nothing about these payments.
    pub fn new(world: &'a World, ledger: &'a dyn Ledger, tally: &'a Tally, silent: BTreeSet<Uuid>) -> Webhooks<'a> {
        Webhooks { world, ledger, tally, silent, state: Mutex::default(), turn: AtomicUsize::new(0) }
    }

    /// Delivers until the end.
    pub async fn run(&self, mut rng: Rng, over: &CancellationToken) {
        let deliver = async {
            let mut read = 0;
            let mut deliveries = FuturesUnordered::new();
            loop {
                let reports = self.ledger.reports(read);
                read += reports.len();
                for report in reports {
                    let pauses = self.fate(&report, &mut rng);
                    self.state.lock().unwrap().open += pauses.len();
                    deliveries.extend(pauses.into_iter().map(|pause| self.deliver(report.clone(), pause)));
                }
                let next = Instant::now() + LOOK;
                while let Ok(Some(())) = tokio::time::timeout_at(next, deliveries.next()).await {}
                sleep_until(next).await;
            }
        };
        over.run_until_cancelled(deliver).await;
    }

    /// The pauses after which a report is delivered.
    fn fate(&self, report: &Report, rng: &mut Rng) -> Vec<Duration> {
        let may_be_lost = report.payment.is_none_or(|payment| !self.silent.contains(&payment));
        let (what, pauses) = match rng.between(0, 99) {
            0..60 if may_be_lost => (LOST, vec![]),
            0..80 => (AT_ONCE, vec![Duration::ZERO]),
            80..92 => (LATE, vec![rng.millis(1_000, 5_000)]),
            _ => (TWICE, vec![Duration::ZERO, rng.millis(0, 3_000)]),
        };
        self.tally.add(what);
        pauses
    }

    async fn deliver(&self, report: Report, pause: Duration) {
        sleep(pause).await;
        loop {
            let workers = self.world.workers();
            let alive: Vec<_> = workers.iter().filter(|worker| worker.exited().is_none()).collect();
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            if let Some(worker) = alive.get(turn % alive.len().max(1))
                && matches!(self.ledger.webhook(&report).try_post(worker).await, Ok((200, _)))
            {
                let mut state = self.state.lock().unwrap();
                state.open -= 1;
                state.accepted.push(report);
                return;
            }
            sleep(AGAIN).await;
        }
    }

    /// Whether every report that is not lost was answered with 200.
    pub fn all_are_delivered(&self) -> bool {
        self.state.lock().unwrap().open == 0
    }

    /// The reports that were answered with 200.
    pub fn accepted(&self) -> Vec<Report> {
        self.state.lock().unwrap().accepted.clone()
    }
}
