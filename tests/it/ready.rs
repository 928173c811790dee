//! A customer approves at the gateway and closes the tab: paybus itself confirms what was approved, once, even if a
//! worker dies meanwhile or the customer returns.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;
use tokio::sync::Notify;

use crate::support::webhook::named;
use crate::support::{Behaviour, Command, Event, Setup, Webhook, Worker, WorkerSetup, World, eventually};

const SECRET: &str = "whsec_ready";

fn setup() -> Setup {
    Setup::new().set("variants.http.webhook_secret", SECRET)
}

/// A charge whose customer is redirected to approve it.
async fn sent_away(world: &World) -> Command {
    let charge = Command::charge("http", "120.00", "USD");
    let approval = Behaviour::Approval("https://wallet.example/approve".to_owned());
    world.gateway.plan_operation(charge.payment, "process", vec![approval]);
    assert_eq!(world.run(&charge).await.status(), "input");
    charge
}

/// The customer approves, and the gateway sends a webhook that something happened.
async fn approve(world: &World, charge: &Command, to: &Worker) {
    world.gateway.complete(charge.payment, true);
    assert_eq!(world.gateway.charges(charge.payment), [], "nothing is done before it is confirmed");
    let news = json!({"id": "n-1", "payment_id": charge.payment, "type": "approved"});
    assert_eq!(Webhook::signed("http", SECRET, &news).post(to).await, (200, None));
}

async fn confirmed(world: &World, charge: &Command) -> Event {
    let is_it = |event: &Event| event.subject() == charge.subject() && event.status() == "confirmed";
    let event = world.event("the confirmation", is_it).await;
    assert_eq!((event.field("captured_amount"), world.gateway.charges(charge.payment).len()), ("120.00", 1));
    event
}

#[tokio::test]
async fn a_customer_who_closes_the_tab_is_charged_once_though_workers_die() {
    let world = setup().build().await;
    let receiver = world.worker_with(WorkerSetup::default().only_webhooks()).await;
    // While the notification is begun, after the look-up at the gateway, and after the confirmation was sent.
    for step in ["committed", "called", "called@2"] {
        let worker = world.worker().await;
        let charge = sent_away(&world).await;
        worker.drain().await;
        approve(&world, &charge, &receiver).await;
        world.spawn_worker(WorkerSetup::default().dies_at(step)).wait().await;
        let worker = world.worker().await;
        let event = confirmed(&world, &charge).await;
        assert_eq!(event.cause().1, "paybus", "{step}: {}", event.line());
        world.final_event(&named("http", charge.payment, "n-1")).await;
        let calls = world.gateway.calls_of(charge.payment);
        let keys: BTreeSet<_> =
            calls.iter().filter(|call| call.operation == "confirm").map(|call| call.key.clone()).collect();
        assert_eq!(keys.len(), 1, "{step}: it was confirmed under one key");
        worker.drain().await;
    }
    receiver.drain().await;
    world.check_books().await;
}

#[tokio::test]
async fn a_confirmation_whose_answer_is_lost_is_sent_again_under_its_key() {
    let world = setup().build().await;
    let worker = world.worker().await;
    let charge = sent_away(&world).await;
    world.gateway.plan_operation(charge.payment, "confirm", vec![Behaviour::DropAfter, Behaviour::Status(503, None)]);
    approve(&world, &charge, &worker).await;
    confirmed(&world, &charge).await;
    world.check_books().await;
}

#[tokio::test]
async fn a_customer_who_comes_back_is_not_charged_again() {
    let world = setup().build().await;
    let worker = world.worker().await;
    let charge = sent_away(&world).await;
    let go_on = Arc::new(Notify::new());
    world.gateway.plan_operation(charge.payment, "confirm", vec![Behaviour::Until(Arc::clone(&go_on))]);
    approve(&world, &charge, &worker).await;
    eventually("the confirmation at the gateway", async || {
        let calls = world.gateway.calls_of(charge.payment);
        if calls.iter().any(|call| call.operation == "confirm") { Ok(()) } else { Err("no call") }
    })
    .await;
    let back = world.run(&charge.then("payment.process", json!({"process": {}}))).await;
    assert_eq!((back.kind(), back.code()), ("command.rejected", "in_progress"), "{}", back.line());
    go_on.notify_one();
    confirmed(&world, &charge).await;
    world.check_books().await;
}

/// The shop is faster than any webhook, or there are none: its own command continues the payment and gets the result.
#[tokio::test]
async fn the_shops_own_process_confirms_what_is_approved() {
    for lookup in ["true", "false"] {
        let world = setup().set("variants.http.lookup", lookup).build().await;
        let _worker = world.worker().await;
        let charge = sent_away(&world).await;
        world.gateway.complete(charge.payment, true);
        let back = world.run(&charge.then("payment.process", json!({"process": {}}))).await;
        assert_eq!((back.status(), back.field("captured_amount")), ("confirmed", "120.00"), "{}", back.line());
        let operations: Vec<String> =
            world.gateway.calls_of(charge.payment).into_iter().map(|call| call.operation).collect();
        assert_eq!(operations, ["process", "process", "confirm"]);
        assert_eq!(world.gateway.charges(charge.payment).len(), 1);
        world.check_books().await;
    }
}
