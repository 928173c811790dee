//! What the gateway's answers prove, for each attempt and taken together.

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
    /// The gateway's result for this key.
    Result(Box<GatewayResult>),
    /// The request was refused: by its contract the gateway did nothing.
    Refused(GatewayError),
    /// No connection was made, or the gateway's contract says that it did not act.
    NotSent(GatewayError),
    /// It may have been received.
    Unknown(GatewayError),
}

/// What a look-up by our own reference found.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// The gateway's result.
    Result(Box<GatewayResult>),
    /// Money of other operations. It says nothing about the target, not even that it is absent.
    OfOthers(Vec<Transaction>),
    /// The gateway does not know the target. The contract says what that proves.
    Nothing,
    /// It was undone as requested: these transactions were reversed, and nothing else was done.
    Undone(Vec<Transaction>),
    /// The look-up itself failed.
    Failed(GatewayError),
}

impl Outcome {
    /// The outcome in one word, for metrics and spans.
    pub fn as_str(&self) -> &'static str {
        match self {
            Outcome::Result(result) => result.verdict.as_str(),
            Outcome::Refused(_) => "refused",
            Outcome::NotSent(_) => "not_sent",
            Outcome::Unknown(_) => "unknown",
        }
    }

    /// The error, if there is no result.
    pub fn error(&self) -> Option<&GatewayError> {
        match self {
            Outcome::Result(_) => None,
            Outcome::Refused(error) | Outcome::NotSent(error) | Outcome::Unknown(error) => Some(error),
        }
    }
}

impl Found {
    /// The result in one word, for metrics and spans.
    pub fn as_str(&self) -> &'static str {
        match self {
            Found::Result(result) => result.verdict.as_str(),
            Found::OfOthers(_) => "of_others",
            Found::Nothing => "not_found",
            Found::Undone(_) => "undone",
            Found::Failed(_) => "failed",
        }
    }

    /// The error, if the look-up failed.
    pub fn error(&self) -> Option<&GatewayError> {
        match self {
            Found::Result(_) | Found::OfOthers(_) | Found::Nothing | Found::Undone(_) => None,
            Found::Failed(error) => Some(error),
        }
    }
}

/// Why an attempt or look-up brought no result.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewayError {
    /// paybus's code.
    pub code: Code,
    /// A message for people, bounded and scrubbed of card numbers.
    pub message: String,
    /// The gateway's own code, if it gave one.
    pub gateway_code: Option<String>,
    /// How long the gateway asks us to wait.
    pub retry_after: Option<Duration>,
}

impl GatewayError {
    /// An error with only a code and a message.
    pub fn new(code: Code, message: impl Into<String>) -> GatewayError {
        GatewayError { code, message: message.into(), gateway_code: None, retry_after: None }
    }
}

/// The gateway's result: what it says happened.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewayResult {
    /// The answer to the request or question.
    pub verdict: Verdict,
    /// The money moved, one transaction per object at the gateway. It may belong to other operations than the one asked
    /// about.
    pub transactions: Vec<Transaction>,
    /// For the whole payment, if no sums are given: the amount of its process.
    pub total: Option<Money>,
    /// The currency, if the gateway names one; it may do so without an amount.
    pub currency: Option<Currency>,
    /// The payment's id at the gateway.
    pub transaction_id: Option<String>,
    /// The gateway's own code.
    pub code: Option<String>,
    /// A message for people, bounded and scrubbed of card numbers.
    pub message: String,
    /// The fraud assessment.
    pub fraud: Option<(FraudStatus, String)>,
    /// Merged into the payment's `extra_data`.
    pub extra_data: Map<String, Value>,
    /// For the whole payment: captured minus refunded and disputed.
    pub captured: Option<Money>,
    /// For the whole payment: total refunded.
    pub refunded: Option<Money>,
    /// For the whole payment: total lost to disputes, excluding what had been refunded.
    pub disputed: Option<Money>,
}

impl GatewayResult {
    /// A result with only a verdict.
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

    /// The amount of the first transaction that is done.
    #[cfg(test)]
    pub(crate) fn amount(&self) -> Option<Money> {
        let mut done = self.transactions.iter().filter(|transaction| transaction.state == TransactionState::Done);
        done.next().map(|transaction| transaction.amount)
    }

    /// Whether it says that the request was carried out.
    pub fn approves(&self) -> bool {
        matches!(self.verdict, Verdict::Approved | Verdict::Authorized)
    }

    /// Whether it says that the request was carried out, or never will be.
    pub fn is_final(&self) -> bool {
        self.approves() || matches!(self.verdict, Verdict::Declined(_))
    }
}

/// The gateway's answer in one word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Carried out.
    Approved,
    /// Money is held and not captured, whatever was requested.
    Authorized,
    /// Accepted; the result will follow.
    Pending,
    /// For a process: the customer has approved, and nothing happens until our next request.
    Ready,
    /// The customer must act.
    CustomerMustAct {
        /// Where; `None` if the shop's own page continues, using `extra_data`.
        redirect_url: Option<String>,
    },
    /// Not carried out, and never will be.
    Declined(Decline),
}

impl Verdict {
    /// The verdict in one word, for metrics and spans.
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

/// The kind of decline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decline {
    /// Never to be retried.
    Hard,
    /// May succeed later.
    Soft,
    /// Needs other data from the customer.
    CustomerMustAct,
}

/// Proof that no attempt of an operation moved money. Only this file can make one: if no attempt was received; from a
/// refusal while nothing else is open; from an authoritative look-up; from a gateway that undid the operation or awaits
/// another request; or from a person's statement. A new gateway key requires one, and so does the payment status
/// `error`.
#[derive(Debug)]
pub struct NotCharged(());

impl NotCharged {
    /// Proof from a look-up that found nothing, or from an undo that found nothing to undo. It holds only if the
    /// gateway declares its look-up authoritative, was asked after the settle window since the last send, and its clock
    /// agrees with PostgreSQL's: otherwise neither time, nor the window in which a list is searched, means anything.
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

    /// Proof from a gateway that does nothing until our next request.
    pub(super) fn by_readiness(result: &GatewayResult) -> Option<NotCharged> {
        (result.verdict == Verdict::Ready).then_some(NotCharged(()))
    }

    /// Proof from a gateway that undid everything.
    pub(super) fn by_undo() -> NotCharged {
        NotCharged(())
    }

    /// Proof from a person's `payment.resolve`, whose evidence is stored. A later statement by the gateway overrides
    /// it.
    pub(super) fn by_a_persons_word(_evidence: String) -> NotCharged {
        NotCharged(())
    }
}

/// How far an operation's attempts may have reached the gateway. Once exposed, only the gateway's own result or an
/// authoritative look-up ends it; a later refusal or failed connection does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposure {
    /// Every attempt so far is proved not received, or was refused.
    Clean,
    /// At least one may have been received.
    Exposed,
}

impl Exposure {
    /// Returns the proof that nothing was charged, if there is one.
    pub fn not_charged(self) -> Option<NotCharged> {
        match self {
            Exposure::Clean => Some(NotCharged(())),
            Exposure::Exposed => None,
        }
    }
}

/// The idempotency key under which an operation is sent. A key is either the operation's first, or follows an earlier
/// one with proof that nothing was charged under it. There is no third way to make one.
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

    /// The operation's key as restored from the database.
    pub(super) fn stored(operation: Uuid, generation: u32) -> GatewayKey {
        GatewayKey { operation, generation }
    }

    /// The next key. Consumes the proof.
    pub fn next(self, _proof: NotCharged) -> GatewayKey {
        GatewayKey { generation: self.generation.saturating_add(1), ..self }
    }

    /// The generation, from 0.
    pub fn generation(self) -> u32 {
        self.generation
    }

    /// The value sent to the gateway: a UUIDv5 of the operation's id and the generation, 36 ASCII characters.
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
            // An undo is authoritative too, if the gateway supports no look-up.
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
