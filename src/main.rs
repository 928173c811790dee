//! The program: arguments, configuration, logging, and the command that was asked for.

use std::process::ExitCode;

use clap::Parser;
use paybus::cli::{Arguments, Exit, Failure};

/// Under load most of the worker's time went into glibc's allocator, which was made for other programs.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Wrong usage ends here, with 2.
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
    // What still hangs then must not hold up the end.
    runtime.shutdown_background();
    // Whoever ends it at once does not want to wait for a collector.
    if let Some(spans) = spans
        && matches!(ended, Ok(Exit::Done))
    {
        spans.end();
    }
    ended
}
