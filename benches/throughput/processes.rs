//! What processes cost: CPU time and memory, from /proc.

use std::collections::HashMap;
use std::fs;
use std::process::Command;

/// The clock ticks that /proc counts in, a second; the same on every Linux.
const TICKS: f64 = 100.0;

/// CPU seconds so far, by process.
#[derive(Debug, Default, Clone, Copy)]
pub struct Cpu {
    /// The program that is measured.
    pub worker: f64,
    /// RabbitMQ.
    pub broker: f64,
    /// PostgreSQL, all its processes.
    pub database: f64,
    /// This program: upstream, gateway and subscriber.
    pub bench: f64,
}

/// Where the two servers run.
#[derive(Debug, Clone, Copy)]
pub struct Servers {
    broker: Option<u32>,
    database: Option<u32>,
}

impl Servers {
    /// Finds the private servers that scripts/with-services started.
    pub fn find() -> Servers {
        let broker = std::env::var("PAYBUS_TEST_RABBITMQCTL").ok().and_then(|program| {
            let output = Command::new(program).args(["eval", "os:getpid()."]).output().ok()?;
            String::from_utf8_lossy(&output.stdout).trim().trim_matches('"').parse().ok()
        });
        let database = std::env::var("PAYBUS_TEST_PGDATA").ok().and_then(|data| {
            let file = fs::read_to_string(format!("{data}/postmaster.pid")).ok()?;
            file.lines().next()?.trim().parse().ok()
        });
        Servers { broker, database }
    }

    /// What everything has cost so far.
    pub fn cpu(&self, worker: u32) -> Cpu {
        let stats = stats();
        let own = |process: u32| stats.get(&process).map_or(0.0, |stat| stat.own);
        let whole = |process: u32| stats.get(&process).map_or(0.0, |stat| stat.own + stat.ended);
        let children = |parent: u32| -> f64 {
            stats.iter().filter(|(_, stat)| stat.parent == parent).map(|(_, stat)| stat.own + stat.ended).sum()
        };
        Cpu {
            worker: own(worker),
            broker: self.broker.map_or(0.0, own),
            database: self.database.map_or(0.0, |postmaster| whole(postmaster) + children(postmaster)),
            bench: own(std::process::id()),
        }
    }
}

impl Cpu {
    /// What was spent since.
    pub fn since(self, earlier: Cpu) -> Cpu {
        Cpu {
            worker: self.worker - earlier.worker,
            broker: self.broker - earlier.broker,
            database: self.database - earlier.database,
            bench: self.bench - earlier.bench,
        }
    }

    /// Spread over so many payments: CPU seconds for 1,000 of them.
    pub fn per_thousand(self, payments: usize) -> Cpu {
        let by = 1000.0 / payments as f64;
        Cpu { worker: self.worker * by, broker: self.broker * by, database: self.database * by, bench: self.bench * by }
    }
}

/// The most memory that a process ever held, in MiB.
pub fn peak_memory(process: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes: f64 = peak.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or(0.0);
    kibibytes / 1024.0
}

struct Stat {
    parent: u32,
    own: f64,
    /// Of its children that have ended.
    ended: f64,
}

fn stats() -> HashMap<u32, Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(stat).collect()
}

fn stat(process: u32) -> Option<(u32, Stat)> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in parentheses may hold spaces.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |place: usize| fields.get(place).and_then(|field| field.parse::<f64>().ok());
    let own = (ticks(11)? + ticks(12)?) / TICKS;
    let ended = (ticks(13)? + ticks(14)?) / TICKS;
    Some((process, Stat { parent: fields.get(1)?.parse().ok()?, own, ended }))
}
