//! Errors with everything behind them.

use std::error::Error;

use crate::excerpt::{ERROR_MAX, excerpt};

/// An error with its causes, for a log line or a person: `Display` alone tells only the outermost.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    excerpt(&text, ERROR_MAX).into_owned()
}
