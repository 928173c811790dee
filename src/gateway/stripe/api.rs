//! Stripe's API: requests with their credentials, version and time-out, and pages of lists.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Client, RequestBuilder};
use serde_json::{Map, Value};
use tokio::time::Instant;
use uuid::Uuid;

use super::reply::{Denial, exchange, invalid};
use crate::gateway::client::traced;
use crate::gateway::failure::Failure;
use crate::gateway::url::GatewayUrl;
use crate::payment::code::Code;
use crate::payment::outcome::Trouble;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const STRIPE_VERSION: HeaderName = HeaderName::from_static("stripe-version");

/// The most that Stripe gives at once.
const PAGE: usize = 100;

/// Pages that one look-up reads. What is not found by then is not known.
const PAGES_MAX: usize = 50;

/// How far Stripe's clock and ours may be apart, in seconds.
const CLOCKS_APART: i64 = 60;

/// Where the API is, and how it is spoken to.
pub(super) struct Api {
    pub client: Client,
    pub base: GatewayUrl,
    pub authorization: HeaderValue,
    pub version: HeaderValue,
}

/// One session with the API, for one call or look-up.
pub(super) struct Session<'a> {
    api: &'a Api,
    deadline: Instant,
    traceparent: Option<&'a str>,
    tracestate: Option<&'a str>,
}

impl Api {
    /// A session that ends in time.
    pub fn session<'a>(
        &'a self,
        timeout: Duration,
        traceparent: Option<&'a str>,
        tracestate: Option<&'a str>,
    ) -> Session<'a> {
        Session { api: self, deadline: Instant::now() + timeout, traceparent, tracestate }
    }
}

impl Session<'_> {
    /// Gets an object.
    pub async fn get(&self, path: &str, query: &str) -> Result<Map<String, Value>, Denial> {
        let request = self.api.client.get(format!("{}/v1/{path}?{query}", self.api.base));
        exchange(self.finish(request)?).await
    }

    /// Posts a form, under an idempotency key where it must act once.
    pub async fn post(&self, path: &str, form: &str, key: Option<Uuid>) -> Result<Map<String, Value>, Denial> {
        let mut request = self
            .api
            .client
            .post(format!("{}/v1/{path}", self.api.base))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))
            .body(form.to_owned());
        if let Some(key) = key {
            request = request.header(IDEMPOTENCY_KEY, key.to_string());
        }
        exchange(self.finish(request)?).await
    }

    /// Reads a list to its end, newest first. One that is too long is an error: what it does not hold may still be there.
    pub async fn list(&self, path: &str, filter: &str) -> Result<Vec<Map<String, Value>>, Denial> {
        let mut all: Vec<Map<String, Value>> = Vec::new();
        for _ in 0..PAGES_MAX {
            let after = all.last().and_then(|last| last.get("id")?.as_str());
            let after = after.map(|id| format!("&starting_after={id}")).unwrap_or_default();
            let mut page = self.get(path, &format!("limit={PAGE}{filter}{after}")).await?;
            let Some(Value::Array(data)) = page.remove("data") else {
                return Err(invalid("must be a list with data").into());
            };
            let count = data.len();
            all.extend(data.into_iter().filter_map(|item| match item {
                Value::Object(object) => Some(object),
                _ => None,
            }));
            if count == 0 || page.get("has_more") != Some(&Value::Bool(true)) {
                return Ok(all);
            }
        }
        let message =
            format!("Stripe has more than {} {path} of that time: the look-up was cut short", PAGE * PAGES_MAX);
        Err(Failure::unusable(Trouble::new(Code::InvalidAnswer, message)).into())
    }

    /// With all that every request has, and the time that is left.
    fn finish(&self, request: RequestBuilder) -> Result<RequestBuilder, Failure> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failure::out_of_time());
        }
        let request = request
            .header(AUTHORIZATION, self.api.authorization.clone())
            .header(STRIPE_VERSION, self.api.version.clone())
            .timeout(left);
        Ok(traced(request, self.traceparent, self.tracestate))
    }
}

/// The filter of a list for what was made between two times by our clock.
pub(super) fn made_between(from: Timestamp, to: Option<Timestamp>) -> String {
    let filter = format!("&created%5Bgte%5D={}", from.as_second().saturating_sub(CLOCKS_APART));
    match to {
        Some(to) => format!("{filter}&created%5Blte%5D={}", to.as_second().saturating_add(CLOCKS_APART)),
        None => filter,
    }
}
