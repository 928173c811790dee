//! What operators can do with a waiting operation: have it tried now, or withdraw it.

use serde_json::json;

use crate::support::{Behaviour, Command, World};

/// Six hours.
const LONG: u64 = 6 * 3600;

fn of_operator(world: &World, about: &Command, kind: &str) -> Command {
    let data = json!({"operation": about.operation_id(), "reason": "the gateway's desk says go on"});
    about.then(kind, data).user(&world.bus.user())
}

/// A confirmed payment, a refund that the gateway postponed for hours, and a second one that waits for it.
async fn put_off(world: &World) -> (Command, Command) {
    let charge = Command::charge("http", "100.00", "EUR");
    world.run(&charge).await;
    world.gateway.plan_operation(charge.payment, "refund", vec![Behaviour::Status(429, Some(LONG))]);
    let [first, second] = ["30.00", "20.00"].map(|sum| charge.then("payment.refund", json!({"amount": sum})));
    world.publish(&first).await;
    assert_eq!(world.event_of(&first, "command.delayed").await.reason(), "rate_limited");
    world.publish(&second).await;
    world.operation_state(&second, "waiting").await;
    (first, second)
}

#[tokio::test]
async fn a_refund_that_the_gateway_put_off_for_hours_is_tried_now() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let (first, second) = put_off(&world).await;
    assert_eq!(world.run(&of_operator(&world, &first, "payment.retry")).await.kind(), "command.succeeded");
    assert_eq!(world.final_event(&first).await.field("refunded_amount"), "30.00");
    assert_eq!(world.final_event(&second).await.field("refunded_amount"), "50.00");
    let again = world.run(&of_operator(&world, &first, "payment.retry")).await;
    assert_eq!((again.kind(), again.code()), ("command.rejected", "not_retryable"));
    world.check_books().await;
}

#[tokio::test]
async fn a_refund_that_the_gateway_put_off_for_hours_is_withdrawn() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let (first, second) = put_off(&world).await;
    let third = first.then("payment.refund", json!({"amount": "5.00"}));
    world.publish(&third).await;
    world.operation_state(&third, "waiting").await;
    for refund in [&third, &first] {
        assert_eq!(world.run(&of_operator(&world, refund, "payment.withdraw")).await.kind(), "command.succeeded");
        let ended = world.final_event(refund).await;
        assert_eq!((ended.kind(), ended.code()), ("command.failed", "withdrawn"));
    }
    assert_eq!(world.final_event(&second).await.field("refunded_amount"), "20.00");
    assert_eq!(world.gateway.effects(first.payment).len(), 2, "the charge, and the refund that was left");
    let again = world.run(&of_operator(&world, &second, "payment.withdraw")).await;
    assert_eq!((again.kind(), again.code()), ("command.rejected", "not_withdrawable"));
    // The payment keeps who did it and why.
    let sql = "SELECT user_id || ': ' || (data ->> 'reason') FROM operations WHERE command_type = 'payment.withdraw'
               AND answer = 'succeeded' LIMIT 1";
    let kept: String = world.value(sql, &[]).await;
    assert_eq!(kept, format!("{}: the gateway's desk says go on", world.bus.user()));
    world.check_books().await;
}
