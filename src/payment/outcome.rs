//! What the gateway's answers prove, one attempt at a time and taken together.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::code::Code;
use super::contract::{Contract, Lookup};
use super::money::{Currency, Money};
use super::status::FraudStatus;
use super::transaction::Transaction;
#[cfg(test)]
use super::transaction::TransactionState;

/// What one attempt proved. An adapter must choose; there is no default.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The gateway's own result for this key.
    Result(Box<GatewayResult>),
    /// Refused as a request: by its contract the gateway did nothing.
    Refused(GatewayError),
    /// The connection was never made, or the gateway's contract says that it acted on nothing.
    NotSent(GatewayError),
    /// It may have been received.
    Unknown(GatewayError),
}

/// What a look-up by our own reference found.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// The gateway's result.
    Result(Box<GatewayResult>),
    /// What it found is the money of other operations; of the one that was asked about it says nothing, not even that it is
    /// absent.
    OfOthers(Vec<Transaction>),
    /// The gateway knows nothing of it. What that proves is for the contract to say.
    Nothing,
    /// It was undone, as it was asked to: these transactions came to nothing, and nothing else was done.
    Undone(Vec<Transaction>),
    /// The look-up itself failed.
    Failed(GatewayError),
}

impl Outcome {
    /// In one word, for figures and spans.
    pub fn as_str(&self) -> &'static str {
        match self {
            Outcome::Result(result) => result.verdict.as_str(),
            Outcome::Refused(_) => "refused",
            Outcome::NotSent(_) => "not_sent",
            Outcome::Unknown(_) => "unknown",
        }
    }

    /// Why it brought no result.
    pub fn trouble(&self) -> Option<&GatewayError> {
        match self {
            Outcome::Result(_) => None,
            Outcome::Refused(trouble) | Outcome::NotSent(trouble) | Outcome::Unknown(trouble) => Some(trouble),
        }
    }
}

impl Found {
    /// In one word, for figures and spans.
    pub fn as_str(&self) -> &'static str {
        match self {
            Found::Result(result) => result.verdict.as_str(),
            Found::OfOthers(_) => "of_others",
            Found::Nothing => "not_found",
            Found::Undone(_) => "undone",
            Found::Failed(_) => "failed",
        }
    }

    /// Why it found nothing out.
    pub fn trouble(&self) -> Option<&GatewayError> {
        match self {
            Found::Result(_) | Found::OfOthers(_) | Found::Nothing | Found::Undone(_) => None,
            Found::Failed(trouble) => Some(trouble),
        }
    }
}

/// Why an attempt brought no result.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewayError {
    /// The class.
    pub code: Code,
    /// For a person, scrubbed of card numbers and bounded.
    pub message: String,
    /// The gateway's own code, where it gave one.
    pub gateway_code: Option<String>,
    /// How long the gateway asked us to wait.
    pub retry_after: Option<Duration>,
}

impl GatewayError {
    /// A trouble with a code and a message alone.
    pub fn new(code: Code, message: impl Into<String>) -> GatewayError {
        GatewayError { code, message: message.into(), gateway_code: None, retry_after: None }
    }
}

/// The gateway's own result: what it says happened.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewayResult {
    /// The answer to what was asked.
    pub verdict: Verdict,
    /// What was done with money, each by the gateway's own object. It may be the money of other operations than the one that
    /// was asked about.
    pub transactions: Vec<Transaction>,
    /// For the whole payment, where no sums are told: how much its process was for.
    pub total: Option<Money>,
    /// The currency it acted in, where it names one: it need not name a sum.
    pub currency: Option<Currency>,
    /// The payment's id at the gateway.
    pub transaction_id: Option<String>,
    /// The gateway's own code.
    pub code: Option<String>,
    /// For a person, scrubbed of card numbers and bounded.
    pub message: String,
    /// What it thinks of fraud.
    pub fraud: Option<(FraudStatus, String)>,
    /// To be merged into the payment's `extra_data`.
    pub extra_data: Map<String, Value>,
    /// For the whole payment: captured minus refunded and lost.
    pub captured: Option<Money>,
    /// For the whole payment: everything refunded.
    pub refunded: Option<Money>,
    /// For the whole payment: everything lost to disputes, of what had not been refunded.
    pub disputed: Option<Money>,
}

impl GatewayResult {
    /// A result with nothing but its verdict.
    pub fn new(verdict: Verdict) -> GatewayResult {
        GatewayResult {
            verdict,
            transactions: Vec::new(),
            total: None,
            currency: None,
            transaction_id: None,
            code: None,
            message: String::new(),
            fraud: None,
            extra_data: Map::new(),
            captured: None,
            refunded: None,
            disputed: None,
        }
    }

    /// The sum of the first transaction that is done.
    #[cfg(test)]
    pub(crate) fn amount(&self) -> Option<Money> {
        let mut done = self.transactions.iter().filter(|transaction| transaction.state == TransactionState::Done);
        done.next().map(|transaction| transaction.amount)
    }

    /// Whether it says that what was asked was done.
    pub fn approves(&self) -> bool {
        matches!(self.verdict, Verdict::Approved | Verdict::Authorized)
    }

    /// Whether it says that what was asked was done, or never will be.
    pub fn is_final(&self) -> bool {
        self.approves() || matches!(self.verdict, Verdict::Declined(_))
    }
}

/// The gateway's answer in one word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Done.
    Approved,
    /// Money is held and not taken, whatever was asked.
    Authorized,
    /// Accepted, the result will come later.
    Pending,
    /// Of a process: the customer has approved, and nothing is done before our next request.
    Ready,
    /// The customer must act.
    CustomerMustAct {
        /// Where; nothing where the shop's own page leads the way, by what `extra_data` says.
        redirect_url: Option<String>,
    },
    /// Not done, and it will not be.
    Declined(Decline),
}

impl Verdict {
    /// In one word, for figures and spans.
    pub fn as_str(&self) -> &'static str {
        match self {
            Verdict::Approved => "approved",
            Verdict::Authorized => "authorized",
            Verdict::Pending => "pending",
            Verdict::Ready => "ready",
            Verdict::CustomerMustAct { .. } => "input",
            Verdict::Declined(_) => "declined",
        }
    }
}

/// What kind of decline it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decline {
    /// Never to be tried again.
    Hard,
    /// May go through later.
    Soft,
    /// Needs other data from the customer.
    CustomerMustAct,
}

/// Proof that no attempt of an operation moved money. Made only here: by attempts that were all never received, by the
/// gateway's refusal while nothing else is open, by an authoritative look-up, by the gateway that undid it or awaits another
/// request, or by a person's word. A new gateway key needs one, and so does a payment's way to `error`.
#[derive(Debug)]
pub struct NotCharged(());

impl NotCharged {
    /// The proof that a look-up found nothing, or that nothing was there to be undone: only where the gateway declares its
    /// look-up authoritative, was asked after its settle window had passed since something was last sent, and its clock agrees
    /// with PostgreSQL's: both times, and the window that a list is searched in, mean nothing else.
    pub fn by_absence(
        contract: &Contract,
        last_sent: Option<Timestamp>,
        asked: Timestamp,
        clocks_agree: bool,
    ) -> Option<NotCharged> {
        let window = SignedDuration::try_from(contract.settle_window).ok()?;
        let settled = last_sent?.checked_add(window).ok()? <= asked;
        let knows_all = contract.lookup == Lookup::Authoritative || contract.undoes();
        (knows_all && settled && clocks_agree).then_some(NotCharged(()))
    }

    /// The gateway says that nothing is done before our next request.
    pub(super) fn by_readiness(result: &GatewayResult) -> Option<NotCharged> {
        (result.verdict == Verdict::Ready).then_some(NotCharged(()))
    }

    /// The gateway undid what there was.
    pub(super) fn by_undo() -> NotCharged {
        NotCharged(())
    }

    /// A person says so in a `payment.resolve`, with evidence that is kept. A later word of the gateway beats it.
    pub(super) fn by_a_persons_word(_evidence: String) -> NotCharged {
        NotCharged(())
    }
}

/// How far an operation's attempts may have reached the gateway. Once exposed, only the gateway's own result or an
/// authoritative look-up ends it; a later refusal or a failed connection does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposure {
    /// Every attempt so far is proved not received, or refused.
    Clean,
    /// At least one may have been received.
    Exposed,
}

impl Exposure {
    /// The proof that nothing was charged, where there is one.
    pub fn not_charged(self) -> Option<NotCharged> {
        match self {
            Exposure::Clean => Some(NotCharged(())),
            Exposure::Exposed => None,
        }
    }
}

/// The idempotency key under which an operation is sent. A key is either the operation's first or follows an earlier one
/// with proof that nothing was charged under it; there is no third way to make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatewayKey {
    operation: Uuid,
    generation: u32,
}

impl GatewayKey {
    /// The key of an operation that was never sent.
    pub fn first(operation: Uuid) -> GatewayKey {
        GatewayKey { operation, generation: 0 }
    }

    /// The key of an operation as the database holds it.
    pub(super) fn stored(operation: Uuid, generation: u32) -> GatewayKey {
        GatewayKey { operation, generation }
    }

    /// The key after this one. The proof is used up.
    pub fn next(self, _proof: NotCharged) -> GatewayKey {
        GatewayKey { generation: self.generation.saturating_add(1), ..self }
    }

    /// The generation, from 0.
    pub fn generation(self) -> u32 {
        self.generation
    }

    /// What goes to the gateway: a UUIDv5 of the operation's id and the generation, 36 ASCII characters.
    pub fn value(self) -> Uuid {
        Uuid::new_v5(&self.operation, &self.generation.to_be_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payment::contract::{Captures, Keys, NotificationRole, PerAction};

    #[test]
    fn an_exposed_operation_gives_no_proof() {
        assert!(Exposure::Exposed.not_charged().is_none());
        assert!(Exposure::Clean.not_charged().is_some());
    }

    #[test]
    fn absence_proves_only_what_is_authoritative_and_settled() {
        let at = |second| Timestamp::from_second(second).unwrap();
        for (lookup, sent, asked, clocks_agree, proves) in [
            (Lookup::Authoritative, Some(0), 10, true, true),
            (Lookup::Authoritative, Some(0), 10, false, false),
            (Lookup::Authoritative, Some(0), 9, true, false),
            (Lookup::Authoritative, None, 10, true, false),
            (Lookup::Indicative, Some(0), 10, true, false),
            (Lookup::None, Some(0), 10, true, false),
        ] {
            let contract = Contract {
                keys: PerAction::all(Keys::NONE),
                lookup,
                settle_window: Duration::from_secs(10),
                captures: Captures::One,
                notifications: NotificationRole::Hint,
                undo: false,
            };
            let proof = NotCharged::by_absence(&contract, sent.map(at), at(asked), clocks_agree);
            assert_eq!(proof.is_some(), proves, "{lookup:?} {sent:?} {asked}");
            // Who undoes what there is knows what there was, where nobody else can be asked.
            let undoes = Contract { undo: true, ..contract };
            let proof = NotCharged::by_absence(&undoes, sent.map(at), at(asked), clocks_agree);
            assert_eq!(proof.is_some(), proves || lookup == Lookup::None, "{lookup:?} {sent:?} {asked}");
        }
    }

    #[test]
    fn keys_differ_by_operation_and_generation_and_fit_45_characters() {
        let first = GatewayKey::first(Uuid::from_u128(1));
        let other = GatewayKey::first(Uuid::from_u128(2));
        let second = first.next(NotCharged(()));
        assert_ne!(first.value(), other.value());
        assert_ne!(first.value(), second.value());
        assert_eq!(first.value(), GatewayKey::stored(Uuid::from_u128(1), 0).value());
        assert!(first.value().to_string().len() <= 45);
    }
}
