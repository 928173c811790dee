//! The gateway of a soak: it keeps a ledger of its own, which is the truth, and fails as it was drawn.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use clap::ValueEnum;
use futures_util::future::BoxFuture;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::faults::Fault;
use crate::script::{Script, VARIANT};
use crate::stripe::StripeLedger;
use crate::support::fake_gateway::{Effect, FakeGateway, Pending};
use crate::support::{Setup, World};

/// Which gateway a soak is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GatewayName {
    /// `http`.
    Http,
    /// `stripe`, at a Stripe in memory.
    Stripe,
}

impl GatewayName {
    /// The word on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            GatewayName::Http => "http",
            GatewayName::Stripe => "stripe",
        }
    }

    /// A `process` object that this gateway takes.
    pub fn process(self) -> Value {
        match self {
            GatewayName::Http => json!({"token": "tok"}),
            GatewayName::Stripe => json!({"payment_method": "pm_card_visa"}),
        }
    }

    /// Starts one, for the scripts that will be played.
    pub fn start(self, scripts: &[Script]) -> Option<StripeLedger> {
        (self == GatewayName::Stripe).then(|| StripeLedger::start(scripts))
    }
}

/// What a soak needs of its gateway.
pub trait Ledger: Sync {
    /// Lets the calls of a payment's operation meet these.
    fn plan(&self, payment: Uuid, fault: &Fault);

    /// From here on all is well.
    fn forget_plans(&self);

    /// The payments that have something pending.
    fn pending(&self) -> HashMap<Uuid, Pending>;

    /// Ends what is pending of a payment.
    fn complete(&self, payment: Uuid, approved: bool);

    /// Everything that was done for a payment.
    fn effects(&self, payment: Uuid) -> Vec<Effect>;

    /// Everything that was done.
    fn effects_of_all(&self) -> HashMap<Uuid, Vec<Effect>>;

    /// Corrects what an operation was booked as.
    fn put_right(&self, payment: Uuid, operation: Uuid, amount: Decimal, currency: &str);

    /// Refuses connections for a while.
    fn gone_for(&self, pause: Duration) -> BoxFuture<'_, ()>;

    /// How often each fault was met.
    fn met(&self) -> BTreeMap<&'static str, usize>;

    /// How many calls there were.
    fn calls(&self) -> usize;

    /// The calls for a payment, for a person.
    fn record(&self, payment: Uuid) -> Vec<String>;
}

/// The world's settings for a variant of this gateway.
pub fn configure(setup: Setup, stripe: Option<&StripeLedger>) -> Setup {
    match stripe {
        None => setup.http_variant(VARIANT),
        Some(stripe) => {
            let settings = stripe.settings();
            settings
                .into_iter()
                .fold(setup, |setup, (key, value)| setup.set(&format!("variants.{VARIANT}.{key}"), &value))
        }
    }
}

/// The ledger of a soak in this world.
pub fn of<'a>(world: &'a World, stripe: Option<&'a StripeLedger>) -> &'a dyn Ledger {
    match stripe {
        None => &world.gateway,
        Some(stripe) => stripe,
    }
}

impl Ledger for FakeGateway {
    fn plan(&self, payment: Uuid, fault: &Fault) {
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
