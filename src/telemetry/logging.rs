//! Log lines: text on a terminal, otherwise JSON. They go to standard error; standard output belongs to the command.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use tracing::Metadata;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogFormat;
use crate::payment::card;

/// Crates that log at `info` what concerns only their authors. A filter that names one of them overrides this.
/// lapin logs the end of every connection as an error, even after a regular close whose socket the broker then resets;
/// the bus itself logs the ends that matter.
const QUIET: &str = "lapin=off,tokio_postgres=warn,deadpool_postgres=warn,hyper=warn,h2=warn,reqwest=warn,rustls=warn";

/// The target of lapin's warning about a returned message, which contains the whole body. No filter can enable it.
/// Whatever else logs bodies or the parameters of statements does so at levels that Cargo.toml excludes from the build.
const BODIES: &str = "lapin::returned_messages";

/// Starts logging. The filter comes from the configuration, which has checked that it parses.
///
/// If spans are exported, JSON lines name trace and span.
pub fn start(format: LogFormat, filter: &str, with_spans: bool) {
    let is_terminal = std::io::stderr().is_terminal();
    let is_text = match format {
        LogFormat::Auto => is_terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let lines = tracing_subscriber::fmt().with_env_filter(directives(filter)).with_writer(|| Scrubbed(io::stderr()));
    let bodies = tracing_subscriber::filter::filter_fn(is_without_body);
    let started = if is_text {
        lines.with_ansi(is_terminal).finish().with(bodies).try_init()
    } else {
        let lines = lines.json().flatten_event(true).with_current_span(with_spans).with_span_list(false);
        lines.finish().with(bodies).try_init()
    };
    if let Err(error) = started {
        eprintln!("paybus: logging cannot be started: {error}");
    }
}

fn directives(filter: &str) -> EnvFilter {
    EnvFilter::new(format!("{QUIET},{filter}"))
}

fn is_without_body(metadata: &Metadata<'_>) -> bool {
    !metadata.target().starts_with(BODIES)
}

/// Removes card numbers from log lines. Each line is one write.
struct Scrubbed<W>(W);

impl<W: Write> Write for Scrubbed<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match card::scrub(&String::from_utf8_lossy(line)) {
            Cow::Borrowed(_) => self.0.write_all(line)?,
            Cow::Owned(scrubbed) => self.0.write_all(scrubbed.as_bytes())?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn noisy_crates_are_quiet_until_they_are_named() {
        let shown = directives("info").to_string();
        assert!(shown.contains("lapin=off") && shown.contains("info"), "{shown}");
        let shown = directives("info,lapin=debug").to_string();
        assert!(shown.contains("lapin=debug") && !shown.contains("lapin=off"), "{shown}");
    }

    #[test]
    fn no_filter_shows_bodies_or_card_numbers() {
        let shown = Arc::new(Mutex::new(Vec::new()));
        let writer = shown.clone();
        let lines = tracing_subscriber::fmt()
            .with_env_filter(directives("debug,lapin::returned_messages[{message}]=debug"))
            .with_writer(move || Scrubbed(Shared(writer.clone())));
        let bodies = tracing_subscriber::filter::filter_fn(is_without_body);
        tracing::subscriber::with_default(lines.finish().with(bodies), || {
            tracing::warn!(target: "lapin::returned_messages", "a body");
            tracing::warn!("a reason with 4111 1111 1111 1111 in it");
        });
        let shown = String::from_utf8(shown.lock().unwrap().clone()).unwrap();
        assert_eq!(shown.lines().count(), 1, "{shown}");
        assert!(shown.trim_end().ends_with("a reason with [card number] in it"), "{shown}");
        assert_eq!(tracing::level_filters::STATIC_MAX_LEVEL, tracing::level_filters::LevelFilter::DEBUG);
        assert_eq!(log::STATIC_MAX_LEVEL, log::LevelFilter::Info);
    }

    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
