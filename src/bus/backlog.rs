//! What waits to be published on one channel, and what goes again after a round: pure, without broker or clock.
//!
//! Messages with the same `order` (a payment's events) keep their order; all others are independent of each other.
//! After a round the first message of an order that was not confirmed goes again together with all later ones of that
//! order, confirmed or not: a consumer may see a message twice, but never a gap.
//!
//! A refused message is tried again by itself after a pause, so that a queue that is being repaired does no harm, and
//! is set aside only when it was refused alone as often as allowed. Where a message closes the channel, nothing tells
//! which one of the round it was: rounds are halved until it stands alone.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

/// The most messages in one round.
pub(super) const ROUND: usize = 512;

/// When a refusal is final.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    /// How many refusals are final. One is final in any company; more have to be met alone.
    pub refusals: u32,
    /// How long a refused message and those behind it wait.
    pub pause: Duration,
}

/// One message and what has happened to it.
#[derive(Debug)]
pub(super) struct Waiting<M> {
    order: Uuid,
    refusals: u32,
    suspect: bool,
    /// The message.
    pub message: M,
}

/// What is known of one message after a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sent {
    /// Confirmed and not returned.
    Confirmed,
    /// Returned: nobody takes it.
    Refused(String),
    /// Nacked: a queue is full, or could not store it. That is the queue's fault and not the message's.
    Nacked(String),
    /// Nothing: the confirm never came.
    Unknown,
}

/// The last word on a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The broker has it.
    Confirmed,
    /// The broker refuses it, or one before it that it must not overtake.
    Refused(String),
}

/// What waits, in order.
#[derive(Debug)]
pub(super) struct Backlog<M> {
    policy: Policy,
    queue: VecDeque<Waiting<M>>,
    held: HashMap<Uuid, Instant>,
    limit: usize,
}

impl<M> Backlog<M> {
    pub(super) fn new(policy: Policy) -> Backlog<M> {
        Backlog { policy, queue: VecDeque::new(), held: HashMap::new(), limit: ROUND }
    }

    pub(super) fn push(&mut self, order: Uuid, message: M) {
        self.queue.push_back(Waiting { order, refusals: 0, suspect: false, message });
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether there is anything to send now.
    pub(super) fn is_ready(&mut self, now: Instant) -> bool {
        self.held.retain(|_, until| *until > now);
        self.queue.iter().any(|waiting| !self.held.contains_key(&waiting.order))
    }

    /// When the first pause ends.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.held.values().min().copied()
    }

    /// Takes out what to send now; give it back to `settle`.
    pub(super) fn next_round(&mut self, now: Instant) -> Vec<Waiting<M>> {
        self.held.retain(|_, until| *until > now);
        let mut round: Vec<Waiting<M>> = Vec::new();
        let mut left = VecDeque::new();
        let mut behind = HashSet::new();
        while let Some(waiting) = self.queue.pop_front() {
            if self.held.contains_key(&waiting.order)
                || behind.contains(&waiting.order)
                || (waiting.suspect && !round.is_empty())
            {
                behind.insert(waiting.order);
                left.push_back(waiting);
                continue;
            }
            let alone = waiting.suspect;
            round.push(waiting);
            if alone || round.len() >= self.limit {
                break;
            }
        }
        left.append(&mut self.queue);
        self.queue = left;
        round
    }

    /// Decides each message of a round; what has to go again waits before all that came later. `sent` tells of each
    /// message, `closed` why the broker closed the channel, where it did so because of a message.
    pub(super) fn settle(
        &mut self,
        round: Vec<Waiting<M>>,
        sent: Vec<Sent>,
        closed: Option<&str>,
        now: Instant,
    ) -> Vec<(M, Verdict)> {
        let alone = round.len() == 1;
        self.limit = match closed {
            Some(_) => (round.len() / 2).max(1),
            None => (self.limit * 2).min(ROUND),
        };
        let mut decided = Vec::with_capacity(round.len());
        let mut again: Vec<Waiting<M>> = Vec::new();
        let mut behind = HashSet::new();
        for (mut waiting, sent) in round.into_iter().zip(sent) {
            let refusal = match (sent, closed) {
                _ if behind.contains(&waiting.order) => None,
                (Sent::Confirmed, _) => {
                    decided.push((waiting.message, Verdict::Confirmed));
                    continue;
                }
                (Sent::Refused(reason), _) => Some(reason),
                (Sent::Nacked(reason), _) if self.policy.refusals == 1 => Some(reason),
                (Sent::Nacked(_), _) => {
                    // Tried for ever: setting it aside would take every payment's events from a subscriber that is full.
                    self.held.insert(waiting.order, now + self.policy.pause);
                    None
                }
                (Sent::Unknown, Some(reason)) if alone => Some(reason.to_owned()),
                (Sent::Unknown, _) => None,
            };
            if let Some(reason) = refusal {
                if alone || self.policy.refusals == 1 {
                    waiting.refusals += 1;
                }
                if waiting.refusals >= self.policy.refusals {
                    self.set_aside(waiting, reason, &mut decided);
                    continue;
                }
                waiting.suspect = true;
                self.held.insert(waiting.order, now + self.policy.pause);
            }
            behind.insert(waiting.order);
            again.push(waiting);
        }
        for waiting in again.into_iter().rev() {
            self.queue.push_front(waiting);
        }
        decided
    }

    /// Gives up a message and all that wait behind it.
    fn set_aside(&mut self, culprit: Waiting<M>, reason: String, decided: &mut Vec<(M, Verdict)>) {
        let behind = format!("waits behind one that the broker refuses: {reason}");
        decided.push((culprit.message, Verdict::Refused(reason)));
        for waiting in std::mem::take(&mut self.queue) {
            if waiting.order == culprit.order {
                decided.push((waiting.message, Verdict::Refused(behind.clone())));
            } else {
                self.queue.push_back(waiting);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAUSE: Duration = Duration::from_secs(2);
    const EVENTS: Policy = Policy { refusals: 2, pause: PAUSE };

    fn filled(messages: &[(u128, u32)]) -> Backlog<u32> {
        let mut backlog = Backlog::new(EVENTS);
        for (order, message) in messages {
            backlog.push(Uuid::from_u128(*order), *message);
        }
        backlog
    }

    fn numbers(round: &[Waiting<u32>]) -> Vec<u32> {
        round.iter().map(|waiting| waiting.message).collect()
    }

    fn confirmed(decided: &[(u32, Verdict)]) -> Vec<u32> {
        let good = decided.iter().filter(|(_, verdict)| *verdict == Verdict::Confirmed);
        good.map(|(message, _)| *message).collect()
    }

    #[test]
    fn a_nacked_event_is_tried_for_ever() {
        let mut now = Instant::now();
        let mut backlog = filled(&[(1, 10), (1, 11)]);
        for _ in 0..10 {
            let round = backlog.next_round(now);
            assert_eq!(numbers(&round), [10, 11]);
            let sent = vec![Sent::Nacked("full".to_owned()), Sent::Confirmed];
            assert!(backlog.settle(round, sent, None, now).is_empty());
            assert!(!backlog.is_ready(now));
            now += PAUSE;
        }
        let round = backlog.next_round(now);
        assert_eq!(confirmed(&backlog.settle(round, vec![Sent::Confirmed; 2], None, now)), [10, 11]);
    }

    #[test]
    fn a_lost_confirm_takes_the_later_ones_of_its_payment_with_it_and_no_others() {
        let now = Instant::now();
        let mut backlog = filled(&[(1, 10), (2, 20), (1, 11), (2, 21), (1, 12)]);
        let round = backlog.next_round(now);
        assert_eq!(numbers(&round), [10, 20, 11, 21, 12]);
        backlog.push(Uuid::from_u128(1), 13);
        let sent = vec![Sent::Confirmed, Sent::Confirmed, Sent::Unknown, Sent::Confirmed, Sent::Confirmed];
        assert_eq!(confirmed(&backlog.settle(round, sent, None, now)), [10, 20, 21]);
        assert_eq!(numbers(&backlog.next_round(now)), [11, 12, 13]);
    }

    #[test]
    fn a_refused_message_pauses_its_payment_and_then_goes_alone() {
        let now = Instant::now();
        let mut backlog = filled(&[(1, 10), (1, 11), (2, 20)]);
        let round = backlog.next_round(now);
        let sent = vec![Sent::Refused("no".to_owned()), Sent::Confirmed, Sent::Confirmed];
        assert_eq!(confirmed(&backlog.settle(round, sent, None, now)), [20]);
        assert!(!backlog.is_ready(now));
        assert_eq!(backlog.wake_at(), Some(now + PAUSE));
        backlog.push(Uuid::from_u128(2), 21);
        assert_eq!(numbers(&backlog.next_round(now)), [21]);
        assert_eq!(numbers(&backlog.next_round(now + PAUSE)), [10]);
    }

    #[test]
    fn two_refusals_alone_set_it_aside_with_those_behind_it() {
        let mut now = Instant::now();
        let mut backlog = filled(&[(1, 10), (1, 11), (2, 20)]);
        let round = backlog.next_round(now);
        let sent = vec![Sent::Refused("no".to_owned()), Sent::Confirmed, Sent::Confirmed];
        backlog.settle(round, sent, None, now);
        for last in [false, true] {
            now += PAUSE;
            let round = backlog.next_round(now);
            assert_eq!(numbers(&round), [10]);
            let decided = backlog.settle(round, vec![Sent::Refused("no".to_owned())], None, now);
            assert_eq!(!decided.is_empty(), last, "{decided:?}");
            if last {
                let behind = "waits behind one that the broker refuses: no".to_owned();
                assert_eq!(decided, [(10, Verdict::Refused("no".to_owned())), (11, Verdict::Refused(behind))]);
            }
        }
        assert!(backlog.is_empty());
    }

    #[test]
    fn where_one_refusal_is_final_company_does_not_matter() {
        let now = Instant::now();
        let mut backlog = Backlog::new(Policy { refusals: 1, pause: PAUSE });
        backlog.push(Uuid::from_u128(1), 10);
        backlog.push(Uuid::from_u128(2), 20);
        let round = backlog.next_round(now);
        let decided = backlog.settle(round, vec![Sent::Refused("no".to_owned()), Sent::Confirmed], None, now);
        assert_eq!(decided, [(10, Verdict::Refused("no".to_owned())), (20, Verdict::Confirmed)]);
    }

    #[test]
    fn a_message_that_closes_the_channel_is_found_by_halving() {
        let mut now = Instant::now();
        let messages: Vec<(u128, u32)> = (0..1000).map(|number| (u128::from(number), number)).collect();
        let mut backlog = filled(&messages);
        let (mut rounds, mut good, mut bad) = (0, 0, Vec::new());
        while !backlog.is_empty() {
            rounds += 1;
            if !backlog.is_ready(now) {
                now = backlog.wake_at().expect("a pause");
            }
            let round = backlog.next_round(now);
            let culprit = round.iter().position(|waiting| waiting.message == 300);
            let sent = vec![if culprit.is_some() { Sent::Unknown } else { Sent::Confirmed }; round.len()];
            for (message, verdict) in backlog.settle(round, sent, culprit.map(|_| "406"), now) {
                match verdict {
                    Verdict::Confirmed => good += 1,
                    Verdict::Refused(_) => bad.push(message),
                }
            }
        }
        assert_eq!((good, bad), (999, vec![300]));
        assert!(rounds < 40, "{rounds}");
    }

    proptest! {
        /// Whatever the broker does, what it holds of a payment in the end reads in order from the last copy of each,
        /// and every message gets exactly one verdict.
        #[test]
        fn no_fate_reorders_a_payment(fates in prop::collection::vec((0u8..8, 0u8..4), 1..400)) {
            let mut now = Instant::now();
            let mut backlog = filled(&(0..40).map(|number| (u128::from(number % 7), number)).collect::<Vec<_>>());
            let mut fates = fates.into_iter();
            let (mut log, mut verdicts, mut pushed) = (Vec::new(), HashMap::new(), 40);
            while !backlog.is_empty() {
                if !backlog.is_ready(now) {
                    now = backlog.wake_at().expect("a pause");
                }
                let round = backlog.next_round(now);
                if pushed < 60 {
                    backlog.push(Uuid::from_u128(u128::from(pushed % 7)), pushed);
                    pushed += 1;
                }
                let (mut sent, mut closed) = (Vec::new(), None);
                for waiting in &round {
                    let (fate, arrives) = fates.next().unwrap_or((0, 0));
                    let fate = if closed.is_some() { 1 } else { fate };
                    let (known, arrived) = match fate {
                        1 => (Sent::Unknown, arrives == 0 && closed.is_none()),
                        2 => (Sent::Refused("no".to_owned()), false),
                        3 => { closed = Some("406"); (Sent::Unknown, false) }
                        _ => (Sent::Confirmed, true),
                    };
                    if arrived {
                        log.push(waiting.message);
                    }
                    sent.push(known);
                }
                for (message, verdict) in backlog.settle(round, sent, closed, now) {
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
}
