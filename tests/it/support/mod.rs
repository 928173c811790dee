//! What the tests share, with the crate `testing`, which knows nothing of paybus's own code. A test makes itself a [`World`]: a database, a prefix at the broker and a gateway of its own, and
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
pub mod direct;
pub mod nets;
pub mod pooler;
pub mod replies;
pub mod setup;
pub mod teardown;
pub mod topology;
pub mod webhook;
pub mod worker;
pub mod world;

pub use testing::collector::{Collector, Span};
pub use testing::command::Command;
pub use testing::event::Event;
pub use testing::fake_gateway::Behaviour;
pub use testing::service_lock::ServiceLock;
pub use testing::wait::{TIMEOUT, eventually};
pub use testing::wire::Wire;
pub use testing::{
    bus, collector, command, contract, event, fake_gateway, fake_stripe, files, gate, ports, raw_publisher,
    service_lock, skip, wait, wire,
};

pub use self::books::Expected;
pub use self::setup::Setup;
pub use self::webhook::Webhook;
pub use self::worker::{Worker, WorkerSetup};
pub use self::world::World;
