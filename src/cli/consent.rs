//! Confirmation for commands that cannot be undone, and the name of the person who runs them.

use clap::Args;

use super::exit::Failure;

/// How the output of every dry run ends.
pub const HOW_TO_CONFIRM: &str = "add --yes to do it";

/// A dry run unless `--yes` is given.
#[derive(Debug, Args)]
pub struct Consent {
    /// Only show what would be done; this is the default.
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Carry it out.
    #[arg(long)]
    pub yes: bool,
    /// Your name, for the audit.
    #[arg(long, env = "USER", value_name = "NAME")]
    who: Option<String>,
}

impl Consent {
    /// The name of the person; `None` in a dry run.
    ///
    /// # Errors
    /// `--yes` was given without a name.
    pub fn who(&self) -> Result<Option<&str>, Failure> {
        if !self.yes {
            return Ok(None);
        }
        let who = self.who.as_deref().filter(|who| !who.is_empty());
        who.map(Some).ok_or_else(|| Failure::usage("--yes requires your name for the audit: add --who NAME"))
    }
}
