//! `paybus webhooks`: only receives webhooks.

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::exit::{Exit, Failure};
use super::signals::Signals;
use crate::config::Settings;
use crate::worker;

/// Receive webhooks (POST /webhooks/VARIANT) and publish them as commands; do nothing else
///
/// Use it to expose only this process to the outside: it needs the broker and the webhook secrets,
/// but no database, and it calls no gateway. Workers also receive webhooks, at their http.listen.
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
