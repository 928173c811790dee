//! Where an operation stands and what follows, in words.

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::cli::output::Style;
use crate::cli::tame::tame;
use crate::cli::time::relative;
use crate::payment::action::Action;
use crate::payment::code::Code;
use crate::payment::command::CommandType;
use crate::payment::operation::{AnswerKind, Operation, State};
use crate::store::report::{History, OperationRecord};

/// What there is to say of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// The state, or the answer, in one word.
    pub word: &'static str,
    /// How that is meant.
    pub style: Style,
    /// A sentence on what follows, or why it ended so; may be empty.
    pub sentence: String,
    /// What a person has to do, as a command.
    pub advice: Option<String>,
}

/// What there is to say of an operation.
pub fn words(operation: &Operation, history: &History) -> Words {
    let (word, style, sentence) = match operation.state {
        State::Waiting => ("waiting", Style::Open, waiting(operation, history)),
        State::Calling => ("calling", Style::Open, calling(operation, history)),
        State::Scheduled => ("scheduled", Style::Open, scheduled(operation, history)),
        State::Unknown if operation.escalated => ("escalated", Style::Bad, unknown(operation, history)),
        State::Unknown => ("unknown", Style::Open, unknown(operation, history)),
        State::Pending if operation.escalated => ("escalated", Style::Bad, pending(operation, history)),
        State::Pending => ("pending", Style::Open, pending(operation, history)),
        State::Settled => settled(operation, history),
    };
    let must_act = matches!(operation.state, State::Unknown | State::Pending) && operation.escalated;
    Words { word, style, sentence, advice: must_act.then(|| resolve(operation)) }
}

/// What will happen to the payment next, in one sentence.
pub fn next(history: &History) -> (Style, String) {
    let open: Vec<&OperationRecord> = history.operations.iter().filter(|record| record.operation.is_open()).collect();
    let stuck = open.iter().find(|record| words(&record.operation, history).advice.is_some());
    if let Some(record) = stuck {
        let number = number(record.operation.id, history);
        return (Style::Bad, format!("a person must say what became of {number}, see below"));
    }
    if history.events.iter().any(|record| record.set_aside.is_some()) {
        return (Style::Bad, "events are set aside: the broker refuses them, see below".to_owned());
    }
    let ahead = open.iter().min_by_key(|record| (record.operation.state == State::Waiting, record.operation.due_at));
    match ahead {
        Some(record) => {
            let words = words(&record.operation, history);
            (Style::Open, format!("{} is {}: {}", number(record.operation.id, history), words.word, words.sentence))
        }
        None => (Style::Plain, "nothing is open".to_owned()),
    }
}

/// `operation 2`, as the page numbers them.
fn number(id: Uuid, history: &History) -> String {
    match history.operations.iter().position(|record| record.operation.id == id) {
        Some(index) => format!("operation {}", index + 1),
        None => format!("operation {id}"),
    }
}

fn due(operation: &Operation, history: &History) -> Option<String> {
    let due_at = operation.due_at?;
    let when = relative(due_at, history.now);
    Some(if due_at < history.now { format!("due {when}") } else { when })
}

fn waiting(operation: &Operation, history: &History) -> String {
    match &history.payment {
        None => {
            let until = due(operation, history).unwrap_or_else(|| "soon".to_owned());
            format!("waits for the payment to be created; without it, rejected {until}")
        }
        Some(payment) => match payment.busy {
            Some(busy) => format!("waits for its turn behind {}", number(busy, history)),
            None => "takes its turn next".to_owned(),
        },
    }
}

fn calling(operation: &Operation, history: &History) -> String {
    match operation.lease {
        Some(lease) if lease.until > history.now => {
            let ends = relative(lease.until, history.now);
            format!("worker {} is calling the gateway; its lease ends {ends}", lease.owner)
        }
        Some(lease) => {
            let ended = relative(lease.until, history.now);
            format!("its worker was lost: the lease ended {ended}; another takes over")
        }
        None => "the gateway is being called".to_owned(),
    }
}

fn scheduled(operation: &Operation, history: &History) -> String {
    let when = due(operation, history).unwrap_or_else(|| "not before a person acts".to_owned());
    if operation.action().is_none() {
        return format!("the gateway could not be asked; asked again {when}");
    }
    match operation.last_code {
        None | Some(Code::Held) => {
            format!("held back: the variant's breaker is open, or its worker stopped; tried {when}")
        }
        Some(_) => format!("the gateway received nothing; tried again {when}"),
    }
}

fn unknown(operation: &Operation, history: &History) -> String {
    let what = match operation.action() {
        Some(Action::Process) if operation.request.as_ref().is_some_and(|request| !request.capture) => {
            "an authorization"
        }
        Some(Action::Process) => "a charge",
        Some(Action::Capture) => "a capture",
        Some(Action::Release) => "a release",
        Some(Action::Refund) => "a refund",
        Some(Action::Cancel) => "a cancel",
        None => "a question",
    };
    let follows = match due(operation, history) {
        Some(when) if operation.lookup_only || operation.lookups > 0 => format!("looked up next {when}"),
        Some(when) => format!("sent again under the same key, or looked up, {when}"),
        None => "nothing more happens by itself".to_owned(),
    };
    format!("{what} may have been received; {follows}")
}

fn pending(operation: &Operation, history: &History) -> String {
    match due(operation, history) {
        Some(when) => format!("the gateway accepted it and its result is awaited; looked up next {when}"),
        None if operation.escalated => "the gateway accepted it; nothing more happens by itself".to_owned(),
        None => "the gateway accepted it and will notify of its result".to_owned(),
    }
}

fn settled(operation: &Operation, history: &History) -> (&'static str, Style, String) {
    let Some(answer) = &operation.answer else {
        return ("settled", Style::Plain, String::new());
    };
    let style = match answer.kind {
        AnswerKind::Succeeded => Style::Good,
        AnswerKind::Rejected | AnswerKind::Failed => Style::Bad,
    };
    let code = answer.code.map(Code::as_str).unwrap_or_default();
    let by = resolved_by(operation.id, history).map(|resolve| format!("see {}", number(resolve, history)));
    let parts = [code.to_owned(), tame(&answer.message), by.unwrap_or_default()];
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    (answer.kind.as_str(), style, parts.join(": "))
}

/// The command by which a person ended this operation.
fn resolved_by(id: Uuid, history: &History) -> Option<Uuid> {
    let resolves = history.operations.iter().map(|record| &record.operation);
    let mut done = resolves.filter(|other| {
        let succeeded = other.answer.as_ref().is_some_and(|answer| answer.kind == AnswerKind::Succeeded);
        succeeded && Resolution::of(other).is_some_and(|resolution| resolution.operation == id.to_string())
    });
    done.next().map(|resolve| resolve.id)
}

/// What a person said in a `payment.resolve`, as it is kept. Who said it is the command's `user_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Resolution<'a> {
    operation: &'a str,
    outcome: &'a str,
    amount: Option<&'a str>,
    transaction_id: Option<&'a str>,
    evidence: &'a str,
}

impl<'a> Resolution<'a> {
    /// What an operation says, where it is a `payment.resolve`.
    pub fn of(operation: &'a Operation) -> Option<Resolution<'a>> {
        let text = |name: &str| operation.data.get(name).and_then(Value::as_str);
        if operation.kind.known() != Some(CommandType::Resolve) {
            return None;
        }
        Some(Resolution {
            operation: text("operation")?,
            outcome: text("outcome")?,
            amount: text("amount"),
            transaction_id: text("transaction_id"),
            evidence: text("evidence")?,
        })
    }

    /// In a sentence.
    pub fn sentence(&self, history: &History) -> String {
        let target = self.operation.parse().map_or_else(|_| tame(self.operation), |id| number(id, history));
        let amount = self.amount.map(|amount| format!(" {}", tame(amount))).unwrap_or_default();
        let reference = self.transaction_id.map(|id| format!(", reference {}", tame(id))).unwrap_or_default();
        format!("said of {target}: {}{amount}{reference}; evidence: {}", tame(self.outcome), tame(self.evidence))
    }
}

/// Pasted as it is, it is refused: OUTCOME has to be replaced by somebody who knows.
fn resolve(operation: &Operation) -> String {
    format!(
        "paybus publish payment.resolve --payment {} --variant {} --operation {} --outcome OUTCOME \
         --evidence 'how you know'   (approved, declined or not_charged)",
        operation.payment_id,
        tame(&operation.variant),
        operation.id
    )
}

#[cfg(test)]
mod tests {
    use super::super::samples::{at, history, money, operation, settled};
    use super::*;
    use crate::payment::operation::{Lease, Request};

    fn sentence(operation: &Operation) -> String {
        words(operation, &history()).sentence
    }

    #[test]
    fn a_command_waits_for_its_turn_or_its_payment() {
        let waiting = Operation { due_at: Some(at("12:03:04")), ..operation(3, "payment.refund", State::Waiting) };
        assert_eq!(sentence(&waiting), "waits for its turn behind operation 2");
        let mut absent = history();
        absent.payment = None;
        let words = words(&waiting, &absent);
        assert_eq!(words.sentence, "waits for the payment to be created; without it, rejected in 4 s");
    }

    #[test]
    fn a_call_is_under_way_or_lost() {
        let leased = |until| {
            let lease = Some(Lease { owner: Uuid::from_u128(9), until: at(until) });
            sentence(&Operation { lease, ..operation(2, "payment.refund", State::Calling) })
        };
        let owner = Uuid::from_u128(9);
        assert_eq!(leased("12:03:12"), format!("worker {owner} is calling the gateway; its lease ends in 12 s"));
        assert_eq!(leased("12:02:58"), "its worker was lost: the lease ended 2 s ago; another takes over");
    }

    #[test]
    fn a_retry_tells_when_and_why_it_is_safe() {
        let scheduled = Operation { due_at: Some(at("12:03:42")), ..operation(2, "payment.refund", State::Scheduled) };
        assert!(sentence(&scheduled).starts_with("held back"), "{}", sentence(&scheduled));
        let refused = Operation { last_code: Some(Code::Unreachable), ..scheduled };
        assert_eq!(sentence(&refused), "the gateway received nothing; tried again in 42 s");
        let sync = Operation { due_at: Some(at("12:03:42")), ..operation(2, "payment.sync", State::Scheduled) };
        assert_eq!(sentence(&sync), "the gateway could not be asked; asked again in 42 s");
        let late = Operation { due_at: Some(at("12:02:50")), ..refused };
        assert_eq!(sentence(&late), "the gateway received nothing; tried again due 10 s ago");
    }

    #[test]
    fn an_unknown_outcome_says_what_may_have_happened() {
        let request = Some(Request { amount: Some(money("1.00")), capture: true, body: String::new() });
        let charge = Operation {
            request,
            lookup_only: true,
            due_at: Some(at("12:03:42")),
            ..operation(2, "payment.create", State::Unknown)
        };
        let told = words(&charge, &history());
        assert_eq!((told.word, told.advice), ("unknown", None));
        assert_eq!(told.sentence, "a charge may have been received; looked up next in 42 s");
    }

    #[test]
    fn who_must_act_is_told_how() {
        let escalated = Operation { escalated: true, ..operation(2, "payment.refund", State::Unknown) };
        let told = words(&escalated, &history());
        assert_eq!(told.word, "escalated");
        assert_eq!(told.sentence, "a refund may have been received; nothing more happens by itself");
        let advice = told.advice.expect("advice");
        assert!(advice.starts_with("paybus publish payment.resolve --payment 0192f0c1-"), "{advice}");
        assert!(advice.contains(&format!("--operation {}", Uuid::from_u128(2))), "{advice}");
        // What was accepted, and cannot be asked about, as well.
        let pending = Operation { state: State::Pending, ..escalated.clone() };
        assert_eq!(words(&pending, &history()).sentence, "the gateway accepted it; nothing more happens by itself");
        assert!(words(&pending, &history()).advice.is_some());
        let mut history = history();
        history.operations[1].operation = escalated;
        assert_eq!(next(&history).1, "a person must say what became of operation 2, see below");
    }

    #[test]
    fn what_a_person_said_is_told_of_both_operations() {
        let resolved = settled(2, "payment.refund", AnswerKind::Succeeded, None, "a person resolved it");
        let mut resolve = settled(3, "payment.resolve", AnswerKind::Succeeded, None, "");
        let said = serde_json::json!({"operation": Uuid::from_u128(2).to_string(), "outcome": "approved",
            "amount": "19.00", "evidence": "the statement\nof account"});
        resolve.data = said.as_object().expect("an object").clone();
        let mut history = history();
        history.operations[1].operation = resolved.clone();
        history.operations[2].operation = resolve.clone();
        assert_eq!(words(&resolved, &history).sentence, "a person resolved it: see operation 3");
        let resolution = Resolution::of(&resolve).expect("a resolution");
        let sentence = "said of operation 2: approved 19.00; evidence: the statement of account";
        assert_eq!(resolution.sentence(&history), sentence);
        assert_eq!(Resolution::of(&resolved), None);
    }

    #[test]
    fn an_answer_has_its_code_and_message() {
        let declined = settled(1, "payment.create", AnswerKind::Failed, Some(Code::Declined), "no\x1bmoney");
        let told = words(&declined, &history());
        assert_eq!(
            (told.word, told.style, told.sentence.as_str()),
            ("failed", Style::Bad, "declined: no\u{fffd}money")
        );
    }

    #[test]
    fn what_comes_next_is_what_holds_the_turn() {
        let (_, sentence) = next(&history());
        assert_eq!(
            sentence,
            "operation 2 is unknown: a refund may have been received; sent again under the same key, or looked up, \
             in 42 s"
        );
        let mut done = history();
        done.operations.truncate(1);
        assert_eq!(next(&done).1, "nothing is open");
    }
}
