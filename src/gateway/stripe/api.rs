//! Stripe's API: requests with credentials, version and timeout, and paginated lists.

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

/// Stripe's maximum page size.
const PAGE: usize = 100;

/// Maximum number of pages of one payment's objects to read.
const PAGES_MAX: usize = 50;

/// Margin of a list's time range on both sides, in seconds: clocks that agree now may have differed back then.
const CLOCKS_APART: i64 = 60 * 60;

/// The API's address, and how requests to it are made.
pub(super) struct Api {
    pub client: Client,
    pub base: GatewayUrl,
    pub authorization: HeaderValue,
    pub version: HeaderValue,
    pub clock: GatewayClock,
    /// Positions from which lists that one look-up could not finish are continued.
    pub cursors: Cursors,
}

/// A session with the API, for one call or look-up.
pub(super) struct Session<'a> {
    api: &'a Api,
    deadline: Instant,
    trace: Option<&'a TraceContext>,
}

impl Api {
    /// Starts a session with this timeout.
    pub fn session<'a>(&'a self, timeout: Duration, trace: Option<&'a TraceContext>) -> Session<'a> {
        Session { api: self, deadline: Instant::now() + timeout, trace }
    }
}

/// A page of a list, newest first.
pub(super) struct Page {
    pub objects: Vec<Map<String, Value>>,
    /// The object after which the next page starts; `None` for the last page.
    pub after: Option<String>,
}

impl<'a> Session<'a> {
    /// A session with half of the remaining time, so that something can follow it.
    pub fn half(&self) -> Session<'a> {
        let now = Instant::now();
        Session { deadline: now + self.deadline.saturating_duration_since(now) / 2, ..*self }
    }

    /// Positions from which unfinished lists are continued.
    pub fn cursors(&self) -> &'a Cursors {
        &self.api.cursors
    }
}

impl Session<'_> {
    pub async fn get(&self, path: &str, query: &str) -> Result<Map<String, Value>, Denial> {
        let request = self.api.client.get(format!("{}/v1/{path}?{query}", self.api.base));
        exchange(self.finish(request)?, self.trace, &self.api.clock).await
    }

    /// Posts a form, with an idempotency key if it must act only once.
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

    /// Gets one page of a list, starting after one of its objects.
    pub async fn page(&self, path: &str, filter: &str, after: Option<&str>) -> Result<Page, Denial> {
        let after = after.map(|after| format!("&starting_after={after}")).unwrap_or_default();
        let mut page = self.get(path, &format!("limit={PAGE}{filter}{after}")).await?;
        let Some(Value::Array(data)) = page.remove("data") else {
            return Err(invalid("must be a list with data").into());
        };
        // An unreadable object may be the one looked for, so that its absence would prove nothing.
        let Some(Value::Bool(has_more)) = page.get("has_more") else {
            return Err(invalid("must be a list with has_more").into());
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

    /// Reads a list of one payment's objects to its end, newest first. A list that is too long is an error: what was
    /// not read may still be there.
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
            format!("Stripe has more than {} {path} for one payment: the list was truncated", PAGE * PAGES_MAX);
        Err(Failure::unusable(GatewayError::new(Code::InvalidAnswer, message)).into())
    }

    /// Adds the headers of every request, and the remaining time as timeout.
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

/// A list filter for objects created between two times by our clock.
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

    /// An account at a Stripe that answers with this app.
    pub async fn gateway(app: Router) -> StripeGateway {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        // Runs until the test's runtime ends.
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

    /// Both clocks are right within the tolerance, but an object created at an edge of the look-up's range may be dated
    /// outside it.
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
        // Without an id to continue from, the same page would be read for ever.
        let denial = session.list("things", "&nameless=1").await.unwrap_err();
        assert_eq!(denial.failure.error.code, Code::InvalidAnswer);
        assert!(denial.failure.error.message.contains("ids"), "{}", denial.failure.error.message);
        // An unreadable page is not skipped either: that would prove the absence of the object looked for.
        for query in ["&odd=1", "&endless=1"] {
            let denial = session.list("things", query).await.unwrap_err();
            assert_eq!(denial.failure.error.code, Code::InvalidAnswer, "{query}");
        }
    }
}
