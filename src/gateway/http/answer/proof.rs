//! What a webhook proves, if the settings accept webhooks as proof. It is signed as a whole; everything in it about
//! money is read as strictly as an answer's transactions, and nothing may be omitted.

use super::{GatewayError, TransactionState, currency, invalid, operation_id, text, transactions};
use crate::gateway::legible;
use crate::payment::fact::{Proof, Proved};

/// The members that say what was done, with how much money, and for which operation.
const MEMBERS: [&str; 8] =
    ["kind", "state", "reference", "parent", "operation_id", "amount", "currency", "transaction_id"];

/// The kind of event that moves no money.
const CANCEL: &str = "cancel";

/// Reads what an event proves; `None` if it only says that something happened.
///
/// # Errors
/// It concerns money and violates the protocol.
pub(in crate::gateway::http) fn read(news: &str) -> Result<Option<Proof>, GatewayError> {
    let news = legible::read(news.as_bytes()).ok_or_else(|| invalid("must be a JSON object"))?;
    if let Some(name) = news.contradicted(&MEMBERS) {
        return Err(invalid(&format!("{name} occurs twice with different values")));
    }
    let fields = news.fields;
    if let Some(name) = legible::misspelled(&fields, &MEMBERS) {
        return Err(invalid(&format!("{name} has another spelling")));
    }
    let what = match (text(&fields, "kind")?, text(&fields, "state")?) {
        (None, None) => return Ok(None),
        (None, Some(_)) => return Err(invalid("kind is required with state")),
        (Some(CANCEL), state) => {
            operation_id(&fields)?.ok_or_else(|| invalid("operation_id is required with a cancel"))?;
            let state = state.and_then(TransactionState::from_word);
            Proved::Cancel(state.ok_or_else(|| invalid("state is required with a cancel"))?)
        }
        (Some(_), _) => {
            let currency = currency(&fields)?.ok_or_else(|| invalid("currency is required"))?;
            Proved::Money(transactions::transaction(&fields, currency)?)
        }
    };
    Ok(Some(Proof {
        what,
        transaction_id: super::transaction_id(&fields),
        code: super::code(&fields),
        message: super::message(&fields),
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;
    use crate::payment::money::{Currency, Money};
    use crate::payment::transaction::{Attribution, Transaction, TransactionKind};

    fn whole() -> Value {
        json!({
            "id": "n-1", "payment_id": Uuid::from_u128(9), "operation_id": Uuid::from_u128(7), "type": "paid",
            "kind": "capture", "state": "done", "reference": "ch_1", "parent": "auth_1", "amount": "120.00",
            "currency": "USD", "transaction_id": "tx_1", "code": 7, "message": "paid with 4111111111111111",
        })
    }

    fn with(changes: &[(&str, Value)]) -> Value {
        let mut news = whole();
        changes.iter().for_each(|(name, value)| news[*name] = value.clone());
        news
    }

    fn proof(news: &Value) -> Result<Option<Proof>, GatewayError> {
        read(&news.to_string())
    }

    #[test]
    fn a_proof_is_a_transaction_with_its_currency() {
        let proof = proof(&whole()).unwrap().unwrap();
        let amount = Money::parse("120", Currency::from_code("USD").unwrap()).unwrap();
        let transaction = Transaction {
            kind: TransactionKind::Capture,
            reference: Some("ch_1".to_owned()),
            parent: Some("auth_1".to_owned()),
            attribution: Attribution::Recorded(Uuid::from_u128(7)),
            state: TransactionState::Done,
            amount,
        };
        assert_eq!(proof.what, Proved::Money(transaction));
        assert_eq!((proof.transaction_id.as_deref(), proof.code.as_deref()), (Some("tx_1"), Some("7")));
        assert!(!proof.message.contains("4111"), "{}", proof.message);
    }

    #[test]
    fn a_webhook_without_money_proves_nothing() {
        for news in [json!({"id": "n-1", "type": "paid"}), json!({"kind": null, "state": "", "amount": "1.00"})] {
            assert_eq!(proof(&news), Ok(None), "{news}");
        }
        let news = json!({"kind": "cancel", "state": "done", "operation_id": Uuid::from_u128(7)});
        assert_eq!(proof(&news).unwrap().unwrap().what, Proved::Cancel(TransactionState::Done));
    }

    #[test]
    fn what_is_not_whole_or_not_as_the_protocol_has_it_is_refused() {
        for (name, value) in [
            ("amount", Value::Null),
            ("amount", json!("")),
            ("amount", json!(120)),
            ("amount", json!("120.001")),
            ("currency", Value::Null),
            ("currency", json!("XXQ")),
            ("reference", Value::Null),
            ("state", Value::Null),
            ("state", json!("finished")),
            ("kind", Value::Null),
            ("kind", json!("charge")),
            ("operation_id", json!("mine")),
            ("Amount", json!("1.00")),
            ("operationId", json!("other")),
        ] {
            assert!(proof(&with(&[(name, value.clone())])).is_err(), "{name}: {value}");
        }
        let twice = whole().to_string().replacen('{', r#"{"amount":"1.00","#, 1);
        assert!(read(&twice).is_err());
        for news in [json!({"kind": "cancel", "state": "done"}), json!({"kind": "cancel", "operation_id": Uuid::nil()})]
        {
            assert!(proof(&news).is_err(), "{news}");
        }
    }
}
