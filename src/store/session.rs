//! What a connection has to be told before it is asked anything: once, where it is ours; in every transaction, where a pooler
//! lends it for a transaction at a time and gives what we told it to others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_postgres::types::Type;

/// Settings of a connection, and how it gets them.
#[derive(Debug, Clone)]
pub(super) enum Session {
    /// It is ours, and was told when it was made. Statements are prepared once on it.
    Own,
    /// It is lent for one transaction: told in each, and nothing is prepared on it, for the next one has not got it.
    Lent(Arc<Lent>),
}

/// What every transaction on a lent connection begins with.
#[derive(Debug)]
pub(super) struct Lent {
    /// What a transaction of each isolation begins with.
    each_statement: String,
    snapshot: String,
    /// The types of parameters by statement: whoever sends a statement without preparing it must name them.
    types: Mutex<HashMap<String, Arc<[Type]>>>,
}

/// How much of what others commit meanwhile a transaction sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Isolation {
    /// Each statement sees what was committed before it.
    EachStatement,
    /// All see one moment, and change nothing.
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

/// Which part of a statement's time it may wait for a lock. Clearly less than all: a statement that is ended for its time does
/// not say that a lock was the reason, and others may wait beside the one whose row is locked.
const LOCK_SHARE: u32 = 5;

/// What a transaction is told that waits for no lock longer than an undisturbed commit takes.
pub(super) const BRIEFLY: &str = "SET LOCAL lock_timeout = 50";

/// What every connection is told. `jit` would compile what runs for a millisecond. Every statement has its index.
pub(super) fn settings(statement_timeout: Duration) -> Vec<(&'static str, String)> {
    let timeout = statement_timeout.as_millis().to_string();
    // Zero would be without end.
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

/// One statement for all of them: `SET`, or `SET LOCAL` for one transaction.
pub(super) fn tell(set: &str, settings: &[(&'static str, String)]) -> String {
    let each: Vec<String> = settings.iter().map(|(name, value)| format!("{set} {name} = {value}")).collect();
    each.join("; ")
}

impl Lent {
    /// With these settings.
    pub fn new(settings: &[(&'static str, String)]) -> Lent {
        let told = tell("SET LOCAL", settings);
        let begin = |isolation: Isolation| format!("{}; {told}", isolation.begin());
        Lent {
            each_statement: begin(Isolation::EachStatement),
            snapshot: begin(Isolation::Snapshot),
            types: Mutex::default(),
        }
    }

    /// Begins a transaction and tells the connection what it needs.
    pub fn begin(&self, isolation: Isolation) -> &str {
        match isolation {
            Isolation::EachStatement => &self.each_statement,
            Isolation::Snapshot => &self.snapshot,
        }
    }

    /// The types of a statement's parameters, where they are known.
    pub fn types_of(&self, sql: &str) -> Option<Arc<[Type]>> {
        self.types.lock().unwrap_or_else(PoisonError::into_inner).get(sql).map(Arc::clone)
    }

    /// Remembers them. There are few statements, for no value is ever part of one.
    pub fn remember(&self, sql: &str, types: Vec<Type>) -> Arc<[Type]> {
        let types: Arc<[Type]> = Arc::from(types);
        self.types.lock().unwrap_or_else(PoisonError::into_inner).insert(sql.to_owned(), Arc::clone(&types));
        types
    }

    /// Forgets them: the schema's own types have other numbers in another server, or in a schema that was made anew.
    pub fn forget(&self) {
        self.types.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_waited_for_less_long_than_a_statement_runs() {
        let told = |milliseconds: u64, name: &str| {
            let settings = settings(Duration::from_millis(milliseconds));
            settings.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value)
        };
        assert_eq!(told(10_000, "statement_timeout").as_deref(), Some("10000"));
        assert_eq!(told(10_000, "lock_timeout").as_deref(), Some("2000"));
        assert_eq!(told(1, "lock_timeout").as_deref(), Some("1"));
    }

    #[test]
    fn a_lent_connection_is_told_for_one_transaction_what_ours_is_told_for_good() {
        let settings = [("jit", "off".to_owned()), ("timezone", "'UTC'".to_owned())];
        assert_eq!(tell("SET", &settings), "SET jit = off; SET timezone = 'UTC'");
        let lent = Lent::new(&settings);
        assert_eq!(lent.begin(Isolation::EachStatement), "BEGIN; SET LOCAL jit = off; SET LOCAL timezone = 'UTC'");
    }
}
