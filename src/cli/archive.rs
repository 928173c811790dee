//! `paybus archive`: payments that are settled for good go from the database into a file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::consent::Consent;
use super::events::{When, read_when};
use super::exit::{Exit, Failure};
use super::open_database;
use super::output::Output;
use crate::config::Settings;
use crate::store::archive::{Looked, Selection};
use crate::store::{Store, StoreError};
use crate::{backoff, failpoint};

const AFTER_HELP: &str = "\
Examples:
  paybus archive --before 400d
  paybus archive --before 400d --to archive-2026-12.jsonl --who YOU --yes

Archived are payments that are confirmed, rejected, refunded, cancelled or in error, with no open
command and no unsent event. What stays of each is a short row, so that its id is never charged again:
commands for it are rejected with payment_archived.";

/// No younger payment is archived: the broker may still have its commands, which would be answered once more.
const YOUNGEST: SignedDuration = SignedDuration::from_hours(24);

/// How often a batch is tried that meets a worker's purge in the database.
const TRIES: u32 = 5;

/// Move payments that are settled for good from the database into a file. A dry run unless --yes is given.
///
/// Each batch is on the disk before it leaves the database. Whatever ends the command, it can be run again with another
/// file; a payment that is in two files is in the later one as it was last.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct ArchiveArguments {
    /// Payments of which nothing is newer than a time, or than so many days: 400d.
    #[arg(long, value_name = "WHEN", value_parser = read_when)]
    before: When,
    /// Only payments of this variant.
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// The file that is made for them, one JSON object a line, as `paybus export` prints them.
    #[arg(long, value_name = "FILE", required_if_eq("yes", "true"))]
    to: Option<PathBuf>,
    /// The audit's rows that are as old, as well.
    #[arg(long, conflicts_with = "variant")]
    audit: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    consent: Consent,
}

/// What was done, or would be.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
struct Counts {
    /// Payments that are old enough by their creation.
    looked_at: usize,
    /// Those of them that are settled for good.
    settled: usize,
    /// Those that left the database. The others changed meanwhile and stay, though the file has them.
    archived: usize,
    /// Rows of the audit that left it.
    audit: u64,
}

pub async fn run(arguments: &ArchiveArguments, settings: &Settings) -> Result<Exit, Failure> {
    let who = arguments.consent.who()?;
    let now = Timestamp::now();
    let before = arguments.before.time(now);
    if before > now.saturating_sub(YOUNGEST).unwrap_or(Timestamp::MIN) {
        return Err(Failure::usage("--before: expected a day ago, or earlier"));
    }
    let store = open_database(settings).await?;
    let file = arguments.to.as_deref().filter(|_| arguments.consent.yes).map(create).transpose()?;
    let archived = archive(&store, arguments, before, file, who).await;
    store.close();
    let counts = archived?;
    print(arguments, &counts)?;
    Ok(Exit::Done)
}

/// A file of its own for each run: nothing of another one is changed. It holds what customers are called.
fn create(path: &Path) -> Result<File, Failure> {
    let unusable = |error: io::Error| Failure::new(Exit::Failed, format!("--to {}: {error}", path.display()));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(unusable)?;
    // So that after a crash the file is found by its name.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(unusable)?;
    Ok(file)
}

async fn archive(
    store: &Store,
    arguments: &ArchiveArguments,
    before: Timestamp,
    mut file: Option<File>,
    who: Option<&str>,
) -> Result<Counts, Failure> {
    let selection = Selection {
        variant: arguments.variant.clone(),
        since: None,
        until: Some(before),
        settled_before: Some(before),
    };
    let mut counts = Counts::default();
    let mut last: Option<Looked> = None;
    loop {
        let begun = Instant::now();
        let mut page = store.look_at_payments(&selection, last.as_ref()).await?;
        let settled: Vec<&Looked> = page.iter().filter(|payment| payment.document.is_some()).collect();
        counts.looked_at += page.len();
        counts.settled += settled.len();
        if let Some(file) = file.as_mut().filter(|_| !settled.is_empty()) {
            keep(file, settled.iter().filter_map(|payment| payment.document.as_deref()))?;
            failpoint::reach("kept", Uuid::nil());
            counts.archived += take_out(store, &settled).await?;
        }
        last = page.pop();
        if last.is_none() {
            break;
        }
        // Half of the time is the others'.
        tokio::time::sleep(begun.elapsed().min(Duration::from_secs(1))).await;
    }
    if let (Some(file), true) = (file.as_mut(), arguments.audit) {
        counts.audit = archive_audit(store, before, file).await?;
    }
    if let (Some(_), Some(who)) = (file, who) {
        let to = arguments.to.as_ref().map(|path| path.display().to_string());
        let details = json!({ "before": before, "variant": arguments.variant, "to": to, "counts": counts });
        store.audit(who, "archive", &details).await?;
    }
    Ok(counts)
}

/// Writes lines, and returns when they are on the disk.
fn keep<'a>(file: &mut File, lines: impl Iterator<Item = &'a str>) -> io::Result<()> {
    let mut text = String::new();
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

async fn take_out(store: &Store, settled: &[&Looked]) -> Result<usize, StoreError> {
    let mut backoff = backoff::contention();
    let mut tries = 1;
    loop {
        match store.archive(settled).await {
            Err(StoreError::Conflict(_)) if tries < TRIES => tokio::time::sleep(backoff.next_delay()).await,
            archived => return Ok(archived?.len()),
        }
        tries += 1;
    }
}

async fn archive_audit(store: &Store, before: Timestamp, file: &mut File) -> Result<u64, Failure> {
    let mut archived = 0;
    loop {
        let rows = store.old_audit(before).await?;
        if rows.is_empty() {
            return Ok(archived);
        }
        keep(file, rows.iter().map(|row| row.document.as_str()))?;
        archived += store.drop_audit(&rows, before).await?;
    }
}

fn print(arguments: &ArchiveArguments, counts: &Counts) -> Result<(), Failure> {
    let output = Output::new();
    if arguments.json {
        return output.json(&json!({ "done": arguments.consent.yes, "counts": counts }));
    }
    Ok(output.line(&told(counts, arguments.consent.yes))?)
}

fn told(counts: &Counts, is_done: bool) -> String {
    let Counts { looked_at, settled, archived, audit } = counts;
    if !is_done {
        return format!("would be archived: {settled} of {looked_at} payments that are old enough; do it with --yes");
    }
    let mut text = format!("archived: {archived} of {looked_at} payments that are old enough");
    if settled > archived {
        text.push_str(&format!(", {} changed meanwhile and stay", settled - archived));
    }
    if *audit > 0 {
        text.push_str(&format!(", and {audit} rows of the audit"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_told_in_one_line() {
        let counts = Counts { looked_at: 9, settled: 7, archived: 6, audit: 3 };
        let would = "would be archived: 7 of 9 payments that are old enough; do it with --yes";
        assert_eq!(told(&counts, false), would);
        let did =
            "archived: 6 of 9 payments that are old enough, 1 changed meanwhile and stay, and 3 rows of the audit";
        assert_eq!(told(&counts, true), did);
        let all = Counts { looked_at: 9, settled: 7, archived: 7, audit: 0 };
        assert_eq!(told(&all, true), "archived: 7 of 9 payments that are old enough");
    }

    #[test]
    fn a_file_that_is_there_is_left_alone() {
        let path = std::env::temp_dir().join(format!("paybus-{}.jsonl", Uuid::new_v4()));
        let mut file = create(&path).expect("a new file");
        keep(&mut file, ["{}", "{}"].into_iter()).expect("written");
        let refused = create(&path).expect_err("it is there");
        assert!(refused.message.contains("exists"), "{refused:?}");
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), "{}\n{}\n");
        std::fs::remove_file(&path).expect("gone");
    }
}
