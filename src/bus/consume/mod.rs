//! Consuming: deliveries and their acknowledgements.
//!
//! - `consumer`: a consumer that outlives its connection.
//! - `delivery`: a message as it was delivered.
//! - `acks`: acknowledges many deliveries at once.
//! - `attributes`: CloudEvents attributes that arrive as headers.

mod acks;
pub mod attributes;
pub mod consumer;
pub mod delivery;
