//! The gateway's requests match the commands: this operation, this amount, and nothing that no command asked for.

use std::collections::{BTreeSet, HashMap};

use rust_decimal::Decimal;
use uuid::Uuid;

use super::{Finding, Kind};
use crate::ledger::{Ledger, Request};
use crate::support::Command;
use crate::support::world::text;
use crate::wrong;

/// The request that completes a process after the customer has approved.
const CONFIRM: &str = "confirm";

/// Compares every request with the commands.
pub fn check(ledger: &dyn Ledger, published: &[Command]) -> Vec<Finding> {
    let mut commands: HashMap<Uuid, Vec<&Command>> = HashMap::new();
    for command in published.iter().filter(|command| command.body.is_none()) {
        commands.entry(command.operation_id()).or_default().push(command);
    }
    let orders = orders(published);
    let mut found = Vec::new();
    // A process is sent, and then perhaps confirmed.
    let mut first: HashMap<(Uuid, bool), Request> = HashMap::new();
    let mut refunds: HashMap<Uuid, Vec<Decimal>> = HashMap::new();
    for request in ledger.requests() {
        let mut add = |what: String| {
            let what = format!("{what}: {request:?}");
            found.push(Finding::new(Kind::NotOrdered, Some(request.payment), what));
        };
        let key = (request.operation, request.action == CONFIRM);
        if let Some(first) = first.get(&key) {
            if (first.amount, &first.currency, &first.action) != (request.amount, &request.currency, &request.action) {
                add(format!("another request than the first of its operation, {first:?}"));
            }
            continue;
        }
        let named = commands.get(&request.operation).map(Vec::as_slice).unwrap_or_default();
        let reserved = refunds.entry(request.payment).or_default();
        if let Some(problem) = problem(&request, named, orders.get(&request.payment), reserved) {
            add(problem);
        }
        reserved.extend(request.amount.filter(|_| request.action == "refund"));
        first.insert(key, request);
    }
    let refused = ledger.refused().into_iter().filter(|refused| !may_be_too_late(refused.effect.kind));
    found.extend(refused.map(|refused| {
        let what = format!("{}: {:?}", refused.reason, refused.effect);
        Finding::new(Kind::NotAllowed, Some(refused.payment_id), what)
    }));
    found
}

/// A customer may have paid a moment before: paybus cannot know that what it cancels is already charged.
fn may_be_too_late(kind: &str) -> bool {
    matches!(kind, "cancel" | "confirm" | "retrieve")
}

/// What each payment is for: total and currency.
fn orders(published: &[Command]) -> HashMap<Uuid, (Decimal, String)> {
    let creates = published.iter().filter(|command| command.kind == "payment.create" && !wrong::is_wrong(command));
    let order = |command: &Command| {
        Some((
            command.payment,
            (text(&command.data["total"]).parse().ok()?, text(&command.data["currency"]).to_owned()),
        ))
    };
    creates.filter_map(order).collect()
}

/// What is wrong with the first request of an operation.
fn problem(
    request: &Request,
    named: &[&Command],
    order: Option<&(Decimal, String)>,
    earlier_refunds: &[Decimal],
) -> Option<String> {
    let right: Vec<&&Command> = named.iter().filter(|command| !wrong::is_wrong(command)).collect();
    let command = right.first();
    // paybus confirms what the customer approved by itself, in a separate operation without a command.
    if command.is_none() && (request.action != CONFIRM || !named.is_empty()) {
        return Some("no right command has this operation".to_owned());
    }
    let kinds: &[&str] = match request.action.as_str() {
        "process" | CONFIRM => &["payment.create", "payment.process"],
        "capture" => &["payment.capture"],
        "refund" => &["payment.refund"],
        "release" => &["payment.release"],
        _ => &["payment.cancel", "payment.release"],
    };
    if let Some(command) = command.filter(|command| !kinds.contains(&command.kind.as_str())) {
        return Some(format!("its command is a {}", command.kind));
    }
    let Some((total, currency)) = order else { return Some("its payment was never created".to_owned()) };
    if request.currency != *currency {
        return Some(format!("the payment is in {currency}"));
    }
    let ordered = command.and_then(|command| text(&command.data["amount"]).parse::<Decimal>().ok());
    let expected = match request.action.as_str() {
        "process" | CONFIRM => Some(*total),
        "capture" => ordered.or(request.amount),
        "refund" => Some(ordered.unwrap_or_else(|| all_that_is_left(request, earlier_refunds))),
        _ => request.amount,
    };
    // A request without an amount asks for everything, which only a command without an amount may do.
    let asked = request.amount.or(expected.filter(|_| ordered.is_none()));
    (asked != expected).then(|| format!("ordered were {expected:?}"))
}

/// The amount of a refund that names none: what can be refunded, less what earlier refunds with a then unknown outcome
/// may still take. Which of them were unknown is not known here.
fn all_that_is_left(request: &Request, earlier_refunds: &[Decimal]) -> Decimal {
    let asked = request.amount.unwrap_or(request.refundable);
    let mut reserved = BTreeSet::from([Decimal::ZERO]);
    for refund in earlier_refunds {
        let more: Vec<Decimal> = reserved.iter().map(|sum| sum + refund).collect();
        reserved.extend(more);
    }
    if reserved.contains(&(request.refundable - asked)) { asked } else { request.refundable }
}
