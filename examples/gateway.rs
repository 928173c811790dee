//! A gateway of your own, the smallest that keeps paybus's contract: `cargo run --example gateway -- 127.0.0.1:9000`, and
//! a variant with `gateway = "http"` and `url = "http://127.0.0.1:9000"`.
//!
//! What matters is in [`act`]: one idempotency key acts once, and is answered the same for ever. A real gateway keeps its
//! books in a database; this one in memory. And in [`refuse`]: a refusal is a JSON object that says why. By an empty body, or a
//! page, it would not be told from that of a proxy on the way, and paybus would ask again.
//!
//! The command's `process` object comes as `data` and steers it, to see how paybus copes:
//!
//! | `data` | what happens |
//! | --- | --- |
//! | `{}` | approved |
//! | `{"decline": "insufficient_funds"}` | declined with that code |
//! | `{"redirect": "https://bank.example/3ds"}` | the customer must act there; the next process is approved |
//! | `{"fail_times": 2}` | the first two attempts are answered 503, and nothing is done |
//! | `{"lose_answer": true}` | it happens, but the first attempt's answer is lost |
//! | `{"delay_ms": 250}` | the answer takes that long |

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9000".to_owned());
    let listener = TcpListener::bind(&address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let router = Router::new()
        .route("/{operation}", post(answer))
        .fallback(async || refuse(StatusCode::NOT_FOUND, "no such operation"))
        .method_not_allowed_fallback(async || {
            refuse(StatusCode::METHOD_NOT_ALLOWED, "operations are asked for by POST")
        })
        .with_state(Books::default());
    axum::serve(listener, router).await?;
    Ok(())
}

/// What of a request this gateway looks at; it ignores the rest.
#[derive(Deserialize)]
struct Request {
    operation_id: Uuid,
    target_operation_id: Option<Uuid>,
    payment: Payment,
    amount: Option<String>,
    currency: String,
    #[serde(default)]
    data: Steering,
}

#[derive(Deserialize)]
struct Payment {
    id: Uuid,
    status: String,
}

#[derive(Deserialize, Default)]
struct Steering {
    decline: Option<String>,
    redirect: Option<String>,
    #[serde(default)]
    fail_times: u32,
    #[serde(default)]
    lose_answer: bool,
    #[serde(default)]
    delay_ms: u64,
}

/// What was done. Amounts are kept as the texts that came: this gateway never calculates.
#[derive(Clone, Default)]
struct Books(Arc<Mutex<Entries>>);

#[derive(Default)]
struct Entries {
    /// By idempotency key: the request's body and its answer.
    answers: HashMap<String, (Bytes, Value)>,
    /// By operation: its answer.
    operations: HashMap<Uuid, Value>,
    /// By payment: the answer of its last process.
    payments: HashMap<Uuid, Value>,
}

impl Books {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(
    State(books): State<Books>,
    Path(operation): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let request: Request = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    if operation == "status" {
        return reply(&look_up(&books, &request));
    }
    if !matches!(operation.as_str(), "process" | "capture" | "release" | "refund" | "cancel") {
        return refuse(StatusCode::NOT_FOUND, "no such operation");
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(key) = text("idempotency-key") else {
        return refuse(StatusCode::BAD_REQUEST, "Idempotency-Key must be given");
    };
    let attempt: u32 = text("paybus-attempt").and_then(|text| text.parse().ok()).unwrap_or(1);
    let steering = &request.data;
    if attempt <= steering.fail_times {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "failing as asked");
    }
    if steering.delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(steering.delay_ms)).await;
    }
    match act(&books, &operation, key, &request, body) {
        // What a proxy says when the answer is lost behind it.
        Some(_) if steering.lose_answer && attempt == 1 => refuse(StatusCode::BAD_GATEWAY, "the answer was lost"),
        Some(answer) => reply(&answer),
        None => refuse(StatusCode::UNPROCESSABLE_ENTITY, "the key came before with another body"),
    }
}

/// Acts once for a key. The same key with the same body gets the stored answer; with another body, nothing.
fn act(books: &Books, operation: &str, key: &str, request: &Request, body: Bytes) -> Option<Value> {
    let mut entries = books.entries();
    if let Some((first, answer)) = entries.answers.get(key) {
        return (*first == body).then(|| answer.clone());
    }
    // Here a real gateway moves the money, and stores key, body and answer in the same transaction.
    let answer = decide(operation, request);
    entries.answers.insert(key.to_owned(), (body, answer.clone()));
    entries.operations.insert(request.operation_id, answer.clone());
    if operation == "process" {
        entries.payments.insert(request.payment.id, answer.clone());
    }
    Some(answer)
}

fn decide(operation: &str, request: &Request) -> Value {
    let mut answer = json!({
        "result": "approved",
        "transaction_id": format!("example-{}", request.payment.id),
        "currency": request.currency,
    });
    if let Some(amount) = &request.amount {
        answer["amount"] = json!(amount);
    }
    // The customer comes back with a process of a payment whose status is input.
    let returns = request.payment.status == "input";
    if let Some(code) = &request.data.decline {
        answer["result"] = json!("declined");
        answer["code"] = json!(code);
    } else if let (Some(url), "process", false) = (&request.data.redirect, operation, returns) {
        answer["result"] = json!("pending");
        answer["redirect_url"] = json!(url);
    }
    answer
}

/// What was done for one operation, or with the payment as a whole.
fn look_up(books: &Books, request: &Request) -> Value {
    let entries = books.entries();
    let found = match &request.target_operation_id {
        Some(operation) => entries.operations.get(operation),
        None => entries.payments.get(&request.payment.id),
    };
    found.cloned().unwrap_or_else(|| json!({"result": "not_found"}))
}

fn reply(answer: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], answer.to_string()).into_response()
}

/// Refuses a request: nothing was done.
fn refuse(status: StatusCode, message: &str) -> Response {
    (status, axum::Json(json!({"message": message}))).into_response()
}
