//! Which files of `src` may import which others. ARCHITECTURE.md, "Where things are", gives the reasons.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use regex::Regex;

use crate::support::files::root;

/// A module, as the names on its path.
type Module = Vec<String>;

/// What each folder, and each file beside them, may import of the others. Arrows point down: only the rows that name a
/// module may use it.
const LAYERS: [(&str, &[&str]); 14] = [
    // The deciding code imports nothing else: neither I/O nor a clock can get in.
    ("payment", &["excerpt"]),
    ("error_chain", &["excerpt"]),
    // Each of these talks to one outside party and does not know the others.
    ("bus", &["backoff", "error_chain", "excerpt", "hosts", "payment", "tls"]),
    ("store", &["backoff", "error_chain", "excerpt", "hosts", "payment", "plural"]),
    ("gateway", &["error_chain", "config", "excerpt", "hosts", "payment", "telemetry"]),
    // The one place that names metrics, including the database's figures.
    ("telemetry", &["config", "error_chain", "payment", "store"]),
    ("http", &["payment", "telemetry"]),
    // It rejects settings that other parts could not handle; those parts define what they can handle.
    ("config", &["bus", "excerpt", "hosts", "store"]),
    ("wiring", &["bus", "config", "gateway", "store", "tls"]),
    // It describes the contract; no working part needs it.
    ("contract", &["bus", "payment"]),
    (
        "worker",
        &[
            "backoff",
            "bus",
            "error_chain",
            "config",
            "excerpt",
            "failpoint",
            "gateway",
            "http",
            "payment",
            "store",
            "telemetry",
            "wiring",
        ],
    ),
    // Within the worker, dependencies point down the path of a command. Its parts do not know what starts them.
    ("worker::command", &["alerts", "finished", "outbox", "variant"]),
    ("worker::outbox", &["finished"]),
    ("worker::variant", &[]),
];

/// The modules of `src` with their text, without tests.
fn modules() -> BTreeMap<Module, String> {
    fn read(folder: &Path, module: &[String], found: &mut BTreeMap<Module, String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let child = [module, std::slice::from_ref(&name)].concat();
            if path.is_dir() {
                read(&path, &child, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let module = if matches!(name.as_str(), "mod" | "lib") { module.to_vec() } else { child };
                let text = fs::read_to_string(&path).unwrap();
                let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
                found.insert(module, text.to_owned());
            }
        }
    }
    let mut found = BTreeMap::new();
    read(&root().join("src"), &[], &mut found);
    let is_test = |name: &String| matches!(name.as_str(), "tests" | "anything" | "samples");
    found.retain(|module, _| !module.iter().any(is_test) && module.first().is_none_or(|first| first != "main"));
    found
}

/// The paths that a text names, in `use` and elsewhere.
fn paths(text: &str) -> BTreeSet<String> {
    let comments = Regex::new(r"//[^\n]*|pub\(in [^)]*\)").unwrap();
    let text = comments.replace_all(text, "");
    let uses = Regex::new(r"\buse\s+([^;]+);").unwrap();
    let elsewhere = Regex::new(r"\b(?:crate|super|self)(?:::\w+)+").unwrap();
    let mut paths: BTreeSet<String> = uses.captures_iter(&text).flat_map(|found| each(&found[1])).collect();
    let text = uses.replace_all(&text, "");
    paths.extend(elsewhere.find_iter(&text).map(|found| found.as_str().to_owned()));
    paths
}

/// The paths of a tree such as `a::{b, c::d}`, which holds no more than one level.
fn each(tree: &str) -> Vec<String> {
    match tree.split_once('{') {
        None => vec![tree.trim().to_owned()],
        Some((stem, leaves)) => {
            let leaves = leaves.trim_end().trim_end_matches('}').split(',').map(str::trim);
            leaves.filter(|leaf| !leaf.is_empty()).map(|leaf| format!("{}{leaf}", stem.trim())).collect()
        }
    }
}

/// Which modules each module imports.
fn arrows() -> BTreeMap<Module, BTreeSet<Module>> {
    let modules = modules();
    let find = |from: &Module, path: &str| -> Option<Module> {
        let mut names = path.split("::").peekable();
        let mut whole = match *names.peek()? {
            "crate" => Vec::new(),
            "super" | "self" => from.clone(),
            name if modules.contains_key(&[from.as_slice(), &[name.to_owned()]].concat()) => from.clone(),
            _ => return None,
        };
        for name in names {
            match name {
                "crate" | "self" => {}
                "super" => drop(whole.pop()),
                name => whole.push(name.to_owned()),
            }
        }
        while !modules.contains_key(&whole) {
            whole.pop()?;
        }
        Some(whole)
    };
    let known = |(module, text): (&Module, &String)| {
        let known = paths(text).iter().filter_map(|path| find(module, path)).filter(|other| other != module).collect();
        (module.clone(), known)
    };
    modules.iter().map(known).collect()
}

/// Everything that can be reached.
fn reached(from: &Module, arrows: &BTreeMap<Module, BTreeSet<Module>>) -> BTreeSet<Module> {
    let mut reached = BTreeSet::new();
    let mut left: Vec<&Module> = arrows.get(from).into_iter().flatten().collect();
    while let Some(module) = left.pop() {
        if reached.insert(module.clone()) {
            left.extend(arrows.get(module).into_iter().flatten());
        }
    }
    reached
}

/// Reading one file of a cycle requires reading all of them. What a file uses of its own folder's `mod.rs` is shared by
/// the folder and does not count as a cycle.
#[test]
fn no_files_know_each_other_in_a_circle() {
    let mut arrows = arrows();
    assert!(arrows.len() > 200, "{} modules were found", arrows.len());
    for (module, known) in &mut arrows {
        known.retain(|other| other.is_empty() || !module.starts_with(other));
    }
    let all: BTreeMap<&Module, BTreeSet<Module>> = arrows.keys().map(|from| (from, reached(from, &arrows))).collect();
    let mut wrong = BTreeSet::new();
    for (one, reached) in &all {
        for other in reached.iter().filter(|other| *other > *one && all[other].contains(*one)) {
            wrong.insert((one.join("::"), other.join("::")));
        }
    }
    assert!(wrong.is_empty(), "each of these imports the other: {wrong:#?}");
}

#[test]
fn arrows_point_down() {
    let mut wrong = BTreeSet::new();
    for (module, known) in arrows() {
        for (layer, below) in LAYERS {
            let layer: Vec<&str> = layer.split("::").collect();
            let is_in = |module: &Module| layer.iter().zip(module).filter(|(layer, name)| *layer == *name).count();
            if is_in(&module) != layer.len() {
                continue;
            }
            // In the same folder, one level up.
            let (own, above) = (layer[layer.len() - 1], &layer[..layer.len() - 1]);
            for other in &known {
                let is_near =
                    other.len() >= layer.len() && above.iter().zip(other).all(|(above, name)| *above == *name);
                let name = other.get(layer.len() - 1).map(String::as_str).filter(|_| is_near);
                if let Some(name) = name.filter(|name| *name != own && !below.contains(name)) {
                    wrong.insert(format!("{} -> {name}", module.join("::")));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "these arrows point up: {wrong:#?}");
}

/// The libraries for the broker and the database are used only where these are talked to.
#[test]
fn libraries_stay_where_they_are_used() {
    for (library, homes) in [("lapin::", &["bus"][..]), ("deadpool_postgres::", &["store"])] {
        for (module, text) in modules() {
            let is_home = module.first().is_some_and(|first| homes.contains(&first.as_str()));
            assert!(is_home || !text.contains(&format!("use {library}")), "{library} in {}", module.join("::"));
        }
    }
}
