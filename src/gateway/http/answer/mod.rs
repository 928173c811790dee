//! The gateway's answers with status 200, read strictly where they concern money and leniently otherwise. An answer
//! whose money violates the contract is no result; an optional detail that violates it is dropped.

use std::borrow::Cow;

use reqwest::Url;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::gateway::Action;
use crate::gateway::clean::{self, CODE_CHARACTERS_MAX, MESSAGE_CHARACTERS_MAX};
use crate::gateway::legible::{self, leave_out, words};
use crate::payment::code::Code;
use crate::payment::money::{Currency, Money};
use crate::payment::outcome::{Decline, GatewayError, GatewayResult, Verdict};
use crate::payment::status::FraudStatus;
use crate::payment::transaction::{Attribution, REFERENCE_CHARACTERS_MAX, Transaction, TransactionState};

const REDIRECT_URL_CHARACTERS_MAX: usize = 2_048;

/// The members that say what was done, with how much money, and for which operation.
const MONEY: [&str; 10] = [
    "result",
    "amount",
    "currency",
    "captured_amount",
    "refunded_amount",
    "transaction_id",
    "reference",
    "parent",
    "operation_id",
    "transactions",
];
/// The members that mean "as requested" if an approval omits them.
const AS_ASKED: [&str; 2] = ["amount", "currency"];
/// The sums of the whole payment.
const SUMS: [&str; 2] = ["captured_amount", "refunded_amount"];

/// The parts of the question that the reading of its answer depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    /// The payment's currency: that of the answer's amounts unless it names another.
    pub currency: Currency,
    /// The operation asked about; `None` for the whole payment, for which the sums count as much as `result`.
    pub subject: Option<Subject>,
}

/// The operation that an answer is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject {
    pub operation: Uuid,
    pub action: Action,
    /// Whether a process captures at once.
    pub captures: bool,
    /// The requested amount: that of an approval which omits its amount.
    pub amount: Option<Money>,
    /// Whether this is the direct answer to the operation's own request.
    pub is_answer: bool,
}

impl Expected {
    /// Whether the answer can ask the customer to act: only for a process.
    fn customer_may_act(&self) -> bool {
        self.subject.is_none_or(|subject| subject.action == Action::Process)
    }

    /// Whether an approval moves money: always, except for a cancel.
    fn moves_money(&self) -> bool {
        self.subject.is_none_or(|subject| subject.action != Action::Cancel)
    }

    fn is_whole(&self) -> bool {
        self.subject.is_none()
    }
}

impl Subject {
    /// The money moved by an approval. Without a `reference`, a process is identified by the payment's
    /// `transaction_id`; for other actions that would be ambiguous.
    fn transaction(
        self,
        fields: &Map<String, Value>,
        amount: Option<Money>,
    ) -> Result<Option<Transaction>, GatewayError> {
        let (Some(kind), Some(amount)) = (self.action.moves(self.captures), amount.or(self.amount)) else {
            return Ok(None);
        };
        let reference = match reference(fields, "reference")? {
            None if self.action == Action::Process => transaction_id(fields),
            reference => reference,
        };
        let attribution = if self.is_answer {
            Attribution::Answered(self.operation)
        } else {
            // The protocol looks up by our operation's id.
            Attribution::Recorded(self.operation)
        };
        let parent = reference_or_nothing(fields, "parent");
        Ok(Some(Transaction { kind, reference, parent, attribution, state: TransactionState::Done, amount }))
    }
}

/// A valid answer.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// The gateway's result.
    Result(Box<GatewayResult>),
    /// It is about another operation, and says nothing about the one asked about.
    OfOthers(Vec<Transaction>),
    /// The gateway does not know the target.
    NotFound,
    /// The gateway undid it: these transactions were reversed.
    Undone(Vec<Transaction>),
}

/// Reads the body of an answer.
///
/// # Errors
/// Says how the answer violates the contract. The gateway's text is not quoted, because it may contain anything.
pub(super) fn read(body: &[u8], expected: Expected) -> Result<Answer, GatewayError> {
    let answer = legible::read(body).ok_or_else(|| invalid("must be a JSON object"))?;
    if let Some(name) = answer.contradicted(&MONEY) {
        return Err(invalid(&format!("{name} occurs twice with different values")));
    }
    let fields = answer.fields;
    let verdict = match text(&fields, "result")? {
        Some("approved") => Verdict::Approved,
        Some("declined") => Verdict::Declined(Decline::Hard),
        Some("pending") => pending(&fields, expected.customer_may_act())?,
        Some("ready") if expected.customer_may_act() => Verdict::Ready,
        // Sums of money count whatever `result` says. If `result` denies them, it says no more about the payment than
        // `pending`.
        Some("not_found") if expected.is_whole() && has_sums(&fields) => Verdict::Pending,
        Some("not_found") => return Ok(Answer::NotFound),
        Some("undone") => return undone(&fields, expected),
        Some(_) | None => return Err(invalid("result must be approved, pending, ready, declined or not_found")),
    };
    check_legible(&fields, verdict == Verdict::Approved, expected)?;
    let named = currency(&fields)?;
    let currency = named.unwrap_or(expected.currency);
    let amount = money(&fields, "amount", currency)?;
    let mut transactions = transactions::read(&fields, currency)?;
    if let Some(subject) = expected.subject {
        if operation_id(&fields)?.is_some_and(|named| named != subject.operation) {
            // The request says nothing about what another operation moved.
            if verdict == Verdict::Approved && transactions.is_empty() {
                return Err(invalid("an approval of another operation_id must list its money in transactions"));
            }
            return Ok(Answer::OfOthers(transactions));
        }
        if verdict == Verdict::Approved {
            transactions.extend(subject.transaction(&fields, amount)?);
        }
    }
    let result = GatewayResult {
        verdict,
        transactions,
        total: amount.filter(|_| expected.is_whole()),
        currency: named,
        transaction_id: transaction_id(&fields),
        code: code(&fields),
        message: message(&fields),
        fraud: fraud(&fields),
        extra_data: extra_data(&fields),
        captured: money(&fields, "captured_amount", currency)?,
        refunded: money(&fields, "refunded_amount", currency)?,
        disputed: None,
    };
    Ok(Answer::Result(Box::new(result)))
}

/// What was undone: the list, or else what the operation had requested. It was found by its key, so it is the
/// operation's own.
fn undone(fields: &Map<String, Value>, expected: Expected) -> Result<Answer, GatewayError> {
    let Some(subject) = expected.subject else { return Err(invalid("undone does not apply to a whole payment")) };
    check_legible(fields, true, expected)?;
    if operation_id(fields)?.is_some_and(|named| named != subject.operation) {
        return Err(invalid("operation_id differs from the one to undo"));
    }
    let currency = currency(fields)?.unwrap_or(expected.currency);
    let is_listed = fields.get("transactions").is_some_and(|list| !list.is_null());
    let found = if is_listed {
        transactions::read(fields, currency)?
    } else {
        subject.transaction(fields, money(fields, "amount", currency)?)?.into_iter().collect()
    };
    let own = Attribution::Recorded(subject.operation);
    let gone = |it: Transaction| Transaction {
        attribution: it.attribution.operation().map_or(own, |_| it.attribution),
        state: TransactionState::Reversed,
        ..it
    };
    Ok(Answer::Undone(found.into_iter().map(gone).collect()))
}

/// Rejects members that are present but would be taken as omitted: an approval without an amount means the requested
/// amount, which a typo must not.
fn check_legible(fields: &Map<String, Value>, approves: bool, expected: Expected) -> Result<(), GatewayError> {
    let as_asked = if approves && expected.moves_money() { &AS_ASKED[..] } else { &[] };
    let sums = if expected.is_whole() { &SUMS[..] } else { &[] };
    for names in [&["result"][..], as_asked, sums] {
        if let Some(name) = legible::misspelled(fields, names) {
            return Err(invalid(&format!("{name} has another spelling")));
        }
    }
    let is_nothing = |value: &Value| value.is_null() || value.as_str() == Some("");
    let counts = as_asked.iter().chain(sums.iter().filter(|_| approves));
    for name in counts {
        if fields.get(*name).is_some_and(is_nothing) {
            return Err(invalid(&format!("{name} must not be null or empty in an approval; it may be omitted")));
        }
    }
    Ok(())
}

/// What an answer with a status other than 200 says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Words {
    /// The gateway's own code.
    pub code: Option<String>,
    /// A message for people.
    pub message: Option<String>,
    /// Whether it follows this protocol: it gives a reason in `message` or `code`, or its `result` denies success.
    pub is_protocol: bool,
    /// Whether its `result` says that something was done or is about to be.
    pub claims_success: bool,
}

/// Reads an answer with a status other than 200, as far as possible.
pub(super) fn words_of_failure(body: &[u8]) -> Words {
    let Some(answer) = legible::read(body) else { return Words::default() };
    let fields = answer.fields;
    let (code, message) = (code(&fields), Some(message(&fields)).filter(|message| !message.is_empty()));
    let result = words(&fields, "result");
    let is_protocol = code.is_some() || message.is_some() || matches!(&*result, "declined" | "not_found");
    Words { code, message, is_protocol, claims_success: matches!(&*result, "approved" | "pending" | "ready") }
}

pub(super) fn invalid(what: &str) -> GatewayError {
    GatewayError::new(Code::InvalidAnswer, format!("the gateway's answer: {what}"))
}

/// The text of a member that money depends on; `None` if omitted, null or empty.
pub(super) fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, GatewayError> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
        Some(_) => Err(invalid(&format!("{name} must be a string"))),
    }
}

fn message(fields: &Map<String, Value>) -> String {
    clean::text(&words(fields, "message"), MESSAGE_CHARACTERS_MAX)
}

fn code(fields: &Map<String, Value>) -> Option<String> {
    let raw = words(fields, "code");
    (!raw.is_empty()).then(|| clean::text(&raw, CODE_CHARACTERS_MAX))
}

/// The result `pending`. For a refund there is no customer to act, so a URL is ignored. For a process, an unreadable
/// URL makes the answer invalid: without it the customer would wait for ever.
fn pending(fields: &Map<String, Value>, customer_may_act: bool) -> Result<Verdict, GatewayError> {
    if !customer_may_act {
        return Ok(Verdict::Pending);
    }
    let Some(address) = text(fields, "redirect_url")? else { return Ok(Verdict::Pending) };
    let is_printable = !address.chars().any(|c| c.is_whitespace() || c.is_control());
    let is_web = Url::parse(address).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
    if !is_printable || !is_web || address.chars().count() > REDIRECT_URL_CHARACTERS_MAX {
        return Err(invalid("redirect_url must be an http or https URL of at most 2048 characters"));
    }
    Ok(Verdict::CustomerMustAct { redirect_url: Some(address.to_owned()) })
}

/// The currency, if named. Whether it is the payment's is for the engine to judge.
fn currency(fields: &Map<String, Value>) -> Result<Option<Currency>, GatewayError> {
    let code = text(fields, "currency")?;
    let currency = |code| Currency::from_code(code).ok_or_else(|| invalid("currency must be an ISO 4217 code"));
    code.map(currency).transpose()
}

/// Whether it reports moved money. Anything not clearly zero counts, and is left to the strict reading of the sums.
fn has_sums(fields: &Map<String, Value>) -> bool {
    let is_nothing = |text: &str| text.bytes().all(|byte| matches!(byte, b'0' | b'.'));
    let states = |name: &str| match fields.get(name) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !is_nothing(text),
        Some(_) => true,
    };
    states("captured_amount") || states("refunded_amount") || legible::misspelled(fields, &SUMS).is_some()
}

pub(super) fn money(
    fields: &Map<String, Value>,
    name: &str,
    currency: Currency,
) -> Result<Option<Money>, GatewayError> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => {
            Money::parse_padded(text, currency).map(Some).map_err(|error| invalid(&format!("{name} {error}")))
        }
        Some(_) => Err(invalid(&format!("{name} must be a decimal string"))),
    }
}

/// The operation that an answer names. Read strictly, because it says whose money it is.
fn operation_id(fields: &Map<String, Value>) -> Result<Option<Uuid>, GatewayError> {
    let parse = |text: &str| Uuid::parse_str(text).map_err(|_| invalid("operation_id must be a UUID"));
    text(fields, "operation_id")?.map(parse).transpose()
}

/// The payment's id at the gateway.
fn transaction_id(fields: &Map<String, Value>) -> Option<String> {
    reference_or_nothing(fields, "transaction_id")
}

/// The reference under which money is booked. If present, it must be complete.
pub(super) fn reference(fields: &Map<String, Value>, name: &str) -> Result<Option<String>, GatewayError> {
    let is_there = fields.get(name).is_some_and(|value| !value.is_null() && value.as_str() != Some(""));
    match reference_or_nothing(fields, name) {
        None if is_there => Err(invalid(&format!("{name} must be a text of at most 255 characters"))),
        reference => Ok(reference),
    }
}

/// A reference, unchanged or not at all: a truncated or damaged one refers to nothing. An integer is accepted too.
pub(super) fn reference_or_nothing(fields: &Map<String, Value>, name: &str) -> Option<String> {
    let id = match fields.get(name)? {
        Value::String(id) => Cow::Borrowed(id.as_str()),
        Value::Number(number) if !number.is_f64() => Cow::Owned(number.to_string()),
        Value::Null => return None,
        _ => Cow::Borrowed("\0"),
    };
    let is_damaged = id.contains(['\0', char::REPLACEMENT_CHARACTER]);
    if is_damaged || id.chars().count() > REFERENCE_CHARACTERS_MAX {
        leave_out(name, "it must be an undamaged text of at most 255 characters without NUL");
        return None;
    }
    Some(id.into_owned()).filter(|id| !id.is_empty())
}

/// The fraud assessment. An unknown value becomes a review by a person.
fn fraud(fields: &Map<String, Value>) -> Option<(FraudStatus, String)> {
    let message = clean::text(&words(fields, "fraud_message"), MESSAGE_CHARACTERS_MAX);
    if fields.get("fraud_status")?.is_null() {
        return None;
    }
    let word = words(fields, "fraud_status");
    match FraudStatus::from_word(&word) {
        Some(status) => Some((status, message)),
        None if fields["fraud_status"].as_str() == Some("") => None,
        None => {
            let note = format!("the gateway's fraud_status is {word}; {message}");
            Some((FraudStatus::Review, clean::text(&note, MESSAGE_CHARACTERS_MAX)))
        }
    }
}

fn extra_data(fields: &Map<String, Value>) -> Map<String, Value> {
    match fields.get("extra_data") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(extra)) => clean::extra_data(extra.clone()),
        Some(_) => {
            leave_out("extra_data", "it is not a readable object");
            Map::new()
        }
    }
}

pub(super) mod proof;
mod transactions;

#[cfg(test)]
mod tests;
