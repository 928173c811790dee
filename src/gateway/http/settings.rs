//! Configuration of a variant with the gateway `http`.

use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;

use crate::config::duration;
use crate::gateway::account;
use crate::gateway::client::BuildError;
use crate::gateway::signature::WebhookSecrets;
use crate::gateway::url::{GatewayUrl, UrlError};
use crate::payment::contract::AfterServerError;

/// The adapter-specific keys of a variant with `gateway = "http"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSettings {
    /// The gateway's base URL; the operation's name is appended.
    pub url: GatewayUrl,
    /// Sent as `Authorization: Bearer`.
    #[serde(default)]
    pub token: Option<SecretString>,
    /// The account's name, as stored with payments; defaults to `url`. A payment stays with the account with which it
    /// was created.
    #[serde(default)]
    pub account: Option<String>,
    /// Other names of the same account that stored payments may have.
    #[serde(default)]
    pub account_aliases: Vec<String>,
    /// How long the gateway remembers an idempotency key from its first use; zero if it does not support keys. Default:
    /// 24 hours.
    #[serde(default = "key_window_default", deserialize_with = "duration::deserialize")]
    pub key_window: Duration,
    /// How long after a send a look-up may still miss it. Default: 10 seconds.
    #[serde(default = "settle_window_default", deserialize_with = "duration::deserialize")]
    pub settle_window: Duration,
    /// Overrides `key_window` for single actions.
    #[serde(default)]
    pub key_windows: KeyWindows,
    /// What a server error (5xx) does to its key. Default: `runs_again`.
    #[serde(default)]
    pub after_server_error: AfterServerError,
    /// Whether the gateway answers `status` and its `not_found` proves that nothing was done.
    #[serde(default = "lookup_default")]
    pub lookup: bool,
    /// Whether it answers `undo`, if it does not answer `status`.
    #[serde(default)]
    pub undo: bool,
    /// Whether it supports several captures of one authorization.
    #[serde(default)]
    pub multicapture: bool,
    /// The secrets with which the gateway signs webhooks; without any, webhooks are not accepted.
    #[serde(default)]
    pub webhook_secret: WebhookSecrets,
    /// How far webhooks are trusted. Default: `hint`.
    #[serde(default)]
    pub notifications: WebhookRole,
    /// How long an operation waits for a proof if the gateway supports no look-up. Default: 24 hours.
    #[serde(default = "notification_deadline_default", deserialize_with = "duration::deserialize")]
    pub notification_deadline: Duration,
}

/// How far the gateway's webhooks are trusted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WebhookRole {
    /// They only say where to look.
    #[default]
    Hint,
    /// What they say about money is applied.
    Proof,
}

/// Key windows by action; zero if the gateway does not support keys for it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // The names are the actions'.
pub struct KeyWindows {
    #[serde(deserialize_with = "duration::option")]
    pub process: Option<Duration>,
    #[serde(deserialize_with = "duration::option")]
    pub capture: Option<Duration>,
    #[serde(deserialize_with = "duration::option")]
    pub release: Option<Duration>,
    #[serde(deserialize_with = "duration::option")]
    pub refund: Option<Duration>,
    #[serde(deserialize_with = "duration::option")]
    pub cancel: Option<Duration>,
}

impl HttpSettings {
    /// The account's name, as stored with payments.
    pub(super) fn account_name(&self) -> Result<String, BuildError> {
        match &self.account {
            Some(name) => as_stored("account", name),
            None => Ok(self.url.as_str().to_owned()),
        }
    }

    /// The account's other names.
    pub(super) fn other_account_names(&self) -> Result<Vec<String>, BuildError> {
        self.account_aliases.iter().map(|alias| as_stored("account_aliases", alias)).collect()
    }

    /// Validates what the types cannot express.
    pub(super) fn check(&self) -> Result<(), BuildError> {
        account::check(self.account.as_deref(), &self.account_aliases)?;
        if self.undo && self.lookup {
            let wrong = "requires lookup = false; otherwise omit it";
            return Err(BuildError::Setting { key: "undo", wrong });
        }
        Ok(())
    }
}

/// Normalizes a name that is a URL just as `url` itself is stored: in lower case, without the scheme's default port and
/// without a trailing slash.
fn as_stored(key: &'static str, name: &str) -> Result<String, BuildError> {
    match GatewayUrl::try_from(name.to_owned()) {
        Ok(url) => Ok(url.as_str().to_owned()),
        Err(UrlError::Credentials) => {
            Err(BuildError::Setting { key, wrong: "must not contain a user or a password: it is stored and displayed" })
        }
        Err(UrlError::Scheme | UrlError::Query) => Ok(name.to_owned()),
    }
}

fn key_window_default() -> Duration {
    Duration::from_secs(24 * 60 * 60)
}

fn settle_window_default() -> Duration {
    Duration::from_secs(10)
}

fn notification_deadline_default() -> Duration {
    Duration::from_secs(24 * 60 * 60)
}

fn lookup_default() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_defaults_and_refuse_unknown_keys() {
        let settings: HttpSettings =
            serde_json::from_str(r#"{"url": "http://127.0.0.1:9000/", "token": "s3cret"}"#).unwrap();
        assert_eq!(settings.key_window, Duration::from_secs(86_400));
        assert_eq!(settings.settle_window, Duration::from_secs(10));
        assert!(settings.lookup);
        assert_eq!(settings.notifications, WebhookRole::Hint);
        assert_eq!(settings.notification_deadline, Duration::from_secs(86_400));
        assert!(!format!("{settings:?}").contains("s3cret"));
        assert!(serde_json::from_str::<HttpSettings>(r#"{"url": "http://a", "tokn": "x"}"#).is_err());
        assert!(serde_json::from_str::<HttpSettings>("{}").is_err());
    }

    fn settings(account: serde_json::Value, aliases: serde_json::Value) -> HttpSettings {
        let all = serde_json::json!({"url": "http://127.0.0.1:9000/", "account": account, "account_aliases": aliases});
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn an_account_is_called_as_it_is_configured_or_else_by_its_url() {
        let bare: HttpSettings = serde_json::from_str(r#"{"url": "HTTP://Gateway.example:80/pay/"}"#).unwrap();
        assert_eq!(bare.account_name().unwrap(), "http://gateway.example/pay");
        assert!(bare.other_account_names().unwrap().is_empty());
        let named = settings("Cards".into(), serde_json::json!(["cards", "HTTP://127.0.0.1:9000/", "acct:1"]));
        assert!(named.check().is_ok());
        assert_eq!(named.account_name().unwrap(), "Cards");
        assert_eq!(named.other_account_names().unwrap(), ["cards", "http://127.0.0.1:9000", "acct:1"]);
        // The name from before the host was renamed.
        let renamed = settings("http://10.0.0.7:9000/".into(), serde_json::json!([]));
        assert_eq!(renamed.account_name().unwrap(), "http://10.0.0.7:9000");
    }

    #[test]
    fn a_name_of_an_account_holds_no_password() {
        let secret = "https://user:hunter2@gateway.example";
        let named = settings(secret.into(), serde_json::json!([secret]));
        for error in [named.account_name().unwrap_err(), named.other_account_names().unwrap_err()] {
            let error = error.to_string();
            assert!(error.starts_with("account") && !error.contains("hunter2"), "{error}");
        }
        let error = settings("".into(), serde_json::json!([])).check().unwrap_err().to_string();
        assert!(error.starts_with("account: "), "{error}");
    }
}
