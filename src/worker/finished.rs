//! A signal that something has ended, for whatever reason: nothing is sent, and the sending half being dropped is the
//! signal.

use std::convert::Infallible;

use tokio::sync::oneshot;

/// Held by what is still going on. Dropping it is the signal.
#[derive(Debug)]
pub struct Unfinished {
    _signal: oneshot::Sender<Infallible>,
}

/// Waits for the signal.
#[derive(Debug)]
pub struct Finished(oneshot::Receiver<Infallible>);

impl Finished {
    /// Returns both halves.
    pub fn signal() -> (Unfinished, Finished) {
        let (signal, finished) = oneshot::channel();
        (Unfinished { _signal: signal }, Finished(finished))
    }

    /// Waits until the other half is dropped.
    pub async fn wait(self) {
        let Err(_dropped) = self.0.await;
    }
}
