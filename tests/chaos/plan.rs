//! What a soak will do, drawn from its seed before it begins: a script for each payment, and the disruptions of the
//! surroundings by time. The same seed, length, number of replicas and kind of services draw the same plan; when
//! exactly a disruption hits a command depends on the machine.

use std::collections::BTreeSet;
use std::time::Duration;

use uuid::Uuid;

use crate::disruptions::{self, Obstructed, ReplicaPlan, ServiceDisruption, Timed};
use crate::faults;
use crate::ledger::GatewayName;
use crate::poison::Poisoned;
use crate::rng::Rng;
use crate::script::Script;

/// How much longer the faults may continue until each kind has happened.
pub const EXTENSION: Duration = Duration::from_secs(240);

/// How many payments begin in a second.
const PAYMENTS_PER_SECOND: u64 = 10;

/// Everything that was drawn.
#[derive(Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// The gateway that it is for.
    pub gateway_name: GatewayName,
    /// Whether broker and database are clusters.
    pub is_cluster: bool,
    /// For how long payments begin. Disruptions are drawn for [`EXTENSION`] longer.
    pub length: Duration,
    /// The payments, in the order in which they begin.
    pub scripts: Vec<Script>,
    /// What happens to each replica.
    pub replicas: Vec<ReplicaPlan>,
    /// What happens to the broker.
    pub broker: Vec<Timed<ServiceDisruption>>,
    /// What happens to the database.
    pub database: Vec<Timed<ServiceDisruption>>,
    /// When the gateway refuses connections, and for how long.
    pub gateway: Vec<Timed<Duration>>,
    /// The obstructions.
    pub obstructed: Obstructed,
    /// When unreadable messages arrive.
    pub poison: Vec<Timed<Poisoned>>,
    /// When the configuration of replicas changes.
    pub rollouts: Vec<Duration>,
    /// What happens to webhooks.
    pub webhooks: Rng,
}

impl Plan {
    /// Draws a plan.
    pub fn draw(seed: u64, seconds: u64, replicas: usize, gateway_name: GatewayName, is_cluster: bool) -> Plan {
        let rng = Rng::new(seed);
        let length = Duration::from_secs(seconds);
        let mut starts = rng.fork(1);
        let mut begins: Vec<Duration> =
            (0..seconds * PAYMENTS_PER_SECOND).map(|_| starts.millis(0, seconds * 1_000)).collect();
        begins.sort();
        let drawn =
            begins.into_iter().zip(100..).map(|(at, number)| Script::draw(at, gateway_name, &mut rng.fork(number)));
        let mut scripts: Vec<Script> = drawn.collect();
        let mut samples = rng.fork(6);
        for behaviour in faults::samples() {
            let at = samples.millis(0, seconds * 500);
            scripts.push(Script::sample(at, gateway_name, behaviour, &mut samples));
        }
        scripts.extend(Script::several_captures(length, gateway_name, &mut rng.fork(31)));
        if gateway_name == GatewayName::Http {
            scripts.extend(Script::look_up_samples(length, &mut rng.fork(32)));
            scripts.extend(Script::unasked(length, &mut rng.fork(38)));
        }
        scripts.sort_by_key(|script| script.at);
        let mut misleading = rng.fork(33);
        for script in &mut scripts {
            script.faults.extend(faults::misleading(&mut misleading));
        }
        let faults_end = length + EXTENSION;
        let blackouts = disruptions::draw_blackouts(faults_end, &mut rng.fork(5));
        let loops = disruptions::draw_restart_loops(faults_end, replicas, &mut rng.fork(34));
        let replica = |slot: usize| {
            let mut replica = ReplicaPlan::draw(faults_end, &mut rng.fork(10 + slot as u64));
            replica.kill_at(&blackouts);
            let its = loops.iter().filter(|one| one.what.0 == slot);
            replica.add(its.map(|one| Timed { at: one.at, what: one.what.1.clone() }));
            replica
        };
        let mut database = disruptions::draw_database(faults_end, &mut rng.fork(3));
        database.extend(disruptions::draw_read_only(faults_end, &mut rng.fork(35)));
        if is_cluster {
            database.extend(disruptions::draw_standby(length, &mut rng.fork(39)));
        }
        database.sort_by_key(|disruption| disruption.at);
        let broker = match is_cluster {
            true => disruptions::draw_nodes(faults_end, &mut rng.fork(40)),
            false => disruptions::draw_broker(faults_end, &mut rng.fork(2)),
        };
        Plan {
            seed,
            gateway_name,
            is_cluster,
            length,
            scripts,
            replicas: (0..replicas).map(replica).collect(),
            broker,
            database,
            gateway: disruptions::draw_gateway(faults_end, &mut rng.fork(4)),
            obstructed: disruptions::draw_obstructions(faults_end, &mut rng.fork(36)),
            poison: disruptions::draw_poison(faults_end, gateway_name, &mut rng.fork(37)),
            rollouts: disruptions::draw_rollouts(faults_end, &mut rng.fork(7)),
            webhooks: rng.fork(8),
        }
    }

    /// The payments whose outcome only a webhook reports.
    pub fn silent(&self) -> BTreeSet<Uuid> {
        let silent = self.scripts.iter().filter(|script| !script.customer.is_seen);
        silent.map(|script| script.payment).collect()
    }
}
