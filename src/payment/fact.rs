//! Facts: what a gateway's webhook reports, as read by the adapter after verification. A fact says where to look. It
//! changes a payment by itself only if the gateway's contract accepts notifications as proof.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::card;
use super::code::{Code, Rejection};
use super::transaction::{REFERENCE_CHARACTERS_MAX, Transaction, TransactionState};

/// Maximum number of facts in one webhook.
pub const FACTS_MAX: usize = 100;

/// Maximum length of a fact's texts, in bytes.
const TEXT_MAX: usize = 255;

/// The field under which a notification's facts are stored.
pub(super) const FACTS: &str = "facts";

/// One thing that a webhook reports about one payment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fact {
    /// The gateway's event id; a repeated fact has the same id. `None` if the gateway assigns none.
    pub key: Option<String>,
    /// The payment, if the webhook carries our reference.
    pub payment_id: Option<Uuid>,
    /// Our operation, if the webhook carries its id.
    pub operation_id: Option<Uuid>,
    /// The gateway's id of the object concerned, by which its payment can be located.
    pub reference: Option<String>,
    /// The gateway's name for the event: for logs only, never for decisions.
    pub kind: String,
    /// What it proves. Without a proof, or if the contract does not accept it, the gateway is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
}

/// What a signed notification proves about one object at the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The object and its state.
    pub what: Proved,
    /// The payment's id at the gateway.
    pub transaction_id: Option<String>,
    /// The gateway's own code.
    pub code: Option<String>,
    /// A message for people, bounded and scrubbed of card numbers.
    pub message: String,
}

/// The object that a proof is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proved {
    /// A money movement, done or not: with the gateway's reference, amount and currency.
    Money(Transaction),
    /// The state of a cancel, which moves no money.
    Cancel(TransactionState),
}

impl Proof {
    /// The state of the object.
    pub fn state(&self) -> TransactionState {
        match &self.what {
            Proved::Money(transaction) => transaction.state,
            Proved::Cancel(state) => *state,
        }
    }

    fn is_sound(&self) -> bool {
        let (reference, parent) = match &self.what {
            Proved::Money(transaction) => (transaction.reference.as_ref(), transaction.parent.as_ref()),
            Proved::Cancel(_) => (None, None),
        };
        let mut references = [reference, parent, self.transaction_id.as_ref()].into_iter().flatten();
        let mut texts = self.code.iter().chain([&self.message]);
        references.all(|reference| reference.chars().count() <= REFERENCE_CHARACTERS_MAX && !reference.contains('\0'))
            && texts.all(|text| !text.contains('\0'))
    }
}

impl Fact {
    /// Returns the id of the command that carries the fact: the gateway's key, or a UUID derived from it if it is not
    /// usable as an id. A repeated fact has the same id, so that it is one command however often it arrives.
    pub fn command_id(&self) -> Option<String> {
        let key = self.key.as_deref()?;
        let is_id = (1..=TEXT_MAX).contains(&key.len()) && !key.contains('\0') && !card::contains_card_number(key);
        Some(if is_id { key.to_owned() } else { Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes()).to_string() })
    }

    /// Removes possible card numbers.
    fn fit_to_be_stored(self) -> Fact {
        Fact { key: self.command_id(), kind: card::scrub(&self.kind).into_owned(), ..self }
    }

    fn is_sound(&self) -> bool {
        let texts = [self.key.as_deref(), self.reference.as_deref(), Some(&self.kind)];
        texts.into_iter().flatten().all(|text| text.len() <= TEXT_MAX && !text.contains('\0'))
            && self.proof.as_ref().is_none_or(Proof::is_sound)
    }
}

/// Returns our operations for which the facts contain a proof.
pub fn proved_operations(facts: &[Fact]) -> Vec<Uuid> {
    facts.iter().filter(|fact| fact.proof.is_some()).filter_map(|fact| fact.operation_id).collect()
}

/// The form in which a waiting notification's facts are stored.
pub fn facts_data(facts: &[Fact]) -> Map<String, Value> {
    Map::from_iter([(FACTS.to_owned(), json!(facts))])
}

/// Reads stored facts.
///
/// # Errors
/// The stored value is missing or does not contain facts.
pub(super) fn read_facts(stored: Option<&Value>) -> Result<Vec<Fact>, Rejection> {
    let stored = stored.ok_or_else(|| Rejection::missing(FACTS))?;
    Vec::deserialize(stored).map_err(|_| Rejection::invalid(FACTS, "cannot be read"))
}

/// Checks the facts of a verified notification: their number and length. If the notification is addressed to a payment,
/// facts about other payments are dropped.
///
/// # Errors
/// There are too many facts, their texts are too long or contain NUL, or all are about other payments.
pub fn admitted(facts: Vec<Fact>, addressed_to: Option<Uuid>) -> Result<Vec<Fact>, Rejection> {
    if facts.len() > FACTS_MAX {
        return Err(Rejection::invalid("body_base64", &format!("contains more than {FACTS_MAX} facts")));
    }
    if !facts.iter().all(Fact::is_sound) {
        return Err(Rejection::invalid(
            "body_base64",
            &format!("contains an id that is longer than {TEXT_MAX} bytes or not a text"),
        ));
    }
    let facts = facts.into_iter().map(Fact::fit_to_be_stored);
    let Some(payment) = addressed_to else { return Ok(facts.collect()) };
    let total = facts.len();
    let facts: Vec<Fact> = facts.filter(|fact| fact.payment_id.is_none_or(|of| of == payment)).collect();
    if facts.is_empty() && total > 0 {
        return Err(Rejection::new(Code::InvalidData, "subject: the notification is about another payment"));
    }
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_as_they_were_stored() {
        let fact = Fact { key: Some("evt_1".to_owned()), kind: "charge.refunded".to_owned(), ..Fact::default() };
        assert_eq!(read_facts(facts_data(std::slice::from_ref(&fact)).get(FACTS)), Ok(vec![fact]));
        assert!(read_facts(None).is_err());
    }

    #[test]
    fn what_cannot_be_an_id_has_one_that_stands_for_it() {
        let id = |key: &str| Fact { key: Some(key.to_owned()), ..Fact::default() }.command_id().unwrap();
        assert_eq!(id("evt_1"), "evt_1");
        for key in ["", "4242424242424242", &"x".repeat(256), "a\0b"] {
            assert!(Uuid::parse_str(&id(key)).is_ok(), "{key}");
            assert_eq!(id(key), id(key));
        }
        assert_eq!(Fact::default().command_id(), None);
    }

    #[test]
    fn of_an_addressed_notification_only_what_is_its_payments_counts() {
        let [ours, other] = [1, 2].map(Uuid::from_u128);
        let fact = |payment_id| Fact { payment_id, ..Fact::default() };
        let facts = vec![fact(Some(ours)), fact(Some(other)), fact(None)];
        assert_eq!(admitted(facts.clone(), None), Ok(facts.clone()));
        assert_eq!(admitted(facts, Some(ours)), Ok(vec![fact(Some(ours)), fact(None)]));
        assert!(admitted(vec![fact(Some(other))], Some(ours)).is_err());
        assert_eq!(admitted(Vec::new(), Some(ours)), Ok(Vec::new()));
        assert!(admitted(vec![fact(None); FACTS_MAX + 1], None).is_err());
        assert!(admitted(vec![Fact { kind: "x".repeat(256), ..Fact::default() }], None).is_err());
    }
}
