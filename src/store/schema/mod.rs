//! The migration steps of the schema, in order, and what a step may do on a live system.
//!
//! Expand first, contract a release later. A step adds columns that are nullable or have a constant default, tables,
//! indexes and types. A column that commits will write comes with a row type that has it, beside the existing ones:
//! these never change, because earlier workers send rows of them.
//!
//! Workers of the previous release keep working beside the new ones. What nobody uses any more is removed by a step of
//! a later release, which names the step that a worker must know to work without it.

pub mod migrate;
pub mod rights;
pub mod sequences;

/// One step of the schema.
#[derive(Debug, Clone)]
pub struct Step {
    /// Its number; from 1, without gaps.
    pub number: i32,
    /// What it is for, in a word.
    pub name: &'static str,
    /// The last step that a worker must know to work on a schema with this one; 0 if every worker can.
    pub needs: i32,
    /// What it does.
    pub change: Change,
}

/// What a step does, by how much it disturbs.
#[derive(Debug, Clone)]
pub enum Change {
    /// Statements that take an instant once they have their locks: nothing that reads or rewrites a table. They run in
    /// one transaction, and wait only briefly for a lock, because everyone else queues behind that wait.
    Statements(&'static str),
    /// An index built while others write: `CREATE INDEX CONCURRENTLY IF NOT EXISTS name ...`.
    Index {
        /// Its name.
        name: &'static str,
        /// The statement.
        create: &'static str,
    },
    /// A statement that changes some of the rows that need it, some thousand at most, and is repeated until none are
    /// left. Each run is a transaction of its own.
    Backfill(&'static str),
}

impl Change {
    /// The SQL that is executed; its hash reveals a step that was changed later.
    pub fn sql(&self) -> &'static str {
        match self {
            Change::Statements(sql) | Change::Index { create: sql, .. } | Change::Backfill(sql) => sql,
        }
    }
}

/// Every step, in order. A released step never changes.
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
    Step {
        number: 10,
        name: "variant pauses",
        needs: 0,
        change: Change::Statements(include_str!("migrations/0010_variant_pauses.sql")),
    },
    Step {
        number: 11,
        name: "workers",
        needs: 0,
        change: Change::Statements(include_str!("migrations/0011_workers.sql")),
    },
];
