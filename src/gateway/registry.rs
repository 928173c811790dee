//! All gateways, by the name used in a variant's configuration.

use std::sync::Arc;

use super::Gateway;
use super::client::BuildError;
use super::dummy::DummyGateway;
use super::http::{HttpGateway, HttpSettings};
use super::notification::{Verify, Webhook};
use super::stripe::{self, StripeGateway, StripeSettings};
use crate::config::{ConfigError, Variant};
use crate::excerpt::{NAME_MAX, excerpt};

/// The names of all gateways.
pub const NAMES: &[&str] = &["dummy", "http", "stripe"];

/// Why a variant has no gateway.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No adapter has this name.
    #[error("gateway: {:?} is unknown; the known ones are {}", excerpt(.0, NAME_MAX), NAMES.join(", "))]
    UnknownGateway(String),
    /// The settings are invalid.
    #[error(transparent)]
    Settings(#[from] ConfigError),
    /// The adapter cannot be set up.
    #[error("gateway {gateway}")]
    Build {
        /// The adapter's name.
        gateway: &'static str,
        /// The reason.
        source: BuildError,
    },
}

/// Builds the gateway of a variant.
///
/// # Errors
/// No gateway has this name, or its settings are invalid.
pub fn build(variant: &Variant) -> Result<Arc<dyn Gateway>, RegistryError> {
    match variant.gateway.as_str() {
        "dummy" => {
            let _none: NoSettings = variant.gateway_settings()?;
            Ok(Arc::new(DummyGateway::new()))
        }
        "http" => {
            let settings: HttpSettings = variant.gateway_settings()?;
            variant.check_plaintext("url", settings.url.plaintext_host())?;
            let gateway = HttpGateway::new(settings, variant.timeout);
            Ok(Arc::new(gateway.map_err(|source| RegistryError::Build { gateway: "http", source })?))
        }
        "stripe" => {
            let settings: StripeSettings = variant.gateway_settings()?;
            variant.check_plaintext("api_base", settings.api_base.plaintext_host())?;
            let gateway = StripeGateway::new(settings, variant.timeout);
            Ok(Arc::new(gateway.map_err(|source| RegistryError::Build { gateway: "stripe", source })?))
        }
        other => Err(RegistryError::UnknownGateway(other.to_owned())),
    }
}

/// How a gateway's webhooks are verified; `None` if it has none.
pub fn verify_by(gateway: Arc<dyn Gateway>) -> Option<Verify> {
    let header = gateway.notifications()?.signature_header();
    let check = move |webhook: &Webhook| match gateway.notifications() {
        Some(notifications) => notifications.verify(webhook),
        None => Ok(Vec::new()),
    };
    Some(Verify { header, check: Box::new(check) })
}

/// How the webhooks of a variant are verified; `None` if it has none. A process that only receives webhooks needs no
/// credentials for the gateway's API.
///
/// # Errors
/// As [`build`].
pub fn webhooks(variant: &Variant) -> Result<Option<Verify>, RegistryError> {
    match variant.gateway.as_str() {
        "stripe" => {
            let verify = stripe::verify_by(variant.gateway_settings()?);
            verify.map_err(|source| RegistryError::Build { gateway: "stripe", source })
        }
        _ => build(variant).map(verify_by),
    }
}

/// Settings of a gateway that has none of its own.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct NoSettings {}
