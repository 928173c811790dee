//! How many messages are fetched ahead of each queue, where their bodies may take only so much memory together.
//!
//! AMQP 0-9-1 bounds the number of messages that are under way to a consumer, and not their bytes: when a body is seen,
//! the broker has sent all that it may. So the bound that holds is on their number, as if each had the largest body.

use crate::bus::guard::BODY_READ_MAX;

const MEBIBYTE: u64 = 1024 * 1024;

/// How many messages each of these queues may have under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shares {
    /// How many queues there are; each has one message at least.
    queues: u64,
    /// What all of them would have beyond that.
    wanted: u64,
    /// What there is room for beyond that.
    room: u64,
}

impl Shares {
    /// For queues that would have so many each, within so many MiB.
    pub fn new(memory: Option<u32>, wanted: impl Iterator<Item = u16>) -> Shares {
        let (mut queues, mut all) = (0, 0);
        for one in wanted {
            queues += 1;
            all += u64::from(one.max(1));
        }
        let fitting = memory.map_or(all, |memory| u64::from(memory) * MEBIBYTE / BODY_READ_MAX);
        Shares { queues, wanted: all - queues, room: fitting.min(all).saturating_sub(queues) }
    }

    /// The share of a queue that would have so many: the same part for each.
    pub fn of(self, wanted: u16) -> u16 {
        if self.room >= self.wanted {
            return wanted.max(1);
        }
        let beyond = u64::from(wanted.max(1) - 1) * self.room / self.wanted;
        u16::try_from(1 + beyond).unwrap_or(wanted)
    }

    /// How much the largest bodies would take of all of them, in MiB.
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
