//! Who may send which commands: the broker's users, their roles, and which sources are whose.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::error::ConfigError;
use super::variant::{RATE_MAX, Variant};

/// The sources of commands that paybus makes itself: completions, and webhooks by variant.
pub const OWN_SOURCE: &str = "paybus";
/// What the sources of webhooks begin with.
pub const WEBHOOK_SOURCES: &str = "webhooks/";

/// A user of the broker.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Which commands it may send.
    pub role: Role,
    /// Which variants it may use; `None`: all.
    #[serde(default)]
    pub variants: Option<Vec<String>>,
    /// Which CloudEvents sources belong to it alone, each exact or with a trailing `*`; `None`: it may use those that belong
    /// to nobody, and act on every payment of its variants.
    #[serde(default)]
    pub sources: Option<Vec<String>>,
    /// How many of its commands that only ask each replica carries out a second; `None`: no limit.
    #[serde(default)]
    pub read_rate: Option<f64>,
}

/// Which commands a user may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// What a shop sends: all but `payment.notification`, `payment.resolve` and a `payment.resend` to everybody; `events.resend`
    /// only without sources of its own.
    Service,
    /// Every command, under any source.
    Operator,
    /// `payment.notification` alone.
    Webhooks,
}

/// A pattern of sources: one, or all that begin so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sources<'a> {
    /// The source, or its beginning.
    pub text: &'a str,
    /// Whether only its beginning is meant.
    pub is_prefix: bool,
}

impl<'a> Sources<'a> {
    /// Reads `https://shop.example/orders` or `https://shop.example/*`.
    pub fn read(pattern: &'a str) -> Sources<'a> {
        match pattern.strip_suffix('*') {
            Some(text) => Sources { text, is_prefix: true },
            None => Sources { text: pattern, is_prefix: false },
        }
    }
}

/// Checks the users.
///
/// # Errors
///
/// The first key that is wrong, and what would be right.
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

/// `reply.shop.*` would hold the replies of a user `shop.eu`.
fn check_name(name: &str, users: &BTreeMap<String, User>) -> Result<(), ConfigError> {
    if name.is_empty() {
        return Err(expected("users".to_owned(), "the name of a user of the broker, [users.NAME]"));
    }
    let mut ends = name.match_indices('.').map(|(end, _)| end);
    match ends.find_map(|end| name.get(..end).filter(|shorter| users.contains_key(*shorter))) {
        Some(other) => {
            let why = format!("another name: the reply queues of {other}, reply.{other}.*, would be its own as well");
            Err(expected(format!("users.{name}"), why))
        }
        None => Ok(()),
    }
}

fn check_variants(name: &str, user: &User, variants: &BTreeMap<String, Variant>) -> Result<(), ConfigError> {
    let Some(listed) = &user.variants else { return Ok(()) };
    let key = format!("users.{name}.variants");
    if listed.is_empty() {
        return Err(expected(key, "one variant or more, or no such key for all of them"));
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
        return Err(expected(key, "no such key but with role = \"service\""));
    }
    if listed.is_empty() {
        return Err(expected(key, "one source or more, or no such key"));
    }
    let is_pattern = |pattern: &String| {
        let text = Sources::read(pattern).text;
        !text.is_empty() && !text.contains('*')
    };
    match listed.iter().position(|pattern| !is_pattern(pattern)) {
        Some(index) => Err(expected(format!("{key}[{index}]"), "a source, or its beginning and a `*` at the end")),
        None => Ok(()),
    }
}

fn check_read_rate(name: &str, user: &User) -> Result<(), ConfigError> {
    let Some(rate) = user.read_rate else { return Ok(()) };
    let key = format!("users.{name}.read_rate");
    if user.role == Role::Webhooks {
        return Err(expected(key, "no such key with role = \"webhooks\", which asks for nothing"));
    }
    let is_rate = rate > 0.0 && rate <= RATE_MAX;
    if is_rate { Ok(()) } else { Err(expected(key, "commands a second, more than 0 and at most 1000000")) }
}

/// Each source has one owner. Sorted, a pattern stands right before those that it overlaps with.
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
            // What is ours comes with no key of its own.
            let (key, whose) = if other.starts_with("users.") { (other, one) } else { (one, other) };
            let wanted = match key == whose {
                true => "sources of which none contains another".to_owned(),
                false => format!("sources that do not overlap with those of {whose}"),
            };
            return Err(expected(format!("{key}.sources"), wanted));
        }
    }
    Ok(())
}
