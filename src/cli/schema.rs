//! `paybus schema`: the published contract.

use std::path::{Path, PathBuf};

use clap::Args;

use super::exit::{Exit, Failure};
use super::output::{Output, Style};
use crate::contract::{Document, documents};

const AFTER_HELP: &str = "\
Examples:
  paybus schema
  paybus schema commands/payment.create
  paybus schema asyncapi
  paybus schema --write contract";

/// Print the contract: JSON Schemas of commands and events, AsyncAPI, and the codes of answers.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct SchemaArguments {
    /// The document to print, such as commands/payment.create; default: a list of all documents.
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Write all documents into this folder instead of printing them.
    #[arg(long, value_name = "FOLDER", conflicts_with = "name")]
    write: Option<PathBuf>,
}

pub fn run(arguments: &SchemaArguments) -> Result<Exit, Failure> {
    let documents = documents();
    match (&arguments.write, &arguments.name) {
        (Some(folder), _) => write(folder, &documents)?,
        (None, Some(name)) => print(name, &documents)?,
        (None, None) => list(&documents)?,
    }
    Ok(Exit::Done)
}

/// The name on the command line, without `.json`.
fn name(document: &Document) -> &str {
    document.file.strip_suffix(".json").unwrap_or(&document.file)
}

fn print(asked: &str, documents: &[Document]) -> Result<(), Failure> {
    let found = documents.iter().find(|document| name(document) == asked || document.file == asked);
    let unknown = || Failure::usage(format!("there is no document {asked:?}; `paybus schema` lists them"));
    let found = found.ok_or_else(unknown)?;
    Ok(Output::new().line(&found.text)?)
}

fn list(documents: &[Document]) -> Result<(), Failure> {
    let output = Output::new();
    let width = documents.iter().map(|document| name(document).len()).max().unwrap_or_default();
    for document in documents {
        output.line(&format!("{}  {}", output.column(Style::Strong, name(document), width), document.title))?;
    }
    Ok(())
}

fn write(folder: &Path, documents: &[Document]) -> Result<(), Failure> {
    for document in documents {
        let path = folder.join(&document.file);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, &document.text)?;
    }
    Ok(())
}
