//! What happens to broker, database and gateway, by time. Services that are not ours are not stopped, and the verdict
//! says so.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::cluster::{self, Cluster};
use crate::disruptions::{ServiceDisruption, Timed};
use crate::ledger::Ledger;
use crate::services::{Service, rabbitmqctl};
use crate::support::World;
use crate::support::wait::{START, within};
use crate::tally::Tally;

const KILLS_BROKER: &str = "the broker is killed";
const RESTARTS_BROKER: &str = "the broker is restarted";
pub const CUTS_BROKER: &str = "the broker closes all connections";
pub const BLOCKS_PUBLISHERS: &str = "the broker blocks publishers";
const KILLS_DATABASE: &str = "the database is killed";
const RESTARTS_DATABASE: &str = "the database is restarted";
const CUTS_DATABASE: &str = "the database's backends are terminated";
const READ_ONLY_DATABASE: &str = "the database takes no writes for a while";
const GATEWAY_IS_GONE: &str = "the gateway refuses connections for a while";

/// Interventions of the tests, so that a known loss in the broker does not count as one of paybus's.
const NAMES_FLUSHED: &str = "helped by the tests: queue names flushed before a kill";
const ELECTED: &str = "helped by the tests: a queue without a leader gets one";

/// Ends every other connection to the world's database.
const TERMINATE: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid()";

/// The minimum time between two disruptions of a service; otherwise none ever hits work in progress.
const QUIET_TIME: Duration = Duration::from_millis(2_500);

/// What the soak may do to the services.
#[derive(Debug, Clone, Copy)]
pub struct Allowed {
    /// The broker may be stopped.
    pub broker: bool,
    /// `rabbitmqctl` may be run.
    pub rabbitmqctl: bool,
    /// The database may be stopped.
    pub database: bool,
    /// Both are clusters, parts of which may be stopped.
    pub cluster: bool,
}

impl Allowed {
    /// What the environment allows: `scripts/with-services` sets variables for the services that it started.
    pub fn here() -> Allowed {
        let has = |name: &str| std::env::var_os(name).is_some();
        let cluster = has("PAYBUS_TEST_BROKER_NODES") && has("PAYBUS_TEST_DATABASE_SERVERS");
        Allowed {
            broker: has("PAYBUS_TEST_RABBITMQ"),
            rabbitmqctl: has("PAYBUS_TEST_RABBITMQCTL") || cluster,
            database: has("PAYBUS_TEST_PG_CTL"),
            cluster,
        }
    }

    /// The disruptions of the services, by the names under which they are counted.
    pub fn disruptions(self) -> Vec<&'static str> {
        let stops = [
            (self.broker, KILLS_BROKER),
            (self.broker, RESTARTS_BROKER),
            (self.rabbitmqctl, CUTS_BROKER),
            (self.rabbitmqctl, BLOCKS_PUBLISHERS),
            (self.database, KILLS_DATABASE),
            (self.database, RESTARTS_DATABASE),
            (true, CUTS_DATABASE),
            (true, READ_ONLY_DATABASE),
            (true, GATEWAY_IS_GONE),
        ];
        let stops = stops.into_iter().chain(cluster::DISRUPTIONS.map(|what| (self.cluster, what)));
        stops.filter(|(allowed, _)| *allowed).map(|(_, what)| what).collect()
    }

    /// What is left out, for the verdict.
    pub fn left_out(self) -> Vec<&'static str> {
        let parts = [
            (self.broker || self.cluster, "stopping the broker (not ours)"),
            (self.rabbitmqctl, "closing the broker's connections, its alarm (not ours)"),
            (self.database || self.cluster, "stopping the database (not ours)"),
        ];
        let parts = parts.into_iter().chain(cluster::LEFT_OUT.map(|what| (!self.cluster, what)));
        parts.filter(|(is_done, _)| !is_done).map(|(_, what)| what).collect()
    }
}

/// Counts the queues that the tests gave a leader.
pub fn count_elected(tally: &Tally, queues: usize) {
    if queues > 0 {
        tally.add_many(ELECTED, queues);
    }
}

/// Where and to what the disruptions happen.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// The world to disrupt.
    pub world: &'a World,
    /// The gateway.
    pub ledger: &'a dyn Ledger,
    /// Where they are counted.
    pub tally: &'a Tally,
    /// What may be done.
    pub allowed: Allowed,
    /// In place of a single broker and a single database.
    pub cluster: Option<&'a Cluster>,
    /// When the soak began.
    pub begun: Instant,
}

impl Surroundings<'_> {
    /// Carries out the disruptions of the broker. Each is ended: the broker is healthy when this returns.
    pub async fn broker(self, plan: &[Timed<ServiceDisruption>], over: &CancellationToken) {
        for disruption in plan {
            if !self.comes(disruption.at, over).await {
                return;
            }
            match self.cluster {
                Some(cluster) => cluster.befall_broker(disruption.what, self.world, self.tally).await,
                None => self.befall_broker(disruption.what).await,
            }
        }
    }

    async fn befall_broker(self, disruption: ServiceDisruption) {
        let _disruption = self.tally.service_is_disrupted();
        match disruption {
            ServiceDisruption::Kill(pause) if self.allowed.broker => {
                Service::Broker.run("kill").await;
                self.tally.add(NAMES_FLUSHED);
                sleep(pause).await;
                count_elected(self.tally, Service::Broker.run("start").await);
                self.tally.add(KILLS_BROKER);
            }
            ServiceDisruption::Restart if self.allowed.broker => {
                count_elected(self.tally, Service::Broker.run("restart").await);
                self.tally.add(RESTARTS_BROKER);
            }
            ServiceDisruption::Cut if self.allowed.rabbitmqctl => {
                rabbitmqctl(&["close_all_connections", "chaos"]).await;
                self.tally.add(CUTS_BROKER);
            }
            ServiceDisruption::Alarm(pause) if self.allowed.rabbitmqctl => {
                rabbitmqctl(&["set_vm_memory_high_watermark", "absolute", "1MB"]).await;
                sleep(pause).await;
                rabbitmqctl(&["set_vm_memory_high_watermark", "0.4"]).await;
                self.tally.add(BLOCKS_PUBLISHERS);
            }
            _ => {}
        }
    }

    /// Carries out the disruptions of the database.
    pub async fn database(self, plan: &[Timed<ServiceDisruption>], over: &CancellationToken) {
        for disruption in plan {
            if !self.comes(disruption.at, over).await {
                return;
            }
            let _disruption = self.tally.service_is_disrupted();
            match disruption.what {
                ServiceDisruption::Cut => {
                    self.world.query(TERMINATE, &[]).await;
                    self.tally.add(CUTS_DATABASE);
                }
                ServiceDisruption::ReadOnly(pause) => {
                    set_read_only(self.world, true).await;
                    // Existing connections can still write.
                    self.world.query(TERMINATE, &[]).await;
                    sleep(pause).await;
                    // Connections that were opened meanwhile cannot write until they are opened again.
                    set_read_only(self.world, false).await;
                    self.tally.add(READ_ONLY_DATABASE);
                }
                what => match self.cluster {
                    Some(cluster) => cluster.befall_database(what, self.world, self.tally).await,
                    None => self.stop_database(what).await,
                },
            }
        }
    }

    async fn stop_database(self, disruption: ServiceDisruption) {
        match disruption {
            ServiceDisruption::Kill(pause) if self.allowed.database => {
                Service::Database.run("kill").await;
                sleep(pause).await;
                Service::Database.run("start").await;
                self.tally.add(KILLS_DATABASE);
            }
            ServiceDisruption::Restart if self.allowed.database => {
                Service::Database.run("restart").await;
                self.tally.add(RESTARTS_DATABASE);
            }
            _ => {}
        }
    }

    /// Makes the gateway refuse connections at these times.
    pub async fn gateway(self, plan: &[Timed<Duration>], over: &CancellationToken) {
        for disruption in plan {
            if !self.comes(disruption.at, over).await {
                return;
            }
            self.ledger.gone_for(disruption.what).await;
            self.tally.add(GATEWAY_IS_GONE);
        }
    }

    /// Waits for the time of a disruption, and at least until there was a quiet time after the previous one; false if
    /// the faults end before that.
    async fn comes(self, at: Duration, over: &CancellationToken) -> bool {
        let time = (self.begun + at).max(Instant::now() + QUIET_TIME);
        over.run_until_cancelled(sleep_until(time)).await;
        !over.is_cancelled()
    }
}

/// From now on, new connections to the world's database can only read, or can write again.
async fn set_read_only(world: &World, is_read_only: bool) {
    let database: String = world.value("SELECT current_database()::text", &[]).await;
    let value = if is_read_only { "on" } else { "off" };
    within(START, "the database to be made read-only, or writable", async || {
        let client = world.sql_client().await?;
        let alter = format!("ALTER DATABASE {database} SET default_transaction_read_only = {value}");
        // The setting may apply to this connection as well.
        for sql in ["SET default_transaction_read_only = off", alter.as_str()] {
            client.batch_execute(sql).await.map_err(|error| format!("{error:?}"))?;
        }
        Ok::<(), String>(())
    })
    .await;
}
