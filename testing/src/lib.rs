//! What tests use and what knows nothing of paybus's own code: the gateways in memory, clients of the broker, and the
//! schemas of the contract. Unit tests, integration tests, soaks and examples share it; it is built once for all of them.
//!
//! - `fake_gateway`: a gateway that speaks the `http` protocol; `fake_stripe`: a Stripe. Both keep a ledger, and misbehave
//!   as planned.
//! - `command`, `event`, `bus`: commands to publish, and a listener that collects events and holds each against `contract`.
//! - `raw_publisher`: a connection that sends what no library would.
//! - `wire`, `gate`, `listener`, `ports`: TCP between a worker and its services, which tests delay and cut.
//! - `collector`: an OpenTelemetry collector.
//! - `wait`, `service_lock`, `skip`, `files`: deadlines, exclusive use of the services, skipped tests, files of the repository.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // What breaks here must break its test.

pub mod bus;
pub mod collector;
pub mod command;
pub mod contract;
pub mod event;
pub mod fake_gateway;
pub mod fake_stripe;
pub mod files;
pub mod gate;
pub mod listener;
pub mod ports;
pub mod raw_publisher;
pub mod service_lock;
pub mod skip;
pub mod wait;
pub mod wire;
