//! The program: parses arguments, loads the configuration, starts logging and runs the requested command.

use std::process::ExitCode;

use clap::Parser;
use paybus::cli::{Arguments, Exit, Failure};

/// Replaces glibc's allocator, in which the worker spent most of its time under load.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Wrong usage ends the process here, with exit code 2.
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("paybus: {failure}");
            }
            failure.exit.into()
        }
    }
}

fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let settings = arguments.settings()?;
    arguments.start_logging(&settings);
    let spans = arguments.export_spans(&settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(arguments.run(settings));
    // Tasks that still hang must not delay the exit.
    runtime.shutdown_background();
    // Exports the last spans only after a regular end: a process that is forced to exit must not wait for a collector.
    if let Some(spans) = spans
        && matches!(ended, Ok(Exit::Done))
    {
        spans.end();
    }
    ended
}
