//! One soak, from its plan to its verdict: everything happens at once for as long as the plan says; then the faults
//! stop, and everything that was begun must end.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::canary::{self, Canary};
use crate::cluster::Cluster;
use crate::findings::{self, Finding, Kind};
use crate::ledger::{self, Ledger};
use crate::obstructions::{self, Obstructions};
use crate::operators::Operators;
use crate::plan::{EXTENSION, Plan};
use crate::poison::{self, Poison};
use crate::replicas::{self, Slot, Starts};
use crate::replies;
use crate::script::{CARDS, DUMMY, captures, unasked};
use crate::stripe::StripeLedger;
use crate::support::fake_gateway::FakeGateway;
use crate::support::{Command, Setup, World};
use crate::surroundings::{Allowed, Surroundings};
use crate::tally::Tally;
use crate::upstream::Upstream;
use crate::verdict::{Times, Verdict};
use crate::webhooks::{self, Webhooks};

/// How long nothing may progress after the faults while something is still open. Work that a lost worker had claimed is
/// due again after half a minute, and the last worker to be killed may have claimed it then.
const REST: Duration = Duration::from_secs(120);
/// How long a backlog may take in total.
const REST_MAX: Duration = Duration::from_secs(1800);
/// How long the scripts may take beyond the time of publishing.
const SCRIPTS: Duration = Duration::from_secs(90);
/// How long sent events are kept.
const RETENTION: &str = "20s";
/// Runs of this length drop old events: none is dropped before it is two minutes old.
const DROPS_EVENTS: Duration = Duration::from_secs(200);
const EVENTS_DROPPED: &str = "old events are dropped";
/// How often progress is reported.
const PROGRESS: Duration = Duration::from_secs(10);
/// How often to check whether everything is at rest.
const LOOK: Duration = Duration::from_millis(250);

/// The gateways of a soak.
#[derive(Clone, Copy)]
pub struct Gateways<'a> {
    /// The one that fails as drawn.
    pub ledger: &'a dyn Ledger,
    /// The healthy one.
    pub well: &'a FakeGateway,
}

/// A world with fast recovery: short leases, short delays.
pub async fn world(
    stripe: Option<&StripeLedger>,
    well: &FakeGateway,
    has_old_workers: bool,
    cluster: Option<&Cluster>,
) -> World {
    let setup = canary::configure(ledger::configure(Setup::new(), stripe, !has_old_workers), well)
        .set("amqp.confirm_timeout", "3s")
        .set("retry.delayed", "200ms,500ms,1s,2s")
        .set("worker.lease_margin", "1s")
        .set("worker.drain", "5s")
        .set("worker.unknown_payment_grace", "4s")
        .set("retention.events", RETENTION);
    // The same for the dummy's breaker: with one probe in 30 s, its commands stood still for minutes after the faults.
    let setup = setup.set(&format!("variants.{DUMMY}.breaker.open"), "1s");
    let variants = ledger::variants(stripe, !has_old_workers);
    let setup = variants.iter().fold(setup, |setup, name| {
        let key = |key: &str| format!("variants.{name}.{key}");
        setup
            .set(&key("timeout"), "1500ms")
            .set(&key("settle_window"), "1s")
            .set(&key("concurrency"), "16")
            .set(&key("breaker.failures"), "20")
            .set(&key("breaker.open"), "1s")
    });
    let keyless = variants.iter().filter(|name| **name != CARDS);
    let setup = keyless.fold(setup, |setup, name| setup.set(&format!("variants.{name}.key_window"), "0s"));
    let setup = cluster.into_iter().fold(setup, |setup, cluster| cluster.configure(setup));
    setup.build().await
}

/// A plan in progress.
struct Soak<'a> {
    world: &'a World,
    ledger: &'a dyn Ledger,
    plan: &'a Plan,
    /// An older release's program.
    old_worker: Option<&'a Path>,
    cluster: Option<&'a Cluster>,
    /// The workers' settings for the cluster.
    addresses: Vec<(String, String)>,
    begun: Instant,
    tally: Tally,
    upstream: Upstream,
    /// Violations by replicas.
    complaints: Mutex<Vec<String>>,
    /// What was found before the end.
    found: Mutex<Vec<Finding>>,
    /// The faults are over.
    calm: CancellationToken,
    /// Everything is over.
    end: CancellationToken,
}

/// Runs a plan in a world, and judges the outcome.
pub async fn run(
    world: &World,
    gateways: Gateways<'_>,
    plan: &Plan,
    old_worker: Option<&Path>,
    cluster: Option<&Cluster>,
    say: &dyn Fn(&str),
) -> Verdict {
    let Gateways { ledger, well } = gateways;
    let soak = Soak {
        world,
        ledger,
        plan,
        old_worker,
        cluster,
        addresses: cluster.map(|cluster| cluster.addresses(world)).unwrap_or_default(),
        begun: Instant::now(),
        tally: Tally::default(),
        upstream: Upstream::default(),
        complaints: Mutex::default(),
        found: Mutex::default(),
        calm: CancellationToken::new(),
        end: CancellationToken::new(),
    };
    soak.plan_gateway();
    replies::declare(world).await;
    say(&format!("{} payments, {} s of faults", plan.scripts.len(), plan.length.as_secs()));
    let (publish, commands) = mpsc::channel(256);
    let operators = Operators::new(world, ledger, &soak.upstream, &plan.scripts, publish.clone());
    let webhooks = Webhooks::new(world, ledger, &soak.tally, plan.silent());
    let canary = Canary::new(world, &soak.upstream, &soak.tally, well, plan.replicas.len());
    let (_, (), (), (), (), rested) = tokio::join!(
        soak.end.run_until_cancelled(soak.upstream.publish(world, &soak.tally, commands)),
        soak.upstream.listen(world, &soak.end),
        operators.run(&soak.end),
        webhooks.run(plan.webhooks.clone(), &soak.end),
        canary.run(&soak.calm, &soak.end),
        soak.go_through(publish, &operators, &webhooks, &canary, say),
    );
    soak.verdict(&operators, &webhooks, &canary, rested).await
}

impl Soak<'_> {
    fn plan_gateway(&self) {
        self.world.gateway.set_latency(Duration::from_millis(10));
        for script in &self.plan.scripts {
            for fault in &script.faults {
                self.ledger.plan(script.payment, fault);
            }
        }
    }

    /// Every kind of fault that must happen, by the name under which it is counted.
    fn wanted(&self) -> Vec<&'static str> {
        let mut wanted = [&replicas::DISRUPTIONS[..], &webhooks::FATES[..]].concat();
        wanted.extend(Allowed::here().disruptions());
        wanted.extend(obstructions::kinds(self.plan.length, self.plan.is_cluster));
        wanted.push(canary::ANSWERED);
        match self.old_worker {
            None => wanted.extend(Poison::ALL.map(Poison::name)),
            Some(_) => wanted.push(replicas::OLDER),
        }
        wanted
    }

    /// The faults, and then the rest; returns how long it took until everything was at rest.
    async fn go_through(
        &self,
        publish: mpsc::Sender<Command>,
        operators: &Operators<'_>,
        webhooks: &Webhooks<'_>,
        canary: &Canary<'_>,
        say: &dyn Fn(&str),
    ) -> Duration {
        let time = async {
            sleep_until(self.begun + self.plan.length).await;
            let end = Instant::now() + EXTENSION;
            while !self.tally.missing(&self.wanted()).is_empty() && Instant::now() < end {
                sleep(LOOK).await;
            }
            self.calm.cancel();
        };
        let (world, tally, begun) = (self.world, &self.tally, self.begun);
        let obstructions = Obstructions { world, tally, canary, begun }.run(&self.plan.obstructed, &self.calm);
        let work = async { tokio::join!(time, self.disruptions(), obstructions, self.poison(), self.play(publish)) };
        tokio::select! {
            _ = work => {}
            () = self.report_progress(say) => {}
        }
        self.ledger.forget_plans();
        operators.all_is_well();
        let left_out = self.upstream.left_out();
        if left_out > 0 {
            say(&format!("{left_out} payments never began: the workers were behind"));
        }
        say("the faults are over; waiting for everything to come to its end");
        let resting = Instant::now();
        // A long run leaves a backlog, which takes time; but it must not stand still.
        let (mut events, mut progress) = (self.upstream.event_count(), Instant::now());
        let is_at_rest = async || {
            let rests = timeout(REST, rest(self.world, self.ledger, &self.upstream)).await;
            rests.unwrap_or(false) && webhooks.all_are_delivered()
        };
        while !is_at_rest().await {
            let now = self.upstream.event_count();
            if now != events {
                (events, progress) = (now, Instant::now());
            }
            if progress.elapsed() > REST || resting.elapsed() > REST_MAX {
                say("not everything came to its end");
                self.find(Kind::Unrest, format!("after {} s", resting.elapsed().as_secs()));
                break;
            }
            sleep(LOOK).await;
        }
        self.end.cancel();
        resting.elapsed()
    }

    /// Reports progress periodically, without end.
    async fn report_progress(&self, say: &dyn Fn(&str)) {
        loop {
            sleep(PROGRESS).await;
            let sent: usize = self.upstream.sent().kinds.values().sum();
            let (seconds, events) = (self.begun.elapsed().as_secs(), self.upstream.event_count());
            say(&format!("after {seconds} s: {sent} commands sent, {events} events received"));
        }
    }

    /// What happens to replicas and services until the faults are over and all of them are healthy again.
    async fn disruptions(&self) {
        let (world, tally, plan) = (self.world, &self.tally, self.plan);
        let (ledger, cluster, begun) = (self.ledger, self.cluster, self.begun);
        let surroundings = Surroundings { world, ledger, tally, allowed: Allowed::here(), cluster, begun };
        let slots = plan.replicas.iter().map(|replica| {
            let (rollouts, addresses) = (plan.rollouts.as_slice(), self.addresses.as_slice());
            let starts = Starts { plan: replica, rollouts, addresses, old_worker: self.old_worker, begun };
            Slot::start(world, tally, &self.complaints, starts)
        });
        tokio::join!(
            surroundings.broker(&plan.broker, &self.calm),
            surroundings.database(&plan.database, &self.calm),
            surroundings.gateway(&plan.gateway, &self.calm),
            join_all(slots.map(|slot| slot.run(&self.calm))),
        );
    }

    /// Publishes unreadable messages, unless there are older workers, which may die of them.
    async fn poison(&self) {
        if self.old_worker.is_none() {
            let plan = self.plan.poison.as_slice();
            poison::publish(self.world, &self.upstream, &self.tally, plan, self.begun, &self.calm).await;
        }
    }

    /// Plays every payment's script.
    async fn play(&self, publish: mpsc::Sender<Command>) {
        let scripts = self.plan.scripts.iter();
        let playing =
            join_all(scripts.map(|script| self.upstream.play(script, self.begun, publish.clone(), &self.calm)));
        if timeout(self.plan.length + EXTENSION + SCRIPTS, playing).await.is_err() {
            self.complain("the commands could not all be published".to_owned());
        }
    }

    /// Stops all replicas properly, and looks for violations.
    async fn verdict(
        &self,
        operators: &Operators<'_>,
        webhooks: &Webhooks<'_>,
        canary: &Canary<'_>,
        rested: Duration,
    ) -> Verdict {
        for worker in self.world.workers().iter().filter(|worker| worker.exited().is_none()) {
            worker.term();
            let status = worker.wait().await;
            if !status.success() {
                self.complain(format!("replica {} did not drain: {status}", worker.pid()));
            }
        }
        let replies = replies::take(self.world).await;
        self.count_dropped_events().await;
        captures::count(self.ledger, &self.tally);
        unasked::count(self.ledger, &webhooks.accepted(), &self.tally);
        let mut found = findings::all(self.world, self.ledger, &self.upstream, operators, webhooks, &replies).await;
        found.extend(canary.findings());
        found.extend(self.missing_faults().into_iter().map(|what| Finding::new(Kind::FaultMissing, None, what)));
        found.extend(self.found.lock().unwrap().drain(..));
        let complaints = self.complaints.lock().unwrap().clone();
        found.extend(complaints.into_iter().map(|what| Finding::new(Kind::Worker, None, what)));
        let mut left_out = Allowed::here().left_out();
        left_out.extend(match self.old_worker {
            None => &["an older worker beside new ones (--old-worker)"][..],
            Some(_) => &[
                "several captures (an older worker may know one)",
                "poison (an older worker may die of it)",
                "proof, undoing, confirming (an older worker may not know them)",
            ][..],
        });
        let times = Times { rested, canary: canary.figures() };
        Verdict::new(self.plan, self.ledger, &self.upstream, &self.tally, left_out, times, found)
    }

    async fn count_dropped_events(&self) {
        let stored: i64 = self.world.value("SELECT count(*) FROM events", &[]).await;
        let dropped = self.upstream.event_count().saturating_sub(usize::try_from(stored).unwrap_or_default());
        if dropped > 0 {
            self.tally.add_many(EVENTS_DROPPED, dropped);
        }
    }

    /// Kinds of faults that were planned and did not happen.
    fn missing_faults(&self) -> Vec<&'static str> {
        let met = self.ledger.met();
        let mut missing: Vec<_> =
            self.ledger.faults().iter().copied().filter(|fault| !met.contains_key(fault)).collect();
        let mut wanted = self.wanted();
        if self.plan.length >= DROPS_EVENTS {
            wanted.push(EVENTS_DROPPED);
        }
        if self.old_worker.is_none() {
            wanted.extend(captures::KINDS);
            wanted.extend(unasked::kinds(self.plan.gateway_name));
        }
        missing.extend(self.tally.missing(&wanted));
        missing
    }

    fn find(&self, kind: Kind, what: String) {
        self.found.lock().unwrap().push(Finding::new(kind, None, what));
    }

    fn complain(&self, what: String) {
        self.complaints.lock().unwrap().push(what);
    }
}

/// Whether nothing is open any more, every event and dead letter has arrived, and no person has anything left to do.
async fn rest(world: &World, ledger: &dyn Ledger, upstream: &Upstream) -> bool {
    let sql = "SELECT (SELECT count(*) FROM operations WHERE state <> 'settled') + (SELECT count(*) FROM outbox)
                      + (SELECT count(*) FROM payments WHERE status = 'input')";
    let open: i64 = world.query(sql, &[]).await[0].get(0);
    if open > 0 || !ledger.pending().is_empty() {
        return false;
    }
    if (world.bus.length("dead").await as usize) < upstream.unreadable().len() {
        return false;
    }
    let stored = world.query("SELECT id::text FROM events", &[]).await;
    let stored: Vec<String> = stored.iter().map(|row| row.get(0)).collect();
    upstream.has_events(&stored) && world.published().iter().all(|command| upstream.is_answered(command))
}
