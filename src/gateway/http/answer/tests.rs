//! How answers are read: money strictly, everything else leniently.

use serde_json::json;

use super::*;
use crate::payment::transaction::TransactionKind;

fn usd() -> Currency {
    Currency::from_code("USD").unwrap()
}

fn read_as(answer: &Value, whole: bool) -> Result<Answer, GatewayError> {
    let expected = if whole { super::tests::whole() } else { of(Action::Refund) };
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
    assert_eq!(read.total, money("12.50"));
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
        let error = read_as(&answer, true).unwrap_err();
        assert_eq!(error.code, Code::InvalidAnswer, "{answer}");
        assert!(error.message.contains(name), "{}", error.message);
    }
    for body in ["", "null", "[]", "<html>", "{\"result\":\"approved\"", "{\"result\":\"approved\"} x"] {
        assert_eq!(read(body.as_bytes(), charge()).unwrap_err().code, Code::InvalidAnswer, "{body}");
    }
}

fn charge() -> Expected {
    of(Action::Process)
}

fn of(action: Action) -> Expected {
    let subject = Subject { operation: Uuid::from_u128(7), action, captures: true, amount: None, is_answer: true };
    Expected { currency: usd(), subject: Some(subject) }
}

fn whole() -> Expected {
    Expected { currency: usd(), subject: None }
}

fn unusable(body: &str, expected: Expected) {
    match read(body.as_bytes(), expected) {
        Err(error) => assert_eq!(error.code, Code::InvalidAnswer),
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
    // Repeating the same value is no contradiction, and without a moved amount none is meant.
    let twice = r#"{"result": "approved", "amount": "50.00", "amount": "50.00", "Amount": "50.00"}"#;
    assert_eq!(approved(twice, charge()).amount().map(|sum| sum.to_string()).as_deref(), Some("50.00"));
    approved(r#"{"result": "approved", "amount": null, "currency": null}"#, of(Action::Cancel));
    for result in ["declined", "pending", "not_found"] {
        let body = format!(r#"{{"result": "{result}", "amount": null, "currency": null, "captured_amount": null}}"#);
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
        assert_eq!(read.amount().map(|sum| sum.to_string()).as_deref(), Some("100.00"), "{member}");
        assert_eq!(read.transaction_id, None, "{member}");
    }
    let marked = "\u{feff}{\"result\": \"approved\", \"message\": 51, \"code\": 5, \"transaction_id\": 17}";
    let read = approved(marked, charge());
    assert_eq!((read.message.as_str(), read.code.as_deref()), ("51", Some("5")));
    assert_eq!(read.transaction_id.as_deref(), Some("17"));
    let mut damaged = br#"{"result": "approved", "amount": "100.00", "message": "caf"#.to_vec();
    damaged.extend(b"\xe9\"}");
    assert!(matches!(super::read(&damaged, charge()), Ok(Answer::Result(_))));
    // Damage within an amount makes the answer unusable.
    let mut damaged = br#"{"result": "approved", "amount": "100.00"#.to_vec();
    damaged.extend(b"\xe9\"}");
    assert!(super::read(&damaged, charge()).is_err());
    // For a refund, no customer is redirected.
    let body = r#"{"result": "pending", "redirect_url": 17}"#;
    assert!(super::read(body.as_bytes(), of(Action::Refund)).is_ok());
}

#[test]
fn what_another_operation_moved_is_what_is_listed() {
    let other = Uuid::from_u128(77);
    let answer = json!({"result": "approved", "amount": "100.00", "operation_id": other});
    // Nothing says whether it was a charge or a refund.
    assert_eq!(read_as(&answer, false).unwrap_err().code, Code::InvalidAnswer);
    let mut answer = answer;
    answer["transactions"] =
        json!([{"kind": "capture", "reference": "tx-1", "state": "done", "amount": "100.00", "operation_id": other}]);
    let Ok(Answer::OfOthers(transactions)) = read_as(&answer, false) else { panic!("it is about another one") };
    let [only] = transactions.as_slice() else { panic!("{transactions:?}") };
    assert_eq!((only.kind, only.attribution), (TransactionKind::Capture, Attribution::Recorded(other)));
}

#[test]
fn another_currency_is_seen_with_an_amount_and_without() {
    let read = result(json!({"result": "approved", "amount": "500", "currency": "JPY"}));
    assert_eq!(read.total.map(|amount| amount.currency().code()), Some("JPY"));
    let read = result(json!({"result": "approved", "currency": "EUR"}));
    assert_eq!((read.total, read.currency.map(Currency::code)), (None, Some("EUR")));
}

#[test]
fn not_found_beside_money_is_no_absence_of_a_whole_payment() {
    let answer =
        |captured: &str| json!({"result": "not_found", "captured_amount": captured, "refunded_amount": "0.00"});
    let read = result(answer("12.50"));
    assert_eq!((read.verdict, read.captured.map(|sum| sum.to_string())), (Verdict::Pending, Some("12.50".to_owned())));
    assert_eq!(read_as(&answer("0.00"), true), Ok(Answer::NotFound));
    // The payment's sums say nothing about one operation.
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
