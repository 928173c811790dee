//! paybus from end to end: the real binary between a real broker, a real database and a gateway that misbehaves as
//! planned. Run by `scripts/with-services cargo test --test it`.

// A failing helper fails its test; clippy's own exception covers only functions that are marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

mod accounts;
mod amounts;
mod answers;
mod attacker;
mod authorization;
mod binary_mode;
mod books;
mod bus;
mod bus_consume;
mod bus_subscribers;
mod business_rules;
mod card_numbers;
mod catching_up;
mod compose;
mod conformance;
mod contract;
mod crashes;
mod database;
mod database_hang;
mod dead_letters;
mod docs;
mod drain;
mod dummy;
mod fake_gateway;
mod fake_stripe;
mod flows;
mod forget;
mod input;
mod interleavings;
mod limits;
mod list;
mod look_ups;
mod matrix;
mod messages;
mod migrations;
mod money;
mod operations;
mod pauses;
mod poison;
mod pooler;
mod privileges;
mod proofs;
mod ready;
mod replicas;
mod retention;
mod retries;
mod set_aside;
mod start;
mod steering;
mod store;
mod stripe;
mod stripe_customers;
mod stripe_look_ups;
mod stripe_webhooks;
mod third_party;
mod tidy;
mod tls;
mod tracing;
mod turns;
mod webhooks;
mod whole;
mod workers;
