//! The rate limit of a variant, over all replicas: slots are reserved in PostgreSQL, some at a time. And that of a user, on
//! each replica.

use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::store::{Store, StoreError};

/// Slots reserved at once span at most this long, so that a replica that dies wastes no more.
const SPAN_MAX: f64 = 0.1;

/// How often it is told that a user asks for too much.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Calls a second over all replicas.
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
    /// A limit of so many calls a second.
    pub fn new(variant: &str, rate: f64) -> RateLimit {
        RateLimit {
            variant: variant.to_owned(),
            rate,
            reserved: Mutex::new(Reserved { next: Instant::now(), left: 0 }),
        }
    }

    /// Waits for the next slot; false where that comes after the deadline, and is left to another.
    ///
    /// # Errors
    /// The database cannot be asked.
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

/// Commands a second of one user on this replica, and a second's worth at once. A call waits for its slot; a command that is
/// beyond this is refused at once, for while it waited it would keep its place in the prefetch from those of others.
#[derive(Debug)]
pub struct Allowance {
    rate: f64,
    account: std::sync::Mutex<Account>,
}

#[derive(Debug)]
struct Account {
    /// How many may come, at this time.
    left: f64,
    at: Instant,
    /// When it was last told that none was left.
    told: Option<Instant>,
}

/// Whether a command is within an allowance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// It is, and is taken off.
    Granted,
    /// None is left.
    Spent {
        /// Whether that was not told for a while.
        is_news: bool,
    },
}

impl Allowance {
    /// So many commands a second.
    pub fn new(rate: f64) -> Allowance {
        let account = Account { left: at_once(rate), at: Instant::now(), told: None };
        Allowance { rate, account: std::sync::Mutex::new(account) }
    }

    /// Takes one command off.
    pub fn take(&self) -> Share {
        let now = Instant::now();
        let mut account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        let earned = now.duration_since(account.at).as_secs_f64() * self.rate;
        account.left = (account.left + earned).min(at_once(self.rate));
        account.at = now;
        if account.left >= 1.0 {
            account.left -= 1.0;
            return Share::Granted;
        }
        let is_news = account.told.is_none_or(|told| now.duration_since(told) >= TOLD_EVERY);
        if is_news {
            account.told = Some(now);
        }
        Share::Spent { is_news }
    }
}

/// How many commands may come at once.
fn at_once(rate: f64) -> f64 {
    rate.max(1.0)
}

/// How many slots are reserved at once.
fn slots(rate: f64) -> u32 {
    // Bounded below by one and above by a value that fits.
    (rate * SPAN_MAX).clamp(1.0, 10_000.0) as u32
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn granted(allowance: &Allowance) -> usize {
        std::iter::repeat_with(|| allowance.take()).take_while(|share| *share == Share::Granted).count()
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

    #[tokio::test(start_paused = true)]
    async fn that_it_is_spent_is_news_once_a_minute() {
        let allowance = Allowance::new(1.0);
        let spent = |is_news| Share::Spent { is_news };
        assert_eq!([0; 3].map(|_| allowance.take()), [Share::Granted, spent(true), spent(false)]);
        advance(TOLD_EVERY).await;
        assert_eq!([0; 3].map(|_| allowance.take()), [Share::Granted, spent(true), spent(false)]);
    }
}
