//! `paybus completions` and `paybus man`: the command line, for shells and for `man`.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Arguments;
use super::exit::{Exit, Failure};

/// Print completions for a shell.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  paybus completions bash > /etc/bash_completion.d/paybus\n  \
                        paybus completions zsh > ~/.zfunc/_paybus")]
pub struct CompletionsArguments {
    /// The shell.
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Write the manual pages, one for each command, into a directory.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  paybus man /usr/local/share/man/man1")]
pub struct ManArguments {
    /// The directory, made if it does not exist.
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
}

pub fn completions(arguments: &CompletionsArguments) -> Result<Exit, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "paybus", &mut text);
    io::stdout().write_all(&text)?;
    Ok(Exit::Done)
}

pub fn man(arguments: &ManArguments) -> Result<Exit, Failure> {
    let directory = &arguments.directory;
    let written =
        std::fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(Arguments::command(), directory));
    written.map_err(|error| Failure::new(Exit::Failed, format!("{}: {error}", directory.display())))?;
    Ok(Exit::Done)
}
