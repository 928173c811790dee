//! Authorization: the AMQP `user_id` of a command, which the broker verifies, is checked against the configured users.
//!
//! If no user is configured, anybody who may publish commands may send any command, within the broker's own
//! permissions.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::time::Duration;

use tracing::warn;

use crate::bus::publish::publisher::DIRECT_REPLY;
use crate::config::{OWN_SOURCE, Role, Settings, Sources, User as Configured, WEBHOOK_SOURCES};
use crate::payment::code::{Code, Rejection};
use crate::payment::command::{Command, CommandName, CommandType, Kind, Reply};
use crate::payment::model::Payment;
use crate::telemetry::log_limit::LogLimit;
use crate::wiring::bus_settings;
use crate::worker::variant::limits::Allowance;

/// What each user may do.
#[derive(Debug, Default)]
pub struct Authorization {
    users: HashMap<String, User>,
    /// The sources that belong to a user, keyed by their literal prefix. They do not overlap: the only claim that can
    /// cover a source is the last one that sorts at or before it.
    claims: BTreeMap<String, Claim>,
}

#[derive(Debug)]
struct User {
    role: Role,
    variants: Option<HashSet<String>>,
    /// Whether it is limited to its own sources and to the payments that they created.
    has_sources: bool,
    /// The prefix of its reply queues.
    replies: String,
    /// The rate limit for its read-only commands.
    reads: Option<Allowance>,
    /// For the log line about exceeding it.
    reads_logged: LogLimit,
}

#[derive(Debug)]
struct Claim {
    owner: String,
    is_prefix: bool,
}

/// Why a command is not authorized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It has no `user_id`.
    NoUser,
    /// Its user is not configured.
    UnknownUser,
    /// Its user may not send this kind of command.
    Command,
    /// Its user may not use the variant.
    Variant,
    /// The source belongs to another user.
    Source,
    /// The reply queue belongs to another user.
    ReplyTo,
    /// The payment belongs to another user.
    Payment,
}

impl Refusal {
    /// A message for people. It quotes nothing of the command.
    pub fn message(self) -> &'static str {
        match self {
            Refusal::NoUser => "the AMQP user_id is missing: publish the command with it",
            Refusal::UnknownUser => "its user is not configured: no [users.NAME] allows it to send commands",
            Refusal::Command => "its user may not send this command, or only with a reply_to: see role in [users.NAME]",
            Refusal::Variant => "its user may not use this variant",
            Refusal::Source => "its user may not use this source",
            Refusal::ReplyTo => "its user may receive answers only at reply.USER.* queues or by direct reply-to",
            Refusal::Payment => "the payment was created under a source that does not belong to the user",
        }
    }
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Rejection {
        Rejection::new(Code::NotAuthorized, refusal.message())
    }
}

impl Authorization {
    /// What these settings allow each user. The worker's own user may publish the webhooks that it receives.
    pub fn configured(settings: &Settings) -> Authorization {
        let mut authorization = Authorization::default();
        for (name, user) in &settings.users {
            authorization.add(name, user);
        }
        let own = bus_settings(settings).user().filter(|own| !settings.users.contains_key(own));
        if let Some(own) = own
            && authorization.is_required()
        {
            let role = Role::Webhooks;
            authorization.add(&own, &Configured { role, variants: None, sources: None, read_rate: None });
        }
        authorization
    }

    fn add(&mut self, name: &str, user: &Configured) {
        for Sources { text, is_prefix } in user.sources.iter().flatten().map(|pattern| Sources::read(pattern)) {
            self.claims.insert(text.to_owned(), Claim { owner: name.to_owned(), is_prefix });
        }
        let user = User {
            role: user.role,
            variants: user.variants.clone().map(HashSet::from_iter),
            has_sources: user.sources.is_some(),
            replies: format!("reply.{name}."),
            reads: user.read_rate.map(Allowance::new),
            reads_logged: LogLimit::every(Duration::from_secs(60)),
        };
        self.users.insert(name.to_owned(), user);
    }

    /// Whether commands need a configured user.
    pub fn is_required(&self) -> bool {
        !self.users.is_empty()
    }

    /// Logs a warning if they do not.
    pub fn warn_if_open(&self) {
        if !self.is_required() {
            warn!("no [users.NAME] is configured: {OPEN}");
        }
    }

    /// Returns why a command is not authorized, regardless of its payment, or `None` if it is.
    pub fn refusal(&self, command: &Command) -> Option<Refusal> {
        if !self.is_required() {
            return None;
        }
        let Some(name) = command.attributes.user_id.as_deref() else { return Some(Refusal::NoUser) };
        let Some(user) = self.users.get(name) else { return Some(Refusal::UnknownUser) };
        let reply = command.attributes.reply.as_ref();
        if !user.may_send(&command.kind, reply.is_some()) {
            return Some(Refusal::Command);
        }
        if user.variants.as_ref().is_some_and(|variants| !variants.contains(&command.variant)) {
            return Some(Refusal::Variant);
        }
        if !self.may_use(name, user, &command.name.source) {
            return Some(Refusal::Source);
        }
        let is_answered_elsewhere = reply.is_some_and(|reply| !user.may_be_answered_at(&reply.to));
        is_answered_elsewhere.then_some(Refusal::ReplyTo)
    }

    fn may_use(&self, name: &str, user: &User, source: &str) -> bool {
        let is_webhook = source.starts_with(WEBHOOK_SOURCES);
        match user.role {
            Role::Operator => true,
            Role::Webhooks => is_webhook,
            Role::Service => match self.owner(source) {
                Some(owner) => owner == name,
                None => !user.has_sources && !is_webhook && source != OWN_SOURCE,
            },
        }
    }

    fn user(&self, name: Option<&str>) -> Option<&User> {
        name.and_then(|name| self.users.get(name))
    }

    /// The user that a source belongs to.
    fn owner(&self, source: &str) -> Option<&str> {
        let up_to = (Bound::Unbounded, Bound::Included(source));
        let (text, claim) = self.claims.range::<str, _>(up_to).next_back()?;
        let is_among = text == source || claim.is_prefix && source.starts_with(text.as_str());
        is_among.then_some(claim.owner.as_str())
    }

    /// Whether a user may act on a payment: a user with sources of its own may only act on payments that they created.
    /// Unknown users pass, as they are refused elsewhere.
    pub fn may_act_on(&self, user: Option<&str>, payment: &Payment) -> bool {
        let bound = user.filter(|_| self.user(user).is_some_and(|user| user.has_sources));
        bound.is_none_or(|name| payment.source.as_deref().and_then(|source| self.owner(source)) == Some(name))
    }

    /// Where to answer a refused command: only at a queue at which its user may receive answers.
    pub fn reply_to_refused<'a>(&self, command: &'a Command) -> Option<&'a Reply> {
        let user = self.user(command.attributes.user_id.as_deref());
        let is_own = |reply: &&Reply| match user {
            Some(user) => user.may_be_answered_at(&reply.to),
            None => reply.to.starts_with(DIRECT_REPLY),
        };
        command.attributes.reply.as_ref().filter(is_own)
    }

    /// Whether a user may ask for a command's status: a user with sources of its own may only ask about their commands.
    pub fn may_ask_after(&self, user: Option<&str>, asked: &CommandName) -> bool {
        match (user, self.user(user)) {
            (Some(name), Some(user)) => self.may_use(name, user, &asked.source),
            _ => !self.is_required(),
        }
    }

    /// Whether an authorized command exceeds its user's `read_rate`. Only read-only commands count. A command within
    /// the limit is deducted from it.
    pub fn is_one_too_many(&self, command: &Command) -> bool {
        let name = command.attributes.user_id.as_deref();
        let Some(user) = self.user(name) else { return false };
        let Some(reads) = user.reads.as_ref().filter(|_| command.kind.known().is_some_and(is_read)) else {
            return false;
        };
        if reads.take() {
            return false;
        }
        if let Some(suppressed) = user.reads_logged.pass() {
            warn!(user = ?name, suppressed, "a user exceeds its read_rate; rejecting the excess commands");
        }
        true
    }

    /// Whether a user may resend messages on behalf of their original senders.
    pub fn is_operator(&self, user: Option<&str>) -> bool {
        self.user(user).is_some_and(|user| user.role == Role::Operator)
    }
}

/// What it means that no user is configured, and how to change that.
pub const OPEN: &str = "anyone who may publish commands may do anything with any payment; docs/security.md, \"Who may \
                        send what\", says how to restrict that";

/// Whether a command never moves money, yet may be expensive.
fn is_read(kind: CommandType) -> bool {
    kind == CommandType::Sync || kind.is_read_only()
}

impl User {
    /// Unknown types are authorized: they are then rejected under a name of the user's own.
    fn may_send(&self, kind: &Kind, is_answered: bool) -> bool {
        match (self.role, kind.known()) {
            (Role::Operator, _) => true,
            (Role::Webhooks, kind) => kind == Some(CommandType::Notification),
            (Role::Service, None) => true,
            (Role::Service, Some(kind)) => match kind {
                CommandType::Create
                | CommandType::Process
                | CommandType::Capture
                | CommandType::Release
                | CommandType::Refund
                | CommandType::Cancel
                | CommandType::Sync
                | CommandType::Snapshot => true,
                // Without a queue it would go to all subscribers.
                CommandType::Resend => is_answered,
                CommandType::Status => is_answered,
                // These are events of all payments of the variant, including other users'.
                CommandType::ResendEvents => is_answered && !self.has_sources,
                CommandType::Notification
                | CommandType::Resolve
                | CommandType::Retry
                | CommandType::Withdraw
                | CommandType::Pause
                | CommandType::Resume => false,
            },
        }
    }

    fn may_be_answered_at(&self, queue: &str) -> bool {
        let is_own = || queue.strip_prefix(&self.replies).is_some_and(|rest| !rest.is_empty());
        self.role == Role::Operator || queue.starts_with(DIRECT_REPLY) || is_own()
    }
}

#[cfg(test)]
mod tests;
