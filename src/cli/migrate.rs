//! `paybus migrate`: the database's schema and the broker's topology.

use clap::{Args, ValueEnum};
use serde_json::json;

use super::exit::{Exit, Failure};
use super::output::{Output, Style};
use crate::bus::connection::connect;
use crate::bus::topology;
use crate::config::Settings;
use crate::store::schema::migrate;
use crate::wiring::{bus_settings, open_store_to_migrate};

/// Migrate the database schema, and declare the broker's exchanges and queues.
///
/// Safe to run at any time and repeatedly: it changes only what is missing or outdated.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  paybus migrate\n  paybus migrate --only database")]
pub struct MigrateArguments {
    /// Migrate only one of the two, for example if they have different owners.
    #[arg(long, value_name = "WHAT")]
    only: Option<Part>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Database,
    Broker,
}

pub async fn run(arguments: &MigrateArguments, settings: &Settings) -> Result<Exit, Failure> {
    let output = Output::new();
    let mut applied = None;
    if arguments.only != Some(Part::Broker) {
        let store = open_store_to_migrate(settings)?;
        let steps = migrate::migrate(&store).await?;
        store.close();
        let did = if steps.is_empty() { "up to date".to_owned() } else { format!("applied {}", steps.join(", ")) };
        report(output, arguments, "database", &did)?;
        applied = Some(steps);
    }
    let mut declared = None;
    if arguments.only != Some(Part::Database) {
        let names: Vec<&str> = settings.variants.keys().map(String::as_str).collect();
        declare(settings, &names).await?;
        let did =
            format!("declared exchanges and queues: prefix {}, variants {}", settings.amqp.prefix, names.join(", "));
        report(output, arguments, "broker", &did)?;
        declared = Some(names);
    }
    if arguments.json {
        let broker = declared.map(|names| json!({ "prefix": settings.amqp.prefix, "variants": names }));
        output.json(&json!({ "database": applied.map(|steps| json!({ "applied": steps })), "broker": broker }))?;
    }
    Ok(Exit::Done)
}

async fn declare(settings: &Settings, variants: &[&str]) -> Result<(), Failure> {
    let bus = bus_settings(settings);
    let connection = connect(&bus, "migrate").await?;
    let declared = topology::declare(&connection, &bus, variants).await;
    connection.close().await;
    Ok(declared?)
}

fn report(output: Output, arguments: &MigrateArguments, what: &str, did: &str) -> Result<(), Failure> {
    if !arguments.json {
        output.line(&format!("{} {did}", output.column(Style::Strong, what, 9)))?;
    }
    Ok(())
}
