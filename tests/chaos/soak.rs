//! One soak, from its plan to its verdict: everything happens at once for as long as the plan says; then the faults stop,
//! and whatever was begun has to come to its end.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::desk::Desk;
use crate::findings::{self, Finding, Kind};
use crate::plan::Plan;
use crate::replicas::Slot;
use crate::support::{Setup, World};
use crate::surroundings::{Allowed, Surroundings};
use crate::tally::Tally;
use crate::upstream::Upstream;
use crate::verdict::Verdict;

/// How long everything may take to come to its end once all is well again. Work that a lost worker had claimed is due
/// again after half a minute, and may have been claimed by one that was killed as the last of all.
const REST: Duration = Duration::from_secs(120);
/// How long the scripts may take beyond the publishing's length.
const SCRIPTS: Duration = Duration::from_secs(90);
/// How long the events may take to come after the books are at rest.
const LOOK: Duration = Duration::from_millis(250);

/// A world in which recovery is quick: short leases, short delays.
pub async fn world() -> World {
    let setup = Setup::new()
        .set("amqp.confirm_timeout", "3s")
        .set("retry.delayed", "200ms,500ms,1s,2s")
        .set("worker.lease_margin", "1s")
        .set("worker.drain", "5s")
        .set("worker.unknown_payment_grace", "4s")
        .set("variants.http.timeout", "1500ms")
        .set("variants.http.settle_window", "1s")
        .set("variants.http.concurrency", "16")
        .set("variants.http.breaker.failures", "20")
        .set("variants.http.breaker.open", "1s");
    setup.build().await
}

/// Runs a plan in a world, and judges.
pub async fn run(world: &World, plan: &Plan, say: &dyn Fn(&str)) -> Verdict {
    let (tally, upstream) = (Tally::default(), Upstream::default());
    let complaints = Mutex::default();
    world.gateway.set_latency(Duration::from_millis(10));
    for script in &plan.scripts {
        for fault in &script.faults {
            world.gateway.plan_operation(script.payment, fault.operation, fault.behaviours.clone());
        }
    }
    let (publish, commands) = mpsc::channel(256);
    let desk = Desk::new(world, &upstream, &plan.scripts, publish.clone());
    let (everything, faults) = (CancellationToken::new(), CancellationToken::new());
    let begun = Instant::now();
    let surroundings = Surroundings { world, tally: &tally, allowed: Allowed::here(), begun };
    let replicas = futures_util::future::join_all(
        plan.replicas.iter().map(|plan| Slot::start(world, &tally, &complaints, plan).run(begun, &faults)),
    );
    let troubles = async {
        tokio::join!(
            surroundings.broker(&plan.broker, &faults),
            surroundings.database(&plan.database, &faults),
            surroundings.gateway(&plan.gateway, &faults),
            replicas,
        )
    };
    let scripts = async {
        tokio::time::sleep_until(begun + plan.length).await;
        faults.cancel();
    };
    let upstreams = plan.scripts.iter().map(|script| upstream.play(script, begun, publish.clone()));
    let main = async {
        say(&format!("{} payments, {} s of faults", plan.scripts.len(), plan.length.as_secs()));
        let playing = timeout(plan.length + SCRIPTS, futures_util::future::join_all(upstreams));
        let (_, (), played) = tokio::join!(troubles, scripts, playing);
        if played.is_err() {
            complaints.lock().unwrap().push("the commands could not all be published".to_owned());
        }
        let met = world.gateway.met();
        world.gateway.forget_plans();
        desk.all_is_well();
        say("the faults are over; waiting for everything to come to its end");
        let resting = Instant::now();
        if timeout(REST, rest(world, &upstream, &desk)).await.is_err() {
            say("not everything came to its end");
        }
        let rested = resting.elapsed();
        everything.cancel();
        (met, rested)
    };
    let (_, (), (met, rested)) = tokio::join!(
        everything.run_until_cancelled(upstream.publish(world, commands)),
        async {
            tokio::join!(upstream.listen(world, &everything), desk.run(&everything));
        },
        main,
    );
    drop(publish);
    let mut found: Vec<Finding> = Vec::new();
    found.extend(drain(world).await);
    let complaints = std::mem::take(&mut *complaints.lock().unwrap());
    found.extend(complaints.into_iter().map(|what| Finding::new(Kind::Worker, None, what)));
    found.extend(findings::all(world, &desk).await);
    Verdict::new(plan, surroundings.allowed, &upstream, &tally, met, rested, world, found)
}

/// Waits until nothing is open any more and every event has come.
async fn rest(world: &World, upstream: &Upstream, desk: &Desk<'_>) {
    loop {
        sleep(LOOK).await;
        let sql = "SELECT (SELECT count(*) FROM operations WHERE state <> 'settled'), (SELECT count(*) FROM events),
                          (SELECT count(*) FROM outbox), (SELECT count(*) FROM payments WHERE status = 'input')";
        let row = &world.query(sql, &[]).await[0];
        let (open, events, unsent, away): (i64, i64, i64, i64) = (row.get(0), row.get(1), row.get(2), row.get(3));
        let vanished = world.gateway.pending().len() as i64;
        let is_quiet = open == 0 && unsent == 0 && away <= vanished && events == upstream.event_count() as i64;
        if is_quiet && !desk.has_work() && world.published().iter().all(|command| upstream.is_answered(command)) {
            return;
        }
    }
}

/// Ends all replicas in good order.
async fn drain(world: &World) -> Vec<Finding> {
    let mut found = Vec::new();
    for worker in world.workers() {
        if worker.exited().is_none() {
            worker.term();
            let status = worker.wait().await;
            if !status.success() {
                found.push(Finding::new(
                    Kind::Worker,
                    None,
                    format!("replica {} did not drain: {status}", worker.pid()),
                ));
            }
        }
    }
    found
}
