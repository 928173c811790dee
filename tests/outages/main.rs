//! The broker and the database go away and return at any moment. These tests stop services that others need, so they
//! are a separate program and run one at a time: `scripts/with-services cargo test --test outages`. Services that the
//! script did not start are not stopped, and the tests report that they were skipped.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // These are tests, helpers included.

#[path = "../it/support/mod.rs"]
mod support;

mod broker;
mod bus;
mod database;
mod load;
mod plans;
mod services;
