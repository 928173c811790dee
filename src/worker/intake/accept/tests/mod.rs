//! Whatever a message contains, parsing it does not panic, it is answered under its own name or dead-lettered, and no
//! part of a card number is kept.

use std::sync::LazyLock;

use jiff::Timestamp;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::json;
use strum::IntoEnumIterator;

use super::data::has_nul;
use crate::config;
use crate::gateway::signature::sign;
use crate::payment::fact::{Fact, facts_data};
use crate::worker::intake::accept::*;

mod amounts;
mod contract;
mod modes;

const PAYMENT: &str = "0192f0c1-5f0c-7a10-8c21-1f2e3d4c5b6a";
const CARD: &str = "4242424242424242";
const SECRET: &str = "whsec_1";

fn acceptance() -> Acceptance {
    let variables = [
        ("PAYBUS__VARIANTS__DEFAULT__GATEWAY", "dummy"),
        ("PAYBUS__VARIANTS__CARDS__GATEWAY", "http"),
        ("PAYBUS__VARIANTS__CARDS__URL", "http://127.0.0.1:9"),
        ("PAYBUS__VARIANTS__CARDS__WEBHOOK_SECRET", SECRET),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let settings = config::load(None, variables.into_iter()).unwrap();
    Acceptance::configured(&settings).unwrap()
}

/// Created once: each gateway has its own HTTP client, which is slow to set up.
static ACCEPTANCE: LazyLock<Acceptance> = LazyLock::new(acceptance);

fn read(body: &[u8], routing_key: &str) -> Accepted {
    ACCEPTANCE.accept(&message(body, routing_key))
}

fn message<'a>(body: &'a [u8], routing_key: &'a str) -> Message<'a> {
    Message {
        body,
        routing_key,
        reply_to: Some("reply.shop"),
        correlation_id: Some("c-1"),
        user_id: Some("shop"),
        content_type: None,
        headers: &[],
    }
}

/// A valid command of each type.
fn good(kind: CommandType) -> Value {
    let data = match kind {
        CommandType::Create => json!({
            "variant": "default", "description": "Book purchase", "total": "120.00", "tax": "20.00",
            "currency": "USD", "delivery": "10.00", "billing_first_name": "Sherlock", "billing_postcode": "NW1 6XE",
            "billing_country_code": "GB", "customer_ip_address": "127.0.0.1", "capture": true,
            "process": {"status": "confirmed"},
        }),
        CommandType::Process => json!({"process": {"status": "confirmed"}, "capture": false}),
        CommandType::Capture | CommandType::Refund => json!({"amount": "12.50"}),
        CommandType::Release | CommandType::Cancel | CommandType::Sync | CommandType::Snapshot => json!({}),
        CommandType::Resend => json!({"from": "4"}),
        CommandType::ResendEvents => json!({"after": "41", "since": "2026-11-22T12:00:00Z"}),
        CommandType::Status => json!({"source": "shop", "id": "pay-1"}),
        CommandType::Notification => webhook(&json!({"id": "n-1", "payment_id": PAYMENT, "card": CARD})).data(),
        CommandType::Resolve => json!({
            "operation": PAYMENT, "outcome": "approved", "amount": "1.00", "transaction_id": "t-1",
            "evidence": "the gateway's ledger",
        }),
        CommandType::Retry => json!({"operation": PAYMENT, "at": "2026-11-22T13:00:00Z", "reason": "it is back"}),
        CommandType::Withdraw => json!({"operation": PAYMENT, "reason": "entered twice"}),
        CommandType::Pause => json!({"reason": "it charges twice", "until": "2026-11-22T13:00:00Z"}),
        CommandType::Resume => json!({"reason": "their fix is deployed"}),
    };
    json!({
        "specversion": "1.0", "id": "c-1", "source": "shop/checkout", "type": kind.as_str(), "subject": PAYMENT,
        "time": "2026-11-22T12:00:00Z", "correlationid": "cart-7", "expirytime": "2026-11-23T12:00:00Z",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "data": data,
    })
}

/// A webhook as the gateway of `cards` sends it.
fn webhook(body: &Value) -> Webhook {
    let received_at: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
    let body = body.to_string().into_bytes();
    let signature = sign(SECRET, received_at.as_second(), &body);
    Webhook {
        received_at,
        method: "POST".to_owned(),
        url: "/webhooks/cards".to_owned(),
        headers: vec![("paybus-signature".to_owned(), signature)],
        body,
    }
}

fn notification(webhook: &Webhook) -> Value {
    let mut command = good(CommandType::Notification);
    command["data"] = webhook.data();
    command
}

fn read_notification(command: &Value) -> Box<Command> {
    match read(command.to_string().as_bytes(), &key_of(CommandType::Notification)) {
        Accepted::Command(command) => command,
        dead => panic!("{dead:?}"),
    }
}

fn key_of(kind: CommandType) -> String {
    // Only `cards` has webhooks.
    let variant = if kind == CommandType::Notification { "cards" } else { "default" };
    format!("{variant}.{kind}")
}

/// Every text of a command that is stored or published. The `user_id` is left out, as the broker vouches for it.
fn kept(command: &Command) -> Vec<String> {
    let attributes = &command.attributes;
    let reply = attributes.reply.as_ref();
    let texts = [
        command.subject.as_ref(),
        attributes.correlation_id.as_ref(),
        reply.map(|reply| &reply.to),
        reply.and_then(|reply| reply.correlation_id.as_ref()),
        command.content.as_ref().err().map(|rejection| &rejection.message),
    ];
    let mut kept: Vec<String> = texts.into_iter().flatten().cloned().collect();
    let trace = attributes.trace.as_ref();
    let texts = [trace.map(TraceContext::parent), trace.and_then(TraceContext::state)];
    kept.extend(texts.into_iter().flatten().map(str::to_owned));
    kept.extend([command.name.source.clone(), command.name.id.clone(), command.kind.as_str().to_owned()]);
    kept.push(command.variant.clone());
    kept.push(Value::Object(command.data.clone()).to_string());
    kept
}

/// The invariants of everything that was parsed.
fn check(accepted: &Accepted) -> Result<(), TestCaseError> {
    let command = match accepted {
        Accepted::Dead(rejection) => {
            prop_assert!(!rejection.message.is_empty() && rejection.message.len() < 500);
            prop_assert!(!card::contains_card_number(&rejection.message), "{}", rejection.message);
            return Ok(());
        }
        Accepted::Command(command) => command,
    };
    for name in [&command.name.source, &command.name.id] {
        prop_assert!(!name.is_empty() && name.len() <= ATTRIBUTE_MAX && !name.contains('\0'), "{name:?}");
    }
    for text in kept(command) {
        prop_assert!(!card::contains_card_number(&text), "{text}");
    }
    prop_assert!(!has_nul(&Value::Object(command.data.clone())), "{:?}", command.data);
    if let Err(rejection) = &command.content {
        prop_assert!(!rejection.message.is_empty() && rejection.message.len() < 1000, "{}", rejection.message);
        prop_assert!(command.data.is_empty(), "{:?}", command.data);
    }
    Ok(())
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[ -~]{0,12}",
        2 => any::<String>(),
        1 => Just(String::new()),
        1 => Just("\0".to_owned()),
        1 => Just("x".repeat(5_000)),
        1 => Just(CARD.to_owned()),
        1 => Just(format!("pay with {CARD}, please")),
        1 => Just("5105 1051 0510 5100".to_owned()),
        1 => "-?[0-9]{0,14}(\\.[0-9]{0,4})?",
        1 => select(CommandType::iter().collect::<Vec<_>>()).prop_map(|kind| kind.as_str().to_owned()),
        1 => select(vec!["USD", "JPY", "1.0", "2.0", PAYMENT, "default", "cards", "env:HOME"]).prop_map(str::to_owned),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(|number| json!(number)),
        any::<f64>().prop_map(|number| json!(number)),
        Just(json!(4_242_424_242_424_242_u64)),
        text().prop_map(Value::String),
    ];
    leaf.prop_recursive(20, 48, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::vec((text(), inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn kind() -> impl Strategy<Value = CommandType> {
    select(CommandType::iter().collect::<Vec<_>>())
}

/// Where a command is changed: in the envelope or in its data, in an existing member or in a new one.
fn change() -> impl Strategy<Value = (bool, Option<Index>, String, Option<Value>)> {
    (any::<bool>(), proptest::option::weighted(0.7, any::<Index>()), text(), proptest::option::weighted(0.9, value()))
}

fn apply(command: &mut Value, (in_data, member, name, value): (bool, Option<Index>, String, Option<Value>)) {
    let object = if in_data { command.get_mut("data") } else { Some(command) };
    let Some(Value::Object(object)) = object else { return };
    let names: Vec<String> = object.keys().cloned().collect();
    let name = member.filter(|_| !names.is_empty()).map_or(name, |member| member.get(&names).clone());
    match value {
        Some(value) => object.insert(name, value),
        None => object.remove(&name),
    };
}

proptest! {
    #[test]
    fn any_bytes_are_dead_lettered(body in proptest::collection::vec(any::<u8>(), 0..200), key in text()) {
        check(&read(&body, &key))?;
    }

    #[test]
    fn any_json_is_named_or_dead_lettered(body in value(), key in text()) {
        check(&read(body.to_string().as_bytes(), &key))?;
    }

    #[test]
    fn a_changed_command_is_named_or_dead_lettered(
        kind in kind(),
        changes in proptest::collection::vec(change(), 1..4),
        key in proptest::option::weighted(0.2, text()),
    ) {
        let mut command = good(kind);
        for change in changes {
            apply(&mut command, change);
        }
        check(&read(command.to_string().as_bytes(), &key.unwrap_or_else(|| key_of(kind))))?;
    }

    /// Whatever its data is, the sender gets an answer.
    #[test]
    fn wrong_data_is_answered_under_the_commands_own_name(kind in kind(), data in value()) {
        let mut command = good(kind);
        command["data"] = data;
        let accepted = read(command.to_string().as_bytes(), &key_of(kind));
        check(&accepted)?;
        let Accepted::Command(read) = accepted else { return Err(TestCaseError::fail(format!("{accepted:?}"))) };
        let name = CommandName { source: "shop/checkout".to_owned(), id: "c-1".to_owned() };
        prop_assert_eq!((read.payment_id.to_string(), &read.name), (PAYMENT.to_owned(), &name));
    }

    /// The properties that the broker delivers beside the body are bounded; answers go only where the configuration
    /// allows.
    #[test]
    fn any_properties_are_taken_or_refused(
        kind in kind(),
        key in prop_oneof![Just(None), text().prop_map(Some)],
        reply_to in proptest::option::of(prop_oneof![text(), Just("reply.shop".to_owned()), "reply\\.[a-z.*#-]{0,300}"]),
        correlation_id in proptest::option::of(text()),
        user_id in proptest::option::of(text()),
    ) {
        let (body, key) = (good(kind).to_string(), key.unwrap_or_else(|| key_of(kind)));
        let accepted = ACCEPTANCE.accept(&Message {
            reply_to: reply_to.as_deref(),
            correlation_id: correlation_id.as_deref(),
            user_id: user_id.as_deref(),
            ..message(body.as_bytes(), &key)
        });
        check(&accepted)?;
        let Accepted::Command(command) = accepted else { return Err(TestCaseError::fail("it names itself")) };
        if let Some(reply) = &command.attributes.reply {
            prop_assert_eq!(Some(&reply.to), reply_to.as_ref());
            prop_assert!(ACCEPTANCE.reply_to.is_match(&reply.to) && reply.to.len() <= ATTRIBUTE_MAX, "{}", reply.to);
            prop_assert_eq!(&reply.correlation_id, &correlation_id);
        }
        let is_known = command.variant == NO_VARIANT || ACCEPTANCE.variants.contains_key(&command.variant);
        prop_assert!(is_known, "{}", command.variant);
        prop_assert!(command.content.is_err() || key == key_of(kind) || kind != CommandType::Create, "{key}");
    }

    /// A bit is flipped, a byte is lost, or the rest is missing.
    #[test]
    fn damaged_bytes_are_named_or_dead_lettered(kind in kind(), at in any::<Index>(), byte in any::<u8>(), way in 0..4) {
        let mut body = good(kind).to_string().into_bytes();
        let at = at.index(body.len());
        match way {
            0 => body[at] = byte,
            1 => body.insert(at, byte),
            2 => drop(body.remove(at)),
            _ => body.truncate(at),
        }
        check(&read(&body, &key_of(kind)))?;
    }
}

#[test]
fn a_good_command_of_every_type_is_accepted() {
    for kind in CommandType::iter() {
        match read(good(kind).to_string().as_bytes(), &key_of(kind)) {
            Accepted::Command(command) => assert!(command.content.is_ok(), "{kind}: {:?}", command.content),
            other => panic!("{kind}: {other:?}"),
        }
    }
}

/// PostgreSQL cannot store it, so such a command could not be stored at all.
#[test]
fn a_nul_character_anywhere_in_the_data_is_refused() {
    for process in [json!({"a": "x\0"}), json!({"a\0": 1}), json!({"a": [{"b": ["\0"]}]})] {
        let mut command = good(CommandType::Process);
        command["data"]["process"] = process;
        let Accepted::Command(read) = read(command.to_string().as_bytes(), "cards.payment.process") else {
            panic!("it names itself: {command}")
        };
        assert_eq!(read.content.map_err(|rejection| rejection.code), Err(Code::InvalidEncoding), "{command}");
    }
}

/// Whatever a stranger wrote, and wherever: the rejection message fits into a line or two.
#[test]
fn a_rejection_does_not_quote_at_length() {
    let long = || "x".repeat(900_000);
    let wrong = |kind: CommandType, at: &str, value: Value| {
        let mut command = good(kind);
        *command.pointer_mut(at).unwrap() = value;
        command.to_string()
    };
    let attribute = "\u{1}".repeat(ATTRIBUTE_MAX);
    let create = CommandType::Create;
    let key = key_of(create);
    let mut bodies: Vec<(String, String)> = [
        ("/data/process", json!({long(): 1})),
        ("/data/process", json!({"status": long()})),
        ("/data", json!({"variant": "default", "total": "1", "currency": "USD", long(): 1})),
        ("/data/variant", json!(long())),
        ("/data/currency", json!(long())),
        ("/data/total", json!(long())),
        ("/data/tax", json!({long(): long()})),
        ("/subject", json!(attribute)),
        ("/subject", json!(long())),
        ("/type", json!(attribute)),
        ("/id", json!({long(): 1})),
    ]
    .map(|(at, value)| (wrong(create, at, value), key.clone()))
    .into();
    bodies.push((good(create).to_string(), attribute.clone()));
    bodies.push((good(create).to_string(), format!("{}.{create}", &attribute[1..])));
    for (body, key) in bodies {
        let rejection = match read(body.as_bytes(), &key) {
            Accepted::Command(command) => command.content.unwrap_err(),
            Accepted::Dead(rejection) => rejection,
        };
        let length = rejection.message.chars().count();
        assert!(length < 500, "{:?}: {length} characters", rejection.code);
    }
}

/// Its data is the gateway's own; everything around it is published in events.
#[test]
fn around_a_notifications_data_a_card_number_is_refused() {
    let escaped: String = CARD.chars().map(|digit| format!("\\u{:04x}", u32::from(digit))).collect();
    for card in [CARD, &escaped] {
        for name in ["correlationid", "traceparent", "tracestate"] {
            let mut command = good(CommandType::Notification);
            command[name] = json!("HERE");
            let body = command.to_string().replace("HERE", card);
            let accepted = read(body.as_bytes(), &key_of(CommandType::Notification));
            let Accepted::Command(read) = &accepted else { panic!("{accepted:?}") };
            assert_eq!(read.content.as_ref().unwrap_err().code, Code::CardNumber, "{name}");
            assert!(check(&accepted).is_ok(), "{name}: {accepted:?}");
        }
    }
    // The gateway may send anything; what is kept of it is checked as for every command.
    let said = webhook(&json!({"id": CARD, "payment_id": PAYMENT, "number": CARD}));
    let accepted = read(notification(&said).to_string().as_bytes(), &key_of(CommandType::Notification));
    assert!(matches!(&accepted, Accepted::Command(read) if read.content.is_ok()), "{accepted:?}");
    assert!(check(&accepted).is_ok(), "{accepted:?}");
}

#[test]
fn of_a_genuine_notification_its_facts_are_kept_and_nothing_else() {
    let news = json!({"id": "n-1", "payment_id": PAYMENT, "type": "refunded", "email": "sherlock@example.org"});
    let command = read_notification(&notification(&webhook(&news)));
    let fact = Fact {
        key: Some("n-1".to_owned()),
        payment_id: Some(PAYMENT.parse().unwrap()),
        kind: "refunded".to_owned(),
        ..Fact::default()
    };
    assert_eq!(command.data, facts_data(std::slice::from_ref(&fact)));
    assert_eq!(command.content, Ok(Body::Notification(vec![fact])));
}

/// A webhook that is sent again has another time, another signature and perhaps another attempt count.
#[test]
fn the_same_notification_is_the_same_command_however_it_is_sent_again() {
    let first = read_notification(&notification(&webhook(&json!({"id": "n-1", "payment_id": PAYMENT, "try": 1}))));
    let again = read_notification(&notification(&webhook(&json!({"id": "n-1", "payment_id": PAYMENT, "try": 2}))));
    assert_eq!((first.operation_id(), first.hash), (again.operation_id(), again.hash));
    let mut forged = webhook(&json!({"id": "n-1", "payment_id": PAYMENT, "try": 1}));
    forged.body.push(b' ');
    assert_ne!(read_notification(&notification(&forged)).hash, first.hash, "one that is not genuine is not the same");
}

#[test]
fn a_notification_that_the_gateway_did_not_send_is_rejected() {
    let genuine = webhook(&json!({"id": "n-1", "payment_id": PAYMENT}));
    let code = |webhook: &Webhook| read_notification(&notification(webhook)).content.unwrap_err().code;
    let unsigned = Webhook { headers: Vec::new(), ..genuine.clone() };
    let late = Webhook { received_at: "2026-11-22T12:05:01Z".parse().unwrap(), ..genuine.clone() };
    let other = Webhook { body: b"{}".to_vec(), ..genuine.clone() };
    for forged in [unsigned, late, other] {
        assert_eq!(code(&forged), Code::NotGenuine);
    }
    // It is about another payment.
    let of_another = webhook(&json!({"id": "n-1", "payment_id": Uuid::nil()}));
    assert_eq!(code(&of_another), Code::InvalidData);
    // And nobody can assert facts as if they had been verified.
    let mut command = notification(&genuine);
    command["data"] = json!({"facts": [{"kind": "refunded"}]});
    assert_eq!(read_notification(&command).content.unwrap_err().code, Code::InvalidData);
}

/// An unknown field is rejected by name, and a stranger chose that name.
#[test]
fn a_field_called_by_a_card_number_is_not_named() {
    let mut command = good(CommandType::Notification);
    command["data"][CARD] = json!(1);
    let accepted = read(command.to_string().as_bytes(), &key_of(CommandType::Notification));
    assert!(check(&accepted).is_ok(), "{accepted:?}");
    assert!(matches!(&accepted, Accepted::Command(read) if read.content.is_err()), "{accepted:?}");
}

/// A payment id in capitals names the same payment, and the same command.
#[test]
fn an_id_in_capitals_names_the_same() {
    let read_of = |subject: &str| {
        let mut command = good(CommandType::Sync);
        command["subject"] = json!(subject);
        match read(command.to_string().as_bytes(), &key_of(CommandType::Sync)) {
            Accepted::Command(command) => command,
            dead => panic!("{dead:?}"),
        }
    };
    let (small, capitals) = (read_of(PAYMENT), read_of(&PAYMENT.to_uppercase()));
    assert_eq!(capitals.content, small.content);
    assert_eq!((capitals.payment_id, capitals.operation_id()), (small.payment_id, small.operation_id()));
    assert_eq!(capitals.subject, None, "events write it in small letters");
}
