//! PostgreSQL storage: writes go out in batches, reads go by key.
//!
//! - `connection`: connection pools, sessions, failover between hosts, and PostgreSQL's clock.
//! - `commit`: stores the machine's decisions for a batch of payments in one statement.
//! - `load`: loads payments for the machine.
//! - `lease`: attempts, due work, lost workers, call rates.
//! - `scan`: how all replicas together scan operations and events.
//! - `pauses`: variants whose calls operators stopped.
//! - `outbox`: events that are not sent yet, their positions, and those that were set aside.
//! - `query`: what people and metrics ask.
//! - `retention`: deletes, archives and erases what is old or asked to be forgotten.
//! - `schema`: the migration steps, which `migrate` applies, and the rights that a worker needs.
//! - `workers`: the replicas, as they report themselves.
//! - `rows`, `row`: map rows to and from the domain.

pub mod commit;
pub mod connection;
pub mod error;
pub mod lease;
pub mod load;
pub mod outbox;
pub mod pauses;
pub mod query;
pub mod retention;
mod row;
mod rows;
mod scan;
pub mod schema;
pub mod workers;

pub use connection::pools::{Store, StoreSettings};
pub use error::StoreError;
