//! Gateways: the adapters that speak to the outside world. A new one is one file that declares what it can do.

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

/// What a request body is written from; it is written once and stored.
#[derive(Debug)]
pub struct Ask<'a> {
    /// Our reference at the gateway.
    pub operation_id: Uuid,
    /// What to do.
    pub action: Action,
    /// The payment as it is when the operation begins.
    pub payment: &'a Payment,
    /// How much, where there is a sum.
    pub amount: Option<Money>,
    /// Whether a process captures at once.
    pub capture: bool,
    /// Whether a process completes what the customer has approved ([`Verdict::Ready`](crate::payment::outcome::Verdict)).
    pub confirms: bool,
    /// Whether a capture is the last of its authorization.
    pub is_final: bool,
    /// The gateway's reference of the charge that a refund is taken from, where its command names one.
    pub reference: Option<&'a str>,
    /// The command's `process` object, for a process.
    pub data: &'a Map<String, Value>,
}

/// One attempt: everything a call needs, with no way to the database.
#[derive(Debug)]
pub struct Call<'a> {
    /// Our reference at the gateway.
    pub operation_id: Uuid,
    /// The payment it is for.
    pub payment_id: Uuid,
    /// What to do.
    pub action: Action,
    /// The idempotency key.
    pub key: GatewayKey,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// The body that `prepare` wrote, byte for byte the same on every attempt.
    pub body: &'a str,
    /// The sum asked for.
    pub amount: Option<Money>,
    /// The payment's currency.
    pub currency: Currency,
    /// Whether a process captures at once.
    pub capture: bool,
    /// Whether a process completes what the customer has approved.
    pub confirms: bool,
    /// When the operation was stored: nothing was sent for it before.
    pub stored_at: Timestamp,
    /// Where in a trace the call belongs.
    pub trace: Option<&'a TraceContext>,
    /// When to give up waiting.
    pub timeout: Duration,
}

/// A question for the truth, of one operation or of the whole payment.
#[derive(Debug)]
pub struct Question<'a> {
    /// The id of the operation that asks. One that asks about itself does so only after the settle window of its last
    /// send.
    pub operation_id: Uuid,
    /// The operation asked about; nothing for the whole payment.
    pub target: Option<Target<'a>>,
    /// The payment as stored.
    pub payment: &'a Payment,
    /// What the gateway itself named in the notification that asks: its own ids of what it tells about.
    pub references: Vec<String>,
    /// Where in a trace the question belongs.
    pub trace: Option<&'a TraceContext>,
    /// When to give up waiting.
    pub timeout: Duration,
}

/// An operation that is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Its id, our reference.
    pub operation_id: Uuid,
    /// What it did.
    pub action: Action,
    /// The key it was last sent under.
    pub key: GatewayKey,
    /// What was sent for it.
    pub request: Option<&'a Request>,
    /// Since when something may have been received for it: since it was stored, or, under its first key, since the first
    /// attempt that is not proved unsent.
    pub stored_at: Timestamp,
    /// Until when something may have been sent for it.
    pub last_sent_at: Option<Timestamp>,
}

/// An adapter. It classes every answer once: the engine acts on nothing but what is proved.
pub trait Gateway: Send + Sync + fmt::Debug {
    /// The idempotency contract and the capabilities.
    fn contract(&self) -> &Contract;

    /// Which account at the gateway this is; a payment stays with the account it began with.
    fn account(&self) -> &str;

    /// Other names of the same account: payments that are stored with one of them are served as well.
    fn account_aliases(&self) -> &[String] {
        &[]
    }

    /// Checks a `process` object before anything is stored.
    ///
    /// # Errors
    /// What is wrong with it, by field.
    fn check(&self, data: &Map<String, Value>) -> Result<(), Rejection>;

    /// Writes the body of a request; called once for an operation, before anything is stored.
    ///
    /// # Errors
    /// The gateway can take no such request: an amount, a currency or a reference that it does not know. The command is
    /// rejected.
    fn prepare(&self, ask: &Ask<'_>) -> Result<String, Rejection>;

    /// Sends one attempt. Never panics and never hangs beyond the time-out.
    fn call<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Outcome>;

    /// Asks for the truth. Never panics and never hangs beyond the time-out.
    fn look_up<'a>(&'a self, question: Question<'a>) -> BoxFuture<'a, Found>;

    /// Undoes whatever became of the request with an operation's key, and says what it found: [`Found::Undone`], nothing,
    /// or the result where there was nothing to undo or it cannot be undone. Only where the contract declares it; asked
    /// again, it does no more. Never panics and never hangs beyond the time-out.
    fn undo<'a>(&'a self, _question: Question<'a>) -> BoxFuture<'a, Found> {
        Box::pin(async { Found::Failed(GatewayError::new(Code::Unsupported, "this gateway undoes nothing")) })
    }

    /// Its webhooks, where it sends any that are configured.
    fn notifications(&self) -> Option<&dyn Notifications> {
        None
    }

    /// What the gateway's clock said last, where its answers carry a `Date`.
    fn clock(&self) -> Option<ClockReading> {
        None
    }

    /// Whether the gateway can be reached, for `paybus check`; a sentence for a person.
    fn probe(&self) -> BoxFuture<'_, Result<String, String>>;
}
