//! What the broker refuses by closing a channel or a connection: which object is concerned, and what to do about it.

use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};

use crate::bus::BusError;

/// Why the topology cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// It does not exist.
    #[error("{object} does not exist: run `paybus migrate`, or set amqp.declare = true")]
    Missing {
        /// Exchange or queue, with its name.
        object: String,
    },
    /// It exists with other settings, which cannot be changed.
    #[error(
        "{object} exists with different settings ({detail}): empty and delete it so that it can be declared again, or \
         choose another amqp.prefix"
    )]
    Differs {
        /// Exchange or queue, with its name.
        object: String,
        /// The broker's message.
        detail: String,
    },
    /// The user lacks the permission.
    #[error(
        "the broker user has no permission on {object} ({detail}): grant it the permissions of its part with \
         deploy/rabbitmq/grant"
    )]
    Forbidden {
        /// Exchange or queue, with its name.
        object: String,
        /// The broker's message.
        detail: String,
    },
}

/// Returns which refusal of one channel this is and the broker's message; `None` for any other error.
pub(crate) fn refusal(error: &lapin::Error) -> Option<(AMQPSoftError, String)> {
    let ErrorKind::ProtocolError(error) = error.kind() else {
        return None;
    };
    match error.kind() {
        AMQPErrorKind::Soft(kind) => Some((kind.clone(), error.get_message().to_string())),
        AMQPErrorKind::Hard(_) => None,
    }
}

/// Distinguishes a connection that the broker refuses (user, password or virtual host) from one that failed.
pub(crate) fn login(error: BusError) -> BusError {
    let reason = match &error {
        BusError::Broker { source, .. } => match source.kind() {
            ErrorKind::ProtocolError(refused) => match refused.kind() {
                AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => {
                    Some(refused.get_message().to_string())
                }
                _ => None,
            },
            _ => None,
        },
        _ => None,
    };
    reason.map_or(error, BusError::Login)
}

/// Adds to a refusal which object it concerns and what to do about it.
pub(crate) fn named(error: BusError, object: impl FnOnce() -> String) -> BusError {
    let BusError::Broker { source, .. } = &error else {
        return error;
    };
    match refusal(source) {
        Some((AMQPSoftError::NOTFOUND, _)) => TopologyError::Missing { object: object() }.into(),
        Some((AMQPSoftError::PRECONDITIONFAILED, detail)) => TopologyError::Differs { object: object(), detail }.into(),
        Some((AMQPSoftError::ACCESSREFUSED, detail)) => TopologyError::Forbidden { object: object(), detail }.into(),
        _ => error,
    }
}
