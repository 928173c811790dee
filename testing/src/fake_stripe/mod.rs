//! A Stripe in memory: PaymentIntents, refunds, disputes and reviews with Stripe's test tokens, idempotency keys that are
//! kept and replayed as Stripe does it, and trouble as planned. For tests and for trying.
//!
//! - `cards`: the test tokens.
//! - `books`: the objects, and what requests do to them.
//! - `keys`: idempotency keys.
//! - `server`: requests and answers.
//! - `control`: what happens at Stripe by itself, by hand.
//! - `webhook`: events, signed and delivered.
//! - `form`: forms with brackets.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::http::HeaderMap;
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use self::books::{Answer, Objects};
use self::keys::Keys;

mod books;
mod cards;
mod control;
mod form;
mod keys;
mod server;
mod webhook;

/// What goes wrong with one request. "Acts" means: does what is asked, and keeps the answer under the key.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Answers so and does not act; nothing is kept under the key.
    Answer { status: u16, body: Value, headers: Vec<(&'static str, &'static str)> },
    /// Answers 500, which is kept under the key: it is all that this key ever brings. Acts before that, or does not.
    Stored500 { acts: bool },
    /// Makes the payment intent and fails before it confirms it; the 500 is kept under the key.
    StoredHalfway,
    /// Acts, and closes the connection.
    LoseAnswer,
    /// Acts, and never answers.
    HangAfter,
    /// Neither acts nor answers.
    HangBefore,
    /// Is busy for so long (the same key is answered 409 meanwhile), then acts and answers. A question is answered by
    /// what was so when it came.
    Delay(Duration),
    /// Acts, and answers with these members in place of its own.
    Say(Value),
    /// Acts, as if these members had stood in the request.
    Otherwise(Value),
    /// Acts, and answers with something that nobody can read.
    Garbage,
    /// Acts, and half of the answer comes.
    HalfAnswer,
    /// Waits until it is told to go on, then acts, on things as they are then, and answers.
    Until(Arc<Notify>),
    /// Waits until it is told to go on, then refuses: it does not act.
    RefuseAfter(Arc<Notify>),
}

impl Fault {
    /// Another status, with a body of Stripe's form.
    pub fn status(status: u16) -> Fault {
        let answer = books::error(status, "api_error", "", "answered as planned");
        Fault::Answer { status, body: answer.body, headers: Vec::new() }
    }

    /// An error of a type and code.
    pub fn error(status: u16, kind: &str, code: &str) -> Fault {
        let answer = books::error(status, kind, code, "answered as planned");
        Fault::Answer { status, body: answer.body, headers: Vec::new() }
    }

    /// What it is called, whatever its numbers are.
    pub fn name(&self) -> &'static str {
        match self {
            Fault::Answer { status: 429, .. } => "answers 429",
            Fault::Answer { status: 503, .. } => "answers 503",
            Fault::Answer { .. } => "answers another status",
            Fault::Stored500 { acts: true } => "keeps a 500 after acting",
            Fault::Stored500 { acts: false } => "keeps a 500 without acting",
            Fault::StoredHalfway => "keeps a 500 half-way",
            Fault::LoseAnswer => "drops the answer after acting",
            Fault::HangAfter => "hangs after acting",
            Fault::HangBefore => "hangs before acting",
            Fault::Delay(_) => "acts late",
            Fault::Say(_) => "says something else",
            Fault::Otherwise(_) => "does something else",
            Fault::Garbage => "answers garbage",
            Fault::HalfAnswer => "truncates the answer",
            Fault::Until(_) => "acts when told",
            Fault::RefuseAfter(_) => "refuses when told",
        }
    }

    /// With one more header.
    pub fn header(self, name: &'static str, value: &'static str) -> Fault {
        match self {
            Fault::Answer { status, body, mut headers } => {
                headers.push((name, value));
                Fault::Answer { status, body, headers }
            }
            other => other,
        }
    }
}

/// A request as it came in.
#[derive(Debug, Clone)]
pub struct Call {
    /// `create`, `update`, `confirm`, `capture`, `cancel`, `refund`, `retrieve`, `search` or `list`.
    pub kind: &'static str,
    pub path: String,
    /// With a question mark, where there is one.
    pub query: String,
    pub key: Option<String>,
    pub headers: HeaderMap,
    pub form: Value,
    pub body: String,
    /// The answer came from what was kept under the key.
    pub replayed: bool,
    /// Our payment, where the request or its object names it.
    pub payment: Option<String>,
    /// What could still be refunded of its payment intent when it came; in Stripe's units.
    pub refundable: i64,
}

/// A request that the objects did not allow.
#[derive(Debug, Clone)]
pub struct Refused {
    pub kind: &'static str,
    pub key: String,
    pub payment: Option<String>,
    pub form: Value,
    pub message: String,
}

/// What the next requests of some kinds meet, in order; of one of our payments, or of any.
#[derive(Debug)]
struct Plan {
    payment: Option<String>,
    kinds: Vec<&'static str>,
    faults: VecDeque<Fault>,
}

#[derive(Debug, Default)]
struct State {
    objects: Objects,
    keys: Keys,
    plans: Vec<Plan>,
    /// How often each trouble was met.
    met: BTreeMap<&'static str, usize>,
    /// What was done: the request's kind, its key and the object that it named.
    done: Vec<(&'static str, String, String)>,
    calls: Vec<Call>,
    refused: Vec<Refused>,
    webhook: Option<webhook::Endpoint>,
    events: Vec<Value>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    called: Notify,
    /// There is something to deliver.
    new_events: Notify,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// The fake's routes; `base` is the address under which its customers reach it.
pub fn router(base: String) -> Router {
    let shared = Arc::<Shared>::default();
    shared.state().objects.base = base;
    tokio::spawn(webhook::deliver(Arc::clone(&shared)));
    server::router(shared)
}

/// The running fake. Dropping it stops it. It has a thread of its own, so that it can be stopped with all it holds.
pub struct FakeStripe {
    shared: Arc<Shared>,
    address: SocketAddr,
    runtime: Mutex<Option<Runtime>>,
}

impl FakeStripe {
    /// Starts on a free port of 127.0.0.1.
    pub fn start() -> FakeStripe {
        let shared = Arc::<Shared>::default();
        let (runtime, address) = serve(&shared, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        shared.state().objects.base = format!("http://{address}");
        FakeStripe { shared, address, runtime: Mutex::new(Some(runtime)) }
    }

    /// Stops: the port refuses connections, and what was being worked on is never done.
    pub async fn stop(&self) {
        let Some(runtime) = self.runtime.lock().unwrap().take() else { return };
        let stopped = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(10)));
        stopped.await.unwrap();
        self.shared.state().keys.forget_unfinished();
    }

    /// Starts again on the same port, with everything it knew.
    pub fn start_again(&self) {
        let mut runtime = self.runtime.lock().unwrap();
        assert!(runtime.is_none(), "it runs already");
        *runtime = Some(serve(&self.shared, self.address).0);
    }

    /// The address for a variant's `api_base`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What the next requests of a kind meet, in order.
    pub fn plan(&self, kind: &'static str, faults: Vec<Fault>) {
        self.shared.state().plans.push(Plan { payment: None, kinds: vec![kind], faults: faults.into() });
    }

    /// What the next requests of these kinds for one of our payments meet, in order.
    pub fn plan_for(&self, payment: &str, kinds: &[&'static str], faults: Vec<Fault>) {
        let plan = Plan { payment: Some(payment.to_owned()), kinds: kinds.to_vec(), faults: faults.into() };
        self.shared.state().plans.push(plan);
    }

    /// Forgets what was planned and not met yet.
    pub fn forget_plans(&self) {
        self.shared.state().plans.clear();
    }

    /// How often each trouble was met, by its name.
    pub fn met(&self) -> BTreeMap<&'static str, usize> {
        self.shared.state().met.clone()
    }

    /// The keys of the requests of a kind that were carried out on an object, in order.
    pub fn keys_that_did(&self, kind: &str, id: &str) -> Vec<String> {
        let state = self.shared.state();
        let found = state.done.iter().filter(|(done, _, object)| *done == kind && object == id);
        found.map(|(_, key, _)| key.clone()).collect()
    }

    /// Stripe's office corrects what was taken for a payment intent, and in which currency.
    pub fn put_right(&self, payment_intent: &str, units: i64, currency: &str) {
        self.shared.state().objects.put_right(payment_intent, units, currency);
    }

    /// The customer of a payment intent authenticates, or fails to.
    pub fn authenticate(&self, payment_intent: &str, succeeds: bool) {
        self.by_hand(|objects| objects.authenticate(payment_intent, succeeds));
    }

    /// A refund ends, or fails later.
    pub fn end_refund(&self, refund: &str, status: &str) {
        self.by_hand(|objects| objects.end_refund(refund, status));
    }

    /// A dispute is opened, or goes on: `needs_response`, `won`, `lost`.
    pub fn dispute(&self, payment_intent: &str, status: &str) {
        self.by_hand(|objects| objects.dispute(payment_intent, status, "fraudulent"));
    }

    /// A review ends: `approved`, `refunded_as_fraud`, ...
    pub fn close_review(&self, payment_intent: &str, reason: &str) {
        self.by_hand(|objects| objects.close_review(payment_intent, reason));
    }

    /// Somebody refunds in the dashboard; in Stripe's units.
    pub fn refund_by_hand(&self, payment_intent: &str, units: i64) {
        let form = serde_json::json!({"payment_intent": payment_intent, "amount": units.to_string()});
        self.by_hand(|objects| objects.refund(&form));
    }

    /// One of our payments is charged once more, by nothing that we know of; the new payment intent's id.
    pub fn charge_by_hand(&self, payment: &str, units: i64) -> String {
        let form = serde_json::json!({
            "amount": units.to_string(), "currency": "usd", "confirm": "true", "payment_method": "pm_card_visa",
            "payment_method_types": ["card"], "metadata": {"paybus_payment": payment},
        });
        self.by_hand(|objects| objects.create(&form));
        let intents = self.intents_of(payment);
        intents.last().unwrap()["id"].as_str().unwrap().to_owned()
    }

    /// Others who use the same account make so many payment intents.
    pub fn make_others(&self, count: usize) {
        self.by_hand(|objects| objects.make_others(count));
    }

    /// From now on nothing new is indexed: the search brings only what there was before.
    pub fn stop_indexing(&self) {
        let mut state = self.shared.state();
        state.objects.indexed = Some(state.objects.intents.len());
    }

    /// Its clock is so many seconds ahead of ours, in what it dates and in its answers' `Date`.
    pub fn set_clock_ahead(&self, seconds: i64) {
        self.shared.state().objects.clock_ahead = seconds;
    }

    /// Somebody cancels in the dashboard, or it expires.
    pub fn cancel_by_hand(&self, payment_intent: &str) {
        self.by_hand(|objects| objects.cancel(payment_intent, &Value::Null));
    }

    fn by_hand(&self, act: impl FnOnce(&mut Objects) -> Result<Value, Answer>) {
        let done = act(&mut self.shared.state().objects);
        assert!(done.is_ok(), "{done:?}");
        webhook::collect(&self.shared);
    }

    /// All idempotency keys are forgotten, as after their window.
    pub fn expire_keys(&self) {
        self.shared.state().keys.expire();
    }

    /// Everything that happens from now on is told to this address, signed with this secret.
    pub fn deliver_webhooks(&self, url: &str, secret: &str) {
        self.shared.state().webhook = Some(webhook::Endpoint { url: url.to_owned(), secret: secret.to_owned() });
        self.shared.new_events.notify_one();
    }

    /// The events so far.
    pub fn events(&self) -> Vec<Value> {
        self.shared.state().events.clone()
    }

    /// The events behind the first so many.
    pub fn events_behind(&self, count: usize) -> Vec<Value> {
        self.shared.state().events.get(count..).unwrap_or_default().to_vec()
    }

    /// The signature of a webhook's body under this secret, made now.
    pub fn signature(secret: &str, body: &str) -> String {
        webhook::signature(secret, books::now(), body)
    }

    /// What was told last of a payment intent, with its signature under this secret: signature and body.
    pub fn signed_event(&self, payment_intent: &str, secret: &str) -> (String, String) {
        let is_of_it = |event: &&Value| {
            let object = &event["data"]["object"];
            object["payment_intent"] == payment_intent || object["id"] == payment_intent
        };
        let events = self.events();
        let body = events.iter().rfind(is_of_it).unwrap().to_string();
        (webhook::signature(secret, books::now(), &body), body)
    }

    /// Every request, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.state().calls.clone()
    }

    /// The requests of a kind, in order.
    pub fn calls_of(&self, kind: &str) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.kind == kind).collect()
    }

    /// The requests that the objects did not allow, in order.
    pub fn refused(&self) -> Vec<Refused> {
        self.shared.state().refused.clone()
    }

    /// Forgets the requests so far; nothing else.
    pub fn forget_calls(&self) {
        self.shared.state().calls.clear();
    }

    /// The requests for one of our payments, in order.
    pub fn calls_for(&self, payment: &str) -> Vec<Call> {
        let state = self.shared.state();
        let is_for_it = |call: &&Call| state.objects.payment_of(&call.path, &call.form).as_deref() == Some(payment);
        state.calls.iter().filter(is_for_it).cloned().collect()
    }

    /// Every payment intent, oldest first.
    pub fn intents(&self) -> Vec<Value> {
        self.shared.state().objects.intents.clone()
    }

    /// The payment intents of a status, oldest first.
    pub fn intents_in(&self, status: &str) -> Vec<Value> {
        let state = self.shared.state();
        state.objects.intents.iter().filter(|intent| intent["status"] == status).cloned().collect()
    }

    /// Waits until so many requests of a kind came.
    pub async fn wait_for_calls(&self, kind: &str, count: usize) {
        let enough = async {
            loop {
                let called = self.shared.called.notified();
                tokio::pin!(called);
                called.as_mut().enable();
                if self.calls_of(kind).len() >= count {
                    return;
                }
                called.await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(30), enough).await;
        assert!(waited.is_ok(), "{} of {count} calls", self.calls_of(kind).len());
    }

    /// The payment intents of one of our payments, oldest first.
    pub fn intents_of(&self, payment: &str) -> Vec<Value> {
        let state = self.shared.state();
        let all = state.objects.intents.iter();
        all.filter(|intent| intent["metadata"]["paybus_payment"] == payment).cloned().collect()
    }

    /// The refunds of a payment intent that gave money back, oldest first.
    pub fn refunds_of(&self, payment_intent: &str) -> Vec<Value> {
        let state = self.shared.state();
        let all = state.objects.refunds.iter();
        let released = &state.objects.released;
        let was_taken = |refund: &&Value| !released.iter().any(|id| refund["id"] == *id.as_str());
        all.filter(|refund| refund["payment_intent"] == payment_intent).filter(was_taken).cloned().collect()
    }

    /// The charges of a payment intent that went through, oldest first.
    pub fn charges_of(&self, payment_intent: &str) -> Vec<Value> {
        let state = self.shared.state();
        let all = state.objects.charges.iter();
        all.filter(|charge| charge["payment_intent"] == payment_intent && charge["paid"] == true).cloned().collect()
    }
}

impl Drop for FakeStripe {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.get_mut().unwrap().take() {
            // A test's own runtime must not be blocked here.
            runtime.shutdown_background();
        }
    }
}

/// Listens at an address, and delivers webhooks meanwhile.
fn serve(shared: &Arc<Shared>, address: SocketAddr) -> (Runtime, SocketAddr) {
    let (runtime, address) = crate::listener::serve("fake-stripe", address, server::router(Arc::clone(shared)));
    runtime.spawn(webhook::deliver(Arc::clone(shared)));
    (runtime, address)
}
