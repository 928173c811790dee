//! What others watch (whether the worker lives and is ready, and its metrics), and where gateways tell something.

pub mod health;
pub mod metrics;
pub mod recorder;
pub mod server;
pub mod webhooks;

pub use health::Health;
