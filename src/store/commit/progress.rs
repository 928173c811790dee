//! Tracks whether commits go through. While a standby that every commit waits for is away, or the disk is full,
//! everything can be read and nothing is stored.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A failed commit is retried sooner than this; if it is not, nobody is waiting any more.
const TRIED_AGAIN: Duration = Duration::from_secs(5);

/// How the commits of a worker progress.
#[derive(Debug, Default)]
pub struct Progress(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// When the first statement started since one last stored anything.
    since: Option<Instant>,
    under_way: usize,
    /// When the last one ended.
    ended: Option<Instant>,
}

impl State {
    fn is_waited_for(&self, now: Instant) -> bool {
        self.under_way > 0 || self.ended.is_some_and(|ended| now < ended + TRIED_AGAIN)
    }
}

impl Progress {
    /// Returns for how long nothing has been stored although it was tried; zero while commits go through, or there are
    /// none.
    pub fn stalled_for(&self, now: Instant) -> Duration {
        let state = self.0.lock();
        let since = state.since.filter(|_| state.is_waited_for(now));
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Records the start of a statement; it ends when the returned guard is dropped.
    pub(in crate::store) fn begin(&self, now: Instant) -> UnderWay<'_> {
        let mut state = self.0.lock();
        if !state.is_waited_for(now) {
            state.since = None;
        }
        state.since.get_or_insert(now);
        state.under_way += 1;
        UnderWay(self)
    }
}

/// A statement in flight that stores something.
pub(in crate::store) struct UnderWay<'a>(&'a Progress);

impl UnderWay<'_> {
    /// Records that it stored something.
    pub(in crate::store) fn stored(&self, now: Instant) {
        let mut state = self.0.0.lock();
        // Restarts the time of those still in flight.
        state.since = (state.under_way > 1).then_some(now);
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        state.under_way = state.under_way.saturating_sub(1);
        state.ended = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_that_hangs_is_stalled_until_one_goes_through() {
        let progress = Progress::default();
        let stalled = || progress.stalled_for(Instant::now()).as_secs();
        assert_eq!(stalled(), 0, "there are none");
        let first = progress.begin(Instant::now());
        pass(7).await;
        assert_eq!(stalled(), 7);
        let second = progress.begin(Instant::now());
        pass(3).await;
        second.stored(Instant::now());
        drop(second);
        assert_eq!(stalled(), 0);
        pass(4).await;
        assert_eq!(stalled(), 4, "the first hangs still");
        first.stored(Instant::now());
        drop(first);
        assert_eq!(stalled(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn commits_that_fail_are_stalled_for_as_long_as_they_are_tried_again() {
        let progress = Progress::default();
        let stalled = || progress.stalled_for(Instant::now()).as_secs();
        for _ in 0..5 {
            drop(progress.begin(Instant::now()));
            pass(3).await;
        }
        assert_eq!(stalled(), 15);
        pass(3).await;
        assert_eq!(stalled(), 0, "nobody waits any more");
        let again = progress.begin(Instant::now());
        assert_eq!(stalled(), 0, "it begins anew");
        pass(1).await;
        assert_eq!(stalled(), 1);
        drop(again);
    }
}
