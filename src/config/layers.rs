//! Merges the layers: the environment over the file over the defaults.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use ::config::{Config, Environment, File, FileFormat, Map, Value, ValueKind};

use super::error::ConfigError;

/// The prefix of our environment variables. It is not `PAYBUS_`, because `PAYBUS_CONFIG` and the tests' variables are
/// not keys.
pub(super) const PREFIX: &str = "PAYBUS__";

const LEVEL_SEPARATOR: &str = "__";
const DEFAULTS: &str = include_str!("../../config/default.toml");

/// Returns the keys that the environment sets, each with the name of its variable.
///
/// # Errors
///
/// A variable names no key, two variables name the same one, or one names a key inside another's: which of them counts
/// would be left to chance.
pub(super) fn variables(environment: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, ConfigError> {
    let wrong = |variable: &String, problem: String| ConfigError::Variable { variable: variable.clone(), problem };
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    for name in environment.keys().filter(|name| name.starts_with(PREFIX)) {
        let key = name[PREFIX.len()..].to_lowercase().replace(LEVEL_SEPARATOR, ".");
        if key.split('.').any(str::is_empty) {
            return Err(wrong(name, format!("expected a key with its levels separated by `{LEVEL_SEPARATOR}`")));
        }
        if let Some(other) = variables.insert(key, name.clone()) {
            return Err(wrong(name, format!("{other} sets the same key")));
        }
    }
    for (key, name) in &variables {
        let mut parents = key.match_indices('.').map(|(end, _)| &key[..end]);
        if let Some(other) = parents.find_map(|parent| variables.get(parent)) {
            return Err(wrong(name, format!("{other} already sets the whole table that contains this key")));
        }
    }
    Ok(variables)
}

/// Refuses a variable that sets nothing because it has one underscore where the name of a setting has two. It may be meant
/// for somebody else, or be referred to, where the setting is set.
///
/// # Errors
///
/// There is such a variable, and its setting is that of the defaults.
pub(super) fn check_underscores(
    environment: &BTreeMap<String, String>,
    merged: &Value,
    variables: &BTreeMap<String, String>,
) -> Result<(), ConfigError> {
    let defaults = parse(DEFAULTS, Path::new("config/default.toml"))?;
    for (key, default) in keys(&defaults.cache, "") {
        let misspelt = format!("PAYBUS_{}", key.to_uppercase().replace('.', "_"));
        let is_there = environment.get(&misspelt).is_some_and(|value| !value.is_empty());
        let is_set =
            || variables.contains_key(&key) || find(merged, &key).is_none_or(|value| value.kind != default.kind);
        if is_there && !is_set() {
            let right = key.to_uppercase().replace('.', LEVEL_SEPARATOR);
            let problem = format!("sets nothing; did you mean {PREFIX}{right}?");
            return Err(ConfigError::Variable { variable: misspelt, problem });
        }
    }
    Ok(())
}

fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    key.split('.').try_fold(value, |value, name| match &value.kind {
        ValueKind::Table(members) => members.get(name),
        _ => None,
    })
}

/// The full names of all keys in a table, with their values.
fn keys<'a>(value: &'a Value, above: &str) -> Vec<(String, &'a Value)> {
    match &value.kind {
        ValueKind::Table(members) => {
            let within = |(name, member): (&String, &'a Value)| {
                keys(member, &if above.is_empty() { name.clone() } else { format!("{above}.{name}") })
            };
            members.iter().flat_map(within).collect()
        }
        _ => vec![(above.to_owned(), value)],
    }
}

/// Merges all layers into one table. The variants of the defaults are left out if another layer names any.
///
/// # Errors
///
/// The file cannot be read or is not TOML.
pub(super) fn merge(file: Option<&Path>, environment: &BTreeMap<String, String>) -> Result<Value, ConfigError> {
    let mut defaults = parse(DEFAULTS, Path::new("config/default.toml"))?;
    let mut above = Config::builder();
    if let Some(path) = file {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        above = above.add_source(parse(&text, path)?);
    }
    let above = above.add_source(environment_source(environment)).build().map_err(unexpected)?;
    if names_variants(&above)
        && let ValueKind::Table(keys) = &mut defaults.cache.kind
    {
        keys.remove("variants");
    }
    let merged = Config::builder().add_source(defaults).add_source(above).build().map_err(unexpected)?;
    Ok(merged.cache)
}

/// Does not use `try_parsing`, which would turn the secret 00123 into 123.
fn environment_source(environment: &BTreeMap<String, String>) -> Environment {
    let ours = environment.iter().filter(|(name, _)| name.starts_with(PREFIX));
    let ours: Map<String, String> = ours.map(|(name, value)| (name.clone(), value.clone())).collect();
    Environment::with_prefix("PAYBUS").prefix_separator(LEVEL_SEPARATOR).separator(LEVEL_SEPARATOR).source(Some(ours))
}

fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
    Config::builder()
        .add_source(File::from_str(text, FileFormat::Toml))
        .build()
        .map_err(|error| ConfigError::Syntax { path: path.to_owned(), problem: without_the_line(&error.to_string()) })
}

/// Removes the quoted line of the file from the parser's message, because it may contain a secret. A message consists
/// of "TOML parse error at line 3, column 8", a gutter, the quoted line, a marker and the explanation; only the first
/// and the last are kept.
fn without_the_line(message: &str) -> String {
    let mut lines = message.lines();
    let mut kept: Vec<&str> = lines.next().into_iter().collect();
    kept.extend(lines.skip(3).map(str::trim).filter(|line| !line.is_empty()));
    kept.join(": ")
}

fn names_variants(config: &Config) -> bool {
    let ValueKind::Table(keys) = &config.cache.kind else {
        return false;
    };
    keys.get("variants").is_some_and(|variants| !matches!(&variants.kind, ValueKind::Table(names) if names.is_empty()))
}

/// Merging parsed tables cannot fail. The message is discarded, because it might quote a value.
fn unexpected(_: ::config::ConfigError) -> ConfigError {
    ConfigError::key("configuration", "cannot merge the defaults, the file and the environment")
}

/// Adds the name of the variable that set the key to the error.
pub(super) fn name_variable(mut error: ConfigError, variables: &BTreeMap<String, String>) -> ConfigError {
    if let ConfigError::UnknownKey { key, .. } | ConfigError::Key { key, .. } = &mut error {
        let part_of = |part: &str, whole: &str| {
            part.strip_prefix(whole).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let names: HashSet<&String> =
            variables.iter().filter(|(set, _)| part_of(key, set) || part_of(set, key)).map(|(_, name)| name).collect();
        if let Some(name) = names.into_iter().min() {
            *key = format!("{key} (set by {name})");
        }
    }
    error
}
