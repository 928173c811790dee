//! A gateway that cannot be asked and signs what happened: each report is applied once, whichever worker dies meanwhile
//! and in whatever order the reports arrive.

use serde_json::{Value, json};

use crate::support::webhook::named;
use crate::support::{Behaviour, Command, Event, Setup, Webhook, Worker, WorkerSetup, World};

const SECRET: &str = "whsec_proofs";

fn setup() -> Setup {
    Setup::new()
        .set("variants.http.webhook_secret", SECRET)
        .set("variants.http.notifications", "proof")
        .set("variants.http.lookup", "false")
        .set("variants.http.key_window", "0s")
}

/// The gateway reports the state of the payment's last operation, under this id.
async fn prove(world: &World, charge: &Command, id: &str, to: &Worker) {
    let mut news = world.gateway.proofs(charge.payment).pop().expect("something that was done");
    news["id"] = json!(id);
    post(&news, to).await;
}

async fn post(news: &Value, to: &Worker) {
    assert_eq!(Webhook::signed("http", SECRET, news).post(to).await, (200, None));
}

/// A charge whose result is still to come.
async fn pending(world: &World) -> Command {
    let charge = Command::charge("http", "120.00", "USD");
    world.gateway.plan(charge.payment, vec![Behaviour::Pending]);
    world.publish(&charge).await;
    world.operation_state(&charge, "pending").await;
    charge
}

#[tokio::test]
async fn what_was_answered_with_200_is_applied_once_though_workers_die_over_it() {
    let world = setup().build().await;
    let receiver = world.worker_with(WorkerSetup::default().only_webhooks()).await;
    for step in ["decided", "committed"] {
        let worker = world.worker().await;
        let charge = pending(&world).await;
        worker.drain().await;
        world.gateway.complete(charge.payment, true);
        prove(&world, &charge, "n-1", &receiver).await;
        world.spawn_worker(WorkerSetup::default().dies_at(step)).wait().await;
        let worker = world.worker().await;
        let answer = world.final_event(&charge).await;
        assert_eq!((answer.status(), answer.field("captured_amount")), ("confirmed", "120.00"), "{step}");
        let event = world.final_event(&named("http", charge.payment, "n-1")).await;
        assert_eq!(event.kind(), "command.succeeded", "{step}: {}", event.line());
        worker.drain().await;
    }
    receiver.drain().await;
    world.check_books().await;
}

#[tokio::test]
async fn what_never_comes_is_left_to_a_person_and_counts_when_it_comes_after_all() {
    let world = setup().set("variants.http.notification_deadline", "1s").build().await;
    let worker = world.worker().await;
    let charge = pending(&world).await;
    world.event("the escalation", |event| event.is_of(&charge) && event.reason() == "escalated").await;
    world.gateway.complete(charge.payment, true);
    prove(&world, &charge, "n-1", &worker).await;
    assert_eq!(world.final_event(&charge).await.status(), "confirmed");
    world.check_books().await;
}

#[tokio::test]
async fn a_reversed_decline_is_reported_and_an_older_proof_undoes_nothing() {
    let world = setup().build().await;
    let worker = world.worker().await;
    let charge = pending(&world).await;
    let news = |id: &str, state: &str| {
        json!({"id": id, "payment_id": charge.payment, "operation_id": charge.operation_id(), "kind": "capture",
            "state": state, "reference": format!("fake-{}", charge.operation_id()), "amount": "120.00", "currency": "USD"})
    };
    post(&news("n-1", "failed"), &worker).await;
    assert_eq!(world.final_event(&charge).await.status(), "rejected");
    world.gateway.complete(charge.payment, true);
    post(&news("n-2", "done"), &worker).await;
    let is_approval = |event: &Event| event.kind() == "payment.status_changed" && event.status() == "confirmed";
    let confirmed = world.event("the late approval", is_approval).await;
    assert_eq!(confirmed.field("captured_amount"), "120.00");
    // An older report undoes nothing.
    post(&news("n-3", "failed"), &worker).await;
    assert_eq!(world.final_event(&named("http", charge.payment, "n-3")).await.kind(), "command.succeeded");
    assert_eq!(world.payment_row(charge.payment).await.get::<_, &str>("status"), "confirmed");
    // An incomplete proof is not a proof.
    let mut half = news("n-4", "done");
    half["currency"] = Value::Null;
    assert_eq!(Webhook::signed("http", SECRET, &half).post(&worker).await, (400, None));
    let other = json!({"id": "n-5", "payment_id": charge.payment});
    post(&other, &worker).await;
    let refused = world.final_event(&named("http", charge.payment, "n-5")).await;
    assert_eq!((refused.kind(), refused.code()), ("command.rejected", "unsupported"), "this gateway cannot be asked");
    world.check_books().await;
}
