//! What tells two worlds apart: everything that what happens later can depend on, and nothing else. Times count from now,
//! versions and numbers of events from what is stored, and who a worker is only by what it holds.

use jiff::Timestamp;
use uuid::Uuid;

use super::super::model::{Ended, Gateway};
use super::world::{Answer, Entry, Phase, Task, World};
use crate::payment::code::Code;
use crate::payment::command::{Body, Command};
use crate::payment::machine::{Aggregate, Step, Tracked};
use crate::payment::model::Payment;
use crate::payment::money::Money;
use crate::payment::movement::Movement;
use crate::payment::observation::{Asked, Observation};
use crate::payment::operation::{Operation, State};
use crate::payment::outcome::{Found, GatewayError, GatewayResult, Outcome, Verdict};
use crate::payment::transaction::Transaction;

pub type Key = Vec<u8>;

/// How old a change may be before its age matters to nobody any more; beyond any settle window.
const OLD_MICROSECONDS: i64 = -60_000_000;

struct Writer<'a> {
    world: &'a World,
    bytes: Vec<u8>,
}

/// Of a world without what may still go wrong in it.
pub fn key(world: &World) -> Key {
    let mut writer = Writer { world, bytes: Vec::with_capacity(512) };
    writer.count(world.line);
    writer.payment(world.store.payment.as_ref());
    world.store.operations.iter().for_each(|row| writer.operation(row, None));
    writer.movements(world.store.movements.iter());
    writer.gateway(&world.gateway);
    world.commands.iter().for_each(|command| writer.proof(command));
    let mut tasks: Vec<Key> = world.tasks.iter().map(|task| of_task(world, task)).collect();
    tasks.sort_unstable();
    writer.lists(&tasks);
    let mut commits: Vec<Key> = world.commits.iter().map(|commit| of_aggregate(world, commit, None)).collect();
    commits.sort_unstable();
    writer.lists(&commits);
    writer.bytes
}

fn of_task(world: &World, task: &Task) -> Key {
    let mut writer = Writer { world, bytes: Vec::with_capacity(256) };
    writer.name(Some(task.id));
    let stored = world.store.operations.iter().find(|row| row.id == task.id);
    let holds = stored.and_then(|row| row.lease).is_some_and(|lease| lease.owner == task.worker);
    writer.bit(holds);
    writer.number(i64::from(task.tries));
    match &task.phase {
        Phase::Begin => {
            writer.byte(match task.entry {
                Entry::Command { redelivered } => u8::from(redelivered),
                Entry::Due => 2,
            });
            for (step, lease) in &task.in_doubt {
                writer.step(*step);
                writer.bit(lease.owner == task.worker);
                writer.time(Some(lease.until));
            }
        }
        Phase::Ask(step) => writer.step(*step),
        Phase::Answered(answer) => writer.answer(answer),
    }
    if let Some(aggregate) = &task.aggregate {
        writer.bytes.extend(of_aggregate(world, aggregate, Some(task.worker)));
    }
    writer.bytes
}

fn of_aggregate(world: &World, aggregate: &Aggregate, worker: Option<Uuid>) -> Key {
    let mut writer = Writer { world, bytes: Vec::with_capacity(256) };
    writer.bit(aggregate.version_read == world.version());
    writer.payment(aggregate.payment.as_ref());
    for Tracked { row, stored } in &aggregate.operations {
        writer.byte(*stored as u8);
        writer.operation(row, worker);
    }
    for Tracked { row, stored } in &aggregate.movements {
        writer.byte(*stored as u8);
        writer.movements([row].into_iter());
    }
    writer.bytes
}

impl Writer<'_> {
    fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    fn bit(&mut self, bit: bool) {
        self.bytes.push(u8::from(bit));
    }

    fn count(&mut self, count: usize) {
        self.bytes.push(u8::try_from(count).unwrap());
    }

    fn number(&mut self, number: i64) {
        self.bytes.extend(number.to_be_bytes());
    }

    fn name(&mut self, id: Option<Uuid>) {
        self.bytes.push(id.map_or(u8::MAX, |id| self.world.scenario.name(id)));
    }

    fn time(&mut self, time: Option<Timestamp>) {
        let since = |time: Timestamp| time.as_microsecond() - self.world.now.as_microsecond();
        self.number(time.map_or(i64::MAX, since));
    }

    /// A time of which only matters how long ago it is, up to some age.
    fn age(&mut self, time: Timestamp) {
        self.number((time.as_microsecond() - self.world.now.as_microsecond()).max(OLD_MICROSECONDS));
    }

    fn money(&mut self, money: Option<Money>) {
        self.number(money.map_or(-1, |money| i64::try_from(money.amount().mantissa()).unwrap()));
    }

    fn lists(&mut self, lists: &[Key]) {
        self.count(lists.len());
        for list in lists {
            self.number(i64::try_from(list.len()).unwrap());
            self.bytes.extend(list);
        }
    }

    fn payment(&mut self, payment: Option<&Payment>) {
        let Some(payment) = payment else { return self.byte(u8::MAX) };
        self.byte(payment.status as u8);
        self.name(payment.busy);
        self.number(i64::from(payment.waiting));
        self.byte(payment.capture.map_or(2, u8::from));
        self.bit(payment.redirect_url.is_some());
        self.age(payment.modified);
        let stored = self.world.store.payment.as_ref().map_or(0, |stored| stored.last_sequence);
        self.number(stored - payment.last_sequence);
    }

    fn operation(&mut self, row: &Operation, worker: Option<Uuid>) {
        self.name(Some(row.id));
        self.byte(row.state as u8);
        self.money(row.amount());
        self.bit(row.counts.attempts > 0);
        self.bit(row.request.as_ref().is_some_and(|request| request.capture));
        // Of one that was answered, only this is ever read.
        if row.state == State::Settled {
            let answer = row.answer.as_ref();
            self.byte(answer.map_or(u8::MAX, |answer| answer.kind as u8));
            return self.bit(answer.is_some_and(|answer| answer.code == Some(Code::Mismatch)));
        }
        for number in
            [row.counts.attempts, row.counts.rounds, row.counts.lookups, row.counts.takeovers, row.sent.generation]
        {
            self.byte(u8::try_from(number.min(u32::from(u8::MAX))).unwrap());
        }
        self.byte(row.sent.exposure as u8);
        for bit in [row.sent.acted_on, row.sent.lookup_only, row.escalated, row.accepted > 0] {
            self.bit(bit);
        }
        self.time(row.sent.first_at);
        self.time(row.sent.last_at);
        self.time(row.due_at);
        self.time(row.lease.map(|lease| lease.until));
        self.byte(row.lease.map_or(2, |lease| u8::from(Some(lease.owner) == worker)));
        for name in ["asked_again", "contradicts", "undoing", "confirms", "waits_to_go_on"] {
            self.bit(row.data.contains_key(name));
        }
        let no_news = row.data.get("no_news").and_then(serde_json::Value::as_i64);
        self.number(no_news.unwrap_or_default());
        if self.world.store.payment.is_none() {
            self.time(Some(row.created));
        }
    }

    fn movements<'a>(&mut self, movements: impl Iterator<Item = &'a Movement>) {
        for movement in movements {
            self.byte(movement.kind as u8);
            match movement.reference.parse() {
                Ok(id) => self.name(Some(id)),
                Err(_) => self.text(&movement.reference),
            }
            self.text(movement.gateway_reference.as_deref().unwrap_or_default());
            self.name(movement.operation);
            self.money(Some(movement.amount));
        }
        self.byte(u8::MAX);
    }

    fn gateway(&mut self, gateway: &Gateway) {
        self.bit(gateway.completed);
        self.count(gateway.effects.len());
        for effect in &gateway.effects {
            self.name(Some(effect.sent.operation));
            self.name(Some(effect.sent.key));
            self.number(i64::try_from(effect.sent.amount).unwrap());
            self.age(effect.sent.at);
            match effect.ended {
                Ended::Done => self.byte(0),
                Ended::Declined => self.byte(1),
                Ended::Input => self.byte(2),
                Ended::GoneOn => self.byte(3),
                Ended::Undone => self.byte(6),
                Ended::Ready => self.byte(7),
                Ended::Confirmed => self.byte(8),
                Ended::Pending { until, then_done } => {
                    self.byte(4 + u8::from(then_done));
                    self.time(Some(until));
                }
            }
        }
        for (key, memory) in &gateway.memories {
            self.name(Some(*key));
            self.time(Some(memory.first_used));
            self.count(memory.effect.map_or(usize::from(u8::MAX), |effect| effect));
            self.bit(memory.server_error);
        }
        for (until, sent) in &gateway.in_flight {
            self.name(Some(sent.key));
            self.byte(sent.luck);
            self.time(Some(*until));
        }
    }

    /// What a notification proves that is not answered yet: the gateway may be further by now.
    fn proof(&mut self, command: &Command) {
        let (id, Ok(Body::Notification(facts))) = (command.operation_id(), &command.content) else { return };
        let is_answered = self.world.store.operations.iter().any(|row| row.id == id && !row.is_open());
        for proof in facts.iter().filter_map(|fact| fact.proof.as_ref()).filter(|_| !is_answered) {
            self.name(Some(id));
            self.byte(proof.state() as u8);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::LookUp { target, .. } => {
                self.byte(1);
                self.name(target);
            }
            Step::Undo(_) => self.byte(2),
            _ => self.byte(0),
        }
    }

    fn text(&mut self, text: &str) {
        self.bytes.extend(text.as_bytes());
        self.byte(u8::MAX);
    }

    /// Of a question only matters what has changed since.
    fn asked(&mut self, asked: Asked) {
        self.age(asked.at());
        let stored = self.world.store.payment.as_ref().map_or(0, |stored| stored.last_sequence);
        self.number(stored - asked.after_sequence());
        self.bit(asked.clocks_agreed());
    }

    fn answer(&mut self, answer: &Answer) {
        match answer {
            Answer::Outcome(Observation { asked, says }) => {
                self.asked(*asked);
                match says {
                    Outcome::Result(result) => self.result(10, result),
                    Outcome::Refused(error) => self.error(11, error),
                    Outcome::NotSent(error) => self.error(12, error),
                    Outcome::Unknown(error) => self.error(13, error),
                }
            }
            Answer::Found(target, Observation { asked, says }) => {
                self.byte(14);
                self.name(*target);
                self.asked(*asked);
                match says {
                    Found::Result(result) => self.result(15, result),
                    Found::OfOthers(transactions) => {
                        self.byte(18);
                        self.transactions(transactions);
                    }
                    Found::Nothing => self.byte(16),
                    Found::Undone(transactions) => {
                        self.byte(19);
                        self.transactions(transactions);
                    }
                    Found::Failed(error) => self.error(17, error),
                }
            }
        }
    }

    fn result(&mut self, kind: u8, result: &GatewayResult) {
        self.byte(kind);
        self.byte(match &result.verdict {
            Verdict::Approved => 0,
            Verdict::Authorized => 1,
            Verdict::Pending => 2,
            Verdict::CustomerMustAct { .. } => 3,
            Verdict::Declined(_) => 4,
            Verdict::Ready => 5,
        });
        self.money(result.captured);
        self.money(result.refunded);
        self.transactions(&result.transactions);
    }

    fn transactions(&mut self, transactions: &[Transaction]) {
        for transaction in transactions {
            self.byte(transaction.kind as u8);
            self.byte(transaction.state as u8);
            self.name(transaction.attribution.operation());
            self.text(transaction.reference.as_deref().unwrap_or_default());
            self.money(Some(transaction.amount));
        }
        self.byte(u8::MAX);
    }

    fn error(&mut self, kind: u8, error: &GatewayError) {
        self.byte(kind);
        self.byte(error.code as u8);
    }
}
