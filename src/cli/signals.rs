//! The signals that end a process that goes on until it is told to stop.

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
    /// Listens from now on; before anything is begun, so that no signal is missed.
    ///
    /// # Errors
    /// The operating system has no room for it.
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
        info!("told to stop: finishing what is in flight; a second signal ends it at once");
        drain.cancel();
        self.next().await;
        warn!("told to stop at once");
        abort.cancel();
    }
}
