//! The settings as the rest of paybus sees them; `config/default.toml` has their limits and defaults.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Deserializer, de};

use super::duration;
use super::users::User;
use super::variant::{Retry, Variant};

/// All settings, read and checked. Its `Debug` shows no secret.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The broker.
    pub amqp: Amqp,
    /// PostgreSQL.
    pub database: Database,
    /// Our own HTTP server.
    pub http: HttpServer,
    /// Retries, where a variant does not say otherwise.
    pub retry: Retry,
    /// The configured gateways by name, at least one.
    pub variants: BTreeMap<String, Variant>,
    /// Who may send what, by the broker's users; none: whoever may publish commands may do anything.
    #[serde(default)]
    pub users: BTreeMap<String, User>,
    /// The worker's own times.
    pub worker: Worker,
    /// How long what is done with is kept.
    pub retention: Retention,
    /// Logging.
    pub log: Log,
    /// Spans.
    pub tracing: Tracing,
}

/// The broker.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amqp {
    /// `amqp://` or `amqps://`, with user, password, one or several hosts, and virtual host.
    pub url: SecretString,
    /// What the names of all exchanges and queues begin with.
    pub prefix: String,
    /// Whether the worker declares the topology, or only checks it.
    pub declare: bool,
    /// Which queues a `reply_to` may name: a regular expression, known to compile.
    pub reply_to: String,
    /// Certificates; only with `amqps://`.
    #[serde(default)]
    pub tls: Tls,
    /// Whether `amqp://` may lead to another machine.
    pub insecure: bool,
    /// How long a published event waits for its confirm.
    #[serde(deserialize_with = "duration::deserialize")]
    pub confirm_timeout: Duration,
    /// The connection's heartbeat, whole seconds.
    #[serde(deserialize_with = "duration::deserialize")]
    pub heartbeat: Duration,
    /// How long connecting to one host may take, the handshake included.
    #[serde(deserialize_with = "duration::deserialize")]
    pub connect_timeout: Duration,
    /// Deliveries of one message before it becomes a dead letter, and is rejected unless it was begun.
    pub delivery_limit: u32,
    /// How much memory the bodies of messages may take that were fetched and are not acknowledged, in MiB; `None`: as much as
    /// the variants' concurrency takes.
    #[serde(default)]
    pub memory: Option<u32>,
}

/// Certificates of a connection, PEM files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Who signs the server's certificate; without it, whom the operating system trusts.
    pub ca: Option<PathBuf>,
    /// The client's certificate; with `key` or not at all.
    pub cert: Option<PathBuf>,
    /// The client's key.
    pub key: Option<PathBuf>,
}

/// PostgreSQL.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// `postgres://`, with user, password, host and database; without `sslmode`.
    pub url: SecretString,
    /// Where migrations go, if not there; directly to the server.
    pub migrate_url: Option<SecretString>,
    /// What stands between.
    pub pooler: Pooler,
    /// Connections of one worker.
    pub pool: usize,
    /// How far the connection is protected.
    pub tls_mode: TlsMode,
    /// Certificates; only where `tls_mode` is not [`TlsMode::Disable`].
    #[serde(default)]
    pub tls: Tls,
    /// Whether [`TlsMode::Disable`] may lead to another machine.
    pub insecure: bool,
    /// Whether PostgreSQL may answer commits that a crash of it loses (`synchronous_commit = off`).
    pub may_lose_commits: bool,
    /// How long one statement may run.
    #[serde(deserialize_with = "duration::deserialize")]
    pub statement_timeout: Duration,
    /// How long connecting to one host may take.
    #[serde(deserialize_with = "duration::deserialize")]
    pub connect_timeout: Duration,
}

/// What stands between us and PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooler {
    /// Nothing, or what gives a connection for as long as it is open.
    None,
    /// What gives a connection for one transaction, such as PgBouncer with `pool_mode = transaction`.
    Transaction,
}

/// How far the connection to PostgreSQL is protected: libpq's words, without the two that fall back to plain text.
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

/// Our own HTTP server: health, metrics, webhooks.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpServer {
    /// Where it listens.
    #[serde(deserialize_with = "socket_address")]
    pub listen: SocketAddr,
}

/// The worker's own times.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    /// How long work in flight may take to end at the stop.
    #[serde(deserialize_with = "duration::deserialize")]
    pub drain: Duration,
    /// How much longer than a call's timeout a lease is.
    #[serde(deserialize_with = "duration::deserialize")]
    pub lease_margin: Duration,
    /// How long a command waits for a payment that is not stored yet.
    #[serde(deserialize_with = "duration::deserialize")]
    pub unknown_payment_grace: Duration,
    /// How often work that has come due is looked for.
    #[serde(deserialize_with = "duration::deserialize")]
    pub poll: Duration,
    /// How far the database's clock and a gateway's may be apart before "not found" proves nothing.
    #[serde(deserialize_with = "duration::deserialize")]
    pub clock_tolerance: Duration,
    /// How often each variant's subscribers are told how many events there were; zero for never.
    #[serde(deserialize_with = "duration::deserialize")]
    pub heartbeat: Duration,
}

/// How long what is done with is kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Events, counted from when they were sent.
    #[serde(deserialize_with = "duration::deserialize")]
    pub events: Duration,
    /// Settled commands that no payment needs: gateways' notifications, and commands for no payment or an archived one.
    #[serde(deserialize_with = "duration::deserialize")]
    pub notifications: Duration,
}

/// Logging.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// For people or for machines.
    pub format: LogFormat,
    /// What is logged: tracing's directives, known to parse.
    pub filter: String,
}

/// Spans.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tracing {
    /// The collector's address, without the path; nothing exports nothing.
    pub endpoint: Option<String>,
    /// Whether headers of the environment may go to another machine without TLS.
    pub insecure: bool,
    /// The part of the traces that are begun here, from 0 to 1; of the others whoever began them decides.
    pub sample: f64,
    /// `service.name`.
    pub service: String,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

fn socket_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse()
        .map_err(|_| de::Error::custom("expected an IP address and a port, \"127.0.0.1:8080\" or \"[::]:8080\""))
}
