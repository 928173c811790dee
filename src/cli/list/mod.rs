//! `paybus list`: finds payments, for a person who does not know the payment's id yet.

mod json;
mod page;

use clap::Args;
use jiff::Timestamp;
use strum::IntoEnumIterator;

use super::events::{When, read_when};
use super::exit::{Exit, Failure};
use super::forget::read_address;
use super::open_database;
use super::output::Output;
use super::tame::tame;
use crate::config::Settings;
use crate::payment::status::Status;
use crate::store::query::find::{Bounds, Listing, Position, Search, Standing};

/// How many payments or operations one call examines; that takes the database a few seconds.
const LOOKED_AT_MAX: usize = 200_000;

const AFTER_HELP: &str = "\
Examples:
  paybus list --state unknown                          # money may have moved, outcome not known yet
  paybus list --state escalated                        # an operator must state what happened
  paybus list --state scheduled --variant cards        # what is retried, when and why
  paybus list --metadata order=1021
  paybus list --reference ch_3Px4 --json
  paybus list --status preauth --since 7d --until 6d

With --state unknown, escalated or scheduled, each entry is an operation, ordered by variant, oldest
first. Otherwise each entry is a payment, newest first. One call examines at most 200,000; the last
line shows how to continue. Archived payments are not listed, nor are commands that wait for a
payment that was never created.

Times are UTC. With --json, amounts are strings, and the last line is {\"summary\": {...}}, in which
\"after\" is the cursor for --after.";

/// List payments by state, status, order, customer or gateway reference.
///
/// If several options are given, all must match. Reads only the database; billing data is not shown.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct ListArguments {
    /// Only payments with an operation that is unknown, escalated, scheduled, waiting, pending, calling, or any of these
    /// (open).
    #[arg(long, value_name = "STATE", value_parser = read_standing)]
    state: Option<Standing>,
    /// Only payments with this status: waiting, input, preauth, confirmed, rejected, refunded, error or cancelled.
    #[arg(long, value_name = "STATUS", value_parser = read_status)]
    status: Option<Status>,
    /// Only payments of this variant.
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// Only payments with this entry in the metadata of payment.create, such as order=1021.
    #[arg(long, value_name = "NAME=TEXT", value_parser = read_pair)]
    metadata: Option<(String, String)>,
    /// Only payments with this id at the gateway: their own, or that of a charge or refund.
    #[arg(long, value_name = "TEXT")]
    reference: Option<String>,
    /// Only payments with this billing e-mail address, ignoring case.
    #[arg(long, value_name = "ADDRESS", value_parser = read_address)]
    email: Option<String>,
    /// Only payments created since WHEN: a time, or how long ago, such as 30d.
    #[arg(long, value_name = "WHEN", value_parser = read_when)]
    since: Option<When>,
    /// Only payments created before WHEN: a time, or how long ago, such as 30d.
    #[arg(long, value_name = "WHEN", value_parser = read_when)]
    until: Option<When>,
    /// Maximum number of entries, up to 1000.
    #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = read_limit)]
    limit: usize,
    /// Continue an earlier list from the cursor in its last line; repeat its other options.
    #[arg(long, value_name = "CURSOR")]
    after: Option<Position>,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

/// Lists the words that are expected.
fn one_of<'a>(words: impl Iterator<Item = &'a str>) -> String {
    format!("expected one of {}", words.collect::<Vec<_>>().join(", "))
}

fn read_standing(text: &str) -> Result<Standing, String> {
    Standing::from_word(text).ok_or_else(|| {
        let is_status = Status::from_word(text).is_some();
        let hint = if is_status { format!("; for the payment's status, use --status {text}") } else { String::new() };
        one_of(Standing::iter().map(Standing::as_str)) + &hint
    })
}

fn read_status(text: &str) -> Result<Status, String> {
    Status::from_word(text).ok_or_else(|| {
        let is_state = Standing::from_word(text).is_some();
        let hint = if is_state { format!("; for an operation's state, use --state {text}") } else { String::new() };
        one_of(Status::iter().map(Status::as_str)) + &hint
    })
}

fn read_pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let (name, value) = pair.ok_or_else(|| "expected NAME=TEXT, such as order=1021".to_owned())?;
    Ok((name.to_owned(), value.to_owned()))
}

fn read_limit(text: &str) -> Result<usize, String> {
    let limit = text.parse::<usize>().ok().filter(|limit| (1..=1_000).contains(limit));
    limit.ok_or_else(|| "expected a number from 1 to 1000; to list more, continue with --after".to_owned())
}

impl ListArguments {
    fn search(&self, now: Timestamp) -> Result<Search, Failure> {
        let search = Search {
            standing: self.state,
            status: self.status,
            variant: self.variant.clone(),
            metadata: self.metadata.clone(),
            reference: self.reference.clone(),
            email: self.email.clone(),
            since: self.since.map(|since| since.time(now)),
            until: self.until.map(|until| until.time(now)),
        };
        if search.since.zip(search.until).is_some_and(|(since, until)| since >= until) {
            return Err(Failure::usage("--since must be before --until: --since 7d --until 6d is one day, a week ago"));
        }
        if self.after.as_ref().is_some_and(|after| !search.takes(after)) {
            return Err(Failure::usage("--after belongs to a list with another --state: repeat that list's options"));
        }
        Ok(search)
    }
}

pub async fn run(arguments: &ListArguments, settings: &Settings) -> Result<Exit, Failure> {
    let search = arguments.search(Timestamp::now())?;
    let store = open_database(settings).await?;
    let bounds = Bounds { found: arguments.limit, looked_at: LOOKED_AT_MAX };
    let listing = store.find(&search, arguments.after.clone(), bounds).await;
    store.close();
    print(arguments, &search, &listing?, settings)?;
    Ok(Exit::Done)
}

fn print(arguments: &ListArguments, search: &Search, listing: &Listing, settings: &Settings) -> Result<(), Failure> {
    let output = Output::new();
    if arguments.json {
        for found in &listing.found {
            output.json(&json::value(found))?;
        }
        return output.json(&json::summary(listing)?);
    }
    for found in &listing.found {
        for line in page::lines(found, listing.now, output) {
            output.line(&line)?;
        }
    }
    for line in page::summary(listing, search, output)? {
        output.line(&line)?;
    }
    if let Some(hint) = unconfigured(search, listing, settings) {
        output.line(&hint)?;
    }
    Ok(())
}

/// A hint if nothing was found for a variant that is not configured here: its name may be wrong.
fn unconfigured(search: &Search, listing: &Listing, settings: &Settings) -> Option<String> {
    let variant = search.variant.as_ref().filter(|variant| !settings.variants.contains_key(*variant))?;
    let names: Vec<&str> = settings.variants.keys().map(String::as_str).collect();
    let hint = format!("variant {} is not configured here; configured: {}", tame(variant), names.join(", "));
    listing.found.is_empty().then_some(hint)
}

/// Listings to try the lines with.
#[cfg(test)]
mod samples {
    use jiff::Timestamp;
    use uuid::Uuid;

    use crate::payment::model::Metadata;
    use crate::payment::money::{Currency, Money};
    use crate::payment::operation::State;
    use crate::payment::status::Status;
    use crate::store::query::find::{Found, FoundOperation, FoundPayment, Listing};

    pub fn at(clock: &str) -> Timestamp {
        format!("2026-11-22T{clock}Z").parse().expect("a time")
    }

    pub fn money(text: &str, currency: &str) -> Money {
        Money::parse(text, Currency::from_code(currency).expect("a currency")).expect("an amount")
    }

    /// A payment with a refund in this state.
    pub fn found(state: State, amount: &str, currency: &str) -> Found {
        let zero = Money::zero(Currency::from_code(currency).expect("a currency"));
        let payment = FoundPayment {
            created: at("12:00:00"),
            modified: at("12:01:00"),
            variant: "cards".to_owned(),
            status: Status::Confirmed,
            total: money("120.00", currency),
            authorized: zero,
            captured: money("120.00", currency),
            refunded: zero,
            transaction_id: "tx-1".to_owned(),
            metadata: Metadata::from([("order".to_owned(), "1021".to_owned())]),
        };
        let operation = FoundOperation {
            id: Uuid::from_u128(2),
            kind: "payment.refund".to_owned(),
            variant: "cards".to_owned(),
            state,
            escalated: false,
            amount: Some(money(amount, currency)),
            created: at("12:01:00"),
            first_sent_at: Some(at("12:02:00")),
            due_at: Some(at("12:03:42")),
            attempts: 1,
            last_code: Some("timeout".to_owned()),
            last_message: "no answer\nwithin 30 s".to_owned(),
        };
        Found { payment_id: Uuid::from_u128(1), payment: Some(payment), operation: Some(operation) }
    }

    pub fn listing(found: Vec<Found>) -> Listing {
        Listing { now: at("12:03:00"), looked_at: found.len(), found, after: None }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: ListArguments,
    }

    fn parse(line: &str) -> Result<ListArguments, String> {
        let words = std::iter::once("list").chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn wrong_arguments_are_answered_with_the_right_ones() {
        for (line, answer) in [
            ("--state lost", "waiting, calling, scheduled, unknown, pending, escalated, open"),
            ("--state confirmed", "--status confirmed"),
            ("--state settled", "expected one of"),
            ("--status unknown", "--state unknown"),
            ("--status paid", "waiting, input, preauth, confirmed"),
            ("--metadata 1021", "order=1021"),
            ("--email holmes", "e-mail address"),
            ("--limit 5000", "--after"),
            ("--limit 0", "from 1"),
            ("--since yesterday", "2026-11-22T12:00:00Z"),
            ("--after 17", "the last line of an earlier list"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(answer), "{line}: {error}");
        }
        let now = Timestamp::now();
        let failure = |line: &str| parse(line).expect("good words").search(now).expect_err(line);
        assert!(failure("--since 1d --until 7d").message.contains("before --until"));
        let other = failure("--state unknown --after 2026-11-22T12:00:00Z,0192f0c1-7c5e-7000-8000-0123456789ab");
        assert_eq!(other.exit, Exit::Usage);
        assert!(failure("--after 17,cards").message.contains("another --state"));
    }

    #[test]
    fn arguments_become_search_criteria() {
        let line = "--state unknown --status waiting --variant cards --metadata order=a=b --since 2h --after 17,cards";
        let now = "2026-11-22T12:00:00Z".parse().expect("a time");
        let search = parse(line).expect("arguments").search(now).expect("a search");
        assert_eq!(search.standing, Standing::from_word("unknown"));
        assert_eq!((search.status, search.variant.as_deref()), (Some(Status::Waiting), Some("cards")));
        assert_eq!(search.metadata, Some(("order".to_owned(), "a=b".to_owned())));
        assert_eq!(search.since.map(|since| since.to_string()).as_deref(), Some("2026-11-22T10:00:00Z"));
        assert_eq!(parse("").expect("no arguments").limit, 50);
    }
}
