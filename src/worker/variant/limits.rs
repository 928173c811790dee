//! The rate limit for calls of a variant, over all replicas: time slots are reserved in PostgreSQL, several at once.
//! Also the rate limit for a user's commands, per replica.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::store::{Store, StoreError};

/// The longest span, in seconds, that is reserved at once: a replica that dies wastes no more.
const SPAN_MAX: f64 = 0.1;

/// A limit on calls per second, over all replicas.
#[derive(Debug)]
pub struct RateLimit {
    variant: String,
    rate: f64,
    reserved: Mutex<Reserved>,
}

#[derive(Debug)]
struct Reserved {
    next: Instant,
    left: u32,
}

impl RateLimit {
    /// A limit of this many calls per second.
    pub fn new(variant: &str, rate: f64) -> RateLimit {
        RateLimit {
            variant: variant.to_owned(),
            rate,
            reserved: Mutex::new(Reserved { next: Instant::now(), left: 0 }),
        }
    }

    /// Waits for the next time slot. Returns false if it is after the deadline; it is then left to another call.
    ///
    /// # Errors
    /// The time slots cannot be reserved in the database.
    pub async fn wait(&self, store: &Store, deadline: Instant) -> Result<bool, StoreError> {
        let slot = {
            let mut reserved = self.reserved.lock().await;
            if reserved.left == 0 {
                let count = slots(self.rate);
                let wait = store.reserve_calls(&self.variant, self.rate, count).await?;
                *reserved = Reserved { next: Instant::now() + wait, left: count };
            }
            let slot = reserved.next;
            if slot > deadline {
                return Ok(false);
            }
            reserved.left -= 1;
            reserved.next += Duration::from_secs_f64(1.0 / self.rate);
            slot
        };
        sleep_until(slot).await;
        Ok(true)
    }
}

/// A limit on commands per second of one user on this replica, with a burst of one second's worth. Unlike calls, which
/// wait for a time slot, commands beyond the limit are rejected at once: a waiting command would occupy a prefetch slot
/// that others need.
#[derive(Debug)]
pub struct Allowance {
    rate: f64,
    account: parking_lot::Mutex<Account>,
}

#[derive(Debug)]
struct Account {
    /// How many commands are allowed at the time `at`.
    left: f64,
    at: Instant,
}

impl Allowance {
    /// A limit of this many commands per second.
    pub fn new(rate: f64) -> Allowance {
        let account = Account { left: at_once(rate), at: Instant::now() };
        Allowance { rate, account: parking_lot::Mutex::new(account) }
    }

    /// Deducts one command; returns false if the limit is exceeded.
    pub fn take(&self) -> bool {
        let now = Instant::now();
        let mut account = self.account.lock();
        let earned = now.duration_since(account.at).as_secs_f64() * self.rate;
        account.left = (account.left + earned).min(at_once(self.rate));
        account.at = now;
        let is_granted = account.left >= 1.0;
        if is_granted {
            account.left -= 1.0;
        }
        is_granted
    }
}

/// The burst size: how many commands may come at once.
fn at_once(rate: f64) -> f64 {
    rate.max(1.0)
}

/// How many time slots are reserved at once.
fn slots(rate: f64) -> u32 {
    // At least one, and at most a value that fits.
    (rate * SPAN_MAX).clamp(1.0, 10_000.0) as u32
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn granted(allowance: &Allowance) -> usize {
        std::iter::repeat_with(|| allowance.take()).take_while(|granted| *granted).count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_is_worth_the_rate_and_no_pause_is_worth_more() {
        for (rate, at_once) in [(4.0, 4), (0.5, 1)] {
            let allowance = Allowance::new(rate);
            assert_eq!(granted(&allowance), at_once);
            advance(Duration::from_secs_f64(1.0 / rate)).await;
            assert_eq!(granted(&allowance), 1, "{rate}");
            advance(Duration::from_secs(3600)).await;
            assert_eq!(granted(&allowance), at_once, "{rate}");
        }
    }
}
