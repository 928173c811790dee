//! What is left at the broker: only the dead letters that were meant to become ones.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::{Finding, Kind};
use crate::support::World;
use crate::support::bus::header;

/// Messages that a stopped worker had not acknowledged return a little later.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Checks every queue.
pub async fn check(world: &World, unreadable: &HashSet<Vec<u8>>) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut queues = ["unroutable", "unrouted", "unanswered", "test"].map(str::to_owned).to_vec();
    queues.extend(world.variants().iter().flat_map(|name| [format!("commands.{name}"), format!("inbound.{name}")]));
    let begun = Instant::now();
    for queue in queues {
        let mut length = world.bus.length(&queue).await;
        while length > 0 && begun.elapsed() < TIMEOUT {
            tokio::time::sleep(Duration::from_millis(100)).await;
            length = world.bus.length(&queue).await;
        }
        if length > 0 {
            found.push(Finding::new(Kind::LeftInQueue, None, format!("{length} in {queue}")));
        }
    }
    found.extend(dead_letters(world, unreadable).await);
    found
}

/// Each unreadable message is a dead letter, and nothing else is.
async fn dead_letters(world: &World, unreadable: &HashSet<Vec<u8>>) -> Vec<Finding> {
    let letters = world.bus.take_all("dead").await;
    let mut found = Vec::new();
    for (properties, body) in letters.iter().filter(|(_, body)| !unreadable.contains(body)) {
        let text = String::from_utf8_lossy(body).chars().take(300).collect::<String>();
        let reason = header(properties, "x-paybus-reason");
        found.push(Finding::new(Kind::DeadLetter, None, format!("{reason}: {text}")));
    }
    let dead: HashSet<Vec<u8>> = letters.into_iter().map(|(_, body)| body).collect();
    let missing = unreadable.difference(&dead).map(|body| String::from_utf8_lossy(body).into_owned());
    found.extend(missing.map(|body| Finding::new(Kind::DeadLetterMissing, None, body)));
    found
}
