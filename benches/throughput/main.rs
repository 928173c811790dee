//! How fast paybus is beside the floor: the same traffic with nothing decided in it. `make bench`, or with arguments
//! `make bench ARGS='--payments 50000 --only burst'`.
//!
//! Bursts find all their commands in the queue. In the open model commands come at a set rate, whatever becomes of them,
//! and the time counts from a command's publishing to its payment's last event; those of the first seconds, in which the
//! program opens its connections and the servers read what they need, are carried out and do not count. Every run is also
//! checked: what was charged, stored and told.
//!
//! Nothing is tuned for it: fsync on, quorum queues, persistent messages, confirms, and a subscriber's queue that gets all
//! events.

#![allow(clippy::expect_used, clippy::panic)] // What goes wrong ends the measurement.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use serde_json::{Value, json};
use uuid::Uuid;

use self::commands::Upstream;
use self::events::Subscriber;
use self::gateway::Gateway;
use self::processes::{Cpu, Servers, peak_memory};
use self::report::{Latency, Run};
use self::world::{Program, World};

mod commands;
mod events;
mod floor;
mod gateway;
mod processes;
mod report;
mod stored;
mod world;

/// The same as paybus's: the floor is to be as low as it can be.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What the gateway takes for a call.
const DELAYS_MS: [u64; 3] = [0, 100, 300];

#[derive(Parser)]
#[command(about = "How fast paybus is beside the floor of broker, database and gateway on this machine")]
struct Arguments {
    #[command(subcommand)]
    program: Option<Subprogram>,
    /// Commands of a burst.
    #[arg(long, default_value_t = 20_000)]
    payments: usize,
    /// How long commands come in the open model, and their times count.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How long commands come before that.
    #[arg(long, default_value_t = 3)]
    warm_up: u64,
    /// Commands a second in the open model; left out: half of what a burst reached.
    #[arg(long)]
    rate: Option<f64>,
    /// Calls in flight per replica: a gateway of 300 ms needs 1,500 at five thousand payments a second.
    #[arg(long, default_value_t = 1800)]
    concurrency: usize,
    /// Payments that are stored already, with their events.
    #[arg(long, default_value_t = 0)]
    stored: usize,
    /// Only the runs whose names contain this.
    #[arg(long)]
    only: Option<String>,
    /// Where the results go as JSON as well.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Given by `cargo bench`; means nothing here.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Subprogram {
    /// Run as the floor itself; started by the measurement.
    #[command(hide = true)]
    Floor(floor::FloorArguments),
}

/// Which program carries the commands out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subject {
    Floor,
    Paybus { replicas: usize },
}

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    if let Some(Subprogram::Floor(floor)) = arguments.program {
        return floor::run(floor).await;
    }
    let bench = Bench { servers: Servers::find(), arguments };
    let settings = settings().await;
    println!("{settings:#}\nCPU in seconds for 1,000 payments\n");
    report::print_head();
    let runs = bench.run_all().await;
    if let Some(path) = &bench.arguments.json {
        std::fs::write(path, report::json(&settings, &runs)).expect("the results are written");
    }
    if runs.iter().any(|run| !run.is_correct()) {
        std::process::exit(1);
    }
}

/// What the servers run with: what a user would keep.
async fn settings() -> Value {
    let client = world::client(&world::variable("PAYBUS__DATABASE__URL")).await;
    let mut postgres = serde_json::Map::new();
    for name in ["server_version", "fsync", "synchronous_commit", "full_page_writes", "wal_level", "shared_buffers"] {
        let value: String = client.query_one(&format!("SHOW {name}"), &[]).await.expect("a setting").get(0);
        postgres.insert(name.to_owned(), value.into());
    }
    let broker = std::env::var("PAYBUS_TEST_RABBITMQCTL").ok().and_then(|program| {
        let output = std::process::Command::new(program).arg("version").output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    });
    json!({
        "processors": std::thread::available_parallelism().map_or(0, usize::from),
        "postgresql": postgres,
        "rabbitmq": { "version": broker, "queues": "quorum, durable", "messages": "persistent, confirmed" },
    })
}

impl Subject {
    fn name(self) -> String {
        match self {
            Subject::Floor => "floor".to_owned(),
            Subject::Paybus { replicas: 1 } => "paybus".to_owned(),
            Subject::Paybus { replicas } => format!("paybus, {replicas} replicas"),
        }
    }

    fn start(self, world: &World, gateway: &Gateway) -> Vec<Program> {
        match self {
            Subject::Floor => vec![world.floor(&gateway.url)],
            Subject::Paybus { replicas } => (0..replicas).map(|_| world.worker()).collect(),
        }
    }
}

struct Bench {
    servers: Servers,
    arguments: Arguments,
}

impl Bench {
    async fn run_all(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let mut fastest = HashMap::new();
        for delay in DELAYS_MS {
            let mut floor = None;
            for subject in [Subject::Floor, Subject::Paybus { replicas: 1 }] {
                let Some(mut run) = self.burst(subject, delay).await else { continue };
                if subject == Subject::Floor {
                    floor = run.rate;
                } else {
                    run.ratio = run.rate.zip(floor).map(|(rate, floor)| rate / floor);
                    fastest.insert(delay, run.rate.unwrap_or_default());
                }
                report::print(&run);
                runs.push(run);
            }
        }
        if let Some(run) = self.burst(Subject::Paybus { replicas: 2 }, 0).await {
            report::print(&run);
            runs.push(run);
        }
        for delay in DELAYS_MS {
            let rate = self.arguments.rate.unwrap_or_else(|| fastest.get(&delay).map_or(1000.0, |rate| rate / 2.0));
            for subject in [Subject::Floor, Subject::Paybus { replicas: 1 }] {
                if let Some(run) = self.open(subject, delay, rate).await {
                    report::print(&run);
                    runs.push(run);
                }
            }
        }
        if let Some(run) = self.one_by_one().await {
            report::print(&run);
            runs.push(run);
        }
        runs
    }

    /// What a run needs beside its program; nothing where the run is not wanted.
    async fn stage(&self, name: &str, delay: u64) -> Option<Stage> {
        if self.arguments.only.as_deref().is_some_and(|only| !name.contains(only)) {
            return None;
        }
        let gateway = Gateway::start(Duration::from_millis(delay)).await;
        let world = World::new(&gateway.url, self.arguments.concurrency).await;
        if self.arguments.stored > 0 {
            stored::fill(&world.database().await, self.arguments.stored).await;
        }
        let connection = world.broker().await;
        let subscriber = Subscriber::bind(&connection, &world.prefix).await;
        Some(Stage { gateway, world, connection, subscriber })
    }

    /// Everything is in the queue before the program starts.
    async fn burst(&self, subject: Subject, delay: u64) -> Option<Run> {
        let name = format!("burst, {delay} ms: {}", subject.name());
        let Stage { gateway, world, connection, subscriber } = self.stage(&name, delay).await?;
        let payments: Vec<Uuid> = (0..self.arguments.payments).map(|_| Uuid::now_v7()).collect();
        Upstream::open(&connection, &world.prefix).await.fill(&payments).await;
        let (begun, before) = (Instant::now(), self.servers.cpu(0));
        let programs = subject.start(&world, &gateway);
        let ended = subscriber.wait_for(2 * payments.len()).await;
        let took = ended.duration_since(begun).as_secs_f64();
        let cpu = self.cpu(&programs, before);
        let memory = programs.iter().map(|program| peak_memory(program.process())).fold(0.0, f64::max);
        let stored = world.settled(payments.len()).await;
        drop(programs);
        let mut consumer = subscriber.consume().await;
        let received = subscriber.read(&mut consumer, payments.len(), |_| {}).await;
        world.clear().await;
        let rate = Some(payments.len() as f64 / took);
        let cpu = cpu.per_thousand(payments.len());
        let charged = gateway.close();
        Some(Run {
            name,
            payments: payments.len(),
            rate,
            ratio: None,
            latency: None,
            memory,
            cpu,
            received,
            charged,
            stored,
        })
    }

    /// Commands come at a set rate.
    async fn open(&self, subject: Subject, delay: u64, rate: f64) -> Option<Run> {
        let name = format!("open, {rate:.0}/s, {delay} ms: {}", subject.name());
        let during = |seconds: u64| (rate * seconds as f64) as usize;
        let commands = Paced {
            warm_up: during(self.arguments.warm_up),
            counted: during(self.arguments.seconds),
            pace: Pace::Every(Duration::from_secs_f64(1.0 / rate)),
        };
        self.paced(name, subject, delay, commands).await
    }

    /// Each command is published when the one before is through: what an idle worker takes for one.
    async fn one_by_one(&self) -> Option<Run> {
        let paybus = Subject::Paybus { replicas: 1 };
        let commands = Paced { warm_up: 20, counted: 200, pace: Pace::OneByOne };
        self.paced("one by one, 0 ms: paybus".to_owned(), paybus, 0, commands).await
    }

    async fn paced(&self, name: String, subject: Subject, delay: u64, commands: Paced) -> Option<Run> {
        let Stage { gateway, world, connection, subscriber } = self.stage(&name, delay).await?;
        let upstream = Upstream::open(&connection, &world.prefix).await;
        let programs = subject.start(&world, &gateway);
        for program in &programs {
            program.ready().await;
        }
        let mut consumer = subscriber.consume().await;
        let before = self.servers.cpu(0);
        let published: Arc<Mutex<HashMap<Uuid, Instant>>> = Arc::default();
        let (through, next) = tokio::sync::mpsc::unbounded_channel();
        let payments = commands.warm_up + commands.counted;
        let publishing = tokio::spawn(publish(upstream, commands, Arc::clone(&published), next));
        let mut times = Vec::with_capacity(payments);
        let received = subscriber
            .read(&mut consumer, payments, |payment| {
                let sent = published.lock().unwrap_or_else(PoisonError::into_inner).remove(&payment);
                times.extend(sent.map(|sent| sent.elapsed()));
                // Nobody listens where the pace is set by the clock.
                through.send(()).unwrap_or_default();
            })
            .await;
        publishing.await.expect("published");
        let cpu = self.cpu(&programs, before).per_thousand(payments);
        let memory = peak_memory(programs[0].process());
        let stored = world.settled(payments).await;
        drop(programs);
        world.clear().await;
        let (latency, charged) = (Latency::of(times), gateway.close());
        Some(Run { name, payments, rate: None, ratio: None, latency, memory, cpu, received, charged, stored })
    }

    fn cpu(&self, programs: &[Program], before: Cpu) -> Cpu {
        let after = self.servers.cpu(0);
        let worker = programs.iter().map(|program| self.servers.cpu(program.process()).worker).sum();
        Cpu { worker, ..after.since(before) }
    }
}

/// What a run needs beside its program.
struct Stage {
    gateway: Gateway,
    world: World,
    connection: lapin::Connection,
    subscriber: Subscriber,
}

/// Commands that come one after the other.
struct Paced {
    /// How many come before the first whose time counts.
    warm_up: usize,
    /// How many count.
    counted: usize,
    pace: Pace,
}

/// What sets the pace of the commands.
enum Pace {
    Every(Duration),
    OneByOne,
}

async fn publish(
    upstream: Upstream,
    commands: Paced,
    published: Arc<Mutex<HashMap<Uuid, Instant>>>,
    mut through: tokio::sync::mpsc::UnboundedReceiver<()>,
) {
    let begun = Instant::now();
    let all = commands.warm_up + commands.counted;
    let mut confirms = Vec::with_capacity(all);
    for place in 0..all {
        if let Pace::Every(gap) = commands.pace {
            // By the clock and not by the one before: a late one is not excused by what made it late.
            tokio::time::sleep_until((begun + gap * u32::try_from(place).expect("few enough")).into()).await;
        }
        let payment = Uuid::now_v7();
        if place >= commands.warm_up {
            published.lock().unwrap_or_else(PoisonError::into_inner).insert(payment, Instant::now());
        }
        confirms.push(upstream.send(payment).await);
        if let Pace::OneByOne = commands.pace {
            through.recv().await.expect("the subscriber reads");
        }
    }
    for confirm in confirms {
        assert!(confirm.await.expect("a confirm").is_ack());
    }
}
