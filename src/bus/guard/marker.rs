//! Reading a marker back.

use super::flaw::Flaw;
use super::{header, method};

impl Flaw {
    /// The flaw that a marker names; `None` for words that are not the guard's. A publisher who writes those words
    /// itself only has its own message put aside.
    pub fn read(marker: &[u8]) -> Option<Flaw> {
        Flaw::all().chain(body(marker)).find(|flaw| flaw.to_string().as_bytes() == marker)
    }

    /// Every flaw that a message can have, but for bodies that are too large: these differ in size.
    pub(super) fn all() -> impl Iterator<Item = Flaw> {
        let texts = header::texts().chain(method::texts()).map(Flaw::Encoding);
        texts.chain([Flaw::HeaderName, Flaw::Depth, Flaw::Size, Flaw::Malformed])
    }
}

/// The flaw of a body of the size that stands in the marker.
fn body(marker: &[u8]) -> Option<Flaw> {
    let size = std::str::from_utf8(marker).ok()?.split(' ').nth(3)?;
    size.parse().ok().map(Flaw::Body)
}
