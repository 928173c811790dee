//! Executing a command, from its message or due operation to its answer.
//!
//! - `entry`, `stopped`: what an execution starts from, and why it ends early.
//! - `execute`: the whole execution, from step to step: `begin`, `call`, `settle`. `attempt`: what its calls share.
//! - `engine`: what all steps share. `call_slot`, `in_progress`: limits on calls, and the operations in progress here.
//! - `authorize`, `refusal`: who may send what, and what happens to commands that are not authorized.
//! - `locate`: finds the payments of a webhook that names none.
//! - `answer_again`, `status`: answers a duplicate command, or a question about a command's status.
//! - `resend`, `resend_runs`, `catch_up`: publishes events again, of one payment or of a variant.
//! - `spans`: the OpenTelemetry spans of an execution.

pub mod answer_again;
pub mod attempt;
pub mod authorize;
pub mod begin;
pub mod call;
pub mod call_slot;
pub mod catch_up;
pub mod engine;
pub mod entry;
pub mod execute;
pub mod in_progress;
pub mod locate;
pub mod pause;
pub mod refusal;
pub mod resend;
pub mod resend_runs;
pub mod settle;
pub mod spans;
pub mod status;
pub mod stopped;
