//! The broker's users: their roles, and the sources that belong to them.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::error::ConfigError;
use super::variant::{RATE_MAX, Variant};

/// The source of commands that paybus issues itself, such as completions.
pub const OWN_SOURCE: &str = "paybus";
/// The prefix of the sources of webhooks; the variant follows.
pub const WEBHOOK_SOURCES: &str = "webhooks/";

/// A user of the broker.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Which commands the user may send.
    pub role: Role,
    /// The variants that the user may use; `None` means all.
    #[serde(default)]
    pub variants: Option<Vec<String>>,
    /// The CloudEvents sources that belong to this user alone, each exact or with a trailing `*`. If `None`, the user
    /// may use all sources that belong to nobody, and act on every payment of its variants.
    #[serde(default)]
    pub sources: Option<Vec<String>>,
    /// How many of the user's read-only commands each replica executes per second; `None` means no limit.
    #[serde(default)]
    pub read_rate: Option<f64>,
}

/// Which commands a user may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// What a shop sends: all commands but `payment.notification`, `payment.resolve` and a `payment.resend` to
    /// everybody; `events.resend` only if the user has no sources of its own.
    Service,
    /// Every command, under any source.
    Operator,
    /// Only `payment.notification`.
    Webhooks,
}

/// A pattern of sources: a single one, or all with a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sources<'a> {
    /// The source, or the prefix.
    pub text: &'a str,
    /// Whether `text` is a prefix.
    pub is_prefix: bool,
}

impl<'a> Sources<'a> {
    /// Parses `https://shop.example/orders` or `https://shop.example/*`.
    pub fn read(pattern: &'a str) -> Sources<'a> {
        match pattern.strip_suffix('*') {
            Some(text) => Sources { text, is_prefix: true },
            None => Sources { text: pattern, is_prefix: false },
        }
    }
}

/// Checks all users.
///
/// # Errors
///
/// The first key that is wrong, and what is expected.
pub(super) fn check(users: &BTreeMap<String, User>, variants: &BTreeMap<String, Variant>) -> Result<(), ConfigError> {
    for (name, user) in users {
        check_name(name, users)?;
        check_variants(name, user, variants)?;
        check_sources(name, user)?;
        check_read_rate(name, user)?;
    }
    check_overlaps(users)
}

fn expected(key: String, expected: impl AsRef<str>) -> ConfigError {
    ConfigError::key(key, format!("expected {}", expected.as_ref()))
}

/// Rejects a name that extends another one: `reply.shop.*` would include the replies of a user `shop.eu`.
fn check_name(name: &str, users: &BTreeMap<String, User>) -> Result<(), ConfigError> {
    if name.is_empty() {
        return Err(expected("users".to_owned(), "the name of a broker user, [users.NAME]"));
    }
    let mut ends = name.match_indices('.').map(|(end, _)| end);
    match ends.find_map(|end| name.get(..end).filter(|shorter| users.contains_key(*shorter))) {
        Some(other) => {
            let why =
                format!("another name: the reply queues of {other}, reply.{other}.*, would include those of this user");
            Err(expected(format!("users.{name}"), why))
        }
        None => Ok(()),
    }
}

fn check_variants(name: &str, user: &User, variants: &BTreeMap<String, Variant>) -> Result<(), ConfigError> {
    let Some(listed) = &user.variants else { return Ok(()) };
    let key = format!("users.{name}.variants");
    if listed.is_empty() {
        return Err(expected(key, "at least one variant, or no such key to allow all of them"));
    }
    match listed.iter().position(|variant| !variants.contains_key(variant)) {
        Some(index) => Err(expected(format!("{key}[{index}]"), "a configured variant, [variants.NAME]")),
        None => Ok(()),
    }
}

fn check_sources(name: &str, user: &User) -> Result<(), ConfigError> {
    let Some(listed) = &user.sources else { return Ok(()) };
    let key = format!("users.{name}.sources");
    if user.role != Role::Service {
        return Err(expected(key, "no such key unless role = \"service\""));
    }
    if listed.is_empty() {
        return Err(expected(key, "at least one source, or no such key"));
    }
    let is_pattern = |pattern: &String| {
        let text = Sources::read(pattern).text;
        !text.is_empty() && !text.contains('*')
    };
    match listed.iter().position(|pattern| !is_pattern(pattern)) {
        Some(index) => Err(expected(format!("{key}[{index}]"), "a source, or the beginning of one followed by `*`")),
        None => Ok(()),
    }
}

fn check_read_rate(name: &str, user: &User) -> Result<(), ConfigError> {
    let Some(rate) = user.read_rate else { return Ok(()) };
    let key = format!("users.{name}.read_rate");
    if user.role == Role::Webhooks {
        return Err(expected(key, "no such key with role = \"webhooks\", which sends no read-only commands"));
    }
    let is_rate = rate > 0.0 && rate <= RATE_MAX;
    if is_rate { Ok(()) } else { Err(expected(key, "commands per second, more than 0 and at most 1000000")) }
}

/// Checks that each source has one owner. After sorting, a pattern comes right before those that it overlaps with.
fn check_overlaps(users: &BTreeMap<String, User>) -> Result<(), ConfigError> {
    let own = Sources { text: OWN_SOURCE, is_prefix: false };
    let webhooks = Sources { text: WEBHOOK_SOURCES, is_prefix: true };
    let mut claims = vec![(own, "paybus itself".to_owned()), (webhooks, "webhooks".to_owned())];
    for (name, user) in users {
        let patterns = user.sources.iter().flatten().map(|pattern| Sources::read(pattern));
        claims.extend(patterns.map(|sources| (sources, format!("users.{name}"))));
    }
    claims.sort();
    for pair in claims.windows(2) {
        let [(first, one), (second, other)] = pair else { continue };
        if first.text == second.text || first.is_prefix && second.text.starts_with(first.text) {
            // paybus's own sources have no key to report.
            let (key, whose) = if other.starts_with("users.") { (other, one) } else { (one, other) };
            let wanted = match key == whose {
                true => "sources that do not contain each other".to_owned(),
                false => format!("sources that do not overlap with those of {whose}"),
            };
            return Err(expected(format!("{key}.sources"), wanted));
        }
    }
    Ok(())
}
