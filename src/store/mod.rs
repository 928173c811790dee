//! PostgreSQL: what is kept, written in batches and read by key.
//!
//! - `commit`: one statement that stores what the machine decided, for up to some hundred payments at once.
//! - `load`: what is known of payments, for the machine.
//! - `lease`: attempts, due work, lost workers.
//! - `outbox`: events that are not sent yet.
//! - `positions`: up to which position all events can be seen, how many there are, and a variant's in pages.
//! - `scan`: how all replicas together look through operations and events.
//! - `release`: events that were set aside, and their way back.
//! - `connection`: one that does not wait for ever.
//! - `gate`: commits go one by one while the server does not answer them.
//! - `hosts`: which of several it leads to.
//! - `session`: what it has to be told, alone or through a pooler.
//! - `parameters`: of which types what is sent through a pooler is.
//! - `retention`: what is old.
//! - `archive`: payments as documents, and out of the database.
//! - `forget`: what is stored of a person, erased.
//! - `rights`: what the worker's role must be allowed.
//! - `durability`, `progress`: what a commit is worth, and whether any go through.
//! - `sequences`: whether what numbers events and operations is ahead of them.
//! - `books`: what cannot be right, looked for.
//! - `answers`: answers of commands that came again.
//! - `find`: payments that are looked for.
//! - `history`: events that are kept, for people.
//! - `report`: figures and pages for people.
//! - `unserved`: payments that no configured variant serves.
//! - `schema`: the steps of the schema, which `migrate` carries out.

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
