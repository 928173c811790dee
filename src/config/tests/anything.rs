//! Any file or variable results in settings, or in a readable error without a secret.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::gateway::http::HttpSettings;

const SECRET: &str = "hunter2-correct-horse";

/// Keys that exist, and some that do not.
const KEYS: &[&str] = &[
    "amqp",
    "amqp.url",
    "amqp.prefix",
    "amqp.declare",
    "amqp.delivery_limit",
    "amqp.heartbeat",
    "amqp.reply_to",
    "amqp.tls.ca",
    "amqp.tls.key",
    "database.url",
    "database.pool",
    "database.tls_mode",
    "http.listen",
    "retry.immediate",
    "retry.immediate.factor",
    "retry.delayed",
    "variants",
    "variants.cards",
    "variants.cards.gateway",
    "variants.cards.url",
    "variants.cards.token",
    "variants.cards.timeout",
    "variants.cards.concurrency",
    "variants.cards.breaker",
    "variants.cards.key_window",
    "variants.cards.retry.delayed",
    "variants.\"A b\".gateway",
    "worker.drain",
    "retention.events",
    "retention.notifications",
    "log.format",
    "log.filter",
    "log.level",
    "tracing.endpoint",
    "tracing.sample",
    "database.pooler",
    "database.migrate_url",
    "typo",
];

/// A value that may contain the secret anywhere but in the name of a key.
fn value() -> impl Strategy<Value = String> {
    let with_secret = [
        "'SECRET'",
        "\"SECRET\"",
        "'amqp://u:SECRET@h/%2f'",
        "'postgres://u:SECRET@h/d'",
        "'http://u:SECRET@h'",
        "'ftp://SECRET'",
        "'SECRET",
        "\"SECRET\\q\"",
        "'''SECRET",
        "SECRET",
        "['SECRET']",
        "['SECRET', 5]",
        "{ a = 'SECRET' }",
        "{ url = 'http://h', token = 'SECRET' ",
        "'SECRET' 'SECRET'",
        "'( SECRET'",
        "' SECRET '",
        "'\u{e9}SECRET'",
    ];
    let plain = [
        "5",
        "-1",
        "2.5",
        "nan",
        "1e400",
        "99999999999999999999",
        "true",
        "'10s'",
        "'36501d'",
        "['1s', '5s']",
        "[]",
        "{}",
        "'http'",
        "'dummy'",
        "'stripe'",
        "'http://127.0.0.1:9'",
        "''",
        "'env:'",
        "'env:NO'",
        "'file:x'",
        "'env:SECRET_VARIABLE'",
        "1979-05-27",
        "'[::]:80'",
        "'debug,[='",
        "'a(b'",
    ];
    let values: Vec<String> =
        with_secret.iter().map(|text| text.replace("SECRET", SECRET)).chain(plain.map(str::to_owned)).collect();
    select(values)
}

/// Loads the settings, and those of every `http` gateway. Returns the text of the first error.
fn outcome(file: Option<&str>, variables: &[(&str, &str)]) -> Result<(), String> {
    let settings = load_with(file, variables).map_err(|error| whole(&error))?;
    for variant in settings.variants.values().filter(|variant| variant.gateway == "http") {
        variant.gateway_settings::<HttpSettings>().map_err(|error| whole(&error))?;
    }
    let shown = format!("{settings:?}");
    if shown.contains(SECRET) && !may_be_shown(file.unwrap_or_default()) {
        Err(format!("shown: {shown}"))
    } else {
        Ok(())
    }
}

/// Keys that are not secret are shown, whatever their value.
fn may_be_shown(file: &str) -> bool {
    let secret = ["amqp.url", "database.url", "variants.cards.token", "variants.cards.url"];
    let mut lines = file.lines().filter(|line| line.contains(SECRET) || line.contains("SECRET_VARIABLE"));
    lines.any(|line| !secret.iter().any(|key| line.starts_with(&format!("{key} ="))))
}

fn whole(error: &dyn std::error::Error) -> String {
    let source = error.source().map(|source| format!(": {source}"));
    format!("{error}{}", source.unwrap_or_default())
}

fn check(outcome: Result<(), String>) -> Result<(), TestCaseError> {
    if let Err(error) = outcome {
        prop_assert!(!error.contains(SECRET), "{error}");
        prop_assert!(!error.trim().is_empty() && error.len() < 2_000, "{error}");
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_text_is_settings_or_an_error(text in prop_oneof!["[\\PC\n]{0,80}", "[a-z.\\[\\]{}='\"#,0-9 \n]{0,60}"]) {
        check(outcome(Some(&text), &[]))?;
    }

    #[test]
    fn errors_in_values_do_not_contain_the_secret(lines in proptest::collection::vec((select(KEYS), value()), 1..4)) {
        let text: String = lines.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        check(outcome(Some(&text), &[("SECRET_VARIABLE", SECRET)]))?;
    }

    #[test]
    fn the_documented_file_with_a_wrong_line(at in any::<Index>(), value in value()) {
        let lines: Vec<&str> = include_str!("../../../config/default.toml").lines().collect();
        let keys: Vec<usize> =
            (0..lines.len()).filter(|at| lines[*at].contains(" = ") && !lines[*at].starts_with('#')).collect();
        let at = *at.get(&keys);
        let key = lines[at].split(" = ").next().unwrap_or_default();
        let changed = format!("{key} = {value}");
        let text: Vec<&str> = (0..lines.len()).map(|line| if line == at { &changed } else { lines[line] }).collect();
        let settings = load_with(Some(&text.join("\n")), &[("SECRET_VARIABLE", SECRET)]);
        check(settings.map(drop).map_err(|error| whole(&error)))?;
    }

    #[test]
    fn errors_in_variables_do_not_contain_the_secret(key in select(KEYS), value in value()) {
        let name = format!("PAYBUS__{}", key.to_uppercase().replace('.', "__").replace(['"', ' '], ""));
        let value = value.trim_matches('\'').to_owned();
        let settings = load_with(None, &[(&name, &value), ("SECRET_VARIABLE", SECRET)]);
        check(settings.map(drop).map_err(|error| whole(&error)))?;
    }
}
