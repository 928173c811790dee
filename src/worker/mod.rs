//! The worker: one command's way.
//!
//! ```text
//! accept -> begin (commit) -> call the gateway -> settle (commit) -> announce (confirm) -> ack
//! ```
//!
//! - `intake`: messages come from the broker and are acknowledged last.
//! - `accept`: a message is read.
//! - `dead_letter`: what the broker gave up on is answered.
//! - `execute`: the whole way, step by step.
//! - `begin`, `call`, `settle`, `announce`: the steps.
//! - `notify`: a webhook that does not say which payment it is about.
//! - `receipt`, `webhooks`: webhooks become commands; and the process that does nothing else.
//! - `resend`: events once more, for who missed them.
//! - `schedule`, `relay`: what is due, and events of workers that were lost.
//! - `variant`, `breaker`, `limits`, `place`: a gateway's limits, and who may call.
//! - `alerts`: what somebody should hear of at once.
//! - `start`, `prerequisites`, `report`: wiring, draining, what it waits for, and what it says of itself.
//! - `hand_back`: messages go back to the broker while nothing can be stored.

pub mod accept;
mod alerts;
mod announce;
mod aside;
mod begin;
mod breaker;
mod call;
mod dead_letter;
mod engine;
mod execute;
mod hand_back;
mod hold;
mod intake;
mod limits;
mod notify;
mod place;
mod prerequisites;
mod receipt;
mod relay;
mod report;
mod resend;
mod schedule;
mod settle;
mod spans;
mod start;
mod variant;
mod webhooks;

pub use start::{RunError, run};
pub use webhooks::run as run_webhooks;
