//! Messages that lapin cannot parse: they stop neither the worker nor the command line, and end as dead letters.

use serde_json::Value;

use crate::support::raw_publisher::{
    CORRELATION_ID, EXPIRATION, HEADERS, MESSAGE_ID, RawPublisher, entry, long, nested, properties, short,
};
use crate::support::{Command, Expected, World};

/// A correct command.
fn good() -> Command {
    Command::charge("http", "5.00", "USD")
}

/// Runs a command that must succeed, and returns its lines of JSON.
async fn json_of(world: &World, arguments: &[&str]) -> Vec<Value> {
    let output = world.paybus(arguments).await;
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The code and the reason of every dead letter.
fn reasons(letters: &[Value]) -> Vec<(&str, &str)> {
    letters.iter().map(|letter| (letter["code"].as_str().unwrap(), letter["reason"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn what_lapin_cannot_read_is_dead_lettered_and_blocks_nothing() {
    let world = World::new().await;
    let worker = world.worker().await;
    let mut raw = RawPublisher::connect(&world.bus.url).await;
    let exchange = world.bus.queue("commands");
    let key: &[u8] = b"http.payment.create";
    let headers = |table: Vec<u8>| properties(&[(HEADERS, table)]);
    // 8,033 bytes, which once exhausted the stack of lapin's thread.
    let deep = nested(1_147);
    assert_eq!(deep.len(), 8_033);
    let latin = short(b"caf\xe9");
    let bad = [
        (key, headers(deep), "invalid_envelope", "headers: are nested deeper than 32 levels"),
        (key, properties(&[(CORRELATION_ID, latin.clone())]), "invalid_encoding", "correlation_id: is not UTF-8"),
        (key, properties(&[(MESSAGE_ID, latin)]), "invalid_encoding", "message_id: is not UTF-8"),
        (key, headers(long(&entry(b"caf\xe9", b'V', b""))), "invalid_encoding", "headers: a name is not UTF-8"),
        // It gets no further than the queue for unroutable commands.
        (&b"http.payment.creat\xe9"[..], properties(&[]), "invalid_encoding", "routing_key: is not UTF-8"),
    ];
    let mut sent = Vec::new();
    for (key, properties, ..) in &bad {
        let command = good();
        raw.publish(&exchange, key, properties, &command.bytes()).await;
        sent.push(command);
        assert_eq!(world.run(&good()).await.status(), "confirmed");
        assert_eq!(worker.get("/readyz").await.map(|(status, _)| status), Ok(200));
    }
    world.are_dead(5).await;
    assert!(worker.exited().is_none());
    assert!(!worker.log().contains("lost the connection to the broker"), "{}", worker.log());
    for command in &sent {
        assert!(world.gateway.calls_of(command.payment).is_empty(), "it must not be carried out");
    }

    let letters = json_of(&world, &["dead", "list", "--json"]).await;
    let mut found = reasons(&letters);
    let mut expected: Vec<_> = bad.iter().map(|(.., code, reason)| (*code, *reason)).collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
    world.check_books_but(Expected { dead: 5, ..Expected::default() }).await;
    let bodies: Vec<Vec<u8>> = world.bus.take_all("dead").await.into_iter().map(|(_, body)| body).collect();
    assert!(sent.iter().all(|command| bodies.contains(&command.bytes())), "the bodies are unchanged");
}

/// In total more than a worker's memory, if it read them.
#[tokio::test]
async fn bodies_that_are_too_large_take_no_memory_and_stay_whole() {
    const LARGE: u32 = 20;
    let world = World::new().await;
    let mut raw = RawPublisher::connect(&world.bus.url).await;
    let body = vec![b'x'; 15 * 1024 * 1024];
    for _ in 0..LARGE {
        raw.publish(&world.bus.queue("commands"), b"http.payment.create", &properties(&[]), &body).await;
    }
    let worker = world.worker().await;
    assert_eq!(world.run(&good()).await.status(), "confirmed");
    world.are_dead(LARGE).await;
    assert!(worker.exited().is_none());
    let peak = worker.peak_memory() / (1024 * 1024);
    assert!(peak < 128, "the worker held {peak} MiB");

    let letters = json_of(&world, &["dead", "list", "--json"]).await;
    assert_eq!(letters.len(), LARGE as usize);
    for letter in &letters {
        assert_eq!((&letter["code"], &letter["size_bytes"]), (&Value::from("too_large"), &Value::from(body.len())));
    }
    let output = world.paybus(&["dead", "replay", "--yes", "--who", "a test"]).await;
    assert!(!output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("too large to read"), "{output:?}");
    world.are_dead(LARGE).await;
    let some = ["dead", "drop", "--json", "--filter", "code=too_large", "--limit", "10", "--yes", "--who", "a test"];
    assert_eq!(json_of(&world, &some).await.len(), 10);
    world.are_dead(LARGE - 10).await;
    let whole = world.bus.take_all("dead").await;
    assert!(whole.len() == 10 && whole.iter().all(|(_, kept)| *kept == body), "{} letters are left", whole.len());
    world.check_books().await;
}

/// No worker has seen these: the broker itself dead-lettered them, with everything that lapin cannot read.
#[tokio::test]
async fn unread_dead_letters_are_listed_and_sent_again() {
    let world = World::new().await;
    let mut raw = RawPublisher::connect(&world.bus.url).await;
    let exchange = world.bus.queue("commands");
    let key = b"http.payment.create";
    let at_once = || (EXPIRATION, short(b"1"));
    let commands = [good(), good(), good()];
    // As large as a frame may be: the headers that the broker adds when it expires make it larger.
    let around = 8 + 12 + 2 + long(&entry(b"a", b'S', &long(b""))).len() + short(b"1").len();
    let text = vec![b'x'; raw.frame_max() - around];
    let all = [
        properties(&[(HEADERS, nested(1_147)), at_once()]),
        properties(&[(CORRELATION_ID, short(b"caf\xe9")), at_once()]),
        properties(&[(HEADERS, long(&entry(b"a", b'S', &long(&text)))), at_once()]),
    ];
    for (command, properties) in commands.iter().zip(&all) {
        raw.publish(&exchange, key, properties, &command.bytes()).await;
    }
    world.are_dead(3).await;

    let letters = json_of(&world, &["dead", "list", "--json"]).await;
    let mut found = reasons(&letters);
    found.sort_unstable();
    let expected = [
        ("expired", "correlation_id: is not UTF-8"),
        ("expired", "headers: are nested deeper than 32 levels"),
        // The broker's own headers are lost, too.
        ("invalid_envelope", "properties: do not fit into one frame"),
    ];
    assert_eq!(found, expected);
    // What was listed returns to the queue a moment later.
    world.are_dead(3).await;
    let from_queue = format!("queue={}", world.bus.queue("commands.http"));
    assert_eq!(json_of(&world, &["dead", "list", "--json", "--filter", &from_queue]).await.len(), 2);

    let _worker = world.worker().await;
    let replayed = json_of(&world, &["dead", "replay", "--json", "--yes", "--who", "a test"]).await;
    assert_eq!(replayed.len(), 3);
    for command in &commands {
        assert_eq!(world.final_event(command).await.status(), "confirmed");
        assert_eq!(world.gateway.calls_of(command.payment).len(), 1);
    }
    world.check_books().await;
}
