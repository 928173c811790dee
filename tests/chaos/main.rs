//! The guarantee under faults: one command, at most one charge, and no event is ever lost, whichever process dies in
//! between. A soak that anyone can run, `make chaos`, and that ends with a verdict.
//!
//! Real replicas work between a real broker, a real database and a gateway that keeps its own ledger. Commands of every
//! kind are published for some time: correct ones, wrong ones, duplicates, and ones that race for a payment. Meanwhile
//! everything fails: the gateway's calls in every way that a call can fail; replicas, broker and database by being
//! killed, stopped, restarted and cut off. Then the faults end, everything that was begun ends, and the ledger, which
//! is the truth, is compared with PostgreSQL's books and with the events that a subscriber received.
//!
//! - `rng`, `plan`: everything is drawn from a seed before it begins: `script` (a payment's commands, with partial
//!   `captures` and misleading `look_ups`; `wrong` ones), `faults` (what the gateway's calls meet), `disruptions` (what
//!   happens to the surroundings). `script/unasked` has gateways that cannot be asked, and approvals that must be
//!   confirmed.
//! - `ledger` is what a soak needs from its gateway; `stripe` is the in-memory one that speaks Stripe's API.
//! - `soak` carries the plan out: `upstream` publishes, `replies` collects, `webhooks` delivers what the gateway
//!   reports, `replicas` and `surroundings` disrupt (`cluster`, if the services are clusters), `obstructions` delay,
//!   `poison` is unreadable, `canary` checks that a healthy variant answers meanwhile, and `operators` has the people:
//!   customers who return, and the clerk who resolves what paybus cannot know.
//! - `findings` looks for violations, and `verdict` reports them.
//!
//! What is drawn depends only on the seed; what it meets also depends on the machine, so the same seed finds the same
//! violation often, but not always.

// Failures here must fail the soak, and it reports on standard output.
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
    // Dropped last: the world's own clients connect through it.
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
