//! Reads messages as a worker does: whatever the bytes are, they are a command that names itself or a dead letter, both in a
//! few words.
//!
//! The first line is the routing key, the rest the body.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use paybus::config;
use paybus::payment::card::contains_card_number;
use paybus::worker::intake::accept::{Acceptance, Accepted, Message};
use paybus::payment::command::ATTRIBUTE_MAX;

static ACCEPTANCE: LazyLock<Acceptance> = LazyLock::new(|| {
    let variables = [
        ("PAYBUS__VARIANTS__DEFAULT__GATEWAY", "dummy"),
        ("PAYBUS__VARIANTS__CARDS__GATEWAY", "stripe"),
        ("PAYBUS__VARIANTS__CARDS__SECRET_KEY", "sk_test_x"),
        ("PAYBUS__VARIANTS__OWN__GATEWAY", "http"),
        ("PAYBUS__VARIANTS__OWN__URL", "http://127.0.0.1:9"),
        ("PAYBUS__VARIANTS__OWN__WEBHOOK_SECRET", "whsec_x"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let settings = config::load(None, variables.into_iter()).expect("settings");
    Acceptance::configured(&settings).expect("gateways")
});

fuzz_target!(|bytes: &[u8]| {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (key, body) = bytes.split_at(end);
    let key = String::from_utf8_lossy(key);
    let accepted = ACCEPTANCE.accept(&Message {
        body: body.strip_prefix(b"\n").unwrap_or(body),
        routing_key: &key,
        reply_to: Some("reply.shop"),
        correlation_id: Some("c-1"),
        user_id: Some("shop"),
        content_type: None,
        headers: &[],
    });
    match accepted {
        Accepted::Dead(rejection) => assert!(!rejection.message.is_empty() && rejection.message.len() < 1_000),
        Accepted::Command(command) => {
            for name in [&command.name.source, &command.name.id] {
                assert!(!name.is_empty() && name.len() <= ATTRIBUTE_MAX && !contains_card_number(name), "{name:?}");
            }
            if let Err(rejection) = command.content {
                assert!(rejection.message.len() < 1_000 && command.data.is_empty(), "{}", rejection.message);
                assert!(!contains_card_number(&rejection.message), "{}", rejection.message);
            }
        }
    }
});
