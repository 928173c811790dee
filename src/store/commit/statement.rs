//! The text of a commit statement, built once for each combination of parts that a batch can have. It contains no
//! values, so that few statements are prepared on a connection.
//!
//! The statement is planned once per connection: planning costs as much as executing it for about ten payments. A plan
//! made on an empty table is then used on a full one, so it must be the same for both: each row is found by its primary
//! key, one after the other. Sequential scans are disabled on these connections, and `= ANY(ARRAY[...])` leaves the
//! planner only that join, where `=` would let it hash whole tables.

use std::sync::OnceLock;

use super::columns::{Rows, assignments, names, unnest};
use crate::store::rows::{EventRow, MovementRow, OperationChange, OperationFixed, PaymentChange, PaymentFixed};

/// Ids of the payments that must not exist.
const ABSENT: Rows = Rows { sql: "uuid[]", columns: &[("id", "uuid")] };
/// For each new payment, the operation stored with it.
const FIRST_OPERATION: Rows = Rows { sql: "uuid[]", columns: &[("first_operation", "uuid")] };
/// For each new payment, the source of the command that created it.
const SOURCE: Rows = Rows { sql: "text[]", columns: &[("payment_source", "text")] };
/// For each changed operation, the state that was read.
const STATE_READ: Rows = Rows { sql: "text[]", columns: &[("state_read", "text")] };

/// One table's part of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Part {
    /// New payments. The commands that wait for one are counted while it is stored, so that its first turn wakes them.
    /// If its first operation is stored already, because the command was rejected before the payment existed, the
    /// rejection stands and nothing is inserted.
    NewPayments,
    /// Changed payments, each if its version is still the one that was read.
    ChangedPayments,
    /// Payments that must not exist.
    Absent,
    /// New operations. If another writer stored one meanwhile, the key violation rolls back the statement; the batch is
    /// then retried in halves until only that one is left to be reloaded.
    NewOperations,
    /// Changed operations, each if its state is still the one that was read; otherwise the statement is rolled back, as
    /// above.
    ///
    /// For an operation with a payment, the payment's version would be enough. A command that waits for its payment has
    /// no version to rely on: one writer finds no payment and rejects the command, another stores the payment, and a
    /// third gives the command its turn. That there is no payment is only what this statement's snapshot shows, so the
    /// two writers of the command are serialized at its row: the second waits for the first one's row lock, then
    /// PostgreSQL re-evaluates the row as the first committed it and finds another state than was read, whatever either
    /// snapshot shows. So no answer is overwritten, and no command has two.
    ///
    /// Another attempt may have been stored meanwhile, which raises no version: `last_sent_at` never moves back, or a
    /// look-up would count as proof too early. A call still in progress gets a due time from then on, because the sweep
    /// may have passed it.
    ChangedOperations,
    /// Movements. Of one that is stored already only what is learnt later changes: its operation and its references.
    Movements,
    /// New events, in order. One that is stored already (a command that reuses a name, redelivered) is skipped.
    Events,
}

impl Part {
    /// All parts, in statement order.
    pub(in crate::store) const ALL: [Part; 7] = [
        Part::NewPayments,
        Part::ChangedPayments,
        Part::Absent,
        Part::NewOperations,
        Part::ChangedOperations,
        Part::Movements,
        Part::Events,
    ];

    /// The arrays to unnest, in the order of its parameters.
    pub(in crate::store) fn arrays(self) -> &'static [Rows] {
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

    /// The SQL for its rows, `r`.
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

    /// The payments for which it allows the other parts to be stored, if it is one of the parts that do.
    fn done(self) -> Option<&'static str> {
        match self {
            Part::NewPayments => Some("SELECT id, waiting FROM payment_insert"),
            Part::ChangedPayments => Some("SELECT id, NULL::int4 FROM payment_update"),
            Part::Absent => Some("SELECT id, NULL::int4 FROM absent"),
            Part::NewOperations | Part::ChangedOperations | Part::Movements | Part::Events => None,
        }
    }
}

/// All these columns except some.
fn columns_of<'a>(tables: &[&[(&'a str, &'a str)]], without: &[&str]) -> Vec<(&'a str, &'a str)> {
    tables.iter().copied().flatten().copied().filter(|(name, _)| !without.contains(name)).collect()
}

/// The statement for these parts, a subset of [`Part::ALL`] in that order.
pub(in crate::store) fn statement(parts: &[Part]) -> &'static str {
    static STATEMENTS: [OnceLock<String>; 1 << Part::ALL.len()] = [const { OnceLock::new() }; 1 << Part::ALL.len()];
    let index = parts.iter().fold(0, |index, part| index | 1 << *part as usize);
    STATEMENTS[index].get_or_init(|| compose(parts))
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
    // After the payments, before what depends on them.
    texts.insert(payments.len(), format!("done(id, waiting) AS ({})", payments.join(" UNION ALL ")));
    let mut answer = "SELECT id AS payment_id, NULL::uuid AS id, NULL::int8 AS position, waiting FROM done".to_owned();
    if parts.contains(&Part::Events) {
        answer.push_str(" UNION ALL SELECT payment_id, id, position, NULL::int4 FROM event_insert");
    }
    format!("WITH {} {answer}", texts.join(", "))
}
