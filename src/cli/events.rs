//! `paybus events`: prints stored events, and new ones with `--follow`.

use std::collections::HashSet;

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use uuid::Uuid;

use super::exit::{Exit, Failure};
use super::line::EventSummary;
use super::open_database;
use super::output::{Output, is_terminal};
use super::watch::{is_of, read_duration};
use crate::bus::client::{Client, Watch};
use crate::config::Settings;
use crate::store::Store;
use crate::store::query::history::Wanted;
use crate::wiring::bus_settings;

const AFTER_HELP: &str = "\
Examples:
  paybus events --since 10m
  paybus events --since 2026-11-22T12:00:00Z --json
  paybus events --payment 0192f0c1-7c5e-7000-8000-0123456789ab --follow

Times are UTC. Events are stored for as long as retention.events says.";

/// How far back to read if neither a time nor a payment is given.
const SINCE_DEFAULT: SignedDuration = SignedDuration::from_hours(1);

/// Events stored this recently may still be on their way to the broker, and then arrive a second time.
const UNDER_WAY: SignedDuration = SignedDuration::from_mins(10);

/// Print stored events in order, one per line.
///
/// Reads stored events from the database and, with --follow, new ones from the bus.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct EventsArguments {
    /// Only events of this payment.
    #[arg(long, value_name = "UUID")]
    payment: Option<Uuid>,
    /// Only events since WHEN: a time, or how long ago, such as 10m.
    ///
    /// Default: all events with --payment, otherwise those of the last hour.
    #[arg(long, value_name = "WHEN", value_parser = read_when)]
    since: Option<When>,
    /// Continue with new events until Ctrl-C.
    #[arg(long)]
    follow: bool,
    /// Print full payment ids, as when the output is not a terminal.
    #[arg(long)]
    long: bool,
    /// Print the whole events, one JSON object per line.
    #[arg(long)]
    json: bool,
}

/// A time, or how long ago it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    At(Timestamp),
    Ago(SignedDuration),
}

impl When {
    /// The point in time.
    pub(super) fn time(self, now: Timestamp) -> Timestamp {
        match self {
            When::At(time) => time,
            When::Ago(ago) => before(now, ago),
        }
    }
}

pub(super) fn read_when(text: &str) -> Result<When, String> {
    if let Ok(time) = text.parse() {
        return Ok(When::At(time));
    }
    let ago = read_duration(text).ok().and_then(|ago| SignedDuration::try_from(ago).ok());
    ago.map(When::Ago)
        .ok_or_else(|| "expected a time such as 2026-11-22T12:00:00Z, or a duration such as 10m".to_owned())
}

fn before(now: Timestamp, ago: SignedDuration) -> Timestamp {
    now.saturating_sub(ago).unwrap_or(Timestamp::MIN)
}

impl EventsArguments {
    fn wanted(&self, now: Timestamp) -> Wanted {
        let since = match (self.since, self.payment) {
            (Some(when), _) => Some(when.time(now)),
            (None, None) => Some(before(now, SINCE_DEFAULT)),
            (None, Some(_)) => None,
        };
        Wanted { payment: self.payment, since }
    }
}

pub async fn run(arguments: &EventsArguments, settings: &Settings) -> Result<Exit, Failure> {
    let store = open_database(settings).await?;
    let mut viewer = Viewer { arguments, output: Output::new(), seen: HashSet::new() };
    if !arguments.follow {
        viewer.show_kept(&store).await?;
        store.close();
        return Ok(Exit::Done);
    }
    let client = Client::connect(&bus_settings(settings), "events").await?;
    // Before the database is read, so that there is no gap between the two.
    let watch = client.subscribe_events("#").await?;
    viewer.show_kept(&store).await?;
    store.close();
    let ended = tokio::select! {
        ended = viewer.follow(watch) => ended,
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted.map(|()| Exit::Done)?),
    };
    client.close().await;
    ended
}

struct Viewer<'a> {
    arguments: &'a EventsArguments,
    output: Output,
    /// Ids of events that were shown and may arrive again.
    seen: HashSet<String>,
}

impl Viewer<'_> {
    async fn show_kept(&mut self, store: &Store) -> Result<(), Failure> {
        let now = Timestamp::now();
        let under_way = before(now, UNDER_WAY);
        let wanted = self.arguments.wanted(now);
        let mut position = store.first_position(wanted).await?;
        loop {
            let page = store.kept_events(wanted, position).await?;
            let Some(last) = page.last() else { return Ok(()) };
            position = last.position;
            for kept in page {
                let event: Value = serde_json::from_str(&kept.body)?;
                self.show(&event)?;
                let summary = EventSummary::read(&event);
                if let (Some(id), true) = (id(&event), summary.time.is_some_and(|time| time >= under_way)) {
                    self.seen.insert(id.to_owned());
                }
            }
        }
    }

    async fn follow(&mut self, mut watch: Watch) -> Result<Exit, Failure> {
        while let Some(watched) = watch.next().await? {
            // Others can publish to the exchange too: a message that is not JSON is shown as an empty event.
            let event = serde_json::from_slice(&watched.body).unwrap_or(Value::Null);
            let is_wanted = self.arguments.payment.is_none_or(|payment| is_of(&event, payment));
            let is_new = id(&event).is_none_or(|id| !self.seen.contains(id));
            if is_wanted && is_new {
                self.show(&event)?;
            }
        }
        Err(Failure::connection_lost())
    }

    fn show(&self, event: &Value) -> Result<(), Failure> {
        if self.arguments.json {
            return self.output.json(event);
        }
        let is_long = self.arguments.long || !is_terminal();
        Ok(self.output.line(&EventSummary::read(event).line(self.output, is_long))?)
    }
}

fn id(event: &Value) -> Option<&str> {
    event.get("id").and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_or_how_long_ago_it_is() {
        assert_eq!(read_when("10m"), Ok(When::Ago(SignedDuration::from_mins(10))));
        let time = "2026-11-22T12:00:00Z";
        assert_eq!(read_when(time), Ok(When::At(time.parse().expect("a time"))));
        assert!(read_when("yesterday").is_err());
    }

    #[test]
    fn the_last_hour_is_shown_by_default() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().expect("a time");
        let arguments = |payment, since| EventsArguments { payment, since, follow: false, long: false, json: false };
        let shown = |payment, since| arguments(payment, since).wanted(now).since.map(|since| since.to_string());
        assert_eq!(shown(None, None).as_deref(), Some("2026-11-22T11:00:00Z"));
        assert_eq!(shown(Some(Uuid::nil()), None), None);
        let ago = When::Ago(SignedDuration::from_mins(10));
        assert_eq!(shown(Some(Uuid::nil()), Some(ago)).as_deref(), Some("2026-11-22T11:50:00Z"));
    }
}
