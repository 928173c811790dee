//! A variant: a named gateway with its limits and retries. Keys that are not common to all variants belong to the
//! gateway.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use ::config::{Map, Value, ValueKind};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::{ConfigError, one_of};
use super::{duration, reader};

pub(super) const RATE_MAX: f64 = 1_000_000.0;

/// The keys that every variant has. A test compares them with [`Variant`].
const COMMON_KEYS: [&str; 9] =
    ["gateway", "capture", "timeout", "concurrency", "rate", "breaker", "retry", "insecure", "retired"];

/// The most messages that are prefetched for one variant.
const PREFETCH_MAX: u16 = 2000;

/// A named, configured gateway.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// The adapter: `dummy`, `http`, ...
    pub gateway: String,
    /// Whether a payment is captured at once, unless the command says otherwise.
    #[serde(default = "default_capture")]
    pub capture: bool,
    /// The timeout of one call.
    #[serde(default = "default_timeout", deserialize_with = "duration::deserialize")]
    pub timeout: Duration,
    /// The maximum number of calls in flight per replica.
    #[serde(default = "default_concurrency")]
    pub concurrency: usize,
    /// The maximum number of calls per second, over all replicas; `None` means no limit.
    #[serde(default)]
    pub rate: Option<f64>,
    /// When the circuit breaker opens.
    #[serde(default)]
    pub breaker: Breaker,
    /// The retries: the variant's own, over the global ones.
    pub retry: Retry,
    /// Whether the gateway may be called over a network without TLS.
    #[serde(default)]
    pub insecure: bool,
    /// Whether the variant rejects new payments.
    #[serde(default)]
    pub retired: bool,
    /// The gateway's own settings, read by [`Variant::gateway_settings`].
    #[serde(default)]
    pub gateway_settings: GatewaySettings,
}

impl Variant {
    /// Reads the gateway's own settings as a `T`, which should use `deny_unknown_fields`.
    ///
    /// # Errors
    ///
    /// A key is missing, wrong or unknown to `T`. The error names it as `variants.NAME.KEY`.
    pub fn gateway_settings<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let GatewaySettings { variant, values } = &self.gateway_settings;
        let values: Map<String, Value> = values.clone().into_iter().collect();
        reader::read(Value::from(values)).map_err(|error| match error.under(&format!("variants.{variant}")) {
            ConfigError::UnknownKey { key, expected } => ConfigError::UnknownKey {
                key,
                expected: format!("{}, or of gateway `{}` {expected}", one_of(&COMMON_KEYS, '`'), self.gateway),
            },
            other => other,
        })
    }

    /// Rejects the address in `key` if its `plaintext_host` would be called without TLS and the variant is not
    /// `insecure`.
    ///
    /// # Errors
    ///
    /// The address is rejected. The error gives the key, the host and both ways out.
    pub fn check_plaintext(&self, key: &str, plaintext_host: Option<&str>) -> Result<(), ConfigError> {
        match plaintext_host {
            Some(host) if !self.insecure => {
                let section = format!("variants.{}", self.gateway_settings.variant);
                Err(ConfigError::plaintext(&section, key, host, "an https:// address"))
            }
            _ => Ok(()),
        }
    }

    /// Returns how many messages are prefetched: one and a half times the concurrency, from 1 to 2000.
    pub fn prefetch(&self) -> u16 {
        let wanted = self.concurrency.saturating_mul(3).div_ceil(2);
        u16::try_from(wanted).unwrap_or(PREFETCH_MAX).clamp(1, PREFETCH_MAX)
    }
}

/// The gateway's own settings, not read yet. `Debug` shows only the keys, because any value may be a secret.
#[derive(Clone, Default, Deserialize)]
#[serde(from = "BTreeMap<String, Value>")]
pub struct GatewaySettings {
    /// The name of the variant, for the keys in errors.
    variant: String,
    values: BTreeMap<String, Value>,
}

impl GatewaySettings {
    pub(super) fn set_variant(&mut self, name: &str) {
        name.clone_into(&mut self.variant);
    }
}

impl From<BTreeMap<String, Value>> for GatewaySettings {
    fn from(values: BTreeMap<String, Value>) -> Self {
        GatewaySettings { variant: String::new(), values }
    }
}

impl fmt::Debug for GatewaySettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.values.keys()).finish()
    }
}

/// When a variant's circuit breaker opens, and for how long.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    /// How many payments must fail, without a success in between, before it opens.
    pub failures: u32,
    /// How long it stays open before it probes.
    #[serde(deserialize_with = "duration::deserialize")]
    pub open: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Breaker { failures: 20, open: Duration::from_secs(30) }
    }
}

/// How a call is retried.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// The retries within the process.
    pub immediate: Immediate,
    /// The scheduled retries that follow: the delay before each of them.
    #[serde(deserialize_with = "duration::list")]
    pub delayed: Vec<Duration>,
}

/// Retries within the process, with exponential backoff and jitter.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Immediate {
    /// The number of attempts, including the first.
    pub attempts: u32,
    /// The first delay.
    #[serde(deserialize_with = "duration::deserialize")]
    pub first: Duration,
    /// The factor by which each delay grows.
    pub factor: f64,
    /// The longest delay.
    #[serde(deserialize_with = "duration::deserialize")]
    pub cap: Duration,
}

fn default_capture() -> bool {
    true
}

fn default_timeout() -> Duration {
    Duration::from_secs(10)
}

fn default_concurrency() -> usize {
    64
}

/// Brings each variant's table into the shape of [`Variant`]: merges its retries over the global ones, and separates
/// the gateway's own keys. A value that is not a table is left as it is, so that the reader rejects it under its own
/// name.
pub(super) fn shape(root: &mut Value) {
    let ValueKind::Table(root) = &mut root.kind else { return };
    let global_retry = root.get("retry").cloned().unwrap_or_default();
    let Some(ValueKind::Table(variants)) = root.get_mut("variants").map(|variants| &mut variants.kind) else {
        return;
    };
    for variant in variants.values_mut() {
        let ValueKind::Table(keys) = &mut variant.kind else {
            continue;
        };
        let (mut common, own): (Map<_, _>, Map<_, _>) =
            keys.drain().partition(|(key, _)| COMMON_KEYS.contains(&key.as_str()));
        let retry = match common.remove("retry") {
            Some(retry) => overlay(global_retry.clone(), retry),
            None => global_retry.clone(),
        };
        common.insert("retry".to_owned(), retry);
        common.insert("gateway_settings".to_owned(), Value::from(own));
        *keys = common;
    }
}

/// Merges `top` over `base`: tables key by key, anything else as a whole.
fn overlay(base: Value, top: Value) -> Value {
    match (base.kind, top.kind) {
        (ValueKind::Table(mut base), ValueKind::Table(top)) => {
            for (key, value) in top {
                let merged = match base.remove(&key) {
                    Some(under) => overlay(under, value),
                    None => value,
                };
                base.insert(key, merged);
            }
            Value::from(base)
        }
        (_, top) => Value::from(top),
    }
}
