//! Connections: one small pool for the batches on the hot way, one for everything else.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::config::{LoadBalanceHosts, SslMode, TargetSessionAttrs};
use tokio_postgres::{Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::clock::Clock;
use super::connection::Connection;
use super::error::StoreError;
use super::gate::Gate;
use super::hosts::AnyHost;
use super::progress::Progress;
use super::row::ReadColumn;
use super::session::{self, Lent, Session};
use crate::hosts::each;

/// Connections of the hot way: two begin, two settle, and beside each of both one for payments that somebody has locked.
const HOT_CONNECTIONS: usize = 6;

/// How long after a row was numbered, and given its time, it can be seen for sure, or never will be. What reads rows in the
/// order of their numbers passes none that is younger; one that came later than this would never be looked at.
pub const VISIBLE_FOR_SURE: Duration = Duration::from_secs(120);

/// The longest `statement_timeout` that goes with this: a row's statement may run for as long, its end may be as long in
/// coming where it is in a transaction, and as much again is left for the commit and for clocks.
pub const STATEMENT_TIMEOUT_MAX: Duration = Duration::from_secs(VISIBLE_FOR_SURE.as_secs() / 4);

/// What these are told beside: see `commit` for why one plan does for every batch.
const PLANNED_ONCE: [(&str, &str); 1] = [("plan_cache_mode", "force_generic_plan")];

/// What the others are told beside. Plans are made anew for each of their statements: one that was made on an empty table,
/// kept and used on a full one costs half the speed. Much of what they ask is "the next so many in this order": where nobody
/// has analyzed the tables yet, PostgreSQL 17 would read and sort the whole of one for it.
const PLANNED_EACH_TIME: [(&str, &str); 2] = [("plan_cache_mode", "force_custom_plan"), ("enable_bitmapscan", "off")];

/// How to reach the database.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// `postgres://user@host:port/database`, with one or several hosts.
    pub url: SecretString,
    /// The TLS configuration; nothing for none.
    pub tls: Option<rustls::ClientConfig>,
    /// Connections beside those of the hot way.
    pub pool: usize,
    /// The server ends a statement after this long.
    pub statement_timeout: Duration,
    /// How long connecting to one host may take.
    pub connect_timeout: Duration,
    /// Whether a pooler stands between, which lends a connection for one transaction.
    pub is_pooled: bool,
}

/// The database.
#[derive(Debug)]
pub struct Store {
    pool: (Pool, Session),
    hot: (Pool, Session),
    /// How long a statement is waited for.
    patience: Duration,
    clock: Clock,
    progress: Progress,
    gate: Gate,
}

/// A URL that is none; the URL itself may hold a password and is not shown.
#[derive(Debug, thiserror::Error)]
#[error("database.url is no PostgreSQL URL, such as postgres://user@host:5432/database")]
pub struct InvalidUrl;

impl Store {
    /// Prepares the pools; connections are made when they are needed.
    ///
    /// # Errors
    /// The URL cannot be read.
    pub fn new(settings: &StoreSettings) -> Result<Store, InvalidUrl> {
        let pool = build(settings, settings.pool, &PLANNED_EACH_TIME)?;
        let hot = build(settings, HOT_CONNECTIONS, &PLANNED_ONCE)?;
        let patience = patience(settings.statement_timeout);
        let (clock, progress, gate) = (Clock::default(), Progress::default(), Gate::default());
        Ok(Store { pool, hot, patience, clock, progress, gate })
    }

    /// Whether commits go through.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Where commits pass.
    pub(super) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// PostgreSQL's clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// A connection for anything but the hot way.
    ///
    /// # Errors
    /// None is to be had in time.
    pub async fn client(&self) -> Result<Connection, StoreError> {
        self.connection(&self.pool).await
    }

    pub(super) async fn hot_client(&self) -> Result<Connection, StoreError> {
        self.connection(&self.hot).await
    }

    async fn connection(&self, (pool, session): &(Pool, Session)) -> Result<Connection, StoreError> {
        Ok(Connection::new(pool.get().await?, pool, session, self.patience))
    }

    /// Checks that the server takes writes. Where it does not, the connections to it are given up: the next ones may lead to
    /// another server.
    ///
    /// # Errors
    /// The database cannot be asked, or [`StoreError::ReadOnly`].
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
    let mut told = session::settings(settings.statement_timeout);
    told.extend(beside.iter().map(|(name, value)| (*name, (*value).to_owned())));
    let (set_up, session) = if settings.is_pooled {
        (String::new(), Session::Lent(Arc::new(Lent::new(&told))))
    } else {
        (session::tell("SET", &told), Session::Own)
    };
    let whole = config(settings.url.expose_secret(), settings)?;
    let hosts = each(settings.url.expose_secret());
    let hosts = hosts.iter().map(|url| config(url, settings)).collect::<Result<Vec<_>, _>>()?;
    let connect_timeout = settings.connect_timeout;
    // One host after the other, each within its own time.
    let create_timeout = connect_timeout.saturating_mul(u32::try_from(hosts.len()).unwrap_or(u32::MAX));
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = match &settings.tls {
        None => Manager::from_connect(whole, AnyHost { hosts, tls: NoTls, patience: connect_timeout }, recycling),
        Some(tls) => {
            let tls = MakeRustlsConnect::new(tls.clone());
            Manager::from_connect(whole, AnyHost { hosts, tls, patience: connect_timeout }, recycling)
        }
    };
    let hook = Hook::async_fn(move |client: &mut deadpool_postgres::ClientWrapper, _| {
        let set_up = set_up.clone();
        Box::pin(async move {
            // The pool's own time-out ends before this.
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

/// How to connect to the hosts of an address.
fn config(url: &str, settings: &StoreSettings) -> Result<Config, InvalidUrl> {
    let mut config = Config::from_str(url).map_err(|_| InvalidUrl)?;
    if config.get_application_name().is_none() {
        config.application_name("paybus");
    }
    // After a failover an address may lead to the server that is a standby now; whoever only wants to read says so.
    if !url.contains("target_session_attrs") {
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    if !url.contains("load_balance_hosts") {
        config.load_balance_hosts(LoadBalanceHosts::Random);
    }
    config.connect_timeout(settings.connect_timeout);
    // A connection that a firewall or a dead host swallowed is noticed within a minute while it is idle, and while
    // something is under way not much later than the server would have ended it; the system's own patience is a quarter of
    // an hour.
    config.keepalives_idle(Duration::from_secs(20));
    config.keepalives_interval(Duration::from_secs(5));
    config.keepalives_retries(3);
    config.tcp_user_timeout(patience(settings.statement_timeout));
    if settings.tls.is_some() {
        config.ssl_mode(SslMode::Require);
    }
    Ok(config)
}

/// How long a statement is waited for: the server's own limit, and as long again for whatever is sent with it and the way.
fn patience(statement_timeout: Duration) -> Duration {
    statement_timeout.saturating_mul(2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// An address is read or refused; the error has no text of it, for it may hold a password.
        #[test]
        fn any_text_is_an_address_or_refused(
            url in prop_oneof![
                1 => any::<String>(),
                3 => "postgres(ql)?(://|:|)(u:p%4[0-9a-z]{0,2}@)?[a-z0-9:%.@,\\[\\]/\u{e9}-]{0,24}(\\?[a-z_=&0-9%]{0,24})?",
                2 => "(host|port|user|hostaddr|options|connect_timeout|target_session_attrs|x) ?=['a-z0-9 ,\\\\=-]{0,24}",
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
                    "database.url is no PostgreSQL URL, such as postgres://user@host:5432/database"
                );
            }
        }
    }
}
