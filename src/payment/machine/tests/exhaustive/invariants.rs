//! What must hold in every world, and once nothing goes wrong any more and everything came to rest.

use uuid::Uuid;

use super::super::bench::command;
use super::super::model::{Ended, Fate};
use super::super::properties::{check_books_are_not_beyond_the_ledger, check_rest};
use super::moves::{LookUpFate, Move};
use super::scenario::{Line, TOTAL, Verdict};
use super::world::{Phase, World};
use crate::payment::action::Action;
use crate::payment::code::Code;
use crate::payment::command::CommandType;
use crate::payment::machine::Step;

/// What must hold always, beside what the store and the gateway refuse: the machine asks for no money beyond what there is.
pub fn check(world: &World) {
    check_books_are_not_beyond_the_ledger(&world.store, &world.gateway);
    let (authorized, captured, refunded) = world.gateway.ledger();
    let done =
        |action| world.gateway.effects.iter().any(|effect| effect.sent.action == action && effect.ended == Ended::Done);
    assert!(refunded <= captured, "{refunded} is refunded, of {captured}");
    assert!(authorized <= TOTAL && captured <= TOTAL, "{authorized} is authorized and {captured} captured, of {TOTAL}");
    assert!(!done(Action::Release) || captured == 0, "it is captured and released");
}

/// What must hold at rest.
pub fn check_at_rest(world: &World) {
    check(world);
    check_rest(&world.store, &world.gateway, &world.commands);
    // The gateway says the truth, if late: nothing of it is ever taken for a contradiction.
    for row in &world.store.operations {
        let mismatch = row.answer.as_ref().is_some_and(|answer| answer.code == Some(Code::Mismatch));
        assert!(!mismatch, "{} ended as a mismatch", row.name.id);
    }
}

impl World {
    /// The next thing that happens where nothing goes wrong any more and nothing new comes, or nothing where all is at rest.
    /// A commit that brought no answer by now did not go through.
    pub fn goes_on(&mut self) -> Option<Move> {
        self.commits.clear();
        let asks = |phase: &Phase| matches!(phase, Phase::Ask(Step::LookUp { .. } | Step::Undo(_)));
        if let Some(task) = self.tasks.first() {
            let task = match &task.phase {
                Phase::Begin => Move::BeginAgain { task: 0, lost: false },
                Phase::Answered(_) => Move::Settle { task: 0, lost: false },
                phase if asks(phase) => Move::LookUp { task: 0, fate: LookUpFate::Answered },
                Phase::Ask(_) => Move::Call { task: 0, fate: Fate::Answered, verdict: Verdict::Approved },
            };
            return Some(task);
        }
        // What no worker stored is not acknowledged.
        let is_stored = |id: Uuid| self.store.operations.iter().any(|row| row.id == id);
        if let Some(command) = self.commands.iter().position(|command| !is_stored(command.operation_id())) {
            return Some(Move::Redeliver { command, lost: false });
        }
        if self.has_lost_call() {
            return Some(Move::Sweep);
        }
        if let Some(operation) =
            self.store.operations.iter().position(|row| row.due_at.is_some_and(|due| due <= self.now))
        {
            return Some(Move::Due { operation, lost: false });
        }
        let is_open = self.store.operations.iter().any(|row| row.is_open());
        (is_open && self.next_time().is_some()).then_some(Move::Tick)
    }

    /// What a person does where nothing else would happen now: resolves what the machine asks to, and asks the gateway what
    /// customers did there. Whether there was anything.
    pub fn person_acts(&mut self) -> Option<String> {
        let parked = self.store.operations.iter().find(|row| row.is_open() && row.escalated).map(|row| row.id);
        if let Some(target) = parked.filter(|target| self.ledgers_word(*target).is_some()) {
            self.resolve(target, false);
            return Some(format!("a person resolves {}", self.name_of(target)));
        }
        let customer = self.scenario.lines.iter().any(|line| matches!(line, Line::CustomerPays));
        let last = resolve_everything();
        let asked = self.commands.iter().any(|command| command.operation_id() == last.operation_id());
        // While an operation is open, only that one would be asked about.
        let is_open = self.store.operations.iter().any(|row| row.is_open());
        if customer && !asked && !is_open && self.scenario.can_be_asked() {
            self.send(last, false);
            return Some("a person asks the gateway about the whole payment".to_owned());
        }
        None
    }
}

fn resolve_everything() -> crate::payment::command::Command {
    command(&super::scenario::resolve_name(9), CommandType::Sync, serde_json::json!({}))
}
