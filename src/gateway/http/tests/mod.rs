//! The adapter with a gateway that follows the protocol; `raw` has others.

use secrecy::SecretString;
use serde_json::json;
use testing::fake_gateway::{Behaviour, FakeGateway};
use uuid::Uuid;

use super::settings::{KeyWindows, WebhookRole};
use super::*;
use crate::gateway::signature::WebhookSecrets;
use crate::gateway::{Action, Request, Target};
use crate::payment::contract::AfterServerError;
use crate::payment::model::{Billing, Order, Payment};
use crate::payment::money::{Currency, Money};
use crate::payment::outcome::{GatewayKey, Verdict};
use crate::payment::status::Status;
use crate::payment::trace::TraceContext;
use crate::payment::transaction::{Attribution, Transaction, TransactionKind, TransactionState};

mod anything;
mod page;
mod raw;

const OPERATION: Uuid = Uuid::from_u128(7);
const PAYMENT: Uuid = Uuid::from_u128(9);
const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(200);

fn gateway_with(url: &str, token: Option<&str>, lookup: bool) -> HttpGateway {
    HttpGateway::new(settings(url, token, lookup), LONG).unwrap()
}

/// A gateway that supports undo but no look-up.
fn undoing(url: &str) -> HttpGateway {
    HttpGateway::new(HttpSettings { undo: true, ..settings(url, None, false) }, LONG).unwrap()
}

fn settings(url: &str, token: Option<&str>, lookup: bool) -> HttpSettings {
    HttpSettings {
        url: GatewayUrl::try_from(url.to_owned()).unwrap(),
        token: token.map(|token| SecretString::from(token.to_owned())),
        account: None,
        account_aliases: Vec::new(),
        key_window: Duration::from_secs(86_400),
        settle_window: Duration::from_secs(10),
        key_windows: KeyWindows::default(),
        after_server_error: AfterServerError::default(),
        lookup,
        undo: false,
        multicapture: false,
        webhook_secret: WebhookSecrets::default(),
        notifications: WebhookRole::Hint,
        notification_deadline: LONG,
    }
}

fn gateway(url: &str) -> HttpGateway {
    gateway_with(url, None, true)
}

fn usd(text: &str) -> Money {
    Money::parse(text, Currency::from_code("USD").unwrap()).unwrap()
}

fn payment() -> Payment {
    let order = Order {
        variant: "cards".to_owned(),
        total: usd("120"),
        tax: usd("20"),
        delivery: usd("0"),
        description: "Book".to_owned(),
        billing: Billing::default(),
        customer_ip_address: None,
        metadata: crate::payment::model::Metadata::new(),
    };
    let now = "2026-11-22T12:00:00Z".parse().unwrap();
    Payment::new(PAYMENT, order, "http", "http://gateway", now)
}

fn body_of(gateway: &HttpGateway, action: Action) -> String {
    body_for(gateway, action, OPERATION, &payment())
}

fn body_for(gateway: &HttpGateway, action: Action, operation_id: Uuid, payment: &Payment) -> String {
    let body = gateway.prepare(&Ask {
        operation_id,
        action,
        payment,
        amount: Some(usd("120")),
        capture: true,
        confirms: false,
        is_final: true,
        reference: None,
        data: &Map::from_iter([("token".to_owned(), json!("tok_1"))]),
    });
    body.unwrap()
}

/// One attempt of an operation, with this timeout.
async fn attempt(gateway: &HttpGateway, action: Action, timeout: Duration) -> Outcome {
    send(gateway, action, OPERATION, &body_of(gateway, action), timeout).await
}

async fn send(gateway: &HttpGateway, action: Action, operation_id: Uuid, body: &str, timeout: Duration) -> Outcome {
    let trace = TraceContext::read("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Some("shop=1"));
    let call = Call {
        operation_id,
        payment_id: PAYMENT,
        action,
        key: GatewayKey::first(operation_id),
        attempt: 3,
        body,
        amount: Some(usd("120")),
        currency: usd("120").currency(),
        capture: true,
        confirms: false,
        stored_at: Timestamp::UNIX_EPOCH,
        trace: trace.as_ref(),
        timeout,
    };
    gateway.call(call).await
}

/// Confirms what the customer has approved, as this operation.
async fn confirm(gateway: &HttpGateway, operation_id: Uuid) -> Outcome {
    let body = gateway.prepare(&Ask {
        operation_id,
        action: Action::Process,
        payment: &payment(),
        amount: Some(usd("120")),
        capture: true,
        confirms: true,
        is_final: true,
        reference: None,
        data: &Map::new(),
    });
    let body = body.unwrap();
    let call = Call {
        operation_id,
        payment_id: PAYMENT,
        action: Action::Process,
        key: GatewayKey::first(operation_id),
        attempt: 1,
        body: &body,
        amount: Some(usd("120")),
        currency: usd("120").currency(),
        capture: true,
        confirms: true,
        stored_at: Timestamp::UNIX_EPOCH,
        trace: None,
        timeout: LONG,
    };
    gateway.call(call).await
}

async fn look_up(gateway: &HttpGateway, target: Option<Action>) -> Found {
    let target = target.map(|action| Target {
        operation_id: OPERATION,
        action,
        key: GatewayKey::first(OPERATION),
        request: None,
        stored_at: Timestamp::UNIX_EPOCH,
        last_sent_at: None,
    });
    let question = Question {
        operation_id: Uuid::from_u128(8),
        target,
        payment: &payment(),
        references: Vec::new(),
        trace: None,
        timeout: LONG,
    };
    gateway.look_up(question).await
}

async fn undo(gateway: &HttpGateway) -> Found {
    let request = Request { amount: Some(usd("120")), capture: true, body: String::new() };
    let target = Target {
        operation_id: OPERATION,
        action: Action::Process,
        key: GatewayKey::first(OPERATION),
        request: Some(&request),
        stored_at: Timestamp::UNIX_EPOCH,
        last_sent_at: None,
    };
    let question = Question {
        operation_id: OPERATION,
        target: Some(target),
        payment: &payment(),
        references: Vec::new(),
        trace: None,
        timeout: LONG,
    };
    gateway.undo(question).await
}

/// An outcome as one word, its code and its wait in seconds.
fn proof(outcome: &Outcome) -> (&'static str, Option<Code>, Option<u64>) {
    let (word, error) = match outcome {
        Outcome::Result(_) => return ("result", None, None),
        Outcome::Refused(error) => ("refused", error),
        Outcome::NotSent(error) => ("not sent", error),
        Outcome::Unknown(error) => ("unknown", error),
    };
    (word, Some(error.code), error.retry_after.map(|wait| wait.as_secs()))
}

fn code_of(found: &Found) -> Option<Code> {
    match found {
        Found::Failed(error) => Some(error.code),
        Found::Result(_) | Found::OfOthers(_) | Found::Nothing | Found::Undone(_) => None,
    }
}

#[test]
fn the_body_has_a_fixed_order() {
    let body = body_of(&gateway("http://127.0.0.1:9"), Action::Process);
    let payment = payment();
    let view = crate::payment::view::PaymentView::from(&payment).without_times();
    let payment = serde_json::to_string(&view).unwrap();
    assert!(!payment.contains("created") && !payment.contains("modified"), "a time makes of it another body");
    let expected = format!(
        r#"{{"operation_id":"{OPERATION}","operation":"process","payment":{payment},"amount":"120.00","currency":"USD","capture":true,"data":{{"token":"tok_1"}}}}"#
    );
    assert_eq!(body, expected);
}

#[tokio::test]
async fn secrets_are_not_shown_and_odd_tokens_are_refused() {
    let gateway = gateway_with("http://127.0.0.1:9", Some("s3cret"), true);
    assert!(!format!("{gateway:?} {:?}", gateway.authorization).contains("s3cret"));
    for token in ["", "line\nbreak", "two words", "é"] {
        let refused = client::bearer("token", token);
        assert!(matches!(refused, Err(BuildError::Setting { key: "token", .. })), "{token:?}");
    }
}

#[tokio::test]
async fn one_key_acts_once_even_if_its_answers_are_lost() {
    let fake = FakeGateway::start().await;
    let gateway = gateway(&fake.url());
    let behaviours = [
        (Behaviour::Status(503, Some(1)), ("unknown", Some(Code::GatewayError), Some(1))),
        (Behaviour::Refuse, ("refused", Some(Code::Refused), None)),
        (Behaviour::HangBefore, ("unknown", Some(Code::Timeout), None)),
        (Behaviour::Error500After, ("unknown", Some(Code::GatewayError), None)),
        (Behaviour::DropAfter, ("unknown", Some(Code::InvalidAnswer), None)),
        (Behaviour::HangAfter, ("unknown", Some(Code::Timeout), None)),
        (Behaviour::Truncated, ("unknown", Some(Code::InvalidAnswer), None)),
        (Behaviour::Garbage, ("unknown", Some(Code::InvalidAnswer), None)),
        (Behaviour::Trickle(SHORT), ("unknown", Some(Code::Timeout), None)),
        (Behaviour::Trickle(Duration::from_millis(1)), ("result", None, None)),
        (Behaviour::Approve, ("result", None, None)),
    ];
    fake.plan(PAYMENT, behaviours.iter().map(|(behaviour, _)| behaviour.clone()).collect());
    for (behaviour, expected) in &behaviours {
        let timeout = match behaviour {
            Behaviour::HangBefore | Behaviour::HangAfter => SHORT,
            Behaviour::Trickle(pause) if *pause == SHORT => SHORT * 4,
            _ => LONG,
        };
        let outcome = attempt(&gateway, Action::Process, timeout).await;
        assert_eq!(proof(&outcome), *expected, "{behaviour:?}");
    }
    assert_eq!(fake.charges(PAYMENT).len(), 1);
    assert_eq!(fake.calls_of(PAYMENT).len(), behaviours.len());
    let Found::Result(result) = look_up(&gateway, Some(Action::Process)).await else {
        panic!("nothing was found");
    };
    assert_eq!(result.verdict, Verdict::Approved);
    assert_eq!((result.captured, result.refunded), (Some(usd("120")), Some(usd("0"))));
}

#[tokio::test]
async fn a_busy_key_is_a_conflict_and_then_answered() {
    let fake = FakeGateway::start().await;
    let gateway = gateway(&fake.url());
    fake.plan(PAYMENT, vec![Behaviour::Delay(SHORT * 3)]);
    let (first, second) = tokio::join!(attempt(&gateway, Action::Process, LONG), async {
        fake.wait_for_calls(PAYMENT, 1).await;
        attempt(&gateway, Action::Process, LONG).await
    });
    assert_eq!(proof(&first), ("result", None, None));
    assert_eq!(proof(&second), ("unknown", Some(Code::Conflict), None));
    assert_eq!(attempt(&gateway, Action::Process, LONG).await, first);
    assert_eq!(fake.charges(PAYMENT).len(), 1);
}

#[tokio::test]
async fn what_was_lost_is_undone_by_its_key_and_once() {
    let fake = FakeGateway::start().await;
    let gateway = undoing(&fake.url());
    assert_eq!(undo(&gateway).await, Found::Nothing);
    fake.plan(PAYMENT, vec![Behaviour::DropAfter]);
    attempt(&gateway, Action::Process, LONG).await;
    let gone = Transaction {
        kind: TransactionKind::Capture,
        reference: Some(format!("fake-{OPERATION}")),
        parent: None,
        attribution: Attribution::Recorded(OPERATION),
        state: TransactionState::Reversed,
        amount: usd("120"),
    };
    for _ in 0..2 {
        assert_eq!(undo(&gateway).await, Found::Undone(vec![gone.clone()]));
    }
    let kinds: Vec<&str> = fake.effects(PAYMENT).iter().map(|effect| effect.kind).collect();
    assert_eq!(kinds, ["charge", "void"]);
    // A process that had moved no money is closed.
    let fake = FakeGateway::start().await;
    let gateway = undoing(&fake.url());
    fake.plan(PAYMENT, vec![Behaviour::Pending]);
    attempt(&gateway, Action::Process, LONG).await;
    assert_eq!(undo(&gateway).await, Found::Undone(Vec::new()));
    fake.complete(PAYMENT, true);
    assert_eq!(fake.effects(PAYMENT), []);
}

#[tokio::test]
async fn results_come_through() {
    let fake = FakeGateway::start().await;
    let gateway = gateway(&fake.url());
    fake.plan(PAYMENT, vec![Behaviour::Redirect("https://bank.example/3ds".to_owned())]);
    let Outcome::Result(result) = attempt(&gateway, Action::Process, LONG).await else {
        panic!("no result");
    };
    let redirect_url = Some("https://bank.example/3ds".to_owned());
    assert_eq!(result.verdict, Verdict::CustomerMustAct { redirect_url });
    fake.complete(PAYMENT, true);
    let Found::Result(result) = look_up(&gateway, Some(Action::Process)).await else {
        panic!("nothing was found");
    };
    assert_eq!((result.amount(), &result.verdict), (Some(usd("120")), &Verdict::Approved));
    let Found::Result(whole) = look_up(&gateway, None).await else { panic!("nothing was found") };
    assert_eq!((whole.verdict, whole.total), (Verdict::Approved, Some(usd("120"))));
}

#[tokio::test]
async fn a_customer_who_comes_back_is_charged_once() {
    let mut back = payment();
    back.status = Status::Input;
    let second = Uuid::from_u128(70);
    for completed_before in [true, false] {
        let fake = FakeGateway::start().await;
        let gateway = gateway(&fake.url());
        fake.plan(PAYMENT, vec![Behaviour::Redirect("https://bank.example/3ds".to_owned())]);
        attempt(&gateway, Action::Process, LONG).await;
        assert_eq!(fake.charges(PAYMENT), []);
        if completed_before {
            fake.complete(PAYMENT, true);
        }
        let body = body_for(&gateway, Action::Process, second, &back);
        let outcome = send(&gateway, Action::Process, second, &body, LONG).await;
        assert_eq!(proof(&outcome), ("result", None, None));
        fake.complete(PAYMENT, true);
        assert_eq!(fake.charges(PAYMENT).len(), 1, "completed before: {completed_before}");
        // A different body under a known key.
        let outcome = send(&gateway, Action::Process, OPERATION, &body, LONG).await;
        assert_eq!(proof(&outcome), ("refused", Some(Code::Refused), None));
    }
}

#[tokio::test]
async fn what_the_customer_approved_is_done_when_it_is_confirmed_and_once() {
    let fake = FakeGateway::start().await;
    let gateway = gateway(&fake.url());
    fake.plan(PAYMENT, vec![Behaviour::Approval("https://wallet.example/approve".to_owned())]);
    let Outcome::Result(sent_away) = attempt(&gateway, Action::Process, LONG).await else { panic!("no result") };
    assert!(matches!(sent_away.verdict, Verdict::CustomerMustAct { .. }), "{sent_away:?}");
    fake.complete(PAYMENT, true);
    for target in [Some(Action::Process), None] {
        let Found::Result(result) = look_up(&gateway, target).await else { panic!("nothing was found") };
        assert_eq!(result.verdict, Verdict::Ready, "{target:?}");
    }
    assert_eq!(fake.charges(PAYMENT), []);
    // Under its own key again, and under another one: it is the same transaction.
    let mut answers = Vec::new();
    for operation in [8, 8, 9] {
        let Outcome::Result(result) = confirm(&gateway, Uuid::from_u128(operation)).await else { panic!("no result") };
        answers.push((result.verdict.clone(), result.amount(), result.transaction_id.clone()));
    }
    assert_eq!((&answers[0].0, answers[0].1), (&Verdict::Approved, Some(usd("120"))));
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(fake.charges(PAYMENT).len(), 1);
    let Found::Result(result) = look_up(&gateway, None).await else { panic!("nothing was found") };
    assert_eq!((result.verdict, result.captured), (Verdict::Approved, Some(usd("120"))));
}

#[tokio::test]
async fn a_gateway_that_is_down_is_reached_again_when_it_is_up() {
    let mut fake = FakeGateway::start().await;
    let gateway = gateway(&fake.url());
    assert_eq!(proof(&attempt(&gateway, Action::Process, LONG).await).0, "result");
    fake.stop().await;
    // The kept connection is closed. If that is noticed in time, a new one is refused; otherwise the outcome is
    // unknown. The next attempt is refused.
    let first = attempt(&gateway, Action::Process, LONG).await;
    assert!(matches!(first, Outcome::NotSent(_) | Outcome::Unknown(_)), "{first:?}");
    let outcome = attempt(&gateway, Action::Process, LONG).await;
    assert_eq!(proof(&outcome), ("not sent", Some(Code::Unreachable), None));
    fake.start_again().await;
    assert_eq!(proof(&attempt(&gateway, Action::Process, LONG).await).0, "result");
    assert_eq!(fake.charges(PAYMENT).len(), 1);
}
