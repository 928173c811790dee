//! The positions of events: up to which one all can be seen, how many there are, and a variant's events in pages.
//!
//! A position is given before its event can be seen, and transactions end in any order. What tells of all events up to a
//! position must know that none below it is still to come.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use super::connect::Store;
use super::connection::Connection;
use super::error::StoreError;
use super::outbox::{OutboxEvent, outbox_event};
use super::row::ReadColumn;
use super::rows;
use super::scan::find_window;
use crate::payment::command::EventsWanted;
use crate::payment::event::Heartbeat;

/// How many events a page has at most.
pub const PAGE: usize = 100;

/// How many events of all variants are looked at for one page, and how many positions one heartbeat is about.
const SCANNED_MAX: i64 = 10_000;

/// How far the times of events are out of order: so much earlier than a time, all positions are before it. In seconds.
const DISORDER: f64 = 300.0;

/// The name of the watermark up to which heartbeats were sent.
const HEARTBEAT: &str = "heartbeat";

/// Finds the last event that is older than so many seconds.
const FIND: &str = find_window!("events", "position");

/// Who has events to insert, or may have: each holds this lock from before its first position until its end.
macro_rules! writers {
    () => {
        "FROM pg_locks WHERE locktype = 'relation' AND relation = 'events'::regclass AND mode = 'RowExclusiveLock' AND granted
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    };
}

const WRITERS: &str = concat!("SELECT coalesce(array_agg(virtualtransaction), '{}') ", writers!());
const ALL_ENDED: &str = concat!("SELECT count(*) = 0 ", writers!(), " AND virtualtransaction = ANY($1::text[])");

/// Those that the broker refuses, with the later ones of their payment.
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

/// The last position that could be seen, and who may have been about to add a lower one.
#[derive(Debug, Clone)]
pub struct Frontier {
    /// The position.
    pub position: i64,
    /// Their transactions.
    writers: Vec<String>,
}

/// A stretch of positions that one heartbeat is about.
#[derive(Debug, Clone, Default)]
pub struct Beat {
    from: i64,
    to: i64,
    /// Of each variant that has any: how many events, and how many of them are set aside.
    counts: HashMap<String, (i64, i64)>,
}

impl Beat {
    /// The last position.
    pub fn to(&self) -> i64 {
        self.to
    }

    /// What is told to a variant's subscribers.
    pub fn of(&self, variant: &str) -> Heartbeat {
        let (events, set_aside) = self.counts.get(variant).copied().unwrap_or_default();
        Heartbeat { from: self.from, to: self.to, events, set_aside }
    }
}

/// A variant's events in a stretch of positions.
#[derive(Debug)]
pub struct EventPage {
    /// In their order, confirmed by the broker or not; without those that are set aside.
    pub events: Vec<OutboxEvent>,
    /// How many are set aside.
    pub set_aside: usize,
    /// Behind which position they are.
    pub after: i64,
    /// Up to which position there are no others.
    pub to: i64,
    /// Whether there may be more behind that.
    pub more: bool,
    /// Behind which position all are kept, where that is beyond `after`.
    pub kept_after: Option<i64>,
}

impl Store {
    /// The last position that can be seen now. All up to it can be, for ever, once it [is settled](Store::is_settled).
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn frontier(&self) -> Result<Frontier, StoreError> {
        let client = self.client().await?;
        // In this order: who was given a lower position has its lock by now, or has ended. A position that can be seen is
        // never given again, which after a crash cannot be said of one that was only given.
        let position = client.query_one("SELECT coalesce(max(position), 0) FROM events", &[]).await?.read(0)?;
        let writers = client.query_one(WRITERS, &[]).await?.read(0)?;
        Ok(Frontier { position, writers })
    }

    /// Whether all have ended that wrote events when the frontier was read.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn is_settled(&self, frontier: &Frontier) -> Result<bool, StoreError> {
        if frontier.writers.is_empty() {
            return Ok(true);
        }
        let client = self.client().await?;
        client.query_one(ALL_ENDED, &[&frontier.writers]).await?.read(0)
    }

    /// Up to which position heartbeats have told how many events there are: all of these can be seen.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn told_up_to(&self) -> Result<i64, StoreError> {
        let client = self.client().await?;
        self.watermark(&client, HEARTBEAT).await
    }

    /// The next heartbeat, up to a frontier that is settled, where the last one was so long ago. It is this replica's alone to
    /// send, and is not made again.
    ///
    /// # Errors
    /// The database cannot be asked.
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
        // The newest events may have been deleted since the last one.
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

    /// A variant's next events from where they are wanted, up to a position that all can be seen up to; at most [`PAGE`], and a
    /// bounded number of all variants' is looked at. `kept` is how long events are kept, `age` how long ago `since` was, in
    /// seconds.
    ///
    /// # Errors
    /// The database cannot be asked, or holds what cannot be read.
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

/// The last position that is looked at for a page.
async fn page_end(client: &Connection, after: i64, up_to: i64) -> Result<i64, StoreError> {
    let sql = "SELECT max(position), count(*) FROM (
                   SELECT position FROM events WHERE position > $1 AND position <= $2 ORDER BY position LIMIT $3) s";
    let row = client.query_one(sql, &[&after, &up_to, &SCANNED_MAX]).await?;
    let (last, count): (Option<i64>, i64) = (row.read(0)?, row.read(1)?);
    Ok(last.filter(|_| count == SCANNED_MAX).unwrap_or(up_to.max(after)))
}

/// The position of the last event that was stored longer than so many seconds ago; `after` where there is none behind it.
async fn last_older(client: &Connection, after: i64, seconds: f64) -> Result<i64, StoreError> {
    client.query_one(FIND, &[&after, &seconds, &SCANNED_MAX]).await?.read(1)
}
