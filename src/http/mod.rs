//! What others watch: whether the worker lives and is ready, and its metrics.

pub mod health;
pub mod metrics;
mod recorder;
pub mod server;

pub use health::Health;
