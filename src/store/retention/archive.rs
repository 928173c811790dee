//! Reads payments as documents, page by page in the order of their creation, and archives those that are settled for
//! good.
//!
//! An archived payment keeps its row, so that no worker of any release charges its id again. Archiving raises its
//! version like any other change, so a decision based on the earlier state must be made again.

use std::sync::LazyLock;

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::forget::emptied;
use crate::store::connection::pools::Store;
use crate::store::error::StoreError;
use crate::store::row::ReadColumn;

/// Maximum number of payments examined by one statement, and archived in one transaction.
pub const PAGE: i64 = 100;

/// Which payments to read.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only of this variant.
    pub variant: Option<String>,
    /// Created at or after this time.
    pub since: Option<Timestamp>,
    /// Created before this time.
    pub until: Option<Timestamp>,
    /// Settled for good, with no activity at or after this time.
    pub settled_before: Option<Timestamp>,
}

/// A payment that was examined. The next page starts after the last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// When it was created.
    pub created: Timestamp,
    /// Its id.
    pub id: Uuid,
    /// The version that was read.
    pub version: i64,
    /// The payment with its operations, movements and events, as JSON on one line; `None` if it was not selected.
    pub document: Option<String>,
}

/// A row of the audit table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// Its `ctid`: rows of the audit table have no key, and never change.
    row_id: String,
    /// As JSON on one line.
    pub document: String,
}

/// Amounts are JSON strings with all their decimals: most JSON readers would turn numbers into floating point.
const DOCUMENT: &str = "jsonb_build_object(
    'payment', to_jsonb(p) - 'archived_at' || jsonb_build_object(
        'total', p.total::text, 'delivery', p.delivery::text, 'tax', p.tax::text,
        'captured_amount', p.captured_amount::text, 'authorized_amount', p.authorized_amount::text,
        'refunded_amount', p.refunded_amount::text),
    'operations', coalesce((
        SELECT jsonb_agg(to_jsonb(o) || jsonb_build_object('amount', o.amount::text) ORDER BY o.accepted)
        FROM operations o WHERE o.payment_id = p.id), '[]'),
    'movements', coalesce((
        SELECT jsonb_agg(to_jsonb(m) || jsonb_build_object('amount', m.amount::text)
                         ORDER BY m.created, m.kind, m.reference)
        FROM movements m WHERE m.payment_id = p.id), '[]'),
    'events', coalesce((
        SELECT jsonb_agg(to_jsonb(e) ORDER BY e.position) FROM events e WHERE e.payment_id = p.id), '[]'))";

/// Nothing is in progress, no money is held, and every event was sent. `= ANY(ARRAY[...])` and `LIMIT 1` keep the
/// planner from hashing whole tables.
const SETTLED: &str = "p.modified < $5 AND p.busy_operation IS NULL
    AND p.status IN ('confirmed', 'rejected', 'refunded', 'error', 'cancelled')
    AND NOT EXISTS (SELECT 1 FROM operations o WHERE o.payment_id = ANY(ARRAY[p.id])
        AND (o.state <> 'settled' OR greatest(o.stored, o.settled_at) >= $5))
    AND NOT EXISTS (SELECT 1 FROM events e
        LEFT JOIN LATERAL (SELECT s.position FROM sent s WHERE s.position = e.position LIMIT 1) s ON true
        WHERE e.payment_id = ANY(ARRAY[p.id]) AND s.position IS NULL)
    AND NOT EXISTS (SELECT 1 FROM overdue u WHERE u.payment_id = ANY(ARRAY[p.id]))
    AND NOT EXISTS (SELECT 1 FROM set_aside a WHERE a.payment_id = ANY(ARRAY[p.id]))";

/// Examines a full page however few payments are selected, so that each statement takes a bounded time. One statement
/// sees one snapshot, so each document is consistent. The limit is a literal and not a parameter, so that the planner
/// sees how low it is.
static LOOK: LazyLock<String> = LazyLock::new(|| {
    format!(
        "WITH page AS (
             SELECT * FROM payments
             WHERE archived_at IS NULL AND (created, id) > ($1, $2) AND created < coalesce($3::timestamptz, 'infinity')
             ORDER BY created, id LIMIT {PAGE})
         SELECT p.created, p.id, p.version,
             CASE WHEN ($4::text IS NULL OR p.variant = $4) AND ($5::timestamptz IS NULL OR {SETTLED})
             THEN {DOCUMENT}::text END AS document
         FROM page p ORDER BY p.created, p.id"
    )
});

/// Skips locked payments, so that workers and this statement never wait for each other in a cycle. Whatever belongs to
/// an existing payment is written with a new version of it: if the version is still the one that was read, everything
/// stored was read.
///
/// The turn of an archived payment belongs to nobody, so that a worker of an earlier release leaves later commands
/// waiting.
static ARCHIVE: LazyLock<String> = LazyLock::new(|| {
    let emptied = emptied();
    format!(
        "WITH chosen AS (
             SELECT p.id FROM unnest($1::uuid[], $2::int8[]) AS r(id, version)
             JOIN payments p ON p.id = ANY(ARRAY[r.id])
             WHERE p.version = r.version AND p.archived_at IS NULL
             FOR UPDATE OF p SKIP LOCKED),
         archived AS (
             UPDATE payments p SET archived_at = now(), version = p.version + 1, transaction_id = '',
                 busy_operation = '00000000-0000-0000-0000-000000000000', {emptied}
             FROM chosen c WHERE p.id = ANY(ARRAY[c.id]) RETURNING p.id),
         no_operations AS (DELETE FROM operations o USING archived a WHERE o.payment_id = ANY(ARRAY[a.id])),
         no_movements AS (DELETE FROM movements m USING archived a WHERE m.payment_id = ANY(ARRAY[a.id])),
         no_events AS (DELETE FROM events e USING archived a WHERE e.payment_id = ANY(ARRAY[a.id]) RETURNING e.position),
         no_marks AS (DELETE FROM sent WHERE position = ANY(ARRAY(SELECT position FROM no_events)))
         SELECT id FROM archived"
    )
});

const OLD_AUDIT: &str = "SELECT ctid::text, jsonb_build_object('audit', to_jsonb(a))::text FROM audit a
     WHERE a.at < $1 ORDER BY a.at LIMIT $2";

impl Store {
    /// Returns the next payments after the last one examined, at most [`PAGE`]; empty at the end.
    ///
    /// # Errors
    /// The database query fails.
    pub async fn look_at_payments(
        &self,
        selection: &Selection,
        behind: Option<&Looked>,
    ) -> Result<Vec<Looked>, StoreError> {
        let first = selection.since.unwrap_or(Timestamp::UNIX_EPOCH);
        let (created, id) = behind.map_or((first, Uuid::nil()), |last| (last.created, last.id));
        let Selection { variant, until, settled_before, .. } = selection;
        let client = self.client().await?;
        let rows = client.query(&LOOK, &[&created, &id, until, variant, settled_before]).await?;
        let read = |row: &Row| -> Result<Looked, StoreError> {
            Ok(Looked { created: row.read(0)?, id: row.read(1)?, version: row.read(2)?, document: row.read(3)? })
        };
        rows.iter().map(read).collect()
    }

    /// Archives payments that are unchanged since they were read: deletes all their rows but the payment's own. Returns
    /// their ids.
    ///
    /// # Errors
    /// The database query fails, or must be retried; none of them was archived, or the outcome is unknown.
    pub async fn archive(&self, payments: &[&Looked]) -> Result<Vec<Uuid>, StoreError> {
        let (ids, versions): (Vec<Uuid>, Vec<i64>) =
            payments.iter().map(|payment| (payment.id, payment.version)).unzip();
        let client = self.client().await?;
        let rows = client.query(&ARCHIVE, &[&ids, &versions]).await?;
        rows.iter().map(|row| row.read(0)).collect()
    }

    /// Returns the oldest audit rows from before this time, at most [`PAGE`].
    ///
    /// # Errors
    /// The database query fails.
    pub async fn old_audit(&self, before: Timestamp) -> Result<Vec<AuditRow>, StoreError> {
        let client = self.client().await?;
        let rows = client.query(OLD_AUDIT, &[&before, &PAGE]).await?;
        rows.iter().map(|row| Ok(AuditRow { row_id: row.read(0)?, document: row.read(1)? })).collect()
    }

    /// Deletes audit rows that were read.
    ///
    /// # Errors
    /// The database query fails.
    pub async fn drop_audit(&self, rows: &[AuditRow], before: Timestamp) -> Result<u64, StoreError> {
        let row_ids: Vec<&str> = rows.iter().map(|row| row.row_id.as_str()).collect();
        let client = self.client().await?;
        let sql = "DELETE FROM audit a WHERE a.ctid = ANY($1::text[]::tid[]) AND a.at < $2";
        client.execute(sql, &[&row_ids, &before]).await
    }
}
