//! Publishing with confirms: in order on a channel per payment queue, or unordered.
//!
//! - `publisher`: what the outbox publishes through; each event's verdict comes back to it.
//! - `channel`: one ordered channel, which opens again after a failure.
//! - `batch`: one batch of messages on one channel.
//! - `pending`: the messages that wait, and those that go again after a batch.
//! - `nacks`: how many messages the broker refused.
//! - `unordered`: publishes single messages, such as webhooks and dead letters.
//! - `verdict`: whether the broker took a message.

pub(in crate::bus) mod batch;
pub(in crate::bus) mod channel;
pub mod nacks;
pub(in crate::bus) mod pending;
pub mod publisher;
pub mod unordered;
pub mod verdict;
