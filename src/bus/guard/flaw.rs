//! What lapin cannot read of a message, and the header that says so.

use std::fmt;

use super::table::DEPTH_MAX;
use super::{header, method};
use crate::payment::code::{Code, Rejection};

/// The header that marks a repaired message with its [`Flaw`]. A dead letter has the reason instead.
pub const MARKER: &str = "x-paybus-unreadable";

/// What lapin cannot read of a message, and the guard has left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// This text is not UTF-8.
    Encoding(&'static str),
    /// The name of a header is not UTF-8.
    HeaderName,
    /// The headers are nested too deep.
    Depth,
    /// The properties do not fit into one frame.
    Size,
    /// The properties are cut off, or hold a type that AMQP does not have.
    Malformed,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Flaw::Encoding(name) => write!(f, "{name}: is not UTF-8"),
            Flaw::HeaderName => f.write_str("headers: a name is not UTF-8"),
            Flaw::Depth => write!(f, "headers: are nested deeper than {DEPTH_MAX} levels"),
            Flaw::Size => f.write_str("properties: do not fit into one frame"),
            Flaw::Malformed => f.write_str("properties: cannot be read"),
        }
    }
}

impl Flaw {
    /// The flaw that a marker names; `None` for words that are not the guard's. A publisher who writes those words
    /// itself only has its own message put aside.
    pub fn read(marker: &[u8]) -> Option<Flaw> {
        Flaw::all().find(|flaw| flaw.to_string().as_bytes() == marker)
    }

    /// Every flaw that a message can have.
    pub(super) fn all() -> impl Iterator<Item = Flaw> {
        let texts = header::texts().chain(method::texts()).map(Flaw::Encoding);
        texts.chain([Flaw::HeaderName, Flaw::Depth, Flaw::Size, Flaw::Malformed])
    }
}

impl From<Flaw> for Rejection {
    fn from(flaw: Flaw) -> Rejection {
        let code = match flaw {
            Flaw::Encoding(_) | Flaw::HeaderName => Code::InvalidEncoding,
            Flaw::Depth | Flaw::Size | Flaw::Malformed => Code::InvalidEnvelope,
        };
        Rejection::new(code, flaw.to_string())
    }
}
