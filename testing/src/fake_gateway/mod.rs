//! A gateway that speaks paybus's `http` protocol, for tests: it keeps idempotency keys as a real one does, a ledger of
//! what it did and a record of every call, and it misbehaves as planned.
//!
//! It runs on a thread of its own, so that a test can stop it with everything it holds, and start it again on its port.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::HeaderMap;
use rust_decimal::Decimal;
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use uuid::Uuid;

use self::books::Books;
use crate::listener;

mod books;
mod server;

/// How the gateway treats one call. "Acts" means: books it under its key, unless that key was booked before; a call that
/// does not act leaves no trace but its record.
#[derive(Debug, Clone)]
pub enum Behaviour {
    /// Acts and answers.
    Approve,
    /// Acts: declines with this code.
    Decline(String),
    /// Acts: the customer must go to this address; [`FakeGateway::complete`] ends it.
    Redirect(String),
    /// Acts: the customer must approve at this address; [`FakeGateway::complete`] says that they did, and then it is done
    /// when it is confirmed.
    Approval(String),
    /// Acts: the result comes later; [`FakeGateway::complete`] ends it.
    Pending,
    /// Answers 400 and does not act.
    Refuse,
    /// Answers this status, with so many seconds of `Retry-After`, and does not act.
    Status(u16, Option<u64>),
    /// Neither acts nor answers.
    HangBefore,
    /// Acts and never answers.
    HangAfter,
    /// Acts and closes the connection.
    DropAfter,
    /// Acts and answers 500.
    Error500After,
    /// Acts and answers something that is no JSON.
    Garbage,
    /// Acts and answers half of its answer.
    Truncated,
    /// Acts and answers byte by byte, with this pause before each.
    Trickle(Duration),
    /// Acts, and answers with these members beside, or in place of, the usual ones.
    Say(Value),
    /// Acts on this amount in place of the one that was asked.
    WrongAmount(String),
    /// Acts on so many percent of the amount that was asked.
    Portion(u32),
    /// Acts in this currency.
    WrongCurrency(String),
    /// Is busy for so long (the same key is answered 409 meanwhile), then acts and answers.
    Delay(Duration),
    /// Is busy until it is told to go on, then acts and answers.
    Until(Arc<Notify>),
    /// The same, and answers as [`Behaviour::Say`] does.
    SayWhenNotified(Arc<Notify>, Value),
    /// Of a look-up: what was true when it came is answered so much later.
    Late(Duration),
    /// Of a look-up: the same question's last answer is given once more, be it old. It is never older than the gateway
    /// may be behind itself.
    Repeat,
    /// Of a look-up: another refund or capture of the payment is answered for, by its `operation_id`.
    Another,
}

impl Behaviour {
    /// What it is called, whatever its numbers are.
    pub fn name(&self) -> &'static str {
        match self {
            Behaviour::Approve => "approves",
            Behaviour::Decline(_) => "declines",
            Behaviour::Redirect(_) => "redirects the customer",
            Behaviour::Approval(_) => "asks the customer to approve",
            Behaviour::Pending => "answers pending",
            Behaviour::Refuse => "answers 400",
            Behaviour::Status(429, _) => "answers 429 with Retry-After",
            Behaviour::Status(503, _) => "answers 503",
            Behaviour::Status(..) => "answers another status",
            Behaviour::HangBefore => "hangs before acting",
            Behaviour::HangAfter => "hangs after acting",
            Behaviour::DropAfter => "drops the answer after acting",
            Behaviour::Error500After => "answers 500 after acting",
            Behaviour::Garbage => "answers garbage",
            Behaviour::Truncated => "truncates the answer",
            Behaviour::Trickle(_) => "trickles the answer",
            Behaviour::Say(_) => "says something else",
            Behaviour::WrongAmount(_) | Behaviour::Portion(_) => "moves a wrong amount",
            Behaviour::WrongCurrency(_) => "moves a wrong currency",
            Behaviour::Delay(_) | Behaviour::Until(_) | Behaviour::SayWhenNotified(..) => "acts late",
            Behaviour::Late(_) => "answers a look-up late",
            Behaviour::Repeat => "repeats the answer of an earlier look-up",
            Behaviour::Another => "answers a look-up for another operation",
        }
    }

    /// Whether it is a look-up's: one that can be misled meets it.
    fn misleads(&self) -> bool {
        matches!(self, Behaviour::Late(_) | Behaviour::Repeat | Behaviour::Another)
    }

    /// Whether it says what the gateway does, and not how it answers: a key that is booked already does not meet it.
    fn is_deed(&self) -> bool {
        matches!(
            self,
            Behaviour::Decline(_)
                | Behaviour::Redirect(_)
                | Behaviour::Approval(_)
                | Behaviour::Pending
                | Behaviour::WrongAmount(_)
                | Behaviour::Portion(_)
                | Behaviour::WrongCurrency(_)
                | Behaviour::Delay(_)
                | Behaviour::Until(_)
                | Behaviour::SayWhenNotified(..)
        )
    }
}

/// Money that the gateway moved, or an end that it made.
#[derive(Debug, Clone, PartialEq)]
pub struct Effect {
    /// `charge`, `authorization`, `capture`, `refund`, `release`, `cancel` or `void`.
    pub kind: &'static str,
    pub operation_id: Uuid,
    pub key: String,
    pub amount: Decimal,
    pub currency: String,
}

/// A request that the gateway's own ledger did not allow, or that came under a key with another body.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    pub payment_id: Uuid,
    pub effect: Effect,
    pub reason: String,
}

/// Something that a webhook would report: an operation of a payment has a result.
#[derive(Debug, Clone, PartialEq)]
pub struct News {
    pub payment_id: Uuid,
    pub operation_id: Uuid,
    /// The variant that the payment's requests came from.
    pub variant: String,
}

/// What a payment has pending.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pending {
    /// Processes whose customer was sent away.
    pub customers: usize,
    /// All else.
    pub others: usize,
}

/// A request as it came in.
#[derive(Debug, Clone)]
pub struct CallRecord {
    /// The last word of its path.
    pub operation: String,
    pub operation_id: Option<Uuid>,
    pub payment_id: Option<Uuid>,
    pub key: Option<String>,
    pub attempt: Option<u32>,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub at: Instant,
    /// What could still be refunded when it came, in the request's currency.
    pub refundable: Decimal,
}

#[derive(Debug, Default)]
struct Shared {
    books: Mutex<Books>,
    called: Notify,
}

/// The running gateway. Dropping it stops it.
pub struct FakeGateway {
    shared: Arc<Shared>,
    address: SocketAddr,
    runtime: Mutex<Option<Runtime>>,
}

impl FakeGateway {
    /// Starts on a free port of 127.0.0.1.
    pub async fn start() -> FakeGateway {
        let shared = Arc::default();
        let (runtime, address) = serve(&shared, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        FakeGateway { shared, address, runtime: Mutex::new(Some(runtime)) }
    }

    /// Starts again on the same port, with everything it knew.
    pub async fn start_again(&mut self) {
        self.open();
    }

    /// Stops: the port refuses connections, those that are open break, and what was being worked on is never done.
    pub async fn stop(&mut self) {
        self.close().await;
    }

    /// Stops, and starts again after a while.
    pub async fn gone_for(&self, pause: Duration) {
        self.close().await;
        tokio::time::sleep(pause).await;
        self.open();
    }

    /// Takes connections again, after [`FakeGateway::close`].
    pub fn open(&self) {
        let mut runtime = self.runtime.lock().unwrap();
        assert!(runtime.is_none(), "the gateway runs already");
        *runtime = Some(serve(&self.shared, self.address).0);
    }

    /// Refuses connections until [`FakeGateway::open`].
    pub async fn close(&self) {
        let Some(runtime) = self.runtime.lock().unwrap().take() else { return };
        let stopped = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(10)));
        stopped.await.unwrap();
        self.books().forget_unfinished();
    }

    /// The address for a variant's `url`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The address for a variant whose gateway knows no idempotency keys: each request that acts is a new one.
    pub fn keyless_url(&self) -> String {
        format!("http://{}/{}", self.address, books::KEYLESS)
    }

    /// What the next calls of a payment meet, in order; `status` is not counted. Goes before plans for all.
    pub fn plan(&self, payment_id: Uuid, behaviours: Vec<Behaviour>) {
        self.add_plan(Some(payment_id), None, behaviours);
    }

    /// The same for one operation of a payment (`process`, ..., `status`). Goes before [`FakeGateway::plan`].
    pub fn plan_operation(&self, payment_id: Uuid, operation: &str, behaviours: Vec<Behaviour>) {
        self.add_plan(Some(payment_id), Some(operation), behaviours);
    }

    /// What the next calls meet, whatever payment they are for; `status` is not counted.
    pub fn plan_all(&self, behaviours: Vec<Behaviour>) {
        self.add_plan(None, None, behaviours);
    }

    /// The same for one operation (`process`, ..., `status`). Goes before [`FakeGateway::plan_all`].
    pub fn plan_all_operation(&self, operation: &str, behaviours: Vec<Behaviour>) {
        self.add_plan(None, Some(operation), behaviours);
    }

    /// What every call meets, `status` included, that no plan is for; nothing for normal service.
    pub fn set_default(&self, behaviour: Option<Behaviour>) {
        self.books().default = behaviour;
    }

    /// Forgets what was planned and not met yet: from here on all is well.
    pub fn forget_plans(&self) {
        let mut books = self.books();
        books.plans.clear();
        books.default = None;
    }

    /// How often each behaviour was met, by its name; normal service is not counted.
    pub fn met(&self) -> BTreeMap<&'static str, usize> {
        self.books().met.clone()
    }

    /// The payments that have something pending.
    pub fn pending(&self) -> HashMap<Uuid, Pending> {
        self.books().pending()
    }

    /// How long every call takes.
    pub fn set_latency(&self, latency: Duration) {
        self.books().latency = latency;
    }

    /// Ends what is pending of a payment, or waits for its customer: approved, or declined.
    pub fn complete(&self, payment_id: Uuid, approved: bool) {
        self.books().complete(payment_id, approved);
    }

    /// Money that somebody moves at the gateway itself, apart from paybus.
    pub fn move_by_hand(&self, payment_id: Uuid, kind: &'static str, amount: &str, currency: &str) {
        let amount = Decimal::from_str_exact(amount).unwrap();
        let (operation_id, key) = (Uuid::new_v4(), String::new());
        let effect = Effect { kind, operation_id, key, amount, currency: currency.to_owned() };
        self.books().effects.entry(payment_id).or_default().push(effect);
    }

    /// Everything that was done for a payment, in order.
    pub fn effects(&self, payment_id: Uuid) -> Vec<Effect> {
        self.books().effects.get(&payment_id).cloned().unwrap_or_default()
    }

    /// From here on a cancel of what is charged is approved: it voids the charge, as some gateways do, or does nothing.
    pub fn approve_cancels(&self, voids: bool) {
        self.books().cancels_void = Some(voids);
    }

    /// Whether more of a payment's authorization could be captured.
    pub fn holds(&self, payment_id: Uuid, currency: &str) -> bool {
        self.books().holds(payment_id, currency)
    }

    /// Corrects what an operation was booked as.
    pub fn put_right(&self, payment_id: Uuid, operation_id: Uuid, amount: Decimal, currency: &str) {
        self.books().put_right(payment_id, operation_id, amount, currency);
    }

    /// The charges and authorizations of a payment.
    pub fn charges(&self, payment_id: Uuid) -> Vec<Effect> {
        self.effects_of(payment_id, &["charge", "authorization"])
    }

    /// The captures of authorizations of a payment.
    pub fn captures(&self, payment_id: Uuid) -> Vec<Effect> {
        self.effects_of(payment_id, &["capture"])
    }

    /// The refunds of a payment.
    pub fn refunds(&self, payment_id: Uuid) -> Vec<Effect> {
        self.effects_of(payment_id, &["refund"])
    }

    /// The releases of a payment.
    pub fn releases(&self, payment_id: Uuid) -> Vec<Effect> {
        self.effects_of(payment_id, &["release"])
    }

    /// The cancels of a payment.
    pub fn cancels(&self, payment_id: Uuid) -> Vec<Effect> {
        self.effects_of(payment_id, &["cancel"])
    }

    /// The charges and authorizations of all payments.
    pub fn charges_of_all(&self) -> HashMap<Uuid, Vec<Effect>> {
        let payments: Vec<Uuid> = self.books().effects.keys().copied().collect();
        payments.into_iter().map(|id| (id, self.charges(id))).collect()
    }

    /// Everything that was done, by payment.
    pub fn effects_of_all(&self) -> HashMap<Uuid, Vec<Effect>> {
        self.books().effects.clone()
    }

    /// Every request that the ledger did not allow, in order.
    pub fn refused(&self) -> Vec<Refused> {
        self.books().refused.clone()
    }

    /// The operations that it was working on when it stopped: it may have said that they were pending, and knows them no more.
    pub fn forgotten(&self) -> BTreeSet<Uuid> {
        self.books().forgotten.clone()
    }

    /// What a webhook would have reported, beginning with the number `from`.
    pub fn news_since(&self, from: usize) -> Vec<News> {
        self.books().news.get(from..).unwrap_or_default().to_vec()
    }

    /// What webhooks that are proof would say of a payment as it stands now, each without its id: of every operation in
    /// order of its first call, and of what was moved by hand.
    pub fn proofs(&self, payment_id: Uuid) -> Vec<Value> {
        self.books().proofs(payment_id)
    }

    /// Every call, in order.
    pub fn calls(&self) -> Vec<CallRecord> {
        self.books().calls.clone()
    }

    /// The calls for a payment, in order.
    pub fn calls_of(&self, payment_id: Uuid) -> Vec<CallRecord> {
        let books = self.books();
        let calls = books.calls.iter();
        calls.filter(|call| call.payment_id == Some(payment_id)).cloned().collect()
    }

    /// Waits until a payment was called for so many times.
    pub async fn wait_for_calls(&self, payment_id: Uuid, count: usize) {
        let enough = async {
            loop {
                let called = self.shared.called.notified();
                if self.count_calls(payment_id) >= count {
                    return;
                }
                called.await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(30), enough).await;
        assert!(waited.is_ok(), "{} of {count} calls", self.count_calls(payment_id));
    }

    fn count_calls(&self, payment_id: Uuid) -> usize {
        let books = self.books();
        let calls = books.calls.iter();
        calls.filter(|call| call.payment_id == Some(payment_id)).count()
    }

    fn effects_of(&self, payment_id: Uuid, kinds: &[&str]) -> Vec<Effect> {
        let effects = self.effects(payment_id).into_iter();
        effects.filter(|effect| kinds.contains(&effect.kind)).collect()
    }

    fn add_plan(&self, payment_id: Option<Uuid>, operation: Option<&str>, behaviours: Vec<Behaviour>) {
        let plan = (payment_id, operation.map(str::to_owned));
        self.books().plans.entry(plan).or_default().extend(behaviours);
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.shared.books.lock().unwrap()
    }
}

impl Drop for FakeGateway {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.get_mut().unwrap().take() {
            // A test's own runtime must not be blocked here.
            runtime.shutdown_background();
        }
    }
}

fn serve(shared: &Arc<Shared>, address: SocketAddr) -> (Runtime, SocketAddr) {
    listener::serve("fake-gateway", address, server::router(Arc::clone(shared)))
}
