//! Steady checks requests strictly against an OpenAPI description: an unknown field, a wrong type or a missing field is
//! an error. Stripe's description is installed from a registry too, unless `PAYBUS_STRIPE_SPEC` names a file.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};

use paybus::config;
use paybus::gateway::{Action, Gateway, registry};

use super::{Server, installed};
use crate::support::direct::{Direct, usd};
use crate::support::fake_stripe::{Call, FakeStripe};

/// Stripe's forms write objects and arrays with brackets.
const BRACKETS: [&str; 4] = [
    "--validator-form-object-format=brackets",
    "--validator-form-array-format=brackets",
    "--validator-query-object-format=brackets",
    "--validator-query-array-format=brackets",
];

/// A request as it was sent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    pub method: String,
    /// Including the query.
    pub path: String,
    /// The form, if there is one.
    pub body: String,
}

/// The checker.
pub struct Steady {
    server: Server,
    client: reqwest::Client,
}

impl Steady {
    /// Starts it, if it and the description are installed.
    pub async fn with_stripe() -> Option<Steady> {
        let given = std::env::var_os("PAYBUS_STRIPE_SPEC").map(PathBuf::from);
        let spec = given.or_else(|| installed("stripe-spec", "stripe.com.json"))?;
        let program = installed("steady", "node_modules/.bin/steady")?;
        let arguments = |port: u16| {
            let usual = ["--quiet", "--host", "127.0.0.1"].into_iter().chain(BRACKETS).map(str::to_owned);
            usual.chain(["--port".to_owned(), port.to_string(), spec.to_string_lossy().into_owned()]).collect()
        };
        Some(Steady { server: Server::start(&program, arguments).await, client: reqwest::Client::new() })
    }

    /// Returns what is wrong with a request.
    pub async fn check(&self, request: &Request) -> Result<(), String> {
        let method: Method = request.method.parse().expect("a method");
        let mut asked = self.client.request(method, format!("{}{}", self.server.url, request.path));
        let body = as_described(request);
        if !body.is_empty() {
            asked = asked.header("content-type", "application/x-www-form-urlencoded").body(body);
        }
        let answer = asked.send().await.expect("the checker answers");
        let valid = answer.headers().get("x-steady-request-valid").is_some_and(|valid| valid == "true");
        let status = answer.status();
        let text = answer.text().await.expect("the checker's text");
        if valid && status.is_success() { Ok(()) } else { Err(format!("{status}: {text}")) }
    }
}

/// Checks requests against Stripe's description, if the checker is installed.
pub async fn check_calls(calls: &[Call]) {
    let Some(steady) = Steady::with_stripe().await else { return };
    let requests: BTreeSet<Request> = calls.iter().map(request).collect();
    assert!(!requests.is_empty(), "nothing was sent");
    let mut wrong = Vec::new();
    for request in &requests {
        if let Err(why) = steady.check(request).await {
            wrong.push(format!("{request:?}\n  {why}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} requests are wrong:\n{}", wrong.len(), requests.len(), wrong.join("\n"));
}

/// A body without the one field that is newer than the registry's description: `final_capture`, a boolean of a capture
/// in Stripe's own SDK and reference (<https://docs.stripe.com/api/payment_intents/capture>).
fn as_described(request: &Request) -> String {
    let is_newer = |field: &&str| {
        request.path.ends_with("/capture") && matches!(*field, "final_capture=true" | "final_capture=false")
    };
    request.body.split('&').filter(|field| !is_newer(field)).collect::<Vec<_>>().join("&")
}

fn request(call: &Call) -> Request {
    let is_question = matches!(call.kind, "retrieve" | "search" | "list");
    let method = if is_question { "GET" } else { "POST" };
    Request { method: method.to_owned(), path: format!("{}{}", call.path, call.query), body: call.body.clone() }
}

fn post(path: &str, body: &str) -> Request {
    Request { method: "POST".to_owned(), path: path.to_owned(), body: body.to_owned() }
}

#[tokio::test]
async fn steady_rejects_wrong_requests() {
    let Some(steady) = Steady::with_stripe().await else { return };
    let right = "amount=100&currency=usd&confirm=true&capture_method=manual&metadata[a]=b";
    assert_eq!(steady.check(&post("/v1/payment_intents", right)).await, Ok(()));
    for wrong in ["amount=100&currency=usd&surprise=1", "amount=much&currency=usd", "currency=usd"] {
        let judged = steady.check(&post("/v1/payment_intents", wrong)).await;
        assert!(judged.is_err(), "{wrong} passed");
    }
    assert!(steady.check(&post("/v1/no_such_thing", right)).await.is_err());
}

/// Everything that a shop may specify about how its customer pays.
#[tokio::test]
async fn every_process_object_is_sent_as_stripe_describes_it() {
    let stripe = FakeStripe::start();
    let variables = [
        ("PAYBUS__VARIANTS__CARDS__GATEWAY", "stripe".to_owned()),
        ("PAYBUS__VARIANTS__CARDS__SECRET_KEY", "sk_test_judge".to_owned()),
        ("PAYBUS__VARIANTS__CARDS__API_BASE", stripe.url()),
        ("PAYBUS__VARIANTS__CARDS__STATEMENT_DESCRIPTOR_SUFFIX", "BOOKS".to_owned()),
    ];
    let settings =
        config::load(None, variables.into_iter().map(|(name, value)| (name.to_owned(), value))).expect("settings");
    let adapter = registry::build(&settings.variants["cards"]).expect("an adapter");
    let back = "https://shop.example/back";
    let objects = [
        json!({"payment_method": "pm_card_visa", "customer": "cus_1", "setup_future_usage": "off_session"}),
        json!({"payment_method": "pm_card_visa", "off_session": true, "mandate": "mandate_1"}),
        json!({"payment_method": "pm_card_visa", "payment_method_types": ["card", "link"], "return_url": back}),
        json!({"payment_method": "pm_card_threeDSecure2Required", "use_stripe_sdk": true}),
        json!({"payment_method": "pm_card_visa", "return_url": back,
               "automatic_payment_methods": {"enabled": true, "allow_redirects": "always"}}),
    ];
    for object in &objects {
        adapter.check(object.as_object().expect("an object")).expect("it is accepted");
        go_through(&adapter, object).await;
    }
    check_calls(&stripe.calls()).await;
}

/// Creates, continues, holds, captures, refunds, releases and looks up payments.
async fn go_through(adapter: &Arc<dyn Gateway>, process: &Value) {
    use Action::{Cancel, Capture, Process, Refund, Release};
    for (capture, then) in [(true, [Refund, Refund]), (false, [Capture, Refund]), (false, [Release, Cancel])] {
        let mut direct = Direct::new(Arc::clone(adapter), "stripe", usd("120.00"), process.clone());
        direct.capture = capture;
        for _ in 0..2 {
            let outcome = direct.process().await;
            direct.learn(&outcome);
            direct.next_operation();
        }
        for action in then {
            direct.send(action, usd("10.00")).await;
            direct.ask(Some(action)).await;
            direct.next_operation();
        }
        direct.ask(None).await;
        direct.payment.transaction_id.clear();
        direct.ask(Some(Process)).await;
        direct.ask(None).await;
    }
}
