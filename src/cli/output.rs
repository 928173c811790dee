//! Output of all commands: colours only on a terminal, and nothing that lets a message control the terminal.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::exit::Failure;
use super::tame::tame_json;

/// The meaning of a word, shown by its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// As it should be.
    Good,
    /// In progress, or to be looked at.
    Open,
    /// Not as it should be.
    Bad,
    /// Less important.
    Faint,
    /// A heading.
    Strong,
    /// Nothing special.
    Plain,
}

/// Standard output.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    colour: bool,
}

impl Output {
    /// Standard output, with colours on a terminal unless `NO_COLOR` is set.
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

    /// A text in its style, padded to a width.
    pub fn column(self, style: Style, text: &str, width: usize) -> String {
        let blanks = width.saturating_sub(text.chars().count());
        format!("{}{:blanks$}", self.paint(style, text), "")
    }

    /// Prints a line.
    ///
    /// # Errors
    /// The output is closed.
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

/// Whether standard output is a terminal.
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
