//! The messages themselves: envelopes, replies, traces, expiry, and the payment as events show it.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use serde_json::{Value, json};

use crate::support::replies::Replies;
use crate::support::world::amount;
use crate::support::{Behaviour, Command, Setup, World, eventually};

#[tokio::test]
async fn every_event_is_a_cloud_event() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let charge = Command::charge("http", "120.00", "USD");
    world.run(&charge).await;
    let rejected = charge.then("payment.release", json!({}));
    world.run(&rejected).await;
    for event in world.events_of(charge.payment) {
        let properties = &event.properties;
        let content_type = properties.content_type().as_ref().map(ToString::to_string);
        assert_eq!(content_type.as_deref(), Some("application/cloudevents+json; charset=utf-8"));
        assert_eq!(*properties.delivery_mode(), Some(2), "persistent");
        assert_eq!(properties.message_id().as_ref().map(ToString::to_string).as_deref(), Some(event.id()));
        assert_eq!(event.body["specversion"], "1.0");
        assert_eq!(event.body["source"], "paybus");
        assert_eq!(event.subject(), charge.payment.to_string());
        assert_eq!(event.body["partitionkey"], charge.payment.to_string());
        assert!(event.body["time"].as_str().unwrap().ends_with('Z'), "{}", event.body["time"]);
        let of_payment = event.kind().starts_with("payment.");
        assert_eq!(event.body["sequencetype"] == "Integer", of_payment);
        let cause = if of_payment { &charge } else { &rejected };
        assert_eq!(event.body["causationid"], cause.id);
        let command = &event.data()["command"];
        assert_eq!((&command["source"], &command["type"]), (&json!(cause.source), &json!(cause.kind)));
    }
    world.check_books().await;
}

#[tokio::test]
async fn the_payment_in_events_is_the_payment_in_the_database() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let data = json!({
        "variant": "http", "description": "Book purchase \u{1f4d6}", "total": "120.00", "tax": "20.00",
        "currency": "USD", "delivery": "10.00", "billing_first_name": "Sherlock", "billing_last_name": "Holmes",
        "billing_address_1": "221B Baker Street", "billing_address_2": "", "billing_city": "London",
        "billing_postcode": "NW1 6XE", "billing_country_code": "GB", "billing_country_area": "Greater London",
        "billing_email": "s.holmes@example.org", "billing_phone": "+44 20 7224 3688",
        "customer_ip_address": "2001:db8::1", "capture": true, "process": {"token": "tok_1"},
    });
    let mut charge = Command::charge("http", "120.00", "USD");
    charge.data = data.clone();
    let said = json!({"message": "thank you", "extra_data": {"risk": {"score": 7}}, "fraud_status": "accept"});
    world.gateway.plan(charge.payment, vec![Behaviour::Say(said)]);
    let answer = world.run(&charge).await;
    let row = world.payment_row(charge.payment).await;
    let published = answer.payment().as_object().unwrap();
    let texts = [
        "variant",
        "status",
        "fraud_status",
        "fraud_message",
        "transaction_id",
        "currency",
        "description",
        "message",
        "billing_first_name",
        "billing_last_name",
        "billing_address_1",
        "billing_address_2",
        "billing_city",
        "billing_postcode",
        "billing_country_code",
        "billing_country_area",
        "billing_email",
        "billing_phone",
    ];
    for name in texts {
        assert_eq!(published[name], row.get::<_, String>(name), "{name}");
        if let Some(given) = data.get(name) {
            assert_eq!(published[name], *given, "{name}");
        }
    }
    let sums = ["total", "delivery", "tax", "captured_amount", "authorized_amount", "refunded_amount"];
    for name in sums {
        assert_eq!(published[name], amount(&row, name, 2), "{name}");
    }
    assert_eq!(published["capturable_amount"], "0.00", "nothing is held");
    assert_eq!((&published["voided_amount"], &published["paid_in_full"]), (&json!("0.00"), &json!(true)));
    assert_eq!(published["metadata"], row.get::<_, Value>("metadata"));
    for name in ["created", "modified"] {
        let stored: jiff::Timestamp = row.get(name);
        assert_eq!(published[name], stored.to_string(), "{name}");
    }
    assert!(row.get::<_, jiff::Timestamp>("modified") > row.get("created"), "`modified` must be updated");
    assert_eq!(published["extra_data"], row.get::<_, Value>("extra_data"));
    assert_eq!(published["extra_data"]["risk"]["score"], 7);
    assert_eq!(published["id"], charge.payment.to_string());
    let address: std::net::IpAddr = row.get("customer_ip_address");
    assert_eq!(
        (published["customer_ip_address"].as_str(), address.to_string().as_str()),
        (Some("2001:db8::1"), "2001:db8::1")
    );
    assert_eq!(
        (published["message"].as_str(), published["fraud_status"].as_str()),
        (Some("thank you"), Some("accept"))
    );
    let more: Vec<&String> = published
        .keys()
        .filter(|name| !texts.contains(&name.as_str()) && !sums.contains(&name.as_str()))
        .filter(|name| !["id", "created", "modified", "extra_data", "customer_ip_address"].contains(&name.as_str()))
        .filter(|name| !["capturable_amount", "voided_amount", "paid_in_full", "metadata"].contains(&name.as_str()))
        .collect();
    assert!(more.is_empty(), "{more:?} are not checked by this test");
    world.check_books().await;
}

#[tokio::test]
async fn correlation_and_trace_go_through() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let charge = Command::charge("http", "120.00", "USD")
        .attribute("correlationid", json!("order-7"))
        .attribute("traceparent", json!(trace))
        .attribute("tracestate", json!("shop=1"));
    world.gateway.plan(charge.payment, vec![Behaviour::Status(503, None)]);
    world.run(&charge).await;
    let events = world.events_of(charge.payment);
    assert!(events.len() >= 2);
    for event in events {
        assert_eq!(event.body["correlationid"], "order-7");
        assert_eq!(event.body["traceparent"], trace);
        assert_eq!(event.body["tracestate"], "shop=1");
    }
    for call in world.gateway.calls_of(charge.payment) {
        let sent = call.headers["traceparent"].to_str().unwrap();
        assert_eq!(sent.split('-').nth(1), trace.split('-').nth(1), "the same trace");
    }
    world.check_books().await;
}

#[tokio::test]
async fn answers_go_to_reply_to_as_well() {
    let world = World::new().await;
    let worker = world.worker().await;
    let (_connection, channel) = world.bus.channel().await;
    let no_ack = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let direct = "amq.rabbitmq.reply-to";
    let mut replies =
        channel.basic_consume(direct.into(), "".into(), no_ack, FieldTable::default()).await.expect("direct replies");
    let charge = Command::charge("http", "120.00", "USD").reply_to(direct, "call-1");
    world.bus.publish_on(&channel, &charge).await;
    let reply = replies.next().await.unwrap().unwrap();
    let answer = world.final_event(&charge).await;
    assert_eq!(serde_json::from_slice::<Value>(&reply.data).unwrap(), answer.body);
    assert_eq!(reply.properties.correlation_id().as_ref().map(ToString::to_string).as_deref(), Some("call-1"));

    let queue = format!("reply.{}", world.bus.prefix);
    let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.as_str().into(), exclusive, FieldTable::default()).await.expect("a queue");
    let mut replies =
        channel.basic_consume(queue.as_str().into(), "".into(), no_ack, FieldTable::default()).await.unwrap();
    let bad = Command::charge("http", "-1", "USD").reply_to(&queue, "call-2");
    let rejected = world.run(&bad).await;
    let reply = replies.next().await.unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&reply.data).unwrap(), rejected.body, "a rejection is an answer too");
    // A late duplicate changes nothing.
    world.publish(&bad).await;

    let gone = Command::charge("http", "5.00", "USD").reply_to("reply.nobody-is-there", "call-3");
    assert_eq!(world.run(&gone).await.status(), "confirmed");
    eventually("the reply to be dropped", async || {
        let counted = worker.count("paybus_replies_unroutable_total").await;
        if counted >= 1 { Ok(()) } else { Err(counted) }
    })
    .await;
    let recorded = eventually("the outcome of the reply to be recorded", async || {
        let sql =
            "SELECT s.reply FROM events e JOIN sent s USING (position) WHERE e.reply_to = 'reply.nobody-is-there'";
        world.query(sql, &[]).await.first().map(|row| row.get::<_, String>(0)).ok_or("nothing is recorded")
    })
    .await;
    assert_eq!(recorded, "unroutable");
    world.check_books().await;
}

/// More digits than a 64-bit number has, on the way to the gateway, from it, and through the database.
#[tokio::test]
async fn numbers_keep_all_their_digits() {
    const LONG: &str = "12345678901234567890.12345678901234567890";
    let world = World::new().await;
    let _worker = world.worker().await;
    let long: Value = serde_json::from_str(LONG).unwrap();
    let charge = Command::charge("http", "120.00", "USD").with("process", json!({"number": long}));
    world.gateway.plan(charge.payment, vec![Behaviour::Say(json!({"extra_data": {"number": long}}))]);
    let answer = world.run(&charge).await;
    let sent: Value = serde_json::from_slice(&world.gateway.calls()[0].body).unwrap();
    assert_eq!(sent["data"]["number"].to_string(), LONG);
    assert_eq!(answer.payment()["extra_data"]["number"].to_string(), LONG);
    // The same message is the same command, and the next command reads the payment from the database.
    world.publish(&charge).await;
    let refunded = world.run(&charge.then("payment.refund", json!({}))).await;
    assert_eq!(refunded.payment()["extra_data"]["number"].to_string(), LONG);
    assert!(world.log.filter(|event| event.code() == "id_reused").is_empty());
    world.check_books().await;
}

/// Whatever is wrong with a command, such as a malformed attribute, the answer still reaches its `reply_to`.
#[tokio::test]
async fn every_wrong_command_is_answered_at_its_reply_to() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let mut replies = Replies::of(&world).await;
    let charge = || Command::charge("http", "120.00", "USD").attribute("correlationid", json!("order-7"));
    let with = |name: &str, value: Value| charge().attribute(name, value);
    let wrong = [
        (with("expirytime", json!("tomorrow")), "invalid_envelope"),
        (with("expirytime", json!(1_795_348_800)), "invalid_envelope"),
        (with("correlationid", json!({"a": 1})), "invalid_envelope"),
        (with("correlationid", json!("x".repeat(256))), "invalid_envelope"),
        (with("correlationid", json!("a\u{0}b")), "invalid_encoding"),
        (with("traceparent", json!(7)), "invalid_envelope"),
        (with("tracestate", json!("x".repeat(513))), "invalid_envelope"),
        (with("specversion", json!("0.3")), "invalid_envelope"),
        (with("type", json!(7)), "invalid_envelope"),
        (with("datacontenttype", json!("text/xml")), "invalid_envelope"),
        (with("data", Value::Null), "invalid_data"),
        (charge().routed("http.payment.refund"), "routing_mismatch"),
        (charge().with("description", json!("x".repeat(1024 * 1024))), "too_large"),
        (charge().with("description", json!("4111 1111 1111 1111")), "card_number"),
    ];
    for (number, (command, code)) in wrong.into_iter().enumerate() {
        let id = format!("call-{number}");
        let answer = world.run(&command.reply_to(&replies.queue, &id)).await;
        assert_eq!((answer.kind(), answer.code()), ("command.rejected", code), "{number}: {}", answer.line());
        // Everything else that is valid is kept, unless the message may not be read at all.
        let is_kept = !answer.message().starts_with("correlationid") && !["too_large", "card_number"].contains(&code);
        assert_eq!(answer.body["correlationid"] == "order-7", is_kept, "{number}: {}", answer.body);
        assert_eq!(replies.next().await, (id, answer.body));
    }
    assert!(world.gateway.calls().is_empty());
    world.check_books().await;
}

#[tokio::test]
async fn a_command_is_not_sent_after_its_time() {
    let world = Setup::new().set("variants.http.retry.delayed", "1s,1s,1s,1s,1s,1s").build().await;
    let _worker = world.worker().await;
    let late = Command::charge("http", "120.00", "USD").attribute("expirytime", json!("2020-01-01T00:00:00Z"));
    let answer = world.run(&late).await;
    assert_eq!((answer.kind(), answer.code()), ("command.rejected", "expired"));
    assert!(world.gateway.calls().is_empty());

    let soon = |offset: Duration| {
        let time = jiff::Timestamp::now() + offset;
        json!(time.to_string())
    };
    let in_time = Command::charge("http", "120.00", "USD").attribute("expirytime", soon(Duration::from_secs(60)));
    assert_eq!(world.run(&in_time).await.status(), "confirmed");

    // Nothing was received so far: it may still expire.
    let mut world = world;
    world.gateway.stop().await;
    let unsent = Command::charge("http", "120.00", "USD").attribute("expirytime", soon(Duration::from_millis(700)));
    let answer = world.run(&unsent).await;
    assert_eq!((answer.kind(), answer.code()), ("command.rejected", "expired"));
    world.gateway.start_again().await;

    // It may have been received: it is completed, late or not.
    let sent = Command::charge("http", "120.00", "USD").attribute("expirytime", soon(Duration::from_millis(1_500)));
    world.gateway.plan(sent.payment, vec![Behaviour::Status(503, None); 6]);
    let answer = world.run(&sent).await;
    assert_eq!((answer.status(), answer.field("captured_amount")), ("confirmed", "120.00"));
    world.check_books().await;
}
