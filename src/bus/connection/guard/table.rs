//! AMQP tables and arrays, traversed without recursion.

use super::flaw::{DEPTH_MAX, Flaw};

/// The part of a table or an array that has not been read yet.
#[derive(Debug, Clone, Copy)]
struct Level<'a> {
    rest: &'a [u8],
    is_table: bool,
}

/// An entry of a table or an array.
#[derive(Debug)]
struct Entry<'a> {
    /// The whole entry.
    bytes: &'a [u8],
    /// The name; empty in an array.
    name: &'a [u8],
    /// The entries of the value, if it is a table or an array.
    nested: Option<Level<'a>>,
}

impl<'a> Level<'a> {
    fn table(entries: &'a [u8]) -> Level<'a> {
        Level { rest: entries, is_table: true }
    }

    /// Returns the next entry, or `None` at the end.
    fn next(&mut self) -> Result<Option<Entry<'a>>, Flaw> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        self.entry().map(Some).ok_or(Flaw::Malformed)
    }

    /// Supports the types of amq-protocol's `AMQPType::from_id`.
    fn entry(&mut self) -> Option<Entry<'a>> {
        let whole = self.rest;
        let name = if self.is_table { short_string(&mut self.rest)? } else { &[] };
        let kind = *self.rest.split_off_first()?;
        let size = match kind {
            b'V' => 0,
            b't' | b'b' | b'B' => 1,
            b's' | b'U' | b'u' => 2,
            b'I' | b'i' | b'f' => 4,
            b'D' => 5,
            b'L' | b'l' | b'd' | b'T' => 8,
            b'S' | b'x' | b'F' | b'A' => length(&mut self.rest)?,
            _ => return None,
        };
        let value = self.rest.split_off(..size)?;
        let nested = matches!(kind, b'F' | b'A').then_some(Level { rest: value, is_table: kind == b'F' });
        Some(Entry { bytes: &whole[..whole.len() - self.rest.len()], name, nested })
    }
}

/// Reads a short string: its length in one byte, and its text.
pub(in crate::bus) fn short_string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = *rest.split_off_first()?;
    rest.split_off(..usize::from(length))
}

/// Reads the length of a long string, a table or an array, in bytes.
pub(in crate::bus) fn length(rest: &mut &[u8]) -> Option<usize> {
    let (length, behind) = rest.split_first_chunk()?;
    *rest = behind;
    usize::try_from(u32::from_be_bytes(*length)).ok()
}

/// Checks whether lapin can read the entries of a table.
pub(in crate::bus) fn check(entries: &[u8]) -> Result<(), Flaw> {
    walk(Level::table(entries), 1)
}

/// Returns the entries that lapin can read. An entry whose end cannot be found hides those behind it.
pub(in crate::bus) fn readable(entries: &[u8]) -> Vec<u8> {
    let mut level = Level::table(entries);
    let mut kept = Vec::new();
    while let Ok(Some(entry)) = level.next() {
        if check_name(entry.name).is_ok() && entry.nested.is_none_or(|nested| walk(nested, 2).is_ok()) {
            kept.extend_from_slice(entry.bytes);
        }
    }
    kept
}

/// Checks all entries of a level at this depth, including nested ones.
fn walk(mut level: Level<'_>, depth: usize) -> Result<(), Flaw> {
    let mut outer = Vec::new();
    loop {
        match level.next()? {
            Some(entry) => {
                check_name(entry.name)?;
                if let Some(nested) = entry.nested {
                    outer.push(std::mem::replace(&mut level, nested));
                    if depth + outer.len() > DEPTH_MAX {
                        return Err(Flaw::Depth);
                    }
                }
            }
            None => match outer.pop() {
                Some(next) => level = next,
                None => return Ok(()),
            },
        }
    }
}

fn check_name(name: &[u8]) -> Result<(), Flaw> {
    std::str::from_utf8(name).map(drop).map_err(|_| Flaw::HeaderName)
}
