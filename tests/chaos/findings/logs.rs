//! No replica panicked, and none logged an unexpected error.

use serde_json::Value;

use super::{Finding, Kind};
use crate::support::Worker;

/// Errors that the plan causes: an operator is needed, or the database cannot commit while it is away.
const EXPECTED: [&str; 2] = [
    "the outcome of an operation is unknown; an operator must resolve it",
    "the database role may not commit; retrying",
];

/// Reads every log.
pub fn check(workers: &[Worker]) -> Vec<Finding> {
    workers.iter().flat_map(|worker| of_log(worker.pid(), &worker.log())).collect()
}

fn of_log(pid: u32, log: &str) -> Vec<Finding> {
    let unexpected = log.lines().filter(|line| {
        // JSON is truncated if a replica was killed in the middle of a line.
        match serde_json::from_str::<Value>(line) {
            Ok(line) => {
                let message = line["fields"]["message"].as_str().or(line["message"].as_str()).unwrap_or_default();
                line["level"] == "ERROR" && !EXPECTED.contains(&message)
            }
            Err(_) => line.contains("panicked at") || line.contains("ERROR"),
        }
    });
    unexpected.map(|line| Finding::new(Kind::Log, None, format!("replica {pid}: {line}"))).collect()
}
