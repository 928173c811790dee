//! The text of a commit, made once for each combination of parts that a batch can have. No value is ever part of it, so
//! that few statements are prepared on a connection.
//!
//! The statement is planned once on each connection: to plan it costs as much as to carry it out for some ten payments. A
//! plan that was made on an empty table is used on a full one then, so it must be the same for both: each row is found by
//! its primary key, one after the other. Sequential scans are switched off on these connections, and `= ANY(ARRAY[...])`
//! leaves the planner no join but that one, where `=` would let it read whole tables into a hash.

use std::sync::OnceLock;

use super::columns::{Rows, assignments, names, unnest};
use super::rows::{EventRow, MovementRow, OperationChange, OperationFixed, PaymentChange, PaymentFixed};

/// Of each payment that is to stay unknown its id.
const ABSENT: Rows = Rows { sql: "uuid[]", columns: &[("id", "uuid")] };
/// Of each new payment the operation that it is stored with.
const FIRST_OPERATION: Rows = Rows { sql: "uuid[]", columns: &[("first_operation", "uuid")] };
/// Of each new payment the source of the command that created it.
const SOURCE: Rows = Rows { sql: "text[]", columns: &[("payment_source", "text")] };
/// Of each changed operation the state that was read.
const STATE_READ: Rows = Rows { sql: "text[]", columns: &[("state_read", "text")] };

/// One table's part of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// New payments. The commands that wait for one are counted while it is stored, so that its first turn wakes them. A
    /// name that was rejected before the payment existed keeps its rejection: then nothing is inserted.
    NewPayments,
    /// Changed payments, each if its version is still the one that was read.
    ChangedPayments,
    /// Payments of which there is to be none.
    Absent,
    /// New operations. A name that another writer stored meanwhile violates the key and undoes the statement: the batch
    /// is then tried in halves, until only that one is left to be loaded anew.
    NewOperations,
    /// Changed operations, each if its state is still the one that was read; else the statement is undone, as above.
    ///
    /// With a payment its version would be enough. A command that waits for its payment has no version to stand on: one
    /// writer finds no payment and rejects it, while another stores the payment, and a third gives the command its turn.
    /// That there is no payment is no more than what this statement's snapshot shows, so the two writers of the command
    /// are told apart at its row: whoever comes second waits for the first at the row's lock, then PostgreSQL works out the
    /// row anew from what the first one committed, and finds another state than was read, whatever either snapshot shows.
    /// So nobody writes over an answer, and no command has two.
    ///
    /// Another attempt may have been stored meanwhile, which raises no version: when something was last sent never goes
    /// back, or a look-up would be taken for proof too early. And a call that goes on has a due time from then on: the
    /// sweep may have passed it.
    ChangedOperations,
    /// Movements. Of one that is stored already nothing changes but what is learnt later: its operation and its references.
    Movements,
    /// New events, in their order. One that is stored already (a command that reuses a name, delivered again) is left.
    Events,
}

impl Part {
    /// All of them, in the order in which a statement has them.
    pub(super) const ALL: [Part; 7] = [
        Part::NewPayments,
        Part::ChangedPayments,
        Part::Absent,
        Part::NewOperations,
        Part::ChangedOperations,
        Part::Movements,
        Part::Events,
    ];

    /// The arrays that it takes apart, in the order of its parameters.
    pub(super) fn arrays(self) -> &'static [Rows] {
        match self {
            Part::NewPayments => &[PaymentFixed::ROWS, PaymentChange::ROWS, FIRST_OPERATION, SOURCE],
            Part::ChangedPayments => &[PaymentChange::ROWS],
            Part::Absent => &[ABSENT],
            Part::NewOperations => &[OperationFixed::ROWS, OperationChange::ROWS],
            Part::ChangedOperations => &[OperationChange::ROWS, STATE_READ],
            Part::Movements => &[MovementRow::ROWS],
            Part::Events => &[EventRow::ROWS],
        }
    }

    /// What it does with its rows, `r`.
    fn sql(self, rows: &str) -> String {
        match self {
            Part::NewPayments => {
                let columns = columns_of(&[PaymentFixed::COLUMNS, &PaymentChange::COLUMNS[2..]], &["waiting"]);
                format!(
                    "payment_insert AS (INSERT INTO payments ({}, waiting, source) \
                     SELECT {}, stored.waiting, r.payment_source FROM {rows}, \
                     LATERAL (SELECT count(*) FILTER (WHERE o.state = 'waiting') AS waiting, \
                     bool_or(o.id = r.first_operation) AS is_known FROM operations o WHERE o.payment_id = r.id) stored \
                     WHERE stored.is_known IS NOT TRUE ON CONFLICT (id) DO NOTHING RETURNING id, waiting)",
                    names(&columns, ""),
                    names(&columns, "r.")
                )
            }
            Part::ChangedPayments => format!(
                "payment_update AS (UPDATE payments p SET {} FROM {rows} \
                 WHERE p.id = ANY(ARRAY[r.id]) AND p.version = r.expected RETURNING p.id)",
                assignments(PaymentChange::COLUMNS, 2)
            ),
            Part::Absent => format!(
                "absent AS (SELECT r.id FROM {rows} \
                 WHERE NOT EXISTS (SELECT 1 FROM payments p WHERE p.id = ANY(ARRAY[r.id])))"
            ),
            Part::NewOperations => {
                let columns = [OperationFixed::COLUMNS, &OperationChange::COLUMNS[2..]].concat();
                format!(
                    "operation_insert AS (INSERT INTO operations ({}) SELECT {} FROM {rows} \
                     WHERE r.payment_id IN (SELECT id FROM done) ORDER BY r.ordinality)",
                    names(&columns, ""),
                    names(&columns, "r.")
                )
            }
            Part::ChangedOperations => format!(
                "operation_update AS (UPDATE operations o SET {}, \
                 last_sent_at = greatest(o.last_sent_at, r.last_sent_at), \
                 due_at = CASE r.state WHEN 'calling' THEN coalesce(r.due_at, r.lease_until) ELSE r.due_at END, \
                 state = CASE WHEN o.state = r.state_read THEN r.state ELSE overtaken() END FROM {rows} \
                 WHERE o.payment_id = ANY(ARRAY[r.payment_id]) AND o.id = ANY(ARRAY[r.id]) \
                 AND r.payment_id IN (SELECT id FROM done))",
                assignments(&columns_of(&[OperationChange::COLUMNS], &["state", "last_sent_at", "due_at"]), 2)
            ),
            Part::Movements => format!(
                "movement_insert AS (INSERT INTO movements ({}, created) SELECT {}, now() FROM {rows} \
                 WHERE r.payment_id IN (SELECT id FROM done) \
                 ON CONFLICT (payment_id, kind, reference) DO UPDATE SET operation_id = excluded.operation_id, \
                 gateway_reference = excluded.gateway_reference, parent = excluded.parent)",
                names(MovementRow::COLUMNS, ""),
                names(MovementRow::COLUMNS, "r.")
            ),
            Part::Events => format!(
                "event_insert AS (INSERT INTO events ({}) SELECT {} FROM {rows} \
                 WHERE r.payment_id IN (SELECT id FROM done) ORDER BY r.ordinality \
                 ON CONFLICT DO NOTHING RETURNING payment_id, id, position)",
                names(EventRow::COLUMNS, ""),
                names(EventRow::COLUMNS, "r.")
            ),
        }
    }

    /// Which payments it lets the other parts be stored with, if it is one of those that do.
    fn done(self) -> Option<&'static str> {
        match self {
            Part::NewPayments => Some("SELECT id, waiting FROM payment_insert"),
            Part::ChangedPayments => Some("SELECT id, NULL::int4 FROM payment_update"),
            Part::Absent => Some("SELECT id, NULL::int4 FROM absent"),
            Part::NewOperations | Part::ChangedOperations | Part::Movements | Part::Events => None,
        }
    }
}

/// All these columns but some.
fn columns_of<'a>(tables: &[&[(&'a str, &'a str)]], without: &[&str]) -> Vec<(&'a str, &'a str)> {
    tables.iter().copied().flatten().copied().filter(|(name, _)| !without.contains(name)).collect()
}

/// The statement with these parts, which are some of [`Part::ALL`], in that order.
pub(super) fn statement(parts: &[Part]) -> &'static str {
    static STATEMENTS: [OnceLock<String>; 1 << Part::ALL.len()] = [const { OnceLock::new() }; 1 << Part::ALL.len()];
    let place = parts.iter().fold(0, |place, part| place | 1 << *part as usize);
    STATEMENTS[place].get_or_init(|| compose(parts))
}

fn compose(parts: &[Part]) -> String {
    let mut first = 1;
    let mut texts: Vec<String> = Vec::new();
    for part in parts {
        let rows = unnest(part.arrays(), first);
        first += part.arrays().len();
        texts.push(part.sql(&rows));
    }
    let payments = parts.iter().filter_map(|part| part.done()).collect::<Vec<_>>();
    // Behind the payments, before what hangs on them.
    texts.insert(payments.len(), format!("done(id, waiting) AS ({})", payments.join(" UNION ALL ")));
    let mut answer = "SELECT id AS payment_id, NULL::uuid AS id, NULL::int8 AS position, waiting FROM done".to_owned();
    if parts.contains(&Part::Events) {
        answer.push_str(" UNION ALL SELECT payment_id, id, position, NULL::int4 FROM event_insert");
    }
    format!("WITH {} {answer}", texts.join(", "))
}
