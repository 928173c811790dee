//! Stripe's own SDK: its client uses our in-memory Stripe like the real one, and its signatures are the reference for
//! ours.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::Mutex;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use serde_json::json;
use tokio::sync::mpsc;

use super::installed;
use crate::support::fake_stripe::FakeStripe;
use crate::support::{Command, Setup};

/// The Python that has the SDK installed.
fn python() -> Option<PathBuf> {
    installed("python", "bin/python")
}

/// Runs a command of `tests/third_party/stripe_sdk.py` with this standard input.
async fn sdk(python: PathBuf, arguments: &[&str], input: &str) -> Output {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/third_party/stripe_sdk.py");
    let mut command = std::process::Command::new(python);
    command.arg(script).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let input = input.to_owned();
    let run = move || {
        let mut child = command.spawn().expect("the SDK starts");
        child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("it reads");
        child.wait_with_output().expect("it ends")
    };
    tokio::task::spawn_blocking(run).await.expect("no panic")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn the_sdks_client_goes_through_our_stripe() {
    let Some(python) = python() else { return };
    let stripe = FakeStripe::start();
    let output = sdk(python, &["client", &stripe.url()], "").await;
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

#[tokio::test]
async fn the_sdk_takes_the_events_of_our_stripe() {
    let Some(python) = python() else { return };
    let stripe = FakeStripe::start();
    let (send, mut received) = mpsc::unbounded_channel();
    let router = Router::new().route("/hook", post(receive)).with_state(std::sync::Arc::new(Mutex::new(send)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    stripe.deliver_webhooks(&url, "whsec_judge");

    let client = sdk(python.clone(), &["client", &stripe.url()], "").await;
    assert!(client.status.success(), "{}", text(&client.stderr));
    let (signature, body): (String, String) = received.recv().await.expect("an event");
    let verified = sdk(python.clone(), &["verify", "whsec_judge", &signature], &body).await;
    assert!(verified.status.success(), "{}", text(&verified.stderr));
    assert!(text(&verified.stdout).contains("payment_intent.created"), "{}", text(&verified.stdout));
    for (secret, body) in [("whsec_other", body.clone()), ("whsec_judge", body.replace("12000", "12001"))] {
        let refused = sdk(python.clone(), &["verify", secret, &signature], &body).await;
        assert!(!refused.status.success(), "{}", text(&refused.stdout));
    }
}

#[tokio::test]
async fn what_the_sdk_signed_is_taken_and_nothing_else() {
    const SECRET: &str = "whsec_judge";
    let Some(python) = python() else { return };
    let stripe = FakeStripe::start();
    let setup = Setup::new()
        .set("variants.stripe.gateway", "stripe")
        .set("variants.stripe.secret_key", "sk_test_judge")
        .set("variants.stripe.webhook_secret", SECRET)
        .set("variants.stripe.api_base", &stripe.url())
        .set("variants.stripe.settle_window", "0s");
    let world = setup.build().await;
    let worker = world.worker().await;
    let charge = Command::charge("stripe", "120.00", "USD").with("process", json!({"payment_method": "pm_card_visa"}));
    let paid = world.run(&charge).await;
    stripe.refund_by_hand(paid.field("transaction_id"), 2_000);
    let (_, body) = stripe.signed_event(paid.field("transaction_id"), SECRET);

    let sign = async |arguments: &[&str]| text(&sdk(python.clone(), arguments, &body).await.stdout).trim().to_owned();
    let post = async |signature: &str, body: &str| {
        let request = reqwest::Client::new().post(format!("{}/webhooks/stripe", worker.http()));
        let request = request.header("Stripe-Signature", signature).body(body.to_owned());
        request.send().await.expect("an answer").status().as_u16()
    };
    let signature = sign(&["sign", SECRET]).await;
    let old = (jiff::Timestamp::now().as_second() - 600).to_string();
    assert_eq!(post(&sign(&["sign", "whsec_other"]).await, &body).await, 400);
    assert_eq!(post(&sign(&["sign", SECRET, &old]).await, &body).await, 400);
    assert_eq!(post(&signature, &body.replacen("2000", "2001", 1)).await, 400);
    assert_eq!(post(&signature, &body).await, 200);
    let refunded = world.event("the refund", |event| event.field("refunded_amount") == "20.00").await;
    assert_eq!((refunded.kind(), refunded.field("captured_amount")), ("payment.updated", "100.00"));
    world.check_books().await;
}

type Received = std::sync::Arc<Mutex<mpsc::UnboundedSender<(String, String)>>>;

/// Receives an event.
async fn receive(State(send): State<Received>, headers: HeaderMap, body: String) {
    let signature = headers["stripe-signature"].to_str().expect("a signature").to_owned();
    // The test waits for only one.
    send.lock().unwrap().send((signature, body)).unwrap_or_default();
}
