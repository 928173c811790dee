//! The documentation: its links work, the book has every page, and paybus accepts what the pages show.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command as Program;

use clap::{CommandFactory, Parser};
use regex::Regex;

use paybus::cli::Arguments;
use paybus::config;
use paybus::gateway::registry;

use crate::contract::{blocks, pages};
use crate::support::World;
use crate::support::files::{read, root};
use crate::support::skip::skip;

/// Returns a page without its fenced blocks.
fn unfenced(page: &str) -> String {
    Regex::new(r"(?ms)^ *```.*?^ *```").unwrap().replace_all(page, "").into_owned()
}

/// The anchors of a page's headings, as code hosts generate them.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut anchors = BTreeSet::new();
    for line in unfenced(page).lines().filter(|line| line.starts_with('#')) {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_'));
        let anchor: String = kept.map(|char| if char == ' ' { '-' } else { char }).collect();
        let before = seen.entry(anchor.clone()).or_default();
        anchors.insert(if *before == 0 { anchor } else { format!("{anchor}-{before}") });
        *before += 1;
    }
    anchors
}

#[test]
fn every_link_leads_somewhere() {
    let span = Regex::new(r"`[^`\n]*(?:\n[^`\n]+)*`").unwrap();
    let link = Regex::new(r"\[[^\]]*\]\(([^)\s]+)\)").unwrap();
    let mut broken = BTreeSet::new();
    let mut checked = 0;
    for page in pages() {
        // Brackets in code are not links.
        let text = unfenced(&read(&page));
        for found in link.captures_iter(&span.replace_all(&text, "")) {
            let target = &found[1];
            if target.contains("://") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let folder = page.parent().unwrap();
            let file = if path.is_empty() { page.clone() } else { folder.join(path) };
            if !file.exists() || !anchor.is_empty() && !anchors(&read(&file)).contains(anchor) {
                broken.insert(format!("{}: {target}", page.display()));
            }
            checked += 1;
        }
    }
    assert!(broken.is_empty(), "these links are broken: {broken:#?}");
    assert!(checked > 200, "{checked}: the links are no longer found");
}

#[test]
fn every_page_is_in_the_book() {
    let docs = root().join("docs");
    let summary = read("docs/SUMMARY.md");
    let link = Regex::new(r"\]\(([^)]+)\)").unwrap();
    let mut chapters = BTreeSet::new();
    for found in link.captures_iter(&summary) {
        let page = docs.join(&found[1]).canonicalize().unwrap_or_else(|error| panic!("{}: {error}", &found[1]));
        assert!(chapters.insert(page), "{} is listed twice", &found[1]);
    }
    for page in pages().into_iter().filter(|page| page.starts_with(&docs) && !page.ends_with("SUMMARY.md")) {
        assert!(chapters.contains(&page.canonicalize().unwrap()), "{} is missing in docs/SUMMARY.md", page.display());
    }
}

#[test]
fn every_configuration_is_accepted() {
    let secret = Regex::new(r#""(?:env:[A-Z_]+|file:[^"]+)""#).unwrap();
    let mut checked = 0;
    for page in pages() {
        for block in blocks(&read(&page), "toml") {
            let mut text = secret.replace_all(&block, "\"sk_test_1\"").into_owned();
            // A user's rights name the variant that other blocks configure.
            if !text.contains("[variants.") {
                text += "\n[variants.cards]\ngateway = \"dummy\"\n";
            }
            let file = std::env::temp_dir().join(format!("paybus-docs-{}.toml", uuid::Uuid::new_v4()));
            std::fs::write(&file, text).unwrap();
            let settings = config::load(Some(&file), std::iter::empty());
            std::fs::remove_file(&file).unwrap();
            let settings = settings.unwrap_or_else(|error| panic!("{}: {error}\n{block}", page.display()));
            for variant in settings.variants.values() {
                if let Err(error) = registry::build(variant) {
                    panic!("{}: {error}\n{block}", page.display());
                }
            }
            checked += 1;
        }
    }
    assert!(checked >= 8, "{checked}: the blocks are no longer found");
}

/// The words of a line up to a comment, a pipe or a redirection, as a shell splits them.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut until, mut is_quoted) = (Vec::new(), String::new(), None, false);
    for char in line.chars().chain([' ']) {
        match (until, char) {
            (None, '\'' | '"') => (until, is_quoted) = (Some(char), true),
            (None, '(') => until = Some(')'),
            (Some(end), _) if end == char => until = None,
            (None, ' ') => {
                if !is_quoted && ["#", "|", "&", ">", "2>"].iter().any(|sign| word.starts_with(sign)) {
                    break;
                }
                if is_quoted || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                is_quoted = false;
            }
            _ => word.push(char),
        }
    }
    words
}

#[test]
fn every_line_for_a_shell_can_be_typed() {
    let payment = "0192f0c1-7c5e-7000-8000-0123456789ab";
    let makefile = read("Makefile");
    let mut commands = 0;
    for page in pages() {
        for line in blocks(&read(&page), "sh").join("\n").replace("\\\n", " ").lines() {
            let words = words(&line.replace("PAYMENT", payment).replace("OPERATION", payment));
            let at = format!("{}: {line}", page.display());
            for file in words.iter().filter(|word| word.starts_with("scripts/") || word.starts_with("deploy/")) {
                assert!(root().join(file).exists(), "{at}: {file} does not exist");
            }
            match words.first().map(String::as_str) {
                Some("paybus") => {
                    commands += 1;
                    if let Err(error) = Arguments::try_parse_from(&words) {
                        panic!("{at}: {error}");
                    }
                }
                Some("make") => {
                    let target = words.get(1).map(|target| format!("\n{target}:")).unwrap_or_default();
                    assert!(makefile.contains(&target), "{at}: no such target");
                }
                _ => {}
            }
        }
    }
    assert!(commands > 50, "{commands}: the lines are no longer found");
}

/// Commands and options that the text names.
#[test]
fn every_command_in_the_text_exists() {
    let span = Regex::new(r"`paybus\s([^`]+)`").unwrap();
    let mut all = Arguments::command();
    // Adds the options that all commands share.
    all.build();
    let mut checked = 0;
    for page in pages() {
        let text = unfenced(&read(&page));
        for found in span.captures_iter(&text) {
            let mut command = &all;
            for word in found[1].split_whitespace() {
                let at = format!("{}: {}: {word}", page.display(), &found[0]);
                if let Some(option) = word.strip_prefix("--") {
                    let is_there = command.get_arguments().any(|argument| argument.get_long() == Some(option));
                    assert!(is_there, "{at}: no such option");
                } else if let Some(below) = command.find_subcommand(word) {
                    command = below;
                } else {
                    assert!(command.get_name() != all.get_name(), "{at}: no such command");
                }
            }
            checked += 1;
        }
    }
    assert!(checked > 50, "{checked}: the commands are no longer found");
}

#[test]
fn every_block_of_python_compiles() {
    for page in pages() {
        for block in blocks(&read(&page), "python") {
            let compile = "import sys; compile(sys.argv[1], 'the page', 'exec')";
            let Ok(ran) = Program::new("python3").args(["-c", compile, &block]).output() else {
                return skip("python3 is not installed");
            };
            assert!(ran.status.success(), "{}: {}\n{block}", page.display(), String::from_utf8_lossy(&ran.stderr));
        }
    }
}

#[tokio::test]
async fn every_query_can_be_asked() {
    let world = World::new().await;
    let mut checked = 0;
    for page in pages() {
        for block in blocks(&read(&page), "sql") {
            world.query(&format!("EXPLAIN {block}"), &[]).await;
            checked += 1;
        }
    }
    assert!(checked > 0, "the queries are no longer found");
    world.check_books().await;
}
