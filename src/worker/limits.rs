//! The rate limit of a variant, over all replicas: slots are reserved in PostgreSQL, some at a time.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::store::{Store, StoreError};

/// Slots reserved at once span at most this long, so that a replica that dies wastes no more.
const SPAN_MAX: f64 = 0.1;

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

/// How many slots are reserved at once.
fn slots(rate: f64) -> u32 {
    // Bounded below by one and above by a value that fits.
    (rate * SPAN_MAX).clamp(1.0, 10_000.0) as u32
}
