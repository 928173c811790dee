//! How a command ends: the exit codes, and which error means which.

use std::error::Error;
use std::process::ExitCode;
use std::{fmt, io};

use super::tame::tame;
use crate::bus::{self, BusError};
use crate::config::ConfigError;
use crate::gateway::registry::RegistryError;
use crate::store::StoreError;
use crate::telemetry::spans::SpansError;
use crate::wiring::WiringError;
use crate::worker::RunError;

/// An exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// Failed, or without the expected result.
    Failed,
    /// Wrong arguments.
    Usage,
    /// Invalid configuration; `EX_USAGE` of the BSDs, as in other daemons.
    Configuration,
    /// Broker or database unreachable; `EX_UNAVAILABLE`.
    Unavailable,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Configuration => 64,
            Exit::Unavailable => 69,
        })
    }
}

/// Why a command failed: one line for a person, and the exit code. It is not an error itself, so that `?` can convert
/// every error into it.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// The code.
    pub exit: Exit,
    /// The line; may be empty.
    pub message: String,
}

impl Failure {
    /// A failure with this code and message.
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into() }
    }

    /// The connection to the broker ended while the command was waiting for messages.
    pub fn connection_lost() -> Failure {
        Failure::new(Exit::Unavailable, "the connection to the broker was lost")
    }

    /// Wrong arguments that clap does not detect.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message)
    }
}

/// The line, safe for a terminal: an error may quote a file or a server.
impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&tame(&self.message))
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Failure {
        let error: &(dyn Error + 'static) = &error;
        // The reader of our output has closed it: `paybus show ... | head`.
        let closed = error.downcast_ref().is_some_and(|error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe);
        if closed {
            return Failure::new(Exit::Done, "");
        }
        Failure::new(exit_of(error), bus::describe(error))
    }
}

/// The code of the first error in the chain that has one.
fn exit_of(error: &(dyn Error + 'static)) -> Exit {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(exit) = known(error) {
            return exit;
        }
        next = error.source();
    }
    Exit::Failed
}

fn known(error: &(dyn Error + 'static)) -> Option<Exit> {
    if error.is::<ConfigError>() || error.is::<WiringError>() || error.is::<RegistryError>() || error.is::<SpansError>()
    {
        return Some(Exit::Configuration);
    }
    if let Some(error) = error.downcast_ref::<RunError>() {
        return match error {
            RunError::Config(_) | RunError::Wiring(_) | RunError::Setting(_) => Some(Exit::Configuration),
            RunError::Bus(error) => known(error),
            // The cause is further down the chain.
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref::<StoreError>() {
        return Some(if error.is_unavailable() { Exit::Unavailable } else { Exit::Failed });
    }
    match error.downcast_ref::<BusError>()? {
        BusError::Url(_) | BusError::Tls(_) => Some(Exit::Configuration),
        BusError::TimedOut { .. } | BusError::Broker { .. } | BusError::Login(_) | BusError::Closed => {
            Some(Exit::Unavailable)
        }
        _ => Some(Exit::Failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_code() {
        let check = |failure: Failure, exit: Exit| assert_eq!(failure.exit, exit, "{failure:?}");
        check(
            ConfigError::Variable { variable: "X".to_owned(), problem: "is wrong".to_owned() }.into(),
            Exit::Configuration,
        );
        check(BusError::Closed.into(), Exit::Unavailable);
        check(BusError::Url("no").into(), Exit::Configuration);
        check(StoreError::Schema("missing".to_owned()).into(), Exit::Failed);
        check(RunError::Setting("no".to_owned()).into(), Exit::Configuration);
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        check(StoreError::Unavailable(Box::new(refused())).into(), Exit::Unavailable);
        check(BusError::Login("no".to_owned()).into(), Exit::Unavailable);
        check(RunError::Bus(BusError::Url("no")).into(), Exit::Configuration);
        check(refused().into(), Exit::Failed);
    }

    #[test]
    fn a_message_has_the_whole_error_chain() {
        let error = StoreError::Unavailable(Box::new(io::Error::other("no route")));
        assert_eq!(Failure::from(error).message, "the database cannot be reached: no route");
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(failure, Failure::new(Exit::Done, ""));
    }
}
