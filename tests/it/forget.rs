//! A person's data is erased and the books stay: `paybus forget`, and how long the broker keeps messages without a
//! consumer.

use std::process::{Command as Program, Output};
use std::sync::Arc;
use std::time::Duration;

use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Confirmation};
use serde_json::{Value, json};
use tokio::sync::Notify;
use uuid::Uuid;

use paybus::store::retention::forget::PersonalData;

use crate::support::files::root;
use crate::support::skip::needed;
use crate::support::wait::within;
use crate::support::worker::{output_of, paybus};
use crate::support::{Behaviour, Command, Event, Expected, WorkerSetup, World, eventually};

const EMAIL: &str = "s.holmes@example.org";

/// The person's data, wherever it may be.
const TRACES: [&str; 11] = [
    "Sherlock",
    "Holmes",
    "s.holmes",
    "221B",
    "Marylebone",
    "NW1 6XE",
    "Greater London",
    "7224 3688",
    "2001:db8::1",
    "violin",
    "pipe",
];

/// A charge with every kind of personal data, and a gateway's answer with more.
fn charge(world: &World) -> Command {
    let data = json!({
        "variant": "http", "description": "A violin for Mr Holmes", "total": "120.00", "currency": "USD",
        "billing_first_name": "Sherlock", "billing_last_name": "Holmes", "billing_address_1": "221B Baker Street",
        "billing_address_2": "Marylebone", "billing_city": "London", "billing_postcode": "NW1 6XE",
        "billing_country_code": "GB", "billing_country_area": "Greater London", "billing_email": EMAIL,
        "billing_phone": "+44 20 7224 3688", "customer_ip_address": "2001:db8::1",
        "metadata": {"wish": "and a pipe"}, "process": {"token": "tok_1"},
    });
    let charge = Command::charge("http", "120.00", "USD").data(data);
    let said = json!({
        "message": "thank you, Sherlock", "fraud_status": "accept", "fraud_message": "Holmes is known",
        "extra_data": {"holder": "S Holmes"},
    });
    world.gateway.plan(charge.payment, vec![Behaviour::Say(said)]);
    charge
}

async fn run(world: &World, arguments: &[&str]) -> Output {
    let mut command = paybus(world.settings());
    command.arg("forget").args(arguments).env("USER", "someone");
    output_of(command).await
}

/// Returns its JSON output and whether it succeeded completely.
async fn forget(world: &World, arguments: &[&str]) -> (Value, bool) {
    let output = run(world, &[arguments, &["--json"]].concat()).await;
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    (report, output.status.success())
}

/// Every row of every table, as text.
async fn dump(world: &World) -> String {
    let tables = "SELECT table_name::text FROM information_schema.tables
                  WHERE table_schema = 'paybus' AND table_type = 'BASE TABLE'";
    let mut dump = String::new();
    for row in world.query(tables, &[]).await {
        let table: String = row.get(0);
        let sql = format!("SELECT coalesce(string_agg(t::text, E'\\n'), '') FROM {table} t");
        dump.push_str(&world.value::<String>(&sql, &[]).await);
        dump.push('\n');
    }
    dump
}

/// Which of the person's data a text contains.
fn traces(text: &str) -> Vec<&'static str> {
    TRACES.into_iter().filter(|trace| text.contains(trace)).collect()
}

/// Which of them events contain.
fn traces_in(events: &[Event]) -> Vec<&'static str> {
    traces(&events.iter().map(|event| event.body.to_string()).collect::<String>())
}

/// What must be kept of a payment.
async fn books(world: &World, payment: Uuid) -> Vec<String> {
    let payment_row = "SELECT (id, variant, gateway, account, status, fraud_status, created, modified, transaction_id,
        currency, total, captured_amount, authorized_amount, refunded_amount, capture, last_sequence)::text
        FROM payments WHERE id = $1";
    let movements = "SELECT m::text FROM movements m WHERE payment_id = $1 ORDER BY kind, reference";
    let operations =
        "SELECT (id, source, command_id, command_type, hash, state, amount, answer, answer_code, settled_at,
        attempts)::text FROM operations WHERE payment_id = $1 ORDER BY accepted";
    let mut books = Vec::new();
    for sql in [payment_row, movements, operations] {
        books.extend(world.query(sql, &[&payment]).await.iter().map(|row| row.get::<_, String>(0)));
    }
    books
}

#[tokio::test]
async fn personal_data_is_erased_and_the_books_stay() {
    let world = World::new().await;
    let worker = world.worker().await;
    let charge = charge(&world);
    let id = charge.payment.to_string();
    assert_eq!(world.run(&charge).await.status(), "confirmed");
    let refund = charge.then("payment.refund", json!({"amount": "20.00"}));
    assert_eq!(world.run(&refund).await.field("captured_amount"), "100.00");
    assert_eq!(world.run(&charge.then("payment.release", json!({}))).await.kind(), "command.rejected");
    // An operation keeps what gateways say about it.
    let said = "UPDATE operations SET last_message = 'Mr Holmes', answer_message = 'Mr Holmes' WHERE payment_id = $1";
    world.query(said, &[&charge.payment]).await;
    let letter = |text: String| Command::create("http", "1.00", "USD").raw(text);
    let of_holmes =
        [letter(format!("Sherlock, no JSON: {id}")), letter(format!("no JSON: <{}>", EMAIL.to_uppercase()))];
    world.publish_all(&[&of_holmes[..], &[letter("no JSON: watson@example.org".to_owned())]].concat()).await;
    world.are_dead(3).await;
    world.events_are_marked().await;
    assert_eq!(traces(&dump(&world).await), TRACES, "the data is there");
    let before = books(&world, charge.payment).await;

    let dry = run(&world, &["--email", EMAIL]).await;
    let text = String::from_utf8_lossy(&dry.stdout).into_owned();
    assert!(dry.status.success() && text.contains("would be forgotten: 1 payment, 2 dead letters"), "{dry:?}");
    assert_eq!(traces(&dump(&world).await), TRACES, "nothing is erased yet");

    let (report, is_done) = forget(&world, &["--email", "S.Holmes@Example.ORG", "--yes"]).await;
    let payments = json!([{"payment": id, "result": "forgotten"}]);
    assert_eq!((report, is_done), (json!({"done": true, "payments": payments, "dead_letters": 2}), true));
    assert_eq!(traces(&dump(&world).await), [""; 0]);
    assert_eq!(books(&world, charge.payment).await, before);
    let audited = world.query("SELECT who, action, details FROM audit ORDER BY at", &[]).await;
    let audited: Vec<(String, String, Value)> =
        audited.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    let by_someone = |action: &str, details: Value| ("someone".to_owned(), action.to_owned(), details);
    let expected = [
        by_someone("forget", json!({"by": "email", "payments": [id]})),
        by_someone("forget.dead_letters", json!({"count": 2})),
        by_someone("forgotten", json!({"payment": id})),
    ];
    assert_eq!(audited, expected);

    // A second run finds nothing.
    let (report, is_done) = forget(&world, &["--email", EMAIL, "--yes"]).await;
    assert_eq!((&report["payments"], is_done), (&json!([]), true));
    let (report, is_done) = forget(&world, &[&id, "--yes"]).await;
    assert_eq!((&report["payments"][0]["result"], is_done), (&json!("nothing"), true));

    // Nothing restores the data, and money can still move.
    let count = world.log.all().len();
    let answer = world.run(&charge.then("payment.resend", json!({"from": "1"}))).await;
    assert_eq!((answer.kind(), answer.data().get("resent")), ("command.succeeded", None));
    assert_eq!(world.run(&charge.then("payment.snapshot", json!({}))).await.field("billing_email"), "");
    world.publish(&charge).await;
    eventually("the create to be recognized", async || {
        let known = worker.count(r#"paybus_commands_duplicate_total{variant="http"}"#).await;
        if known == 1 { Ok(()) } else { Err(known) }
    })
    .await;
    let refund = world.run(&charge.then("payment.refund", json!({}))).await;
    assert_eq!((refund.status(), refund.field("refunded_amount")), ("refunded", "120.00"));
    assert_eq!(traces_in(&world.log.since(count)), [""; 0]);
    assert_eq!(traces(&dump(&world).await), [""; 0]);
    let left = world.bus.take_all("dead").await;
    assert_eq!(left.iter().map(|(_, body)| &body[..]).collect::<Vec<_>>(), [b"no JSON: watson@example.org"]);
    world.check_books().await;
}

#[tokio::test]
async fn personal_data_that_is_still_needed_stays_with_the_reason() {
    let world = World::new().await;
    let worker = world.worker().await;
    let kept = async |command: &Command, why: &str| {
        let (report, is_done) = forget(&world, &[&command.payment.to_string(), "--yes"]).await;
        let report = &report["payments"][0];
        assert_eq!((&report["result"], is_done), (&json!("kept"), false), "{report}");
        assert!(report["reason"].as_str().is_some_and(|reason| reason.contains(why)), "{report}");
        assert_eq!(world.payment_row(command.payment).await.get::<_, String>("billing_email"), EMAIL);
    };
    let waiting = charge(&world).without("process");
    world.run(&waiting).await;
    kept(&waiting, "cancel it first").await;
    let held = charge(&world).with("capture", json!(false));
    assert_eq!(world.run(&held).await.status(), "preauth");
    kept(&held, "capture or release it first").await;
    let open = charge(&world);
    assert_eq!(world.run(&open).await.status(), "confirmed");
    let go_on = Arc::new(Notify::new());
    world.gateway.plan(open.payment, vec![Behaviour::Until(Arc::clone(&go_on))]);
    let refund = open.then("payment.refund", json!({}));
    world.publish(&refund).await;
    world.gateway.wait_for_calls(open.payment, 2).await;
    kept(&open, "1 command is not answered yet").await;
    go_on.notify_one();
    assert_eq!(world.final_event(&refund).await.status(), "refunded");
    world.publish(&Command::create("http", "1.00", "USD").raw(format!("no JSON: {EMAIL}"))).await;
    world.are_dead(1).await;
    world.events_are_marked().await;
    worker.drain().await;

    let unsent = "DELETE FROM sent WHERE position IN (SELECT position FROM events WHERE payment_id = $1)";
    world.query(unsent, &[&open.payment]).await;
    kept(&open, "not sent yet: try again later").await;
    let sent = "INSERT INTO sent (position, sent_at) SELECT position, now() FROM events WHERE payment_id = $1";
    world.query(sent, &[&open.payment]).await;
    // As long as one of these payments is kept, so are the letters that may belong to it.
    let (report, is_done) = forget(&world, &["--email", EMAIL, "--yes"]).await;
    let forgotten: Vec<&Value> = report["payments"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|payment| payment["result"] == "forgotten")
        .collect();
    assert_eq!(forgotten, [&json!({"payment": open.payment, "result": "forgotten"})]);
    assert_eq!((&report["dead_letters"], is_done), (&json!(0), false));
    let (report, is_done) = forget(&world, &[&Uuid::new_v4().to_string()]).await;
    assert_eq!((&report["payments"][0]["result"], is_done), (&json!("unknown"), false));

    let _worker = world.worker().await;
    world.check_books_but(Expected { dead: 1, ..Expected::default() }).await;
}

/// The worker has read the payment and decided on it when its data is erased.
#[tokio::test]
async fn a_worker_that_read_it_before_brings_nothing_back() {
    let world = World::new().await;
    let first = world.worker().await;
    let charge = charge(&world);
    world.run(&charge).await;
    world.events_are_marked().await;
    first.drain().await;
    let worker = world.worker_with(WorkerSetup::default().stops_at(&format!("decided:{}", charge.payment))).await;
    let refund = charge.then("payment.refund", json!({"amount": "20.00"}));
    world.publish(&refund).await;
    worker.stopped().await;
    let (report, is_done) = forget(&world, &[&charge.payment.to_string(), "--yes"]).await;
    assert!(is_done, "{report}");
    let count = world.log.all().len();
    worker.cont();
    let answer = world.final_event(&refund).await;
    assert_eq!((answer.status(), answer.field("captured_amount")), ("confirmed", "100.00"));
    assert_eq!(traces_in(&world.log.since(count)), [""; 0]);
    let sent = world.gateway.calls_of(charge.payment).pop().expect("a call");
    assert_eq!(traces(&String::from_utf8_lossy(&sent.body)), [""; 0], "it was written without the erased data");
    assert_eq!(traces(&dump(&world).await), [""; 0]);

    // Conversely, nothing is erased if the payment has changed meanwhile.
    let store = world.store().await;
    world.events_are_marked().await;
    let PersonalData::Erasable { version } = store.personal_data(charge.payment).await.expect("the payment") else {
        panic!("its new events can be erased");
    };
    world.run(&charge.then("payment.refund", json!({"amount": "1.00"}))).await;
    assert!(!store.forget(charge.payment, version, "someone").await.expect("an answer"));
    let events: i64 = world.value("SELECT count(*) FROM events WHERE payment_id = $1", &[&charge.payment]).await;
    assert!(events >= 2, "the events of both refunds are there: {events}");
    store.close();
    world.check_books().await;
}

#[tokio::test]
async fn workers_go_on_while_a_person_is_forgotten() {
    const PAYMENTS: usize = 12;
    let world = World::new().await;
    let _workers = [world.worker().await, world.worker().await];
    let charges: Vec<Command> = (0..PAYMENTS).map(|_| charge(&world)).collect();
    world.publish_all(&charges).await;
    world.final_events(&charges).await;
    let refunds: Vec<Command> = (0..3)
        .flat_map(|_| charges.iter().map(|charge| charge.then("payment.refund", json!({"amount": "1.00"}))))
        .collect();
    world.publish_all(&refunds).await;
    within(Duration::from_secs(60), "all of them to be forgotten", async || {
        let (report, is_done) = forget(&world, &["--email", EMAIL, "--yes"]).await;
        if is_done { Ok(()) } else { Err(report) }
    })
    .await;
    for answer in world.final_events(&refunds).await {
        assert_eq!(answer.kind(), "payment.updated", "{}", answer.line());
    }
    assert_eq!(traces(&dump(&world).await), [""; 0]);
    for charge in &charges {
        let row = world.payment_row(charge.payment).await;
        assert_eq!(row.get::<_, rust_decimal::Decimal>("refunded_amount"), rust_decimal::Decimal::from(3));
    }
    world.check_books().await;
}

/// Runs the script that limits how long the broker keeps messages without a consumer.
async fn expire(world: &World, ctl: &str, queue: &str, age: &str) -> Output {
    let uri: lapin::uri::AMQPUri = world.bus.url.parse().expect("an address");
    let mut script = Program::new(root().join("deploy/rabbitmq/expire"));
    script.args([queue, age]).env("PREFIX", &world.bus.prefix).env("VHOST", uri.vhost).env("RABBITMQCTL", ctl);
    output_of(script).await
}

#[tokio::test]
async fn what_nobody_takes_ends_after_the_age_that_is_set() {
    let Some(ctl) = needed("PAYBUS_TEST_RABBITMQCTL") else { return };
    let world = World::new().await;
    for queue in ["unrouted", "dead"] {
        let set = expire(&world, &ctl, queue, "1s").await;
        assert!(set.status.success(), "{set:?}");
    }
    for (queue, age) in [("commands", "1s"), ("unrouted", "0s"), ("unrouted", "soon")] {
        assert_eq!(expire(&world, &ctl, queue, age).await.status.code(), Some(2), "{queue} {age}");
    }
    // The arguments of the queues are unchanged.
    let mut migrate = paybus(world.settings());
    migrate.args(["migrate", "--only", "broker"]);
    let migrated = output_of(migrate).await;
    assert!(migrated.status.success(), "{migrated:?}");

    let (connection, channel) = world.bus.channel().await;
    for queue in ["unrouted", "dead"] {
        let (exchange, options) = (world.bus.queue(queue), BasicPublishOptions::default());
        let sent =
            channel.basic_publish(exchange.into(), "any".into(), options, b"{}", BasicProperties::default()).await;
        let confirmed = sent.expect("the broker").await.expect("the broker");
        assert!(matches!(confirmed, Confirmation::Ack(_)), "{confirmed:?}");
        eventually("it to expire", async || {
            let length = world.bus.length(queue).await;
            if length == 0 { Ok(()) } else { Err(format!("{length} are in {queue}")) }
        })
        .await;
    }
    connection.close(200, "done".into()).await.expect("the broker");
    for queue in ["unrouted", "dead"] {
        let cleared = expire(&world, &ctl, queue, "never").await;
        assert!(cleared.status.success(), "{cleared:?}");
    }
    world.check_books().await;
}
