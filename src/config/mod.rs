//! Configuration: defaults, file and environment, loaded once at startup and checked as a whole.
//!
//! `config/default.toml` documents every key. The file overrides the defaults, and the environment overrides both. Then
//! references to secrets are resolved, and the result is deserialized strictly and checked. An error for a wrong key,
//! type or value names the key and what is expected, and never quotes a value.

use std::collections::BTreeMap;
use std::path::Path;

pub use self::error::ConfigError;
pub use self::plaintext::trusts_any_database;
pub use self::settings::{
    Amqp, Database, HttpServer, Log, LogFormat, Pooler, Retention, Settings, Tls, TlsMode, Tracing, Worker,
};
pub use self::users::{OWN_SOURCE, Role, Sources, User, WEBHOOK_SOURCES};
pub use self::variant::{Breaker, GatewaySettings, Immediate, Retry, Variant};

mod check;
pub mod duration;
mod error;
mod layers;
mod plaintext;
mod reader;
mod secret;
mod settings;
#[cfg(test)]
mod tests;
mod users;
mod variant;

/// Loads the settings: the defaults, overridden by `file`, overridden by the variables of `environment` that begin with
/// `PAYBUS__`.
///
/// # Errors
///
/// The first problem with the file, a variable or a key.
pub fn load(file: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Result<Settings, ConfigError> {
    let environment: BTreeMap<String, String> = environment.collect();
    let variables = layers::variables(&environment)?;
    let mut root = layers::merge(file, &environment)?;
    layers::check_underscores(&environment, &root, &variables)?;
    secret::follow(&mut root, "", &environment)
        .and_then(|()| read(root))
        .and_then(|settings| plaintext::check(&settings, &environment).map(|()| settings))
        .map_err(|error| layers::name_variable(error, &variables))
}

/// Reads the settings from the merged tables, after all references have been resolved.
fn read(mut root: ::config::Value) -> Result<Settings, ConfigError> {
    variant::shape(&mut root);
    let mut settings: Settings = reader::read(root)?;
    for (name, variant) in &mut settings.variants {
        variant.gateway_settings.set_variant(name);
    }
    check::check(&settings)?;
    Ok(settings)
}

/// Returns the environment of this process, for [`load`]. Other variables that are not Unicode are left out.
///
/// # Errors
///
/// A variable that begins with `PAYBUS__` is not valid Unicode.
pub fn environment() -> Result<Vec<(String, String)>, ConfigError> {
    let mut pairs = Vec::new();
    for (name, value) in std::env::vars_os() {
        let readable_name = name.to_string_lossy().into_owned();
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => pairs.push((name, value)),
            _ if readable_name.starts_with(layers::PREFIX) => {
                return Err(ConfigError::Variable {
                    variable: readable_name,
                    problem: "is not valid Unicode".to_owned(),
                });
            }
            _ => {}
        }
    }
    Ok(pairs)
}
