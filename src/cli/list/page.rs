//! A list as lines of text: one per payment, below it one for its open operation, and a summary.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::cli::exit::Failure;
use crate::cli::line::style_of;
use crate::cli::output::{Output, Style};
use crate::cli::tame::tame;
use crate::cli::time::{date, relative, span};
use crate::excerpt::excerpt;
use crate::payment::money::{Money, MoneyError};
use crate::payment::operation::State;
use crate::plural::counted;
use crate::store::query::find::{Found, FoundOperation, FoundPayment, Listing, Position, Search};

/// How much of an order number and of a message is shown, in characters.
const ORDER_SHOWN: usize = 40;
const MESSAGE_SHOWN: usize = 100;

/// Operations with an unknown outcome: their number, and the requested amounts by currency.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AtRisk {
    /// How many.
    pub count: usize,
    /// The sum for each currency.
    pub amounts: BTreeMap<&'static str, Money>,
}

impl AtRisk {
    /// Sums up what is listed.
    ///
    /// # Errors
    /// A sum has more than 28 digits.
    pub fn of(listing: &Listing) -> Result<AtRisk, MoneyError> {
        let mut at_risk = AtRisk::default();
        for operation in operations(listing).filter(|operation| operation.state == State::Unknown) {
            at_risk.count += 1;
            if let Some(amount) = operation.amount {
                let currency = amount.currency();
                let sum = at_risk.amounts.entry(currency.code()).or_insert_with(|| Money::zero(currency));
                *sum = sum.plus(amount)?;
            }
        }
        Ok(at_risk)
    }
}

fn operations(listing: &Listing) -> impl Iterator<Item = &FoundOperation> {
    listing.found.iter().filter_map(|found| found.operation.as_ref())
}

/// A payment, and below it its operation.
pub fn lines(found: &Found, now: Timestamp, output: Output) -> Vec<String> {
    let head = match &found.payment {
        Some(payment) => format!("{}  {}", found.payment_id, head(payment, output)),
        None => format!("{}  is not stored; only its operation is", found.payment_id),
    };
    let detail = found.operation.as_ref().map(|operation| format!("    {}", detail(operation, now, output)));
    std::iter::once(head).chain(detail).collect()
}

/// `2026-11-22 12:00:00  cards  confirmed  120.00 USD, captured 120.00  order 1021`.
fn head(payment: &FoundPayment, output: Output) -> String {
    let mut money = format!("{} {}", payment.total, payment.total.currency().code());
    let moved = [("authorized", payment.authorized), ("captured", payment.captured), ("refunded", payment.refunded)];
    for (word, amount) in moved.into_iter().filter(|(_, amount)| !amount.is_zero()) {
        money.push_str(&format!(", {word} {amount}"));
    }
    let order = payment.metadata.get("order").map(|order| format!("  order {}", excerpt(&tame(order), ORDER_SHOWN)));
    let status = payment.status.as_str();
    format!(
        "{}  {}  {}  {money}{}",
        output.column(Style::Faint, &date(payment.created), 19),
        output.column(Style::Plain, &tame(&payment.variant), 8),
        output.column(style_of(status), status, 9),
        order.unwrap_or_default(),
    )
}

/// `payment.refund 20.00 USD  unknown for 1 min; next in 42 s; 1 attempt; timeout: no answer`.
fn detail(operation: &FoundOperation, now: Timestamp, output: Output) -> String {
    let amount = operation.amount.map(|amount| format!(" {amount} {}", amount.currency().code())).unwrap_or_default();
    let state = match operation.escalated {
        true => output.paint(Style::Bad, &format!("{}, escalated", operation.state.as_str())),
        false => output.paint(Style::Open, operation.state.as_str()),
    };
    let since = operation.first_sent_at.unwrap_or(operation.created);
    let mut parts = vec![format!("for {}", span((now.as_second() - since.as_second()).max(0)))];
    parts.extend(operation.due_at.map(|due| match due < now {
        true => format!("due {}", relative(due, now)),
        false => format!("next {}", relative(due, now)),
    }));
    if operation.attempts > 0 {
        parts.push(counted(operation.attempts, "attempt"));
    }
    let message = excerpt(&tame(&operation.last_message), MESSAGE_SHOWN).into_owned();
    let why = [operation.last_code.as_deref().map(tame).unwrap_or_default(), message];
    let why: Vec<String> = why.into_iter().filter(|text| !text.is_empty()).collect();
    if !why.is_empty() {
        parts.push(why.join(": "));
    }
    format!("{}{amount}  {state} {}", tame(&operation.kind), parts.join("; "))
}

/// The number of entries, the money at risk, the codes by variant, and how to continue.
///
/// # Errors
/// A sum has more than 28 digits.
pub fn summary(listing: &Listing, search: &Search, output: Output) -> Result<Vec<String>, Failure> {
    let noun = if search.is_by_operation() { "operation" } else { "payment" };
    let count = listing.found.len();
    let mut lines = vec![match count {
        0 => "nothing found".to_owned(),
        _ => counted(count, noun),
    }];
    let at_risk = AtRisk::of(listing)?;
    if at_risk.count > 0 {
        let sums: Vec<String> = at_risk.amounts.iter().map(|(code, sum)| format!("{sum} {code}")).collect();
        let sums = if sums.is_empty() { "no amount".to_owned() } else { sums.join(", ") };
        let outcomes = counted(at_risk.count, "unknown outcome");
        lines.push(output.paint(Style::Bad, &format!("at risk: {sums} ({outcomes})")));
    }
    lines.extend(reasons(listing));
    lines.extend(listing.after.as_ref().map(|after| more(listing, after, noun)));
    Ok(lines)
}

/// `cards: 3 timeout, 1 unreachable`, for each variant: shows which gateway fails.
fn reasons(listing: &Listing) -> Vec<String> {
    let mut variants: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    for operation in operations(listing) {
        if let Some(code) = &operation.last_code {
            *variants.entry(&operation.variant).or_default().entry(code).or_default() += 1;
        }
    }
    let line = |(variant, codes): (&str, BTreeMap<&str, usize>)| {
        let codes: Vec<String> = codes.iter().map(|(code, count)| format!("{count} {}", tame(code))).collect();
        format!("{}: {}", tame(variant), codes.join(", "))
    };
    variants.into_iter().map(line).collect()
}

fn more(listing: &Listing, after: &Position, noun: &str) -> String {
    let cursor = tame(&after.to_string());
    let back_to = match after {
        Position::Payment { created, .. } => format!(", back to {}", date(*created)),
        Position::Operation { .. } => String::new(),
    };
    let looked_at = counted(listing.looked_at, noun);
    format!("there may be more: examined {looked_at}{back_to}; to continue, add --after {cursor}")
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::samples::{at, found, listing};
    use super::*;
    use crate::store::query::find::Standing;

    fn summary_of(listing: &Listing, standing: Option<State>) -> Vec<String> {
        let search = Search { standing: standing.map(Standing::In), ..Search::default() };
        summary(listing, &search, Output::plain()).expect("sums")
    }

    #[test]
    fn a_payment_is_shown_with_its_money_its_order_and_its_open_operation() {
        let lines = lines(&found(State::Unknown, "20.00", "USD"), at("12:03:00"), Output::plain());
        let head = "00000000-0000-0000-0000-000000000001  2026-11-22 12:00:00  cards     confirmed  \
                    120.00 USD, captured 120.00  order 1021";
        let detail = "    payment.refund 20.00 USD  unknown for 1 min; next in 42 s; 1 attempt; \
                      timeout: no answer within 30 s";
        assert_eq!(lines, [head, detail]);
    }

    #[test]
    fn control_characters_are_removed_and_long_texts_cut() {
        let mut hostile = found(State::Scheduled, "20.00", "USD");
        let text = format!("\u{1b}[2J\n{}", "x".repeat(100_000));
        let payment = hostile.payment.as_mut().expect("a payment");
        payment.metadata.insert("order".to_owned(), text.clone());
        payment.variant = "\u{202e}".to_owned();
        let operation = hostile.operation.as_mut().expect("an operation");
        operation.last_message = text;
        for line in lines(&hostile, at("12:03:00"), Output::plain()) {
            assert!(line.chars().count() < 400 && !line.contains(['\u{1b}', '\n', '\u{202e}']), "{line:?}");
        }
    }

    #[test]
    fn only_unknown_outcomes_are_at_risk_summed_by_currency() {
        let all = vec![
            found(State::Unknown, "20.00", "USD"),
            found(State::Unknown, "5.50", "USD"),
            found(State::Unknown, "7.00", "EUR"),
            found(State::Scheduled, "90.00", "EUR"),
        ];
        let lines = summary_of(&listing(all), Some(State::Unknown));
        let expected = ["4 operations", "at risk: 7.00 EUR, 25.50 USD (3 unknown outcomes)", "cards: 4 timeout"];
        assert_eq!(lines, expected);
        assert_eq!(summary_of(&listing(Vec::new()), None), ["nothing found"]);
    }

    #[test]
    fn the_summary_shows_where_the_list_stopped_and_how_to_continue() {
        let mut listing = listing(Vec::new());
        listing.looked_at = 200_000;
        listing.after = Some(Position::Payment { created: at("12:00:00"), id: Uuid::nil() });
        let lines = summary_of(&listing, None);
        let expected = "there may be more: examined 200000 payments, back to 2026-11-22 12:00:00; to continue, add \
                        --after 2026-11-22T12:00:00Z,00000000-0000-0000-0000-000000000000";
        assert_eq!(lines, ["nothing found", expected]);
    }
}
