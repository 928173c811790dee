//! A broker of three nodes and a database with a standby each lose one server under load: `make test-cluster`. If
//! `scripts/with-services` did not start such services, these tests are skipped and say so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // These are tests, helpers included.

#[path = "../outages/load.rs"]
#[allow(dead_code)] // The outages use the rest.
mod load;
#[path = "../it/support/mod.rs"]
mod support;

mod answers;
mod broker;
mod database;
mod services;
mod switch;
