//! Cursors of lists that one look-up could not read to their end.

use std::collections::HashMap;

use parking_lot::Mutex;
use uuid::Uuid;

/// Maximum number of cursors; beyond it, all are dropped and their lists start over.
const CURSORS_MAX: usize = 1_000;

/// How far a list was read.
#[derive(Debug, Clone, Default)]
pub(super) struct Cursor {
    /// The last object read.
    pub after: Option<String>,
    /// The ids found so far.
    pub found: Vec<String>,
}

/// The cursors of unfinished lists, by name. Kept only in memory: another worker starts over.
#[derive(Debug, Default)]
pub(super) struct Cursors(Mutex<HashMap<Uuid, Cursor>>);

impl Cursors {
    pub fn take(&self, name: Uuid) -> Option<Cursor> {
        self.0.lock().remove(&name)
    }

    pub fn keep(&self, name: Uuid, cursor: Cursor) {
        let mut all = self.0.lock();
        if all.len() >= CURSORS_MAX {
            all.clear();
        }
        all.insert(name, cursor);
    }
}
