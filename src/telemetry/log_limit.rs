//! Limits log lines that messages cause, so that nobody who may publish can fill the log.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Lets one log line per interval pass, and counts the others.
#[derive(Debug)]
pub struct LogLimit {
    interval: Duration,
    state: Mutex<Logged>,
}

#[derive(Debug)]
struct Logged {
    last: Option<Instant>,
    suppressed: u64,
}

impl LogLimit {
    /// One line per `interval`.
    pub const fn every(interval: Duration) -> LogLimit {
        LogLimit { interval, state: Mutex::new(Logged { last: None, suppressed: 0 }) }
    }

    /// Returns how many lines were suppressed since the last one that passed, or `None` if this one must not pass.
    pub fn pass(&self) -> Option<u64> {
        let now = Instant::now();
        let mut state = self.state.lock();
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < self.interval) {
            state.suppressed = state.suppressed.saturating_add(1);
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_passes_per_interval_and_says_how_many_did_not() {
        let limit = LogLimit::every(Duration::from_secs(60));
        assert_eq!([0; 3].map(|_| limit.pass()), [Some(0), None, None]);
        advance(Duration::from_secs(59)).await;
        assert_eq!(limit.pass(), None);
        advance(Duration::from_secs(1)).await;
        assert_eq!([0; 2].map(|_| limit.pass()), [Some(3), None]);
    }
}
