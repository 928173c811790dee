//! One payment's commands go one after the other, in the order in which they were accepted.

use std::time::Duration;

use serde_json::json;

use super::bench::{
    Bench, approved, approved_of, command, keys, not_sent, operation_id, payment_data, result, timed_out,
};
use crate::payment::code::Code;
use crate::payment::command::CommandType;
use crate::payment::machine::{Step, WAITING_MAX};
use crate::payment::operation::{AnswerKind, State};
use crate::payment::outcome::{Decline, Found, Verdict};
use crate::payment::status::Status;

#[test]
fn commands_wait_for_their_turn_and_go_in_the_order_of_acceptance() {
    let mut bench = Bench::with_payment(Status::Confirmed);
    let first = bench.call("a", CommandType::Refund, json!({"amount": "10"}));
    for id in ["b", "c", "d"] {
        assert_eq!(bench.send(id, CommandType::Refund, json!({"amount": "20"})), Step::Stored);
        assert!(bench.emitted.is_empty(), "waiting is not told");
    }
    assert_eq!(bench.payment().waiting, 3);
    bench.settle(first, approved());
    for (next, waiting) in [("b", 2), ("c", 1), ("d", 0)] {
        let next = operation_id(next);
        assert_eq!(bench.operation(next).due_at, Some(bench.now), "the one before woke it in the same commit");
        assert_eq!(bench.resume(next), Step::Call(next));
        assert_eq!(bench.payment().waiting, waiting);
        bench.settle(next, approved());
    }
    assert_eq!(bench.amounts(), ["0.00", "30.00", "70.00"]);
}

#[test]
fn a_later_command_found_due_first_lets_the_first_go_first() {
    let mut bench = Bench::with_payment(Status::Confirmed);
    let first = bench.call("a", CommandType::Refund, json!({"amount": "10"}));
    bench.send("b", CommandType::Refund, json!({"amount": "20"}));
    bench.send("c", CommandType::Refund, json!({"amount": "30"}));
    bench.settle(first, approved());
    let (second, third) = (operation_id("b"), operation_id("c"));
    bench.wait(100);
    // Whoever holds the third does not hold the second: it is only made due.
    assert_eq!(bench.resume(third), Step::Stored);
    assert_eq!(bench.state(third), State::Waiting);
    assert_eq!(bench.operation(second).due_at, Some(bench.now));
    assert_eq!(bench.resume(second), Step::Call(second));
    assert_eq!(bench.resume(third), Step::Stored, "the turn is held");
}

#[test]
fn a_new_command_does_not_overtake_one_that_was_woken() {
    let mut bench = Bench::with_payment(Status::Confirmed);
    let first = bench.call("a", CommandType::Refund, json!({"amount": "10"}));
    bench.send("b", CommandType::Refund, json!({"amount": "20"}));
    bench.settle(first, approved());
    assert_eq!(bench.payment().busy, None);
    assert_eq!(bench.send("c", CommandType::Refund, json!({"amount": "30"})), Step::Stored);
    assert_eq!(bench.resume_when_due(operation_id("b")), Step::Call(operation_id("b")));
}

#[test]
fn a_waiting_command_is_checked_against_the_payment_at_its_turn() {
    let mut bench = Bench::with_payment(Status::Confirmed);
    let first = bench.call("a", CommandType::Refund, json!({}));
    bench.send("b", CommandType::Refund, json!({"amount": "1"}));
    let mut late = command("c", CommandType::Refund, json!({"amount": "1"}));
    late.attributes.expires_at = Some(bench.now + jiff::SignedDuration::from_secs(5));
    bench.send_command(late);
    bench.send("d", CommandType::Refund, json!({"amount": "1"}));
    bench.settle(first, approved());
    assert_eq!(bench.status(), Status::Refunded);
    bench.wait(10);
    for (id, code) in [("b", Code::NotAllowed), ("c", Code::Expired), ("d", Code::NotAllowed)] {
        let id = operation_id(id);
        assert_eq!(bench.resume_when_due(id), Step::Settled);
        assert_eq!(bench.answer(id), (AnswerKind::Rejected, Some(code)));
    }
    assert_eq!(bench.payment().waiting, 0);
}

#[test]
fn a_hundred_commands_wait_and_no_more() {
    let mut bench = Bench::with_payment(Status::Confirmed);
    bench.call("first", CommandType::Refund, json!({"amount": "0.01"}));
    for number in 0..WAITING_MAX {
        assert_eq!(bench.send(&number.to_string(), CommandType::Refund, json!({"amount": "0.01"})), Step::Stored);
    }
    assert_eq!(bench.rejected("more", CommandType::Refund, json!({})), Code::TooManyWaiting);
    // What carries the cure is let in all the same.
    assert!(matches!(bench.send("sync", CommandType::Sync, json!({})), Step::LookUp { .. }));

    let mut bench = Bench::new();
    for number in 0..WAITING_MAX {
        assert_eq!(bench.send(&number.to_string(), CommandType::Refund, json!({})), Step::Stored);
    }
    assert_eq!(bench.rejected("more", CommandType::Refund, json!({})), Code::TooManyWaiting);
}

#[test]
fn what_carries_the_cure_never_waits_for_a_turn() {
    let mut bench = Bench::with_payment(Status::Confirmed);
    bench.call("a", CommandType::Refund, json!({"amount": "10"}));
    bench.send("b", CommandType::Refund, json!({"amount": "10"}));
    assert!(matches!(bench.send("c", CommandType::Sync, json!({})), Step::LookUp { .. }));
    let facts = json!({"facts": [{"kind": "charge.refunded"}]});
    assert!(matches!(bench.send("d", CommandType::Notification, facts), Step::LookUp { .. }));
}

#[test]
fn a_command_for_an_unknown_payment_waits_a_grace() {
    let mut bench = Bench::new();
    let id = operation_id("a");
    assert_eq!(bench.send("a", CommandType::Process, json!({})), Step::Stored);
    let due_in = |bench: &Bench| bench.operation(id).due_at.map(|due| due.duration_since(bench.now).as_millis());
    assert_eq!(due_in(&bench), Some(50), "its create is most likely on its way");
    bench.wait(3);
    assert_eq!(bench.resume(id), Step::Stored, "not yet");
    assert_eq!(due_in(&bench), Some(2_000), "not beyond the end of the grace");
    bench.wait(2);
    assert_eq!(bench.resume(id), Step::Settled);
    assert_eq!(bench.rejection(), Code::UnknownPayment);
    assert_eq!(bench.emitted[0].variant, "default");

    let mut bench = Bench::new();
    bench.send("a", CommandType::Process, json!({}));
    bench.send("b", CommandType::Cancel, json!({}));
    bench.send("c", CommandType::Create, payment_data());
    assert_eq!(bench.payment().waiting, 2);
    assert_eq!(bench.operation(id).due_at, Some(bench.now), "its payment came");
    assert_eq!(bench.resume(id), Step::Call(id));
    bench.settle(id, approved());
    assert_eq!(bench.resume(operation_id("b")), Step::Settled);
    assert_eq!(bench.rejection(), Code::NotAllowed);
}

#[test]
fn a_sync_that_waited_for_its_payment_does_not_wait_for_a_turn() {
    let mut bench = Bench::new();
    assert_eq!(bench.send("sync", CommandType::Sync, json!({})), Step::Stored);
    assert_eq!(bench.send("refund", CommandType::Refund, json!({})), Step::Stored);
    let mut data = payment_data();
    data["process"] = json!({});
    let process = bench.call("create", CommandType::Create, data);
    bench.wait(5);
    assert_eq!(bench.resume(operation_id("refund")), Step::Stored, "the turn is held");
    let asks = Step::LookUp { operation: operation_id("sync"), target: Some(process) };
    assert_eq!(bench.resume(operation_id("sync")), asks);
    assert_eq!(bench.payment().waiting, 1);
}

#[test]
fn a_payment_that_comes_wakes_the_first_that_needs_a_turn() {
    let mut bench = Bench::new();
    bench.send("sync", CommandType::Sync, json!({}));
    bench.send("a", CommandType::Process, json!({}));
    // One more comes together with the payment: it is behind those that were stored before.
    let mut aggregate = bench.store.load(&[]);
    aggregate.accept(command("b", CommandType::Cancel, json!({})), bench.context());
    aggregate.accept(command("c", CommandType::Create, payment_data()), bench.context());
    assert!(bench.store.commit(&mut aggregate));
    let due = ["sync", "a", "b"].map(|id| bench.operation(operation_id(id)).due_at == Some(bench.now));
    assert_eq!(due, [false, true, false]);
}

#[test]
fn commands_stored_beside_a_new_payment_are_not_forgotten() {
    // Decided together with the create, in one commit: the database counts only what was there before.
    let mut bench = Bench::new();
    let mut data = payment_data();
    data["process"] = json!({});
    let (create, refund) = (command("a", CommandType::Create, data), command("b", CommandType::Refund, json!({})));
    let (first, second) = (operation_id("a"), operation_id("b"));
    bench.send("0", CommandType::Refund, json!({"amount": "1"}));
    let mut aggregate = crate::payment::machine::Aggregate::absent(super::store::PAYMENT);
    let context = bench.context();
    assert_eq!(aggregate.accept(create, context), Step::Call(first));
    assert_eq!(aggregate.accept(refund, context), Step::Stored);
    assert!(bench.store.commit(&mut aggregate));
    assert!(aggregate.misses_waiting(), "one came before, which was not loaded");
    assert_eq!(bench.payment().waiting, 1, "of it the database counted one");
    bench.settle(first, approved());
    assert_eq!(bench.payment().waiting, 2);
    let zeroth = operation_id("0");
    assert_eq!(bench.operation(zeroth).due_at, Some(bench.now));
    assert_eq!(bench.resume(zeroth), Step::Call(zeroth));
    bench.settle(zeroth, approved());
    assert_eq!(bench.operation(second).due_at, Some(bench.now));
    assert_eq!(bench.resume(second), Step::Call(second));
}

#[test]
fn another_process_is_refused_while_one_goes_on() {
    let process = |bench: &mut Bench, id: &str| bench.rejected(id, CommandType::Process, json!({}));
    let mut bench = Bench::with_payment(Status::Waiting);
    let id = bench.call("a", CommandType::Process, json!({}));
    assert_eq!(process(&mut bench, "called"), Code::InProgress);
    bench.send("waits", CommandType::Capture, json!({}));
    assert_eq!(process(&mut bench, "called and waited for"), Code::InProgress);
    bench.settle_after(id, timed_out(), 9);
    assert_eq!(bench.state(id), State::Unknown);
    assert_eq!(process(&mut bench, "unknown"), Code::InProgress);
    bench.found(id, Some(id), super::bench::found(Verdict::Pending));
    // The look-up was not leased, but what the gateway says counts whoever asked.
    assert_eq!(bench.state(id), State::Pending);
    bench.resume_when_due(operation_id("waits"));
    assert_eq!(process(&mut bench, "pending"), Code::InProgress);
    bench.found(id, Some(id), super::bench::found(Verdict::Declined(Decline::Soft)));
    bench.call("now", CommandType::Process, json!({}));
}

#[test]
fn another_process_waits_while_one_is_proved_not_sent() {
    let mut bench = Bench::with_payment(Status::Waiting);
    let id = bench.call("a", CommandType::Process, json!({}));
    bench.settle_after(id, not_sent(), 2);
    assert_eq!(bench.state(id), State::Scheduled);
    assert_eq!(bench.send("b", CommandType::Process, json!({})), Step::Stored);
    assert_eq!(bench.resume_when_due(id), Step::Call(id));
    bench.settle(id, result(Verdict::Declined(Decline::Hard)));
    assert_eq!(bench.resume(operation_id("b")), Step::Call(operation_id("b")));
}

#[test]
fn a_cancel_ends_a_scheduled_process_that_was_never_sent() {
    let mut bench = Bench::with_payment(Status::Waiting);
    let id = bench.call("a", CommandType::Process, json!({}));
    bench.settle_after(id, not_sent(), 2);
    bench.send("b", CommandType::Refund, json!({}));
    let cancel = bench.call("c", CommandType::Cancel, json!({}));
    assert_eq!(bench.emitted(), [("command.failed", true)]);
    assert_eq!(bench.answer(id), (AnswerKind::Failed, Some(Code::Cancelled)));
    assert_eq!(bench.status(), Status::Waiting, "nothing was charged, and nothing went wrong");
    bench.settle(cancel, approved());
    assert_eq!(bench.status(), Status::Cancelled);
    bench.resume_when_due(operation_id("b"));
    assert_eq!(bench.rejection(), Code::NotAllowed);
}

#[test]
fn a_cancel_ends_nothing_that_may_have_been_sent_and_nothing_where_it_is_not_allowed() {
    let mut bench = Bench::with_payment(Status::Waiting);
    let id = bench.call("a", CommandType::Process, json!({}));
    assert_eq!(bench.send("b", CommandType::Cancel, json!({})), Step::Stored);
    bench.settle_after(id, timed_out(), 2);
    assert_eq!(bench.send("c", CommandType::Cancel, json!({})), Step::Stored);
    assert_eq!(bench.state(id), State::Unknown);

    let mut bench = Bench::with_payment(Status::Confirmed);
    let refund = bench.call("a", CommandType::Refund, json!({}));
    bench.settle_after(refund, not_sent(), 2);
    assert_eq!(bench.send("b", CommandType::Cancel, json!({})), Step::Stored);
    assert_eq!(bench.state(refund), State::Scheduled);
}

#[test]
fn a_cancel_that_waits_ends_a_process_as_soon_as_that_is_proved_not_sent() {
    let cancelled = |mut bench: Bench, id| {
        let cancel = operation_id("cancel");
        assert_eq!(bench.operation(cancel).due_at, Some(bench.now));
        assert_eq!(bench.resume(cancel), Step::Call(cancel), "before others that wait, as when it comes now");
        assert_eq!(bench.answer(id), (AnswerKind::Failed, Some(Code::Cancelled)));
        assert_eq!((bench.payment().busy, bench.payment().waiting), (Some(cancel), 1));
        bench.settle(cancel, approved());
        assert_eq!(bench.status(), Status::Cancelled);
    };
    let cancel_it = |bench: &mut Bench| {
        for (id, kind) in [("other", CommandType::Refund), ("cancel", CommandType::Cancel)] {
            assert_eq!(bench.send(id, kind, json!({})), Step::Stored);
        }
    };
    let mut bench = Bench::with_payment(Status::Waiting);
    let id = bench.call("a", CommandType::Process, json!({}));
    cancel_it(&mut bench);
    assert_eq!(bench.resume(operation_id("cancel")), Step::Stored, "while it is called, it may be charging");
    bench.settle_after(id, not_sent(), 2);
    cancelled(bench, id);

    // Proved by a look-up.
    let mut bench = Bench::with_payment(Status::Waiting);
    bench.rules.contract.keys = keys(None);
    let id = bench.call("a", CommandType::Process, json!({}));
    cancel_it(&mut bench);
    bench.settle(id, timed_out());
    assert_eq!(bench.resume_when_due(id), Step::LookUp { operation: id, target: Some(id) });
    bench.found(id, Some(id), Found::Nothing);
    assert!(bench.operation(id).due_at > Some(bench.now), "it steps back");
    cancelled(bench, id);

    // An expired one ends nothing.
    let mut bench = Bench::with_payment(Status::Waiting);
    let id = bench.call("a", CommandType::Process, json!({}));
    let mut late = command("cancel", CommandType::Cancel, json!({}));
    late.attributes.expires_at = Some(bench.now + jiff::SignedDuration::from_secs(5));
    bench.send_command(late);
    bench.wait(10);
    bench.settle_after(id, not_sent(), 2);
    assert_eq!(bench.resume(operation_id("cancel")), Step::Stored);
    assert_eq!(bench.resume_when_due(id), Step::Call(id));
}

#[test]
fn what_waits_for_its_payment_alone_is_in_nobodys_way() {
    let mut bench = Bench::new();
    bench.send("sync", CommandType::Sync, json!({}));
    bench.send("create", CommandType::Create, payment_data());
    bench.call("a", CommandType::Process, json!({}));
}

#[test]
fn a_cancel_closes_a_pending_process_and_its_late_money_is_counted_with_the_gateways_proof() {
    let mut bench = Bench::with_payment(Status::Waiting);
    let process = bench.call("a", CommandType::Process, json!({}));
    bench.settle(process, result(Verdict::Pending));
    let cancel = bench.call("b", CommandType::Cancel, json!({}));
    assert_eq!(bench.rejected("c", CommandType::Process, json!({})), Code::InProgress);
    bench.settle(cancel, approved());
    assert_eq!(bench.emitted(), [("command.failed", true), ("payment.status_changed", true)]);
    assert_eq!(bench.answer(process), (AnswerKind::Failed, Some(Code::Cancelled)));
    assert_eq!(bench.status(), Status::Cancelled);
    bench.found(process, Some(process), super::bench::found(Verdict::Approved));
    assert_eq!(bench.emitted(), [("payment.status_changed", false)]);
    assert_eq!(bench.status(), Status::Confirmed);
    assert_eq!(bench.amounts(), ["0.00", "100.00", "0.00"]);
}

#[test]
fn while_a_cancel_is_pending_neither_a_process_nor_another_cancel_begins() {
    let mut bench = Bench::with_payment(Status::Input);
    let cancel = bench.call("a", CommandType::Cancel, json!({}));
    bench.settle(cancel, result(Verdict::Pending));
    assert_eq!(bench.rejected("b", CommandType::Process, json!({})), Code::InProgress);
    assert_eq!(bench.rejected("c", CommandType::Cancel, json!({})), Code::InProgress);
    bench.found(cancel, Some(cancel), super::bench::found(Verdict::Approved));
    assert_eq!(bench.status(), Status::Cancelled);
}

#[test]
fn paused_calls_are_scheduled_without_using_up_an_attempt() {
    for (paused_for, emitted) in [(Duration::from_secs(30), vec![("command.delayed", false)]), (Duration::ZERO, vec![])]
    {
        let mut bench = Bench::with_payment(Status::Confirmed);
        bench.paused_for = Some(paused_for);
        let id = operation_id("a");
        assert_eq!(bench.send("a", CommandType::Refund, json!({"amount": "10"})), Step::Stored);
        assert_eq!(bench.emitted(), emitted, "a drain is no news to the publisher");
        assert_eq!(bench.operation(id).due_at, Some(bench.now + paused_for));
        bench.now += paused_for;
        assert_eq!(bench.resume(id), Step::Stored, "still held");
        assert_eq!((bench.operation(id).counts.attempts, bench.operation(id).counts.rounds), (0, 0));
        assert_eq!(bench.payment().busy, Some(id));
        bench.paused_for = None;
        assert_eq!(bench.resume_when_due(id), Step::Call(id));
        bench.settle(id, approved_of("10"));
        assert_eq!(bench.amounts(), ["0.00", "90.00", "10.00"]);
    }
}
