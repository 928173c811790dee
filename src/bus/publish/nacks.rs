//! Messages that the broker nacks (`basic.nack`) because a queue is full or has lost its leader.
//!
//! After a change of leaders RabbitMQ may nack everything for a queue on the channels that published to it before, for
//! as long as the old leader's node is away; a new channel on the same connection gets through. So a channel with nacks
//! is replaced, but less and less often while nothing changes, because a full queue nacks on every channel.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::verdict::Sent;
use crate::backoff::Backoff;

/// How long only nacks may arrive before the publisher is not ready.
const ONLY_NACKS_FOR: Duration = Duration::from_secs(5);

/// The minimum interval between log lines about nacks.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// The first and the longest interval between two replacements of a channel.
const REPLACED_EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// The nacks of one publisher's messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Nacked {
    /// How many nacks there were. A message that is sent again may count again.
    pub total: u64,
    /// Whether for some seconds there were only nacks.
    pub only: bool,
}

/// What all channels of a publisher share about nacks. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::bus) struct Nacks {
    shared: Arc<Mutex<Shared>>,
    sender: watch::Sender<Nacked>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The first nack since any message was accepted.
    since: Option<Instant>,
    /// Nacks that have not been logged yet.
    unlogged: u64,
    last_line: Option<Instant>,
}

impl Nacks {
    pub(in crate::bus) fn new() -> (Nacks, watch::Receiver<Nacked>) {
        let (sender, receiver) = watch::channel(Nacked::default());
        (Nacks { shared: Arc::default(), sender }, receiver)
    }

    /// Records the outcome of a batch on any channel. Returns how many nacks to log, if a log line is due.
    pub(in crate::bus) fn note(&self, sent: &[Sent], now: Instant) -> Option<u64> {
        let nacked = sent.iter().filter(|sent| is_nacked(sent)).count();
        let nacked = u64::try_from(nacked).unwrap_or(u64::MAX);
        // A message that was returned was accepted first.
        let is_taken = sent.iter().any(|sent| matches!(sent, Sent::Confirmed | Sent::Refused(_)));
        let mut shared = self.shared.lock();
        if is_taken {
            shared.since = None;
        } else if nacked > 0 {
            shared.since.get_or_insert(now);
        }
        let only = shared.since.is_some_and(|since| now >= since + ONLY_NACKS_FOR);
        self.sender.send_if_modified(|before| {
            let after = Nacked { total: before.total.saturating_add(nacked), only };
            std::mem::replace(before, after) != after
        });
        shared.unlogged = shared.unlogged.saturating_add(nacked);
        let is_early = shared.last_line.is_some_and(|last| now < last + LINE_EVERY);
        if shared.unlogged == 0 || is_early {
            return None;
        }
        shared.last_line = Some(now);
        Some(std::mem::take(&mut shared.unlogged))
    }
}

/// Decides when one channel is replaced.
#[derive(Debug)]
pub(in crate::bus) struct Replacement {
    last: Option<Instant>,
    /// The time from the last replacement to the next.
    pause: Duration,
    pauses: Backoff,
}

impl Replacement {
    pub(in crate::bus) fn new() -> Replacement {
        let (first, longest) = REPLACED_EVERY;
        Replacement { last: None, pause: Duration::ZERO, pauses: Backoff::new(first, 2.0, longest) }
    }

    /// Returns whether the channel of this batch must be replaced.
    pub(in crate::bus) fn is_due(&mut self, sent: &[Sent], now: Instant) -> bool {
        if !sent.iter().any(is_nacked) || self.last.is_some_and(|last| now < last + self.pause) {
            return false;
        }
        // Nacks of long ago have no bearing on these.
        if self.last.is_none_or(|last| now > last + 2 * REPLACED_EVERY.1) {
            self.pauses.reset();
        }
        self.last = Some(now);
        self.pause = self.pauses.next_delay();
        true
    }
}

fn is_nacked(sent: &Sent) -> bool {
    matches!(sent, Sent::Nacked(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nack() -> Sent {
        Sent::Nacked("full".to_owned())
    }

    #[test]
    fn a_channel_is_replaced_at_the_first_nack_and_less_and_less_often_while_they_go_on() {
        let mut replacement = Replacement::new();
        let begun = Instant::now();
        assert!(!replacement.is_due(&[Sent::Confirmed, Sent::Unknown], begun));
        assert!(replacement.is_due(&[nack(), nack()], begun));
        assert!(!replacement.is_due(&[nack()], begun), "not at once again");
        // One batch every tenth of a second, for ten minutes.
        let rounds = (1..6000).map(|tenth| begun + Duration::from_millis(100) * tenth);
        let replaced: Vec<Instant> = rounds.filter(|now| replacement.is_due(&[nack()], *now)).collect();
        assert!((20..60).contains(&replaced.len()), "{}", replaced.len());
        assert!(replaced[0] < begun + Duration::from_secs(2), "soon a second time: an election takes its time");
        // Long after that, the intervals start over.
        let later = begun + Duration::from_secs(3600);
        assert!(replacement.is_due(&[nack()], later));
        assert!(replacement.is_due(&[nack()], later + Duration::from_secs(2)));
    }

    #[test]
    fn only_nacks_for_some_seconds_are_reported_until_a_message_is_accepted() {
        let (nacks, nacked) = Nacks::new();
        let begun = Instant::now();
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        let only = || nacked.borrow().only;
        nacks.note(&[nack()], at(0));
        nacks.note(&[nack(), Sent::Confirmed], at(4));
        nacks.note(&[nack()], at(6));
        assert!(!only(), "another message was taken");
        nacks.note(&[Sent::Unknown], at(12));
        assert!(only(), "no confirm is none");
        nacks.note(&[Sent::Refused("no route".to_owned())], at(13));
        assert!(!only(), "it came back, so it was taken");
        assert_eq!(nacked.borrow().total, 3);
    }

    #[test]
    fn log_lines_are_few_and_count_all_nacks() {
        let (nacks, _nacked) = Nacks::new();
        let begun = Instant::now();
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        assert_eq!(nacks.note(&[Sent::Confirmed], at(0)), None);
        assert_eq!(nacks.note(&[nack(), nack()], at(1)), Some(2));
        assert_eq!(nacks.note(&[nack()], at(2)), None);
        assert_eq!(nacks.clone().note(&[nack(), nack()], at(29)), None, "whichever channel it is");
        assert_eq!(nacks.note(&[nack()], at(31)), Some(4));
        assert_eq!(nacks.note(&[Sent::Confirmed], at(90)), None);
    }
}
