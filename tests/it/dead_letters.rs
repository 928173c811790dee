//! Messages that the broker itself dead-letters are answered as well, if they identify themselves.

use lapin::BasicProperties;
use serde_json::json;

use crate::support::replies::Replies;
use crate::support::{Command, Expected, World, eventually};

/// Expires in its queue after a millisecond.
fn short_lived(command: &Command) -> Command {
    command.clone().properties(BasicProperties::default().with_expiration("1".into()))
}

#[tokio::test]
async fn what_expired_in_its_queue_is_answered_and_never_carried_out() {
    let world = World::new().await;
    let mut replies = Replies::of(&world).await;
    let charge = Command::charge("http", "120.00", "USD").reply_to(&replies.queue, "call-1");
    let nameless = Command::create("http", "120.00", "USD").raw("nonsense");
    world.publish_all(&[short_lived(&charge), short_lived(&nameless)]).await;
    world.are_dead(2).await;

    let worker = world.worker().await;
    let answer = world.final_event(&charge).await;
    assert_eq!((answer.kind(), answer.code()), ("command.rejected", "expired"), "{}", answer.line());
    assert_eq!(replies.next().await, ("call-1".to_owned(), answer.body));

    // The letters stay for operators. Sent again, one is recognized and the other is still unreadable.
    world.are_dead(2).await;
    let output = world.paybus(&["dead", "replay", "--yes", "--who", "a test"]).await;
    assert!(output.status.success(), "{output:?}");
    eventually("the command to be recognized", async || {
        let known = worker.count(r#"paybus_commands_duplicate_total{variant="http"}"#).await;
        if known == 1 { Ok(()) } else { Err(known) }
    })
    .await;
    world.are_dead(1).await;
    assert!(world.gateway.calls().is_empty());
    assert!(!worker.log().contains("\"level\":\"ERROR\""), "it is not an error of paybus");

    // To have it carried out after all, send it under a new id.
    let again = charge.clone().id("again");
    assert_eq!(world.run(&again).await.status(), "confirmed");
    world.check_books_but(Expected { dead: 1, ..Expected::default() }).await;
}

/// The command was begun from another copy of its message: the dead letter undoes nothing.
#[tokio::test]
async fn a_dead_letter_of_what_was_carried_out_changes_nothing() {
    let world = World::new().await;
    let worker = world.worker().await;
    let charge = Command::charge("http", "120.00", "USD");
    assert_eq!(world.run(&charge).await.status(), "confirmed");
    let refund = charge.then("payment.refund", json!({"amount": "20.00"}));
    assert_eq!(world.run(&refund).await.field("refunded_amount"), "20.00");
    worker.drain().await;
    world.bus.publish(&[short_lived(&charge), short_lived(&refund)]).await;
    world.are_dead(2).await;
    let worker = world.worker().await;
    eventually("both to be recognized", async || {
        let known = worker.count(r#"paybus_commands_duplicate_total{variant="http"}"#).await;
        if known == 2 { Ok(()) } else { Err(known) }
    })
    .await;
    assert!(world.log.find(|event| event.kind() == "command.rejected").is_none(), "{}", world.lines());
    world.check_books_but(Expected { dead: 2, ..Expected::default() }).await;
}
