//! `paybus export`: payments with everything that is stored about them, as JSON lines.

use clap::Args;
use jiff::Timestamp;

use super::events::{When, read_when};
use super::exit::{Exit, Failure};
use super::open_database;
use super::output::Output;
use super::tame::tame_json;
use crate::config::Settings;
use crate::store::Store;
use crate::store::retention::archive::{Looked, Selection};

const AFTER_HELP: &str = "\
Examples:
  paybus export > payments.jsonl
  paybus export --since 2026-11-01T00:00:00Z --until 2026-12-01T00:00:00Z --variant cards

Each line: {\"payment\": {...}, \"operations\": [...], \"movements\": [...], \"events\": [...]}";

/// Print payments with their operations, movements and events, as JSON lines.
///
/// In order of creation, each payment as of a single moment. Archived payments are not included.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct ExportArguments {
    /// Only payments created since WHEN: a time, or how long ago, such as 30d.
    #[arg(long, value_name = "WHEN", value_parser = read_when)]
    since: Option<When>,
    /// Only payments created before WHEN: a time, or how long ago, such as 30d.
    #[arg(long, value_name = "WHEN", value_parser = read_when)]
    until: Option<When>,
    /// Only payments of this variant.
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
}

pub async fn run(arguments: &ExportArguments, settings: &Settings) -> Result<Exit, Failure> {
    let now = Timestamp::now();
    let selection = Selection {
        variant: arguments.variant.clone(),
        since: arguments.since.map(|since| since.time(now)),
        until: arguments.until.map(|until| until.time(now)),
        settled_before: None,
    };
    let store = open_database(settings).await?;
    let exported = export(&store, &selection).await;
    store.close();
    exported
}

async fn export(store: &Store, selection: &Selection) -> Result<Exit, Failure> {
    let output = Output::new();
    let mut last: Option<Looked> = None;
    loop {
        let mut page = store.look_at_payments(selection, last.as_ref()).await?;
        for document in page.iter().filter_map(|payment| payment.document.as_deref()) {
            output.line(&tame_json(document))?;
        }
        last = page.pop();
        if last.is_none() {
            return Ok(Exit::Done);
        }
    }
}
