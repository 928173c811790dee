//! `paybus watch`: prints events as they happen.

use std::time::Duration;

use clap::Args;
use serde_json::Value;
use uuid::Uuid;

use super::exit::{Exit, Failure};
use super::line::EventSummary;
use super::output::{Output, Style, is_terminal};
use crate::bus::client::{Client, Watched};
use crate::config::{Settings, duration};
use crate::wiring::bus_settings;

const AFTER_HELP: &str = "\
Examples:
  paybus watch
  paybus watch --binding 'cards.#'
  paybus watch --binding '#.confirmed' --json
  paybus watch --until-final 5f0c7a52 --timeout 1m

Times are UTC. A routing key is <variant>.<type>; payment.status_changed appends the new status.";

/// Print events from the bus as they happen, one per line, until Ctrl-C.
///
/// For earlier events, use `paybus events` or `paybus show`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct WatchArguments {
    /// Only events whose routing key matches: * stands for one word, # for any number of words.
    #[arg(long, value_name = "PATTERN", default_value = "#")]
    binding: String,
    /// Only events of this payment.
    #[arg(long, value_name = "UUID")]
    payment: Option<Uuid>,
    /// Exit after this many events.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Exit after the final answer to the command with this id; with 1 unless it succeeded.
    #[arg(long, value_name = "ID")]
    until_final: Option<String>,
    /// Exit after this time; with 1 if --count or --until-final is not reached by then.
    #[arg(long, value_name = "DURATION", value_parser = read_duration)]
    timeout: Option<Duration>,
    /// Print full payment ids, as when the output is not a terminal.
    #[arg(long)]
    long: bool,
    /// Print the whole events, one JSON object per line.
    #[arg(long)]
    json: bool,
}

/// A duration as in the configuration, for an argument.
pub fn read_duration(text: &str) -> Result<Duration, String> {
    duration::parse(text).ok_or_else(|| "expected a number and a unit, such as 100ms, 10s or 5m".to_owned())
}

pub async fn run(arguments: &WatchArguments, settings: &Settings) -> Result<Exit, Failure> {
    let client = Client::connect(&bus_settings(settings), "watch").await?;
    let mut watch = client.subscribe_events(&arguments.binding).await?;
    let mut viewer = Viewer::new(arguments, Output::new());
    viewer.begin()?;
    let watching = async {
        while let Some(watched) = watch.next().await? {
            if let Some(exit) = viewer.see(&watched)? {
                return Ok(exit);
            }
        }
        Err(Failure::connection_lost())
    };
    let ended = tokio::select! {
        ended = watching => ended,
        () = timed_out(arguments.timeout) => Ok(viewer.unfinished()),
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            Ok(viewer.unfinished())
        }
    };
    client.close().await;
    ended
}

async fn timed_out(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}

struct Viewer<'a> {
    arguments: &'a WatchArguments,
    output: Output,
    long: bool,
    seen: u64,
}

impl<'a> Viewer<'a> {
    fn new(arguments: &'a WatchArguments, output: Output) -> Viewer<'a> {
        Viewer { arguments, output, long: arguments.long || !is_terminal(), seen: 0 }
    }

    /// Shows a person that the command is running: the first event may take a while.
    fn begin(&self) -> Result<(), Failure> {
        if is_terminal() && !self.arguments.json {
            let title = format!("watching {} until Ctrl-C; times are UTC", self.arguments.binding);
            self.output.line(&self.output.paint(Style::Faint, &title))?;
        }
        Ok(())
    }

    /// Shows an event, and whether it is the last.
    fn see(&mut self, watched: &Watched) -> Result<Option<Exit>, Failure> {
        // Others can publish to the exchange too: a message that is not JSON is shown as an empty event.
        let event = serde_json::from_slice(&watched.body).unwrap_or(Value::Null);
        if !self.is_wanted(&event) {
            return Ok(None);
        }
        self.seen += 1;
        if self.arguments.json {
            self.output.json(&event)?;
        } else {
            self.output.line(&EventSummary::read(&event).line(self.output, self.long))?;
        }
        if let Some(id) = &self.arguments.until_final {
            return Ok(answer(&event, id));
        }
        Ok(self.arguments.count.filter(|count| self.seen >= *count).map(|_| Exit::Done))
    }

    fn is_wanted(&self, event: &Value) -> bool {
        self.arguments.payment.is_none_or(|payment| is_of(event, payment))
    }

    /// The exit code if the command ends before --count or --until-final is reached.
    fn unfinished(&self) -> Exit {
        let asked = self.arguments.count.is_some() || self.arguments.until_final.is_some();
        if asked { Exit::Failed } else { Exit::Done }
    }
}

/// Whether an event is of a payment.
pub fn is_of(event: &Value, payment: Uuid) -> bool {
    let named = |name: &str| event.get(name).and_then(Value::as_str).and_then(|id| Uuid::parse_str(id).ok());
    named("subject") == Some(payment) || named("partitionkey") == Some(payment)
}

/// How a command ended; `None` unless the event is its final answer.
pub fn answer(event: &Value, id: &str) -> Option<Exit> {
    let command = event.pointer("/data/command")?;
    let is_final = command.get("final").and_then(Value::as_bool) == Some(true);
    if !is_final || command.get("id").and_then(Value::as_str) != Some(id) {
        return None;
    }
    // A failure has a code, whether the event is a change of the payment or an answer of its own.
    let failed = event.pointer("/data/code").is_some();
    Some(if failed { Exit::Failed } else { Exit::Done })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn arguments() -> WatchArguments {
        WatchArguments {
            binding: "#".to_owned(),
            payment: None,
            count: None,
            until_final: None,
            timeout: None,
            long: false,
            json: false,
        }
    }

    #[test]
    fn an_answer_is_final_and_of_that_command() {
        let event = |id: &str, is_final: bool, code: Option<&str>| {
            let mut data = json!({ "command": { "id": id, "final": is_final } });
            if let Some(code) = code {
                data["code"] = json!(code);
            }
            json!({ "data": data })
        };
        assert_eq!(answer(&event("a", true, None), "a"), Some(Exit::Done));
        assert_eq!(answer(&event("a", true, Some("declined")), "a"), Some(Exit::Failed));
        assert_eq!(answer(&event("a", false, None), "a"), None);
        assert_eq!(answer(&event("b", true, None), "a"), None);
        assert_eq!(answer(&Value::Null, "a"), None);
    }

    #[test]
    fn events_of_other_payments_are_omitted() {
        let id = Uuid::from_u128(7);
        let arguments = WatchArguments { payment: Some(id), ..arguments() };
        let viewer = Viewer::new(&arguments, Output::plain());
        assert!(viewer.is_wanted(&json!({ "subject": id.to_string() })));
        assert!(viewer.is_wanted(&json!({ "subject": "order 7", "partitionkey": id.to_string() })));
        assert!(!viewer.is_wanted(&json!({ "subject": Uuid::from_u128(8).to_string() })));
        assert!(!viewer.is_wanted(&Value::Null));
    }

    #[test]
    fn it_fails_only_if_more_events_were_requested() {
        let plain = arguments();
        assert_eq!(Viewer::new(&plain, Output::plain()).unfinished(), Exit::Done);
        let counting = WatchArguments { count: Some(3), ..arguments() };
        assert_eq!(Viewer::new(&counting, Output::plain()).unfinished(), Exit::Failed);
    }
}
