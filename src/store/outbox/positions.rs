//! The positions of events: up to which one all are visible, how many there are, and a variant's events in pages.
//!
//! A position is assigned before its event is visible, and transactions end in any order. A statement about all events
//! up to a position must know that no lower one can still appear.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use super::{OutboxEvent, outbox_event};
use crate::payment::command::EventsWanted;
use crate::payment::event::Heartbeat;
use crate::store::connection::Connection;
use crate::store::connection::pools::Store;
use crate::store::error::StoreError;
use crate::store::row::ReadColumn;
use crate::store::rows;
use crate::store::scan::find_window;

/// Maximum number of events per page.
pub const PAGE: usize = 100;

/// Maximum number of events of all variants examined for one page, and of positions that one heartbeat covers.
const SCANNED_MAX: i64 = 10_000;

/// How far events are out of time order, in seconds: all positions this much older than a time come before it.
const DISORDER: f64 = 300.0;

/// The watermark up to which heartbeats were sent.
const HEARTBEAT: &str = "heartbeat";

/// Finds the last event older than a number of seconds.
const FIND: &str = find_window!("events", "position");

/// Transactions that have inserted events, or may: each holds this lock from before its first position until its end.
macro_rules! writers {
    () => {
        "FROM pg_locks WHERE locktype = 'relation' AND relation = 'events'::regclass AND mode = 'RowExclusiveLock' AND granted
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    };
}

const WRITERS: &str = concat!("SELECT coalesce(array_agg(virtualtransaction), '{}') ", writers!());
const ALL_ENDED: &str = concat!("SELECT count(*) = 0 ", writers!(), " AND virtualtransaction = ANY($1::text[])");

/// Events that the broker refuses, with the later ones of their payment.
macro_rules! is_set_aside {
    () => {
        "EXISTS (SELECT 1 FROM set_aside a WHERE a.payment_id = e.payment_id AND a.position <= e.position)"
    };
}

const COUNT: &str = concat!(
    "SELECT split_part(variant_of, '.', 1), count(*), count(*) FILTER (WHERE is_set_aside)
     FROM (SELECT e.routing_key AS variant_of, ",
    is_set_aside!(),
    " AS is_set_aside
           FROM events e WHERE e.position > $1 AND e.position <= $2) counted
     GROUP BY 1"
);

static EVENTS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT is_set_aside, {} FROM (
             SELECT e.*, {} AS is_set_aside FROM events e
             WHERE e.position > $1 AND e.position <= $2 AND split_part(e.routing_key, '.', 1) = $3
             ORDER BY e.position LIMIT $4) u
         ORDER BY position",
        *rows::EVENT,
        is_set_aside!()
    )
});

/// The last visible position, and the transactions that may have been about to add a lower one.
#[derive(Debug, Clone)]
pub struct Frontier {
    /// The position.
    pub position: i64,
    /// Virtual ids of these transactions.
    writers: Vec<String>,
}

/// A range of positions that one heartbeat covers.
#[derive(Debug, Clone, Default)]
pub struct Beat {
    from: i64,
    to: i64,
    /// For each variant with any: the number of events, and how many of them are set aside.
    counts: HashMap<String, (i64, i64)>,
}

impl Beat {
    /// The last position covered.
    pub fn to(&self) -> i64 {
        self.to
    }

    /// The heartbeat for a variant's subscribers.
    pub fn of(&self, variant: &str) -> Heartbeat {
        let (events, set_aside) = self.counts.get(variant).copied().unwrap_or_default();
        Heartbeat { from: self.from, to: self.to, events, set_aside }
    }
}

/// A variant's events in a range of positions.
#[derive(Debug)]
pub struct EventPage {
    /// In order, confirmed by the broker or not; without those set aside.
    pub events: Vec<OutboxEvent>,
    /// Number of events set aside.
    pub set_aside: usize,
    /// The position after which they come.
    pub after: i64,
    /// The position up to which there are no others.
    pub to: i64,
    /// Whether there may be more after that.
    pub more: bool,
    /// The position after which all are kept, if beyond `after`.
    pub kept_after: Option<i64>,
}

impl Store {
    /// Returns the last position visible now. Once it [is settled](Store::is_settled), no lower position can appear any
    /// more.
    ///
    /// # Errors
    /// The database query fails.
    pub async fn frontier(&self) -> Result<Frontier, StoreError> {
        let client = self.client().await?;
        // In this order: a transaction that was assigned a lower position has its lock by now, or has ended. A visible
        // position is never assigned again, whereas one that was only assigned may be, after a crash.
        let position = client.query_one("SELECT coalesce(max(position), 0) FROM events", &[]).await?.read(0)?;
        let writers = client.query_one(WRITERS, &[]).await?.read(0)?;
        Ok(Frontier { position, writers })
    }

    /// Whether all transactions have ended that were writing events when the frontier was read.
    ///
    /// # Errors
    /// The database query fails.
    pub async fn is_settled(&self, frontier: &Frontier) -> Result<bool, StoreError> {
        if frontier.writers.is_empty() {
            return Ok(true);
        }
        let client = self.client().await?;
        client.query_one(ALL_ENDED, &[&frontier.writers]).await?.read(0)
    }

    /// Returns the position up to which heartbeats have reported the number of events; all of these are visible.
    ///
    /// # Errors
    /// The database query fails.
    pub async fn reported_up_to(&self) -> Result<i64, StoreError> {
        let client = self.client().await?;
        self.watermark(&client, HEARTBEAT).await
    }

    /// Returns the next heartbeat, up to a settled frontier, if the last one is long enough ago. It is for this replica
    /// alone to send, and is not produced again.
    ///
    /// # Errors
    /// The database query fails.
    pub async fn beat(&self, frontier: &Frontier, every: Duration) -> Result<Option<Beat>, StoreError> {
        let client = self.client().await?;
        let every = every.as_secs_f64();
        let due = "SELECT position, coalesce(moved_at <= now() - make_interval(secs => $2), true)
                   FROM watermarks WHERE name = $1";
        let row = client.query_one(due, &[&HEARTBEAT, &every]).await?;
        let (from, is_due): (i64, bool) = (row.read(0)?, row.read(1)?);
        if !is_due {
            return Ok(None);
        }
        // The newest events may have been deleted since the last heartbeat.
        let to = frontier.position.clamp(from, from.saturating_add(SCANNED_MAX));
        let mut counts: HashMap<String, (i64, i64)> = HashMap::new();
        for row in client.query(COUNT, &[&from, &to]).await? {
            counts.insert(row.read(0)?, (row.read(1)?, row.read(2)?));
        }
        let moving = "UPDATE watermarks SET position = $3, moved_at = now()
                      WHERE name = $1 AND position = $2 AND coalesce(moved_at <= now() - make_interval(secs => $4), true)";
        let moved = client.execute(moving, &[&HEARTBEAT, &from, &to, &every]).await?;
        Ok((moved == 1).then_some(Beat { from, to, counts }))
    }

    /// Returns a variant's next events from where they are wanted, up to a position below which all are visible.
    /// Returns at most [`PAGE`], and examines a bounded number of all variants' events. `kept` is how long events are
    /// kept, `age` how long ago `since` was, in seconds.
    ///
    /// # Errors
    /// The database query fails, or a stored value cannot be read.
    pub async fn event_page(
        &self,
        variant: &str,
        wanted: EventsWanted,
        age: Option<f64>,
        up_to: i64,
        kept: Duration,
    ) -> Result<EventPage, StoreError> {
        let client = self.client().await?;
        let purged = self.watermark(&client, "purged events").await?;
        let since = match age {
            Some(age) => last_older(&client, purged, age + DISORDER).await?,
            None => 0,
        };
        let wanted = wanted.after.unwrap_or_default().max(since);
        let kept_after = last_older(&client, purged, kept.as_secs_f64() - 2.0 * DISORDER).await?;
        let after = wanted.max(purged);
        let end = page_end(&client, after, up_to).await?;
        let limit = i64::try_from(PAGE).unwrap_or(i64::MAX);
        let found = client.query(&EVENTS, &[&after, &end, &variant, &limit]).await?;
        let mut page = EventPage {
            events: Vec::with_capacity(found.len()),
            set_aside: 0,
            after: wanted,
            to: end,
            more: false,
            kept_after: (kept_after > wanted).then_some(kept_after),
        };
        for row in &found {
            match row.read("is_set_aside")? {
                true => page.set_aside += 1,
                false => page.events.push(outbox_event(row)?),
            }
        }
        if let Some(last) = found.last().filter(|_| found.len() == PAGE) {
            page.to = last.read("position")?;
        }
        page.more = page.to < up_to;
        Ok(page)
    }
}

/// The last position to examine for a page.
async fn page_end(client: &Connection, after: i64, up_to: i64) -> Result<i64, StoreError> {
    let sql = "SELECT max(position), count(*) FROM (
                   SELECT position FROM events WHERE position > $1 AND position <= $2 ORDER BY position LIMIT $3) s";
    let row = client.query_one(sql, &[&after, &up_to, &SCANNED_MAX]).await?;
    let (last, count): (Option<i64>, i64) = (row.read(0)?, row.read(1)?);
    Ok(last.filter(|_| count == SCANNED_MAX).unwrap_or(up_to.max(after)))
}

/// Returns the position of the last event stored more than `seconds` ago; `after` if there is none behind it.
async fn last_older(client: &Connection, after: i64, seconds: f64) -> Result<i64, StoreError> {
    client.query_one(FIND, &[&after, &seconds, &SCANNED_MAX]).await?.read(1)
}
