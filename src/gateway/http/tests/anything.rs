//! Whatever a gateway answers is a result, or proves no more than it can: what may have been received is never taken as
//! not sent, and no amount or currency in it is lost on the way to the engine, which judges them.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use rust_decimal::Decimal;

use super::super::answer::{Answer, Expected, read};
use super::super::failure::of_status;
use super::*;
use crate::gateway::failure::Failure;

fn expected() -> impl Strategy<Value = Expected> {
    let currency = select(vec!["USD", "JPY", "KWD"]).prop_map(|code| Currency::from_code(code).unwrap());
    let actions = vec![Some(Action::Process), Some(Action::Refund), Some(Action::Cancel), None];
    (currency, select(actions), any::<bool>()).prop_map(|(currency, action, is_answer)| Expected {
        currency,
        subject: action.map(|action| Subject {
            operation: Uuid::from_u128(7),
            action,
            captures: true,
            amount: None,
            is_answer,
        }),
    })
}

fn text() -> impl Strategy<Value = String> {
    let words = vec![
        "approved",
        "pending",
        "ready",
        "declined",
        "not_found",
        "USD",
        "JPY",
        "EUR",
        "",
        "accept",
        "https://bank.example/3ds",
        "javascript:1",
        "4242424242424242",
        "\0",
    ];
    prop_oneof![
        4 => select(words).prop_map(str::to_owned),
        4 => "-?[0-9]{0,13}(\\.[0-9]{0,4})?",
        1 => any::<String>(),
        1 => Just("é".repeat(3_000)),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        6 => text().prop_map(Value::String),
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::Bool),
        1 => any::<f64>().prop_map(|number| json!(number)),
    ];
    leaf.prop_recursive(8, 24, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            proptest::collection::hash_map(text(), inner, 0..3).prop_map(|members| json!(members)),
        ]
    })
}

const MEMBERS: &[&str] = &[
    "result",
    "amount",
    "currency",
    "transaction_id",
    "code",
    "message",
    "fraud_status",
    "fraud_message",
    "extra_data",
    "redirect_url",
    "captured_amount",
    "refunded_amount",
    "more",
];

/// A valid answer with some members changed.
fn changed() -> impl Strategy<Value = Value> {
    let change = (select(MEMBERS), value());
    let result = select(vec!["approved", "approved", "pending", "ready", "declined", "not_found"]);
    (result, proptest::collection::vec(change, 0..4)).prop_map(|(result, changes)| {
        let mut answer = json!({
            "result": result, "amount": "120", "currency": "USD", "transaction_id": "t-1", "message": "well",
            "extra_data": {"scheme": "visa"}, "captured_amount": "120", "refunded_amount": "0",
        });
        for (name, value) in changes {
            answer[name] = value;
        }
        answer
    })
}

/// The amounts in the answer are read to the last digit, or there is no result at all.
fn check(answer: &Value, expected: Expected) -> Result<(), TestCaseError> {
    let result = match read(answer.to_string().as_bytes(), expected) {
        Ok(Answer::Result(result)) => result,
        Ok(Answer::OfOthers(_)) => return Err(TestCaseError::fail("it names no operation")),
        Ok(Answer::Undone(_)) => return Err(TestCaseError::fail("it is not undone")),
        Ok(Answer::NotFound) => {
            prop_assert_eq!(&answer["result"], "not_found");
            return Ok(());
        }
        Err(error) => {
            prop_assert_eq!(error.code, Code::InvalidAnswer);
            let unusable = Outcome::from(Failure::unusable(error));
            prop_assert!(matches!(unusable, Outcome::Unknown(_)));
            return Ok(());
        }
    };
    let said = |name: &str| answer[name].as_str().filter(|text| !text.is_empty());
    prop_assert_eq!(result.currency.map(Currency::code), said("currency"));
    let currency = result.currency.unwrap_or(expected.currency);
    for (name, money) in [("captured_amount", result.captured), ("refunded_amount", result.refunded)] {
        let said = answer.get(name).and_then(Value::as_str).map(|text| text.parse::<Decimal>().unwrap());
        prop_assert_eq!(money.map(Money::amount), said, "{}", name);
        prop_assert!(money.is_none_or(|money| money.currency() == currency), "{}", name);
    }
    // The amount of an approval or of the whole payment; other verdicts have none.
    let said = answer.get("amount").and_then(Value::as_str).map(|text| text.parse::<Decimal>().unwrap());
    let is_cancel = expected.subject.is_some_and(|subject| subject.action == Action::Cancel);
    if expected.subject.is_none() {
        prop_assert_eq!(result.total.map(Money::amount), said);
    } else if result.verdict == Verdict::Approved && !is_cancel {
        prop_assert_eq!(result.amount().map(Money::amount), said);
    }
    match result.verdict {
        Verdict::Approved => prop_assert_eq!(&answer["result"], "approved"),
        Verdict::Declined(_) => prop_assert_eq!(&answer["result"], "declined"),
        Verdict::CustomerMustAct { .. } => {
            prop_assert!(expected.subject.is_none_or(|subject| subject.action == Action::Process))
        }
        // Only the machine and other gateways use this verdict.
        Verdict::Authorized => return Err(TestCaseError::fail("no answer says so")),
        Verdict::Ready => prop_assert_eq!(&answer["result"], "ready"),
        Verdict::Pending => {}
    }
    let shown = [result.message.as_str(), result.code.as_deref().unwrap_or_default()].join(" and ");
    prop_assert!(!crate::payment::card::contains_card_number(&shown), "{shown}");
    Ok(())
}

proptest! {
    #[test]
    fn a_changed_answer_says_what_it_says(answer in changed(), expected in expected()) {
        check(&answer, expected)?;
    }

    #[test]
    fn any_json_is_a_result_or_none(answer in value(), expected in expected()) {
        if answer.is_object() {
            check(&answer, expected)?;
        } else {
            prop_assert!(read(answer.to_string().as_bytes(), expected).is_err());
        }
    }

    /// A damaged answer is never a result.
    #[test]
    fn any_bytes_are_read(body in proptest::collection::vec(any::<u8>(), 0..100), expected in expected()) {
        prop_assert!(read(&body, expected).is_err());
    }

    #[test]
    fn an_answer_that_broke_off_is_none(answer in changed(), at in any::<Index>(), expected in expected()) {
        let body = answer.to_string().into_bytes();
        prop_assert!(read(&body[..at.index(body.len())], expected).is_err());
    }

    /// Whatever the body says.
    #[test]
    fn no_status_proves_more_than_it_can(
        status in 100..1000_u16,
        body in prop_oneof![changed().prop_map(|answer| answer.to_string().into_bytes()), any::<Vec<u8>>()],
        wait in proptest::option::of(0..100_000_u64),
    ) {
        let status = StatusCode::from_u16(status).unwrap();
        let outcome = Outcome::from(of_status(status, wait.map(Duration::from_secs), &body));
        let error = match &outcome {
            Outcome::Result(_) => return Err(TestCaseError::fail("a result")),
            Outcome::Refused(error) => {
                prop_assert!(status.is_client_error());
                prop_assert!(serde_json::from_slice::<Map<String, Value>>(&body).is_ok(), "{body:?}");
                error
            }
            Outcome::NotSent(error) => {
                prop_assert!(matches!(status.as_u16(), 301 | 307 | 308 | 401 | 403 | 425 | 429), "{status}");
                error
            }
            Outcome::Unknown(error) => error,
        };
        if status.is_success() || status.is_server_error() {
            prop_assert!(matches!(outcome, Outcome::Unknown(_)), "{status}");
        }
        prop_assert!(!crate::payment::card::contains_card_number(&error.message), "{}", error.message);
        prop_assert!(error.message.chars().count() <= 4_096);
    }
}
