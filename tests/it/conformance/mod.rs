//! The conformance kit: the same cases against every gateway. An adapter passes by naming its fake ([`fake::Fake`]).
//!
//! What a gateway declares of itself ([`paybus::payment::contract::Contract`]) decides which end a case expects: where a key
//! is honoured, a lost answer is asked for again under it; where it is not, the gateway is asked; where that is impossible
//! too, a person is. Where a user's promise is at stake the case goes through the real worker, broker and database, and the
//! fake's books say what was done; else it is held against the adapter itself.
//!
//! What a gateway cannot do, or its fake cannot play, a case ends with as [`fake::Unsupported`], and the table in
//! `docs/gateways.md` has to say the same: nothing is skipped silently.
//!
//! - `fake`: what a fake must be able to do. `dummy`, `http`, `stripe`: those there are.
//! - `kit`: the world that the cases run in, what they share, and the report.
//! - `money`, `declines`, `failures`, `answers`, `proofs`: the cases through the worker.
//! - `adapter`: the cases against the adapter itself.

mod adapter;
mod answers;
mod cases;
mod declines;
mod dummy;
mod failures;
mod fake;
mod http;
mod kit;
mod money;
mod proofs;
mod stripe;

use std::collections::BTreeSet;
use std::sync::Arc;

use paybus::gateway::registry::NAMES;

use self::dummy::DummyFake;
use self::http::HttpFake;
use self::stripe::StripeFake;
use crate::third_party::steady;

/// Every gateway that has a fake here.
const COVERED: &[&str] = &["dummy", "http", "stripe"];

#[tokio::test]
async fn dummy_keeps_its_contract() {
    kit::run(DummyFake).await;
}

#[tokio::test]
async fn http_keeps_its_contract() {
    kit::run(HttpFake::start("http", &[]).await).await;
}

#[tokio::test]
async fn http_without_keys_keeps_its_contract() {
    kit::run(HttpFake::start("http without keys", &[("key_window", "0s")]).await).await;
}

#[tokio::test]
async fn http_without_a_look_up_keeps_its_contract() {
    kit::run(HttpFake::start("http without a look-up", &[("lookup", "false")]).await).await;
}

#[tokio::test]
async fn http_with_neither_keeps_its_contract() {
    kit::run(HttpFake::start("http with neither", &[("key_window", "0s"), ("lookup", "false")]).await).await;
}

#[tokio::test]
async fn http_that_undoes_keeps_its_contract() {
    let contract = &[("key_window", "0s"), ("lookup", "false"), ("undo", "true")];
    kit::run(HttpFake::start("http that undoes", contract).await).await;
}

#[tokio::test]
async fn http_with_proof_webhooks_keeps_its_contract() {
    let contract =
        &[("key_window", "0s"), ("lookup", "false"), ("notifications", "proof"), ("notification_deadline", "3s")];
    kit::run(HttpFake::start("http by notifications", contract).await).await;
}

#[tokio::test]
async fn stripe_keeps_its_contract() {
    let fake = StripeFake::start();
    let stripe = Arc::clone(&fake.stripe);
    kit::run(fake).await;
    // All that was sent meanwhile, held against Stripe's published description.
    steady::check_calls(&stripe.calls()).await;
}

#[test]
fn every_gateway_has_its_fake_and_its_column() {
    let names: BTreeSet<&str> = NAMES.iter().copied().collect();
    assert_eq!(names, COVERED.iter().copied().collect(), "an adapter without a fake");
    assert_eq!(names, kit::columns().into_iter().collect(), "the columns of docs/gateways.md");
}
