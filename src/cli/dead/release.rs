//! `paybus dead release`: lets a payment's events out again that the broker had refused.

use clap::Args;
use serde_json::json;
use uuid::Uuid;

use crate::cli::consent::Consent;
use crate::cli::exit::{Exit, Failure};
use crate::cli::open_database;
use crate::cli::output::Output;
use crate::cli::tame::tame;
use crate::config::Settings;
use crate::store::Store;
use crate::store::release::Aside;

/// Which payment's events, and who says so.
#[derive(Debug, Args)]
pub struct ReleaseArguments {
    /// The payment's id.
    payment: Uuid,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) consent: Consent,
}

pub(super) async fn run(arguments: &ReleaseArguments, settings: &Settings) -> Result<Exit, Failure> {
    let who = arguments.consent.who()?;
    let store = open_database(settings).await?;
    let exit = release(&store, arguments, who).await;
    store.close();
    exit
}

async fn release(store: &Store, arguments: &ReleaseArguments, who: Option<&str>) -> Result<Exit, Failure> {
    let payment = arguments.payment;
    let nothing = || Failure::new(Exit::Failed, format!("no events of payment {payment} are set aside"));
    let aside = store.aside(payment).await?.ok_or_else(nothing)?;
    let released = match who {
        Some(who) => Some(store.release(payment, who).await?.ok_or_else(nothing)?),
        None => None,
    };
    let output = Output::new();
    if arguments.json {
        output.json(&json!({
            "payment": payment,
            "events": aside.events,
            "reason": aside.reason,
            "since": aside.since.to_string(),
            "released": released,
        }))?;
    } else {
        output.line(&told(payment, &aside, released))?;
    }
    Ok(Exit::Done)
}

fn told(payment: Uuid, aside: &Aside, released: Option<usize>) -> String {
    let events = |count: i64| if count == 1 { "1 event".to_owned() } else { format!("{count} events") };
    match released {
        Some(count) => {
            let count = events(i64::try_from(count).unwrap_or(i64::MAX));
            format!("released: {count} of payment {payment}; a worker sends them within seconds")
        }
        None => format!(
            "would be released: {} of payment {payment}, set aside {:.0}: {}; do it with --yes",
            events(aside.events),
            aside.since,
            tame(&aside.reason)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_done_is_told_in_one_line() {
        let since = "2026-11-22T12:00:00.25Z".parse().expect("a time");
        let aside = Aside { reason: "returned: 312\nNO_ROUTE".to_owned(), since, events: 2 };
        let line = told(Uuid::nil(), &aside, None);
        assert_eq!(
            line,
            "would be released: 2 events of payment 00000000-0000-0000-0000-000000000000, set aside \
             2026-11-22T12:00:00Z: returned: 312 NO_ROUTE; do it with --yes"
        );
        assert!(told(Uuid::nil(), &aside, Some(1)).starts_with("released: 1 event of payment"));
    }
}
