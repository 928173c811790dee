//! A gateway in memory that keeps a ledger: it knows what really happened, and refuses to be made to charge twice.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::bench::usd;
use super::store::PAYMENT;
use crate::payment::action::Action;
use crate::payment::code::Code;
use crate::payment::contract::{AfterServerError, Captures, Contract, Lookup};
use crate::payment::fact::{Fact, Proof, Proved};
use crate::payment::outcome::{Decline, Found, GatewayError, GatewayResult, Outcome, Verdict};
use crate::payment::transaction::{Attribution, Transaction, TransactionKind, TransactionState};

/// What the ids of what nobody of ours did begin with.
const BY_HAND: u128 = 0xdec5_0000_0000_0000_0000_0000_0000_0000;

/// What becomes of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Answered,
    /// It happens, but the answer is lost.
    AnswerLost,
    /// It is under way for so many seconds yet when the caller gives up.
    InFlight(u8),
    NotSent,
    Throttled,
    Misconfigured,
    Refused,
    /// A server error, after the work was done or before.
    ServerError {
        after: bool,
    },
}

impl Fate {
    pub fn of(number: u8) -> Fate {
        match number % 16 {
            0..=4 => Fate::Answered,
            5 | 6 => Fate::AnswerLost,
            7 | 8 => Fate::InFlight(number / 26),
            9 | 10 => Fate::NotSent,
            11 => Fate::Throttled,
            12 => Fate::Misconfigured,
            13 => Fate::Refused,
            rest => Fate::ServerError { after: rest == 14 },
        }
    }
}

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    pub operation: Uuid,
    pub key: Uuid,
    pub action: Action,
    /// In hundredths.
    pub amount: i128,
    pub capture: bool,
    /// It completes what the customer has approved.
    pub confirms: bool,
    /// It lets the rest of an authorization go.
    pub is_final: bool,
    /// When.
    pub at: Timestamp,
    /// Decides on the verdict.
    pub luck: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Done,
    Declined,
    Input,
    /// It was `input`, and ended with a later process or a cancel.
    GoneOn,
    Pending {
        until: Timestamp,
        then_done: bool,
    },
    /// It was done, and then undone.
    Undone,
    /// The customer has approved: it awaits a confirmation.
    Ready,
    /// It was ready, and a confirmation came.
    Confirmed,
}

/// What an operation did at the gateway.
#[derive(Debug, Clone)]
pub struct Effect {
    pub sent: Sent,
    pub ended: Ended,
}

impl Effect {
    fn is_live(&self) -> bool {
        matches!(self.ended, Ended::Done | Ended::Pending { .. })
    }

    /// Whether it is a process that went on with money which another one had moved.
    pub fn went_on(&self) -> bool {
        self.ended == Ended::Done && self.sent.action == Action::Process && self.sent.amount == 0
    }
}

/// What is remembered under a key.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    pub first_used: Timestamp,
    pub effect: Option<usize>,
    pub server_error: bool,
}

#[derive(Debug, Clone)]
pub struct Gateway {
    pub contract: Contract,
    pub memories: BTreeMap<Uuid, Memory>,
    pub effects: Vec<Effect>,
    pub in_flight: Vec<(Timestamp, Sent)>,
    /// The customer completed a transaction that had been `input`.
    pub completed: bool,
    /// It has ids of its own for what it does.
    pub gives_references: bool,
    /// Of the whole payment it lists what happened, beside the sums.
    pub lists: bool,
    /// What the customer has approved is done when it is confirmed, and not before.
    pub needs_confirmation: bool,
    /// It captures, releases and refunds whatever it is told: not to tell it wrongly is the machine's part.
    pub trusting: bool,
    /// Whoever tells it has forgotten some of what was told before, and may tell it a second time.
    pub may_act_twice: bool,
}

impl Gateway {
    pub fn new(contract: Contract) -> Gateway {
        Gateway {
            contract,
            memories: BTreeMap::new(),
            effects: Vec::new(),
            in_flight: Vec::new(),
            completed: false,
            gives_references: true,
            lists: false,
            needs_confirmation: false,
            trusting: false,
            may_act_twice: false,
        }
    }

    /// Sums of what is done: authorized, ever captured, refunded.
    pub fn ledger(&self) -> (i128, i128, i128) {
        self.ledger_of(|_| true)
    }

    /// What was ever authorized and then undone: it counts as authorized, and is not held.
    pub fn undone_authorizations(&self) -> i128 {
        let undone = self.effects.iter().filter(|effect| effect.ended == Ended::Undone && !effect.sent.capture);
        undone.map(|effect| effect.sent.amount).sum()
    }

    /// The same, of some of what is done.
    fn ledger_of(&self, known: impl Fn(&Effect) -> bool) -> (i128, i128, i128) {
        let sum = |wanted: fn(&Sent) -> bool| {
            let done = self.effects.iter().filter(|effect| effect.ended == Ended::Done && wanted(&effect.sent));
            done.filter(|effect| known(effect)).map(|effect| effect.sent.amount).sum()
        };
        let authorized = sum(|sent| sent.action == Action::Process && !sent.capture);
        let captured = sum(|sent| sent.action == Action::Capture || sent.action == Action::Process && sent.capture);
        (authorized, captured, sum(|sent| sent.action == Action::Refund))
    }

    pub fn call(&mut self, sent: Sent, fate: Fate, now: Timestamp) -> Outcome {
        let error = |code| GatewayError::new(code, "trouble");
        match fate {
            Fate::Answered => self.execute(sent, now),
            Fate::AnswerLost => {
                self.execute(sent, now);
                Outcome::Unknown(error(Code::Timeout))
            }
            Fate::InFlight(seconds) => {
                self.in_flight.push((now + SignedDuration::from_secs(seconds.into()), sent));
                Outcome::Unknown(error(Code::Timeout))
            }
            Fate::NotSent => Outcome::NotSent(error(Code::Unreachable)),
            Fate::Throttled => {
                let retry_after = Some(Duration::from_secs(u64::from(sent.luck)));
                Outcome::NotSent(GatewayError { retry_after, ..error(Code::RateLimited) })
            }
            Fate::Misconfigured => Outcome::NotSent(error(Code::Misconfigured)),
            Fate::Refused => Outcome::Refused(error(Code::Refused)),
            Fate::ServerError { after } => {
                if after {
                    self.execute(sent, now);
                }
                if self.contract.keys.process.after_server_error == AfterServerError::Replayed {
                    let new = Memory { first_used: now, effect: None, server_error: true };
                    self.memories.entry(sent.key).or_insert(new).server_error = true;
                }
                Outcome::Unknown(error(Code::GatewayError))
            }
        }
    }

    /// Carries out what arrives, unless its key is known.
    fn execute(&mut self, sent: Sent, now: Timestamp) -> Outcome {
        if let (Some(memory), Some(window)) = (self.memories.get(&sent.key), self.contract.keys.process.window) {
            let forgotten = memory.first_used + SignedDuration::try_from(window).unwrap() <= now;
            if memory.server_error && !forgotten {
                return Outcome::Unknown(GatewayError::new(Code::GatewayError, "replayed"));
            }
            if let Some(effect) = memory.effect.filter(|_| !forgotten) {
                return Outcome::Result(Box::new(self.result(effect)));
            }
        }
        if sent.confirms {
            return self.confirm(sent, now);
        }
        let ready = self.effects.iter_mut().find(|other| other.ended == Ended::Ready);
        if let (Some(ready), Action::Process) = (ready, sent.action) {
            // It goes on with the transaction that the customer has approved, which is as ready as before.
            ready.ended = Ended::Confirmed;
            return self.remember(Effect { sent, ended: Ended::Ready }, now);
        }
        if sent.action == Action::Process && self.completed {
            // It goes on with a transaction that the customer completed meanwhile: no more money moves.
            return self.remember(Effect { sent: Sent { amount: 0, ..sent }, ended: Ended::Done }, now);
        }
        if sent.action == Action::Process {
            for other in self.effects.iter_mut().filter(|other| other.ended == Ended::Input) {
                other.ended = Ended::GoneOn;
            }
        }
        self.carry_out(sent, now)
    }

    /// Does what the customer has approved, once.
    fn confirm(&mut self, sent: Sent, now: Timestamp) -> Outcome {
        if let Some(ready) = self.effects.iter_mut().find(|effect| effect.ended == Ended::Ready) {
            ready.ended = Ended::Confirmed;
            return self.carry_out(sent, now);
        }
        // Another confirmation was carried out: no more money moves. While one is at work, it takes no other.
        let is_taken = self
            .effects
            .iter()
            .any(|it| it.sent.action == Action::Process && it.ended == Ended::Done && it.sent.amount > 0);
        let (amount, ended) = if is_taken { (0, Ended::Done) } else { (sent.amount, Ended::Declined) };
        self.remember(Effect { sent: Sent { amount, ..sent }, ended }, now)
    }

    fn carry_out(&mut self, sent: Sent, now: Timestamp) -> Outcome {
        let ended = self.verdict(&sent, now);
        let effect = Effect { sent, ended };
        if effect.is_live() && !self.may_act_twice {
            let same = self.effects.iter().find(|other| other.is_live() && other.sent.operation == sent.operation);
            assert!(same.is_none(), "one operation is carried out twice: {same:?} and {sent:?}");
            let mut processes = self.effects.iter().filter(|other| other.sent.action == Action::Process);
            let live = processes.find(|other| sent.action == Action::Process && other.is_live());
            assert!(live.is_none(), "two live transactions: {live:?} and {sent:?}");
        }
        self.remember(effect, now)
    }

    fn remember(&mut self, effect: Effect, now: Timestamp) -> Outcome {
        let key = effect.sent.key;
        self.effects.push(effect);
        let effect = self.effects.len() - 1;
        self.memories.insert(key, Memory { first_used: now, effect: Some(effect), server_error: false });
        Outcome::Result(Box::new(self.result(effect)))
    }

    fn verdict(&mut self, sent: &Sent, now: Timestamp) -> Ended {
        if !self.has_money_for(sent) {
            return Ended::Declined;
        }
        match sent.luck % 10 {
            0 | 1 => Ended::Declined,
            2 | 3 => {
                let until = now + SignedDuration::from_secs(i64::from(sent.luck) * 2);
                Ended::Pending { until, then_done: !sent.luck.is_multiple_of(3) }
            }
            4 if sent.action == Action::Process => Ended::Input,
            _ => {
                if sent.action == Action::Cancel {
                    self.close_processes();
                }
                Ended::Done
            }
        }
    }

    /// Whether the ledger allows it. A second process is let through: not to send one is the machine's part.
    fn has_money_for(&self, sent: &Sent) -> bool {
        let (authorized, captured, refunded) = self.ledger();
        let live = |action| self.effects.iter().any(|effect| effect.is_live() && effect.sent.action == action);
        match sent.action {
            Action::Process => true,
            Action::Capture | Action::Release | Action::Refund if self.trusting => true,
            Action::Capture | Action::Release => {
                let several = self.contract.captures == Captures::Several;
                let is_over = self.effects.iter().any(|effect| {
                    effect.is_live() && effect.sent.action == Action::Capture && (effect.sent.is_final || !several)
                });
                let fits = sent.action == Action::Release || captured + sent.amount <= authorized;
                let pending = self.effects.iter().any(|effect| {
                    effect.sent.action == Action::Capture && matches!(effect.ended, Ended::Pending { .. })
                });
                authorized > 0 && fits && !is_over && !pending && !live(Action::Release)
            }
            Action::Refund => {
                let pending = self.effects.iter().filter(|effect| effect.sent.action == Action::Refund);
                let pending = pending.filter(|effect| matches!(effect.ended, Ended::Pending { .. }));
                let reserved: i128 = pending.map(|effect| effect.sent.amount).sum();
                captured - refunded - reserved >= sent.amount
            }
            Action::Cancel => authorized == 0 && captured == 0,
        }
    }

    /// Ends what a cancel ends.
    fn close_processes(&mut self) {
        for effect in self.effects.iter_mut().filter(|effect| effect.sent.action == Action::Process) {
            match effect.ended {
                Ended::Pending { .. } => effect.ended = Ended::Declined,
                Ended::Input | Ended::Ready => effect.ended = Ended::GoneOn,
                Ended::Done | Ended::Declined | Ended::GoneOn | Ended::Undone | Ended::Confirmed => {}
            }
        }
    }

    /// Undoes what came of a key, and says what there was.
    pub fn undo(&mut self, key: Uuid) -> Found {
        let Some(index) = self.effects.iter().position(|effect| effect.sent.key == key) else { return Found::Nothing };
        match self.effects[index].ended {
            Ended::Done | Ended::Undone => {
                self.effects[index].ended = Ended::Undone;
                // What the customer completed is gone with it, and the next process begins anew.
                self.completed &= self.effects[index].sent.action != Action::Process;
                Found::Undone(vec![Transaction { state: TransactionState::Reversed, ..self.transaction(index) }])
            }
            Ended::Pending { .. } | Ended::Input | Ended::Ready => {
                self.effects[index].ended = Ended::Declined;
                Found::Undone(Vec::new())
            }
            Ended::Declined | Ended::GoneOn | Ended::Confirmed => Found::Result(Box::new(self.result(index))),
        }
    }

    /// Somebody refunds in the gateway's own portal, which tells nobody. It can be learnt only by asking.
    pub fn refund_by_hand(&mut self, part: i128, now: Timestamp) {
        let (_, captured, refunded) = self.ledger();
        let pending = self.effects.iter().filter(|effect| effect.sent.action == Action::Refund);
        let pending = pending.filter(|effect| matches!(effect.ended, Ended::Pending { .. }));
        let reserved: i128 = pending.map(|effect| effect.sent.amount).sum();
        let amount = (captured - refunded - reserved).min(part);
        if amount <= 0 || self.contract.lookup == Lookup::None {
            return;
        }
        let operation = Uuid::from_u128(BY_HAND + self.effects.len() as u128);
        let sent = Sent {
            operation,
            key: operation,
            action: Action::Refund,
            amount,
            capture: false,
            confirms: false,
            is_final: true,
            at: now,
            luck: 5,
        };
        self.effects.push(Effect { sent, ended: Ended::Done });
    }

    /// The customer acts at the gateway, which tells nobody.
    pub fn complete_input(&mut self) {
        let open = self.effects.iter_mut().find(|effect| effect.ended == Ended::Input);
        // Without a look-up nobody would ever learn of it.
        match open.filter(|_| self.contract.lookup != Lookup::None) {
            Some(effect) if self.needs_confirmation => effect.ended = Ended::Ready,
            Some(effect) => {
                effect.ended = Ended::Done;
                self.completed = true;
            }
            None => {}
        }
    }

    /// A call that is in flight arrives.
    pub fn arrive(&mut self, which: usize, now: Timestamp) {
        let (_, sent) = self.in_flight.remove(which);
        self.execute(sent, now);
    }

    /// What was in flight arrives, and what was pending ends.
    pub fn pass_time(&mut self, now: Timestamp) {
        let (arrived, later) = std::mem::take(&mut self.in_flight).into_iter().partition(|(at, _)| *at <= now);
        self.in_flight = later;
        for (at, sent) in Vec::from_iter::<Vec<(Timestamp, Sent)>>(arrived) {
            self.execute(sent, at);
        }
        for effect in 0..self.effects.len() {
            let Ended::Pending { until, then_done } = self.effects[effect].ended else { continue };
            if until <= now {
                let (authorized, captured, _) = self.ledger();
                let is_cancel = self.effects[effect].sent.action == Action::Cancel;
                let done = then_done && !(is_cancel && authorized + captured > 0);
                self.effects[effect].ended = if done { Ended::Done } else { Ended::Declined };
                if done && is_cancel {
                    self.close_processes();
                }
            }
        }
    }

    /// When something happens here by itself.
    pub fn next_change(&self) -> Option<Timestamp> {
        let pending = self.effects.iter().filter_map(|effect| match effect.ended {
            Ended::Pending { until, .. } => Some(until),
            Ended::Done
            | Ended::Declined
            | Ended::Input
            | Ended::GoneOn
            | Ended::Undone
            | Ended::Ready
            | Ended::Confirmed => None,
        });
        self.in_flight.iter().map(|(at, _)| *at).chain(pending).min()
    }

    /// What is known of an operation.
    pub fn effect_of(&self, operation: Uuid) -> Option<&Effect> {
        let mut effects = self.effects.iter().filter(|effect| effect.sent.operation == operation);
        effects.clone().find(|effect| effect.is_live()).or_else(|| effects.next_back())
    }

    pub fn is_in_flight(&self, operation: Uuid) -> bool {
        self.in_flight.iter().any(|(_, sent)| sent.operation == operation)
    }

    pub fn look_up(&self, operation: Uuid, luck: u8) -> Found {
        let overlooked = self.contract.lookup == Lookup::Indicative && luck.is_multiple_of(3);
        let index = self
            .effect_of(operation)
            .filter(|_| !overlooked)
            .map(|found| self.effects.iter().position(|effect| std::ptr::eq(effect, found)).unwrap());
        index.map_or(Found::Nothing, |effect| Found::Result(Box::new(self.result(effect))))
    }

    /// What it signs of an operation as it stands now, where its reference can be told.
    pub fn proof_of(&self, operation: Uuid) -> Option<Fact> {
        let found = self.effect_of(operation).filter(|_| self.gives_references)?;
        let index = self.effects.iter().position(|effect| std::ptr::eq(effect, found))?;
        let state = match found.ended {
            Ended::Done => TransactionState::Done,
            Ended::Declined => TransactionState::Failed,
            Ended::Pending { .. } => TransactionState::Pending,
            Ended::Undone => TransactionState::Reversed,
            Ended::Ready => TransactionState::Ready,
            Ended::Input | Ended::GoneOn | Ended::Confirmed => return None,
        };
        let what = match found.sent.action {
            Action::Cancel => Proved::Cancel(state),
            _ if found.sent.amount == 0 => return None,
            _ => Proved::Money(Transaction { state, ..self.transaction(index) }),
        };
        let proof = Proof { what, transaction_id: None, code: None, message: String::new() };
        let kind = "news".to_owned();
        let (payment_id, operation_id) = (Some(PAYMENT), Some(operation));
        Some(Fact { payment_id, operation_id, kind, proof: Some(proof), ..Fact::default() })
    }

    /// Whether a look-up may still miss it.
    pub fn may_miss(&self, effect: &Effect, now: Timestamp) -> bool {
        let settled = SignedDuration::try_from(self.contract.settle_window).unwrap();
        self.contract.lookup == Lookup::Indicative || now < effect.sent.at + settled
    }

    /// The whole payment.
    pub fn look_up_payment(&self) -> Found {
        self.sums(|_| true)
    }

    /// The whole payment as it was before what a look-up may miss.
    pub fn look_up_payment_missing(&self, now: Timestamp) -> Found {
        self.sums(|effect| !self.may_miss(effect, now))
    }

    fn sums(&self, known: impl Fn(&Effect) -> bool) -> Found {
        let (authorized, captured, refunded) = self.ledger_of(&known);
        let verdict = match (authorized, captured) {
            (0, 0) if self.effects.iter().any(|effect| effect.ended == Ended::Ready) => Verdict::Ready,
            (0, 0) => return Found::Nothing,
            (_, 0) => Verdict::Authorized,
            _ => Verdict::Approved,
        };
        let money = |hundredths| Some(usd(&format!("{}.{:02}", hundredths / 100, hundredths % 100)));
        let is_listed = |effect: &&Effect| effect.ended == Ended::Done && effect.sent.amount > 0;
        let moves = |effect: &&Effect| effect.sent.action != Action::Cancel;
        let listed = (0..self.effects.len()).filter(|index| {
            let effect = &self.effects[*index];
            self.lists && known(effect) && is_listed(&effect) && moves(&effect)
        });
        Found::Result(Box::new(GatewayResult {
            transactions: listed.map(|index| self.transaction(index)).collect(),
            // Where it was told twice, what it still overlooks may be what was given back.
            captured: money((captured - refunded).max(0)),
            refunded: money(refunded),
            ..GatewayResult::new(verdict)
        }))
    }

    fn result(&self, effect: usize) -> GatewayResult {
        let Effect { sent, ended } = &self.effects[effect];
        let verdict = match ended {
            Ended::Done if sent.action == Action::Process && !sent.capture => Verdict::Authorized,
            Ended::Done => Verdict::Approved,
            Ended::Declined | Ended::Undone => Verdict::Declined(Decline::Soft),
            Ended::Input | Ended::GoneOn => Verdict::CustomerMustAct { redirect_url: Some("https://3ds".to_owned()) },
            Ended::Pending { .. } => Verdict::Pending,
            Ended::Ready | Ended::Confirmed => Verdict::Ready,
        };
        // One that went on with what the customer had paid took nothing by itself.
        let paid_before = |other: &Effect| {
            other.sent.action == Action::Process && other.ended == Ended::Done && other.sent.amount > 0
        };
        let money = match ended {
            Ended::Done if sent.action == Action::Process && sent.amount == 0 => {
                self.effects.iter().position(paid_before)
            }
            Ended::Done if sent.action != Action::Cancel => Some(effect),
            _ => None,
        };
        // Without ids of its own it can only say that this operation was approved.
        let own = |transaction| match self.gives_references {
            true => transaction,
            false => Transaction { attribution: Attribution::Recorded(sent.operation), ..transaction },
        };
        let transactions = money.map(|index| own(self.transaction(index))).into_iter().collect();
        GatewayResult { transactions, ..GatewayResult::new(verdict) }
    }

    /// What an effect did with money, under the gateway's own reference.
    fn transaction(&self, index: usize) -> Transaction {
        let sent = &self.effects[index].sent;
        Transaction {
            kind: match sent.action {
                Action::Process if !sent.capture => TransactionKind::Authorization,
                Action::Process | Action::Capture => TransactionKind::Capture,
                Action::Release => TransactionKind::Void,
                Action::Refund => TransactionKind::Refund,
                Action::Cancel => unreachable!("a cancel moves no money"),
            },
            reference: self.gives_references.then(|| format!("tx-{index}")),
            parent: None,
            attribution: match sent.operation.as_u128() & BY_HAND == BY_HAND {
                true => Attribution::Unattributed,
                false => Attribution::Recorded(sent.operation),
            },
            state: TransactionState::Done,
            amount: usd(&format!("{}.{:02}", sent.amount / 100, sent.amount % 100)),
        }
    }
}
