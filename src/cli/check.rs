//! `paybus check`: whether everything that a worker needs is there, for people and deployments. A worker's health is at
//! its own `/livez` and `/readyz`.

use std::time::{Duration, Instant};

use clap::Args;
use futures_util::future::join_all;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tokio::join;
use tokio::time::timeout;

use super::exit::{Exit, Failure};
use super::open_database;
use super::output::{Output, Style};
use super::tame::tame;
use crate::bus::connection::connect;
use crate::bus::message_size::{self, MESSAGE_MAX, MessageLimit};
use crate::bus::topology;
use crate::config::{self, Settings, Variant};
use crate::gateway::registry;
use crate::plural::counted;
use crate::store::commit::durability::{self, Durability};
use crate::store::query::books::{self, Books};
use crate::store::query::report::{Figures, UnknownFigures};
use crate::store::schema::{rights, sequences};
use crate::store::{Store, StoreError};
use crate::wiring::{bus_settings, served};
use crate::worker::OPEN;

/// How long one check may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Check configuration, broker, database, gateways, and that variants serve the stored payments.
///
/// Changes nothing. Exits with 0 if nothing failed; warnings do not count. AMQP does not reveal the broker's bindings:
/// deploy/rabbitmq/audit lists them.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  paybus check\n  paybus check --json --config /etc/paybus.toml\n  paybus check --books"
)]
pub struct CheckArguments {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Check only the books: list payments whose movements are inconsistent.
    #[arg(long)]
    books: bool,
}

/// What one check found.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    what: String,
    verdict: Verdict,
    detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    Warning,
    Failed(Exit),
}

impl Finding {
    fn new(what: impl Into<String>, verdict: Verdict, detail: impl Into<String>) -> Finding {
        Finding { what: what.into(), verdict, detail: detail.into() }
    }

    fn of(what: impl Into<String>, found: Result<String, Failure>) -> Finding {
        match found {
            Ok(detail) => Finding::new(what, Verdict::Good, detail),
            Err(failure) => Finding::new(what, Verdict::Failed(failure.exit), failure.message),
        }
    }

    fn word(&self) -> (&'static str, Style) {
        match self.verdict {
            Verdict::Good => ("ok", Style::Good),
            Verdict::Warning => ("warn", Style::Open),
            Verdict::Failed(_) => ("failed", Style::Bad),
        }
    }
}

pub async fn run(arguments: &CheckArguments, settings: &Settings) -> Result<Exit, Failure> {
    if arguments.books {
        return check_books(arguments, settings).await;
    }
    let gateways = join_all(settings.variants.iter().map(|(name, variant)| gateway(name, variant)));
    let (broker, limit, database, standbys, gateways, payments, work) = join!(
        bounded(broker(settings)),
        message_limit(settings),
        bounded(database(settings)),
        standbys(settings),
        gateways,
        payments(settings),
        work(settings)
    );
    let mut findings = vec![configuration(settings)];
    findings.push(authorization(settings));
    let broker_at = format!("broker {}", address(&settings.amqp.url));
    findings.push(Finding::of(broker_at.clone(), broker));
    if let Some(warning) = limit {
        findings.push(Finding::new(broker_at, Verdict::Warning, warning));
    }
    let database_at = format!("database {}", address(&settings.database.url));
    if config::trusts_any_database(&settings.database) {
        let detail = "tls_mode \"require\" verifies no certificate: a man in the middle can pose as the database";
        findings.push(Finding::new(database_at.clone(), Verdict::Warning, detail));
    }
    findings.push(Finding::of(database_at.clone(), database));
    if let Some(warning) = standbys {
        findings.push(Finding::new(database_at, Verdict::Warning, format!("{warning}; see docs/high-availability.md")));
    }
    findings.extend(gateways.into_iter().flatten());
    findings.extend(payments);
    findings.extend(work.into_iter().map(|warning| Finding::new("work", Verdict::Warning, warning)));
    print(arguments, &findings)?;
    Ok(verdict(&findings))
}

/// An unreachable broker or database has its own code, whatever else failed.
fn verdict(findings: &[Finding]) -> Exit {
    let failed: Vec<Verdict> = findings
        .iter()
        .map(|finding| finding.verdict)
        .filter(|verdict| matches!(verdict, Verdict::Failed(_)))
        .collect();
    match failed.as_slice() {
        [] => Exit::Done,
        failed if failed.contains(&Verdict::Failed(Exit::Unavailable)) => Exit::Unavailable,
        _ => Exit::Failed,
    }
}

fn print(arguments: &CheckArguments, findings: &[Finding]) -> Result<(), Failure> {
    let output = Output::new();
    if arguments.json {
        let checks: Vec<_> = findings
            .iter()
            .map(|finding| json!({ "check": finding.what, "result": finding.word().0, "detail": finding.detail }))
            .collect();
        return output.json(&json!({ "ok": verdict(findings) == Exit::Done, "checks": checks }));
    }
    let width = findings.iter().map(|finding| finding.what.chars().count()).max().unwrap_or_default();
    for finding in findings {
        let (word, style) = finding.word();
        let what = output.column(Style::Plain, &finding.what, width);
        output.line(&format!("{}  {what}  {}", output.column(style, word, 6), tame(&finding.detail)))?;
    }
    Ok(())
}

async fn bounded(check: impl Future<Output = Result<String, Failure>>) -> Result<String, Failure> {
    let begun = Instant::now();
    match timeout(TIMEOUT, check).await {
        Ok(Ok(detail)) => Ok(format!("{detail} ({} ms)", begun.elapsed().as_millis())),
        Ok(Err(failure)) => Err(failure),
        Err(_) => Err(Failure::new(Exit::Unavailable, no_answer())),
    }
}

fn no_answer() -> String {
    format!("no answer within {} s", TIMEOUT.as_secs())
}

/// The configuration was read and checked before anything else.
fn configuration(settings: &Settings) -> Finding {
    Finding::new("configuration", Verdict::Good, counted(settings.variants.len(), "variant"))
}

/// Whether commands need a user.
fn authorization(settings: &Settings) -> Finding {
    match settings.users.len() {
        0 => Finding::new("users", Verdict::Warning, format!("no [users.NAME] is configured: {OPEN}")),
        count => {
            let users = counted(count, "configured user");
            Finding::new("users", Verdict::Good, format!("{users}; nobody else may send commands"))
        }
    }
}

async fn broker(settings: &Settings) -> Result<String, Failure> {
    let bus = bus_settings(settings);
    let connection = connect(&bus, "check").await?;
    let names: Vec<&str> = settings.variants.keys().map(String::as_str).collect();
    let checked = topology::check(&connection, &bus, &names).await;
    connection.close().await;
    Ok(match checked?.as_slice() {
        [] => format!("connected; all exchanges and queues with prefix {} exist", bus.prefix),
        hidden => format!(
            "connected; the exchanges and queues with prefix {} that this user may check exist; it may not check {}",
            bus.prefix,
            hidden.join(", ")
        ),
    })
}

/// What to warn of about the largest message that the broker accepts. A broker that cannot be asked has its own finding.
async fn message_limit(settings: &Settings) -> Option<String> {
    let finding = async {
        let bus = bus_settings(settings);
        let connection = connect(&bus, "check").await?;
        let found = message_size::find(&connection, &bus).await;
        connection.close().await;
        found
    };
    let wanted = format!("set max_message_size = {MESSAGE_MAX}, as in deploy/rabbitmq/paybus.conf");
    match timeout(TIMEOUT, finding).await.ok()?.ok()? {
        MessageLimit::Same | MessageLimit::Unknown(_) => None,
        MessageLimit::Higher => {
            Some(format!("accepts messages of more than 4 MiB, so that a few of them fill its memory: {wanted}"))
        }
        MessageLimit::Lower(reason) => Some(format!(
            "refuses messages of 4 MiB, so that a large event may never be published: {wanted} ({reason})"
        )),
    }
}

async fn database(settings: &Settings) -> Result<String, Failure> {
    let store = open_database(settings).await?;
    let checked = what_the_worker_needs(&store).await;
    let durable = durability::check(&store, settings.database.may_lose_commits).await;
    store.close();
    checked?;
    let prepared = "connected; schema and worker rights are in place";
    Ok(match durable? {
        Durability::OnDisk => prepared.to_owned(),
        Durability::MayBeLost => format!("{prepared}; a crash of the database server loses the last commits"),
    })
}

/// A warning about the database's standbys. If the database cannot be reached, its own finding reports that.
async fn standbys(settings: &Settings) -> Option<&'static str> {
    let asking = async {
        let store = open_database(settings).await?;
        let found = durability::standbys(&store).await;
        store.close();
        Ok::<_, Failure>(found?)
    };
    timeout(TIMEOUT, asking).await.ok()?.ok()?
}

async fn what_the_worker_needs(store: &Store) -> Result<(), StoreError> {
    store.check_writable().await?;
    rights::check(store).await?;
    sequences::check(store).await
}

/// Whether the configured variants and accounts serve the stored payments. Open operations of others are stuck.
async fn payments(settings: &Settings) -> Vec<Finding> {
    let payments = |verdict, detail: String| Finding::new("payments", verdict, detail);
    let not_checked = |why: &str| vec![payments(Verdict::Warning, format!("not checked: {why}"))];
    match timeout(TIMEOUT, unserved(settings)).await {
        Ok(Ok(unserved)) if unserved.is_empty() => {
            vec![payments(Verdict::Good, "all in the sample belong to configured variants and accounts".to_owned())]
        }
        Ok(Ok(unserved)) => unserved.into_iter().map(|(verdict, words)| payments(verdict, words)).collect(),
        Ok(Err(failure)) => not_checked(&failure.message),
        Err(_) => not_checked(&no_answer()),
    }
}

async fn unserved(settings: &Settings) -> Result<Vec<(Verdict, String)>, Failure> {
    let mut configured = Vec::new();
    for (name, variant) in &settings.variants {
        let gateway = registry::build(variant)?;
        configured.push(served(name, &variant.gateway, gateway.as_ref()));
    }
    let store = open_database(settings).await?;
    let operations = store.unserved_operations(&configured).await;
    let payments = store.unserved_payments(&configured).await;
    store.close();
    let operations = operations?.into_iter().map(|found| (Verdict::Failed(Exit::Failed), found.words()));
    let payments = payments?.into_iter().map(|found| (Verdict::Warning, found.words()));
    Ok(operations.chain(payments).collect())
}

/// Warnings about work that waits for a person. If the database cannot be asked, its own finding reports that.
async fn work(settings: &Settings) -> Vec<String> {
    let asking = async {
        let store = open_database(settings).await?;
        let (figures, pauses) = join!(store.figures(), store.pauses());
        store.close();
        Ok::<_, Failure>((figures?, pauses?))
    };
    match timeout(TIMEOUT, asking).await {
        Ok(Ok((figures, pauses))) => {
            let paused = pauses.iter().map(|(variant, pause)| pause.words(variant));
            paused.chain(needs_somebody(&figures)).collect()
        }
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

fn needs_somebody(figures: &Figures) -> Vec<String> {
    let mut warnings = Vec::new();
    let sum = |count: fn(&UnknownFigures) -> i64| figures.unknown.iter().map(count).sum::<i64>();
    let (escalated, unknown) = (sum(|it| it.escalated), sum(|it| it.count));
    if escalated > 0 {
        let operations = counted(escalated, "operation");
        warnings.push(format!("{operations} must be resolved by an operator: `paybus list --state escalated`"));
    }
    if unknown > 0 {
        let operations = counted(unknown, "operation");
        warnings.push(format!("{operations} with an unknown outcome: `paybus list --state unknown`"));
    }
    if figures.outbox.set_aside > 0 {
        let events = counted(figures.outbox.set_aside, "event");
        warnings
            .push(format!("{events} set aside because the broker refused them; docs/on-call.md, PaybusEventsSetAside"));
    }
    warnings
}

/// Lists the payments whose movements are inconsistent.
async fn check_books(arguments: &CheckArguments, settings: &Settings) -> Result<Exit, Failure> {
    let store = open_database(settings).await?;
    let books = books::look_through(&store).await;
    store.close();
    let Books { payments, doubtful } = books?;
    let exit = if doubtful.is_empty() { Exit::Done } else { Exit::Failed };
    let output = Output::new();
    if arguments.json {
        output.json(&json!({ "ok": doubtful.is_empty(), "payments": payments, "doubtful": doubtful }))?;
        return Ok(exit);
    }
    for payment in &doubtful {
        output.line(&format!("{}  {}", payment.payment, payment.words()))?;
    }
    let checked = counted(payments, "payment");
    output.line(&format!("checked {checked}; {} with inconsistent movements", doubtful.len()))?;
    Ok(exit)
}

/// Whether a variant's gateway answers; also warns of a dummy.
async fn gateway(name: &str, variant: &Variant) -> Vec<Finding> {
    let what = format!("variant {name}");
    let mut findings = Vec::new();
    if variant.gateway == "dummy" {
        let detail = "is a dummy gateway: it confirms payments that nobody paid";
        findings.push(Finding::new(what.clone(), Verdict::Warning, detail));
    }
    let probing = async {
        let gateway = registry::build(variant)?;
        gateway.probe().await.map_err(|reason| Failure::new(Exit::Failed, reason))
    };
    let found = bounded(probing).await;
    // The dummy always answers: the warning says it all.
    if findings.is_empty() || found.is_err() {
        findings.push(Finding::of(what, found.map(|detail| format!("{}: {detail}", variant.gateway))));
    }
    findings
}

/// Host, port and path of an address, without user and password.
fn address(url: &SecretString) -> String {
    let url = url.expose_secret();
    let whole = url.split_once("://").map_or("", |(_, rest)| rest);
    let address = whole.split('?').next().unwrap_or_default();
    match address.rsplit_once('@') {
        Some((_, address)) => tame(address),
        // The part of a password before a question mark is no host either.
        None if whole.contains('@') => String::new(),
        None => tame(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_secrets() {
        let check = |url: &str, shown: &str| assert_eq!(address(&SecretString::from(url)), shown, "{url}");
        check("amqp://guest:secret@127.0.0.1:5672/%2f", "127.0.0.1:5672/%2f");
        check("amqp://guest:se@cret@127.0.0.1:5672", "127.0.0.1:5672");
        check("postgres://paybus@localhost/paybus?password=secret", "localhost/paybus");
        check("postgres://paybus:se?cret@localhost/paybus", "");
        check("postgres://localhost/paybus", "localhost/paybus");
        check("host=localhost password=secret", "");
    }

    #[test]
    fn work_that_waits_for_a_person_is_reported() {
        assert_eq!(needs_somebody(&Figures::default()), Vec::<String>::new());
        let of = |currency: &str, count, escalated| UnknownFigures {
            variant: "cards".to_owned(),
            currency: currency.to_owned(),
            count,
            escalated,
            oldest_seconds: 60.0,
            amount: 10.into(),
        };
        let mut figures = Figures { unknown: vec![of("EUR", 2, 1), of("USD", 1, 0)], ..Figures::default() };
        figures.outbox.set_aside = 4;
        assert_eq!(
            needs_somebody(&figures),
            [
                "1 operation must be resolved by an operator: `paybus list --state escalated`",
                "3 operations with an unknown outcome: `paybus list --state unknown`",
                "4 events set aside because the broker refused them; docs/on-call.md, PaybusEventsSetAside",
            ]
        );
    }

    #[test]
    fn a_warning_is_no_failure_and_unreachable_has_its_own_code() {
        let check = |verdicts: &[Verdict], exit: Exit| {
            let findings: Vec<Finding> = verdicts.iter().map(|verdict| Finding::new("x", *verdict, "")).collect();
            assert_eq!(verdict(&findings), exit);
        };
        check(&[Verdict::Good, Verdict::Warning], Exit::Done);
        check(&[Verdict::Failed(Exit::Unavailable), Verdict::Good], Exit::Unavailable);
        check(&[Verdict::Failed(Exit::Failed), Verdict::Failed(Exit::Unavailable)], Exit::Unavailable);
        check(&[Verdict::Failed(Exit::Configuration)], Exit::Failed);
    }
}
