//! The real binary, started, signalled and watched as an operator would.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::ports::free_port;
use super::wait::{START, TIMEOUT_WITH_NETS, within};

/// How a worker is started.
#[derive(Debug, Clone, Default)]
pub struct WorkerSetup {
    /// Settings over those of the world, by their keys: `variants.http.rate`.
    pub settings: Vec<(String, String)>,
    /// Other variables of its environment, such as `PAYBUS_FAILPOINT`.
    pub environment: Vec<(String, String)>,
    /// Whether it only receives webhooks: `paybus webhooks`.
    pub only_webhooks: bool,
    /// Another program than the one under test, such as an older one.
    pub program: Option<PathBuf>,
}

impl WorkerSetup {
    /// With this setting.
    pub fn set(mut self, key: &str, value: &str) -> WorkerSetup {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// As `paybus webhooks`.
    pub fn only_webhooks(mut self) -> WorkerSetup {
        self.only_webhooks = true;
        self
    }

    /// With this variable.
    pub fn variable(mut self, name: &str, value: &str) -> WorkerSetup {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Dies at this step: `begun`, or `begun@3` for the third time.
    pub fn dies_at(self, step: &str) -> WorkerSetup {
        self.variable("PAYBUS_FAILPOINT", step)
    }

    /// Stops at this step, as by [`Worker::stop`], until it is let go on.
    pub fn stops_at(self, step: &str) -> WorkerSetup {
        self.variable("PAYBUS_FAILPOINT", step).variable("PAYBUS_FAILPOINT_ACTION", "stop")
    }
}

/// A running worker; all copies are the same process, which is killed with the world.
#[derive(Debug, Clone)]
pub struct Worker {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    child: Mutex<Child>,
    pid: u32,
    http: String,
    log: PathBuf,
    /// Whether what it was at may be left to others: it was killed or stopped, or is made to.
    is_lost: AtomicBool,
}

impl Worker {
    /// Starts it with these settings, its log into this file. Where all replicas take their configuration from the
    /// environment, a file is not missed.
    pub fn spawn(settings: &BTreeMap<String, String>, setup: &WorkerSetup, log: PathBuf) -> Worker {
        let http = format!("127.0.0.1:{}", free_port());
        let output = File::create(&log).expect("a log file");
        let mut command = program(setup.program.as_deref().unwrap_or(binary()), settings);
        command.arg(if setup.only_webhooks { "webhooks" } else { "worker" }).env("PAYBUS__HTTP__LISTEN", &http);
        command.envs(setup.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(output.try_clone().expect("a second handle")).stderr(output);
        let child = command.spawn().expect("the binary starts");
        let pid = child.id();
        let is_lost = AtomicBool::new(setup.environment.iter().any(|(name, _)| name == "PAYBUS_FAILPOINT"));
        let (child, http) = (Mutex::new(child), format!("http://{http}"));
        Worker { inner: Arc::new(Inner { child, pid, http, log, is_lost }) }
    }

    /// Waits until it says that it is ready.
    pub async fn ready(&self) {
        within(START, "a worker to be ready", async || {
            if let Some(status) = self.exited() {
                panic!("the worker ended at its start, {status}:\n{}", self.log());
            }
            self.get("/readyz").await.and_then(|(status, text)| if status == 200 { Ok(()) } else { Err(text) })
        })
        .await;
    }

    /// What one of its HTTP addresses answers.
    pub async fn get(&self, path: &str) -> Result<(u16, String), String> {
        let asked = async {
            let answer = reqwest::get(format!("{}{path}", self.inner.http)).await?;
            let status = answer.status().as_u16();
            Ok((status, answer.text().await?))
        };
        asked.await.map_err(|error: reqwest::Error| error.to_string())
    }

    /// Its metrics as text.
    pub async fn metrics(&self) -> String {
        self.get("/metrics").await.expect("metrics").1
    }

    /// The value of one series, such as `paybus_retries_total{variant="http",code="timeout"}`, its labels in any order;
    /// zero where there is none.
    pub async fn metric(&self, series: &str) -> f64 {
        self.try_metric(series).await.expect("metrics")
    }

    /// The same of a worker that may be gone.
    pub async fn try_metric(&self, series: &str) -> Result<f64, String> {
        let parts = |series: &str| {
            let (name, labels) = series.trim_end_matches('}').split_once('{').unwrap_or((series, ""));
            let mut labels: Vec<String> =
                labels.split(',').filter(|label| !label.is_empty()).map(str::to_owned).collect();
            labels.sort();
            (name.to_owned(), labels)
        };
        let (_, metrics) = self.get("/metrics").await?;
        let lines = metrics.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        let mut values = lines.filter(|(name, _)| parts(name) == parts(series));
        Ok(values.next().map_or(0.0, |(_, value)| value.parse().expect("a number")))
    }

    /// The same of a series that counts.
    pub async fn count(&self, series: &str) -> i64 {
        self.metric(series).await.round() as i64
    }

    /// Kills it: SIGKILL. Returns when it is gone.
    pub async fn kill(&self) {
        self.signal("KILL");
        self.wait().await;
    }

    /// Asks it to end: SIGTERM.
    pub fn term(&self) {
        self.signal("TERM");
    }

    /// Stops it where it stands: SIGSTOP.
    pub fn stop(&self) {
        self.signal("STOP");
    }

    /// Lets it go on: SIGCONT.
    pub fn cont(&self) {
        self.signal("CONT");
    }

    /// Whether it was killed or stopped, or is made to die or stop at a step: what it was at may be left to others.
    pub fn is_lost(&self) -> bool {
        self.inner.is_lost.load(Ordering::Relaxed)
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        if ["KILL", "STOP"].contains(&name) {
            self.inner.is_lost.store(true, Ordering::Relaxed);
        }
        let pid = self.inner.pid.to_string();
        if self.exited().is_none() {
            let sent = Command::new("kill").args(["-s", name, &pid]).status().expect("kill");
            assert!(sent.success() || self.exited().is_some(), "signal {name} to {pid}");
        }
    }

    /// Waits until it is stopped where it stands.
    pub async fn stopped(&self) {
        let path = format!("/proc/{}/stat", self.inner.pid);
        within(TIMEOUT_WITH_NETS, "a worker to be stopped", async || {
            let stat = std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
            // After the program's name, which is in brackets.
            let state = stat.rsplit_once(") ").map_or("", |(_, rest)| &rest[..1]);
            if state == "T" { Ok(()) } else { Err(format!("its state is {state}")) }
        })
        .await;
    }

    /// Waits until it has ended.
    pub async fn wait(&self) -> ExitStatus {
        within(std::time::Duration::from_secs(40), "a worker to end", async || self.exited().ok_or("it still runs"))
            .await
    }

    /// Asks it to end, waits, and expects that it drained.
    pub async fn drain(&self) {
        if self.exited().is_none() {
            self.term();
            let status = self.wait().await;
            assert!(status.success(), "the worker did not drain: {status}");
        }
    }

    /// How it ended, if it has.
    pub fn exited(&self) -> Option<ExitStatus> {
        self.inner.child.lock().unwrap().try_wait().expect("a child")
    }

    /// The most memory that it has held so far, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.inner.pid)).expect("a running process");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
        peak.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.inner.log).unwrap_or_default()).into_owned()
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.inner.pid
    }

    /// Where it serves HTTP.
    pub fn http(&self) -> &str {
        &self.inner.http
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap();
        // It may be gone already.
        drop(child.kill());
        drop(child.wait());
    }
}

/// Runs a program to its end, without holding up the test's connections.
pub async fn output_of(mut program: Command) -> Output {
    tokio::task::spawn_blocking(move || program.output()).await.expect("no panic").expect("it runs")
}

/// The binary with these settings in its environment, and nothing of ours.
pub fn paybus(settings: &BTreeMap<String, String>) -> Command {
    program(binary(), settings)
}

fn program(path: &Path, settings: &BTreeMap<String, String>) -> Command {
    let mut command = Command::new(path);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PAYBUS")) {
        command.env_remove(name);
    }
    command.envs(settings.iter().map(|(key, value)| (variable(key), value)));
    command
}

/// The binary under test.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_paybus"))
}

/// The variable of a setting.
fn variable(key: &str) -> String {
    format!("PAYBUS__{}", key.to_uppercase().replace('.', "__"))
}
