//! Events that the broker has not confirmed: marked once it does, relayed if their worker was lost.

mod answers;
pub mod positions;
pub mod release;

use std::sync::LazyLock;
use std::time::Duration;

use tokio_postgres::Row;
use uuid::Uuid;

use super::connection::pools::{Store, VISIBLE_FOR_SURE};
use super::error::StoreError;
use super::row::ReadColumn;
use super::rows;
use super::scan::{Scan, Window, find_window};
use crate::payment::command::Reply;
use crate::payment::trace::TraceContext;

/// How long the worker that stored events owns them before the relay takes over.
const OWNED: Duration = Duration::from_secs(10);

const FIND: &str = find_window!("events", "position");
const LATE: &str = "late events";
const SCAN: Scan = Scan { name: "events", late: LATE, find: FIND, age: OWNED };
const LATE_SCAN: Scan = Scan { name: LATE, late: LATE, find: FIND, age: VISIBLE_FOR_SURE };

/// Does nothing if another replica is already doing so.
const NOTE: &str = include_str!("note_overdue.sql");

/// Payments fall into 16 buckets, the rows of the table `buckets`; each is relayed by one replica at a time. `LIMIT 1`
/// keeps the planner from joining what should be looked up one by one.
const NOTED: &str = include_str!("find_overdue.sql");

const FORGET: &str = "DELETE FROM overdue o USING unnest($1::uuid[], $2::int8[]) AS r(payment_id, position)
     WHERE o.payment_id = r.payment_id AND o.position = r.position";

const LEASE_BUCKETS: &str = include_str!("lease_buckets.sql");

static SENT: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT sequence, confirmed IS NOT NULL AS is_sent, {} FROM (
             SELECT e.*, s.position AS confirmed FROM events e
             LEFT JOIN LATERAL (SELECT s.position FROM sent s WHERE s.position = e.position LIMIT 1) s ON true
             WHERE e.payment_id = $1 AND e.sequence BETWEEN $2 AND $3) u
         ORDER BY sequence",
        *rows::EVENT
    )
});

static UNSENT: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {} FROM (
             SELECT e.*, s.position AS confirmed FROM events e
             LEFT JOIN LATERAL (SELECT s.position FROM sent s WHERE s.position = e.position LIMIT 1) s ON true
             WHERE e.payment_id = ANY($1) AND e.stored < now() - make_interval(secs => $2)) u
         WHERE confirmed IS NULL ORDER BY position",
        *rows::EVENT
    )
});

/// A stored event to publish.
#[derive(Debug, Clone, PartialEq)]
pub struct OutboxEvent {
    /// Its position in the outbox.
    pub position: i64,
    /// Its payment.
    pub payment_id: Uuid,
    /// Its id, also the AMQP `message_id`.
    pub id: Uuid,
    /// Its type.
    pub event_type: String,
    /// Its routing key.
    pub routing_key: String,
    /// Its wire form.
    pub body: String,
    /// The command's `correlationid`.
    pub correlation_id: Option<String>,
    /// The trace context of its command.
    pub trace: Option<TraceContext>,
    /// Where it also goes, as a reply.
    pub reply: Option<Reply>,
}

/// An event that was sent, with its sequence number within the payment.
#[derive(Debug, Clone, PartialEq)]
pub struct SentEvent {
    /// Its sequence number.
    pub sequence: i64,
    /// The event as it was sent.
    pub event: OutboxEvent,
}

/// Events of a payment that the broker has confirmed, in order, up to the first unconfirmed one.
#[derive(Debug, Default)]
pub struct SentEvents {
    /// The confirmed events.
    pub events: Vec<SentEvent>,
    /// Whether an unconfirmed event follows them.
    pub is_cut_short: bool,
}

/// An event that the broker confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Its position in the outbox.
    pub position: i64,
    /// What became of the reply, if it was one.
    pub reply: Option<&'static str>,
}

/// What the relay has to send.
#[derive(Debug, Default)]
pub struct Overdue {
    /// In order.
    pub events: Vec<OutboxEvent>,
    /// The position after which there is more, if there is.
    pub next: Option<i64>,
}

/// The state of the outbox. An event counts once its worker no longer owns it, if it is not confirmed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Backlog {
    /// All of these events.
    pub count: i64,
    /// The age of the oldest that is not set aside, in seconds.
    pub oldest_seconds: f64,
    /// Events set aside for themselves, without the later ones of their payment.
    pub set_aside: i64,
    /// Events that their worker did not send in time, without those set aside.
    pub overdue: i64,
}

impl Store {
    /// Marks events as confirmed.
    ///
    /// # Errors
    /// The database query fails; the events will be published again, under the same ids.
    pub async fn mark_sent(&self, sent: &[Sent]) -> Result<(), StoreError> {
        let client = self.client().await?;
        let sql = "INSERT INTO sent (position, sent_at, reply)
                 SELECT r.position, now(), r.reply FROM unnest($1::int8[], $2::text[]) AS r(position, reply)
                 ORDER BY r.position";
        let positions: Vec<i64> = sent.iter().map(|sent| sent.position).collect();
        let replies: Vec<Option<&str>> = sent.iter().map(|sent| sent.reply).collect();
        client.execute(sql, &[&positions, &replies]).await?;
        Ok(())
    }

    /// Returns those of these events that are not marked as confirmed.
    ///
    /// # Errors
    /// The database query fails.
    pub async fn unmarked(&self, positions: &[i64]) -> Result<Vec<i64>, StoreError> {
        let client = self.client().await?;
        let sql = "SELECT p FROM unnest($1::int8[]) p WHERE NOT EXISTS (SELECT 1 FROM sent s WHERE s.position = p)";
        let rows = client.query(sql, &[&positions]).await?;
        rows.iter().map(|row| row.read(0)).collect()
    }

    /// Returns a payment's events in this range of sequence numbers that the broker has confirmed and that are still
    /// kept.
    ///
    /// # Errors
    /// The database query fails, or a stored value cannot be read.
    pub async fn sent_events(&self, payment: Uuid, from: i64, to: i64) -> Result<SentEvents, StoreError> {
        let client = self.client().await?;
        let rows = client.query(&SENT, &[&payment, &from, &to]).await?;
        let mut sent = SentEvents::default();
        for row in &rows {
            if !row.read::<bool>("is_sent")? {
                sent.is_cut_short = true;
                break;
            }
            sent.events.push(SentEvent { sequence: row.read("sequence")?, event: outbox_event(row)? });
        }
        Ok(sent)
    }

    /// Sets aside an event that the broker refuses, and with it the later ones of its payment, because gaps are not
    /// allowed.
    ///
    /// # Errors
    /// The database query fails.
    pub async fn set_aside(&self, payment_id: Uuid, position: i64, reason: &str) -> Result<(), StoreError> {
        let client = self.client().await?;
        client
            .execute(
                "INSERT INTO set_aside (payment_id, position, reason, at) VALUES ($1, $2, $3, now())
                 ON CONFLICT DO NOTHING",
                &[&payment_id, &position, &reason],
            )
            .await?;
        Ok(())
    }

    /// Notes events that their worker did not send in time, so that the relay finds them. Examines each event once, as
    /// soon as its worker no longer owns it, and a bounded number at a time. Returns whether there is more.
    ///
    /// # Errors
    /// The database query fails.
    pub async fn note_overdue(&self) -> Result<bool, StoreError> {
        self.note_unsent(SCAN).await
    }

    /// The same for events that were not visible the first time, because their commit took long.
    ///
    /// # Errors
    /// The database query fails.
    pub async fn note_late(&self) -> Result<bool, StoreError> {
        self.note_unsent(LATE_SCAN).await
    }

    /// Examines the next events of a scan, and advances its watermark.
    async fn note_unsent(&self, scan: Scan) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let Some(Window { after, last, more }) = self.window(&client, scan).await? else {
            return Ok(false);
        };
        client.execute(NOTE, &[&scan.name, &after, &last]).await?;
        Ok(more)
    }

    /// Returns noted events of the payments in these buckets, after a position. For each such payment all unsent events
    /// that no worker owns are included, so that none is sent before an earlier one.
    ///
    /// # Errors
    /// The database query fails.
    pub async fn relay_batch(&self, buckets: &[i16], after: i64, limit: i64) -> Result<Overdue, StoreError> {
        let client = self.client().await?;
        let rows = client.query(NOTED, &[&buckets, &after, &limit]).await?;
        let mut payments: Vec<Uuid> = Vec::new();
        let mut sent: (Vec<Uuid>, Vec<i64>) = Default::default();
        let mut last = after;
        for row in &rows {
            let payment: Uuid = row.read(0)?;
            last = row.read(1)?;
            if row.read(2)? {
                sent.0.push(payment);
                sent.1.push(last);
            } else {
                payments.push(payment);
            }
        }
        if !sent.0.is_empty() {
            client.execute(FORGET, &[&sent.0, &sent.1]).await?;
        }
        payments.sort_unstable();
        payments.dedup();
        let mut events = Vec::new();
        if !payments.is_empty() {
            let rows = client.query(&UNSENT, &[&payments, &OWNED.as_secs_f64()]).await?;
            events = rows.iter().map(outbox_event).collect::<Result<_, _>>()?;
        }
        let is_full = i64::try_from(rows.len()).is_ok_and(|count| count == limit);
        Ok(Overdue { events, next: is_full.then_some(last) })
    }

    /// Leases this replica its share of the 16 buckets, renewing those it has. Returns the buckets that it holds.
    ///
    /// # Errors
    /// The database query fails.
    pub async fn lease_buckets(&self, worker: Uuid, lease: Duration) -> Result<Vec<i16>, StoreError> {
        let client = self.client().await?;
        let rows = client.query(LEASE_BUCKETS, &[&worker, &lease.as_secs_f64()]).await?;
        rows.iter().map(|row| row.read(0)).collect()
    }

    /// Releases this replica's buckets to the others.
    ///
    /// # Errors
    /// The database query fails; then the leases expire.
    pub async fn release_buckets(&self, worker: Uuid) -> Result<(), StoreError> {
        let client = self.client().await?;
        client
            .execute(
                "WITH gone AS (DELETE FROM relays WHERE worker = $1)
                 UPDATE buckets SET owner = NULL, until = NULL WHERE owner = $1",
                &[&worker],
            )
            .await?;
        Ok(())
    }
}

pub(super) fn outbox_event(row: &Row) -> Result<OutboxEvent, StoreError> {
    let reply_to: Option<String> = row.read("reply_to")?;
    let correlation_id = row.read("reply_correlation_id")?;
    Ok(OutboxEvent {
        position: row.read("position")?,
        payment_id: row.read("payment_id")?,
        id: row.read("id")?,
        event_type: row.read("event_type")?,
        routing_key: row.read("routing_key")?,
        body: row.read("body")?,
        correlation_id: row.read("correlation_id")?,
        trace: rows::trace(row)?,
        reply: reply_to.map(|to| Reply { to, correlation_id }),
    })
}
