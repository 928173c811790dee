//! The signals that stop a long-running process.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// SIGTERM and Ctrl-C.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Starts listening. Call this before anything else starts, so that no signal is missed.
    ///
    /// # Errors
    /// The operating system cannot register the handler.
    pub fn listen() -> io::Result<Signals> {
        Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// The first signal cancels `drain`, the second `abort`.
    pub async fn obey(mut self, drain: CancellationToken, abort: CancellationToken) {
        self.next().await;
        info!("received a signal to stop: finishing the work in flight; a second signal stops immediately");
        drain.cancel();
        self.next().await;
        warn!("received a second signal: stopping immediately");
        abort.cancel();
    }
}
