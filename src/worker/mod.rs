//! The worker: one command's way.
//!
//! ```text
//! accept -> begin (commit) -> call the gateway -> settle (commit) -> announce (confirm) -> ack
//! ```
//!
//! - `intake`, `prefetch`: messages come from the broker, so many at a time, and are acknowledged last.
//! - `accept`: a message is read.
//! - `authorize`, `refuse`: who may send what, and what becomes of the rest.
//! - `dead_letter`: what the broker gave up on is answered.
//! - `own_event`: an event that comes back as a command is not.
//! - `execute`: the whole way, step by step.
//! - `begin`, `call`, `settle`, `announce`: the steps.
//! - `notify`: a webhook that does not say which payment it is about.
//! - `receipt`, `webhooks`: webhooks become commands; and the process that does nothing else.
//! - `answer_again`: a command that came again is answered again.
//! - `questions`: what many ask of one payment at once is asked once.
//! - `resend`, `catch_up`: events once more, for who missed them: of a payment, or of a variant.
//! - `heartbeat`: how many events there were, for who wants to know whether any is missing.
//! - `schedule`, `relay`: what is due, and events of workers that were lost.
//! - `variant`, `breaker`, `limits`, `place`: a gateway's limits, and who may call; what a user may ask for.
//! - `alerts`: what somebody should hear of at once.
//! - `unserved`: payments that no configured variant serves.
//! - `start`, `prerequisites`, `report`: wiring, draining, what it waits for, and what it says of itself.
//! - `hand_back`: messages go back to the broker while nothing can be stored.

pub mod accept;
mod alerts;
mod announce;
mod answer_again;
mod aside;
pub mod authorize;
mod begin;
mod breaker;
mod call;
mod catch_up;
mod command_status;
mod dead_letter;
mod engine;
mod entry;
mod execute;
mod hand_back;
mod heartbeat;
mod hold;
mod intake;
mod limits;
mod notify;
mod own_event;
mod place;
mod prefetch;
mod prerequisites;
mod questions;
mod receipt;
mod refuse;
mod relay;
mod report;
mod resend;
mod resend_runs;
mod room;
mod schedule;
mod settle;
mod spans;
mod start;
mod stopped;
mod unserved;
mod variant;
mod webhooks;

pub use start::{RunError, run};
pub use webhooks::run as run_webhooks;
