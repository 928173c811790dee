//! The fake's side of HTTP.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use serde_json::{Value, json};
use uuid::Uuid;

use super::books::{Answer, Objects, error, now};
use super::keys::Reserved;
use super::{Call, Fault, Refused, Shared, control, form, webhook};

/// The routes.
pub fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/authenticate/{id}", get(control::authenticate))
        .route("/_control/{what}", post(control::control))
        .fallback(dated)
        .with_state(shared)
}

/// What a request asks for.
#[derive(Debug, Clone)]
struct Request {
    kind: &'static str,
    path: String,
    query: String,
    /// The object that is named.
    id: String,
    form: Value,
}

/// A request, and its answer dated by the fake's clock.
async fn dated(
    state: State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    query: RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let shared = Arc::clone(&state.0);
    let mut response = handle(state, method, uri, query, headers, body).await;
    let seconds = now() + shared.state().objects.clock_ahead;
    let date = Timestamp::from_second(seconds).ok();
    let date = date.and_then(|date| DateTimePrinter::new().timestamp_to_rfc9110_string(&date).ok());
    if let Some(date) = date.and_then(|date| date.parse().ok()) {
        response.headers_mut().insert(header::DATE, date);
    }
    response
}

async fn handle(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let form = form::read(if method == Method::GET { query.as_deref().unwrap_or_default().as_bytes() } else { &body });
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let Some(request) = route(&method, uri.path(), query, form) else {
        return respond(&error(404, "invalid_request_error", "", "Unrecognized request URL"), &[]);
    };
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).map(str::to_owned);
    let text = String::from_utf8_lossy(&body).into_owned();
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_known = authorization.starts_with("Bearer sk_test_") || authorization.starts_with("Bearer rk_test_");
    shared.note(&request, key.clone(), headers, text.clone());
    if !is_known {
        return respond(&error(401, "invalid_request_error", "", "Invalid API Key provided"), &[]);
    }
    match key {
        Some(key) if method == Method::POST => under_key(shared, request, key, text).await,
        _ => once(shared, request).await,
    }
}

fn route(method: &Method, path: &str, query: String, form: Value) -> Option<Request> {
    let parts: Vec<&str> = path.strip_prefix("/v1/")?.split('/').collect();
    let kind = match (method.as_str(), parts.as_slice()) {
        ("POST", ["payment_intents"]) => "create",
        ("POST", ["payment_intents", _]) => "update",
        ("POST", ["payment_intents", _, "confirm"]) => "confirm",
        ("POST", ["payment_intents", _, "capture"]) => "capture",
        ("POST", ["payment_intents", _, "cancel"]) => "cancel",
        ("POST", ["refunds"]) => "refund",
        ("GET", ["payment_intents", "search"]) => "search",
        ("GET", ["payment_intents", _]) => "retrieve",
        ("GET", ["payment_intents" | "refunds" | "disputes" | "charges"]) => "list",
        _ => return None,
    };
    let id = parts.get(1).copied().unwrap_or_default().to_owned();
    Some(Request { kind, path: path.to_owned(), query, id, form })
}

/// A request that may be sent again.
async fn under_key(shared: Arc<Shared>, request: Request, key: String, body: String) -> Response {
    let reserved = shared.state().keys.reserve(&key, &request.path, &body);
    match reserved {
        Reserved::First => {}
        Reserved::Replay(answer) => {
            shared.replayed();
            return respond(&answer, &[("idempotent-replayed", "true")]);
        }
        Reserved::Denied(answer) => return respond(&answer, &[]),
    }
    let fault = shared.fault(&request);
    match &fault {
        Some(Fault::Answer { status, body, headers }) => {
            shared.state().keys.release(&key);
            return respond(&Answer { status: *status, body: body.clone() }, headers);
        }
        Some(Fault::HangBefore) => {
            shared.state().keys.release(&key);
            return std::future::pending().await;
        }
        Some(Fault::RefuseAfter(notify)) => {
            notify.notified().await;
            shared.state().keys.release(&key);
            return respond(&error(400, "invalid_request_error", "", "refused as planned"), &[]);
        }
        _ => {}
    }
    // That its caller goes away does not stop a gateway.
    let working = tokio::spawn(async move {
        match &fault {
            Some(Fault::Delay(busy)) => tokio::time::sleep(*busy).await,
            Some(Fault::Until(notify)) => notify.notified().await,
            _ => {}
        }
        let answer = shared.execute(&request, &key, fault.as_ref());
        shared.state().keys.keep(&key, &answer);
        webhook::collect(&shared);
        (answer, fault)
    });
    match working.await {
        Ok((answer, fault)) => deliver(answer, fault).await,
        Err(_) => respond(&error(500, "api_error", "", "the fake broke"), &[]),
    }
}

/// A request without a key.
async fn once(shared: Arc<Shared>, request: Request) -> Response {
    let fault = shared.fault(&request);
    match fault {
        Some(Fault::Answer { status, body, headers }) => respond(&Answer { status, body }, &headers),
        Some(Fault::HangBefore) => std::future::pending().await,
        fault => {
            if let Some(Fault::Until(notify)) = &fault {
                notify.notified().await;
            }
            let answer = shared.execute(&request, "", fault.as_ref());
            webhook::collect(&shared);
            if let Some(Fault::Delay(busy)) = &fault {
                tokio::time::sleep(*busy).await;
            }
            deliver(answer, fault).await
        }
    }
}

async fn deliver(mut answer: Answer, fault: Option<Fault>) -> Response {
    match fault {
        Some(Fault::HangAfter) => std::future::pending().await,
        // Without a noise on the console: the task of the connection ends with it.
        Some(Fault::LoseAnswer) => std::panic::resume_unwind(Box::new("lost as planned")),
        Some(Fault::Say(members)) => {
            for (name, value) in members.as_object().into_iter().flatten() {
                answer.body[name] = value.clone();
            }
            respond(&answer, &[])
        }
        Some(Fault::Garbage) => "<html>everything went well</html>".into_response(),
        Some(Fault::HalfAnswer) => {
            let text = answer.body.to_string();
            let half = Bytes::copy_from_slice(&text.as_bytes()[..text.len() / 2]);
            let broken = std::io::Error::other("truncated as planned");
            let chunks = futures_util::stream::iter([Ok(half), Err(broken)]);
            ([("content-length", text.len().to_string())], Body::from_stream(chunks)).into_response()
        }
        _ => respond(&answer, &[]),
    }
}

fn respond(answer: &Answer, headers: &[(&'static str, &'static str)]) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let id = format!("req_{}", &Uuid::new_v4().simple().to_string()[..14]);
    let mut response = (status, axum::Json(&answer.body)).into_response();
    response.headers_mut().insert("request-id", id.parse().unwrap());
    for (name, value) in headers {
        response.headers_mut().insert(*name, value.parse().unwrap());
    }
    response
}

fn act(objects: &mut Objects, request: &Request) -> Answer {
    let (id, form) = (request.id.as_str(), &request.form);
    let reply = match request.kind {
        "create" => objects.create(form),
        "update" => objects.update(id, form),
        "confirm" => objects.confirm(id, form),
        "capture" => objects.capture(id, form),
        "cancel" => objects.cancel(id, form),
        "refund" => objects.refund(form),
        "retrieve" => objects.retrieve(id),
        "search" => objects.search(&request.path, form),
        _ => objects.list(&request.path, form),
    };
    match reply {
        Ok(object) => Answer { status: 200, body: objects.expand(object, form) },
        Err(answer) => answer,
    }
}

impl Shared {
    fn note(&self, request: &Request, key: Option<String>, headers: HeaderMap, body: String) {
        let Request { kind, path, query, form, .. } = request.clone();
        let mut state = self.state();
        let payment = state.objects.payment_of(&path, &form);
        let refundable = form["payment_intent"].as_str().map_or(0, |id| state.objects.refundable(id));
        state.calls.push(Call { kind, path, query, key, headers, form, body, replayed: false, payment, refundable });
        drop(state);
        self.called.notify_waiters();
    }

    fn replayed(&self) {
        if let Some(call) = self.state().calls.last_mut() {
            call.replayed = true;
        }
    }

    fn fault(&self, request: &Request) -> Option<Fault> {
        let mut state = self.state();
        let payment = state.objects.payment_of(&request.path, &request.form);
        let plan = state.plans.iter_mut().find(|plan| {
            let is_for_it = plan.payment.is_none() || plan.payment == payment;
            is_for_it && plan.kinds.contains(&request.kind) && !plan.faults.is_empty()
        });
        let fault = plan?.faults.pop_front()?;
        *state.met.entry(fault.name()).or_default() += 1;
        Some(fault)
    }

    fn execute(&self, request: &Request, key: &str, fault: Option<&Fault>) -> Answer {
        let state = &mut *self.state();
        let objects = &mut state.objects;
        let mut act = |request: &Request| {
            let answer = act(objects, request);
            let (kind, key) = (request.kind, key.to_owned());
            match answer.status {
                200 => state.done.push((kind, key, request.id.clone())),
                400 | 404 => {
                    let message = answer.body["error"]["message"].as_str().unwrap_or_default().to_owned();
                    let payment = objects.payment_of(&request.path, &request.form);
                    state.refused.push(Refused { kind, key, payment, form: request.form.clone(), message });
                }
                _ => {}
            }
            answer
        };
        let failed = || Answer { status: 500, body: json!({"error": {"type": "api_error", "message": "as planned"}}) };
        match fault {
            Some(Fault::Stored500 { acts: false }) => failed(),
            Some(Fault::Stored500 { acts: true }) => {
                act(request);
                failed()
            }
            Some(Fault::StoredHalfway) => {
                let mut unconfirmed = request.clone();
                unconfirmed.form["confirm"] = json!("false");
                act(&unconfirmed);
                failed()
            }
            Some(Fault::Otherwise(members)) => {
                let mut other = request.clone();
                for (name, value) in members.as_object().into_iter().flatten() {
                    other.form[name] = value.clone();
                }
                act(&other)
            }
            _ => act(request),
        }
    }
}
