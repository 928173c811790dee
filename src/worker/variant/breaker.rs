//! The circuit breaker of a variant, per replica. It opens after consecutive failures of several payments, or when the
//! gateway rejects our credentials once. Calls then pause, and one probe at a time finds out whether the gateway has
//! recovered.
//!
//! A payment counts once, however often it is tried: if only its own calls fail, the cause may be the payment and not
//! the gateway. For the same reason, a payment that failed a probe lets others probe first.

use std::collections::HashSet;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

/// What the breaker lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// All calls.
    Closed,
    /// No calls, until a probe is due.
    Open {
        /// When a probe may go out.
        until: Instant,
    },
    /// One probe; half-open.
    Probing,
}

/// How many payments that failed a probe are remembered. Beyond that, all are forgotten and take turns anew.
const PROBED_MAX: usize = 1024;

/// Counts the payments that failed consecutively.
#[derive(Debug)]
pub struct Breaker {
    failures_max: usize,
    open: Duration,
    failures: Mutex<Failures>,
    state: watch::Sender<State>,
}

/// The payments that failed.
#[derive(Debug, Default)]
struct Failures {
    /// The payments that failed since the last success.
    payments: HashSet<Uuid>,
    /// The breaker closed without a probe: one failure opens it again.
    on_trial: bool,
    /// The payments that failed a probe since the last success.
    probed: HashSet<Uuid>,
}

impl Breaker {
    /// A closed breaker that opens for `open` after consecutive failures of this many payments.
    pub fn new(failures_max: u32, open: Duration) -> Breaker {
        let failures_max = usize::try_from(failures_max).unwrap_or(usize::MAX);
        Breaker { failures_max, open, failures: Mutex::default(), state: watch::Sender::new(State::Closed) }
    }

    /// Subscribes to changes of the state.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// The current state.
    pub fn state(&self) -> State {
        *self.state.borrow()
    }

    /// Returns how long calls are paused, or `None` if the breaker is closed.
    pub fn paused_for(&self) -> Option<Duration> {
        match self.state() {
            State::Closed => None,
            State::Open { until } => Some(until.saturating_duration_since(Instant::now())),
            // Others wait for the outcome of the probe.
            State::Probing => Some(Duration::from_secs(1)),
        }
    }

    /// Switches an open breaker to half-open once a probe is due.
    pub fn probe(&self) {
        self.state.send_if_modified(|state| {
            let due = matches!(state, State::Open { until } if *until <= Instant::now());
            if due {
                *state = State::Probing;
            }
            due
        });
    }

    /// Closes the breaker because there was nothing to probe with. The next failure opens it again.
    pub fn nothing_to_probe(&self) {
        self.failures.lock().on_trial = true;
        self.close();
    }

    /// Switches a breaker that closed without a probe to half-open: what follows it begins with one call.
    pub fn probe_first(&self) {
        if self.failures.lock().on_trial {
            self.state.send_if_modified(|state| {
                let is_closed = *state == State::Closed;
                if is_closed {
                    *state = State::Probing;
                }
                is_closed
            });
        }
    }

    /// Whether this payment failed a probe since the last success. Others then probe first.
    pub fn failed_a_probe(&self, payment: Uuid) -> bool {
        self.failures.lock().probed.contains(&payment)
    }

    /// Records a call that the gateway answered properly.
    pub fn succeeded(&self) {
        *self.failures.lock() = Failures::default();
        if self.state() == State::Probing {
            self.close();
        }
    }

    /// Records a call of this payment that failed because of the gateway.
    pub fn failed(&self, payment: Uuid) {
        let mut failures = self.failures.lock();
        failures.payments.insert(payment);
        let are_many = failures.on_trial || failures.payments.len() >= self.failures_max;
        let opens = self.state() == State::Probing || (self.state() == State::Closed && are_many);
        if opens {
            self.open(&mut failures, payment);
        }
    }

    /// Opens the breaker at once: a call of this payment failed in a way that every other call will.
    pub fn trip(&self, payment: Uuid) {
        let mut failures = self.failures.lock();
        if !matches!(self.state(), State::Open { .. }) {
            self.open(&mut failures, payment);
        }
    }

    fn open(&self, failures: &mut Failures, payment: Uuid) {
        failures.payments.clear();
        failures.on_trial = false;
        if self.state() == State::Probing {
            if failures.probed.len() >= PROBED_MAX {
                failures.probed.clear();
            }
            failures.probed.insert(payment);
        }
        self.state.send_replace(State::Open { until: Instant::now() + self.open });
    }

    fn close(&self) {
        self.state.send_if_modified(|state| std::mem::replace(state, State::Closed) != State::Closed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Duration = Duration::from_secs(30);

    fn payment(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn fail(breaker: &Breaker, payments: std::ops::Range<u128>) {
        payments.for_each(|number| breaker.failed(payment(number)));
    }

    async fn until_probed(breaker: &Breaker) {
        tokio::time::advance(OPEN + Duration::from_secs(1)).await;
        breaker.probe();
        assert_eq!(breaker.state(), State::Probing);
    }

    #[tokio::test(start_paused = true)]
    async fn opens_after_failures_in_a_row_and_closes_by_a_probe() {
        let breaker = Breaker::new(3, OPEN);
        fail(&breaker, 0..2);
        breaker.succeeded();
        fail(&breaker, 0..2);
        assert_eq!(breaker.state(), State::Closed);
        breaker.failed(payment(2));
        assert_eq!(breaker.paused_for(), Some(OPEN));
        breaker.probe();
        assert!(matches!(breaker.state(), State::Open { .. }), "no probe before its time");
        until_probed(&breaker).await;
        breaker.failed(payment(0));
        assert!(matches!(breaker.state(), State::Open { .. }), "a failed probe opens it again");
        until_probed(&breaker).await;
        breaker.succeeded();
        assert_eq!(breaker.paused_for(), None);
        breaker.failed(payment(0));
        assert_eq!(breaker.state(), State::Closed, "the count began anew");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_closed_without_a_probe_may_be_probed_first() {
        let breaker = Breaker::new(2, OPEN);
        breaker.probe_first();
        assert_eq!(breaker.state(), State::Closed, "nothing has failed");
        fail(&breaker, 0..2);
        breaker.nothing_to_probe();
        assert_eq!(breaker.state(), State::Closed);
        breaker.probe_first();
        assert_eq!(breaker.state(), State::Probing);
        breaker.succeeded();
        breaker.probe_first();
        assert_eq!(breaker.state(), State::Closed, "it has recovered");
    }

    #[tokio::test(start_paused = true)]
    async fn a_payment_counts_once_however_often_it_fails() {
        let breaker = Breaker::new(3, OPEN);
        for _ in 0..100 {
            fail(&breaker, 0..2);
        }
        assert_eq!(breaker.state(), State::Closed, "two payments are ill, not the gateway");
        breaker.failed(payment(2));
        assert_eq!(breaker.paused_for(), Some(OPEN));
    }

    #[tokio::test(start_paused = true)]
    async fn a_payment_whose_probe_failed_is_known_until_a_call_succeeds() {
        let breaker = Breaker::new(2, OPEN);
        fail(&breaker, 0..2);
        assert!(!breaker.failed_a_probe(payment(0)), "that was no probe");
        for number in 0..2 {
            until_probed(&breaker).await;
            breaker.failed(payment(number));
        }
        assert!(breaker.failed_a_probe(payment(0)) && breaker.failed_a_probe(payment(1)));
        assert!(!breaker.failed_a_probe(payment(2)));
        until_probed(&breaker).await;
        breaker.succeeded();
        assert!(!breaker.failed_a_probe(payment(0)));
    }

    #[tokio::test(start_paused = true)]
    async fn one_refusal_of_our_credentials_opens_it() {
        let breaker = Breaker::new(20, OPEN);
        breaker.trip(payment(0));
        assert_eq!(breaker.paused_for(), Some(OPEN));
        tokio::time::advance(Duration::from_secs(10)).await;
        breaker.trip(payment(1));
        assert_eq!(
            breaker.paused_for(),
            Some(Duration::from_secs(20)),
            "what was under way puts the probe off no further"
        );
        until_probed(&breaker).await;
        breaker.trip(payment(0));
        assert!(matches!(breaker.state(), State::Open { .. }));
        assert!(breaker.failed_a_probe(payment(0)));
    }

    #[tokio::test(start_paused = true)]
    async fn with_nothing_to_probe_the_next_failure_opens_it_again() {
        let breaker = Breaker::new(3, OPEN);
        fail(&breaker, 0..3);
        until_probed(&breaker).await;
        breaker.nothing_to_probe();
        assert_eq!(breaker.paused_for(), None);
        breaker.failed(payment(0));
        assert!(breaker.paused_for().is_some());
    }
}
