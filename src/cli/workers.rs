//! `paybus workers`: the replicas, which of them are ready, and how their variants are.

use clap::Args;
use serde_json::{Value, json};

use super::exit::{Exit, Failure};
use super::open_database;
use super::output::{Output, Style};
use super::tame::tame;
use super::time::span;
use crate::config::Settings;
use crate::store::workers::{KnownWorker, VariantReport};

/// List the replicas: which are ready and why not, their versions, circuit breakers and calls in flight.
///
/// Reads only the database, where each replica reports every five seconds. One that was killed is listed for an hour.
/// Exits with 1 if none is ready.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  paybus workers\n  paybus workers --json")]
pub struct WorkersArguments {
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: &WorkersArguments, settings: &Settings) -> Result<Exit, Failure> {
    let store = open_database(settings).await?;
    let workers = store.workers().await;
    store.close();
    let workers = workers?;
    let output = Output::new();
    for worker in &workers {
        if arguments.json {
            output.json(&object(worker))?;
        } else {
            lines(output, worker).iter().try_for_each(|line| output.line(line))?;
        }
    }
    if workers.is_empty() && !arguments.json {
        output.line("no worker has reported in the last hour")?;
    }
    Ok(if workers.iter().any(KnownWorker::is_ready) { Exit::Done } else { Exit::Failed })
}

/// The state of a replica, in words.
fn standing(worker: &KnownWorker) -> (String, Style) {
    let report = &worker.report;
    if worker.is_lost() {
        (format!("not seen for {}", span(worker.unseen())), Style::Bad)
    } else if report.draining {
        ("draining".to_owned(), Style::Open)
    } else if worker.is_ready() {
        ("ready".to_owned(), Style::Good)
    } else {
        (format!("not ready: {}", tame(&report.not_ready)), Style::Bad)
    }
}

fn lines(output: Output, worker: &KnownWorker) -> Vec<String> {
    let report = &worker.report;
    let (words, style) = standing(worker);
    let calls: usize = report.variants.iter().map(|variant| variant.in_flight).sum();
    let since = span(worker.read_at.duration_since(worker.started).as_secs());
    let mut lines = vec![format!(
        "{}  {}  {}  paybus {}, up {since}, {calls} calls in flight, {}",
        report.id,
        output.paint(Style::Strong, &tame(&report.host)),
        tame(&report.address),
        tame(&report.version),
        output.paint(style, &words),
    )];
    lines.extend(
        report.variants.iter().filter_map(unusual).map(|words| format!("    {}", output.paint(Style::Open, &words))),
    );
    lines
}

/// What is not as usual with a variant.
fn unusual(variant: &VariantReport) -> Option<String> {
    let breaker = (!variant.is_breaker_closed()).then(|| format!("circuit breaker {}", tame(&variant.breaker)));
    let pause = variant.paused.then(|| "paused by an operator".to_owned());
    let words: Vec<String> = breaker.into_iter().chain(pause).collect();
    (!words.is_empty()).then(|| format!("{}: {}", tame(&variant.name), words.join(", ")))
}

fn object(worker: &KnownWorker) -> Value {
    let report = &worker.report;
    json!({
        "worker": report.id,
        "host": report.host,
        "address": report.address,
        "version": report.version,
        "started": worker.started,
        "seen": worker.seen,
        "seconds_unseen": worker.unseen(),
        "draining": report.draining,
        "not_ready": report.not_ready,
        "variants": report.variants,
    })
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};
    use uuid::Uuid;

    use super::*;
    use crate::store::workers::WorkerReport;

    fn worker(seen_ago: i64, draining: bool, not_ready: &str) -> KnownWorker {
        let read_at = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(10);
        let variant = |name: &str, breaker: &str, paused| VariantReport {
            name: name.to_owned(),
            breaker: breaker.to_owned(),
            paused,
            in_flight: 2,
        };
        let report = WorkerReport {
            id: Uuid::from_u128(1),
            host: "web-1".to_owned(),
            version: "0.1.0".to_owned(),
            address: "10.0.0.1:9090".to_owned(),
            draining,
            not_ready: not_ready.to_owned(),
            variants: vec![variant("cards", "open", true), variant("debit", "closed", false)],
        };
        let seen = read_at - SignedDuration::from_secs(seen_ago);
        KnownWorker { report, started: read_at - SignedDuration::from_hours(2), seen, read_at }
    }

    #[test]
    fn a_replica_is_ready_unless_something_says_otherwise() {
        let words = |worker: KnownWorker| standing(&worker).0;
        assert_eq!(words(worker(3, false, "")), "ready");
        assert_eq!(words(worker(3, true, "intake: draining")), "draining");
        assert_eq!(words(worker(3, false, "commits: no commit for 12 s")), "not ready: commits: no commit for 12 s");
        assert_eq!(words(worker(90, false, "")), format!("not seen for {}", span(90)));
    }

    #[test]
    fn only_variants_with_something_unusual_have_a_line() {
        let lines = lines(Output::plain(), &worker(3, false, ""));
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains("web-1") && lines[0].contains("4 calls in flight"), "{lines:?}");
        assert_eq!(lines[1].trim(), "cards: circuit breaker open, paused by an operator");
    }
}
