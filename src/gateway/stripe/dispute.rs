//! A dispute as returned by Stripe.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::amount;
use super::reply::{invalid, or_nothing};
use crate::gateway::clean::{self, CODE_CHARACTERS_MAX};
use crate::payment::money::{Currency, Money};
use crate::payment::outcome::GatewayError;

#[derive(Debug)]
pub(super) struct Dispute {
    pub amount: Money,
    wire: Wire,
}

#[derive(Debug, Deserialize)]
struct Wire {
    id: String,
    amount: i64,
    currency: String,
    status: String,
    #[serde(default, deserialize_with = "or_nothing")]
    reason: Option<String>,
}

impl Dispute {
    /// Reads a dispute of a payment in this currency.
    pub fn read(object: Map<String, Value>, currency: Currency) -> Result<Dispute, GatewayError> {
        let wire: Wire = serde_json::from_value(Value::Object(object))
            .map_err(|_| invalid("must be a dispute with id, amount, currency and status"))?;
        if !wire.currency.eq_ignore_ascii_case(currency.code()) {
            return Err(invalid("its dispute is in another currency"));
        }
        let amount = amount::from_units(wire.amount, currency)
            .map_err(|error| invalid(&format!("its dispute's amount {error}")))?;
        Ok(Dispute { amount, wire })
    }

    pub fn id(&self) -> &str {
        &self.wire.id
    }

    /// Whether its money is lost for good. While a dispute is open, Stripe only withholds the money.
    pub fn is_lost(&self) -> bool {
        self.wire.status == "lost"
    }

    /// The details for `extra_data`.
    pub fn details(&self) -> Value {
        let word = |text: &str| clean::text(text, CODE_CHARACTERS_MAX);
        json!({
            "id": word(&self.wire.id), "status": word(&self.wire.status), "amount": self.amount.to_string(),
            "reason": self.wire.reason.as_deref().map(word),
        })
    }
}
