//! The HTTP side of a worker: health and metrics for whoever monitors it, and webhooks for gateways.

pub mod health;
pub mod server;
pub mod webhooks;

pub use health::Health;
