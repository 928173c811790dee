//! Content headers: the properties of messages.

use super::flaw::{Flaw, MARKER};
use super::table;

/// The length of what precedes the properties: class, weight and body size.
pub(in crate::bus) const PREFIX: usize = 12;

/// The number of properties.
const COUNT: usize = 14;
/// The index of the headers among them.
const HEADERS: usize = 2;

/// How a property is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Table,
    Octets(usize),
}

/// The properties of class `basic`, in the order of their flags.
static PROPERTIES: [(&str, Form); COUNT] = [
    ("content_type", Form::Text),
    ("content_encoding", Form::Text),
    ("headers", Form::Table),
    ("delivery_mode", Form::Octets(1)),
    ("priority", Form::Octets(1)),
    ("correlation_id", Form::Text),
    ("reply_to", Form::Text),
    ("expiration", Form::Text),
    ("message_id", Form::Text),
    ("timestamp", Form::Octets(8)),
    ("type", Form::Text),
    ("user_id", Form::Text),
    ("app_id", Form::Text),
    ("cluster_id", Form::Text),
];

/// Returns the names of the text properties.
pub(in crate::bus) fn texts() -> impl Iterator<Item = &'static str> {
    PROPERTIES.iter().filter(|(_, form)| *form == Form::Text).map(|(name, _)| *name)
}

/// A content header.
#[derive(Debug)]
pub(in crate::bus) struct Header<'a> {
    prefix: &'a [u8],
    /// The properties as received, with their lengths, except for texts that are not UTF-8.
    values: [Option<&'a [u8]>; COUNT],
    /// The first thing that lapin cannot read.
    pub(in crate::bus) flaw: Option<Flaw>,
}

impl<'a> Header<'a> {
    /// Reads as much of a frame's payload as possible; `None` if it does not even include the body size.
    pub(in crate::bus) fn read(payload: &'a [u8]) -> Option<Header<'a>> {
        let mut rest = payload;
        let prefix = rest.split_off(..PREFIX)?;
        let mut header = Header { prefix, values: [None; COUNT], flaw: None };
        if header.read_properties(&mut rest).is_none() || !rest.is_empty() {
            header.flaw.get_or_insert(Flaw::Malformed);
        }
        Some(header)
    }

    /// Creates a header without properties.
    pub(in crate::bus) fn bare(prefix: &'a [u8]) -> Header<'a> {
        Header { prefix, values: [None; COUNT], flaw: None }
    }

    /// Returns the size of the body that follows, in bytes.
    pub(in crate::bus) fn body_size(&self) -> u64 {
        self.prefix.last_chunk::<8>().map_or(0, |size| u64::from_be_bytes(*size))
    }

    /// Like lapin, ignores the two flags that stand for no property.
    fn read_properties(&mut self, rest: &mut &'a [u8]) -> Option<()> {
        let (flags, properties) = rest.split_first_chunk()?;
        *rest = properties;
        let flags = u16::from_be_bytes(*flags);
        for (index, (name, form)) in PROPERTIES.iter().enumerate() {
            if flags & flag(index) != 0 {
                let whole = *rest;
                let read = form.read(name, rest)?;
                // The headers are kept even if some cannot be read: the others are picked out later.
                if read.is_ok() || *form == Form::Table {
                    self.values[index] = Some(&whole[..whole.len() - rest.len()]);
                }
                self.flaw = self.flaw.or(read.err());
            }
        }
        Some(())
    }

    /// Returns the payload of a header that lapin can read: what is readable of this one, with the flaw as its marker.
    /// It has at most `max` bytes.
    pub(in crate::bus) fn repaired(&self, flaw: Flaw, max: usize) -> Vec<u8> {
        let entries = self.values[HEADERS].and_then(|table| table.get(4..)).map(table::readable);
        let payload = self.written(entries.unwrap_or_default(), flaw);
        // Without headers, it fits into the smallest frame that a broker may require.
        if payload.len() <= max { payload } else { self.written(Vec::new(), flaw) }
    }

    fn written(&self, mut entries: Vec<u8>, flaw: Flaw) -> Vec<u8> {
        let text = flaw.to_string();
        // Comes after a header of the same name from the publisher, because the last one counts.
        entries.push(MARKER.len() as u8);
        entries.extend_from_slice(MARKER.as_bytes());
        entries.push(b'S');
        entries.extend_from_slice(&(text.len() as u32).to_be_bytes());
        entries.extend_from_slice(text.as_bytes());
        let table = [&(entries.len() as u32).to_be_bytes()[..], &entries].concat();

        let mut values = self.values;
        values[HEADERS] = Some(&table);
        let present = (0..COUNT).filter(|index| values[*index].is_some());
        let flags = present.fold(0, |flags, index| flags | flag(index));
        let properties = values.into_iter().flatten().collect::<Vec<_>>().concat();
        let mut prefix = self.prefix.to_vec();
        if matches!(flaw, Flaw::Body(_)) {
            // No body follows.
            prefix[PREFIX - 8..].fill(0);
        }
        [&prefix[..], &flags.to_be_bytes(), &properties].concat()
    }
}

fn flag(property: usize) -> u16 {
    0x8000 >> property
}

impl Form {
    /// Reads a value and checks whether lapin can read it; `None` if it is truncated.
    fn read(self, name: &'static str, rest: &mut &[u8]) -> Option<Result<(), Flaw>> {
        match self {
            Form::Octets(count) => rest.split_off(..count).map(|_| Ok(())),
            Form::Text => {
                let text = table::short_string(rest)?;
                Some(std::str::from_utf8(text).map(drop).map_err(|_| Flaw::Encoding(name)))
            }
            Form::Table => {
                let length = table::length(rest)?;
                Some(table::check(rest.split_off(..length)?))
            }
        }
    }
}
