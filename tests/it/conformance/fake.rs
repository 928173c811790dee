//! What the kit needs of a gateway's fake. A new adapter names its fake by implementing [`Fake`], in a file beside this one.

use futures_util::future::BoxFuture;
use rust_decimal::Decimal;
use serde_json::Value;
use uuid::Uuid;

use paybus::payment::action::Action;
use paybus::payment::outcome::Decline;

/// Something that this gateway, or its fake, cannot do, and why: it stands in the table of `docs/gateways.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported(pub &'static str);

/// What a case, or a plan, ends in.
pub type Ended<T = ()> = Result<T, Unsupported>;

/// Which calls a plan is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// Those that act.
    Act(Action),
    /// Look-ups.
    Ask,
    /// Those that undo.
    Undo,
}

/// The process of a payment: most plans are for it.
pub const PROCESS: On = On::Act(Action::Process);

/// What one call meets. "Acts" means that the gateway books it under its key and answers that key the same from then on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Meets {
    /// Acts: declines in this way.
    Decline(Decline),
    /// Acts: declines with these words.
    DeclineSaying(&'static str),
    /// Acts: the customer must go somewhere, and will pay or not; [`Fake::complete`] ends it.
    Redirect { paid: bool },
    /// Acts: the customer must approve somewhere; [`Fake::complete`] says that they did, and it is done when it is confirmed.
    Approval,
    /// Acts: the result comes later, and it will be paid or not; [`Fake::complete`] ends it.
    Pending { paid: bool },
    /// Acts, and thinks that a person should look at it.
    Review,
    /// Acts on this amount in place of the one that was asked.
    OtherAmount(&'static str),
    /// Acts in this currency.
    OtherCurrency(&'static str),
    /// Acts, and answers with all in order but its ornaments, which are of other types than agreed.
    Ornate,
    /// Acts, and the connection breaks before the answer.
    LoseAnswer,
    /// Acts, and never answers.
    NoAnswer,
    /// Acts, and answers with a server error.
    ErrorAfter,
    /// Acts, and answers with something that nobody can read.
    Garbage,
    /// Acts, and half of the answer comes.
    HalfAnswer,
    /// Does not act, and never answers.
    HangBefore,
    /// Does not act, and answers with a server error that is gone the next time.
    ErrorBefore,
    /// Does not act, and keeps a server error under the key for as long as it keeps keys.
    StoreError,
    /// Does not act: the same key is being worked on.
    Busy,
    /// Does not act: too many requests; to be tried again after so many seconds.
    TooMany(u64),
    /// Does not act: it knows nobody by these credentials.
    Unauthorized,
    /// Does not act, and points somewhere else with this status.
    Elsewhere(u16),
}

/// What the gateway's books say was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    /// Money taken at once.
    Charge,
    /// Money held.
    Authorization,
    /// Held money taken.
    Capture,
    /// Held money let go.
    Release,
    /// Money given back.
    Refund,
    /// An end before money moved.
    Cancel,
    /// A charge that was undone because nobody knew of it.
    Undo,
}

/// One line of the gateway's books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Booked {
    pub deed: Deed,
    pub amount: Decimal,
    pub currency: String,
}

/// What a gateway tells by itself, as it comes to `/webhooks/{variant}`.
#[derive(Debug, Clone)]
pub struct SignedWebhook {
    /// The header with the signature.
    pub header: &'static str,
    pub signature: String,
    pub body: String,
}

/// A call that acts, as it came in; in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The idempotency key, wherever it came.
    pub key: String,
    /// All that the gateway read of it but the key: the same key must come with the same.
    pub content: Vec<u8>,
}

/// A gateway's fake: a stand-in that keeps books, and misbehaves for one payment as it is told.
pub trait Fake: Send + Sync {
    /// The column of `docs/gateways.md`: the gateway's name, or a name of its own for the same gateway under another contract.
    fn name(&self) -> &'static str;

    /// The variant's settings, such as `gateway`, `url` and `settle_window`: they point at this fake.
    fn settings(&self) -> Vec<(&'static str, String)>;

    /// The settings that let the gateway forget a key after a second, over the usual ones.
    fn brief_keys(&self) -> Ended<Vec<(&'static str, String)>>;

    /// What must stand in no log, error or event, where the adapter has a secret.
    fn secret(&self) -> Option<&'static str>;

    /// A `process` object that is approved.
    fn process(&self) -> Value;

    /// What the next calls of this kind for a payment meet, in order; then all is well again. Returns the `process` object
    /// that has to come with it.
    fn plan(&self, payment: Uuid, on: On, meets: &[Meets]) -> Ended<Value>;

    /// Ends what is pending of a payment, or waits for its customer, as it was planned to end.
    fn complete(&self, payment: Uuid, paid: bool) -> Ended;

    /// Gives money back at the gateway itself, apart from paybus.
    fn refund_by_hand(&self, payment: Uuid, amount: &'static str) -> Ended;

    /// What the gateway tells by itself of what happened last to a payment, signed.
    fn webhook(&self, payment: Uuid) -> Ended<SignedWebhook>;

    /// What the gateway proves by itself of everything that happened to a payment, as it stands now, signed: each in a
    /// webhook of its own.
    fn proofs(&self, _payment: Uuid) -> Ended<Vec<SignedWebhook>> {
        Err(Unsupported("its contract: a notification only says where to look"))
    }

    /// Everything that was done for a payment, in order.
    fn books(&self, payment: Uuid) -> Ended<Vec<Booked>>;

    /// The calls for a payment that were to act, in order.
    fn sent(&self, payment: Uuid) -> Ended<Vec<Sent>>;

    /// Lets it refuse connections until [`Fake::start`], and know everything afterwards.
    fn stop(&self) -> BoxFuture<'_, Ended>;

    /// Lets it take connections again.
    fn start(&self) -> BoxFuture<'_, ()>;
}
