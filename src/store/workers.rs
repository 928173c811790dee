//! The replicas, as they report themselves for people. No decision depends on these rows.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;
use tokio_postgres::types::Json;
use uuid::Uuid;

use super::connection::pools::Store;
use super::error::StoreError;
use super::row::ReadColumn;

const REPORT: &str = include_str!("workers_report.sql");
const ALL: &str = include_str!("workers_all.sql");

/// What a replica says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerReport {
    /// The owner of its leases.
    pub id: Uuid,
    /// The name of its machine.
    pub host: String,
    /// Its version of paybus.
    pub version: String,
    /// Where it serves `/readyz`.
    pub address: String,
    /// Whether it takes no new work.
    pub draining: bool,
    /// Why it is not ready; empty if it is.
    pub not_ready: String,
    /// Its variants.
    pub variants: Vec<VariantReport>,
}

/// How a variant is on one replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VariantReport {
    /// Its name.
    pub name: String,
    /// The state of its circuit breaker: closed, open or half_open.
    pub breaker: String,
    /// Whether an operator has paused it.
    pub paused: bool,
    /// Gateway calls in flight.
    pub in_flight: usize,
}

impl VariantReport {
    /// Whether its circuit breaker lets all calls through.
    pub fn is_breaker_closed(&self) -> bool {
        self.breaker == "closed"
    }
}

/// A replica as it was last seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownWorker {
    /// What it said.
    pub report: WorkerReport,
    /// When it started.
    pub started: Timestamp,
    /// When it last reported.
    pub seen: Timestamp,
    /// PostgreSQL's time at which this was read.
    pub read_at: Timestamp,
}

/// A replica reports every five seconds. One that has not for so many seconds is lost, or cannot reach the database.
const LOST_AFTER: i64 = 20;

impl KnownWorker {
    /// For how many seconds it has not reported.
    pub fn unseen(&self) -> i64 {
        self.read_at.duration_since(self.seen).as_secs()
    }

    /// Whether it takes work.
    pub fn is_ready(&self) -> bool {
        !self.is_lost() && !self.report.draining && self.report.not_ready.is_empty()
    }

    /// Whether it was lost, or cannot reach the database.
    pub fn is_lost(&self) -> bool {
        self.unseen() > LOST_AFTER
    }
}

impl Store {
    /// Stores what a replica says about itself.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn report_worker(&self, report: &WorkerReport) -> Result<(), StoreError> {
        let WorkerReport { id, host, version, address, draining, not_ready, variants } = report;
        let client = self.client().await?;
        client.execute(REPORT, &[id, host, version, address, draining, not_ready, &Json(variants)]).await?;
        Ok(())
    }

    /// Deletes the row of a replica that has drained.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn remove_worker(&self, id: Uuid) -> Result<(), StoreError> {
        let client = self.client().await?;
        client.execute("DELETE FROM workers WHERE id = $1", &[&id]).await?;
        Ok(())
    }

    /// Deletes the rows of replicas that were lost an hour ago.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn remove_lost_workers(&self) -> Result<(), StoreError> {
        let client = self.client().await?;
        client.execute("DELETE FROM workers WHERE seen < now() - interval '1 hour'", &[]).await?;
        Ok(())
    }

    /// Returns all replicas, by machine.
    ///
    /// # Errors
    /// The database cannot be asked, or a row cannot be read.
    pub async fn workers(&self) -> Result<Vec<KnownWorker>, StoreError> {
        let client = self.client().await?;
        client.query(ALL, &[]).await?.iter().map(known).collect()
    }
}

fn known(row: &Row) -> Result<KnownWorker, StoreError> {
    let report = WorkerReport {
        id: row.read("id")?,
        host: row.read("host")?,
        version: row.read("version")?,
        address: row.read("address")?,
        draining: row.read("draining")?,
        not_ready: row.read("not_ready")?,
        variants: row.read::<Json<_>>("variants")?.0,
    };
    let (started, seen, read_at) = (row.read("started")?, row.read("seen")?, row.read("read_at")?);
    Ok(KnownWorker { report, started, seen, read_at })
}
