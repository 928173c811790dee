//! The gateway of a soak: it keeps its own ledger, which is the truth, and fails as drawn. It also records what was
//! requested and what it had to refuse.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use clap::ValueEnum;
use futures_util::future::BoxFuture;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::faults::OperationFaults;
use crate::script::{CARDS, KEYLESS, PROVED, Script, UNDOING};
use crate::stripe::StripeLedger;
use crate::support::fake_gateway::{CallRecord, Effect, FakeGateway, News, Pending, Refused};
use crate::support::{Setup, Webhook, World};

/// The secret that signs the webhooks of a soak.
pub const WEBHOOK_SECRET: &str = "whsec_chaos";

/// The gateway of a soak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GatewayName {
    /// `http`.
    Http,
    /// `stripe`, at an in-memory Stripe.
    Stripe,
}

impl GatewayName {
    /// Its name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            GatewayName::Http => "http",
            GatewayName::Stripe => "stripe",
        }
    }

    /// A `process` object that this gateway accepts.
    pub fn process(self) -> Value {
        match self {
            GatewayName::Http => json!({"token": "tok"}),
            GatewayName::Stripe => json!({"payment_method": "pm_card_visa"}),
        }
    }

    /// Starts it, for the scripts that will be played.
    pub fn start(self, scripts: &[Script]) -> Option<StripeLedger> {
        (self == GatewayName::Stripe).then(|| StripeLedger::start(scripts))
    }
}

/// A request that would move money or end something, as the gateway read it.
#[derive(Debug, Clone)]
pub struct Request {
    pub payment: Uuid,
    pub operation: Uuid,
    /// `process`, `confirm`, `capture`, `release`, `refund` or `cancel`.
    pub action: String,
    /// `None` if it names no amount.
    pub amount: Option<Decimal>,
    pub currency: String,
    /// What could be refunded when the request arrived.
    pub refundable: Decimal,
}

/// Something that the gateway reports by itself, to be delivered as a webhook.
#[derive(Debug, Clone)]
pub struct Report {
    /// The variant of the webhook.
    pub variant: &'static str,
    /// The payment that it is about, if it names one.
    pub payment: Option<Uuid>,
    /// Its id, which becomes the id of the `payment.notification`.
    pub id: String,
    pub body: String,
}

/// What a soak needs from its gateway.
pub trait Ledger: Sync {
    /// Every request that would act, in order.
    fn requests(&self) -> Vec<Request>;

    /// Every request that the ledger did not allow, in order.
    fn refused(&self) -> Vec<Refused>;

    /// The operations in progress when it stopped: it may have reported them as pending and no longer knows them.
    fn forgotten(&self) -> BTreeSet<Uuid>;

    /// The reports so far, from number `from` on.
    fn reports(&self, from: usize) -> Vec<Report>;

    /// A report as a webhook, signed now.
    fn webhook(&self, report: &Report) -> Webhook;

    /// The variants that call this gateway.
    fn variants(&self) -> &'static [&'static str];

    /// Every kind of fault that it can have, under the name that `met` uses.
    fn faults(&self) -> &'static [&'static str];

    /// Makes the calls of a payment's operation meet these faults.
    fn plan(&self, payment: Uuid, fault: &OperationFaults);

    /// From now on there are no faults.
    fn forget_plans(&self);

    /// The payments with something pending.
    fn pending(&self) -> HashMap<Uuid, Pending>;

    /// Completes what is pending for a payment.
    fn complete(&self, payment: Uuid, approved: bool);

    /// Everything that was done for a payment.
    fn effects(&self, payment: Uuid) -> Vec<Effect>;

    /// Everything that was done, by payment.
    fn effects_of_all(&self) -> HashMap<Uuid, Vec<Effect>>;

    /// Whether more of a payment's authorization could be captured.
    fn holds(&self, payment: Uuid, currency: &str) -> bool;

    /// Corrects the booked amount of an operation.
    fn put_right(&self, payment: Uuid, operation: Uuid, amount: Decimal, currency: &str);

    /// Refuses connections for a while.
    fn gone_for(&self, pause: Duration) -> BoxFuture<'_, ()>;

    /// How often each fault was met.
    fn met(&self) -> BTreeMap<&'static str, usize>;

    /// How many calls there were.
    fn calls(&self) -> usize;

    /// The calls for a payment, as text.
    fn record(&self, payment: Uuid) -> Vec<String>;
}

/// The contracts of an `http` gateway that cannot be asked, which not every older release knows.
const UNASKED: [(&str, &[(&str, &str)]); 2] = [
    (PROVED, &[("lookup", "false"), ("notifications", "proof"), ("notification_deadline", "5s")]),
    (UNDOING, &[("lookup", "false"), ("undo", "true")]),
];

/// The variants that call this gateway; `all_are_new` if all workers are of this release.
pub fn variants(stripe: Option<&StripeLedger>, all_are_new: bool) -> &'static [&'static str] {
    match stripe {
        Some(_) => &[CARDS],
        None if all_are_new => &[CARDS, KEYLESS, PROVED, UNDOING],
        None => &[CARDS, KEYLESS],
    }
}

/// The world's settings for the variants of this gateway; `all_are_new` if all workers are of this release.
pub fn configure(setup: Setup, stripe: Option<&StripeLedger>, all_are_new: bool) -> Setup {
    // Not every older release knows this setting.
    let setup = if all_are_new { setup.set(&format!("variants.{CARDS}.multicapture"), "true") } else { setup };
    match stripe {
        None => variants(stripe, all_are_new).iter().fold(setup, |setup, name| {
            let url = if *name == KEYLESS { "KEYLESS" } else { "GATEWAY" };
            let setup = setup.http_variant(name).set(&format!("variants.{name}.url"), url);
            let setup = setup.set(&format!("variants.{name}.webhook_secret"), WEBHOOK_SECRET);
            let keys = UNASKED.iter().find(|(unasked, _)| unasked == name).map(|(_, keys)| *keys).unwrap_or_default();
            keys.iter().fold(setup, |setup, (key, value)| setup.set(&format!("variants.{name}.{key}"), value))
        }),
        Some(stripe) => {
            let settings = stripe.settings();
            settings
                .into_iter()
                .fold(setup, |setup, (key, value)| setup.set(&format!("variants.{CARDS}.{key}"), &value))
        }
    }
}

/// What remains in effect: what was undone counts as if it had never happened.
pub fn standing(effects: &[Effect]) -> Vec<Effect> {
    let undone: BTreeSet<&str> = effects.iter().filter_map(|effect| effect.key.strip_prefix("undo-")).collect();
    let stands = |effect: &&Effect| effect.kind != "void" && !undone.contains(effect.key.as_str());
    effects.iter().filter(stands).cloned().collect()
}

/// The ledger of a soak in this world.
pub fn of<'a>(world: &'a World, stripe: Option<&'a StripeLedger>) -> &'a dyn Ledger {
    match stripe {
        None => &world.gateway,
        Some(stripe) => stripe,
    }
}

impl Ledger for FakeGateway {
    fn requests(&self) -> Vec<Request> {
        let acts = |call: &CallRecord| !matches!(call.operation.as_str(), "status" | "undo");
        let calls = FakeGateway::calls(self).into_iter().filter(acts);
        let read = |call: CallRecord| {
            let fields: Value = serde_json::from_slice(&call.body).ok()?;
            Some(Request {
                payment: call.payment_id?,
                operation: call.operation_id?,
                action: call.operation,
                amount: fields["amount"].as_str().and_then(|text| text.parse().ok()),
                currency: fields["currency"].as_str()?.to_owned(),
                refundable: call.refundable,
            })
        };
        calls.filter_map(read).collect()
    }

    fn refused(&self) -> Vec<Refused> {
        FakeGateway::refused(self)
    }

    fn forgotten(&self) -> BTreeSet<Uuid> {
        FakeGateway::forgotten(self)
    }

    fn reports(&self, from: usize) -> Vec<Report> {
        let news = self.news_since(from).into_iter().zip(from..);
        let report = |(news, number): (News, usize)| {
            let id = format!("n{number}");
            let variant = self.variants().iter().find(|name| **name == news.variant).copied().unwrap_or(CARDS);
            let hint = json!({"payment_id": news.payment_id, "operation_id": news.operation_id, "type": "result"});
            let is_its = |proof: &Value| proof["operation_id"] == hint["operation_id"];
            let proof = (variant == PROVED).then(|| self.proofs(news.payment_id).into_iter().rfind(is_its)).flatten();
            let mut body = proof.unwrap_or_else(|| hint.clone());
            body["id"] = json!(id);
            Report { variant, payment: Some(news.payment_id), id, body: body.to_string() }
        };
        news.map(report).collect()
    }

    fn webhook(&self, report: &Report) -> Webhook {
        let now = jiff::Timestamp::now().as_second();
        Webhook::of_text(report.variant, WEBHOOK_SECRET, report.body.clone(), now)
    }

    fn variants(&self) -> &'static [&'static str] {
        variants(None, true)
    }

    fn faults(&self) -> &'static [&'static str] {
        &[
            "declines",
            "redirects the customer",
            "answers pending",
            "answers 400",
            "answers 429 with Retry-After",
            "answers 503",
            "hangs before acting",
            "hangs after acting",
            "drops the answer after acting",
            "answers 500 after acting",
            "answers garbage",
            "truncates the answer",
            "trickles the answer",
            "moves a wrong amount",
            "moves a wrong currency",
            "acts late",
            "answers a look-up late",
            "repeats the answer of an earlier look-up",
            "answers a look-up for another operation",
        ]
    }

    fn plan(&self, payment: Uuid, fault: &OperationFaults) {
        self.plan_operation(payment, fault.operation, fault.behaviours.clone());
    }

    fn forget_plans(&self) {
        FakeGateway::forget_plans(self);
    }

    fn pending(&self) -> HashMap<Uuid, Pending> {
        FakeGateway::pending(self)
    }

    fn complete(&self, payment: Uuid, approved: bool) {
        FakeGateway::complete(self, payment, approved);
    }

    fn effects(&self, payment: Uuid) -> Vec<Effect> {
        FakeGateway::effects(self, payment)
    }

    fn effects_of_all(&self) -> HashMap<Uuid, Vec<Effect>> {
        FakeGateway::effects_of_all(self)
    }

    fn holds(&self, payment: Uuid, currency: &str) -> bool {
        FakeGateway::holds(self, payment, currency)
    }

    fn put_right(&self, payment: Uuid, operation: Uuid, amount: Decimal, currency: &str) {
        FakeGateway::put_right(self, payment, operation, amount, currency);
    }

    fn gone_for(&self, pause: Duration) -> BoxFuture<'_, ()> {
        Box::pin(FakeGateway::gone_for(self, pause))
    }

    fn met(&self) -> BTreeMap<&'static str, usize> {
        FakeGateway::met(self)
    }

    fn calls(&self) -> usize {
        FakeGateway::calls(self).len()
    }

    fn record(&self, payment: Uuid) -> Vec<String> {
        let calls = self.calls_of(payment).into_iter();
        let lines = calls.map(|call| {
            let operation = call.operation_id.map_or("-".to_owned(), |id| id.to_string());
            let (key, attempt) = (call.key.unwrap_or_default(), call.attempt.unwrap_or_default());
            format!("called {} for {operation}, attempt {attempt}, key {key}", call.operation)
        });
        lines.collect()
    }
}
