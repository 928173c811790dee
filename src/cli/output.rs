//! What all commands print with: colours only on a terminal, nothing that a message could do to that terminal.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::exit::Failure;
use super::tame::tame_json;

/// How a word is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// As it should be.
    Good,
    /// Under way, or to be looked at.
    Open,
    /// Not as it should be.
    Bad,
    /// Of less weight.
    Faint,
    /// A heading.
    Strong,
    /// Nothing special.
    Plain,
}

/// The standard output.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    colour: bool,
}

impl Output {
    /// The standard output, coloured where a person looks at it and has not asked for none (`NO_COLOR`).
    pub fn new() -> Output {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Output { colour: is_terminal() && !refused }
    }

    /// Without colours, for tests.
    #[cfg(test)]
    pub fn plain() -> Output {
        Output { colour: false }
    }

    /// With colours, for tests.
    #[cfg(test)]
    pub fn coloured() -> Output {
        Output { colour: true }
    }

    /// A text in its style.
    pub fn paint(self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Good => "32",
            Style::Open => "33",
            Style::Bad => "31",
            Style::Faint => "2",
            Style::Strong => "1",
            Style::Plain => return text.to_owned(),
        };
        if self.colour && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A text in its style, filled up with blanks to a width.
    pub fn column(self, style: Style, text: &str, width: usize) -> String {
        let blanks = width.saturating_sub(text.chars().count());
        format!("{}{:blanks$}", self.paint(style, text), "")
    }

    /// Prints a line.
    ///
    /// # Errors
    /// Nobody reads it any more.
    pub fn line(self, line: &str) -> io::Result<()> {
        writeln!(io::stdout().lock(), "{}", line.trim_end())
    }

    /// Prints a value as JSON, on one line.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub fn json(self, value: &impl Serialize) -> Result<(), Failure> {
        Ok(self.line(&tame_json(&serde_json::to_string(value)?))?)
    }
}

/// Whether a person looks at the output.
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_terminal_gets_colours_and_columns_stay_aligned() {
        assert_eq!(Output::plain().column(Style::Good, "ok", 5), "ok   ");
        assert_eq!(Output::coloured().column(Style::Good, "ok", 5), "\x1b[32mok\x1b[0m   ");
        assert_eq!(Output::plain().column(Style::Good, "longer", 3), "longer");
    }
}
