//! The table of tokens in `docs/dummy.md`: each row is sent to a worker, and the events must be those of the table.

use futures_util::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Command, World, eventually};

/// An event as the table names it: its routing key without the variant, and its code or reason.
type EmittedEvent = (String, String);

/// A row of the table.
#[derive(Debug)]
struct Row {
    process: Value,
    /// The commands by type and data.
    commands: Vec<(String, Value)>,
    /// The events of each of them.
    events: Vec<Vec<EmittedEvent>>,
    /// Fields of the last event.
    last: Vec<(String, String)>,
}

impl Row {
    fn read(line: &str) -> Row {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [token, _, commands, events, last] = cells.as_slice() else { panic!("{line}") };
        let token = token.trim_matches('`');
        let row = Row {
            process: serde_json::from_str(token).unwrap_or_else(|_| json!({"token": token})),
            commands: commands.split(" / ").map(command).collect(),
            events: events.split(" / ").map(|part| part.split("; ").map(event).collect()).collect(),
            last: last.split("; ").map(member).collect(),
        };
        assert_eq!(row.commands.len(), row.events.len(), "{line}");
        row
    }
}

fn command(text: &str) -> (String, Value) {
    let text = text.trim_matches('`');
    let (kind, data) = text.split_once(' ').unwrap_or((text, "{}"));
    (kind.to_owned(), serde_json::from_str(data).unwrap())
}

fn event(text: &str) -> EmittedEvent {
    let (kind, code) = text.split_once(' ').unwrap_or((text, ""));
    (kind.trim_matches('`').to_owned(), code.to_owned())
}

fn member(text: &str) -> (String, String) {
    let parts: Vec<&str> = text.split('`').collect();
    (parts[1].to_owned(), parts[3].to_owned())
}

fn rows() -> Vec<Row> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/dummy.md");
    let page = std::fs::read_to_string(path).expect("docs/dummy.md");
    let table = page.lines().skip_while(|line| !line.starts_with("| token |")).skip(2);
    table.take_while(|line| line.starts_with('|')).map(Row::read).collect()
}

/// The events of a payment, without updates that answer no command.
fn story(world: &World, payment: Uuid) -> Vec<EmittedEvent> {
    let events = world.events_of(payment).into_iter().filter(|it| it.is_final() || it.kind() != "payment.updated");
    let behind_the_variant = |key: &str| key.split_once('.').map(|(_, rest)| rest.to_owned()).unwrap_or_default();
    events.map(|it| (behind_the_variant(&it.routing_key), format!("{}{}", it.code(), it.reason()))).collect()
}

/// Sends a row's commands one after the other; returns the payment and the expected events.
async fn play(world: &World, row: &Row) -> (Uuid, Vec<EmittedEvent>) {
    let create = Command::create("default", "120.00", "USD").with("process", row.process.clone());
    let mut expected = vec![("payment.created".to_owned(), String::new())];
    for ((kind, data), events) in row.commands.iter().zip(&row.events) {
        let command = match kind.as_str() {
            "payment.create" => {
                let fields = data.as_object().unwrap().iter();
                fields.fold(create.clone(), |create, (name, value)| create.with(name, value.clone()))
            }
            "payment.resolve" | "payment.retry" | "payment.withdraw" => {
                create.then(kind, data.clone()).with("operation", json!(create.operation_id())).user(&world.bus.user())
            }
            _ => create.then(kind, data.clone()),
        };
        world.publish(&command).await;
        expected.extend(events.iter().cloned());
        eventually(&format!("{} events of {}", expected.len(), row.process), async || {
            let story = story(world, create.payment);
            if story.len() >= expected.len() { Ok(()) } else { Err(format!("{story:?}")) }
        })
        .await;
    }
    (create.payment, expected)
}

#[tokio::test]
async fn every_token_plays_what_its_row_says() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let rows = rows();
    assert!(rows.len() >= 28, "{} rows were read", rows.len());
    let played = join_all(rows.iter().map(|row| play(&world, row))).await;
    world.check_books().await;
    for (row, (payment, expected)) in rows.iter().zip(played) {
        assert_eq!(story(&world, payment), expected, "{}", row.process);
        let events = world.events_of(payment);
        let data = events.last().unwrap().data();
        for (name, value) in &row.last {
            let shown = data["payment"].get(name).unwrap_or(&data[name.as_str()]);
            let shown = shown.as_str().map_or_else(|| shown.to_string(), str::to_owned);
            assert_eq!((name, &shown), (name, value), "{}", row.process);
        }
    }
}

/// With `seconds`: what is not due yet has not happened, and happens by itself later.
#[tokio::test]
async fn seconds_move_the_result() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let process = |token: &str, seconds: u32| json!({"token": token, "seconds": seconds});
    let soon = Command::charge("default", "120.00", "USD").with("process", process("tok_pending_success", 1));
    let much_later = Command::charge("default", "120.00", "USD").with("process", process("tok_dispute", 3_600));
    world.run(&much_later).await;
    assert_eq!(world.run(&much_later.then("payment.sync", json!({}))).await.kind(), "command.succeeded");
    world.publish(&soon).await;
    world.event_of(&soon, "command.delayed").await;
    let early = world.run(&soon.then("payment.sync", json!({}))).await;
    assert_eq!(early.kind(), "command.succeeded", "{}", early.line());
    assert_eq!(world.final_event(&soon).await.status(), "confirmed");
    world.check_books().await;
}
