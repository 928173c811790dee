//! Configuration of a variant with the gateway `stripe`.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::config::duration;
use crate::gateway::account;
use crate::gateway::client::BuildError;
use crate::gateway::signature::WebhookSecrets;
use crate::gateway::url::GatewayUrl;

/// Stripe's maximum length of a suffix, in characters.
const SUFFIX_CHARACTERS_MAX: usize = 22;

/// The adapter-specific keys of a variant with `gateway = "stripe"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StripeSettings {
    /// A secret key, `sk_...`, or a restricted one, `rk_...`. Not required for only receiving webhooks.
    #[serde(default)]
    pub secret_key: Option<SecretString>,
    /// Signing secrets of webhooks, `whsec_...`: one, or several during rotation.
    #[serde(default)]
    pub webhook_secret: WebhookSecrets,
    /// The account's name, as stored with payments, for example `acct_...`. A payment stays with the account with which
    /// it was created: if the key is replaced by that of another account, change this name too.
    #[serde(default)]
    pub account: Option<String>,
    /// Other names of the same account that stored payments may have.
    #[serde(default)]
    pub account_aliases: Vec<String>,
    /// Base URL of the API.
    #[serde(default = "api_base_default")]
    pub api_base: GatewayUrl,
    /// API version.
    #[serde(default = "api_version_default")]
    pub api_version: String,
    /// Suffix of the statement descriptor, after the account's own prefix.
    #[serde(default)]
    pub statement_descriptor_suffix: Option<String>,
    /// Whether to request several captures per authorization: the account must support Stripe's multicapture.
    #[serde(default)]
    pub multicapture: bool,
    /// How long after a send a look-up may still miss it. Default: 2 minutes, because Stripe's own clients wait up to
    /// 80 seconds for an answer, so that a request may be in progress for as long.
    #[serde(default = "settle_window_default", deserialize_with = "duration::deserialize")]
    pub settle_window: Duration,
}

fn api_base_default() -> GatewayUrl {
    GatewayUrl::https("api.stripe.com")
}

/// The API version against whose published description this adapter was written and checked.
fn api_version_default() -> String {
    "2023-08-16".to_owned()
}

fn settle_window_default() -> Duration {
    Duration::from_secs(120)
}

impl StripeSettings {
    /// The API key, required for calls.
    pub(super) fn secret_key(&self) -> Result<&SecretString, BuildError> {
        self.secret_key.as_ref().ok_or(BuildError::Setting { key: "secret_key", wrong: "missing" })
    }

    /// Whether the key is for real money; `None` if it does not say.
    pub(super) fn livemode(&self) -> Option<bool> {
        match self.secret_key.as_ref()?.expose_secret().split('_').nth(1) {
            Some("live") => Some(true),
            Some("test") => Some(false),
            _ => None,
        }
    }

    /// The account's name, as stored with payments.
    pub(super) fn account_name(&self) -> String {
        let mode = match self.livemode() {
            Some(true) => "live",
            Some(false) => "test",
            None => "unknown",
        };
        self.account.clone().unwrap_or_else(|| format!("{} {mode}", self.api_base))
    }

    /// Validates what the types cannot express.
    pub(super) fn check(&self) -> Result<(), BuildError> {
        let wrong = |key, wrong| Err(BuildError::Setting { key, wrong });
        if self.secret_key.as_ref().is_some_and(|key| key.expose_secret().starts_with("pk_")) {
            return wrong("secret_key", "is a publishable key, which permits nothing; it must be sk_... or rk_...");
        }
        self.webhook_secret.check()?;
        account::check(self.account.as_deref(), &self.account_aliases)?;
        if self.api_version.is_empty() || !self.api_version.bytes().all(|byte| byte.is_ascii_graphic()) {
            return wrong("api_version", "must be a Stripe API version, such as \"2023-08-16\"");
        }
        let suffix = self.statement_descriptor_suffix.as_deref().unwrap_or("X");
        let is_printable = suffix.chars().all(|c| !c.is_control() && !matches!(c, '<' | '>' | '\\' | '\'' | '"' | '*'));
        let has_letter = suffix.chars().any(char::is_alphabetic);
        if !is_printable || !has_letter || suffix.chars().count() > SUFFIX_CHARACTERS_MAX {
            let what = "must have at most 22 characters, at least one letter, and none of < > \\ ' \" *";
            return wrong("statement_descriptor_suffix", what);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(more: serde_json::Value) -> StripeSettings {
        let mut all = json!({"secret_key": "sk_test_51x"});
        for (key, value) in more.as_object().unwrap() {
            all[key] = value.clone();
        }
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn settings_have_defaults_and_hide_their_secrets() {
        let read = settings(json!({"webhook_secret": "whsec_a"}));
        assert_eq!(read.api_base.as_str(), "https://api.stripe.com");
        assert_eq!(read.api_version, "2023-08-16");
        assert_eq!(read.settle_window, Duration::from_secs(120));
        assert!(read.check().is_ok());
        let shown = format!("{read:?}");
        assert!(!shown.contains("51x") && !shown.contains("whsec"), "{shown}");
    }

    #[test]
    fn an_account_keeps_its_other_names_as_they_are_written() {
        let names = ["acct_0", "https://api.stripe.com live"];
        let read = settings(json!({"account": "acct_1", "account_aliases": names}));
        assert!(read.check().is_ok());
        assert_eq!(read.account_name(), "acct_1");
        assert_eq!(read.account_aliases, names);
        let error = settings(json!({"account_aliases": [""]})).check().unwrap_err().to_string();
        assert!(error.starts_with("account_aliases: "), "{error}");
    }

    #[test]
    fn only_calls_need_the_key() {
        let read: StripeSettings = serde_json::from_value(json!({"webhook_secret": "whsec_a"})).unwrap();
        assert!(read.check().is_ok());
        assert_eq!(read.secret_key().unwrap_err().to_string(), "secret_key: missing");
    }

    #[test]
    fn the_key_shows_its_mode() {
        for (key, livemode) in
            [("sk_live_51x", Some(true)), ("rk_test_51x", Some(false)), ("sk_test_51x", Some(false)), ("x", None)]
        {
            assert_eq!(settings(json!({"secret_key": key})).livemode(), livemode, "{key}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        for (key, value) in [
            ("secret_key", "pk_test_51x"),
            ("webhook_secret", ""),
            ("account", ""),
            ("api_version", "a b"),
            ("statement_descriptor_suffix", "123"),
            ("statement_descriptor_suffix", "SHOP*"),
            ("statement_descriptor_suffix", "A SUFFIX OF MORE THAN 22"),
        ] {
            let mut more = json!({});
            more[key] = value.into();
            let error = settings(more).check().unwrap_err().to_string();
            assert!(error.starts_with(key), "{error}");
        }
    }
}
