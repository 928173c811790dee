//! Checks what types cannot express: limits, names, URLs, and keys that depend on each other.

use std::ops::RangeInclusive;
use std::time::Duration;

use regex::Regex;
use secrecy::{ExposeSecret, SecretString};
use tracing_subscriber::EnvFilter;

use super::error::ConfigError;
use super::settings::{Amqp, Database, Log, Retention, Settings, Tls, TlsMode, Tracing, Worker};
use super::variant::{RATE_MAX, Retry, Variant};
use super::{duration, users};
use crate::bus::connection::hosts::addresses;
use crate::store::connection::pools::STATEMENT_TIMEOUT_MAX;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const TIMEOUT: RangeInclusive<Duration> = MILLISECOND..=HOUR;

/// The options of an AMQP URL that lapin reads; it ignores all others.
const AMQP_OPTIONS: [&str; 5] = ["auth_mechanism", "channel_max", "connection_timeout", "frame_max", "heartbeat"];

/// The options of a database URL that tokio-postgres reads, except those for TLS.
const DATABASE_OPTIONS: [&str; 17] = [
    "application_name",
    "channel_binding",
    "connect_timeout",
    "dbname",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "load_balance_hosts",
    "options",
    "password",
    "port",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
];

const NAME_LENGTH_MAX: usize = 64;
const QUEUE_MEBIBYTES: u64 = 4;
const MEBIBYTES_MAX: u64 = 1_048_576;
const DELAYED_MAX: usize = 100;

/// Checks all settings.
///
/// # Errors
///
/// The first key that is wrong, and what is expected.
pub(super) fn check(settings: &Settings) -> Result<(), ConfigError> {
    check_amqp(&settings.amqp)?;
    check_database(&settings.database)?;
    check_retry("retry", &settings.retry)?;
    require(!settings.variants.is_empty(), "variants", "at least one variant, [variants.NAME]")?;
    for (name, variant) in &settings.variants {
        check_variant(name, variant)?;
    }
    users::check(&settings.users, &settings.variants)?;
    check_memory(settings)?;
    check_worker(&settings.worker)?;
    check_retention(&settings.retention)?;
    check_log(&settings.log)?;
    check_tracing(&settings.tracing)
}

fn require(is_right: bool, key: impl Into<String>, expected: &str) -> Result<(), ConfigError> {
    if is_right { Ok(()) } else { Err(ConfigError::key(key, format!("expected {expected}"))) }
}

fn require_within(key: &str, value: Duration, range: &RangeInclusive<Duration>) -> Result<(), ConfigError> {
    let [least, most] = [range.start(), range.end()].map(|bound| duration::format(*bound));
    require(range.contains(&value), key, &format!("a duration from \"{least}\" to \"{most}\""))
}

fn require_number(key: &str, value: u64, range: &RangeInclusive<u64>) -> Result<(), ConfigError> {
    require(range.contains(&value), key, &format!("a whole number from {} to {}", range.start(), range.end()))
}

fn check_amqp(amqp: &Amqp) -> Result<(), ConfigError> {
    let url = amqp.url.expose_secret();
    let is_url = ["amqp://", "amqps://"].iter().any(|scheme| url.starts_with(scheme)) && addresses(url).is_some();
    check_options("amqp.url", url, &AMQP_OPTIONS)?;
    require(is_url, "amqp.url", "amqp:// or amqps://USER:PASSWORD@HOST:PORT,HOST:PORT/VIRTUAL_HOST")?;
    check_tls(
        "amqp.tls",
        &amqp.tls,
        url.starts_with("amqps://"),
        "no such keys unless amqp.url is an amqps:// address",
    )?;
    let is_prefix = is_name(&amqp.prefix, |byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    require(is_prefix, "amqp.prefix", "1 to 64 letters, digits, dots, dashes or underscores")?;
    require(Regex::new(&amqp.reply_to).is_ok(), "amqp.reply_to", "a regular expression")?;
    require_within("amqp.confirm_timeout", amqp.confirm_timeout, &TIMEOUT)?;
    require_within("amqp.connect_timeout", amqp.connect_timeout, &TIMEOUT)?;
    require_within("amqp.heartbeat", amqp.heartbeat, &(SECOND..=HOUR))?;
    require(amqp.heartbeat.subsec_nanos() == 0, "amqp.heartbeat", "whole seconds")?;
    require_number("amqp.delivery_limit", amqp.delivery_limit.into(), &(1..=1_000_000))
}

/// Each consumed queue needs room for a few messages: there are two queues per variant, and two common ones.
fn check_memory(settings: &Settings) -> Result<(), ConfigError> {
    let queues = settings.variants.len() as u64 * 2 + 2;
    let range = queues * QUEUE_MEBIBYTES..=MEBIBYTES_MAX;
    settings.amqp.memory.map_or(Ok(()), |memory| require_number("amqp.memory", memory.into(), &range))
}

fn check_database(database: &Database) -> Result<(), ConfigError> {
    check_database_url("database.url", &database.url)?;
    if let Some(url) = &database.migrate_url {
        check_database_url("database.migrate_url", url)?;
    }
    let is_encrypted = database.tls_mode != TlsMode::Disable;
    check_tls("database.tls", &database.tls, is_encrypted, "no such keys if database.tls_mode is \"disable\"")?;
    require_number("database.pool", database.pool as u64, &(1..=1_000))?;
    // Events are read in order, after a fixed delay: one that takes longer to be stored would be passed over for good.
    require_within("database.statement_timeout", database.statement_timeout, &(MILLISECOND..=STATEMENT_TIMEOUT_MAX))?;
    require_within("database.connect_timeout", database.connect_timeout, &TIMEOUT)
}

fn check_database_url(key: &str, url: &SecretString) -> Result<(), ConfigError> {
    let url = url.expose_secret();
    let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters);
    let asks_for_tls = parameters.split('&').any(|parameter| parameter.starts_with("ssl"));
    require(!asks_for_tls, key, "database.tls_mode and database.tls instead of ssl parameters")?;
    check_options(key, url, &DATABASE_OPTIONS)?;
    let is_url = ["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme))
        && url.parse::<tokio_postgres::Config>().is_ok();
    require(is_url, key, "postgres://USER:PASSWORD@HOST:PORT/DATABASE")
}

/// Rejects the first unknown option of a URL and names it. Text that does not look like an option is never named: what
/// follows a question mark may be the rest of a password that should have been encoded.
fn check_options(key: &str, url: &str, known: &[&str]) -> Result<(), ConfigError> {
    let options = url.split_once('?').map_or("", |(_, options)| options);
    if options.contains('@') {
        return Ok(());
    }
    let names = options.split('&').filter_map(|option| Some(option.split_once('=')?.0));
    let is_option = |name: &str| is_name(name, |byte| byte.is_ascii_lowercase() || byte == b'_');
    match names.filter(|name| is_option(name)).find(|name| !known.contains(name)) {
        Some(name) => {
            require(false, key, &format!("no unknown option `{name}`; the known ones are {}", known.join(", ")))
        }
        None => Ok(()),
    }
}

/// Rejects certificates for a connection that is not encrypted: its operator would believe it to be safe.
fn check_tls(key: &str, tls: &Tls, is_encrypted: bool, expected: &str) -> Result<(), ConfigError> {
    require(is_encrypted || *tls == Tls::default(), key, expected)?;
    for (name, path) in [("ca", &tls.ca), ("cert", &tls.cert), ("key", &tls.key)] {
        let is_path = path.as_ref().is_none_or(|path| !path.as_os_str().is_empty());
        require(is_path, format!("{key}.{name}"), "the path of a PEM file")?;
    }
    require(tls.cert.is_some() == tls.key.is_some(), key, "both cert and key, or neither")
}

fn check_retry(key: &str, retry: &Retry) -> Result<(), ConfigError> {
    let immediate = &retry.immediate;
    require_number(&format!("{key}.immediate.attempts"), immediate.attempts.into(), &(1..=100))?;
    require_within(&format!("{key}.immediate.first"), immediate.first, &TIMEOUT)?;
    let is_factor = (1.0..=100.0).contains(&immediate.factor);
    require(is_factor, format!("{key}.immediate.factor"), "a number from 1 to 100")?;
    require_within(&format!("{key}.immediate.cap"), immediate.cap, &(immediate.first..=HOUR))?;
    require(retry.delayed.len() <= DELAYED_MAX, format!("{key}.delayed"), "at most 100 durations")?;
    for (index, delay) in retry.delayed.iter().enumerate() {
        require_within(&format!("{key}.delayed[{index}]"), *delay, &(MILLISECOND..=30 * DAY))?;
    }
    Ok(())
}

fn check_variant(name: &str, variant: &Variant) -> Result<(), ConfigError> {
    let key = format!("variants.{name}");
    let is_variant = is_name(name, |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
    require(is_variant, &key, "a name of 1 to 64 lower-case letters, digits, dashes or underscores")?;
    require(!variant.gateway.is_empty(), format!("{key}.gateway"), "the name of a gateway, such as \"http\"")?;
    require_within(&format!("{key}.timeout"), variant.timeout, &TIMEOUT)?;
    require_number(&format!("{key}.concurrency"), variant.concurrency as u64, &(1..=10_000))?;
    let is_rate = variant.rate.is_none_or(|rate| rate > 0.0 && rate <= RATE_MAX);
    require(is_rate, format!("{key}.rate"), "calls per second, more than 0 and at most 1000000")?;
    require_number(&format!("{key}.breaker.failures"), variant.breaker.failures.into(), &(1..=1_000_000))?;
    require_within(&format!("{key}.breaker.open"), variant.breaker.open, &(MILLISECOND..=DAY))?;
    check_retry(&format!("{key}.retry"), &variant.retry)
}

fn check_worker(worker: &Worker) -> Result<(), ConfigError> {
    require_within("worker.drain", worker.drain, &(Duration::ZERO..=HOUR))?;
    require_within("worker.lease_margin", worker.lease_margin, &TIMEOUT)?;
    require_within("worker.unknown_payment_grace", worker.unknown_payment_grace, &(Duration::ZERO..=HOUR))?;
    require_within("worker.poll", worker.poll, &(10 * MILLISECOND..=MINUTE))?;
    require_within("worker.clock_tolerance", worker.clock_tolerance, &(SECOND..=HOUR))?;
    if worker.heartbeat.is_zero() {
        return Ok(());
    }
    require_within("worker.heartbeat", worker.heartbeat, &(100 * MILLISECOND..=HOUR))
}

fn check_retention(retention: &Retention) -> Result<(), ConfigError> {
    require_within("retention.events", retention.events, &(SECOND..=duration::MAX))?;
    require_within("retention.notifications", retention.notifications, &(HOUR..=duration::MAX))
}

fn check_log(log: &Log) -> Result<(), ConfigError> {
    require(EnvFilter::try_new(&log.filter).is_ok(), "log.filter", "directives such as \"info,paybus=debug\"")
}

fn check_tracing(tracing: &Tracing) -> Result<(), ConfigError> {
    // The endpoint is logged, so it must not contain a password.
    let is_address = |endpoint: &String| {
        endpoint.parse::<reqwest::Url>().is_ok_and(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && (url.username(), url.password(), url.query(), url.fragment()) == ("", None, None, None)
        })
    };
    require(
        tracing.endpoint.as_ref().is_none_or(is_address),
        "tracing.endpoint",
        "an address such as \"http://127.0.0.1:4318\", without user, password or query",
    )?;
    require((0.0..=1.0).contains(&tracing.sample), "tracing.sample", "a number from 0 to 1")?;
    require(!tracing.service.is_empty(), "tracing.service", "a name")
}

fn is_name(text: &str, is_allowed: impl Fn(u8) -> bool) -> bool {
    (1..=NAME_LENGTH_MAX).contains(&text.len()) && text.bytes().all(is_allowed)
}
