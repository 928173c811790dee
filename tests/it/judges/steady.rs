//! Steady holds requests against an OpenAPI description, strictly: an unknown field, a wrong type or a missing one is an
//! error. Stripe's comes from a registry too, or from where `PAYBUS_STRIPE_SPEC` says.

use std::path::PathBuf;

use reqwest::Method;

use super::{Server, installed};

/// Stripe's forms write objects and arrays in brackets.
const BRACKETS: [&str; 4] = [
    "--validator-form-object-format=brackets",
    "--validator-form-array-format=brackets",
    "--validator-query-object-format=brackets",
    "--validator-query-array-format=brackets",
];

/// A request as it went out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    pub method: String,
    /// With the query.
    pub path: String,
    /// A form, where there is one.
    pub body: String,
}

/// The judge.
pub struct Steady {
    server: Server,
    client: reqwest::Client,
}

impl Steady {
    /// Starts it, where it and the description are there.
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

    /// What is wrong with a request, if anything is.
    pub async fn judge(&self, request: &Request) -> Result<(), String> {
        let method: Method = request.method.parse().expect("a method");
        let mut asked = self.client.request(method, format!("{}{}", self.server.url, request.path));
        if !request.body.is_empty() {
            asked = asked.header("content-type", "application/x-www-form-urlencoded").body(request.body.clone());
        }
        let answer = asked.send().await.expect("the judge answers");
        let valid = answer.headers().get("x-steady-request-valid").is_some_and(|valid| valid == "true");
        let status = answer.status();
        let text = answer.text().await.expect("the judge's words");
        if valid && status.is_success() { Ok(()) } else { Err(format!("{status}: {text}")) }
    }
}

fn post(path: &str, body: &str) -> Request {
    Request { method: "POST".to_owned(), path: path.to_owned(), body: body.to_owned() }
}

#[tokio::test]
async fn the_judge_of_requests_is_awake() {
    let Some(steady) = Steady::with_stripe().await else { return };
    let right = "amount=100&currency=usd&confirm=true&capture_method=manual&metadata[a]=b";
    assert_eq!(steady.judge(&post("/v1/payment_intents", right)).await, Ok(()));
    for wrong in ["amount=100&currency=usd&surprise=1", "amount=much&currency=usd", "currency=usd"] {
        let judged = steady.judge(&post("/v1/payment_intents", wrong)).await;
        assert!(judged.is_err(), "{wrong} passed");
    }
    assert!(steady.judge(&post("/v1/no_such_thing", right)).await.is_err());
}
