//! The gateways there are, by the name a variant calls them.

use std::sync::Arc;

use super::Gateway;
use super::client::BuildError;
use super::dummy::DummyGateway;
use super::http::HttpGateway;
use super::stripe::StripeGateway;
use crate::config::{ConfigError, Variant};
use crate::excerpt::{NAME_MAX, excerpt};

/// The names of all gateways.
pub const NAMES: &[&str] = &["dummy", "http", "stripe"];

/// Why a variant has no gateway.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No adapter of this name.
    #[error("gateway: there is no {:?}; there are {}", excerpt(.0, NAME_MAX), NAMES.join(", "))]
    UnknownGateway(String),
    /// Its settings.
    #[error(transparent)]
    Settings(#[from] ConfigError),
    /// The adapter cannot be set up.
    #[error("gateway {gateway}")]
    Build {
        /// The adapter.
        gateway: &'static str,
        /// Why.
        source: BuildError,
    },
}

/// The gateway of a variant.
///
/// # Errors
/// There is none of this name, or its settings are wrong.
pub fn build(variant: &Variant) -> Result<Arc<dyn Gateway>, RegistryError> {
    match variant.gateway.as_str() {
        "dummy" => {
            let _none: NoSettings = variant.gateway_settings()?;
            Ok(Arc::new(DummyGateway::new()))
        }
        "http" => {
            let gateway = HttpGateway::new(variant.gateway_settings()?, variant.timeout);
            Ok(Arc::new(gateway.map_err(|source| RegistryError::Build { gateway: "http", source })?))
        }
        "stripe" => {
            let gateway = StripeGateway::new(variant.gateway_settings()?, variant.timeout);
            Ok(Arc::new(gateway.map_err(|source| RegistryError::Build { gateway: "stripe", source })?))
        }
        other => Err(RegistryError::UnknownGateway(other.to_owned())),
    }
}

/// A gateway without settings of its own.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct NoSettings {}
