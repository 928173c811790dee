//! Workers, a schedule and a broker that delivers again, in memory: they drive the machine as the real ones do, and die,
//! stall and meet each other wherever a script says.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use uuid::Uuid;

use super::bench::{command, keys, rules};
use super::model::{Effect, Ended, Fate, Gateway, Sent};
use super::store::Store;
use crate::payment::action::Action;
use crate::payment::code::Code;
use crate::payment::command::{Body, Command, CommandType, Kind};
use crate::payment::contract::{AfterServerError, Captures, Contract, Keys, Lookup, NotificationRole, PerAction};
use crate::payment::fact::proved_operations;
use crate::payment::machine::{Aggregate, Context, Rules, Step};
use crate::payment::observation::Observation;
use crate::payment::operation::{Operation, State};
use crate::payment::outcome::{Found, GatewayError, Outcome};
use crate::payment::status::Status;

/// How long a call may take; a lease outlasts it.
const TIMEOUT: SignedDuration = SignedDuration::from_secs(5);

#[derive(Debug, Clone)]
enum Answer {
    Outcome(Observation<Outcome>),
    Found(Option<Uuid>, Observation<Found>),
}

/// An operation that a worker is at, as it keeps it in memory.
#[derive(Debug)]
struct Task {
    worker: Uuid,
    id: Uuid,
    step: Step,
    aggregate: Aggregate,
    tries: u32,
    answer: Option<Answer>,
    /// It found no place for the attempt that would follow at once.
    crowded: bool,
}

#[derive(Debug)]
pub struct World {
    pub store: Store,
    pub gateway: Gateway,
    pub commands: Vec<Command>,
    rules: Rules,
    now: Timestamp,
    paused_for: Option<Duration>,
    workers: [Uuid; 2],
    tasks: Vec<Task>,
    started: u128,
    /// The gateway's clock and the database's agree. While they do not, it may overlook anything that is asked for.
    clocks_agree: bool,
    /// Whether the database may lose commits.
    pub loses_commits: bool,
    /// Whether it ever did.
    pub lost_commits: bool,
    /// The standby does not get the next commit.
    lags: bool,
    /// What the standby has, where it has not got the last commit.
    standby: Option<Store>,
    /// The question about the whole payment that was asked last, when everything had come to its end.
    pub last_sync: Option<Uuid>,
}

impl World {
    pub fn new(rules: Rules) -> World {
        World {
            store: Store::default(),
            gateway: Gateway { lists: rules.immediate_attempts != 1, ..Gateway::new(rules.contract.clone()) },
            commands: Vec::new(),
            rules,
            now: "2026-11-22T12:00:00Z".parse().unwrap(),
            paused_for: None,
            workers: [Uuid::from_u128(1), Uuid::from_u128(2)],
            tasks: Vec::new(),
            started: 2,
            clocks_agree: true,
            loses_commits: false,
            lost_commits: false,
            lags: false,
            standby: None,
            last_sync: None,
        }
    }

    /// Carries out one line of a script.
    pub fn act(&mut self, action: u8, first: u8, second: u8) {
        if second.is_multiple_of(3) {
            self.fail_over();
        }
        match action % 20 {
            0..=2 => self.send_new(first, second),
            3 => self.pass(SignedDuration::from_secs(i64::from(first % 16))),
            4 => self.pass(SignedDuration::from_secs(i64::from(first) * 30)),
            5..=8 => self.step_task(usize::from(first), second),
            9..=11 => self.start_due(usize::from(first), usize::from(second)),
            12 if first.is_multiple_of(2) => self.gateway.complete_input(),
            12 => self.store.sweep(self.now),
            13 => self.crash(usize::from(first)),
            14 => self.deliver_again(usize::from(first), usize::from(second)),
            16 => self.gateway.refund_by_hand(i128::from(first) * 40 + 1, self.now),
            17 => self.clocks_agree = !first.is_multiple_of(3),
            18 => self.lags = self.loses_commits,
            19 => self.steer(first, second),
            _ => self.paused_for = (first.is_multiple_of(3)).then(|| Duration::from_secs(u64::from(second % 40))),
        }
    }

    /// The database fails over to its standby: what that has not got never happened, but for those who hold it in memory.
    fn fail_over(&mut self) {
        let Some(standby) = self.standby.take() else { return };
        self.store = standby;
        self.store.lost_commits = true;
        self.lost_commits = true;
        self.gateway.may_act_twice = true;
    }

    fn commit(&mut self, aggregate: &mut Aggregate) -> bool {
        let before = self.lags.then(|| self.store.clone());
        let is_stored = self.store.commit(aggregate);
        if is_stored {
            (self.standby, self.lags) = (before, false);
        }
        is_stored
    }

    fn is_gone(&self, id: Uuid) -> bool {
        self.store.operations.iter().all(|operation| operation.id != id)
    }

    /// Whoever lost its lease leaves it to others. What the database lost comes again with its message, which is not
    /// acknowledged; what paybus began by itself has none.
    fn leave(&mut self, task: &Task) {
        let index = self.commands.iter().position(|command| command.operation_id() == task.id);
        if let Some(index) = index.filter(|_| self.is_gone(task.id)) {
            self.deliver_again(index, usize::from(task.worker == self.workers[1]));
        }
    }

    fn pass(&mut self, time: SignedDuration) {
        self.now += time;
        self.gateway.pass_time(self.now);
    }

    fn send_new(&mut self, first: u8, second: u8) {
        let amount = (second > 100).then(|| format!("{}.{:02}", second % 90, first % 100));
        // One in two is what the payment's status allows, so that many ways are gone to their end.
        let status = self.store.payment.as_ref().map(|payment| payment.status).filter(|_| second % 4 >= 2);
        let kind = match (status, first % 16) {
            (Some(Status::Preauth), 0..=9) => CommandType::Capture,
            (Some(Status::Preauth), 10..=13) => CommandType::Release,
            (Some(Status::Confirmed), 0..=13) => CommandType::Refund,
            (Some(Status::Input), 0..=9) => CommandType::Process,
            (_, 0 | 1) => CommandType::Create,
            (_, 2..=6) => CommandType::Process,
            (_, 7 | 8) => CommandType::Capture,
            (_, 9) => CommandType::Release,
            (_, 10..=12) => CommandType::Refund,
            (_, 13) => CommandType::Cancel,
            (_, 14) => CommandType::Notification,
            _ => CommandType::Sync,
        };
        let data = match kind {
            CommandType::Create if second.is_multiple_of(2) => {
                json!({"variant": "default", "total": "100.00", "currency": "USD", "process": {}})
            }
            CommandType::Create => json!({"variant": "default", "total": "100.00", "currency": "USD"}),
            CommandType::Process if second.is_multiple_of(3) => json!({}),
            CommandType::Process => json!({"capture": second.is_multiple_of(2)}),
            CommandType::Capture if second % 4 > 1 => {
                amount.map_or(json!({}), |amount| json!({"amount": amount, "final": false}))
            }
            CommandType::Capture | CommandType::Refund => amount.map_or(json!({}), |amount| json!({"amount": amount})),
            // Of an operation of ours, open or not, or of what was done at the gateway's own desk.
            CommandType::Notification => {
                let named = self.store.operations.get(usize::from(second)).map(|operation| operation.id);
                let proves = self.rules.contract.notifications != NotificationRole::Hint;
                match named.filter(|_| proves).and_then(|named| self.gateway.proof_of(named)) {
                    Some(proof) => json!({"facts": [proof]}),
                    None => json!({"facts": [{"kind": "news", "operation_id": named}]}),
                }
            }
            _ => json!({}),
        };
        let mut new = command(&self.commands.len().to_string(), kind, data);
        if second.is_multiple_of(7) {
            new.attributes.expires_at = Some(self.now + SignedDuration::from_secs(i64::from(second)));
        }
        self.commands.push(new.clone());
        self.begin(usize::from(second), new.operation_id(), |machine, context| machine.accept(new, context));
    }

    /// An operator has an operation tried now or later, or withdraws it.
    fn steer(&mut self, first: u8, second: u8) {
        let Some(target) = self.store.operations.get(usize::from(first) % self.store.operations.len().max(1)) else {
            return;
        };
        let mut data = json!({"operation": target.id});
        let kind = if second.is_multiple_of(2) { CommandType::Withdraw } else { CommandType::Retry };
        if second % 4 == 1 {
            data["at"] = json!((self.now + SignedDuration::from_secs(i64::from(second) * 4)).to_string());
        }
        let mut steers = command(&self.commands.len().to_string(), kind, data);
        steers.attributes.user_id = Some("alice".to_owned());
        self.commands.push(steers.clone());
        self.begin(0, steers.operation_id(), |machine, context| machine.accept(steers, context));
    }

    /// Loads, decides, commits, and keeps what is to be done.
    fn begin(&mut self, worker: usize, id: Uuid, decision: impl FnOnce(&mut Aggregate, Context<'_>) -> Step) {
        let worker = self.workers[worker % 2];
        if self.tasks.iter().any(|task| task.worker == worker && task.id == id) {
            return;
        }
        let wanted = [vec![id], proved(&self.commands, id)].concat();
        let mut aggregate = self.store.load(&wanted);
        let step = decision(&mut aggregate, self.context(worker));
        if aggregate.is_changed() {
            assert!(self.commit(&mut aggregate));
        }
        self.keep(Task { worker, id, step, aggregate, tries: 1, answer: None, crowded: false });
    }

    fn keep(&mut self, task: Task) {
        match task.step {
            Step::Call(called) => assert_eq!(called, task.id, "only what is held may be called"),
            Step::LookUp { operation, .. } | Step::Undo(operation) => assert_eq!(operation, task.id),
            Step::Locate(_) => panic!("every notification here names its payment"),
            Step::RetryNow(_) | Step::Settled | Step::Stored | Step::Resend { .. } | Step::Known(_) => return,
        }
        self.tasks.push(task);
    }

    fn context(&self, worker: Uuid) -> Context<'_> {
        Context {
            now: self.now,
            worker,
            rules: &self.rules,
            paused_for: self.paused_for,
            questions_paused_for: self.paused_for,
            clocks_agree: self.clocks_agree,
        }
    }

    fn start_due(&mut self, which: usize, worker: usize) {
        let due: Vec<Uuid> = self.store.due(self.now).collect();
        let Some(id) = due.get(which % due.len().max(1)).copied() else { return };
        self.store.claim(id, self.now);
        self.begin(worker, id, |machine, context| machine.resume(id, context));
    }

    /// A worker dies with all it had in memory, and another is started in its place.
    fn crash(&mut self, which: usize) {
        let lost = self.workers[which % 2];
        self.tasks.retain(|task| task.worker != lost);
        self.started += 1;
        self.workers[which % 2] = Uuid::from_u128(self.started);
    }

    fn deliver_again(&mut self, which: usize, worker: usize) {
        let Some(again) = self.commands.get(which % self.commands.len().max(1)).cloned() else { return };
        let id = again.operation_id();
        let keyed = self.rules.contract.keys.process.window.is_some();
        self.begin(worker, id, |machine, context| match machine.accept(again, context) {
            Step::Known(id) => {
                let operation = machine.operation(id).unwrap();
                let others = operation.lease.is_none_or(|lease| lease.owner != context.worker);
                let may_take = keyed || operation.action().is_none();
                if operation.state == State::Calling && others && may_take {
                    machine.take_over(id, context)
                } else {
                    Step::Stored
                }
            }
            step => step,
        });
    }

    /// A worker does its next step: it asks the gateway, or settles the answer.
    fn step_task(&mut self, which: usize, luck: u8) {
        if self.tasks.is_empty() {
            return;
        }
        let mut task = self.tasks.remove(which % self.tasks.len());
        match task.answer.take() {
            Some(answer) => self.settle(task, answer, luck),
            None if self.ensure_lease(&mut task) => {
                let is_paused =
                    matches!(task.step, Step::Call(_)) && !task.aggregate.may_send(task.id, self.context(task.worker));
                task.answer = Some(if is_paused {
                    let error = GatewayError::new(Code::Held, "held back for too long");
                    Answer::Outcome(task.aggregate.asked(self.now).answered(Outcome::NotSent(error)))
                } else {
                    self.ask(&task, Fate::of(luck), luck)
                });
                self.tasks.push(task);
            }
            None => self.leave(&task),
        }
    }

    fn ensure_lease(&mut self, task: &mut Task) -> bool {
        let Step::Call(id) = task.step else { return true };
        let operation = task.aggregate.operation(id).unwrap();
        let holds = operation.lease.is_some_and(|lease| self.now + TIMEOUT < lease.until);
        holds || self.store_attempt(task, operation.counts.attempts)
    }

    fn store_attempt(&mut self, task: &mut Task, attempts: u32) -> bool {
        let context = Context {
            now: self.now,
            worker: task.worker,
            rules: &self.rules,
            paused_for: self.paused_for,
            questions_paused_for: self.paused_for,
            clocks_agree: true,
        };
        self.store.store_attempt(&mut task.aggregate, task.id, attempts, context)
    }

    fn ask(&mut self, task: &Task, fate: Fate, luck: u8) -> Answer {
        let asked = task.aggregate.asked(self.now).while_clocks(self.clocks_agree);
        let overlooks = !self.clocks_agree && luck.is_multiple_of(3);
        match task.step {
            Step::Undo(id) => {
                let key = task.aggregate.operation(id).unwrap().key().value();
                let found = match fate {
                    Fate::NotSent | Fate::Throttled | Fate::Misconfigured => Found::Nothing,
                    _ => self.gateway.undo(key),
                };
                // Unless it is answered, what it did or not is not told.
                let failed = Found::Failed(GatewayError::new(Code::Timeout, "no answer"));
                Answer::Found(Some(id), asked.answered(if fate == Fate::Answered { found } else { failed }))
            }
            Step::LookUp { target, .. } if fate != Fate::Answered && luck.is_multiple_of(2) => {
                let error = GatewayError::new(Code::Timeout, "no answer");
                Answer::Found(target, asked.answered(Found::Failed(error)))
            }
            Step::LookUp { target: Some(target), .. } => {
                let found = if overlooks { Found::Nothing } else { self.gateway.look_up(target, luck) };
                Answer::Found(Some(target), asked.answered(found))
            }
            Step::LookUp { target: None, .. } if overlooks => {
                // It shows what was there some time ago, longer than the settle window.
                let then = self.now - SignedDuration::from_secs(i64::from(luck));
                Answer::Found(None, asked.answered(self.gateway.look_up_payment_missing(then)))
            }
            Step::LookUp { target: None, .. } if luck % 8 == 1 && fate != Fate::Answered => {
                Answer::Found(None, asked.answered(self.gateway.look_up_payment_missing(self.now)))
            }
            Step::LookUp { target: None, .. } => Answer::Found(None, asked.answered(self.gateway.look_up_payment())),
            _ => {
                let operation = task.aggregate.operation(task.id).unwrap();
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
                    luck: luck / 16,
                };
                Answer::Outcome(asked.answered(self.gateway.call(sent, fate, self.now)))
            }
        }
    }

    /// Decides on the answer until it is committed; on a conflict with what is stored by then.
    fn settle(&mut self, mut task: Task, answer: Answer, luck: u8) {
        if task.aggregate.misses_waiting() {
            task.aggregate = self.store.load(&asked(&task, &answer));
        }
        loop {
            if task.aggregate.operation(task.id).is_none() {
                return self.leave(&task);
            }
            let context = self.context(task.worker);
            if task.crowded && context.paused_for.is_none() {
                task.tries = context.rules.immediate_attempts;
            }
            task.step = match answer.clone() {
                Answer::Outcome(outcome) => task.aggregate.settle(task.id, outcome, task.tries, context),
                Answer::Found(target, found) => task.aggregate.found(task.id, target, found, task.tries, context),
            };
            if let Step::RetryNow(id) = task.step {
                // Until it gives the wait up, others change what is stored.
                if luck.is_multiple_of(3) {
                    (task.crowded, task.answer) = (true, Some(answer));
                    return self.tasks.push(task);
                }
                let attempts = task.aggregate.operation(id).unwrap().counts.attempts + 1;
                if self.store_attempt(&mut task, attempts) {
                    task.tries += 1;
                    task.step = match answer {
                        Answer::Outcome(_) => Step::Call(id),
                        Answer::Found(target, _) => Step::LookUp { operation: id, target },
                    };
                    self.keep(task);
                } else {
                    self.leave(&task);
                }
                return;
            }
            if !task.aggregate.is_changed() || self.commit(&mut task.aggregate) {
                return self.keep(task);
            }
            task.aggregate = self.store.load(&asked(&task, &answer));
        }
    }

    /// From here on nothing goes wrong: everything that is open must come to its end.
    pub fn come_to_rest(&mut self) {
        (self.paused_for, self.clocks_agree, self.loses_commits, self.lags, self.standby) =
            (None, true, false, false, None);
        self.end_all();
        if self.lost_commits {
            self.compare_by_hand();
        }
        if self.store.payment.is_some() && self.rules.contract.lookup != Lookup::None {
            // What customers did at the gateway is learnt by asking.
            self.send_new(15, 1);
            self.last_sync = self.commands.last().map(Command::operation_id);
            self.end_all();
        }
    }

    /// What is to be done after a failover that lost commits: a create that is gone is sent once more under the same name,
    /// and the gateway has ended what it was at before it is asked.
    fn compare_by_hand(&mut self) {
        let create = self.commands.iter().position(|command| command.kind == Kind::Known(CommandType::Create));
        if let Some(create) = create.filter(|_| self.store.payment.is_none()) {
            self.deliver_again(create, 0);
            self.end_all();
        }
        while let Some(next) = self.gateway.next_change() {
            self.pass(next.duration_since(self.now).max(SignedDuration::ZERO));
        }
    }

    fn end_all(&mut self) {
        for _ in 0..3000 {
            self.gateway.pass_time(self.now);
            self.store.sweep(self.now);
            if !self.tasks.is_empty() {
                // Every call is answered from here on, and approved where the ledger allows it.
                self.step_task(0, 5 * 16);
            } else if self.store.due(self.now).next().is_some() {
                self.start_due(0, 0);
            } else if self.store.operations.iter().all(|operation| !operation.is_open()) {
                return;
            } else if !self.resolve() {
                let opened = self.store.operations.iter().filter(|operation| operation.is_open());
                let times = opened.flat_map(|operation| [operation.due_at, operation.lease.map(|lease| lease.until)]);
                let next = times.flatten().chain(self.gateway.next_change()).filter(|time| *time > self.now).min();
                // The sweep looks only behind the end of a lease.
                self.now = next.unwrap_or(self.now) + SignedDuration::from_micros(1);
            }
        }
        let open: Vec<&Operation> = self.store.operations.iter().filter(|operation| operation.is_open()).collect();
        panic!("these never end: {open:#?}");
    }

    /// Whether an operation cannot have been done as the ledger stands.
    fn denies_money(&self, id: Uuid) -> bool {
        let (authorized, captured, _) = self.gateway.ledger();
        match self.store.operation(id).action() {
            Some(Action::Cancel) => authorized + captured > 0,
            Some(Action::Release) => captured > 0,
            Some(Action::Process | Action::Capture | Action::Refund) | None => false,
        }
    }

    /// A person looks into the gateway's ledger and says what happened, where nothing else will.
    fn resolve(&mut self) -> bool {
        let Some(operation) = self.store.operations.iter().find(|row| row.is_open() && row.escalated) else {
            return false;
        };
        let id = operation.id;
        let effect = self.gateway.effect_of(id);
        let outcome = match effect.map(|effect| effect.ended) {
            _ if self.gateway.is_in_flight(id) => return false,
            // The money is another one's.
            Some(Ended::Done) if effect.is_some_and(Effect::went_on) => "not_charged",
            Some(Ended::Pending { .. }) => return false,
            // Told twice, it was approved before there was the money that is there now.
            Some(Ended::Done) if self.lost_commits && self.denies_money(id) => "declined",
            Some(Ended::Done) => "approved",
            Some(Ended::Declined) => "declined",
            Some(Ended::Input | Ended::GoneOn | Ended::Undone | Ended::Ready | Ended::Confirmed) | None => {
                "not_charged"
            }
        };
        let data = json!({
            "operation": id.to_string(), "outcome": outcome, "evidence": "the ledger", "transaction_id": "by hand",
        });
        let mut resolve = command(&self.commands.len().to_string(), CommandType::Resolve, data);
        resolve.attributes.user_id = Some("alice".to_owned());
        self.commands.push(resolve.clone());
        self.begin(0, resolve.operation_id(), |machine, context| machine.accept(resolve, context));
        !self.store.operation(id).is_open()
    }
}

/// What must be loaded to decide on an answer: who asked, and what was asked about.
fn asked(task: &Task, answer: &Answer) -> Vec<Uuid> {
    match answer {
        Answer::Found(Some(target), _) => vec![task.id, *target],
        Answer::Found(None, _) | Answer::Outcome(_) => vec![task.id],
    }
}

/// The operations that a command proves something of.
pub fn proved(commands: &[Command], id: Uuid) -> Vec<Uuid> {
    match commands.iter().find(|command| command.operation_id() == id).map(|command| &command.content) {
        Some(Ok(Body::Notification(facts))) => proved_operations(facts),
        _ => Vec::new(),
    }
}

/// Rules of gateways that honour keys or not, can be asked or not, and so on.
pub fn rules_of(choice: u16) -> Rules {
    let mut rules = rules();
    let choose = |shift: u32| usize::from(choice >> (2 * shift) & 3);
    rules.contract = Contract {
        keys: match [Some(24 * 60 * 60), Some(60), None, Some(24 * 60 * 60)][choose(0)].map(Duration::from_secs) {
            Some(window) if choose(1) == 0 => {
                PerAction::all(Keys { window: Some(window), after_server_error: AfterServerError::Replayed })
            }
            window => keys(window),
        },
        lookup: [Lookup::Authoritative, Lookup::Indicative, Lookup::None, Lookup::Authoritative][choose(2)],
        captures: [Captures::One, Captures::Several][choose(5) % 2],
        notifications: match [None, None, Some(60), Some(600)][choose(6)].map(Duration::from_secs) {
            Some(deadline) => NotificationRole::Proof { deadline },
            None => NotificationRole::Hint,
        },
        undo: choose(7) > 1,
        ..rules.contract
    };
    rules.delayed = [vec![10, 60], vec![], vec![1], vec![5, 5, 5]][choose(3)]
        .iter()
        .map(|seconds| Duration::from_secs(*seconds))
        .collect();
    rules.immediate_attempts = [1, 2, 3, 2][choose(4)];
    rules
}
