//! The messages that wait to be published on one channel, and those that go again after a batch. Pure logic, without
//! broker or clock.
//!
//! Messages with the same `order` (a payment's events) keep their order; all others are independent of each other.
//! After a batch, the first message of an order that was not confirmed is sent again together with all later ones of
//! that order, confirmed or not: a consumer may see a message twice, but never a gap.
//!
//! A refused message is retried on its own after a pause, so that it does no harm while a queue is being repaired. It
//! is set aside only after it was refused alone as often as allowed. If a message closes the channel, nothing shows
//! which one of the batch it was: batches are halved until it is alone. A nacked message is retried forever, with
//! growing pauses.
//!
//! Paused orders are kept apart with all their messages, so that thousands of them cost the others nothing.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::verdict::{Sent, Verdict};

/// The most messages in one batch.
pub(in crate::bus) const BATCH_MAX: usize = 512;

/// How many messages whose pause is over may be in the queue at once: even after a subscriber's queue was full for an
/// hour, messages for everybody else get nearly all of each batch.
const AGAIN: usize = BATCH_MAX / 8;

/// How often the pause doubles of a message that is nacked repeatedly.
const DOUBLINGS: u32 = 3;

/// When a refusal is final.
#[derive(Debug, Clone, Copy)]
pub(in crate::bus) struct Policy {
    /// How many refusals are final. If it is one, any refusal counts; if more, only those of a message that was sent
    /// alone.
    pub refusals: u32,
    /// How long a refused message and those behind it wait.
    pub pause: Duration,
}

/// A message and its history.
#[derive(Debug)]
pub(in crate::bus) struct Waiting<M> {
    order: Uuid,
    refusals: u32,
    nacks: u32,
    suspect: bool,
    /// Whether its pause is over and it has been in no batch since.
    released: bool,
    pub message: M,
}

/// The waiting messages, in order.
#[derive(Debug)]
pub(in crate::bus) struct Pending<M> {
    policy: Policy,
    queue: VecDeque<Waiting<M>>,
    /// How many messages in the queue were released and not sent since.
    released: usize,
    /// The paused orders, with all their messages.
    paused: HashMap<Uuid, VecDeque<Waiting<M>>>,
    /// When their pauses end.
    ends: BTreeSet<(Instant, Uuid)>,
    /// How many messages they have.
    paused_messages: usize,
    limit: usize,
}

impl<M> Pending<M> {
    pub(in crate::bus) fn new(policy: Policy) -> Pending<M> {
        Pending {
            policy,
            queue: VecDeque::new(),
            released: 0,
            paused: HashMap::new(),
            ends: BTreeSet::new(),
            paused_messages: 0,
            limit: BATCH_MAX,
        }
    }

    pub(in crate::bus) fn push(&mut self, order: Uuid, message: M) {
        let waiting = Waiting { order, refusals: 0, nacks: 0, suspect: false, released: false, message };
        match self.paused.get_mut(&order) {
            Some(behind) => {
                behind.push_back(waiting);
                self.paused_messages += 1;
            }
            None => self.queue.push_back(waiting),
        }
    }

    /// Returns how many messages wait in total.
    pub(in crate::bus) fn len(&self) -> usize {
        self.queue.len() + self.paused_messages
    }

    /// Returns how many of them wait only for the next batch.
    pub(in crate::bus) fn fresh(&self) -> usize {
        self.queue.len().saturating_sub(self.released)
    }

    pub(in crate::bus) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns whether there is anything to send now.
    pub(in crate::bus) fn is_ready(&self, now: Instant) -> bool {
        !self.queue.is_empty() || self.wake_at().is_some_and(|end| end <= now)
    }

    /// Returns when the first pause ends.
    pub(in crate::bus) fn wake_at(&self) -> Option<Instant> {
        self.ends.first().map(|(end, _)| *end)
    }

    /// Takes out what to send now; pass it to `settle` afterwards.
    pub(in crate::bus) fn next_batch(&mut self, now: Instant) -> Vec<Waiting<M>> {
        self.release(now);
        let mut batch: Vec<Waiting<M>> = Vec::new();
        let mut left = VecDeque::new();
        let mut behind = HashSet::new();
        while let Some(mut waiting) = self.queue.pop_front() {
            if behind.contains(&waiting.order) || (waiting.suspect && !batch.is_empty()) {
                behind.insert(waiting.order);
                left.push_back(waiting);
                continue;
            }
            let is_single = waiting.suspect;
            if std::mem::take(&mut waiting.released) {
                self.released -= 1;
            }
            batch.push(waiting);
            if is_single || batch.len() >= self.limit {
                break;
            }
        }
        left.append(&mut self.queue);
        self.queue = left;
        batch
    }

    /// Puts messages whose pause is over back into the queue, the earliest end first.
    fn release(&mut self, now: Instant) {
        while self.released < AGAIN
            && let Some((_, order)) = self.ends.first().copied().filter(|(end, _)| *end <= now)
        {
            self.ends.pop_first();
            for waiting in self.paused.remove(&order).into_iter().flatten() {
                self.queue.push_back(Waiting { released: true, ..waiting });
                self.released += 1;
                self.paused_messages -= 1;
            }
        }
    }

    /// Decides on each message of a batch. What has to go again waits before everything that came later. `sent` has the
    /// outcome of each message; `closed` is the reason if the broker closed the channel because of a message.
    pub(in crate::bus) fn settle(
        &mut self,
        batch: Vec<Waiting<M>>,
        sent: Vec<Sent>,
        closed: Option<&str>,
        now: Instant,
    ) -> Vec<(M, Verdict)> {
        let is_single = batch.len() == 1;
        self.limit = match closed {
            Some(_) => (batch.len() / 2).max(1),
            None => (self.limit * 2).min(BATCH_MAX),
        };
        let mut decided = Vec::with_capacity(batch.len());
        let mut again: Vec<Waiting<M>> = Vec::new();
        let mut behind = HashSet::new();
        let mut pauses: HashMap<Uuid, Instant> = HashMap::new();
        for (mut waiting, sent) in batch.into_iter().zip(sent) {
            let refusal = match (sent, closed) {
                _ if behind.contains(&waiting.order) => None,
                (Sent::Confirmed, _) => {
                    decided.push((waiting.message, Verdict::Confirmed));
                    continue;
                }
                (Sent::Refused(reason), _) => Some(reason),
                (Sent::Nacked(reason), _) if self.policy.refusals == 1 => Some(reason),
                (Sent::Nacked(_), _) => {
                    // Retried forever: setting it aside would take every payment's events from a subscriber whose queue
                    // is full.
                    let pause = self.policy.pause.saturating_mul(1 << waiting.nacks.min(DOUBLINGS));
                    pauses.insert(waiting.order, now + pause);
                    waiting.nacks = waiting.nacks.saturating_add(1);
                    None
                }
                (Sent::Unknown, Some(reason)) if is_single => Some(reason.to_owned()),
                (Sent::Unknown, _) => None,
            };
            if let Some(reason) = refusal {
                if is_single || self.policy.refusals == 1 {
                    waiting.refusals += 1;
                }
                if waiting.refusals >= self.policy.refusals {
                    self.set_aside(waiting, reason, &mut decided);
                    continue;
                }
                waiting.suspect = true;
                pauses.insert(waiting.order, now + self.policy.pause);
            }
            behind.insert(waiting.order);
            again.push(waiting);
        }
        for waiting in again.into_iter().rev() {
            self.queue.push_front(waiting);
        }
        self.pause(pauses);
        decided
    }

    /// Takes these orders out of the queue until the given time.
    fn pause(&mut self, pauses: HashMap<Uuid, Instant>) {
        if pauses.is_empty() {
            return;
        }
        for waiting in std::mem::take(&mut self.queue) {
            let Some(until) = pauses.get(&waiting.order).copied() else {
                self.queue.push_back(waiting);
                continue;
            };
            if waiting.released {
                self.released -= 1;
            }
            self.paused_messages += 1;
            self.ends.insert((until, waiting.order));
            self.paused.entry(waiting.order).or_default().push_back(Waiting { released: false, ..waiting });
        }
    }

    /// Gives up a message and all that wait behind it.
    fn set_aside(&mut self, culprit: Waiting<M>, reason: String, decided: &mut Vec<(M, Verdict)>) {
        decided.push((culprit.message, Verdict::Refused(reason)));
        for waiting in std::mem::take(&mut self.queue) {
            if waiting.order != culprit.order {
                self.queue.push_back(waiting);
                continue;
            }
            if waiting.released {
                self.released -= 1;
            }
            decided.push((waiting.message, Verdict::Behind));
        }
    }
}

#[cfg(test)]
mod tests;
