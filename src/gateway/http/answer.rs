//! The gateway's answer of status 200: read strictly where it tells of money, and leniently around that. What the contract
//! does not allow of money is no result; an ornament that it does not allow is left out.

use std::borrow::Cow;

use reqwest::Url;
use serde_json::{Map, Value};

use crate::gateway::clean::{self, CODE_CHARACTERS_MAX, MESSAGE_CHARACTERS_MAX};
use crate::gateway::legible::{self, leave_out, words};
use crate::payment::code::Code;
use crate::payment::money::{Currency, Money};
use crate::payment::outcome::{Decline, GatewayResult, Trouble, Verdict};
use crate::payment::status::FraudStatus;

const TRANSACTION_ID_CHARACTERS_MAX: usize = 255;
const REDIRECT_URL_CHARACTERS_MAX: usize = 2_048;

/// What tells what was done, with how much money, and whose.
const MONEY: [&str; 6] = ["result", "amount", "currency", "captured_amount", "refunded_amount", "transaction_id"];
/// What an approval means of what was asked, where it leaves it out.
const AS_ASKED: [&str; 2] = ["amount", "currency"];
/// What it is worth of the whole payment.
const SUMS: [&str; 2] = ["captured_amount", "refunded_amount"];

/// What the question was, as far as it decides on the answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    /// The payment's currency, in which an answer's amounts are unless it names another.
    pub currency: Currency,
    /// Whether the customer can be asked to act: only for a process.
    pub customer_may_act: bool,
    /// Whether its approval moves a sum: all but a cancel's.
    pub moves_money: bool,
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
    let answer = legible::read(body).ok_or_else(|| invalid("must be a JSON object"))?;
    if let Some(name) = answer.contradicted(&MONEY) {
        return Err(invalid(&format!("{name} is there twice, and says different things")));
    }
    let fields = answer.fields;
    let verdict = match text(&fields, "result")? {
        Some("approved") => Verdict::Approved,
        Some("declined") => Verdict::Declined(Decline::Hard),
        Some("pending") => pending(&fields, expected.customer_may_act)?,
        // Sums of money count beside any word. One that denies them says nothing more of the payment than `pending`.
        Some("not_found") if expected.whole && has_sums(&fields) => Verdict::Pending,
        Some("not_found") => return Ok(Answer::NotFound),
        Some(_) | None => return Err(invalid("result must be approved, pending, declined or not_found")),
    };
    check_told(&fields, verdict == Verdict::Approved, expected)?;
    let named = currency(&fields)?;
    let currency = named.unwrap_or(expected.currency);
    let result = GatewayResult {
        verdict,
        amount: money(&fields, "amount", currency)?,
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

/// Refuses to take for left out what is there: an approval that leaves its amount out means the one that was asked, which a
/// slip must not.
fn check_told(fields: &Map<String, Value>, approves: bool, expected: Expected) -> Result<(), Trouble> {
    let as_asked = if approves && expected.moves_money { &AS_ASKED[..] } else { &[] };
    let sums = if expected.whole { &SUMS[..] } else { &[] };
    for names in [&["result"][..], as_asked, sums] {
        if let Some(name) = legible::misspelled(fields, names) {
            return Err(invalid(&format!("{name} is there in another spelling")));
        }
    }
    let is_nothing = |value: &Value| value.is_null() || value.as_str() == Some("");
    let counts = as_asked.iter().chain(sums.iter().filter(|_| approves));
    for name in counts {
        if fields.get(*name).is_some_and(is_nothing) {
            return Err(invalid(&format!("{name} must say something in an approval, or be left out")));
        }
    }
    Ok(())
}

/// What an answer of another status than 200 says of itself.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Words {
    /// The gateway's own code.
    pub code: Option<String>,
    /// For a person.
    pub message: Option<String>,
    /// Whether it is an answer of this protocol: it says why in `message` or `code`, or has a `result`.
    pub is_protocol: bool,
    /// Whether its `result` says that something was done, or is about to be.
    pub claims_success: bool,
}

/// Reads an answer other than 200, as far as it can be read.
pub(super) fn words_of_failure(body: &[u8]) -> Words {
    let Some(answer) = legible::read(body) else { return Words::default() };
    let fields = answer.fields;
    let (code, message) = (code(&fields), Some(message(&fields)).filter(|message| !message.is_empty()));
    let result = words(&fields, "result");
    let is_protocol = code.is_some() || message.is_some() || matches!(&*result, "declined" | "not_found");
    Words { code, message, is_protocol, claims_success: matches!(&*result, "approved" | "pending") }
}

fn invalid(what: &str) -> Trouble {
    Trouble::new(Code::InvalidAnswer, format!("the gateway's answer: {what}"))
}

/// The text of a field on which money depends; nothing where it is left out, null or empty.
fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Trouble> {
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

/// The result `pending`. Nobody can ask a customer to act for a refund: there, an address says nothing. Where one can, an
/// address that cannot be read is no answer: without it the customer would wait for ever.
fn pending(fields: &Map<String, Value>, customer_may_act: bool) -> Result<Verdict, Trouble> {
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
    tells("captured_amount") || tells("refunded_amount") || legible::misspelled(fields, &SUMS).is_some()
}

fn money(fields: &Map<String, Value>, name: &str, currency: Currency) -> Result<Option<Money>, Trouble> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => {
            Money::parse_padded(text, currency).map(Some).map_err(|error| invalid(&format!("{name} {error}")))
        }
        Some(_) => Err(invalid(&format!("{name} must be a decimal string"))),
    }
}

/// A reference: kept as it is or not at all, for half of one, or one with a gap, refers to nothing. A whole number is one
/// too.
fn transaction_id(fields: &Map<String, Value>) -> Option<String> {
    let id = match fields.get("transaction_id")? {
        Value::String(id) => Cow::Borrowed(id.as_str()),
        Value::Number(number) if !number.is_f64() => Cow::Owned(number.to_string()),
        Value::Null => return None,
        _ => Cow::Borrowed("\0"),
    };
    let is_damaged = id.contains(['\0', char::REPLACEMENT_CHARACTER]);
    if is_damaged || id.chars().count() > TRANSACTION_ID_CHARACTERS_MAX {
        leave_out("transaction_id", "it must be a text of at most 255 characters, whole and without NUL");
        return None;
    }
    Some(id.into_owned()).filter(|id| !id.is_empty())
}

/// What the gateway thinks of fraud. A word of its own becomes a review by a person.
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
            leave_out("extra_data", "it is no object that can be read");
            Map::new()
        }
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
        let expected = Expected { currency: usd(), customer_may_act, moves_money: true, whole: customer_may_act };
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
    fn everything_but_the_result_may_be_left_out_or_null_where_no_money_moved() {
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
    fn what_the_contract_does_not_allow_of_money_is_no_result() {
        let long = "x".repeat(2_049);
        for (name, value) in [
            ("result", json!("paid")),
            ("result", json!(1)),
            ("amount", json!(12.5)),
            ("amount", json!("1e3")),
            ("amount", json!("-1")),
            ("amount", json!("")),
            ("amount", json!("12.345")),
            ("amount", json!("12.50 ")),
            ("amount", json!([])),
            ("captured_amount", json!(0)),
            ("refunded_amount", json!("1,00")),
            ("currency", json!("dollars")),
            ("currency", json!(840)),
            ("redirect_url", json!("javascript:alert(1)")),
            ("redirect_url", json!("/relative")),
            ("redirect_url", json!("https://a b")),
            ("redirect_url", json!(17)),
            ("redirect_url", json!(format!("https://a/{long}"))),
        ] {
            let mut answer = json!({"result": "pending"});
            answer[name] = value;
            let trouble = read_as(&answer, true).unwrap_err();
            assert_eq!(trouble.code, Code::InvalidAnswer, "{answer}");
            assert!(trouble.message.contains(name), "{}", trouble.message);
        }
        for body in ["", "null", "[]", "<html>", "{\"result\":\"approved\"", "{\"result\":\"approved\"} x"] {
            assert_eq!(read(body.as_bytes(), charge()).unwrap_err().code, Code::InvalidAnswer, "{body}");
        }
    }

    fn charge() -> Expected {
        Expected { currency: usd(), customer_may_act: true, moves_money: true, whole: false }
    }

    fn whole() -> Expected {
        Expected { whole: true, ..charge() }
    }

    fn unusable(body: &str, expected: Expected) {
        match read(body.as_bytes(), expected) {
            Err(trouble) => assert_eq!(trouble.code, Code::InvalidAnswer),
            Ok(answer) => panic!("{body} was read as {answer:?}"),
        }
    }

    fn approved(body: &str, expected: Expected) -> GatewayResult {
        match read(body.as_bytes(), expected) {
            Ok(Answer::Result(result)) if result.verdict == Verdict::Approved => *result,
            other => panic!("{body} was read as {other:?}"),
        }
    }

    #[test]
    fn an_amount_that_is_there_never_means_the_one_that_was_asked() {
        for members in [
            r#""amount": null"#,
            r#""amount": """#,
            r#""amount": "50.00", "currency": null"#,
            r#""currency": """#,
            r#""Amount": "50.00""#,
            r#""amount ": "50.00""#,
            r#""AMOUNT": 50"#,
            r#""amount": "50.00", "amount": "100.00""#,
            r#""amount": "50.00", "\u0061mount": "100.00""#,
            r#""amount": "100.00", "Amount": "50.00""#,
            r#""Currency": "JPY""#,
            r#""currency": "USD", "currency": "JPY""#,
            r#""result": "declined""#,
            r#""Result": "declined""#,
            r#""transaction_id": "t-1", "transaction_id": "t-2""#,
        ] {
            unusable(&format!(r#"{{"result": "approved", {members}}}"#), charge());
        }
        for members in [r#""captured_amount": null"#, r#""capturedAmount": "50.00""#, r#""refunded_amount": """#] {
            unusable(&format!(r#"{{"result": "approved", {members}}}"#), whole());
        }
        unusable(r#"{"result": "not_found", "capturedAmount": "50.00"}"#, whole());
        // What says the same twice says it, and where no sum moves none is meant.
        let twice = r#"{"result": "approved", "amount": "50.00", "amount": "50.00", "Amount": "50.00"}"#;
        assert_eq!(approved(twice, charge()).amount.map(|sum| sum.to_string()).as_deref(), Some("50.00"));
        approved(
            r#"{"result": "approved", "amount": null, "currency": null}"#,
            Expected { moves_money: false, ..charge() },
        );
        for result in ["declined", "pending", "not_found"] {
            let body =
                format!(r#"{{"result": "{result}", "amount": null, "currency": null, "captured_amount": null}}"#);
            assert!(read(body.as_bytes(), whole()).is_ok(), "{body}");
        }
    }

    #[test]
    fn an_ornament_costs_no_result() {
        let deep = |levels: usize| format!("{}{}", r#"{"a":"#.repeat(levels), "1") + &"}".repeat(levels);
        let long = "x".repeat(2_049);
        for member in [
            r#""message": 51"#.to_owned(),
            r#""message": null"#.to_owned(),
            r#""message": {"en": "thanks"}"#.to_owned(),
            r#""message": "half an emoji: \ud83d""#.to_owned(),
            "\"message\": \"two\nlines\"".to_owned(),
            r#""code": 5"#.to_owned(),
            r#""code": []"#.to_owned(),
            r#""fraud_status": true"#.to_owned(),
            r#""fraud_status": "dubious""#.to_owned(),
            r#""fraud_message": []"#.to_owned(),
            r#""redirect_url": "javascript:alert(1)""#.to_owned(),
            r#""redirect_url": {}"#.to_owned(),
            r#""transaction_id": 17.5"#.to_owned(),
            r#""transaction_id": "a\u0000b""#.to_owned(),
            format!(r#""transaction_id": "{}""#, &long[..256]),
            r#""extra_data": "x""#.to_owned(),
            r#""extra_data": {"n": 1e999}"#.to_owned(),
            format!(r#""extra_data": {}"#, deep(100)),
            format!(r#""extra_data": {}"#, deep(500)),
            format!(r#""extra_data": {{"a": "{}"}}"#, "x".repeat(20_000)),
            r#""more": 1, "more": 2"#.to_owned(),
        ] {
            let body = format!(r#"{{"result": "approved", "amount": "100.0000", {member}}}"#);
            let read = approved(&body, charge());
            assert_eq!(read.amount.map(|sum| sum.to_string()).as_deref(), Some("100.00"), "{member}");
            assert_eq!(read.transaction_id, None, "{member}");
        }
        let marked = "\u{feff}{\"result\": \"approved\", \"message\": 51, \"code\": 5, \"transaction_id\": 17}";
        let read = approved(marked, charge());
        assert_eq!((read.message.as_str(), read.code.as_deref()), ("51", Some("5")));
        assert_eq!(read.transaction_id.as_deref(), Some("17"));
        let mut damaged = br#"{"result": "approved", "amount": "100.00", "message": "caf"#.to_vec();
        damaged.extend(b"\xe9\"}");
        assert!(matches!(super::read(&damaged, charge()), Ok(Answer::Result(_))));
        // Damage where it tells of money stays one.
        let mut damaged = br#"{"result": "approved", "amount": "100.00"#.to_vec();
        damaged.extend(b"\xe9\"}");
        assert!(super::read(&damaged, charge()).is_err());
        // A refund sends nobody anywhere.
        let body = r#"{"result": "pending", "redirect_url": 17}"#;
        assert!(super::read(body.as_bytes(), Expected { customer_may_act: false, ..charge() }).is_ok());
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
