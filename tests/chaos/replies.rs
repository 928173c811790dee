//! The queue where replies are collected. It is read at the end and then contains every reply.

use crate::script::REPLIES;
use crate::support::World;

/// One reply.
#[derive(Debug)]
pub struct Reply {
    /// The id of the event in the reply.
    pub event: String,
    /// The `correlation_id` that came with it.
    pub correlation: String,
}

/// Declares the queue.
pub async fn declare(world: &World) {
    world.bus.declare_queue(REPLIES).await;
}

/// Takes all replies, and deletes the queue.
pub async fn take(world: &World) -> Vec<Reply> {
    let taken = world.bus.take_all_of(REPLIES).await;
    world.bus.delete_queue(REPLIES).await;
    let reply = |(properties, body): (lapin::BasicProperties, Vec<u8>)| {
        let event: serde_json::Value = serde_json::from_slice(&body).expect("a reply is an event");
        Reply {
            event: event["id"].as_str().expect("an id").to_owned(),
            correlation: properties.correlation_id().as_ref().map(ToString::to_string).unwrap_or_default(),
        }
    };
    taken.into_iter().map(reply).collect()
}
