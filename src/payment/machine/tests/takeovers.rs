//! Lost workers: whoever takes over knows nothing of what was sent.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::bench::{Bench, OTHER_WORKER, WORKER, approved, found, keys, not_sent, operation_id, result, timed_out};
use crate::payment::code::Code;
use crate::payment::command::CommandType;
use crate::payment::contract::Lookup;
use crate::payment::machine::{Step, TAKEOVERS_ALONE, TAKEOVERS_MAX};
use crate::payment::operation::{AnswerKind, State};
use crate::payment::outcome::{Decline, Exposure, Found, GatewayError, Outcome, Verdict};
use crate::payment::status::Status;

/// A bench whose payment's process is being called by a worker that is then lost; another one looks after it.
fn lost() -> (Bench, Uuid) {
    let mut bench = Bench::with_payment(Status::Waiting);
    let id = bench.call("a", CommandType::Process, json!({}));
    bench.worker = OTHER_WORKER;
    (bench, id)
}

#[test]
fn a_live_lease_is_left_alone_and_an_expired_one_is_taken_over_under_the_same_key() {
    let (mut bench, id) = lost();
    bench.wait(14);
    assert_eq!(bench.resume(id), Step::Stored);
    assert_eq!(bench.operation(id).counts.takeovers, 0);
    bench.wait(1);
    assert_eq!(bench.resume(id), Step::Call(id));
    let operation = bench.operation(id);
    assert_eq!(
        (operation.counts.takeovers, operation.counts.attempts, operation.sent.generation),
        (1, 2, 0),
        "a call of each worker"
    );
    assert_eq!(operation.sent.exposure, Exposure::Exposed, "what was sent is unknown");
    assert_eq!(operation.lease.map(|lease| lease.owner), Some(OTHER_WORKER));
    // So nothing that is not sent now proves anything.
    bench.settle_after(id, not_sent(), 2);
    assert_eq!(bench.state(id), State::Unknown);
}

#[test]
fn a_redelivery_takes_a_live_lease_over_only_where_the_gateway_honours_the_key() {
    let (mut bench, id) = lost();
    assert_eq!(bench.take_over(id), Step::Call(id));
    for window in [None, Some(Duration::from_secs(1))] {
        let (mut bench, id) = lost();
        bench.rules.contract.keys = keys(window);
        assert_eq!(bench.take_over(id), Step::Stored);
        assert_eq!(bench.operation(id).counts.takeovers, 0);
        bench.wait(15);
        assert_eq!(bench.take_over(id), Step::Stored);
        assert_eq!((bench.state(id), bench.delayed()), (State::Unknown, Some(Code::WorkerLost)));
        assert_eq!(bench.resume_when_due(id), Step::LookUp { operation: id, target: Some(id) });
    }
    let (mut bench, id) = lost();
    bench.rules.contract.keys = keys(None);
    bench.rules.contract.lookup = Lookup::None;
    bench.wait(15);
    bench.take_over(id);
    assert_eq!((bench.state(id), bench.delayed()), (State::Unknown, Some(Code::Escalated)));
}

#[test]
fn what_is_not_being_called_is_not_taken_over() {
    let (mut bench, id) = lost();
    bench.worker = WORKER;
    bench.settle_after(id, not_sent(), 2);
    bench.wait(10);
    assert_eq!(bench.take_over(id), Step::Call(id), "it is due, and goes on");
    assert_eq!((bench.operation(id).counts.takeovers, bench.operation(id).sent.exposure), (0, Exposure::Clean));
    bench.settle(id, approved());
    assert_eq!(bench.take_over(id), Step::Settled);
}

#[test]
fn an_operation_that_takes_five_workers_down_is_parked_and_escalated() {
    let (mut bench, id) = lost();
    for takeover in 1..TAKEOVERS_MAX {
        bench.wait(15);
        assert_eq!(bench.resume(id), Step::Call(id));
        assert_eq!(bench.operation(id).counts.takeovers, takeover);
    }
    bench.wait(15);
    assert_eq!(bench.resume(id), Step::Stored);
    assert_eq!((bench.state(id), bench.delayed()), (State::Unknown, Some(Code::Escalated)));
    assert!(bench.operation(id).due_at.is_none() && bench.operation(id).sent.lookup_only);
    assert_eq!(bench.operation(id).counts.attempts, TAKEOVERS_MAX, "a call of each worker that was lost");
    // A sync may still prove what happened, but starts it no more.
    bench.wait(60);
    let sync = operation_id("s");
    assert_eq!(bench.send("s", CommandType::Sync, json!({})), Step::LookUp { operation: sync, target: Some(id) });
    bench.found(sync, Some(id), Found::Nothing);
    assert_eq!((bench.status(), bench.answer(id)), (Status::Error, (AnswerKind::Failed, Some(Code::WorkerLost))));
}

#[test]
fn workers_lost_within_seconds_of_each_other_park_nothing() {
    let (mut bench, id) = lost();
    for takeover in 1..=TAKEOVERS_ALONE {
        assert_eq!(bench.take_over(id), Step::Call(id), "the first ones do not wait");
        assert_eq!(bench.operation(id).counts.takeovers, takeover);
    }
    for _ in 0..TAKEOVERS_MAX {
        assert_eq!(bench.take_over(id), Step::Stored);
    }
    assert_eq!((bench.state(id), bench.operation(id).counts.takeovers), (State::Calling, TAKEOVERS_ALONE));
    bench.wait(15);
    assert_eq!(bench.take_over(id), Step::Call(id));
    // So does a question.
    let mut bench = Bench::with_payment(Status::Confirmed);
    let sync = operation_id("s");
    let asks = Step::LookUp { operation: sync, target: None };
    assert_eq!(bench.send("s", CommandType::Sync, json!({})), asks);
    for _ in 0..TAKEOVERS_ALONE {
        assert_eq!(bench.take_over(sync), asks);
    }
    assert_eq!(bench.take_over(sync), Step::Stored);
}

#[test]
fn an_answer_forgets_the_lost_workers_of_what_stays_open() {
    // An attempt that brought nothing, and later a look-up.
    let (mut bench, id) = lost();
    for _ in 0..2 {
        bench.wait(15);
        bench.resume(id);
    }
    assert_eq!(bench.operation(id).counts.takeovers, 2);
    bench.settle_after(id, timed_out(), 9);
    assert_eq!((bench.state(id), bench.operation(id).counts.takeovers), (State::Unknown, 0));
    // Of one that was not sent no worker outlived anything.
    let (mut bench, id) = lost();
    bench.wait(15);
    bench.resume(id);
    bench.settle_after(id, Outcome::NotSent(GatewayError::new(Code::Held, "held")), 9);
    assert_eq!(bench.operation(id).counts.takeovers, 1);
    // A sync that is asked again.
    let mut bench = Bench::with_payment(Status::Confirmed);
    let sync = operation_id("s");
    bench.send("s", CommandType::Sync, json!({}));
    bench.wait(15);
    bench.resume(sync);
    assert!(bench.operation(sync).counts.takeovers > 0);
    bench.found(sync, None, Found::Failed(GatewayError::new(Code::GatewayError, "500")));
    assert_eq!(bench.operation(sync).counts.takeovers, 0);
}

#[test]
fn a_takeover_waits_while_calls_are_paused() {
    let (mut bench, id) = lost();
    bench.wait(15);
    bench.paused_for = Some(Duration::from_secs(30));
    assert_eq!(bench.resume(id), Step::Stored);
    assert_eq!((bench.state(id), bench.operation(id).sent.exposure), (State::Unknown, Exposure::Exposed));
    bench.paused_for = None;
    assert_eq!(bench.resume_when_due(id), Step::Call(id));
}

#[test]
fn a_worker_whose_lease_was_taken_over_records_its_proof_and_decides_nothing_else() {
    let refused = Outcome::Refused(GatewayError::new(Code::Refused, "no"));
    for outcome in [not_sent(), timed_out(), refused] {
        let (mut bench, id) = lost();
        bench.wait(15);
        bench.resume(id);
        let before = bench.operation(id).clone();
        bench.worker = WORKER;
        assert_eq!(bench.settle_after(id, outcome, 2), Step::Stored);
        assert_eq!(bench.operation(id).lease, before.lease);
        assert_eq!((bench.state(id), bench.operation(id).due_at), (State::Calling, before.due_at));
    }
    let (mut bench, id) = lost();
    bench.wait(15);
    bench.resume(id);
    bench.worker = WORKER;
    assert_eq!(bench.settle(id, approved()), Step::Settled);
    assert_eq!(bench.status(), Status::Confirmed);
    // The other one gets the same answer for the same key: it counts once.
    bench.worker = OTHER_WORKER;
    assert_eq!(bench.settle(id, approved()), Step::Settled);
    assert!(bench.emitted.is_empty());
    assert_eq!(bench.amounts(), ["0.00", "100.00", "0.00"]);
}

#[test]
fn what_a_lost_worker_sent_last_is_not_proved_absent_within_the_settle_window() {
    let (mut bench, id) = lost();
    bench.rules.contract.keys = keys(None);
    bench.wait(15);
    bench.resume(id);
    assert_eq!(bench.operation(id).sent.last_at, Some(bench.now), "it may have sent until a moment ago");
    bench.rules.delayed = vec![Duration::from_secs(1)];
    bench.wait(9);
    assert_eq!(bench.resume(id), Step::Stored, "too early to ask");
    bench.wait(1);
    assert_eq!(bench.resume(id), Step::LookUp { operation: id, target: Some(id) });
}

#[test]
fn a_worker_that_lives_may_send_until_its_lease_ends() {
    let (mut bench, id) = lost();
    let lease_end = bench.operation(id).lease.unwrap().until;
    bench.wait(5);
    assert_eq!(bench.take_over(id), Step::Call(id));
    bench.wait(1);
    bench.settle_after(id, timed_out(), 9);
    assert_eq!(bench.operation(id).sent.last_at, Some(lease_end));
}

#[test]
fn a_look_up_is_leased_and_one_that_takes_workers_down_is_parked() {
    let (mut bench, id) = lost();
    bench.worker = WORKER;
    bench.settle(id, result(Verdict::Pending));
    assert_eq!(bench.resume_when_due(id), Step::LookUp { operation: id, target: Some(id) });
    assert_eq!(bench.resume(id), Step::Stored, "another one is asking");
    for _ in 0..TAKEOVERS_MAX - 1 {
        assert_eq!(bench.resume_when_due(id), Step::LookUp { operation: id, target: Some(id) });
    }
    assert_eq!(bench.resume_when_due(id), Step::Stored);
    assert_eq!((bench.state(id), bench.delayed()), (State::Pending, Some(Code::Escalated)));
    // Late or not, what the gateway says counts.
    bench.found(id, Some(id), found(Verdict::Approved));
    assert_eq!(bench.status(), Status::Confirmed);
}

#[test]
fn a_lost_sync_asks_again_and_five_times_is_enough() {
    let mut bench = Bench::with_payment(Status::Confirmed);
    let sync = operation_id("s");
    let asks = Step::LookUp { operation: sync, target: None };
    assert_eq!(bench.send("s", CommandType::Sync, json!({})), asks);
    for _ in 1..TAKEOVERS_MAX {
        bench.wait(15);
        assert_eq!(bench.resume(sync), asks);
    }
    bench.wait(15);
    assert_eq!(bench.resume(sync), Step::Settled);
    assert_eq!(bench.answer(sync), (AnswerKind::Failed, Some(Code::WorkerLost)));
}

#[test]
fn an_operation_under_way_is_neither_sent_to_nor_asked_of_another_account() {
    // Never received: it fails.
    let (mut bench, id) = lost();
    bench.worker = WORKER;
    bench.settle_after(id, not_sent(), 2);
    bench.rules.account = "shop-2".to_owned();
    assert_eq!(bench.resume_when_due(id), Step::Settled);
    assert_eq!((bench.status(), bench.answer(id).1), (Status::Error, Some(Code::GatewayChanged)));
    // Maybe received: it waits until the variant points back, or a person says what happened.
    for state in [State::Calling, State::Unknown, State::Pending] {
        let (mut bench, id) = lost();
        match state {
            State::Unknown => {
                let answer = bench.asked(id).answered(timed_out());
                _ = bench.decide(&[id], |machine, mut context| {
                    context.worker = WORKER;
                    machine.settle(id, answer, 2, context)
                })
            }
            State::Pending => _ = bench.settle(id, result(Verdict::Pending)),
            _ => {}
        }
        bench.rules.gateway = "stripe".to_owned();
        bench.wait(3600);
        assert_eq!(bench.resume(id), Step::Stored, "{state:?}");
        assert!(bench.operation(id).escalated);
        assert_eq!(bench.payment().busy.is_some(), state != State::Pending, "what is pending takes no turn");
        assert_eq!(bench.resume_when_due(id), Step::Stored);
        assert!(bench.emitted.is_empty(), "told once");
        bench.rules.gateway = "http".to_owned();
        let step = bench.resume_when_due(id);
        assert!(matches!(step, Step::Call(_) | Step::LookUp { .. }), "{state:?}: {step:?}");
    }
}

/// A failover to a standby that had not got it yet loses what was stored last. Others go on from there and count as far;
/// whoever still holds what was lost commits nothing over them.
#[test]
fn what_the_database_lost_is_not_committed_over_what_came_in_its_place() {
    let mut bench = Bench::with_payment(Status::Confirmed);
    let standby = bench.store.clone();
    let lost = bench.call("lost", CommandType::Refund, json!({"amount": "40.00"}));
    let mut stale = bench.store.load(&[lost]);
    bench.store = standby;
    let other = bench.call("other", CommandType::Refund, json!({"amount": "30.00"}));
    let answer = stale.asked(bench.now).answered(result(Verdict::Declined(Decline::Hard)));
    assert_eq!(stale.settle(lost, answer, 1, bench.context()), Step::Settled);
    assert!(!bench.store.commit(&mut stale));
    assert!(bench.store.load(&[lost]).operation(lost).is_none(), "its message begins it again");
    assert_eq!((bench.state(other), bench.payment().busy), (State::Calling, Some(other)));
}
