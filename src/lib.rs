//! paybus: payments over a message bus.
//!
//! Upstream services publish payment commands to RabbitMQ; paybus calls the configured gateway, keeps each payment in
//! PostgreSQL and publishes every change of status back to the bus. One command: at most one charge, and never a lost
//! event, whatever dies in between. `ARCHITECTURE.md` tells the way of a command and where each guarantee is enforced.

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
pub mod spans;
pub mod store;
pub mod tls;
pub mod wiring;
pub mod worker;
