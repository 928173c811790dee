//! A command that contains a card number is rejected, and nothing of it is stored anywhere.

use serde_json::{Value, json};

use crate::support::{Command, Event, Expected, Worker, World};

/// A Visa test number.
const CARD: &str = "4111111111111111";

/// Whether a text contains the number, however it is separated or escaped.
fn contains_card(text: &str) -> bool {
    let plain = text.replace("\\u0034", "4").replace("\\u0031", "1");
    let digits: String = plain.chars().filter(|sign| !" -.,\"\\".contains(*sign)).collect();
    digits.contains(CARD) || text.contains("NDExMTExMTEx")
}

/// Searches everywhere: events, database, dead letters, log.
async fn check_no_trace(world: &World, worker: &Worker) {
    for event in world.log.all() {
        let text = format!("{} {} {:?}", event.routing_key, event.body, event.properties);
        assert!(!contains_card(&text), "an event: {}", event.line());
    }
    for table in ["payments", "operations", "movements", "events", "audit"] {
        for row in world.query(&format!("SELECT t::text FROM {table} t"), &[]).await {
            let text: String = row.get(0);
            assert!(!contains_card(&text), "table {table}: {text}");
        }
    }
    for (properties, body) in world.bus.take_all("dead").await {
        let text = format!("{} {properties:?}", String::from_utf8_lossy(&body));
        assert!(!contains_card(&text), "a dead letter: {text}");
    }
    assert!(!contains_card(&worker.log()), "the log");
}

fn assert_refused(answer: &Event) {
    assert_eq!((answer.kind(), answer.code()), ("command.rejected", "card_number"), "{}", answer.line());
}

#[tokio::test]
async fn a_card_number_is_refused_wherever_it_stands() {
    let world = World::new().await;
    let worker = world.worker().await;
    let create = || Command::create("http", "5.00", "USD");
    let escaped = |command: Command| {
        let text = String::from_utf8(command.with("description", json!("card CARD")).bytes()).unwrap();
        text.replace("CARD", "\\u0034111 \\u0031111 1111 1111").into_bytes()
    };
    let command = create();
    let by_escapes = command.clone().raw(escaped(command));
    let bad = [
        create().with("process", json!({"token": CARD})),
        create().with("process", json!({"card": {"number": 4_111_111_111_111_111_u64}})),
        create().with("process", json!({"4111 1111 1111 1111": true})),
        create().with("description", json!("paid by 4111-1111-1111-1111, thank you")),
        create().with("billing_last_name", json!("4111 1111 1111 1111")),
        create().with("description", json!("pan4111111111111111exp1227")),
        create().with("description", json!("4111.1111.1111.1111 or ;4111111111111111=27121011234567890?")),
        create().with("description", json!("４１１１\u{3000}１１１１\u{200b}１１１１１１１１")),
        create().with("description", json!("٤١١١١١١١١١١١١١١١")),
        create().with("description", json!("a=%34111%201111%201111%201111")),
        create().with("process", json!({"token": "NDExMTExMTExMTExMTExMQ=="})),
        create().with("process", json!({"pan": ["4111", "1111", "1111", "1111"]})),
        create().with("process", json!({"pan": [4111, 1111, 1111, 1111]})),
        create().with("currency", json!(CARD)),
        create().with(CARD, json!("an unknown field")),
        create().attribute("correlationid", json!(CARD)),
        create().attribute("type", json!(CARD)),
        create().attribute("note", json!(CARD)),
        create().attribute("data", json!(CARD)),
        create().routed(&format!("{CARD}.payment.create")),
        create().routed(&format!("http.{CARD}")),
        by_escapes,
    ];
    for command in bad {
        assert_refused(&world.run(&command).await);
    }
    let paid = Command::charge("http", "5.00", "USD");
    world.run(&paid).await;
    assert_refused(&world.run(&paid.then("payment.refund", json!({"amount": CARD}))).await);
    assert_refused(&world.run(&paid.then("payment.cancel", json!({"reason": CARD}))).await);
    assert_eq!(world.gateway.calls().len(), 1);
    world.check_books().await;
    check_no_trace(&world, &worker).await;
}

#[tokio::test]
async fn dead_letters_contain_no_card_number() {
    let world = World::new().await;
    let worker = world.worker().await;
    let create = || Command::create("http", "5.00", "USD");
    let named = |name: &str| create().attribute(name, json!(CARD)).bytes();
    let bodies: Vec<Vec<u8>> = vec![
        format!("card {CARD}").into_bytes(),
        b"[\"4111 1111 1111 1111\"]".to_vec(),
        b"{\"card\": \"\\u0034111111111111111\"}".to_vec(),
        [b"\xff\xfe 4111-1111-1111-1111 ".as_slice(), &[0xc3]].concat(),
        named("id"),
        named("source"),
        named("subject"),
        b"\"NDExMTExMTExMTExMTExMQ==\" 4111.1111.1111.1111 [\"4111\", \"1111\", \"1111\", \"1111\"]".to_vec(),
        create().attribute("id", Value::Null).with("description", json!(CARD)).bytes(),
    ];
    let dead = bodies.len() as u32;
    for body in bodies {
        world.publish(&create().raw(body)).await;
    }
    world.run(&Command::charge("http", "5.00", "USD")).await;
    world.check_books_but(Expected { dead, ..Expected::default() }).await;
    check_no_trace(&world, &worker).await;
}

#[tokio::test]
async fn the_gateways_words_are_scrubbed() {
    let world = World::new().await;
    let worker = world.worker().await;
    let charge = Command::charge("http", "5.00", "USD");
    let said = json!({
        "message": format!("charged {CARD}"), "extra_data": {"pan": CARD, "deep": [{"pan": "4111 1111 1111 1111"}],
            "parts": ["4111", "1111", "1111", "1111"], "encoded": "NDExMTExMTExMTExMTExMQ=="},
        "fraud_message": CARD,
    });
    world.gateway.plan(charge.payment, vec![crate::support::Behaviour::Say(said)]);
    let answer = world.run(&charge).await;
    assert_eq!(answer.status(), "confirmed");
    world.check_books().await;
    check_no_trace(&world, &worker).await;
}

#[tokio::test]
async fn numbers_that_only_look_like_it_are_accepted() {
    let world = World::new().await;
    let _worker = world.worker().await;
    for text in [
        "+44 20 7224 3688",
        "+491701234567890",
        "order 4111111111111112",
        "2026-11-22 12:00:00",
        "DE89370400440532013000",
        "0192f0c1-4111-7111-8111-111111111111",
        "invoice 12345678901234567890123",
        "call 4915112345611 or +49 4111 1111 111",
        "order 30112026000007 or 20261130-000123",
        "SIRET 38012986600006",
        "4222222222222",
    ] {
        let charge = Command::charge("default", "5.00", "USD").with("description", json!(text));
        let charge = charge.with("billing_phone", json!("+44 20 7224 3688"));
        let answer = world.run(&charge).await;
        assert_eq!((answer.status(), answer.field("description")), ("confirmed", text));
    }
    world.check_books().await;
}
