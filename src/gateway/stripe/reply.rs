//! One exchange with Stripe, and what it proves if it returns no object.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::HeaderMap;
use reqwest::{RequestBuilder, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::gateway::clean::{self, CODE_CHARACTERS_MAX, MESSAGE_CHARACTERS_MAX};
use crate::gateway::client::{read_bounded, send};
use crate::gateway::clock::GatewayClock;
use crate::gateway::failure::{Failure, Reach, retry_after};
use crate::gateway::legible::{self, leave_out};
use crate::payment::code::Code;
use crate::payment::outcome::{Found, GatewayError, Outcome};
use crate::payment::trace::TraceContext;

/// The members that identify the object, its state and its money. If one occurs twice, the answer says nothing.
const MONEY: [&str; 15] = [
    "id",
    "object",
    "status",
    "amount",
    "amount_received",
    "amount_capturable",
    "amount_captured",
    "amount_refunded",
    "currency",
    "livemode",
    "metadata",
    "payment_intent",
    "latest_charge",
    "data",
    "has_more",
];

/// An answer other than the requested object.
#[derive(Debug)]
pub(super) struct Denial {
    /// How far the request may have got.
    pub failure: Failure,
    /// What Stripe said, if anything.
    pub error: Box<ErrorObject>,
}

/// Stripe's error object: that of a request, or that of a payment intent's last attempt. Its presence matters more than
/// its texts; values of another type are dropped.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ErrorObject {
    #[serde(rename = "type", deserialize_with = "or_nothing")]
    pub kind: String,
    #[serde(deserialize_with = "or_nothing")]
    pub code: Option<String>,
    #[serde(deserialize_with = "or_nothing")]
    pub decline_code: Option<String>,
    #[serde(deserialize_with = "or_nothing")]
    pub message: Option<String>,
    #[serde(deserialize_with = "or_nothing")]
    pub charge: Option<String>,
    /// Its state after the error.
    pub payment_intent: Option<Value>,
    /// The following were added in later API versions.
    #[serde(deserialize_with = "or_nothing")]
    pub advice_code: Option<String>,
    #[serde(deserialize_with = "or_nothing")]
    pub network_advice_code: Option<String>,
    #[serde(deserialize_with = "or_nothing")]
    pub network_decline_code: Option<String>,
}

/// Reads an optional detail; a value of an unexpected type counts as omitted.
pub(super) fn or_nothing<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(T::deserialize(value).unwrap_or_else(|_| {
        leave_out("an optional member", "its type differs from Stripe's description");
        T::default()
    }))
}

/// Reads a number that may be omitted, and distinguishes that from null.
pub(super) fn or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<i64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl From<Failure> for Denial {
    fn from(failure: Failure) -> Denial {
        Denial { failure, error: Box::default() }
    }
}

impl From<GatewayError> for Denial {
    /// An answer that cannot be used, although Stripe may have acted.
    fn from(error: GatewayError) -> Denial {
        Failure::unusable(error).into()
    }
}

impl From<Denial> for Outcome {
    fn from(denial: Denial) -> Outcome {
        denial.failure.into()
    }
}

impl From<Denial> for Found {
    fn from(denial: Denial) -> Found {
        denial.failure.into()
    }
}

impl Denial {
    /// For a request that moves no money: whatever happened to it, the request that it prepares was not sent. A
    /// mismatch is left to a person, because it proves nothing about money that may already be there.
    pub fn before_sending(mut self) -> Denial {
        if self.failure.reach == Reach::Unknown && self.failure.error.code != Code::Mismatch {
            self.failure.reach = Reach::NotSent;
        }
        self
    }

    /// For a question before a request: whatever the answer, the request was not sent, and a refusal is not the
    /// request's. A mismatch is left to a person.
    pub fn of_a_question(mut self) -> Denial {
        let error = &mut self.failure.error;
        if error.code != Code::Mismatch {
            self.failure.reach = Reach::NotSent;
        }
        if error.code == Code::Declined {
            error.code = Code::Refused;
        }
        self
    }

    /// Whether a payment attempt was declined.
    pub fn is_decline(&self) -> bool {
        self.failure.error.code == Code::Declined
    }

    /// Whether the object does not exist.
    pub fn is_missing(&self) -> bool {
        self.error.code.as_deref() == Some("resource_missing")
    }
}

/// An answer that cannot be understood.
pub(super) fn invalid(what: &str) -> GatewayError {
    GatewayError::new(Code::InvalidAnswer, format!("Stripe's answer: {what}"))
}

/// An answer that cannot belong to the request.
pub(super) fn mismatch(what: &str) -> GatewayError {
    GatewayError::new(Code::Mismatch, format!("Stripe's answer: {what}"))
}

/// Sends a request and reads the returned object.
pub(super) async fn exchange(
    request: RequestBuilder,
    trace: Option<&TraceContext>,
    clock: &GatewayClock,
) -> Result<Map<String, Value>, Denial> {
    let response = send(request, trace).await.map_err(Failure::of_transport)?;
    let (status, headers) = (response.status(), response.headers().clone());
    clock.read(&headers);
    let body = read_bounded(response).await;
    if status == StatusCode::OK {
        let object = legible::read(&body?).ok_or_else(|| invalid("must be a JSON object"))?;
        return match object.contradicted_anywhere(&MONEY) {
            Some(name) => Err(invalid(&format!("{name} occurs twice")).into()),
            None => Ok(object.fields),
        };
    }
    Err(deny(status, &headers, &body.unwrap_or_default()))
}

/// Stripe's error object in a body; an empty one if there is none or if it has duplicate members.
fn error_of(body: &[u8]) -> ErrorObject {
    let read =
        legible::read(body).filter(|read| read.contradicted_anywhere(&[&MONEY[..], &["error"]].concat()).is_none());
    let error = read.and_then(|mut read| read.fields.remove("error")).filter(Value::is_object);
    error.and_then(|error| ErrorObject::deserialize(error).ok()).unwrap_or_default()
}

pub(super) fn deny(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Denial {
    let error = error_of(body);
    let (reach, code) = class(status.as_u16(), &error, should_retry(headers));
    let gateway_error = GatewayError {
        code,
        message: message(status, headers, &error),
        gateway_code: error.own_code().map(|own| clean::text(own, CODE_CHARACTERS_MAX)),
        retry_after: wait(headers),
    };
    Denial { failure: Failure { reach, error: gateway_error }, error: Box::new(error) }
}

impl ErrorObject {
    /// Whether the error comes from Stripe: all of its errors have a type, a proxy's page has none.
    fn is_stripes(&self) -> bool {
        !self.kind.is_empty()
    }

    /// The most specific code available.
    pub fn own_code(&self) -> Option<&str> {
        let kind = Some(self.kind.as_str()).filter(|kind| !kind.is_empty());
        self.decline_code.as_deref().or(self.code.as_deref()).or(kind)
    }
}

fn message(status: StatusCode, headers: &HeaderMap, error: &ErrorObject) -> String {
    let mut message = format!("Stripe answered {status}");
    if let Some(words) = error.message.as_deref().filter(|words| !words.is_empty()) {
        message = format!("{message}: {words}");
    } else if status.is_client_error() && !error.is_stripes() {
        message.push_str(" without an error object; it may come from a proxy");
    }
    if let Some(id) = headers.get("request-id").and_then(|id| id.to_str().ok()) {
        let again = if headers.contains_key("idempotent-replayed") { ", replayed from an earlier request" } else { "" };
        message = format!("{message} (request {id}{again})");
    }
    clean::text(&message, MESSAGE_CHARACTERS_MAX)
}

fn wait(headers: &HeaderMap) -> Option<Duration> {
    retry_after(headers, Timestamp::now())
}

/// Stripe's own statement on whether the same request may be retried.
fn should_retry(headers: &HeaderMap) -> Option<bool> {
    match headers.get("stripe-should-retry")?.to_str().ok()? {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// What an error proves. `Code::GatewayError` means that this key can never succeed, so that the engine looks the
/// operation up. Only Stripe itself declines or refuses.
fn class(status: u16, error: &ErrorObject, should_retry: Option<bool>) -> (Reach, Code) {
    let (is_stripes, is_stored) = (error.is_stripes(), should_retry == Some(false));
    match status {
        301 | 307 | 308 => (Reach::NotSent, Code::Misconfigured),
        300..=399 => (Reach::Unknown, Code::Misconfigured),
        // From any server: by HTTP itself (RFC 9110) the request was not applied.
        401 => (Reach::NotSent, Code::Misconfigured),
        403 if is_stripes => (Reach::NotSent, Code::Misconfigured),
        403 => (Reach::Unknown, Code::Misconfigured),
        402 if is_stripes => (Reach::Refused, Code::Declined),
        408 => (Reach::Unknown, Code::Timeout),
        // Another request holds the object, and this one may already have had some effect. The same goes for a 429 that
        // is not Stripe's.
        429 if !is_stripes || error.code.as_deref() == Some("lock_timeout") => (Reach::Unknown, Code::RateLimited),
        429 => (Reach::NotSent, Code::RateLimited),
        // Another request was sent under this key. Its effect is unknown.
        _ if error.kind == "idempotency_error" && error.code.as_deref() != Some("idempotency_key_in_use") => {
            (Reach::Unknown, Code::GatewayError)
        }
        _ if should_retry == Some(true) => (Reach::Unknown, Code::Conflict),
        // The first request under this key is still in progress.
        409 if !is_stored => (Reach::Unknown, Code::Conflict),
        409 | 424 => (Reach::Unknown, Code::GatewayError),
        400..=499 if is_stripes => (Reach::Refused, Code::Refused),
        500..=599 => (Reach::Unknown, Code::GatewayError),
        _ => (Reach::Unknown, Code::InvalidAnswer),
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_each_error_proves() {
        use Reach::{NotSent, Refused, Unknown};
        for (status, kind, code, retry, expected) in [
            (400, "invalid_request_error", "parameter_missing", None, (Refused, Code::Refused)),
            (400, "idempotency_error", "", None, (Unknown, Code::GatewayError)),
            (400, "invalid_request_error", "x", Some("true"), (Unknown, Code::Conflict)),
            (401, "invalid_request_error", "", None, (NotSent, Code::Misconfigured)),
            (402, "card_error", "card_declined", None, (Refused, Code::Declined)),
            (402, "card_error", "card_declined", Some("true"), (Refused, Code::Declined)),
            (403, "invalid_request_error", "", None, (NotSent, Code::Misconfigured)),
            (404, "invalid_request_error", "resource_missing", None, (Refused, Code::Refused)),
            (409, "idempotency_error", "idempotency_key_in_use", None, (Unknown, Code::Conflict)),
            (409, "invalid_request_error", "", Some("false"), (Unknown, Code::GatewayError)),
            (424, "api_error", "", None, (Unknown, Code::GatewayError)),
            (429, "invalid_request_error", "rate_limit", None, (NotSent, Code::RateLimited)),
            (429, "invalid_request_error", "lock_timeout", None, (Unknown, Code::RateLimited)),
            (500, "api_error", "", None, (Unknown, Code::GatewayError)),
            (500, "api_error", "", Some("false"), (Unknown, Code::GatewayError)),
            (503, "api_error", "", Some("true"), (Unknown, Code::Conflict)),
            (302, "", "", None, (Unknown, Code::Misconfigured)),
            (308, "", "", None, (NotSent, Code::Misconfigured)),
            (204, "", "", None, (Unknown, Code::InvalidAnswer)),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(retry) = retry {
                headers.insert("stripe-should-retry", HeaderValue::from_static(retry));
            }
            let body = json!({"error": {"type": kind, "code": code, "message": "words"}}).to_string();
            let denial = deny(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes());
            let proved = (denial.failure.reach, denial.failure.error.code);
            assert_eq!(proved, expected, "{status} {kind} {code} {retry:?}");
        }
    }

    #[test]
    fn a_page_in_stripes_place_declines_and_refuses_nothing() {
        for (status, expected) in [
            (400, (Reach::Unknown, Code::InvalidAnswer)),
            (401, (Reach::NotSent, Code::Misconfigured)),
            (402, (Reach::Unknown, Code::InvalidAnswer)),
            (403, (Reach::Unknown, Code::Misconfigured)),
            (404, (Reach::Unknown, Code::InvalidAnswer)),
            (409, (Reach::Unknown, Code::Conflict)),
            (413, (Reach::Unknown, Code::InvalidAnswer)),
            (429, (Reach::Unknown, Code::RateLimited)),
            (502, (Reach::Unknown, Code::GatewayError)),
        ] {
            for body in
                ["", "<html>", "{}", r#"{"error": "not found"}"#, r#"{"error": {}}"#, r#"{"message": "no route"}"#]
            {
                let denial = deny(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body.as_bytes());
                let proved = (denial.failure.reach, denial.failure.error.code);
                assert_eq!(proved, expected, "{status} {body}");
                assert!(!denial.is_decline() && !denial.is_missing(), "{status} {body}");
            }
        }
    }

    /// The answer to a question before a request decides nothing about the request, unless a person must look.
    #[test]
    fn a_question_that_goes_before_a_request_leaves_it_unsent() {
        let error = |status: StatusCode| {
            let body = json!({"error": {"type": "invalid_request_error", "code": "x"}}).to_string();
            deny(status, &HeaderMap::new(), body.as_bytes()).of_a_question()
        };
        for (status, code) in [
            (StatusCode::BAD_REQUEST, Code::Refused),
            (StatusCode::PAYMENT_REQUIRED, Code::Refused),
            (StatusCode::NOT_FOUND, Code::Refused),
            (StatusCode::BAD_GATEWAY, Code::GatewayError),
        ] {
            let Failure { reach, error: found } = error(status).failure;
            assert_eq!((reach, found.code), (Reach::NotSent, code), "{status}");
        }
        let mismatch = Denial::from(mismatch("it is another's")).of_a_question();
        assert_eq!(mismatch.failure.reach, Reach::Unknown);
    }

    #[test]
    fn an_errors_ornaments_cost_no_decline() {
        for (name, value) in [
            ("message", "17"),
            ("message", r#""half: \ud83d""#),
            ("message", "[]"),
            ("charge", r#"{"id": "ch_1"}"#),
            ("advice_code", "5"),
            ("doc_url", "1e999"),
        ] {
            let body = format!(
                "\u{feff}{{\"error\": {{\"type\": \"card_error\", \"decline_code\": \"lost_card\", \"{name}\": \
                 {value}}}}}"
            );
            let denial = deny(StatusCode::PAYMENT_REQUIRED, &HeaderMap::new(), body.as_bytes());
            // An invalid number makes the error unreadable: then it does not count as Stripe's, and proves nothing.
            assert_eq!(denial.is_decline(), name != "doc_url", "{body}");
            assert_eq!(denial.error.own_code() == Some("lost_card"), name != "doc_url", "{body}");
        }
    }

    #[test]
    fn an_error_brings_stripes_words_scrubbed_and_the_request() {
        let mut headers = HeaderMap::new();
        headers.insert("request-id", HeaderValue::from_static("req_1"));
        headers.insert("retry-after", HeaderValue::from_static("3"));
        let body = br#"{"error": {"type": "x", "code": "c", "message": "no 4242424242424242"}}"#;
        let denial = deny(StatusCode::BAD_REQUEST, &headers, body);
        let error = denial.failure.error;
        assert_eq!(error.gateway_code.as_deref(), Some("c"));
        assert_eq!(error.retry_after, Some(Duration::from_secs(3)));
        assert!(error.message.contains("req_1") && !error.message.contains("4242"), "{}", error.message);
        let denial = deny(StatusCode::BAD_GATEWAY, &HeaderMap::new(), b"<html>");
        assert_eq!(denial.failure.error.message, "Stripe answered 502 Bad Gateway");
    }
}
