//! Whatever Stripe's objects contain: reading them does not panic, an approval is for the object's amount and currency,
//! and unreadable money is neither an approval nor a proof that nothing was charged.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::dispute::Dispute;
use super::refund::Refund;
use super::reply::deny;
use super::*;
use crate::gateway::signature::sign;
use crate::payment::card;
use crate::payment::code::Code;
use crate::payment::fact::admitted;
use crate::payment::money::Currency;
use crate::payment::outcome::{GatewayResult, Verdict};

const PAYMENT: Uuid = Uuid::from_u128(9);
const OURS: Asked<'static> = Asked { payment_id: PAYMENT, livemode: Some(false), id: Some("pi_1") };

const WORDS: &[&str] = &[
    "pi_1",
    "pi_2",
    "ch_1",
    "payment_intent",
    "charge",
    "refund",
    "succeeded",
    "requires_payment_method",
    "requires_confirmation",
    "requires_action",
    "requires_capture",
    "processing",
    "canceled",
    "pending",
    "failed",
    "lost",
    "won",
    "eur",
    "EUR",
    "jpy",
    "isk",
    "kwd",
    "clf",
    "xxx",
    "card_declined",
    "https://hooks.example/3ds",
    "javascript:1",
    "redirect_to_url",
    "4242424242424242",
    "00000000-0000-0000-0000-000000000009",
    "\0",
    "",
];

fn text() -> impl Strategy<Value = String> {
    prop_oneof![8 => select(WORDS).prop_map(str::to_owned), 1 => any::<String>(), 1 => Just("é".repeat(3_000))]
}

fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => select(vec![0_i64, 1, -1, 10, 1_000, 2_049, 2_050, 2_051, 205_000, i64::MAX, i64::MIN]).prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<u64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(|number| json!(number)),
        1 => Just(json!(2_050.0)),
        1 => Just(json!("2050")),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        4 => text().prop_map(Value::String),
        3 => number(),
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::Bool),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            proptest::collection::hash_map(text(), inner, 0..3).prop_map(|members| json!(members)),
        ]
    })
}

/// A valid object with some of its members changed, including nested ones.
fn changed(good: fn() -> Value) -> impl Strategy<Value = Map<String, Value>> {
    let change = (any::<Index>(), any::<Index>(), any::<bool>(), prop_oneof![number(), value()]);
    proptest::collection::vec(change, 0..5).prop_map(move |changes| {
        let mut object = good();
        let names: Vec<String> = object.as_object().unwrap().keys().cloned().collect();
        for (name, inner, whole, value) in changes {
            let member = &mut object[name.get(&names).as_str()];
            match member.as_object_mut().filter(|members| !whole && !members.is_empty()) {
                Some(members) => {
                    let names: Vec<String> = members.keys().cloned().collect();
                    members.insert(inner.get(&names).clone(), value);
                }
                None => *member = value,
            }
        }
        object.as_object().unwrap().clone()
    })
}

fn good_charge() -> Value {
    json!({
        "id": "ch_1", "object": "charge", "amount_captured": 2_050, "amount_refunded": 0, "disputed": false,
        "outcome": {"type": "authorized", "risk_level": "normal", "risk_score": 5}, "review": null,
        "payment_method_details": {"card": {"brand": "visa", "last4": "4242"}},
        "payment_intent": "pi_1", "metadata": {"paybus_payment": PAYMENT, "paybus_operation": PAYMENT},
    })
}

fn good_intent() -> Value {
    json!({
        "id": "pi_1", "object": "payment_intent", "status": "succeeded", "amount": 2_050, "amount_received": 2_050,
        "amount_capturable": 0, "currency": "eur", "livemode": false, "client_secret": "pi_1_secret",
        "metadata": {"paybus_payment": PAYMENT, "paybus_operation": PAYMENT},
        "next_action": {"type": "redirect_to_url", "redirect_to_url": {"url": "https://hooks.example/3ds"}},
        "last_payment_error": {"type": "card_error", "code": "card_declined", "message": "Declined."},
        "latest_charge": good_charge(), "cancellation_reason": null,
    })
}

/// The same, before any money was captured.
fn open_intent() -> Value {
    let mut intent = good_intent();
    intent["status"] = json!("requires_capture");
    intent["amount_received"] = json!(0);
    intent["amount_capturable"] = json!(2_050);
    intent["latest_charge"]["amount_captured"] = json!(0);
    intent
}

fn good_refund() -> Value {
    json!({
        "id": "re_1", "object": "refund", "amount": 2_050, "currency": "eur", "status": "succeeded",
        "payment_intent": "pi_1", "failure_reason": null, "metadata": {"paybus_operation": PAYMENT},
    })
}

fn good_dispute() -> Value {
    json!({
        "id": "dp_1", "object": "dispute", "amount": 2_050, "currency": "eur", "status": "lost", "reason": "general",
        "metadata": {},
    })
}

/// An amount in Stripe's units, in the object's currency.
fn sum(units: i64, object: &Map<String, Value>) -> String {
    let currency = Currency::from_code(&object["currency"].as_str().unwrap().to_ascii_uppercase()).unwrap();
    amount::from_units(units, currency).unwrap().to_string()
}

/// Holds for every result: it can be stored and displayed, and has the object's currency.
fn check_result(result: &GatewayResult, object: &Map<String, Value>) -> Result<(), TestCaseError> {
    let currency = object["currency"].as_str().map(str::to_ascii_uppercase);
    prop_assert_eq!(result.currency.map(|currency| currency.code().to_owned()), currency);
    prop_assert!(result.amount().is_none_or(|amount| Some(amount.currency()) == result.currency));
    let text = [result.message.as_str(), result.code.as_deref().unwrap_or_default()].join(" and ");
    prop_assert!(!card::contains_card_number(&text) && !text.contains('\0'), "{text}");
    prop_assert!(text.chars().count() <= 2_048, "{} characters", text.chars().count());
    if let Verdict::CustomerMustAct { redirect_url: Some(address) } = &result.verdict {
        prop_assert!(address.starts_with("https://") || address.starts_with("http://"), "{address}");
        prop_assert!(address.chars().count() <= 2_048 && !address.chars().any(char::is_control), "{address}");
    }
    Ok(())
}

/// An unusable answer is neither a result nor a proof.
fn check_unusable(error: GatewayError) -> Result<(), TestCaseError> {
    prop_assert!(matches!(error.code, Code::InvalidAnswer | Code::Mismatch), "{:?}", error.code);
    prop_assert!(error.message.chars().count() <= 512, "{}", error.message);
    prop_assert!(matches!(Outcome::from(Denial::from(error.clone())), Outcome::Unknown(_)));
    prop_assert!(matches!(Found::from(Denial::from(error)), Found::Failed(_)));
    Ok(())
}

/// The received amount according to the object, in Stripe's units.
fn received(object: &Map<String, Value>) -> Option<i64> {
    let of_charge = || object["latest_charge"].get("amount_captured")?.as_i64();
    object["amount_received"].as_i64().or_else(of_charge)
}

fn check_intent(object: &Map<String, Value>) -> Result<(), TestCaseError> {
    let intent = match Intent::read(object.clone(), OURS) {
        Ok(intent) => intent,
        Err(error) => return check_unusable(error),
    };
    let has_received = received(object).is_some_and(|units| units != 0);
    let of_cancel = Ok(intent.of_cancel(None));
    for (moves, result) in [
        (true, intent.of_process(false)),
        (true, intent.of_process(true)),
        (true, intent.answers_capture(Uuid::from_u128(7), None)),
        (false, of_cancel),
    ] {
        let result = match result {
            Ok(Some(result)) => result,
            // For a look-up, this proves that nothing was charged.
            Ok(None) => {
                // A partial capture without a mark is reported as others' money, which proves nothing.
                let is_open = object["status"] == "processing" || object["status"] == "requires_capture";
                prop_assert!(!has_received || !moves || is_open, "{:?}", object);
                continue;
            }
            Err(error) => {
                check_unusable(error)?;
                continue;
            }
        };
        check_result(&result, object)?;
        match result.verdict {
            Verdict::Approved if moves => {
                prop_assert_eq!(&object["status"], "succeeded");
                // One that received nothing reports no amount or zero: neither is taken as the requested amount.
                let said = received(object).filter(|units| *units != 0).map(|units| sum(units, object));
                let amount = result.amount().filter(|amount| !amount.is_zero());
                prop_assert_eq!(amount.map(|amount| amount.to_string()), said);
            }
            Verdict::Approved => prop_assert!(object["status"] == "canceled" && !has_received, "{:?}", object),
            Verdict::Authorized => {
                prop_assert_eq!(&object["status"], "requires_capture");
                // What is still held, plus what was captured of it before.
                let held = object["amount_capturable"].as_i64().filter(|units| *units != 0);
                let held = held.or_else(|| object["amount"].as_i64()).unwrap();
                let said = sum(held + received(object).unwrap_or_default(), object);
                prop_assert_eq!(result.amount().map(|amount| amount.to_string()), Some(said));
            }
            Verdict::Declined(_) => prop_assert!(!has_received || !moves, "{:?}", object),
            Verdict::Pending | Verdict::Ready | Verdict::CustomerMustAct { .. } => {}
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_payment_intent_approves_what_it_says(object in prop_oneof![changed(good_intent), changed(open_intent)]) {
        check_intent(&object)?;
    }

    #[test]
    fn a_refund_gives_back_what_it_says(object in changed(good_refund)) {
        let refund = match Refund::read(object.clone(), "pi_1") {
            Ok(refund) => refund,
            Err(error) => return check_unusable(error),
        };
        let result = refund.result();
        check_result(&result, &object)?;
        let amount = Some(result.transactions[0].amount.to_string());
        prop_assert_eq!(amount, Some(sum(object["amount"].as_i64().unwrap(), &object)));
        prop_assert_eq!(result.verdict == Verdict::Approved, object["status"] == "succeeded");
    }

    #[test]
    fn a_dispute_loses_what_it_says(object in changed(good_dispute)) {
        let euro = Currency::from_code("EUR").unwrap();
        match Dispute::read(object.clone(), euro) {
            Ok(dispute) => {
                prop_assert_eq!(dispute.amount.to_string(), sum(object["amount"].as_i64().unwrap(), &object));
                prop_assert_eq!(dispute.is_lost(), object["status"] == "lost");
                let details = dispute.details().to_string();
                prop_assert!(!card::contains_card_number(&details) && details.len() < 5_000, "{details}");
            }
            Err(error) => check_unusable(error)?,
        }
    }

    #[test]
    fn any_object_is_read(object in proptest::collection::hash_map(text(), value(), 0..6)) {
        let object: Map<String, Value> = object.into_iter().collect();
        prop_assert!(Intent::read(object.clone(), OURS).is_err());
        prop_assert!(Refund::read(object.clone(), "pi_1").is_err());
        let read = Dispute::read(object, Currency::from_code("EUR").unwrap());
        prop_assert!(read.is_err() || read.is_ok_and(|dispute| dispute.amount.currency().code() == "EUR"));
    }

    /// Decided by the status and Stripe's own retry header, whatever else the error says.
    #[test]
    fn no_error_proves_more_than_it_can(
        status in 100..1000_u16,
        error in value(),
        wrapped in any::<bool>(),
        name in select(vec!["stripe-should-retry", "retry-after", "request-id", "idempotent-replayed", "x"]),
        word in select(vec!["true", "false", "3", "req_1", "\u{e9}", ""]),
    ) {
        let status = StatusCode::from_u16(status).unwrap();
        prop_assume!(status != StatusCode::OK);
        let header = HeaderValue::from_bytes(word.as_bytes()).unwrap();
        let headers = HeaderMap::from_iter([(HeaderName::from_static(name), header)]);
        let body = if wrapped { json!({"error": error}) } else { error };
        let outcome = Outcome::from(deny(status, &headers, body.to_string().as_bytes()));
        let gateway_error = outcome.error().unwrap();
        prop_assert!(
            gateway_error.message.chars().count() <= 1_024
                && !card::contains_card_number(&gateway_error.message)
        );
        match outcome {
            Outcome::Refused(_) => prop_assert!(status.is_client_error(), "{status}"),
            Outcome::NotSent(_) => prop_assert!(matches!(status.as_u16(), 301 | 307 | 308 | 401 | 403 | 429), "{status}"),
            Outcome::Unknown(_) => {}
            Outcome::Result(_) => return Err(TestCaseError::fail("a result")),
        }
    }

    #[test]
    fn any_process_object_is_read_or_refused(object in changed(good_process)) {
        match Process::read(&object) {
            Ok(process) => prop_assert!(process.return_url.is_none_or(|url| !url.chars().any(char::is_control))),
            Err(rejection) => prop_assert!(rejection.message.chars().count() < 400, "{}", rejection.message),
        }
    }

    /// A stored request was written by this gateway, unless somebody changed the row.
    #[test]
    fn any_stored_request_is_read_or_refused(body in prop_oneof![
        any::<String>(),
        value().prop_map(|value| value.to_string()),
        value().prop_map(|value| json!({"do": "post", "path": value, "form": ""}).to_string()),
    ]) {
        if let Err(error) = Plan::read(&body) {
            prop_assert_eq!(error.code, Code::Refused);
        }
    }
}

fn good_process() -> Value {
    json!({
        "payment_method": "pm_card_visa", "payment_method_types": ["card"], "automatic_payment_methods": null,
        "customer": "cus_1", "return_url": "https://shop.example/back", "use_stripe_sdk": false, "off_session": false,
        "setup_future_usage": "off_session", "mandate": "mandate_1", "other": null,
    })
}

const SECRET: &str = "whsec_test";
const NOW: i64 = 1_700_000_000;

fn webhook(body: Vec<u8>, signature: String) -> Webhook {
    Webhook {
        received_at: jiff::Timestamp::from_second(NOW).unwrap(),
        method: "POST".to_owned(),
        url: "/webhooks/stripe".to_owned(),
        headers: vec![("stripe-signature".to_owned(), signature)],
        body,
    }
}

fn good_event() -> Value {
    json!({"id": "evt_1", "type": "charge.succeeded", "data": {"object": good_charge()}})
}

proptest! {
    #[test]
    fn only_a_signed_webhook_is_read(
        event in changed(good_event),
        at in any::<Index>(),
        byte in any::<u8>(),
        secret in prop_oneof![Just(SECRET.to_owned()), any::<String>()],
    ) {
        let secrets: WebhookSecrets = serde_json::from_value(json!(SECRET)).unwrap();
        let body = Value::Object(event.clone()).to_string().into_bytes();
        let signature = sign(&secret, NOW, &body);
        let verified = webhook::verify(&webhook(body.clone(), signature.clone()), &secrets);
        prop_assert!(secret == SECRET || verified.is_err());
        if let Ok(facts) = verified {
            prop_assert!(facts.len() <= 1);
            for fact in &facts {
                prop_assert_eq!(fact.key.as_deref(), event["id"].as_str());
                prop_assert_eq!(Some(fact.kind.as_str()), event["type"].as_str());
            }
            for fact in admitted(facts, None).unwrap_or_default() {
                let texts = [fact.key.as_deref(), fact.reference.as_deref(), Some(&fact.kind)];
                prop_assert!(texts.into_iter().flatten().all(|text| text.len() <= 255 && !text.contains('\0')));
            }
        }
        let mut forged = body.clone();
        let at = at.index(forged.len());
        forged[at] = byte;
        prop_assert!(forged == body || webhook::verify(&webhook(forged, signature), &secrets).is_err());
    }

    #[test]
    fn any_signed_bytes_are_read(body in proptest::collection::vec(any::<u8>(), 0..100)) {
        let secrets: WebhookSecrets = serde_json::from_value(json!(SECRET)).unwrap();
        let signature = sign(SECRET, NOW, &body);
        prop_assert!(webhook::verify(&webhook(body, signature), &secrets).is_err());
    }
}
