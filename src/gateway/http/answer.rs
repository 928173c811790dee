//! The gateway's answer of status 200, read strictly: what the contract does not allow is no result.

use reqwest::Url;
use serde_json::{Map, Value};

use crate::gateway::clean::{self, CODE_CHARACTERS_MAX, MESSAGE_CHARACTERS_MAX};
use crate::payment::code::Code;
use crate::payment::money::{Currency, Money};
use crate::payment::outcome::{Decline, GatewayResult, Trouble, Verdict};
use crate::payment::status::FraudStatus;

const TRANSACTION_ID_CHARACTERS_MAX: usize = 255;
const REDIRECT_URL_CHARACTERS_MAX: usize = 2_048;

/// What the question was, as far as it decides on the answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    /// The payment's currency, in which an answer's amounts are unless it names another.
    pub currency: Currency,
    /// Whether the customer can be asked to act: only for a process.
    pub customer_may_act: bool,
    /// Whether it is about the whole payment, so that its sums are the answer as much as its word.
    pub whole: bool,
}

/// An answer that was understood.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// The gateway's result.
    Result(Box<GatewayResult>),
    /// The gateway knows nothing of it.
    NotFound,
}

/// Reads the body of an answer.
///
/// # Errors
/// Why it is no answer by the contract. The gateway's words are not quoted: they may be anything.
pub(super) fn read(body: &[u8], expected: Expected) -> Result<Answer, Trouble> {
    let fields: Map<String, Value> =
        serde_json::from_slice(body).map_err(|_| invalid("must be a JSON object of at most 128 levels"))?;
    let verdict = match text(&fields, "result")? {
        Some("approved") => Verdict::Approved,
        Some("declined") => Verdict::Declined(Decline::Hard),
        Some("pending") => pending(&fields, expected.customer_may_act)?,
        // Sums of money count beside any word. One that denies them says nothing more of the payment than `pending`.
        Some("not_found") if expected.whole && has_sums(&fields) => Verdict::Pending,
        Some("not_found") => return Ok(Answer::NotFound),
        Some(_) | None => return Err(invalid("result must be approved, pending, declined or not_found")),
    };
    let named = currency(&fields)?;
    let currency = named.unwrap_or(expected.currency);
    let result = GatewayResult {
        verdict,
        amount: money(&fields, "amount", currency)?,
        currency: named,
        transaction_id: transaction_id(&fields)?,
        code: code(&fields)?,
        message: message(&fields)?,
        fraud: fraud(&fields)?,
        extra_data: extra_data(&fields)?,
        captured: money(&fields, "captured_amount", currency)?,
        refunded: money(&fields, "refunded_amount", currency)?,
        disputed: None,
    };
    Ok(Answer::Result(Box::new(result)))
}

/// What an answer other than 200 says of itself, where it is readable at all: its code and its message.
pub(super) fn words_of_failure(body: &[u8]) -> (Option<String>, Option<String>) {
    let Ok(fields) = serde_json::from_slice::<Map<String, Value>>(body) else {
        return (None, None);
    };
    let message = message(&fields).ok().filter(|message| !message.is_empty());
    (code(&fields).ok().flatten(), message)
}

fn invalid(what: &str) -> Trouble {
    Trouble::new(Code::InvalidAnswer, format!("the gateway's answer: {what}"))
}

/// A field's text; nothing where it is left out, null or empty.
fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Trouble> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
        Some(_) => Err(invalid(&format!("{name} must be a string"))),
    }
}

fn message(fields: &Map<String, Value>) -> Result<String, Trouble> {
    let raw = text(fields, "message")?.unwrap_or_default();
    Ok(clean::text(raw, MESSAGE_CHARACTERS_MAX))
}

fn code(fields: &Map<String, Value>) -> Result<Option<String>, Trouble> {
    let raw = text(fields, "code")?;
    Ok(raw.map(|raw| clean::text(raw, CODE_CHARACTERS_MAX)))
}

/// The result `pending`. Nobody can ask a customer to act for a refund: there, an address says nothing.
fn pending(fields: &Map<String, Value>, customer_may_act: bool) -> Result<Verdict, Trouble> {
    let Some(address) = text(fields, "redirect_url")?.filter(|_| customer_may_act) else {
        return Ok(Verdict::Pending);
    };
    let is_printable = !address.chars().any(|c| c.is_whitespace() || c.is_control());
    let is_web = Url::parse(address).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
    if !is_printable || !is_web || address.chars().count() > REDIRECT_URL_CHARACTERS_MAX {
        return Err(invalid("redirect_url must be an http or https URL of at most 2048 characters"));
    }
    Ok(Verdict::CustomerMustAct { redirect_url: Some(address.to_owned()) })
}

/// The currency that is named, of the payment or another: which of them it is, the engine judges.
fn currency(fields: &Map<String, Value>) -> Result<Option<Currency>, Trouble> {
    let code = text(fields, "currency")?;
    let currency = |code| Currency::from_code(code).ok_or_else(|| invalid("currency must be a code of ISO 4217"));
    code.map(currency).transpose()
}

/// Whether it tells of money that was moved; what cannot be read as none is for the reader of the sums.
fn has_sums(fields: &Map<String, Value>) -> bool {
    let is_nothing = |text: &str| text.bytes().all(|byte| matches!(byte, b'0' | b'.'));
    let tells = |name: &str| match fields.get(name) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !is_nothing(text),
        Some(_) => true,
    };
    tells("captured_amount") || tells("refunded_amount")
}

fn money(fields: &Map<String, Value>, name: &str, currency: Currency) -> Result<Option<Money>, Trouble> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => {
            Money::parse(text, currency).map(Some).map_err(|error| invalid(&format!("{name} {error}")))
        }
        Some(_) => Err(invalid(&format!("{name} must be a decimal string"))),
    }
}

/// A reference: kept as it is or not at all, for half of one, or one with a gap, refers to nothing.
fn transaction_id(fields: &Map<String, Value>) -> Result<Option<String>, Trouble> {
    let Some(id) = text(fields, "transaction_id")? else {
        return Ok(None);
    };
    if id.contains('\0') || id.chars().count() > TRANSACTION_ID_CHARACTERS_MAX {
        return Err(invalid("transaction_id must be of at most 255 characters and without NUL"));
    }
    Ok(Some(id.to_owned()))
}

/// What the gateway thinks of fraud. A word of its own does not cost the answer, which may tell of money: it becomes a
/// review by a person.
fn fraud(fields: &Map<String, Value>) -> Result<Option<(FraudStatus, String)>, Trouble> {
    let raw = text(fields, "fraud_message")?.unwrap_or_default();
    let message = clean::text(raw, MESSAGE_CHARACTERS_MAX);
    Ok(text(fields, "fraud_status")?.map(|word| match FraudStatus::from_word(word) {
        Some(status) => (status, message),
        None => {
            let note = format!("the gateway's fraud_status is {word}; {message}");
            (FraudStatus::Review, clean::text(&note, MESSAGE_CHARACTERS_MAX))
        }
    }))
}

fn extra_data(fields: &Map<String, Value>) -> Result<Map<String, Value>, Trouble> {
    match fields.get("extra_data") {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(extra)) => Ok(clean::extra_data(extra.clone())),
        Some(_) => Err(invalid("extra_data must be an object")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn usd() -> Currency {
        Currency::from_code("USD").unwrap()
    }

    fn read_as(answer: &Value, customer_may_act: bool) -> Result<Answer, Trouble> {
        let expected = Expected { currency: usd(), customer_may_act, whole: customer_may_act };
        read(answer.to_string().as_bytes(), expected)
    }

    fn result(answer: Value) -> GatewayResult {
        match read_as(&answer, true) {
            Ok(Answer::Result(result)) => *result,
            other => panic!("{answer} was read as {other:?}"),
        }
    }

    #[test]
    fn a_whole_answer_is_read() {
        let read = result(json!({
            "result": "approved", "amount": "12.50", "currency": "USD", "transaction_id": "4111111111111111",
            "code": "00", "message": "paid with 4111111111111111", "fraud_status": "review", "fraud_message": "new",
            "extra_data": {"scheme": "visa"}, "captured_amount": "12.5", "refunded_amount": "0", "more": [1]
        }));
        let money = |text| Some(Money::parse(text, usd()).unwrap());
        assert_eq!(read.verdict, Verdict::Approved);
        assert_eq!(read.amount, money("12.50"));
        assert_eq!(read.transaction_id.as_deref(), Some("4111111111111111"));
        assert_eq!(read.code.as_deref(), Some("00"));
        assert!(!read.message.contains("4111"), "{}", read.message);
        assert_eq!(read.fraud, Some((FraudStatus::Review, "new".to_owned())));
        assert_eq!(read.extra_data["scheme"], "visa");
        assert_eq!((read.captured, read.refunded), (money("12.50"), money("0")));
    }

    #[test]
    fn everything_but_the_result_may_be_left_out_or_null() {
        assert_eq!(result(json!({"result": "approved"})), GatewayResult::new(Verdict::Approved));
        let names = ["amount", "currency", "transaction_id", "code", "message", "fraud_status", "extra_data"];
        let mut answer = json!({"result": "declined"});
        for name in names {
            answer[name] = Value::Null;
        }
        assert_eq!(result(answer), GatewayResult::new(Verdict::Declined(Decline::Hard)));
    }

    #[test]
    fn pending_with_an_address_is_for_the_customer_of_a_process() {
        let answer = json!({"result": "pending", "redirect_url": "https://bank.example/3ds?id=1"});
        let redirect_url = Some("https://bank.example/3ds?id=1".to_owned());
        assert_eq!(result(answer.clone()).verdict, Verdict::CustomerMustAct { redirect_url });
        let Ok(Answer::Result(other)) = read_as(&answer, false) else {
            panic!("no result");
        };
        assert_eq!(other.verdict, Verdict::Pending);
        assert_eq!(result(json!({"result": "pending"})).verdict, Verdict::Pending);
        assert_eq!(read_as(&json!({"result": "not_found"}), true), Ok(Answer::NotFound));
    }

    #[test]
    fn what_the_contract_does_not_allow_is_no_result() {
        let long = "x".repeat(2_049);
        for (name, value) in [
            ("result", json!("paid")),
            ("result", json!(1)),
            ("amount", json!(12.5)),
            ("amount", json!("1e3")),
            ("amount", json!("-1")),
            ("amount", json!("")),
            ("amount", json!("12.345")),
            ("captured_amount", json!(0)),
            ("refunded_amount", json!("1,00")),
            ("currency", json!("dollars")),
            ("currency", json!(840)),
            ("transaction_id", json!(17)),
            ("transaction_id", json!("a\0b")),
            ("transaction_id", json!(long[..256])),
            ("code", json!(5)),
            ("message", json!({})),
            ("fraud_status", json!(true)),
            ("fraud_message", json!([])),
            ("extra_data", json!("x")),
            ("redirect_url", json!("javascript:alert(1)")),
            ("redirect_url", json!("/relative")),
            ("redirect_url", json!("https://a b")),
            ("redirect_url", json!(format!("https://a/{long}"))),
        ] {
            let mut answer = json!({"result": "pending"});
            answer[name] = value;
            let trouble = read_as(&answer, true).unwrap_err();
            assert_eq!(trouble.code, Code::InvalidAnswer, "{answer}");
            assert!(trouble.message.contains(name), "{}", trouble.message);
        }
        for body in ["", "null", "[]", "<html>", "{\"result\":\"approved\"", "{\"result\":\"approved\"} x"] {
            let expected = Expected { currency: usd(), customer_may_act: true, whole: false };
            assert_eq!(read(body.as_bytes(), expected).unwrap_err().code, Code::InvalidAnswer, "{body}");
        }
    }

    #[test]
    fn another_currency_is_seen_with_an_amount_and_without() {
        let read = result(json!({"result": "approved", "amount": "500", "currency": "JPY"}));
        assert_eq!(read.amount.map(|amount| amount.currency().code()), Some("JPY"));
        let read = result(json!({"result": "approved", "currency": "EUR"}));
        assert_eq!((read.amount, read.currency.map(Currency::code)), (None, Some("EUR")));
    }

    #[test]
    fn not_found_beside_money_is_no_absence_of_a_whole_payment() {
        let answer =
            |captured: &str| json!({"result": "not_found", "captured_amount": captured, "refunded_amount": "0.00"});
        let read = result(answer("12.50"));
        assert_eq!(
            (read.verdict, read.captured.map(|sum| sum.to_string())),
            (Verdict::Pending, Some("12.50".to_owned()))
        );
        assert_eq!(read_as(&answer("0.00"), true), Ok(Answer::NotFound));
        // Of one operation the payment's sums say nothing.
        assert_eq!(read_as(&answer("12.50"), false), Ok(Answer::NotFound));
        assert_eq!(read_as(&answer("much"), true).unwrap_err().code, Code::InvalidAnswer);
    }

    #[test]
    fn a_strange_word_of_fraud_is_for_a_person_and_costs_no_answer() {
        let read = result(json!({"result": "approved", "fraud_status": "dubious", "fraud_message": "velocity"}));
        let Some((FraudStatus::Review, message)) = read.fraud else {
            panic!("{:?}", read.fraud);
        };
        assert!(message.contains("dubious") && message.contains("velocity"), "{message}");
    }

    #[test]
    fn texts_are_bounded() {
        let long = "é".repeat(3_000);
        let read = result(json!({"result": "declined", "message": long, "code": long, "fraud_status": "reject",
            "fraud_message": long}));
        assert_eq!(read.message.chars().count(), MESSAGE_CHARACTERS_MAX);
        assert_eq!(read.code.map(|code| code.chars().count()), Some(CODE_CHARACTERS_MAX));
        assert_eq!(read.fraud.map(|(_, message)| message.chars().count()), Some(MESSAGE_CHARACTERS_MAX));
    }
}
