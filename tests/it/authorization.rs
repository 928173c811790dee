//! Who may send what: users who may publish anything at the broker, and whom paybus limits by its own rules.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::bus::{Bus, header};
use crate::support::replies::Replies;
use crate::support::skip::needed;
use crate::support::topology::rabbitmqctl;
use crate::support::webhook::named;
use crate::support::worker::{output_of, paybus};
use crate::support::{Command, Event, Setup, Webhook, Worker, WorkerSetup, World, eventually};

const PASSWORD: &str = "only-for-tests";
const SECRET: &str = "whsec_test";
const SHOP: &str = "test/shop";
const RIVAL: &str = "rival/1";

/// A user who may do anything at the broker.
struct User {
    name: String,
    bus: Bus,
    replies: Replies,
}

impl User {
    async fn new(world: &World, name: &str) -> User {
        let name = format!("{}{name}", world.bus.prefix);
        let made = name.clone();
        let making = tokio::task::spawn_blocking(move || {
            rabbitmqctl(&["add_user", &made, PASSWORD]);
            rabbitmqctl(&["set_permissions", "-p", "/", &made, ".*", ".*", ".*"]);
        });
        making.await.expect("made");
        let bus = world.bus.as_user(&name, PASSWORD);
        let replies = Replies::at(&bus, format!("reply.{name}.1")).await;
        User { name, bus, replies }
    }

    /// Sends a command under its own name, to be answered at its own queue.
    async fn send(&self, command: &Command, reply: &str) {
        self.bus.publish(&[command.clone().user(&self.name).reply_to(&self.replies.queue, reply)]).await;
    }

    /// Returns the answer to a command that is allowed.
    async fn run(&self, world: &World, command: &Command) -> Event {
        world.note_published(std::slice::from_ref(command));
        self.bus.publish(&[command.clone().user(&self.name)]).await;
        world.final_event(command).await
    }

    /// Waits for the refusal of the command with this correlation id.
    async fn is_refused(&mut self, reply: &str) {
        let (id, answer) = self.replies.next().await;
        let said = (&answer["type"], &answer["data"]["code"], &answer["data"]["command"]["final"]);
        assert_eq!(said, (&json!("command.rejected"), &json!("not_authorized"), &json!(false)), "{reply}: {answer}");
        assert_eq!(id, reply, "{answer}");
    }
}

/// The rules for both users: each has the variant `http` and its own sources.
fn rules(world: &World, shop: &User, rival: &User) -> WorkerSetup {
    let key = |user: &User, key: &str| format!("users.{}.{key}", user.name);
    WorkerSetup::default()
        .set(&key(shop, "role"), "service")
        .set(&key(shop, "variants"), "http")
        .set(&key(shop, "sources"), SHOP)
        .set(&key(rival, "role"), "service")
        .set(&key(rival, "variants"), "http")
        .set(&key(rival, "sources"), "rival/*")
        .set(&format!("users.{}.role", world.bus.user()), "operator")
}

async fn parties(world: &World) -> (User, User) {
    (User::new(world, "shop").await, User::new(world, "rival").await)
}

async fn are_refused(worker: &Worker, count: i64) {
    eventually("the refusals", async || {
        let http = worker.count(r#"paybus_not_authorized_total{variant="http"}"#).await;
        let default = worker.count(r#"paybus_not_authorized_total{variant="default"}"#).await;
        if http + default == count { Ok(()) } else { Err(http + default) }
    })
    .await;
}

/// Every dead letter says that it was not authorized, and who sent it.
async fn take_letters(world: &World, senders: &[&str]) {
    let letters = world.bus.take_all("dead").await;
    let found: Vec<(String, String)> = letters
        .iter()
        .map(|(properties, _)| (header(properties, "x-paybus-code"), header(properties, "x-paybus-sender")))
        .collect();
    let mut expected: Vec<(String, String)> =
        senders.iter().map(|sender| ("not_authorized".to_owned(), (*sender).to_owned())).collect();
    let mut sorted = found.clone();
    sorted.sort();
    expected.sort();
    assert_eq!(sorted, expected);
}

async fn operations_of_others(world: &World) -> i64 {
    world.value("SELECT count(*) FROM operations WHERE source <> $1", &[&SHOP]).await
}

async fn replay(world: &World, more: &[&str]) {
    let output = world.paybus(&[&["dead", "replay", "--yes", "--who", "a test"], more].concat()).await;
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn a_service_does_nothing_to_what_is_anothers() {
    let Some(_) = needed("PAYBUS_TEST_RABBITMQCTL") else { return };
    let world = World::new().await;
    let (shop, mut rival) = parties(&world).await;
    let worker = world.worker_with(rules(&world, &shop, &rival)).await;
    let charge = Command::charge("http", "120.00", "USD");
    assert_eq!(shop.run(&world, &charge).await.status(), "confirmed");
    let source: String = world.value("SELECT source FROM payments", &[]).await;
    assert_eq!(source, SHOP);

    let on_it = |kind: &str, data: Value| charge.then(kind, data).source(RIVAL);
    let resolved = json!({"operation": charge.operation_id(), "outcome": "approved", "evidence": "I say so"});
    let refused = [
        on_it("payment.cancel", json!({})),
        on_it("payment.release", json!({})),
        on_it("payment.refund", json!({"amount": "1.00"})),
        on_it("payment.process", json!({"process": {}})),
        on_it("payment.snapshot", json!({})),
        on_it("payment.sync", json!({})),
        on_it("payment.resend", json!({"from": "1"})),
        on_it("command.status", json!({"id": charge.id, "source": SHOP})),
        on_it("command.status", json!({"id": charge.id})),
        on_it("payment.resolve", resolved),
        on_it("payment.retry", json!({"operation": charge.operation_id()})),
        on_it("payment.withdraw", json!({"operation": charge.operation_id()})),
        on_it("payment.notification", json!({})),
        on_it("payment.refund", json!({"amout": "1.00"})),
        Command::charge("http", "1.00", "USD").payment(charge.payment).source(RIVAL),
        Command::charge("default", "1.00", "USD").source(RIVAL),
        Command::charge("http", "1.00", "USD"),
        Command::charge("http", "1.00", "USD").source("paybus"),
        Command::new("http", "payment.sync", charge.payment, json!({})).source("webhooks/http"),
    ];
    for (number, command) in refused.iter().enumerate() {
        rival.send(command, &number.to_string()).await;
        rival.is_refused(&number.to_string()).await;
    }
    world.are_dead(refused.len() as u32).await;
    take_letters(&world, &vec![rival.name.as_str(); refused.len()]).await;
    are_refused(&worker, refused.len() as i64).await;
    assert_eq!(operations_of_others(&world).await, 0);
    assert!(world.log.find(|event| event.kind() == "command.rejected").is_none(), "{}", world.lines());
    assert_eq!(world.gateway.calls().len(), 1);

    // Its own payments it may change.
    let own = Command::charge("http", "30.00", "USD").source(RIVAL);
    assert_eq!(rival.run(&world, &own).await.status(), "confirmed");
    let refund = own.then("payment.refund", json!({"amount": "10.00"})).source("rival/2");
    assert_eq!(rival.run(&world, &refund).await.field("refunded_amount"), "10.00");
    world.check_books().await;
}

#[tokio::test]
async fn nobody_uses_up_anothers_names_or_answers_into_anothers_queue() {
    let Some(_) = needed("PAYBUS_TEST_RABBITMQCTL") else { return };
    let world = World::new().await;
    let (mut shop, mut rival) = parties(&world).await;
    let worker = world.worker_with(rules(&world, &shop, &rival)).await;
    let charge = Command::charge("http", "120.00", "USD");
    assert_eq!(shop.run(&world, &charge).await.status(), "confirmed");

    let refund = charge.then("payment.refund", json!({"amount": "20.00"})).id("refund-1");
    rival.send(&refund.clone().data(json!({"amount": "1.00"})), "squat").await;
    rival.is_refused("squat").await;
    // No answer is sent where it would reach somebody else.
    let elsewhere = Command::charge("http", "1.00", "USD").source(RIVAL).user(&rival.name);
    let nameless = Command::charge("http", "1.00", "USD").source(RIVAL);
    let into = |command: &Command| command.clone().reply_to(&shop.replies.queue, "not yours");
    rival.bus.publish(&[into(&elsewhere), into(&nameless)]).await;
    are_refused(&worker, 3).await;
    world.are_dead(3).await;
    take_letters(&world, &[rival.name.as_str(), rival.name.as_str(), ""]).await;

    // A copy of a command that was carried out is recognized, and its sender gets no answer.
    rival.send(&charge, "copy").await;
    eventually("the copy to be recognized", async || {
        let known = worker.count(r#"paybus_commands_duplicate_total{variant="http"}"#).await;
        if known == 1 { Ok(()) } else { Err(known) }
    })
    .await;
    rival.send(&charge.then("payment.snapshot", json!({})).source(RIVAL), "next").await;
    rival.is_refused("next").await;

    world.note_published(std::slice::from_ref(&refund));
    shop.send(&refund, "mine").await;
    assert_eq!(world.final_event(&refund).await.field("refunded_amount"), "20.00");
    assert_eq!(shop.replies.next().await.0, "mine", "the first answer that came to its queue");
    world.are_dead(1).await;
    take_letters(&world, &[rival.name.as_str()]).await;
    assert_eq!(operations_of_others(&world).await, 0);
    world.check_books().await;
}

/// It was allowed while its payment did not exist, and waits for it: the payment turns out to belong to somebody else.
#[tokio::test]
async fn a_command_that_came_before_its_payment_does_nothing_to_anothers() {
    let Some(_) = needed("PAYBUS_TEST_RABBITMQCTL") else { return };
    let world = Setup::new().set("worker.unknown_payment_grace", "30s").build().await;
    let (shop, rival) = parties(&world).await;
    let _worker = world.worker_with(rules(&world, &shop, &rival)).await;
    let charge = Command::charge("http", "120.00", "USD");
    let early = [
        charge.then("payment.snapshot", json!({})).source(RIVAL),
        charge.then("payment.refund", json!({})).source(RIVAL),
    ];
    world.note_published(&early);
    for command in &early {
        rival.send(command, "early").await;
        world.operation_state(command, "waiting").await;
    }
    assert_eq!(shop.run(&world, &charge).await.status(), "confirmed");
    for command in &early {
        let answer = world.final_event(command).await;
        assert_eq!((answer.kind(), answer.code()), ("command.rejected", "not_authorized"), "{}", answer.line());
    }
    assert_eq!(world.gateway.calls().len(), 1);
    world.check_books().await;
}

#[tokio::test]
async fn a_dead_letter_is_replayed_by_the_rights_of_who_sent_it() {
    let Some(_) = needed("PAYBUS_TEST_RABBITMQCTL") else { return };
    let world = World::new().await;
    let (shop, rival) = parties(&world).await;
    let worker = world.worker_with(rules(&world, &shop, &rival)).await;
    let charge = Command::charge("http", "120.00", "USD");
    assert_eq!(shop.run(&world, &charge).await.status(), "confirmed");
    let refund = charge.then("payment.refund", json!({"amount": "5.00"})).source(RIVAL);
    let nameless = Command::charge("http", "7.00", "USD");
    rival.send(&refund, "refund").await;
    shop.bus.publish(std::slice::from_ref(&nameless)).await;
    are_refused(&worker, 2).await;
    world.are_dead(2).await;

    // The operator's own rights would suffice for both.
    replay(&world, &[]).await;
    are_refused(&worker, 4).await;
    world.are_dead(2).await;
    assert_eq!(world.gateway.calls().len(), 1);
    world.note_published(std::slice::from_ref(&nameless));
    replay(&world, &["--filter", "routing_key=http.payment.create", "--vouch"]).await;
    assert_eq!(world.final_event(&nameless).await.status(), "confirmed");
    world.are_dead(1).await;

    // With wider rules: all users of the variant may act on its payments.
    worker.drain().await;
    let wider = rules(&world, &shop, &rival);
    let is_its_sources = |key: &str| key == format!("users.{}.sources", rival.name);
    let settings = wider.settings.into_iter().filter(|(key, _)| !is_its_sources(key)).collect();
    let _worker = world.worker_with(WorkerSetup { settings, ..WorkerSetup::default() }).await;
    world.note_published(std::slice::from_ref(&refund));
    replay(&world, &[]).await;
    assert_eq!(world.final_event(&refund).await.field("refunded_amount"), "5.00");
    let who: String = world.value("SELECT user_id FROM operations WHERE id = $1", &[&refund.operation_id()]).await;
    assert_eq!(who, rival.name, "as it was sent, not as it was replayed");
    world.check_books().await;
}

/// Rights are revoked while commands are in progress, as when workers are replaced one by one.
#[tokio::test]
async fn what_was_let_in_goes_on_under_other_rules() {
    let Some(_) = needed("PAYBUS_TEST_RABBITMQCTL") else { return };
    let world = World::new().await;
    let (shop, rival) = parties(&world).await;
    let open = world.spawn_worker(WorkerSetup::default().dies_at("called"));
    open.ready().await;
    assert!(open.log().contains("no [users.NAME] is configured"), "{}", open.log());
    let checked = paybus(world.settings()).arg("check").output().expect("paybus check");
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success() && said.contains("no [users.NAME] is configured"), "{said}");
    // It names no user, and its source belongs to another user than its publisher.
    let charge = Command::charge("http", "120.00", "USD");
    world.note_published(std::slice::from_ref(&charge));
    rival.bus.publish(std::slice::from_ref(&charge)).await;
    eventually("the worker to die", async || open.exited().ok_or("it lives")).await;

    let worker = world.worker_with(rules(&world, &shop, &rival)).await;
    assert_eq!(world.final_event(&charge).await.status(), "confirmed");
    assert_eq!(world.gateway.charges(charge.payment).len(), 1);
    assert_eq!(worker.count(r#"paybus_not_authorized_total{variant="http"}"#).await, 0);
    // A payment that an earlier release stored belongs to the source of its create.
    world.query("UPDATE payments SET source = NULL", &[]).await;
    let refund = charge.then("payment.refund", json!({"amount": "20.00"}));
    assert_eq!(shop.run(&world, &refund).await.field("refunded_amount"), "20.00");
    world.check_books().await;
}

/// Uses the broker's user of the tests: commands may name it, so no other user is needed.
#[tokio::test]
async fn reads_beyond_the_rate_are_rejected_and_money_may_still_move() {
    const ASKED: usize = 20;
    let world = World::new().await;
    let user = world.bus.user();
    let key = |key: &str| format!("users.{user}.{key}");
    let limited = WorkerSetup::default().set(&key("role"), "operator").set(&key("read_rate"), "2");
    let worker = world.worker_with(limited).await;
    let mut replies = Replies::of(&world).await;
    let charge = Command::charge("http", "120.00", "USD").user(&user);
    assert_eq!(world.run(&charge).await.status(), "confirmed");

    let asking = |number: usize| {
        let snapshot = charge.then("payment.snapshot", json!({})).user(&user);
        snapshot.reply_to(&replies.queue, &number.to_string())
    };
    let asked: Vec<Command> = (0..ASKED).map(asking).collect();
    // No event reports the commands that are refused, and they need no answer.
    world.bus.publish(&asked).await;
    let (mut answered, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..ASKED {
        let (number, answer) = replies.next().await;
        let command = asked[number.parse::<usize>().expect("a number")].clone();
        if answer["type"] == "payment.snapshot" {
            answered.push(command);
            continue;
        }
        let said = (&answer["type"], &answer["data"]["code"], &answer["data"]["command"]["final"]);
        assert_eq!(said, (&json!("command.rejected"), &json!("too_many_requests"), &json!(false)), "{answer}");
        refused.push(command);
    }
    assert!(answered.len() >= 2 && refused.len() >= ASKED / 2, "{} of {ASKED} were answered", answered.len());
    world.note_published(&answered);
    let series = r#"paybus_reads_limited_total{variant="http"}"#;
    assert_eq!(worker.count(series).await, refused.len() as i64);
    let sql = "SELECT count(*) FROM operations WHERE command_type = 'payment.snapshot'";
    assert_eq!(world.value::<i64>(sql, &[]).await, answered.len() as i64, "the others are not stored");
    assert_eq!(world.bus.length("dead").await, 0);

    // However much the user asks, commands that move money are carried out.
    world.bus.publish(&refused).await;
    let refund = charge.then("payment.refund", json!({"amount": "20.00"})).user(&user);
    assert_eq!(world.run(&refund).await.field("refunded_amount"), "20.00");
    let mut again = 0;
    for _ in 0..refused.len() {
        let (number, answer) = replies.next().await;
        if answer["type"] == "payment.snapshot" {
            world.note_published(&[asked[number.parse::<usize>().expect("a number")].clone()]);
            again += 1;
        }
    }
    let turned_away = 2 * refused.len() as i64 - again;
    assert_eq!(worker.count(series).await, turned_away);

    // The same command is accepted once the rate allows it.
    let last = refused.last().expect("one").clone();
    eventually("the answer", async || {
        world.bus.publish(std::slice::from_ref(&last)).await;
        let (_, answer) = replies.next().await;
        if answer["type"] == "payment.snapshot" { Ok(()) } else { Err(answer.to_string()) }
    })
    .await;
    world.note_published(&[last]);
    world.check_books().await;
}

#[tokio::test]
async fn webhooks_and_operators_go_on() {
    let Some(_) = needed("PAYBUS_TEST_RABBITMQCTL") else { return };
    let world = Setup::new().set("variants.http.webhook_secret", SECRET).build().await;
    let shop = User::new(&world, "shop").await;
    let hooks = User::new(&world, "hooks").await;
    let key = |name: &str, key: &str| format!("users.{name}.{key}");
    let rules =
        || WorkerSetup::default().set(&key(&shop.name, "role"), "service").set(&key(&hooks.name, "role"), "webhooks");
    let worker = world.worker_with(rules()).await;
    let receiver = world.worker_with(WorkerSetup::default().only_webhooks().set("amqp.url", &hooks.bus.url)).await;
    let charge = Command::charge("http", "120.00", "USD");
    assert_eq!(shop.run(&world, &charge).await.status(), "confirmed");
    // The worker's own user needs no configuration.
    for (id, process) in [("n-1", &worker), ("n-2", &receiver)] {
        let news = json!({"id": id, "payment_id": charge.payment, "type": "news"});
        assert_eq!(Webhook::signed("http", SECRET, &news).post(process).await, (200, None));
        let answer = world.final_event(&named("http", charge.payment, id)).await;
        assert_eq!(answer.kind(), "command.succeeded");
    }
    worker.drain().await;

    let operator = world.bus.user();
    let _worker = world.worker_with(rules().set(&key(&operator, "role"), "operator")).await;
    let payment = charge.payment.to_string();
    let mut publish = paybus(world.settings());
    publish.args(["publish", "payment.refund", "--payment", &payment, "--variant", "http", "--amount", "5.00"]);
    publish.args(["--reply", "--json", "--id", &Uuid::new_v4().to_string()]);
    let output = output_of(publish).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("5.00"), "{output:?}");
    assert_eq!(world.bus.length("dead").await, 0);
    world.check_books().await;
}
