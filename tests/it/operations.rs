//! What operators are given: alerts, dashboard and their documentation name the existing metrics, and nothing else.

use std::collections::BTreeSet;
use std::process::Command as Program;
use std::time::Duration;

use regex::Regex;
use serde_json::Value;

use crate::support::files::{read, root};
use crate::support::skip::checks;
use crate::support::wait::within;
use crate::support::{Behaviour, Command, Setup, World, eventually};

const RULES: &str = "deploy/prometheus/paybus.rules.yml";
const RULE_TESTS: &str = "deploy/prometheus/paybus.rules.test.yml";
const DASHBOARD: &str = "deploy/grafana/paybus.json";
const PAGE: &str = "docs/reference/metrics.md";
const ON_CALL: &str = "docs/on-call.md";

/// Everything that the first group of the pattern matches.
fn all(pattern: &str, text: &str) -> BTreeSet<String> {
    Regex::new(pattern).unwrap().captures_iter(text).map(|found| found[1].to_owned()).collect()
}

/// The names of metrics, those of histograms without Prometheus' suffixes.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let bare = |name: String| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        base.map(str::to_owned).unwrap_or(name)
    };
    all(r"\b(paybus_[a-z_]+[a-z])", text).into_iter().map(bare).collect()
}

/// Every metric of the page, with each of its labels.
fn documented_labels(page: &str) -> BTreeSet<String> {
    let row = Regex::new(r"(?m)^\| `(paybus_[a-z_]+)` \| \w+ \| ([^|]*)\|").unwrap();
    let labels = |found: regex::Captures<'_>| with_labels(&found[1], all(r"`([a-z_]+)`", &found[2]));
    row.captures_iter(page).flat_map(labels).collect()
}

/// Every scraped metric, with each of its labels.
fn used_labels(scraped: &str) -> BTreeSet<String> {
    let samples = scraped.lines().filter(|line| !line.starts_with('#'));
    let labels = |line: &str| {
        let name = metrics_in(line.split(['{', ' ']).next().unwrap_or_default()).into_iter().collect::<String>();
        let mut labels = all(r#"([a-z_]+)=""#, line);
        labels.remove("le");
        with_labels(&name, labels)
    };
    samples.flat_map(labels).collect()
}

fn with_labels(metric: &str, labels: BTreeSet<String>) -> Vec<String> {
    labels.into_iter().map(|label| format!("{metric} {label}")).collect()
}

fn expressions() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).expect("the dashboard is JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| target["expr"].as_str().expect("an expression").to_owned()).collect()
}

#[tokio::test]
async fn the_page_has_every_metric_and_what_alerts_and_dashboard_ask_for_is_there() {
    let world = World::new().await;
    let worker = world.worker().await;
    assert_eq!(world.run(&Command::charge("http", "10.00", "EUR")).await.status(), "confirmed");
    let page = read(PAGE);
    let there = all(r"(?m)^\| `(paybus_[a-z_]+)` \|", &page);
    // Some are read from the database and the broker periodically.
    eventually("every metric of the page, and no other", async || {
        let scraped = worker.metrics().await;
        let samples: Vec<&str> = scraped.lines().filter(|line| !line.starts_with('#')).collect();
        let found = metrics_in(&samples.join("\n"));
        let differing: Vec<&str> = found.symmetric_difference(&there).map(String::as_str).collect();
        if differing.is_empty() { Ok(()) } else { Err(differing.join(", ")) }
    })
    .await;
    let (documented, used) = (documented_labels(&page), used_labels(&worker.metrics().await));
    let unknown: Vec<&String> = used.difference(&documented).collect();
    assert!(unknown.is_empty(), "{unknown:?} are used but not documented");
    // Only variants with an unknown outcome have a currency.
    let unused: Vec<&String> = documented.difference(&used).filter(|label| !label.ends_with(" currency")).collect();
    assert!(unused.is_empty(), "{unused:?} are documented but not used");
    let asked = metrics_in(&(read(RULES) + &expressions().join("\n")));
    let unknown: Vec<&String> = asked.difference(&there).collect();
    assert!(unknown.is_empty(), "{unknown:?} are queried but do not exist");
    let unasked: Vec<&String> = there.difference(&asked).collect();
    assert!(unasked.is_empty(), "{unasked:?} are in neither an alert nor the dashboard");
    world.check_books().await;
}

#[test]
fn every_alert_has_its_section_and_every_section_its_alert() {
    let rules = read(RULES);
    let alerts = all(r"- alert: (\w+)", &rules);
    assert!(!alerts.is_empty());
    assert_eq!(all(r"(?m)^### (Paybus\w+)$", &read(ON_CALL)), alerts);
    let anchors: BTreeSet<String> = alerts.iter().map(|alert| alert.to_lowercase()).collect();
    assert_eq!(all(r"runbook: docs/on-call\.md#(\w+)", &rules), anchors);
    // An alert that no test has seen firing may never fire.
    assert_eq!(all(r"alertname: (\w+)\n +exp_alerts:\n +- ", &read(RULE_TESTS)), alerts);
}

/// The queue of an open breaker is visible: its messages wait, and it is not consumed on purpose.
#[tokio::test]
async fn a_queue_paused_by_a_breaker_is_reported_with_its_messages() {
    let breaker = [("variants.http.breaker.failures", "1"), ("variants.http.breaker.open", "1h")];
    let world = breaker.into_iter().fold(Setup::new(), |setup, (key, value)| setup.set(key, value)).build().await;
    let worker = world.worker().await;
    let queue = world.bus.queue("commands.http");
    let labels = format!(r#"queue="{queue}",kind="commands""#);
    let shows = async |what: &str, messages: i64, consumers: i64, state: &str| {
        // The worker queries the broker every ten seconds.
        within(Duration::from_secs(30), what, async || {
            let found = (
                worker.count(&format!("paybus_queue_messages{{{labels}}}")).await,
                worker.count(&format!("paybus_queue_consumers{{{labels}}}")).await,
                worker.count(&format!(r#"paybus_queue_state{{{labels},state="{state}"}}"#)).await,
            );
            if found == (messages, consumers, 1) { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    };
    shows("a queue that is consumed", 0, 1, "consuming").await;
    let first = Command::charge("http", "10.00", "EUR");
    world.gateway.plan(first.payment, vec![Behaviour::Status(503, None)]);
    world.publish(&first).await;
    eventually("the breaker to open", async || {
        let paused = worker.count(&format!(r#"paybus_queue_state{{{labels},state="paused"}}"#)).await;
        if paused == 1 { Ok(()) } else { Err(paused) }
    })
    .await;
    assert!(worker.count(r#"paybus_gateway_failures_total{variant="http",code="gateway_error"}"#).await >= 1);
    let others: Vec<Command> = (0..3).map(|_| Command::charge("http", "10.00", "EUR")).collect();
    world.publish_all(&others).await;
    shows("the messages that wait in it", 3, 0, "paused").await;
}

/// A subscriber's queue is full: the subject of PaybusPublishNacks.
#[tokio::test]
async fn messages_that_the_broker_does_not_take_are_counted_each_time() {
    let world = Setup::new().expects_relay().build().await;
    let worker = world.worker().await;
    let full = world.bus.full_queue("http.payment.status_changed.#").await;
    let charge = Command::charge("http", "10.00", "EUR");
    assert_eq!(worker.count("paybus_publish_nacks_total").await, 0);
    world.publish(&charge).await;
    // It is retried after two seconds.
    eventually("an event to be refused twice", async || {
        let nacks = worker.count("paybus_publish_nacks_total").await;
        if nacks >= 2 { Ok(()) } else { Err(nacks) }
    })
    .await;
    world.bus.delete_queue(&full).await;
    assert_eq!(world.final_event(&charge).await.status(), "confirmed");
    world.check_books().await;
}

/// Checked with Prometheus' own tool; the queries of the dashboard are checked as rules.
#[test]
fn alerts_see_what_they_should_and_every_question_can_be_asked() {
    let expressions = expressions();
    assert!(!expressions.is_empty());
    let rules: Vec<Value> = expressions
        .iter()
        .enumerate()
        .map(|(number, asked)| {
            let asked = asked.replace("$__rate_interval", "5m");
            serde_json::json!({ "record": format!("dashboard:{number}"), "expr": asked })
        })
        .collect();
    let file = std::env::temp_dir().join(format!("paybus-dashboard-{}.yml", uuid::Uuid::new_v4()));
    let groups = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    std::fs::write(&file, groups.to_string()).unwrap();
    checks(Program::new(root().join("scripts/check-rules")).arg(&file));
    std::fs::remove_file(&file).unwrap();
}
