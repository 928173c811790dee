//! Describes the state of an operation and what happens next.

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
use crate::store::query::report::{History, OperationRecord};

/// The suffix for an operation that only an operator can bring to an end.
const NO_FURTHER_ACTION: &str = "paybus takes no further action";

/// Describes an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// The state, or the answer, in one word.
    pub word: &'static str,
    /// Its style.
    pub style: Style,
    /// What happens next, or why it ended like this; may be empty.
    pub sentence: String,
    /// The command that an operator must run.
    pub advice: Option<String>,
}

/// Describes an operation.
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
        return (Style::Bad, format!("an operator must state the outcome of {number}, see below"));
    }
    if history.events.iter().any(|record| record.set_aside.is_some()) {
        let remedy = "fix the cause, then send them with `paybus dead release`";
        return (Style::Bad, format!("events are set aside: the broker refused them, see below; {remedy}"));
    }
    let ahead = open.iter().min_by_key(|record| (record.operation.state == State::Waiting, record.operation.due_at));
    match ahead {
        Some(record) => {
            let words = words(&record.operation, history);
            (Style::Open, format!("{} is {}: {}", number(record.operation.id, history), words.word, words.sentence))
        }
        None => (Style::Plain, "no open operations".to_owned()),
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
            format!("waits for the payment to be created; rejected {until} if it is not")
        }
        Some(payment) => match payment.busy {
            Some(busy) => format!("behind {} in the payment queue", number(busy, history)),
            None => "next in the payment queue".to_owned(),
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
            format!("its worker was lost: the lease ended {ended}; another worker takes over")
        }
        None => "the gateway is being called".to_owned(),
    }
}

fn scheduled(operation: &Operation, history: &History) -> String {
    let next = match due(operation, history) {
        Some(when) => format!("next attempt {when}"),
        None => "no further attempt until an operator acts".to_owned(),
    };
    if operation.action().is_none() {
        return format!("the gateway could not be asked; {next}");
    }
    match operation.last_code {
        None | Some(Code::Held) => format!("paused: the variant's breaker is open, or its worker stopped; {next}"),
        Some(_) => format!("the gateway received nothing; {next}"),
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
        Some(Action::Cancel) => "a cancellation",
        None => "a query",
    };
    let follows = match due(operation, history) {
        Some(when) if operation.sent.lookup_only || operation.counts.lookups > 0 => format!("next look-up {when}"),
        Some(when) => format!("resend with the same key, or look-up, {when}"),
        None => NO_FURTHER_ACTION.to_owned(),
    };
    format!("the gateway may have received {what}; {follows}")
}

fn pending(operation: &Operation, history: &History) -> String {
    match due(operation, history) {
        Some(when) => format!("the gateway accepted it and the result is pending; next look-up {when}"),
        None if operation.escalated => format!("the gateway accepted it; {NO_FURTHER_ACTION}"),
        None => "the gateway accepted it and will report the result".to_owned(),
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

/// The command with which an operator ended this operation.
fn resolved_by(id: Uuid, history: &History) -> Option<Uuid> {
    let resolves = history.operations.iter().map(|record| &record.operation);
    let mut done = resolves.filter(|other| {
        let succeeded = other.answer.as_ref().is_some_and(|answer| answer.kind == AnswerKind::Succeeded);
        succeeded && Resolution::of(other).is_some_and(|resolution| resolution.operation == id.to_string())
    });
    done.next().map(|resolve| resolve.id)
}

/// What an operator stated in a `payment.resolve`. The command's `user_id` names the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Resolution<'a> {
    operation: &'a str,
    outcome: &'a str,
    amount: Option<&'a str>,
    transaction_id: Option<&'a str>,
    evidence: &'a str,
}

impl<'a> Resolution<'a> {
    /// Reads it from an operation; `None` unless that is a `payment.resolve`.
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
        format!("resolves {target} as {}{amount}{reference}; evidence: {}", tame(self.outcome), tame(self.evidence))
    }
}

/// Pasted unchanged, it is refused: somebody who knows the outcome must replace OUTCOME.
fn resolve(operation: &Operation) -> String {
    format!(
        "paybus publish payment.resolve --payment {} --variant {} --operation {} --outcome OUTCOME \
         --evidence 'how you know'   (OUTCOME is approved, declined or not_charged)",
        operation.payment_id,
        tame(&operation.variant),
        operation.id
    )
}

#[cfg(test)]
mod tests {
    use super::super::samples::{at, history, money, operation, settled};
    use super::*;
    use crate::payment::operation::{Lease, Request, Sent};

    fn sentence(operation: &Operation) -> String {
        words(operation, &history()).sentence
    }

    #[test]
    fn a_command_waits_in_the_payment_queue_or_for_its_payment() {
        let waiting = Operation { due_at: Some(at("12:03:04")), ..operation(3, "payment.refund", State::Waiting) };
        assert_eq!(sentence(&waiting), "behind operation 2 in the payment queue");
        let mut absent = history();
        absent.payment = None;
        let words = words(&waiting, &absent);
        assert_eq!(words.sentence, "waits for the payment to be created; rejected in 4 s if it is not");
    }

    #[test]
    fn a_call_is_in_progress_or_lost() {
        let leased = |until| {
            let lease = Some(Lease { owner: Uuid::from_u128(9), until: at(until) });
            sentence(&Operation { lease, ..operation(2, "payment.refund", State::Calling) })
        };
        let owner = Uuid::from_u128(9);
        assert_eq!(leased("12:03:12"), format!("worker {owner} is calling the gateway; its lease ends in 12 s"));
        assert_eq!(leased("12:02:58"), "its worker was lost: the lease ended 2 s ago; another worker takes over");
    }

    #[test]
    fn a_retry_shows_when_and_why_it_is_safe() {
        let scheduled = Operation { due_at: Some(at("12:03:42")), ..operation(2, "payment.refund", State::Scheduled) };
        assert!(sentence(&scheduled).starts_with("paused: "), "{}", sentence(&scheduled));
        let refused = Operation { last_code: Some(Code::Unreachable), ..scheduled };
        assert_eq!(sentence(&refused), "the gateway received nothing; next attempt in 42 s");
        let sync = Operation { due_at: Some(at("12:03:42")), ..operation(2, "payment.sync", State::Scheduled) };
        assert_eq!(sentence(&sync), "the gateway could not be asked; next attempt in 42 s");
        let late = Operation { due_at: Some(at("12:02:50")), ..refused };
        assert_eq!(sentence(&late), "the gateway received nothing; next attempt due 10 s ago");
    }

    #[test]
    fn an_unknown_outcome_shows_what_may_have_happened() {
        let request = Some(Request { amount: Some(money("1.00")), capture: true, body: String::new() });
        let charge = Operation {
            request,
            sent: Sent { lookup_only: true, ..Sent::NOTHING },
            due_at: Some(at("12:03:42")),
            ..operation(2, "payment.create", State::Unknown)
        };
        let described = words(&charge, &history());
        assert_eq!((described.word, described.advice), ("unknown", None));
        assert_eq!(described.sentence, "the gateway may have received a charge; next look-up in 42 s");
    }

    #[test]
    fn an_operator_who_must_act_gets_the_command() {
        let escalated = Operation { escalated: true, ..operation(2, "payment.refund", State::Unknown) };
        let described = words(&escalated, &history());
        assert_eq!(described.word, "escalated");
        assert_eq!(described.sentence, "the gateway may have received a refund; paybus takes no further action");
        let advice = described.advice.expect("advice");
        assert!(advice.starts_with("paybus publish payment.resolve --payment 0192f0c1-"), "{advice}");
        assert!(advice.contains(&format!("--operation {}", Uuid::from_u128(2))), "{advice}");
        // What was accepted, and cannot be asked about, as well.
        let pending = Operation { state: State::Pending, ..escalated.clone() };
        assert_eq!(words(&pending, &history()).sentence, "the gateway accepted it; paybus takes no further action");
        assert!(words(&pending, &history()).advice.is_some());
        let mut history = history();
        history.operations[1].operation = escalated;
        assert_eq!(next(&history).1, "an operator must state the outcome of operation 2, see below");
    }

    #[test]
    fn a_statement_is_shown_at_both_operations() {
        let resolved = settled(2, "payment.refund", AnswerKind::Succeeded, None, "an operator resolved it");
        let mut resolve = settled(3, "payment.resolve", AnswerKind::Succeeded, None, "");
        let said = serde_json::json!({"operation": Uuid::from_u128(2).to_string(), "outcome": "approved",
            "amount": "19.00", "evidence": "the statement\nof account"});
        resolve.data = said.as_object().expect("an object").clone();
        let mut history = history();
        history.operations[1].operation = resolved.clone();
        history.operations[2].operation = resolve.clone();
        assert_eq!(words(&resolved, &history).sentence, "an operator resolved it: see operation 3");
        let resolution = Resolution::of(&resolve).expect("a resolution");
        let sentence = "resolves operation 2 as approved 19.00; evidence: the statement of account";
        assert_eq!(resolution.sentence(&history), sentence);
        assert_eq!(Resolution::of(&resolved), None);
    }

    #[test]
    fn an_answer_has_its_code_and_message() {
        let declined = settled(1, "payment.create", AnswerKind::Failed, Some(Code::Declined), "no\x1bmoney");
        let described = words(&declined, &history());
        assert_eq!(
            (described.word, described.style, described.sentence.as_str()),
            ("failed", Style::Bad, "declined: no\u{fffd}money")
        );
    }

    #[test]
    fn the_operation_in_progress_comes_next() {
        let (_, sentence) = next(&history());
        assert_eq!(
            sentence,
            "operation 2 is unknown: the gateway may have received a refund; resend with the same key, or look-up, \
             in 42 s"
        );
        let mut done = history();
        done.operations.truncate(1);
        assert_eq!(next(&done).1, "no open operations");
    }
}
