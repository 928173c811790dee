//! The codes of answers: one table, with what each means and what the publisher should do.

/// Why a command was rejected, failed or is delayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
    /// The currency is not one of ISO 4217.
    InvalidCurrency,
    /// No command of this type.
    UnknownType,
    /// No variant of this name is configured.
    UnknownVariant,
    /// The variant takes no new payments.
    VariantRetired,
    /// The routing key is not `<variant>.<type>`.
    RoutingMismatch,
    /// The routing key names another variant than the payment's.
    VariantMismatch,
    /// The same subject, source and id came before with another type or other data.
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
    /// A hundred commands wait for this payment already.
    TooManyWaiting,
    /// The gateway cannot do this.
    Unsupported,
    /// `expirytime`, or the message's expiration, passed before anything was received.
    Expired,
    /// The broker dead-lettered the message before it was begun.
    DeadLettered,
    /// The variant points at another gateway or account than the payment began with.
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
    /// The gateway declined.
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
    /// The gateway asked to slow down.
    RateLimited,
    /// The gateway is busy with the same request.
    Conflict,
    /// The gateway refused our credentials.
    Misconfigured,
    /// The gateway's answer could not be understood.
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
    /// The word in events.
    pub word: &'static str,
    /// The answers that have it.
    pub told: &'static [Told],
    /// What it means.
    pub meaning: &'static str,
    /// What the publisher should do.
    pub advice: &'static str,
}

/// The answers that have a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// `command.rejected`, as `code`.
    Rejected,
    /// `command.failed`, or the change of the payment that tells the same, as `code`.
    Failed,
    /// `command.delayed`, as `reason`.
    Delayed,
}

const REJECTED: &[Told] = &[Told::Rejected];
const FAILED: &[Told] = &[Told::Failed];
const DELAYED: &[Told] = &[Told::Delayed];
const DELAYED_OR_FAILED: &[Told] = &[Told::Delayed, Told::Failed];
const REJECTED_OR_FAILED: &[Told] = &[Told::Rejected, Told::Failed];
const ANY: &[Told] = &[Told::Rejected, Told::Delayed, Told::Failed];

/// What to do about trouble that is tried again, and may be given up.
const AGAIN: &str = "Delayed: wait, it is tried again. Failed: it was given up, with proof that nothing was done; \
                     send a new command.";

const fn entry(
    code: Code,
    word: &'static str,
    told: &'static [Told],
    meaning: &'static str,
    advice: &'static str,
) -> CodeEntry {
    CodeEntry { code, word, told, meaning, advice }
}

/// Every code.
pub const CODES: &[CodeEntry] = &[
    entry(
        Code::InvalidEnvelope,
        "invalid_envelope",
        REJECTED,
        "An attribute of the envelope is missing, given twice, wrong, or belongs in data; or reply_to is not allowed.",
        "Mend the message; send it under a new id.",
    ),
    entry(
        Code::InvalidEncoding,
        "invalid_encoding",
        REJECTED,
        "The message is not UTF-8, or a text holds a NUL character.",
        "Mend the message; send it under a new id.",
    ),
    entry(
        Code::TooLarge,
        "too_large",
        REJECTED,
        "The body is over 1 MiB, or data has more than 10000 commas and opening brackets outside of its texts.",
        "Send less.",
    ),
    entry(Code::TooDeep, "too_deep", REJECTED, "data is nested deeper than 16 levels.", "Flatten it."),
    entry(
        Code::CardNumber,
        "card_number",
        REJECTED,
        "A card number stands in the command; nothing of it was kept.",
        "Send the gateway's token instead.",
    ),
    entry(
        Code::InvalidData,
        "invalid_data",
        REJECTED,
        "data or a field of it is missing, given twice, of a wrong type or too long.",
        "Mend the named field; send it under a new id.",
    ),
    entry(
        Code::UnknownField,
        "unknown_field",
        REJECTED,
        "data has a field that this command does not have, or process one that its gateway does not.",
        "Remove the named field.",
    ),
    entry(
        Code::InvalidAmount,
        "invalid_amount",
        REJECTED,
        "An amount is zero, null, not a decimal string, more than is available, or has more decimals than its currency.",
        "Mend the amount.",
    ),
    entry(
        Code::InvalidCurrency,
        "invalid_currency",
        REJECTED,
        "The currency is not one of ISO 4217.",
        "Use the three-letter code in capitals.",
    ),
    entry(
        Code::UnknownType,
        "unknown_type",
        REJECTED,
        "There is no command of this type.",
        "Look the type up in the contract.",
    ),
    entry(
        Code::UnknownVariant,
        "unknown_variant",
        REJECTED,
        "No variant of this name is configured.",
        "Use a configured variant.",
    ),
    entry(
        Code::VariantRetired,
        "variant_retired",
        REJECTED,
        "The variant takes no new payments.",
        "Use another variant.",
    ),
    entry(
        Code::RoutingMismatch,
        "routing_mismatch",
        REJECTED,
        "The routing key is not <variant>.<type>, or data.variant is another one.",
        "Publish with the right routing key.",
    ),
    entry(
        Code::VariantMismatch,
        "variant_mismatch",
        REJECTED,
        "The routing key names another variant than the payment's.",
        "Route by the payment's variant.",
    ),
    entry(
        Code::IdReused,
        "id_reused",
        REJECTED,
        "The same subject, source and id came before with another type or other data.",
        "Use a new id for a new command.",
    ),
    entry(Code::AlreadyExists, "already_exists", REJECTED, "A payment of this id exists.", "Use a new payment id."),
    entry(Code::UnknownPayment, "unknown_payment", REJECTED, "There is no payment of this id.", "Create it first."),
    entry(
        Code::UnknownCommand,
        "unknown_command",
        REJECTED,
        "Nothing is stored of the command that command.status asks after: it has not arrived, or is still in its queue.",
        "Send the command itself again, under the same id.",
    ),
    entry(
        Code::PaymentArchived,
        "payment_archived",
        REJECTED,
        "The payment was archived; nothing more is done for it.",
        "Look it up in the archive; use a new payment id for a new payment.",
    ),
    entry(
        Code::NotAllowed,
        "not_allowed",
        REJECTED,
        "The payment's status does not allow the command.",
        "Look at the payment's status.",
    ),
    entry(
        Code::Withdrawn,
        "withdrawn",
        FAILED,
        "An operator ended the command while it waited; nothing was sent to the gateway.",
        "Ask the operator why; send a new command if it is still wanted.",
    ),
    entry(
        Code::NotRetryable,
        "not_retryable",
        REJECTED,
        "The operation that payment.retry names does not wait for an attempt or a look-up.",
        "Look at the payment's timeline.",
    ),
    entry(
        Code::NotWithdrawable,
        "not_withdrawable",
        REJECTED,
        "The operation that payment.withdraw names is over, is being called, or may have reached the gateway.",
        "Look at the payment's timeline.",
    ),
    entry(
        Code::InProgress,
        "in_progress",
        REJECTED,
        "An operation of the payment that this one must not run beside is still going on.",
        "Wait for its answer.",
    ),
    entry(
        Code::TooManyWaiting,
        "too_many_waiting",
        REJECTED,
        "A hundred commands wait for this payment already.",
        "Wait for their answers.",
    ),
    entry(
        Code::Unsupported,
        "unsupported",
        REJECTED_OR_FAILED,
        "The gateway, or this version, cannot do this.",
        "Do without it.",
    ),
    entry(
        Code::Expired,
        "expired",
        REJECTED,
        "expirytime, or the AMQP expiration of the message, passed before the gateway had received anything.",
        "Send a new command if it is still wanted.",
    ),
    entry(
        Code::DeadLettered,
        "dead_lettered",
        REJECTED,
        "The broker delivered the message too often, or could not keep it, and nothing was begun; it is a dead letter.",
        "Send a new command if it is still wanted; tell the operator.",
    ),
    entry(
        Code::GatewayChanged,
        "gateway_changed",
        ANY,
        "The variant points at another gateway or account than the payment began with.",
        "Ask the operator.",
    ),
    entry(
        Code::UserRequired,
        "user_required",
        REJECTED,
        "payment.resolve, payment.retry and payment.withdraw need the AMQP user_id, which the broker checks.",
        "Publish with user_id set.",
    ),
    entry(
        Code::NotAuthorized,
        "not_authorized",
        REJECTED,
        "The AMQP user_id is missing, or its user may not send such a command, under that source or for that payment.",
        "Ask the operator for the right; the same command may then be sent again.",
    ),
    entry(
        Code::TooManyRequests,
        "too_many_requests",
        REJECTED,
        "Its user sends more commands that only ask (payment.sync, payment.snapshot, payment.resend, events.resend, \
         command.status) than the operator allows a second.",
        "Send the same command again later; pause for longer each time.",
    ),
    entry(
        Code::NotUnknown,
        "not_unknown",
        REJECTED,
        "The named operation is not waiting for a person to state its outcome.",
        "Look at the payment's timeline.",
    ),
    entry(
        Code::NotGenuine,
        "not_genuine",
        REJECTED,
        "The gateway did not send this notification, or not with a secret that is configured.",
        "Compare the variant's webhook secrets with the gateway's; then send payment.sync.",
    ),
    entry(
        Code::Declined,
        "declined",
        FAILED,
        "The gateway declined.",
        "Of a charge: ask the customer for another way to pay. Of a capture or refund: see gateway_code and message.",
    ),
    entry(
        Code::Refused,
        "refused",
        DELAYED_OR_FAILED,
        "The gateway refused the request, or a person said that nothing was charged; an earlier try that may have been \
         received is looked up.",
        "Read the message; mend the request.",
    ),
    entry(
        Code::Cancelled,
        "cancelled",
        FAILED,
        "payment.cancel ended the command: before the gateway had received it, or while its result was awaited.",
        "Nothing. Should the gateway have charged all the same, the payment's events tell it.",
    ),
    entry(
        Code::Unreachable,
        "unreachable",
        DELAYED_OR_FAILED,
        "The gateway could not be reached, or knows nothing of the request.",
        AGAIN,
    ),
    entry(Code::Timeout, "timeout", DELAYED_OR_FAILED, "The gateway did not answer in time.", AGAIN),
    entry(Code::GatewayError, "gateway_error", DELAYED_OR_FAILED, "The gateway answered with a server error.", AGAIN),
    entry(Code::RateLimited, "rate_limited", DELAYED_OR_FAILED, "The gateway asked to slow down.", AGAIN),
    entry(Code::Conflict, "conflict", DELAYED_OR_FAILED, "The gateway is busy with the same request.", AGAIN),
    entry(
        Code::Misconfigured,
        "misconfigured",
        DELAYED_OR_FAILED,
        "The gateway refused paybus's credentials.",
        "The operator must mend the variant; until then it is tried again.",
    ),
    entry(
        Code::InvalidAnswer,
        "invalid_answer",
        DELAYED_OR_FAILED,
        "The gateway's answer could not be understood.",
        AGAIN,
    ),
    entry(
        Code::Mismatch,
        "mismatch",
        DELAYED_OR_FAILED,
        "What the gateway says does not fit what was asked, or the money that is booked.",
        "A person must look at it (payment.resolve, where an operation is unknown).",
    ),
    entry(
        Code::WorkerLost,
        "worker_lost",
        DELAYED_OR_FAILED,
        "The worker that called the gateway was lost; another goes on.",
        AGAIN,
    ),
    entry(
        Code::Held,
        "held",
        DELAYED,
        "The variant's calls are held back, because its gateway fails; nothing was sent.",
        "Wait, or payment.cancel.",
    ),
    entry(
        Code::Accepted,
        "accepted",
        DELAYED,
        "The command came again: it is stored, and waits for its turn or is being carried out.",
        "Wait: its answer comes to where this one came.",
    ),
    entry(
        Code::Pending,
        "pending",
        DELAYED,
        "The gateway accepted, or has no news yet; its result is awaited.",
        "Wait.",
    ),
    entry(
        Code::Escalated,
        "escalated",
        DELAYED,
        "The outcome is unknown, and no look-up has brought it so far.",
        "A person must say what happened (payment.resolve).",
    ),
    entry(
        Code::DoubleCharge,
        "double_charge",
        FAILED,
        "The gateway took or holds money a second time for this payment; both are booked. A success may say so.",
        "Refund one of them: payment.refund with its reference.",
    ),
];

impl Code {
    /// The word in events.
    pub fn as_str(self) -> &'static str {
        self.entry().map_or("unknown", |entry| entry.word)
    }

    /// The code of a word.
    pub fn from_word(word: &str) -> Option<Code> {
        CODES.iter().find(|entry| entry.word == word).map(|entry| entry.code)
    }

    /// The code's row of the table.
    pub fn entry(self) -> Option<&'static CodeEntry> {
        CODES.iter().find(|entry| entry.code == self)
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
    use super::*;

    #[test]
    fn words_are_unique_and_read_back() {
        for entry in CODES {
            assert_eq!(Code::from_word(entry.word), Some(entry.code));
            assert_eq!(entry.code.as_str(), entry.word);
        }
    }

    /// What is not in the table would be told as "unknown".
    #[test]
    fn every_code_has_its_row() {
        let source = include_str!("code.rs");
        let body = source.split("pub enum Code {").nth(1).and_then(|rest| rest.split("\n}").next()).unwrap();
        let names = body.lines().map(str::trim).filter(|line| !line.starts_with("//") && !line.is_empty());
        let declared: Vec<&str> = names.map(|line| line.trim_end_matches(',')).collect();
        let rows: Vec<String> = CODES.iter().map(|entry| format!("{:?}", entry.code)).collect();
        assert_eq!(declared, rows, "in the order of the table");
    }
}
