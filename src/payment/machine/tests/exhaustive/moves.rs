//! What may happen next, and how it is told.

use std::fmt;

use super::super::model::{Ended, Fate};
use super::scenario::{Line, Verdict};
use super::world::{Phase, World};
use crate::payment::contract::Lookup;
use crate::payment::machine::Step;

/// One thing that happens. Tasks, operations and so on are named by their places in the world it happens in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// The next line of the script: a command comes and is begun.
    Next { lost: bool },
    /// A command comes once more.
    Redeliver { command: usize, lost: bool },
    /// What is due is claimed and begun.
    Due { operation: usize, lost: bool },
    /// A worker whose commit brought no answer loads and decides again.
    BeginAgain { task: usize, lost: bool },
    /// A worker calls the gateway.
    Call { task: usize, fate: Fate, verdict: Verdict },
    /// A worker asks the gateway.
    LookUp { task: usize, fate: LookUpFate },
    /// A worker commits what an answer leads to.
    Settle { task: usize, lost: bool },
    /// A worker dies.
    Crash { task: usize },
    /// A call that was given up arrives at the gateway.
    Arrive { call: usize },
    /// A commit whose answer was lost goes through.
    Land { commit: usize },
    /// First calls of lost workers are found.
    Sweep,
    /// Time passes until something may happen by it.
    Tick,
}

/// What becomes of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookUpFate {
    Answered,
    /// What was done shortly before is not seen yet.
    Missed,
    Failed,
    /// What was to be undone is, and the answer is lost.
    Lost,
}

/// How late a call arrives at most that was given up: within the gateway's settle window.
const IN_FLIGHT: u8 = 9;

/// The most workers that are at one operation.
const AT_ONCE: usize = 2;

impl World {
    /// What may happen here, with the number of faults that it is.
    pub fn moves(&self) -> Vec<(Move, u8)> {
        let mut moves = Vec::new();
        let mut add = |by: Move, faults: u8| {
            if faults == 0 || faults <= self.faults && (self.scenario.goes_wrong)(by) {
                moves.push((by, faults));
            }
        };
        if let Some(line) = self.next_line()
            && self.may_happen(line)
        {
            add(Move::Next { lost: false }, 0);
            if !matches!(line, Line::CustomerPays) {
                add(Move::Next { lost: true }, 1);
            }
        }
        for task in 0..self.tasks.len() {
            add(Move::Crash { task }, 1);
            let or_lost = [(false, 0), (true, 1)];
            match &self.tasks[task].phase {
                Phase::Begin => {
                    or_lost.into_iter().for_each(|(lost, faults)| add(Move::BeginAgain { task, lost }, faults))
                }
                Phase::Answered(_) => {
                    or_lost.into_iter().for_each(|(lost, faults)| add(Move::Settle { task, lost }, faults))
                }
                Phase::Ask(Step::LookUp { .. }) => {
                    for (fate, faults) in [(LookUpFate::Answered, 0), (LookUpFate::Missed, 1), (LookUpFate::Failed, 1)]
                    {
                        add(Move::LookUp { task, fate }, faults);
                    }
                }
                Phase::Ask(Step::Undo(_)) => {
                    for (fate, faults) in [(LookUpFate::Answered, 0), (LookUpFate::Lost, 1), (LookUpFate::Failed, 1)] {
                        add(Move::LookUp { task, fate }, faults);
                    }
                }
                Phase::Ask(_) => self.calls(task, &mut add),
            }
        }
        for (command, sent) in self.commands.iter().enumerate() {
            let id = sent.operation_id();
            let at_it = self.tasks.iter().filter(|task| task.id == id).count();
            let is_open = self.store.operations.iter().find(|row| row.id == id).map(|row| row.is_open());
            // What was answered for good is only told again; and what never was stored has to come again.
            if at_it < AT_ONCE && is_open != Some(false) {
                let faults = u8::from(is_open.is_some() || at_it > 0);
                add(Move::Redeliver { command, lost: false }, faults);
                add(Move::Redeliver { command, lost: true }, faults + 1);
            }
        }
        for (operation, row) in self.store.operations.iter().enumerate() {
            let at_it = self.tasks.iter().filter(|task| task.id == row.id).count();
            if row.due_at.is_some_and(|due| due <= self.now) && at_it < AT_ONCE {
                add(Move::Due { operation, lost: false }, 0);
                add(Move::Due { operation, lost: true }, 1);
            }
        }
        (0..self.gateway.in_flight.len()).for_each(|call| add(Move::Arrive { call }, 0));
        (0..self.commits.len()).for_each(|commit| add(Move::Land { commit }, 0));
        if self.has_lost_call() {
            add(Move::Sweep, 0);
        }
        if self.ticks > 0 && self.next_time().is_some() {
            // A worker takes no time, unless it stalls or its gateway does.
            add(Move::Tick, u8::from(!self.tasks.is_empty()));
        }
        moves
    }

    fn calls(&self, task: usize, add: &mut impl FnMut(Move, u8)) {
        for verdict in self.scenario.verdicts.iter().copied() {
            add(Move::Call { task, fate: Fate::Answered, verdict }, 0);
            for fate in [Fate::AnswerLost, Fate::InFlight(IN_FLIGHT), Fate::ServerError { after: true }] {
                add(Move::Call { task, fate, verdict }, 1);
            }
        }
        for fate in [Fate::NotSent, Fate::Refused, Fate::ServerError { after: false }] {
            add(Move::Call { task, fate, verdict: Verdict::Approved }, 1);
        }
    }

    fn may_happen(&self, line: &Line) -> bool {
        match line {
            Line::Command(_) => true,
            // Without a look-up nobody would ever learn of it.
            Line::CustomerPays => {
                let acts = self.gateway.effects.iter().any(|effect| effect.ended == Ended::Input);
                acts && self.scenario.rules.contract.lookup != Lookup::None
            }
            Line::Resolve(target) => self.ledgers_word(*target).is_some(),
            Line::Proof { of, .. } => self.gateway.proof_of(*of).is_some(),
        }
    }

    /// A move in words.
    pub fn describe(&self, by: Move) -> String {
        let named = |task: usize| format!("{} at {}", self.worker_name(task), self.name_of(self.tasks[task].id));
        let (words, lost) = match by {
            Move::Next { lost } => match self.next_line() {
                Some(Line::Command(command)) => (format!("{} comes and is begun", command.name.id), lost),
                Some(Line::Resolve(target)) => {
                    let word = self.ledgers_word(*target).unwrap_or("?");
                    (format!("a person resolves {}: {word}", self.name_of(*target)), lost)
                }
                Some(Line::CustomerPays) => ("the customer pays at the gateway".to_owned(), lost),
                Some(Line::Proof { of, .. }) => (format!("the gateway proves how {} stands", self.name_of(*of)), lost),
                None => ("nothing is left to come".to_owned(), lost),
            },
            Move::Redeliver { command, lost } => (format!("{} comes once more", self.commands[command].name.id), lost),
            Move::Due { operation, lost } => {
                (format!("{} is due and claimed", self.store.operations[operation].name.id), lost)
            }
            Move::BeginAgain { task, lost } => (format!("{}: loads and decides again", named(task)), lost),
            Move::Call { task, fate, verdict } => {
                (format!("{}: calls the gateway: {fate:?}, {verdict:?}", named(task)), false)
            }
            Move::LookUp { task, fate } => {
                let Phase::Ask(Step::LookUp { target, .. }) = self.tasks[task].phase else {
                    return format!("{}: has the gateway undo it: {fate:?}", named(task));
                };
                let about = target.map_or("the whole payment".to_owned(), |target| self.name_of(target));
                (format!("{}: asks the gateway about {about}: {fate:?}", named(task)), false)
            }
            Move::Settle { task, lost } => {
                let Phase::Answered(answer) = &self.tasks[task].phase else { return named(task) };
                (format!("{}: settles {answer}", named(task)), lost)
            }
            Move::Crash { task } => (format!("{}: dies", named(task)), false),
            Move::Arrive { call } => {
                let (_, sent) = self.gateway.in_flight[call];
                (format!("the call of {} arrives at the gateway", self.name_of(sent.operation)), false)
            }
            Move::Land { .. } => ("the commit whose answer was lost goes through".to_owned(), false),
            Move::Sweep => ("the sweep finds lost first calls".to_owned(), false),
            Move::Tick => {
                let passed = self.next_time().map(|next| next.duration_since(self.now));
                (format!("{:.0} s pass", passed.unwrap_or_default().as_secs_f64()), false)
            }
        };
        if lost { format!("{words}; the commit's answer is lost") } else { words }
    }
}

impl fmt::Display for World {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(payment) = &self.store.payment {
            let amounts = payment.amounts;
            writeln!(
                formatter,
                "payment: {}, authorized {}, captured {}, refunded {}, busy {:?}",
                payment.status,
                amounts.authorized,
                amounts.captured,
                amounts.refunded,
                payment.busy.map(|busy| self.name_of(busy))
            )?;
        }
        for row in &self.store.operations {
            let answer = row.answer.as_ref().map(|answer| (answer.kind, answer.code));
            let due = row.due_at.map(|due| due.duration_since(self.now).as_secs_f64());
            writeln!(
                formatter,
                "{}: {:?}, key {}, {:?}, due in {due:?}, leased {}, escalated {}, answer {answer:?}",
                row.name.id,
                row.state,
                row.key().generation(),
                row.sent.exposure,
                row.lease.is_some(),
                row.escalated
            )?;
        }
        for movement in &self.store.movements {
            let whose = movement.operation.map(|id| self.name_of(id));
            writeln!(formatter, "movement: {:?} {} of {whose:?}", movement.kind, movement.amount)?;
        }
        for effect in &self.gateway.effects {
            let sent = effect.sent;
            writeln!(formatter, "ledger: {} {}: {:?}", self.name_of(sent.operation), sent.amount, effect.ended)?;
        }
        Ok(())
    }
}
