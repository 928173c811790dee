//! Customers who must act at Stripe before a payment continues: 3-D Secure, and a shop's own page.

use serde_json::{Value, json};

use crate::stripe::{extra, intent, intent_id, pay, redirected, started};
use crate::support::fake_stripe::Fault;

#[tokio::test]
async fn a_customer_authenticates_and_a_process_or_a_sync_finishes_it() {
    let (stripe, world, _worker) = started().await;
    let finish: [(&str, Value); 2] = [("payment.process", json!({"process": {}})), ("payment.sync", json!({}))];
    for (kind, data) in finish {
        for (succeeds, status) in [(true, "confirmed"), (false, "rejected")] {
            let charge = redirected("pm_card_threeDSecure2Required");
            let input = world.run(&charge).await;
            let id = intent_id(&stripe, &charge);
            let address = input.field("redirect_url").to_owned();
            assert_eq!((input.status(), address), ("input", format!("{}/authenticate/{id}", stripe.url())));
            stripe.authenticate(&id, succeeds);
            let finished = world.run(&charge.then(kind, data.clone())).await;
            assert_eq!(finished.status(), status, "{kind} {succeeds}");
            assert_eq!(stripe.charges_of(&id).len(), usize::from(succeeds));
        }
    }
    world.check_books().await;
}

#[tokio::test]
async fn a_customer_who_has_not_acted_yet_may_be_asked_again_or_give_another_card() {
    let (stripe, world, _worker) = started().await;
    let charge = redirected("pm_card_threeDSecure2Required");
    assert_eq!(world.run(&charge).await.status(), "input");
    let waits = world.run(&charge.then("payment.process", json!({"process": {}}))).await;
    assert_eq!(waits.kind(), "command.succeeded");
    let other = json!({"process": {"payment_method": "pm_card_visa"}});
    assert_eq!(world.run(&charge.then("payment.process", other)).await.status(), "confirmed");
    assert_eq!(stripe.charges_of(&intent_id(&stripe, &charge)).len(), 1);
    world.check_books().await;
}

#[tokio::test]
async fn a_payment_that_was_paid_meanwhile_is_not_paid_again_with_another_card() {
    let (stripe, world, _worker) = started().await;
    let charge = redirected("pm_card_threeDSecure2Required");
    world.run(&charge).await;
    let id = intent_id(&stripe, &charge);
    stripe.authenticate(&id, true);
    let other = json!({"process": {"payment_method": "pm_card_mastercard"}});
    assert_eq!(world.run(&charge.then("payment.process", other)).await.status(), "confirmed");
    assert_eq!(stripe.charges_of(&id).len(), 1);
    world.check_books().await;
}

#[tokio::test]
async fn what_a_process_saw_going_on_ends_it_although_another_began_it() {
    let (stripe, world, _worker) = started().await;
    for (process, succeeds) in [
        (json!({}), true),
        (json!({}), false),
        (json!({"payment_method": "pm_card_mastercard", "return_url": "https://shop.example/back"}), true),
    ] {
        let charge = redirected("pm_card_threeDSecure2Required");
        world.run(&charge).await;
        stripe.plan("retrieve", vec![Fault::Say(json!({"status": "processing"}))]);
        let back = charge.then("payment.process", json!({"process": process}));
        world.publish(&back).await;
        assert_eq!(world.event_of(&back, "command.delayed").await.reason(), "pending");
        let id = intent_id(&stripe, &charge);
        stripe.authenticate(&id, succeeds);
        world.run(&charge.then("payment.sync", json!({}))).await;
        let status = if succeeds { "confirmed" } else { "rejected" };
        assert_eq!(world.final_event(&back).await.status(), status, "{process}");
        assert_eq!(stripe.charges_of(&id).len(), usize::from(succeeds));
    }
    world.check_books().await;
}

#[tokio::test]
async fn a_shops_own_page_is_given_the_client_secret_and_nobody_else() {
    let (stripe, world, _worker) = started().await;
    let token = "pm_card_authenticationRequired";
    let charge = pay(token).with("process", json!({"payment_method": token, "use_stripe_sdk": true}));
    let input = world.run(&charge).await;
    assert_eq!((input.status(), input.data()["payment"].get("redirect_url")), ("input", None));
    let intent = intent(&stripe, &charge);
    assert_eq!(extra(&input)["client_secret"], intent["client_secret"]);
    stripe.authenticate(intent["id"].as_str().unwrap(), true);
    let paid = world.run(&charge.then("payment.sync", json!({}))).await;
    assert_eq!((paid.status(), &extra(&paid)["client_secret"]), ("confirmed", &json!(null)), "it is no longer needed");
    // If the customer cannot be redirected, it is a decline that says what is missing.
    let lost = pay(token);
    let declined = world.run(&lost).await;
    assert_eq!(
        (declined.status(), &extra(&declined)["decline"]["code"]),
        ("rejected", &json!("authentication_required"))
    );
    assert!(declined.message().contains("return_url"), "{}", declined.message());
    assert!(extra(&declined).get("client_secret").is_none());
    let process = json!({"payment_method": token, "return_url": "https://shop.example/back"});
    let input = world.run(&lost.then("payment.process", json!({"process": process}))).await;
    assert_eq!(input.status(), "input");
    assert_eq!(world.run(&lost.then("payment.cancel", json!({}))).await.status(), "cancelled");
    let off = pay(token).with("process", json!({"payment_method": token, "off_session": true}));
    let declined = world.run(&off).await;
    assert_eq!(extra(&declined)["decline"]["code"], "authentication_required");
    world.check_books().await;
}
