//! The broker's nodes and the database's servers, which a test may kill.

use std::process::{Command, Stdio};

use tokio::sync::{Mutex, MutexGuard};
use tokio::task::spawn_blocking;

use crate::support::skip::needed;

/// One test after the other: each kills what the others need.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Three nodes of a broker, and a primary with a synchronous standby. The tests' own way to the broker is node 1, which they
/// leave running.
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
    /// All of them, alone, the database's servers as at first. Nothing, and says so, where they were not started.
    pub async fn alone() -> Option<Services> {
        let nodes = needed("PAYBUS_TEST_BROKER_NODES")?;
        let servers = needed("PAYBUS_TEST_DATABASE_SERVERS")?;
        let services = Services { nodes, servers, _alone: ALONE.lock().await };
        run(&services.servers, &["renew"]).await;
        Some(services)
    }

    /// Starts or kills a node, or asks for its address (`url`).
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
        self.ctl(number, &["eval", &transfer]).await.expect("it leads");
    }

    /// Runs rabbitmqctl against a node; what it prints, also where it fails.
    pub async fn ctl(&self, number: u8, arguments: &[&str]) -> Result<String, String> {
        let number = number.to_string();
        try_run(&self.nodes, &[&[number.as_str(), "ctl"][..], arguments].concat()).await
    }

    /// Starts, kills or promotes a server, or asks for its address (`url`).
    pub async fn server(&self, server: Server, verb: &str) -> String {
        let name = match server {
            Server::Primary => "primary",
            Server::Standby => "standby",
        };
        run(&self.servers, &[name, verb]).await
    }
}

/// The address of several services: as the first one's, with the hosts of all.
pub fn hosts(urls: &[&str]) -> String {
    let host = |url: &str| authority(url).rsplit_once('@').expect("a user").1.to_owned();
    let all: Vec<String> = urls.iter().map(|url| host(url)).collect();
    urls[0].replacen(&all[0], &all.join(","), 1)
}

fn authority(url: &str) -> &str {
    url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).expect("an address with a path").0
}

/// Runs a script, which has to succeed; returns what it prints.
async fn run(program: &str, arguments: &[&str]) -> String {
    try_run(program, arguments).await.unwrap_or_else(|printed| panic!("{arguments:?}: {printed}"))
}

/// The same of one that may fail.
async fn try_run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments).stderr(Stdio::inherit());
    let output = spawn_blocking(move || command.output()).await.expect("no panic").expect("it runs");
    let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() { Ok(printed) } else { Err(printed) }
}
