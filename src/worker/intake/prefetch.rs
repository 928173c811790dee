//! How many messages are prefetched from each queue, if their bodies together may only use so much memory.
//!
//! AMQP 0-9-1 limits the number of unacknowledged messages of a consumer, not their bytes: by the time a body arrives,
//! the broker has sent all it may. So the number is limited as if each message had the largest body.

use crate::bus::connection::guard::BODY_READ_MAX;

const MEBIBYTE: u64 = 1024 * 1024;

/// Distributes a number of prefetched messages over the queues.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shares {
    /// The number of queues; each has at least one message.
    queues: u64,
    /// The total of configured prefetches beyond that minimum.
    wanted: u64,
    /// How many messages fit into the memory beyond that minimum.
    room: u64,
}

impl Shares {
    /// For queues with these configured prefetches, within this many MiB.
    pub fn new(memory: Option<u32>, wanted: impl Iterator<Item = u16>) -> Shares {
        let (mut queues, mut all) = (0, 0);
        for one in wanted {
            queues += 1;
            all += u64::from(one.max(1));
        }
        let fitting = memory.map_or(all, |memory| u64::from(memory) * MEBIBYTE / BODY_READ_MAX);
        Shares { queues, wanted: all - queues, room: fitting.min(all).saturating_sub(queues) }
    }

    /// The prefetch of a queue that is configured with `wanted`. All queues are reduced by the same factor.
    pub fn of(self, wanted: u16) -> u16 {
        if self.room >= self.wanted {
            return wanted.max(1);
        }
        let beyond = u64::from(wanted.max(1) - 1) * self.room / self.wanted;
        u16::try_from(1 + beyond).unwrap_or(wanted)
    }

    /// How much memory the largest bodies would use in all queues together, in MiB.
    pub fn mebibytes(self) -> u64 {
        ((self.queues + self.room) * BODY_READ_MAX).div_ceil(MEBIBYTE)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn without_a_limit_or_with_a_wide_one_each_queue_has_what_it_would_have() {
        let wanted = [96, 32, 32, 32];
        for memory in [None, Some(204), Some(10_000)] {
            let shares = Shares::new(memory, wanted.into_iter());
            assert_eq!((wanted.map(|one| shares.of(one)), shares.mebibytes()), (wanted, 204), "{memory:?}");
        }
    }

    #[test]
    fn within_a_limit_each_has_the_same_part() {
        let wanted = [960, 32, 32, 32];
        let shares = Shares::new(Some(128), wanted.into_iter());
        assert_eq!(wanted.map(|one| shares.of(one)), [106, 4, 4, 4]);
        assert_eq!(shares.mebibytes(), 128);
    }

    proptest! {
        #[test]
        fn all_of_them_fit(memory in 1_u32..4096, wanted in proptest::collection::vec(0_u16..=2000, 1..40)) {
            let shares = Shares::new(Some(memory), wanted.iter().copied());
            let given: Vec<u16> = wanted.iter().map(|one| shares.of(*one)).collect();
            prop_assert!(given.iter().zip(&wanted).all(|(given, wanted)| (1..=(*wanted).max(1)).contains(given)));
            let all: u64 = given.iter().map(|given| u64::from(*given)).sum();
            let fitting = u64::from(memory) * MEBIBYTE / BODY_READ_MAX;
            prop_assert!(all <= fitting.max(wanted.len() as u64), "{} of {}", all, fitting);
        }
    }
}
