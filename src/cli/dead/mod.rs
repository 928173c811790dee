//! `paybus dead`: messages that nobody could read, that crashed workers too often or that their user may not send, and
//! events that the broker refused.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::consent::{Consent, HOW_TO_CONFIRM};
use super::exit::{Exit, Failure};
use super::open_database;
use super::output::{Output, Style};
use super::tame::tame;
use crate::bus::dead_letters::browser::{self, DeadFilter};
use crate::bus::dead_letters::letter::{DeadLetter, Rights};
use crate::config::Settings;
use crate::excerpt::excerpt;
use crate::payment::card;
use crate::plural::counted;
use crate::store::Store;
use crate::wiring::bus_settings;

mod release;

/// How much of a body is shown, in characters.
const BODY_SHOWN: usize = 4_000;

/// List, show, replay or drop dead letters; release events that were set aside.
#[derive(Debug, Subcommand)]
pub enum DeadCommand {
    /// List dead letters, oldest first.
    #[command(after_help = "Examples:\n  paybus dead list\n  paybus dead list --filter code=invalid_envelope --json")]
    List(SelectArguments),
    /// Show one dead letter with its body; card numbers are masked.
    #[command(after_help = "Example:\n  paybus dead show 5f0c7a52-1111-5000-8000-0123456789ab")]
    Show(ShowArguments),
    /// Send dead letters to the commands exchange again; a dry run unless --yes is given.
    ///
    /// If users are configured, each dead letter is checked against the current rights of its first sender.
    #[command(after_help = "Examples:\n  paybus dead replay --filter queue=paybus.commands.cards\n  \
                            paybus dead replay --filter queue=paybus.commands.cards --yes")]
    Replay(ReplayArguments),
    /// Delete dead letters permanently; a dry run unless --yes is given.
    #[command(after_help = "Examples:\n  paybus dead drop --filter code=invalid_envelope\n  \
                            paybus dead drop --filter code=invalid_envelope --limit 1000 --yes")]
    Drop(ActArguments),
    /// Release a payment's events that the broker refused, once the cause is fixed; a dry run unless --yes is given.
    ///
    /// A refused event is set aside, and the later events of its payment wait behind it. They are sent in order.
    #[command(after_help = "Examples:\n  paybus dead release 0192f0c1-1111-7000-8000-0123456789ab\n  \
                            paybus dead release 0192f0c1-1111-7000-8000-0123456789ab --yes")]
    Release(release::ReleaseArguments),
}

/// Selects dead letters.
#[derive(Debug, Args)]
pub struct SelectArguments {
    /// Only dead letters that match; if several filters are given, all must match.
    ///
    /// code=CODE (or reason=CODE), queue=NAME, routing_key=KEY or its first words, id=ID
    #[arg(long, value_name = "KEY=VALUE", value_parser = read_condition)]
    filter: Vec<Condition>,
    /// Maximum number of dead letters.
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = read_limit)]
    limit: usize,
    /// Print one JSON object per dead letter.
    #[arg(long)]
    json: bool,
}

/// One dead letter.
#[derive(Debug, Args)]
pub struct ShowArguments {
    /// The id that `paybus dead list` prints.
    id: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What to do with which dead letters.
#[derive(Debug, Args)]
pub struct ActArguments {
    #[command(flatten)]
    select: SelectArguments,
    #[command(flatten)]
    consent: Consent,
}

/// Which dead letters to send again, and with whose rights.
#[derive(Debug, Args)]
pub struct ReplayArguments {
    #[command(flatten)]
    act: ActArguments,
    /// Send them with your own rights, as the user in amqp.url, instead of those of the first sender.
    ///
    /// For messages without a user. Review them first: their commands are carried out in your name.
    #[arg(long)]
    vouch: bool,
}

/// One condition of a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    key: Field,
    value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Id,
    Code,
    Queue,
    RoutingKey,
}

fn read_condition(text: &str) -> Result<Condition, String> {
    let expected = "expected code=, reason=, queue=, routing_key= or id=";
    let (key, value) = text.split_once('=').ok_or(expected)?;
    let key = match key {
        "id" => Field::Id,
        "code" | "reason" => Field::Code,
        "queue" => Field::Queue,
        "routing_key" => Field::RoutingKey,
        _ => return Err(expected.to_owned()),
    };
    Ok(Condition { key, value: value.to_owned() })
}

fn read_limit(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|limit| *limit > 0).ok_or_else(|| "expected a number of at least 1".to_owned())
}

impl SelectArguments {
    /// Refuses two values for one key: no letter can match both.
    fn check(&self) -> Result<(), Failure> {
        let is_repeated = |(index, one): (usize, &Condition)| self.filter[..index].iter().any(|it| it.key == one.key);
        match self.filter.iter().enumerate().any(is_repeated) {
            true => Err(Failure::usage("--filter: a key is given twice, and all filters must match")),
            false => Ok(()),
        }
    }

    fn filter(&self) -> DeadFilter {
        let mut filter = DeadFilter::default();
        for Condition { key, value } in self.filter.iter().cloned() {
            match key {
                Field::Id => filter.id = Some(value),
                Field::Code => filter.code = Some(value),
                Field::Queue => filter.queue = Some(value),
                Field::RoutingKey => filter.routing_key = Some(value),
            }
        }
        filter
    }
}

pub async fn run(command: DeadCommand, settings: &Settings) -> Result<Exit, Failure> {
    match command {
        DeadCommand::List(arguments) => list(&arguments, settings).await,
        DeadCommand::Show(arguments) => show(&arguments, settings).await,
        DeadCommand::Replay(ReplayArguments { act: arguments, vouch }) => {
            let rights = if vouch { Rights::Own } else { Rights::Sender };
            act(Act::Replay(rights), &arguments, settings).await
        }
        DeadCommand::Drop(arguments) => act(Act::Drop, &arguments, settings).await,
        DeadCommand::Release(arguments) => release::run(&arguments, settings).await,
    }
}

async fn list(arguments: &SelectArguments, settings: &Settings) -> Result<Exit, Failure> {
    arguments.check()?;
    let letters = browser::list(&bus_settings(settings), &arguments.filter(), arguments.limit).await?;
    print(arguments, &letters)?;
    if !arguments.json {
        print_summary(arguments, &format!("{}{}", by_code(&letters), more(arguments, &letters)))?;
    }
    Ok(Exit::Done)
}

fn print(arguments: &SelectArguments, letters: &[DeadLetter]) -> Result<(), Failure> {
    let output = Output::new();
    for letter in letters {
        if arguments.json {
            output.json(&summary(letter))?;
        } else {
            output.line(&row(output, letter))?;
        }
    }
    Ok(())
}

/// In text output the summary is the last line; with JSON output it goes to standard error, where people see it.
fn print_summary(arguments: &SelectArguments, text: &str) -> Result<(), Failure> {
    if arguments.json {
        eprintln!("{text}");
        return Ok(());
    }
    Ok(Output::new().line(text)?)
}

fn row(output: Output, letter: &DeadLetter) -> String {
    let time: String = tame(&letter.time).chars().take(19).collect();
    format!(
        "{}  {}  {}  {}  {}",
        output.column(Style::Faint, &time, 19),
        output.column(Style::Plain, &tame(&letter.id), 36),
        output.column(Style::Bad, &tame(&letter.code), 18),
        output.column(Style::Plain, &tame(&letter.queue), 26),
        excerpt(&tame(&card::scrub(&letter.reason)), 100),
    )
}

fn summary(letter: &DeadLetter) -> Value {
    json!({
        "id": letter.id,
        "code": letter.code,
        "reason": card::scrub(&letter.reason),
        "queue": letter.queue,
        "routing_key": card::scrub(&letter.routing_key),
        "time": letter.time,
        "sender": letter.sender.as_deref().map(card::scrub),
        "size_bytes": letter.unread_size().unwrap_or(letter.body.len() as u64),
    })
}

/// `3 dead letters: 2 invalid_envelope, 1 delivery_limit`.
fn by_code(letters: &[DeadLetter]) -> String {
    let mut codes: BTreeMap<&str, usize> = BTreeMap::new();
    for letter in letters {
        *codes.entry(letter.code.as_str()).or_default() += 1;
    }
    let codes: Vec<String> = codes.iter().map(|(code, count)| format!("{count} {}", tame(code))).collect();
    let colon = if codes.is_empty() { "" } else { ": " };
    format!("{}{colon}{}", counted(letters.len(), "dead letter"), codes.join(", "))
}

fn more(arguments: &SelectArguments, letters: &[DeadLetter]) -> String {
    if letters.len() < arguments.limit {
        return String::new();
    }
    format!(" (there may be more; the limit is {}, see --limit)", arguments.limit)
}

async fn show(arguments: &ShowArguments, settings: &Settings) -> Result<Exit, Failure> {
    let filter = DeadFilter { id: Some(arguments.id.clone()), ..DeadFilter::default() };
    let letters = browser::list(&bus_settings(settings), &filter, 1).await?;
    let Some(letter) = letters.first() else {
        return Err(Failure::new(Exit::Failed, format!("there is no dead letter {}", arguments.id)));
    };
    let text = String::from_utf8_lossy(&letter.body);
    let body = letter.unread_size().is_none().then(|| card::scrub(&text));
    let output = Output::new();
    if arguments.json {
        let mut value = summary(letter);
        value["body"] = json!(body);
        output.json(&value)?;
        return Ok(Exit::Done);
    }
    let sender = letter.sender.clone().unwrap_or_default();
    for (name, value) in [
        ("id", &letter.id),
        ("code", &letter.code),
        ("reason", &letter.reason),
        ("queue", &letter.queue),
        ("routing key", &letter.routing_key),
        ("time", &letter.time),
        ("sender", &sender),
    ] {
        output.line(&format!("{}  {}", output.column(Style::Strong, name, 11), tame(&card::scrub(value))))?;
    }
    let body = body.as_deref().unwrap_or("(too large to show)");
    output.line(&format!("\n{}", excerpt(&tame(body), BODY_SHOWN)))?;
    Ok(Exit::Done)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Replay(Rights),
    Drop,
}

async fn act(act: Act, arguments: &ActArguments, settings: &Settings) -> Result<Exit, Failure> {
    let select = &arguments.select;
    select.check()?;
    let bus = bus_settings(settings);
    let Some(who) = arguments.consent.who()? else {
        let letters = browser::list(&bus, &select.filter(), select.limit).await?;
        print(select, &letters)?;
        let verb = if matches!(act, Act::Replay(_)) { "replayed" } else { "dropped" };
        let more = more(select, &letters);
        let text = format!("would be {verb}: {}{more}; {HOW_TO_CONFIRM}", by_code(&letters));
        print_summary(select, &text)?;
        return Ok(Exit::Done);
    };
    let store = open_database(settings).await?;
    let audit = Audit { store: &store, who, select };
    let exit = match act {
        Act::Replay(rights) => replay(&audit, select, settings, rights).await,
        Act::Drop => drop_letters(&audit, select, settings).await,
    };
    store.close();
    exit
}

async fn replay(
    audit: &Audit<'_>,
    select: &SelectArguments,
    settings: &Settings,
    rights: Rights,
) -> Result<Exit, Failure> {
    audit.begin("dead.replay").await?;
    let replayed = browser::replay(&bus_settings(settings), &select.filter(), select.limit, rights).await?;
    let (good, bad): (Vec<_>, Vec<_>) = replayed.into_iter().partition(|one| one.refused.is_none());
    let ids: Vec<&str> = good.iter().map(|one| one.letter.id.as_str()).collect();
    let vouched = rights == Rights::Own;
    let done = json!({ "count": good.len(), "refused": bad.len(), "vouched": vouched, "ids": ids });
    audit.end("dead.replayed", done).await?;
    let letters: Vec<DeadLetter> = good.into_iter().map(|one| one.letter).collect();
    print(select, &letters)?;
    print_summary(select, &format!("replayed: {}{}", by_code(&letters), more(select, &letters)))?;
    for one in &bad {
        let reason = tame(one.refused.as_deref().unwrap_or_default());
        print_summary(select, &format!("kept {}: {reason}", tame(&one.letter.id)))?;
    }
    Ok(if bad.is_empty() { Exit::Done } else { Exit::Failed })
}

async fn drop_letters(audit: &Audit<'_>, select: &SelectArguments, settings: &Settings) -> Result<Exit, Failure> {
    audit.begin("dead.drop").await?;
    let letters = browser::drop_matching(&bus_settings(settings), &select.filter(), select.limit).await?;
    let ids: Vec<&str> = letters.iter().map(|letter| letter.id.as_str()).collect();
    audit.end("dead.dropped", json!({ "count": letters.len(), "ids": ids })).await?;
    print(select, &letters)?;
    print_summary(select, &format!("dropped: {}{}", by_code(&letters), more(select, &letters)))?;
    Ok(Exit::Done)
}

/// Records who does what: before anything is done, and afterwards with the result.
struct Audit<'a> {
    store: &'a Store,
    who: &'a str,
    select: &'a SelectArguments,
}

impl Audit<'_> {
    async fn begin(&self, action: &str) -> Result<(), Failure> {
        let filter = self.select.filter();
        let details = json!({
            "filter": { "id": filter.id, "code": filter.code, "queue": filter.queue, "routing_key": filter.routing_key },
            "limit": self.select.limit,
        });
        Ok(self.store.audit(self.who, action, &details).await?)
    }

    async fn end(&self, action: &str, details: Value) -> Result<(), Failure> {
        Ok(self.store.audit(self.who, action, &details).await?)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::bus::consume::delivery::Properties;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: DeadCommand,
    }

    fn parse(line: &str) -> Result<DeadCommand, clap::Error> {
        Line::try_parse_from(format!("dead {line}").split(' ')).map(|line| line.command)
    }

    fn letter(code: &str) -> DeadLetter {
        DeadLetter {
            id: "5f0c7a52-1111-5000-8000-0123456789ab".to_owned(),
            code: code.to_owned(),
            reason: "it is not\na JSON object".to_owned(),
            queue: "paybus.commands.cards".to_owned(),
            routing_key: "cards.payment.create".to_owned(),
            time: "2026-11-22T12:00:00.123456Z".to_owned(),
            sender: None,
            properties: Properties::default(),
            body: b"{".to_vec(),
        }
    }

    #[test]
    fn filters_are_parsed() {
        let Ok(DeadCommand::List(list)) = parse("list --filter reason=too_deep --filter queue=q=1 --limit 7") else {
            panic!("good arguments");
        };
        let filter = list.filter();
        assert_eq!(filter.code.as_deref(), Some("too_deep"));
        assert_eq!(filter.queue.as_deref(), Some("q=1"));
        assert_eq!((filter.id, filter.routing_key, list.limit), (None, None, 7));
        assert!(list.check().is_ok());
        let Ok(DeadCommand::List(twice)) = parse("list --filter code=too_deep --filter reason=expired") else {
            panic!("good arguments");
        };
        assert!(twice.check().is_err(), "reason is another word for code");
        assert!(parse("list --filter bogus=1").is_err());
        assert!(parse("list --filter code").is_err());
        assert!(parse("list --limit 0").is_err());
    }

    #[test]
    fn nothing_is_done_without_yes() {
        let Ok(DeadCommand::Drop(drop)) = parse("drop") else { panic!("good arguments") };
        assert!(!drop.consent.yes);
        assert_eq!(drop.select.limit, 100);
        assert!(parse("drop --yes --dry-run").is_err());
        let payment = "0192f0c1-1111-7000-8000-0123456789ab";
        let Ok(DeadCommand::Release(release)) = parse(&format!("release {payment}")) else { panic!("good arguments") };
        assert!(!release.consent.yes);
        assert!(parse("release").is_err() && parse("release order-17").is_err());
    }

    #[test]
    fn a_row_is_one_line() {
        assert_eq!(
            row(Output::plain(), &letter("invalid_envelope")),
            "2026-11-22T12:00:00  5f0c7a52-1111-5000-8000-0123456789ab  invalid_envelope    paybus.commands.cards       \
             it is not a JSON object"
        );
    }

    #[test]
    fn letters_are_counted_by_code() {
        let letters = [letter("too_deep"), letter("invalid_envelope"), letter("too_deep")];
        assert_eq!(by_code(&letters), "3 dead letters: 1 invalid_envelope, 2 too_deep");
        assert_eq!(by_code(&letters[..1]), "1 dead letter: 1 too_deep");
        assert_eq!(by_code(&[]), "0 dead letters");
    }
}
