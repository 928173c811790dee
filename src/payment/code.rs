//! The codes of answers: one table, with what each means and what the publisher should do.

use strum::{EnumIter, EnumString, IntoStaticStr};

/// Why a command was rejected, failed or is delayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EnumIter, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Code {
    /// An attribute of the envelope is missing, given twice, wrong, or belongs in `data`.
    InvalidEnvelope,
    /// The message is not UTF-8.
    InvalidEncoding,
    /// The body is over 1 MiB, or `data` has very many values.
    TooLarge,
    /// `data` is nested deeper than 16 levels.
    TooDeep,
    /// A card number stands in the command.
    CardNumber,
    /// `data` or a field of it is missing, given twice, of a wrong type or too long.
    InvalidData,
    /// A field of `data` that the command does not have.
    UnknownField,
    /// An amount is null or no decimal string, out of its limits, or has too many decimals.
    InvalidAmount,
    /// The currency is not an ISO 4217 code.
    InvalidCurrency,
    /// No command of this type.
    UnknownType,
    /// No variant of this name is configured.
    UnknownVariant,
    /// The variant accepts no new payments.
    VariantRetired,
    /// The routing key is not `<variant>.<type>`.
    RoutingMismatch,
    /// The routing key names a variant other than the payment's.
    VariantMismatch,
    /// The same subject, source and id were already used with another type or other data.
    IdReused,
    /// A payment of this id exists.
    AlreadyExists,
    /// No payment of this id.
    UnknownPayment,
    /// Nothing is stored of the command that is asked after.
    UnknownCommand,
    /// The payment was archived.
    PaymentArchived,
    /// The payment's status does not allow it.
    NotAllowed,
    /// An operator withdrew it before anything was sent.
    Withdrawn,
    /// The named operation does not wait for its next attempt.
    NotRetryable,
    /// Something may have been sent for the named operation, or it is none that can be withdrawn.
    NotWithdrawable,
    /// Another operation of this payment, beside which it must not run, is still going on.
    InProgress,
    /// A hundred commands already wait for this payment.
    TooManyWaiting,
    /// The gateway cannot do this.
    Unsupported,
    /// `expirytime`, or the message's expiration, passed before anything was received.
    Expired,
    /// The broker dead-lettered the message before it was begun.
    DeadLettered,
    /// The variant now uses a gateway or account other than the one the payment began with.
    GatewayChanged,
    /// The broker did not say who sent it.
    UserRequired,
    /// Its user may not send it.
    NotAuthorized,
    /// Its user asks for too much at once.
    TooManyRequests,
    /// The operation named has no unknown outcome.
    NotUnknown,
    /// A notification that the gateway did not send.
    NotGenuine,
    /// The gateway declined the operation.
    Declined,
    /// The gateway refused the request.
    Refused,
    /// A cancel ended the command before it was received, or while its result was awaited.
    Cancelled,
    /// The gateway could not be reached.
    Unreachable,
    /// The gateway did not answer in time.
    Timeout,
    /// The gateway answered with a server error.
    GatewayError,
    /// The gateway limits the rate of requests.
    RateLimited,
    /// The gateway is still processing the same request.
    Conflict,
    /// The gateway refused our credentials.
    Misconfigured,
    /// The gateway's answer could not be read.
    InvalidAnswer,
    /// The gateway's answer does not fit what was asked.
    Mismatch,
    /// The worker that called the gateway was lost.
    WorkerLost,
    /// The variant's calls are held back for now.
    Held,
    /// The command is stored and goes on.
    Accepted,
    /// The gateway accepted; its result is awaited.
    Pending,
    /// Nobody can say by itself what happened: a person must.
    Escalated,
    /// The gateway took or holds money twice.
    DoubleCharge,
}

/// One row of the table of codes.
#[derive(Debug, Clone, Copy)]
pub struct CodeEntry {
    /// The code.
    pub code: Code,
    /// The answers that have it.
    pub reported_in: &'static [ReportedIn],
    /// What it means.
    pub meaning: &'static str,
    /// What the publisher should do.
    pub advice: &'static str,
}

/// The answers that have a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportedIn {
    /// `command.rejected`, as `code`.
    Rejected,
    /// `command.failed`, or the change of the payment that tells the same, as `code`.
    Failed,
    /// `command.delayed`, as `reason`.
    Delayed,
}

const REJECTED: &[ReportedIn] = &[ReportedIn::Rejected];
const FAILED: &[ReportedIn] = &[ReportedIn::Failed];
const DELAYED: &[ReportedIn] = &[ReportedIn::Delayed];
const DELAYED_OR_FAILED: &[ReportedIn] = &[ReportedIn::Delayed, ReportedIn::Failed];
const REJECTED_OR_FAILED: &[ReportedIn] = &[ReportedIn::Rejected, ReportedIn::Failed];
const ANY: &[ReportedIn] = &[ReportedIn::Rejected, ReportedIn::Delayed, ReportedIn::Failed];

/// What to do about trouble that is tried again, and may be given up.
const AGAIN: &str =
    "Delayed: wait; it is retried. Failed: retries ended, with proof that nothing was done; send a new command.";

const fn entry(
    code: Code,
    reported_in: &'static [ReportedIn],
    meaning: &'static str,
    advice: &'static str,
) -> CodeEntry {
    CodeEntry { code, reported_in, meaning, advice }
}

/// Every code.
pub const CODES: &[CodeEntry] = &[
    entry(
        Code::InvalidEnvelope,
        REJECTED,
        "An attribute of the envelope is missing, given twice, wrong, or belongs in data; or reply_to is not allowed.",
        "Fix the message and resend it with a new id.",
    ),
    entry(
        Code::InvalidEncoding,
        REJECTED,
        "The message is not UTF-8, or a text contains a NUL character.",
        "Fix the message and resend it with a new id.",
    ),
    entry(
        Code::TooLarge,
        REJECTED,
        "The body is larger than 1 MiB, or data has more than 10000 commas and opening brackets outside its strings.",
        "Send less.",
    ),
    entry(Code::TooDeep, REJECTED, "data is nested deeper than 16 levels.", "Flatten it."),
    entry(
        Code::CardNumber,
        REJECTED,
        "The command contains a card number; nothing of it was stored.",
        "Send a token of the gateway instead.",
    ),
    entry(
        Code::InvalidData,
        REJECTED,
        "data or one of its fields is missing, given twice, of the wrong type or too long.",
        "Fix the named field and resend the command with a new id.",
    ),
    entry(
        Code::UnknownField,
        REJECTED,
        "data has a field unknown to this command, or process has one unknown to its gateway.",
        "Remove the named field.",
    ),
    entry(
        Code::InvalidAmount,
        REJECTED,
        "An amount is zero, null, not a decimal string, more than is available, or has more decimals than its \
         currency.",
        "Fix the amount and resend the command with a new id.",
    ),
    entry(
        Code::InvalidCurrency,
        REJECTED,
        "The currency is not an ISO 4217 code.",
        "Use the three-letter code in capitals.",
    ),
    entry(Code::UnknownType, REJECTED, "There is no command of this type.", "Look up the type in the contract."),
    entry(Code::UnknownVariant, REJECTED, "No variant of this name is configured.", "Use a configured variant."),
    entry(Code::VariantRetired, REJECTED, "The variant accepts no new payments.", "Use another variant."),
    entry(
        Code::RoutingMismatch,
        REJECTED,
        "The routing key is not `<variant>.<type>`, or data.variant differs from it.",
        "Publish with the right routing key.",
    ),
    entry(
        Code::VariantMismatch,
        REJECTED,
        "The routing key names a variant other than the payment's.",
        "Route the command by the payment's variant.",
    ),
    entry(
        Code::IdReused,
        REJECTED,
        "The same subject, source and id were already used with another type or other data.",
        "Use a new id for a new command.",
    ),
    entry(Code::AlreadyExists, REJECTED, "A payment with this id already exists.", "Use a new payment id."),
    entry(Code::UnknownPayment, REJECTED, "There is no payment with this id.", "Create it first."),
    entry(
        Code::UnknownCommand,
        REJECTED,
        "The command that command.status asks about is not stored: it has not arrived, or is still in its queue.",
        "Resend the command itself with the same id.",
    ),
    entry(
        Code::PaymentArchived,
        REJECTED,
        "The payment was archived; no command can change it.",
        "Look it up in the archive; use a new payment id for a new payment.",
    ),
    entry(
        Code::NotAllowed,
        REJECTED,
        "The payment's status does not allow the command.",
        "Check the payment's status.",
    ),
    entry(
        Code::Withdrawn,
        FAILED,
        "An operator ended the command while it waited; nothing was sent to the gateway.",
        "Ask the operator why; send a new command if it is still wanted.",
    ),
    entry(
        Code::NotRetryable,
        REJECTED,
        "The operation that payment.retry names does not wait for an attempt or a look-up.",
        "Look at the payment's timeline.",
    ),
    entry(
        Code::NotWithdrawable,
        REJECTED,
        "The operation that payment.withdraw names is over, is being called, or may have reached the gateway.",
        "Look at the payment's timeline.",
    ),
    entry(
        Code::InProgress,
        REJECTED,
        "Another operation of the payment that excludes this one is still in progress.",
        "Wait for its answer.",
    ),
    entry(
        Code::TooManyWaiting,
        REJECTED,
        "A hundred commands already wait for this payment.",
        "Wait for their answers.",
    ),
    entry(
        Code::Unsupported,
        REJECTED_OR_FAILED,
        "The gateway or this version of paybus does not support this.",
        "Do without the feature.",
    ),
    entry(
        Code::Expired,
        REJECTED,
        "expirytime or the AMQP expiration of the message passed before the gateway received anything.",
        "Send a new command if it is still wanted.",
    ),
    entry(
        Code::DeadLettered,
        REJECTED,
        "The broker dead-lettered the message, because it was redelivered too often or could not be kept, before \
         processing began.",
        "Send a new command if it is still wanted, and inform the operator.",
    ),
    entry(
        Code::GatewayChanged,
        ANY,
        "The variant now uses a gateway or account other than the one the payment began with.",
        "Ask the operator.",
    ),
    entry(
        Code::UserRequired,
        REJECTED,
        "payment.resolve, payment.retry and payment.withdraw need the AMQP user_id, which the broker checks.",
        "Publish with user_id set.",
    ),
    entry(
        Code::NotAuthorized,
        REJECTED,
        "The AMQP user_id is missing, or its user may not send this command, use this source or act on this payment.",
        "Ask the operator for the permission, then resend the same command.",
    ),
    entry(
        Code::TooManyRequests,
        REJECTED,
        "Its user sends more read-only commands (payment.sync, payment.snapshot, payment.resend, events.resend, \
         command.status) per second than the operator allows.",
        "Resend the same command later, with an increasing pause.",
    ),
    entry(
        Code::NotUnknown,
        REJECTED,
        "The named operation does not wait for an operator to state its outcome.",
        "Check the payment's timeline.",
    ),
    entry(
        Code::NotGenuine,
        REJECTED,
        "The notification is not signed by the gateway with a configured secret.",
        "Compare the variant's webhook secrets with the gateway's; then send payment.sync.",
    ),
    entry(
        Code::Declined,
        FAILED,
        "The gateway declined the operation.",
        "For a charge: ask the customer for another way to pay. For a capture or refund: see gateway_code and message.",
    ),
    entry(
        Code::Refused,
        DELAYED_OR_FAILED,
        "The gateway refused the request, or an operator stated that nothing was charged. An earlier attempt that may \
         have been received is looked up.",
        "Read the message and fix the request.",
    ),
    entry(
        Code::Cancelled,
        FAILED,
        "payment.cancel ended the command before the gateway received it, or while its result was awaited.",
        "Nothing. If the gateway charged the customer nevertheless, the payment's events report it.",
    ),
    entry(
        Code::Unreachable,
        DELAYED_OR_FAILED,
        "The gateway could not be reached, or does not know the request.",
        AGAIN,
    ),
    entry(Code::Timeout, DELAYED_OR_FAILED, "The gateway did not answer in time.", AGAIN),
    entry(Code::GatewayError, DELAYED_OR_FAILED, "The gateway answered with a server error.", AGAIN),
    entry(Code::RateLimited, DELAYED_OR_FAILED, "The gateway limits the rate of requests.", AGAIN),
    entry(Code::Conflict, DELAYED_OR_FAILED, "The gateway is still processing the same request.", AGAIN),
    entry(
        Code::Misconfigured,
        DELAYED_OR_FAILED,
        "The gateway rejected paybus's credentials.",
        "The operator must fix the variant's settings; until then the operation is retried.",
    ),
    entry(Code::InvalidAnswer, DELAYED_OR_FAILED, "The gateway's answer could not be read.", AGAIN),
    entry(
        Code::Mismatch,
        DELAYED_OR_FAILED,
        "The gateway's answer does not match the request or the booked money.",
        "An operator must check it (payment.resolve if the operation's outcome is unknown).",
    ),
    entry(
        Code::WorkerLost,
        DELAYED_OR_FAILED,
        "The worker that called the gateway was lost; another one continues.",
        AGAIN,
    ),
    entry(
        Code::Held,
        DELAYED,
        "The variant's calls are paused because its gateway fails; nothing was sent.",
        "Wait, or send payment.cancel.",
    ),
    entry(
        Code::Accepted,
        DELAYED,
        "The command was already received: it is in the payment queue or in progress.",
        "Wait: its answer goes to the same place as this event.",
    ),
    entry(
        Code::Pending,
        DELAYED,
        "The gateway accepted the request or has no news yet; its result is awaited.",
        "Wait.",
    ),
    entry(
        Code::Escalated,
        DELAYED,
        "The outcome is unknown, and look-ups have not determined it so far.",
        "An operator must state what happened (payment.resolve).",
    ),
    entry(
        Code::DoubleCharge,
        FAILED,
        "The gateway took or holds money a second time for this payment; both transactions are booked. Successes may \
         have this code as well.",
        "Refund one of them: payment.refund with its reference.",
    ),
];

impl Code {
    /// The word in events.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The code of a word.
    pub fn from_word(word: &str) -> Option<Code> {
        word.parse().ok()
    }
}

/// A refusal of a command before it reached a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Why.
    pub code: Code,
    /// For a person: what is wrong and where.
    pub message: String,
}

impl Rejection {
    /// What an operator says or does is kept with who it was, and nobody is named.
    pub(crate) fn user_required() -> Rejection {
        Rejection::new(Code::UserRequired, "the AMQP user_id must name the operator")
    }

    /// The command came too late.
    pub(crate) fn expired() -> Rejection {
        Rejection::new(Code::Expired, "the command's expirytime has passed")
    }

    /// A field of `data` that is not what it must be.
    pub(super) fn invalid(field: &str, what: &str) -> Rejection {
        Rejection::new(Code::InvalidData, format!("{field}: {what}"))
    }

    /// A field of `data` that the command needs and does not have.
    pub(super) fn missing(field: &str) -> Rejection {
        Rejection::invalid(field, "is missing")
    }

    /// A rejection with its message.
    pub fn new(code: Code, message: impl Into<String>) -> Rejection {
        Rejection { code, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;

    #[test]
    fn every_code_has_one_entry() {
        let entries: Vec<Code> = CODES.iter().map(|entry| entry.code).collect();
        assert_eq!(entries, Code::iter().collect::<Vec<_>>(), "in the same order");
    }
}
