//! The gateway's side of HTTP.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use uuid::Uuid;

use super::books::{KEYLESS, Refusal, Request, say};
use super::{Behaviour, CallRecord, Effect, Shared};

/// One path for each operation, and the same once more without keys.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    let keyed = Router::new().route("/{operation}", post(handle)).with_state(Arc::clone(&shared));
    let keyless = Router::new().route("/{operation}", post(handle_keyless)).with_state(shared);
    keyed.nest(&format!("/{KEYLESS}"), keyless)
}

/// One call.
async fn handle(
    State(shared): State<Arc<Shared>>,
    Path(operation): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let request = read(&operation, &headers, &body);
    handle_read(shared, operation, headers, body, request).await
}

/// One call of a gateway without keys: under a key of its own, so that nothing is taken for a repetition.
async fn handle_keyless(
    State(shared): State<Arc<Shared>>,
    Path(operation): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let request = read(&operation, &headers, &body);
    let request = request.map(|mut request| {
        request.key = format!("{KEYLESS}-{}", Uuid::new_v4());
        request.effect.key.clone_from(&request.key);
        request
    });
    handle_read(shared, operation, headers, body, request).await
}

async fn handle_read(
    shared: Arc<Shared>,
    operation: String,
    headers: HeaderMap,
    body: Bytes,
    request: Result<Request, &'static str>,
) -> Response {
    let request = match request {
        Ok(request) => request,
        Err(message) => {
            shared.note(record(operation, headers, body, None));
            return refusal(StatusCode::BAD_REQUEST, message);
        }
    };
    let refundable = shared.books.lock().unwrap().refundable(request.payment_id, &request.effect.currency);
    shared.note(CallRecord { refundable, ..record(operation, headers, body, Some(&request)) });
    let (behaviour, latency) = shared.treatment(&request);
    if !behaviour.is_deed() && !behaviour.misleads() {
        shared.meet(&behaviour);
    }
    match behaviour {
        Behaviour::Refuse => {
            pause(latency).await;
            refusal(StatusCode::BAD_REQUEST, "refused as planned")
        }
        Behaviour::Status(status, retry_after) => {
            pause(latency).await;
            let mut response = refusal(StatusCode::from_u16(status).unwrap(), "answered as planned");
            if let Some(seconds) = retry_after {
                response.headers_mut().insert("retry-after", seconds.into());
            }
            response
        }
        Behaviour::HangBefore => std::future::pending().await,
        behaviour => match work(shared, request, behaviour.clone(), latency).await {
            Ok(answer) => deliver(&behaviour, &answer).await,
            Err((status, message)) => refusal(status, message),
        },
    }
}

/// Acts, and brings the answer of the request's key. It is done in a task of its own: that its caller goes away does not
/// stop a gateway.
async fn work(
    shared: Arc<Shared>,
    request: Request,
    behaviour: Behaviour,
    latency: Duration,
) -> Result<Value, Refusal> {
    if let Some(mut answer) = shared.known_answer(&request, &behaviour)? {
        if let (Behaviour::Say(members) | Behaviour::SayWhenNotified(_, members), "status") =
            (&behaviour, request.operation.as_str())
        {
            say(&mut answer, members);
        }
        pause(latency).await;
        if let Behaviour::Until(notify) | Behaviour::SayWhenNotified(notify, _) = &behaviour {
            notify.notified().await;
        }
        if let Behaviour::Late(by) = &behaviour {
            pause(*by).await;
        }
        return Ok(answer);
    }
    if behaviour.is_deed() {
        shared.meet(&behaviour);
    }
    let worked = tokio::spawn(async move {
        pause(latency).await;
        if let Behaviour::Delay(duration) = behaviour {
            pause(duration).await;
        }
        if let Behaviour::Until(notify) | Behaviour::SayWhenNotified(notify, _) = &behaviour {
            notify.notified().await;
        }
        shared.books.lock().unwrap().book(request, &behaviour)
    });
    Ok(worked.await.unwrap())
}

/// Even the shortest sleep takes a millisecond.
async fn pause(duration: Duration) {
    if !duration.is_zero() {
        tokio::time::sleep(duration).await;
    }
}

/// Sends the answer, or fails to.
async fn deliver(behaviour: &Behaviour, answer: &Value) -> Response {
    let text = answer.to_string();
    match behaviour {
        Behaviour::HangAfter => std::future::pending().await,
        // Ends the connection's task without a word, and without a panic's message.
        Behaviour::DropAfter => std::panic::resume_unwind(Box::new("dropped as planned")),
        Behaviour::Error500After => refusal(StatusCode::INTERNAL_SERVER_ERROR, "an error as planned"),
        Behaviour::Garbage => "<html>everything went well</html>".into_response(),
        Behaviour::Truncated => {
            let half = Bytes::copy_from_slice(&text.as_bytes()[..text.len() / 2]);
            let broken = std::io::Error::other("truncated as planned");
            let chunks = futures_util::stream::iter([Ok(half), Err(broken)]);
            ([("content-length", text.len().to_string())], Body::from_stream(chunks)).into_response()
        }
        Behaviour::Trickle(between) => {
            let between = *between;
            let bytes = futures_util::stream::iter(text.clone().into_bytes());
            let slowly = futures_util::StreamExt::then(bytes, move |byte| async move {
                tokio::time::sleep(between).await;
                Ok::<_, std::convert::Infallible>(Bytes::copy_from_slice(&[byte]))
            });
            let headers = [("content-type", "application/json".to_owned()), ("content-length", text.len().to_string())];
            (headers, Body::from_stream(slowly)).into_response()
        }
        _ => ([("content-type", "application/json")], text).into_response(),
    }
}

fn refusal(status: StatusCode, message: &str) -> Response {
    (status, axum::Json(json!({"message": message}))).into_response()
}

fn record(operation: String, headers: HeaderMap, body: Bytes, request: Option<&Request>) -> CallRecord {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    CallRecord {
        operation,
        operation_id: request.map(|request| request.operation_id),
        payment_id: request.map(|request| request.payment_id),
        key: header("idempotency-key").map(str::to_owned),
        attempt: header("paybus-attempt").and_then(|attempt| attempt.parse().ok()),
        headers,
        body,
        at: Instant::now(),
        refundable: Decimal::ZERO,
    }
}

/// Reads a request as strictly as the contract is.
fn read(operation: &str, headers: &HeaderMap, body: &Bytes) -> Result<Request, &'static str> {
    let fields: Value = serde_json::from_slice(body).map_err(|_| "the body is no JSON")?;
    let id = |value: &Value| value.as_str().and_then(|text| text.parse::<Uuid>().ok());
    let operation_id = id(&fields["operation_id"]).ok_or("operation_id must be a UUID")?;
    let payment_id = id(&fields["payment"]["id"]).ok_or("payment.id must be a UUID")?;
    let currency = fields["currency"].as_str().ok_or("currency must be a string")?;
    if fields["operation"] != operation {
        return Err("operation must be the path's");
    }
    let kind = match operation {
        "process" | "confirm" if fields["capture"] == false => "authorization",
        "process" | "confirm" => "charge",
        "capture" => "capture",
        "refund" => "refund",
        "release" => "release",
        "cancel" => "cancel",
        "status" => "status",
        "undo" => "undo",
        _ => return Err("no such operation"),
    };
    let key = headers.get("idempotency-key").and_then(|value| value.to_str().ok());
    if key.is_none() && !matches!(operation, "status" | "undo") {
        return Err("Idempotency-Key must be given");
    }
    let key = key.unwrap_or_default().to_owned();
    let amount = fields["amount"].as_str().and_then(|text| Decimal::from_str_exact(text).ok());
    if amount.is_none() && matches!(operation, "process" | "confirm" | "capture" | "refund") {
        return Err("amount must be a decimal string");
    }
    let effect = Effect {
        kind,
        operation_id,
        key: key.clone(),
        amount: amount.unwrap_or_default(),
        currency: currency.to_owned(),
    };
    let target = id(&fields["target_operation_id"]);
    let (operation, body) = (operation.to_owned(), body.clone());
    Ok(Request {
        operation,
        operation_id,
        payment_id,
        variant: fields["payment"]["variant"].as_str().unwrap_or_default().to_owned(),
        target,
        undoes: fields["idempotency_key"].as_str().map(str::to_owned),
        is_partial: fields["final"] == false,
        continues: fields["operation"] == "process" && fields["payment"]["status"] == "input",
        key,
        body,
        effect,
    })
}

impl Shared {
    fn note(&self, call: CallRecord) {
        self.books.lock().unwrap().calls.push(call);
        self.called.notify_waiters();
    }

    fn meet(&self, behaviour: &Behaviour) {
        self.books.lock().unwrap().meet(behaviour);
    }

    fn treatment(&self, request: &Request) -> (Behaviour, Duration) {
        let mut books = self.books.lock().unwrap();
        (books.behaviour(request), books.latency)
    }

    /// The answer, where it is there already; else the request's key is taken into work.
    fn known_answer(&self, request: &Request, behaviour: &Behaviour) -> Result<Option<Value>, Refusal> {
        let mut books = self.books.lock().unwrap();
        match request.operation.as_str() {
            "status" => Ok(Some(books.look_up(request, behaviour))),
            "undo" => Ok(Some(books.undo(request))),
            _ => books.reserve(request),
        }
    }
}
