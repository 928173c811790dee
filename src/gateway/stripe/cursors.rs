//! How far lists were read that one look-up could not read to their end.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

/// The most lists that are remembered; beyond, all of them begin anew.
const CURSORS_MAX: usize = 1_000;

/// How far a list was read.
#[derive(Debug, Clone, Default)]
pub(super) struct Cursor {
    /// The last object that was read.
    pub after: Option<String>,
    /// The ids that were found.
    pub found: Vec<String>,
}

/// How far lists were read that are not at their end, by name. It is kept in memory alone: another worker begins anew.
#[derive(Debug, Default)]
pub(super) struct Cursors(Mutex<HashMap<Uuid, Cursor>>);

impl Cursors {
    pub fn take(&self, name: Uuid) -> Option<Cursor> {
        self.all().remove(&name)
    }

    pub fn keep(&self, name: Uuid, cursor: Cursor) {
        let mut all = self.all();
        if all.len() >= CURSORS_MAX {
            all.clear();
        }
        all.insert(name, cursor);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Uuid, Cursor>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
