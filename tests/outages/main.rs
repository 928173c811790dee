//! The broker and the database go away and come back, in the middle of everything. These tests stop what others need, so
//! they have a program of their own, and run in it one at a time: `scripts/with-services cargo test --test outages`.
//! Where the services were not started by that script, nobody may stop them, and the tests say so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // These are tests, helpers included.

#[path = "../it/support/mod.rs"]
mod support;

mod broker;
mod bus;
mod database;
mod load;
mod plans;
mod services;
