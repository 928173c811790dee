//! `paybus pause` and `paybus resume`: stop a variant's calls on all replicas, and let them continue.

use std::time::Duration;

use clap::Args;
use jiff::{SignedDuration, Timestamp};

use super::exit::{Exit, Failure};
use super::publish::command::{CommandArguments, FieldArguments};
use super::publish::{self, PublishArguments};
use super::watch::read_duration;
use crate::config::Settings;
use crate::payment::command::CommandType;

/// How long the order holds: one that nobody waits for must not undo a later one. Longer than the wait, because the
/// clocks of this machine and of the database differ.
const EXPIRES_IN: Duration = Duration::from_secs(300);

/// How long the answer may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Stop the calls of a variant, on all replicas within seconds.
///
/// Its commands wait in the broker, and scheduled retries are put off. Calls that are under way end. Syncs, webhooks and
/// look-ups of unknown outcomes continue. The command is sent as the user in amqp.url, which must be an operator.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  paybus pause cards --reason 'charges twice' --for 2h\n  \
                        paybus pause cards --reason 'their maintenance' --until 2026-12-01T08:00:00Z")]
pub struct PauseArguments {
    /// The variant.
    #[arg(value_name = "VARIANT")]
    variant: String,
    /// Why; shown by `paybus check` and in /readyz.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Resume by itself at this time.
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// Resume by itself after this time.
    #[arg(long, value_name = "DURATION", value_parser = read_duration, conflicts_with = "until")]
    r#for: Option<Duration>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Let the calls of a paused variant continue.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  paybus resume cards --reason 'their fix is deployed'")]
pub struct ResumeArguments {
    /// The variant.
    #[arg(value_name = "VARIANT")]
    variant: String,
    /// Why; kept in the history.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub async fn pause(arguments: PauseArguments, settings: &Settings) -> Result<Exit, Failure> {
    let PauseArguments { variant, reason, until, r#for, json } = arguments;
    let until = match r#for {
        Some(time) => Some(after(time)?),
        None => until,
    };
    let fields = FieldArguments { reason: Some(reason), until, ..FieldArguments::default() };
    send(CommandType::Pause, variant, fields, json, settings).await
}

pub async fn resume(arguments: ResumeArguments, settings: &Settings) -> Result<Exit, Failure> {
    let ResumeArguments { variant, reason, json } = arguments;
    send(CommandType::Resume, variant, FieldArguments { reason, ..FieldArguments::default() }, json, settings).await
}

fn after(time: Duration) -> Result<Timestamp, Failure> {
    let time = SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX);
    Timestamp::now().checked_add(time).map_err(|_| Failure::usage("--for: too long"))
}

async fn send(
    kind: CommandType,
    variant: String,
    fields: FieldArguments,
    json: bool,
    settings: &Settings,
) -> Result<Exit, Failure> {
    if !settings.variants.contains_key(&variant) {
        let known: Vec<&str> = settings.variants.keys().map(String::as_str).collect();
        return Err(Failure::usage(format!("no variant {variant} is configured; there are {}", known.join(", "))));
    }
    let command = CommandArguments::about_variant(kind, variant, fields, EXPIRES_IN);
    publish::run(PublishArguments::answered(command, TIMEOUT, json), settings).await
}
