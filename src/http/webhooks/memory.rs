//! The memory that the webhooks of one variant may take. Only bytes that have arrived count, so that many clients that
//! send next to nothing hold next to nothing.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many bytes of each webhook count as small.
const SMALL: usize = 32 * 1024;

/// The limit for the small parts: as much as all connections together can fill while their bodies arrive.
const SMALL_MAX: usize = 8 * 1024 * 1024;

/// The limit for everything beyond the small parts.
const LARGE_MAX: usize = 16 * 1024 * 1024;

/// The memory of one variant.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

/// The memory that one webhook takes. Dropping it gives the memory back.
#[derive(Debug)]
pub struct Reservation {
    size: usize,
    small: OwnedSemaphorePermit,
    large: OwnedSemaphorePermit,
}

/// No memory is left.
#[derive(Debug)]
pub(super) struct Full;

impl Memory {
    /// Creates the memory, all of it free.
    pub(super) fn new() -> Memory {
        Memory { small: Arc::new(Semaphore::new(SMALL_MAX)), large: Arc::new(Semaphore::new(LARGE_MAX)) }
    }

    /// Takes memory for the first bytes of a webhook.
    pub(super) fn begin(&self, bytes: usize) -> Result<Reservation, Full> {
        let mut reservation = Reservation { size: 0, small: take(&self.small, 0)?, large: take(&self.large, 0)? };
        self.extend(&mut reservation, bytes)?;
        Ok(reservation)
    }

    /// Takes memory for more bytes of the same webhook. Large webhooks leave no less for small ones, which are what
    /// gateways send.
    pub(super) fn extend(&self, reservation: &mut Reservation, bytes: usize) -> Result<(), Full> {
        let small = bytes.min(SMALL.saturating_sub(reservation.size));
        reservation.small.merge(take(&self.small, small)?);
        reservation.large.merge(take(&self.large, bytes - small)?);
        reservation.size += bytes;
        Ok(())
    }
}

fn take(from: &Arc<Semaphore>, bytes: usize) -> Result<OwnedSemaphorePermit, Full> {
    let bytes = u32::try_from(bytes).map_err(|_| Full)?;
    Arc::clone(from).try_acquire_many_owned(bytes).map_err(|_| Full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_webhooks_take_no_memory_from_small_ones() {
        let memory = Memory::new();
        let mut large = Vec::new();
        while let Ok(reservation) = memory.begin(512 * 1024) {
            large.push(reservation);
        }
        assert!(large.len() >= 32, "{}", large.len());
        let mut small = memory.begin(4 * 1024).expect("memory for a small one");
        memory.extend(&mut small, 4 * 1024).expect("it is still small");
        assert!(memory.extend(&mut small, 512 * 1024).is_err());
        large.pop();
        memory.extend(&mut small, 512 * 1024).expect("what was given back");
    }

    #[test]
    fn what_has_not_arrived_takes_no_memory() {
        let memory = Memory::new();
        let begun: Vec<_> = (0..1_000).map(|_| memory.begin(100)).collect();
        assert!(begun.iter().all(Result::is_ok));
        drop(begun);
        assert_eq!((memory.small.available_permits(), memory.large.available_permits()), (SMALL_MAX, LARGE_MAX));
    }
}
