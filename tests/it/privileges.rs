//! Least privilege: with the users and roles of `deploy/`, each process can do its work, and nothing more.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command as Program;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions, QueueDeclareOptions,
    QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use paybus::store::schema::rights::WRITES;
use serde_json::Value;
use tokio_postgres::NoTls;
use uuid::Uuid;

use crate::retention::{age, file};
use crate::support::files::root;
use crate::support::skip::{needed, skip};
use crate::support::topology::rabbitmqctl;
use crate::support::wait::within;
use crate::support::webhook::named;
use crate::support::worker::paybus;
use crate::support::{Behaviour, Command, Setup, Webhook, WorkerSetup, World, eventually};

const SECRET: &str = "whsec_test";
/// The password of every user that is created here.
pub const PASSWORD: &str = "only-for-tests";

/// Runs a program that must succeed; returns its output.
pub fn run(program: &mut Program) -> String {
    let output = program.output().unwrap_or_else(|error| panic!("{program:?}: {error}"));
    assert!(output.status.success(), "{program:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A user of the broker with one role: its address and its name.
pub async fn user(world: &World, ctl: &str, part: &'static str, variant: Option<&'static str>) -> (String, String) {
    let prefix = world.bus.prefix.clone();
    let name = format!("{prefix}-{part}");
    let ctl = ctl.to_owned();
    let user = name.clone();
    tokio::task::spawn_blocking(move || grant(&ctl, &prefix, "/", part, &user, variant)).await.expect("granted");
    let (_, place) = world.settings()["amqp.url"].split_once('@').expect("a user");
    (format!("amqp://{name}:{PASSWORD}@{place}"), name)
}

/// Creates a user of the broker and grants it a role. A publisher gets the reply queue `reply.USER.1`.
pub fn grant(ctl: &str, prefix: &str, vhost: &str, part: &str, user: &str, variant: Option<&str>) {
    rabbitmqctl(&["add_user", user, PASSWORD]);
    let mut grant = Program::new(root().join("deploy/rabbitmq/grant"));
    grant.args([part, user]).args(variant).env("PREFIX", prefix).env("VHOST", vhost).env("RABBITMQCTL", ctl);
    if part == "publisher" {
        grant.env("QUEUES", format!("reply.{user}.1"));
    }
    run(&mut grant);
}

pub async fn channel(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("it may connect");
    let channel = connection.create_channel().await.expect("a channel");
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    (connection, channel)
}

async fn send(
    channel: &Channel,
    exchange: String,
    key: &str,
    body: &[u8],
    reply_to: Option<&str>,
) -> lapin::Result<()> {
    let mut properties = BasicProperties::default().with_delivery_mode(2);
    if let Some(queue) = reply_to {
        properties = properties.with_reply_to(queue.into());
    }
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    channel.basic_publish(exchange.into(), key.into(), options, body, properties).await?.await.map(|_| ())
}

/// Checks that the broker refuses an action for lack of a right. Each action has its own channel, which a refusal
/// closes.
async fn is_refused<T>(url: &str, what: &str, act: impl AsyncFnOnce(Channel) -> lapin::Result<T>) {
    let (connection, channel) = channel(url).await;
    match act(channel).await {
        Ok(_) => panic!("{url} may {what}"),
        Err(error) => assert!(error.to_string().contains("ACCESS_REFUSED"), "{what}: {error}"),
    }
    connection.close(200, "done".into()).await.expect("closed");
}

async fn consume(channel: &Channel, queue: &str) -> lapin::Result<lapin::Consumer> {
    let options = BasicConsumeOptions { no_ack: queue.starts_with("amq."), ..BasicConsumeOptions::default() };
    channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await
}

async fn declare(channel: &Channel, queue: &str) -> lapin::Result<()> {
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), options, FieldTable::default()).await.map(|_| ())
}

async fn bind(channel: &Channel, queue: &str, exchange: &str) -> lapin::Result<()> {
    let options = QueueBindOptions::default();
    channel.queue_bind(queue.into(), exchange.into(), "#".into(), options, FieldTable::default()).await
}

#[tokio::test]
async fn each_user_of_the_broker_can_do_its_part_and_nothing_more() {
    let Some(ctl) = needed("PAYBUS_TEST_RABBITMQCTL") else { return };
    let world = Setup::new().set("variants.http.webhook_secret", SECRET).build().await;
    let (publisher, publishing) = user(&world, &ctl, "publisher", Some("http")).await;
    let (subscriber, subscribing) = user(&world, &ctl, "subscriber", None).await;
    let (service, serving) = user(&world, &ctl, "service", Some("http")).await;
    let (worker, _) = user(&world, &ctl, "worker", None).await;
    let (webhooks, _) = user(&world, &ctl, "webhooks", None).await;
    let (owner, _) = user(&world, &ctl, "owner", None).await;
    let (operator, _) = user(&world, &ctl, "operator", None).await;
    let (commands, events) = (format!("{}.commands", world.bus.prefix), format!("{}.events", world.bus.prefix));
    let queue = format!("{}.commands.http", world.bus.prefix);

    run(paybus(world.settings()).args(["migrate", "--only", "broker"]).env("PAYBUS__AMQP__URL", &owner));
    let setup = WorkerSetup::default().set("amqp.url", &worker).set("amqp.declare", "false");
    let ready = world.worker_with(setup).await;

    // The complete path, with a retry, an answer by direct reply-to, and an event.
    let (_subscribed, listening) = channel(&subscriber).await;
    let own = format!("{subscribing}.payments");
    declare(&listening, &own).await.expect("a queue of its own");
    bind(&listening, &own, &events).await.expect("bound to the events");
    let mut received = consume(&listening, &own).await.expect("consumed");
    let (_published, asking) = channel(&publisher).await;
    let mut answers = consume(&asking, "amq.rabbitmq.reply-to").await.expect("direct replies");
    let charge = Command::charge("http", "12.00", "EUR");
    world.gateway.plan(charge.payment, vec![Behaviour::Status(503, None)]);
    send(&asking, commands.clone(), &charge.key(), &charge.bytes(), Some("amq.rabbitmq.reply-to")).await.expect("sent");
    let answer = next(&mut answers, "the answer").await;
    assert_eq!(answer["data"]["payment"]["status"], "confirmed", "{answer}");
    assert_eq!(next(&mut received, "the first event").await["type"], "payment.created");
    let reply = format!("reply.{publishing}.1");
    let mut replies = consume(&asking, &reply).await.expect("consumed");
    let refund = charge.then("payment.refund", serde_json::json!({}));
    send(&asking, commands.clone(), &refund.key(), &refund.bytes(), Some(&reply)).await.expect("sent");
    assert_eq!(next(&mut replies, "the second answer").await["data"]["payment"]["status"], "refunded");

    // A service is both, with queues that `grant` created for it.
    let (_served, calling) = channel(&service).await;
    let (events_of_service, catch_up) = (format!("{serving}.events"), format!("reply.{serving}.catch-up"));
    let mut heard = consume(&calling, &events_of_service).await.expect("its events");
    let mut caught_up = consume(&calling, &catch_up).await.expect("its answers");
    let order = Command::create("http", "3.00", "EUR");
    send(&calling, commands.clone(), &order.key(), &order.bytes(), Some(&catch_up)).await.expect("sent");
    assert_eq!(next(&mut caught_up, "the service's answer").await["subject"], order.payment.to_string());
    let created = next_of(&mut heard, order.payment).await;
    assert_eq!(created["type"], "payment.created", "{created}");

    // A gateway's webhook, received by a process that does nothing else, and by the worker.
    let setup = WorkerSetup::default().only_webhooks().set("amqp.url", &webhooks).set("amqp.declare", "false");
    let receiver = world.worker_with(setup).await;
    for (id, process) in [("n-1", &receiver), ("n-2", &ready)] {
        let news = serde_json::json!({"id": id, "payment_id": charge.payment, "type": "news"});
        assert_eq!(Webhook::signed("http", SECRET, &news).post(process).await, (200, None));
        let answer = world.final_event(&named("http", charge.payment, id)).await;
        assert_eq!(answer.kind(), "command.succeeded");
    }

    // Unreadable messages become dead letters, where the operator finds them; unroutable commands are answered.
    let (_admin, admin) = channel(&world.settings()["amqp.url"]).await;
    send(&admin, commands.clone(), "http.payment.create", b"no command", None).await.expect("sent");
    let dead = async |arguments: &[&str]| {
        let mut dead = paybus(world.settings());
        dead.arg("dead").args(arguments).env("PAYBUS__AMQP__URL", &operator);
        tokio::task::spawn_blocking(move || run(&mut dead)).await.expect("it ran")
    };
    eventually("the dead letter", async || {
        let listed = dead(&["list", "--json"]).await;
        if listed.contains("invalid_envelope") { Ok(()) } else { Err(listed) }
    })
    .await;
    dead(&["drop", "--filter", "code=invalid_envelope", "--yes", "--who", "test"]).await;
    let stray = Command::charge("nowhere", "1.00", "EUR");
    send(&admin, commands.clone(), &stray.key(), &stray.bytes(), None).await.expect("sent");
    world.event("the rejection", |event| event.is_of(&stray) && event.kind() == "command.rejected").await;
    assert!(!ready.log().contains("ACCESS_REFUSED"), "{}", ready.log());

    // Everything else is refused.
    let other = Command::charge("default", "1.00", "EUR");
    let publish = async |url: &str, what: &str, exchange: &str, key: &str| {
        let exchange = exchange.to_owned();
        is_refused(url, what, async |channel| send(&channel, exchange, key, b"{}", None).await).await;
    };
    publish(&publisher, "charge by another variant", &commands, &other.key()).await;
    publish(&publisher, "pose as a gateway", &commands, "http.payment.notification").await;
    publish(&publisher, "resolve an outcome", &commands, "http.payment.resolve").await;
    publish(&publisher, "publish events", &events, "http.payment.created").await;
    publish(&subscriber, "send commands", &commands, "http.payment.create").await;
    publish(&subscriber, "publish events", &events, "http.payment.created").await;
    publish(&webhooks, "send commands", &commands, "http.payment.create").await;
    publish(&worker, "send commands", &commands, "http.payment.create").await;
    for (url, whose) in [(&publisher, "the publisher"), (&subscriber, "the subscriber"), (&webhooks, "webhooks")] {
        is_refused(url, &format!("read commands as {whose}"), async |channel| consume(&channel, &queue).await).await;
        is_refused(url, "drop commands", async |channel| {
            channel.queue_purge(queue.as_str().into(), QueuePurgeOptions::default()).await
        })
        .await;
    }
    is_refused(&worker, "read what is a subscriber's", async |channel| consume(&channel, &own).await).await;
    is_refused(&worker, "make queues", async |channel| declare(&channel, &format!("{queue}.more")).await).await;
    is_refused(&subscriber, "make others' queues", async |channel| declare(&channel, "shop.orders").await).await;
    is_refused(&subscriber, "listen to commands", async |channel| bind(&channel, &own, &commands).await).await;
    is_refused(&publisher, "listen to events", async |channel| bind(&channel, &reply, &events).await).await;
    world.check_books().await;
    for queue in [reply, events_of_service, catch_up] {
        world.bus.delete_queue(&queue).await;
    }
}

/// The queue may be bound to less on purpose, and its consumer may not know heartbeats.
#[tokio::test]
async fn a_queue_that_is_bound_already_gets_no_more_by_grant_but_the_heartbeats_that_are_asked_for() {
    let Some(ctl) = needed("PAYBUS_TEST_RABBITMQCTL") else { return };
    let world = World::new().await;
    let user = format!("{}-shop", world.bus.prefix);
    let queue = format!("{user}.events");
    let [events, heartbeats] = ["events", "heartbeats"].map(|name| world.bus.queue(name));
    world.bus.declare_queue(&queue).await;
    let (connection, administrator) = world.bus.channel().await;
    let (from, key, nothing) = (events.as_str().into(), "http.payment.created".into(), FieldTable::default());
    let bound = administrator.queue_bind(queue.as_str().into(), from, key, QueueBindOptions::default(), nothing).await;
    bound.expect("bound");
    connection.close(200, "done".into()).await.expect("closed");

    rabbitmqctl(&["add_user", &user, PASSWORD]);
    let granted = |heartbeats: &str| {
        let mut grant = Program::new(root().join("deploy/rabbitmq/grant"));
        grant.args(["service", &user, "http"]).env("PREFIX", &world.bus.prefix).env("RABBITMQCTL", &ctl);
        let output = grant.env("HEARTBEATS", heartbeats).output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let bindings = || -> BTreeSet<String> {
        let listed = rabbitmqctl(&["--silent", "list_bindings", "source_name", "destination_name", "routing_key"]);
        let its = |line: &str| {
            let mut columns = line.split('\t');
            let (source, destination, key) = (columns.next()?, columns.next()?, columns.next()?);
            (destination == queue && !source.is_empty()).then(|| format!("{source} {key}"))
        };
        listed.lines().filter_map(its).collect()
    };
    let mut expected = BTreeSet::from([format!("{events} http.payment.created")]);
    let said = granted("");
    assert!(said.contains(&format!("{queue} is bound already")) && said.contains("http.payment.created"), "{said}");
    assert_eq!(bindings(), expected);
    expected.insert(format!("{heartbeats} http.#"));
    granted("yes");
    assert_eq!(bindings(), expected);

    // A queue without bindings is bound to both, and to the same when it is granted again.
    world.bus.delete_queue(&queue).await;
    for _ in 0..2 {
        let said = granted("");
        assert!(!said.contains("is bound already"), "{said}");
        assert_eq!(bindings(), BTreeSet::from([&events, &heartbeats].map(|source| format!("{source} http.#"))));
    }
    for queue in [queue.clone(), format!("reply.{user}.catch-up")] {
        world.bus.delete_queue(&queue).await;
    }
    rabbitmqctl(&["delete_user", &user]);
}

async fn next(consumer: &mut lapin::Consumer, what: &str) -> Value {
    let waiting = tokio::time::timeout(Duration::from_secs(20), consumer.next());
    let delivery = waiting.await.unwrap_or_else(|_| panic!("{what} does not arrive")).expect("it consumes");
    serde_json::from_slice(&delivery.expect("a delivery").data).expect("JSON")
}

/// The next event of a payment; events of others are skipped.
async fn next_of(consumer: &mut lapin::Consumer, payment: Uuid) -> Value {
    loop {
        let event = next(consumer, "an event of the payment").await;
        if event["subject"] == payment.to_string() {
            return event;
        }
    }
}

/// Checks that PostgreSQL refuses a statement for lack of a right.
async fn database_refuses(url: &str, sql: &str) {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("it may connect");
    tokio::spawn(connection);
    let error = client.batch_execute(sql).await.expect_err(sql);
    let code = error.code().map(|state| state.code().to_owned());
    assert_eq!(code.as_deref(), Some("42501"), "{sql}: {error}");
}

#[tokio::test]
async fn each_role_of_the_database_can_do_its_part_and_nothing_more() {
    if Program::new("psql").arg("--version").output().is_err() {
        return skip("psql is not installed");
    }
    let world = World::new().await;
    let admin = world.settings()["database.url"].clone();
    let (_, place) = admin.split_once('@').expect("a user");
    let role = |name: &str| format!("{}_{name}", world.bus.prefix);
    let url = |name: &str| format!("postgres://{}@{place}", role(name));
    let grant = || {
        let mut psql = Program::new("psql");
        psql.args(["-q", "-d", &admin, "-f"]).arg(root().join("deploy/postgres/roles.sql"));
        for name in ["owner", "worker", "archiver", "reader"] {
            psql.arg("-v").arg(format!("{name}={}", role(name)));
        }
        run(&mut psql);
    };
    // As on a new database: the roles are created first, and the script runs again after the migration.
    world.query("DROP SCHEMA paybus CASCADE", &[]).await;
    grant();
    run(paybus(world.settings()).args(["migrate", "--only", "database"]).env("PAYBUS__DATABASE__URL", url("owner")));
    grant();

    // A missing right is reported before any command is begun, and the worker waits for it.
    world.query(&format!("REVOKE INSERT ON movements FROM {}", role("worker")), &[]).await;
    let worker = world.spawn_worker(WorkerSetup::default().set("database.url", &url("worker")));
    eventually("the missing right to be reported", async || {
        let (status, why) = worker.get("/readyz").await?;
        if status == 503 && why.contains("lacks INSERT on movements") { Ok(()) } else { Err(why) }
    })
    .await;
    let checked = paybus(world.settings()).arg("check").env("PAYBUS__DATABASE__URL", url("worker")).output();
    let said = String::from_utf8_lossy(&checked.expect("paybus check").stdout).into_owned();
    assert!(said.contains("lacks INSERT on movements"), "{said}");
    grant();
    worker.ready().await;
    let charge = Command::charge("http", "12.00", "EUR");
    world.gateway.plan(charge.payment, vec![const { Behaviour::Status(503, None) }; 4]);
    assert_eq!(world.run(&charge).await.status(), "confirmed");
    assert_eq!(world.run(&charge.then("payment.refund", serde_json::json!({}))).await.status(), "refunded");
    world.events_are_marked().await;
    for name in ["worker", "archiver", "reader"] {
        let shown = run(paybus(world.settings())
            .args(["show", &charge.payment.to_string()])
            .env("PAYBUS__DATABASE__URL", url(name)));
        assert!(shown.contains("refunded"), "{shown}");
        for arguments in [vec!["list", "--status", "refunded"], vec!["list", "--state", "unknown"]] {
            let by_status = arguments.contains(&"refunded");
            let listed = run(paybus(world.settings()).args(arguments).env("PAYBUS__DATABASE__URL", url(name)));
            assert_eq!(listed.contains(&charge.payment.to_string()), by_status, "{name}: {listed}");
        }
    }
    let forgotten = run(paybus(world.settings())
        .args(["forget", &charge.payment.to_string(), "--yes", "--who", "test"])
        .env("PAYBUS__DATABASE__URL", url("worker")));
    assert!(forgotten.contains("forgotten: 1 payment"), "{forgotten}");
    assert!(!worker.log().contains("permission denied"), "{}", worker.log());

    age(&world, &[charge.payment]).await;
    let path = file(&world, "privileges");
    let archived = run(paybus(world.settings())
        .args(["archive", "--before", "30d", "--audit", "--yes", "--who", "test", "--to"])
        .arg(&path)
        .env("PAYBUS__DATABASE__URL", url("archiver")));
    assert!(archived.contains("archived: 1 of 1"), "{archived}");
    std::fs::remove_file(&path).expect("a file");

    // Exactly the rights that the worker requires are granted.
    let given = "SELECT table_name::text, string_agg(privilege_type, ', ' ORDER BY privilege_type)
         FROM information_schema.role_table_grants
         WHERE grantee = $1 AND table_schema = 'paybus' AND privilege_type <> 'SELECT' GROUP BY 1";
    let given: BTreeMap<String, BTreeSet<String>> = world
        .query(given, &[&role("worker")])
        .await
        .iter()
        .map(|row| (row.get(0), row.get::<_, String>(1).split(", ").map(str::to_owned).collect()))
        .collect();
    let asked = WRITES.map(|(table, rights)| (table.to_owned(), rights.split(", ").map(str::to_owned).collect()));
    assert_eq!(given, BTreeMap::from(asked));

    for sql in [
        "CREATE TABLE paybus.mine (id int)",
        "ALTER TABLE paybus.payments ADD COLUMN mine int",
        "DROP TABLE paybus.movements",
        "TRUNCATE paybus.events",
        "DELETE FROM paybus.payments",
        "DELETE FROM paybus.movements",
        "DELETE FROM paybus.audit",
        "UPDATE paybus.events SET body = ''",
        "INSERT INTO paybus.migrations (number, name, hash) VALUES (99, 'mine', '')",
    ] {
        database_refuses(&url("worker"), sql).await;
    }
    for sql in [
        "DELETE FROM paybus.payments",
        "UPDATE paybus.payments SET status = 'waiting'",
        "UPDATE paybus.payments SET captured_amount = 0",
        "INSERT INTO paybus.payments (id) VALUES (gen_random_uuid())",
        "UPDATE paybus.operations SET state = 'settled'",
        "UPDATE paybus.movements SET amount = 0",
        "INSERT INTO paybus.events (payment_id) VALUES (gen_random_uuid())",
        "UPDATE paybus.watermarks SET position = 0",
        "TRUNCATE paybus.audit",
        "CREATE TABLE paybus.mine (id int)",
    ] {
        database_refuses(&url("archiver"), sql).await;
    }
    for sql in [
        "UPDATE paybus.payments SET status = 'confirmed'",
        "DELETE FROM paybus.operations",
        "INSERT INTO paybus.audit DEFAULT VALUES",
        "CREATE TABLE paybus.mine (id int)",
    ] {
        database_refuses(&url("reader"), sql).await;
    }
    world.check_books().await;
    worker.term();
    within(Duration::from_secs(20), "the worker to end", async || worker.exited().ok_or("it runs")).await;
    for name in ["owner", "worker", "archiver", "reader"] {
        // Roles belong to the whole server; the rights in this database are removed with the role.
        world.query(&format!("REASSIGN OWNED BY {} TO CURRENT_USER", role(name)), &[]).await;
        world.query(&format!("DROP OWNED BY {}", role(name)), &[]).await;
        world.query(&format!("DROP ROLE {}", role(name)), &[]).await;
    }
}
