//! Stripe's own SDK: its client goes through our Stripe in memory as through the real one, and its signatures are the ones
//! that ours must be.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use tokio::sync::mpsc;

use super::installed;
use crate::support::fake_stripe::FakeStripe;

/// The Python that has the SDK.
fn python() -> Option<PathBuf> {
    installed("python", "bin/python")
}

/// Runs a command of `tests/judges/stripe_sdk.py`, with this on its standard input.
async fn sdk(python: PathBuf, arguments: &[&str], input: &str) -> Output {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/judges/stripe_sdk.py");
    let mut command = Command::new(python);
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

type Received = std::sync::Arc<Mutex<mpsc::UnboundedSender<(String, String)>>>;

/// Takes an event in.
async fn receive(State(send): State<Received>, headers: HeaderMap, body: String) {
    let signature = headers["stripe-signature"].to_str().expect("a signature").to_owned();
    // Nobody waits for more than one.
    send.lock().unwrap().send((signature, body)).unwrap_or_default();
}
