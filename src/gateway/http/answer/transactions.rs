//! The list of transactions in a gateway's answer: what happened, each with the gateway's own reference. All of it
//! concerns money, and is read strictly.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{invalid, money, reference, text};
use crate::gateway::legible;
use crate::payment::money::Currency;
use crate::payment::outcome::GatewayError;
use crate::payment::transaction::{Attribution, Transaction, TransactionKind, TransactionState};

/// Maximum length of the list: more than any sane payment has movements.
const TRANSACTIONS_MAX: usize = 1_000;

/// The members of a transaction.
const MEMBERS: [&str; 6] = ["kind", "reference", "parent", "operation_id", "state", "amount"];

/// Reads the list; empty if omitted or null.
///
/// # Errors
/// Says how a transaction violates the protocol.
pub(super) fn read(fields: &Map<String, Value>, currency: Currency) -> Result<Vec<Transaction>, GatewayError> {
    let list = match fields.get("transactions") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) if list.len() <= TRANSACTIONS_MAX => list,
        Some(_) => return Err(invalid("transactions must be a list of at most 1000")),
    };
    list.iter().map(|item| one(item, currency)).collect()
}

fn one(item: &Value, currency: Currency) -> Result<Transaction, GatewayError> {
    let Value::Object(fields) = item else { return Err(invalid("each of transactions must be an object")) };
    transaction(fields, currency)
}

/// Reads one transaction.
///
/// # Errors
/// Says how it violates the protocol.
pub(super) fn transaction(fields: &Map<String, Value>, currency: Currency) -> Result<Transaction, GatewayError> {
    let wrong = |name: &str, what: &str| invalid(&format!("transactions: {name} must be {what}"));
    if let Some(name) = legible::misspelled(fields, &MEMBERS) {
        return Err(invalid(&format!("transactions: {name} has another spelling")));
    }
    let kind = text(fields, "kind")?.and_then(TransactionKind::from_word);
    let state = text(fields, "state")?.and_then(TransactionState::from_word);
    let operation = text(fields, "operation_id")?.map(Uuid::parse_str).transpose();
    Ok(Transaction {
        kind: kind.ok_or_else(|| wrong("kind", "authorization, capture, refund, void or dispute"))?,
        reference: Some(reference(fields, "reference")?.ok_or_else(|| wrong("reference", "the gateway's own id"))?),
        parent: reference(fields, "parent")?,
        attribution: operation
            .map_err(|_| wrong("operation_id", "a UUID"))?
            .map_or(Attribution::Unattributed, Attribution::Recorded),
        state: state.ok_or_else(|| wrong("state", "pending, ready, done, failed or reversed"))?,
        amount: money(fields, "amount", currency)?.ok_or_else(|| wrong("amount", "a decimal string"))?,
    })
}
