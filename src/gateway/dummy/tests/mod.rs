//! Each value of the `process` object, and what a restart forgets.
//!
//! - `tokens`: what each token plays.

use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::gateway::Target;
use crate::payment::model::{Billing, Order};
use crate::payment::money::{Currency, Money};
use crate::payment::outcome::GatewayKey;
use crate::payment::status::FraudStatus;

mod tokens;

fn usd(text: &str) -> Money {
    Money::parse(text, Currency::from_code("USD").unwrap()).unwrap()
}

fn payment() -> Payment {
    let order = Order {
        variant: "default".to_owned(),
        total: usd("10"),
        tax: usd("0"),
        delivery: usd("0"),
        description: String::new(),
        billing: Billing::default(),
        customer_ip_address: None,
        metadata: crate::payment::model::Metadata::new(),
    };
    let now = "2026-11-22T12:00:00Z".parse().unwrap();
    Payment::new(Uuid::from_u128(0x0192_f0c1 << 96), order, "dummy", "dummy", now)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        other => panic!("{other} is no object"),
    }
}

/// The request of an operation, as stored with it.
fn body(payment: &Payment, action: Action, data: &Value) -> String {
    let ask = Ask {
        operation_id: Uuid::from_u128(7),
        action,
        payment,
        amount: Some(usd("10")),
        capture: true,
        confirms: false,
        is_final: true,
        reference: None,
        data: &object(data.clone()),
    };
    DummyGateway::new().prepare(&ask).unwrap()
}

async fn attempt(gateway: &DummyGateway, payment: &Payment, action: Action, data: Value, attempt: u32) -> Outcome {
    attempt_of(gateway, payment, action, &data, attempt, Timestamp::UNIX_EPOCH).await
}

/// One attempt of an operation that was stored at that time.
async fn attempt_of(
    gateway: &DummyGateway,
    payment: &Payment,
    action: Action,
    data: &Value,
    attempt: u32,
    stored_at: Timestamp,
) -> Outcome {
    let call = Call {
        operation_id: Uuid::from_u128(7),
        payment_id: payment.id,
        action,
        key: GatewayKey::first(Uuid::from_u128(7)),
        attempt,
        body: &body(payment, action, data),
        amount: Some(usd("10")),
        currency: payment.currency(),
        capture: true,
        confirms: false,
        stored_at,
        trace: None,
        timeout: Duration::from_millis(500),
    };
    gateway.call(call).await
}

async fn process(payment: &Payment, data: Value) -> Outcome {
    attempt(&DummyGateway::new(), payment, Action::Process, data, 1).await
}

async fn look_up(gateway: &DummyGateway, payment: &Payment, target: Option<Action>) -> Found {
    let target = target.map(|action| Target {
        operation_id: Uuid::from_u128(7),
        action,
        key: GatewayKey::first(Uuid::from_u128(7)),
        request: None,
        stored_at: Timestamp::UNIX_EPOCH,
        last_sent_at: None,
    });
    let question = Question {
        operation_id: Uuid::from_u128(8),
        target,
        payment,
        references: Vec::new(),
        trace: None,
        timeout: Duration::from_secs(1),
    };
    gateway.look_up(question).await
}

fn result(outcome: Outcome) -> GatewayResult {
    match outcome {
        Outcome::Result(result) => *result,
        other => panic!("{other:?} is no result"),
    }
}

fn verdict_found(found: Found) -> Option<Verdict> {
    match found {
        Found::Result(result) => Some(result.verdict),
        Found::OfOthers(_) | Found::Nothing | Found::Undone(_) => None,
        Found::Failed(error) => panic!("{error:?}"),
    }
}

#[test]
fn the_object_is_checked_field_by_field() {
    let gateway = DummyGateway::new();
    for data in [
        json!({}),
        json!({"status": "preauth", "fraud_status": "review", "verification_result": "rejected"}),
        json!({"gateway_response": "3ds-redirect", "verification_result": "confirmed"}),
        json!({"fail_times": 2, "latency_ms": 60_000, "lose_answer": true}),
        json!({"token": "tok_pending_success"}),
        json!({"token": "tok_slow", "seconds": 86_400}),
    ] {
        assert_eq!(gateway.check(&object(data)), Ok(()));
    }
    for (data, code, field) in [
        (json!({"card": "x"}), Code::UnknownField, "card"),
        (json!({"token": "x"}), Code::InvalidData, "token"),
        (json!({"token": null}), Code::InvalidData, "token"),
        (json!({"token": "tok_approved", "status": "confirmed"}), Code::InvalidData, "token"),
        (json!({"token": "tok_slow"}), Code::InvalidData, "seconds"),
        (json!({"token": "tok_slow", "seconds": 86_401}), Code::InvalidData, "seconds"),
        (json!({"seconds": 1}), Code::InvalidData, "seconds"),
        (json!({"status": "paid"}), Code::InvalidData, "status"),
        (json!({"status": "refunded"}), Code::InvalidData, "status"),
        (json!({"status": "cancelled"}), Code::InvalidData, "status"),
        (json!({"status": null}), Code::InvalidData, "status"),
        (json!({"fraud_status": "good"}), Code::InvalidData, "fraud_status"),
        (json!({"gateway_response": "3ds"}), Code::InvalidData, "gateway_response"),
        (json!({"gateway_response": "3ds-redirect"}), Code::InvalidData, "verification_result"),
        (json!({"verification_result": "input"}), Code::InvalidData, "verification_result"),
        (json!({"fail_times": -1}), Code::InvalidData, "fail_times"),
        (json!({"fail_times": 1.5}), Code::InvalidData, "fail_times"),
        (json!({"latency_ms": 60_001}), Code::InvalidData, "latency_ms"),
        (json!({"lose_answer": "yes"}), Code::InvalidData, "lose_answer"),
    ] {
        let rejection = gateway.check(&object(data.clone())).unwrap_err();
        assert_eq!(rejection.code, code, "{data}");
        assert!(rejection.message.contains(&format!("process.{field}")), "{}", rejection.message);
    }
}

#[tokio::test]
async fn each_status_is_a_verdict() {
    let payment = payment();
    for (word, expected) in [
        ("confirmed", Verdict::Approved),
        ("preauth", Verdict::Authorized),
        ("waiting", Verdict::Pending),
        ("rejected", Verdict::Declined(Decline::Hard)),
    ] {
        let read = result(process(&payment, json!({"status": word})).await);
        assert_eq!(read.verdict, expected, "{word}");
        assert_eq!(read.amount(), read.approves().then(|| usd("10")), "{word}");
        assert_eq!(read.transaction_id.as_deref(), Some("dummy-0192f0c1"));
    }
    assert_eq!(result(process(&payment, json!({})).await).verdict, Verdict::Approved);
    let input = result(process(&payment, json!({"status": "input"})).await).verdict;
    assert!(matches!(input, Verdict::CustomerMustAct { .. }), "{input:?}");
    let error = process(&payment, json!({"status": "error"})).await;
    assert!(matches!(error, Outcome::Refused(_)), "{error:?}");
    let review = result(process(&payment, json!({"fraud_status": "review"})).await);
    assert_eq!(review.fraud, Some((FraudStatus::Review, String::new())));
}

#[tokio::test]
async fn the_gateways_side_may_fail() {
    let payment = payment();
    let failure = process(&payment, json!({"gateway_response": "failure"})).await;
    assert!(matches!(&failure, Outcome::NotSent(error) if error.code == Code::Unreachable), "{failure:?}");
    let refused = process(&payment, json!({"gateway_response": "payment-error"})).await;
    assert!(matches!(&refused, Outcome::Refused(error) if error.message == "Unsupported operation"), "{refused:?}");
}

#[tokio::test]
async fn a_verification_is_finished_by_a_process_or_a_look_up() {
    let mut payment = payment();
    for (word, expected) in [
        ("confirmed", Verdict::Approved),
        ("preauth", Verdict::Authorized),
        ("rejected", Verdict::Declined(Decline::Hard)),
    ] {
        let data = json!({"gateway_response": "3ds-redirect", "verification_result": word});
        let first = result(process(&payment, data).await);
        let Verdict::CustomerMustAct { redirect_url: Some(redirect_url) } = first.verdict else {
            panic!("{:?}", first.verdict);
        };
        assert!(redirect_url.ends_with(&format!("?verification_result={word}")), "{redirect_url}");
        // The next worker knows only what the engine stored.
        let mut waiting = payment.clone();
        waiting.status = Status::Input;
        waiting.redirect_url = Some(redirect_url);
        waiting.extra_data = first.extra_data;
        assert_eq!(result(process(&waiting, json!({})).await).verdict, expected, "{word}");
        for target in [Some(Action::Process), None] {
            let found = look_up(&DummyGateway::new(), &waiting, target).await;
            assert_eq!(verdict_found(found).as_ref(), Some(&expected), "{word}");
        }
        let other = result(process(&waiting, json!({"status": "rejected"})).await).verdict;
        assert_eq!(other, Verdict::Declined(Decline::Hard));
    }
    // Without capture, a look-up must not capture the money.
    payment.status = Status::Input;
    payment.capture = Some(false);
    payment.extra_data = object(json!({"verification_result": "confirmed"}));
    let found = look_up(&DummyGateway::new(), &payment, None).await;
    assert_eq!(verdict_found(found), Some(Verdict::Authorized));
}

#[tokio::test]
async fn a_pending_process_ends_as_its_verification_says() {
    let mut payment = payment();
    assert_eq!(look_up(&DummyGateway::new(), &payment, None).await, Found::Nothing);
    let pending = result(process(&payment, json!({"status": "waiting", "verification_result": "confirmed"})).await);
    payment.transaction_id = pending.transaction_id.unwrap();
    let found = look_up(&DummyGateway::new(), &payment, Some(Action::Process)).await;
    assert_eq!(verdict_found(found), Some(Verdict::Pending));
    payment.extra_data = pending.extra_data;
    let found = look_up(&DummyGateway::new(), &payment, Some(Action::Process)).await;
    assert_eq!(verdict_found(found), Some(Verdict::Approved));
}

#[tokio::test]
async fn attempts_fail_as_often_as_asked() {
    let (gateway, payment) = (DummyGateway::new(), payment());
    let data = json!({"fail_times": 2});
    for number in [1, 2] {
        let outcome = attempt(&gateway, &payment, Action::Process, data.clone(), number).await;
        assert!(matches!(outcome, Outcome::NotSent(_)), "{outcome:?}");
    }
    let third = attempt(&gateway, &payment, Action::Process, data, 3).await;
    assert_eq!(result(third).verdict, Verdict::Approved);
}

#[tokio::test]
async fn a_lost_answer_is_found_again() {
    let payment = payment();
    for (data, first) in [
        (json!({"lose_answer": true}), 1),
        (json!({"lose_answer": true, "fail_times": 1}), 2),
        (json!({"latency_ms": 501}), 1),
    ] {
        let gateway = DummyGateway::new();
        let lost = attempt(&gateway, &payment, Action::Process, data.clone(), first).await;
        assert!(matches!(&lost, Outcome::Unknown(error) if error.code == Code::Timeout), "{data}: {lost:?}");
        for target in [Some(Action::Process), None] {
            let found = look_up(&gateway, &payment, target).await;
            assert_eq!(verdict_found(found), Some(Verdict::Approved), "{data}");
        }
    }
    // After a restart the look-up knows nothing, and says that this proves nothing; the key still returns the answer.
    let restarted = DummyGateway::new();
    assert_eq!(look_up(&restarted, &payment, Some(Action::Process)).await, Found::Nothing);
    assert_eq!(restarted.contract().lookup, Lookup::Indicative);
    let again = attempt(&restarted, &payment, Action::Process, json!({"lose_answer": true}), 2).await;
    assert_eq!(result(again).verdict, Verdict::Approved);
}

#[tokio::test]
async fn everything_else_is_approved_as_asked() {
    let (gateway, mut payment) = (DummyGateway::new(), payment());
    for action in [Action::Capture, Action::Release, Action::Refund, Action::Cancel] {
        let read = result(attempt(&gateway, &payment, action, json!({}), 1).await);
        let amount = (action != Action::Cancel).then(|| usd("10"));
        assert_eq!((read.amount(), read.verdict), (amount, Verdict::Approved), "{action}");
    }
    payment.status = Status::Confirmed;
    payment.amounts.captured = usd("10");
    let Found::Result(whole) = look_up(&gateway, &payment, None).await else {
        panic!("nothing was found");
    };
    assert_eq!((whole.captured, whole.refunded), (Some(usd("10")), Some(usd("0"))));
}
