//! Log lines: text for a person at a terminal, else JSON. They go to the standard error; the standard output is a
//! command's own.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Crates that say at `info` what only their authors want to know. A filter that names one of them overrides this.
/// lapin tells of every connection's end as an error, even of one that was said goodbye to and whose socket the broker
/// then resets; the ends that matter are told by the bus itself. And it logs a returned message with its whole body, which
/// is a customer's data.
const QUIET: &str = "lapin=off,lapin::returned_messages=off,tokio_postgres=warn,deadpool_postgres=warn,hyper=warn,h2=warn,reqwest=warn,rustls=warn";

/// Starts logging. The filter is the configuration's, which is known to parse.
///
/// Where spans are exported, JSON lines name trace and span.
pub fn start(format: LogFormat, filter: &str, with_spans: bool) {
    let is_terminal = std::io::stderr().is_terminal();
    let is_text = match format {
        LogFormat::Auto => is_terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let lines = tracing_subscriber::fmt().with_env_filter(directives(filter)).with_writer(std::io::stderr);
    let started = if is_text {
        lines.with_ansi(is_terminal).try_init()
    } else {
        lines.json().flatten_event(true).with_current_span(with_spans).with_span_list(false).try_init()
    };
    if let Err(error) = started {
        eprintln!("paybus: logging was started before: {error}");
    }
}

fn directives(filter: &str) -> EnvFilter {
    EnvFilter::new(format!("{QUIET},{filter}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noisy_crates_are_quiet_until_they_are_named() {
        let shown = directives("info").to_string();
        assert!(shown.contains("lapin=off") && shown.contains("info"), "{shown}");
        let shown = directives("info,lapin=debug").to_string();
        assert!(shown.contains("lapin=debug") && !shown.contains("lapin=off"), "{shown}");
    }
}
