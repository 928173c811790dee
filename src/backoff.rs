//! Delays that grow, with jitter. The only place that knows the `backoff` crate: it is unmaintained (RUSTSEC-2025-0012),
//! so nothing but its policy is used, and it can be replaced here.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

/// A series of delays.
#[derive(Debug)]
pub struct Backoff {
    policy: ExponentialBackoff,
}

/// For connections: from a tenth of a second to five seconds, for ever.
pub fn reconnect() -> Backoff {
    Backoff::new(Duration::from_millis(100), 2.0, Duration::from_secs(5))
}

/// For what another writer or a short fault delays: from a few milliseconds to a second, for ever.
pub fn contention() -> Backoff {
    Backoff::new(Duration::from_millis(5), 2.0, Duration::from_secs(1))
}

impl Backoff {
    /// Delays from `first`, each `factor` times the one before, up to `cap`; each with a jitter of half its length.
    pub fn new(first: Duration, factor: f64, cap: Duration) -> Backoff {
        let policy = ExponentialBackoff {
            current_interval: first,
            initial_interval: first,
            multiplier: factor,
            max_interval: cap,
            // Its default would give up after 15 minutes.
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        Backoff { policy }
    }

    /// The next delay.
    pub fn next_delay(&mut self) -> Duration {
        let cap = self.policy.max_interval;
        // The crate caps the base and then adds the jitter.
        self.policy.next_backoff().unwrap_or(cap).min(cap)
    }

    /// Begins again at the first delay.
    pub fn reset(&mut self) {
        self.policy.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_their_cap_and_never_end() {
        let mut backoff = Backoff::new(Duration::from_millis(100), 2.0, Duration::from_secs(2));
        let delays: Vec<Duration> = (0..200).map(|_| backoff.next_delay()).collect();
        assert!(delays[0] >= Duration::from_millis(50) && delays[0] <= Duration::from_millis(150));
        assert!(delays.iter().all(|delay| *delay <= Duration::from_secs(2)));
        assert!(delays[100..].iter().all(|delay| *delay >= Duration::from_secs(1)));
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(150));
    }
}
