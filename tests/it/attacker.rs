//! Tries every role of `deploy/rabbitmq/grant` against every route through the broker to others' commands, and what
//! finds and stops the routes that exist nevertheless.

use std::process::{Command as Program, Output};

use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeBindOptions,
    ExchangeDeclareOptions, ExchangeDeleteOptions, ExchangeUnbindOptions, QueueBindOptions, QueueDeclareOptions,
    QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, ExchangeKind};
use paybus::bus::BusSettings;
use paybus::bus::client::Client;
use paybus::bus::topology::declare;
use paybus::payment::command::CommandType;
use serde_json::json;
use strum::IntoEnumIterator;
use uuid::Uuid;

use crate::privileges::{PASSWORD, channel, grant, user};
use crate::support::files::root;
use crate::support::skip::needed;
use crate::support::topology::{rabbitmqctl, settings};
use crate::support::world::amount;
use crate::support::{Command, ServiceLock, World, eventually};

/// The roles, each with its variant. Those that anybody may get come first.
const PARTS: [(&str, Option<&str>); 7] = [
    ("publisher", Some("books")),
    ("subscriber", None),
    ("service", Some("books")),
    ("webhooks", None),
    ("worker", None),
    ("owner", None),
    ("operator", None),
];

/// How many of them belong to services other than paybus.
const TENANTS: usize = 4;

/// What a publisher may send.
const ASKED: [CommandType; 10] = [
    CommandType::Create,
    CommandType::Process,
    CommandType::Capture,
    CommandType::Release,
    CommandType::Refund,
    CommandType::Cancel,
    CommandType::Sync,
    CommandType::Resend,
    CommandType::Snapshot,
    CommandType::Status,
];

/// A separate virtual host: paybus with one variant, `cards`, and a user for each role.
struct Host {
    name: String,
    ctl: String,
    admin: String,
    _service_lock: ServiceLock,
}

impl Host {
    async fn new(ctl: String) -> Host {
        let service_lock = ServiceLock::shared().await;
        let name = format!("v{}", &Uuid::new_v4().simple().to_string()[..12]);
        let url = std::env::var("PAYBUS__AMQP__URL").expect("PAYBUS__AMQP__URL: scripts/with-services");
        let admin = format!("{}/{name}", url.rsplit_once('/').expect("a virtual host").0);
        let host = Host { name: name.clone(), ctl, admin: admin.clone(), _service_lock: service_lock };
        blocking(move || {
            rabbitmqctl(&["add_vhost", &name]);
            rabbitmqctl(&["set_permissions", "-p", &name, "guest", ".*", ".*", ".*"]);
        })
        .await;
        let settings = BusSettings { url: admin.into(), prefix: "paybus".to_owned(), ..settings() };
        let client = Client::connect(&settings, "test").await.expect("a broker");
        declare(client.connection(), &settings, &["cards"]).await.expect("a topology");
        client.connection().close().await;
        let (ctl, name) = (host.ctl.clone(), host.name.clone());
        blocking(move || {
            for (part, variant) in PARTS {
                grant(&ctl, "paybus", &name, part, &format!("{name}-{part}"), variant);
            }
        })
        .await;
        host
    }

    fn user(&self, part: &str) -> String {
        format!("{}-{part}", self.name)
    }

    fn url(&self, part: &str) -> String {
        let (_, place) = self.admin.split_once('@').expect("a user");
        format!("amqp://{}:{PASSWORD}@{place}", self.user(part))
    }

    /// Runs `deploy/rabbitmq/audit`, with the roles of paybus itself as trusted users.
    async fn audit(&self) -> Output {
        let trusted = ["worker", "owner", "operator"].map(|part| self.user(part));
        let mut audit = Program::new(root().join("deploy/rabbitmq/audit"));
        audit.arg("guest").args(trusted).env("PREFIX", "paybus").env("VHOST", &self.name).env("RABBITMQCTL", &self.ctl);
        blocking(move || audit.output().expect("it runs")).await
    }

    async fn end(self) {
        blocking(move || rabbitmqctl(&["delete_vhost", &self.name])).await;
    }
}

/// Programs take time; meanwhile the connections must keep sending heartbeats.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("it ran")
}

/// One attempt, and the roles that may do it.
struct Way {
    what: String,
    act: Act,
    whose: &'static str,
}

enum Act {
    Publish {
        exchange: String,
        key: String,
        user_id: Option<&'static str>,
    },
    MakeQueue {
        name: String,
        dead_letters: Option<(&'static str, &'static str)>,
    },
    MakeExchange {
        name: String,
        kind: ExchangeKind,
        alternate: Option<&'static str>,
    },
    BindExchange {
        from: &'static str,
        to: &'static str,
    },
    /// The queue is declared first, unless it belongs to somebody else.
    Listen {
        queue: String,
        makes: bool,
        to: &'static str,
    },
    Read(String),
    Purge(&'static str),
    DeleteExchange(&'static str),
}

impl Act {
    async fn run(&self, channel: &Channel, body: &str) -> lapin::Result<()> {
        match self {
            Act::Publish { exchange, key, user_id } => {
                let mut properties = BasicProperties::default();
                if let Some(user) = *user_id {
                    properties = properties.with_user_id(user.into());
                }
                let (exchange, key) = (exchange.as_str().into(), key.as_str().into());
                let options = BasicPublishOptions::default();
                let sent = channel.basic_publish(exchange, key, options, body.as_bytes(), properties).await?;
                sent.await.map(|_| ())
            }
            Act::MakeQueue { name, dead_letters } => {
                let mut arguments = FieldTable::default();
                if let Some((exchange, key)) = *dead_letters {
                    arguments.insert("x-dead-letter-exchange".into(), text(exchange));
                    arguments.insert("x-dead-letter-routing-key".into(), text(key));
                    arguments.insert("x-message-ttl".into(), AMQPValue::LongInt(1));
                }
                make_queue(channel, name, arguments).await
            }
            Act::MakeExchange { name, kind, alternate } => {
                let mut arguments = FieldTable::default();
                if let Some(exchange) = *alternate {
                    arguments.insert("alternate-exchange".into(), text(exchange));
                }
                let options = ExchangeDeclareOptions::default();
                channel.exchange_declare(name.as_str().into(), kind.clone(), options, arguments).await?;
                channel.exchange_delete(name.as_str().into(), ExchangeDeleteOptions::default()).await
            }
            Act::BindExchange { from, to } => {
                bind_exchange(channel, from, to).await?;
                let (nothing, options) = (FieldTable::default(), ExchangeUnbindOptions::default());
                channel.exchange_unbind((*to).into(), (*from).into(), "#".into(), options, nothing).await
            }
            Act::Listen { queue, makes, to } => {
                if *makes {
                    make_queue(channel, queue, FieldTable::default()).await?;
                }
                let (nothing, options) = (FieldTable::default(), QueueBindOptions::default());
                channel.queue_bind(queue.as_str().into(), (*to).into(), "#".into(), options, nothing).await
            }
            Act::Read(queue) => {
                let options = BasicConsumeOptions::default();
                let reading = channel.basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default());
                reading.await.map(|_| ())
            }
            Act::Purge(queue) => channel.queue_purge((*queue).into(), QueuePurgeOptions::default()).await.map(|_| ()),
            Act::DeleteExchange(name) => {
                let options = ExchangeDeleteOptions { if_unused: true, ..ExchangeDeleteOptions::default() };
                channel.exchange_delete((*name).into(), options).await
            }
        }
    }
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

async fn make_queue(channel: &Channel, name: &str, arguments: FieldTable) -> lapin::Result<()> {
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(name.into(), options, arguments).await.map(|_| ())
}

async fn bind_exchange(channel: &Channel, from: &str, to: &str) -> lapin::Result<()> {
    let (nothing, options) = (FieldTable::default(), ExchangeBindOptions::default());
    channel.exchange_bind(to.into(), from.into(), "#".into(), options, nothing).await
}

/// Every route, tried by a user of this name; the queues belong to others.
fn ways(user: &str, answers: &str, events: &str) -> Vec<Way> {
    let mut ways = Vec::new();
    let mut add = |whose: &'static str, what: &str, act: Act| ways.push(Way { what: what.to_owned(), act, whose });
    let send = |exchange: &str, key: &str, user_id: Option<&'static str>| Act::Publish {
        exchange: exchange.to_owned(),
        key: key.to_owned(),
        user_id,
    };
    for (variant, asking) in [("books", "publisher service owner operator"), ("cards", "owner operator")] {
        for kind in CommandType::iter() {
            let whose = match kind {
                CommandType::Notification => "webhooks worker owner operator",
                kind if ASKED.contains(&kind) => asking,
                // A user who may request events can read those of every payment.
                CommandType::ResendEvents if variant == "books" => "service owner operator",
                _ => "owner operator",
            };
            let key = format!("{variant}.{kind}");
            add(whose, &format!("send {key}"), send("paybus.commands", &key, None));
        }
    }
    let forged = send("paybus.commands", "books.payment.create", Some("guest"));
    add("", "send books.payment.create as somebody else", forged);
    for (whose, exchange) in [
        ("worker owner", "paybus.events"),
        ("worker owner", "paybus.heartbeats"),
        ("worker owner", "paybus.dead"),
        ("worker owner", "paybus.unrouted"),
        ("owner", "paybus.unroutable"),
        ("", "amq.topic"),
    ] {
        add(whose, &format!("write to {exchange}"), send(exchange, "cards.payment.created", None));
    }
    add("worker owner operator", "write to the queue of commands itself", send("", "paybus.commands.cards", None));

    for (own, makes) in [("USER", "subscriber"), ("reply.USER", "operator")] {
        let name = |what: &str| format!("{}.{what}", own.replace("USER", user));
        let exchange = |kind, alternate| Act::MakeExchange { name: name("exchange"), kind, alternate };
        let queue = Act::MakeQueue { name: name("queue"), dead_letters: None };
        add(makes, &format!("make a queue {own}.*"), queue);
        add(makes, &format!("make a topic exchange {own}.*"), exchange(ExchangeKind::Topic, None));
        add(makes, &format!("make a headers exchange {own}.*"), exchange(ExchangeKind::Headers, None));
        // An operator may send any command anyway.
        let leads = if makes == "operator" { "operator" } else { "" };
        for (whose, to) in [(leads, "paybus.commands"), ("", "paybus.events"), ("", "paybus.dead")] {
            let queue = Act::MakeQueue { name: name(to), dead_letters: Some((to, "cards.payment.refund")) };
            add(whose, &format!("make a queue {own}.* that dead-letters to {to}"), queue);
            let alternate = exchange(ExchangeKind::Headers, Some(to));
            add(whose, &format!("make an exchange {own}.* with the alternate {to}"), alternate);
        }
    }
    let paybus_own = Act::MakeQueue { name: "paybus.commands.more".to_owned(), dead_letters: None };
    add("owner", "make a queue paybus.*", paybus_own);
    add("owner", "delete the exchange of commands", Act::DeleteExchange("paybus.commands"));

    for (whose, from, to) in [
        ("owner", "paybus.events", "paybus.commands"),
        ("owner", "paybus.heartbeats", "paybus.commands"),
        ("owner", "paybus.unrouted", "paybus.commands"),
        // What a worker reads has passed that exchange, under a key that was checked.
        ("worker owner", "paybus.unroutable", "paybus.commands"),
        ("owner operator", "paybus.dead", "paybus.commands"),
        ("", "amq.topic", "paybus.commands"),
        ("", "amq.headers", "paybus.commands"),
        ("owner", "paybus.commands", "paybus.events"),
    ] {
        add(whose, &format!("bind {from} to {to}"), Act::BindExchange { from, to });
    }
    let listen = |queue: String, makes, to| Act::Listen { queue, makes, to };
    add("subscriber", "listen to events", listen(format!("{user}.events"), true, "paybus.events"));
    add("subscriber", "listen to heartbeats", listen(format!("{user}.beats"), true, "paybus.heartbeats"));
    add("", "listen to commands", listen(format!("{user}.commands"), true, "paybus.commands"));
    add("", "lead all events to a service", listen(events.to_owned(), false, "paybus.events"));
    for (whose, queue) in [
        ("worker owner", "paybus.commands.cards"),
        ("worker owner", "paybus.unanswered"),
        ("owner operator", "paybus.dead"),
        ("operator", answers),
    ] {
        let what = if queue == answers { "another's answers" } else { queue };
        add(whose, &format!("read {what}"), Act::Read(queue.to_owned()));
    }
    add("worker owner", "empty paybus.inbound.cards", Act::Purge("paybus.inbound.cards"));
    ways
}

/// Returns whether the broker allows it.
async fn may(connection: &lapin::Connection, way: &Way, body: &str) -> bool {
    let channel = connection.create_channel().await.expect("a channel");
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    let Err(error) = way.act.run(&channel, body).await else {
        channel.close(200, "done".into()).await.expect("closed");
        return true;
    };
    let error = error.to_string();
    let is_refused = error.contains("ACCESS_REFUSED") || error.contains("user_id property");
    assert!(is_refused || error.contains("in use"), "{}: {error}", way.what);
    !is_refused
}

#[tokio::test]
async fn no_part_reaches_more_than_its_own_by_any_way_through_the_broker() {
    let Some(ctl) = needed("PAYBUS_TEST_RABBITMQCTL") else { return };
    let host = Host::new(ctl).await;
    let (_admin, admin) = channel(&host.admin).await;
    let publishers = format!("reply.{}.1", host.user("publisher"));
    let services = format!("reply.{}.catch-up", host.user("service"));
    let events = format!("{}.events", host.user("service"));
    let mut table: Vec<(String, Vec<&str>)> = Vec::new();
    let mut wrong = Vec::new();
    for (number, (part, _)) in PARTS.into_iter().enumerate() {
        if number == TENANTS {
            // Whatever the broker answered, no command of another variant has arrived, except what webhooks may send.
            assert!(take_all(&admin, "paybus.commands.cards").await.is_empty());
            let taken = take_all(&admin, "paybus.inbound.cards").await;
            assert_eq!(taken, ["webhooks: send cards.payment.notification"]);
        }
        let (connection, _channel) = channel(&host.url(part)).await;
        let answers = if part == "publisher" { &services } else { &publishers };
        for (row, way) in ways(&host.user(part), answers, &events).into_iter().enumerate() {
            let may = may(&connection, &way, &format!("{part}: {}", way.what)).await;
            if may != way.whose.split(' ').any(|whose| whose == part) {
                wrong.push(format!("{part} may {}{}", if may { "" } else { "not " }, way.what));
            }
            if number == 0 {
                table.push((way.what, Vec::new()));
            }
            table[row].1.push(if may { "may" } else { "refused" });
        }
        connection.close(200, "done".into()).await.expect("closed");
    }
    let row = |what: &str, cells: &[&str]| {
        let cells: String = cells.iter().map(|cell| format!(" {cell:<10}")).collect();
        eprintln!("{what:<64}{cells}");
    };
    row("", &PARTS.map(|(part, _)| part));
    table.iter().for_each(|(what, cells)| row(what, cells));
    host.end().await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}

async fn take_all(channel: &Channel, queue: &str) -> Vec<String> {
    let mut taken = Vec::new();
    let options = BasicGetOptions { no_ack: true };
    while let Some(message) = channel.basic_get(queue.into(), options).await.expect("a queue") {
        taken.push(String::from_utf8(message.delivery.data).expect("text"));
    }
    taken
}

#[tokio::test]
async fn the_audit_lists_all_that_leads_past_the_rights() {
    let Some(ctl) = needed("PAYBUS_TEST_RABBITMQCTL") else { return };
    let host = Host::new(ctl).await;
    let clean = host.audit().await;
    assert!(clean.status.success(), "{clean:?}");

    let (_admin, admin) = channel(&host.admin).await;
    let options = ExchangeDeclareOptions::default();
    let nothing = FieldTable::default();
    admin.exchange_declare("mine".into(), ExchangeKind::Topic, options, nothing.clone()).await.expect("made");
    bind_exchange(&admin, "mine", "paybus.commands").await.expect("bound");
    bind_exchange(&admin, "paybus.events", "paybus.commands").await.expect("bound");
    let mut astray = FieldTable::default();
    astray.insert("alternate-exchange".into(), text("paybus.commands"));
    admin.exchange_declare("astray".into(), ExchangeKind::Headers, options, astray).await.expect("made");
    let mut late = FieldTable::default();
    late.insert("x-dead-letter-exchange".into(), text("paybus.commands"));
    admin.queue_declare("late".into(), QueueDeclareOptions::default(), late).await.expect("made");
    admin.queue_declare("spy".into(), QueueDeclareOptions::default(), nothing.clone()).await.expect("made");
    let (exchange, spying) = ("paybus.commands".into(), QueueBindOptions::default());
    admin.queue_bind("spy".into(), exchange, "#".into(), spying, nothing).await.expect("bound");
    let name = host.name.clone();
    let [old, every, reader, forger] = ["old", "every", "reader", "forger"].map(|user| host.user(user));
    let users = [old.clone(), every.clone(), reader.clone()];
    let (ctl, forging) = (host.ctl.clone(), forger.clone());
    blocking(move || {
        let policy = r#"{"dead-letter-exchange":"paybus.commands"}"#;
        rabbitmqctl(&["set_policy", "-p", &name, "--apply-to", "queues", "later", "^x", policy]);
        for user in &users {
            rabbitmqctl(&["add_user", user, PASSWORD]);
        }
        let [old, every, reader] = &users;
        // The rights that a service used to have.
        let (own, written) = (format!(r"^(reply\.)?{old}\..*"), format!(r"^(paybus\.commands|{old}\..*)$"));
        let read = format!(r"^((reply\.)?{old}\..*|paybus\.events)$");
        rabbitmqctl(&["set_topic_permissions", "-p", &name, old, "paybus.commands", r"^books\.", "^$"]);
        rabbitmqctl(&["set_permissions", "-p", &name, old, &own, &written, &read]);
        rabbitmqctl(&["set_permissions", "-p", &name, every, "", r"^paybus\.commands$", ""]);
        rabbitmqctl(&["set_permissions", "-p", &name, reader, "^$", "^$", "^paybus"]);
        grant(&ctl, "paybus", &name, "publisher", &forging, Some("books"));
        rabbitmqctl(&["set_user_tags", &forging, "impersonator"]);
    })
    .await;

    let found = host.audit().await;
    assert_eq!(found.status.code(), Some(1), "{found:?}");
    let said = String::from_utf8(found.stdout).expect("text");
    eprintln!("{said}");
    for line in [
        "binding: mine -> exchange paybus.commands".to_owned(),
        "binding: paybus.events -> exchange paybus.commands".to_owned(),
        "binding: paybus.commands -> queue spy".to_owned(),
        "exchange astray: what it cannot route goes to paybus.commands".to_owned(),
        "queue late: what dies in it goes to paybus.commands".to_owned(),
        "policy later: dead-letter-exchange is paybus.commands".to_owned(),
        format!("user {old}: may send commands and declare"),
        format!("user {old}: may send commands and bind to paybus.commands from paybus.events"),
        format!("user {every}: may send every command"),
        format!("user {reader}: may read "),
        format!("user {forger}: has the tags"),
    ] {
        assert!(said.contains(&line), "{line}");
    }
    for (part, _) in PARTS {
        assert!(!said.contains(&host.user(part)), "{part}");
    }
    host.end().await;
}

#[test]
fn grant_takes_no_name_that_means_more_than_itself() {
    let granted = |arguments: &[&str], variables: &[(&str, &str)], ctl: &str| {
        let mut grant = Program::new(root().join("deploy/rabbitmq/grant"));
        grant.args(arguments).env("RABBITMQCTL", ctl).envs(variables.iter().copied());
        grant.output().expect("it runs").status.code()
    };
    type Variables = &'static [(&'static str, &'static str)];
    let bad: &[(&[&str], Variables)] = &[
        (&["publisher", ".*"], &[]),
        (&["publisher", "shop|x"], &[]),
        (&["subscriber", "sh.p"], &[]),
        (&["subscriber", "shop\nx"], &[]),
        (&["subscriber", "reply"], &[]),
        (&["subscriber", "amq"], &[]),
        (&["subscriber", "paybus"], &[]),
        (&["subscriber", "pay"], &[("PREFIX", "pay.bus")]),
        (&["publisher", "shop", ".*"], &[]),
        (&["publisher", "shop", "cards|books"], &[]),
        (&["publisher", "shop", ""], &[]),
        (&["subscriber", "shop", "cards"], &[]),
        (&["publisher", "shop", "cards", "books"], &[]),
        (&["worker", "w"], &[("PREFIX", "pay*")]),
        (&["publisher", "shop"], &[("QUEUES", "reply.other.1")]),
        (&["publisher", "shop"], &[("QUEUES", "shop.events")]),
        (&["publisher", "shop"], &[("QUEUES", "reply.shop.a|b")]),
        (&["nothing", "shop"], &[]),
    ];
    for &(arguments, variables) in bad {
        // The script refuses before it calls the broker: that program does not exist.
        assert_eq!(granted(arguments, variables, "/nowhere"), Some(2), "{arguments:?} {variables:?}");
    }
    for arguments in [&["publisher", "shop-1", "cards"][..], &["subscriber", "CN=shop"], &["worker", "pay.bus"]] {
        assert_eq!(granted(arguments, &[], "true"), Some(0), "{arguments:?}");
    }
}

/// With one such binding, each rejection used to be a command, whose rejection was a command again.
#[tokio::test]
async fn events_that_come_back_as_commands_are_dropped_and_never_answered() {
    let world = World::new().await;
    let worker = world.worker().await;
    let (_connection, channel) = world.bus.channel().await;
    bind_exchange(&channel, &world.bus.queue("events"), &world.bus.queue("commands")).await.expect("bound");
    let charge = Command::charge("http", "12.00", "EUR");
    assert_eq!(world.run(&charge).await.status(), "confirmed");
    let wrong = charge.then("payment.release", json!({}));
    assert_eq!(world.run(&wrong).await.kind(), "command.rejected");
    assert_eq!(world.run(&charge.then("payment.refund", json!({}))).await.status(), "refunded");
    eventually("every event to come back", async || {
        let (dropped, published) = (worker.count("paybus_own_events_dropped_total").await, world.log.all().len());
        if dropped > 0 && usize::try_from(dropped) == Ok(published) {
            Ok(())
        } else {
            Err(format!("{dropped} of {published}"))
        }
    })
    .await;
    let rejected = world.log.filter(|event| event.kind() == "command.rejected");
    assert_eq!(rejected.len(), 1, "{}", world.lines());
    assert!(worker.log().contains("paybus's own events arrive as commands"), "{}", worker.log());
    // They leave no dead letter, and nothing in any other queue.
    world.check_books().await;
}

#[tokio::test]
async fn a_copy_by_the_header_cc_is_what_its_routing_key_says() {
    let Some(ctl) = needed("PAYBUS_TEST_RABBITMQCTL") else { return };
    let world = World::new().await;
    let _worker = world.worker().await;
    let victim = Command::charge("default", "40.00", "EUR");
    assert_eq!(world.run(&victim).await.status(), "confirmed");
    let (url, _) = user(&world, &ctl, "publisher", Some("http")).await;
    let (_connection, channel) = channel(&url).await;
    let theft = Command::new("http", "payment.refund", victim.payment, json!({}));
    let mut headers = FieldTable::default();
    headers.insert("CC".into(), AMQPValue::FieldArray(vec![text("default.payment.refund")].into()));
    let properties = BasicProperties::default().with_headers(headers);
    let (exchange, key) = (world.bus.queue("commands"), theft.key());
    let (options, body) = (BasicPublishOptions::default(), theft.bytes());
    let sending = channel.basic_publish(exchange.into(), key.into(), options, &body, properties);
    let sent = async { sending.await?.await };
    match sent.await {
        // Some brokers check the key of the copy as well.
        Err(error) => assert!(error.to_string().contains("ACCESS_REFUSED"), "{error}"),
        Ok(_) => {
            let answer = world.event("the answer", |event| event.is_of(&theft) && event.is_final()).await;
            assert_eq!(answer.kind(), "command.rejected", "{}", answer.line());
        }
    }
    let row = world.payment_row(victim.payment).await;
    assert_eq!(amount(&row, "refunded_amount", 2), "0.00");
    world.check_books().await;
}
