//! Whether something is really done, and who does it: for what cannot be taken back.

use clap::Args;

use super::exit::Failure;

/// A dry run, unless `--yes` says otherwise.
#[derive(Debug, Args)]
pub struct Consent {
    /// Only say what would be done; this is the default.
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Do it.
    #[arg(long)]
    pub yes: bool,
    /// Who does it, for the audit.
    #[arg(long, env = "USER", value_name = "NAME")]
    who: Option<String>,
}

impl Consent {
    /// Who does it; `None` in a dry run.
    ///
    /// # Errors
    /// It is to be done, and nobody says by whom.
    pub fn who(&self) -> Result<Option<&str>, Failure> {
        if !self.yes {
            return Ok(None);
        }
        let who = self.who.as_deref().filter(|who| !who.is_empty());
        who.map(Some).ok_or_else(|| Failure::usage("say who you are: --who NAME"))
    }
}
