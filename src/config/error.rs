//! Configuration errors. They give the key's full name and what is expected, but never the value, which may be a
//! secret.

use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::de;

use crate::excerpt::excerpt;

/// The longest name of a key or a variable that is shown, in characters.
const KEY_MAX: usize = 256;
/// The longest description of a problem, in characters.
const PROBLEM_MAX: usize = 1_024;

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Unreadable {
        /// The path of the file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The configuration file is not TOML.
    #[error("{}: {}", path.display(), excerpt(problem, PROBLEM_MAX))]
    Syntax {
        /// The path of the file.
        path: PathBuf,
        /// The line, the column and what was expected there.
        problem: String,
    },
    /// An environment variable does not name exactly one key.
    #[error("environment variable {}: {}", excerpt(variable, KEY_MAX), excerpt(problem, PROBLEM_MAX))]
    Variable {
        /// The variable's name.
        variable: String,
        /// What is wrong with the name.
        problem: String,
    },
    /// A key is unknown.
    #[error("{}: unknown key, expected {expected}", excerpt(key, KEY_MAX))]
    UnknownKey {
        /// The key's full name.
        key: String,
        /// The keys that exist there.
        expected: String,
    },
    /// A key is missing, or its value has the wrong type or is out of range.
    #[error("{}: {}", excerpt(key, KEY_MAX), excerpt(problem, PROBLEM_MAX))]
    Key {
        /// The key's full name.
        key: String,
        /// What is wrong, or what is expected.
        problem: String,
    },
}

impl ConfigError {
    /// The error for `section.key`, whose `host` would be reached without TLS. `expected` describes what the key should
    /// be.
    pub(super) fn plaintext(section: &str, key: &str, host: &str, expected: &str) -> ConfigError {
        let problem = format!(
            "expected {expected}, because {host} is another machine; set {section}.insecure = true if the network to \
             it is private"
        );
        ConfigError::key(format!("{section}.{key}"), problem)
    }

    /// The error for one key.
    pub(super) fn key(key: impl Into<String>, problem: impl Into<String>) -> Self {
        ConfigError::Key { key: key.into(), problem: problem.into() }
    }

    /// Returns the same error, with its key inside `parent`.
    pub(super) fn under(mut self, parent: &str) -> Self {
        if let ConfigError::UnknownKey { key, .. } | ConfigError::Key { key, .. } = &mut self {
            let point = if key.is_empty() || key.starts_with('[') { "" } else { "." };
            *key = format!("{parent}{point}{key}");
        }
        self
    }
}

/// Deserialization builds the key from the inside out: each level prepends its name.
impl de::Error for ConfigError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        ConfigError::key("", message.to_string())
    }

    fn invalid_type(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        ConfigError::key("", format!("expected {expected}"))
    }

    fn invalid_value(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        ConfigError::key("", format!("expected {expected}"))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        ConfigError::key("", format!("expected {}", one_of(expected, '"')))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        ConfigError::UnknownKey { key: field.to_owned(), expected: one_of(expected, '`') }
    }

    fn missing_field(field: &'static str) -> Self {
        ConfigError::key(field, "missing")
    }

    fn duplicate_field(field: &'static str) -> Self {
        ConfigError::key(field, "is given twice")
    }
}

/// Joins names as `a`, `b` or `c`.
pub(super) fn one_of(names: &[&str], quote: char) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{quote}{name}{quote}")).collect();
    match quoted.as_slice() {
        [] => "none".to_owned(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}
