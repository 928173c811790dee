//! What is left at the broker: nothing, but for the dead letters that were written for that.

use std::time::{Duration, Instant};

use super::{Finding, Kind};
use crate::support::World;
use crate::support::bus::header;
use crate::wrong::GARBAGE;

/// What an ended worker had not acknowledged comes back a little later.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks into every queue.
pub async fn check(world: &World) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut queues = ["unroutable", "unrouted", "test"].map(str::to_owned).to_vec();
    queues.extend(world.variants().iter().flat_map(|name| [format!("commands.{name}"), format!("inbound.{name}")]));
    let begun = Instant::now();
    for queue in queues {
        let mut length = world.bus.length(&queue).await;
        while length > 0 && begun.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(100)).await;
            length = world.bus.length(&queue).await;
        }
        if length > 0 {
            found.push(Finding::new(Kind::LeftInQueue, None, format!("{length} in {queue}")));
        }
    }
    for (properties, body) in world.bus.take_all("dead").await {
        if !body.starts_with(GARBAGE) {
            let text = String::from_utf8_lossy(&body).chars().take(300).collect::<String>();
            let reason = header(&properties, "x-paybus-reason");
            found.push(Finding::new(Kind::DeadLetter, None, format!("{reason}: {text}")));
        }
    }
    found
}
