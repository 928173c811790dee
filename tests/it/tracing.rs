//! The spans of a command, as a collector gets them; and the trace context, with and without a collector.

use std::time::Duration;

use serde_json::json;

use crate::support::wait::within;
use crate::support::webhook::named;
use crate::support::{Behaviour, Collector, Command, Setup, Span, Webhook, WorkerSetup, World, eventually};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PUBLISHER: &str = "00f067aa0ba902b7";
const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const PRODUCER: i32 = 4;
const CONSUMER: i32 = 5;

async fn world(collector: &Collector) -> World {
    Setup::new().set("tracing.endpoint", &collector.url()).build().await
}

/// The spans of a trace, once this many of a kind have come.
async fn spans(collector: &Collector, trace: &str, kind: i32, count: usize) -> Vec<Span> {
    within(Duration::from_secs(15), "the spans of a trace", async || {
        let spans = collector.of_trace(trace);
        let here = spans.iter().filter(|span| span.kind == kind).count();
        if here >= count { Ok(spans) } else { Err(format!("{here} of {count}: {:?}", collector.spans())) }
    })
    .await
}

/// A charge that belongs to a span of its publisher.
fn traced(total: &str, trace: &str, flags: &str) -> Command {
    let context = format!("00-{trace}-{PUBLISHER}-{flags}");
    Command::charge("http", total, "EUR").attribute("traceparent", json!(context))
}

fn of_kind(spans: &[Span], kind: i32) -> Vec<&Span> {
    spans.iter().filter(|span| span.kind == kind).collect()
}

fn trace_of(traceparent: &str) -> &str {
    traceparent.split('-').nth(1).expect("a trace id")
}

fn span_of(traceparent: &str) -> &str {
    traceparent.split('-').nth(2).expect("a span id")
}

#[tokio::test]
async fn one_trace_leads_from_the_publisher_through_the_gateway_into_the_events() {
    let collector = Collector::start().await;
    let world = world(&collector).await;
    let worker = world.worker().await;
    let charge = traced("120.00", TRACE, "01")
        .attribute("correlationid", json!("order-7"))
        .attribute("tracestate", json!("shop=1"));
    world.gateway.plan(charge.payment, vec![Behaviour::Status(503, None)]);
    world.run(&charge).await;
    let events = world.events_of(charge.payment);
    worker.drain().await;

    let spans = spans(&collector, TRACE, PRODUCER, events.len()).await;
    let [command] = of_kind(&spans, CONSUMER)[..] else { panic!("{spans:?}") };
    assert_eq!(command.parent, PUBLISHER);
    assert!(command.name.starts_with("process ") && command.name.ends_with("commands.http"), "{}", command.name);
    for (name, value) in [
        ("messaging.system", "rabbitmq"),
        ("messaging.operation.type", "process"),
        ("messaging.message.id", &charge.id),
        ("messaging.message.conversation_id", "order-7"),
        ("messaging.rabbitmq.destination.routing_key", "http.payment.create"),
        ("paybus.payment.id", &charge.payment.to_string()),
        ("paybus.operation.id", &charge.operation_id().to_string()),
        ("paybus.command.type", "payment.create"),
        ("paybus.command.source", &charge.source),
        ("paybus.variant", "http"),
        ("paybus.answer", "succeeded"),
    ] {
        assert_eq!(command.attribute(name), value, "{name} of {command:?}");
    }
    assert_eq!(command.events, ["stored", "events out"]);
    assert_eq!(command.resource["service.name"], "paybus");

    // Two attempts with one request each: the first one failed and gives the reason.
    let requests = of_kind(&spans, CLIENT);
    let statuses: Vec<&str> = requests.iter().map(|span| span.attribute("http.response.status_code")).collect();
    assert_eq!(statuses, ["503", "200"]);
    for (number, request) in requests.iter().enumerate() {
        let attempt = spans.iter().find(|span| span.id == request.parent).expect("its attempt");
        assert_eq!((attempt.name.as_str(), attempt.parent.as_str()), ("process http", command.id.as_str()));
        assert_eq!(attempt.attribute("paybus.attempt"), (number + 1).to_string());
        assert_eq!(attempt.attribute("paybus.operation.id"), charge.operation_id().to_string());
        assert_eq!(request.name, "POST");
        assert_eq!(request.attribute("url.full"), format!("{}/process", world.gateway.url()));
        assert_eq!((attempt.is_error, request.is_error), (number == 0, number == 0));
    }
    assert_eq!(requests[0].attribute("error.type"), "503");
    let calls = world.gateway.calls_of(charge.payment);
    let contexts: Vec<&str> = calls.iter().map(|call| call.headers["traceparent"].to_str().unwrap()).collect();
    assert_eq!(contexts.iter().map(|text| span_of(text)).collect::<Vec<_>>(), [&requests[0].id, &requests[1].id]);
    assert!(contexts.iter().all(|text| trace_of(text) == TRACE) && calls[0].headers["tracestate"] == "shop=1");

    for event in &events {
        let context = event.body["traceparent"].as_str().expect("a context");
        assert_eq!((trace_of(context), span_of(context)), (TRACE, command.id.as_str()));
        assert_eq!(event.body["tracestate"], "shop=1");
        let sent = spans.iter().find(|span| span.attribute("messaging.message.id") == event.id()).expect("its span");
        assert_eq!((sent.kind, &sent.parent), (PRODUCER, &command.id));
        assert!(sent.ended <= command.ended, "a command ends when its events are confirmed");
    }
    let secret = spans.iter().any(|span| format!("{span:?}").contains("Bearer"));
    assert!(!secret, "{spans:?}");
    world.check_books().await;
}

/// A command without a trace begins one, which the worker that takes over continues.
#[tokio::test]
async fn a_takeover_goes_on_with_the_trace_of_the_worker_that_was_lost() {
    let collector = Collector::start().await;
    let world = world(&collector).await;
    let charge = Command::charge("http", "10.00", "EUR");
    let lost = world.spawn_worker(WorkerSetup::default().dies_at(&format!("called:{}", charge.payment)));
    world.publish(&charge).await;
    lost.wait().await;
    let worker = world.worker().await;
    let answer = world.final_event(&charge).await;
    worker.drain().await;
    let trace = trace_of(answer.body["traceparent"].as_str().expect("a context")).to_owned();
    // The lost worker's spans are lost with it; those of its successor name them as their parents.
    let spans = spans(&collector, &trace, CONSUMER, 1).await;
    for event in world.events_of(charge.payment) {
        assert_eq!(trace_of(event.body["traceparent"].as_str().expect("a context")), trace);
    }
    for call in world.gateway.calls_of(charge.payment) {
        assert_eq!(trace_of(call.headers["traceparent"].to_str().unwrap()), trace);
    }
    let [command] = of_kind(&spans, CONSUMER)[..] else { panic!("{spans:?}") };
    assert_eq!(command.attribute("paybus.redelivered"), "true");
    world.check_books().await;
}

/// What a webhook reports is carried out in the trace that begins where the webhook was received, also in a separate
/// process.
#[tokio::test]
async fn a_webhook_is_traced_into_its_notification() {
    let collector = Collector::start().await;
    let secret = "whsec_1";
    let setup = Setup::new().set("tracing.endpoint", &collector.url()).set("variants.http.webhook_secret", secret);
    let world = setup.build().await;
    let receiver = world.worker_with(WorkerSetup::default().only_webhooks()).await;
    let worker = world.worker().await;
    let charge = Command::charge("http", "120.00", "USD");
    world.run(&charge).await;
    world.gateway.move_by_hand(charge.payment, "refund", "20.00", "USD");
    let news = json!({"id": "n-1", "payment_id": charge.payment, "type": "news"});
    assert_eq!(Webhook::signed("http", secret, &news).post(&receiver).await.0, 200);
    assert_eq!(Webhook::signed("http", "another", &news).post(&receiver).await.0, 400);
    let answer = world.final_event(&named("http", charge.payment, "n-1")).await;
    receiver.drain().await;
    worker.drain().await;

    let trace = trace_of(answer.body["traceparent"].as_str().expect("a context")).to_owned();
    spans(&collector, &trace, CONSUMER, 1).await;
    let spans = spans(&collector, &trace, SERVER, 1).await;
    let [received] = of_kind(&spans, SERVER)[..] else { panic!("{spans:?}") };
    let [command] = of_kind(&spans, CONSUMER)[..] else { panic!("{spans:?}") };
    assert_eq!((received.name.as_str(), received.parent.as_str()), ("POST /webhooks/{variant}", ""));
    assert_eq!((received.attribute("paybus.variant"), received.is_error), ("http", false));
    assert_eq!((&command.parent, command.attribute("paybus.command.type")), (&received.id, "payment.notification"));
    let received = collector.spans().iter().filter(|span| span.kind == SERVER).count();
    assert_eq!(received, 1, "a webhook that is not genuine has no span");
    world.check_books().await;
}

/// What waits for its due time continues in its command's trace.
#[tokio::test]
async fn a_delayed_attempt_belongs_to_the_same_trace() {
    let collector = Collector::start().await;
    let world = world(&collector).await;
    let worker = world.worker().await;
    let charge = traced("10.00", TRACE, "01");
    world.gateway.plan(charge.payment, vec![Behaviour::Status(503, None); 3]);
    world.run(&charge).await;
    worker.drain().await;
    let spans = spans(&collector, TRACE, CLIENT, 4).await;
    let resumed = spans.iter().find(|span| span.name == "resume operation").expect("the later attempt");
    let [command] = of_kind(&spans, CONSUMER)[..] else { panic!("{spans:?}") };
    assert_eq!(resumed.parent, command.id);
    assert_eq!(resumed.attribute("paybus.operation.id"), charge.operation_id().to_string());
    assert!(spans.iter().any(|span| span.parent == resumed.id && span.attribute("paybus.attempt") == "4"), "{spans:?}");
    world.check_books().await;
}

/// Whoever began a trace decides whether it is recorded; for traces that begin here, a setting gives the share.
#[tokio::test]
async fn what_is_not_sampled_is_not_exported_and_says_so_further_on() {
    let collector = Collector::start().await;
    let world = Setup::new().set("tracing.endpoint", &collector.url()).set("tracing.sample", "0.0").build().await;
    let worker = world.worker().await;
    let sampled = traced("10.00", TRACE, "01");
    let other = "0af7651916cd43dd8448eb211c80319c";
    let unsampled = traced("10.00", other, "00");
    let begun = Command::charge("http", "10.00", "EUR");
    for command in [&unsampled, &begun, &sampled] {
        world.run(command).await;
    }
    for (command, flags) in [(&unsampled, "00"), (&begun, "00"), (&sampled, "01")] {
        let call = &world.gateway.calls_of(command.payment)[0];
        let context = call.headers["traceparent"].to_str().unwrap();
        assert!(context.ends_with(&format!("-{flags}")), "{context}");
    }
    worker.drain().await;
    spans(&collector, TRACE, CONSUMER, 1).await;
    assert!(collector.spans().iter().all(|span| span.trace == TRACE), "{:?}", collector.spans());
    world.check_books().await;
}

/// Payments do not wait for a collector, its failure is logged once, and it is used again when it is back.
#[tokio::test]
async fn an_unavailable_collector_blocks_nothing() {
    let mut collector = Collector::absent();
    let world = world(&collector).await;
    let worker = world
        .worker_with(WorkerSetup::default().variable("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer s3cret"))
        .await;
    let logged = |text: &str| worker.log().matches(text).count();
    for _ in 0..3 {
        world.run(&Command::charge("http", "10.00", "EUR")).await;
    }
    eventually("the failure to be logged", async || {
        if logged("cannot export spans to the collector") == 1 { Ok(()) } else { Err("nothing") }
    })
    .await;
    let dropped = worker.count(r#"paybus_spans_dropped_total{reason="not_taken"}"#).await;
    assert!(dropped > 0, "dropped spans are counted");
    collector.open().await;
    within(Duration::from_secs(20), "spans after the collector is back", async || {
        world.run(&Command::charge("http", "10.00", "EUR")).await;
        if collector.spans().is_empty() { Err("none") } else { Ok(()) }
    })
    .await;
    eventually("the recovery to be logged", async || {
        if logged("the collector accepts spans again") == 1 { Ok(()) } else { Err("nothing") }
    })
    .await;
    assert_eq!(logged("cannot export spans to the collector"), 1, "once, not at every export");
    assert_eq!(collector.header("authorization").as_deref(), Some("Bearer s3cret"));
    assert!(!worker.log().contains("s3cret"));
    // A collector that is unreachable again does not delay the shutdown either.
    drop(collector);
    world.run(&Command::charge("http", "10.00", "EUR")).await;
    worker.drain().await;
    world.check_books().await;
}

/// A log line about a command names its trace, so that each leads to the other.
#[tokio::test]
async fn log_lines_name_the_trace() {
    let collector = Collector::start().await;
    let world = world(&collector).await;
    let worker = world.worker().await;
    let charge = traced("10.00", TRACE, "01");
    // A charge of more than was requested also logs an alert.
    world.gateway.plan(charge.payment, vec![Behaviour::WrongAmount("12.00".to_owned())]);
    world.run(&charge).await;
    worker.drain().await;
    let spans = spans(&collector, TRACE, CONSUMER, 1).await;
    let log = worker.log();
    let mut parsed = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let line = parsed.rfind(|line| line["payment"] == charge.payment.to_string()).expect(&log);
    assert_eq!(line["span"]["trace_id"], TRACE, "{line}");
    assert_eq!(line["span"]["span_id"], of_kind(&spans, CONSUMER)[0].id, "{line}");
}

/// Without a collector no trace is begun, and a received context is passed on unchanged; a malformed one is dropped.
#[tokio::test]
async fn without_export_a_context_goes_on_as_it_came() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let context = format!("00-{TRACE}-{PUBLISHER}-01");
    let given = Command::charge("http", "10.00", "EUR").attribute("traceparent", json!(context));
    let malformed = Command::charge("http", "10.00", "EUR")
        .attribute("traceparent", json!("00-1"))
        .attribute("tracestate", json!("shop=1"));
    for command in [&given, &malformed] {
        world.run(command).await;
    }
    assert_eq!(world.gateway.calls_of(given.payment)[0].headers["traceparent"], context);
    let call = &world.gateway.calls_of(malformed.payment)[0];
    assert!(!call.headers.contains_key("traceparent") && !call.headers.contains_key("tracestate"));
    for event in world.events_of(malformed.payment) {
        assert_eq!((event.body.get("traceparent"), event.body.get("tracestate")), (None, None));
    }
    world.check_books().await;
}
