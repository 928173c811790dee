//! The canary: a variant whose gateway is never ill, beside those whose gateway is. All through the faults a fresh
//! command comes for it again and again, from a client of its own, and the variant must answer.
//!
//! A single command may wait for good reasons: a replica that is stopped keeps what it was given until the broker gives
//! that replica up, and one that was killed leaves a lease behind. What may not be is that the variant falls silent:
//! that none of several fresh commands is answered, while broker and database are well and a replica says that it is
//! ready. Only such time counts.

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

/// Counted, and to be more than nothing.
pub const ANSWERED: &str = "answers of the variant that is never ill";

/// How often a fresh command comes.
const EVERY: Duration = Duration::from_millis(500);
/// How often it is looked for answers.
const LOOK: Duration = Duration::from_millis(100);
/// How long a replica may take to say that it is ready.
const READY: Duration = Duration::from_millis(250);
/// How long a replica must have been ready, and the services well, before time counts: what was under way is tried
/// again with pauses of at most a second.
const STEADY: Duration = Duration::from_secs(1);
/// How long the variant may be silent. An answer takes a tenth of a second, and that of a lost worker's command as long
/// as its lease, which is three seconds.
const SILENCE_MAX: Duration = Duration::from_secs(8);

/// The world's settings for it. No command of it waits behind many others.
pub fn configure(setup: Setup, gateway: &FakeGateway) -> Setup {
    let key = |key: &str| format!("variants.{CANARY}.{key}");
    setup
        .http_variant(CANARY)
        .set(&key("url"), &gateway.url())
        .set(&key("timeout"), "1500ms")
        .set(&key("settle_window"), "1s")
        .set(&key("concurrency"), "4")
}

/// Who publishes the commands, and looks for their answers.
pub struct Canary<'a> {
    world: &'a World,
    upstream: &'a Upstream,
    tally: &'a Tally,
    gateway: &'a FakeGateway,
    /// The broker deals the commands out to so many: of more than so many, at least one went to each.
    replicas: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Commands without an answer, and when the broker had them.
    waiting: Vec<(Command, Instant)>,
    /// How long the others took.
    took: Vec<Duration>,
    /// When the youngest of these was published.
    youngest: Option<Instant>,
    /// How many commands were published since the last answer.
    fresh: usize,
    /// For how long an answer could be given.
    counted: Duration,
    /// How long there has been none although there could have been one.
    silence: Duration,
    /// The longest that was.
    longest: Duration,
    found: Vec<String>,
}

/// How long the answers took, whatever was in trouble meanwhile.
#[derive(Debug)]
pub struct Figures {
    pub answers: usize,
    pub median: Duration,
    pub slowest: Duration,
    /// For how long an answer could be given: only then a silence counts.
    pub counted: Duration,
    /// The longest silence.
    pub silence: Duration,
}

impl<'a> Canary<'a> {
    /// One at this gateway, which is never ill.
    pub fn new(
        world: &'a World,
        upstream: &'a Upstream,
        tally: &'a Tally,
        gateway: &'a FakeGateway,
        replicas: usize,
    ) -> Canary<'a> {
        Canary { world, upstream, tally, gateway, replicas, state: Mutex::default() }
    }

    /// Publishes until the faults are over, and looks for answers until all is.
    pub async fn run(&self, calm: &CancellationToken, over: &CancellationToken) {
        tokio::join!(self.publish(calm), self.listen(over));
    }

    /// Whether a command was answered that was published after this.
    pub fn has_answered_since(&self, since: Instant) -> bool {
        self.state.lock().unwrap().youngest.is_some_and(|published| published > since)
    }

    /// How it did.
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

    /// Its silences; and what was charged twice at its gateway.
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

    /// Whether an answer could be stored, and come here.
    fn services_are_well(&self) -> bool {
        !self.tally.service_was_disrupted(STEADY) && self.world.bus.is_listening()
    }

    /// Looks for answers, after a time that counts.
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
    /// For scripts.
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

/// Since when each replica has said that it is ready.
struct Replicas {
    client: reqwest::Client,
    ready: HashMap<u32, Instant>,
}

impl Replicas {
    fn new() -> Replicas {
        let client = reqwest::Client::builder().pool_max_idle_per_host(0).build().expect("a client");
        Replicas { client, ready: HashMap::new() }
    }

    /// Asks all of them; whether one has been ready for long enough.
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
