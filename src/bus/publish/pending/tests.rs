//! Batches by hand, and with random outcomes.

use crate::bus::publish::pending::*;
use proptest::prelude::*;

const PAUSE: Duration = Duration::from_secs(2);
const EVENTS: Policy = Policy { refusals: 2, pause: PAUSE };

fn filled(messages: &[(u128, u32)]) -> Pending<u32> {
    let mut pending = Pending::new(EVENTS);
    for (order, message) in messages {
        pending.push(Uuid::from_u128(*order), *message);
    }
    pending
}

fn numbers(batch: &[Waiting<u32>]) -> Vec<u32> {
    batch.iter().map(|waiting| waiting.message).collect()
}

fn confirmed(decided: &[(u32, Verdict)]) -> Vec<u32> {
    let good = decided.iter().filter(|(_, verdict)| *verdict == Verdict::Confirmed);
    good.map(|(message, _)| *message).collect()
}

#[test]
fn a_nacked_event_is_tried_for_ever() {
    let mut now = Instant::now();
    let mut pending = filled(&[(1, 10), (1, 11)]);
    for doublings in [0, 1, 2, 3, 3, 3] {
        let batch = pending.next_batch(now);
        assert_eq!(numbers(&batch), [10, 11]);
        let sent = vec![Sent::Nacked("full".to_owned()), Sent::Confirmed];
        assert!(pending.settle(batch, sent, None, now).is_empty());
        assert!(!pending.is_ready(now));
        assert_eq!(pending.wake_at(), Some(now + PAUSE * (1 << doublings)));
        now = pending.wake_at().expect("a pause");
    }
    let batch = pending.next_batch(now);
    assert_eq!(confirmed(&pending.settle(batch, vec![Sent::Confirmed; 2], None, now)), [10, 11]);
}

/// Thousands of payments have a subscriber whose queue is full: their events do not count as fresh, and the others get
/// nearly all of a batch.
#[test]
fn nacked_events_leave_the_rounds_to_others() {
    let mut now = Instant::now();
    let mut pending = Pending::new(EVENTS);
    for number in 0..5000 {
        pending.push(Uuid::from_u128(u128::from(number)), number);
    }
    while pending.fresh() > 0 {
        let batch = pending.next_batch(now);
        let sent = vec![Sent::Nacked("full".to_owned()); batch.len()];
        assert!(pending.settle(batch, sent, None, now).is_empty());
    }
    assert_eq!((pending.fresh(), pending.len()), (0, 5000));
    assert!(!pending.is_ready(now));
    pending.push(Uuid::from_u128(7), 9007);
    assert_eq!(pending.fresh(), 0, "it waits behind one that was nacked");
    for number in 10_000..11_000 {
        pending.push(Uuid::from_u128(u128::from(number)), number);
    }
    now += PAUSE;
    let mut batch = pending.next_batch(now);
    assert_eq!(numbers(&batch), (10_000..10_512).collect::<Vec<_>>());
    let mut batches = 0;
    while !pending.is_empty() {
        let sent = vec![Sent::Confirmed; batch.len()];
        pending.settle(batch, sent, None, now);
        batch = pending.next_batch(now);
        let old = batch.iter().filter(|waiting| waiting.message < 10_000).count();
        assert!(old <= AGAIN + 1, "{old}");
        batches += 1;
    }
    assert!(batches < 100, "everything must go out eventually; {batches} batches so far");
}

#[test]
fn a_lost_confirm_takes_the_later_ones_of_its_payment_with_it_and_no_others() {
    let now = Instant::now();
    let mut pending = filled(&[(1, 10), (2, 20), (1, 11), (2, 21), (1, 12)]);
    let batch = pending.next_batch(now);
    assert_eq!(numbers(&batch), [10, 20, 11, 21, 12]);
    pending.push(Uuid::from_u128(1), 13);
    let sent = vec![Sent::Confirmed, Sent::Confirmed, Sent::Unknown, Sent::Confirmed, Sent::Confirmed];
    assert_eq!(confirmed(&pending.settle(batch, sent, None, now)), [10, 20, 21]);
    assert_eq!(numbers(&pending.next_batch(now)), [11, 12, 13]);
}

#[test]
fn a_refused_message_pauses_its_payment_and_then_goes_alone() {
    let now = Instant::now();
    let mut pending = filled(&[(1, 10), (1, 11), (2, 20)]);
    let batch = pending.next_batch(now);
    let sent = vec![Sent::Refused("no".to_owned()), Sent::Confirmed, Sent::Confirmed];
    assert_eq!(confirmed(&pending.settle(batch, sent, None, now)), [20]);
    assert!(!pending.is_ready(now));
    assert_eq!(pending.wake_at(), Some(now + PAUSE));
    pending.push(Uuid::from_u128(2), 21);
    assert_eq!(numbers(&pending.next_batch(now)), [21]);
    assert_eq!(numbers(&pending.next_batch(now + PAUSE)), [10]);
}

#[test]
fn only_two_refusals_set_it_aside_with_those_behind_it() {
    let mut now = Instant::now();
    let mut pending = filled(&[(1, 10), (1, 11), (2, 20)]);
    let batch = pending.next_batch(now);
    let sent = vec![Sent::Refused("no".to_owned()), Sent::Confirmed, Sent::Confirmed];
    pending.settle(batch, sent, None, now);
    for last in [false, true] {
        now += PAUSE;
        let batch = pending.next_batch(now);
        assert_eq!(numbers(&batch), [10]);
        let decided = pending.settle(batch, vec![Sent::Refused("no".to_owned())], None, now);
        assert_eq!(!decided.is_empty(), last, "{decided:?}");
        if last {
            assert_eq!(decided, [(10, Verdict::Refused("no".to_owned())), (11, Verdict::Behind)]);
        }
    }
    assert!(pending.is_empty());
}

#[test]
fn where_one_refusal_is_final_company_does_not_matter() {
    let now = Instant::now();
    let mut pending = Pending::new(Policy { refusals: 1, pause: PAUSE });
    pending.push(Uuid::from_u128(1), 10);
    pending.push(Uuid::from_u128(2), 20);
    let batch = pending.next_batch(now);
    let decided = pending.settle(batch, vec![Sent::Refused("no".to_owned()), Sent::Confirmed], None, now);
    assert_eq!(decided, [(10, Verdict::Refused("no".to_owned())), (20, Verdict::Confirmed)]);
}

#[test]
fn a_message_that_closes_the_channel_is_found_by_halving() {
    let mut now = Instant::now();
    let messages: Vec<(u128, u32)> = (0..1000).map(|number| (u128::from(number), number)).collect();
    let mut pending = filled(&messages);
    let (mut batches, mut good, mut bad) = (0, 0, Vec::new());
    while !pending.is_empty() {
        batches += 1;
        if !pending.is_ready(now) {
            now = pending.wake_at().expect("a pause");
        }
        let batch = pending.next_batch(now);
        let culprit = batch.iter().position(|waiting| waiting.message == 300);
        let sent = vec![if culprit.is_some() { Sent::Unknown } else { Sent::Confirmed }; batch.len()];
        for (message, verdict) in pending.settle(batch, sent, culprit.map(|_| "406"), now) {
            match verdict {
                Verdict::Confirmed => good += 1,
                Verdict::Refused(_) | Verdict::Behind => bad.push(message),
            }
        }
    }
    assert_eq!((good, bad), (999, vec![300]));
    assert!(batches < 40, "{batches}");
}

proptest! {
    /// Whatever the broker does, the last copies of a payment's messages are in order in the end, and every message
    /// gets exactly one verdict.
    #[test]
    fn no_fate_reorders_a_payment(fates in prop::collection::vec((0u8..8, 0u8..4), 1..400)) {
        let mut now = Instant::now();
        let mut pending = filled(&(0..40).map(|number| (u128::from(number % 7), number)).collect::<Vec<_>>());
        let mut fates = fates.into_iter();
        let (mut log, mut verdicts, mut pushed) = (Vec::new(), HashMap::new(), 40);
        while !pending.is_empty() {
            if !pending.is_ready(now) {
                now = pending.wake_at().expect("a pause");
            }
            let batch = pending.next_batch(now);
            if pushed < 60 {
                pending.push(Uuid::from_u128(u128::from(pushed % 7)), pushed);
                pushed += 1;
            }
            let (mut sent, mut closed) = (Vec::new(), None);
            for waiting in &batch {
                let (fate, arrives) = fates.next().unwrap_or((0, 0));
                let fate = if closed.is_some() { 1 } else { fate };
                let (known, arrived) = match fate {
                    1 => (Sent::Unknown, arrives == 0 && closed.is_none()),
                    2 => (Sent::Refused("no".to_owned()), false),
                    3 => { closed = Some("406"); (Sent::Unknown, false) }
                    // One of two queues may have stored it.
                    4 => (Sent::Nacked("full".to_owned()), arrives == 0),
                    _ => (Sent::Confirmed, true),
                };
                if arrived {
                    log.push(waiting.message);
                }
                sent.push(known);
            }
            for (message, verdict) in pending.settle(batch, sent, closed, now) {
                prop_assert!(verdicts.insert(message, verdict).is_none());
            }
        }
        prop_assert_eq!(verdicts.len(), pushed as usize);
        for payment in 0..7 {
            let last = |message: u32| log.iter().rposition(|logged| *logged == message);
            let good = (0..pushed).filter(|message| {
                message % 7 == payment && verdicts[message] == Verdict::Confirmed
            });
            let places: Vec<Option<usize>> = good.map(last).collect();
            prop_assert!(places.iter().all(Option::is_some));
            prop_assert!(places.is_sorted(), "{places:?}");
        }
    }
}
