//! `paybus worker`: the job. The first signal lets it finish what it has begun, the second ends it at once.

use std::time::Duration;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::exit::{Exit, Failure};
use super::signals::Signals;
use crate::config::Settings;
use crate::worker;

/// How long the worker may take to end at once.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Take commands from the broker, call the gateways, publish what happened.
///
/// SIGTERM or Ctrl-C: nothing new is taken, and what is in flight is finished (worker.drain).
/// The second one ends it at once, and another worker takes over.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = "Example:\n  paybus worker --config /etc/paybus.toml")]
pub struct WorkerArguments {}

pub async fn run(_: WorkerArguments, settings: Settings) -> Result<Exit, Failure> {
    let (drain, abort) = (CancellationToken::new(), CancellationToken::new());
    // Before anything is begun, so that no signal is missed.
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
