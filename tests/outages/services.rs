//! The services that a test may stop, restart and ask.

use std::process::{Command, Stdio};

use tokio::task::spawn_blocking;

use crate::support::skip::needed;

/// A service that one of our scripts started.
#[derive(Debug, Clone, Copy)]
pub enum Service {
    Broker,
    Database,
}

impl Service {
    /// Whether the test may stop it; otherwise reports that the test is skipped.
    pub fn may_be_stopped(self) -> bool {
        needed(self.variable()).is_some()
    }

    /// Runs an action of the script: start, stop, restart or kill. Returns how many queues of the broker had no leader
    /// afterwards and were given one, as an operator would do.
    pub async fn run(self, verb: &'static str) -> usize {
        if let (Service::Broker, "kill") = (self, verb) {
            note_queues().await;
        }
        let program = std::env::var(self.variable()).expect("a service of ours");
        let run = move || Command::new(program).arg(verb).stderr(Stdio::inherit()).output();
        let output = spawn_blocking(run).await.expect("no panic").expect("it runs");
        assert!(output.status.success(), "{self:?} {verb}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().find_map(|line| line.strip_prefix("elected ")?.parse().ok()).unwrap_or_default()
    }

    fn variable(self) -> &'static str {
        match self {
            Service::Broker => "PAYBUS_TEST_RABBITMQ",
            Service::Database => "PAYBUS_TEST_PG_CTL",
        }
    }
}

/// Lets the broker persist the list of quorum queues. It keeps the name of a new queue in memory for up to three
/// seconds (Erlang's dets). If it dies before that, the queue returns without the messages that were confirmed into it:
/// seen with 3.10.8, which logged "pre init for 7 registered servers" with eight queues, and the eighth began at its
/// first term. A test declares its queues a moment before it kills the broker.
async fn note_queues() {
    let names = "[ok = dets:sync(Table) || Table <- dets:all(),
        filename:basename(dets:info(Table, filename)) =:= \"names.dets\"].";
    rabbitmqctl(&["eval", names]).await;
}

/// Whether the broker's own program is available; otherwise reports that the test is skipped.
pub fn has_rabbitmqctl() -> bool {
    needed("PAYBUS_TEST_RABBITMQCTL").is_some()
}

/// Runs rabbitmqctl.
pub async fn rabbitmqctl(arguments: &[&str]) -> String {
    let program = std::env::var("PAYBUS_TEST_RABBITMQCTL").expect("a broker of ours");
    let owned: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let output = spawn_blocking(move || Command::new(program).args(owned).output()).await.expect("no panic");
    let output = output.expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "rabbitmqctl {arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}
