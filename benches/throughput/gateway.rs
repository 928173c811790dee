//! A gateway that approves everything after a set time, and counts how often it was made to act: one charge a key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What is answered to everything.
const APPROVED: &str = r#"{"result":"approved","transaction_id":"t-0192f0c1"}"#;

/// The gateway while it runs.
pub struct Gateway {
    /// `http://host:port`
    pub url: String,
    books: Arc<Books>,
    task: JoinHandle<()>,
}

struct Books {
    delay: Duration,
    /// Keys, each with the payment that it charged.
    charges: Mutex<HashMap<String, String>>,
}

/// What the gateway's books say.
pub struct Charged {
    /// Charges in all.
    pub charges: usize,
    /// Charges beyond the first of a payment.
    pub double: usize,
}

impl Gateway {
    /// Starts one on a port of its own.
    pub async fn start(delay: Duration) -> Gateway {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let books = Arc::new(Books { delay, charges: Mutex::default() });
        let router = Router::new().route("/{operation}", post(answer)).with_state(Arc::clone(&books));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("serves") });
        Gateway { url, books, task }
    }

    /// Ends it and closes its books.
    pub fn close(self) -> Charged {
        self.task.abort();
        let charges = self.books.charges.lock().unwrap_or_else(PoisonError::into_inner);
        let mut payments: Vec<&String> = charges.values().collect();
        payments.sort_unstable();
        payments.dedup();
        Charged { charges: charges.len(), double: charges.len() - payments.len() }
    }
}

async fn answer(State(books): State<Arc<Books>>, headers: HeaderMap, body: String) -> Response {
    if let Some(key) = headers.get("idempotency-key").and_then(|key| key.to_str().ok()) {
        let payment = payment_of(&body).to_owned();
        books.charges.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned(), payment);
    }
    if !books.delay.is_zero() {
        tokio::time::sleep(books.delay).await;
    }
    ([("content-type", "application/json")], APPROVED).into_response()
}

/// The payment's id, without reading the rest: the gateway's own cost should not decide the measurement.
fn payment_of(body: &str) -> &str {
    let start = body.find("\"payment\":{\"id\":\"").map_or(0, |at| at + 17);
    body.get(start..start + 36).unwrap_or_default()
}
