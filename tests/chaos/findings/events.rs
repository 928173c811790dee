//! Every command has one answer, and every stored event was published once, in order, and as stored.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::{Finding, Kind, Stored, StoredOperation};
use crate::ledger::{Ledger, standing};
use crate::support::{Command, Event, World};
use crate::wrong;

type Name = (String, String, String);

/// The age from which an event may have been dropped: whatever the retention, none is dropped before its position is
/// settled.
const DROPPED_FROM: SignedDuration = SignedDuration::from_secs(120);

fn may_be_dropped(event: &Event) -> bool {
    let time: Timestamp = event.body["time"].as_str().and_then(|text| text.parse().ok()).expect("an event has a time");
    Timestamp::now().duration_since(time) >= DROPPED_FROM
}

/// Compares commands with answers, and the stored events with the received ones.
pub async fn check(world: &World, ledger: &dyn Ledger, stored: &Stored) -> Vec<Finding> {
    let events = world.log.all();
    let mut found = answers(world, &events, stored);
    found.extend(contents(&events, ledger, stored));
    found.extend(wrong_ones(&world.published(), &events));
    let sql = "SELECT id, payment_id, routing_key FROM events";
    let rows = world.query(sql, &[]).await;
    let came: HashSet<&str> = events.iter().map(Event::id).collect();
    let mut known = HashSet::new();
    for row in &rows {
        let id = row.get::<_, Uuid>(0).to_string();
        if !came.contains(id.as_str()) {
            let what = format!("event {id} ({}) never came", row.get::<_, &str>(2));
            found.push(Finding::new(Kind::EventMissing, row.get(1), what));
        }
        known.insert(id);
    }
    let strange = events.iter().filter(|event| !known.contains(event.id()) && !may_be_dropped(event));
    found.extend(
        strange.map(|event| Finding::new(Kind::EventDiffers, owner(event), format!("not stored: {}", event.line()))),
    );
    found.extend(order(&events));
    found.extend(last_words(&events, stored));
    found
}

/// One command, one answer.
fn answers(world: &World, events: &[Event], stored: &Stored) -> Vec<Finding> {
    let mut answers: BTreeMap<Name, BTreeSet<&str>> = BTreeMap::new();
    for event in events.iter().filter(|event| event.is_final()) {
        answers.entry(event.cause()).or_default().insert(event.id());
    }
    let mut found = Vec::new();
    for (name, ids) in answers.iter().filter(|(_, ids)| ids.len() > 1) {
        found.push(Finding::new(Kind::AnsweredTwice, name.0.parse().ok(), format!("{name:?} by {ids:?}")));
    }
    let open: HashSet<&Name> =
        stored.operations.values().filter(|operation| operation.state != "settled").map(|open| &open.name).collect();
    for operation in stored.operations.values().filter(|operation| operation.state != "settled") {
        let (kind, code) = (&operation.kind, operation.last_code.as_deref().unwrap_or("-"));
        let what = format!("{kind} {:?} is {}, {code}", operation.name, operation.state);
        found.push(Finding::new(Kind::Stuck, Some(operation.payment), what));
    }
    let published: BTreeMap<Name, Command> =
        world.published().into_iter().map(|command| (command.name(), command)).collect();
    for (name, command) in published {
        if !answers.contains_key(&name) && !open.contains(&name) {
            found.push(Finding::new(Kind::Lost, Some(command.payment), format!("{} {name:?}", command.kind)));
        }
    }
    found
}

/// The published answer is the stored one, and matches what the gateway did.
fn contents(events: &[Event], ledger: &dyn Ledger, stored: &Stored) -> Vec<Finding> {
    let operations: HashMap<&Name, (&Uuid, &StoredOperation)> =
        stored.operations.iter().map(|(id, operation)| (&operation.name, (id, operation))).collect();
    let effects: HashMap<Uuid, _> =
        ledger.effects_of_all().into_iter().map(|(payment, all)| (payment, standing(&all))).collect();
    let mut found = Vec::new();
    for event in events.iter().filter(|event| event.is_final()) {
        let Some((id, operation)) = operations.get(&event.cause()) else { continue };
        let mut add = |what: &str| {
            found.push(Finding::new(Kind::Contradiction, Some(operation.payment), format!("{what}: {}", event.line())));
        };
        let said = answer_word(event);
        if operation.answer.as_deref() != Some(said) {
            add(&format!("stored as {:?}, and told as {said}", operation.answer));
        }
        let is_done = effects.get(&operation.payment).is_some_and(|all| all.iter().any(|one| one.operation_id == **id));
        if is_done && said != "succeeded" {
            add("it was told that it is not done, and it is");
        }
    }
    found
}

/// How an answer ended, in the word that is stored.
fn answer_word(event: &Event) -> &'static str {
    let only_asks = matches!(
        event.data()["command"]["type"].as_str(),
        Some("payment.sync" | "payment.notification" | "payment.resolve")
    );
    match event.kind() {
        "command.rejected" => "rejected",
        "command.failed" => "failed",
        // The change of a payment is also its command's answer: a failure has a code. A command that only asks may
        // report another command's failure, and has succeeded itself.
        kind if kind.starts_with("payment.") && !event.code().is_empty() && !only_asks => "failed",
        _ => "succeeded",
    }
}

/// Wrong commands are rejected.
fn wrong_ones(published: &[Command], events: &[Event]) -> Vec<Finding> {
    let mut rejected = HashSet::new();
    let mut accepted: HashMap<Name, &Event> = HashMap::new();
    for event in events.iter().filter(|event| !event.data()["command"].is_null()) {
        if event.kind() == "command.rejected" {
            rejected.insert(event.cause());
        } else if event.kind() != "command.delayed" {
            accepted.insert(event.cause(), event);
        }
    }
    let mut found = Vec::new();
    for command in published.iter().filter(|command| wrong::is_wrong(command)) {
        let name = command.name();
        if !rejected.contains(&name) {
            found.push(Finding::new(
                Kind::WrongAccepted,
                Some(command.payment),
                format!("no rejection of {command:?}"),
            ));
        }
        // Under the name of a correct command, the correct one is answered.
        if let Some(event) = accepted.get(&name).filter(|_| !wrong::is_name_taken(command)) {
            found.push(Finding::new(Kind::WrongAccepted, Some(command.payment), event.line()));
        }
    }
    found
}

/// Sequences have no gaps, and no event is published twice under different ids.
fn order(events: &[Event]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut bodies: HashMap<&str, &Event> = HashMap::new();
    let mut places: HashMap<(Option<Uuid>, i64), &str> = HashMap::new();
    let mut last: HashMap<Option<Uuid>, i64> = HashMap::new();
    for event in events {
        let payment = owner(event);
        let mut add = |kind, what: String| found.push(Finding::new(kind, payment, format!("{what}: {}", event.line())));
        if let Some(first) = bodies.insert(event.id(), event) {
            if first.body != event.body {
                add(Kind::EventDiffers, "it came before with another body".to_owned());
            }
            continue;
        }
        let Some(sequence) = event.sequence() else { continue };
        if let Some(other) = places.insert((payment, sequence), event.id()) {
            add(Kind::EventRepeated, format!("number {sequence} came before as {other}"));
        }
        let before = last.entry(payment).or_default();
        if sequence != *before + 1 {
            add(Kind::EventOrder, format!("number {sequence} came after {before}"));
        }
        *before = sequence.max(*before);
    }
    found
}

/// The last event of a payment matches what is stored.
fn last_words(events: &[Event], stored: &Stored) -> Vec<Finding> {
    let mut last: HashMap<Uuid, &Event> = HashMap::new();
    for event in events.iter().filter(|event| event.sequence().is_some()) {
        let Some(payment) = owner(event) else { continue };
        let kept = last.entry(payment).or_insert(event);
        if event.sequence() > kept.sequence() {
            *kept = event;
        }
    }
    let differing = stored.payments.iter().filter_map(|(payment, row)| {
        let Some(event) = last.get(payment) else {
            return Some(Finding::new(Kind::EventMissing, Some(*payment), "it is stored, and no event told of it"));
        };
        let sums = (event.field("captured_amount").parse().ok(), event.field("refunded_amount").parse().ok());
        let is_same = event.status() == row.status && sums == (Some(row.captured), Some(row.refunded));
        (!is_same).then(|| {
            let what = format!("stored as {} {} {}", row.status, row.captured, row.refunded);
            Finding::new(Kind::EventDiffers, Some(*payment), format!("{what}, last told: {}", event.line()))
        })
    });
    differing.collect()
}

fn owner(event: &Event) -> Option<Uuid> {
    event.body["partitionkey"].as_str().and_then(|text| text.parse().ok())
}
