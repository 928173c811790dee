//! The `process` object of a command: what a shop may specify about how the customer pays.

use reqwest::Url;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use strum::IntoStaticStr;

use crate::payment::code::{Code, Rejection};
use crate::payment::field::quoted;

/// Maximum length of a Stripe id.
pub(super) const ID_CHARACTERS_MAX: usize = 255;
const URL_CHARACTERS_MAX: usize = 2_048;
const TYPES_MAX: usize = 20;

/// The fields of the object. Card numbers are rejected before anything reads it.
const FIELDS: [&str; 9] = [
    "payment_method",
    "payment_method_types",
    "automatic_payment_methods",
    "customer",
    "return_url",
    "use_stripe_sdk",
    "off_session",
    "setup_future_usage",
    "mandate",
];

/// How the customer pays.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Process {
    /// The token, `pm_...`; if omitted, the existing payment intent continues as it is.
    pub payment_method: Option<String>,
    /// The allowed payment method types; `card` if neither this nor the next field is given.
    pub payment_method_types: Vec<String>,
    /// Use the methods enabled in the dashboard.
    pub automatic_payment_methods: Option<AutomaticPaymentMethods>,
    /// The customer who owns the saved payment method, `cus_...`.
    pub customer: Option<String>,
    /// Where the customer returns to; without it there is no redirect.
    pub return_url: Option<String>,
    /// The shop's page completes the payment with Stripe.js, and gets the client secret.
    pub use_stripe_sdk: bool,
    /// The customer is not present.
    pub off_session: bool,
    /// Saves the payment method for later.
    pub setup_future_usage: Option<FutureUsage>,
    /// The mandate of a bank debit, `mandate_...`.
    pub mandate: Option<String>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AutomaticPaymentMethods {
    pub enabled: bool,
    pub allow_redirects: Option<Redirects>,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub(super) enum Redirects {
    Always,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub(super) enum FutureUsage {
    OffSession,
    OnSession,
}

impl Redirects {
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl FutureUsage {
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl Process {
    /// Reads the object.
    ///
    /// # Errors
    /// Says what is wrong with it, by field.
    pub fn read(data: &Map<String, Value>) -> Result<Process, Rejection> {
        if let Some(unknown) = data.keys().find(|name| !FIELDS.contains(&name.as_str())) {
            let message =
                format!("process.{}: unknown field; the known ones are {}", quoted(unknown), FIELDS.join(", "));
            return Err(Rejection::new(Code::UnknownField, message));
        }
        let process = Process {
            payment_method: id(data, "payment_method", &["pm_", "card_", "src_"])?,
            payment_method_types: types(data)?,
            automatic_payment_methods: field(data, "automatic_payment_methods", "an object with enabled")?,
            customer: id(data, "customer", &["cus_"])?,
            return_url: url(data, "return_url")?,
            use_stripe_sdk: field(data, "use_stripe_sdk", "true or false")?.unwrap_or_default(),
            off_session: field(data, "off_session", "true or false")?.unwrap_or_default(),
            setup_future_usage: field(data, "setup_future_usage", "off_session or on_session")?,
            mandate: id(data, "mandate", &["mandate_"])?,
        };
        process.check_together()?;
        Ok(process)
    }

    fn check_together(&self) -> Result<(), Rejection> {
        if self.automatic_payment_methods.is_some() && !self.payment_method_types.is_empty() {
            return Err(invalid("payment_method_types", "must not be given together with automatic_payment_methods"));
        }
        if self.off_session && (self.use_stripe_sdk || self.return_url.is_some()) {
            return Err(invalid(
                "off_session",
                "must not be given together with return_url or use_stripe_sdk: the customer is not present",
            ));
        }
        Ok(())
    }
}

fn invalid(name: &str, what: &str) -> Rejection {
    Rejection::new(Code::InvalidData, format!("process.{name}: {what}"))
}

fn field<T: DeserializeOwned>(data: &Map<String, Value>, name: &str, expected: &str) -> Result<Option<T>, Rejection> {
    let Some(value) = data.get(name).filter(|value| !value.is_null()) else {
        return Ok(None);
    };
    T::deserialize(value).map(Some).map_err(|_| invalid(name, &format!("must be {expected}")))
}

/// Reads a Stripe id. Its value is never quoted.
fn id(data: &Map<String, Value>, name: &str, prefixes: &[&str]) -> Result<Option<String>, Rejection> {
    let expected = format!("a Stripe id, {}...", prefixes.join("..., "));
    let Some(id) = field::<String>(data, name, &expected)? else {
        return Ok(None);
    };
    let is_word = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let begins = prefixes.iter().any(|prefix| id.starts_with(prefix));
    if !is_word || !begins || id.len() > ID_CHARACTERS_MAX {
        return Err(invalid(name, &format!("must be {expected}")));
    }
    Ok(Some(id))
}

fn types(data: &Map<String, Value>) -> Result<Vec<String>, Rejection> {
    let expected = "a list of Stripe's payment method types, such as [\"card\"]";
    let types: Vec<String> = field(data, "payment_method_types", expected)?.unwrap_or_default();
    let is_type = |name: &String| {
        let is_word = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        is_word && !name.is_empty() && name.len() <= ID_CHARACTERS_MAX
    };
    if types.len() > TYPES_MAX || !types.iter().all(is_type) {
        return Err(invalid("payment_method_types", &format!("must be {expected}")));
    }
    Ok(types)
}

fn url(data: &Map<String, Value>, name: &str) -> Result<Option<String>, Rejection> {
    let expected = "an absolute URL of at most 2048 characters";
    let Some(text) = field::<String>(data, name, expected)? else {
        return Ok(None);
    };
    let is_url = Url::parse(&text).is_ok() && !text.chars().any(|c| c.is_whitespace() || c.is_control());
    if !is_url || text.chars().count() > URL_CHARACTERS_MAX {
        return Err(invalid(name, &format!("must be {expected}")));
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(data: Value) -> Result<Process, Rejection> {
        Process::read(data.as_object().unwrap())
    }

    #[test]
    fn every_field_is_read() {
        let process = read(json!({
            "payment_method": "pm_card_visa", "payment_method_types": ["card", "link"], "customer": "cus_1",
            "return_url": "https://shop.example/back", "use_stripe_sdk": true, "setup_future_usage": "off_session",
            "mandate": "mandate_1"
        }))
        .unwrap();
        assert_eq!(process.payment_method.as_deref(), Some("pm_card_visa"));
        assert_eq!(process.payment_method_types, ["card", "link"]);
        assert_eq!(process.setup_future_usage, Some(FutureUsage::OffSession));
        assert!(process.use_stripe_sdk && !process.off_session);
        assert_eq!(read(json!({})), Ok(Process::default()));
        let automatic = read(json!({"automatic_payment_methods": {"enabled": true, "allow_redirects": "never"}}));
        let redirects = Some(Redirects::Never);
        let expected = AutomaticPaymentMethods { enabled: true, allow_redirects: redirects };
        assert_eq!(automatic.unwrap().automatic_payment_methods, Some(expected));
    }

    #[test]
    fn an_unknown_name_is_not_quoted_at_length() {
        let rejection = read(json!({"x".repeat(900_000): 1})).unwrap_err();
        assert!(rejection.message.len() < 500, "{} bytes", rejection.message.len());
    }

    #[test]
    fn what_is_wrong_is_named_and_not_quoted() {
        for (data, name) in [
            (json!({"payment_methode": "pm_1"}), "payment_methode"),
            (json!({"card": {"number": "4242"}}), "card"),
            (json!({"payment_method": 1}), "payment_method"),
            (json!({"payment_method": "tok_s3cret"}), "payment_method"),
            (json!({"payment_method": "pm_1&amount=1"}), "payment_method"),
            (json!({"payment_method_types": "card"}), "payment_method_types"),
            (json!({"payment_method_types": ["Card"]}), "payment_method_types"),
            (json!({"automatic_payment_methods": {"enabled": true, "more": 1}}), "automatic_payment_methods"),
            (
                json!({"automatic_payment_methods": {"enabled": true}, "payment_method_types": ["card"]}),
                "payment_method_types",
            ),
            (json!({"return_url": "/back"}), "return_url"),
            (json!({"return_url": "https://a b"}), "return_url"),
            (json!({"off_session": "yes"}), "off_session"),
            (json!({"off_session": true, "return_url": "https://shop.example"}), "off_session"),
            (json!({"setup_future_usage": "always"}), "setup_future_usage"),
        ] {
            let rejection = read(data.clone()).unwrap_err();
            assert!(rejection.message.starts_with(&format!("process.{name}:")), "{data}: {}", rejection.message);
            assert!(!rejection.message.contains("s3cret"));
        }
    }
}
