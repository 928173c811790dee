//! `http`: bring your own gateway, in any language. `docs/http-gateway.md` is the reference for those who write one.
//!
//! `POST {url}/{operation}` with a JSON body; the operation is `process`, `confirm`, `capture`, `release`, `refund`,
//! `cancel`, `status` or `undo`. An operation that acts comes with `Idempotency-Key`: the same key always comes with the
//! same body, and must act once, however often it comes. `{"result": "approved" | "pending" | "ready" | "declined" |
//! "not_found", ...}` with status 200 is a result; `not_found` answers `status` and `undo` alone. Anything else proves only
//! how far the request may have got:
//!
//! | answer | proves |
//! | --- | --- |
//! | 400, 404, 422, other 4xx, with a JSON object that has `message` or `code` | refused, nothing was done |
//! | the same without | nothing: it may be a proxy's, an ingress's or a firewall's, and no word of the gateway |
//! | 401; 403 with such an object; 301, 307, 308 | not acted on: the token or the address is wrong |
//! | 403 without | nothing, and the operator must look: a firewall may have put it in place of an answer |
//! | 425, 429, whoever says so | not acted on: too early, too many; `Retry-After` is honoured |
//! | 408, 409, 5xx, other 2xx and 3xx | nothing: it may have been acted on |
//! | any status with `result` `approved`, `pending` or `ready` | nothing: it contradicts itself |
//! | no connection | never sent |
//! | no answer in time, a broken one, one over 1 MiB | nothing: it may have been acted on |
//!
//! What proves nothing is sent again under the same key, else looked up. So a refusal must say why: an empty body is what
//! Envoy sends where it has no route.
//!
//! | member of a result | means |
//! | --- | --- |
//! | `amount`, a decimal string | how much was acted on. Left out: the one asked. In an approval never null, nor empty |
//! | `currency` | of all amounts of the answer. Left out: the payment's. In an approval never null, nor empty |
//! | `captured_amount`, `refunded_amount` | of the whole payment; left out: it does not tell. In its approval never null |
//! | `transaction_id` | the payment's id at the gateway: a text of at most 255 characters, or a whole number |
//! | `reference` | the gateway's own id of what this operation did; money is booked once under it. Left out: a process is booked by `transaction_id`, all else by our operation |
//! | `parent` | the gateway's id of what that belongs to: the authorization of a capture, the charge of a refund |
//! | `operation_id` | the operation of ours that it is about. Another one than was asked about: it says nothing of this, and of that one what `transactions` lists, which an approval then must |
//! | `transactions` | in `status`: what happened, each by its own reference; see below |
//! | `redirect_url` | with `pending`, of a process: where the customer must act |
//! | `message`, `code`, `fraud_status`, `fraud_message`, `extra_data` | ornaments |
//!
//! Of money it is read strictly: an amount that is no decimal string, a member twice with different values, or one in another
//! spelling (`Amount`) makes the answer unusable, for what was left out means what was asked. Zeros beyond the currency's
//! decimals are none: `100.0000` is `100.00`. Of all else it is read leniently, for the money counts whatever is said beside
//! it: a text that is damaged is mended with U+FFFD, too long a one cut; what cannot be read, or has another type, is left
//! out.
//!
//! `transactions` is a list of `{"kind", "reference", "state", "amount", "parent"?, "operation_id"?}`. Kinds are
//! `authorization`, `capture`, `refund`, `void` and `dispute`; states `pending`, `ready`, `done`, `failed` and `reversed` (it
//! came to nothing, whether or not it had been done: a capture that never settled, a refund that bounced). Whose it is
//! `operation_id` says and nothing else. Two done charges are both booked and told as `double_charge`; each can be refunded
//! by its reference, which a refund then brings as `parent`.
//!
//! `ready`, to a `process` or in `status`, says that the customer has approved and that nothing is done before another
//! request of ours. paybus then posts `confirm`, with the members of a `process` and a key of its own, whether or not the
//! customer comes back to the shop; its answer is that of a process, and never `ready`. Where the process was answered with
//! the customer's turn, the `operation_id` of its `confirm` is a new one. A confirmation under a second key, after a first
//! one that is found not to have been carried out, must not act beside it.
//!
//! A `capture` with `"final": false` leaves the rest of the authorization held (`multicapture = true` in the settings). A
//! `cancel` ends a payment before money moved. Once money moved it must be declined, or void what was taken and say so in
//! `captured_amount`: an approval over money that is still there is a contradiction, the whole payment is asked about, and
//! until the gateway's figures agree the cancel stays a `mismatch`.
//!
//! A `status` without `target_operation_id` asks about the whole payment. There `captured_amount` and `refunded_amount`
//! count whatever `result` says, and:
//!
//! | `result` | of a payment that we count as | means |
//! | --- | --- | --- |
//! | `declined` | authorized, nothing captured | the authorization is gone, voided or expired: `refunded` |
//! | `declined`, `not_found`, without `captured_amount` | captured | a contradiction: told as `mismatch`, nothing changes |
//! | `not_found` | authorized | the same |
//! | any, with less refunded and that much more captured | refunded | a refund failed later: the money is there again |
//!
//! What differs from our count decides nothing where it was asked within the settle window since the payment last changed:
//! it is asked again after that.
//!
//! A gateway without `status` may take `undo` (`undo = true` in the settings): of a process whose outcome is unknown, it
//! voids or refunds whatever became of the request with this `idempotency_key`, of the operation `target_operation_id`. It
//! does so once, however often it is asked, and touches no other key of that operation. `{"result": "undone"}` has the
//! members of an approval: `reference` and `amount` of what it undid, or `transactions`, an empty list where nothing had
//! moved. `not_found` after the settle window proves that nothing was there; `declined` and `approved` say what it was, and
//! that it stays; `pending` is asked again; a refusal leaves it to a person.
//!
//! A gateway with a `webhook_secret` may tell by itself that something happened: `POST /webhooks/{variant}` with
//! `{"id", "payment_id", "operation_id", "type"}`, or a list of these. The same `id` is the same news, however often it
//! comes; `operation_id` and `type` may be left out. Nothing is applied by its word: the gateway is asked for `status`.
//! `Paybus-Signature: t=UNIX,v1=HEX` has the time and HMAC-SHA256(secret, "{t}.{body}").
//!
//! With `notifications = "proof"` in the settings its word is applied where it is whole: news with `kind`, `state`,
//! `reference`, `amount` and `currency` (as one of `transactions`, and all of them required) or, of a cancel, `kind:
//! "cancel"`, `state` and `operation_id`. `parent`, `transaction_id`, `code` and `message` may stand beside. So a gateway
//! can do without `status`: what is `pending`, or whose answer was lost, waits for its news until `notification_deadline`,
//! then a person must act.
//!
//! - `settings`: the variant's configuration.
//! - `request`: the bodies that go out.
//! - `answer`: the answers that come back.
//! - `webhook`: what it tells by itself.
//! - `failure`: what it proves when none comes back.

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

/// A gateway that speaks paybus's own protocol over HTTP.
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
    /// A gateway and its pool of connections. `timeout` is the variant's, for one call; making a connection gets at most
    /// half of it (and at most 5 s), so that a gateway that cannot be reached is told from one that does not answer.
    ///
    /// # Errors
    /// A token that no header can hold, settings that contradict each other, or a machine without certificates to trust.
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

    /// A POST to the operation's path, with everything but the body.
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
                let message = "the gateway's answer: operation_id is another one than was asked for";
                Err(Failure::unusable(GatewayError::new(Code::Mismatch, message)))
            }
            Answer::NotFound => Err(unasked("not_found")),
            Answer::Undone(_) => Err(unasked("undone")),
            Answer::Result(result) if call.confirms && result.verdict == Verdict::Ready => Err(unasked("ready")),
            Answer::Result(result) => Ok(result),
        }
    }

    /// Asks, or has something undone.
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

    /// Sends a request and reads the body of an answer of status 200.
    async fn exchange(&self, request: RequestBuilder, trace: Option<&TraceContext>) -> Result<Vec<u8>, Failure> {
        let response = client::send(request, trace).await.map_err(Failure::of_transport)?;
        self.clock.read(response.headers());
        let status = response.status();
        let retry_after = retry_after(response.headers(), Timestamp::now());
        let body = client::read_bounded(response).await;
        if status == StatusCode::OK {
            return body;
        }
        // The status decides, and whether it is the gateway that speaks.
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
            return Err(format!("{} answers {status}: look at url and token", self.url));
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

    /// The object is the gateway's own; only the gateway knows what belongs into it.
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
                    "this gateway has no look-up (lookup = false)",
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
                    "this gateway undoes nothing (undo = false)",
                ));
            }
            match self.ask("undo", request::undo(&question), &question).await {
                Ok(Answer::Undone(transactions)) => Found::Undone(transactions),
                Ok(Answer::NotFound) => Found::Nothing,
                Ok(Answer::Result(result)) if result.is_final() => Found::Result(result),
                Ok(Answer::Result(_)) => {
                    Found::Failed(GatewayError::new(Code::Conflict, "the gateway has not undone it yet"))
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

    /// Any answer but a refusal of the address or of the credentials will do: the protocol has no question without a
    /// payment.
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

/// What answers another question than was asked.
fn unasked(what: &str) -> Failure {
    let message = format!("the gateway's answer: {what} is no answer to what was asked");
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
