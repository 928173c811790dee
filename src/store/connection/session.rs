//! Session settings: applied once if the connection is ours; in every transaction if a pooler lends it for one
//! transaction at a time and then gives it to others.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_postgres::types::Type;

/// How a connection gets its settings.
#[derive(Debug, Clone)]
pub(in crate::store) enum Session {
    /// Ours, and configured when it was opened. Statements are prepared once on it.
    Own,
    /// Lent for one transaction: configured in each, and nothing is prepared on it, because the next transaction may
    /// run on another server connection.
    Lent(Arc<Lent>),
}

/// What transactions on lent connections share.
#[derive(Debug)]
pub(in crate::store) struct Lent {
    /// The statements that begin a transaction, by isolation.
    each_statement: String,
    snapshot: String,
    /// Types of parameters by statement: a statement that is sent unprepared must name them.
    types: Mutex<HashMap<String, Arc<[Type]>>>,
}

/// What a transaction sees of concurrent commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Isolation {
    /// Each statement sees what was committed before it.
    EachStatement,
    /// All statements see one snapshot, and change nothing.
    Snapshot,
}

impl Isolation {
    /// The statement that begins such a transaction.
    pub fn begin(self) -> &'static str {
        match self {
            Isolation::EachStatement => "BEGIN",
            Isolation::Snapshot => "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
        }
    }
}

/// The share of a statement's time that it may wait for a lock is one in this many. It must be clearly less than all: a
/// statement that ran into its timeout does not say that a lock was the reason, and others may wait beside the one
/// whose row is locked.
const LOCK_SHARE: u32 = 5;

/// Limits a transaction's waits for locks to what an undisturbed commit takes.
pub(in crate::store) const BRIEFLY: &str = "SET LOCAL lock_timeout = 50";

/// Settings of every connection. `jit` would compile statements that run for a millisecond. Sequential scans are off
/// because every statement has its index.
pub(in crate::store) fn settings(statement_timeout: Duration) -> Vec<(&'static str, String)> {
    let timeout = statement_timeout.as_millis().to_string();
    // Zero would mean no timeout.
    let lock_timeout = (statement_timeout / LOCK_SHARE).as_millis().max(1).to_string();
    vec![
        ("search_path", "paybus".to_owned()),
        ("statement_timeout", timeout.clone()),
        ("lock_timeout", lock_timeout),
        ("idle_in_transaction_session_timeout", timeout),
        ("jit", "off".to_owned()),
        ("enable_seqscan", "off".to_owned()),
        ("timezone", "'UTC'".to_owned()),
        ("client_min_messages", "warning".to_owned()),
    ]
}

/// One statement that applies all of them: `SET`, or `SET LOCAL` for one transaction.
pub(in crate::store) fn set_statement(set: &str, settings: &[(&'static str, String)]) -> String {
    let each: Vec<String> = settings.iter().map(|(name, value)| format!("{set} {name} = {value}")).collect();
    each.join("; ")
}

impl Lent {
    /// Builds the statements that apply these settings.
    pub fn new(settings: &[(&'static str, String)]) -> Lent {
        let set_local = set_statement("SET LOCAL", settings);
        let begin = |isolation: Isolation| format!("{}; {set_local}", isolation.begin());
        Lent {
            each_statement: begin(Isolation::EachStatement),
            snapshot: begin(Isolation::Snapshot),
            types: Mutex::default(),
        }
    }

    /// The statements that begin a transaction and apply the settings.
    pub fn begin(&self, isolation: Isolation) -> &str {
        match isolation {
            Isolation::EachStatement => &self.each_statement,
            Isolation::Snapshot => &self.snapshot,
        }
    }

    /// Returns the types of a statement's parameters, if known.
    pub fn types_of(&self, sql: &str) -> Option<Arc<[Type]>> {
        self.types.lock().get(sql).map(Arc::clone)
    }

    /// Stores them. There are few statements, because none contains a value.
    pub fn remember(&self, sql: &str, types: Vec<Type>) -> Arc<[Type]> {
        let types: Arc<[Type]> = Arc::from(types);
        self.types.lock().insert(sql.to_owned(), Arc::clone(&types));
        types
    }

    /// Drops them all: the schema's own types have other OIDs on another server, or in a recreated schema.
    pub fn forget(&self) {
        self.types.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_waited_for_less_long_than_a_statement_runs() {
        let value_of = |milliseconds: u64, name: &str| {
            let settings = settings(Duration::from_millis(milliseconds));
            settings.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value)
        };
        assert_eq!(value_of(10_000, "statement_timeout").as_deref(), Some("10000"));
        assert_eq!(value_of(10_000, "lock_timeout").as_deref(), Some("2000"));
        assert_eq!(value_of(1, "lock_timeout").as_deref(), Some("1"));
    }

    #[test]
    fn a_pooled_connection_gets_its_settings_per_transaction() {
        let settings = [("jit", "off".to_owned()), ("timezone", "'UTC'".to_owned())];
        assert_eq!(set_statement("SET", &settings), "SET jit = off; SET timezone = 'UTC'");
        let lent = Lent::new(&settings);
        assert_eq!(lent.begin(Isolation::EachStatement), "BEGIN; SET LOCAL jit = off; SET LOCAL timezone = 'UTC'");
    }
}
