//! Events that the broker has not confirmed: marked when it has, relayed when their worker was lost.

use std::time::Duration;

use tokio_postgres::Row;
use uuid::Uuid;

use super::connect::Store;
use super::error::StoreError;
use super::row::ReadColumn;
use crate::payment::operation::Reply;

/// How many buckets the payments fall into; each is relayed by one replica at a time.
pub const BUCKETS: i16 = 16;

/// How long the worker that settled owns its events before the relay takes them, in seconds.
const OWNED_SECONDS: f64 = 10.0;

/// How old an event is before the relay's watermark may pass it; longer than any statement may take.
const VISIBLE_FOR_SURE_SECONDS: f64 = 120.0;

/// A stored event that is to be published.
#[derive(Debug, Clone, PartialEq)]
pub struct OutboxEvent {
    /// Its place in the outbox.
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
    /// Trace context of the command.
    pub traceparent: Option<String>,
    /// Trace context of the command.
    pub tracestate: Option<String>,
    /// Where it also goes, as an answer.
    pub reply: Option<Reply>,
}

/// An event that the broker confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Its place in the outbox.
    pub position: i64,
    /// What became of the answer, where it was one.
    pub reply: Option<&'static str>,
}

/// The state of the outbox.
#[derive(Debug, Clone, Copy, Default)]
pub struct Backlog {
    /// Events that are not confirmed.
    pub count: i64,
    /// The age of the oldest, in seconds.
    pub oldest_seconds: f64,
    /// Events set aside.
    pub set_aside: i64,
}

impl Store {
    /// Marks events as confirmed.
    ///
    /// # Errors
    /// The database cannot be asked; then they will be published again, under the same ids.
    pub async fn mark_sent(&self, sent: &[Sent]) -> Result<(), StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "INSERT INTO sent (position, sent_at, reply)
                 SELECT r.position, now(), r.reply FROM unnest($1::int8[], $2::text[]) AS r(position, reply)
                 ORDER BY r.position",
            )
            .await?;
        let positions: Vec<i64> = sent.iter().map(|sent| sent.position).collect();
        let replies: Vec<Option<&str>> = sent.iter().map(|sent| sent.reply).collect();
        client.execute(&statement, &[&positions, &replies]).await?;
        Ok(())
    }

    /// Sets an event aside that the broker refuses, and with it the later ones of its payment, for gaps are not allowed.
    ///
    /// # Errors
    /// The database cannot be asked.
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

    /// Events whose worker did not get them out in time, in order, of the payments in these buckets.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn relay_batch(&self, buckets: &[i16], after: i64, limit: i64) -> Result<Vec<OutboxEvent>, StoreError> {
        let client = self.client().await?;
        let statement = client
            .prepare_cached(
                "SELECT e.* FROM events e
                 WHERE e.position > greatest($2, (SELECT position FROM watermarks WHERE name = 'events'))
                   AND e.created < now() - make_interval(secs => $4)
                   AND NOT EXISTS (SELECT 1 FROM sent s WHERE s.position = e.position)
                   AND NOT EXISTS (SELECT 1 FROM set_aside a WHERE a.payment_id = e.payment_id)
                   AND (get_byte(uuid_send(e.payment_id), 15) % 16)::int2 = ANY($1)
                 ORDER BY e.position LIMIT $3",
            )
            .await?;
        let rows = client.query(&statement, &[&buckets, &after, &limit, &OWNED_SECONDS]).await?;
        rows.iter().map(outbox_event).collect()
    }

    /// Moves the relay's watermark on to the oldest event that is not confirmed.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn advance_outbox(&self) -> Result<(), StoreError> {
        let client = self.client().await?;
        client
            .execute(
                "UPDATE watermarks w SET position = greatest(w.position, least(
                     (SELECT max(position) FROM events
                      WHERE position > w.position AND created < now() - make_interval(secs => $1)),
                     (SELECT min(e.position) - 1 FROM events e WHERE e.position > w.position
                      AND NOT EXISTS (SELECT 1 FROM sent s WHERE s.position = e.position)
                      AND NOT EXISTS (SELECT 1 FROM set_aside a WHERE a.payment_id = e.payment_id))))
                 WHERE w.name = 'events'",
                &[&VISIBLE_FOR_SURE_SECONDS],
            )
            .await?;
        Ok(())
    }

    /// Leases this replica its share of the buckets, renewing those it has; which it holds.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn lease_buckets(&self, worker: Uuid, lease: Duration) -> Result<Vec<i16>, StoreError> {
        let client = self.client().await?;
        let rows = client
            .query(
                "WITH alive AS (
                     INSERT INTO relays (worker, until) VALUES ($1, now() + make_interval(secs => $2))
                     ON CONFLICT (worker) DO UPDATE SET until = excluded.until),
                 dead AS (DELETE FROM relays WHERE worker <> $1 AND until < now() - interval '1 hour'),
                 live AS (SELECT count(*) AS others FROM relays WHERE until > now() AND worker <> $1),
                 mine AS (
                     SELECT bucket FROM buckets WHERE owner = $1 OR owner IS NULL OR until <= now()
                     ORDER BY (owner = $1 AND until > now()) DESC NULLS LAST, bucket
                     LIMIT (SELECT ceil(16.0 / (1 + others))::int FROM live) FOR UPDATE SKIP LOCKED),
                 taken AS (
                     UPDATE buckets b SET owner = $1, until = now() + make_interval(secs => $2) FROM mine
                     WHERE b.bucket = mine.bucket RETURNING b.bucket),
                 given AS (
                     UPDATE buckets b SET owner = NULL, until = NULL
                     WHERE owner = $1 AND bucket NOT IN (SELECT bucket FROM mine))
                 SELECT bucket FROM taken",
                &[&worker, &lease.as_secs_f64()],
            )
            .await?;
        rows.iter().map(|row| Ok(row.read(0)?)).collect()
    }

    /// Gives this replica's buckets to the others.
    ///
    /// # Errors
    /// The database cannot be asked; then the leases run out.
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

    /// How much waits to be confirmed.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn backlog(&self) -> Result<Backlog, StoreError> {
        let client = self.client().await?;
        let row = client
            .query_one(
                "SELECT count(*), coalesce(extract(epoch FROM now() - min(created)), 0)::float8,
                        (SELECT count(*) FROM set_aside)
                 FROM events e
                 WHERE e.position > (SELECT position FROM watermarks WHERE name = 'events')
                   AND NOT EXISTS (SELECT 1 FROM sent s WHERE s.position = e.position)",
                &[],
            )
            .await?;
        Ok(Backlog { count: row.read(0)?, oldest_seconds: row.read(1)?, set_aside: row.read(2)? })
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
        traceparent: row.read("traceparent")?,
        tracestate: row.read("tracestate")?,
        reply: reply_to.map(|to| Reply { to, correlation_id }),
    })
}
