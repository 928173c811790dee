//! A bench to drive the machine by, and what to drive it with.

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::store::{PAYMENT, Store};
use crate::payment::action::Action;
use crate::payment::code::Code;
use crate::payment::command::{Attributes, Body, Command, CommandName, CommandType, Kind};
use crate::payment::contract::{AfterServerError, Captures, Contract, Keys, Lookup, NotificationRole, PerAction};
use crate::payment::event::{Event, EventKind, Resent};
use crate::payment::machine::{Aggregate, Context, Rules, Step};
use crate::payment::model::Payment;
use crate::payment::money::{Currency, Money};
use crate::payment::observation::Asked;
use crate::payment::operation::{AnswerKind, Operation, State};
use crate::payment::outcome::{Decline, Found, GatewayError, GatewayResult, Outcome, Verdict};
use crate::payment::status::Status;
use crate::payment::transaction::{Attribution, Transaction, TransactionKind, TransactionState};

pub const WORKER: Uuid = Uuid::from_u128(0xa);
pub const OTHER_WORKER: Uuid = Uuid::from_u128(0xb);

/// Drives the machine over a [`Store`], each decision loaded anew and committed.
pub struct Bench {
    pub store: Store,
    pub rules: Rules,
    pub now: Timestamp,
    pub worker: Uuid,
    pub paused_for: Option<Duration>,
    /// Whether the pause is an operator's, which does not stop what only asks.
    pub is_paused_by_operator: bool,
    pub clocks_agree: bool,
    /// What went out last for each operation.
    asked: HashMap<Uuid, Asked>,
    /// The events of the last commit.
    pub emitted: Vec<Event>,
}

impl Bench {
    pub fn new() -> Bench {
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        Bench {
            store: Store::default(),
            rules: rules(),
            now,
            worker: WORKER,
            paused_for: None,
            is_paused_by_operator: false,
            clocks_agree: true,
            asked: HashMap::new(),
            emitted: Vec::new(),
        }
    }

    /// A bench with a payment of 100.00 that stands in a status, with the money that belongs there.
    pub fn with_payment(status: Status) -> Bench {
        let mut bench = Bench::new();
        bench.send("create", CommandType::Create, payment_data());
        let capture = json!({"capture": status != Status::Preauth});
        let ended = match status {
            Status::Waiting => return bench,
            Status::Input => result(Verdict::CustomerMustAct { redirect_url: Some("https://3ds".to_owned()) }),
            Status::Preauth | Status::Confirmed | Status::Refunded => approved(),
            Status::Rejected => result(Verdict::Declined(Decline::Hard)),
            Status::Error => Outcome::Refused(GatewayError::new(Code::Refused, "no")),
            Status::Cancelled => {
                let cancel = bench.call("setup-cancel", CommandType::Cancel, json!({}));
                bench.settle(cancel, approved());
                return bench;
            }
        };
        let process = bench.call("setup", CommandType::Process, capture);
        bench.settle(process, ended);
        if status == Status::Refunded {
            let refund = bench.call("setup-refund", CommandType::Refund, json!({}));
            bench.settle(refund, approved());
        }
        assert_eq!(bench.status(), status);
        bench
    }

    pub fn decide(&mut self, asked: &[Uuid], decision: impl FnOnce(&mut Aggregate, Context<'_>) -> Step) -> Step {
        let mut aggregate = self.store.load(asked);
        let step = decision(&mut aggregate, self.context());
        self.emitted = aggregate.events().to_vec();
        assert!(self.store.commit(&mut aggregate));
        if let Step::Call(id) | Step::Undo(id) | Step::LookUp { operation: id, .. } = step {
            self.asked.insert(id, aggregate.asked(self.now));
        }
        step
    }

    /// The question that went out last for an operation, or would go out now.
    pub fn asked(&self, id: Uuid) -> Asked {
        self.asked.get(&id).copied().unwrap_or_else(|| self.store.load(&[]).asked(self.now))
    }

    pub fn context(&self) -> Context<'_> {
        Context {
            now: self.now,
            worker: self.worker,
            rules: &self.rules,
            paused_for: self.paused_for,
            questions_paused_for: self.paused_for.filter(|_| !self.is_paused_by_operator),
            clocks_agree: self.clocks_agree,
        }
    }

    pub fn send(&mut self, id: &str, kind: CommandType, data: Value) -> Step {
        self.send_command(command(id, kind, data))
    }

    pub fn send_command(&mut self, command: Command) -> Step {
        let id = command.operation_id();
        self.decide(&[id], |aggregate, context| {
            let step = aggregate.accept(command, context);
            // What is asked for goes out before it is answered.
            if let Step::Resend { operation, from, to } = step {
                aggregate.resent(operation, Some(Resent { from, to }), context.now);
            }
            step
        })
    }

    /// Sends a command that must be called at once; its operation.
    pub fn call(&mut self, id: &str, kind: CommandType, data: Value) -> Uuid {
        let operation = operation_id(id);
        assert_eq!(self.send(id, kind, data), Step::Call(operation), "{:?}", self.emitted);
        operation
    }

    /// Sends a command that must be rejected; why.
    pub fn rejected(&mut self, id: &str, kind: CommandType, data: Value) -> Code {
        self.rejected_command(command(id, kind, data))
    }

    pub fn rejected_command(&mut self, command: Command) -> Code {
        assert_eq!(self.send_command(command), Step::Settled);
        self.rejection()
    }

    /// Why the last commit rejected a command.
    pub fn rejection(&self) -> Code {
        match self.emitted.as_slice() {
            [Event { kind: EventKind::Rejected { code, .. }, .. }] => *code,
            emitted => panic!("not rejected: {emitted:?}"),
        }
    }

    pub fn settle(&mut self, id: Uuid, outcome: Outcome) -> Step {
        self.settle_after(id, outcome, 1)
    }

    pub fn settle_after(&mut self, id: Uuid, outcome: Outcome, tries: u32) -> Step {
        let outcome = match outcome {
            Outcome::Result(result) => Outcome::Result(self.with_money(id, *result, Attribution::Answered(id))),
            outcome => outcome,
        };
        let answer = self.asked(id).answered(outcome);
        self.decide(&[id], |aggregate, context| aggregate.settle(id, answer, tries, context))
    }

    pub fn found(&mut self, id: Uuid, target: Option<Uuid>, found: Found) -> Step {
        let found = match (found, target) {
            (Found::Result(result), Some(target)) => {
                Found::Result(self.with_money(target, *result, Attribution::Recorded(target)))
            }
            (found, _) => found,
        };
        self.found_of(id, target, self.asked(id), found)
    }

    /// The answer to a question that went out earlier.
    pub fn found_of(&mut self, id: Uuid, target: Option<Uuid>, asked: Asked, found: Found) -> Step {
        let wanted: Vec<Uuid> = [Some(id), target].into_iter().flatten().collect();
        let answer = asked.answered(found);
        self.decide(&wanted, |aggregate, context| aggregate.found(id, target, answer, 9, context))
    }

    /// A result with the money that its verdict means of an operation, where it names none: of a gateway that gives no
    /// references.
    fn with_money(&self, id: Uuid, mut result: GatewayResult, attribution: Attribution) -> Box<GatewayResult> {
        let known = self.store.operations.iter().find(|operation| operation.id == id);
        let amount = result.total.take().or(known.and_then(Operation::amount));
        let captures = known.and_then(|operation| operation.request.as_ref()).is_some_and(|request| request.capture);
        let kind = match known.and_then(Operation::action) {
            Some(Action::Process) if captures && result.verdict == Verdict::Approved => Some(TransactionKind::Capture),
            Some(Action::Process) => Some(TransactionKind::Authorization),
            Some(Action::Capture) => Some(TransactionKind::Capture),
            Some(Action::Release) => Some(TransactionKind::Void),
            Some(Action::Refund) => Some(TransactionKind::Refund),
            Some(Action::Cancel) | None => None,
        };
        if let (true, true, Some(kind), Some(amount)) =
            (result.approves(), result.transactions.is_empty(), kind, amount)
        {
            let state = TransactionState::Done;
            // As the adapter of `http` has it: a process is known by the payment's id at the gateway.
            let is_process = matches!(kind, TransactionKind::Capture | TransactionKind::Authorization);
            let reference = result.transaction_id.clone().filter(|_| is_process);
            result.transactions = vec![Transaction { kind, reference, parent: None, attribution, state, amount }];
        }
        Box::new(result)
    }

    pub fn resume(&mut self, id: Uuid) -> Step {
        self.decide(&[id], |aggregate, context| aggregate.resume(id, context))
    }

    pub fn take_over(&mut self, id: Uuid) -> Step {
        self.decide(&[id], |aggregate, context| aggregate.take_over(id, context))
    }

    pub fn wait(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    /// Goes on when the operation is due.
    pub fn resume_when_due(&mut self, id: Uuid) -> Step {
        self.now = self.now.max(self.operation(id).due_at.expect("a due time"));
        self.resume(id)
    }

    pub fn payment(&self) -> &Payment {
        self.store.payment.as_ref().unwrap()
    }

    pub fn status(&self) -> Status {
        self.payment().status
    }

    pub fn operation(&self, id: Uuid) -> &Operation {
        self.store.operation(id)
    }

    pub fn state(&self, id: Uuid) -> State {
        self.operation(id).state
    }

    /// How an operation was answered.
    pub fn answer(&self, id: Uuid) -> (AnswerKind, Option<Code>) {
        let answer = self.operation(id).answer.as_ref().expect("an answer");
        (answer.kind, answer.code)
    }

    /// Authorized, captured and refunded, as the payment shows them.
    pub fn amounts(&self) -> [String; 3] {
        let amounts = self.payment().amounts;
        [amounts.authorized, amounts.captured, amounts.refunded].map(|amount| amount.to_string())
    }

    /// The types of the events of the last commit, and whether each is an answer.
    pub fn emitted(&self) -> Vec<(&'static str, bool)> {
        self.emitted.iter().map(|event| (event.kind.type_name(), event.is_final())).collect()
    }

    /// Why the last commit delays something.
    pub fn delayed(&self) -> Option<Code> {
        self.emitted.iter().rev().find_map(|event| match event.kind {
            EventKind::Delayed { reason, .. } => Some(reason),
            _ => None,
        })
    }
}

/// A gateway that honours keys for a day and can be asked, with two delayed rounds of two attempts each.
pub fn rules() -> Rules {
    Rules {
        gateway: "http".to_owned(),
        account: "shop".to_owned(),
        account_aliases: Vec::new(),
        contract: Contract {
            keys: keys(Some(Duration::from_secs(24 * 60 * 60))),
            lookup: Lookup::Authoritative,
            settle_window: Duration::from_secs(10),
            captures: Captures::One,
            notifications: NotificationRole::Hint,
            undo: false,
        },
        capture: true,
        retired: false,
        immediate_attempts: 2,
        delayed: vec![Duration::from_secs(10), Duration::from_secs(60)],
        lease: Duration::from_secs(15),
        unknown_payment_grace: Duration::from_secs(5),
    }
}

/// Keys that are honoured for so long, or none.
pub fn keys(window: Option<Duration>) -> PerAction<Keys> {
    PerAction::all(window.map_or(Keys::NONE, Keys::kept_for))
}

/// Keys for a day, of which a server error is given again.
pub fn replaying() -> PerAction<Keys> {
    let window = Some(Duration::from_secs(24 * 60 * 60));
    PerAction::all(Keys { window, after_server_error: AfterServerError::Replayed })
}

pub fn payment_data() -> Value {
    json!({"variant": "default", "total": "100.00", "currency": "USD"})
}

pub fn operation_id(id: &str) -> Uuid {
    name(id).operation_id(&PAYMENT.to_string())
}

fn name(id: &str) -> CommandName {
    CommandName { source: "shop".to_owned(), id: id.to_owned() }
}

pub fn command(id: &str, kind: CommandType, data: Value) -> Command {
    let data: Map<String, Value> = serde_json::from_value(data).unwrap();
    let mut hash = [0; 32];
    let text = format!("{kind}{}", Value::Object(data.clone()));
    let digest = Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes());
    hash[..16].copy_from_slice(digest.as_bytes());
    Command {
        payment_id: PAYMENT,
        subject: None,
        name: name(id),
        kind: Kind::Known(kind),
        variant: "default".to_owned(),
        content: Body::parse(kind, &data),
        data,
        hash,
        attributes: Attributes::default(),
    }
}

pub fn usd(text: &str) -> Money {
    Money::parse(text, Currency::from_code("USD").unwrap()).unwrap()
}

pub fn approved() -> Outcome {
    result(Verdict::Approved)
}

pub fn approved_of(amount: &str) -> Outcome {
    Outcome::Result(Box::new(GatewayResult { total: Some(usd(amount)), ..GatewayResult::new(Verdict::Approved) }))
}

pub fn result(verdict: Verdict) -> Outcome {
    Outcome::Result(Box::new(GatewayResult::new(verdict)))
}

pub fn found(verdict: Verdict) -> Found {
    Found::Result(Box::new(GatewayResult::new(verdict)))
}

pub fn not_sent() -> Outcome {
    Outcome::NotSent(GatewayError::new(Code::Unreachable, "no connection"))
}

pub fn timed_out() -> Outcome {
    Outcome::Unknown(GatewayError::new(Code::Timeout, "no answer in time"))
}
