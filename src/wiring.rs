//! Builds connections from the configuration, for the worker and the command line.

use secrecy::SecretString;

use crate::bus::{BusSettings, BusTls};
use crate::config::{Database, Pooler, Settings, TlsMode};
use crate::gateway::Gateway;
use crate::store::connection::pools::InvalidUrl;
use crate::store::query::unserved::Served;
use crate::store::{Store, StoreSettings};
use crate::tls::{TlsError, TlsFiles, Verify, client_config};

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WiringError {
    /// The address is invalid.
    #[error(transparent)]
    Url(#[from] InvalidUrl),
    /// The certificates cannot be used.
    #[error("cannot use the certificates of database.tls")]
    Tls(#[from] TlsError),
    /// A migration holds a session lock, which a transaction pooler would not keep.
    #[error("database.migrate_url must point directly to PostgreSQL if database.pooler is \"transaction\"")]
    Pooled,
}

/// Returns the part of the configuration that the bus needs.
pub fn bus_settings(settings: &Settings) -> BusSettings {
    let amqp = &settings.amqp;
    BusSettings {
        url: amqp.url.clone(),
        prefix: amqp.prefix.clone(),
        declare: amqp.declare,
        tls: BusTls { ca: amqp.tls.ca.clone(), cert: amqp.tls.cert.clone(), key: amqp.tls.key.clone() },
        confirm_timeout: amqp.confirm_timeout,
        heartbeat: amqp.heartbeat,
        connect_timeout: amqp.connect_timeout,
        delivery_limit: amqp.delivery_limit,
    }
}

/// Returns which stored payments a variant serves: those that began with its gateway and account, under any of the
/// account's names.
pub fn served(variant: &str, gateway: &str, adapter: &dyn Gateway) -> Served {
    let mut accounts = adapter.account_aliases().to_vec();
    accounts.push(adapter.account().to_owned());
    Served { variant: variant.to_owned(), gateway: gateway.to_owned(), accounts }
}

/// Opens the database. Connections are made on demand.
///
/// # Errors
/// The address or the certificates cannot be used.
pub fn open_store(settings: &Settings) -> Result<Store, WiringError> {
    let database = &settings.database;
    open(database, &database.url, database.pooler)
}

/// Opens the database for migrations: directly, never through a pooler.
///
/// # Errors
/// The address or the certificates cannot be used, or only the pooler's address is configured.
pub fn open_store_to_migrate(settings: &Settings) -> Result<Store, WiringError> {
    let database = &settings.database;
    match (&database.migrate_url, database.pooler) {
        (None, Pooler::Transaction) => Err(WiringError::Pooled),
        (None, Pooler::None) => open_store(settings),
        (Some(url), _) => open(database, url, Pooler::None),
    }
}

fn open(database: &Database, url: &SecretString, pooler: Pooler) -> Result<Store, WiringError> {
    let files = TlsFiles {
        ca: database.tls.ca.as_deref(),
        cert: database.tls.cert.as_deref(),
        key: database.tls.key.as_deref(),
    };
    let verify = match database.tls_mode {
        TlsMode::Disable => None,
        TlsMode::Require => Some(Verify::Encrypt),
        TlsMode::VerifyCa => Some(Verify::Chain),
        TlsMode::VerifyFull => Some(Verify::Full),
    };
    let tls = verify.map(|verify| client_config(files, verify)).transpose()?;
    Ok(Store::new(&StoreSettings {
        url: url.clone(),
        tls,
        pool: database.pool,
        statement_timeout: database.statement_timeout,
        connect_timeout: database.connect_timeout,
        is_pooled: pooler == Pooler::Transaction,
    })?)
}
