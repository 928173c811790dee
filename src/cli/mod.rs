//! The command line: one file for each command, and what they share.

mod archive;
mod check;
mod consent;
mod dead;
mod events;
mod exit;
mod export;
mod forget;
mod line;
mod list;
mod logging;
mod migrate;
mod output;
mod publish;
mod schema;
mod show;
mod signals;
mod tame;
mod time;
mod watch;
mod webhooks;
mod worker;

use std::ffi::OsString;
use std::path::Path;

use clap::{Parser, Subcommand};

pub use self::exit::{Exit, Failure};
use crate::config::{self, Settings};
use crate::spans;
use crate::store::Store;
use crate::wiring::open_store;

const AFTER_HELP: &str = "\
Exit codes:
  0   done
  1   failed, or not as wished: a command was rejected, a check failed
  2   usage
  64  configuration
  69  broker or database not reachable

Configuration: the defaults of config/default.toml, under --config FILE, under the environment
(PAYBUS__DATABASE__URL, PAYBUS__AMQP__URL, ...).

Example:
  paybus migrate && paybus worker";

/// Payments over a message bus: at most one charge for one command, and never a lost event.
#[derive(Debug, Parser)]
#[command(name = "paybus", version, after_help = AFTER_HELP)]
pub struct Arguments {
    /// The configuration file.
    // A variable that is set and empty names no file; a path would be refused.
    #[arg(long, global = true, env = "PAYBUS_CONFIG", value_name = "FILE")]
    config: Option<OsString>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Worker(worker::WorkerArguments),
    Webhooks(webhooks::WebhooksArguments),
    Migrate(migrate::MigrateArguments),
    Publish(Box<publish::PublishArguments>),
    Watch(watch::WatchArguments),
    Events(events::EventsArguments),
    Show(show::ShowArguments),
    List(Box<list::ListArguments>),
    #[command(subcommand)]
    Dead(dead::DeadCommand),
    Forget(forget::ForgetArguments),
    Export(export::ExportArguments),
    Archive(archive::ArchiveArguments),
    Check(check::CheckArguments),
    Schema(schema::SchemaArguments),
}

impl Arguments {
    /// Reads the configuration.
    ///
    /// # Errors
    /// The first thing found wrong with it.
    pub fn settings(&self) -> Result<Settings, Failure> {
        let file = self.config.as_deref().filter(|file| !file.is_empty()).map(Path::new);
        Ok(config::load(file, config::environment()?.into_iter())?)
    }

    /// Starts logging to the standard error. Only what goes on until it is told to stop says more than warnings: what other
    /// commands have to say is their output.
    pub fn start_logging(&self, settings: &Settings) {
        // lapin tells of every connection's end as an error, even of one that was said goodbye to.
        let goes_on = matches!(self.command, Command::Worker(_) | Command::Webhooks(_));
        let filter = if goes_on { settings.log.filter.as_str() } else { "warn,lapin=off" };
        logging::start(settings.log.format, filter, settings.tracing.endpoint.is_some());
    }

    /// Begins to export spans, where that is configured and there is a command that makes any.
    ///
    /// # Errors
    /// The collector's address cannot be used.
    pub fn export_spans(&self, settings: &Settings) -> Result<Option<spans::Export>, Failure> {
        let makes_spans = matches!(self.command, Command::Worker(_) | Command::Webhooks(_));
        Ok(if makes_spans { spans::start(&settings.tracing)? } else { None })
    }

    /// Carries the command out.
    ///
    /// # Errors
    /// It could not be carried out.
    pub async fn run(self, settings: Settings) -> Result<Exit, Failure> {
        match self.command {
            Command::Worker(arguments) => worker::run(arguments, settings).await,
            Command::Webhooks(arguments) => webhooks::run(arguments, settings).await,
            Command::Migrate(arguments) => migrate::run(&arguments, &settings).await,
            Command::Publish(arguments) => publish::run(*arguments, &settings).await,
            Command::Watch(arguments) => watch::run(&arguments, &settings).await,
            Command::Events(arguments) => events::run(&arguments, &settings).await,
            Command::Show(arguments) => show::run(&arguments, &settings).await,
            Command::List(arguments) => list::run(&arguments, &settings).await,
            Command::Dead(command) => dead::run(command, &settings).await,
            Command::Forget(arguments) => forget::run(&arguments, &settings).await,
            Command::Export(arguments) => export::run(&arguments, &settings).await,
            Command::Archive(arguments) => archive::run(&arguments, &settings).await,
            Command::Check(arguments) => check::run(&arguments, &settings).await,
            Command::Schema(arguments) => schema::run(&arguments),
        }
    }
}

/// The database, once its schema is known to be there: without one, every question would fail for a reason that says
/// nothing.
async fn open_database(settings: &Settings) -> Result<Store, Failure> {
    let store = open_store(settings)?;
    crate::store::migrate::check(&store).await?;
    Ok(store)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    const COMMANDS: &[&str] = &[
        "worker",
        "webhooks",
        "migrate",
        "publish",
        "watch",
        "events",
        "show",
        "list",
        "dead list",
        "dead show",
        "dead replay",
        "dead drop",
        "dead release",
        "forget",
        "export",
        "archive",
        "check",
        "schema",
    ];

    #[test]
    fn the_arguments_are_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_has_help_with_an_example_that_fits_a_terminal() {
        for name in COMMANDS {
            let line = format!("paybus {name} --help");
            let help = Arguments::try_parse_from(line.split(' ')).expect_err("help").to_string();
            assert!(help.contains(&format!("paybus {name}")) && help.contains("Example"), "{help}");
            assert!(help.contains("--config"), "{help}");
            let longest = help.lines().map(|line| line.chars().count()).max();
            assert!(longest <= Some(120), "{longest:?} {help}");
        }
    }

    /// The words of a line, as a shell would make them.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
        for char in line.chars().chain([' ']) {
            match (quote, char) {
                (None, '\'' | '"') => quote = Some(char),
                (Some(open), _) if open == char => quote = None,
                (None, ' ') => words.push(std::mem::take(&mut word)),
                _ => word.push(char),
            }
        }
        words.retain(|word| !word.is_empty());
        words
    }

    #[test]
    fn what_is_to_be_typed_on_call_is_understood() {
        let id = "0192f0c1-7c5e-7000-8000-0123456789ab";
        let page = include_str!("../../docs/on-call.md").replace("\\\n", " ");
        let page = page.replace("PAYMENT", id).replace("OPERATION", id);
        let lines: Vec<&str> = page.lines().filter(|line| line.starts_with("paybus ")).collect();
        assert!(lines.len() > 20, "{lines:?}");
        for line in lines {
            let command = line.split(" #").next().unwrap_or_default();
            if let Err(error) = Arguments::try_parse_from(words(command)) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn wrong_usage_is_told_from_help() {
        let kind = |line: &str| Arguments::try_parse_from(line.split(' ')).map_err(|error| error.kind());
        assert_eq!(kind("paybus").unwrap_err(), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
        assert_eq!(kind("paybus bogus").unwrap_err(), ErrorKind::InvalidSubcommand);
        assert_eq!(kind("paybus show").unwrap_err(), ErrorKind::MissingRequiredArgument);
        assert_eq!(kind("paybus show no-uuid").unwrap_err(), ErrorKind::ValueValidation);
        assert!(kind("paybus check --config x.toml --json").is_ok());
    }
}
