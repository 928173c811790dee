//! The replicas: each slot always has a worker, whatever happens to it; a worker that ends is replaced, as an
//! orchestrator would do.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::disruptions::{ReplicaDisruption, ReplicaPlan};
use crate::support::{Worker, WorkerSetup, World};
use crate::tally::Tally;

/// How often a worker is checked.
const LOOK: Duration = Duration::from_millis(50);
/// How long an orchestrator waits before it starts the next one.
const RESTART: Duration = Duration::from_millis(500);
/// How long a drain may take: its grace period and the last steps.
const DRAIN: Duration = Duration::from_secs(20);
const SIGABRT: i32 = 6;
/// The broker has given up a worker that is suspended for longer.
const HEARTBEATS: Duration = Duration::from_secs(10);
/// The exit code of a worker that cannot reach broker or database.
const UNAVAILABLE: i32 = 69;
/// For how long after a disruption of a service a starting worker may end because of it.
const AFTER_DISRUPTION: Duration = Duration::from_secs(15);

const KILLED: &str = "SIGKILL of a replica";
const ALL_KILLED: &str = "SIGKILL of all replicas at once";
const STOPPED: &str = "SIGSTOP beyond the lease, SIGCONT";
const STOPPED_LONG: &str = "SIGSTOP beyond the broker's heartbeats, SIGCONT";
const TERMINATED: &str = "SIGTERM of a replica, and a new one";
const FAILPOINT: &str = "replica dies at a named step";
const RESTART_LOOP: &str = "a replica is killed thrice, soon after each start";
/// Counted if there is an older program.
pub const OLDER: &str = "an older worker is started beside new ones";
const OTHER_SETTINGS: &str = "replica is started with other settings";

/// The disruptions of replicas, by the names under which they are counted. The rest depends on when a service is
/// disrupted.
pub const DISRUPTIONS: [&str; 8] =
    [KILLED, ALL_KILLED, STOPPED, STOPPED_LONG, TERMINATED, FAILPOINT, RESTART_LOOP, OTHER_SETTINGS];

/// The settings that change with a rollout: how often workers poll and retry, how much at once, and with how many
/// connections.
const OTHER: [(&str, &str); 5] = [
    ("retry.delayed", "100ms,300ms,1s,1s,3s"),
    ("retry.immediate.attempts", "2"),
    ("worker.poll", "300ms"),
    ("database.pool", "3"),
    ("variants.cards.concurrency", "5"),
];

/// A slot and what happens in it.
pub struct Slot<'a> {
    world: &'a World,
    tally: &'a Tally,
    /// Violations: workers that end by themselves or do not drain.
    complaints: &'a Mutex<Vec<String>>,
    starts: Starts<'a>,
    started: usize,
    worker: Worker,
    failpoint: bool,
    /// Whether it was asked to end: a second signal would end it immediately.
    is_asked_to_end: bool,
}

/// How the consecutive workers of a slot are started.
#[derive(Clone, Copy)]
pub struct Starts<'a> {
    /// What happens in the slot.
    pub plan: &'a ReplicaPlan,
    /// When the settings change.
    pub rollouts: &'a [Duration],
    /// Settings for the services, if they have several addresses.
    pub addresses: &'a [(String, String)],
    /// An older release's program.
    pub old_worker: Option<&'a Path>,
    /// When the soak began.
    pub begun: Instant,
}

impl Starts<'_> {
    /// How a worker without disruptions is started.
    fn usual(&self) -> WorkerSetup {
        WorkerSetup { settings: self.addresses.to_vec(), ..WorkerSetup::default() }
    }

    /// The worker with this number, and whether it ends itself.
    fn spawn(&self, world: &World, tally: &Tally, number: usize) -> (Worker, bool) {
        let rollouts = self.rollouts.iter().filter(|rollout| self.begun + **rollout < Instant::now()).count();
        let mut setup = self.usual();
        if rollouts % 2 == 1 {
            setup = OTHER.into_iter().fold(setup, |setup, (key, value)| setup.set(key, value));
            tally.add(OTHER_SETTINGS);
        }
        if let Some(program) = self.old_worker.filter(|_| number % 3 == 2) {
            // It may not know that an address can name several hosts.
            setup.settings.drain(..self.addresses.len());
            setup.program = Some(program.to_owned());
            tally.add(OLDER);
        }
        let failpoint = self.plan.failpoints.get(number).or(self.plan.failpoints.last()).cloned().flatten();
        let setup = failpoint.iter().fold(setup, |setup, step| setup.dies_at(step));
        (world.spawn_worker(setup), failpoint.is_some())
    }
}

impl<'a> Slot<'a> {
    /// Starts the slot's first worker.
    pub fn start(
        world: &'a World,
        tally: &'a Tally,
        complaints: &'a Mutex<Vec<String>>,
        starts: Starts<'a>,
    ) -> Slot<'a> {
        let (worker, failpoint) = starts.spawn(world, tally, 0);
        Slot { world, tally, complaints, starts, started: 1, worker, failpoint, is_asked_to_end: false }
    }

    /// Carries out the slot's plan until the faults are over; after that, its worker is left alone.
    pub async fn run(mut self, over: &CancellationToken) {
        let finished = async {
            for disruption in &self.starts.plan.disruptions {
                self.watch_until(self.starts.begun + disruption.at).await;
                self.befall(&disruption.what).await;
            }
            loop {
                self.watch_until(Instant::now() + Duration::from_secs(1)).await;
            }
        };
        over.run_until_cancelled(finished).await;
        self.worker.cont();
        self.calm().await;
    }

    /// Starts a new worker whenever there is none.
    async fn watch_until(&mut self, end: Instant) {
        while Instant::now() < end {
            if let Some(status) = self.worker.exited() {
                self.ended(status);
                sleep(RESTART).await;
                self.next();
            }
            sleep_until((Instant::now() + LOOK).min(end)).await;
        }
    }

    /// It ended by itself.
    fn ended(&self, status: ExitStatus) {
        let was_at_work = self.worker.log().contains("worker started");
        let has_excuse = self.tally.service_was_disrupted(AFTER_DISRUPTION);
        if self.failpoint && status.signal() == Some(SIGABRT) {
            self.tally.add(FAILPOINT);
        } else if !was_at_work && has_excuse && status.code() == Some(UNAVAILABLE) {
            self.tally.add("replica finds no broker or database at its start");
        } else {
            self.complain(&format!("ended unasked: {status}"));
        }
    }

    async fn befall(&mut self, disruption: &ReplicaDisruption) {
        match disruption {
            ReplicaDisruption::Kill | ReplicaDisruption::KillAll => {
                self.worker.kill().await;
                self.tally.add(if matches!(disruption, ReplicaDisruption::Kill) { KILLED } else { ALL_KILLED });
                self.next();
            }
            ReplicaDisruption::Stop(pause) => {
                self.worker.stop();
                sleep(*pause).await;
                self.worker.cont();
                self.tally.add(if *pause > HEARTBEATS { STOPPED_LONG } else { STOPPED });
            }
            ReplicaDisruption::Term => {
                self.terminate().await;
                self.tally.add(TERMINATED);
                self.next();
            }
            ReplicaDisruption::RestartLoop(lives) => {
                for life in lives {
                    self.worker.kill().await;
                    self.next();
                    sleep(*life).await;
                }
                self.worker.kill().await;
                self.tally.add(RESTART_LOOP);
                self.next();
            }
        }
    }

    async fn terminate(&mut self) {
        // A worker without signal handlers yet ends like any process.
        let at_work = self.worker.log().contains("worker started");
        if !std::mem::replace(&mut self.is_asked_to_end, true) {
            self.worker.term();
        }
        match timeout(DRAIN, self.worker.wait()).await {
            Ok(status) if status.success() || !at_work => {}
            Ok(status) if self.failpoint && status.signal() == Some(SIGABRT) => {
                self.tally.add(FAILPOINT);
            }
            Ok(status) => self.complain(&format!("did not drain: {status}")),
            Err(_) => {
                self.complain("did not end within its grace");
                self.worker.kill().await;
            }
        }
    }

    fn next(&mut self) {
        (self.worker, self.failpoint) = self.starts.spawn(self.world, self.tally, self.started);
        self.started += 1;
        self.is_asked_to_end = false;
    }

    /// From now on nothing happens to it any more.
    async fn calm(&mut self) {
        if self.failpoint || self.worker.exited().is_some() {
            self.terminate().await;
            self.worker = self.world.spawn_worker(self.starts.usual());
        }
        let ready = async {
            while !matches!(self.worker.get("/readyz").await, Ok((200, _))) {
                if self.worker.exited().is_some() {
                    self.worker = self.world.spawn_worker(self.starts.usual());
                }
                sleep(LOOK * 4).await;
            }
        };
        if timeout(Duration::from_secs(60), ready).await.is_err() {
            self.complain("is not ready although all is well again");
        }
    }

    fn complain(&self, what: &str) {
        let log = self.worker.log();
        let lines: Vec<&str> = log.lines().rev().take(5).collect();
        let last: Vec<&str> = lines.into_iter().rev().collect();
        let pid = self.worker.pid();
        self.complaints.lock().unwrap().push(format!("replica {pid} {what}; its log ends:\n{}", last.join("\n")));
    }
}
