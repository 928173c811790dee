//! What an operator's pause of a variant stops, and what it does not.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::replies::Replies;
use crate::support::{Behaviour, Command, Setup, Worker, World, eventually};

fn order(world: &World, kind: &str, data: Value) -> Command {
    Command::new("http", kind, Uuid::nil(), data).attribute("subject", Value::Null).user(&world.bus.user())
}

fn pause(world: &World) -> Command {
    order(world, "variant.pause", json!({"reason": "it charges twice"}))
}

/// Sends an order and returns its answer.
async fn ordered(world: &World, order: &Command) -> Value {
    let mut replies = Replies::of(world).await;
    world.bus.publish(&[order.clone().reply_to(&replies.queue, "order")]).await;
    replies.next().await.1
}

async fn is_paused(worker: &Worker, expected: i64) {
    eventually("the pause", async || {
        match worker.try_metric("paybus_variant_paused{variant=\"http\"}").await? as i64 {
            found if found == expected => Ok(()),
            found => Err(format!("paybus_variant_paused is {found}")),
        }
    })
    .await;
}

/// A charge that the gateway has put off, and that is due within two seconds.
async fn scheduled(world: &World) -> Command {
    let charge = Command::charge("http", "10.00", "EUR");
    world.gateway.plan_operation(charge.payment, "process", vec![Behaviour::Status(429, Some(2))]);
    world.publish(&charge).await;
    world.event_of(&charge, "command.delayed").await;
    charge
}

#[tokio::test]
async fn a_paused_variant_calls_nothing_on_any_replica_and_others_go_on() {
    let world = World::new().await;
    let (first, second) = (world.worker().await, world.worker().await);
    let scheduled = scheduled(&world).await;
    let answer = ordered(&world, &pause(&world)).await;
    assert_eq!(answer["data"]["pause"], json!({"paused": true, "reason": "it charges twice"}), "{answer}");
    is_paused(&first, 1).await;
    is_paused(&second, 1).await;
    let before = world.gateway.calls().len();

    let waiting: Vec<Command> = (0..20).map(|_| Command::charge("http", "10.00", "EUR")).collect();
    world.publish_all(&waiting).await;
    world.run(&Command::charge("default", "10.00", "EUR")).await;
    // The retry would have been due by now.
    let due = "SELECT due_at < now() - interval '1 s' FROM operations WHERE id = $1";
    eventually("the retry to be due", async || {
        let is_due: bool = world.value(due, &[&scheduled.operation_id()]).await;
        is_due.then_some(()).ok_or("not yet")
    })
    .await;
    assert_eq!(world.gateway.calls().len(), before);
    let (status, notes) = first.get("/readyz").await.unwrap();
    assert_eq!(status, 200);
    assert!(notes.contains("variant http is paused until an operator resumes it: it charges twice"), "{notes}");

    let answer = ordered(&world, &order(&world, "variant.resume", json!({}))).await;
    assert_eq!(answer["data"]["pause"], json!({"paused": false}), "{answer}");
    for event in world.final_events(&waiting).await {
        assert_eq!(event.status(), "confirmed");
    }
    assert_eq!(world.final_event(&scheduled).await.status(), "confirmed");
    world.check_books().await;
}

#[tokio::test]
async fn a_payment_of_a_paused_variant_can_be_synced() {
    let world = World::new().await;
    let worker = world.worker().await;
    let charge = Command::charge("http", "10.00", "EUR");
    world.run(&charge).await;
    ordered(&world, &pause(&world)).await;
    is_paused(&worker, 1).await;
    // A question that fails is asked again at once.
    world.gateway.plan_operation(charge.payment, "status", vec![Behaviour::Status(503, None)]);
    let sync = charge.then("payment.sync", json!({}));
    assert_eq!(world.run(&sync).await.kind(), "command.succeeded");
    let takeovers: i32 = world.value("SELECT takeovers FROM operations WHERE id = $1", &[&sync.operation_id()]).await;
    assert_eq!(takeovers, 0);
    world.check_books().await;
}

#[tokio::test]
async fn look_ups_go_on_although_the_breaker_was_open_when_the_pause_began() {
    let breaker = [("variants.http.breaker.failures", "1"), ("variants.http.breaker.open", "1s")];
    let world = breaker.into_iter().fold(Setup::new(), |setup, (key, value)| setup.set(key, value)).build().await;
    let worker = world.worker().await;
    let (paid, ill) = (Command::charge("http", "10.00", "EUR"), Command::charge("http", "20.00", "EUR"));
    world.run(&paid).await;
    world.gateway.plan_operation(ill.payment, "process", vec![Behaviour::Status(503, None); 50]);
    world.publish(&ill).await;
    eventually("the breaker to open", async || {
        let open = worker.count(r#"paybus_breaker_state{variant="http",state="open"}"#).await;
        if open == 1 { Ok(()) } else { Err(open) }
    })
    .await;
    ordered(&world, &pause(&world)).await;
    is_paused(&worker, 1).await;
    let acts = || world.gateway.calls().iter().filter(|call| call.operation != "status").count();
    let before = acts();
    // The schedule must claim it, because its first questions fail.
    world.gateway.plan_operation(paid.payment, "status", vec![Behaviour::Status(503, None); 4]);
    let sync = paid.then("payment.sync", json!({}));
    world.publish(&sync).await;
    assert_eq!(world.final_event(&sync).await.kind(), "command.succeeded");
    assert_eq!(acts(), before);
}

#[tokio::test]
async fn a_pause_ends_by_itself_and_outlives_workers() {
    let world = World::new().await;
    let worker = world.worker().await;
    let until =
        Timestamp::from_millisecond((Timestamp::now() + SignedDuration::from_secs(4)).as_millisecond()).unwrap();
    let answer =
        ordered(&world, &order(&world, "variant.pause", json!({"reason": "maintenance", "until": until}))).await;
    assert_eq!(answer["data"]["pause"]["until"], until.to_string(), "{answer}");
    worker.drain().await;
    let _next = world.worker().await;
    let charge = Command::charge("http", "10.00", "EUR");
    world.publish(&charge).await;
    assert_eq!(world.final_event(&charge).await.status(), "confirmed");
    assert!(Timestamp::now() >= until);
    let past = order(&world, "variant.pause", json!({"reason": "too late", "until": "2020-01-01T00:00:00Z"}));
    let answer = ordered(&world, &past).await;
    assert_eq!((&answer["type"], &answer["data"]["code"]), (&json!("command.rejected"), &json!("invalid_data")));
    world.check_books().await;
}

#[tokio::test]
async fn an_order_that_comes_again_changes_nothing_and_needs_a_user() {
    let world = World::new().await;
    let worker = world.worker().await;
    let pause = pause(&world);
    ordered(&world, &pause).await;
    ordered(&world, &order(&world, "variant.resume", json!({"reason": "fixed"}))).await;
    let answer = ordered(&world, &pause).await;
    assert_eq!(answer["data"]["pause"], json!({"paused": false}), "it was ended since: {answer}");
    is_paused(&worker, 0).await;
    let kept = world.query("SELECT paused, reason, user_id FROM variant_pauses ORDER BY number", &[]).await;
    let kept: Vec<(bool, String, String)> = kept.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    let user = world.bus.user();
    assert_eq!(kept, [(true, "it charges twice".to_owned(), user.clone()), (false, "fixed".to_owned(), user)]);

    // Under the name of another order it is not carried out.
    let reused = order(&world, "variant.pause", json!({"reason": "another"})).id(&pause.id);
    let answer = ordered(&world, &reused).await;
    assert_eq!((&answer["type"], &answer["data"]["code"]), (&json!("command.rejected"), &json!("id_reused")));
    let late = order(&world, "variant.pause", json!({"reason": "too late"}));
    let answer = ordered(&world, &late.attribute("expirytime", json!("2020-01-01T00:00:00Z"))).await;
    assert_eq!((&answer["type"], &answer["data"]["code"]), (&json!("command.rejected"), &json!("expired")));
    is_paused(&worker, 0).await;

    let mut nobodys = order(&world, "variant.pause", json!({"reason": "a joke"}));
    nobodys.user_id = None;
    let answer = ordered(&world, &nobodys).await;
    assert_eq!((&answer["type"], &answer["data"]["code"]), (&json!("command.rejected"), &json!("user_required")));
    is_paused(&worker, 0).await;
    world.check_books().await;
}

#[tokio::test]
async fn the_shell_pauses_resumes_and_shows_it() {
    let world = Setup::new().build().await;
    let worker = world.worker().await;
    let run = async |arguments: &[&str]| {
        let output = world.paybus(arguments).await;
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let (code, said) = run(&["pause", "http", "--reason", "it charges twice", "--for", "1h"]).await;
    assert_eq!(code, Some(0), "{said}");
    is_paused(&worker, 1).await;
    let (_, said) = run(&["check"]).await;
    assert!(said.contains("variant http is paused until "), "{said}");
    let (code, said) = run(&["resume", "http"]).await;
    assert_eq!(code, Some(0), "{said}");
    is_paused(&worker, 0).await;
    let (code, said) = run(&["pause", "htpp", "--reason", "a slip"]).await;
    assert_eq!((code, said.contains("no variant htpp is configured; there are ")), (Some(2), true), "{said}");
    world.check_books().await;
}
