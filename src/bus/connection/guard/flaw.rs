//! What lapin cannot read of a message, and the header that says so.

use std::fmt;

use crate::payment::code::{Code, Rejection};
use crate::payment::command::{BODY_MAX, body_too_large};

/// The header that marks a repaired message with its [`Flaw`]. A dead letter has the reason instead.
pub const MARKER: &str = "x-paybus-unreadable";

/// How deep headers may be nested, in levels, including the outermost; the broker's own `x-death` has three. For each
/// level, lapin's parser takes 1.5 to 10 KiB of its thread's 2 MiB of stack, depending on the build.
pub(in crate::bus) const DEPTH_MAX: usize = 32;

/// The largest body that a worker reads into memory, in bytes. A command is at most [`BODY_MAX`]; a slightly larger
/// one, perhaps of a publisher that measured the data and not the envelope, is still read so that it can be answered.
pub const BODY_READ_MAX: u64 = (BODY_MAX + 64 * 1024) as u64;

/// What lapin cannot read of a message, and the guard has therefore left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// This text is not UTF-8.
    Encoding(&'static str),
    /// The name of a header is not UTF-8.
    HeaderName,
    /// The headers are nested too deeply.
    Depth,
    /// The properties do not fit into one frame.
    Size,
    /// The properties are truncated, or have a type that AMQP does not have.
    Malformed,
    /// The body has this many bytes, too many to be read. None of it was passed on; the broker still has it.
    Body(u64),
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Flaw::Encoding(name) => write!(f, "{name}: is not UTF-8"),
            Flaw::HeaderName => f.write_str("headers: a name is not UTF-8"),
            Flaw::Depth => write!(f, "headers: are nested deeper than {DEPTH_MAX} levels"),
            Flaw::Size => f.write_str("properties: do not fit into one frame"),
            Flaw::Malformed => f.write_str("properties: cannot be read"),
            Flaw::Body(size) => f.write_str(&body_too_large(*size).message),
        }
    }
}

impl From<Flaw> for Rejection {
    fn from(flaw: Flaw) -> Rejection {
        let code = match flaw {
            Flaw::Encoding(_) | Flaw::HeaderName => Code::InvalidEncoding,
            Flaw::Depth | Flaw::Size | Flaw::Malformed => Code::InvalidEnvelope,
            Flaw::Body(_) => Code::TooLarge,
        };
        Rejection::new(code, flaw.to_string())
    }
}
