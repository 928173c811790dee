//! The worker: one command's way.
//!
//! ```text
//! accept -> begin (commit) -> call the gateway -> settle (commit) -> announce (confirm) -> ack
//! ```
//!
//! - [`intake`]: messages come from the broker, are read, held against who may send what, and acknowledged last.
//! - `command`: a command's way, step by step.
//! - `outbox`: events go out, those of lost workers too, and heartbeats say how many there were.
//! - `variant`: a gateway's limits, its breaker, and what a user may ask for.
//! - `webhooks`: webhooks become commands; and the process that does nothing else.
//! - `schedule`: what is due, and operations of workers that were lost.
//! - `alerts`: what somebody should hear of at once.
//! - `unserved`: payments that no configured variant serves.
//! - `start`, `prerequisites`, `report`: wiring, draining, what it waits for, and what it says of itself.

mod alerts;
mod command;
pub mod intake;
mod outbox;
mod prerequisites;
mod report;
mod schedule;
mod start;
mod unserved;
mod variant;
mod webhooks;

pub use command::authorize::OPEN;
pub use start::{RunError, run};
pub use webhooks::run as run_webhooks;
