//! A command's way, from what it begins with to its answer.
//!
//! - `entry`, `stopped`: what it begins with, and why it ends early.
//! - `execute`: the whole way, step by step: `begin`, `call`, `settle`.
//! - `engine`: what every step shares. `call_slot`, `in_progress`: who may call, and what this process is at.
//! - `authorize`, `refusal`: who may send what, and what becomes of the rest.
//! - `locate`: a webhook that does not say which payment it is about.
//! - `answer_again`, `status`: a command that came again, or is asked after, is answered.
//! - `resend`, `resend_runs`, `catch_up`: events once more, of a payment or of a variant.
//! - `spans`: what its spans say.

pub mod answer_again;
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
pub mod refusal;
pub mod resend;
pub mod resend_runs;
pub mod settle;
pub mod spans;
pub mod status;
pub mod stopped;
