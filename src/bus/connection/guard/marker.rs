//! Reads a marker back.

use super::flaw::Flaw;
use super::{header, method};

impl Flaw {
    /// Returns the flaw that a marker names; `None` if its text is not the guard's. A publisher who writes that text
    /// itself only gets its own message dead-lettered.
    pub fn read(marker: &[u8]) -> Option<Flaw> {
        Flaw::all().chain(body(marker)).find(|flaw| flaw.to_string().as_bytes() == marker)
    }

    /// Returns every flaw that a message can have, except for bodies that are too large: these differ in size.
    pub(in crate::bus) fn all() -> impl Iterator<Item = Flaw> {
        let texts = header::texts().chain(method::texts()).map(Flaw::Encoding);
        texts.chain([Flaw::HeaderName, Flaw::Depth, Flaw::Size, Flaw::Malformed])
    }
}

/// Returns the flaw of a body whose size is in the marker.
fn body(marker: &[u8]) -> Option<Flaw> {
    let size = std::str::from_utf8(marker).ok()?.split(' ').nth(3)?;
    size.parse().ok().map(Flaw::Body)
}
