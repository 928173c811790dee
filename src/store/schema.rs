//! The steps of the schema, in order, and what a step may be on a system that is at work.
//!
//! Expand first, contract a release later. A step adds: columns that may be null or have a constant default, tables, indexes,
//! types. A column that a commit is to write comes with a row type that has it, beside those that are there: these never
//! change, for the workers of before send rows of them.
//!
//! Workers of the release before go on working beside it. What nobody uses any more is taken away by a step of a later
//! release, which names the step that a worker must know to work without it.

/// One step of the schema.
#[derive(Debug, Clone)]
pub struct Step {
    /// Its place; from 1, without gaps.
    pub number: i32,
    /// What it is for, in a word.
    pub name: &'static str,
    /// The last step that a worker must know to work on a schema with this one; 0 where every worker can.
    pub needs: i32,
    /// What it does.
    pub change: Change,
}

/// What a step does, by how much it disturbs.
#[derive(Debug, Clone)]
pub enum Change {
    /// Statements that are done in an instant once they have their locks: nothing that reads or rewrites a table. One
    /// transaction; a lock is waited for only briefly, since everybody else waits behind whoever waits for it.
    Statements(&'static str),
    /// An index, made while others write: `CREATE INDEX CONCURRENTLY IF NOT EXISTS name ...`.
    Index {
        /// Its name.
        name: &'static str,
        /// The statement.
        create: &'static str,
    },
    /// A statement that changes some of the rows that need it, some thousand at most, and is carried out until there are
    /// none left. Each time is a transaction of its own.
    Backfill(&'static str),
}

impl Change {
    /// What is carried out, by which a step that was changed later is recognized.
    pub fn sql(&self) -> &'static str {
        match self {
            Change::Statements(sql) | Change::Index { create: sql, .. } | Change::Backfill(sql) => sql,
        }
    }
}

/// Every step, in order. One that was released is never changed.
pub const STEPS: &[Step] = &[
    Step {
        number: 1,
        name: "foundation",
        needs: 0,
        change: Change::Statements(include_str!("migrations/0001_foundation.sql")),
    },
    Step {
        number: 2,
        name: "row types",
        needs: 0,
        change: Change::Statements(include_str!("migrations/0002_row_types.sql")),
    },
    Step {
        number: 3,
        name: "gateway references",
        needs: 0,
        change: Change::Statements(include_str!("migrations/0003_gateway_references.sql")),
    },
    Step { number: 4, name: "scans", needs: 0, change: Change::Statements(include_str!("migrations/0004_scans.sql")) },
    Step {
        number: 5,
        name: "payment source",
        needs: 0,
        change: Change::Statements(include_str!("migrations/0005_payment_source.sql")),
    },
    Step {
        number: 6,
        name: "archive",
        needs: 0,
        change: Change::Statements(include_str!("migrations/0006_archive.sql")),
    },
    Step {
        number: 7,
        name: "payments by age",
        needs: 0,
        change: Change::Index {
            name: "payments_kept",
            create: "CREATE INDEX CONCURRENTLY IF NOT EXISTS payments_kept ON payments (created, id)
                     WHERE archived_at IS NULL",
        },
    },
    Step {
        number: 8,
        name: "metadata",
        needs: 0,
        change: Change::Statements(include_str!("migrations/0008_metadata.sql")),
    },
    Step {
        number: 9,
        name: "heartbeat",
        needs: 0,
        change: Change::Statements(include_str!("migrations/0009_heartbeat.sql")),
    },
];
