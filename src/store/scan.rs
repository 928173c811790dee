//! Scans of a table in number order, shared by all replicas: everything up to a watermark was examined.
//!
//! Each row is examined twice, however many replicas there are and however often they scan: by the first scan once it
//! is old enough, and by the late scan once no lower number can still be uncommitted. A number is assigned before its
//! row is visible.

use std::time::Duration;

use super::connection::Connection;
use super::connection::pools::Store;
use super::error::StoreError;
use super::row::ReadColumn;

/// How many numbers one statement examines.
const WINDOW_MAX: i64 = 10_000;

/// A scan of one table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scan {
    /// Name of its watermark.
    pub name: &'static str,
    /// Watermark of the table's late scan: what that has examined needs no first scan.
    pub late: &'static str,
    /// Finds its next window: see [`find_window`].
    pub find: &'static str,
    /// Minimum age of a row.
    pub age: Duration,
}

/// The numbers to examine next: those after `after`, up to `last`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub after: i64,
    pub last: i64,
    /// Whether another window follows.
    pub more: bool,
}

/// The statement that finds a window: the numbers after `$1`, up to the last row older than `$2` seconds, but no more
/// than `$3` from the first row on. It uses binary search, and so reads some twenty rows however many there are.
///
/// Times are nearly in number order, so a row slightly younger than its neighbours may be in the window. The window's
/// last row is old enough, so that for the late scan all lower numbers are.
macro_rules! find_window {
    ($table:literal, $number:literal) => {
        concat!(
            "WITH RECURSIVE halves (low, high) AS (
                 SELECT $1::int8, coalesce((SELECT max(",
            $number,
            ") FROM ",
            $table,
            "), 0)
                 UNION ALL
                 SELECT CASE WHEN next.is_old THEN next.number ELSE h.low END,
                     CASE WHEN next.is_old THEN h.high ELSE h.middle END
                 FROM (SELECT low, high, low + (high - low) / 2 AS middle FROM halves WHERE low < high) h
                 LEFT JOIN LATERAL (
                     SELECT ",
            $number,
            " AS number, stored < now() - make_interval(secs => $2) AS is_old FROM ",
            $table,
            "
                     WHERE ",
            $number,
            " > h.middle AND ",
            $number,
            " <= h.high ORDER BY ",
            $number,
            " LIMIT 1) next ON true)
             SELECT least(max(low), (SELECT min(",
            $number,
            ") FROM ",
            $table,
            " WHERE ",
            $number,
            " > $1) + $3 - 1), max(low) FROM halves"
        )
    };
}

pub(super) use find_window;

impl Store {
    /// Returns the position of a watermark.
    pub(super) async fn watermark(&self, client: &Connection, name: &str) -> Result<i64, StoreError> {
        client.query_one("SELECT position FROM watermarks WHERE name = $1", &[&name]).await?.read(0)
    }

    /// Returns a scan's next window; `None` if everything old enough was examined. Statements must get its bounds as
    /// values: the planner must see how few rows there are, or it joins whole tables.
    pub(super) async fn window(&self, client: &Connection, scan: Scan) -> Result<Option<Window>, StoreError> {
        let sql = "SELECT max(position) FROM watermarks WHERE name IN ($1, $2)";
        let after: i64 = client.query_one(sql, &[&scan.name, &scan.late]).await?.read(0)?;
        let row = client.query_one(scan.find, &[&after, &scan.age.as_secs_f64(), &WINDOW_MAX]).await?;
        let (last, end): (i64, i64) = (row.read(0)?, row.read(1)?);
        Ok((last > after).then_some(Window { after, last, more: last < end }))
    }
}
