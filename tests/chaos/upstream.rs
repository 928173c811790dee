//! The upstream services: they publish the scripts' commands and record the answers.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::script::{Pace, Script};
use crate::services::Service;
use crate::support::bus::{Bus, NO_ANSWER};
use crate::support::{Command, World};
use crate::surroundings::{Allowed, count_elected};
use crate::tally::Tally;
use crate::wrong;

/// How long a careful upstream waits for an answer before it continues nevertheless.
const ANSWER: Duration = Duration::from_secs(12);
/// How many payments are open at once. If the workers fall behind, fewer begin: with a backlog that only grows, the end
/// would depend on how long one waits.
const OPEN_MAX: usize = 300;
/// How long a payment with unanswered commands counts as open. Longer than a lease and the delays of retries, so that
/// slow workers get less to do.
const OPEN: Duration = Duration::from_secs(300);
/// How often new events are read.
const LOOK: Duration = Duration::from_millis(40);
/// How many commands are published before waiting for their confirms.
const BATCH: usize = 64;

type Name = (String, String, String);

/// Answers so far, and what was sent.
#[derive(Debug)]
pub struct Upstream {
    answered: Mutex<HashSet<Name>>,
    events: Mutex<HashSet<String>>,
    arrived: Notify,
    open: Semaphore,
    /// Scripts that never began, because the workers were behind.
    left_out: AtomicUsize,
    sent: Mutex<Sent>,
    /// Bodies of messages that are not commands.
    unreadable: Mutex<HashSet<Vec<u8>>>,
    bodies: Mutex<HashSet<Vec<u8>>>,
}

/// What was sent.
#[derive(Debug, Default, Clone)]
pub struct Sent {
    /// How many, by type.
    pub kinds: BTreeMap<String, usize>,
    /// How many of them were identical to an earlier one, byte for byte.
    pub duplicates: usize,
    /// How many of them must not be carried out.
    pub wrong: usize,
}

impl Default for Upstream {
    fn default() -> Upstream {
        Upstream {
            answered: Mutex::default(),
            events: Mutex::default(),
            arrived: Notify::new(),
            open: Semaphore::new(OPEN_MAX),
            left_out: AtomicUsize::new(0),
            sent: Mutex::default(),
            unreadable: Mutex::default(),
            bodies: Mutex::default(),
        }
    }
}

impl Upstream {
    /// Reads the events as they arrive, until the end.
    pub async fn listen(&self, world: &World, over: &CancellationToken) {
        let mut read = 0;
        while over.run_until_cancelled(sleep(LOOK)).await.is_some() {
            let events = world.log.since(read);
            read += events.len();
            for event in &events {
                self.events.lock().unwrap().insert(event.id().to_owned());
                if event.is_final() {
                    self.answered.lock().unwrap().insert(event.cause());
                }
            }
            if !events.is_empty() {
                self.arrived.notify_waiters();
            }
        }
    }

    /// Publishes what the scripts pass in, until there is no more.
    pub async fn publish(&self, world: &World, tally: &Tally, mut commands: mpsc::Receiver<Command>) {
        let mut batch = Vec::with_capacity(BATCH);
        while commands.recv_many(&mut batch, BATCH).await > 0 {
            publish(world, &world.bus, tally, &batch).await;
            batch.drain(..).for_each(|command| self.note(&command));
        }
    }

    fn note(&self, command: &Command) {
        let kind = if command.body.is_some() { "not a command" } else { command.kind.as_str() };
        if let Some(body) = &command.body {
            self.note_unreadable(body.clone());
        }
        let is_new = self.bodies.lock().unwrap().insert(command.bytes());
        let mut sent = self.sent.lock().unwrap();
        *sent.kinds.entry(kind.to_owned()).or_default() += 1;
        sent.duplicates += usize::from(!is_new);
        sent.wrong += usize::from(wrong::is_wrong(command));
    }

    /// Records that a message with this body was published, which must become a dead letter.
    pub fn note_unreadable(&self, body: Vec<u8>) {
        self.unreadable.lock().unwrap().insert(body);
    }

    /// How many scripts never began.
    pub fn left_out(&self) -> usize {
        self.left_out.load(Ordering::Relaxed)
    }

    /// Plays one payment's script once there is room for it; not at all after the faults are over.
    pub async fn play(
        &self,
        script: &Script,
        begun: Instant,
        publish: mpsc::Sender<Command>,
        calm: &CancellationToken,
    ) {
        sleep_until(begun + script.at).await;
        let Some(Ok(_open)) = calm.run_until_cancelled(self.open.acquire()).await else {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let mut before: Vec<Command> = Vec::new();
        for step in &script.steps {
            match step.pace {
                Pace::Pause(pause) => sleep(pause).await,
                Pace::Answered => {
                    // Continues without an answer.
                    timeout(ANSWER, self.all_answered(&before)).await.unwrap_or_default();
                }
            }
            for command in &step.commands {
                publish.send(command.clone()).await.expect("the publisher reads to the end");
            }
            before = step.commands.iter().filter(|command| command.body.is_none()).cloned().collect();
        }
        let ends = timeout(OPEN, self.all_answered(&before));
        calm.run_until_cancelled(ends).await.unwrap_or(Ok(())).unwrap_or_default();
    }

    async fn all_answered(&self, commands: &[Command]) {
        loop {
            let arrived = self.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            if commands.iter().all(|command| self.is_answered(command)) {
                return;
            }
            arrived.await;
        }
    }

    /// Whether a command has been answered.
    pub fn is_answered(&self, command: &Command) -> bool {
        self.answered.lock().unwrap().contains(&command.name())
    }

    /// How many different events have arrived.
    pub fn event_count(&self) -> usize {
        self.events.lock().unwrap().len()
    }

    /// Whether all of these events have arrived.
    pub fn has_events(&self, ids: &[String]) -> bool {
        let events = self.events.lock().unwrap();
        ids.iter().all(|id| events.contains(id))
    }

    /// The bodies of messages that are not commands.
    pub fn unreadable(&self) -> HashSet<Vec<u8>> {
        self.unreadable.lock().unwrap().clone()
    }

    /// What was sent.
    pub fn sent(&self) -> Sent {
        self.sent.lock().unwrap().clone()
    }
}

/// Publishes these, however long the broker takes: a soak lasts as long as it was asked to.
pub async fn publish(world: &World, bus: &Bus, tally: &Tally, commands: &[Command]) {
    world.note_published(commands);
    let mut failures = 0;
    while let Err(error) = bus.try_publish(commands).await {
        failures += 1;
        if error == NO_ANSWER && Allowed::here().broker {
            count_elected(tally, Service::Broker.run("elect").await);
        }
        if failures % 1_000 == 0 {
            eprintln!("chaos: the broker has not taken commands for {failures} tries: {error}");
        }
        sleep(LOOK).await;
    }
}
