//! The promise under faults: "one command: at most one charge, and never a lost event, whatever dies in between". A soak
//! that anyone can run, `make chaos`, and that ends with a verdict.
//!
//! Real replicas work between a real broker, a real database and a gateway that keeps its own ledger. Commands of every kind
//! come for some time, right ones, wrong ones, duplicates, and ones that race for a payment. Meanwhile everything fails: the
//! gateway's calls in every way that a call can fail, replicas, broker and database by being killed, stopped, restarted and
//! cut off. Then the faults end, whatever was begun comes to its end, and the ledger, which is the truth, is held against
//! PostgreSQL's books and against the events that a subscriber got.
//!
//! - `rng`, `plan`: everything is drawn from a seed before it begins: `script` (a payment's commands, with `captures` in
//!   parts and `look_ups` that mislead; `wrong` ones), `faults` (what the gateway's calls meet), `disruptions` (what happens
//!   to the surroundings). Gateways that cannot be asked, and approvals that are to be confirmed, are `script/unasked`.
//! - `ledger` is what a soak needs of its gateway, `stripe` the one in memory that speaks as Stripe does.
//! - `soak` carries the plan out: `upstream` publishes, `replies` collects, `webhooks` delivers what the gateway reports,
//!   `replicas` and `surroundings` make trouble (`cluster`, where the services are clusters), `obstructions` hold somebody
//!   up, `poison` is what nobody can read, `canary` sees whether a variant that is never ill answers meanwhile, `operators` has
//!   the people: customers who come back, and the clerk who resolves what no machine can know.
//! - `findings` looks for whatever must not be, `verdict` tells.
//!
//! What is drawn depends on the seed alone; what it meets depends on the machine as well, so that the same seed finds the
//! same thing often, not always.

// What breaks here must break the soak; and it reports on standard output.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../outages/services.rs"]
#[allow(dead_code)] // The outages use the rest.
mod services;
#[path = "../it/support/mod.rs"]
mod support;

#[path = "../cluster/services.rs"]
#[allow(dead_code)] // The cluster's tests use the rest.
mod cluster_services;
#[path = "../cluster/switch.rs"]
#[allow(dead_code)] // The same.
mod switch;

mod arguments;
mod canary;
mod cluster;
mod disruptions;
mod faults;
mod findings;
mod ledger;
mod obstructions;
mod operators;
mod plan;
mod poison;
mod replicas;
mod replies;
mod rng;
mod script;
mod soak;
mod stripe;
mod surroundings;
mod tally;
mod upstream;
mod verdict;
mod webhooks;
mod wrong;

use std::process::ExitCode;

use self::arguments::Arguments;
use self::cluster::Cluster;
use self::plan::Plan;
use self::support::fake_gateway::FakeGateway;

fn main() -> ExitCode {
    let Some(arguments) = Arguments::read() else {
        return ExitCode::SUCCESS;
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let kept = runtime.block_on(soak(&arguments));
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn soak(arguments: &Arguments) -> bool {
    // Ended last: the world's own clients go through it.
    let cluster = Cluster::here().await;
    let is_cluster = cluster.is_some();
    let draw = |seed| Plan::draw(seed, arguments.seconds, arguments.replicas, arguments.gateway, is_cluster);
    let mut plan = draw(arguments.seed());
    let again = draw(plan.seed);
    assert_eq!(format!("{plan:?}"), format!("{again:?}"), "a seed draws one plan");
    if arguments.old_worker.is_some() {
        plan.scripts.retain(|script| !script.is_of_this_release());
    }
    let say = |what: &str| eprintln!("chaos: {what}");
    say(&format!("seed {}", plan.seed));
    let stripe = plan.gateway_name.start(&plan.scripts);
    let well = FakeGateway::start().await;
    let old_worker = arguments.old_worker.as_deref();
    let cluster = cluster.as_ref();
    let world = soak::world(stripe.as_ref(), &well, old_worker.is_some(), cluster).await;
    let ledger = ledger::of(&world, stripe.as_ref());
    let gateways = soak::Gateways { ledger, well: &well };
    let verdict = soak::run(&world, gateways, &plan, old_worker, cluster, &say).await;
    if arguments.json {
        println!("{}", verdict.json());
    } else {
        println!("{}", verdict.table());
    }
    if !verdict.is_clean() {
        eprintln!("{}", verdict.evidence(&world, ledger));
        eprintln!("the replicas' logs: {}", verdict::logs(&world).display());
        eprintln!("once more: {}", verdict.again());
    }
    verdict.is_clean()
}
