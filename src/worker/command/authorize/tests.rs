//! Who may send what, by the configured users.

use proptest::prelude::*;
use serde_json::{Map, json};
use strum::IntoEnumIterator;
use uuid::Uuid;

use crate::payment::command::{Attributes, Body, CommandName};
use crate::worker::command::authorize::*;

const USERS: [(&str, &str); 8] = [
    ("PAYBUS__USERS__SHOP__ROLE", "service"),
    ("PAYBUS__USERS__SHOP__VARIANTS", "cards"),
    ("PAYBUS__USERS__SHOP__SOURCES", "https://shop/orders,https://shop/pos/*"),
    ("PAYBUS__USERS__RIVAL__ROLE", "service"),
    ("PAYBUS__USERS__RIVAL__SOURCES", "rival"),
    ("PAYBUS__USERS__OLD__ROLE", "service"),
    ("PAYBUS__USERS__ALICE__ROLE", "operator"),
    ("PAYBUS__USERS__HOOKS__ROLE", "webhooks"),
];

fn configured(users: &[(&str, &str)]) -> Authorization {
    let variants = [("PAYBUS__VARIANTS__CARDS__GATEWAY", "dummy"), ("PAYBUS__VARIANTS__DEBIT__GATEWAY", "dummy")];
    let broker = [("PAYBUS__AMQP__URL", "amqp://worker:secret@127.0.0.1:5672/%2f")];
    let variables = users.iter().chain(&variants).chain(&broker);
    let settings = crate::config::load(None, variables.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    Authorization::configured(&settings.unwrap())
}

/// A command of `shop` that is authorized unless a test changes it.
fn command(kind: &str) -> Command {
    Command {
        payment_id: Uuid::nil(),
        subject: None,
        name: CommandName { source: "https://shop/orders".to_owned(), id: "1".to_owned() },
        kind: Kind::from_word(kind),
        variant: "cards".to_owned(),
        content: Ok(Body::Sync),
        data: Map::new(),
        hash: [0; 32],
        attributes: Attributes { user_id: Some("shop".to_owned()), ..Attributes::default() },
    }
}

fn by(user: &str, command: Command) -> Command {
    let attributes = Attributes { user_id: Some(user.to_owned()), ..command.attributes };
    Command { attributes, ..command }
}

fn from(source: &str, command: Command) -> Command {
    let name = CommandName { source: source.to_owned(), ..command.name };
    Command { name, ..command }
}

fn to(queue: &str, command: Command) -> Command {
    let reply = Some(Reply { to: queue.to_owned(), correlation_id: None });
    Command { attributes: Attributes { reply, ..command.attributes }, ..command }
}

fn through(variant: &str, command: Command) -> Command {
    Command { variant: variant.to_owned(), ..command }
}

#[test]
fn where_no_user_is_configured_everything_is_let_in() {
    let open = configured(&[]);
    assert!(!open.is_required());
    let mut nobodys = command("payment.resolve");
    nobodys.attributes.user_id = None;
    assert_eq!(open.refusal(&nobodys), None);
    assert!(open.may_act_on(Some("shop"), &payment(Some("anybody"))));
    assert!(!open.is_operator(Some("worker")), "nobody speaks for others");
}

#[test]
fn a_user_may_send_what_its_role_says() {
    let authorization = configured(&USERS);
    let refusal = |user: &str, source: &str, kind: &str| {
        authorization.refusal(&by(user, from(source, to("amq.rabbitmq.reply-to.g1", command(kind)))))
    };
    for kind in CommandType::iter() {
        let word = kind.as_str();
        assert_eq!(refusal("alice", "rival", word), None, "{word}");
        let is_for_a_service = kind != CommandType::Notification && !kind.is_of_operators();
        let expected = (!is_for_a_service).then_some(Refusal::Command);
        // It would reveal other users' payments.
        let of_its_own = expected.or((kind == CommandType::ResendEvents).then_some(Refusal::Command));
        assert_eq!(refusal("shop", "https://shop/orders", word), of_its_own, "{word}");
        assert_eq!(refusal("old", "anything", word), expected, "{word}");
        let expected = (kind != CommandType::Notification).then_some(Refusal::Command);
        for webhooks in ["hooks", "worker"] {
            assert_eq!(refusal(webhooks, "webhooks/cards", word), expected, "{webhooks} {word}");
        }
    }
    // Rejected as unknown, under a name of the user's own.
    assert_eq!(refusal("shop", "https://shop/orders", "payment.bogus"), None);
    assert_eq!(refusal("hooks", "webhooks/cards", "payment.bogus"), Some(Refusal::Command));
    // Without a queue it would go to all subscribers.
    assert_eq!(authorization.refusal(&command("payment.resend")), Some(Refusal::Command));
    assert_eq!(authorization.refusal(&by("alice", command("payment.resend"))), None);
    let nowhere = by("old", from("anything", command("events.resend")));
    assert_eq!(authorization.refusal(&nowhere), Some(Refusal::Command));
}

#[test]
fn a_command_names_a_configured_user() {
    let authorization = configured(&USERS);
    let mut nobodys = command("payment.refund");
    nobodys.attributes.user_id = None;
    assert_eq!(authorization.refusal(&nobodys), Some(Refusal::NoUser));
    for stranger in ["", "Shop", "shop.eu", "stranger"] {
        assert_eq!(authorization.refusal(&by(stranger, command("payment.refund"))), Some(Refusal::UnknownUser));
    }
}

#[test]
fn variants_sources_and_reply_queues_are_a_users_own() {
    let authorization = configured(&USERS);
    let check = |command: Command, expected: Option<Refusal>| {
        assert_eq!(authorization.refusal(&command), expected, "{command:?}");
    };
    let refund = || command("payment.refund");
    check(refund(), None);
    check(through("debit", refund()), Some(Refusal::Variant));
    check(through("none", refund()), Some(Refusal::Variant));
    check(from("https://shop/pos/", refund()), None);
    check(from("https://shop/pos/7", refund()), None);
    for source in ["https://shop/orders/1", "https://shop/po", "https://shop/pos", "rival", "", "x", "zzz"] {
        check(from(source, refund()), Some(Refusal::Source));
    }
    // A user without sources of its own may use those that nobody claims.
    let old = |source: &str| by("old", from(source, through("debit", refund())));
    check(old("x"), None);
    for source in ["https://shop/orders", "https://shop/pos/7", "rival", "paybus", "webhooks/cards"] {
        check(old(source), Some(Refusal::Source));
    }
    check(by("hooks", from("https://shop/orders", command("payment.notification"))), Some(Refusal::Source));
    for queue in ["reply.shop.1", "reply.shop.a.b", "amq.rabbitmq.reply-to.g1AAA.x=="] {
        check(to(queue, refund()), None);
    }
    for queue in ["reply.shop", "reply.shop.", "reply.shopper.1", "reply.rival.1", "orders", "reply."] {
        check(to(queue, refund()), Some(Refusal::ReplyTo));
        check(to(queue, by("alice", refund())), None);
    }
}

#[test]
fn a_refusal_is_sent_only_to_queues_of_its_user() {
    let authorization = configured(&USERS);
    let reply_to = |command: &Command| authorization.reply_to_refused(command).map(|reply| reply.to.clone());
    let refund = |user: &str, queue: &str| to(queue, by(user, command("payment.refund")));
    for (user, queue, may_receive) in [
        ("shop", "reply.shop.1", true),
        ("shop", "reply.rival.1", false),
        ("stranger", "reply.stranger.1", false),
        ("stranger", "amq.rabbitmq.reply-to.g1", true),
        ("alice", "reply.shop.1", true),
    ] {
        assert_eq!(reply_to(&refund(user, queue)), may_receive.then(|| queue.to_owned()), "{user} {queue}");
    }
    assert_eq!(reply_to(&command("payment.refund")), None);
}

fn payment(source: Option<&str>) -> Payment {
    let data = json!({ "variant": "cards", "total": "1.00", "currency": "EUR" });
    let Ok(Body::Create(new)) = Body::parse(CommandType::Create, data.as_object().unwrap()) else {
        panic!("a good command");
    };
    let mut payment = Payment::new(Uuid::nil(), new.order, "dummy", "dummy", jiff::Timestamp::UNIX_EPOCH);
    payment.source = source.map(str::to_owned);
    payment
}

#[test]
fn a_payment_is_for_those_whose_source_created_it() {
    let authorization = configured(&USERS);
    for (user, source, may) in [
        (Some("shop"), Some("https://shop/orders"), true),
        (Some("shop"), Some("https://shop/pos/9"), true),
        (Some("shop"), Some("rival"), false),
        (Some("shop"), Some("unclaimed"), false),
        (Some("shop"), None, false),
        (Some("rival"), Some("https://shop/orders"), false),
        (Some("old"), Some("https://shop/orders"), true),
        (Some("old"), None, true),
        (Some("alice"), Some("rival"), true),
        // Not decided here: such commands are refused elsewhere, or were authorized before.
        (Some("stranger"), Some("rival"), true),
        (None, Some("rival"), true),
    ] {
        assert_eq!(authorization.may_act_on(user, &payment(source)), may, "{user:?} {source:?}");
    }
}

#[test]
fn what_only_asks_is_limited_for_each_user_and_nothing_else() {
    let authorization = configured(&[&USERS[..], &[("PAYBUS__USERS__SHOP__READ_RATE", "0.001")]].concat());
    let is_one_too_many = |user: &str, kind: &str| authorization.is_one_too_many(&by(user, command(kind)));
    assert!(!is_one_too_many("shop", "payment.sync"));
    for kind in CommandType::iter() {
        let only_asks = kind == CommandType::Sync || kind.is_read_only();
        assert_eq!(is_one_too_many("shop", kind.as_str()), only_asks, "{kind}");
        assert!(!is_one_too_many("old", kind.as_str()), "{kind}");
    }
    assert!(!is_one_too_many("shop", "payment.bogus"));
    assert!(!authorization.is_one_too_many(&Command { attributes: Attributes::default(), ..command("payment.sync") }));
}

#[test]
fn no_refusal_says_anything_of_the_command() {
    let rejection = Rejection::from(Refusal::Source);
    assert_eq!((rejection.code, rejection.message), (Code::NotAuthorized, Refusal::Source.message().to_owned()));
}

fn covers(pattern: &str, source: &str) -> bool {
    let Sources { text, is_prefix } = Sources::read(pattern);
    source == text || is_prefix && source.starts_with(text)
}

fn overlap(one: &str, other: &str) -> bool {
    covers(one, Sources::read(other).text) || covers(other, Sources::read(one).text)
}

proptest! {
    /// The one pattern that is looked at is the one that counts.
    #[test]
    fn a_source_is_whose_pattern_covers_it(
        patterns in proptest::collection::vec("[ab/]{1,4}[*]?", 0..8),
        sources in proptest::collection::vec("[ab/]{0,6}", 1..20),
    ) {
        let mut claimed: Vec<&String> = Vec::new();
        for pattern in &patterns {
            if claimed.iter().all(|other| !overlap(other, pattern)) {
                claimed.push(pattern);
            }
        }
        let mut authorization = Authorization::default();
        for (number, pattern) in claimed.iter().enumerate() {
            let sources = Some(vec![(*pattern).clone()]);
            let user = Configured { role: Role::Service, variants: None, sources, read_rate: None };
            authorization.add(&number.to_string(), &user);
        }
        for source in &sources {
            let expected = claimed.iter().position(|pattern| covers(pattern, source)).map(|number| number.to_string());
            prop_assert_eq!(authorization.owner(source), expected.as_deref(), "{}", source);
        }
    }
}
