//! Workers that are started before their prerequisites exist: they wait, report it, and begin by themselves. Only
//! unusable settings end the start.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use lapin::uri::AMQPUri;
use serde_json::json;
use uuid::Uuid;

use crate::support::gate::Gate;
use crate::support::skip::needed;
use crate::support::topology::rabbitmqctl;
use crate::support::wait::within;
use crate::support::{Command, Setup, Webhook, Worker, WorkerSetup, World, eventually};

const SECRET: &str = "whsec_test";

/// Waits until `/readyz` of a worker that is not ready contains one text and not the other.
async fn lacks(worker: &Worker, this: &str, not_that: &str) {
    eventually("the worker to say what it lacks", async || {
        let (status, why) = worker.get("/readyz").await?;
        let is_so = status == 503 && why.contains(this) && (not_that.is_empty() || !why.contains(not_that));
        if is_so { Ok(()) } else { Err(format!("{status} {why}")) }
    })
    .await;
}

/// A worker that reaches broker and database only through these gates.
fn through(broker: &Gate, database: &Gate) -> WorkerSetup {
    WorkerSetup::default()
        .set("amqp.url", broker.url())
        .set("amqp.connect_timeout", "1s")
        .set("database.url", database.url())
}

async fn gates(world: &World) -> (Gate, Gate) {
    let settings = world.settings();
    (Gate::closed(&settings["amqp.url"]).await, Gate::closed(&settings["database.url"]).await)
}

#[tokio::test]
async fn a_worker_without_broker_and_database_waits_for_both() {
    let world = World::new().await;
    let (broker, database) = gates(&world).await;
    let charge = Command::charge("http", "10.00", "EUR");
    world.publish(&charge).await;
    let worker = world.spawn_worker(through(&broker, &database));
    lacks(&worker, "topology: ", "topology: starting").await;
    lacks(&worker, "database: ", "database: starting").await;
    assert_eq!(worker.get("/livez").await.expect("it answers").0, 200, "or it would be restarted in vain");
    database.open();
    lacks(&worker, "topology: ", "database: ").await;
    broker.open();
    worker.ready().await;
    assert_eq!(world.final_event(&charge).await.status(), "confirmed");
    let log = worker.log();
    let logged = log.lines().filter(|line| line.contains("cannot start yet")).count();
    assert!((2..20).contains(&logged), "each reason once:\n{log}");
    world.check_books().await;
}

#[tokio::test]
async fn a_waiting_worker_ends_at_once_on_sigterm() {
    let world = World::new().await;
    let (broker, database) = gates(&world).await;
    let worker = world.spawn_worker(through(&broker, &database));
    lacks(&worker, "topology: ", "topology: starting").await;
    let begun = Instant::now();
    worker.term();
    let status = worker.wait().await;
    assert!(status.success(), "{status}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

/// Both refuse the user until it is created.
#[tokio::test]
async fn a_user_that_is_refused_is_waited_for() {
    if needed("PAYBUS_TEST_RABBITMQCTL").is_none() {
        return;
    }
    let world = World::new().await;
    let vhost = world.bus.url.parse::<AMQPUri>().expect("an address").vhost;
    let name = format!("{}_late", world.bus.prefix);
    let settings = world.settings();
    let place = |key: &str| settings[key].split_once('@').expect("a user").1;
    let worker = world.spawn_worker(
        WorkerSetup::default()
            .set("amqp.url", &format!("amqp://{name}:secret@{}", place("amqp.url")))
            .set("database.url", &format!("postgres://{name}:secret@{}", place("database.url"))),
    );
    lacks(&worker, "topology: the broker rejects the user, the password or the virtual host of amqp.url", "").await;
    lacks(&worker, "database: the database server rejects the user, the password or the database", "").await;
    assert!(worker.log().contains("cannot start until an operator fixes this"), "{}", worker.log());
    world.query(&format!("CREATE ROLE {name} SUPERUSER LOGIN PASSWORD 'secret'"), &[]).await;
    rabbitmqctl(&["add_user", &name, "secret"]);
    rabbitmqctl(&["set_permissions", "-p", &vhost, &name, ".*", ".*", ".*"]);
    worker.ready().await;
    assert_eq!(world.run(&Command::charge("http", "10.00", "EUR")).await.status(), "confirmed");
    world.check_books().await;
    worker.drain().await;
    rabbitmqctl(&["delete_user", &name]);
    world.query(&format!("DROP ROLE {name}"), &[]).await;
}

#[tokio::test]
async fn settings_that_cannot_be_used_end_the_start() {
    let world = World::new().await;
    for (key, value) in [
        ("amqp.tls.ca", "/no/such.pem"),
        ("amqp.url", "amqp://127.0.0.1:port/"),
        ("amqp.url", "amqp://127.0.0.1/?unknown=1"),
        ("database.url", "postgres://127.0.0.1/db?unknown=1"),
    ] {
        let setup = WorkerSetup::default().set("amqp.url", "amqps://127.0.0.1:1/").set(key, value);
        let worker = world.spawn_worker(setup);
        let ended = eventually("the worker to give up", async || worker.exited().ok_or("it runs")).await;
        assert_eq!(ended.code(), Some(64), "{key} = {value}: {}", worker.log());
    }
}

#[tokio::test]
async fn a_receiver_of_webhooks_waits_for_the_broker() {
    let world = Setup::new().set("variants.http.webhook_secret", SECRET).build().await;
    let (broker, _) = gates(&world).await;
    let setup = WorkerSetup::default().only_webhooks().set("amqp.url", broker.url()).set("amqp.connect_timeout", "1s");
    let receiver = world.spawn_worker(setup);
    lacks(&receiver, "topology: ", "topology: starting").await;
    let news = json!({"id": "n-1", "payment_id": Uuid::new_v4(), "type": "news"});
    let webhook = Webhook::signed("http", SECRET, &news);
    assert_eq!(webhook.post(&receiver).await.0, 503, "the gateway must retry");
    broker.open();
    receiver.ready().await;
    assert_eq!(webhook.post(&receiver).await.0, 200);
    assert_eq!(world.bus.length("inbound.http").await, 1);
}

/// A host that accepts connections and never answers costs each attempt its own timeout, and no more.
#[tokio::test]
async fn of_several_hosts_one_that_answers_is_found() {
    let world = World::new().await;
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let beside = |key: &str| {
        let (user, place) = world.settings()[key].split_once('@').expect("a user");
        format!("{user}@{},{place}", silent.local_addr().expect("an address"))
    };
    let setup = WorkerSetup::default()
        .set("amqp.url", &beside("amqp.url"))
        .set("amqp.connect_timeout", "1s")
        .set("database.url", &beside("database.url"))
        .set("database.connect_timeout", "1s");
    let worker = world.spawn_worker(setup);
    worker.ready().await;
    let charge = Command::charge("http", "10.00", "EUR");
    world.publish(&charge).await;
    within(Duration::from_secs(20), "the charge", async || match world.gateway.charges(charge.payment).len() {
        1 => Ok(()),
        other => Err(other),
    })
    .await;
    assert_eq!(world.final_event(&charge).await.status(), "confirmed");
    world.check_books().await;
}
