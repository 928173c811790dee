//! `paybus webhooks`: only what gateways tell by themselves.

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::exit::{Exit, Failure};
use super::signals::Signals;
use crate::config::Settings;
use crate::worker;

/// Receive webhooks (POST /webhooks/VARIANT) and publish them as commands, and do nothing else.
///
/// For where only this may be reached from outside: it needs the broker and the webhook secrets, no database, and calls
/// no gateway. Workers receive webhooks too, at their http.listen.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Example:\n  PAYBUS__HTTP__LISTEN=0.0.0.0:8081 paybus webhooks --config /etc/paybus.toml"
)]
pub struct WebhooksArguments {}

pub async fn run(_: WebhooksArguments, settings: Settings) -> Result<Exit, Failure> {
    let (shutdown, abort) = (CancellationToken::new(), CancellationToken::new());
    tokio::spawn(Signals::listen()?.obey(shutdown.clone(), abort.clone()));
    tokio::select! {
        ran = worker::run_webhooks(settings, shutdown) => ran?,
        () = abort.cancelled() => return Ok(Exit::Failed),
    }
    Ok(Exit::Done)
}
