//! Events that the broker refuses: set aside with all later events of their payment, and released by an operator.

use std::process::Output;

use lapin::options::{QueueBindOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use serde_json::json;
use uuid::Uuid;

use crate::support::worker::{output_of, paybus};
use crate::support::{Command, Setup, World, eventually};

/// From now on, events of variant `http` are returned as unroutable, or no longer.
async fn refuse(world: &World, refused: bool) {
    let (connection, channel) = world.bus.channel().await;
    let name = |what: &str| format!("{}.{what}", world.bus.prefix);
    let (queue, exchange, nothing) = (name("test"), name("events"), FieldTable::default());
    let bind = async |key: &str| {
        let bound = channel.queue_bind(
            queue.as_str().into(),
            exchange.as_str().into(),
            key.into(),
            QueueBindOptions::default(),
            nothing.clone(),
        );
        bound.await.expect("a binding");
    };
    if refused {
        bind("default.#").await;
        let unbound =
            channel.queue_unbind(queue.as_str().into(), exchange.as_str().into(), "#".into(), nothing.clone());
        unbound.await.expect("no binding");
        channel.queue_delete(name("unrouted").into(), QueueDeleteOptions::default()).await.expect("no queue");
    } else {
        bind("#").await;
    }
    connection.close(200, "done".into()).await.expect("the broker");
}

async fn run(world: &World, arguments: &[&str]) -> Output {
    let mut command = paybus(world.settings());
    command.args(arguments).env("USER", "someone");
    output_of(command).await
}

async fn is_set_aside(world: &World, payment: Uuid) {
    eventually("the events to be set aside", async || {
        let rows: i64 = world.value("SELECT count(*) FROM set_aside WHERE payment_id = $1", &[&payment]).await;
        if rows > 0 { Ok(()) } else { Err(rows) }
    })
    .await;
}

#[tokio::test]
async fn later_events_wait_behind_a_refused_one_until_it_is_released() {
    // Released events are sent by the relay.
    let world = Setup::new().expects_relay().build().await;
    let worker = world.worker().await;
    let charge = Command::charge("http", "120.00", "USD");
    let (payment, id) = (charge.payment, charge.payment.to_string());
    world.run(&charge).await;
    let published = world.events_of(payment).len();
    let refund = |amount: &str| charge.then("payment.refund", json!({ "amount": amount }));
    refuse(&world, true).await;
    let first = refund("1.00");
    world.publish(&first).await;
    assert_eq!(world.run(&Command::charge("default", "5.00", "USD")).await.status(), "confirmed", "others continue");
    is_set_aside(&world, payment).await;
    refuse(&world, false).await;

    // Both are aware of the refusal: the worker that met it, and one that reads about it before or after a call.
    let second = refund("2.00");
    world.publish(&second).await;
    world.operation_state(&second, "settled").await;
    assert_eq!(world.run(&Command::charge("http", "5.00", "USD")).await.status(), "confirmed", "others continue");
    worker.drain().await;
    let next = world.worker().await;
    let third = refund("3.00");
    world.publish(&third).await;
    world.operation_state(&third, "settled").await;
    assert_eq!(world.run(&Command::charge("http", "5.00", "USD")).await.status(), "confirmed", "others continue");
    assert_eq!(world.events_of(payment).len(), published, "{}", world.lines());
    assert!(!next.log().contains("the broker refuses an event"), "it is not even tried");

    let shown = run(&world, &["show", &id]).await;
    assert!(String::from_utf8_lossy(&shown.stdout).contains("set aside"), "{shown:?}");
    let dry = run(&world, &["dead", "release", &id]).await;
    let text = String::from_utf8_lossy(&dry.stdout).into_owned();
    assert!(dry.status.success() && text.contains("would be released: 3 events"), "{dry:?}");
    is_set_aside(&world, payment).await;
    let released = run(&world, &["dead", "release", &id, "--yes"]).await;
    assert!(released.status.success(), "{released:?}");
    for refund in [&first, &second, &third] {
        assert_eq!(world.final_event(refund).await.status(), "confirmed");
    }
    let fourth = refund("4.00");
    assert_eq!(world.run(&fourth).await.status(), "confirmed");
    let sequences: Vec<i64> = world.events_of(payment).iter().filter_map(|event| event.sequence()).collect();
    assert!(sequences.is_sorted(), "{sequences:?}");
    let who: String = world.value("SELECT who FROM audit WHERE action = 'dead.release'", &[]).await;
    assert_eq!(who, "someone");
    assert!(!run(&world, &["dead", "release", &id, "--yes"]).await.status.success(), "nothing is left");
    world.check_books().await;
}
