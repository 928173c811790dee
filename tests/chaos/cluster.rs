//! Clustered services: one node of the broker is lost and returns, and so is the database's primary or its standby;
//! once, the primary is lost for good and the standby promoted. Workers know all addresses. The soak's own clients have
//! one of each, which leads to a running server.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use crate::cluster_services::{Server, Services, hosts};
use crate::disruptions::ServiceDisruption;
use crate::support::wait::{START, within};
use crate::support::{Setup, World};
use crate::surroundings::{Allowed, BLOCKS_PUBLISHERS, CUTS_BROKER};
use crate::switch::Switch;
use crate::tally::Tally;

const KILLS_LEADER: &str = "the node that leads a queue is killed, and back";
const KILLS_NODE: &str = "some node of the broker is killed, and back";
const RESTARTS_NODE: &str = "a node of the broker is restarted";
const KILLS_PRIMARY: &str = "the database's primary is killed, and back";
const RESTARTS_PRIMARY: &str = "the database's primary is restarted";
const KILLS_STANDBY: &str = "the database's standby is killed, and back";
const PROMOTES_STANDBY: &str = "the primary is lost, the standby promoted";

/// The disruptions of clusters only, by the names under which they are counted.
pub const DISRUPTIONS: [&str; 7] =
    [KILLS_LEADER, KILLS_NODE, RESTARTS_NODE, KILLS_PRIMARY, RESTARTS_PRIMARY, KILLS_STANDBY, PROMOTES_STANDBY];

/// What is not tested.
pub const LEFT_OUT: [&str; 3] =
    ["two nodes of the broker lost at once", "a network that is cut in two", "a second promotion (one standby)"];

/// How long the loss of a node excuses a silence. Including the silence that is always allowed, events continue within
/// 15 seconds, as in `tests/cluster`; a longer absence of the node is no excuse.
const ELECTION: Duration = Duration::from_secs(7);

/// How often a queue's leader is queried: there is none during an election, and a node that has just returned knows
/// none.
const LEADER_TRIES: u32 = 8;
const LEADER_PAUSE: Duration = Duration::from_secs(1);

/// Counts the standbys that commits wait for: such a standby has all commits.
const FOLLOWS: &str =
    "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state IN ('sync', 'quorum')";

/// Three nodes of a broker, a primary and a standby.
pub struct Cluster {
    services: Services,
    /// The nodes' addresses, starting with the first node's.
    nodes: Vec<String>,
    primary: String,
    standby: String,
    /// The soak's own addresses of broker and database.
    broker: Switch,
    database: Switch,
    is_promoted: AtomicBool,
}

impl Cluster {
    /// The cluster that `scripts/with-services` has started, if any.
    pub async fn here() -> Option<Cluster> {
        if !Allowed::here().cluster {
            return None;
        }
        let services = Services::alone().await?;
        let mut nodes = Vec::new();
        for number in 1..=3 {
            nodes.push(services.node(number, "url").await);
        }
        let primary = services.server(Server::Primary, "url").await;
        let standby = services.server(Server::Standby, "url").await;
        let (broker, database) = (Switch::to(&nodes[0]).await, Switch::to(&primary).await);
        Some(Cluster { services, nodes, primary, standby, broker, database, is_promoted: AtomicBool::new(false) })
    }

    /// The world's settings for its own clients.
    pub fn configure(&self, setup: Setup) -> Setup {
        setup.set("amqp.url", self.broker.url()).set("database.url", self.database.url())
    }

    /// The settings of workers: every node, and both servers.
    pub fn addresses(&self, world: &World) -> Vec<(String, String)> {
        let nodes: Vec<&str> = self.nodes.iter().map(String::as_str).collect();
        let (_, name) = world.settings()["database.url"].rsplit_once('/').expect("a database");
        let servers = hosts(&[self.primary.as_str(), self.standby.as_str()]);
        let (servers, _) = servers.rsplit_once('/').expect("a database");
        vec![("amqp.url".to_owned(), hosts(&nodes)), ("database.url".to_owned(), format!("{servers}/{name}"))]
    }

    /// Carries out a disruption of the broker. All nodes are running when this returns.
    pub async fn befall_broker(&self, disruption: ServiceDisruption, world: &World, tally: &Tally) {
        match disruption {
            ServiceDisruption::KillLeader(queue, away) => {
                if let Some(node) = self.leader(&world.bus.queue(queue)).await {
                    self.lose(node, away, tally).await;
                    tally.add(KILLS_LEADER);
                }
            }
            ServiceDisruption::KillNode(node, away) => {
                self.lose(node, away, tally).await;
                tally.add(KILLS_NODE);
            }
            ServiceDisruption::RestartNode(node) => {
                let _disruption = tally.service_is_disrupted();
                self.lead_past(node);
                self.services.node(node, "restart").await;
                tally.add(RESTARTS_NODE);
            }
            ServiceDisruption::Cut => {
                let _disruption = tally.service_is_disrupted();
                self.ctl(&["close_all_connections", "chaos"]).await;
                tally.add(CUTS_BROKER);
            }
            ServiceDisruption::Alarm(pause) => {
                let _disruption = tally.service_is_disrupted();
                // An alarm on one node blocks the publishers of all.
                self.ctl(&["set_vm_memory_high_watermark", "absolute", "1MB"]).await;
                sleep(pause).await;
                self.ctl(&["set_vm_memory_high_watermark", "0.4"]).await;
                tally.add(BLOCKS_PUBLISHERS);
            }
            _ => {}
        }
    }

    /// Kills a server and restarts it after this time. Commits succeed when this returns.
    async fn lose_server(&self, server: Server, away: Duration, world: &World) {
        self.services.server(server, "kill").await;
        sleep(away).await;
        self.services.server(server, "start").await;
        self.standby_follows(world).await;
    }

    /// Carries out a disruption of one of the database's servers. Commits succeed when this returns.
    pub async fn befall_database(&self, disruption: ServiceDisruption, world: &World, tally: &Tally) {
        let is_promoted = self.is_promoted.load(Ordering::Relaxed);
        let primary = if is_promoted { Server::Standby } else { Server::Primary };
        match disruption {
            ServiceDisruption::Kill(pause) => {
                self.lose_server(primary, pause, world).await;
                tally.add(KILLS_PRIMARY);
            }
            ServiceDisruption::Restart => {
                self.services.server(primary, "restart").await;
                self.standby_follows(world).await;
                tally.add(RESTARTS_PRIMARY);
            }
            ServiceDisruption::KillStandby(pause) if !is_promoted => {
                self.lose_server(Server::Standby, pause, world).await;
                tally.add(KILLS_STANDBY);
            }
            ServiceDisruption::Promote if !is_promoted => {
                // As a failover manager must do.
                self.standby_follows(world).await;
                self.services.server(Server::Primary, "kill").await;
                self.services.server(Server::Standby, "promote").await;
                self.is_promoted.store(true, Ordering::Relaxed);
                self.database.lead_to(&self.standby);
                tally.add(PROMOTES_STANDBY);
            }
            _ => {}
        }
    }

    /// Kills a node and restarts it after this time.
    async fn lose(&self, node: u8, away: Duration, tally: &Tally) {
        let election = tally.service_is_disrupted();
        self.lead_past(node);
        self.services.node(node, "kill").await;
        sleep(ELECTION).await;
        drop(election);
        sleep(away.saturating_sub(ELECTION)).await;
        self.services.node(node, "start").await;
    }

    /// Leads new connections of the soak itself to the next node.
    fn lead_past(&self, node: u8) {
        self.broker.lead_to(&self.nodes[usize::from(node) % self.nodes.len()]);
    }

    /// The node that leads a queue, once there is one.
    async fn leader(&self, queue: &str) -> Option<u8> {
        for _ in 0..LEADER_TRIES {
            if let Some(node) = self.try_leader(queue).await {
                return Some(node);
            }
            sleep(LEADER_PAUSE).await;
        }
        None
    }

    async fn try_leader(&self, queue: &str) -> Option<u8> {
        let ask = format!(
            "{{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"/\">>, queue, <<\"{queue}\">>)),
             {{Name, _}} = amqqueue:get_pid(Queue),
             {{ok, _, {{_, Leader}}}} = ra:members({{Name, node()}}),
             Leader."
        );
        let leader = self.services.ctl(1, &["eval", &ask]).await.ok()?;
        // 'paybus-4711-815-2@localhost'
        let (name, _) = leader.split_once('@')?;
        name.rsplit_once('-')?.1.parse().ok()
    }

    async fn ctl(&self, arguments: &[&str]) {
        self.services.ctl(1, arguments).await.unwrap_or_else(|said| panic!("rabbitmqctl {arguments:?}: {said}"));
    }

    /// Waits until the standby has all commits, unless it was promoted.
    async fn standby_follows(&self, world: &World) {
        if self.is_promoted.load(Ordering::Relaxed) {
            return;
        }
        within(START, "the standby to have all commits", async || match world.value::<i64>(FOLLOWS, &[]).await {
            0 => Err("it is not there"),
            _ => Ok(()),
        })
        .await;
    }
}
