//! One soak, from its plan to its verdict: everything happens at once for as long as the plan says; then the faults stop,
//! and whatever was begun has to come to its end.

use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::desk::Desk;
use crate::findings::{self, Finding, Kind};
use crate::ledger::{self, Ledger};
use crate::plan::Plan;
use crate::replicas::Slot;
use crate::stripe::StripeLedger;
use crate::support::{Command, Setup, World};
use crate::surroundings::{Allowed, Surroundings};
use crate::tally::Tally;
use crate::upstream::Upstream;
use crate::verdict::Verdict;

/// How long everything may take to come to its end once all is well again. Work that a lost worker had claimed is due
/// again after half a minute, and may have been claimed by one that was killed as the last of all.
const REST: Duration = Duration::from_secs(120);
/// How long the scripts may take beyond the publishing's length.
const SCRIPTS: Duration = Duration::from_secs(90);
/// How often it is said how far it is.
const PROGRESS: Duration = Duration::from_secs(10);
/// How often it is looked whether all is at rest.
const LOOK: Duration = Duration::from_millis(250);

/// A world in which recovery is quick: short leases, short delays.
pub async fn world(stripe: Option<&StripeLedger>) -> World {
    let setup = ledger::configure(Setup::new(), stripe)
        .set("amqp.confirm_timeout", "3s")
        .set("retry.delayed", "200ms,500ms,1s,2s")
        .set("worker.lease_margin", "1s")
        .set("worker.drain", "5s")
        .set("worker.unknown_payment_grace", "4s")
        .set("variants.cards.timeout", "1500ms")
        .set("variants.cards.settle_window", "1s")
        .set("variants.cards.concurrency", "16")
        .set("variants.cards.breaker.failures", "20")
        .set("variants.cards.breaker.open", "1s");
    setup.build().await
}

/// A plan under way.
struct Soak<'a> {
    world: &'a World,
    ledger: &'a dyn Ledger,
    plan: &'a Plan,
    begun: Instant,
    tally: Tally,
    upstream: Upstream,
    /// What must not happen to replicas, and did.
    complaints: Mutex<Vec<String>>,
    /// The faults are over.
    calm: CancellationToken,
    /// Everything is over.
    end: CancellationToken,
}

/// Runs a plan in a world, and judges.
pub async fn run(world: &World, ledger: &dyn Ledger, plan: &Plan, say: &dyn Fn(&str)) -> Verdict {
    let soak = Soak {
        world,
        ledger,
        plan,
        begun: Instant::now(),
        tally: Tally::default(),
        upstream: Upstream::default(),
        complaints: Mutex::default(),
        calm: CancellationToken::new(),
        end: CancellationToken::new(),
    };
    soak.plan_gateway();
    say(&format!("{} payments, {} s of faults", plan.scripts.len(), plan.length.as_secs()));
    let (publish, commands) = mpsc::channel(256);
    let desk = Desk::new(world, ledger, &soak.upstream, &plan.scripts, publish.clone());
    let (_, (), (), rested) = tokio::join!(
        soak.end.run_until_cancelled(soak.upstream.publish(world, commands)),
        soak.upstream.listen(world, &soak.end),
        desk.run(&soak.end),
        soak.go_through(publish, &desk, say),
    );
    soak.judge(&desk, rested).await
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

    /// The faults, and then the peace; how long it took until all was at rest.
    async fn go_through(&self, publish: mpsc::Sender<Command>, desk: &Desk<'_>, say: &dyn Fn(&str)) -> Duration {
        let time = async {
            sleep_until(self.begun + self.plan.length).await;
            self.calm.cancel();
        };
        let work = async { tokio::join!(time, self.troubles(), self.play(publish)) };
        tokio::select! {
            _ = work => {}
            () = self.tell_progress(say) => {}
        }
        self.ledger.forget_plans();
        desk.all_is_well();
        say("the faults are over; waiting for everything to come to its end");
        let resting = Instant::now();
        if timeout(REST, rest(self.world, self.ledger, &self.upstream)).await.is_err() {
            say("not everything came to its end");
        }
        self.end.cancel();
        resting.elapsed()
    }

    /// Says every now and then how far it is, for ever.
    async fn tell_progress(&self, say: &dyn Fn(&str)) {
        loop {
            sleep(PROGRESS).await;
            let sent: usize = self.upstream.sent().kinds.values().sum();
            let (seconds, events) = (self.begun.elapsed().as_secs(), self.upstream.event_count());
            say(&format!("after {seconds} s: {sent} commands sent, {events} events received"));
        }
    }

    /// What happens to replicas and services, until the faults are over and all of them are well again.
    async fn troubles(&self) {
        let (world, tally, plan) = (self.world, &self.tally, self.plan);
        let surroundings =
            Surroundings { world, ledger: self.ledger, tally, allowed: Allowed::here(), begun: self.begun };
        let slots = plan.replicas.iter().map(|plan| Slot::start(world, tally, &self.complaints, plan));
        tokio::join!(
            surroundings.broker(&plan.broker, &self.calm),
            surroundings.database(&plan.database, &self.calm),
            surroundings.gateway(&plan.gateway, &self.calm),
            join_all(slots.map(|slot| slot.run(self.begun, &self.calm))),
        );
    }

    /// Every payment's script.
    async fn play(&self, publish: mpsc::Sender<Command>) {
        let scripts = self.plan.scripts.iter();
        let playing = join_all(scripts.map(|script| self.upstream.play(script, self.begun, publish.clone())));
        if timeout(self.plan.length + SCRIPTS, playing).await.is_err() {
            self.complain("the commands could not all be published".to_owned());
        }
    }

    /// Ends all replicas in good order, and looks for whatever must not be.
    async fn judge(&self, desk: &Desk<'_>, rested: Duration) -> Verdict {
        for worker in self.world.workers().iter().filter(|worker| worker.exited().is_none()) {
            worker.term();
            let status = worker.wait().await;
            if !status.success() {
                self.complain(format!("replica {} did not drain: {status}", worker.pid()));
            }
        }
        let mut found = findings::all(self.world, self.ledger, desk).await;
        let complaints = self.complaints.lock().unwrap().clone();
        found.extend(complaints.into_iter().map(|what| Finding::new(Kind::Worker, None, what)));
        Verdict::new(self.plan, self.ledger, &self.upstream, &self.tally, rested, found)
    }

    fn complain(&self, what: String) {
        self.complaints.lock().unwrap().push(what);
    }
}

/// Waits until nothing is open any more, every event has come, and nobody has anything left to do.
async fn rest(world: &World, ledger: &dyn Ledger, upstream: &Upstream) {
    loop {
        sleep(LOOK).await;
        let sql = "SELECT (SELECT count(*) FROM operations WHERE state <> 'settled'), (SELECT count(*) FROM events),
                          (SELECT count(*) FROM outbox), (SELECT count(*) FROM payments WHERE status = 'input')";
        let row = &world.query(sql, &[]).await[0];
        let (open, events, unsent, away): (i64, i64, i64, i64) = (row.get(0), row.get(1), row.get(2), row.get(3));
        let is_quiet = open == 0 && unsent == 0 && away == 0 && events == upstream.event_count() as i64;
        if is_quiet
            && ledger.pending().is_empty()
            && world.published().iter().all(|command| upstream.is_answered(command))
        {
            return;
        }
    }
}
