//! The command line: one file per command, and what the commands share.

mod archive;
mod check;
mod completions;
mod consent;
mod dead;
mod events;
mod exit;
mod export;
mod forget;
mod line;
mod list;
mod migrate;
mod output;
mod pause;
mod publish;
mod schema;
mod show;
mod signals;
mod tame;
mod time;
mod watch;
mod webhooks;
mod worker;
mod workers;

use std::ffi::OsString;
use std::path::Path;

use clap::{Parser, Subcommand};

pub use self::exit::{Exit, Failure};
use crate::config::{self, Settings};
use crate::store::Store;
use crate::telemetry::{logging, spans};
use crate::wiring::open_store;

const AFTER_HELP: &str = "\
Exit codes:
  0   success
  1   failure, such as a rejected command or a failed check
  2   wrong arguments
  64  invalid configuration
  69  broker or database unreachable

Configuration: environment variables (PAYBUS__DATABASE__URL, PAYBUS__AMQP__URL, ...) override
--config FILE, which overrides the built-in defaults (config/default.toml).

Example:
  paybus migrate && paybus worker";

/// Payments over a message bus: at most one charge per command, and no lost events.
#[derive(Debug, Parser)]
#[command(name = "paybus", version, after_help = AFTER_HELP)]
pub struct Arguments {
    /// Configuration file.
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
    Workers(workers::WorkersArguments),
    Pause(pause::PauseArguments),
    Resume(pause::ResumeArguments),
    #[command(subcommand)]
    Dead(dead::DeadCommand),
    Forget(forget::ForgetArguments),
    Export(export::ExportArguments),
    Archive(archive::ArchiveArguments),
    Check(check::CheckArguments),
    Schema(schema::SchemaArguments),
    Completions(completions::CompletionsArguments),
    Man(completions::ManArguments),
}

impl Arguments {
    /// Reads the configuration.
    ///
    /// # Errors
    /// The configuration cannot be read or is invalid.
    pub fn settings(&self) -> Result<Settings, Failure> {
        let file = self.config.as_deref().filter(|file| !file.is_empty()).map(Path::new);
        Ok(config::load(file, config::environment()?.into_iter())?)
    }

    /// Starts logging to standard error. Only long-running commands log more than warnings: the result of the others is
    /// their output.
    pub fn start_logging(&self, settings: &Settings) {
        // lapin logs the end of every connection as an error, even after a regular close.
        let is_long_running = matches!(self.command, Command::Worker(_) | Command::Webhooks(_));
        let filter = if is_long_running { settings.log.filter.as_str() } else { "warn,lapin=off" };
        logging::start(settings.log.format, filter, settings.tracing.endpoint.is_some());
    }

    /// Starts to export spans, if that is configured and the command creates any.
    ///
    /// # Errors
    /// The collector's address cannot be used.
    pub fn export_spans(&self, settings: &Settings) -> Result<Option<spans::Export>, Failure> {
        let makes_spans = matches!(self.command, Command::Worker(_) | Command::Webhooks(_));
        Ok(if makes_spans { spans::start(&settings.tracing)? } else { None })
    }

    /// Runs the command.
    ///
    /// # Errors
    /// The command failed.
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
            Command::Workers(arguments) => workers::run(&arguments, &settings).await,
            Command::Pause(arguments) => pause::pause(arguments, &settings).await,
            Command::Resume(arguments) => pause::resume(arguments, &settings).await,
            Command::Dead(command) => dead::run(command, &settings).await,
            Command::Forget(arguments) => forget::run(&arguments, &settings).await,
            Command::Export(arguments) => export::run(&arguments, &settings).await,
            Command::Archive(arguments) => archive::run(&arguments, &settings).await,
            Command::Check(arguments) => check::run(&arguments, &settings).await,
            Command::Schema(arguments) => schema::run(&arguments),
            Command::Completions(arguments) => completions::completions(&arguments),
            Command::Man(arguments) => completions::man(&arguments),
        }
    }
}

/// Opens the database and checks that its schema exists: without a schema, every query would fail with an error that
/// does not explain why.
async fn open_database(settings: &Settings) -> Result<Store, Failure> {
    let store = open_store(settings)?;
    crate::store::schema::migrate::check(&store).await?;
    Ok(store)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    mod reference;

    const COMMANDS: &[&str] = &[
        "worker",
        "webhooks",
        "migrate",
        "publish",
        "watch",
        "events",
        "show",
        "list",
        "workers",
        "pause",
        "resume",
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
        "completions",
        "man",
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

    #[test]
    fn each_command_has_a_manual_page_and_can_be_completed() {
        let pages = std::env::temp_dir().join(format!("paybus-man-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&pages).expect("a directory");
        clap_mangen::generate_to(Arguments::command(), &pages).expect("pages");
        let mut bash = Vec::new();
        clap_complete::generate(clap_complete::Shell::Bash, &mut Arguments::command(), "paybus", &mut bash);
        let bash = String::from_utf8(bash).expect("text");
        for name in COMMANDS {
            let page = pages.join(format!("paybus-{}.1", name.replace(' ', "-")));
            assert!(
                page.is_file() && bash.contains(&format!("paybus__subcmd__{}", name.replace(' ', "__subcmd__"))),
                "{name}"
            );
        }
        std::fs::remove_dir_all(&pages).expect("removed");
    }

    #[test]
    fn wrong_usage_is_distinguished_from_help() {
        let kind = |line: &str| Arguments::try_parse_from(line.split(' ')).map_err(|error| error.kind());
        assert_eq!(kind("paybus").unwrap_err(), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
        assert_eq!(kind("paybus bogus").unwrap_err(), ErrorKind::InvalidSubcommand);
        assert_eq!(kind("paybus show").unwrap_err(), ErrorKind::MissingRequiredArgument);
        assert_eq!(kind("paybus show no-uuid").unwrap_err(), ErrorKind::ValueValidation);
        assert!(kind("paybus check --config x.toml --json").is_ok());
    }
}
