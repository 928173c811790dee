//! Every command with a `reply_to` got the published answer there, and every webhook that was answered with 200 has its
//! answer.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use uuid::Uuid;

use super::{Finding, Kind};
use crate::replies::Reply;
use crate::support::webhook::named;
use crate::support::{Command, World};
use crate::webhooks::Webhooks;
use crate::wrong;

type Name = (String, String, String);

/// Checks replies and webhooks.
pub fn check(world: &World, published: &[Command], webhooks: &Webhooks<'_>, replies: &[Reply]) -> Vec<Finding> {
    let mut answers: HashMap<Name, String> = HashMap::new();
    for event in world.log.all().iter().filter(|event| event.is_final()) {
        answers.insert(event.cause(), event.id().to_owned());
    }
    let mut found = Vec::new();
    let mut replied: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for reply in replies {
        replied.entry(&reply.event).or_default().insert(&reply.correlation);
    }
    for command in published.iter().filter(|command| command.reply_to.is_some() && !wrong::is_name_taken(command)) {
        let Some(answer) = answers.get(&command.name()) else { continue };
        let correlation = command.correlation_id.as_deref().unwrap_or_default();
        if !replied.get(answer.as_str()).is_some_and(|replied| replied.contains(correlation)) {
            let what = format!("{} {:?}, answered by {answer}", command.kind, command.name());
            found.push(Finding::new(Kind::ReplyMissing, Some(command.payment), what));
        }
    }
    for report in webhooks.accepted() {
        let Some(payment) = report.payment else { continue };
        // If the body names no payment, neither does the command, so its answer is found by source and id alone.
        let (_, source, id) = named(report.variant, payment, &report.id).name();
        // An id whose digits could be a card number is replaced by one that is made from it.
        let replaced = Uuid::new_v5(&Uuid::NAMESPACE_OID, id.as_bytes()).to_string();
        let is_its_answer = |name: &Name| name.1 == source && (name.2 == id || name.2 == replaced);
        let is_answered = answers.keys().any(is_its_answer);
        if !is_answered {
            found.push(Finding::new(Kind::WebhookLost, Some(payment), format!("{report:?}")));
        }
    }
    found
}
