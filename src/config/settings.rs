//! The settings as the rest of paybus sees them. `config/default.toml` documents their limits and defaults.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Deserializer, de};

use super::duration;
use super::users::User;
use super::variant::{Retry, Variant};

/// All settings, loaded and checked. `Debug` shows no secret.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The broker.
    pub amqp: Amqp,
    /// PostgreSQL.
    pub database: Database,
    /// The built-in HTTP server.
    pub http: HttpServer,
    /// The default retries, for variants that do not set their own.
    pub retry: Retry,
    /// The configured gateways by name, at least one.
    pub variants: BTreeMap<String, Variant>,
    /// Permissions by broker user. If empty, everyone who may publish commands may do anything.
    #[serde(default)]
    pub users: BTreeMap<String, User>,
    /// The worker's timing.
    pub worker: Worker,
    /// How long finished data is kept.
    pub retention: Retention,
    /// Logging.
    pub log: Log,
    /// The export of spans.
    pub tracing: Tracing,
}

/// The broker.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amqp {
    /// `amqp://` or `amqps://`, with user, password, one or several hosts, and virtual host.
    pub url: SecretString,
    /// The prefix of all exchange and queue names.
    pub prefix: String,
    /// Whether the worker declares the topology; if not, it only checks it.
    pub declare: bool,
    /// A regular expression for the queues that a `reply_to` may name. Known to compile.
    pub reply_to: String,
    /// The certificates; only with `amqps://`.
    #[serde(default)]
    pub tls: Tls,
    /// Whether `amqp://` may lead to another machine.
    pub insecure: bool,
    /// How long a published event may wait for its confirm.
    #[serde(deserialize_with = "duration::deserialize")]
    pub confirm_timeout: Duration,
    /// The connection's heartbeat, in whole seconds.
    #[serde(deserialize_with = "duration::deserialize")]
    pub heartbeat: Duration,
    /// The timeout for connecting to one host, including the handshake.
    #[serde(deserialize_with = "duration::deserialize")]
    pub connect_timeout: Duration,
    /// How many deliveries of a message are made before it is dead-lettered, and its command rejected unless it has
    /// begun.
    pub delivery_limit: u32,
    /// The memory for bodies of messages that were fetched and are not acknowledged yet, in MiB. `None` allows as much
    /// as the variants' concurrency needs.
    #[serde(default)]
    pub memory: Option<u32>,
}

/// The certificates of a connection, as PEM files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// The authorities that sign the server's certificate; if `None`, those that the operating system trusts.
    pub ca: Option<PathBuf>,
    /// The client certificate. Needs `key`.
    pub cert: Option<PathBuf>,
    /// The private key of the client certificate.
    pub key: Option<PathBuf>,
}

/// PostgreSQL.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// `postgres://`, with user, password, host and database; without `sslmode`.
    pub url: SecretString,
    /// The address for migrations, of PostgreSQL itself; if `None`, `url`.
    pub migrate_url: Option<SecretString>,
    /// The pooler between paybus and PostgreSQL.
    pub pooler: Pooler,
    /// The number of connections per worker.
    pub pool: usize,
    /// How the connection is protected.
    pub tls_mode: TlsMode,
    /// The certificates; only if `tls_mode` is not [`TlsMode::Disable`].
    #[serde(default)]
    pub tls: Tls,
    /// Whether [`TlsMode::Disable`] may lead to another machine.
    pub insecure: bool,
    /// Whether PostgreSQL may acknowledge commits that it loses in a crash (`synchronous_commit = off`).
    pub may_lose_commits: bool,
    /// The timeout of one statement.
    #[serde(deserialize_with = "duration::deserialize")]
    pub statement_timeout: Duration,
    /// The timeout for connecting to one host.
    #[serde(deserialize_with = "duration::deserialize")]
    pub connect_timeout: Duration,
}

/// The pooler between paybus and PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooler {
    /// None, or one that assigns a connection for a whole session.
    None,
    /// One that assigns a connection for one transaction, such as PgBouncer with `pool_mode = transaction`.
    Transaction,
}

/// How the connection to PostgreSQL is protected. These are libpq's modes, without the two that fall back to plain
/// text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// Plain text.
    Disable,
    /// Encrypted; the server's certificate is not verified.
    Require,
    /// Encrypted; the certificate is verified, its host name is not.
    VerifyCa,
    /// Encrypted; certificate and host name are verified.
    VerifyFull,
}

/// The built-in HTTP server: health, metrics, webhooks.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpServer {
    /// The address to listen on.
    #[serde(deserialize_with = "socket_address")]
    pub listen: SocketAddr,
}

/// The worker's timing.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    /// How long work in flight may take to finish at shutdown.
    #[serde(deserialize_with = "duration::deserialize")]
    pub drain: Duration,
    /// How much longer a lease lasts than a call's timeout.
    #[serde(deserialize_with = "duration::deserialize")]
    pub lease_margin: Duration,
    /// How long a command waits for a payment that is not stored yet.
    #[serde(deserialize_with = "duration::deserialize")]
    pub unknown_payment_grace: Duration,
    /// How often the worker looks for work that is due.
    #[serde(deserialize_with = "duration::deserialize")]
    pub poll: Duration,
    /// How far the clocks of the database and of a gateway may differ before "not found" proves nothing.
    #[serde(deserialize_with = "duration::deserialize")]
    pub clock_tolerance: Duration,
    /// How often heartbeats report to each variant's subscribers how many events there were. Zero disables them.
    #[serde(deserialize_with = "duration::deserialize")]
    pub heartbeat: Duration,
}

/// How long finished data is kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Events, counted from when they were published.
    #[serde(deserialize_with = "duration::deserialize")]
    pub events: Duration,
    /// Settled commands that no payment needs: notifications of gateways, and commands for no payment or an archived
    /// one.
    #[serde(deserialize_with = "duration::deserialize")]
    pub notifications: Duration,
}

/// Logging.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// The output format.
    pub format: LogFormat,
    /// What is logged, as `tracing` directives. Known to parse.
    pub filter: String,
}

/// The export of spans.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tracing {
    /// The collector's address, without the path. If `None`, nothing is exported.
    pub endpoint: Option<String>,
    /// Whether headers from the environment may go to another machine without TLS.
    pub insecure: bool,
    /// The share of the traces started here that is exported, from 0 to 1. For other traces, the service that started
    /// them decides.
    pub sample: f64,
    /// The `service.name` of the spans.
    pub service: String,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, otherwise JSON.
    Auto,
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

fn socket_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse()
        .map_err(|_| de::Error::custom("expected an IP address and a port, \"127.0.0.1:8080\" or \"[::]:8080\""))
}
