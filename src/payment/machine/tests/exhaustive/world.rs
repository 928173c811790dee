//! Workers, a schedule, a broker and a database that loses answers, in memory. Each task is a worker process of its own, so
//! that one dies without the others and any two may be at one operation.

use std::fmt;
use std::rc::Rc;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use uuid::Uuid;

use super::super::bench::command;
use super::super::model::{Ended, Fate, Gateway, Sent};
use super::super::store::Store;
use super::super::world::proved;
use super::moves::{LookUpFate, Move};
use super::scenario::{Line, Scenario, Verdict, resolve_name};
use crate::payment::code::Code;
use crate::payment::command::{Command, CommandType};
use crate::payment::machine::{Aggregate, Context, Step};
use crate::payment::observation::Observation;
use crate::payment::operation::{Lease, State};
use crate::payment::outcome::{Found, GatewayError, Outcome};

/// What came back from the gateway.
#[derive(Debug, Clone)]
pub enum Answer {
    Outcome(Observation<Outcome>),
    Found(Option<Uuid>, Observation<Found>),
}

/// What a worker does next with its operation.
#[derive(Debug, Clone)]
pub enum Phase {
    /// It loads and decides again: its commit brought no answer.
    Begin,
    Ask(Step),
    Answered(Answer),
}

/// What made a worker take an operation up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    Command { redelivered: bool },
    Due,
}

/// An operation that a worker is at, as it keeps it in memory.
#[derive(Debug, Clone)]
pub struct Task {
    pub worker: Uuid,
    pub id: Uuid,
    pub entry: Entry,
    pub phase: Phase,
    /// Nothing where it must be loaded anew.
    pub aggregate: Option<Aggregate>,
    pub tries: u32,
    /// Of every commit that brought no answer.
    pub in_doubt: Vec<(Step, Lease)>,
}

/// All there is; what a move does not change is shared with the world it happened in.
#[derive(Debug, Clone)]
pub struct World {
    pub scenario: Rc<Scenario>,
    pub store: Rc<Store>,
    pub gateway: Rc<Gateway>,
    /// What was sent.
    pub commands: Rc<Vec<Command>>,
    pub tasks: Vec<Rc<Task>>,
    /// Commits that brought no answer and may yet go through.
    pub commits: Vec<Rc<Aggregate>>,
    pub now: Timestamp,
    pub line: usize,
    pub faults: u8,
    pub ticks: u8,
    workers: u128,
}

impl World {
    pub fn new(scenario: Rc<Scenario>) -> World {
        let mut gateway = Gateway::new(scenario.rules.contract.clone());
        gateway.trusting = true;
        gateway.gives_references = scenario.gives_references;
        gateway.needs_confirmation = scenario.needs_confirmation;
        World {
            store: Rc::default(),
            gateway: Rc::new(gateway),
            commands: Rc::default(),
            tasks: Vec::new(),
            commits: Vec::new(),
            now: "2026-11-22T12:00:00Z".parse().unwrap(),
            line: 0,
            faults: scenario.faults,
            ticks: scenario.ticks,
            workers: 0,
            scenario,
        }
    }

    pub fn apply(&mut self, by: Move) {
        match by {
            Move::Next { lost } => self.next(lost),
            Move::Redeliver { command, lost } => {
                let id = self.commands[command].operation_id();
                self.take_up(id, Entry::Command { redelivered: true }, lost);
            }
            Move::Due { operation, lost } => {
                let id = self.store.operations[operation].id;
                Rc::make_mut(&mut self.store).claim(id, self.now);
                self.take_up(id, Entry::Due, lost);
            }
            Move::BeginAgain { task, lost } => {
                let task = self.take(task);
                self.begin(task, lost);
            }
            Move::Call { task, fate, verdict } => self.call(task, fate, verdict),
            Move::LookUp { task, fate } => self.look_up(task, fate),
            Move::Settle { task, lost } => self.settle(task, lost),
            Move::Crash { task } => drop(self.tasks.remove(task)),
            Move::Arrive { call } => Rc::make_mut(&mut self.gateway).arrive(call, self.now),
            Move::Land { commit } => {
                let mut aggregate = Rc::unwrap_or_clone(self.commits.remove(commit));
                Rc::make_mut(&mut self.store).commit(&mut aggregate);
            }
            Move::Sweep => Rc::make_mut(&mut self.store).sweep(self.now),
            Move::Tick => {
                self.ticks = self.ticks.saturating_sub(1);
                // The sweep looks only behind the end of a lease.
                self.now = self.next_time().unwrap_or(self.now) + SignedDuration::from_micros(1);
                Rc::make_mut(&mut self.gateway).pass_time(self.now);
            }
        }
        // A commit that another one overtook never goes through.
        let version = self.version();
        self.commits.retain(|commit| commit.version_read == version);
    }

    pub fn version(&self) -> Option<i64> {
        self.store.payment.as_ref().map(|payment| payment.version)
    }

    pub fn next_line(&self) -> Option<&Line> {
        self.scenario.lines.get(self.line)
    }

    /// Whether everything came and was answered.
    pub fn has_ended(&self) -> bool {
        self.next_line().is_none() && self.tasks.is_empty() && self.store.operations.iter().all(|row| !row.is_open())
    }

    fn next(&mut self, lost: bool) {
        let scenario = Rc::clone(&self.scenario);
        let Some(line) = scenario.lines.get(self.line) else { return };
        self.line += 1;
        match line {
            Line::Command(command) => self.send((**command).clone(), lost),
            Line::Resolve(target) => self.resolve(*target, lost),
            Line::CustomerPays => Rc::make_mut(&mut self.gateway).complete_input(),
            Line::Proof { of, id } => {
                let Some(fact) = self.gateway.proof_of(*of) else { return };
                self.send(command(id, CommandType::Notification, json!({"facts": [fact]})), lost);
            }
        }
    }

    pub fn send(&mut self, command: Command, lost: bool) {
        let id = command.operation_id();
        Rc::make_mut(&mut self.commands).push(command);
        self.take_up(id, Entry::Command { redelivered: false }, lost);
    }

    /// A person says of an operation what the ledger says.
    pub fn resolve(&mut self, target: Uuid, lost: bool) {
        let Some(outcome) = self.ledgers_word(target) else { return };
        let number = self.commands.iter().filter(|command| command.attributes.user_id.is_some()).count();
        let data = json!({"operation": target.to_string(), "outcome": outcome, "evidence": "the ledger"});
        let mut resolve = command(&resolve_name(number), CommandType::Resolve, data);
        resolve.attributes.user_id = Some("alice".to_owned());
        self.send(resolve, lost);
    }

    /// What a person reads in the ledger of an operation of unknown outcome, where it will say nothing else later.
    pub fn ledgers_word(&self, target: Uuid) -> Option<&'static str> {
        let open = self.store.operations.iter().find(|row| row.id == target)?;
        if !matches!(open.state, State::Unknown | State::Pending) || self.gateway.is_in_flight(target) {
            return None;
        }
        match self.gateway.effect_of(target).map(|effect| effect.ended) {
            Some(Ended::Pending { .. }) => None,
            Some(Ended::Done) => Some("approved"),
            Some(Ended::Declined) => Some("declined"),
            Some(Ended::Input | Ended::GoneOn | Ended::Undone | Ended::Ready | Ended::Confirmed) | None => {
                Some("not_charged")
            }
        }
    }

    fn context(&self, worker: Uuid) -> Context<'_> {
        Context {
            now: self.now,
            worker,
            rules: &self.scenario.rules,
            paused_for: None,
            questions_paused_for: None,
            clocks_agree: true,
        }
    }

    fn take(&mut self, task: usize) -> Task {
        Rc::unwrap_or_clone(self.tasks.remove(task))
    }

    fn take_up(&mut self, id: Uuid, entry: Entry, lost: bool) {
        self.workers += 1;
        let worker = Uuid::from_u128(self.workers);
        let task = Task { worker, id, entry, phase: Phase::Begin, aggregate: None, tries: 1, in_doubt: Vec::new() };
        self.begin(task, lost);
    }

    /// Loads, decides, commits, and keeps what is to be done: as `Engine::begin`.
    fn begin(&mut self, mut task: Task, lost: bool) {
        let wanted = [vec![task.id], proved(&self.commands, task.id)].concat();
        let mut aggregate = self.store.load(&wanted);
        let lease = |machine: &Aggregate| machine.operation(task.id).and_then(|operation| operation.lease);
        let stored = lease(&aggregate);
        if let Some((step, _)) = task.in_doubt.iter().find(|(_, lease)| stored == Some(*lease)) {
            let step = *step;
            return self.keep(task, step, aggregate);
        }
        let context = self.context(task.worker);
        let step = match task.entry {
            Entry::Due => aggregate.resume(task.id, context),
            Entry::Command { redelivered } => {
                let command = self.commands.iter().find(|command| command.operation_id() == task.id).unwrap();
                match aggregate.accept(command.clone(), context) {
                    Step::Known(id) => self.go_on(&mut aggregate, id, redelivered, context),
                    step => step,
                }
            }
        };
        if !aggregate.is_changed() {
            return self.keep(task, step, aggregate);
        }
        if lost {
            let asks = matches!(step, Step::Call(_) | Step::LookUp { .. });
            task.in_doubt.extend(lease(&aggregate).filter(|_| asks).map(|lease| (step, lease)));
            self.commits.push(Rc::new(aggregate));
            return self.tasks.push(Rc::new(task));
        }
        assert!(Rc::make_mut(&mut self.store).commit(&mut aggregate));
        self.keep(task, step, aggregate);
    }

    fn go_on(&self, machine: &mut Aggregate, id: Uuid, redelivered: bool, context: Context<'_>) -> Step {
        let operation = machine.operation(id).unwrap();
        let may_take = self.scenario.rules.contract.keys.process.window.is_some() || operation.action().is_none();
        if operation.state == State::Calling && redelivered && may_take {
            return machine.take_over(id, context);
        }
        Step::Stored
    }

    fn keep(&mut self, mut task: Task, step: Step, aggregate: Aggregate) {
        match step {
            Step::Call(called) => assert_eq!(called, task.id, "only what is held may be called"),
            Step::LookUp { operation, .. } | Step::Undo(operation) => assert_eq!(operation, task.id),
            Step::Locate(_) => panic!("every notification here names its payment"),
            Step::RetryNow(_) | Step::Settled | Step::Stored | Step::Resend { .. } | Step::Known(_) => return,
        }
        task.phase = Phase::Ask(step);
        task.aggregate = Some(aggregate);
        self.tasks.push(Rc::new(task));
    }

    fn call(&mut self, task: usize, fate: Fate, verdict: Verdict) {
        let mut task = self.take(task);
        let Some(mut aggregate) = task.aggregate.take() else { return };
        let operation = aggregate.operation(task.id).unwrap();
        let attempts = operation.counts.attempts;
        let holds = operation.lease.is_some_and(|lease| self.now + Scenario::TIMEOUT < lease.until);
        if !holds && !self.store_attempt(&mut aggregate, &task, attempts) {
            return;
        }
        let outcome = if aggregate.may_send(task.id, self.context(task.worker)) {
            let operation = aggregate.operation(task.id).unwrap();
            let request = operation.request.as_ref().unwrap();
            let sent = Sent {
                operation: operation.id,
                key: operation.key().value(),
                action: operation.action().unwrap(),
                amount: request.amount.map_or(0, |amount| amount.amount().mantissa()),
                capture: request.capture,
                confirms: operation.confirms(),
                is_final: !operation.is_partial_capture(),
                at: self.now,
                luck: verdict.luck(),
            };
            Rc::make_mut(&mut self.gateway).call(sent, fate, self.now)
        } else {
            Outcome::NotSent(GatewayError::new(Code::Held, "held back for too long"))
        };
        task.phase = Phase::Answered(Answer::Outcome(aggregate.asked(self.now).answered(outcome)));
        task.aggregate = Some(aggregate);
        self.tasks.push(Rc::new(task));
    }

    fn store_attempt(&mut self, aggregate: &mut Aggregate, task: &Task, attempts: u32) -> bool {
        let context = Context {
            now: self.now,
            worker: task.worker,
            rules: &self.scenario.rules,
            paused_for: None,
            questions_paused_for: None,
            clocks_agree: true,
        };
        Rc::make_mut(&mut self.store).store_attempt(aggregate, task.id, attempts, context)
    }

    fn look_up(&mut self, task: usize, fate: LookUpFate) {
        let mut task = self.take(task);
        if let Phase::Ask(Step::Undo(id)) = task.phase {
            return self.undo(task, id, fate);
        }
        let Phase::Ask(Step::LookUp { target, .. }) = task.phase else { return };
        let missed = fate == LookUpFate::Missed;
        let found = match target {
            _ if fate == LookUpFate::Failed => Found::Failed(GatewayError::new(Code::Timeout, "no answer")),
            None if missed => self.gateway.look_up_payment_missing(self.now),
            None => self.gateway.look_up_payment(),
            Some(target) => {
                let known = self.gateway.effect_of(target);
                let is_missed = missed && known.is_some_and(|effect| self.gateway.may_miss(effect, self.now));
                if is_missed { Found::Nothing } else { self.gateway.look_up(target, 1) }
            }
        };
        let Some(aggregate) = &task.aggregate else { return };
        task.phase = Phase::Answered(Answer::Found(target, aggregate.asked(self.now).answered(found)));
        self.tasks.push(Rc::new(task));
    }

    fn undo(&mut self, mut task: Task, id: Uuid, fate: LookUpFate) {
        let Some(aggregate) = &task.aggregate else { return };
        let operation = aggregate.operation(id).unwrap();
        let lost = Found::Failed(GatewayError::new(Code::Timeout, "no answer"));
        // Whoever lost the lease tells the gateway nothing.
        if operation.lease.is_none_or(|lease| self.now + Scenario::TIMEOUT >= lease.until) {
            return;
        }
        let key = operation.key().value();
        let found = match fate {
            LookUpFate::Failed => lost,
            LookUpFate::Lost => {
                Rc::make_mut(&mut self.gateway).undo(key);
                lost
            }
            LookUpFate::Answered | LookUpFate::Missed => Rc::make_mut(&mut self.gateway).undo(key),
        };
        task.phase = Phase::Answered(Answer::Found(Some(id), aggregate.asked(self.now).answered(found)));
        self.tasks.push(Rc::new(task));
    }

    /// Decides on the answer until it is committed: as `Engine::settle`. Where the commit brings no answer, it is loaded
    /// and decided on the same answer again.
    fn settle(&mut self, task: usize, lost: bool) {
        let mut task = self.take(task);
        let Phase::Answered(answer) = task.phase.clone() else { return };
        let asked = match &answer {
            Answer::Found(Some(target), _) => vec![task.id, *target],
            Answer::Found(None, _) | Answer::Outcome(_) => vec![task.id],
        };
        let mut loaded = task.aggregate.take().filter(|aggregate| !aggregate.misses_waiting());
        loop {
            let mut aggregate = loaded.take().unwrap_or_else(|| self.store.load(&asked));
            let context = self.context(task.worker);
            let step = match answer.clone() {
                Answer::Outcome(outcome) => aggregate.settle(task.id, outcome, task.tries, context),
                Answer::Found(target, found) => aggregate.found(task.id, target, found, task.tries, context),
            };
            if let Step::RetryNow(id) = step {
                let attempts = aggregate.operation(id).unwrap().counts.attempts + 1;
                if self.store_attempt(&mut aggregate, &task, attempts) {
                    task.tries += 1;
                    let step = match answer {
                        Answer::Outcome(_) => Step::Call(id),
                        Answer::Found(target, _) => Step::LookUp { operation: id, target },
                    };
                    self.keep(task, step, aggregate);
                }
                return;
            }
            if !aggregate.is_changed() {
                return self.keep(task, step, aggregate);
            }
            // What another overtook is told so.
            if lost && aggregate.version_read == self.version() {
                self.commits.push(Rc::new(aggregate));
                return self.tasks.push(Rc::new(task));
            }
            if Rc::make_mut(&mut self.store).commit(&mut aggregate) {
                return self.keep(task, step, aggregate);
            }
        }
    }

    pub fn has_lost_call(&self) -> bool {
        self.store.operations.iter().any(|row| {
            let lost = row.lease.is_some_and(|lease| lease.until < self.now);
            row.state == State::Calling && row.due_at.is_none() && lost
        })
    }

    /// When something may happen by time alone.
    pub fn next_time(&self) -> Option<Timestamp> {
        let open = self.store.operations.iter().filter(|row| row.is_open());
        let times = open.flat_map(|row| [row.due_at, row.lease.map(|lease| lease.until)]);
        times.flatten().chain(self.gateway.next_change()).filter(|time| *time > self.now).min()
    }

    pub fn name_of(&self, id: Uuid) -> String {
        let known = self.commands.iter().find(|command| command.operation_id() == id);
        known.map_or_else(|| id.to_string(), |command| command.name.id.clone())
    }

    pub fn worker_name(&self, task: usize) -> String {
        format!("worker {}", self.tasks[task].worker.as_u128())
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (words, result, error) = match self {
            Answer::Outcome(Observation { says: outcome, .. }) => {
                let result = if let Outcome::Result(result) = outcome { Some(result) } else { None };
                (outcome.as_str(), result, outcome.error())
            }
            Answer::Found(_, Observation { says: found, .. }) => {
                let result = if let Found::Result(result) = found { Some(result) } else { None };
                (found.as_str(), result, found.error())
            }
        };
        write!(formatter, "{words}")?;
        if let Some(captured) = result.and_then(|result| result.captured) {
            write!(formatter, " (captured {captured})")?;
        }
        error.map_or(Ok(()), |error| write!(formatter, " ({:?})", error.code))
    }
}
