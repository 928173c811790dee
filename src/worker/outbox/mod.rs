//! Events on their way to the broker.
//!
//! - `announce`: those of a commit, in their order, until the broker has confirmed them. `sent_span`: their spans.
//! - `relay`: those that a lost worker left.
//! - `heartbeat`: how many there were, for who wants to know whether any is missing.

pub mod announce;
pub mod heartbeat;
pub mod relay;
pub mod sent_span;
