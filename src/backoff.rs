//! Exponential backoff with jitter. Only this module uses the `backoff` crate, and only its policy: the crate is
//! unmaintained (RUSTSEC-2025-0012) and can be replaced here.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;
use tokio::time::sleep;

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

/// Repeats an attempt until it succeeds, with a pause after each failure. `failed` gets the error and the number of the
/// attempt, counted from 1. It logs the error, or ends the series with an error of its own.
///
/// # Errors
/// `failed` ended the series.
pub async fn retry<T, E, Ended, Attempt>(
    mut pauses: Backoff,
    mut attempt: impl FnMut() -> Attempt,
    mut failed: impl FnMut(E, u32) -> Result<(), Ended>,
) -> Result<T, Ended>
where
    Attempt: Future<Output = Result<T, E>>,
{
    let mut number: u32 = 0;
    loop {
        number = number.saturating_add(1);
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) => failed(error, number)?,
        }
        sleep(pauses.next_delay()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::ready;

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

    #[tokio::test(start_paused = true)]
    async fn an_attempt_is_retried_until_it_succeeds_or_the_caller_ends_it() {
        let mut tries = 0;
        let attempt = || {
            tries += 1;
            ready(if tries == 3 { Ok(tries) } else { Err(tries) })
        };
        let mut seen = Vec::new();
        let note = |error: u32, number: u32| {
            seen.push((error, number));
            Ok::<(), Infallible>(())
        };
        assert_eq!(retry(contention(), attempt, note).await, Ok(3));
        assert_eq!(seen, [(1, 1), (2, 2)]);
        let give_up = |error: &str, number: u32| if number < 2 { Ok(()) } else { Err(error.to_owned()) };
        let ended: Result<(), String> = retry(contention(), || ready(Err("refused")), give_up).await;
        assert_eq!(ended, Err("refused".to_owned()));
    }
}
