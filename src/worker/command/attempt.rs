//! What the gateway calls of one execution have in common.

use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit};

use crate::worker::variant::Variant;

/// Why an operation is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// It arrived or is due. An open breaker pauses its calls.
    Work,
    /// Its call probes the gateway: the breaker does not pause it.
    Probe,
}

/// Whether an answer may be followed by an immediate retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// As many as the variant's settings allow.
    AtOnce,
    /// None: the operation is retried when it is due again.
    Later,
}

/// A slot for one gateway call, until it is dropped. `call_slot` takes it.
#[derive(Debug, Default)]
pub struct CallSlot {
    pub(super) permit: Option<OwnedSemaphorePermit>,
    pub(super) exclusive: Option<OwnedMutexGuard<()>>,
}

impl CallSlot {
    /// Whether it is the exclusive slot of operations that lost more than one worker.
    pub fn is_alone(&self) -> bool {
        self.exclusive.is_some()
    }
}

/// The gateway calls of one execution.
#[derive(Debug)]
pub struct Attempt<'a> {
    /// The variant that is called.
    pub variant: &'a Variant,
    /// Why.
    pub purpose: Purpose,
    /// The slot of the next call; `None` if calls are paused or the call would come too late.
    pub slot: Option<CallSlot>,
    /// The number of the current try, counted from 1 in this execution.
    pub tries: u32,
}

impl<'a> Attempt<'a> {
    /// The first try.
    pub fn first(variant: &'a Variant, purpose: Purpose, slot: CallSlot) -> Attempt<'a> {
        Attempt { variant, purpose, slot: Some(slot), tries: 1 }
    }
}
