//! What was measured, as a table for a person and as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use crate::events::Received;
use crate::gateway::Charged;
use crate::processes::Cpu;

/// One run.
pub struct Run {
    /// What ran.
    pub name: String,
    /// How many commands it was given.
    pub payments: usize,
    /// Payments a second; nothing where the commands set the pace.
    pub rate: Option<f64>,
    /// The rate over that of the floor with the same gateway.
    pub ratio: Option<f64>,
    /// From a command's publishing to its payment's last event.
    pub latency: Option<Latency>,
    /// The most memory that one of its processes held, in MiB.
    pub memory: f64,
    /// CPU seconds for 1,000 payments.
    pub cpu: Cpu,
    /// What its events said.
    pub received: Received,
    /// What the gateway's books said.
    pub charged: Charged,
    /// Payments that the database has as confirmed.
    pub stored: i64,
}

/// How long it took.
#[derive(Debug, Clone, Copy)]
pub struct Latency {
    pub p50: Duration,
    pub p99: Duration,
    pub max: Duration,
}

impl Latency {
    /// Of all that was measured.
    pub fn of(mut times: Vec<Duration>) -> Option<Latency> {
        times.sort_unstable();
        let at = |share: f64| times.get((times.len().saturating_sub(1) as f64 * share) as usize).copied();
        Some(Latency { p50: at(0.50)?, p99: at(0.99)?, max: at(1.0)? })
    }
}

impl Run {
    /// Whether every payment was charged, stored and told once, and in order.
    pub fn is_correct(&self) -> bool {
        let received = &self.received;
        let whole = self.charged.charges == self.payments && usize::try_from(self.stored) == Ok(self.payments);
        received.lost == 0 && received.out_of_order == 0 && self.charged.double == 0 && whole
    }

    fn json(&self) -> Value {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        json!({
            "name": self.name,
            "payments": self.payments,
            "payments_per_second": self.rate,
            "ratio_to_floor": self.ratio,
            "latency_milliseconds": self.latency.map(|latency| json!({
                "p50": milliseconds(latency.p50), "p99": milliseconds(latency.p99), "max": milliseconds(latency.max),
            })),
            "memory_peak_mib": self.memory,
            "cpu_seconds_per_1000": {
                "worker": self.cpu.worker, "broker": self.cpu.broker, "database": self.cpu.database,
                "bench": self.cpu.bench,
            },
            "confirmed": self.received.confirmed, "stored": self.stored, "charges": self.charged.charges,
            "double": self.charged.double, "lost": self.received.lost, "out_of_order": self.received.out_of_order,
            "repeated": self.received.repeated,
        })
    }

    fn line(&self) -> String {
        let number = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        let time = |pick: fn(Latency) -> Duration| number(self.latency.map(|all| pick(all).as_secs_f64() * 1000.0), 1);
        let Run { name, payments, memory, cpu, received, charged, .. } = self;
        format!(
            "{name:<34} {payments:>8} {:>8} {:>6} {:>8} {:>8} {:>8} {memory:>6.0} {:>7.3} {:>7.3} {:>7.3} {:>7.3} {:>9} \
             {:>7} {:>5} {:>6}",
            number(self.rate, 0),
            number(self.ratio, 2),
            time(|all| all.p50),
            time(|all| all.p99),
            time(|all| all.max),
            cpu.worker,
            cpu.broker,
            cpu.database,
            cpu.bench,
            received.confirmed,
            charged.double,
            received.lost,
            received.out_of_order,
        )
    }
}

/// The head of the table; prints as the runs end, so that one sees where it is.
pub fn print_head() {
    println!(
        "{:<34} {:>8} {:>8} {:>6} {:>8} {:>8} {:>8} {:>6} {:>7} {:>7} {:>7} {:>7} {:>9} {:>7} {:>5} {:>6}",
        "",
        "payments",
        "per s",
        "ratio",
        "p50 ms",
        "p99 ms",
        "max ms",
        "MiB",
        "worker",
        "broker",
        "postgres",
        "bench",
        "confirmed",
        "double",
        "lost",
        "order"
    );
}

/// One line of it.
pub fn print(run: &Run) {
    println!("{}", run.line());
    if !run.is_correct() {
        let Run { stored, charged, payments, .. } = run;
        println!("    NOT CORRECT: {payments} commands, {} charges, {stored} stored as confirmed", charged.charges);
    }
}

/// All of it.
pub fn json(settings: &Value, runs: &[Run]) -> String {
    let all = json!({ "settings": settings, "runs": runs.iter().map(Run::json).collect::<Vec<_>>() });
    format!("{all:#}")
}
