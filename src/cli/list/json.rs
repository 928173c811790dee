//! A list for scripts: one object per payment, and a summary. Amounts are strings.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::page::AtRisk;
use crate::payment::money::MoneyError;
use crate::store::query::find::{Found, FoundOperation, Listing};

/// A payment with its operation.
pub fn value(found: &Found) -> Value {
    let payment = found.payment.as_ref();
    json!({
        "payment": found.payment_id,
        "created": payment.map(|payment| payment.created),
        "modified": payment.map(|payment| payment.modified),
        "variant": payment.map(|payment| &payment.variant),
        "status": payment.map(|payment| payment.status.as_str()),
        "currency": payment.map(|payment| payment.total.currency().code()),
        "total": payment.map(|payment| payment.total.to_string()),
        "authorized_amount": payment.map(|payment| payment.authorized.to_string()),
        "captured_amount": payment.map(|payment| payment.captured.to_string()),
        "refunded_amount": payment.map(|payment| payment.refunded.to_string()),
        "transaction_id": payment.map(|payment| &payment.transaction_id),
        "metadata": payment.map(|payment| &payment.metadata),
        "operation": found.operation.as_ref().map(operation),
    })
}

fn operation(operation: &FoundOperation) -> Value {
    json!({
        "id": operation.id,
        "type": operation.kind,
        "variant": operation.variant,
        "state": operation.state.as_str(),
        "escalated": operation.escalated,
        "amount": operation.amount.map(|amount| amount.to_string()),
        "created": operation.created,
        "first_sent_at": operation.first_sent_at,
        "due_at": operation.due_at,
        "attempts": operation.attempts,
        "last_code": operation.last_code,
        "last_message": operation.last_message,
    })
}

/// The last line.
///
/// # Errors
/// A sum has more than 28 digits.
pub fn summary(listing: &Listing) -> Result<Value, MoneyError> {
    let at_risk = AtRisk::of(listing)?;
    let amounts: BTreeMap<&str, String> =
        at_risk.amounts.iter().map(|(code, amount)| (*code, amount.to_string())).collect();
    Ok(json!({
        "summary": {
            "now": listing.now,
            "count": listing.found.len(),
            "unknown": { "count": at_risk.count, "amounts": amounts },
            "looked_at": listing.looked_at,
            "after": listing.after.as_ref().map(ToString::to_string),
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::super::samples::{found, listing};
    use super::*;
    use crate::payment::operation::State;

    #[test]
    fn amounts_are_strings_and_times_rfc_3339() {
        let found = found(State::Unknown, "20.00", "USD");
        let row = value(&found);
        assert_eq!((&row["total"], &row["operation"]["amount"]), (&json!("120.00"), &json!("20.00")));
        assert_eq!(row["operation"]["due_at"], "2026-11-22T12:03:42Z");
        let summary = summary(&listing(vec![found])).expect("sums");
        assert_eq!(summary["summary"]["unknown"], json!({"count": 1, "amounts": {"USD": "20.00"}}));
        assert_eq!(summary["summary"]["after"], Value::Null);
    }
}
