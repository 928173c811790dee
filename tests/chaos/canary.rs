//! The canary: a variant whose gateway is always healthy, beside those whose gateway fails. Throughout the faults,
//! fresh commands for it keep coming from a client of its own, and the variant must answer.
//!
//! A single command may wait for good reasons: a suspended replica keeps its messages until the broker gives it up, and
//! a killed one leaves a lease behind. But the variant must not fall silent: it is a finding if none of several fresh
//! commands is answered while broker and database are healthy and a replica reports that it is ready. Only such time
//! counts.

use std::collections::HashMap;
use std::slice;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::findings::{Finding, Kind};
use crate::support::fake_gateway::FakeGateway;
use crate::support::{Command, Setup, World};
use crate::tally::Tally;
use crate::upstream::{Upstream, publish};

/// The variant.
const CANARY: &str = "canary";

/// Counted; must be more than zero.
pub const ANSWERED: &str = "answers of the variant that is never ill";

/// How often a fresh command is published.
const EVERY: Duration = Duration::from_millis(500);
/// How often to check for answers.
const LOOK: Duration = Duration::from_millis(100);
/// How long a replica may take to answer that it is ready.
const READY: Duration = Duration::from_millis(250);
/// How long a replica must have been ready, and the services healthy, before time counts: interrupted work is retried
/// with pauses of at most a second.
const STEADY: Duration = Duration::from_secs(1);
/// How long the variant may be silent. An answer takes a tenth of a second; after the loss of a worker, it takes as
/// long as the lease, which is three seconds.
const SILENCE_MAX: Duration = Duration::from_secs(8);

/// The world's settings for it. None of its commands waits behind many others.
pub fn configure(setup: Setup, gateway: &FakeGateway) -> Setup {
    let key = |key: &str| format!("variants.{CANARY}.{key}");
    setup
        .http_variant(CANARY)
        .set(&key("url"), &gateway.url())
        .set(&key("timeout"), "1500ms")
        .set(&key("settle_window"), "1s")
        .set(&key("concurrency"), "4")
}

/// Publishes the commands and checks for their answers.
pub struct Canary<'a> {
    world: &'a World,
    upstream: &'a Upstream,
    tally: &'a Tally,
    gateway: &'a FakeGateway,
    /// The broker distributes the commands over this many replicas: of more commands than that, at least one went to
    /// each.
    replicas: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Commands without an answer, and when the broker accepted them.
    waiting: Vec<(Command, Instant)>,
    /// How long the others took.
    took: Vec<Duration>,
    /// When the youngest answered command was published.
    youngest: Option<Instant>,
    /// How many commands were published since the last answer.
    fresh: usize,
    /// For how long an answer was possible.
    counted: Duration,
    /// How long there has been no answer although one was possible.
    silence: Duration,
    /// The longest such time.
    longest: Duration,
    found: Vec<String>,
}

/// How long the answers took, outages included.
#[derive(Debug)]
pub struct Figures {
    pub answers: usize,
    pub median: Duration,
    pub slowest: Duration,
    /// For how long an answer was possible: only then a silence counts.
    pub counted: Duration,
    /// The longest silence.
    pub silence: Duration,
}

impl<'a> Canary<'a> {
    /// Creates one with this gateway, which is always healthy.
    pub fn new(
        world: &'a World,
        upstream: &'a Upstream,
        tally: &'a Tally,
        gateway: &'a FakeGateway,
        replicas: usize,
    ) -> Canary<'a> {
        Canary { world, upstream, tally, gateway, replicas, state: Mutex::default() }
    }

    /// Publishes until the faults are over, and checks for answers until the end.
    pub async fn run(&self, calm: &CancellationToken, over: &CancellationToken) {
        tokio::join!(self.publish(calm), self.listen(over));
    }

    /// Whether a command that was published after this moment was answered.
    pub fn has_answered_since(&self, since: Instant) -> bool {
        self.state.lock().unwrap().youngest.is_some_and(|published| published > since)
    }

    /// The figures for the verdict.
    pub fn figures(&self) -> Figures {
        let state = self.state.lock().unwrap();
        let mut took = state.took.clone();
        took.sort_unstable();
        Figures {
            answers: took.len(),
            median: took.get(took.len() / 2).copied().unwrap_or_default(),
            slowest: took.last().copied().unwrap_or_default(),
            counted: state.counted,
            silence: state.longest,
        }
    }

    /// Its silences, and double charges at its gateway.
    pub fn findings(&self) -> Vec<Finding> {
        let silences = self.state.lock().unwrap().found.clone();
        let silences = silences.into_iter().map(|what| Finding::new(Kind::Silence, None, what));
        let twice = self.gateway.charges_of_all().into_iter().filter(|(_, charges)| charges.len() > 1);
        let twice =
            twice.map(|(payment, charges)| Finding::new(Kind::DoubleCharge, Some(payment), format!("{charges:?}")));
        silences.chain(twice).collect()
    }

    async fn publish(&self, calm: &CancellationToken) {
        let bus = self.world.bus.another();
        while calm.run_until_cancelled(sleep(EVERY)).await.is_some() {
            let command = Command::charge(CANARY, "1.00", "EUR").source(CANARY);
            publish(self.world, &bus, self.tally, slice::from_ref(&command)).await;
            let mut state = self.state.lock().unwrap();
            state.fresh += 1;
            state.waiting.push((command, Instant::now()));
        }
    }

    async fn listen(&self, over: &CancellationToken) {
        let mut replicas = Replicas::new();
        let (mut was_well, mut last) = (false, Instant::now());
        while over.run_until_cancelled(sleep(LOOK)).await.is_some() {
            let is_well = self.services_are_well() && replicas.one_is_ready(self.world).await;
            self.look(if is_well && was_well { last.elapsed() } else { Duration::ZERO });
            (was_well, last) = (is_well, Instant::now());
        }
    }

    /// Whether an answer can be stored and can arrive here.
    fn services_are_well(&self) -> bool {
        !self.tally.service_was_disrupted(STEADY) && self.world.bus.is_listening()
    }

    /// Checks for answers, after a period that counts.
    fn look(&self, counts: Duration) {
        let state = &mut *self.state.lock().unwrap();
        let all = std::mem::take(&mut state.waiting).into_iter();
        let (answered, waiting) = all.partition::<Vec<_>, _>(|(command, _)| self.upstream.is_answered(command));
        state.waiting = waiting;
        state.counted += counts;
        for (_, published) in &answered {
            state.took.push(published.elapsed());
            state.youngest = state.youngest.max(Some(*published));
            self.tally.add(ANSWERED);
        }
        if !answered.is_empty() {
            state.fresh = 0;
            state.silence = Duration::ZERO;
        } else if state.fresh > self.replicas {
            state.silence += counts;
        }
        state.longest = state.longest.max(state.silence);
        if state.silence > SILENCE_MAX {
            let (silence, waiting) = (state.silence.as_secs_f32(), state.waiting.len());
            state.found.push(format!("no answer for {silence:.1} s; {waiting} commands wait, {} fresh", state.fresh));
            state.silence = Duration::ZERO;
        }
    }
}

impl Figures {
    /// As JSON, for scripts.
    pub fn json(&self) -> Value {
        json!({
            "answers": self.answers,
            "median_seconds": self.median.as_secs_f64(),
            "slowest_seconds": self.slowest.as_secs_f64(),
            "counted_seconds": self.counted.as_secs_f64(),
            "silence_seconds": self.silence.as_secs_f64(),
        })
    }
}

/// Since when each replica has reported that it is ready.
struct Replicas {
    client: reqwest::Client,
    ready: HashMap<u32, Instant>,
}

impl Replicas {
    fn new() -> Replicas {
        let client = reqwest::Client::builder().pool_max_idle_per_host(0).build().expect("a client");
        Replicas { client, ready: HashMap::new() }
    }

    /// Queries all of them; returns whether one has been ready for long enough.
    async fn one_is_ready(&mut self, world: &World) -> bool {
        let client = &self.client;
        let alive = world.workers().into_iter().filter(|worker| worker.exited().is_none());
        let asked = alive.map(|worker| async move {
            let answer = client.get(format!("{}/readyz", worker.http())).timeout(READY).send().await;
            answer.is_ok_and(|answer| answer.status() == 200).then(|| worker.pid())
        });
        let ready: Vec<u32> = join_all(asked).await.into_iter().flatten().collect();
        self.ready.retain(|pid, _| ready.contains(pid));
        for pid in ready {
            self.ready.entry(pid).or_insert_with(Instant::now);
        }
        self.ready.values().any(|since| since.elapsed() >= STEADY)
    }
}
