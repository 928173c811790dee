//! A connection that is opened again whenever it is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use strum::IntoStaticStr;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Connection, ConnectionState, connect_to_publish, connect_to_read};
use crate::backoff;
use crate::bus::topology::exchange_exists;
use crate::bus::{BusError, BusSettings, describe};

/// A connection that lived this long was healthy: the next attempt to connect comes soon.
const STEADY: Duration = Duration::from_secs(10);

fn set(state: &watch::Sender<ConnectionState>, now: ConnectionState) {
    state.send_if_modified(|before| {
        let differs = *before != now;
        if differs {
            *before = now;
        }
        differs
    });
}

/// What a connection is for.
#[derive(Debug, Clone, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Role {
    /// Receives messages.
    Consumer,
    /// Publishes messages. It counts as connected only once this exchange is known to exist.
    Publisher {
        /// The exchange of events.
        exchange: String,
    },
}

impl Role {
    fn as_str(&self) -> &'static str {
        self.into()
    }
}

/// A connection that is opened again whenever it is lost, until the token is cancelled. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reconnecting {
    connection: watch::Receiver<Option<Arc<Connection>>>,
    state: watch::Receiver<ConnectionState>,
    doubted: Arc<AtomicBool>,
}

impl Reconnecting {
    /// Starts connecting.
    pub fn spawn(settings: BusSettings, role: Role, shutdown: CancellationToken) -> Reconnecting {
        Reconnecting::spawn_after(std::future::ready(()), settings, role, shutdown)
    }

    /// Starts connecting when `begin` has completed.
    pub fn spawn_after(
        begin: impl Future<Output = ()> + Send + 'static,
        settings: BusSettings,
        role: Role,
        shutdown: CancellationToken,
    ) -> Reconnecting {
        let (connections, connection) = watch::channel(None);
        let (states, state) = watch::channel(ConnectionState::Disconnected("not connected yet".to_owned()));
        let doubted = Arc::<AtomicBool>::default();
        let supervisor = Supervisor { settings, role, connections, states, doubted: Arc::clone(&doubted) };
        tokio::spawn(async move {
            if shutdown.run_until_cancelled(begin).await.is_some() {
                supervisor.run(shutdown).await;
            }
        });
        Reconnecting { connection, state, doubted }
    }

    /// Records that the broker refused what this connection is for, and would do so on the next one: until
    /// [`trust`](Self::trust) is called, no connection counts as connected. Otherwise a refused worker would be ready
    /// after each reconnect.
    pub(in crate::bus) fn doubt(&self) {
        self.doubted.store(true, Ordering::Relaxed);
    }

    /// Records that the broker accepts what the connection is for.
    pub(in crate::bus) fn trust(&self) {
        self.doubted.store(false, Ordering::Relaxed);
    }

    /// Returns the state, for readiness.
    pub fn state(&self) -> watch::Receiver<ConnectionState> {
        self.state.clone()
    }

    /// Returns the connection, if there is one that can be used now.
    pub fn current(&self) -> Option<Arc<Connection>> {
        self.connection.borrow().clone().filter(|current| current.is_alive())
    }

    /// Waits for a connection that can be used; `None` once this is shut down.
    pub async fn connection(&mut self) -> Option<Arc<Connection>> {
        let usable = |current: &Option<Arc<Connection>>| current.as_ref().is_some_and(|current| current.is_alive());
        let current = self.connection.wait_for(usable).await.ok()?;
        current.clone()
    }
}

/// The task behind a [`Reconnecting`].
struct Supervisor {
    settings: BusSettings,
    role: Role,
    connections: watch::Sender<Option<Arc<Connection>>>,
    states: watch::Sender<ConnectionState>,
    doubted: Arc<AtomicBool>,
}

impl Supervisor {
    async fn run(self, shutdown: CancellationToken) {
        let mut backoff = backoff::reconnect();
        while !shutdown.is_cancelled() {
            let Some(attempt) = shutdown.run_until_cancelled(self.attempt()).await else {
                return;
            };
            match attempt {
                Ok(connection) => {
                    let since = Instant::now();
                    self.keep(Arc::new(connection), &shutdown).await;
                    if since.elapsed() > STEADY {
                        backoff.reset();
                    }
                }
                Err(error) => {
                    let reason = describe(&error);
                    warn!(role = self.role.as_str(), error = reason, "cannot connect to the broker; retrying");
                    set(&self.states, ConnectionState::Disconnected(reason));
                }
            }
            shutdown.run_until_cancelled(sleep(backoff.next_delay())).await;
        }
    }

    async fn attempt(&self) -> Result<Connection, BusError> {
        let connection = match &self.role {
            Role::Consumer => connect_to_read(&self.settings, self.role.as_str()).await?,
            Role::Publisher { .. } => connect_to_publish(&self.settings, self.role.as_str()).await?,
        };
        if let Role::Publisher { exchange } = &self.role
            && let Err(error) = exchange_exists(&connection, exchange).await
            // A process that only receives webhooks publishes no events, and may not be allowed to see their exchange.
            && !error.is_forbidden()
        {
            connection.close().await;
            return Err(error);
        }
        Ok(connection)
    }

    /// Provides the connection until it ends.
    async fn keep(&self, connection: Arc<Connection>, shutdown: &CancellationToken) {
        info!(role = self.role.as_str(), "connected to the broker");
        let blocks = |blocked| match blocked {
            true => set(&self.states, ConnectionState::Blocked),
            // The state keeps the reason for which the last connection was given up.
            false if self.doubted.load(Ordering::Relaxed) => {}
            false => set(&self.states, ConnectionState::Connected),
        };
        blocks(false);
        self.connections.send_replace(Some(Arc::clone(&connection)));
        let ended = shutdown.run_until_cancelled(connection.ended(blocks)).await;
        self.connections.send_replace(None);
        if let Some(reason) = ended {
            warn!(role = self.role.as_str(), error = reason, "lost the connection to the broker; reconnecting");
            set(&self.states, ConnectionState::Disconnected(reason));
        } else {
            set(&self.states, ConnectionState::Disconnected("shut down".to_owned()));
        }
        connection.close().await;
    }
}
