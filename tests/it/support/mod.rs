//! What the tests share. A test makes itself a [`World`]: a database, a prefix at the broker and a gateway of its own, and
//! starts the real binary in it, as often as it needs. Worlds share nothing, so tests run side by side.
//!
//! ```ignore
//! let world = World::new().await;
//! let worker = world.worker().await;
//! let create = Command::create("http", "10.00", "EUR").process(json!({}));
//! let answer = world.run(&create).await;
//! assert_eq!(answer.status(), "confirmed");
//! world.check_books().await;
//! ```

#![allow(dead_code, unused_imports)] // Each test uses a part of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // What breaks here must break its test.

pub mod books;
pub mod bus;
pub mod collector;
pub mod command;
pub mod contract;
pub mod direct;
pub mod event;
pub mod fake_gateway;
#[path = "../../../examples/stripe/mod.rs"]
pub mod fake_stripe;
pub mod files;
pub mod gate;
pub mod nets;
pub mod pooler;
pub mod raw_publisher;
pub mod replies;
pub mod service_lock;
pub mod setup;
pub mod skip;
pub mod teardown;
pub mod topology;
pub mod wait;
pub mod webhook;
pub mod wire;
pub mod worker;
pub mod world;

pub use self::books::Expected;
pub use self::collector::{Collector, Span};
pub use self::command::Command;
pub use self::event::Event;
pub use self::fake_gateway::Behaviour;
use self::fake_stripe::listener;
pub use self::service_lock::ServiceLock;
pub use self::setup::Setup;
pub use self::wait::{TIMEOUT, eventually};
pub use self::webhook::Webhook;
pub use self::wire::Wire;
pub use self::worker::{Worker, WorkerSetup};
pub use self::world::World;
