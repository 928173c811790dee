//! Connection pools: a small one for commits on the hot path, another for everything else.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::config::{LoadBalanceHosts, SslMode, TargetSessionAttrs};
use tokio_postgres::{Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::Connection;
use super::clock::Clock;
use super::hosts::AnyHost;
use super::session::{self, Lent, Session};
use crate::hosts::each;
use crate::store::commit::gate::Gate;
use crate::store::commit::progress::Progress;
use crate::store::error::StoreError;
use crate::store::row::ReadColumn;

/// Connections of the hot path: two for begin commits, two for settle commits, and one beside each pair for payments
/// whose rows are locked by another transaction.
const HOT_CONNECTIONS: usize = 6;

/// Age after which a numbered row is either visible or was never committed. Scans in number order stop short of younger
/// rows; a row that became visible later than this would never be scanned.
pub const VISIBLE_FOR_SURE: Duration = Duration::from_secs(120);

/// The longest `statement_timeout` compatible with [`VISIBLE_FOR_SURE`]: a row's statement may run this long, its
/// transaction may take as long again to end, and half of the age remains for the commit and for clock differences.
pub const STATEMENT_TIMEOUT_MAX: Duration = Duration::from_secs(VISIBLE_FOR_SURE.as_secs() / 4);

/// Further settings of the hot-path connections: see `statement` for why one plan suits every batch.
const PLANNED_ONCE: [(&str, &str); 1] = [("plan_cache_mode", "force_generic_plan")];

/// Further settings of all other connections. Each statement gets a plan of its own: a plan made on an empty table and
/// reused on a full one halves the speed. Many queries ask for the next N rows in some order; as long as the tables
/// have not been analyzed, PostgreSQL 17 would read and sort a whole table for that, hence no bitmap scans.
const PLANNED_EACH_TIME: [(&str, &str); 2] = [("plan_cache_mode", "force_custom_plan"), ("enable_bitmapscan", "off")];

/// Database connection settings.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// `postgres://user@host:port/database`, with one or more hosts.
    pub url: SecretString,
    /// TLS configuration; `None` for plaintext.
    pub tls: Option<rustls::ClientConfig>,
    /// Size of the pool for everything but the hot path.
    pub pool: usize,
    /// The server cancels a statement after this long.
    pub statement_timeout: Duration,
    /// Timeout for connecting to one host.
    pub connect_timeout: Duration,
    /// Whether a transaction-mode pooler stands in between, which lends a connection for one transaction.
    pub is_pooled: bool,
}

/// The database: connection pools, its clock, and whether commits go through.
#[derive(Debug)]
pub struct Store {
    pool: (Pool, Session),
    hot: (Pool, Session),
    /// Client-side timeout of a statement.
    answer_timeout: Duration,
    clock: Clock,
    progress: Progress,
    gate: Gate,
}

/// The URL is invalid. The error does not show it, because it may hold a password.
#[derive(Debug, thiserror::Error)]
#[error("database.url is not a PostgreSQL URL such as postgres://user@host:5432/database")]
pub struct InvalidUrl;

impl Store {
    /// Creates the pools. Connections are opened on demand.
    ///
    /// # Errors
    /// The URL cannot be parsed.
    pub fn new(settings: &StoreSettings) -> Result<Store, InvalidUrl> {
        let pool = build(settings, settings.pool, &PLANNED_EACH_TIME)?;
        let hot = build(settings, HOT_CONNECTIONS, &PLANNED_ONCE)?;
        let answer_timeout = answer_timeout(settings.statement_timeout);
        let (clock, progress, gate) = (Clock::default(), Progress::default(), Gate::default());
        Ok(Store { pool, hot, answer_timeout, clock, progress, gate })
    }

    /// Tracks whether commits go through.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The gate that commits pass through.
    pub(in crate::store) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// PostgreSQL's clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Takes a connection for anything but the hot path.
    ///
    /// # Errors
    /// No connection becomes available in time.
    pub async fn client(&self) -> Result<Connection, StoreError> {
        self.connection(&self.pool).await
    }

    pub(in crate::store) async fn hot_client(&self) -> Result<Connection, StoreError> {
        self.connection(&self.hot).await
    }

    async fn connection(&self, (pool, session): &(Pool, Session)) -> Result<Connection, StoreError> {
        Ok(Connection::new(pool.get().await?, pool, session, self.answer_timeout))
    }

    /// Checks that the server accepts writes. If it does not, drops all pooled connections: new ones may lead to
    /// another server.
    ///
    /// # Errors
    /// The database query fails, or [`StoreError::ReadOnly`].
    pub async fn check_writable(&self) -> Result<(), StoreError> {
        let client = self.client().await?;
        let sql = "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::bool";
        if !client.query_one(sql, &[]).await?.read::<bool>(0)? {
            return Ok(());
        }
        client.keep_out();
        for (pool, _) in [&self.pool, &self.hot] {
            pool.retain(|_, _| false);
        }
        Err(StoreError::ReadOnly)
    }

    /// Closes all connections.
    pub fn close(&self) {
        self.pool.0.close();
        self.hot.0.close();
    }
}

fn build(
    settings: &StoreSettings,
    size: usize,
    beside: &[(&'static str, &str)],
) -> Result<(Pool, Session), InvalidUrl> {
    let mut session_settings = session::settings(settings.statement_timeout);
    session_settings.extend(beside.iter().map(|(name, value)| (*name, (*value).to_owned())));
    let (set_up, session) = if settings.is_pooled {
        (String::new(), Session::Lent(Arc::new(Lent::new(&session_settings))))
    } else {
        (session::set_statement("SET", &session_settings), Session::Own)
    };
    let whole = config(settings.url.expose_secret(), settings)?;
    let hosts = each(settings.url.expose_secret());
    let hosts = hosts.iter().map(|url| config(url, settings)).collect::<Result<Vec<_>, _>>()?;
    let connect_timeout = settings.connect_timeout;
    // Hosts are tried one after the other, each with its own timeout.
    let create_timeout = connect_timeout.saturating_mul(u32::try_from(hosts.len()).unwrap_or(u32::MAX));
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = match &settings.tls {
        None => Manager::from_connect(whole, AnyHost { hosts, tls: NoTls, answer_timeout: connect_timeout }, recycling),
        Some(tls) => {
            let tls = MakeRustlsConnect::new(tls.clone());
            Manager::from_connect(whole, AnyHost { hosts, tls, answer_timeout: connect_timeout }, recycling)
        }
    };
    let hook = Hook::async_fn(move |client: &mut deadpool_postgres::ClientWrapper, _| {
        let set_up = set_up.clone();
        Box::pin(async move {
            // The pool's create timeout does not cover this hook.
            match tokio::time::timeout(connect_timeout, client.batch_execute(&set_up)).await {
                Ok(done) => done.map_err(HookError::Backend),
                Err(_) => Err(HookError::message("the database does not answer on a new connection")),
            }
        })
    });
    Pool::builder(manager)
        .max_size(size)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(settings.statement_timeout))
        .create_timeout(Some(create_timeout))
        .recycle_timeout(Some(settings.connect_timeout))
        .post_create(hook)
        .build()
        .map(|pool| (pool, session))
        .map_err(|_| InvalidUrl)
}

/// Parses an address into connection settings.
fn config(url: &str, settings: &StoreSettings) -> Result<Config, InvalidUrl> {
    let mut config = Config::from_str(url).map_err(|_| InvalidUrl)?;
    if config.get_application_name().is_none() {
        config.application_name("paybus");
    }
    // After a failover an address may lead to what is now a standby. An address meant for reading sets the parameter
    // itself.
    if !url.contains("target_session_attrs") {
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    if !url.contains("load_balance_hosts") {
        config.load_balance_hosts(LoadBalanceHosts::Random);
    }
    config.connect_timeout(settings.connect_timeout);
    // Detects connections lost to a firewall or a dead host: within a minute while idle, and with a statement in flight
    // not much later than the server would have ended it. The system's default is a quarter of an hour.
    config.keepalives_idle(Duration::from_secs(20));
    config.keepalives_interval(Duration::from_secs(5));
    config.keepalives_retries(3);
    config.tcp_user_timeout(answer_timeout(settings.statement_timeout));
    if settings.tls.is_some() {
        config.ssl_mode(SslMode::Require);
    }
    Ok(config)
}

/// The client-side timeout of a statement: the server's limit, and as long again for whatever is sent along and the
/// network.
fn answer_timeout(statement_timeout: Duration) -> Duration {
    statement_timeout.saturating_mul(2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// An address is parsed or refused; the error shows none of it, because it may hold a password.
        #[test]
        fn any_text_is_an_address_or_refused(
            url in prop_oneof![
                1 => any::<String>(),
                3 => "postgres(ql)?(://|:|)(u:p%4[0-9a-z]{0,2}@)?[a-z0-9:%.@,\\[\\]/\u{e9}-]{0,24}(\\?[a-z_=&0-9%]{0,24})?",
                2 => "(host|port|user|hostaddr|options|connect_timeout|target_session_attrs|x) ?=['a-z0-9 \
                      ,\\\\=-]{0,24}",
            ],
            is_pooled in any::<bool>(),
        ) {
            let settings = StoreSettings {
                url: SecretString::from(url),
                tls: None,
                pool: 1,
                statement_timeout: Duration::from_secs(1),
                connect_timeout: Duration::from_secs(1),
                is_pooled,
            };
            if let Err(error) = Store::new(&settings) {
                prop_assert_eq!(
                    error.to_string(),
                    "database.url is not a PostgreSQL URL such as postgres://user@host:5432/database"
                );
            }
        }
    }
}
