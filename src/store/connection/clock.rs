//! PostgreSQL's clock, read rarely and carried forward by the machine's monotonic one: leases and due times must agree
//! across replicas whose clocks differ, and must not jump when a clock is set.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use parking_lot::RwLock;

use super::Connection;
use crate::store::error::StoreError;
use crate::store::row::ReadColumn;

/// A slower reading is imprecise: its error is up to half of that.
const SLOW: Duration = Duration::from_millis(500);
/// How long a good reading is better than a slow one. Machines' clocks drift by up to a tenth of a second in this time.
const GOOD_FOR: Duration = Duration::from_secs(600);

/// An estimate of PostgreSQL's clock.
#[derive(Debug, Default)]
pub struct Clock {
    last: RwLock<Option<Reading>>,
}

/// A reading of PostgreSQL's clock, and when it was taken.
#[derive(Debug, Clone, Copy)]
struct Reading {
    theirs: Timestamp,
    at: Instant,
}

impl Clock {
    /// The time by PostgreSQL's clock, to the microsecond that it stores; by the local clock until the first reading.
    pub fn now(&self) -> Timestamp {
        self.at(Instant::now())
    }

    /// Reads PostgreSQL's clock.
    ///
    /// # Errors
    /// The database query fails.
    pub async fn calibrate(&self, connection: &Connection) -> Result<(), StoreError> {
        let before = Instant::now();
        let row = connection.query_one("SELECT clock_timestamp()", &[]).await?;
        let after = Instant::now();
        self.set(row.read(0)?, before, after);
        Ok(())
    }

    fn at(&self, instant: Instant) -> Timestamp {
        let last = *self.last.read();
        let Some(reading) = last else {
            return Timestamp::now();
        };
        let elapsed = SignedDuration::try_from(instant.saturating_duration_since(reading.at)).unwrap_or_default();
        let now = reading.theirs.checked_add(elapsed).unwrap_or(reading.theirs);
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }

    fn set(&self, theirs: Timestamp, before: Instant, after: Instant) {
        let round_trip = after.saturating_duration_since(before);
        let mut last = self.last.write();
        let is_better = |last: Reading| after.saturating_duration_since(last.at) < GOOD_FOR;
        if round_trip > SLOW && last.is_some_and(is_better) {
            return;
        }
        // PostgreSQL read its clock half a round trip ago.
        *last = Some(Reading { theirs, at: before + round_trip / 2 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEIRS: Timestamp = Timestamp::UNIX_EPOCH;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_goes_on_from_the_middle_of_the_reading_and_ignores_the_wall_clock() {
        let clock = Clock::default();
        let begun = Instant::now();
        // Decades away from the wall clock, which must not show in what follows.
        clock.set(THEIRS, begun, begun + Duration::from_millis(100));
        assert_eq!(clock.at(begun + Duration::from_millis(50)), THEIRS);
        assert_eq!(clock.at(begun + Duration::from_millis(1_050)), THEIRS + seconds(1));
    }

    #[test]
    fn a_slow_reading_is_used_only_where_there_is_nothing_better() {
        let clock = Clock::default();
        let begun = Instant::now();
        clock.set(THEIRS, begun, begun + seconds(4));
        assert_eq!(clock.at(begun + seconds(2)), THEIRS, "the first is better than none");
        clock.set(THEIRS + seconds(30), begun + seconds(10), begun + seconds(10));
        assert_eq!(clock.at(begun + seconds(10)), THEIRS + seconds(30));
        clock.set(THEIRS, begun + seconds(20), begun + seconds(21));
        assert_eq!(clock.at(begun + seconds(20)), THEIRS + seconds(40), "a slow one is left");
        clock.set(THEIRS, begun + seconds(700), begun + seconds(702));
        assert_eq!(clock.at(begun + seconds(701)), THEIRS, "the good one is too old");
    }
}
