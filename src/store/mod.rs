//! PostgreSQL storage: writes go out in batches, reads go by key.
//!
//! - `commit`: one statement that stores the machine's decisions for a batch of payments.
//! - `batch`: collects commits into batches and splits those that fail.
//! - `load`: loads payments for the machine.
//! - `lease`: attempts, due work, lost workers, call rates.
//! - `outbox`: events that are not sent yet.
//! - `positions`: up to which position all events are visible, how many there are, and a variant's events in pages.
//! - `scan`: how all replicas together scan operations and events.
//! - `release`: payments whose events were set aside, and their release.
//! - `connection`: a pooled connection with bounded waits.
//! - `gate`: lets commits through one by one while the server does not answer them.
//! - `hosts`: connects to one of several hosts.
//! - `session`: session settings, for a direct connection or through a pooler.
//! - `parameters`: parameter types of statements sent through a pooler.
//! - `clock`: PostgreSQL's clock.
//! - `retention`: deletes old rows.
//! - `archive`: exports payments as documents and removes them from the database.
//! - `forget`: erases personal data.
//! - `rights`: privileges that the worker's role needs.
//! - `durability`, `progress`: how durable commits are, and whether they go through.
//! - `sequences`: whether the sequences of events and operations are ahead of their rows.
//! - `books`: finds impossible states in the books.
//! - `answers`: answers to commands that were sent again.
//! - `find`: searches payments.
//! - `history`: stored events, for display.
//! - `report`: figures for metrics, and pages for people.
//! - `unserved`: payments that no configured variant serves.
//! - `schema`: the migration steps, which `migrate` applies.

mod answers;
pub mod archive;
pub mod batch;
pub mod books;
pub mod clock;
mod columns;
pub mod commit;
pub mod connect;
pub mod connection;
pub mod durability;
pub mod error;
pub mod find;
pub mod forget;
mod gate;
pub mod history;
mod hosts;
pub mod lease;
pub mod load;
pub mod migrate;
pub mod outbox;
mod parameters;
pub mod positions;
pub mod progress;
pub mod release;
pub mod report;
pub mod retention;
pub mod rights;
mod row;
mod rows;
mod scan;
pub mod schema;
pub mod sequences;
mod session;
mod statement;
pub mod unserved;

pub use connect::{Store, StoreSettings};
pub use error::StoreError;
