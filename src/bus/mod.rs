//! RabbitMQ: publishing, consuming, the topology, and recovery from a lost connection.
//!
//! A worker has two connections, one to publish and one to consume: a broker that is short of memory blocks publishers,
//! and lapin then writes nothing at all on that connection, not even acknowledgements.
//!
//! An answer of the broker is trusted no further than what it proves: a publisher confirm counts only if the same
//! message was not returned, and an acknowledgement sent is not an acknowledgement received. PostgreSQL is the source
//! of truth.

use std::path::PathBuf;
use std::time::Duration;

use lapin::uri::SASLMechanism;
use secrecy::{ExposeSecret, SecretString};

pub(crate) use crate::error_chain::chain as describe;
use crate::tls::TlsError;

pub mod client;
pub mod connection;
pub mod consume;
pub mod dead_letters;
pub mod envelope;
pub mod message_size;
pub mod publish;
pub mod topology;

/// The settings of the bus, from the configuration's `[amqp]`.
#[derive(Debug, Clone)]
pub struct BusSettings {
    /// `amqp://` or `amqps://`, with user, password, one or several hosts, and virtual host.
    pub url: SecretString,
    /// The prefix of every exchange and queue name.
    pub prefix: String,
    /// Whether to declare the topology at startup; if not, it is only checked.
    pub declare: bool,
    /// The certificates for `amqps://`.
    pub tls: BusTls,
    /// How long a publisher confirm may be missing while the broker accepts messages.
    pub confirm_timeout: Duration,
    /// The AMQP heartbeat, in whole seconds: a silent broker is noticed after twice this time.
    pub heartbeat: Duration,
    /// The timeout for connecting to one host, from name resolution to the AMQP handshake. It also bounds every other
    /// request to the broker.
    pub connect_timeout: Duration,
    /// How often a command may be redelivered before the broker dead-letters it, which ends crash loops.
    pub delivery_limit: u32,
}

impl BusSettings {
    /// Returns the user that the broker knows us by, for the `user_id` of our commands; `None` if a certificate
    /// identifies us.
    pub fn user(&self) -> Option<String> {
        let uri = connection::hosts::addresses(self.url.expose_secret())?.into_iter().next()?;
        let is_named = uri.query.auth_mechanism != Some(SASLMechanism::External);
        is_named.then_some(uri.authority.userinfo.username)
    }
}

/// PEM files for `amqps://`.
#[derive(Debug, Clone, Default)]
pub struct BusTls {
    /// The only certificate authorities to trust; if `None`, those of the platform.
    pub ca: Option<PathBuf>,
    /// The client certificate, for a broker that asks for one.
    pub cert: Option<PathBuf>,
    /// The private key of the client certificate.
    pub key: Option<PathBuf>,
}

/// Why a request to the broker failed.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The address cannot be used. Its text is not repeated, because it contains a password.
    #[error("amqp.url is not an amqp:// or amqps:// URL: {0}")]
    Url(&'static str),
    /// The TLS files cannot be used.
    #[error("cannot use the certificates of amqp.tls")]
    Tls(#[from] TlsError),
    /// The broker did not answer in time.
    #[error("the broker did not answer within {} s while {doing}", after.as_secs_f32())]
    TimedOut {
        /// What was being done.
        doing: &'static str,
        /// How long the answer was awaited.
        after: Duration,
    },
    /// The broker or the connection reported an error.
    #[error("{doing} failed")]
    Broker {
        /// What was being done.
        doing: &'static str,
        /// The error from lapin.
        source: lapin::Error,
    },
    /// The broker refuses the connection: the user, its password, or the virtual host.
    #[error(
        "the broker rejects the user, the password or the virtual host of amqp.url ({0}): correct it at the broker or \
         in amqp.url"
    )]
    Login(String),
    /// The topology is missing, differs from what is expected, or may not be used.
    #[error(transparent)]
    Topology(#[from] connection::refusal::TopologyError),
    /// A text is longer than the 255 bytes that AMQP allows.
    #[error("the {what} is longer than 255 bytes")]
    TooLong {
        /// Which text.
        what: &'static str,
    },
    /// The broker closed the channel because of a message.
    #[error("the broker refused the message: {0}")]
    Refused(String),
    /// The connection ended, or was closed on purpose.
    #[error("the connection to the broker is closed")]
    Closed,
}

impl BusError {
    /// Returns whether the user lacks a permission.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, BusError::Topology(connection::refusal::TopologyError::Forbidden { .. }))
    }

    /// Returns whether somebody has to fix something before a retry can work.
    pub fn needs_somebody(&self) -> bool {
        matches!(self, BusError::Login(_) | BusError::Topology(_))
    }
}

/// Awaits a request to the broker, but no longer than `after`: lapin itself waits forever.
pub(crate) async fn bounded<T>(
    doing: &'static str,
    after: Duration,
    question: impl Future<Output = lapin::Result<T>>,
) -> Result<T, BusError> {
    match tokio::time::timeout(after, question).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(BusError::Broker { doing, source }),
        Err(_) => Err(BusError::TimedOut { doing, after }),
    }
}

/// Creates an AMQP short string. lapin's own conversion panics beyond 255 bytes.
pub(crate) fn short(what: &'static str, text: impl Into<String>) -> Result<lapin::types::ShortString, BusError> {
    lapin::types::ShortString::try_new(text).map_err(|_| BusError::TooLong { what })
}
