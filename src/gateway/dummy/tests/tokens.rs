//! What each token plays, step by step. Every step is answered by a newly started gateway, as by another replica.

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;
use crate::gateway::dummy::tokens::TOKENS;
use crate::payment::operation::Request;
use crate::payment::transaction::TransactionKind;

/// So many seconds before now.
fn ago(seconds: i64) -> Timestamp {
    Timestamp::now().checked_sub(SignedDuration::from_secs(seconds)).unwrap()
}

/// One attempt of an operation stored at that time, at a newly started gateway.
async fn send(payment: &Payment, action: Action, data: &Value, attempt: u32, stored_at: Timestamp) -> Outcome {
    attempt_of(&DummyGateway::new(), payment, action, data, attempt, stored_at).await
}

/// Looks that operation up.
async fn ask_about(payment: &Payment, action: Action, data: &Value, stored_at: Timestamp) -> Found {
    let request = Request { amount: Some(usd("10")), capture: true, body: body(payment, action, data) };
    let target = Target {
        operation_id: Uuid::from_u128(7),
        action,
        key: GatewayKey::first(Uuid::from_u128(7)),
        request: Some(&request),
        stored_at,
        last_sent_at: Some(stored_at),
    };
    let question = Question {
        operation_id: Uuid::from_u128(8),
        target: Some(target),
        payment,
        references: Vec::new(),
        trace: None,
        timeout: Duration::from_secs(1),
    };
    DummyGateway::new().look_up(question).await
}

/// Looks the whole payment up.
async fn ask_all(payment: &Payment) -> GatewayResult {
    match look_up(&DummyGateway::new(), payment, None).await {
        Found::Result(result) => *result,
        other => panic!("{other:?} is no result"),
    }
}

/// A payment as stored after this token's process, which was stored so many seconds ago.
async fn after(token: &str, seconds_ago: i64, status: Status) -> Payment {
    let mut payment = payment();
    let data = json!({"token": token, "seconds": 60});
    let answer = result(send(&payment, Action::Process, &data, 1, ago(seconds_ago)).await);
    keep(&mut payment, answer, status);
    if status == Status::Confirmed {
        payment.amounts.captured = usd("10");
    }
    payment
}

/// Stores an answer as the engine does.
fn keep(payment: &mut Payment, answer: GatewayResult, status: Status) {
    payment.status = status;
    payment.transaction_id = answer.transaction_id.unwrap();
    payment.extra_data.extend(answer.extra_data);
    if let Verdict::CustomerMustAct { redirect_url } = answer.verdict {
        payment.redirect_url = redirect_url;
    }
}

fn token(word: &str) -> Value {
    json!({"token": word})
}

fn only(result: &GatewayResult) -> &Transaction {
    assert_eq!(result.transactions.len(), 1, "{result:?}");
    &result.transactions[0]
}

#[test]
fn each_has_a_word_of_its_own_and_a_row_in_the_documentation() {
    let page = include_str!("../../../../docs/dummy.md");
    for (index, token) in TOKENS.iter().enumerate() {
        assert!(TOKENS[..index].iter().all(|other| other.word != token.word), "{}", token.word);
        assert!(page.contains(&format!("`{}`", token.word)) || page.contains(&format!("\"{}\"", token.word)));
    }
}

#[tokio::test]
async fn declines_say_why_and_of_what_kind() {
    for (word, code, kind) in [
        ("tok_declined", "do_not_honor", Decline::Hard),
        ("tok_declined_insufficient_funds", "insufficient_funds", Decline::Soft),
        ("tok_declined_expired_card", "expired_card", Decline::CustomerMustAct),
        ("tok_declined_incorrect_cvc", "incorrect_cvc", Decline::CustomerMustAct),
        ("tok_declined_lost_card", "lost_card", Decline::Hard),
    ] {
        let declined = result(process(&payment(), token(word)).await);
        assert_eq!((declined.verdict, declined.code.as_deref()), (Verdict::Declined(kind), Some(code)), "{word}");
        assert!(declined.message.starts_with("Your card"), "{word}: {}", declined.message);
        assert!(declined.transactions.is_empty(), "{word}");
    }
}

#[tokio::test]
async fn an_approval_moves_what_was_asked_and_a_double_charge_twice_that() {
    let approved = result(process(&payment(), token("tok_approved")).await);
    assert_eq!((&approved.verdict, approved.amount()), (&Verdict::Approved, Some(usd("10"))));
    assert_eq!(only(&approved).reference, approved.transaction_id);
    assert!(approved.extra_data.is_empty(), "nothing comes later");
    let twice = result(process(&payment(), token("tok_double_charge")).await);
    let amounts: Vec<Money> = twice.transactions.iter().map(|it| it.amount).collect();
    assert_eq!(amounts, [usd("10"), usd("10")]);
    assert_ne!(twice.transactions[0].reference, twice.transactions[1].reference);
}

#[tokio::test]
async fn what_is_pending_ends_when_its_time_has_passed() {
    for (word, end) in
        [("tok_pending_success", Verdict::Approved), ("tok_pending_failure", Verdict::Declined(Decline::Hard))]
    {
        let (payment, data) = (payment(), json!({"token": word, "seconds": 60}));
        let accepted = result(send(&payment, Action::Process, &data, 1, ago(0)).await);
        assert_eq!(accepted.verdict, Verdict::Pending);
        let before = ask_about(&payment, Action::Process, &data, ago(0)).await;
        assert_eq!(verdict_found(before), Some(Verdict::Pending));
        let after = ask_about(&payment, Action::Process, &data, ago(61)).await;
        assert_eq!(verdict_found(after), Some(end), "{word}");
    }
}

#[tokio::test]
async fn a_customer_who_was_sent_away_acts_when_their_time_has_passed() {
    for (word, end) in
        [("tok_redirect_success", Verdict::Approved), ("tok_redirect_failure", Verdict::Declined(Decline::Hard))]
    {
        let waits = after(word, 0, Status::Input).await;
        let redirect_url = waits.redirect_url.clone();
        assert!(redirect_url.is_some());
        assert_eq!(ask_all(&waits).await.verdict, Verdict::CustomerMustAct { redirect_url: redirect_url.clone() });
        let early = result(process(&waits, json!({})).await);
        assert_eq!(early.verdict, Verdict::CustomerMustAct { redirect_url }, "the customer is not back");

        let acted = after(word, 61, Status::Input).await;
        let back = result(process(&acted, json!({})).await);
        assert_eq!((back.verdict, back.transaction_id), (end.clone(), Some(acted.transaction_id.clone())), "{word}");
        assert_eq!(ask_all(&acted).await.verdict, end, "{word}");
        let other = result(process(&acted, token("tok_declined_lost_card")).await);
        assert_eq!(other.code.as_deref(), Some("lost_card"), "what the shop says counts");
    }
}

#[tokio::test]
async fn what_is_not_answered_is_known_when_its_time_has_passed() {
    for (word, code, end) in [
        ("tok_unknown_success", Code::Timeout, Verdict::Approved),
        ("tok_unknown_failure", Code::Timeout, Verdict::Declined(Decline::Hard)),
        ("tok_server_error", Code::GatewayError, Verdict::Approved),
    ] {
        let (payment, data) = (payment(), json!({"token": word, "seconds": 60}));
        for (attempt, stored_at) in [(1, ago(0)), (1, ago(61)), (2, ago(0))] {
            match send(&payment, Action::Process, &data, attempt, stored_at).await {
                Outcome::Unknown(error) => {
                    assert_eq!(error.code, code, "{word}");
                    assert!(error.retry_after.is_some(), "no other attempt follows at once");
                }
                other => panic!("{word}: {other:?}"),
            }
        }
        assert_eq!(ask_about(&payment, Action::Process, &data, ago(0)).await, Found::Nothing);
        let found = ask_about(&payment, Action::Process, &data, ago(61)).await;
        assert_eq!(verdict_found(found).as_ref(), Some(&end), "{word}");
        let second = result(send(&payment, Action::Process, &data, 2, ago(61)).await);
        assert_eq!(second.verdict, end, "{word}");
    }
}

#[tokio::test]
async fn some_are_refused_some_not_reached_and_some_left_to_a_person() {
    let payment = payment();
    let refused = process(&payment, token("tok_refused")).await;
    assert!(matches!(refused, Outcome::Refused(_)), "{refused:?}");
    let unreachable = process(&payment, token("tok_unreachable")).await;
    assert!(matches!(&unreachable, Outcome::NotSent(it) if it.code == Code::Unreachable), "{unreachable:?}");
    let reached = send(&payment, Action::Process, &token("tok_unreachable"), 2, ago(1)).await;
    assert_eq!(result(reached).verdict, Verdict::Approved);
    let person = token("tok_unknown_person");
    let odd = process(&payment, person.clone()).await;
    assert!(matches!(&odd, Outcome::Unknown(it) if it.code == Code::Mismatch), "{odd:?}");
    assert_eq!(ask_about(&payment, Action::Process, &person, ago(90)).await, Found::Nothing);
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_comes_or_is_lost_at_the_time_out() {
    let (payment, data) = (payment(), json!({"token": "tok_slow", "seconds": 60}));
    let late = send(&payment, Action::Process, &data, 1, ago(0)).await;
    assert!(matches!(&late, Outcome::Unknown(it) if it.code == Code::Timeout), "{late:?}");
    let there = send(&payment, Action::Process, &data, 2, ago(60)).await;
    assert_eq!(result(there).verdict, Verdict::Approved);
}

#[tokio::test]
async fn captures_and_refunds_end_as_the_payments_token_says() {
    let held = after("tok_capture_declined", 0, Status::Preauth).await;
    let capture = result(send(&held, Action::Capture, &json!({}), 1, ago(0)).await);
    assert_eq!(capture.code.as_deref(), Some("capture_declined"));
    let release = result(send(&held, Action::Release, &json!({}), 1, ago(0)).await);
    assert_eq!(release.verdict, Verdict::Approved);

    let paid = after("tok_refund_declined", 0, Status::Confirmed).await;
    let refund = result(send(&paid, Action::Refund, &json!({}), 1, ago(0)).await);
    assert_eq!(refund.code.as_deref(), Some("refund_declined"));

    for (word, end) in [
        ("tok_refund_pending_success", Verdict::Approved),
        ("tok_refund_pending_failure", Verdict::Declined(Decline::Hard)),
    ] {
        let paid = after(word, 90, Status::Confirmed).await;
        let refund = result(send(&paid, Action::Refund, &json!({}), 1, ago(0)).await);
        assert_eq!(refund.verdict, Verdict::Pending, "{word}");
        let before = ask_about(&paid, Action::Refund, &json!({}), ago(0)).await;
        assert_eq!(verdict_found(before), Some(Verdict::Pending), "its own time counts: {word}");
        let after = ask_about(&paid, Action::Refund, &json!({}), ago(61)).await;
        assert_eq!(verdict_found(after), Some(end), "{word}");
    }
}

#[tokio::test]
async fn what_comes_later_is_found_of_the_whole_payment() {
    for (word, status) in [("tok_review_accepted", FraudStatus::Accept), ("tok_review_rejected", FraudStatus::Reject)] {
        let fresh = after(word, 0, Status::Confirmed).await;
        assert_eq!(ask_all(&fresh).await.fraud, None, "{word}");
        let old = after(word, 61, Status::Confirmed).await;
        assert_eq!(ask_all(&old).await.fraud.map(|fraud| fraud.0), Some(status), "{word}");
    }

    let disputed = ask_all(&after("tok_dispute", 61, Status::Confirmed).await).await;
    assert_eq!((only(&disputed).kind, only(&disputed).amount), (TransactionKind::Dispute, usd("10")));
    assert_eq!(disputed.captured, Some(usd("0")));

    let paid = after("tok_capture_fails_later", 61, Status::Confirmed).await;
    let gone = ask_all(&paid).await;
    assert_eq!((only(&gone).kind, only(&gone).state), (TransactionKind::Capture, TransactionState::Reversed));
    assert_eq!(only(&gone).reference.as_deref(), Some(paid.transaction_id.as_str()));

    let late = ask_all(&after("tok_late_success", 61, Status::Rejected).await).await;
    assert_eq!((late.verdict.clone(), only(&late).kind), (Verdict::Approved, TransactionKind::Capture));
    let early = ask_all(&after("tok_late_success", 0, Status::Rejected).await).await;
    assert_eq!(early.verdict, Verdict::Declined(Decline::Hard));
}

#[tokio::test]
async fn a_refund_that_fails_later_does_so_by_its_own_time() {
    for (seconds, captured, refunded) in [(0, "0", "10"), (61, "10", "0")] {
        let mut payment = after("tok_refund_fails_later", 90, Status::Confirmed).await;
        let transaction_id = payment.transaction_id.clone();
        let refund = result(send(&payment, Action::Refund, &json!({}), 1, ago(seconds)).await);
        assert_eq!((&refund.verdict, only(&refund).kind), (&Verdict::Approved, TransactionKind::Refund));
        keep(&mut payment, refund, Status::Refunded);
        assert_eq!(payment.transaction_id, transaction_id);
        (payment.amounts.captured, payment.amounts.refunded) = (usd("0"), usd("10"));
        let whole = ask_all(&payment).await;
        assert_eq!((whole.captured, whole.refunded), (Some(usd(captured)), Some(usd(refunded))), "{seconds}");
    }
}

#[tokio::test]
async fn a_token_governs_its_own_transaction_alone() {
    let mut payment = after("tok_capture_fails_later", 90, Status::Rejected).await;
    let again = result(process(&payment, json!({})).await);
    assert_ne!(again.transaction_id.as_deref(), Some(payment.transaction_id.as_str()));
    keep(&mut payment, again, Status::Confirmed);
    payment.amounts.captured = usd("10");
    assert!(ask_all(&payment).await.transactions.is_empty());
}
