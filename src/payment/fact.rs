//! What a gateway's webhook tells, as its adapter reads it once the webhook is known to be genuine. Facts say where to look;
//! only where the gateway's contract takes its notifications for proof do they change a payment by their word.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::card;
use super::code::{Code, Rejection};
use super::transaction::{REFERENCE_CHARACTERS_MAX, Transaction, TransactionState};

/// How many facts one webhook may hold.
pub const FACTS_MAX: usize = 100;

/// The longest text of a fact, in bytes.
const TEXT_MAX: usize = 255;

/// Under what name facts are stored with a notification.
pub(super) const FACTS: &str = "facts";

/// One thing that a webhook tells, of one payment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fact {
    /// The gateway's id of the event: the same fact told again has the same. Nothing where the gateway gives none.
    pub key: Option<String>,
    /// The payment it is about, where the webhook carries our reference.
    pub payment_id: Option<Uuid>,
    /// The operation of ours it is about, where the webhook carries that.
    pub operation_id: Option<Uuid>,
    /// What the gateway calls the thing it is about, by which it can be asked whose it is.
    pub reference: Option<String>,
    /// The gateway's word for what happened: for logs, never for a decision.
    pub kind: String,
    /// What it proves; without, and where the contract does not take it for proof, the gateway is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
}

/// What a signed notification proves of one thing at the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// What has come how far.
    pub what: Proved,
    /// The payment's id at the gateway.
    pub transaction_id: Option<String>,
    /// The gateway's own code.
    pub code: Option<String>,
    /// For a person, scrubbed of card numbers and bounded.
    pub message: String,
}

/// What is proved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proved {
    /// Something was done with money, or not done: under the gateway's reference, with its amount and currency.
    Money(Transaction),
    /// A cancel, which moves no money, has come so far.
    Cancel(TransactionState),
}

impl Proof {
    /// How far it has come.
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
    /// The id of the command that tells it: the gateway's key, or what stands for one that cannot be an id. The same fact
    /// has the same, so that it is one command however often it comes.
    pub fn command_id(&self) -> Option<String> {
        let key = self.key.as_deref()?;
        let is_id = (1..=TEXT_MAX).contains(&key.len()) && !key.contains('\0') && !card::contains_card_number(key);
        Some(if is_id { key.to_owned() } else { Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes()).to_string() })
    }

    /// Without what might be a card number.
    fn fit_to_be_stored(self) -> Fact {
        Fact { key: self.command_id(), kind: card::scrub(&self.kind).into_owned(), ..self }
    }

    fn is_sound(&self) -> bool {
        let texts = [self.key.as_deref(), self.reference.as_deref(), Some(&self.kind)];
        texts.into_iter().flatten().all(|text| text.len() <= TEXT_MAX && !text.contains('\0'))
            && self.proof.as_ref().is_none_or(Proof::is_sound)
    }
}

/// The operations of ours of which facts prove something.
pub fn proved_operations(facts: &[Fact]) -> Vec<Uuid> {
    facts.iter().filter(|fact| fact.proof.is_some()).filter_map(|fact| fact.operation_id).collect()
}

/// Facts as they are stored with a notification that waits.
pub fn facts_data(facts: &[Fact]) -> Map<String, Value> {
    Map::from_iter([(FACTS.to_owned(), json!(facts))])
}

/// Reads facts as they were stored.
///
/// # Errors
/// What is stored are no facts.
pub(super) fn read_facts(stored: Option<&Value>) -> Result<Vec<Fact>, Rejection> {
    let stored = stored.ok_or_else(|| Rejection::missing(FACTS))?;
    Vec::deserialize(stored).map_err(|_| Rejection::invalid(FACTS, "cannot be read"))
}

/// The facts that a verified notification may tell: few and short ones; and where it is addressed to a payment, none
/// that are of another.
///
/// # Errors
/// There are too many, or too long ones, or all are of other payments.
pub fn admitted(facts: Vec<Fact>, addressed_to: Option<Uuid>) -> Result<Vec<Fact>, Rejection> {
    if facts.len() > FACTS_MAX {
        return Err(Rejection::invalid("body_base64", &format!("it tells more than {FACTS_MAX} facts")));
    }
    if !facts.iter().all(Fact::is_sound) {
        return Err(Rejection::invalid(
            "body_base64",
            &format!("an id in it is longer than {TEXT_MAX} bytes, or no text"),
        ));
    }
    let facts = facts.into_iter().map(Fact::fit_to_be_stored);
    let Some(payment) = addressed_to else { return Ok(facts.collect()) };
    let told = facts.len();
    let facts: Vec<Fact> = facts.filter(|fact| fact.payment_id.is_none_or(|of| of == payment)).collect();
    if facts.is_empty() && told > 0 {
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
