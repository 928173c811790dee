//! What Stripe reports by itself, from the dashboard to the event on the bus, against an in-memory Stripe.

use serde_json::{Value, json};

use crate::stripe::{intent_id, pay};
use crate::support::fake_stripe::FakeStripe;
use crate::support::webhook::named;
use crate::support::{Command, Setup, Worker, WorkerSetup, World, eventually};

const SECRET: &str = "whsec_51paybus";

/// A world with a variant `stripe` and a worker that gets all of Stripe's webhooks.
async fn world(stripe: &FakeStripe) -> (World, Worker) {
    let world = Setup::new()
        .set("variants.stripe.gateway", "stripe")
        .set("variants.stripe.secret_key", "sk_test_51paybus")
        .set("variants.stripe.webhook_secret", SECRET)
        .set("variants.stripe.api_base", &stripe.url())
        .set("variants.stripe.timeout", "2s")
        .set("variants.stripe.settle_window", "0s")
        .set("variants.stripe.retry.delayed", "1h")
        .build()
        .await;
    let worker = world.worker().await;
    stripe.deliver_webhooks(&format!("{}/webhooks/stripe", worker.http()), SECRET);
    (world, worker)
}

/// Waits until everything that Stripe has reported so far is answered.
async fn all_is_heard(world: &World, stripe: &FakeStripe) {
    eventually("an answer to every event of Stripe", async || {
        let is_open = |event: &&Value| {
            let id = event["id"].as_str().unwrap();
            world.log.find(|event| event.is_final() && event.data()["command"]["id"] == id).is_none()
        };
        match stripe.events().iter().filter(is_open).map(|event| event["type"].clone()).collect::<Vec<_>>() {
            open if open.is_empty() => Ok(()),
            open => Err(format!("{open:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn refunds_and_cancellations_in_the_dashboard_are_emitted_as_events() {
    let stripe = FakeStripe::start();
    let (world, _worker) = world(&stripe).await;
    let paid = pay("pm_card_visa");
    assert_eq!(world.run(&paid).await.status(), "confirmed");
    let held = pay("pm_card_visa").with("capture", json!(false));
    assert_eq!(world.run(&held).await.status(), "preauth");
    // Reports of paybus's own actions change nothing beyond their answers.
    all_is_heard(&world, &stripe).await;
    let changes = |command: &Command| {
        let events = world.events_of(command.payment);
        events.iter().filter(|event| event.kind().starts_with("payment.")).count()
    };
    assert_eq!((changes(&paid), changes(&held)), (2, 2));

    stripe.refund_by_hand(&intent_id(&stripe, &paid), 2_000);
    let refunded = world.event("the refund", |event| event.field("refunded_amount") == "20.00").await;
    assert_eq!((refunded.kind(), refunded.field("captured_amount")), ("payment.updated", "100.00"));
    stripe.cancel_by_hand(&intent_id(&stripe, &held));
    let of_held = |status: &'static str| {
        let subject = held.subject();
        move |event: &crate::support::Event| event.subject() == subject && event.status() == status
    };
    world.event("the cancellation", of_held("refunded")).await;
    all_is_heard(&world, &stripe).await;
    world.check_books().await;
}

#[tokio::test]
async fn a_customer_who_authenticates_at_stripe_has_paid() {
    let stripe = FakeStripe::start();
    let (world, _worker) = world(&stripe).await;
    for (succeeds, status) in [(true, "confirmed"), (false, "rejected")] {
        let data =
            json!({"payment_method": "pm_card_threeDSecure2Required", "return_url": "https://shop.example/back"});
        let charge = Command::charge("stripe", "120.00", "USD").with("process", data);
        assert_eq!(world.run(&charge).await.status(), "input");
        stripe.authenticate(&intent_id(&stripe, &charge), succeeds);
        let of_it = |event: &crate::support::Event| event.subject() == charge.subject() && event.status() == status;
        world.event("the payment's end", of_it).await;
    }
    all_is_heard(&world, &stripe).await;
    world.check_books().await;
}

/// A report about one of two charges says nothing about the other.
#[tokio::test]
async fn a_refund_of_one_of_two_charges_is_reported_as_such() {
    let stripe = FakeStripe::start();
    let (world, _worker) = world(&stripe).await;
    let charge = pay("pm_card_visa");
    world.run(&charge).await;
    let first = intent_id(&stripe, &charge);
    stripe.charge_by_hand(&charge.subject(), 12_000);
    world.event("the second charge", |event| event.code() == "double_charge").await;
    all_is_heard(&world, &stripe).await;
    stripe.refund_by_hand(&first, 2_000);
    let event = world.event("the refund", |event| event.field("refunded_amount") == "20.00").await;
    assert_eq!((event.kind(), event.code(), event.field("captured_amount")), ("payment.updated", "", "220.00"));
    all_is_heard(&world, &stripe).await;
    world.check_books().await;
}

/// A process that strangers can reach has no key that could move money.
#[tokio::test]
async fn who_only_receives_webhooks_needs_no_secret_key() {
    let stripe = FakeStripe::start();
    let setup = Setup::new()
        .set("variants.stripe.gateway", "stripe")
        .set("variants.stripe.webhook_secret", SECRET)
        .set("variants.stripe.api_base", &stripe.url())
        .set("variants.stripe.settle_window", "0s");
    let world = setup.build().await;
    let keyless = world.spawn_worker(WorkerSetup::default());
    assert!(!keyless.wait().await.success());
    let why = "variants.stripe: gateway stripe: secret_key: missing";
    assert!(keyless.log().contains(why), "{}", keyless.log());
    let receiver = world.worker_with(WorkerSetup::default().only_webhooks()).await;
    let key = WorkerSetup::default().set("variants.stripe.secret_key", "sk_test_51paybus");
    let worker = world.worker_with(key).await;
    stripe.deliver_webhooks(&format!("{}/webhooks/stripe", receiver.http()), SECRET);
    let charge = pay("pm_card_visa");
    assert_eq!(world.run(&charge).await.status(), "confirmed");
    stripe.refund_by_hand(&intent_id(&stripe, &charge), 2_000);
    world.event("the refund", |event| event.field("refunded_amount") == "20.00").await;
    all_is_heard(&world, &stripe).await;
    let taken = r#"paybus_webhooks_total{variant="stripe",outcome="taken"}"#;
    assert_eq!(receiver.count(taken).await, stripe.events().len() as i64);
    assert_eq!(worker.count(taken).await, 0);
    receiver.drain().await;
    world.check_books().await;
}

/// A dispute names the payment intent and no id of paybus.
#[tokio::test]
async fn whose_a_dispute_is_stripe_is_asked() {
    let stripe = FakeStripe::start();
    let (world, worker) = world(&stripe).await;
    let charge = pay("pm_card_visa");
    world.run(&charge).await;
    all_is_heard(&world, &stripe).await;
    stripe.dispute(&intent_id(&stripe, &charge), "needs_response");
    all_is_heard(&world, &stripe).await;
    let event = stripe.events().pop().unwrap();
    assert_eq!(event["type"], "charge.dispute.created");
    let id = event["id"].as_str().unwrap();
    let answer = world.final_event(&named("stripe", charge.payment, id)).await;
    assert_ne!(answer.kind(), "command.rejected", "{}", answer.line());
    let located = world.final_event(&named("stripe", charge.payment, id).attribute("subject", Value::Null)).await;
    assert_eq!(located.kind(), "command.succeeded");
    let other = r#"paybus_webhooks_total{variant="stripe",outcome="not_ours"}"#;
    assert_eq!(worker.count(other).await, 0);
    world.check_books().await;
}

#[tokio::test]
async fn what_others_do_with_the_same_account_is_taken_and_left_alone() {
    let stripe = FakeStripe::start();
    let (world, worker) = world(&stripe).await;
    let client = reqwest::Client::new();
    let made = client
        .post(format!("{}/v1/payment_intents", stripe.url()))
        .bearer_auth("sk_test_51paybus")
        .header("content-type", "application/x-www-form-urlencoded")
        .body("amount=500&currency=usd&payment_method=pm_card_visa&confirm=true&payment_method_types[]=card")
        .send()
        .await
        .unwrap();
    assert!(made.status().is_success(), "{}", made.text().await.unwrap());
    all_is_heard(&world, &stripe).await;
    assert!(!stripe.events().is_empty());
    let count = worker.count(r#"paybus_webhooks_total{variant="stripe",outcome="not_ours"}"#).await;
    assert_eq!(count, stripe.events().len() as i64);
    let payments: i64 = world.value("SELECT count(*) FROM payments", &[]).await;
    assert_eq!(payments, 0);
    world.check_books().await;
}
