//! `paybus worker`: takes commands until the first signal, which drains it; the second one stops it immediately.

use std::time::Duration;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::exit::{Exit, Failure};
use super::signals::Signals;
use crate::config::Settings;
use crate::worker;

/// How long the tasks of the worker may take to end after the second signal.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Take commands from the broker, call the gateways and publish the results
///
/// SIGTERM or Ctrl-C drains the worker: it takes no new commands and finishes those in flight,
/// within worker.drain. A second signal stops it immediately, and another worker takes over.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = "Example:\n  paybus worker --config /etc/paybus.toml")]
pub struct WorkerArguments {}

pub async fn run(_: WorkerArguments, settings: Settings) -> Result<Exit, Failure> {
    let (drain, abort) = (CancellationToken::new(), CancellationToken::new());
    // Before anything else starts, so that no signal is missed.
    let signals = Signals::listen()?;
    tokio::spawn(signals.obey(drain.clone(), abort.clone()));
    let ended = async {
        abort.cancelled().await;
        tokio::time::sleep(LAST_WORDS).await;
    };
    tokio::select! {
        ran = worker::run(settings, drain.clone(), abort.clone()) => ran?,
        () = ended => {}
    }
    Ok(if abort.is_cancelled() { Exit::Failed } else { Exit::Done })
}
