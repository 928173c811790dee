//! The broker's nodes and the database's servers, which a test may kill.

use std::process::{Command, Stdio};

use tokio::sync::{Mutex, MutexGuard};
use tokio::task::spawn_blocking;

use crate::support::skip::needed;

/// One test at a time: each kills what the others need.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Three nodes of a broker, and a primary with a synchronous standby. The tests themselves connect to node 1, which
/// they do not kill.
pub struct Services {
    nodes: String,
    servers: String,
    _alone: MutexGuard<'static, ()>,
}

/// A server of the database.
#[derive(Debug, Clone, Copy)]
pub enum Server {
    Primary,
    Standby,
}

impl Services {
    /// All of them, for this test alone, with the database's servers in their initial roles. `None`, with a report, if
    /// they were not started.
    pub async fn alone() -> Option<Services> {
        let nodes = needed("PAYBUS_TEST_BROKER_NODES")?;
        let servers = needed("PAYBUS_TEST_DATABASE_SERVERS")?;
        let services = Services { nodes, servers, _alone: ALONE.lock().await };
        run(&services.servers, &["renew"]).await;
        Some(services)
    }

    /// Starts or kills a node, or returns its address (`url`).
    pub async fn node(&self, number: u8, verb: &str) -> String {
        run(&self.nodes, &[number.to_string().as_str(), verb]).await
    }

    /// Makes a node the leader of a queue.
    pub async fn lead(&self, number: u8, queue: &str) {
        let transfer = format!(
            "{{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"/\">>, queue, <<\"{queue}\">>)),
             {{Name, _}} = Leader = amqqueue:get_pid(Queue),
             Leader =:= {{Name, node()}} orelse ra:transfer_leadership(Leader, {{Name, node()}}),
             Wait = fun Wait(0) -> error(other_leader);
                        Wait(Left) -> case ra:members({{Name, node()}}) of
                            {{ok, [_, _, _], {{_, Node}}}} when Node =:= node() -> ok;
                            _ -> timer:sleep(100), Wait(Left - 1)
                        end end,
             Wait(100)."
        );
        self.ctl(number, &["eval", &transfer]).await.expect("it becomes the leader");
    }

    /// Runs rabbitmqctl on a node; returns its output, even if it fails.
    pub async fn ctl(&self, number: u8, arguments: &[&str]) -> Result<String, String> {
        let number = number.to_string();
        try_run(&self.nodes, &[&[number.as_str(), "ctl"][..], arguments].concat()).await
    }

    /// Starts, kills or promotes a server, or returns its address (`url`).
    pub async fn server(&self, server: Server, verb: &str) -> String {
        let name = match server {
            Server::Primary => "primary",
            Server::Standby => "standby",
        };
        run(&self.servers, &[name, verb]).await
    }
}

/// One address for several services: the first one's, with the hosts of all.
pub fn hosts(urls: &[&str]) -> String {
    let host = |url: &str| authority(url).rsplit_once('@').expect("a user").1.to_owned();
    let all: Vec<String> = urls.iter().map(|url| host(url)).collect();
    urls[0].replacen(&all[0], &all.join(","), 1)
}

fn authority(url: &str) -> &str {
    url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).expect("an address with a path").0
}

/// Runs a script that must succeed; returns its output.
async fn run(program: &str, arguments: &[&str]) -> String {
    try_run(program, arguments).await.unwrap_or_else(|printed| panic!("{arguments:?}: {printed}"))
}

/// The same, but the script may fail.
async fn try_run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments).stderr(Stdio::inherit());
    let output = spawn_blocking(move || command.output()).await.expect("no panic").expect("it runs");
    let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() { Ok(printed) } else { Err(printed) }
}
