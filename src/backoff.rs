//! Exponential backoff with jitter. Only this module uses the `backoff` crate, and only its policy: the crate is
//! unmaintained (RUSTSEC-2025-0012) and can be replaced here.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

/// An endless series of growing delays.
#[derive(Debug)]
pub struct Backoff {
    policy: ExponentialBackoff,
}

/// For connections: 100 ms to 5 s, without end.
pub fn reconnect() -> Backoff {
    Backoff::new(Duration::from_millis(100), 2.0, Duration::from_secs(5))
}

/// For contention with another writer and for short faults: 5 ms to 1 s, without end.
pub fn contention() -> Backoff {
    Backoff::new(Duration::from_millis(5), 2.0, Duration::from_secs(1))
}

impl Backoff {
    /// Delays that start at `first`, each `factor` times the one before, with up to 50 % jitter and never longer than
    /// `cap`.
    pub fn new(first: Duration, factor: f64, cap: Duration) -> Backoff {
        let policy = ExponentialBackoff {
            current_interval: first,
            initial_interval: first,
            multiplier: factor,
            max_interval: cap,
            // The crate's default gives up after 15 minutes.
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        Backoff { policy }
    }

    /// Returns the next delay and advances the series.
    pub fn next_delay(&mut self) -> Duration {
        let cap = self.policy.max_interval;
        // The crate adds the jitter after it has applied the cap.
        self.policy.next_backoff().unwrap_or(cap).min(cap)
    }

    /// Starts over at the first delay.
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
