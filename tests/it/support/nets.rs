//! The safety nets of paybus: the relay, which sends events that their own worker did not get out, and the taking over of
//! operations from a worker that was lost. A test in which nothing was lost must not pass because they caught it.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::event::Event;
use super::wait::{TIMEOUT, TIMEOUT_WITH_NETS, within};
use super::worker::Worker;
use super::world::World;

/// How many commands it takes for their median to say something.
const ENOUGH: usize = 20;

/// What half of the commands are answered within, where nothing fails, once it is their turn: far longer than any of them
/// needs, and far below the time that a net takes to catch one.
const MEDIAN_MAX: Duration = Duration::from_secs(5);

/// The nets that a test expects to be needed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Nets {
    /// Events are left behind.
    pub relay: bool,
    /// Operations are left behind.
    pub takeovers: bool,
}

impl Nets {
    /// Both: a worker is lost.
    pub const ALL: Nets = Nets { relay: true, takeovers: true };

    /// Whether any of them is.
    pub fn any(self) -> bool {
        self.relay || self.takeovers
    }

    /// What they caught although nobody expected it. What cannot be asked any more says nothing.
    pub async fn caught(self, workers: &[Worker], client: &Client) -> Vec<String> {
        let mut caught = Vec::new();
        for worker in workers.iter().filter(|worker| !self.relay && worker.exited().is_none()) {
            if let Ok(relayed) = worker.try_metric("paybus_events_relayed_total").await
                && relayed > 0.0
            {
                caught.push(format!("worker {} relayed {relayed} events", worker.pid()));
            }
        }
        let sql = "SELECT payment_id::text, command_type, takeovers FROM operations WHERE takeovers > 0";
        for row in if self.takeovers { Vec::new() } else { client.query(sql, &[]).await.unwrap_or_default() } {
            let (payment, kind, times): (&str, &str, i32) = (row.get(0), row.get(1), row.get(2));
            caught.push(format!("{kind} of {payment} was taken over {times} times"));
        }
        caught
    }
}

impl World {
    /// When each of them was published first, by its name.
    pub fn published_at(&self) -> HashMap<(String, String, String), Instant> {
        let mut at = HashMap::new();
        for (published, command) in self.published.lock().unwrap().iter() {
            at.entry(command.name()).or_insert(*published);
        }
        at
    }

    /// When the first worker was ready, where one was waited for.
    pub fn first_ready(&self) -> Option<Instant> {
        *self.ready.lock().unwrap()
    }

    /// The safety nets that are needed here: those that the test names, and all where a worker was lost.
    pub fn expected_nets(&self) -> Nets {
        if self.workers.lock().unwrap().iter().any(Worker::is_lost) { Nets::ALL } else { self.nets }
    }

    /// How long anything is waited for here.
    pub fn timeout(&self) -> Duration {
        if self.expected_nets().any() { TIMEOUT_WITH_NETS } else { TIMEOUT }
    }

    /// Waits until a condition is met, with the world's timeout.
    pub async fn eventually<T, E: Display>(&self, what: &str, condition: impl AsyncFnMut() -> Result<T, E>) -> T {
        within(self.timeout(), what, condition).await
    }

    /// Nothing was caught by a net, but for what the test expects. Asked while the workers can still answer.
    pub(super) async fn check_nets(&self) {
        let nets = self.expected_nets();
        if nets != Nets::ALL {
            let client = self.sql_client().await.expect("the database");
            let caught = nets.caught(&self.workers(), &client).await;
            assert!(caught.is_empty(), "nothing was lost, and a safety net was needed: {caught:#?}");
        }
        self.nets_checked.store(true, Ordering::Relaxed);
    }

    /// Where nothing fails, most commands are answered by whoever got them, at once.
    pub(super) fn check_latency(&self) {
        let Some(ready) = self.first_ready() else { return };
        let delayed = self.log.find(|event| event.kind() == "command.delayed").is_some();
        if self.expected_nets().any() || delayed || !self.gateway.met().is_empty() {
            return;
        }
        let published = self.published_at();
        let mut answered: HashSet<_> = HashSet::new();
        // Of many at once each waits for those before it, for as long as the machine needs: that is not counted.
        let mut before = ready;
        let mut took: Vec<Duration> = Vec::new();
        for answer in self.log.filter(Event::is_final) {
            let Some(at) = published.get(&answer.cause()).filter(|_| answered.insert(answer.cause())) else { continue };
            took.push(answer.at.duration_since(before.max(*at)));
            before = before.max(answer.at);
        }
        if took.len() < ENOUGH {
            return;
        }
        took.sort_unstable();
        let median = took[took.len() / 2];
        println!("{} commands; half of them were answered within {median:?}", took.len());
        assert!(median < MEDIAN_MAX, "half of {} commands took longer than {median:?}", took.len());
    }
}
