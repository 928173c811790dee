//! What a worker says about itself: metrics, spans and log lines. Nothing decides by it.
//!
//! - `metrics`: every metric, by name; `recorder` serves them.
//! - `spans`: spans, exported over OTLP.
//! - `logging`: log lines; `log_limit` bounds those that messages cause.

pub mod log_limit;
pub mod logging;
pub mod metrics;
pub mod recorder;
pub mod spans;
