//! What an answer says and where it goes, also when its command is published again from another connection.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use crate::support::replies::Replies;
use crate::support::{Behaviour, Command, Setup, World};

/// A publisher that timed out publishes the same command again; its first reply queue is gone.
#[tokio::test]
async fn a_command_that_was_answered_is_answered_again_where_it_asks_now() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let charge = Command::charge("http", "120.00", "USD");
    let declined = charge.then("payment.refund", json!({"amount": "5.00"}));
    let rejected = charge.then("payment.capture", json!({}));
    world.gateway.plan(charge.payment, vec![Behaviour::Approve, Behaviour::Decline("too_late".to_owned())]);
    let mut replies = Replies::of(&world).await;
    for command in [&charge, &declined, &rejected] {
        let first = world.run(command).await;
        let again = command.clone().reply_to(&replies.queue, "again");
        world.publish(&again).await;
        let (id, answer) = replies.next().await;
        assert_eq!((id.as_str(), &answer), ("again", &first.body), "byte for byte the published event");
        assert_eq!(answer["data"]["command"]["answer"], true);
    }
    // Events are kept for a limited time only; how each command ended is kept.
    world.query("DELETE FROM events WHERE payment_id = $1", &[&charge.payment]).await;
    for (command, kind) in
        [(&charge, "command.succeeded"), (&declined, "command.failed"), (&rejected, "command.rejected")]
    {
        world.publish(&command.clone().reply_to(&replies.queue, "late")).await;
        let (_, answer) = replies.next().await;
        assert_eq!((answer["type"].as_str(), &answer["data"]["command"]["final"]), (Some(kind), &json!(true)));
    }
    assert_eq!(world.gateway.calls_of(charge.payment).len(), 2, "nothing was carried out again");
}

#[tokio::test]
async fn a_command_that_goes_on_is_reported_and_answered_at_its_last_reply_to() {
    let world = World::new().await;
    let (_one, _two) = (world.worker().await, world.worker().await);
    let charge = Command::charge("http", "120.00", "USD").reply_to("reply.gone", "first");
    world.gateway.plan(charge.payment, vec![Behaviour::Delay(Duration::from_millis(1500))]);
    world.publish(&charge).await;
    world.gateway.wait_for_calls(charge.payment, 1).await;
    let mut replies = Replies::of(&world).await;
    world.publish(&charge.clone().reply_to(&replies.queue, "second")).await;
    let (id, delayed) = replies.next().await;
    assert_eq!((id.as_str(), delayed["type"].as_str()), ("second", Some("command.delayed")));
    assert_eq!(delayed["data"]["reason"], "accepted");
    let command = &delayed["data"]["command"];
    assert_eq!((&command["final"], &command["answer"]), (&json!(false), &json!(false)));
    let (id, answer) = replies.next().await;
    assert_eq!((id.as_str(), &answer["data"]["command"]["final"]), ("second", &json!(true)));
    assert_eq!(answer["data"]["payment"]["status"], "confirmed");
    assert_eq!(world.gateway.calls_of(charge.payment).len(), 1);
    world.check_books().await;
}

/// A publisher that lost the message and knows only the command's name asks for its status.
#[tokio::test]
async fn the_status_of_a_command_is_sent_to_who_asks_by_its_name() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let charge = Command::charge("http", "120.00", "USD").reply_to("reply.gone", "first");
    world.gateway.plan(charge.payment, vec![Behaviour::Delay(Duration::from_millis(1500))]);
    world.publish(&charge).await;
    world.gateway.wait_for_calls(charge.payment, 1).await;
    let mut replies = Replies::of(&world).await;
    let ask =
        |correlation: &str, data: Value| charge.then("command.status", data).reply_to(&replies.queue, correlation);
    let (open, settled) = (ask("open", json!({"id": charge.id})), ask("settled", json!({"id": charge.id})));
    let named = ask("named", json!({"id": charge.id, "source": charge.source}));
    let other = ask("other", json!({"id": charge.id, "source": "elsewhere"}));
    let nowhere = charge.then("command.status", json!({"id": charge.id}));

    world.bus.publish(&[open]).await;
    let (id, delayed) = replies.next().await;
    assert_eq!((id.as_str(), delayed["type"].as_str()), ("open", Some("command.delayed")));
    assert_eq!(delayed["data"]["command"]["id"], charge.id);
    let ended = world.final_event(&charge).await;
    for question in [settled, named] {
        world.bus.publish(&[question]).await;
        assert_eq!(replies.next().await.1, ended.body, "byte for byte the published event");
    }
    world.bus.publish(&[other]).await;
    let (id, unknown) = replies.next().await;
    assert_eq!((id.as_str(), &unknown["data"]["code"]), ("other", &json!("unknown_command")));
    assert_eq!(unknown["data"]["command"]["type"], "command.status");
    assert_eq!(world.run(&nowhere).await.code(), "invalid_envelope", "it is answered only as an event");
    assert_eq!(world.gateway.calls_of(charge.payment).len(), 1);
    world.check_books().await;
}

#[tokio::test]
async fn a_name_that_is_taken_answers_the_message_and_settles_nothing() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let create = Command::create("http", "120.00", "USD");
    world.run(&create).await;
    let mut replies = Replies::of(&world).await;
    let other = create.then("payment.cancel", json!({})).id(&create.id).reply_to(&replies.queue, "mine");
    world.publish(&other).await;
    let (_, answer) = replies.next().await;
    assert_eq!(answer["data"]["code"], "id_reused");
    let command = &answer["data"]["command"];
    assert_eq!((&command["final"], &command["answer"]), (&json!(false), &json!(true)));
}

/// The database accepts no NUL character, and nothing may be blocked by such a text.
#[tokio::test]
async fn an_answer_with_a_nul_character_in_its_place_is_refused_and_blocks_nothing() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let charge = Command::charge("http", "120.00", "USD");
    world.gateway.plan(charge.payment, vec![Behaviour::Delay(Duration::from_millis(500))]);
    world.publish(&charge).await;
    world.gateway.wait_for_calls(charge.payment, 1).await;
    world.publish(&charge.clone().reply_to("reply.shop", "a\0")).await;
    assert_eq!(world.final_event(&charge).await.status(), "confirmed");
    let other = Command::charge("http", "120.00", "USD").reply_to("reply.shop", "a\0");
    let answer = world.run(&other).await;
    assert_eq!((answer.kind(), answer.code()), ("command.rejected", "invalid_encoding"));
}

#[tokio::test]
async fn metadata_is_in_every_event_and_the_gateway_has_it() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let metadata = json!({"order": "1021", "shop": "Z\u{fc}rich"});
    let charge = Command::charge("http", "120.00", "USD").with("metadata", metadata.clone());
    world.gateway.plan(charge.payment, vec![Behaviour::Approve, Behaviour::Decline("too_late".to_owned())]);
    world.run(&charge).await;
    world.run(&charge.then("payment.refund", json!({"amount": "5.00"}))).await;
    world.run(&charge.then("payment.capture", json!({}))).await;
    world.run(&charge.then("payment.snapshot", json!({}))).await;
    for event in world.events_of(charge.payment) {
        let data = event.data();
        let shown = data.get("payment").map_or(&data["metadata"], |payment| &payment["metadata"]);
        assert_eq!(shown, &metadata, "{}", event.body);
    }
    let sent: Value = serde_json::from_slice(&world.gateway.calls_of(charge.payment)[0].body).expect("JSON");
    assert_eq!(sent["payment"]["metadata"], metadata);
    for (wrong, why) in [
        (json!({"order": 1021}), "a string"),
        (json!({"": "x"}), "1 to 40"),
        (json!({"order": "x".repeat(501)}), "at most 500"),
        (json!(["order"]), "an object"),
    ] {
        let answer = world.run(&Command::create("http", "1.00", "USD").with("metadata", wrong)).await;
        let message = answer.data()["message"].as_str().unwrap_or_default();
        assert!(answer.code() == "invalid_data" && message.contains(why), "{message}");
    }
}

/// `confirmed` alone does not mean that the goods may be shipped.
#[tokio::test]
async fn goods_go_out_when_the_whole_total_was_paid_and_no_review_is_open() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let paid = async |command: &Command| {
        let event = world.run(command).await;
        (event.status().to_owned(), event.payment()["paid_in_full"] == true)
    };
    let confirmed = |in_full| ("confirmed".to_owned(), in_full);
    let charge = Command::charge("http", "120.00", "USD");
    assert_eq!(paid(&charge).await, confirmed(true));
    assert_eq!(paid(&charge.then("payment.refund", json!({"amount": "1.00"}))).await, confirmed(false));

    let held = Command::charge("http", "120.00", "USD").with("capture", json!(false));
    assert_eq!(paid(&held).await, ("preauth".to_owned(), false));
    let part = world.run(&held.then("payment.capture", json!({"amount": "100.00"}))).await;
    assert_eq!((part.status(), &part.payment()["paid_in_full"]), ("confirmed", &json!(false)));
    assert_eq!((part.field("captured_amount"), part.field("voided_amount")), ("100.00", "20.00"));

    let reviewed = Command::charge("http", "120.00", "USD");
    world.gateway.plan(reviewed.payment, vec![Behaviour::Say(json!({"fraud_status": "review"}))]);
    assert_eq!(paid(&reviewed).await, confirmed(false));
}

#[tokio::test]
async fn two_refunds_are_distinguishable_and_a_declined_one_is_one_event() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let charge = Command::charge("http", "120.00", "USD");
    world.gateway.plan(
        charge.payment,
        vec![
            Behaviour::Approve,
            Behaviour::Approve,
            Behaviour::Say(json!({"result": "declined", "message": "too late"})),
        ],
    );
    world.run(&charge).await;
    let (first, second) = (
        charge.then("payment.refund", json!({"amount": "20.00"})),
        charge.then("payment.refund", json!({"amount": "20.00"})),
    );
    let (done, declined) = (world.run(&first).await, world.run(&second).await);
    let (one, two) = (&done.data()["operation"], &declined.data()["operation"]);
    assert_ne!(one["id"], two["id"]);
    assert_eq!(
        (&one["state"], &one["amount"], &one["currency"]),
        (&json!("succeeded"), &json!("20.00"), &json!("USD"))
    );
    assert_eq!((declined.kind(), &two["state"], &two["amount"]), ("command.failed", &json!("failed"), &json!("20.00")));
    let of_second = world.events_of(charge.payment).into_iter().filter(|event| event.body["causationid"] == second.id);
    assert_eq!(of_second.count(), 1, "a decline does not change the payment");
    world.check_books().await;
}

/// Its create is in progress, perhaps on another replica: it must not wait for the end of the grace period.
#[tokio::test]
async fn a_command_just_before_its_payment_is_carried_out_soon_after_it() {
    let world = Setup::new().set("worker.unknown_payment_grace", "30s").set("worker.poll", "30s").build().await;
    let _worker = world.worker().await;
    let create = Command::create("http", "120.00", "USD").payment(Uuid::new_v4());
    let early = create.then("payment.cancel", json!({}));
    world.publish(&early).await;
    world.operation_state(&early, "waiting").await;
    let begun = Instant::now();
    world.publish(&create).await;
    assert_eq!(world.final_event(&early).await.status(), "cancelled");
    assert!(begun.elapsed() < Duration::from_secs(5), "after {:?}", begun.elapsed());
}
