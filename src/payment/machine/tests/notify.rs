//! `payment.notification`: it says where to look. What the gateway then answers is applied; in which order notifications
//! come, and how often, is all the same.

use serde_json::{Value, json};
use uuid::Uuid;

use super::bench::{
    Bench, OTHER_WORKER, approved, command, found, keys, operation_id, payment_data, result, timed_out, usd,
};
use super::store::PAYMENT;
use crate::payment::code::Code;
use crate::payment::command::{Command, CommandType};
use crate::payment::contract::Lookup;
use crate::payment::machine::Step;
use crate::payment::operation::{AnswerKind, State};
use crate::payment::outcome::{Found, GatewayError, GatewayResult, Verdict};
use crate::payment::status::Status;

/// Of something that no operation of ours did.
fn news() -> Value {
    json!({"facts": [{"kind": "charge.refunded"}]})
}

/// Of one of our operations.
fn news_of(operation: Uuid) -> Value {
    json!({"facts": [{"kind": "charge.succeeded", "payment_id": PAYMENT, "operation_id": operation}]})
}

fn notify(bench: &mut Bench, id: &str, data: Value, target: Option<Uuid>) -> Uuid {
    let operation = operation_id(id);
    let step = bench.send(id, CommandType::Notification, data);
    assert_eq!(step, Step::LookUp { operation, target }, "{:?}", bench.emitted);
    operation
}

fn whole(captured: &str, refunded: &str) -> Found {
    let result = GatewayResult {
        captured: Some(usd(captured)),
        refunded: Some(usd(refunded)),
        ..GatewayResult::new(Verdict::Approved)
    };
    Found::Result(Box::new(result))
}

/// One that names no payment.
fn nameless(id: &str) -> Command {
    Command { subject: Some(String::new()), ..command(id, CommandType::Notification, news()) }
}

#[test]
fn manual_changes_at_the_gateway_are_found_from_every_status_and_count_once() {
    for (status, captured, refunded, after) in [
        (Status::Waiting, "100", "0", Status::Confirmed),
        (Status::Input, "100", "0", Status::Confirmed),
        (Status::Rejected, "100", "0", Status::Confirmed),
        (Status::Error, "100", "0", Status::Confirmed),
        (Status::Cancelled, "100", "0", Status::Confirmed),
        (Status::Preauth, "60", "0", Status::Confirmed),
        (Status::Confirmed, "70", "30", Status::Confirmed),
        (Status::Confirmed, "0", "100", Status::Refunded),
        (Status::Refunded, "0", "100", Status::Refunded),
    ] {
        let mut bench = Bench::with_payment(status);
        for id in ["first", "second", "third"] {
            let id = notify(&mut bench, id, news(), None);
            assert_eq!(bench.found(id, None, whole(captured, refunded)), Step::Settled);
            assert_eq!(bench.answer(id).0, AnswerKind::Succeeded);
            let amounts = bench.amounts();
            assert_eq!(bench.status(), after, "{status}");
            assert_eq!(amounts[1..], [usd(captured).to_string(), usd(refunded).to_string()], "{status}");
        }
        assert_eq!(bench.emitted(), [("command.succeeded", true)], "the last one brings nothing new");
        assert!(bench.operation(operation_id("first")).data.is_empty(), "nothing of it is kept");
    }
}

#[test]
fn notifications_that_come_together_are_answered_in_any_order() {
    for order in [["old", "new"], ["new", "old"]] {
        let mut bench = Bench::with_payment(Status::Confirmed);
        let ids = ["old", "new"].map(|id| notify(&mut bench, id, news(), None));
        // Whichever is answered first brings it; the other asked before that, and asks again.
        let [first, last] = if order[0] == "old" { ids } else { [ids[1], ids[0]] };
        assert_eq!(bench.found(first, None, whole("70", "30")), Step::Settled);
        assert_eq!(bench.found(last, None, whole("100", "0")), Step::LookUp { operation: last, target: None });
        assert_eq!(bench.found(last, None, whole("70", "30")), Step::Settled);
        assert_eq!((bench.status(), bench.amounts()[1].as_str()), (Status::Confirmed, "70.00"));
    }
}

#[test]
fn a_notification_settles_the_operation_that_it_names() {
    // Unknown: its answer was lost. Pending: its result was to come. Calling: the notification was faster than the answer.
    for state in [State::Unknown, State::Pending, State::Calling] {
        let mut bench = Bench::with_payment(Status::Waiting);
        bench.rules.contract.keys = keys(None);
        let process = bench.call("pay", CommandType::Process, json!({}));
        match state {
            State::Unknown => drop(bench.settle_after(process, timed_out(), 9)),
            State::Pending => drop(bench.settle(process, result(Verdict::Pending))),
            _ => {}
        }
        assert_eq!(bench.state(process), state);
        let notified = notify(&mut bench, "hook", news_of(process), Some(process));
        assert_eq!(bench.found(notified, Some(process), found(Verdict::Approved)), Step::Settled, "{state:?}");
        assert_eq!(bench.status(), Status::Confirmed);
        // Its own command is the cause of what changed, the notification is answered by itself.
        let change = bench.emitted.iter().find(|event| event.kind.type_name() == "payment.status_changed").unwrap();
        assert_eq!(change.cause.as_ref().unwrap().name.id, "pay");
        assert_eq!((bench.answer(process).0, bench.answer(notified).0), (AnswerKind::Succeeded, AnswerKind::Succeeded));
        // The answer that was late counts once.
        bench.settle(process, approved());
        assert_eq!(bench.amounts()[1], "100.00");
    }
}

#[test]
fn one_of_the_whole_payment_waits_until_nothing_is_open_and_then_asks_at_once() {
    let mut bench = Bench::with_payment(Status::Confirmed);
    let refund = bench.call("refund", CommandType::Refund, json!({"amount": "10"}));
    bench.settle(refund, result(Verdict::Pending));
    // Somebody refunded another 20 at the desk. While ours is open the sums could count it twice.
    let notified = notify(&mut bench, "hook", news(), Some(refund));
    assert_eq!(bench.found(notified, Some(refund), found(Verdict::Pending)), Step::Stored);
    assert_eq!((bench.state(notified), bench.delayed()), (State::Scheduled, Some(Code::Pending)));
    assert_eq!(bench.resume_when_due(notified), Step::LookUp { operation: notified, target: Some(refund) });
    assert_eq!(bench.found(notified, Some(refund), found(Verdict::Pending)), Step::Stored);
    assert_eq!(bench.emitted(), [], "it was told once that it waits");
    // The refund ends by its own look-up, which wakes the notification.
    bench.resume_when_due(refund);
    bench.found(refund, Some(refund), found(Verdict::Approved));
    assert_eq!(bench.operation(notified).due_at, Some(bench.now));
    assert_eq!(bench.resume(notified), Step::LookUp { operation: notified, target: None });
    bench.found(notified, None, whole("70", "30"));
    assert_eq!((bench.answer(notified).0, bench.amounts()[2].as_str()), (AnswerKind::Succeeded, "30.00"));
}

#[test]
fn one_of_the_whole_payment_goes_on_at_once_where_its_look_up_ends_what_was_open() {
    let mut bench = Bench::with_payment(Status::Confirmed);
    let refund = bench.call("refund", CommandType::Refund, json!({"amount": "10"}));
    bench.settle(refund, result(Verdict::Pending));
    let notified = notify(&mut bench, "hook", news(), Some(refund));
    let step = bench.found(notified, Some(refund), found(Verdict::Approved));
    assert_eq!(step, Step::LookUp { operation: notified, target: None });
    bench.found(notified, None, whole("70", "30"));
    assert_eq!((bench.answer(notified).0, bench.amounts()[2].as_str()), (AnswerKind::Succeeded, "30.00"));
}

#[test]
fn one_that_comes_before_its_payment_waits_a_grace() {
    let mut bench = Bench::new();
    let id = operation_id("hook");
    assert_eq!(bench.send("hook", CommandType::Notification, news()), Step::Stored);
    bench.send("create", CommandType::Create, payment_data());
    bench.wait(5);
    assert_eq!(bench.resume(id), Step::LookUp { operation: id, target: None });
    bench.found(id, None, whole("100", "0"));
    assert_eq!(bench.status(), Status::Confirmed);

    let mut bench = Bench::new();
    assert_eq!(bench.send("hook", CommandType::Notification, news()), Step::Stored);
    bench.wait(5);
    assert_eq!(bench.resume(id), Step::Settled);
    assert_eq!(bench.rejection(), Code::UnknownPayment);
}

#[test]
fn one_without_facts_and_one_that_cannot_be_looked_up_are_answered() {
    let mut bench = Bench::with_payment(Status::Confirmed);
    assert_eq!(bench.send("nothing", CommandType::Notification, json!({"facts": []})), Step::Settled);
    assert_eq!(bench.emitted(), [("command.succeeded", true)]);
    bench.rules.contract.lookup = Lookup::None;
    assert_eq!(bench.rejected("hook", CommandType::Notification, news()), Code::Unsupported);
}

#[test]
fn one_that_names_no_payment_is_located_and_answered() {
    let mut bench = Bench::new();
    let nameless = nameless("hook");
    let id = nameless.operation_id();
    assert_eq!(bench.send_command(nameless.clone()), Step::Locate(id));
    let located = |bench: &mut Bench, located| {
        bench.decide(&[id], |aggregate, context| aggregate.located(id, located, 9, context))
    };
    // The gateway could not be asked: again later.
    let mut ids = Vec::new();
    for _ in 0..2 {
        let error = GatewayError::new(Code::Unreachable, "no connection");
        assert_eq!(located(&mut bench, Err(error)), Step::Stored);
        assert_eq!((bench.state(id), bench.delayed()), (State::Scheduled, Some(Code::Unreachable)));
        ids.push(bench.emitted[0].id);
        assert_eq!(bench.resume_when_due(id), Step::Locate(id));
    }
    assert_ne!(ids[0], ids[1], "an event under a known id is stored once, so that the later one would be lost");
    assert_eq!(located(&mut bench, Ok(())), Step::Settled);
    assert_eq!(bench.emitted(), [("command.succeeded", true)]);
    let cause = bench.emitted[0].cause.as_ref().unwrap();
    assert_eq!(cause.subject, PAYMENT.to_string(), "an event always has a subject");
    assert_eq!(bench.send_command(nameless), Step::Known(id), "it is done once");
}

#[test]
fn one_that_names_no_payment_is_located_again_where_its_worker_was_lost() {
    let mut bench = Bench::new();
    let nameless = nameless("hook");
    let id = nameless.operation_id();
    bench.send_command(nameless);
    bench.worker = OTHER_WORKER;
    bench.wait(16);
    assert_eq!(bench.resume(id), Step::Locate(id));
    // Who lost it answers nothing.
    bench.worker = super::bench::WORKER;
    assert_eq!(bench.decide(&[id], |aggregate, context| aggregate.located(id, Ok(()), 1, context)), Step::Stored);
    bench.worker = OTHER_WORKER;
    assert_eq!(bench.decide(&[id], |aggregate, context| aggregate.located(id, Ok(()), 1, context)), Step::Settled);
}

#[test]
fn one_without_news_is_asked_about_again_while_the_payment_waits() {
    let mut bench = Bench::with_payment(Status::Input);
    let input = || found(Verdict::CustomerMustAct { redirect_url: Some("https://3ds".to_owned()) });
    let notified = notify(&mut bench, "hook", news(), None);
    let came = bench.now;
    assert_eq!(bench.found(notified, None, input()), Step::Stored);
    assert_eq!((bench.state(notified), bench.delayed()), (State::Scheduled, Some(Code::Pending)));
    // After the settle window, and then as often as a call would be tried again.
    assert_eq!(bench.operation(notified).due_at, Some(came + jiff::SignedDuration::from_secs(10)));
    let mut questions = 1;
    while bench.state(notified) != State::Settled {
        assert_eq!(bench.resume_when_due(notified), Step::LookUp { operation: notified, target: None });
        bench.found(notified, None, input());
        questions += 1;
    }
    assert_eq!((questions, bench.answer(notified).0), (4, AnswerKind::Succeeded));
    // With news it is answered at once.
    let mut bench = Bench::with_payment(Status::Input);
    let notified = notify(&mut bench, "hook", news(), None);
    bench.found(notified, None, input());
    bench.resume_when_due(notified);
    assert_eq!(bench.found(notified, None, whole("100", "0")), Step::Settled);
    assert_eq!((bench.status(), bench.answer(notified).0), (Status::Confirmed, AnswerKind::Succeeded));
}

#[test]
fn one_that_waits_for_news_goes_on_when_they_come_another_way() {
    let mut bench = Bench::with_payment(Status::Input);
    let early = notify(&mut bench, "early", news(), None);
    let nothing_yet = Found::Result(Box::new(GatewayResult::new(Verdict::Pending)));
    assert_eq!(bench.found(early, None, nothing_yet), Step::Stored);
    assert!(bench.operation(early).due_at > Some(bench.now));
    let late = notify(&mut bench, "late", news(), None);
    assert_eq!(bench.found(late, None, whole("100", "0")), Step::Settled);
    assert_eq!(bench.operation(early).due_at, Some(bench.now));
    assert_eq!(bench.resume_when_due(early), Step::LookUp { operation: early, target: None });
    assert_eq!(bench.found(early, None, whole("100", "0")), Step::Settled);
}
