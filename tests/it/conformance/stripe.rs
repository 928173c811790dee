//! The fake of `stripe`: a Stripe in memory that takes Stripe's own test tokens.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use uuid::Uuid;

use paybus::payment::action::Action;
use paybus::payment::outcome::Decline;

use super::fake::{Booked, Deed, Ended, Fake, Meets, On, Sent, SignedWebhook, Unsupported};
use crate::support::fake_stripe::{FakeStripe, Fault};

const SECRET_KEY: &str = "sk_test_conformance";
const WEBHOOK_SECRET: &str = "whsec_conformance";

/// An account at the Stripe in memory.
pub struct StripeFake {
    pub stripe: Arc<FakeStripe>,
}

impl StripeFake {
    pub fn start() -> StripeFake {
        StripeFake { stripe: Arc::new(FakeStripe::start()) }
    }

    /// The payment's payment intents.
    fn intents(&self, payment: Uuid) -> Vec<Value> {
        self.stripe.intents_of(&payment.to_string())
    }

    fn intent(&self, payment: Uuid) -> String {
        let intents = self.intents(payment);
        intents.last().and_then(|intent| intent["id"].as_str()).expect("a payment intent").to_owned()
    }

    /// What was done with one payment intent.
    fn booked(&self, intent: &Value) -> Vec<Booked> {
        let id = intent["id"].as_str().expect("an id");
        let currency = intent["currency"].as_str().expect("a currency").to_ascii_uppercase();
        let line = |deed, units: &Value| Booked { deed, amount: amount(units, &currency), currency: currency.clone() };
        let is_held = intent["capture_method"] == "manual";
        let mut booked = Vec::new();
        for charge in self.stripe.charges_of(id) {
            booked.push(line(if is_held { Deed::Authorization } else { Deed::Charge }, &charge["amount"]));
            if is_held && charge["captured"] == true {
                booked.push(line(Deed::Capture, &charge["amount_captured"]));
            }
        }
        if intent["status"] == "canceled" {
            booked.push(line(if booked.is_empty() { Deed::Cancel } else { Deed::Release }, &intent["amount"]));
        }
        let given = self.stripe.refunds_of(id).into_iter().filter(|refund| refund["status"] == "succeeded");
        booked.extend(given.map(|refund| line(Deed::Refund, &refund["amount"])));
        booked
    }
}

impl Fake for StripeFake {
    fn name(&self) -> &'static str {
        "stripe"
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let usual = [
            ("gateway", "stripe"),
            ("secret_key", SECRET_KEY),
            ("webhook_secret", WEBHOOK_SECRET),
            ("settle_window", "300ms"),
            ("multicapture", "true"),
        ];
        let settings = usual.map(|(key, value)| (key, value.to_owned()));
        settings.into_iter().chain([("api_base", self.stripe.url())]).collect()
    }

    fn brief_keys(&self) -> Ended<Vec<(&'static str, String)>> {
        Err(Unsupported("its keys' window is fixed"))
    }

    fn secret(&self) -> Option<&'static str> {
        Some(SECRET_KEY)
    }

    fn process(&self) -> Value {
        method("pm_card_visa")
    }

    fn plan(&self, payment: Uuid, on: On, meets: &[Meets]) -> Ended<Value> {
        let kinds: &[&str] = match on {
            On::Act(Action::Process) if matches!(meets, [Meets::Pending { .. }]) => {
                return Err(Unsupported("a card is charged at once"));
            }
            On::Act(Action::Process) => &["create", "confirm"],
            On::Act(Action::Capture) => &["capture"],
            On::Act(Action::Release | Action::Cancel) => &["cancel"],
            On::Act(Action::Refund) => &["refund"],
            On::Ask => &["retrieve", "list"],
            On::Undo => return Err(Unsupported("its contract: nothing is undone")),
        };
        let mut process = self.process();
        for met in meets {
            let (card, fault) = treatment(*met)?;
            process = card.unwrap_or(process);
            self.stripe.plan_for(&payment.to_string(), kinds, fault.into_iter().collect());
        }
        Ok(process)
    }

    fn complete(&self, payment: Uuid, paid: bool) -> Ended {
        let intent = self.intent(payment);
        let pending = self.stripe.refunds_of(&intent).into_iter().find(|refund| refund["status"] == "pending");
        match pending {
            Some(refund) => self.stripe.end_refund(refund["id"].as_str().expect("an id"), "succeeded"),
            None => self.stripe.authenticate(&intent, paid),
        }
        Ok(())
    }

    fn refund_by_hand(&self, payment: Uuid, amount: &'static str) -> Ended {
        let units = Decimal::from_str_exact(amount).expect("an amount") * Decimal::ONE_HUNDRED;
        self.stripe.refund_by_hand(&self.intent(payment), units.try_into().expect("whole units"));
        Ok(())
    }

    fn webhook(&self, payment: Uuid) -> Ended<SignedWebhook> {
        let (signature, body) = self.stripe.signed_event(&self.intent(payment), WEBHOOK_SECRET);
        Ok(SignedWebhook { header: "Stripe-Signature", signature, body })
    }

    fn books(&self, payment: Uuid) -> Ended<Vec<Booked>> {
        Ok(self.intents(payment).iter().flat_map(|intent| self.booked(intent)).collect())
    }

    fn sent(&self, payment: Uuid) -> Ended<Vec<Sent>> {
        let calls = self.stripe.calls_for(&payment.to_string()).into_iter();
        let sent = calls.filter_map(|call| {
            let content = format!("{}?{}", call.path, call.body).into_bytes();
            call.key.map(|key| Sent { key, content })
        });
        Ok(sent.collect())
    }

    fn stop(&self) -> BoxFuture<'_, Ended> {
        Box::pin(async {
            self.stripe.stop().await;
            Ok(())
        })
    }

    fn start(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.stripe.start_again() })
    }
}

/// A sum in Stripe's units.
fn amount(units: &Value, currency: &str) -> Decimal {
    let decimals = match currency {
        "JPY" => 0,
        "KWD" => 3,
        _ => 2,
    };
    Decimal::new(units.as_i64().expect("units"), decimals)
}

fn method(token: &str) -> Value {
    json!({"payment_method": token})
}

/// The `process` object, where it decides, and what the request meets.
fn treatment(meets: Meets) -> Ended<(Option<Value>, Option<Fault>)> {
    let card = |token| Ok((Some(method(token)), None));
    let fault = |fault| Ok((None, Some(fault)));
    match meets {
        Meets::Decline(Decline::Hard) => card("pm_card_visa_chargeDeclinedStolenCard"),
        Meets::Decline(Decline::Soft) => card("pm_card_visa_chargeDeclinedInsufficientFunds"),
        Meets::Decline(Decline::CustomerMustAct) => card("pm_card_chargeDeclinedExpiredCard"),
        Meets::DeclineSaying(words) => {
            let error = json!({"type": "card_error", "code": "card_declined", "message": words});
            Ok((Some(method("pm_card_visa_chargeDeclined")), Some(Fault::Say(json!({"error": error})))))
        }
        Meets::Redirect { .. } => {
            let process =
                json!({"payment_method": "pm_card_threeDSecure2Required", "return_url": "https://shop.example/back"});
            Ok((Some(process), None))
        }
        Meets::Approval => Err(Unsupported("it needs no confirmation of ours")),
        Meets::Pending { .. } => card("pm_card_pendingRefund"),
        Meets::Review => card("pm_card_riskLevelElevated"),
        Meets::OtherAmount(amount) => {
            let units = Decimal::from_str_exact(amount).expect("an amount") * Decimal::ONE_HUNDRED;
            fault(Fault::Otherwise(json!({"amount": units.normalize().to_string()})))
        }
        Meets::OtherCurrency(currency) => fault(Fault::Otherwise(json!({"currency": currency.to_ascii_lowercase()}))),
        Meets::Ornate => fault(Fault::Say(json!({
            "client_secret": 5, "cancellation_reason": {}, "next_action": [], "description": [], "receipt_email": 7,
        }))),
        Meets::LoseAnswer => fault(Fault::LoseAnswer),
        Meets::NoAnswer => fault(Fault::HangAfter),
        Meets::ErrorAfter => fault(Fault::Stored500 { acts: true }),
        Meets::Garbage => fault(Fault::Garbage),
        Meets::HalfAnswer => fault(Fault::HalfAnswer),
        Meets::HangBefore => fault(Fault::HangBefore),
        Meets::ErrorBefore => fault(Fault::status(503)),
        Meets::StoreError => fault(Fault::Stored500 { acts: false }),
        Meets::Busy => fault(Fault::error(409, "idempotency_error", "idempotency_key_in_use")),
        Meets::TooMany(_) => fault(Fault::error(429, "invalid_request_error", "rate_limit").header("retry-after", "1")),
        Meets::Unauthorized => fault(Fault::status(401)),
        Meets::Elsewhere(status) => fault(Fault::status(status).header("location", "https://elsewhere.example/")),
    }
}
