//! What is explored: a few commands, what the gateway promises and may say, and how much may go wrong.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::bench::{command, operation_id, rules};
use super::moves::Move;
use crate::payment::command::{Command, CommandType};
use crate::payment::contract::{Contract, Lookup};
use crate::payment::machine::Rules;
use crate::payment::operation::{Operation, Sent};

/// One line of a script.
#[derive(Debug)]
pub enum Line {
    Command(Box<Command>),
    /// A person looks into the gateway's ledger and says what became of this operation.
    Resolve(Uuid),
    /// The customer pays at the gateway, which tells nobody.
    CustomerPays,
    /// The gateway proves by a notification of this name how an operation stands.
    Proof {
        of: Uuid,
        id: &'static str,
    },
}

/// What the gateway makes of what it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Approved,
    Declined,
    /// Later approved, or declined.
    Pending {
        approved: bool,
    },
    /// The customer must act.
    Input,
}

impl Verdict {
    /// The luck by which [`super::super::model::Gateway`] comes to it.
    pub fn luck(self) -> u8 {
        match self {
            Verdict::Declined => 0,
            Verdict::Pending { approved: true } => 2,
            Verdict::Pending { approved: false } => 3,
            Verdict::Input => 4,
            Verdict::Approved => 5,
        }
    }
}

/// What is explored to its end.
#[derive(Debug)]
pub struct Scenario {
    pub lines: Vec<Line>,
    pub rules: Rules,
    pub verdicts: Vec<Verdict>,
    /// How much may go wrong: wrong answers, crashes, stalls, redeliveries of what is under way, commits whose answer is lost.
    pub faults: u8,
    /// How often time passes.
    pub ticks: u8,
    /// Whether the gateway has ids of its own for what it does.
    pub gives_references: bool,
    /// Whether what the customer has approved must be confirmed.
    pub needs_confirmation: bool,
    /// What of all that goes wrong.
    pub goes_wrong: fn(Move) -> bool,
    /// Each command's operation, and the keys it may be sent under.
    names: Vec<(Uuid, u8)>,
}

impl Scenario {
    /// A gateway that honours keys and can be asked, approves everything, and one fault.
    pub fn new(lines: Vec<Line>) -> Scenario {
        let mut rules = rules();
        rules.immediate_attempts = 1;
        rules.delayed = vec![Duration::from_secs(10)];
        let ids =
            lines.iter().filter_map(Line::operation).chain((0..10).map(|number| operation_id(&resolve_name(number))));
        let mut names = Vec::new();
        for (index, id) in ids.enumerate() {
            let index = u8::try_from(index).unwrap() * 8;
            names.push((id, index));
            names.extend((0..4).map(|generation| (key(id, generation), index + 1 + u8::try_from(generation).unwrap())));
        }
        Scenario {
            lines,
            rules,
            verdicts: vec![Verdict::Approved],
            faults: 1,
            ticks: 2,
            gives_references: true,
            needs_confirmation: false,
            goes_wrong: |_| true,
            names,
        }
    }

    /// Only this goes wrong.
    pub fn where_only(mut self, goes_wrong: fn(Move) -> bool) -> Scenario {
        self.goes_wrong = goes_wrong;
        self
    }

    pub fn without_references(mut self) -> Scenario {
        self.gives_references = false;
        self
    }

    pub fn with_confirmation(mut self) -> Scenario {
        self.needs_confirmation = true;
        self
    }

    pub fn verdicts(mut self, verdicts: &[Verdict]) -> Scenario {
        self.verdicts = verdicts.to_vec();
        self
    }

    /// So much, and by hand more: `EXHAUSTIVE_FAULTS=1` has one more go wrong in each scenario.
    pub fn within(mut self, faults: u8, ticks: u8) -> Scenario {
        let more: u8 = std::env::var("EXHAUSTIVE_FAULTS").map_or(0, |more| more.parse().unwrap());
        (self.faults, self.ticks) = (faults + more, ticks);
        self
    }

    pub fn contract(mut self, change: impl FnOnce(&mut Contract)) -> Scenario {
        change(&mut self.rules.contract);
        self
    }

    pub fn can_be_asked(&self) -> bool {
        self.rules.contract.lookup != Lookup::None
    }

    /// A short name of an operation or a key. What paybus begins by itself nobody named; there is one of it at a time.
    pub fn name(&self, id: Uuid) -> u8 {
        self.names.iter().find(|(known, _)| *known == id).map_or(NAMELESS, |(_, name)| *name)
    }

    /// How long a call takes at most, and so how late one that is given up may still arrive.
    pub const TIMEOUT: SignedDuration = SignedDuration::from_secs(5);
}

impl Line {
    fn operation(&self) -> Option<Uuid> {
        match self {
            Line::Command(command) => Some(command.operation_id()),
            Line::Proof { id, .. } => Some(operation_id(id)),
            Line::Resolve(_) | Line::CustomerPays => None,
        }
    }
}

/// What is called so that no line of the script named; `u8::MAX` is nothing.
const NAMELESS: u8 = u8::MAX - 1;

/// What all its payments come to, in hundredths.
pub const TOTAL: i128 = 10_000;

/// What a person is called who resolves for the so-manieth time.
pub fn resolve_name(number: usize) -> String {
    format!("resolve-{number}")
}

fn key(id: Uuid, generation: u32) -> Uuid {
    let stored = Operation {
        sent: Sent { generation, ..Sent::NOTHING },
        ..Operation::accept(command("any", CommandType::Sync, json!({})), id, jiff::Timestamp::UNIX_EPOCH).0
    };
    stored.key().value()
}

fn line(id: &str, kind: CommandType, data: Value) -> Line {
    Line::Command(Box::new(command(id, kind, data)))
}

/// A payment of 100.00 that is created and charged.
pub fn charge() -> Line {
    let data = json!({"variant": "default", "total": "100.00", "currency": "USD", "process": {}});
    line("charge", CommandType::Create, data)
}

/// A payment of 100.00 that is created and authorized.
pub fn authorize() -> Line {
    let data = json!({"variant": "default", "total": "100.00", "currency": "USD", "capture": false, "process": {}});
    line("authorize", CommandType::Create, data)
}

pub fn process(id: &str) -> Line {
    line(id, CommandType::Process, json!({}))
}

pub fn capture(id: &str, amount: &str) -> Line {
    line(id, CommandType::Capture, json!({"amount": amount}))
}

pub fn release() -> Line {
    line("release", CommandType::Release, json!({}))
}

pub fn refund(id: &str, amount: &str) -> Line {
    line(id, CommandType::Refund, json!({"amount": amount}))
}

pub fn cancel() -> Line {
    line("cancel", CommandType::Cancel, json!({}))
}

pub fn sync() -> Line {
    line("sync", CommandType::Sync, json!({}))
}

/// A notification that tells of the operation of a command.
pub fn notification(of: &str) -> Line {
    line(
        "notification",
        CommandType::Notification,
        json!({"facts": [{"kind": "news", "operation_id": operation_id(of)}]}),
    )
}

/// The gateway's proof of the operation of a command.
pub fn proof(of: &str, id: &'static str) -> Line {
    Line::Proof { of: operation_id(of), id }
}

pub fn resolve(of: &str) -> Line {
    Line::Resolve(operation_id(of))
}
