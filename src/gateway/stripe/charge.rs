//! A charge: one payment attempt, as contained in a payment intent, with Stripe's risk assessment.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::reply::{invalid, or_nothing};
use crate::gateway::clean;
use crate::payment::outcome::GatewayError;
use crate::payment::status::FraudStatus;

/// The card details that are kept.
const CARD_FACTS: [&str; 6] = ["brand", "last4", "exp_month", "exp_year", "funding", "country"];

/// The outcome's details that are kept.
const OUTCOME_FACTS: [&str; 6] = ["network_status", "reason", "risk_level", "risk_score", "seller_message", "type"];

#[derive(Debug)]
pub(super) struct Charge {
    pub id: String,
    /// The rest, if the charge was expanded.
    body: Option<Body>,
}

#[derive(Debug, Deserialize)]
struct Body {
    id: String,
    amount_captured: Option<i64>,
    amount_refunded: Option<i64>,
    disputed: Option<bool>,
    #[serde(default, deserialize_with = "or_nothing")]
    outcome: Option<Map<String, Value>>,
    review: Option<Value>,
    #[serde(default, deserialize_with = "or_nothing")]
    payment_method_details: Option<Map<String, Value>>,
}

impl Charge {
    /// Reads a charge, or its id alone.
    pub fn read(value: Value) -> Result<Charge, GatewayError> {
        if let Value::String(id) = value {
            return Ok(Charge { id, body: None });
        }
        let body: Body = serde_json::from_value(value).map_err(|_| invalid("its latest_charge must be a charge"))?;
        Ok(Charge { id: body.id.clone(), body: Some(body) })
    }

    /// The captured amount, in Stripe's units.
    pub fn captured_units(&self) -> Option<i64> {
        self.body.as_ref()?.amount_captured
    }

    /// Whether there may be refunds.
    pub fn may_be_refunded(&self) -> bool {
        self.body.as_ref().and_then(|body| body.amount_refunded) != Some(0)
    }

    /// Whether there may be a dispute.
    pub fn may_be_disputed(&self) -> bool {
        self.body.as_ref().and_then(|body| body.disputed) != Some(false)
    }

    /// The fraud assessment: by a person's review, else by Radar. A payment under review is still paid; only the
    /// delivery waits.
    pub fn fraud(&self) -> Option<(FraudStatus, String)> {
        let body = self.body.as_ref()?;
        body.review.as_ref().and_then(of_review).or_else(|| of_outcome(body.outcome.as_ref()?))
    }

    /// The details for `extra_data`.
    pub fn facts(&self) -> Map<String, Value> {
        let mut facts = Map::new();
        facts.insert("charge".to_owned(), json!(self.id));
        let Some(body) = &self.body else { return clean::extra_data(facts) };
        let card = body.payment_method_details.as_ref().and_then(|details| details.get("card")?.as_object());
        for (name, object, kept) in [("card", card, &CARD_FACTS), ("outcome", body.outcome.as_ref(), &OUTCOME_FACTS)] {
            let present: Map<String, Value> = kept
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), object?.get(*name)?.clone())))
                .filter(|(_, value)| !value.is_null())
                .collect();
            if !present.is_empty() {
                facts.insert(name.to_owned(), Value::Object(present));
            }
        }
        clean::extra_data(facts)
    }
}

/// A person's review: open, or closed for a reason. An id alone only shows that there is one.
fn of_review(review: &Value) -> Option<(FraudStatus, String)> {
    let review = match review {
        Value::String(_) => return Some((FraudStatus::Review, "under review".to_owned())),
        Value::Object(review) => review,
        _ => return None,
    };
    let text = |name: &str| review.get(name).and_then(Value::as_str);
    if review.get("open") == Some(&Value::Bool(true)) {
        let reason = text("opened_reason").or(text("reason")).unwrap_or("unknown");
        return Some((FraudStatus::Review, clean::text(&format!("under review; opened by: {reason}"), 255)));
    }
    let reason = text("closed_reason").or(text("reason")).unwrap_or("unknown");
    let status = match reason {
        "approved" => FraudStatus::Accept,
        "refunded_as_fraud" | "disputed" => FraudStatus::Reject,
        // Refunded for another reason, or the review's data was deleted: this says nothing about fraud.
        _ => FraudStatus::Unknown,
    };
    Some((status, clean::text(&format!("reviewed: {reason}"), 255)))
}

/// Radar's assessment.
fn of_outcome(outcome: &Map<String, Value>) -> Option<(FraudStatus, String)> {
    let text = |name: &str| outcome.get(name).and_then(Value::as_str);
    let assessed = matches!(text("risk_level"), Some("normal" | "elevated" | "highest"));
    let status = match text("type")? {
        "manual_review" => FraudStatus::Review,
        "blocked" => FraudStatus::Reject,
        "authorized" if assessed => FraudStatus::Accept,
        // The issuer's decision, or no assessment: this says nothing about fraud.
        _ => return None,
    };
    let level = text("risk_level").map(|level| format!("risk level {level}"));
    let score = outcome.get("risk_score").and_then(Value::as_i64).map(|score| format!("risk score {score}"));
    let words: Vec<String> = [level, score, text("reason").map(str::to_owned)].into_iter().flatten().collect();
    Some((status, clean::text(&words.join(", "), 255)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fraud(more: Value) -> Option<(FraudStatus, String)> {
        let mut charge = json!({"id": "ch_1"});
        for (name, value) in more.as_object().unwrap() {
            charge[name] = value.clone();
        }
        Charge::read(charge).unwrap().fraud()
    }

    #[test]
    fn what_radar_says() {
        for (outcome, status) in [
            (json!({"type": "authorized", "risk_level": "normal"}), Some(FraudStatus::Accept)),
            (json!({"type": "authorized", "risk_level": "elevated"}), Some(FraudStatus::Accept)),
            (json!({"type": "authorized", "risk_level": "not_assessed"}), None),
            (json!({"type": "authorized"}), None),
            (json!({"type": "manual_review", "risk_level": "elevated"}), Some(FraudStatus::Review)),
            (json!({"type": "blocked", "risk_level": "highest"}), Some(FraudStatus::Reject)),
            (json!({"type": "issuer_declined", "risk_level": "normal"}), None),
            (json!({"type": "invalid"}), None),
        ] {
            assert_eq!(fraud(json!({"outcome": outcome})).map(|(status, _)| status), status, "{outcome}");
        }
        let outcome = json!({"type": "manual_review", "risk_level": "elevated", "risk_score": 72, "reason": "rule"});
        let message = "risk level elevated, risk score 72, rule".to_owned();
        assert_eq!(fraud(json!({"outcome": outcome})), Some((FraudStatus::Review, message)));
    }

    #[test]
    fn what_a_reviewer_says_goes_before() {
        let outcome = json!({"type": "manual_review", "risk_level": "elevated"});
        for (review, status) in [
            (json!("prv_1"), FraudStatus::Review),
            (json!({"open": true, "opened_reason": "rule", "closed_reason": null}), FraudStatus::Review),
            (json!({"open": false, "closed_reason": "approved"}), FraudStatus::Accept),
            (json!({"open": false, "closed_reason": "refunded_as_fraud"}), FraudStatus::Reject),
            (json!({"open": false, "closed_reason": "disputed"}), FraudStatus::Reject),
            (json!({"open": false, "closed_reason": "refunded"}), FraudStatus::Unknown),
            (json!(null), FraudStatus::Review),
        ] {
            let read = fraud(json!({"outcome": outcome, "review": review}));
            assert_eq!(read.map(|(status, _)| status), Some(status), "{review}");
        }
    }

    #[test]
    fn few_facts_are_kept() {
        let charge = Charge::read(json!({
            "id": "ch_1", "outcome": {"type": "authorized", "risk_score": 5, "rule": null},
            "payment_method_details": {"card": {"brand": "visa", "last4": "4242", "fingerprint": "x"}}
        }));
        let expected = json!({"charge": "ch_1", "card": {"brand": "visa", "last4": "4242"},
            "outcome": {"type": "authorized", "risk_score": 5}});
        assert_eq!(Value::Object(charge.unwrap().facts()), expected);
    }
}
