//! CloudEvents in binary mode, as clients of AMQP 0.9.1 and 1.0 send them: the attributes are headers, the body is the
//! data.

use jiff::{SignedDuration, Timestamp};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::json;

use crate::support::replies::Replies;
use crate::support::{Command, World, eventually};

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

/// The command in binary mode, with its attributes behind this prefix.
fn in_binary(command: &Command, prefix: &str) -> Command {
    let payment = command.payment.to_string();
    let attributes = [
        ("specversion", "1.0"),
        ("id", command.id.as_str()),
        ("source", command.source.as_str()),
        ("type", command.kind.as_str()),
        ("subject", payment.as_str()),
        ("correlationid", "order-7"),
    ];
    let mut headers = FieldTable::default();
    for (name, value) in attributes {
        headers.insert(format!("{prefix}{name}").into(), text(value));
    }
    // As clients that have a type for times send them.
    let later = (Timestamp::now() + SignedDuration::from_hours(1)).as_second();
    for name in ["time", "expirytime"] {
        headers.insert(format!("{prefix}{name}").into(), AMQPValue::Timestamp(later as u64));
    }
    let properties = BasicProperties::default().with_content_type("application/json".into()).with_headers(headers);
    command.clone().properties(properties).raw(command.data.to_string())
}

/// The same with a header added or replaced.
fn with_header(command: &Command, name: &str, value: AMQPValue) -> Command {
    let mut headers = command.properties.headers().clone().unwrap_or_default();
    headers.insert(name.into(), value);
    let properties = command.properties.clone().with_headers(headers);
    command.clone().properties(properties)
}

fn with_content_type(command: &Command, content_type: &str) -> Command {
    let properties = command.properties.clone().with_content_type(content_type.into());
    command.clone().properties(properties)
}

#[tokio::test]
async fn a_command_in_binary_mode_pays_once_and_is_answered() {
    let world = World::new().await;
    let worker = world.worker().await;
    let mut replies = Replies::of(&world).await;
    for prefix in ["cloudEvents:", "cloudEvents_"] {
        let charge = Command::charge("http", "120.00", "USD").reply_to(&replies.queue, prefix);
        let answer = world.run(&in_binary(&charge, prefix)).await;
        assert_eq!((answer.status(), answer.field("captured_amount")), ("confirmed", "120.00"));
        assert_eq!(answer.body["correlationid"], "order-7");
        assert_eq!(replies.next().await, (prefix.to_owned(), answer.body.clone()));
        // In structured mode it is the same command and has the same answer.
        world.publish(&charge).await;
        assert_eq!(replies.next().await, (prefix.to_owned(), answer.body));
        let refund = charge.then("payment.refund", json!({"amount": "20.00"})).reply_to(&replies.queue, "refund");
        world.note_published(std::slice::from_ref(&refund));
        let answer = world.run(&in_binary(&refund, prefix)).await;
        assert_eq!(answer.field("refunded_amount"), "20.00");
        assert_eq!(replies.next().await, ("refund".to_owned(), answer.body));
        assert_eq!(world.gateway.charges(charge.payment).len(), 1);
    }
    eventually("both charges to be recognized", async || {
        let known = worker.count(r#"paybus_commands_duplicate_total{variant="http"}"#).await;
        if known == 2 { Ok(()) } else { Err(known) }
    })
    .await;
    assert_eq!(world.gateway.calls().len(), 4, "two charges and two refunds");
    world.check_books().await;
}

/// Such a body is not read, so only the headers can identify the command.
#[tokio::test]
async fn a_command_whose_body_is_too_large_to_be_read_is_answered_by_its_headers() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let mut replies = Replies::of(&world).await;
    let charge = Command::charge("http", "120.00", "USD").reply_to(&replies.queue, "call-1");
    let large = in_binary(&charge, "cloudEvents:").raw(vec![b' '; 2 * 1024 * 1024]);
    let answer = world.run(&large).await;
    assert_eq!((answer.kind(), answer.code()), ("command.rejected", "too_large"), "{}", answer.line());
    assert!(answer.message().contains("2097152"), "{}", answer.line());
    assert_eq!(replies.next().await, ("call-1".to_owned(), answer.body));
    assert!(world.gateway.calls().is_empty());
    world.check_books().await;
}

/// Charges that are wrong in binary mode, or in both modes at once, with their codes and what the message names.
fn wrong() -> Vec<(Command, &'static str, &'static str)> {
    let charge = || Command::charge("http", "120.00", "USD");
    let binary = || in_binary(&charge(), "cloudEvents:");
    let header = |name: &str, value: AMQPValue| with_header(&binary(), name, value);
    let structured = || {
        let charge = charge();
        let properties = BasicProperties::default().with_content_type("application/cloudevents+json".into());
        charge.properties(properties)
    };
    let table = || AMQPValue::FieldTable(FieldTable::default());
    vec![
        (with_content_type(&binary(), "text/xml"), "invalid_envelope", "datacontenttype"),
        (with_content_type(&binary(), "application/cloudevents-batch+json"), "invalid_envelope", "datacontenttype"),
        (binary().raw("total=120.00"), "invalid_data", "data"),
        (binary().raw(""), "invalid_data", "data"),
        (binary().raw("[]"), "invalid_data", "data"),
        (binary().raw(b"{\"variant\": \"\xff\"}".to_vec()), "invalid_encoding", "UTF-8"),
        (header("cloudEvents:expirytime", table()), "invalid_envelope", "expirytime"),
        (header("cloudEvents:correlationid", AMQPValue::LongInt(7)), "invalid_envelope", "correlationid"),
        (header("cloudEvents:specversion", text("0.3")), "invalid_envelope", "specversion"),
        (header("cloudEvents_specversion", text("0.3")), "invalid_envelope", "specversion: is given twice"),
        (header("cloudEvents:data", text("{}")), "invalid_envelope", "data"),
        // Both modes at once: they differ, or it is unclear which one counts.
        (with_header(&structured(), "cloudEvents:type", text("payment.refund")), "invalid_envelope", "type: differs"),
        (with_header(&structured(), "cloudEvents:id", text("another")), "invalid_envelope", "id: differs"),
        (enveloped(&binary()), "invalid_envelope", "specversion"),
    ]
}

/// The body is the whole envelope, although the headers are the attributes.
fn enveloped(binary: &Command) -> Command {
    let envelope = Command { body: None, ..binary.clone() }.bytes();
    binary.clone().raw(envelope)
}

#[tokio::test]
async fn what_is_wrong_in_binary_mode_is_answered_where_it_asked() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let mut replies = Replies::of(&world).await;
    for (number, (command, code, named)) in wrong().into_iter().enumerate() {
        let id = number.to_string();
        let command = command.reply_to(&replies.queue, &id);
        let answer = world.run(&command).await;
        assert_eq!((answer.kind(), answer.code()), ("command.rejected", code), "{number}: {}", answer.line());
        assert!(answer.message().contains(named), "{number}: {named:?} should be named: {}", answer.line());
        assert_eq!(replies.next().await, (id, answer.body));
    }
    // If both modes agree, it is one command.
    let charge = Command::charge("http", "120.00", "USD");
    let copy = with_header(&charge, "cloudEvents:id", text(&charge.id));
    assert_eq!(world.run(&copy).await.status(), "confirmed");
    assert_eq!(world.gateway.calls().len(), 1);
    world.check_books().await;
}
