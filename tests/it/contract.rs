//! The published contract against the real worker: its examples, those of the documentation, and its codes.

use std::path::PathBuf;
use std::process::Command as Program;

use serde_json::{Value, json};
use uuid::Uuid;

use paybus::contract::{CommandExample, command_examples};
use paybus::payment::code::CODES;
use paybus::payment::command::CommandType;
use paybus::payment::event::EventType;

use crate::support::files::{read, root};
use crate::support::replies::Replies;
use crate::support::skip::{checks, skip};
use crate::support::{Behaviour, Command, Event, Setup, WorkerSetup, World, eventually};

/// Converts a message of a document to a command that tests publish.
fn command(message: &Value) -> Command {
    let text = |name: &str| message[name].as_str().unwrap_or_else(|| panic!("{name} of {message}")).to_owned();
    let subject = message["subject"].as_str();
    let payment = subject.map_or(Uuid::nil(), |subject| Uuid::parse_str(subject).expect("a payment's id"));
    let variant = message["data"]["variant"].as_str().unwrap_or("default");
    let mut command = Command::new(variant, &text("type"), payment, message["data"].clone());
    command.id = text("id");
    command.source = text("source");
    let known = ["type", "subject", "id", "source", "data", "specversion", "time"];
    let others = message.as_object().expect("an object").iter().filter(|(name, _)| !known.contains(&name.as_str()));
    command.attributes = others.map(|(name, value)| (name.clone(), value.clone())).collect();
    if subject.is_none() { command.attribute("subject", Value::Null) } else { command }
}

#[tokio::test]
async fn every_example_of_the_contract_is_carried_out() {
    let world = World::new().await;
    let _worker = world.worker().await;
    for CommandExample { kind, summary, answer, word, message } in command_examples() {
        let command = command(&message).user(&world.bus.user());
        if kind == CommandType::ResendEvents {
            check_resent(&world, command).await;
            continue;
        }
        if kind == CommandType::Status {
            check_status(&world, command, answer).await;
            continue;
        }
        if kind.is_about_variant() {
            check_pause(&world, command).await;
            continue;
        }
        let event = world.run(&command).await;
        let said = if event.code().is_empty() { event.status() } else { event.code() };
        assert_eq!((event.kind(), said), (answer.as_str(), word), "{kind}: {summary}: {}", event.line());
    }
    world.check_books().await;
}

/// It is answered only at its `reply_to`, with the answer of the command that it asks about.
async fn check_status(world: &World, command: Command, answer: EventType) {
    let asked = command.data["id"].clone();
    let mut replies = Replies::of(world).await;
    world.bus.publish(&[command.reply_to(&replies.queue, "status")]).await;
    let event = replies.next().await.1;
    assert_eq!((event["type"].as_str(), &event["data"]["command"]["id"]), (Some(answer.as_str()), &asked));
    assert_eq!(as_event(&event).wrong(), Vec::<String>::new());
}

/// It is answered only at its `reply_to`, with the pause as it is then.
async fn check_pause(world: &World, command: Command) {
    let is_pause = command.kind == CommandType::Pause.as_str();
    let mut replies = Replies::of(world).await;
    world.bus.publish(&[command.reply_to(&replies.queue, "pause")]).await;
    let event = replies.next().await.1;
    assert_eq!(event["data"]["pause"]["paused"], is_pause, "{event}");
    assert_eq!(as_event(&event).wrong(), Vec::<String>::new());
}

/// It is answered only at its `reply_to`, after the events.
async fn check_resent(world: &World, command: Command) {
    let stored: i64 = world.value("SELECT count(*) FROM events", &[]).await;
    let mut replies = Replies::of(world).await;
    let command = command.reply_to(&replies.queue, "all");
    world.bus.publish(std::slice::from_ref(&command)).await;
    for _ in 0..stored {
        assert_eq!(as_event(&replies.next().await.1).wrong(), Vec::<String>::new());
    }
    let answer = replies.next().await.1;
    assert_eq!((&answer["type"], &answer["data"]["page"]["events"]), (&json!("command.succeeded"), &json!(stored)));
    assert_eq!(as_event(&answer).wrong(), Vec::<String>::new());
}

/// Returns the blocks of a language in a page of documentation.
pub fn blocks(page: &str, language: &str) -> Vec<String> {
    let opening = format!("```{language}\n");
    let behind = page.split(&opening).skip(1);
    behind.map(|text| text.split("```").next().unwrap_or_default().to_owned()).collect()
}

/// Returns every page of documentation.
pub fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let skipped = ["target", "node_modules"].contains(&name) || name.starts_with('.');
            match path.is_dir() {
                true if !skipped => folders.push(path),
                false if name.ends_with(".md") => pages.push(path),
                _ => {}
            }
        }
    }
    pages
}

#[tokio::test]
async fn every_json_example_of_the_documentation_is_carried_out() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let mut published = 0;
    for page in pages() {
        for block in blocks(&read(&page), "json") {
            let message: Value =
                serde_json::from_str(&block).unwrap_or_else(|error| panic!("{page:?}: {error}\n{block}"));
            if message["source"] == "paybus" {
                let event = as_event(&message);
                assert_eq!(event.wrong(), Vec::<String>::new(), "{page:?}: {block}");
            } else if message.get("specversion").is_some() {
                let answer = world.run(&command(&message)).await;
                assert!(answer.code().is_empty(), "{page:?}: {}", answer.line());
                published += 1;
            }
        }
    }
    assert!(published >= 2, "{published}: the examples are not found any more");
    world.check_books().await;
}

/// Converts an event of the documentation to a received one.
fn as_event(message: &Value) -> Event {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut routing_key = format!("default.{}", text(&message["type"]));
    if message["type"] == "payment.status_changed" {
        routing_key = format!("{routing_key}.{}", text(&message["data"]["payment"]["status"]));
    }
    let (properties, at) = (lapin::BasicProperties::default(), std::time::Instant::now());
    Event { routing_key, properties, body: message.clone(), at }
}

/// Runs the README's own lines with another address and prefix.
#[tokio::test]
async fn the_python_of_the_readme_pays_and_listens() {
    let packages = root().join("target/python");
    let pika = "pika==1.3.2";
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"];
    let installed = Program::new("python3").args(pip).arg(&packages).arg(pika).output();
    if !packages.join("pika").exists() {
        return skip(&format!("pip does not give {pika}: {installed:?}"));
    }
    let world = World::new().await;
    let _worker = world.worker().await;
    let script = blocks(&read("README.md"), "python")
        .join("\n")
        .replace("amqp://guest:guest@127.0.0.1:5672/%2f", &world.bus.url);
    let script =
        script.replace("paybus.", &format!("{}.", world.bus.prefix)).replace("shop.payments", &world.bus.queue("shop"));
    let python = Program::new("python3")
        .env("PYTHONPATH", &packages)
        .args(["-u", "-c", &script])
        .stdout(std::process::Stdio::piped())
        .spawn();
    let mut python = python.expect("python3");
    let paid = world.event("the payment of the example", |event| event.status() == "confirmed").await;
    assert_eq!((paid.field("captured_amount"), paid.field("description")), ("120.00", "Book purchase"));
    // The example is subscribed from now on.
    eventually("its queue", async || if world.bus.exists("shop").await { Ok(()) } else { Err("it is not there") })
        .await;
    let another = Command::charge("default", "5.00", "USD");
    world.run(&another).await;
    let printed = tokio::task::spawn_blocking(move || {
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(python.stdout.take().expect("its output")));
        let printed = lines.find_map(|line| line.ok().filter(|line| line.contains("confirmed 5.00")));
        python.kill().and_then(|()| python.wait()).expect("python ends");
        printed
    });
    let printed = printed.await.expect("a line").expect("it prints the other payment");
    assert!(printed.contains(&another.payment.to_string()), "{printed}");
    world.bus.delete_queue(&world.bus.queue("shop")).await;
    world.check_books().await;
}

/// Checked with the AsyncAPI project's own parser, which reads every schema and every example too.
#[test]
fn the_asyncapi_document_is_valid() {
    checks(Program::new(root().join("scripts/check-asyncapi")).arg("contract/asyncapi.json").current_dir(root()));
}

/// A code that no integration test checks might never be used, or be used in place of another one.
#[test]
fn every_code_is_asked_for_by_a_test() {
    let sources: String = std::fs::read_dir(root().join("tests/it"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(read)
        .collect();
    let asked = |word: &str| sources.contains(&format!("\"{word}\""));
    let missing: Vec<&str> = CODES.iter().map(|entry| entry.code.as_str()).filter(|word| !asked(word)).collect();
    assert!(missing.is_empty(), "no test in tests/it asks for {missing:?}");
}

#[tokio::test]
async fn a_delay_says_what_the_gateway_did() {
    let world = Setup::new().set("variants.http.retry.immediate.attempts", "1").build().await;
    let _worker = world.worker().await;
    for (behaviour, reason) in [
        (Behaviour::Status(409, None), "conflict"),
        (Behaviour::Status(429, None), "rate_limited"),
        (Behaviour::Status(503, None), "gateway_error"),
        (Behaviour::Garbage, "invalid_answer"),
        (Behaviour::DropAfter, "invalid_answer"),
        (Behaviour::HangAfter, "timeout"),
    ] {
        let charge = Command::charge("http", "120.00", "USD");
        world.gateway.plan(charge.payment, vec![behaviour]);
        world.publish(&charge).await;
        assert_eq!(world.event_of(&charge, "command.delayed").await.reason(), reason);
        assert_eq!(world.final_event(&charge).await.status(), "confirmed");
    }
    world.check_books().await;
}

#[tokio::test]
async fn a_delay_says_that_calls_are_paused() {
    let world = Setup::new()
        .set("variants.http.breaker.failures", "1")
        .set("variants.http.breaker.open", "500ms")
        .set("variants.http.concurrency", "2")
        .set("variants.http.retry.immediate.attempts", "1")
        .set("variants.http.retry.delayed", "200ms,200ms,200ms,200ms,200ms,200ms")
        .build()
        .await;
    let _worker = world.worker().await;
    world.gateway.set_default(Some(Behaviour::Status(503, None)));
    let charges: Vec<Command> = (0..20).map(|_| Command::charge("http", "5.00", "USD")).collect();
    world.publish_all(&charges).await;
    // Those that were already prefetched when the breaker opened.
    world.event("a call that is held back", |event| event.reason() == "held").await;
    world.gateway.set_default(None);
    for charge in &charges {
        assert_eq!(world.final_event(charge).await.status(), "confirmed");
    }
    world.check_books().await;
}

#[tokio::test]
async fn a_delay_says_that_the_worker_was_lost() {
    // The key's window is shorter than a lease: nothing may be sent twice, only looked up.
    let world = Setup::new().set("variants.http.key_window", "1s").set("variants.http.timeout", "300ms").build().await;
    let charge = Command::charge("http", "120.00", "USD");
    let worker = world.worker_with(WorkerSetup::default().dies_at(&format!("called:{}@1", charge.payment))).await;
    world.publish(&charge).await;
    world.gateway.wait_for_calls(charge.payment, 1).await;
    eventually("the worker to die", async || worker.exited().ok_or("it lives")).await;
    let _worker = world.worker().await;
    assert_eq!(world.event_of(&charge, "command.delayed").await.reason(), "worker_lost");
    assert_eq!(world.final_event(&charge).await.status(), "confirmed");
    world.check_books().await;
}
