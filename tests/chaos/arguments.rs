//! The command line. `cargo test` passes the same arguments to every test target, so this one ignores those of the
//! usual test harness.

use std::path::PathBuf;

use clap::Parser;
use uuid::Uuid;

use crate::ledger::GatewayName;

/// A soak test under faults, and its verdict.
#[derive(Debug, Parser)]
#[command(name = "chaos")]
pub struct Arguments {
    /// How long payments begin and faults happen.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// The seed, which draws the same plan again. Default: a different one each time.
    #[arg(long)]
    seed: Option<u64>,
    /// The number of replicas.
    #[arg(long, default_value_t = 3, value_parser = parse_replicas)]
    pub replicas: usize,
    /// The gateway to call.
    #[arg(long, value_enum, default_value_t = GatewayName::Http)]
    pub gateway: GatewayName,
    /// A debug build of an older release's `paybus`; every third replica is started with it.
    #[arg(long)]
    pub old_worker: Option<PathBuf>,
    /// Print the verdict as one JSON object.
    #[arg(long)]
    pub json: bool,
}

impl Arguments {
    /// Reads them; `None` if they are for another test harness.
    pub fn read() -> Option<Arguments> {
        let ours =
            ["--seconds", "--seed", "--replicas", "--gateway", "--old-worker", "--json", "--help", "-h", "--version"];
        let is_ours = |argument: String| ours.iter().any(|name| argument.split('=').next() == Some(name));
        let is_libtests = |argument: &String| {
            const NAMES: [&str; 8] = [
                "--list",
                "--exact",
                "--ignored",
                "--include-ignored",
                "--nocapture",
                "--no-capture",
                "--quiet",
                "--skip",
            ];
            !argument.starts_with('-') || NAMES.contains(&argument.as_str()) || argument.starts_with("--test-threads")
        };
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        if arguments.first().is_some_and(is_libtests) && !arguments.into_iter().any(is_ours) {
            eprintln!("chaos: not for these arguments; see `make chaos ARGS=--help`");
            return None;
        }
        Some(Arguments::parse())
    }

    /// The seed to use.
    pub fn seed(&self) -> u64 {
        // Short enough to type.
        self.seed.unwrap_or_else(|| u64::from(Uuid::new_v4().as_fields().0))
    }
}

fn parse_replicas(text: &str) -> Result<usize, String> {
    let count: usize = text.parse().map_err(|_| "must be a number".to_owned())?;
    if (1..=20).contains(&count) { Ok(count) } else { Err("must be from 1 to 20".to_owned()) }
}
