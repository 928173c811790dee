//! Notifications: what an adapter with webhooks implements in addition. A webhook is verified twice by the same code,
//! by the receiver and by the worker that applies it. It only says where to look, unless the gateway's contract accepts
//! notifications as proof.

use std::time::Duration;

use futures_util::future::BoxFuture;
use uuid::Uuid;

pub use crate::payment::fact::Fact;
use crate::payment::outcome::GatewayError;
pub use crate::payment::webhook::Webhook;
use crate::telemetry::metrics::WebhookOutcome;

/// Maximum age of a webhook when it is received, and maximum lead of its sender's clock; an older one may be a replay.
pub const TOLERANCE: Duration = Duration::from_secs(300);

/// Why a webhook is not accepted as the gateway's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotGenuine {
    /// There is no signature.
    #[error("the webhook is not signed")]
    NotSigned,
    /// The signature is malformed, whatever the secret.
    #[error("the webhook's signature is malformed")]
    Unreadable,
    /// The signature was not made with any configured secret.
    #[error("the webhook's signature is wrong")]
    WrongSignature,
    /// It was signed too long before or after it was received.
    #[error("the webhook was not signed within 300 seconds of its receipt")]
    OutOfTime,
    /// It is signed, but not what the gateway sends.
    #[error("the webhook is signed, but its body cannot be read")]
    InvalidBody,
}

impl NotGenuine {
    /// The outcome under which it is counted.
    pub fn outcome(self) -> WebhookOutcome {
        match self {
            NotGenuine::NotSigned => WebhookOutcome::NotSigned,
            NotGenuine::Unreadable => WebhookOutcome::UnreadableSignature,
            NotGenuine::WrongSignature => WebhookOutcome::WrongSignature,
            NotGenuine::OutOfTime => WebhookOutcome::OutOfTime,
            NotGenuine::InvalidBody => WebhookOutcome::InvalidBody,
        }
    }
}

/// Everything that is needed to receive webhooks; it requires only their secrets.
pub struct Verify {
    /// [`Notifications::signature_header`].
    pub header: Option<&'static str>,
    /// [`Notifications::verify`].
    pub check: Check,
}

/// See [`Notifications::verify`].
pub type Check = Box<dyn Fn(&Webhook) -> Result<Vec<Fact>, NotGenuine> + Send + Sync>;

/// Webhook support of a gateway.
pub trait Notifications: Send + Sync {
    /// The header that carries the signature; `None` if the gateway does not sign. A webhook without the header is
    /// rejected before its body is read.
    fn signature_header(&self) -> Option<&'static str>;

    /// Verifies that the gateway sent the webhook and reads its facts; empty if it is not about a payment. Pure and
    /// fast. Signatures are compared in constant time, over the raw body, with every configured secret. If the gateway
    /// does not sign, its facts have no key.
    ///
    /// # Errors
    /// It is not the gateway's.
    fn verify(&self, webhook: &Webhook) -> Result<Vec<Fact>, NotGenuine>;

    /// Asks the gateway which payment a fact without our reference belongs to; `None` if it is not ours, because others
    /// may use the same account. Never panics and never exceeds the timeout.
    ///
    /// # Errors
    /// The gateway did not say; it is asked again later.
    fn locate<'a>(&'a self, fact: &'a Fact, timeout: Duration) -> BoxFuture<'a, Result<Option<Uuid>, GatewayError>>;
}
