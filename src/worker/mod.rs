//! The worker: carries out payment commands.
//!
//! ```text
//! accept -> begin (commit) -> call the gateway -> settle (commit) -> announce (confirm) -> ack
//! ```
//!
//! - [`intake`]: consumes messages, parses and authorizes them, and acknowledges each one last.
//! - `command`: executes a command, step by step.
//! - `outbox`: publishes events, including those of lost workers, and heartbeats that say how many there were.
//! - `variant`: a gateway's limits and its circuit breaker, and users' rate limits.
//! - `webhooks`: turns webhooks into commands; also the process that does only that.
//! - `schedule`: executes due operations, including those of lost workers.
//! - `register`: reports this replica in the database.
//! - `pauses`: follows which variants operators have paused.
//! - `alerts`: raises what needs somebody's attention at once.
//! - `unserved`: reports payments that no configured variant serves.
//! - `finished`: signals that something has ended.
//! - `start`, `prerequisites`, `report`: wiring and draining, waiting for broker and database, health and metrics.

mod alerts;
mod command;
mod finished;
pub mod intake;
mod outbox;
mod pauses;
mod prerequisites;
mod register;
mod report;
mod schedule;
mod start;
mod unserved;
mod variant;
mod webhooks;

pub use command::authorize::OPEN;
pub use start::{RunError, run};
pub use webhooks::run as run_webhooks;
