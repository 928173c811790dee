//! paybus: payments over a message bus.
//!
//! Upstream services publish payment commands to RabbitMQ; paybus calls the configured gateway, stores each payment in
//! PostgreSQL and publishes every status change back to the bus. A command charges at most once and no event is lost,
//! whatever crashes in between. `ARCHITECTURE.md` follows a command through the code and says where each guarantee is
//! enforced.

pub mod backoff;
pub mod bus;
pub mod cli;
pub mod config;
pub mod contract;
mod error_chain;
mod excerpt;
mod failpoint;
pub mod gateway;
mod hosts;
pub mod http;
pub mod payment;
mod plural;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod wiring;
pub mod worker;
