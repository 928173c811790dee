//! RabbitMQ: what is published, consumed and declared there, and how a lost connection is survived.
//!
//! Two connections in a worker, one to publish and one to consume: a broker that runs short of memory blocks whoever
//! publishes, and lapin then writes nothing at all on that connection, acknowledgements included.
//!
//! Nobody here trusts an answer of the broker beyond what it proves: a publisher confirm counts only without a return
//! of the same message, and an acknowledgement sent is no acknowledgement received. PostgreSQL is the ledger.

use std::path::PathBuf;
use std::time::Duration;

use lapin::uri::SASLMechanism;
use secrecy::{ExposeSecret, SecretString};

pub(crate) use crate::error_chain::chain as describe;
use crate::tls::TlsError;

pub mod connection;
pub mod guard;
pub(crate) mod hosts;
pub mod reconnecting;

pub mod refusal;
pub mod scrub;
pub mod topology;

mod acks;
pub mod attributes;
pub mod consumer;
pub mod delivery;

mod batch;
mod channel;
pub mod nacks;
mod pending;
pub mod publisher;
pub mod unordered;

pub mod dead_letter;
pub mod dead_letter_browser;
pub mod mentions;

pub mod client;

pub mod envelope;

/// What the bus needs to know of the configuration's `[amqp]`.
#[derive(Debug, Clone)]
pub struct BusSettings {
    /// `amqp://` or `amqps://`, with user, password, one or several hosts, and virtual host.
    pub url: SecretString,
    /// What every name begins with.
    pub prefix: String,
    /// Whether to declare the topology at the start; otherwise it is only checked.
    pub declare: bool,
    /// Which queues a reply may go to, as a regular expression; enforced when a command is accepted.
    pub reply_to: String,
    /// For `amqps://`.
    pub tls: BusTls,
    /// How long a publisher confirm may be missing while the broker accepts messages.
    pub confirm_timeout: Duration,
    /// The AMQP heartbeat, in whole seconds: a silent broker is noticed after twice this.
    pub heartbeat: Duration,
    /// How long connecting to one host may take, from the name's resolution to the AMQP handshake; also bounds every other
    /// question to the broker.
    pub connect_timeout: Duration,
    /// How often a command may be redelivered before the broker dead-letters it: the fuse against crash loops.
    pub delivery_limit: u32,
}

impl BusSettings {
    /// The user that the broker knows us by, for the `user_id` of our commands; `None` where a certificate says who we are.
    pub fn user(&self) -> Option<String> {
        let uri = hosts::addresses(self.url.expose_secret())?.into_iter().next()?;
        let is_named = uri.query.auth_mechanism != Some(SASLMechanism::External);
        is_named.then_some(uri.authority.userinfo.username)
    }
}

/// PEM files for `amqps://`.
#[derive(Debug, Clone, Default)]
pub struct BusTls {
    /// The certificate authorities to trust, and no others; without it, those of the platform.
    pub ca: Option<PathBuf>,
    /// Our certificate, for a broker that asks for one.
    pub cert: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
}

/// Why something at the broker did not work.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The address cannot be used; its text is not repeated, it holds a password.
    #[error("amqp.url is no amqp:// or amqps:// address: {0}")]
    Url(&'static str),
    /// The TLS files cannot be used.
    #[error("amqp.tls cannot be used")]
    Tls(#[from] TlsError),
    /// The broker did not answer in time.
    #[error("the broker did not answer within {} s while {doing}", after.as_secs_f32())]
    TimedOut {
        /// What was being done.
        doing: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// The broker or the connection refused.
    #[error("{doing} failed")]
    Broker {
        /// What was being done.
        doing: &'static str,
        /// What lapin says.
        source: lapin::Error,
    },
    /// The broker refuses the connection: the user, its password, or the virtual host.
    #[error(
        "the broker refuses the user, the password or the virtual host of amqp.url ({0}): mend it at the broker, or amqp.url"
    )]
    Login(String),
    /// The topology is not as it has to be.
    #[error(transparent)]
    Topology(#[from] refusal::TopologyError),
    /// A text is longer than the 255 bytes that AMQP has for it.
    #[error("the {what} is longer than 255 bytes")]
    TooLong {
        /// Which text.
        what: &'static str,
    },
    /// The broker closed the channel because of a message.
    #[error("the broker refuses the message: {0}")]
    Refused(String),
    /// The connection ended, or was closed on purpose.
    #[error("the connection to the broker is closed")]
    Closed,
}

impl BusError {
    /// Whether the user lacks a right.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, BusError::Topology(refusal::TopologyError::Forbidden { .. }))
    }

    /// Whether somebody has to mend something before it can work.
    pub fn needs_somebody(&self) -> bool {
        matches!(self, BusError::Login(_) | BusError::Topology(_))
    }
}

/// Awaits a question to the broker no longer than it may take: lapin itself waits for ever.
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

/// A short string of AMQP; lapin's own conversion panics beyond 255 bytes.
pub(crate) fn short(what: &'static str, text: impl Into<String>) -> Result<lapin::types::ShortString, BusError> {
    lapin::types::ShortString::try_new(text).map_err(|_| BusError::TooLong { what })
}
