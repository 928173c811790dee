//! Reading a marker back.

use super::flaw::Flaw;
use super::{header, method};

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
