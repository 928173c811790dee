//! Most tests need the services in peace; those that stop or restart one have all of them for themselves.

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

static LOCK: RwLock<()> = RwLock::const_new(());

/// Held by every test from its beginning to its end.
#[allow(dead_code)] // Only held.
pub enum ServiceLock {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

impl ServiceLock {
    /// Together with others. Only once in a test: one who waits to be alone lets nobody else in.
    pub async fn shared() -> ServiceLock {
        ServiceLock::Shared(LOCK.read().await)
    }

    /// Nobody else uses the services meanwhile.
    pub async fn alone() -> ServiceLock {
        ServiceLock::Alone(LOCK.write().await)
    }
}
