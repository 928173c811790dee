//! The disruptions of the surroundings, drawn by time: what happens to the replicas, the broker, the database, and the
//! gateway as a whole.

use std::time::Duration;

use crate::ledger::GatewayName;
use crate::poison::{Poison, Poisoned};
use crate::rng::Rng;

/// Something that happens this long after the beginning.
#[derive(Debug, Clone)]
pub struct Timed<T> {
    /// When.
    pub at: Duration,
    /// What.
    pub what: T,
}

/// What happens to a replica.
#[derive(Debug, Clone)]
pub enum ReplicaDisruption {
    /// SIGKILL, and a new one.
    Kill,
    /// SIGKILL of all replicas at once.
    KillAll,
    /// SIGSTOP for this long, beyond its leases, then SIGCONT.
    Stop(Duration),
    /// SIGTERM, and a new one once it has drained.
    Term,
    /// SIGKILL of it and of its three successors, each this long after its start.
    RestartLoop([Duration; 3]),
}

/// What happens to one replica and its successors.
#[derive(Debug, Clone)]
pub struct ReplicaPlan {
    /// What happens, and when.
    pub disruptions: Vec<Timed<ReplicaDisruption>>,
    /// Where it and each successor end themselves: a failpoint, or none. The last entry applies to all further ones.
    pub failpoints: Vec<Option<String>>,
}

/// What happens to the broker or the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceDisruption {
    /// It is killed and restarted after this time.
    Kill(Duration),
    /// It is stopped properly and restarted.
    Restart,
    /// Its connections are closed, or its backends terminated.
    Cut,
    /// It blocks publishers for this long. Only the broker.
    Alarm(Duration),
    /// It accepts no writes for this long. Only the database.
    ReadOnly(Duration),
    /// The node that leads this queue of the world is killed, and restarted after this time. Only a broker cluster,
    /// like the next two.
    KillLeader(&'static str, Duration),
    /// The same for the node with this number.
    KillNode(u8, Duration),
    /// The node with this number is stopped properly and restarted.
    RestartNode(u8),
    /// The standby, which commits wait for, is killed and restarted after this time. Only a database with a standby,
    /// like the next one.
    KillStandby(Duration),
    /// The primary is lost for good, and the standby replaces it.
    Promote,
}

/// When something is obstructed, and for how long. Others must not be delayed.
#[derive(Debug)]
pub struct Obstructed {
    /// A subscriber's queue is full.
    pub queue: Vec<Timed<Duration>>,
    /// Somebody has locked the rows of some payments.
    pub rows: Vec<Timed<Duration>>,
    /// Clients connect to a replica and ask nothing.
    pub port: Vec<Timed<Duration>>,
}

/// The steps at which a worker can be made to end itself, as `src/failpoint.rs` has them.
const STEPS: [&str; 8] =
    ["accepted", "decided", "committed", "begun", "called", "settled", "announced", "acknowledged"];

/// The queues whose leaders are killed: one that workers consume, the subscriber's, and that of the healthy variant.
const LED: [&str; 3] = ["commands.cards", "test", "commands.canary"];

/// A replica gets a failpoint this many times; after that it gets none, so that it is not killed at every start for
/// ever.
const FAILPOINTS: usize = 200;

impl ReplicaPlan {
    /// At these times it is killed together with all others.
    pub fn kill_at(&mut self, times: &[Duration]) {
        self.add(times.iter().map(|at| Timed { at: *at, what: ReplicaDisruption::KillAll }));
    }

    /// Adds further disruptions.
    pub fn add(&mut self, disruptions: impl IntoIterator<Item = Timed<ReplicaDisruption>>) {
        self.disruptions.extend(disruptions);
        self.disruptions.sort_by_key(|disruption| disruption.at);
    }

    /// Draws what happens to one replica.
    pub fn draw(length: Duration, rng: &mut Rng) -> ReplicaPlan {
        let mut deck = Vec::new();
        let draw = |rng: &mut Rng| {
            let short = ReplicaDisruption::Stop(rng.millis(3_000, 5_000));
            // So long that the broker has given it up as well.
            let long = ReplicaDisruption::Stop(rng.millis(11_000, 14_000));
            let (kill, term) = (ReplicaDisruption::Kill, ReplicaDisruption::Term);
            let kinds = [kill.clone(), kill.clone(), kill, short.clone(), short, long, term.clone(), term];
            next_of(&mut deck, &kinds, rng)
        };
        let failpoint = |rng: &mut Rng| {
            let (step, count) = (*rng.pick(&STEPS), rng.between(1, 25));
            rng.chance(50).then(|| format!("{step}@{count}"))
        };
        ReplicaPlan {
            disruptions: spread(length, (2_000, 8_000), rng, draw),
            failpoints: (0..FAILPOINTS).map(|_| failpoint(rng)).chain([None]).collect(),
        }
    }
}

/// Draws when the replicas change to the other settings and back: every replica started after that has them.
pub fn draw_rollouts(length: Duration, rng: &mut Rng) -> Vec<Duration> {
    spread(length, (6_000, 20_000), rng, |_| ()).into_iter().map(|rollout| rollout.at).collect()
}

/// Draws what happens to the broker.
pub fn draw_broker(length: Duration, rng: &mut Rng) -> Vec<Timed<ServiceDisruption>> {
    let mut deck = Vec::new();
    spread(length, (3_500, 8_000), rng, |rng| {
        let kill = ServiceDisruption::Kill(rng.millis(0, 1_500));
        let alarm = ServiceDisruption::Alarm(rng.millis(1_000, 4_500));
        next_of(&mut deck, &[kill, ServiceDisruption::Restart, ServiceDisruption::Cut, alarm], rng)
    })
}

/// Draws what happens to the database.
pub fn draw_database(length: Duration, rng: &mut Rng) -> Vec<Timed<ServiceDisruption>> {
    let mut deck = Vec::new();
    spread(length, (3_000, 7_000), rng, |rng| {
        let kill = ServiceDisruption::Kill(rng.millis(0, 2_000));
        next_of(&mut deck, &[kill, ServiceDisruption::Restart, ServiceDisruption::Cut, ServiceDisruption::Cut], rng)
    })
}

/// Draws when the database accepts no writes.
pub fn draw_read_only(length: Duration, rng: &mut Rng) -> Vec<Timed<ServiceDisruption>> {
    spread(length, (8_000, 30_000), rng, |rng| ServiceDisruption::ReadOnly(rng.millis(1_000, 3_000)))
}

/// Draws what happens to the nodes of a broker cluster. None is killed in the first seconds: RabbitMQ takes three to
/// persist the names of new queues, and a node that dies before that returns without its members of them.
pub fn draw_nodes(length: Duration, rng: &mut Rng) -> Vec<Timed<ServiceDisruption>> {
    let mut deck = Vec::new();
    spread(length, (8_000, 12_000), rng, |rng| {
        let led = *rng.pick(&LED);
        let leader = ServiceDisruption::KillLeader(led, rng.millis(7_000, 15_000));
        let node = ServiceDisruption::KillNode(rng.between(1, 3) as u8, rng.millis(7_000, 15_000));
        let restart = ServiceDisruption::RestartNode(rng.between(1, 3) as u8);
        let alarm = ServiceDisruption::Alarm(rng.millis(1_000, 4_500));
        next_of(&mut deck, &[leader, node, restart, ServiceDisruption::Cut, alarm], rng)
    })
}

/// Draws when the database's standby is killed, and when it is promoted: once, because there is no other one after
/// that.
pub fn draw_standby(length: Duration, rng: &mut Rng) -> Vec<Timed<ServiceDisruption>> {
    let kill = |rng: &mut Rng| ServiceDisruption::KillStandby(rng.millis(1_000, 13_000));
    let promotion = Timed { at: length / 2 + rng.millis(5_000, 10_000), what: ServiceDisruption::Promote };
    let mut disruptions = vec![Timed { at: rng.millis(1_000, 5_000), what: kill(rng) }];
    disruptions.extend(spread(promotion.at, (20_000, 40_000), rng, kill));
    disruptions.push(promotion);
    disruptions
}

/// Draws which replica is killed repeatedly at its start, and when.
pub fn draw_restart_loops(length: Duration, replicas: usize, rng: &mut Rng) -> Vec<Timed<(usize, ReplicaDisruption)>> {
    spread(length, (8_000, 30_000), rng, |rng| {
        let slot = rng.between(0, replicas as u64 - 1) as usize;
        (slot, ReplicaDisruption::RestartLoop([(); 3].map(|()| rng.millis(50, 1_900))))
    })
}

/// Draws the obstructions.
pub fn draw_obstructions(length: Duration, rng: &mut Rng) -> Obstructed {
    let mut draw = || spread(length, (4_000, 12_000), rng, |rng| rng.millis(3_000, 6_000));
    Obstructed { queue: draw(), rows: draw(), port: draw() }
}

/// Draws when an unreadable message arrives.
pub fn draw_poison(length: Duration, gateway: GatewayName, rng: &mut Rng) -> Vec<Timed<Poisoned>> {
    let mut deck = Vec::new();
    spread(length, (500, 2_500), rng, |rng| Poisoned::draw(next_of(&mut deck, &Poison::ALL, rng), gateway, rng))
}

/// Draws when the gateway refuses connections.
pub fn draw_gateway(length: Duration, rng: &mut Rng) -> Vec<Timed<Duration>> {
    spread(length, (3_000, 8_000), rng, |rng| rng.millis(200, 1_500))
}

/// Draws when all replicas are killed at once.
pub fn draw_blackouts(length: Duration, rng: &mut Rng) -> Vec<Duration> {
    spread(length, (8_000, 40_000), rng, |_| ()).into_iter().map(|disruption| disruption.at).collect()
}

/// The next card of a shuffled deck: every kind comes once before any kind comes again.
fn next_of<T: Clone>(deck: &mut Vec<T>, kinds: &[T], rng: &mut Rng) -> T {
    if deck.is_empty() {
        deck.extend_from_slice(kinds);
        rng.shuffle(deck);
    }
    deck.pop().unwrap_or_else(|| kinds[0].clone())
}

/// Disruptions over the whole length, with pauses between these milliseconds.
fn spread<T>(length: Duration, pause: (u64, u64), rng: &mut Rng, mut draw: impl FnMut(&mut Rng) -> T) -> Vec<Timed<T>> {
    let mut disruptions = Vec::new();
    let mut at = rng.millis(pause.0 / 2, pause.1);
    while at < length {
        disruptions.push(Timed { at, what: draw(rng) });
        at += rng.millis(pause.0, pause.1);
    }
    disruptions
}
