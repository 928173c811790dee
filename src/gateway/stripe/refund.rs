//! A refund as Stripe answers it, checked against what was asked.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::amount;
use super::reply::{invalid, mismatch};
use super::request::OPERATION;
use crate::gateway::clean::{self, CODE_CHARACTERS_MAX};
use crate::payment::money::{Currency, Money};
use crate::payment::outcome::{Decline, GatewayResult, Trouble, Verdict};

/// A refund.
#[derive(Debug)]
pub(super) struct Refund {
    pub amount: Money,
    pub status: RefundStatus,
    /// The operation that made it.
    pub operation: Option<Uuid>,
    id: String,
    failure_reason: Option<String>,
}

/// Where a refund stands.
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
    failure_reason: Option<String>,
    metadata: Option<Map<String, Value>>,
}

impl Refund {
    /// Reads one of a payment intent.
    ///
    /// # Errors
    /// It is none, or cannot be the one that was asked for.
    pub fn read(object: Map<String, Value>, payment_intent: &str) -> Result<Refund, Trouble> {
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
            return Err(mismatch("it is the refund of another payment intent"));
        }
        let currency = Currency::from_code(&wire.currency.to_ascii_uppercase())
            .ok_or_else(|| invalid("its currency is none of ISO 4217"))?;
        let amount =
            amount::from_units(wire.amount, currency).map_err(|error| invalid(&format!("its amount: {error}")))?;
        let named = wire.metadata.as_ref().and_then(|metadata| metadata.get(OPERATION)?.as_str());
        Ok(Refund {
            amount,
            status: wire.status.unwrap_or(RefundStatus::Pending),
            operation: named.and_then(|id| id.parse().ok()),
            id: wire.id,
            failure_reason: wire.failure_reason,
        })
    }

    /// What an operation makes of it.
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
        let mut result = GatewayResult { amount: Some(self.amount), ..GatewayResult::new(verdict) };
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
