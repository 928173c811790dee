//! `paybus archive`: moves old, settled payments from the database into a file.

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

use super::consent::{Consent, HOW_TO_CONFIRM};
use super::events::{When, read_when};
use super::exit::{Exit, Failure};
use super::open_database;
use super::output::Output;
use crate::backoff::{self, retry};
use crate::config::Settings;
use crate::failpoint;
use crate::plural::counted;
use crate::store::retention::archive::{Looked, Selection};
use crate::store::{Store, StoreError};

const AFTER_HELP: &str = "\
Examples:
  paybus archive --before 400d
  paybus archive --before 400d --to archive-2026-12.jsonl --who YOU --yes

Archives payments that are confirmed, rejected, refunded, cancelled or in error, and have no open
command and no unsent event. A short row of each stays, so that its id is never charged again:
commands for it are rejected with payment_archived.";

/// No younger payment is archived: the broker may still have its commands, which would be answered again.
const YOUNGEST: SignedDuration = SignedDuration::from_hours(24);

/// Maximum number of attempts for a batch that conflicts with a worker's purge in the database.
const TRIES: u32 = 5;

/// Move old, settled payments into a file; a dry run unless --yes is given.
///
/// Each batch is on disk before it is deleted from the database. If the command ends early, run it again with another
/// file; if a payment is in two files, the later one has its final state.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct ArchiveArguments {
    /// Only payments with nothing newer than WHEN: a time, or how long ago, such as 400d.
    #[arg(long, value_name = "WHEN", value_parser = read_when)]
    before: When,
    /// Only payments of this variant.
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// The file to create, with one JSON object per line, as `paybus export` prints them.
    #[arg(long, value_name = "FILE", required_if_eq("yes", "true"))]
    to: Option<PathBuf>,
    /// Also archive audit rows of that age.
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
    /// Those of them that are settled.
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
        return Err(Failure::usage("--before: expected at least a day ago, such as 400d"));
    }
    let store = open_database(settings).await?;
    let file = arguments.to.as_deref().filter(|_| arguments.consent.yes).map(create).transpose()?;
    let archived = archive(&store, arguments, before, file, who).await;
    store.close();
    let counts = archived?;
    print(arguments, &counts)?;
    Ok(Exit::Done)
}

/// Creates a new file for each run, so that no other is changed; readable by its owner only, because it contains names.
fn create(path: &Path) -> Result<File, Failure> {
    let unusable = |error: io::Error| {
        Failure::new(Exit::Failed, format!("--to {}: cannot create the file: {error}", path.display()))
    };
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(unusable)?;
    // So that the file still has its name after a crash.
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
        // Leaves half of the time to others.
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
    let archive = || store.archive(settled);
    let archived = retry(backoff::contention(), archive, |error, tries| match error {
        StoreError::Conflict(_) if tries < TRIES => Ok(()),
        error => Err(error),
    });
    Ok(archived.await?.len())
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
    Ok(output.line(&summary(counts, arguments.consent.yes))?)
}

fn summary(counts: &Counts, is_done: bool) -> String {
    let Counts { looked_at, settled, archived, audit } = counts;
    if !is_done {
        return format!("would be archived: {settled} of {looked_at} payments that are old enough; {HOW_TO_CONFIRM}");
    }
    let mut text = format!("archived: {archived} of {looked_at} payments that are old enough");
    if *audit > 0 {
        text.push_str(&format!(", and {}", counted(audit, "audit row")));
    }
    if settled > archived {
        text.push_str(&format!("; not archived because they changed meanwhile: {}", settled - archived));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_is_one_line() {
        let counts = Counts { looked_at: 9, settled: 7, archived: 6, audit: 3 };
        let would = "would be archived: 7 of 9 payments that are old enough; add --yes to do it";
        assert_eq!(summary(&counts, false), would);
        let did = "archived: 6 of 9 payments that are old enough, and 3 audit rows; not archived because they changed \
                   meanwhile: 1";
        assert_eq!(summary(&counts, true), did);
        let all = Counts { looked_at: 9, settled: 7, archived: 7, audit: 0 };
        assert_eq!(summary(&all, true), "archived: 7 of 9 payments that are old enough");
    }

    #[test]
    fn an_existing_file_is_not_changed() {
        let path = std::env::temp_dir().join(format!("paybus-{}.jsonl", Uuid::new_v4()));
        let mut file = create(&path).expect("a new file");
        keep(&mut file, ["{}", "{}"].into_iter()).expect("written");
        let refused = create(&path).expect_err("it is there");
        assert!(refused.message.contains("exists"), "{refused:?}");
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), "{}\n{}\n");
        std::fs::remove_file(&path).expect("gone");
    }
}
