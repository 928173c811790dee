//! `paybus dead release`: releases a payment's events that the broker had refused.

use clap::Args;
use serde_json::json;
use uuid::Uuid;

use crate::cli::consent::{Consent, HOW_TO_CONFIRM};
use crate::cli::exit::{Exit, Failure};
use crate::cli::open_database;
use crate::cli::output::Output;
use crate::cli::tame::tame;
use crate::config::Settings;
use crate::plural::counted;
use crate::store::Store;
use crate::store::outbox::release::SetAside;

/// Which payment's events to release, and who does it.
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
    let set_aside = store.events_set_aside(payment).await?.ok_or_else(nothing)?;
    let released = match who {
        Some(who) => Some(store.release(payment, who).await?.ok_or_else(nothing)?),
        None => None,
    };
    let output = Output::new();
    if arguments.json {
        output.json(&json!({
            "payment": payment,
            "events": set_aside.events,
            "reason": set_aside.reason,
            "since": set_aside.since.to_string(),
            "released": released,
        }))?;
    } else {
        output.line(&summary(payment, &set_aside, released))?;
    }
    Ok(Exit::Done)
}

fn summary(payment: Uuid, set_aside: &SetAside, released: Option<usize>) -> String {
    match released {
        Some(count) => {
            let events = counted(count, "event");
            format!("released: {events} of payment {payment}; workers publish released events within seconds")
        }
        None => format!(
            "would be released: {} of payment {payment}, set aside at {:.0}: {}; {HOW_TO_CONFIRM}",
            counted(set_aside.events, "event"),
            set_aside.since,
            tame(&set_aside.reason)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_prints_one_line() {
        let since = "2026-11-22T12:00:00.25Z".parse().expect("a time");
        let set_aside = SetAside { reason: "returned: 312\nNO_ROUTE".to_owned(), since, events: 2 };
        let line = summary(Uuid::nil(), &set_aside, None);
        assert_eq!(
            line,
            "would be released: 2 events of payment 00000000-0000-0000-0000-000000000000, set aside \
             at 2026-11-22T12:00:00Z: returned: 312 NO_ROUTE; add --yes to do it"
        );
        assert!(summary(Uuid::nil(), &set_aside, Some(1)).starts_with("released: 1 event of payment"));
    }
}
