//! The payments whose events are set aside. The channels know them from the verdict on, before the database does.
//!
//! A later event could overtake the refused one until the verdict is stored in the database, and for as long as
//! anything works with data that was loaded before. So a channel accepts no more events of that payment, until a reader
//! that queried the database after the row was stored no longer finds it: a person has released the payment.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use uuid::Uuid;

/// How long a payment is remembered after its row was stored: longer than anything works with data that was loaded
/// before.
const REMEMBERED_FOR: Duration = Duration::from_secs(3600);

/// Old payments are forgotten whenever the number of payments is a multiple of this.
const FORGET_EVERY: usize = 4096;

/// The payments whose events are set aside, as far as this process knows. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct SetAside(Arc<Mutex<HashMap<Uuid, Known>>>);

/// How the process knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// By the broker's verdict. The database may not have it yet.
    Verdict,
    /// The database had it at this time.
    Stored(Instant),
}

impl SetAside {
    /// Records that the broker refuses an event of this payment for good.
    pub(in crate::bus) fn refused(&self, payment: Uuid) {
        self.0.lock().insert(payment, Known::Verdict);
    }

    /// Records that the database had the payment's row at this time.
    pub fn stored(&self, payment: Uuid, at: Instant) {
        let mut known = self.0.lock();
        let at = match known.get(&payment) {
            Some(Known::Stored(later)) => at.max(*later),
            Some(Known::Verdict) | None => at,
        };
        known.insert(payment, Known::Stored(at));
        if known.len().is_multiple_of(FORGET_EVERY) {
            known.retain(|_, known| match known {
                Known::Verdict => true,
                Known::Stored(stored) => at.saturating_duration_since(*stored) < REMEMBERED_FOR,
            });
        }
    }

    /// Records that the database, queried no sooner than `read_at`, did not have the row. If the row was stored before
    /// that, the payment was released; otherwise the row may still be to come.
    pub fn absent(&self, payment: Uuid, read_at: Instant) {
        let mut known = self.0.lock();
        if let Some(Known::Stored(stored)) = known.get(&payment)
            && *stored < read_at
        {
            known.remove(&payment);
        }
    }

    /// Returns whether the payment's events are set aside.
    pub(in crate::bus) fn contains(&self, payment: Uuid) -> bool {
        self.0.lock().contains_key(&payment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYMENT: Uuid = Uuid::from_u128(1);

    #[test]
    fn only_who_read_after_the_row_was_there_finds_it_released() {
        let aside = SetAside::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        aside.refused(PAYMENT);
        aside.absent(PAYMENT, at(1));
        assert!(aside.contains(PAYMENT), "its row is still to come");
        aside.stored(PAYMENT, at(2));
        aside.absent(PAYMENT, at(1));
        assert!(aside.contains(PAYMENT), "that was read before its row came");
        aside.absent(PAYMENT, at(3));
        assert!(!aside.contains(PAYMENT));
    }

    #[test]
    fn old_ones_are_forgotten() {
        let aside = SetAside::default();
        let start = Instant::now();
        for number in 0..FORGET_EVERY - 1 {
            aside.stored(Uuid::from_u128(number as u128), start);
        }
        aside.stored(Uuid::from_u128(u128::MAX), start + REMEMBERED_FOR);
        assert_eq!(aside.0.lock().len(), 1);
    }
}
