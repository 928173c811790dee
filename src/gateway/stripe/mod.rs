//! `stripe`: PaymentIntents.
//!
//! One payment has one payment intent: the first process creates and confirms it, later ones continue it, and only a
//! canceled one is replaced. The ids of our payment and operation are stored in the metadata of payment intents and
//! refunds, by which they are looked up.
//!
//! | operation | request |
//! | --- | --- |
//! | process | `POST /v1/payment_intents` with `confirm`; continuing: update, then `POST .../confirm` |
//! | capture | `POST /v1/payment_intents/{id}/capture` |
//! | release, cancel | `POST /v1/payment_intents/{id}/cancel` |
//! | refund | `POST /v1/refunds` |
//! | look-up | `GET` of the payment intent; search, and lists by time, of payment intents; lists of refunds |
//!
//! Requests that move money carry the operation's key as `Idempotency-Key`. Stripe keeps the status and body of the
//! first one executed for 24 hours, including server errors: such a key can never succeed, and a new one needs the
//! proof of a look-up.
//!
//! Only Stripe's own error object declines or refuses; an answer from a proxy proves nothing. Amounts, statuses and ids
//! are read strictly, everything else leniently.
//!
//! - `settings`: the variant's configuration.
//! - `process`: the `process` object.
//! - `request`: what is sent for an operation.
//! - `api`: sending requests to Stripe.
//! - `reply`: answers, and what errors prove.
//! - `act`: one attempt.
//! - `look_up`: look-ups.
//! - `find`: finding payment intents by our ids in their metadata.
//! - `webhook`: incoming webhooks and the payments they belong to.
//! - `intent`, `charge`, `refund`, `dispute`: Stripe's objects, and what they mean for an operation.
//! - `declines`: the table of Stripe's decline codes.
//! - `amount`: amounts in Stripe's units.

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::header::HeaderValue;
use secrecy::ExposeSecret;
use serde_json::{Map, Value};
use uuid::Uuid;

use self::api::Api;
use self::cursors::Cursors;
use self::intent::{Asked, Intent};
use self::process::Process;
use self::reply::Denial;
use self::request::{Options, Plan};
use super::client::{self, BuildError};
use super::clock::{ClockReading, GatewayClock};
use super::notification::{Fact, NotGenuine, Notifications, Verify, Webhook};
use super::signature::WebhookSecrets;
use super::{Ask, Call, Gateway, Question};
use crate::payment::code::Rejection;
use crate::payment::contract::{AfterServerError, Captures, Contract, Keys, Lookup, NotificationRole, PerAction};
use crate::payment::outcome::{Found, GatewayError, Outcome};

mod act;
mod amount;
#[cfg(test)]
mod anything;
mod api;
mod charge;
mod cursors;
mod declines;
mod dispute;
mod find;
mod intent;
mod look_up;
mod process;
mod refund;
mod reply;
mod request;
mod settings;
mod webhook;

pub use settings::StripeSettings;

/// How long Stripe guarantees to keep an idempotency key.
const KEY_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

/// The gateway for one Stripe account.
pub struct StripeGateway {
    api: Api,
    contract: Contract,
    account: String,
    account_aliases: Vec<String>,
    livemode: Option<bool>,
    suffix: Option<String>,
    multicapture: bool,
    timeout: Duration,
    webhook_secrets: WebhookSecrets,
}

impl StripeGateway {
    /// Creates a gateway with its connection pool. `timeout` is the variant's timeout for one call.
    ///
    /// # Errors
    /// The settings are invalid, or the machine has no trusted certificates.
    pub fn new(settings: StripeSettings, timeout: Duration) -> Result<StripeGateway, BuildError> {
        settings.check()?;
        let version = HeaderValue::from_str(&settings.api_version)
            .map_err(|_| BuildError::Setting { key: "api_version", wrong: "must be printable ASCII" })?;
        let api = Api {
            client: client::client(&settings.api_base, timeout)?,
            authorization: client::bearer("secret_key", settings.secret_key()?.expose_secret())?,
            version,
            base: settings.api_base.clone(),
            clock: GatewayClock::default(),
            cursors: Cursors::default(),
        };
        Ok(StripeGateway {
            api,
            contract: contract(&settings),
            account: settings.account_name(),
            livemode: settings.livemode(),
            account_aliases: settings.account_aliases,
            suffix: settings.statement_descriptor_suffix,
            multicapture: settings.multicapture,
            timeout,
            webhook_secrets: settings.webhook_secret,
        })
    }

    async fn reach(&self) -> Result<String, String> {
        let session = self.api.session(self.timeout, None);
        match session.get("payment_intents", "limit=1").await {
            Ok(_) => Ok(format!("{} accepts the key", self.account)),
            Err(denial) => Err(format!("{}: {}", self.api.base, denial.failure.message())),
        }
    }
}

/// How an account's webhooks are verified; `None` if it has none. Requires no API key.
///
/// # Errors
/// The settings are invalid.
pub fn verify_by(settings: StripeSettings) -> Result<Option<Verify>, BuildError> {
    settings.check()?;
    let secrets = settings.webhook_secret;
    if secrets.is_empty() {
        return Ok(None);
    }
    let check = move |webhook: &Webhook| webhook::verify(webhook, &secrets);
    Ok(Some(Verify { header: Some(webhook::SIGNATURE), check: Box::new(check) }))
}

fn contract(settings: &StripeSettings) -> Contract {
    let keys = Keys { window: Some(KEY_WINDOW), after_server_error: AfterServerError::Replayed };
    Contract {
        keys: PerAction::all(keys),
        lookup: Lookup::Authoritative,
        settle_window: settings.settle_window,
        captures: if settings.multicapture { Captures::Several } else { Captures::One },
        notifications: NotificationRole::Hint,
        undo: false,
    }
}

impl Gateway for StripeGateway {
    fn contract(&self) -> &Contract {
        &self.contract
    }

    fn account(&self) -> &str {
        &self.account
    }

    fn account_aliases(&self) -> &[String] {
        &self.account_aliases
    }

    fn check(&self, data: &Map<String, Value>) -> Result<(), Rejection> {
        Process::read(data).map(|_| ())
    }

    fn prepare(&self, ask: &Ask<'_>) -> Result<String, Rejection> {
        let options = Options { suffix: self.suffix.as_deref(), multicapture: self.multicapture };
        Plan::of(ask, options).map(|plan| plan.write())
    }

    fn call<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let session = self.api.session(call.timeout, call.trace);
            match act::act(&session, &call, self.livemode).await {
                Ok(result) => Outcome::Result(Box::new(result)),
                Err(denial) => denial.into(),
            }
        })
    }

    fn look_up<'a>(&'a self, question: Question<'a>) -> BoxFuture<'a, Found> {
        Box::pin(async move {
            let session = self.api.session(question.timeout, question.trace);
            look_up::look_up(&session, &question, self.livemode).await
        })
    }

    fn clock(&self) -> Option<ClockReading> {
        self.api.clock.last()
    }

    fn notifications(&self) -> Option<&dyn Notifications> {
        (!self.webhook_secrets.is_empty()).then_some(self)
    }

    /// Requests a list, which any key with the permissions required here may do.
    fn probe(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(self.reach())
    }
}

impl Notifications for StripeGateway {
    fn signature_header(&self) -> Option<&'static str> {
        Some(webhook::SIGNATURE)
    }

    fn verify(&self, webhook: &Webhook) -> Result<Vec<Fact>, NotGenuine> {
        webhook::verify(webhook, &self.webhook_secrets)
    }

    fn locate<'a>(&'a self, fact: &'a Fact, timeout: Duration) -> BoxFuture<'a, Result<Option<Uuid>, GatewayError>> {
        Box::pin(async move {
            let session = self.api.session(timeout, None);
            webhook::locate(&session, fact).await.map_err(|denial| denial.failure.error)
        })
    }
}

/// What a payment intent from Stripe means for a process of this payment: an entry point for fuzz/, which has no Stripe
/// to ask.
#[doc(hidden)]
pub fn read_payment_intent(object: Map<String, Value>, payment_id: Uuid) -> Outcome {
    let asked = Asked { payment_id, livemode: None, id: None };
    let read = Intent::read(object, asked).and_then(|intent| intent.of_process(true));
    match read.map_err(Denial::from) {
        Ok(Some(result)) => Outcome::Result(Box::new(result)),
        Ok(None) => Denial::from(reply::invalid("it contains no attempt to pay")).into(),
        Err(denial) => denial.into(),
    }
}

impl fmt::Debug for StripeGateway {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("StripeGateway")
            .field("account", &self.account)
            .field("contract", &self.contract)
            .finish_non_exhaustive()
    }
}
