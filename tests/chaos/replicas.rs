//! The replicas: each slot always has a worker, whatever happens to it; whoever ends is followed by a new one, as an
//! orchestrator would have it.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::support::{Worker, WorkerSetup, World};
use crate::tally::Tally;
use crate::troubles::{ReplicaPlan, ReplicaTrouble};

/// How often a worker is looked after.
const LOOK: Duration = Duration::from_millis(50);
/// How long an orchestrator waits before it starts the next one.
const RESTART: Duration = Duration::from_millis(500);
/// How long a drain may take: its grace and what comes after it.
const DRAIN: Duration = Duration::from_secs(20);
const SIGABRT: i32 = 6;

/// One slot and what is to happen in it.
pub struct Slot<'a> {
    world: &'a World,
    tally: &'a Tally,
    /// What must not happen: workers that end unasked, or do not drain.
    complaints: &'a Mutex<Vec<String>>,
    plan: &'a ReplicaPlan,
    started: usize,
    worker: Worker,
    failpoint: bool,
}

impl<'a> Slot<'a> {
    /// Starts the slot's first worker.
    pub fn start(
        world: &'a World,
        tally: &'a Tally,
        complaints: &'a Mutex<Vec<String>>,
        plan: &'a ReplicaPlan,
    ) -> Slot<'a> {
        let (worker, failpoint) = spawn(world, plan, 0);
        Slot { world, tally, complaints, plan, started: 1, worker, failpoint }
    }

    /// Carries out the slot's plan until the faults are over; then there is a worker that nothing more happens to.
    pub async fn run(mut self, begun: Instant, over: &CancellationToken) {
        let finished = async {
            for trouble in &self.plan.troubles {
                self.watch_until(begun + trouble.at).await;
                self.befall(&trouble.what).await;
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

    /// It ended without being told to.
    fn ended(&self, status: ExitStatus) {
        if self.failpoint && status.signal() == Some(SIGABRT) {
            self.tally.add("replica dies at a named step");
        } else if self.worker.log().contains("paybus is at work") {
            self.complain(&format!("ended unasked: {status}"));
        } else {
            self.tally.add("replica finds no broker or database at its start");
        }
    }

    async fn befall(&mut self, trouble: &ReplicaTrouble) {
        match trouble {
            ReplicaTrouble::Kill => {
                self.worker.kill().await;
                self.tally.add("SIGKILL of a replica");
                self.next();
            }
            ReplicaTrouble::Stop(pause) => {
                self.worker.stop();
                sleep(*pause).await;
                self.worker.cont();
                self.tally.add("SIGSTOP beyond the lease, SIGCONT");
            }
            ReplicaTrouble::Term => {
                self.terminate().await;
                self.tally.add("SIGTERM of a replica, and a new one");
                self.next();
            }
        }
    }

    async fn terminate(&self) {
        // One whose handlers are not there yet ends as anything does.
        let at_work = self.worker.log().contains("paybus is at work");
        self.worker.term();
        match timeout(DRAIN, self.worker.wait()).await {
            Ok(status) if status.success() || !at_work => {}
            Ok(status) if self.failpoint && status.signal() == Some(SIGABRT) => {
                self.tally.add("replica dies at a named step");
            }
            Ok(status) => self.complain(&format!("did not drain: {status}")),
            Err(_) => {
                self.complain("did not end within its grace");
                self.worker.kill().await;
            }
        }
    }

    fn next(&mut self) {
        (self.worker, self.failpoint) = spawn(self.world, self.plan, self.started);
        self.started += 1;
    }

    /// From here on nothing happens to it any more.
    async fn calm(&mut self) {
        if self.failpoint || self.worker.exited().is_some() {
            self.terminate().await;
            self.worker = self.world.spawn_worker(WorkerSetup::default());
        }
        let ready = async {
            while !matches!(self.worker.get("/readyz").await, Ok((200, _))) {
                if self.worker.exited().is_some() {
                    self.worker = self.world.spawn_worker(WorkerSetup::default());
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

fn spawn(world: &World, plan: &ReplicaPlan, place: usize) -> (Worker, bool) {
    let failpoint = plan.failpoints.get(place).or(plan.failpoints.last()).cloned().flatten();
    let setup = failpoint.iter().fold(WorkerSetup::default(), |setup, step| setup.dies_at(step));
    (world.spawn_worker(setup), failpoint.is_some())
}
