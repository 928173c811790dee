//! Passwords, tokens and payments must not cross a network without TLS, unless `insecure = true` in their section
//! allows it. Adapters check their gateways' addresses themselves, with
//! [`Variant::check_plaintext`](super::Variant::check_plaintext).

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::config::Host;

use super::error::ConfigError;
use super::settings::{Amqp, Database, Settings, TlsMode, Tracing};
use crate::bus::connection::hosts::addresses;
use crate::hosts::is_loopback;

/// The variables from which the span exporter takes headers, which may contain tokens.
const EXPORT_HEADERS: [&str; 2] = ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"];

/// Checks the broker, the database and the collector. Their addresses are known to parse.
///
/// # Errors
///
/// The first key whose address leads to another machine without TLS.
pub(super) fn check(settings: &Settings, environment: &BTreeMap<String, String>) -> Result<(), ConfigError> {
    check_amqp(&settings.amqp)?;
    check_database(&settings.database)?;
    let has_secrets = EXPORT_HEADERS.iter().any(|name| environment.get(*name).is_some_and(|value| !value.is_empty()));
    if has_secrets { check_tracing(&settings.tracing) } else { Ok(()) }
}

fn check_amqp(amqp: &Amqp) -> Result<(), ConfigError> {
    let url = amqp.url.expose_secret();
    if amqp.insecure || !url.starts_with("amqp://") {
        return Ok(());
    }
    let hosts = addresses(url).unwrap_or_default().into_iter().map(|address| address.authority.host);
    check_hosts("amqp", "url", url, hosts, "an amqps:// address")
}

fn check_database(database: &Database) -> Result<(), ConfigError> {
    if database.insecure || database.tls_mode != TlsMode::Disable {
        return Ok(());
    }
    let check = |key: &str, url: &SecretString| {
        let url = url.expose_secret();
        let tls = r#"database.tls_mode = "verify-full""#;
        check_hosts("database", key, url, database_hosts(url).into_iter(), tls)
    };
    check("url", &database.url)?;
    database.migrate_url.as_ref().map_or(Ok(()), |url| check("migrate_url", url))
}

/// Returns whether the connection to a database on another machine is encrypted without verifying who answers.
pub fn trusts_any_database(database: &Database) -> bool {
    let is_elsewhere = |url: &SecretString| database_hosts(url.expose_secret()).iter().any(|host| !is_loopback(host));
    database.tls_mode == TlsMode::Require
        && database.tls.ca.is_none()
        && (is_elsewhere(&database.url) || database.migrate_url.as_ref().is_some_and(is_elsewhere))
}

/// Returns the hosts that are reached over TCP. A Unix socket is on this machine.
fn database_hosts(url: &str) -> Vec<String> {
    let Ok(config) = url.parse::<tokio_postgres::Config>() else { return Vec::new() };
    let addresses = config.get_hostaddrs();
    if !addresses.is_empty() {
        return addresses.iter().map(ToString::to_string).collect();
    }
    let name = |host: &Host| match host {
        Host::Tcp(name) => Some(name.clone()),
        Host::Unix(_) => None,
    };
    config.get_hosts().iter().filter_map(name).collect()
}

fn check_tracing(tracing: &Tracing) -> Result<(), ConfigError> {
    let url = tracing.endpoint.as_deref().and_then(|endpoint| endpoint.parse::<reqwest::Url>().ok());
    let host = url.as_ref().filter(|url| url.scheme() == "http").and_then(|url| url.host_str());
    match host.filter(|host| !tracing.insecure && !is_loopback(host)) {
        Some(host) => Err(ConfigError::plaintext(
            "tracing",
            "endpoint",
            host,
            "an https:// address for the headers that the environment sets",
        )),
        None => Ok(()),
    }
}

fn check_hosts(
    section: &str,
    key: &str,
    url: &str,
    mut hosts: impl Iterator<Item = String>,
    tls: &str,
) -> Result<(), ConfigError> {
    let Some(host) = hosts.find(|host| !is_loopback(host)) else { return Ok(()) };
    // What was taken for the host may be the rest of a password that was not encoded.
    let is_certain = url.matches('@').count() <= 1;
    Err(ConfigError::plaintext(section, key, if is_certain { host.as_str() } else { "the host" }, tls))
}
