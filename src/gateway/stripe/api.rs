//! Stripe's API: requests with their credentials, version and time-out, and pages of lists.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Client, RequestBuilder};
use serde_json::{Map, Value};
use tokio::time::Instant;
use uuid::Uuid;

use super::cursors::Cursors;
use super::reply::{Denial, exchange, invalid};
use crate::gateway::clock::GatewayClock;
use crate::gateway::failure::Failure;
use crate::gateway::url::GatewayUrl;
use crate::payment::code::Code;
use crate::payment::outcome::GatewayError;
use crate::payment::trace::TraceContext;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const STRIPE_VERSION: HeaderName = HeaderName::from_static("stripe-version");

/// The most that Stripe gives at once.
const PAGE: usize = 100;

/// Pages of one payment's objects that are read.
const PAGES_MAX: usize = 50;

/// How much wider a list is searched than what was sent can be dated, in seconds: clocks may have been apart then that agree
/// today.
const CLOCKS_APART: i64 = 60 * 60;

/// Where the API is, and how it is spoken to.
pub(super) struct Api {
    pub client: Client,
    pub base: GatewayUrl,
    pub authorization: HeaderValue,
    pub version: HeaderValue,
    pub clock: GatewayClock,
    /// Where lists are gone on with that one look-up could not read to their end.
    pub cursors: Cursors,
}

/// One session with the API, for one call or look-up.
pub(super) struct Session<'a> {
    api: &'a Api,
    deadline: Instant,
    trace: Option<&'a TraceContext>,
}

impl Api {
    /// A session that ends in time.
    pub fn session<'a>(&'a self, timeout: Duration, trace: Option<&'a TraceContext>) -> Session<'a> {
        Session { api: self, deadline: Instant::now() + timeout, trace }
    }
}

/// A page of a list, newest first.
pub(super) struct Page {
    pub objects: Vec<Map<String, Value>>,
    /// The object after which the next page begins; `None` for the last page.
    pub after: Option<String>,
}

impl<'a> Session<'a> {
    /// A session that ends when half of the time that is left is over, so that something can follow it.
    pub fn half(&self) -> Session<'a> {
        let now = Instant::now();
        Session { deadline: now + self.deadline.saturating_duration_since(now) / 2, ..*self }
    }

    /// Where lists are gone on with.
    pub fn cursors(&self) -> &'a Cursors {
        &self.api.cursors
    }
}

impl Session<'_> {
    /// Gets an object.
    pub async fn get(&self, path: &str, query: &str) -> Result<Map<String, Value>, Denial> {
        let request = self.api.client.get(format!("{}/v1/{path}?{query}", self.api.base));
        exchange(self.finish(request)?, self.trace, &self.api.clock).await
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
        exchange(self.finish(request)?, self.trace, &self.api.clock).await
    }

    /// One page of a list, after an object of it.
    pub async fn page(&self, path: &str, filter: &str, after: Option<&str>) -> Result<Page, Denial> {
        let after = after.map(|after| format!("&starting_after={after}")).unwrap_or_default();
        let mut page = self.get(path, &format!("limit={PAGE}{filter}{after}")).await?;
        let Some(Value::Array(data)) = page.remove("data") else {
            return Err(invalid("must be a list with data").into());
        };
        // What cannot be read may be what is looked for: that it was not found would prove nothing.
        let Some(Value::Bool(has_more)) = page.get("has_more") else {
            return Err(invalid("must be a list that says whether it has_more").into());
        };
        let object = |item| match item {
            Value::Object(object) => Ok(object),
            _ => Err(invalid("must be a list of objects")),
        };
        let objects = data.into_iter().map(object).collect::<Result<Vec<_>, _>>()?;
        if objects.is_empty() || !has_more {
            return Ok(Page { objects, after: None });
        }
        let last = objects.last().and_then(|last| last.get("id")?.as_str()).map(str::to_owned);
        let last = last.ok_or_else(|| invalid("must be a list of objects with ids"))?;
        Ok(Page { objects, after: Some(last) })
    }

    /// Reads a list of what belongs to one payment to its end, newest first. A list that is too long is an error: what it
    /// does not hold may still be there.
    pub async fn list(&self, path: &str, filter: &str) -> Result<Vec<Map<String, Value>>, Denial> {
        let (mut all, mut after) = (Vec::new(), None);
        for _ in 0..PAGES_MAX {
            let mut page = self.page(path, filter, after.as_deref()).await?;
            all.append(&mut page.objects);
            after = page.after;
            if after.is_none() {
                return Ok(all);
            }
        }
        let message =
            format!("Stripe has more than {} {path} of one payment: the list was cut short", PAGE * PAGES_MAX);
        Err(Failure::unusable(GatewayError::new(Code::InvalidAnswer, message)).into())
    }

    /// With all that every request has, and the time that is left.
    fn finish(&self, request: RequestBuilder) -> Result<RequestBuilder, Failure> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failure::out_of_time());
        }
        Ok(request
            .header(AUTHORIZATION, self.api.authorization.clone())
            .header(STRIPE_VERSION, self.api.version.clone())
            .timeout(left))
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

#[cfg(test)]
pub(super) mod tests {
    use axum::Router;
    use axum::extract::RawQuery;
    use axum::routing::get;
    use serde_json::json;
    use tokio::net::TcpListener;

    use super::*;
    use crate::gateway::stripe::StripeGateway;

    /// An account at a Stripe that answers so.
    pub async fn gateway(app: Router) -> StripeGateway {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        // Until the end of the test's runtime.
        drop(tokio::spawn(async move { axum::serve(listener, app).await.unwrap() }));
        let settings = json!({"secret_key": "sk_test_x", "api_base": base});
        StripeGateway::new(serde_json::from_value(settings).unwrap(), Duration::from_secs(10)).unwrap()
    }

    async fn page(RawQuery(query): RawQuery) -> String {
        let query = query.unwrap_or_default();
        let page = match query.split("starting_after=").nth(1) {
            None if query.contains("odd") => json!({"data": [5], "has_more": false}),
            None if query.contains("endless") => json!({"data": [{"id": "a"}]}),
            None if query.contains("nameless") => json!({"data": [{"object": "thing"}], "has_more": true}),
            None => json!({"data": [{"id": "a"}, {"id": "b"}], "has_more": true}),
            Some("b") => json!({"data": [{"id": "c"}, {"id": "d"}], "has_more": false}),
            Some(_) => json!({"data": "lost"}),
        };
        page.to_string()
    }

    /// Both clocks are right within the tolerance, and what is made at one end of a look-up's time may be dated beyond it.
    #[test]
    fn what_a_clock_a_little_off_has_dated_is_in_the_list() {
        let (from, to) = (Timestamp::from_second(1_000_000).unwrap(), Timestamp::from_second(1_000_300).unwrap());
        let bounds = |to| {
            let filter = made_between(from, to);
            let bound = |name: &str| {
                let (_, bound) = filter.split_once(&format!("&created%5B{name}%5D="))?;
                bound.split('&').next()?.parse::<i64>().ok()
            };
            (bound("gte"), bound("lte"))
        };
        let off = 3_599;
        let (first, last) = bounds(Some(to));
        assert!(first.is_some_and(|first| first <= from.as_second() - off), "Stripe's clock is behind: {first:?}");
        assert!(last.is_some_and(|last| last >= to.as_second() + off), "Stripe's clock is ahead: {last:?}");
        let (first, last) = bounds(None);
        assert!(first.is_some_and(|first| first <= from.as_second() - off) && last.is_none(), "{first:?} {last:?}");
    }

    #[tokio::test]
    async fn a_list_is_read_to_its_end() {
        let gateway = gateway(Router::new().route("/v1/things", get(page))).await;
        let session = gateway.api.session(Duration::from_secs(10), None);
        let found = session.list("things", "").await.unwrap();
        let ids: Vec<_> = found.iter().map(|object| object["id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["a", "b", "c", "d"]);
        // Without an id to go on from, the same page would be read for ever.
        let denial = session.list("things", "&nameless=1").await.unwrap_err();
        assert_eq!(denial.failure.trouble.code, Code::InvalidAnswer);
        assert!(denial.failure.trouble.message.contains("ids"), "{}", denial.failure.trouble.message);
        // Nor is what cannot be read passed over: what is looked for would be proved not to be there.
        for query in ["&odd=1", "&endless=1"] {
            let denial = session.list("things", query).await.unwrap_err();
            assert_eq!(denial.failure.trouble.code, Code::InvalidAnswer, "{query}");
        }
    }
}
