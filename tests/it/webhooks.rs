//! Webhooks: a gateway reports something, and its answer to the look-up is published as an event. Anything that is not
//! genuine is refused, and anything answered with 200 is never lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::support::wait::within;
use crate::support::webhook::named;
use crate::support::{Behaviour, Command, Setup, Webhook, Wire, Worker, WorkerSetup, World, eventually};

const SECRET: &str = "whsec_new";

/// The gateway signs its webhooks.
fn setup() -> Setup {
    Setup::new().set("variants.http.webhook_secret", "whsec_old,whsec_new")
}

fn news(id: &str, payment: Uuid) -> Value {
    json!({"id": id, "payment_id": payment, "type": "news"})
}

async fn post(news: &Value, to: &Worker) {
    assert_eq!(Webhook::signed("http", SECRET, news).post(to).await, (200, None));
}

/// How many webhooks of `http` had this outcome.
async fn counted(worker: &Worker, outcome: &str) -> i64 {
    worker.count(&format!(r#"paybus_webhooks_total{{variant="http",outcome="{outcome}"}}"#)).await
}

fn questions(world: &World, payment: Uuid) -> usize {
    world.gateway.calls_of(payment).iter().filter(|call| call.operation == "status").count()
}

#[tokio::test]
async fn a_manual_refund_at_the_gateway_is_emitted_as_an_event() {
    let world = setup().build().await;
    let worker = world.worker().await;
    let charge = Command::charge("http", "120.00", "USD");
    world.run(&charge).await;

    world.gateway.move_by_hand(charge.payment, "refund", "20.00", "USD");
    post(&news("n-1", charge.payment), &worker).await;
    let answer = world.final_event(&named("http", charge.payment, "n-1")).await;
    assert_eq!((answer.kind(), answer.status()), ("payment.updated", "confirmed"));
    assert_eq!((answer.field("captured_amount"), answer.field("refunded_amount")), ("100.00", "20.00"));

    world.gateway.move_by_hand(charge.payment, "refund", "100.00", "USD");
    post(&news("n-2", charge.payment), &worker).await;
    let answer = world.final_event(&named("http", charge.payment, "n-2")).await;
    assert_eq!((answer.kind(), answer.status()), ("payment.status_changed", "refunded"));

    // Sent again with another secret and at another time, they are recognized; sent late under new names, they change
    // nothing.
    let asked = questions(&world, charge.payment);
    for id in ["n-2", "n-1"] {
        let seconds = jiff::Timestamp::now().as_second() - 60;
        let again = Webhook::signed_at("http", "whsec_old", &news(id, charge.payment), seconds);
        assert_eq!(again.post(&worker).await.0, 200);
    }
    post(&news("n-0", charge.payment), &worker).await;
    assert_eq!(world.final_event(&named("http", charge.payment, "n-0")).await.kind(), "command.succeeded");
    eventually("the duplicates", async || {
        match worker.count(r#"paybus_commands_duplicate_total{variant="http"}"#).await {
            2 => Ok(()),
            other => Err(format!("{other} duplicates")),
        }
    })
    .await;
    assert_eq!(questions(&world, charge.payment), asked + 1, "known reports cause no look-up");
    assert_eq!(counted(&worker, "taken").await, 5);
    world.check_books().await;
}

#[tokio::test]
async fn what_the_gateway_did_not_send_is_refused_and_goes_nowhere() {
    let world = setup().build().await;
    let worker = world.worker().await;
    let charge = Command::charge("http", "120.00", "USD");
    world.run(&charge).await;
    let body = news("n-1", charge.payment);
    let now = jiff::Timestamp::now().as_second();
    let genuine = Webhook::signed("http", SECRET, &body);

    let forged = Webhook::signed("http", "whsec_other", &body);
    let altered = Webhook { body: genuine.body.replace("n-1", "n-2"), ..genuine.clone() };
    let unsigned = Webhook { signature: None, ..genuine.clone() };
    let unreadable = Webhook { signature: Some("v1".to_owned()), ..genuine.clone() };
    let [old, early] = [now - 310, now + 310].map(|time| Webhook::signed_at("http", SECRET, &body, time));
    let odd = Webhook::signed("http", SECRET, &json!({"surprise": true}));
    for (webhook, why) in [
        (forged, "wrong_signature"),
        (altered, "wrong_signature"),
        (unsigned, "not_signed"),
        (unreadable, "unreadable_signature"),
        (old, "out_of_time"),
        (early, "out_of_time"),
        (odd, "invalid_body"),
    ] {
        let before = counted(&worker, why).await;
        assert_eq!(webhook.post(&worker).await, (400, None), "{webhook:?}");
        assert_eq!(counted(&worker, why).await, before + 1, "{webhook:?}");
    }
    let large = Webhook { body: " ".repeat(512 * 1024 + 1), ..genuine.clone() };
    assert_eq!(large.post(&worker).await.0, 413);
    for variant in ["default", "nowhere"] {
        let elsewhere = Webhook { variant: variant.to_owned(), ..genuine.clone() };
        assert_eq!(elsewhere.post(&worker).await.0, 404, "{variant}");
    }
    let others = worker.count(r#"paybus_webhooks_total{variant="other",outcome="unknown_variant"}"#).await;
    assert_eq!(others, 1, "a stranger's text is not used as a label");
    // A webhook without content is not an error, so the gateway need not retry.
    assert_eq!(Webhook::signed("http", SECRET, &json!([])).post(&worker).await.0, 200);
    assert_eq!((counted(&worker, "ignored").await, counted(&worker, "taken").await), (1, 0));
    assert_eq!(world.bus.length("inbound.http").await, 0);
    assert_eq!(questions(&world, charge.payment), 0);
    assert!(!worker.log().contains("whsec_"), "no secret is logged");
    world.check_books().await;
}

/// A client that claims to sign, announces a large body and sends almost nothing of it, again and again.
async fn drip(address: String, closed: Arc<AtomicUsize>) {
    loop {
        let Ok(mut client) = TcpStream::connect(&address).await else { continue };
        let head =
            "POST /webhooks/http HTTP/1.1\r\nhost: x\r\npaybus-signature: t=1,v1=00\r\ncontent-length: 500000\r\n\r\n";
        let mut sent = client.write_all(head.as_bytes()).await;
        while sent.is_ok() {
            sent = client.write_all(b"x").await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        closed.fetch_add(1, Ordering::Relaxed);
    }
}

/// From one address, as if all clients came through the same proxy.
#[tokio::test]
async fn webhooks_are_taken_while_hundreds_of_others_send_next_to_nothing() {
    let world = setup().build().await;
    let worker = world.worker().await;
    let charge = Command::charge("http", "120.00", "USD");
    world.run(&charge).await;
    let address = worker.http().trim_start_matches("http://").to_owned();
    let (mut drippers, closed) = (JoinSet::new(), Arc::<AtomicUsize>::default());
    for _ in 0..300 {
        drippers.spawn(drip(address.clone(), Arc::clone(&closed)));
    }
    // They take all connections, including each other's.
    eventually("slow clients to be closed in favour of others", async || match closed.load(Ordering::Relaxed) {
        closed @ ..300 => Err(closed),
        _ => Ok(()),
    })
    .await;
    let begun = Instant::now();
    for number in 0..50 {
        let genuine = Webhook::signed("http", SECRET, &news(&format!("n-{number}"), charge.payment));
        within(Duration::from_secs(5), "a genuine webhook to be accepted", async || {
            match genuine.try_post(&worker).await {
                Ok((200, _)) => Ok(()),
                // The gateway retries.
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    drippers.shutdown().await;
    assert_eq!(counted(&worker, "busy").await, 0, "slow clients use no memory");
    world.check_books().await;
}

/// Anyone who may publish could claim that a webhook arrived.
#[tokio::test]
async fn a_notification_on_the_bus_is_verified_by_the_worker() {
    let world = setup().build().await;
    let _worker = world.worker().await;
    let charge = Command::charge("http", "120.00", "USD");
    world.run(&charge).await;
    world.gateway.move_by_hand(charge.payment, "refund", "20.00", "USD");
    let genuine = Webhook::signed("http", SECRET, &news("n-1", charge.payment));
    let (now, late) = (jiff::Timestamp::now(), jiff::Timestamp::now() + jiff::SignedDuration::from_mins(6));

    let forged = Webhook::signed("http", "whsec_other", &news("n-1", charge.payment));
    for (number, (webhook, received_at)) in [(&forged, now), (&genuine, late)].into_iter().enumerate() {
        let command = webhook.command(charge.payment, &format!("forged-{number}"), &received_at.to_string());
        let answer = world.run(&command).await;
        assert_eq!((answer.kind(), answer.code()), ("command.rejected", "not_genuine"), "{}", answer.line());
    }
    assert_eq!(questions(&world, charge.payment), 0);
    let other = Command::charge("http", "5.00", "USD");
    world.run(&other).await;
    let answer = world.run(&genuine.command(other.payment, "n-1", &now.to_string())).await;
    assert_eq!((answer.kind(), answer.code()), ("command.rejected", "invalid_data"), "it belongs to another payment");

    let answer = world.run(&genuine.command(charge.payment, "n-1", &now.to_string())).await;
    assert_eq!((answer.kind(), answer.field("refunded_amount")), ("payment.updated", "20.00"));
    let data: Value = world.value("SELECT coalesce(jsonb_agg(data), '[]') FROM operations", &[]).await;
    assert!(!data.to_string().contains("base64"), "nothing of a webhook is kept: {data}");
    world.check_books().await;
}

#[tokio::test]
async fn one_that_comes_before_its_payment_waits_for_it_and_is_applied() {
    let world = setup().set("worker.unknown_payment_grace", "5s").build().await;
    let worker = world.worker().await;
    let create = Command::create("http", "120.00", "USD");
    world.gateway.move_by_hand(create.payment, "charge", "120.00", "USD");
    let sums = json!({"result": "approved", "captured_amount": "120.00", "refunded_amount": "0.00"});
    world.gateway.plan_operation(create.payment, "status", vec![Behaviour::Say(sums)]);
    post(&news("n-1", create.payment), &worker).await;
    world.operation_state(&named("http", create.payment, "n-1"), "waiting").await;
    world.run(&create).await;
    let answer = world.final_event(&named("http", create.payment, "n-1")).await;
    assert_eq!((answer.kind(), answer.status()), ("payment.status_changed", "confirmed"));

    let nobodys = Uuid::new_v4();
    post(&news("n-2", nobodys), &worker).await;
    let answer = world.final_event(&named("http", nobodys, "n-2")).await;
    assert_eq!((answer.kind(), answer.code()), ("command.rejected", "unknown_payment"));
    world.check_books().await;
}

#[tokio::test]
async fn the_result_of_what_was_pending_comes_by_a_webhook() {
    let world = setup().set("variants.http.retry.delayed", "1h").build().await;
    let worker = world.worker().await;
    let charge = Command::charge("http", "120.00", "USD");
    world.gateway.plan(charge.payment, vec![Behaviour::Pending]);
    world.publish(&charge).await;
    world.operation_state(&charge, "pending").await;
    world.gateway.complete(charge.payment, true);
    let body = json!({"id": "n-1", "payment_id": charge.payment, "operation_id": charge.operation_id()});
    post(&body, &worker).await;
    assert_eq!(world.final_event(&charge).await.status(), "confirmed");
    assert_eq!(world.final_event(&named("http", charge.payment, "n-1")).await.kind(), "command.succeeded");

    // Reports of manual changes wait for open operations, and are published when these have ended.
    let refund = charge.then("payment.refund", json!({"amount": "10.00"}));
    world.gateway.plan(charge.payment, vec![Behaviour::Pending]);
    world.publish(&refund).await;
    world.operation_state(&refund, "pending").await;
    world.gateway.move_by_hand(charge.payment, "refund", "20.00", "USD");
    post(&news("n-2", charge.payment), &worker).await;
    let manual_refund = named("http", charge.payment, "n-2");
    assert_eq!(world.event_of(&manual_refund, "command.delayed").await.reason(), "pending");
    world.gateway.complete(charge.payment, true);
    let body = json!({"id": "n-3", "payment_id": charge.payment, "operation_id": refund.operation_id()});
    post(&body, &worker).await;
    assert_eq!(world.final_event(&refund).await.field("refunded_amount"), "10.00");
    assert_eq!(world.final_event(&manual_refund).await.field("refunded_amount"), "30.00");
    world.check_books().await;
}

#[tokio::test]
async fn one_webhook_may_name_several_payments_and_a_worker_that_dies_loses_none() {
    let world = setup().build().await;
    let doomed = world.worker().await;
    let charges: Vec<Command> = (0..3).map(|_| Command::charge("http", "50.00", "USD")).collect();
    world.publish_all(&charges).await;
    world.final_events(&charges).await;
    doomed.drain().await;
    for charge in &charges {
        world.gateway.move_by_hand(charge.payment, "refund", "5.00", "USD");
    }
    let of = |number: usize| news(&format!("n-{number}"), charges[number].payment);
    let body = Value::from(vec![of(0), of(1), of(2)]);
    // The first one is already known from an earlier webhook, so it causes no second look-up.
    let doomed = world.worker().await;
    post(&of(0), &doomed).await;
    world.final_event(&named("http", charges[0].payment, "n-0")).await;
    doomed.drain().await;
    // The worker dies after the look-up for the second payment.
    let doomed = world.spawn_worker(WorkerSetup::default().dies_at("called@2"));
    doomed.ready().await;
    post(&body, &doomed).await;
    doomed.wait().await;
    let _worker = world.worker().await;
    for (number, charge) in charges.iter().enumerate() {
        let answer = world.final_event(&named("http", charge.payment, &format!("n-{number}"))).await;
        assert_eq!((answer.kind(), answer.field("refunded_amount")), ("payment.updated", "5.00"), "{number}");
    }
    assert_eq!(questions(&world, charges[0].payment), 1);
    world.check_books().await;
}

/// The broker's address, behind a wire that can be cut.
async fn wired(world: &World) -> (Wire, String) {
    let url = &world.settings()["amqp.url"];
    let (before, place) = url.rsplit_once('@').expect("credentials");
    let (service, rest) = place.split_once('/').unwrap_or((place, ""));
    let service = if service.contains(':') { service.to_owned() } else { format!("{service}:5672") };
    let wire = Wire::to(&service).await;
    let url = format!("{before}@{}/{rest}", wire.address());
    (wire, url)
}

#[tokio::test]
async fn a_process_of_its_own_receives_webhooks_without_a_database() {
    let world = setup().build().await;
    let (wire, url) = wired(&world).await;
    let alone = WorkerSetup::default().only_webhooks().set("database.url", "postgres://nobody@127.0.0.1:9/none");
    let receiver = world.worker_with(alone.set("amqp.url", &url)).await;
    let worker = world.worker().await;
    let charge = Command::charge("http", "120.00", "USD");
    world.run(&charge).await;
    world.gateway.move_by_hand(charge.payment, "refund", "20.00", "USD");
    post(&news("n-1", charge.payment), &receiver).await;
    let answer = world.final_event(&named("http", charge.payment, "n-1")).await;
    assert_eq!((answer.kind(), answer.field("refunded_amount")), ("payment.updated", "20.00"));
    assert_eq!((counted(&receiver, "taken").await, counted(&worker, "taken").await), (1, 0));
    // PaybusDown recognizes a worker by this.
    let intake = r#"paybus_component_ready{component="intake"}"#;
    assert!(worker.metrics().await.contains(intake) && !receiver.metrics().await.contains(intake));

    // Without the broker nothing is accepted; the gateway retries.
    wire.cut();
    within(Duration::from_secs(20), "the receiver to miss the broker", async || {
        match receiver.get("/readyz").await? {
            (503, text) if text.contains("publisher: ") => Ok(()),
            (status, text) => Err(format!("{status} {text}")),
        }
    })
    .await;
    world.gateway.move_by_hand(charge.payment, "refund", "30.00", "USD");
    let second = Webhook::signed("http", SECRET, &news("n-2", charge.payment));
    let (status, retry_after) = second.post(&receiver).await;
    assert_eq!((status, retry_after.is_some()), (503, true));
    assert_eq!(receiver.get("/livez").await.expect("an answer").0, 200);
    wire.restore();
    receiver.ready().await;
    assert_eq!(second.post(&receiver).await.0, 200);
    let answer = world.final_event(&named("http", charge.payment, "n-2")).await;
    assert_eq!(answer.field("refunded_amount"), "50.00");
    receiver.drain().await;
    world.check_books().await;
}

/// The broker has the message, but its confirm is lost: the gateway must retry, and both are one webhook.
#[tokio::test]
async fn without_a_confirm_there_is_no_200_and_nothing_is_lost() {
    let world = setup().build().await;
    let (wire, url) = wired(&world).await;
    let receiver = world.worker_with(WorkerSetup::default().only_webhooks().set("amqp.url", &url)).await;
    let worker = world.worker().await;
    let charge = Command::charge("http", "120.00", "USD");
    world.run(&charge).await;
    // Its channel is open now.
    post(&news("n-0", charge.payment), &receiver).await;
    world.final_event(&named("http", charge.payment, "n-0")).await;
    world.gateway.move_by_hand(charge.payment, "refund", "20.00", "USD");
    wire.silence();
    let webhook = Webhook::signed("http", SECRET, &news("n-1", charge.payment));
    assert_eq!(webhook.post(&receiver).await.0, 503);
    let answer = world.final_event(&named("http", charge.payment, "n-1")).await;
    assert_eq!(answer.field("refunded_amount"), "20.00");
    wire.cut();
    wire.restore();
    receiver.ready().await;
    assert_eq!(webhook.post(&receiver).await.0, 200);
    eventually("the copies to be recognized", async || {
        match worker.count(r#"paybus_commands_duplicate_total{variant="http"}"#).await {
            0 => Err("none".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    receiver.drain().await;
    world.check_books().await;
}
