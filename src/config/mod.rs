//! Configuration: defaults, file and environment, read once at the start and checked as a whole.
//!
//! `config/default.toml` documents every key. Over it lies the file, and over both the environment; references to
//! secrets are followed in what remains, then everything is read strictly and checked. A wrong key, type or value is an
//! error that names the key and what would be right, and never quotes a value.

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

/// The settings: the defaults, under `file`, under those variables of `environment` that begin with `PAYBUS__`.
///
/// # Errors
///
/// The first thing found wrong with the file, a variable or a key.
pub fn load(file: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Result<Settings, ConfigError> {
    let environment: BTreeMap<String, String> = environment.collect();
    let variables = layers::variables(&environment)?;
    let mut root = layers::merge(file, &environment)?;
    secret::follow(&mut root, "", &environment)
        .and_then(|()| read(root))
        .and_then(|settings| plaintext::check(&settings, &environment).map(|()| settings))
        .map_err(|error| layers::name_variable(error, &variables))
}

/// The settings in the merged tables, where all references are followed.
fn read(mut root: ::config::Value) -> Result<Settings, ConfigError> {
    variant::shape(&mut root);
    let mut settings: Settings = reader::read(root)?;
    for (name, variant) in &mut settings.variants {
        variant.gateway_settings.set_variant(name);
    }
    check::check(&settings)?;
    Ok(settings)
}

/// The environment of this process, for [`load`]. Variables of others that are not Unicode are left out.
///
/// # Errors
///
/// A variable that begins with `PAYBUS__` is not Unicode.
pub fn environment() -> Result<Vec<(String, String)>, ConfigError> {
    let mut pairs = Vec::new();
    for (name, value) in std::env::vars_os() {
        let readable_name = name.to_string_lossy().into_owned();
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => pairs.push((name, value)),
            _ if readable_name.starts_with(layers::PREFIX) => {
                return Err(ConfigError::Variable { variable: readable_name, problem: "is not Unicode".to_owned() });
            }
            _ => {}
        }
    }
    Ok(pairs)
}
