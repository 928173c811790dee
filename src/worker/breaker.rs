//! The circuit breaker of a variant: after so many failures in a row, or one refusal of our credentials, calls pause, and one probe at a time finds out
//! whether the gateway is well again. It holds per replica.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// What a breaker lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Everything.
    Closed,
    /// Nothing, until then.
    Open {
        /// When a probe may go out.
        until: Instant,
    },
    /// One probe.
    Probing,
}

/// Counts failures in a row.
#[derive(Debug)]
pub struct Breaker {
    failures_max: u32,
    open: Duration,
    failures: Mutex<u32>,
    state: watch::Sender<State>,
}

impl Breaker {
    /// A closed breaker that opens for `open` after so many failures in a row.
    pub fn new(failures_max: u32, open: Duration) -> Breaker {
        Breaker { failures_max, open, failures: Mutex::new(0), state: watch::Sender::new(State::Closed) }
    }

    /// Tells of every change.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// What it lets through now.
    pub fn state(&self) -> State {
        *self.state.borrow()
    }

    /// How long calls are held back; nothing while they are not.
    pub fn hold(&self) -> Option<Duration> {
        match self.state() {
            State::Closed => None,
            State::Open { until } => Some(until.saturating_duration_since(Instant::now())),
            // Others wait for the probe's outcome.
            State::Probing => Some(Duration::from_secs(1)),
        }
    }

    /// The time for a probe has come.
    pub fn probe(&self) {
        self.state.send_if_modified(|state| {
            let due = matches!(state, State::Open { until } if *until <= Instant::now());
            if due {
                *state = State::Probing;
            }
            due
        });
    }

    /// There was nothing to probe with: calls go on, and the next failure opens it again.
    pub fn nothing_to_probe(&self) {
        *self.failures() = self.failures_max.saturating_sub(1);
        self.close();
    }

    /// A call brought the gateway's own word.
    pub fn succeeded(&self) {
        *self.failures() = 0;
        if self.state() == State::Probing {
            self.close();
        }
    }

    /// A call failed for the gateway's sake.
    pub fn failed(&self) {
        let mut failures = self.failures();
        *failures = failures.saturating_add(1);
        let opens = self.state() == State::Probing || (self.state() == State::Closed && *failures >= self.failures_max);
        if opens {
            self.open(&mut failures);
        }
    }

    /// A call failed as every other will: it opens at once.
    pub fn trip(&self) {
        let mut failures = self.failures();
        if !matches!(self.state(), State::Open { .. }) {
            self.open(&mut failures);
        }
    }

    fn open(&self, failures: &mut u32) {
        *failures = 0;
        self.state.send_replace(State::Open { until: Instant::now() + self.open });
    }

    fn close(&self) {
        self.state.send_if_modified(|state| std::mem::replace(state, State::Closed) != State::Closed);
    }

    fn failures(&self) -> MutexGuard<'_, u32> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn opens_after_failures_in_a_row_and_closes_by_a_probe() {
        let breaker = Breaker::new(3, Duration::from_secs(30));
        breaker.failed();
        breaker.failed();
        breaker.succeeded();
        breaker.failed();
        breaker.failed();
        assert_eq!(breaker.state(), State::Closed);
        breaker.failed();
        assert_eq!(breaker.hold(), Some(Duration::from_secs(30)));
        breaker.probe();
        assert!(matches!(breaker.state(), State::Open { .. }), "no probe before its time");
        tokio::time::advance(Duration::from_secs(31)).await;
        breaker.probe();
        assert_eq!(breaker.state(), State::Probing);
        breaker.failed();
        assert!(matches!(breaker.state(), State::Open { .. }), "a failed probe opens it again");
        tokio::time::advance(Duration::from_secs(31)).await;
        breaker.probe();
        breaker.succeeded();
        assert_eq!(breaker.hold(), None);
        breaker.failed();
        assert_eq!(breaker.state(), State::Closed, "the count began anew");
    }

    #[tokio::test(start_paused = true)]
    async fn one_refusal_of_our_credentials_opens_it() {
        let breaker = Breaker::new(20, Duration::from_secs(30));
        breaker.trip();
        assert_eq!(breaker.hold(), Some(Duration::from_secs(30)));
        tokio::time::advance(Duration::from_secs(10)).await;
        breaker.trip();
        assert_eq!(breaker.hold(), Some(Duration::from_secs(20)), "what was under way puts the probe off no further");
        tokio::time::advance(Duration::from_secs(21)).await;
        breaker.probe();
        breaker.trip();
        assert!(matches!(breaker.state(), State::Open { .. }));
    }

    #[tokio::test(start_paused = true)]
    async fn with_nothing_to_probe_the_next_failure_opens_it_again() {
        let breaker = Breaker::new(3, Duration::from_secs(30));
        (0..3).for_each(|_| breaker.failed());
        tokio::time::advance(Duration::from_secs(31)).await;
        breaker.probe();
        breaker.nothing_to_probe();
        assert_eq!(breaker.hold(), None);
        breaker.failed();
        assert!(breaker.hold().is_some());
    }
}
