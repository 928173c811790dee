//! Notifications: what a gateway that has webhooks adds to its adapter. A webhook is read twice with the same eyes, by
//! whoever receives it and by the worker that applies it; neither believes more of it than where to look.

use std::time::Duration;

use futures_util::future::BoxFuture;
use uuid::Uuid;

pub use crate::payment::fact::Fact;
use crate::payment::outcome::GatewayError;
pub use crate::payment::webhook::Webhook;

/// How old a webhook may be when it is received, and how far ahead its sender's clock: what is older may be a replay.
pub const TOLERANCE: Duration = Duration::from_secs(300);

/// Why a webhook is not taken for the gateway's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotGenuine {
    /// There is no signature.
    #[error("it is not signed")]
    NotSigned,
    /// The signature is no one that the gateway could have made, whatever its secret.
    #[error("its signature cannot be read")]
    Unreadable,
    /// No secret that is configured made the signature.
    #[error("its signature is wrong")]
    WrongSignature,
    /// It was signed too long before it was received, or after.
    #[error("it was not signed within 300 seconds of its receipt")]
    OutOfTime,
    /// It is signed, and not what the gateway sends.
    #[error("it is signed, and its body cannot be read")]
    InvalidBody,
}

impl NotGenuine {
    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            NotGenuine::NotSigned => "not_signed",
            NotGenuine::Unreadable => "unreadable_signature",
            NotGenuine::WrongSignature => "wrong_signature",
            NotGenuine::OutOfTime => "out_of_time",
            NotGenuine::InvalidBody => "invalid_body",
        }
    }
}

/// All that is needed to receive webhooks, and it needs nothing but their secrets.
pub struct Verify {
    /// [`Notifications::signature_header`].
    pub header: Option<&'static str>,
    /// [`Notifications::verify`].
    pub check: Check,
}

/// See [`Notifications::verify`].
pub type Check = Box<dyn Fn(&Webhook) -> Result<Vec<Fact>, NotGenuine> + Send + Sync>;

/// What a gateway with webhooks can do.
pub trait Notifications: Send + Sync {
    /// The header that the signature stands in; `None` where the gateway signs nothing. What comes without it is refused
    /// before its body is read.
    fn signature_header(&self) -> Option<&'static str>;

    /// Checks that the gateway sent it and reads what it tells: nothing where that is about no payment. Pure and fast; a
    /// signature is compared in constant time, over the body as it came, with every secret that is configured. Where the
    /// gateway signs nothing, its facts have no key.
    ///
    /// # Errors
    /// It is not the gateway's.
    fn verify(&self, webhook: &Webhook) -> Result<Vec<Fact>, NotGenuine>;

    /// Asks the gateway whose a fact is that carries no reference of ours. Nothing where it is not ours: others may use
    /// the same account. Never panics and never hangs beyond the time-out.
    ///
    /// # Errors
    /// The gateway did not say; it is asked again later.
    fn locate<'a>(&'a self, fact: &'a Fact, timeout: Duration) -> BoxFuture<'a, Result<Option<Uuid>, GatewayError>>;
}
