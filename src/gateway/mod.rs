//! Gateways: the adapters to the outside world. A new one implements [`Gateway`], declares in its contract what it can
//! do, and is added to `registry`.

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

use self::clock::ClockReading;
use self::notification::Notifications;
pub use crate::payment::action::Action;
use crate::payment::code::{Code, Rejection};
use crate::payment::contract::Contract;
use crate::payment::model::Payment;
use crate::payment::money::{Currency, Money};
pub use crate::payment::operation::Request;
use crate::payment::outcome::{Found, GatewayError, GatewayKey, Outcome};
use crate::payment::trace::TraceContext;

mod account;
mod clean;
pub mod client;
pub mod clock;
pub mod dummy;
mod failure;
pub mod http;
mod legible;
pub mod notification;
pub mod registry;
pub mod signature;
pub mod stripe;
pub mod url;

/// The input for a request body, which is written once and stored.
#[derive(Debug)]
pub struct Ask<'a> {
    /// The operation's id: our reference at the gateway.
    pub operation_id: Uuid,
    /// The action to carry out.
    pub action: Action,
    /// The payment as it is when the operation begins.
    pub payment: &'a Payment,
    /// The amount, if there is one.
    pub amount: Option<Money>,
    /// Whether a process captures at once.
    pub capture: bool,
    /// Whether a process confirms what the customer has approved
    /// ([`Verdict::Ready`](crate::payment::outcome::Verdict)).
    pub confirms: bool,
    /// Whether a capture is the last of its authorization.
    pub is_final: bool,
    /// For a refund: the gateway's reference of the charge, if the command names one.
    pub reference: Option<&'a str>,
    /// For a process: the command's `process` object.
    pub data: &'a Map<String, Value>,
}

/// One attempt: everything a call needs, without access to the database.
#[derive(Debug)]
pub struct Call<'a> {
    /// The operation's id: our reference at the gateway.
    pub operation_id: Uuid,
    /// The payment it is for.
    pub payment_id: Uuid,
    /// The action to carry out.
    pub action: Action,
    /// The idempotency key.
    pub key: GatewayKey,
    /// The number of this attempt, from 1.
    pub attempt: u32,
    /// The body written by `prepare`, byte for byte the same on every attempt.
    pub body: &'a str,
    /// The requested amount.
    pub amount: Option<Money>,
    /// The payment's currency.
    pub currency: Currency,
    /// Whether a process captures at once.
    pub capture: bool,
    /// Whether a process confirms what the customer has approved.
    pub confirms: bool,
    /// When the operation was stored; nothing was sent for it before.
    pub stored_at: Timestamp,
    /// The call's trace context.
    pub trace: Option<&'a TraceContext>,
    /// Timeout of the call.
    pub timeout: Duration,
}

/// A look-up of one operation or of the whole payment.
#[derive(Debug)]
pub struct Question<'a> {
    /// The operation that asks. If it asks about itself, the settle window since its last send has passed.
    pub operation_id: Uuid,
    /// The operation to look up; `None` for the whole payment.
    pub target: Option<Target<'a>>,
    /// The payment as stored.
    pub payment: &'a Payment,
    /// The gateway's own ids in the notification that asks: the objects it is about.
    pub references: Vec<String>,
    /// The question's trace context.
    pub trace: Option<&'a TraceContext>,
    /// Timeout of the look-up.
    pub timeout: Duration,
}

/// An operation to look up.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Its id: our reference at the gateway.
    pub operation_id: Uuid,
    /// Its action.
    pub action: Action,
    /// The key under which it was last sent.
    pub key: GatewayKey,
    /// The request that was sent.
    pub request: Option<&'a Request>,
    /// Start of the period in which something may have been received: when it was stored or, under its first key, the
    /// first attempt not proved unsent.
    pub stored_at: Timestamp,
    /// End of the period in which something may have been sent.
    pub last_sent_at: Option<Timestamp>,
}

/// An adapter. It classifies every answer once; the engine acts only on what is proved.
pub trait Gateway: Send + Sync + fmt::Debug {
    /// The idempotency contract and the capabilities.
    fn contract(&self) -> &Contract;

    /// The account at the gateway. A payment stays with the account with which it was created.
    fn account(&self) -> &str;

    /// Other names of the same account: payments stored under any of them are served too.
    fn account_aliases(&self) -> &[String] {
        &[]
    }

    /// Validates a `process` object before anything is stored.
    ///
    /// # Errors
    /// Says what is wrong, by field.
    fn check(&self, data: &Map<String, Value>) -> Result<(), Rejection>;

    /// Writes the body of a request. Called once per operation, before anything is stored.
    ///
    /// # Errors
    /// The gateway does not support such a request: its amount, currency or reference. The command is rejected.
    fn prepare(&self, ask: &Ask<'_>) -> Result<String, Rejection>;

    /// Sends one attempt. Never panics and never exceeds the timeout.
    fn call<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Outcome>;

    /// Looks up an operation or the whole payment. Never panics and never exceeds the timeout.
    fn look_up<'a>(&'a self, question: Question<'a>) -> BoxFuture<'a, Found>;

    /// Undoes whatever became of the request with an operation's key. Returns [`Found::Undone`]; [`Found::Nothing`] if
    /// there was nothing to undo; or the result if it cannot be undone. Called only if the contract declares it;
    /// repeating it has no further effect. Never panics and never exceeds the timeout.
    fn undo<'a>(&'a self, _question: Question<'a>) -> BoxFuture<'a, Found> {
        Box::pin(async { Found::Failed(GatewayError::new(Code::Unsupported, "this gateway does not support undo")) })
    }

    /// Webhook support; `None` if no webhooks are configured.
    fn notifications(&self) -> Option<&dyn Notifications> {
        None
    }

    /// The last reading of the gateway's clock, if its answers carry a `Date`.
    fn clock(&self) -> Option<ClockReading> {
        None
    }

    /// Checks whether the gateway can be reached, for `paybus check`; returns a sentence for people.
    fn probe(&self) -> BoxFuture<'_, Result<String, String>>;
}
