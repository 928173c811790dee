//! References to secrets: `env:NAME` or `file:/path` in place of any string.

use std::collections::BTreeMap;

use ::config::{Value, ValueKind};

use super::error::ConfigError;

/// Resolves the references in `value`, whose full name is `key`. The result is taken literally: a secret that begins
/// with `env:` is not a reference.
///
/// # Errors
///
/// A variable is not set or empty, a path is not absolute, or a file cannot be read or is empty.
pub(super) fn follow(value: &mut Value, key: &str, environment: &BTreeMap<String, String>) -> Result<(), ConfigError> {
    match &mut value.kind {
        ValueKind::String(text) => {
            if let Some(found) = read(text, environment).map_err(|problem| ConfigError::key(key, problem))? {
                *text = found;
            }
        }
        ValueKind::Table(values) => {
            for (name, value) in values {
                let point = if key.is_empty() { "" } else { "." };
                follow(value, &format!("{key}{point}{name}"), environment)?;
            }
        }
        ValueKind::Array(values) => {
            for (index, value) in values.iter_mut().enumerate() {
                follow(value, &format!("{key}[{index}]"), environment)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Returns what `text` refers to, or `None` if it is not a reference.
fn read(text: &str, environment: &BTreeMap<String, String>) -> Result<Option<String>, String> {
    if let Some(name) = text.strip_prefix("env:") {
        return match environment.get(name) {
            Some(secret) if !secret.is_empty() => Ok(Some(secret.clone())),
            _ => Err(format!("environment variable {name} is not set or is empty")),
        };
    }
    let Some(path) = text.strip_prefix("file:") else {
        return Ok(None);
    };
    if !path.starts_with('/') {
        return Err("expected an absolute path, \"file:/path\"".to_owned());
    }
    let content = std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let secret = content.strip_suffix("\r\n").or_else(|| content.strip_suffix('\n')).unwrap_or(&content);
    if secret.is_empty() {
        return Err(format!("{path} is empty"));
    }
    Ok(Some(secret.to_owned()))
}
