//! Loading all layers together. Each test passes its own environment; that of the process is not touched.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::*;
use crate::gateway::stripe::StripeSettings;

mod anything;
mod plaintext;
mod refused;
mod users;

/// Loads the settings from a file with this content, if any, and these variables.
fn load_with(file: Option<&str>, variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    let path = file.map(|content| temporary_file("settings.toml", content));
    let environment = variables.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    let settings = load(path.as_deref(), environment);
    if let Some(directory) = path.as_ref().and_then(|path| path.parent()) {
        std::fs::remove_dir_all(directory).unwrap();
    }
    settings
}

fn temporary_file(name: &str, content: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("paybus-config-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join(name), content).unwrap();
    directory.join(name)
}

fn from_file(content: &str) -> Result<Settings, ConfigError> {
    load_with(Some(content), &[])
}

/// The settings of the `http` gateway, read as gateways read theirs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Http {
    url: String,
    token: Option<SecretString>,
    account: Option<String>,
    #[serde(default)]
    account_aliases: Vec<String>,
    #[serde(default, deserialize_with = "crate::config::duration::option")]
    key_window: Option<Duration>,
    #[serde(default, deserialize_with = "crate::config::duration::option")]
    settle_window: Option<Duration>,
    #[serde(default)]
    key_windows: Option<serde_json::Value>,
    #[serde(default)]
    after_server_error: Option<String>,
    #[serde(default)]
    multicapture: Option<bool>,
    #[serde(default)]
    undo: Option<bool>,
    #[serde(default)]
    notifications: Option<String>,
    #[serde(default, deserialize_with = "crate::config::duration::option")]
    notification_deadline: Option<Duration>,
    #[serde(default)]
    lookup: bool,
    #[serde(default)]
    port: u16,
    webhook_secret: Option<SecretString>,
}

fn http(settings: &Settings) -> Result<Http, ConfigError> {
    settings.variants["cards"].gateway_settings()
}

#[test]
fn defaults_run_without_arguments() {
    let settings = load_with(None, &[("PATH", "/bin"), ("PAYBUS_CONFIG", "x"), ("PAYBUS_TEST_URL", "x")]).unwrap();
    assert_eq!(settings.amqp.url.expose_secret(), "amqp://guest:guest@127.0.0.1:5672/%2f");
    assert_eq!(settings.amqp.reply_to, r"^(amq\.rabbitmq\.reply-to|reply\.)");
    assert_eq!((settings.amqp.declare, settings.amqp.delivery_limit), (true, 100));
    assert_eq!((settings.database.pool, settings.database.tls_mode), (8, TlsMode::Disable));
    assert_eq!(settings.http.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.retry.delayed.len(), 5);
    assert_eq!(settings.retention.events, Duration::from_secs(90 * 86_400));
    assert_eq!(settings.retention.notifications, Duration::from_secs(30 * 86_400));
    assert_eq!(settings.log.format, LogFormat::Auto);
    let variant = &settings.variants["default"];
    assert_eq!((settings.variants.len(), variant.gateway.as_str(), variant.prefetch()), (1, "dummy", 96));
    assert_eq!(variant.retry, settings.retry);
}

/// The defaults in the code must be those that `default.toml` shows for `[variants.default]`.
#[test]
fn a_variant_without_keys_has_the_documented_defaults() {
    let documented = format!("{:?}", load_with(None, &[]).unwrap().variants["default"]);
    let bare = format!("{:?}", from_file("[variants.cards]\ngateway = 'dummy'").unwrap().variants["cards"]);
    assert_eq!(bare, documented);
}

/// The settings that are commented out in `default.toml` can be uncommented, and are exactly those without a default.
#[test]
fn every_key_is_documented() {
    let text = include_str!("../../../config/default.toml");
    let is_setting = |rest: &str| rest.starts_with(|first: char| first == '[' || first.is_ascii_lowercase());
    let uncommented: String = text
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| is_setting(rest)).unwrap_or(line).to_owned() + "\n")
        .collect();
    let encrypted = uncommented.replace("amqp://", "amqps://").replace("\"disable\"\n", "\"verify-full\"\n");
    let secrets = [
        ("CARDS_TOKEN", "secret"),
        ("CARDS_WEBHOOK_SECRET", "whsec"),
        ("STRIPE_SECRET_KEY", "sk_test_1"),
        ("STRIPE_WEBHOOK_SECRET", "whsec_1"),
    ];
    let settings = load_with(Some(&encrypted), &secrets).unwrap();
    assert!(settings.amqp.tls.ca.is_some() && settings.amqp.tls.key.is_some() && settings.database.tls.cert.is_some());
    assert_eq!(settings.variants["default"].rate, Some(100.0));
    assert_eq!(settings.variants["default"].retry.immediate.attempts, 1);
    let http = http(&settings).unwrap();
    assert_eq!((http.url.as_str(), http.lookup), ("http://127.0.0.1:9000", true));
    assert_eq!(http.token.unwrap().expose_secret(), "secret");
    assert_eq!((http.account.as_deref(), http.account_aliases.len()), (Some("cards-main"), 1));
    assert_eq!(http.webhook_secret.unwrap().expose_secret(), "whsec");
    assert_eq!((http.key_window, http.settle_window), (duration::parse("24h"), duration::parse("10s")));
    assert_eq!(http.key_windows.unwrap()["process"], "6h");
    assert_eq!((http.after_server_error.as_deref(), http.multicapture), (Some("runs_again"), Some(false)));
    assert_eq!((http.notifications.as_deref(), http.notification_deadline), (Some("hint"), duration::parse("24h")));
    assert_eq!(http.undo, Some(false));
    assert_eq!(settings.amqp.memory, Some(256));
    let shop = &settings.users["shop"];
    assert_eq!((shop.role, shop.sources.iter().flatten().count()), (Role::Service, 2));
    let stripe = settings.variants["cards-eu"].gateway_settings::<StripeSettings>().unwrap();
    assert_eq!(stripe.secret_key.unwrap().expose_secret(), "sk_test_1");
    assert_eq!(stripe.webhook_secret.iter().count(), 1);
    assert_eq!(stripe.account_aliases, ["https://api.stripe.com live"]);
    let bare: StripeSettings = serde_json::from_str(r#"{"secret_key": "sk_test_1"}"#).unwrap();
    assert_eq!((&stripe.api_base, &stripe.api_version), (&bare.api_base, &bare.api_version));
    assert_eq!(stripe.settle_window, bare.settle_window);
}

#[test]
fn several_webhook_secrets_may_stand_anywhere() {
    let file = "[variants.cards]\ngateway = 'stripe'\nsecret_key = 'env:KEY'\nwebhook_secret = ['env:OLD', 'env:NEW']";
    let settings = load_with(Some(file), &[("KEY", "sk_test_1"), ("OLD", "whsec_1"), ("NEW", "whsec_2")]).unwrap();
    let stripe = settings.variants["cards"].gateway_settings::<StripeSettings>().unwrap();
    let secrets: Vec<&str> = stripe.webhook_secret.iter().map(ExposeSecret::expose_secret).collect();
    assert_eq!(secrets, ["whsec_1", "whsec_2"]);
    let variable = ("PAYBUS__VARIANTS__CARDS__WEBHOOK_SECRET", "whsec_3,whsec_4");
    let settings = load_with(Some(file), &[("KEY", "sk_test_1"), variable]).unwrap();
    let stripe = settings.variants["cards"].gateway_settings::<StripeSettings>().unwrap();
    assert_eq!(stripe.webhook_secret.iter().count(), 2);
}

#[test]
fn an_account_has_several_names_in_a_variable_too() {
    let file = "[variants.cards]\ngateway = 'http'\nurl = 'http://gateway'\naccount_aliases = ['http://a']";
    let names = |variables: &[(&str, &str)]| http(&load_with(Some(file), variables).unwrap()).unwrap().account_aliases;
    assert_eq!(names(&[]), ["http://a"]);
    let variable = ("PAYBUS__VARIANTS__CARDS__ACCOUNT_ALIASES", "http://a:9000, http://b");
    assert_eq!(names(&[variable]), ["http://a:9000", "http://b"]);
}

#[test]
fn the_file_lies_over_the_defaults_and_the_environment_over_both() {
    let file = "[amqp]\nprefix = 'shop'\nheartbeat = '5s'\n[retry]\nimmediate = { attempts = 5 }";
    let variables = [
        ("PAYBUS__AMQP__PREFIX", "00123"),
        ("PAYBUS__AMQP__DECLARE", "false"),
        ("PAYBUS__DATABASE__POOL", "3"),
        ("PAYBUS__Retry__Immediate__factor", "1.5"),
        ("PAYBUS__RETRY__DELAYED", "1s, 2m"),
        ("PAYBUS__LOG__FORMAT", "json"),
    ];
    let settings = load_with(Some(file), &variables).unwrap();
    assert_eq!((settings.amqp.prefix.as_str(), settings.amqp.declare), ("00123", false));
    assert_eq!((settings.amqp.heartbeat, settings.database.pool), (Duration::from_secs(5), 3));
    let immediate =
        Immediate { attempts: 5, factor: 1.5, first: Duration::from_millis(100), cap: Duration::from_secs(2) };
    assert_eq!(settings.retry, Retry { immediate, delayed: vec![Duration::from_secs(1), Duration::from_secs(120)] });
    assert_eq!(settings.log.format, LogFormat::Json);
    let settings = load_with(None, &[("PAYBUS__RETRY__DELAYED", "")]).unwrap();
    assert!(settings.retry.delayed.is_empty());
}

#[test]
fn variants_of_the_defaults_hold_only_where_none_is_named() {
    let names = |settings: Settings| settings.variants.into_keys().collect::<Vec<_>>();
    assert_eq!(names(from_file("[variants]\n[log]\nfilter = 'warn'").unwrap()), ["default"]);
    assert_eq!(names(from_file("[variants.cards]\ngateway = 'http'").unwrap()), ["cards"]);
    let variables = [("PAYBUS__VARIANTS__CARDS__GATEWAY", "http"), ("PAYBUS__VARIANTS__CARDS__TOKEN", "00123")];
    let settings = load_with(None, &variables).unwrap();
    assert_eq!(names(settings), ["cards"]);
    // A `default` in the file is a variant of its own: it inherits nothing from the one in the defaults.
    refused::check_error("[variants.default]\ntimeout = '1s'", "variants.default.gateway: missing");
}

#[test]
fn the_environment_lies_over_the_variants_of_the_file() {
    let file =
        "[variants.cards]\ngateway = 'http'\nurl = 'http://gateway'\ntoken = 'a'\n[variants.other]\ngateway = 'dummy'";
    let variables = [
        ("PAYBUS__VARIANTS__CARDS__TOKEN", "00123"),
        ("PAYBUS__VARIANTS__CARDS__LOOKUP", "true"),
        ("PAYBUS__VARIANTS__CARDS__PORT", "9000"),
        ("PAYBUS__VARIANTS__CARDS__RATE", "0.5"),
        ("PAYBUS__VARIANTS__CARDS__BREAKER__FAILURES", "3"),
        ("PAYBUS__VARIANTS__CARDS__RETRY__IMMEDIATE__ATTEMPTS", "1"),
    ];
    let settings = load_with(Some(file), &variables).unwrap();
    let cards = &settings.variants["cards"];
    assert_eq!((cards.rate, cards.breaker.failures, cards.breaker.open), (Some(0.5), 3, Duration::from_secs(30)));
    assert_eq!((cards.retry.immediate.attempts, &cards.retry.delayed), (1, &settings.retry.delayed));
    let http = http(&settings).unwrap();
    assert_eq!((http.token.unwrap().expose_secret(), http.lookup, http.port), ("00123", true, 9000));
    assert_eq!(settings.variants.len(), 2);
}

#[test]
fn a_variants_retry_lies_over_the_global_one_key_by_key() {
    let file = "[retry]\ndelayed = ['7s']\n[variants.a]\ngateway = 'dummy'\nretry = { immediate = { cap = '9s' } }\n\
        [variants.b]\ngateway = 'dummy'\n[variants.b.retry]\ndelayed = []";
    let settings = from_file(file).unwrap();
    let (a, b) = (&settings.variants["a"].retry, &settings.variants["b"].retry);
    assert_eq!(
        (a.immediate.attempts, a.immediate.cap, &a.delayed),
        (3, Duration::from_secs(9), &settings.retry.delayed)
    );
    assert_eq!((&b.immediate, b.delayed.len()), (&settings.retry.immediate, 0));
}

#[test]
fn references_are_followed_once_and_only_where_they_count() {
    let secret = temporary_file("token", "env:NOT_FOLLOWED\n\n");
    let file = format!(
        "[amqp]\nurl = 'env:MISSING'\n[retry]\ndelayed = ['env:DELAY']\n[worker]\nlease_margin = 'env:DELAY'\n\
         [variants.cards]\ngateway = 'http'\nurl = 'http://gateway'\ntoken = 'file:{}'\nport = 'env:PORT'",
        secret.display()
    );
    let variables = [("PAYBUS__AMQP__URL", "env:BROKER"), ("BROKER", "amqp://[::1]"), ("DELAY", "3s"), ("PORT", "99")];
    let settings = load_with(Some(&file), &variables).unwrap();
    std::fs::remove_dir_all(secret.parent().unwrap()).unwrap();
    assert_eq!(settings.amqp.url.expose_secret(), "amqp://[::1]");
    assert_eq!(
        (settings.retry.delayed[0], settings.worker.lease_margin),
        (Duration::from_secs(3), Duration::from_secs(3))
    );
    let http = http(&settings).unwrap();
    assert_eq!((http.token.unwrap().expose_secret(), http.port), ("env:NOT_FOLLOWED\n", 99));
}

#[test]
fn no_secret_is_ever_shown() {
    let variables = [
        ("PAYBUS__AMQP__URL", "amqp://user:hunter2@broker"),
        ("PAYBUS__DATABASE__URL", "postgres://user:hunter2@host/db"),
        ("PAYBUS__AMQP__INSECURE", "true"),
        ("PAYBUS__DATABASE__INSECURE", "true"),
        ("PAYBUS__VARIANTS__CARDS__GATEWAY", "http"),
        ("PAYBUS__VARIANTS__CARDS__TOKEN", "hunter2"),
    ];
    let settings = load_with(None, &variables).unwrap();
    assert!(!format!("{settings:?} {settings:#?}").contains("hunter2"));
    for (variable, value) in [
        ("PAYBUS__AMQP", "hunter2"),
        ("PAYBUS__AMQP__URL", "hunter2"),
        ("PAYBUS__AMQP__URL", "amqp://user:hunter2@broker"),
        ("PAYBUS__AMQP__URL", "amqp://user:p@hunter2/rest@broker"),
        ("PAYBUS__DATABASE__URL", "postgres://user:hunter2@host/db"),
        ("PAYBUS__DATABASE__URL", "postgres://user:p@hunter2/rest@host/db"),
        ("PAYBUS__DATABASE__URL", "postgres://user:hunter2@host:x/db"),
        ("PAYBUS__DATABASE__POOL", "hunter2"),
        ("PAYBUS__DATABASE__TLS_MODE", "hunter2"),
        ("PAYBUS__HTTP__LISTEN", "hunter2"),
        ("PAYBUS__AMQP__HEARTBEAT", "hunter2"),
        ("PAYBUS__AMQP__REPLY_TO", "(hunter2"),
        ("PAYBUS__LOG__FILTER", "paybus=hunter2"),
    ] {
        let error = load_with(None, &[(variable, value)]).expect_err(variable);
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}

#[test]
fn a_setting_with_one_underscore_is_refused_and_what_others_set_is_not() {
    let error = load_with(None, &[("PAYBUS_DATABASE_URL", "postgres://user:hunter2@host/db")]).unwrap_err().to_string();
    let expected = "environment variable PAYBUS_DATABASE_URL: sets nothing; did you mean PAYBUS__DATABASE__URL?";
    assert_eq!(error, expected);
    // Kubernetes sets such variables for services named paybus and paybus-http.
    let others =
        [("PAYBUS_SERVICE_HOST", "10.0.0.1"), ("PAYBUS_HTTP_PORT", "tcp://10.0.0.1:80"), ("PAYBUS_CONFIG", "")];
    assert!(load_with(None, &others).is_ok());
    let address = ("PAYBUS_DATABASE_URL", "postgres://localhost/db");
    for set in ["env:PAYBUS_DATABASE_URL", "postgres://localhost/another"] {
        assert!(load_with(None, &[address, ("PAYBUS__DATABASE__URL", set)]).is_ok());
    }
    assert!(load_with(Some("[database]\nurl = \"env:PAYBUS_DATABASE_URL\""), &[address]).is_ok());
}

#[test]
fn prefetch_is_one_and_a_half_times_the_concurrency() {
    let mut variant = load_with(None, &[]).unwrap().variants["default"].clone();
    for (concurrency, prefetch) in
        [(0, 1), (1, 2), (2, 3), (64, 96), (1_333, 2_000), (10_000, 2_000), (usize::MAX, 2_000)]
    {
        variant.concurrency = concurrency;
        assert_eq!(variant.prefetch(), prefetch, "{concurrency}");
    }
}
