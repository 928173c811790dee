//! No amount is overlooked, and only the gateway itself can refuse.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{Html, IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::{Command, Setup, World};

/// The same command with its data as JSON in base64.
fn in_base64(command: Command) -> Command {
    let encoded = STANDARD.encode(command.data.to_string());
    command.attribute("data", Value::Null).attribute("data_base64", json!(encoded))
}

#[tokio::test]
async fn a_refund_gives_back_what_its_data_say_in_either_form_and_never_all_by_a_slip() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let charge = in_base64(Command::charge("http", "120.00", "USD"));
    assert_eq!(world.run(&charge).await.status(), "confirmed");
    let refund = |data: Value| charge.then("payment.refund", data);
    let answer = world.run(&in_base64(refund(json!({"amount": "10.00"})))).await;
    assert_eq!((answer.status(), answer.field("refunded_amount")), ("confirmed", "10.00"), "{}", answer.line());
    let plain = String::from_utf8(refund(json!({})).bytes()).unwrap();
    for (slip, code) in [
        (refund(json!({})).attribute("data", Value::Null), "invalid_data"),
        (refund(json!({})).attribute("data_base64", json!(STANDARD.encode(r#"{"amount": "10.00"}"#))), "invalid_data"),
        (in_base64(refund(json!("amount=10.00"))), "invalid_data"),
        (refund(json!({"amount": null})), "invalid_amount"),
        (refund(json!({"Amount": "10.00"})), "unknown_field"),
        (refund(json!({})).attribute("amount", json!("10.00")), "invalid_envelope"),
    ] {
        let answer = world.run(&slip).await;
        assert_eq!((answer.kind(), answer.code()), ("command.rejected", code), "{}", answer.line());
    }
    let twice = refund(json!({}));
    let body =
        plain.replace(&name_of(&plain, "id"), &twice.id).replace("{}", r#"{"amount":"10.00","amount":"100.00"}"#);
    let answer = world.run(&twice.raw(body)).await;
    assert_eq!((answer.kind(), answer.code()), ("command.rejected", "invalid_data"), "{}", answer.line());
    // A `data` object without an amount means the whole amount.
    let answer = world.run(&refund(json!({}))).await;
    assert_eq!((answer.status(), answer.field("refunded_amount")), ("refunded", "120.00"), "{}", answer.line());
    world.check_books().await;
}

/// Returns a text member of a command's body.
fn name_of(body: &str, member: &str) -> String {
    serde_json::from_str::<Value>(body).unwrap()[member].as_str().unwrap().to_owned()
}

/// A proxy in front of the gateway. It has no route at first, and answers with an HTML page.
#[derive(Clone, Default)]
struct Ingress {
    gateway: Arc<OnceLock<String>>,
    pages: Arc<AtomicUsize>,
}

impl Ingress {
    async fn start(pages: usize) -> (Ingress, String) {
        let ingress = Ingress { pages: Arc::new(AtomicUsize::new(pages)), ..Ingress::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(pass_on).with_state(ingress.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (ingress, url)
    }
}

async fn pass_on(State(ingress): State<Ingress>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let left = ingress.pages.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
    if left.is_ok() {
        return (StatusCode::NOT_FOUND, Html("<html><h1>404 Not Found</h1></html>")).into_response();
    }
    let mut request = reqwest::Client::new().post(format!("{}{uri}", ingress.gateway.get().unwrap()));
    for name in ["idempotency-key", "paybus-attempt"] {
        if let Some(value) = headers.get(name) {
            request = request.header(name, value);
        }
    }
    let answer = request.body(body).send().await.unwrap();
    (answer.status(), answer.bytes().await.unwrap()).into_response()
}

#[tokio::test]
async fn an_ingress_without_a_route_refuses_no_charge() {
    let (ingress, url) = Ingress::start(4).await;
    let world = Setup::new().http_variant("edge").set("variants.edge.url", &url).build().await;
    ingress.gateway.set(world.gateway.url()).unwrap();
    let _worker = world.worker().await;
    let charge = Command::charge("edge", "120.00", "USD");
    world.publish(&charge).await;
    let delayed = world.event_of(&charge, "command.delayed").await;
    assert_eq!(delayed.reason(), "invalid_answer", "{}", delayed.line());
    assert_eq!(world.final_event(&charge).await.status(), "confirmed");
    let keys: BTreeSet<_> = world.gateway.calls_of(charge.payment).into_iter().map(|call| call.key).collect();
    assert_eq!((keys.len(), world.gateway.charges(charge.payment).len()), (1, 1));
    world.check_books().await;
}
