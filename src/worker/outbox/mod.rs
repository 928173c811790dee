//! Events on their way to the broker.
//!
//! - `announce`: those of a commit, in their order, until the broker has confirmed them. `sent_span`: their spans.
//! - `relay`: those that a lost worker left.
//! - `heartbeat`: how many there were, for who wants to know whether any is missing.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::announce::Announcer;
use crate::store::Store;

pub mod announce;
pub mod heartbeat;
pub mod relay;
pub mod sent_span;

/// What sends events that no command is waiting for.
#[derive(Clone)]
pub struct Outbox {
    /// This process, as the owner of leases.
    pub worker: Uuid,
    /// Where the events are stored.
    pub store: Arc<Store>,
    /// Events on their way out.
    pub announcer: Arc<Announcer>,
    /// Cancelled when the worker ends.
    pub draining: CancellationToken,
}
