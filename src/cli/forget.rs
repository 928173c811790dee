//! `paybus forget`: erases the stored data of a person; the books stay.

use clap::Args;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::consent::{Consent, HOW_TO_CONFIRM};
use super::exit::{Exit, Failure};
use super::open_database;
use super::output::{Output, Style};
use crate::bus::dead_letters::browser::{self, DeadFilter};
use crate::bus::dead_letters::mentions::Person;
use crate::config::Settings;
use crate::plural::counted;
use crate::store::Store;
use crate::store::retention::forget::PersonalData;
use crate::wiring::bus_settings;

/// Maximum number of attempts for a payment that others change meanwhile.
const TRIES: usize = 5;

/// Erase the personal data of payments; a dry run unless --yes is given.
///
/// Erases names, addresses and texts. The books stay: amounts, statuses, movements, and the gateways' references.
///
/// A payment stays unchanged, and the reason is printed, if it is not over or has unanswered commands or unsent events.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  paybus forget 0192f0c1-1111-7000-8000-0123456789ab\n  \
                        paybus forget --email ada@example.org --who YOU --yes")]
pub struct ForgetArguments {
    /// Payment ids.
    #[arg(value_name = "PAYMENT", required_unless_present = "email", conflicts_with = "email")]
    payments: Vec<Uuid>,
    /// All payments with this billing e-mail address, ignoring case, and the dead letters that contain it.
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

/// The result for one payment, or what it would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Erasure {
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
    /// It is still needed.
    Kept,
    /// There is no such payment.
    Unknown,
}

impl Erasure {
    fn of(payment: Uuid, data: PersonalData) -> Erasure {
        let erasure = |result, reason| Erasure { payment, result, reason };
        match data {
            PersonalData::NoPayment => erasure(Outcome::Unknown, None),
            PersonalData::Nothing => erasure(Outcome::Nothing, None),
            PersonalData::Needed(need) => erasure(Outcome::Kept, Some(need.to_string())),
            PersonalData::Erasable { .. } => erasure(Outcome::Forgotten, None),
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
    let erasures = find(store, arguments).await?;
    let filter = letters_of(arguments, &erasures);
    let letters = match &filter {
        Some(filter) => browser::list(&bus_settings(settings), filter, usize::MAX).await?.len(),
        None => 0,
    };
    print(arguments, &erasures, letters)
}

/// Drops the dead letters first, because the database says which they are. If it ends early, it can be repeated.
async fn forget(store: &Store, arguments: &ForgetArguments, who: &str, settings: &Settings) -> Result<Exit, Failure> {
    let mut erasures = find(store, arguments).await?;
    let erasable = erasures.iter().filter(|erasure| erasure.result == Outcome::Forgotten);
    let payments: Vec<Uuid> = erasable.map(|erasure| erasure.payment).collect();
    // The address is personal data itself.
    let by = if arguments.email.is_some() { "email" } else { "payment" };
    store.audit(who, "forget", &json!({ "by": by, "payments": payments })).await?;
    let mut letters = 0;
    if let Some(filter) = letters_of(arguments, &erasures) {
        letters = browser::drop_matching(&bus_settings(settings), &filter, usize::MAX).await?.len();
        store.audit(who, "forget.dead_letters", &json!({ "count": letters })).await?;
    }
    for erasure in erasures.iter_mut().filter(|erasure| erasure.result == Outcome::Forgotten) {
        *erasure = erase(store, erasure.payment, who).await?;
    }
    print(arguments, &erasures, letters)
}

async fn find(store: &Store, arguments: &ForgetArguments) -> Result<Vec<Erasure>, Failure> {
    let mut payments = match &arguments.email {
        Some(email) => store.payments_of(email).await?,
        None => arguments.payments.clone(),
    };
    payments.sort_unstable();
    payments.dedup();
    let mut erasures = Vec::with_capacity(payments.len());
    for payment in payments {
        erasures.push(Erasure::of(payment, store.personal_data(payment).await?));
    }
    Ok(erasures)
}

/// Which dead letters to drop. Those of a payment that is kept stay with it, because they may have to be sent again.
/// Then those found by the address stay too, because they may be the same.
fn letters_of(arguments: &ForgetArguments, erasures: &[Erasure]) -> Option<DeadFilter> {
    let is_kept = |erasure: &Erasure| erasure.result == Outcome::Kept;
    let payments = erasures.iter().filter(|erasure| !is_kept(erasure)).map(|erasure| erasure.payment).collect();
    let email = arguments.email.clone().filter(|_| !erasures.iter().any(is_kept));
    let person = Person { payments, email };
    (!person.is_nobody()).then(|| DeadFilter { person: Some(person), ..DeadFilter::default() })
}

/// Erases the version that was read; if somebody changed it meanwhile, it is read again.
async fn erase(store: &Store, payment: Uuid, who: &str) -> Result<Erasure, Failure> {
    for _ in 0..TRIES {
        let data = store.personal_data(payment).await?;
        let is_done = match data {
            PersonalData::Erasable { version } => store.forget(payment, version, who).await?,
            _ => true,
        };
        if is_done {
            return Ok(Erasure::of(payment, data));
        }
    }
    let reason = "it keeps changing: try again later".to_owned();
    Ok(Erasure { payment, result: Outcome::Kept, reason: Some(reason) })
}

fn print(arguments: &ForgetArguments, erasures: &[Erasure], letters: usize) -> Result<Exit, Failure> {
    let output = Output::new();
    if arguments.json {
        output.json(&json!({ "done": arguments.consent.yes, "payments": erasures, "dead_letters": letters }))?;
    } else {
        for erasure in erasures {
            output.line(&row(output, erasure))?;
        }
        output.line(&summary(erasures, letters, arguments.consent.yes))?;
    }
    let is_as_wished = |erasure: &Erasure| matches!(erasure.result, Outcome::Forgotten | Outcome::Nothing);
    Ok(if erasures.iter().all(is_as_wished) { Exit::Done } else { Exit::Failed })
}

fn row(output: Output, erasure: &Erasure) -> String {
    let (style, word) = match erasure.result {
        Outcome::Forgotten => (Style::Good, "forgotten"),
        Outcome::Nothing => (Style::Faint, "nothing"),
        Outcome::Kept => (Style::Bad, "kept"),
        Outcome::Unknown => (Style::Bad, "unknown"),
    };
    let reason = erasure.reason.as_deref().unwrap_or_default();
    format!("{}  {}  {reason}", output.column(style, word, 9), erasure.payment)
}

/// `forgotten: 2 payments, 1 dead letter; 1 kept or unknown`.
fn summary(erasures: &[Erasure], letters: usize, done: bool) -> String {
    let count = |wanted: &[Outcome]| erasures.iter().filter(|erasure| wanted.contains(&erasure.result)).count();
    let forgotten = counted(count(&[Outcome::Forgotten]), "payment");
    let left = match count(&[Outcome::Kept, Outcome::Unknown]) {
        0 => String::new(),
        left => format!("; {left} kept or unknown"),
    };
    let counts = format!("{forgotten}, {}{left}", counted(letters, "dead letter"));
    if done { format!("forgotten: {counts}") } else { format!("would be forgotten: {counts}; {HOW_TO_CONFIRM}") }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::payment::status::Status;
    use crate::store::retention::forget::Need;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: ForgetArguments,
    }

    const PAYMENT: &str = "0192f0c1-1111-7000-8000-0123456789ab";

    fn parse(line: &[&str]) -> Result<ForgetArguments, clap::Error> {
        Line::try_parse_from(std::iter::once("forget").chain(line.iter().copied())).map(|line| line.arguments)
    }

    fn erasure(payment: u128, data: PersonalData) -> Erasure {
        Erasure::of(Uuid::from_u128(payment), data)
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
    fn dead_letters_of_kept_payments_stay() {
        let arguments = parse(&["--email", "ada@example.org"]).expect("an address");
        let gone = erasure(1, PersonalData::Erasable { version: 3 });
        let kept = erasure(2, PersonalData::Needed(Need::NotOver(Status::Preauth)));
        let person = |erasures: &[Erasure]| letters_of(&arguments, erasures).and_then(|filter| filter.person);
        let (payments, email) = (vec![Uuid::from_u128(1)], Some("ada@example.org".to_owned()));
        assert_eq!(person(std::slice::from_ref(&gone)), Some(Person { payments: payments.clone(), email }));
        assert_eq!(person(&[gone, kept.clone()]), Some(Person { payments, email: None }));
        assert_eq!(person(&[kept]), None);
    }

    #[test]
    fn the_result_is_one_line_and_each_kept_payment_another() {
        let kept = erasure(2, PersonalData::Needed(Need::NotOver(Status::Waiting)));
        assert_eq!(
            row(Output::plain(), &kept),
            "kept       00000000-0000-0000-0000-000000000002  it is waiting: cancel it first"
        );
        let erasures = [erasure(1, PersonalData::Erasable { version: 3 }), kept];
        assert_eq!(summary(&erasures, 2, true), "forgotten: 1 payment, 2 dead letters; 1 kept or unknown");
        assert_eq!(summary(&[], 0, false), "would be forgotten: 0 payments, 0 dead letters; add --yes to do it");
    }
}
