//! Publishing stored events.
//!
//! - `announce`: the events of a commit, in order, until the broker has confirmed them. `sent_span`: their spans.
//! - `relay`: the events that a lost worker left unsent.
//! - `heartbeat`: how many events there were, so that consumers can detect a gap.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::announce::Announcer;
use crate::store::Store;

pub mod announce;
pub mod heartbeat;
pub mod relay;
pub mod sent_span;

/// What publishes events that no command waits for.
#[derive(Clone)]
pub struct Outbox {
    /// Identifies this process as the owner of leases.
    pub worker: Uuid,
    /// Where the events are stored.
    pub store: Arc<Store>,
    /// Publishes the events.
    pub announcer: Arc<Announcer>,
    /// Cancelled when the worker drains.
    pub draining: CancellationToken,
}
