//! The verdict: what was done, what happened meanwhile, and which violations were found. A table for people, JSON for
//! scripts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::canary;
use crate::findings::{Finding, Kind};
use crate::ledger::Ledger;
use crate::plan::Plan;
use crate::support::World;
use crate::support::worker::paybus;
use crate::tally::Tally;
use crate::upstream::{Sent, Upstream};

/// How many payments are shown in full.
const SHOWN_MAX: usize = 10;
/// How many findings of a kind are listed.
const LISTED_MAX: usize = 10;

/// The outcome of a soak.
pub struct Verdict {
    gateway: &'static str,
    is_cluster: bool,
    seed: u64,
    seconds: u64,
    replicas: usize,
    payments: usize,
    sent: Sent,
    events: usize,
    /// What the gateway's calls met.
    met: BTreeMap<&'static str, usize>,
    /// The disruptions of the surroundings.
    disruptions: BTreeMap<String, usize>,
    left_out: Vec<&'static str>,
    calls: usize,
    effects: BTreeMap<&'static str, usize>,
    times: Times,
    found: Vec<Finding>,
}

/// How long things took.
pub struct Times {
    /// Until everything was at rest after the faults.
    pub rested: Duration,
    /// The answer times of the healthy variant.
    pub canary: canary::Figures,
}

impl Verdict {
    /// Summarizes a soak.
    pub fn new(
        plan: &Plan,
        ledger: &dyn Ledger,
        upstream: &Upstream,
        tally: &Tally,
        left_out: Vec<&'static str>,
        times: Times,
        found: Vec<Finding>,
    ) -> Verdict {
        let mut effects = BTreeMap::new();
        for effect in ledger.effects_of_all().into_values().flatten() {
            *effects.entry(effect.kind).or_default() += 1;
        }
        Verdict {
            gateway: plan.gateway_name.as_str(),
            is_cluster: plan.is_cluster,
            seed: plan.seed,
            seconds: plan.length.as_secs(),
            replicas: plan.replicas.len(),
            payments: plan.scripts.len(),
            sent: upstream.sent(),
            events: upstream.event_count(),
            met: ledger.met(),
            disruptions: tally.counts(),
            left_out,
            calls: ledger.calls(),
            effects,
            times,
            found,
        }
    }

    /// Whether the guarantee was kept.
    pub fn is_clean(&self) -> bool {
        self.found.is_empty()
    }

    fn counts(&self) -> impl Iterator<Item = (&'static str, usize)> + '_ {
        let count = |kind| self.found.iter().filter(|finding| finding.kind == kind).count();
        Kind::ALL.into_iter().map(move |(kind, line)| (line, count(kind)))
    }

    /// The command line that draws the same plan again.
    pub fn again(&self) -> String {
        let (seconds, seed, replicas, gateway) = (self.seconds, self.seed, self.replicas, self.gateway);
        let chaos = if self.is_cluster { "chaos-cluster" } else { "chaos" };
        format!("make {chaos} ARGS='--gateway {gateway} --seconds {seconds} --seed {seed} --replicas {replicas}'")
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut table = Table::default();
        table.head("soak");
        table.row("gateway", self.gateway);
        table.row("seed", self.seed);
        table.row("seconds of faults", self.seconds);
        table.seconds("seconds until all was at rest", self.times.rested);
        table.row("replicas", self.replicas);
        table.row("payments", self.payments);
        table.head("commands sent");
        table.rows(&self.sent.kinds);
        table.row("in all", self.sent.kinds.values().sum::<usize>());
        table.row("of these: exact duplicates", self.sent.duplicates);
        table.row("of these: wrong on purpose", self.sent.wrong);
        table.head("faults of the gateway, by calls that met them");
        table.rows(&self.met);
        table.head("faults of the surroundings");
        table.rows(&self.disruptions);
        self.left_out.iter().for_each(|what| table.row(what, "left out"));
        table.head("what happened");
        table.row("gateway calls", self.calls);
        self.effects.iter().for_each(|(kind, count)| table.row(&format!("gateway: {kind}"), count));
        table.row("events received", self.events);
        table.head("the variant that is never ill");
        table.row("answers", self.times.canary.answers);
        table.seconds("seconds until the median answer", self.times.canary.median);
        table.seconds("seconds until the slowest, all outages included", self.times.canary.slowest);
        table.seconds("seconds in which it could answer", self.times.canary.counted);
        table.seconds("the longest of these without an answer", self.times.canary.silence);
        table.head("what must not be");
        self.counts().for_each(|(line, count)| table.row(line, count));
        table.end();
        table.text + if self.is_clean() { "The promise was kept.\n" } else { "THE PROMISE WAS BROKEN.\n" }
    }

    /// For scripts.
    pub fn json(&self) -> Value {
        let listed = |finding: &Finding| json!({"kind": format!("{:?}", finding.kind), "payment": finding.payment, "what": finding.what});
        json!({
            "kept": self.is_clean(),
            "gateway": self.gateway,
            "cluster": self.is_cluster,
            "seed": self.seed,
            "seconds": self.seconds,
            "rest_seconds": self.times.rested.as_secs_f64(),
            "canary": self.times.canary.json(),
            "replicas": self.replicas,
            "payments": self.payments,
            "commands": self.sent.kinds,
            "duplicates": self.sent.duplicates,
            "wrong": self.sent.wrong,
            "gateway_faults": self.met,
            "surroundings": self.disruptions,
            "left_out": self.left_out,
            "gateway_calls": self.calls,
            "gateway_effects": self.effects,
            "events": self.events,
            "must_not_be": self.counts().collect::<BTreeMap<_, _>>(),
            "findings": self.found.iter().map(listed).collect::<Vec<_>>(),
            "again": self.again(),
        })
    }

    /// Every finding, and for each payment concerned what paybus and the gateway know about it.
    pub fn evidence(&self, world: &World, ledger: &dyn Ledger) -> String {
        let mut text = String::new();
        for (kind, _) in Kind::ALL {
            for finding in self.found.iter().filter(|finding| finding.kind == kind).take(LISTED_MAX) {
                let payment = finding.payment.map_or("-".to_owned(), |payment| payment.to_string());
                line(&mut text, &format!("{kind:?} {payment} {}", finding.what));
            }
        }
        let payments: BTreeSet<Uuid> = self.found.iter().filter_map(|finding| finding.payment).collect();
        for payment in payments.iter().take(SHOWN_MAX) {
            line(&mut text, &format!("\n=== payment {payment}"));
            text.push_str(&show(world, *payment));
            line(&mut text, "--- the gateway's record");
            ledger.record(*payment).iter().for_each(|call| line(&mut text, call));
            for effect in ledger.effects(*payment) {
                line(&mut text, &format!("did {effect:?}"));
            }
            line(&mut text, "--- the events as they came");
            world.events_of(*payment).iter().for_each(|event| line(&mut text, &event.line()));
        }
        if payments.len() > SHOWN_MAX {
            line(&mut text, &format!("\n{} more payments are concerned", payments.len() - SHOWN_MAX));
        }
        text
    }
}

/// The payment's timeline as an operator sees it.
fn show(world: &World, payment: Uuid) -> String {
    let shown = paybus(world.settings()).args(["show", &payment.to_string()]).output().expect("the binary runs");
    String::from_utf8_lossy(&[shown.stdout, shown.stderr].concat()).into_owned()
}

/// Where the replicas' logs are kept.
pub fn logs(world: &World) -> PathBuf {
    world.keep_logs().to_owned()
}

fn line(text: &mut String, content: &str) {
    writeln!(text, "{content}").expect("a string");
}

/// Two columns.
#[derive(Default)]
struct Table {
    text: String,
}

const LEFT: usize = 52;
const RIGHT: usize = 22;

impl Table {
    fn head(&mut self, title: &str) {
        self.end();
        line(&mut self.text, &format!("| {title:<LEFT$} | {:>RIGHT$} |", ""));
        self.end();
    }

    fn row(&mut self, name: &str, value: impl std::fmt::Display) {
        line(&mut self.text, &format!("| {name:<LEFT$} | {:>RIGHT$} |", value.to_string()));
    }

    fn seconds(&mut self, name: &str, time: Duration) {
        self.row(name, format!("{:.1}", time.as_secs_f32()));
    }

    fn rows(&mut self, counts: &BTreeMap<impl AsRef<str>, usize>) {
        counts.iter().for_each(|(name, count)| self.row(name.as_ref(), count));
    }

    fn end(&mut self) {
        line(&mut self.text, &format!("|{}|{}|", "-".repeat(LEFT + 2), "-".repeat(RIGHT + 2)));
    }
}
