//! `paybus forget`: erases what is stored of a person; the books stay.

use clap::Args;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::consent::Consent;
use super::exit::{Exit, Failure};
use super::open_database;
use super::output::{Output, Style};
use crate::bus::dead_letter_browser::{self, DeadFilter};
use crate::bus::mentions::Person;
use crate::config::Settings;
use crate::store::Store;
use crate::store::forget::PersonalData;
use crate::wiring::bus_settings;

/// How often a payment is tried that others change meanwhile.
const TRIES: usize = 5;

/// Erase what is stored of a person: names, addresses, texts. A dry run unless --yes is given.
///
/// The books stay: amounts, statuses, movements of money, and the gateways' references.
///
/// A payment that is not over, or has commands to answer or events to send, is kept as it is, with the reason.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  paybus forget 0192f0c1-1111-7000-8000-0123456789ab\n  \
                        paybus forget --email ada@example.org --who YOU --yes")]
pub struct ForgetArguments {
    /// The payments' ids.
    #[arg(value_name = "PAYMENT", required_unless_present = "email", conflicts_with = "email")]
    payments: Vec<Uuid>,
    /// All payments with this billing e-mail address, in whatever case, and the dead letters that hold it.
    #[arg(long, value_name = "ADDRESS", value_parser = read_address)]
    email: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    consent: Consent,
}

/// Payments without an address have an empty one: that is nobody's.
pub(super) fn read_address(text: &str) -> Result<String, String> {
    let address = text.trim();
    let is_whole = address.split_once('@').is_some_and(|(name, domain)| !name.is_empty() && !domain.is_empty());
    if is_whole { Ok(address.to_owned()) } else { Err("expected an e-mail address".to_owned()) }
}

/// What became of one payment, or would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Told {
    payment: Uuid,
    result: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// Its personal data is erased, or would be.
    Forgotten,
    /// There was none.
    Nothing,
    /// It is needed still.
    Kept,
    /// There is no such payment.
    Unknown,
}

impl Told {
    fn of(payment: Uuid, data: PersonalData) -> Told {
        let told = |result, reason| Told { payment, result, reason };
        match data {
            PersonalData::NoPayment => told(Outcome::Unknown, None),
            PersonalData::Nothing => told(Outcome::Nothing, None),
            PersonalData::Needed(need) => told(Outcome::Kept, Some(need.to_string())),
            PersonalData::Erasable { .. } => told(Outcome::Forgotten, None),
        }
    }
}

pub async fn run(arguments: &ForgetArguments, settings: &Settings) -> Result<Exit, Failure> {
    let who = arguments.consent.who()?;
    let store = open_database(settings).await?;
    let exit = match who {
        Some(who) => forget(&store, arguments, who, settings).await,
        None => look(&store, arguments, settings).await,
    };
    store.close();
    exit
}

/// What would be done.
async fn look(store: &Store, arguments: &ForgetArguments, settings: &Settings) -> Result<Exit, Failure> {
    let told = find(store, arguments).await?;
    let filter = letters_of(arguments, &told);
    let letters = match &filter {
        Some(filter) => dead_letter_browser::list(&bus_settings(settings), filter, usize::MAX).await?.len(),
        None => 0,
    };
    print(arguments, &told, letters)
}

/// The dead letters first: they are found by what is in the database. Broken off, it can be done again.
async fn forget(store: &Store, arguments: &ForgetArguments, who: &str, settings: &Settings) -> Result<Exit, Failure> {
    let mut told = find(store, arguments).await?;
    let erasable = told.iter().filter(|told| told.result == Outcome::Forgotten);
    let payments: Vec<Uuid> = erasable.map(|told| told.payment).collect();
    // The address is personal data itself.
    let by = if arguments.email.is_some() { "email" } else { "payment" };
    store.audit(who, "forget", &json!({ "by": by, "payments": payments })).await?;
    let mut letters = 0;
    if let Some(filter) = letters_of(arguments, &told) {
        letters = dead_letter_browser::drop_matching(&bus_settings(settings), &filter, usize::MAX).await?.len();
        store.audit(who, "forget.dead_letters", &json!({ "count": letters })).await?;
    }
    for told in told.iter_mut().filter(|told| told.result == Outcome::Forgotten) {
        *told = erase(store, told.payment, who).await?;
    }
    print(arguments, &told, letters)
}

async fn find(store: &Store, arguments: &ForgetArguments) -> Result<Vec<Told>, Failure> {
    let mut payments = match &arguments.email {
        Some(email) => store.payments_of(email).await?,
        None => arguments.payments.clone(),
    };
    payments.sort_unstable();
    payments.dedup();
    let mut told = Vec::with_capacity(payments.len());
    for payment in payments {
        told.push(Told::of(payment, store.personal_data(payment).await?));
    }
    Ok(told)
}

/// Which dead letters go. Those of a payment that is kept stay with it: they may have to be sent again. Then those that are
/// found by the address stay as well, for they may be among them.
fn letters_of(arguments: &ForgetArguments, told: &[Told]) -> Option<DeadFilter> {
    let is_kept = |told: &Told| told.result == Outcome::Kept;
    let payments = told.iter().filter(|told| !is_kept(told)).map(|told| told.payment).collect();
    let email = arguments.email.clone().filter(|_| !told.iter().any(is_kept));
    let person = Person { payments, email };
    (!person.is_nobody()).then(|| DeadFilter { person: Some(person), ..DeadFilter::default() })
}

/// Erases it on what it was read as; where somebody changed it meanwhile, it is read again.
async fn erase(store: &Store, payment: Uuid, who: &str) -> Result<Told, Failure> {
    for _ in 0..TRIES {
        let data = store.personal_data(payment).await?;
        let is_done = match data {
            PersonalData::Erasable { version } => store.forget(payment, version, who).await?,
            _ => true,
        };
        if is_done {
            return Ok(Told::of(payment, data));
        }
    }
    let reason = "it is being changed: try again".to_owned();
    Ok(Told { payment, result: Outcome::Kept, reason: Some(reason) })
}

fn print(arguments: &ForgetArguments, told: &[Told], letters: usize) -> Result<Exit, Failure> {
    let output = Output::new();
    if arguments.json {
        output.json(&json!({ "done": arguments.consent.yes, "payments": told, "dead_letters": letters }))?;
    } else {
        for told in told {
            output.line(&row(output, told))?;
        }
        output.line(&counted(told, letters, arguments.consent.yes))?;
    }
    let is_as_wished = |told: &Told| matches!(told.result, Outcome::Forgotten | Outcome::Nothing);
    Ok(if told.iter().all(is_as_wished) { Exit::Done } else { Exit::Failed })
}

fn row(output: Output, told: &Told) -> String {
    let (style, word) = match told.result {
        Outcome::Forgotten => (Style::Good, "forgotten"),
        Outcome::Nothing => (Style::Faint, "nothing"),
        Outcome::Kept => (Style::Bad, "kept"),
        Outcome::Unknown => (Style::Bad, "unknown"),
    };
    let reason = told.reason.as_deref().unwrap_or_default();
    format!("{}  {}  {reason}", output.column(style, word, 9), told.payment)
}

/// `forgotten: 2 payments, 1 dead letter; 1 kept or unknown`.
fn counted(told: &[Told], letters: usize, done: bool) -> String {
    let count = |wanted: &[Outcome]| told.iter().filter(|told| wanted.contains(&told.result)).count();
    let nouns = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    let forgotten = nouns(count(&[Outcome::Forgotten]), "payment");
    let left = match count(&[Outcome::Kept, Outcome::Unknown]) {
        0 => String::new(),
        left => format!("; {left} kept or unknown"),
    };
    let (verb, how) = if done { ("forgotten", "") } else { ("would be forgotten", "; do it with --yes") };
    format!("{verb}: {forgotten}, {}{left}{how}", nouns(letters, "dead letter"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::payment::status::Status;
    use crate::store::forget::Need;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: ForgetArguments,
    }

    const PAYMENT: &str = "0192f0c1-1111-7000-8000-0123456789ab";

    fn parse(line: &[&str]) -> Result<ForgetArguments, clap::Error> {
        Line::try_parse_from(std::iter::once("forget").chain(line.iter().copied())).map(|line| line.arguments)
    }

    fn told(payment: u128, data: PersonalData) -> Told {
        Told::of(Uuid::from_u128(payment), data)
    }

    #[test]
    fn a_person_is_named_by_payments_or_by_an_address() {
        let arguments = parse(&[PAYMENT, PAYMENT]).expect("good arguments");
        assert!(!arguments.consent.yes && arguments.payments.len() == 2);
        let arguments = parse(&["--email", " ada@example.org "]).expect("an address");
        assert_eq!(arguments.email.as_deref(), Some("ada@example.org"));
        let all_wrong: [&[&str]; 5] = [&[], &["--email", ""], &["--email", "@"], &["--email", "ada"], &["order-17"]];
        for wrong in all_wrong {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(parse(&[PAYMENT, "--email", "ada@example.org"]).is_err());
        assert!(parse(&[PAYMENT, "--yes", "--dry-run"]).is_err());
    }

    #[test]
    fn the_letters_of_what_is_kept_stay() {
        let arguments = parse(&["--email", "ada@example.org"]).expect("an address");
        let gone = told(1, PersonalData::Erasable { version: 3 });
        let kept = told(2, PersonalData::Needed(Need::NotOver(Status::Preauth)));
        let person = |told: &[Told]| letters_of(&arguments, told).and_then(|filter| filter.person);
        let (payments, email) = (vec![Uuid::from_u128(1)], Some("ada@example.org".to_owned()));
        assert_eq!(person(std::slice::from_ref(&gone)), Some(Person { payments: payments.clone(), email }));
        assert_eq!(person(&[gone, kept.clone()]), Some(Person { payments, email: None }));
        assert_eq!(person(&[kept]), None);
    }

    #[test]
    fn what_was_done_is_told_in_one_line_and_what_was_not_in_one_each() {
        let kept = told(2, PersonalData::Needed(Need::NotOver(Status::Waiting)));
        assert_eq!(
            row(Output::plain(), &kept),
            "kept       00000000-0000-0000-0000-000000000002  it is waiting: cancel it first"
        );
        let told = [told(1, PersonalData::Erasable { version: 3 }), kept];
        assert_eq!(counted(&told, 2, true), "forgotten: 1 payment, 2 dead letters; 1 kept or unknown");
        assert_eq!(counted(&[], 0, false), "would be forgotten: 0 payments, 0 dead letters; do it with --yes");
    }
}
