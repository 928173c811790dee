//! Wrong input of every kind: answered if it identifies itself, dead-lettered if not, and never an obstacle for correct
//! input.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::bus::header;
use crate::support::{Command, Event, Expected, World};

/// A correct command among the wrong ones.
fn good() -> Command {
    Command::charge("default", "5.00", "USD")
}

fn assert_rejected(answer: &Event, code: &str, named: &str) {
    assert_eq!((answer.kind(), answer.code()), ("command.rejected", code), "{}", answer.line());
    assert!(answer.is_final());
    assert!(answer.message().contains(named), "{named:?} should be named: {}", answer.message());
}

/// Publishes wrong commands, and expects an answer to each and no call.
async fn check(bad: Vec<(Command, &str, &str)>) {
    let world = World::new().await;
    let _worker = world.worker().await;
    for (command, code, named) in bad {
        let answer = world.run(&command).await;
        assert_rejected(&answer, code, named);
        let payments = world.query("SELECT id FROM payments WHERE id = $1", &[&command.payment]).await;
        assert!(payments.is_empty(), "no payment is stored");
    }
    assert!(world.gateway.calls().is_empty());
    assert_eq!(world.run(&good()).await.status(), "confirmed");
    world.check_books().await;
}

#[tokio::test]
async fn fields_of_the_data_are_named_in_the_answer() {
    let create = || Command::create("http", "120.00", "USD");
    let with = |name: &str, value: Value| create().with(name, value);
    let mut bad = vec![
        (create().without("variant"), "invalid_data", "variant"),
        (create().without("total"), "invalid_data", "total"),
        (create().without("currency"), "invalid_data", "currency"),
        (with("total", Value::Null), "invalid_amount", "total"),
        (with("totl", json!("1.00")), "unknown_field", "totl"),
        (with("capture_amount", json!("1.00")), "unknown_field", "capture_amount"),
        (with("status", json!("confirmed")), "unknown_field", "status"),
        (with("capture", json!("yes")), "invalid_data", "capture"),
        (with("process", json!("confirmed")), "invalid_data", "process"),
        (with("process", json!([])), "invalid_data", "process"),
        (with("description", json!(7)), "invalid_data", "description"),
        (with("description", json!("x".repeat(4097))), "invalid_data", "description"),
        (with("billing_city", json!("x".repeat(257))), "invalid_data", "billing_city"),
        (with("billing_country_code", json!("GBR")), "invalid_data", "billing_country_code"),
        (with("customer_ip_address", json!("300.1.1.1")), "invalid_data", "customer_ip_address"),
        (with("customer_ip_address", json!("localhost")), "invalid_data", "customer_ip_address"),
        (with("billing_first_name", json!({"first": "Sherlock"})), "invalid_data", "billing_first_name"),
    ];
    for currency in ["usd", "US", "USDX", "", "XXX", "XAU", "BTC", "€"] {
        bad.push((with("currency", json!(currency)), "invalid_currency", "currency"));
    }
    for total in ["-1.00", "1,00", "1e3", "0x10", "NaN", "Infinity", "1.001", "1 000", "1.", ".5", "1.0.0", "١٢"] {
        bad.push((with("total", json!(total)), "invalid_amount", "total"));
    }
    for total in [json!(120), json!(120.5), json!(1e30), json!(true), json!(["1.00"])] {
        bad.push((with("total", total), "invalid_amount", "total"));
    }
    bad.push((with("tax", json!(1.5)), "invalid_amount", "tax"));
    bad.push((with("delivery", json!("0.001")), "invalid_amount", "delivery"));
    let dummy = |process: Value| Command::create("default", "5.00", "USD").with("process", process);
    bad.push((dummy(json!({"status": "bogus"})), "invalid_data", "status"));
    bad.push((dummy(json!({"surprise": 1})), "unknown_field", "surprise"));
    check(bad).await;
}

#[tokio::test]
async fn envelopes_and_routing_keys_are_checked_against_the_contract() {
    let create = || Command::create("http", "120.00", "USD");
    let with = |name: &str, value: Value| create().attribute(name, value);
    let mut unknown_variant = create().with("variant", json!("nobody"));
    unknown_variant.variant = "nobody".to_owned();
    let mut unknown_type = create();
    unknown_type.kind = "payment.steal".to_owned();
    let bad = vec![
        (with("specversion", Value::Null), "invalid_envelope", "specversion"),
        (with("specversion", json!("0.3")), "invalid_envelope", "specversion"),
        (with("specversion", json!(1.0)), "invalid_envelope", "specversion"),
        (with("type", Value::Null), "invalid_envelope", "type"),
        (with("type", json!(7)), "invalid_envelope", "type"),
        (with("datacontenttype", json!("text/xml")), "invalid_envelope", "datacontenttype"),
        (with("expirytime", json!("tomorrow")), "invalid_envelope", "expirytime"),
        (with("correlationid", json!("x".repeat(256))), "invalid_envelope", "correlationid"),
        (with("correlationid", json!({"a": 1})), "invalid_envelope", "correlationid"),
        (with("data", Value::Null), "invalid_data", "data"),
        (with("data", json!([1, 2])), "invalid_data", "data"),
        (with("data", json!("text")), "invalid_data", "data"),
        (with("subject", json!("order-17")), "invalid_envelope", "subject"),
        (unknown_variant, "unknown_variant", "nobody"),
        (unknown_type, "unknown_type", "payment.steal"),
        (create().routed("http.payment.refund"), "routing_mismatch", "http.payment.refund"),
        (create().routed("default.payment.create"), "routing_mismatch", "http"),
        (create().routed("payment.create"), "routing_mismatch", "payment.create"),
        (create().routed("http"), "routing_mismatch", "http"),
        (create().routed(""), "routing_mismatch", ""),
        (create().routed("http.payment.create.more"), "routing_mismatch", "more"),
    ];
    check(bad).await;
}

#[tokio::test]
async fn depth_size_and_encoding_are_bounded() {
    let create = || Command::create("http", "5.00", "USD");
    let nested = |levels: usize| {
        let open = "{\"a\":".repeat(levels);
        let text = String::from_utf8(create().bytes()).unwrap();
        // `data` itself and `process` count as levels too.
        let deep = format!("\"process\":{open}1{},\"total\"", "}".repeat(levels));
        text.replace("\"total\"", &deep)
    };
    let bodied = |change: &dyn Fn(String) -> Vec<u8>| {
        let command = create();
        let text = String::from_utf8(command.bytes()).unwrap();
        command.raw(change(text))
    };
    let deep = |levels: usize| {
        let text = nested(levels);
        let envelope: Result<Value, _> = serde_json::from_str(&text);
        let mut command = create().raw(text.clone());
        // The names inside are those of the nested command.
        let name = |name: &str| {
            let (_, rest) = text.split_once(&format!("\"{name}\":\"")).unwrap();
            rest.split('"').next().unwrap().to_owned()
        };
        assert_eq!(envelope.is_ok(), levels < 120, "{levels}");
        command.id = name("id");
        command.payment = name("subject").parse().unwrap();
        command
    };
    let with_nul = create().with("description", json!("a\u{0}b"));
    let nul_in_name = create().with("process", json!({"a\u{0}b": 1}));
    let long = create().with("description", json!("x".repeat(1024 * 1024)));
    let latin = bodied(&|text| {
        let mut bytes = text.into_bytes();
        let at = bytes.windows(4).position(|four| four == b"http").unwrap();
        bytes[at] = 0xe9;
        bytes
    });
    let bad = vec![
        (deep(16), "too_deep", "data"),
        (deep(17), "too_deep", "data"),
        (deep(200), "too_deep", "data"),
        (deep(5000), "too_deep", "data"),
        (with_nul, "invalid_encoding", "NUL"),
        (nul_in_name, "invalid_encoding", "NUL"),
        (create().attribute("correlationid", json!("a\u{0}b")), "invalid_encoding", "correlationid"),
        (long, "too_large", "1048576"),
        (latin, "invalid_encoding", "UTF-8"),
    ];
    check(bad).await;

    let world = World::new().await;
    let _worker = world.worker().await;
    let allowed = deep(15);
    assert_eq!(world.run(&allowed).await.status(), "confirmed", "sixteen levels are allowed");
    world.check_books().await;
}

#[tokio::test]
async fn what_names_nobody_is_dead_lettered_with_its_reason() {
    let world = World::new().await;
    let worker = world.worker().await;
    let create = || Command::create("http", "120.00", "USD");
    let missing = |name: &str, value: Value| create().attribute(name, value).bytes();
    let long = json!("x".repeat(256));
    let bodies: Vec<(Vec<u8>, &str)> = vec![
        (b"".to_vec(), "JSON"),
        (b"hello".to_vec(), "JSON"),
        (b"[1, 2]".to_vec(), "JSON"),
        (b"\"text\"".to_vec(), "JSON"),
        (b"null".to_vec(), "JSON"),
        (b"{\"id\": \"1\"".to_vec(), "JSON"),
        (vec![0xff, 0xfe, 0x00, 0x01], "JSON"),
        (vec![b'['; 100_000], "JSON"),
        (b"{}".to_vec(), "subject"),
        (missing("subject", Value::Null), "subject"),
        (missing("subject", json!("")), "subject"),
        (missing("source", Value::Null), "source"),
        (missing("source", json!("")), "source"),
        (missing("id", Value::Null), "id"),
        (missing("id", json!("")), "id"),
        (missing("id", json!(7)), "id"),
        (missing("id", long.clone()), "id"),
        (missing("source", long), "source"),
        (missing("source", json!("a\u{0}b")), "source"),
    ];
    let count = bodies.len() as u32;
    for (body, _) in &bodies {
        world.publish_all(&[create().raw(body.clone()), good()]).await;
    }
    for command in world.published() {
        assert_eq!(world.final_event(&command).await.status(), "confirmed", "{}", command.id);
    }
    world.check_books_but(Expected { dead: count, ..Expected::default() }).await;
    let mut dead = world.bus.take_all("dead").await;
    for (body, named) in bodies {
        let place = dead.iter().position(|(_, dead)| *dead == body).expect("the body as it was sent");
        let (properties, _) = dead.swap_remove(place);
        let reason = header(&properties, "x-paybus-reason");
        assert!(reason.contains(named), "{named}: {reason}");
        assert_eq!(header(&properties, "x-paybus-routing-key"), "http.payment.create");
    }
    let log = worker.log();
    assert!(!log.contains("\"level\":\"ERROR\""), "it is not an error of paybus");
}

#[tokio::test]
async fn a_reply_goes_to_no_queue_of_a_strangers_choice() {
    let world = World::new().await;
    let _worker = world.worker().await;
    for queue in ["orders", "paybus.events", "xreply.me", "amq.rabbitmq", "Reply.me"] {
        let command = Command::charge("http", "5.00", "USD").reply_to(queue, "1");
        assert_rejected(&world.run(&command).await, "invalid_envelope", "reply_to");
    }
    let own = format!("{}.commands.http", world.bus.prefix);
    let command = Command::charge("http", "5.00", "USD").reply_to(&own, "1");
    assert_rejected(&world.run(&command).await, "invalid_envelope", "reply_to");
    assert!(world.gateway.calls().is_empty());
    world.check_books().await;
}

#[tokio::test]
async fn three_thousand_bad_messages_block_nobody() {
    let world = World::new().await;
    let worker = world.worker().await;
    let mut commands = Vec::new();
    for number in 0..3_000 {
        commands.push(match number % 5 {
            0 => Command::create("http", "x", "USD"),
            1 => Command::create("http", "5.00", "USD").with("surprise", json!(number)),
            2 => Command::create("http", "5.00", "USD").raw(format!("nonsense {number}")),
            3 => Command::create("nobody", "5.00", "USD"),
            _ => Command::new("http", "payment.steal", Uuid::new_v4(), json!({})),
        });
        if number % 100 == 0 {
            commands.push(Command::charge("http", "5.00", "USD"));
        }
    }
    world.publish_all(&commands).await;
    commands.retain(|command| command.body.is_none());
    let answers = world.final_events(&commands).await;
    assert_eq!(answers.iter().filter(|answer| answer.status() == "confirmed").count(), 30);
    assert_eq!(world.gateway.calls().len(), 30);
    world.check_books_but(Expected { dead: 600, ..Expected::default() }).await;
    let lines = worker.log().lines().count();
    assert!(lines < 200, "{lines} lines are in the log");
}
