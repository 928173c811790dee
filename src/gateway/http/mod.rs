//! `http`: bring your own gateway, in any language. `docs/http-gateway.md` is the reference for implementers.
//!
//! `POST {url}/{operation}` with a JSON body; the operation is `process`, `confirm`, `capture`, `release`, `refund`,
//! `cancel`, `status` or `undo`. Operations that act carry an `Idempotency-Key`: the same key always comes with the
//! same body, and must take effect once, however often it is sent. `{"result": "approved" | "pending" | "ready" |
//! "declined" | "not_found", ...}` with status 200 is a result; `not_found` answers only `status` and `undo`. Any other
//! answer proves only how far the request may have got:
//!
//! | answer | proves |
//! | --- | --- |
//! | 400, 404, 422, other 4xx, with a JSON object that has `message` or `code` | refused, nothing was done |
//! | the same without such an object | nothing: it may come from a proxy, an ingress or a firewall instead of the gateway |
//! | 401; 403 with such an object; 301, 307, 308 | not acted on: the token or the address is wrong |
//! | 403 without | nothing, and the operator must look: a firewall may have replaced the answer |
//! | 425, 429, from any server | not acted on: too early, too many; `Retry-After` is honoured |
//! | 408, 409, 5xx, other 2xx and 3xx | nothing: it may have been acted on |
//! | any status with `result` `approved`, `pending` or `ready` | nothing: it contradicts itself |
//! | no connection | never sent |
//! | no answer in time, an incomplete one, one over 1 MiB | nothing: it may have been acted on |
//!
//! If an answer proves nothing, the request is retried under the same key, or looked up. A refusal must therefore give
//! a reason: an empty body is what Envoy sends if it has no route.
//!
//! | member of a result | meaning |
//! | --- | --- |
//! | `amount`, a decimal string | how much was acted on; if omitted, the requested amount. In an approval never null or empty |
//! | `currency` | of all amounts in the answer; if omitted, the payment's. In an approval never null or empty |
//! | `captured_amount`, `refunded_amount` | of the whole payment; may be omitted. In an approval of the whole payment never null or empty |
//! | `transaction_id` | the payment's id at the gateway: a string of at most 255 characters, or an integer |
//! | `reference` | the gateway's own id for what this operation did; money is booked once under it. If omitted, a process is booked by `transaction_id`, anything else by our operation |
//! | `parent` | the gateway's id of the parent object: the authorization of a capture, the charge of a refund |
//! | `operation_id` | our operation that the answer is about. If it is not the one asked about, the answer says nothing about that one; about the other it says what `transactions` lists, which is then required in an approval |
//! | `transactions` | in `status`: what happened, each with its own reference; see below |
//! | `redirect_url` | with `pending`, for a process: where the customer must act |
//! | `message`, `code`, `fraud_status`, `fraud_message`, `extra_data` | optional details |
//!
//! Money is read strictly: an amount that is not a decimal string, a member that occurs twice with different values, or
//! a member in another spelling (`Amount`) makes the answer unusable, because an omitted member means "as requested".
//! Zeros beyond the currency's decimals are accepted: `100.0000` is `100.00`. Everything else is read leniently,
//! because the money counts whatever accompanies it: damaged text is repaired with U+FFFD, text that is too long is
//! truncated, and values that are unreadable or of another type are dropped.
//!
//! `transactions` is a list of `{"kind", "reference", "state", "amount", "parent"?, "operation_id"?}`. Kinds are
//! `authorization`, `capture`, `refund`, `void` and `dispute`; states are `pending`, `ready`, `done`, `failed` and
//! `reversed` (it came to nothing, whether or not it had been done: a capture that never settled, a refund that
//! bounced). Only `operation_id` says which operation caused it. Two done charges are both booked and reported as
//! `double_charge`; each can be refunded by its reference, which the refund then sends as `parent`.
//!
//! `ready`, in answer to a `process` or `status`, says that the customer has approved and that nothing happens until
//! our next request. paybus then posts `confirm`, with the members of a `process` and its own key, whether or not the
//! customer returns to the shop; the answer is that of a process, and never `ready`. If the answer to the process was
//! that the customer must act, its `confirm` has a new `operation_id`. A confirmation under a second key, sent after
//! the first was found not to have been carried out, must not take effect in addition to it.
//!
//! A `capture` with `"final": false` leaves the rest of the authorization held (`multicapture = true` in the settings).
//! A `cancel` ends a payment before any money moved. Once money moved, the gateway must decline it, or void what was
//! taken and say so in `captured_amount`. An approval although the money is still there is a contradiction: the whole
//! payment is looked up, and the cancel remains a `mismatch` until the gateway's figures agree.
//!
//! A `status` without `target_operation_id` asks about the whole payment. In this case `captured_amount` and
//! `refunded_amount` count whatever `result` says, and:
//!
//! | `result` | our status of the payment | meaning |
//! | --- | --- | --- |
//! | `declined` | authorized, nothing captured | the authorization is gone, voided or expired: `refunded` |
//! | `declined`, `not_found`, without `captured_amount` | captured | a contradiction: reported as `mismatch`, nothing changes |
//! | `not_found` | authorized | the same |
//! | any, with less refunded and that much more captured | refunded | a refund failed later: the money is back |
//!
//! A difference from our figures decides nothing if the question was sent within the settle window since the payment
//! last changed: it is asked again after that.
//!
//! A gateway without `status` may support `undo` (`undo = true` in the settings): for a process with an unknown
//! outcome, it voids or refunds whatever became of the request with this `idempotency_key` of the operation
//! `target_operation_id`. It does so once, however often it is asked, and leaves other keys of that operation alone.
//! `{"result": "undone"}` has the members of an approval: `reference` and `amount` of what was undone, or
//! `transactions`, an empty list if nothing had moved. `not_found` after the settle window proves that there was
//! nothing; `declined` and `approved` say what there was, and that it stays; after `pending` it is asked again; a
//! refusal leaves it to a person.
//!
//! A gateway with a `webhook_secret` may report events itself: `POST /webhooks/{variant}` with `{"id", "payment_id",
//! "operation_id", "type"}`, or a list of these. The same `id` is the same event, however often it is sent;
//! `operation_id` and `type` may be omitted. Nothing is applied from the webhook alone: the gateway is asked for
//! `status`. `Paybus-Signature: t=UNIX,v1=HEX` contains the time and HMAC-SHA256(secret, "{t}.{body}").
//!
//! With `notifications = "proof"` in the settings, complete webhooks are applied directly: those with `kind`, `state`,
//! `reference`, `amount` and `currency` (as in `transactions`, and all required) or, for a cancel, `kind: "cancel"`,
//! `state` and `operation_id`. `parent`, `transaction_id`, `code` and `message` are optional. Such a gateway can do
//! without `status`: an operation that is `pending`, or whose answer was lost, waits for its webhook until
//! `notification_deadline`; then a person must act.
//!
//! - `settings`: the variant's configuration.
//! - `request`: request bodies.
//! - `answer`: answers with status 200.
//! - `webhook`: incoming webhooks.
//! - `failure`: what other answers prove.

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Client, RequestBuilder, StatusCode};
use secrecy::ExposeSecret;
use serde_json::{Map, Value};

use self::answer::{Answer, Expected, Subject};
use self::settings::WebhookRole;
use self::webhook::HttpWebhooks;
use super::client::BuildError;
use super::clock::{ClockReading, GatewayClock};
use super::failure::{Failure, retry_after};
use super::notification::Notifications;
use super::url::GatewayUrl;
use super::{Ask, Call, Gateway, Question, client};
use crate::payment::code::{Code, Rejection};
use crate::payment::contract::{Captures, Contract, Keys, Lookup, NotificationRole, PerAction};
use crate::payment::outcome::{Found, GatewayError, GatewayResult, Outcome, Verdict};
use crate::payment::trace::TraceContext;

mod answer;
mod failure;
mod request;
mod settings;
#[cfg(test)]
mod tests;
mod webhook;

pub use settings::HttpSettings;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const PAYBUS_ATTEMPT: HeaderName = HeaderName::from_static("paybus-attempt");

/// A gateway that implements paybus's own protocol over HTTP.
pub struct HttpGateway {
    url: GatewayUrl,
    account: String,
    account_aliases: Vec<String>,
    authorization: Option<HeaderValue>,
    client: Client,
    contract: Contract,
    clock: GatewayClock,
    timeout: Duration,
    webhooks: Option<HttpWebhooks>,
}

impl HttpGateway {
    /// Creates a gateway with its connection pool. `timeout` is the variant's timeout for one call. Connecting gets at
    /// most half of it (and at most 5 s), to distinguish an unreachable gateway from one that does not answer.
    ///
    /// # Errors
    /// The token does not fit into a header, the settings contradict each other, or the machine has no trusted
    /// certificates.
    pub fn new(settings: HttpSettings, timeout: Duration) -> Result<HttpGateway, BuildError> {
        let authorization = match &settings.token {
            Some(token) => Some(client::bearer("token", token.expose_secret())?),
            None => None,
        };
        settings.check()?;
        let webhooks = HttpWebhooks::configured(&settings.webhook_secret, settings.notifications)?;
        Ok(HttpGateway {
            client: client::client(&settings.url, timeout)?,
            contract: contract(&settings),
            clock: GatewayClock::default(),
            account: settings.account_name()?,
            account_aliases: settings.other_account_names()?,
            url: settings.url,
            authorization,
            timeout,
            webhooks,
        })
    }

    /// A POST to the operation's path, complete except for the body.
    fn post(&self, operation: &str) -> RequestBuilder {
        self.authorized(self.client.post(format!("{}/{operation}", self.url)))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.authorization {
            Some(value) => request.header(AUTHORIZATION, value.clone()),
            None => request,
        }
    }

    async fn send(&self, call: &Call<'_>) -> Result<Box<GatewayResult>, Failure> {
        let request = self
            .post(request::operation(call.action, call.confirms))
            .header(IDEMPOTENCY_KEY, call.key.value().to_string())
            .header(PAYBUS_ATTEMPT, call.attempt)
            .timeout(call.timeout)
            .body(call.body.to_owned());
        let subject = Subject {
            operation: call.operation_id,
            action: call.action,
            captures: call.capture,
            amount: call.amount,
            is_answer: true,
        };
        let expected = Expected { currency: call.currency, subject: Some(subject) };
        let body = self.exchange(request, call.trace).await?;
        match answer::read(&body, expected).map_err(Failure::unusable)? {
            Answer::OfOthers(_) => {
                let message = "the gateway's answer: operation_id differs from the requested one";
                Err(Failure::unusable(GatewayError::new(Code::Mismatch, message)))
            }
            Answer::NotFound => Err(unasked("not_found")),
            Answer::Undone(_) => Err(unasked("undone")),
            Answer::Result(result) if call.confirms && result.verdict == Verdict::Ready => Err(unasked("ready")),
            Answer::Result(result) => Ok(result),
        }
    }

    /// Sends a look-up or an undo.
    async fn ask(&self, operation: &str, body: String, question: &Question<'_>) -> Result<Answer, Failure> {
        let request = self.post(operation).timeout(question.timeout).body(body);
        let subject = question.target.map(|target| Subject {
            operation: target.operation_id,
            action: target.action,
            captures: target.request.is_some_and(|request| request.capture),
            amount: target.request.and_then(|request| request.amount),
            is_answer: false,
        });
        let expected = Expected { currency: question.payment.currency(), subject };
        let body = self.exchange(request, question.trace).await?;
        answer::read(&body, expected).map_err(Failure::unusable)
    }

    /// Sends a request; returns the body of an answer with status 200.
    async fn exchange(&self, request: RequestBuilder, trace: Option<&TraceContext>) -> Result<Vec<u8>, Failure> {
        let response = client::send(request, trace).await.map_err(Failure::of_transport)?;
        self.clock.read(response.headers());
        let status = response.status();
        let retry_after = retry_after(response.headers(), Timestamp::now());
        let body = client::read_bounded(response).await;
        if status == StatusCode::OK {
            return body;
        }
        // The status decides, together with whether the body is from the gateway.
        Err(failure::of_status(status, retry_after, &body.unwrap_or_default()))
    }

    async fn reach(&self) -> Result<String, String> {
        let request = self.client.get(self.url.as_str()).timeout(self.timeout);
        let response = self
            .authorized(request)
            .send()
            .await
            .map_err(|error| format!("{}: {}", self.url, Failure::of_transport(error).message()))?;
        let status = response.status();
        if failure::of_status(status, None, &[]).is_misconfigured() {
            return Err(format!("{} answers {status}: check url and token", self.url));
        }
        Ok(format!("{} can be reached (it answers {status})", self.url))
    }
}

impl Gateway for HttpGateway {
    fn contract(&self) -> &Contract {
        &self.contract
    }

    fn account(&self) -> &str {
        &self.account
    }

    fn account_aliases(&self) -> &[String] {
        &self.account_aliases
    }

    /// Accepts anything: the object is the gateway's own, and only the gateway knows its fields.
    fn check(&self, _data: &Map<String, Value>) -> Result<(), Rejection> {
        Ok(())
    }

    fn prepare(&self, ask: &Ask<'_>) -> Result<String, Rejection> {
        Ok(request::action(ask))
    }

    fn call<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            match self.send(&call).await {
                Ok(result) => Outcome::Result(result),
                Err(failure) => failure.into(),
            }
        })
    }

    fn look_up<'a>(&'a self, question: Question<'a>) -> BoxFuture<'a, Found> {
        Box::pin(async move {
            if self.contract.lookup == Lookup::None {
                return Found::Failed(GatewayError::new(
                    Code::Unsupported,
                    "this gateway does not support look-ups (lookup = false)",
                ));
            }
            match self.ask("status", request::status(&question), &question).await {
                Ok(Answer::Result(result)) => Found::Result(result),
                Ok(Answer::OfOthers(transactions)) => Found::OfOthers(transactions),
                Ok(Answer::NotFound) => Found::Nothing,
                Ok(Answer::Undone(_)) => unasked("undone").into(),
                Err(failure) => failure.into(),
            }
        })
    }

    fn undo<'a>(&'a self, question: Question<'a>) -> BoxFuture<'a, Found> {
        Box::pin(async move {
            if !self.contract.undoes() {
                return Found::Failed(GatewayError::new(
                    Code::Unsupported,
                    "this gateway does not support undo (undo = false)",
                ));
            }
            match self.ask("undo", request::undo(&question), &question).await {
                Ok(Answer::Undone(transactions)) => Found::Undone(transactions),
                Ok(Answer::NotFound) => Found::Nothing,
                Ok(Answer::Result(result)) if result.is_final() => Found::Result(result),
                Ok(Answer::Result(_)) => {
                    Found::Failed(GatewayError::new(Code::Conflict, "the gateway has not undone the operation yet"))
                }
                Ok(Answer::OfOthers(_)) => unasked("another operation_id").into(),
                Err(failure) => failure.into(),
            }
        })
    }

    fn clock(&self) -> Option<ClockReading> {
        self.clock.last()
    }

    fn notifications(&self) -> Option<&dyn Notifications> {
        self.webhooks.as_ref().map(|webhooks| webhooks as &dyn Notifications)
    }

    /// The protocol has no request without a payment, so any answer will do that does not reject the address or the
    /// credentials.
    fn probe(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(self.reach())
    }
}

impl fmt::Debug for HttpGateway {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("HttpGateway")
            .field("url", &self.url)
            .field("contract", &self.contract)
            .finish_non_exhaustive()
    }
}

/// An answer that does not match the request.
fn unasked(what: &str) -> Failure {
    let message = format!("the gateway's answer: {what} does not answer the request");
    Failure::unusable(GatewayError::new(Code::InvalidAnswer, message))
}

fn contract(settings: &HttpSettings) -> Contract {
    let windows = &settings.key_windows;
    let keys = |window: Option<Duration>| Keys {
        window: Some(window.unwrap_or(settings.key_window)).filter(|window| !window.is_zero()),
        after_server_error: settings.after_server_error,
    };
    Contract {
        keys: PerAction {
            process: keys(windows.process),
            capture: keys(windows.capture),
            release: keys(windows.release),
            refund: keys(windows.refund),
            cancel: keys(windows.cancel),
        },
        captures: if settings.multicapture { Captures::Several } else { Captures::One },
        lookup: if settings.lookup { Lookup::Authoritative } else { Lookup::None },
        settle_window: settings.settle_window,
        notifications: match settings.notifications {
            WebhookRole::Hint => NotificationRole::Hint,
            WebhookRole::Proof => NotificationRole::Proof { deadline: settings.notification_deadline },
        },
        undo: settings.undo,
    }
}
