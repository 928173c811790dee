//! A consumer that missed events notices it by heartbeats, including the last events, and recovers over the bus.

use std::collections::BTreeMap;
use std::time::Duration;

use lapin::options::QueueBindOptions;
use lapin::types::FieldTable;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::support::bus::header;
use crate::support::{Command, Event, Setup, TIMEOUT, World};

const POSITION: &str = "paybus-position";

/// A heartbeat as received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Beat {
    from: i64,
    to: i64,
    events: i64,
    set_aside: i64,
}

/// A received page.
struct Page {
    /// The events, by position.
    events: BTreeMap<i64, String>,
    /// The answer.
    answer: Value,
}

impl Page {
    fn to(&self) -> i64 {
        number(&self.answer["to"])
    }
}

fn number(text: &Value) -> i64 {
    text.as_str().unwrap_or_else(|| panic!("{text}")).parse().expect("digits")
}

/// A subscriber to one variant that loses the messages which its test's network loses, and keeps the others by
/// position.
struct Shop<'a> {
    world: &'a World,
    variant: String,
    queue: String,
    replies: String,
    asked: usize,
    /// How many messages have arrived.
    taken: usize,
    beats: Vec<Beat>,
    seen: BTreeMap<i64, String>,
    /// Nothing is missing up to here.
    whole_to: i64,
}

impl<'a> Shop<'a> {
    async fn subscribe(world: &'a World, variant: &str) -> Shop<'a> {
        let queue = world.bus.queue(&format!("shop-{variant}"));
        let replies = format!("reply.{queue}");
        for name in [&queue, &replies] {
            world.bus.declare_queue(name).await;
        }
        let (connection, channel) = world.bus.channel().await;
        for exchange in ["events", "heartbeats"] {
            let (exchange, key) = (world.bus.queue(exchange), format!("{variant}.#"));
            let (options, nothing) = (QueueBindOptions::default(), FieldTable::default());
            channel
                .queue_bind(queue.as_str().into(), exchange.as_str().into(), key.as_str().into(), options, nothing)
                .await
                .expect("a binding");
        }
        connection.close(200, "done".into()).await.expect("the broker");
        let (variant, beats, seen) = (variant.to_owned(), Vec::new(), BTreeMap::new());
        Shop { world, variant, queue, replies, asked: 0, taken: 0, beats, seen, whole_to: 0 }
    }

    /// Reads the available messages, except those that it loses; `loses` gets the index of each message.
    async fn read(&mut self, loses: impl Fn(usize) -> bool) {
        for (properties, body) in self.world.bus.take_all_of(&self.queue).await {
            self.taken += 1;
            let is_lost = loses(self.taken);
            let text = String::from_utf8(body).expect("UTF-8");
            let body: Value = serde_json::from_str(&text).expect("JSON");
            if body["type"] == "paybus.heartbeat" {
                self.check(&body, &properties);
                if !is_lost {
                    let data = &body["data"];
                    let count = |name: &str| data[name].as_i64().expect("a number");
                    let (from, to) = (number(&data["from"]), number(&data["to"]));
                    self.beats.push(Beat { from, to, events: count("events"), set_aside: count("set_aside") });
                }
            } else if !is_lost {
                self.seen.insert(header(&properties, POSITION).parse().expect("a position"), text);
            }
        }
    }

    fn check(&self, body: &Value, properties: &lapin::BasicProperties) {
        assert_eq!((&body["subject"], header(properties, POSITION).as_str()), (&json!(self.variant), ""));
        let event = Event {
            routing_key: format!("{}.paybus.heartbeat", self.variant),
            properties: properties.clone(),
            body: body.clone(),
            at: std::time::Instant::now(),
        };
        assert_eq!(event.wrong(), Vec::<String>::new(), "{body}");
    }

    /// Acts like a consumer that must be complete: it requests what a heartbeat says is missing.
    async fn fill_gaps(&mut self) {
        for beat in std::mem::take(&mut self.beats) {
            let count = self.seen.range(beat.from + 1..beat.to + 1).count();
            let is_known = beat.from <= self.whole_to && i64::try_from(count) == Ok(beat.events);
            while !is_known && self.whole_to < beat.to {
                let page = self.ask(json!({"after": self.whole_to.to_string()})).await;
                self.whole_to = page.to();
                self.seen.extend(page.events);
            }
            self.whole_to = self.whole_to.max(beat.to);
        }
    }

    /// Requests a page.
    async fn ask(&mut self, data: Value) -> Page {
        self.asked += 1;
        let id = format!("page-{}", self.asked);
        let command = asking(&self.variant, data).reply_to(&self.replies, &id);
        // Not recorded as published, because the answer is not an event.
        self.world.bus.publish(std::slice::from_ref(&command)).await;
        let mut events = BTreeMap::new();
        let answered = async {
            loop {
                for (properties, body) in self.world.bus.take_all_of(&self.replies).await {
                    assert_eq!(properties.correlation_id().as_ref().map(ToString::to_string), Some(id.clone()));
                    let text = String::from_utf8(body).expect("UTF-8");
                    let body: Value = serde_json::from_str(&text).expect("JSON");
                    if body["data"].get("page").is_some() {
                        assert_eq!(body["type"], "command.succeeded");
                        assert_eq!(body["data"]["command"]["final"], true);
                        return body["data"]["page"].clone();
                    }
                    events.insert(header(&properties, POSITION).parse().expect("a position"), text);
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        let answer = timeout(TIMEOUT, answered).await.expect("an answer in time");
        assert_eq!(answer["events"], json!(events.len()), "{answer}");
        Page { events, answer }
    }

    /// The events that PostgreSQL has.
    async fn stored(&self) -> BTreeMap<i64, String> {
        let sql = "SELECT position, body FROM events WHERE split_part(routing_key, '.', 1) = $1";
        let rows = self.world.query(sql, &[&self.variant]).await;
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// Follows the heartbeats until nothing that is stored can be missing.
    async fn until_whole(&mut self, loses: impl Fn(usize) -> bool) {
        let last = self.world.value::<i64>("SELECT max(position) FROM events", &[]).await;
        let whole = async {
            while self.whole_to < last {
                self.read(&loses).await;
                self.fill_gaps().await;
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(TIMEOUT, whole).await.expect("complete in time");
    }

    async fn leave(self) {
        for queue in [&self.queue, &self.replies] {
            self.world.bus.delete_queue(queue).await;
        }
    }
}

/// `events.resend`, which names no payment.
fn asking(variant: &str, data: Value) -> Command {
    Command::new(variant, "events.resend", uuid::Uuid::nil(), data).attribute("subject", Value::Null)
}

fn beating() -> Setup {
    Setup::new().set("worker.heartbeat", "200ms")
}

fn charges(variant: &str, count: usize) -> Vec<Command> {
    (0..count).map(|_| Command::charge(variant, "10.00", "EUR")).collect()
}

#[tokio::test]
async fn who_loses_a_third_of_all_events_and_all_of_the_last_ones_gets_whole_again() {
    let world = beating().build().await;
    let mut shop = Shop::subscribe(&world, "http").await;
    let (first, _second) = (world.worker().await, world.worker().await);
    let charges = charges("http", 90);
    world.publish_all(&charges[..40]).await;
    world.final_event(&charges[0]).await;
    first.kill().await;
    world.publish_all(&charges[40..80]).await;
    let _third = world.worker().await;
    world.final_events(&charges[..80]).await;
    // Heartbeats are among them.
    shop.read(|place| place % 3 == 0).await;
    world.publish_all(&charges[80..]).await;
    world.final_events(&charges[80..]).await;
    shop.read(|_| true).await;
    assert_ne!(shop.seen, shop.stored().await, "something was lost");

    shop.until_whole(|place| place % 3 == 0).await;
    assert_eq!(shop.seen, shop.stored().await, "byte for byte");
    assert!(shop.asked > 0);
    shop.leave().await;
    world.check_books().await;
}

#[tokio::test]
async fn heartbeats_leave_out_no_position_and_count_right_whichever_replica_sends_them() {
    let world = beating().http_variant("quiet").build().await;
    let (mut busy, mut quiet) = (Shop::subscribe(&world, "http").await, Shop::subscribe(&world, "quiet").await);
    let mut worker = world.worker().await;
    world.run(&Command::charge("quiet", "10.00", "EUR")).await;
    for _ in 0..3 {
        let charges = charges("http", 20);
        world.publish_all(&charges).await;
        world.final_events(&charges[..5]).await;
        worker.kill().await;
        worker = world.worker().await;
        world.final_events(&charges).await;
    }
    let last: i64 = world.value("SELECT max(position) FROM events", &[]).await;
    for shop in [&mut busy, &mut quiet] {
        let answer = async {
            while shop.beats.last().is_none_or(|beat| beat.to < last) {
                shop.read(|_| false).await;
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(TIMEOUT, answer).await.expect("a heartbeat in time");
        let mut counted = 0;
        for (before, beat) in shop.beats.iter().zip(&shop.beats[1..]) {
            // A heartbeat may be lost with the worker that was about to send it, and is not repeated.
            assert!(beat.from >= before.to, "{before:?} {beat:?}");
        }
        for beat in &shop.beats {
            let sql = "SELECT count(*) FROM events
                       WHERE position > $1 AND position <= $2 AND split_part(routing_key, '.', 1) = $3";
            let stored: i64 = world.value(sql, &[&beat.from, &beat.to, &shop.variant]).await;
            assert_eq!((beat.events, beat.set_aside), (stored, 0), "{beat:?}");
            counted += beat.events;
        }
        assert!(counted > 0, "{:?}", shop.beats);
    }
    // Next to the busy variant, the quiet one's page contains only its own events.
    let page = quiet.ask(json!({})).await;
    assert_eq!(page.events, quiet.stored().await);
    assert_eq!((page.to(), &page.answer["more"]), (last, &json!(false)));
    busy.leave().await;
    quiet.leave().await;
    world.check_books().await;
}

/// A position is assigned before its event is visible: a heartbeat up to it waits until it is.
#[tokio::test]
async fn nothing_is_reported_up_to_a_position_before_which_an_event_may_still_appear() {
    let world = beating().build().await;
    let mut shop = Shop::subscribe(&world, "http").await;
    let _worker = world.worker().await;
    world.run(&Command::charge("http", "10.00", "EUR")).await;
    let slow = world.sql_client().await.expect("a connection");
    slow.batch_execute("BEGIN").await.expect("a transaction");
    let insert = "INSERT INTO events (payment_id, id, event_type, routing_key, body, created)
                  VALUES (gen_random_uuid(), gen_random_uuid(), 'x', 'http.x', '', now()) RETURNING position";
    let open_position: i64 = slow.query_one(insert, &[]).await.expect("a row").get(0);
    world.run(&Command::charge("http", "10.00", "EUR")).await;
    let page = shop.ask(json!({"after": "0"})).await;
    assert!(page.to() < open_position, "{}", page.answer);
    assert!(page.events.keys().all(|position| *position < open_position), "{:?}", page.events.keys());
    shop.read(|_| false).await;
    assert!(shop.beats.iter().all(|beat| beat.to < open_position), "{:?}", shop.beats);

    slow.batch_execute("ROLLBACK").await.expect("the end");
    shop.until_whole(|_| false).await;
    assert!(shop.whole_to > open_position);
    assert_eq!(shop.seen, shop.stored().await);
    shop.leave().await;
    world.check_books().await;
}

#[tokio::test]
async fn a_page_says_what_it_leaves_out() {
    let world = beating().build().await;
    let mut shop = Shop::subscribe(&world, "http").await;
    let _worker = world.worker().await;
    let charges = charges("http", 60);
    for charge in &charges[..2] {
        world.run(charge).await;
    }
    world.publish_all(&charges[2..]).await;
    world.final_events(&charges).await;
    let stored = shop.stored().await;
    let positions: Vec<i64> = stored.keys().copied().collect();
    assert_eq!(positions.len(), 120);

    // A hundred events per page.
    let first = shop.ask(json!({})).await;
    assert_eq!(first.events.keys().copied().collect::<Vec<_>>(), positions[..100]);
    assert_eq!(
        (first.to(), &first.answer["more"], first.answer.get("kept_after")),
        (positions[99], &json!(true), None)
    );
    let rest = shop.ask(json!({"after": first.answer["to"]})).await;
    assert_eq!(rest.events.keys().copied().collect::<Vec<_>>(), positions[100..]);
    assert_eq!((&rest.answer["more"], &rest.answer["set_aside"]), (&json!(false), &json!(0)));

    // Events that may be gone by their age, and events since a time.
    let sql = "UPDATE events SET stored = stored - make_interval(days => $2) WHERE payment_id = $1 RETURNING position";
    world.query(sql, &[&charges[0].payment, &100]).await;
    world.query(sql, &[&charges[1].payment, &1]).await;
    let all = shop.ask(json!({"after": "0"})).await;
    assert_eq!(number(&all.answer["kept_after"]), positions[1], "{}", all.answer);
    let since = (jiff::Timestamp::now() - Duration::from_secs(3600)).to_string();
    let new = shop.ask(json!({"since": since})).await;
    assert_eq!(new.events.keys().next(), Some(&positions[4]));
    let later = shop.ask(json!({"since": since, "after": positions[109].to_string()})).await;
    assert_eq!(later.events.len(), 10);

    // Events that wait for an operator are counted and not sent.
    let payment = charges[59].payment;
    let sql =
        "INSERT INTO set_aside SELECT payment_id, min(position), 'a test', now() FROM events WHERE payment_id = $1
               GROUP BY 1 RETURNING position";
    let refused: i64 = world.value(sql, &[&payment]).await;
    let page = shop.ask(json!({"after": (refused - 1).to_string()})).await;
    assert_eq!(page.answer["set_aside"], json!(2), "{}", page.answer);
    assert!(!page.events.contains_key(&refused));
    world.query("DELETE FROM set_aside RETURNING position", &[]).await;
    shop.leave().await;
    world.check_books().await;
}

#[tokio::test]
async fn who_does_not_say_where_to_gets_nothing() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let answer = world.run(&asking("http", json!({}))).await;
    assert_eq!((answer.kind(), answer.code()), ("command.rejected", "invalid_envelope"), "{}", answer.line());
    for (name, value) in [("after", json!("-1")), ("after", json!(7)), ("since", json!("yesterday"))] {
        let answer = world.run(&asking("http", json!({ name: value })).reply_to("reply.nobody", "1")).await;
        assert_eq!((answer.kind(), answer.code()), ("command.rejected", "invalid_data"), "{}", answer.line());
    }
    world.check_books().await;
}
