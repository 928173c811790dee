//! From the configuration to connections: what the worker and the command line both need.

use crate::bus::{BusSettings, BusTls};
use crate::config::{Settings, TlsMode};
use crate::store::connect::InvalidUrl;
use crate::store::{Store, StoreSettings};
use crate::tls::{TlsError, TlsFiles, Verify, client_config};

/// Why there is no way to the database.
#[derive(Debug, thiserror::Error)]
pub enum WiringError {
    /// The address.
    #[error(transparent)]
    Url(#[from] InvalidUrl),
    /// The certificates.
    #[error("database.tls cannot be used")]
    Tls(#[from] TlsError),
}

/// What the bus needs of the configuration.
pub fn bus_settings(settings: &Settings) -> BusSettings {
    let amqp = &settings.amqp;
    BusSettings {
        url: amqp.url.clone(),
        prefix: amqp.prefix.clone(),
        declare: amqp.declare,
        reply_to: amqp.reply_to.clone(),
        tls: BusTls { ca: amqp.tls.ca.clone(), cert: amqp.tls.cert.clone(), key: amqp.tls.key.clone() },
        confirm_timeout: amqp.confirm_timeout,
        heartbeat: amqp.heartbeat,
        connect_timeout: amqp.connect_timeout,
        delivery_limit: amqp.delivery_limit,
    }
}

/// The database; connections are made when they are needed.
///
/// # Errors
/// The address or the certificates cannot be used.
pub fn open_store(settings: &Settings) -> Result<Store, WiringError> {
    let database = &settings.database;
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
        url: database.url.clone(),
        tls,
        pool: database.pool,
        statement_timeout: database.statement_timeout,
        connect_timeout: database.connect_timeout,
    })?)
}
