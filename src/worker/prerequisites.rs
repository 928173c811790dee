//! What a worker needs before it begins: the broker with its exchanges and queues, and the database with its schema. It
//! waits for both, with the reason in `/readyz`. So services, migrations, permissions and workers can be started in any
//! order, and a changed password can be changed back. Only settings that cannot be used end the start.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::backoff::Backoff;
use crate::bus::connection::connect;
use crate::bus::{BusError, BusSettings, topology};
use crate::error_chain::chain;
use crate::http::health::Health;
use crate::store::commit::durability::{self, Durability};
use crate::store::schema::{migrate, rights, sequences};
use crate::store::{Store, StoreError};

/// The readiness component for the exchanges and queues, until they were prepared once.
pub(super) const TOPOLOGY: &str = "topology";
/// The readiness component for the database.
pub(super) const DATABASE: &str = "database";

/// The first and the longest pause between two attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Waits until the broker has the exchanges and queues, then cancels `prepared`.
///
/// # Errors
/// Waiting cannot help: `amqp.url` or the files of `amqp.tls` cannot be used.
pub(super) async fn broker(
    bus: &BusSettings,
    variants: &[&str],
    health: &Health,
    prepared: &CancellationToken,
) -> Result<(), BusError> {
    let mut wait = Wait::new(TOPOLOGY, health);
    loop {
        match prepare(bus, variants).await {
            Ok(()) => {
                wait.over();
                prepared.cancel();
                return Ok(());
            }
            // Files that could be read before are probably just being replaced.
            Err(error @ (BusError::Url(_) | BusError::Tls(_))) if !wait.has_begun() => return Err(error),
            Err(error) => wait.on(chain(&error), error.needs_somebody()).await,
        }
    }
}

/// Waits until the database has a schema that this version supports, and grants the required permissions.
pub(super) async fn database(store: &Store, may_lose_commits: bool, health: &Health) {
    let mut wait = Wait::new(DATABASE, health);
    while let Err(error) = work_on(store, may_lose_commits).await {
        wait.on(chain(&error), error.needs_somebody()).await;
    }
    wait.over();
}

async fn prepare(bus: &BusSettings, variants: &[&str]) -> Result<(), BusError> {
    let connection = connect(bus, "topology").await?;
    let prepared = topology::prepare(&connection, bus, variants).await;
    connection.close().await;
    prepared
}

/// Checks the schema and the permissions, and reads the clock.
async fn work_on(store: &Store, may_lose_commits: bool) -> Result<(), StoreError> {
    store.check_writable().await?;
    migrate::check(store).await?;
    rights::check(store).await?;
    sequences::check(store).await?;
    let client = store.client().await?;
    store.clock().calibrate(&client).await?;
    drop(client);
    if durability::check(store, may_lose_commits).await? == Durability::MayBeLost {
        warn!(
            "a crash of the database can lose its last commits and the charges in them; database.may_lose_commits \
             allows that"
        );
    }
    Ok(())
}

/// Waiting for one of the prerequisites.
struct Wait<'a> {
    component: &'static str,
    health: &'a Health,
    /// The last reason. Each reason is logged once, although attempts repeat every few seconds.
    reason: String,
    pauses: Backoff,
}

impl<'a> Wait<'a> {
    fn new(component: &'static str, health: &'a Health) -> Wait<'a> {
        let (first, longest) = PAUSES;
        Wait { component, health, reason: String::new(), pauses: Backoff::new(first, 2.0, longest) }
    }

    fn has_begun(&self) -> bool {
        !self.reason.is_empty()
    }

    /// Reports the reason, and pauses before the next attempt.
    async fn on(&mut self, reason: String, needs_somebody: bool) {
        if reason != self.reason {
            let component = self.component;
            if needs_somebody {
                error!(component, error = reason, "cannot start until an operator fixes this; retrying");
            } else {
                warn!(component, error = reason, "cannot start yet; retrying");
            }
        }
        self.health.set(self.component, Err(reason.clone()));
        self.reason = reason;
        sleep(self.pauses.next_delay()).await;
    }

    fn over(self) {
        if self.has_begun() {
            info!(component = self.component, "prerequisite fulfilled");
        }
        self.health.set(self.component, Ok(()));
    }
}
