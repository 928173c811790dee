//! The in-memory Stripe as a soak's gateway: the drawn faults in Stripe's terms, and its objects as a ledger.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::faults::OperationFaults;
use crate::ledger::{Ledger, Report, Request, WEBHOOK_SECRET};
use crate::script::{CARDS, Script};
use crate::support::fake_gateway::{Effect, Pending, Refused};
use crate::support::fake_stripe::{Call, FakeStripe, Fault};
use crate::support::{Behaviour, Webhook};

/// More keys than any operation uses.
const GENERATIONS_MAX: u32 = 16;

/// The ledger.
pub struct StripeLedger {
    stripe: FakeStripe,
    /// Captures and cancels identify their operation only by their key.
    keys: HashMap<String, Uuid>,
}

impl StripeLedger {
    /// Starts it.
    pub fn start(scripts: &[Script]) -> StripeLedger {
        let commands = scripts.iter().flat_map(|script| &script.steps).flat_map(|step| &step.commands);
        let keys = commands.flat_map(|command| {
            let operation = command.operation_id();
            let key = move |generation: u32| Uuid::new_v5(&operation, &generation.to_be_bytes()).to_string();
            (0..GENERATIONS_MAX).map(move |generation| (key(generation), operation))
        });
        StripeLedger { stripe: FakeStripe::start(), keys: keys.collect() }
    }

    /// The settings of a variant.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let usual = [("gateway", "stripe"), ("secret_key", "sk_test_chaos"), ("settle_window", "1s")];
        let settings = usual.into_iter().map(|(key, value)| (key, value.to_owned()));
        settings.chain([("api_base", self.stripe.url()), ("webhook_secret", WEBHOOK_SECRET.to_owned())]).collect()
    }

    /// The operation of a request: from its metadata, or else from its key.
    fn operation(&self, form: &Value, key: &str) -> Uuid {
        let named = text(&form["metadata"], "paybus_operation").parse().ok();
        named.or_else(|| self.keys.get(key).copied()).unwrap_or_default()
    }

    fn request(&self, call: Call) -> Option<Request> {
        let (action, amount) = match call.kind {
            "create" => ("process", "amount"),
            // A final capture of zero releases the rest.
            "capture" if call.form["amount_to_capture"] == "0" => ("release", ""),
            "capture" => ("capture", "amount_to_capture"),
            "refund" => ("refund", "amount"),
            // Releasing an authorization and cancelling a payment before it are the same request.
            "cancel" => ("cancel", ""),
            _ => return None,
        };
        let payment = call.payment.as_ref()?;
        let intents = self.stripe.intents_of(payment);
        let of_intent = intents.first().map(|intent| text(intent, "currency")).unwrap_or_default();
        let currency = call.form["currency"].as_str().unwrap_or(of_intent).to_ascii_uppercase();
        let units = |text: &str| Decimal::new(text.parse().unwrap_or_default(), decimals(&currency));
        Some(Request {
            payment: payment.parse().ok()?,
            operation: self.operation(&call.form, call.key.as_deref().unwrap_or_default()),
            action: action.to_owned(),
            amount: call.form[amount].as_str().map(units),
            refundable: Decimal::new(call.refundable, decimals(&currency)),
            currency,
        })
    }

    /// The operations whose requests of a kind were carried out on an object.
    fn operations_that_did(&self, kind: &str, id: &str) -> Vec<Uuid> {
        let keys = self.stripe.keys_that_did(kind, id).into_iter();
        keys.map(|key| self.keys.get(&key).copied().unwrap_or_default()).collect()
    }

    /// What was done with one payment intent.
    fn done(&self, intent: &Value) -> Vec<Effect> {
        let id = text(intent, "id");
        let currency = text(intent, "currency").to_ascii_uppercase();
        let effect = |kind, operation_id, units: &Value| Effect {
            kind,
            operation_id,
            key: String::new(),
            amount: amount(units, &currency),
            currency: currency.clone(),
        };
        let is_held = intent["capture_method"] == "manual";
        let mut done = Vec::new();
        for charge in self.stripe.charges_of(id) {
            let kind = if is_held { "authorization" } else { "charge" };
            done.push(effect(kind, operation(&charge), &charge["amount"]));
        }
        for operation in self.operations_that_did("capture", id) {
            // The amount of a capture is in its mark; a capture of nothing released the rest.
            let taken = text(&intent["metadata"], &format!("paybus_{}", operation.simple())).parse::<i64>();
            done.push(match taken {
                Ok(units) => effect("capture", operation, &json!(units)),
                Err(_) => effect("release", operation, &json!(0)),
            });
        }
        if intent["status"] == "canceled" {
            let kind = if done.is_empty() { "cancel" } else { "release" };
            let operation = self.operations_that_did("cancel", id).first().copied().unwrap_or_default();
            done.push(effect(kind, operation, &json!(0)));
        }
        let refunds = self.stripe.refunds_of(id).into_iter().filter(|refund| refund["status"] == "succeeded");
        done.extend(refunds.map(|refund| effect("refund", operation(&refund), &refund["amount"])));
        done
    }
}

impl Ledger for StripeLedger {
    fn requests(&self) -> Vec<Request> {
        self.stripe.calls().into_iter().filter_map(|call| self.request(call)).collect()
    }

    fn refused(&self) -> Vec<Refused> {
        let refused = self.stripe.refused().into_iter().filter(|refused| refused.kind != "update");
        let read = |refused: crate::support::fake_stripe::Refused| {
            let effect = Effect {
                kind: refused.kind,
                operation_id: self.operation(&refused.form, &refused.key),
                key: refused.key,
                amount: Decimal::ZERO,
                currency: String::new(),
            };
            Some(Refused { payment_id: refused.payment?.parse().ok()?, effect, reason: refused.message })
        };
        refused.filter_map(read).collect()
    }

    /// It reports nothing as pending before it is stored.
    fn forgotten(&self) -> BTreeSet<Uuid> {
        BTreeSet::new()
    }

    fn reports(&self, from: usize) -> Vec<Report> {
        let report = |event: &Value| {
            let object = &event["data"]["object"];
            let payment = payment(object);
            Report { variant: CARDS, payment, id: text(event, "id").to_owned(), body: event.to_string() }
        };
        self.stripe.events_behind(from).iter().map(report).collect()
    }

    fn webhook(&self, report: &Report) -> Webhook {
        Webhook {
            variant: report.variant.to_owned(),
            body: report.body.clone(),
            signature: Some(FakeStripe::signature(WEBHOOK_SECRET, &report.body)),
            header: "Stripe-Signature",
        }
    }

    fn variants(&self) -> &'static [&'static str] {
        &[CARDS]
    }

    fn faults(&self) -> &'static [&'static str] {
        &[
            "answers 429",
            "answers another status",
            "keeps a 500 after acting",
            "keeps a 500 without acting",
            "keeps a 500 half-way",
            "drops the answer after acting",
            "hangs after acting",
            "hangs before acting",
            "acts late",
            "does something else",
            "answers garbage",
            "truncates the answer",
        ]
    }

    fn plan(&self, payment: Uuid, fault: &OperationFaults) {
        let kinds: &[&str] = match fault.operation {
            "process" => &["create", "update", "confirm"],
            "capture" => &["capture"],
            "refund" => &["refund"],
            "status" => &["retrieve", "search", "list"],
            // Both are a cancel at Stripe.
            _ => &["cancel"],
        };
        let stripe_faults =
            fault.behaviours.iter().filter_map(|behaviour| stripe_fault(fault.operation, behaviour)).collect();
        self.stripe.plan_for(&payment.to_string(), kinds, stripe_faults);
    }

    fn forget_plans(&self) {
        self.stripe.forget_plans();
    }

    fn pending(&self) -> HashMap<Uuid, Pending> {
        let waiting = self.stripe.intents_in("requires_action").into_iter();
        let payments = waiting.filter_map(|intent| payment(&intent));
        payments.map(|payment| (payment, Pending { customers: 1, others: 0 })).collect()
    }

    fn complete(&self, payment: Uuid, approved: bool) {
        for intent in self.stripe.intents_of(&payment.to_string()) {
            if intent["status"] == "requires_action" {
                self.stripe.authenticate(text(&intent, "id"), approved);
            }
        }
    }

    fn effects(&self, payment: Uuid) -> Vec<Effect> {
        self.stripe.intents_of(&payment.to_string()).iter().flat_map(|intent| self.done(intent)).collect()
    }

    fn effects_of_all(&self) -> HashMap<Uuid, Vec<Effect>> {
        let payments = self.stripe.intents().into_iter().filter_map(|intent| payment(&intent));
        payments.map(|payment| (payment, self.effects(payment))).collect()
    }

    fn holds(&self, payment: Uuid, currency: &str) -> bool {
        let mut intents = self.stripe.intents_of(&payment.to_string()).into_iter();
        intents.any(|intent| {
            intent["status"] == "requires_capture" && text(&intent, "currency").eq_ignore_ascii_case(currency)
        })
    }

    fn put_right(&self, payment: Uuid, operation: Uuid, amount: Decimal, currency: &str) {
        for intent in self.stripe.intents_of(&payment.to_string()) {
            if intent["metadata"]["paybus_operation"] == operation.to_string() {
                let units = (amount * Decimal::from(10_u32.pow(decimals(currency)))).try_into().expect("whole units");
                self.stripe.put_right(text(&intent, "id"), units, &currency.to_ascii_lowercase());
            }
        }
    }

    fn gone_for(&self, pause: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.stripe.stop().await;
            tokio::time::sleep(pause).await;
            self.stripe.start_again();
        })
    }

    fn met(&self) -> BTreeMap<&'static str, usize> {
        self.stripe.met()
    }

    fn calls(&self) -> usize {
        self.stripe.calls().len()
    }

    fn record(&self, payment: Uuid) -> Vec<String> {
        let calls = self.stripe.calls_for(&payment.to_string()).into_iter();
        let line = |call: crate::support::fake_stripe::Call| {
            let operation = call.key.as_ref().and_then(|key| self.keys.get(key));
            format!(
                "{} {} key {:?} of {operation:?}, replayed {}: {}",
                call.kind, call.path, call.key, call.replayed, call.body
            )
        };
        let objects = self.stripe.intents_of(&payment.to_string());
        calls.map(line).chain(objects.iter().map(|object| format!("has {object}"))).collect()
    }
}

fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object[name].as_str().unwrap_or_default()
}

fn payment(object: &Value) -> Option<Uuid> {
    text(&object["metadata"], "paybus_payment").parse().ok()
}

fn operation(object: &Value) -> Uuid {
    text(&object["metadata"], "paybus_operation").parse().unwrap_or_default()
}

fn decimals(currency: &str) -> u32 {
    match currency {
        "JPY" => 0,
        "KWD" | "BHD" => 3,
        _ => 2,
    }
}

fn amount(units: &Value, currency: &str) -> Decimal {
    Decimal::new(units.as_i64().unwrap_or_default(), decimals(currency))
}

/// The drawn fault in Stripe's terms; `None` if a card cannot have it, or if there is no fault.
fn stripe_fault(operation: &str, behaviour: &Behaviour) -> Option<Fault> {
    let processes = operation == "process";
    let otherwise = |name: &str, value: &str| Fault::Otherwise(json!({name: value}));
    Some(match behaviour {
        Behaviour::Decline(_) if processes => otherwise("payment_method", "pm_card_visa_chargeDeclined"),
        Behaviour::Redirect(url) if processes => {
            Fault::Otherwise(json!({"payment_method": "pm_card_threeDSecure2Required", "return_url": url}))
        }
        // The payment intent exists but was not confirmed.
        Behaviour::Pending if processes => Fault::StoredHalfway,
        Behaviour::Refuse => Fault::error(400, "invalid_request_error", "parameter_invalid"),
        Behaviour::WrongCurrency(_) if processes => otherwise("currency", "gbp"),
        Behaviour::HangBefore => Fault::HangBefore,
        Behaviour::HangAfter => Fault::HangAfter,
        Behaviour::DropAfter => Fault::LoseAnswer,
        Behaviour::Error500After => Fault::Stored500 { acts: true },
        Behaviour::Status(503, _) => Fault::Stored500 { acts: false },
        Behaviour::Status(429, _) => {
            Fault::error(429, "invalid_request_error", "rate_limit").header("retry-after", "1")
        }
        Behaviour::Garbage => Fault::Garbage,
        Behaviour::Truncated => Fault::HalfAnswer,
        Behaviour::Trickle(between) => Fault::Delay(*between * 64),
        Behaviour::Delay(busy) | Behaviour::Late(busy) => Fault::Delay(*busy),
        _ => return None,
    })
}
