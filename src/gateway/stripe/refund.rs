//! A refund as returned by Stripe, checked against the request.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::amount;
use super::reply::{invalid, mismatch, or_nothing};
use super::request::OPERATION;
use crate::gateway::clean::{self, CODE_CHARACTERS_MAX};
use crate::payment::money::{Currency, Money};
use crate::payment::outcome::{Decline, GatewayError, GatewayResult, Verdict};
use crate::payment::transaction::{Attribution, Transaction, TransactionKind, TransactionState};

#[derive(Debug)]
pub(super) struct Refund {
    pub amount: Money,
    pub status: RefundStatus,
    /// The operation that requested it.
    pub operation: Option<Uuid>,
    id: String,
    /// The payment intent that it refunds.
    parent: String,
    failure_reason: Option<String>,
}

/// The status of a refund.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RefundStatus {
    Pending,
    RequiresAction,
    Succeeded,
    Failed,
    Canceled,
}

#[derive(Debug, Deserialize)]
struct Wire {
    id: String,
    object: String,
    amount: i64,
    currency: String,
    status: Option<RefundStatus>,
    payment_intent: Option<Value>,
    #[serde(default, deserialize_with = "or_nothing")]
    failure_reason: Option<String>,
    metadata: Option<Map<String, Value>>,
}

impl Refund {
    /// Reads a refund of a payment intent.
    ///
    /// # Errors
    /// It is not a refund, or cannot be the requested one.
    pub fn read(object: Map<String, Value>, payment_intent: &str) -> Result<Refund, GatewayError> {
        let wire: Wire = serde_json::from_value(Value::Object(object))
            .map_err(|_| invalid("must be a refund with id, amount and currency"))?;
        if wire.object != "refund" {
            return Err(invalid("must be a refund"));
        }
        let of = match &wire.payment_intent {
            Some(Value::Object(expanded)) => expanded.get("id").and_then(Value::as_str),
            Some(Value::String(id)) => Some(id.as_str()),
            _ => None,
        };
        if of.is_some_and(|of| of != payment_intent) {
            return Err(mismatch("the refund belongs to another payment intent"));
        }
        let currency = Currency::from_code(&wire.currency.to_ascii_uppercase())
            .ok_or_else(|| invalid("its currency is not an ISO 4217 code"))?;
        let amount =
            amount::from_units(wire.amount, currency).map_err(|error| invalid(&format!("its amount {error}")))?;
        let named = wire.metadata.as_ref().and_then(|metadata| metadata.get(OPERATION)?.as_str());
        Ok(Refund {
            amount,
            status: wire.status.unwrap_or(RefundStatus::Pending),
            operation: named.and_then(|id| id.parse().ok()),
            id: wire.id,
            parent: payment_intent.to_owned(),
            failure_reason: wire.failure_reason,
        })
    }

    /// Its transaction. One that failed may have been done before.
    pub fn transaction(&self) -> Transaction {
        Transaction {
            kind: TransactionKind::Refund,
            reference: Some(self.id.clone()),
            parent: Some(self.parent.clone()),
            attribution: self.operation.map_or(Attribution::Unattributed, Attribution::Recorded),
            state: match self.status {
                RefundStatus::Pending | RefundStatus::RequiresAction => TransactionState::Pending,
                RefundStatus::Succeeded => TransactionState::Done,
                RefundStatus::Failed | RefundStatus::Canceled => TransactionState::Reversed,
            },
            amount: self.amount,
        }
    }

    /// Its result for an operation.
    pub fn result(&self) -> GatewayResult {
        let verdict = match self.status {
            RefundStatus::Succeeded => Verdict::Approved,
            RefundStatus::Pending | RefundStatus::RequiresAction => Verdict::Pending,
            RefundStatus::Failed | RefundStatus::Canceled => Verdict::Declined(Decline::Hard),
        };
        let reason = self.failure_reason.as_deref().unwrap_or(match self.status {
            RefundStatus::Canceled => "canceled",
            _ => "unknown",
        });
        let is_declined = matches!(verdict, Verdict::Declined(_));
        let mut result = GatewayResult { transactions: vec![self.transaction()], ..GatewayResult::new(verdict) };
        result.currency = Some(self.amount.currency());
        result.transaction_id = Some(self.id.clone());
        if is_declined {
            result.code = Some(clean::text(reason, CODE_CHARACTERS_MAX));
            result.message = format!("the refund failed: {}", clean::text(reason, CODE_CHARACTERS_MAX));
        }
        let facts = Map::from_iter([("refund".to_owned(), json!(self.id))]);
        result.extra_data = clean::extra_data(facts);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payment::code::Code;

    fn read(more: &Value) -> Result<Refund, GatewayError> {
        let mut refund = json!({"id": "re_1", "object": "refund", "amount": 2_050, "currency": "eur",
            "status": "succeeded", "payment_intent": "pi_1"});
        for (name, value) in more.as_object().unwrap() {
            refund[name] = value.clone();
        }
        Refund::read(refund.as_object().unwrap().clone(), "pi_1")
    }

    #[test]
    fn each_status() {
        for (status, verdict) in [
            ("succeeded", Verdict::Approved),
            ("pending", Verdict::Pending),
            ("requires_action", Verdict::Pending),
            ("failed", Verdict::Declined(Decline::Hard)),
            ("canceled", Verdict::Declined(Decline::Hard)),
        ] {
            assert_eq!(read(&json!({"status": status})).unwrap().result().verdict, verdict, "{status}");
        }
        let failed = read(&json!({"status": "failed", "failure_reason": "lost_or_stolen_card"})).unwrap().result();
        assert_eq!(failed.code.as_deref(), Some("lost_or_stolen_card"));
        assert_eq!(failed.transactions[0].amount.to_string(), "20.50");
    }

    #[test]
    fn what_cannot_be_ours_is_a_mismatch() {
        for (more, code) in [
            (json!({"payment_intent": "pi_2"}), Code::Mismatch),
            (json!({"payment_intent": {"id": "pi_2"}}), Code::Mismatch),
            (json!({"object": "charge"}), Code::InvalidAnswer),
            (json!({"status": "lost"}), Code::InvalidAnswer),
            (json!({"amount": null}), Code::InvalidAnswer),
        ] {
            assert_eq!(read(&more).unwrap_err().code, code, "{more}");
        }
        assert!(read(&json!({"payment_intent": null})).is_ok());
        assert!(read(&json!({"failure_reason": 7, "reason": []})).is_ok());
    }
}
