//! What a soak will do, drawn from its seed before it begins: a script for each payment, and the troubles of the
//! surroundings by time. The same seed, length and number of replicas draw the same plan; when exactly a trouble meets a
//! command is left to the machine.

use std::time::Duration;

use crate::ledger::GatewayName;
use crate::rng::Rng;
use crate::script::Script;
use crate::troubles::{self, ReplicaPlan, ServiceTrouble, Timed};

/// How many payments begin in a second.
const PAYMENTS_PER_SECOND: u64 = 10;

/// Everything that was drawn.
#[derive(Debug)]
pub struct Plan {
    /// What was drawn from.
    pub seed: u64,
    /// Which gateway it is for.
    pub gateway_name: GatewayName,
    /// How long payments begin.
    pub length: Duration,
    /// The payments, in the order in which they begin.
    pub scripts: Vec<Script>,
    /// What happens to each replica.
    pub replicas: Vec<ReplicaPlan>,
    /// What happens to the broker.
    pub broker: Vec<Timed<ServiceTrouble>>,
    /// What happens to the database.
    pub database: Vec<Timed<ServiceTrouble>>,
    /// When the gateway refuses connections, and for how long.
    pub gateway: Vec<Timed<Duration>>,
}

impl Plan {
    /// Draws one.
    pub fn draw(seed: u64, seconds: u64, replicas: usize, gateway_name: GatewayName) -> Plan {
        let rng = Rng::new(seed);
        let length = Duration::from_secs(seconds);
        let mut starts = rng.fork(1);
        let mut begins: Vec<Duration> =
            (0..seconds * PAYMENTS_PER_SECOND).map(|_| starts.millis(0, seconds * 1_000)).collect();
        begins.sort();
        let scripts =
            begins.into_iter().zip(100..).map(|(at, number)| Script::draw(at, gateway_name, &mut rng.fork(number)));
        let blackouts = troubles::draw_blackouts(length, &mut rng.fork(5));
        let replica = |slot: usize| {
            let mut replica = ReplicaPlan::draw(length, &mut rng.fork(10 + slot as u64));
            replica.kill_at(&blackouts);
            replica
        };
        Plan {
            seed,
            gateway_name,
            length,
            scripts: scripts.collect(),
            replicas: (0..replicas).map(replica).collect(),
            broker: troubles::draw_broker(length, &mut rng.fork(2)),
            database: troubles::draw_database(length, &mut rng.fork(3)),
            gateway: troubles::draw_gateway(length, &mut rng.fork(4)),
        }
    }
}
