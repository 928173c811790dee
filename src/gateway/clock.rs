//! The gateway's clock, read from the `Date` header of its answers. Look-ups compare our times with the gateway's: if
//! the clocks differ, "not found" proves nothing.

use std::time::Instant;

use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use reqwest::header::{DATE, HeaderMap};

/// A reading of the gateway's clock, and when it was taken by the machine's monotonic clock. Accurate to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReading {
    /// The gateway's time.
    pub theirs: Timestamp,
    /// When it arrived.
    pub at: Instant,
}

impl ClockReading {
    /// How far the gateway's clock is ahead of one that reads `now` at this moment.
    pub fn ahead_of(self, now: Timestamp) -> SignedDuration {
        let since = SignedDuration::try_from(self.at.elapsed()).unwrap_or_default();
        self.theirs.duration_since(now) + since
    }
}

/// Holds the last reading.
#[derive(Debug, Default)]
pub(super) struct GatewayClock {
    last: Mutex<Option<ClockReading>>,
}

impl GatewayClock {
    /// Records an answer's `Date` if it is readable. An answer with an `Age` comes from a cache, and its date is old.
    pub(super) fn read(&self, headers: &HeaderMap) {
        let date = headers.get(DATE).filter(|_| !headers.contains_key("age")).and_then(|date| date.to_str().ok());
        let Some(theirs) = date.and_then(|date| rfc2822::parse(date).ok()).map(|date| date.timestamp()) else { return };
        *self.last.lock() = Some(ClockReading { theirs, at: Instant::now() });
    }

    pub(super) fn last(&self) -> Option<ClockReading> {
        *self.last.lock()
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    fn read(headers: &[(&'static str, &'static str)]) -> Option<ClockReading> {
        let clock = GatewayClock::default();
        let header =
            |(name, value): &(&'static str, &'static str)| (name.parse().unwrap(), HeaderValue::from_static(value));
        clock.read(&headers.iter().map(header).collect());
        clock.last()
    }

    #[test]
    fn a_date_says_how_far_the_clocks_are_apart() {
        let reading = read(&[("date", "Mon, 30 Nov 2026 12:01:30 GMT")]).unwrap();
        let ours: Timestamp = "2026-11-30T12:00:00Z".parse().unwrap();
        let ahead = reading.ahead_of(ours);
        assert!((90..92).contains(&ahead.as_secs()), "{ahead:?}");
    }

    #[test]
    fn what_says_nothing_of_the_clock_is_left_out() {
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[("date", "yesterday")]), None);
        assert_eq!(read(&[("date", "Mon, 30 Nov 2026 12:01:30 GMT"), ("age", "3600")]), None, "a cache's");
    }
}
