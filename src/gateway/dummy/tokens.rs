//! The tokens of `dummy`: each plays one scenario that a checkout must handle. docs/dummy.md has a table of them, which
//! a test compares with what a worker publishes.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

use crate::payment::code::Code;
use crate::payment::outcome::Decline;
use crate::payment::status::FraudStatus;
use crate::payment::transaction::TransactionKind;

/// One token.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// Its name in `process`.
    pub word: &'static str,
    /// What a process goes through before its end.
    pub course: Course,
    /// How it ends.
    pub end: End,
    /// What comes after that.
    pub later: Later,
}

/// What a process goes through before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    /// It ends at once.
    AtOnce,
    /// The answer takes the given `seconds`.
    Slow,
    /// It is accepted; the result follows when the time has passed.
    Pending,
    /// The customer must act, and has acted when the time has passed.
    Redirect,
    /// It is received but not answered before the time has passed: a timeout or a server error.
    Unanswered(Code),
    /// Nothing is received before the time has passed.
    Unreachable,
    /// The request is refused.
    Refused,
    /// The answer does not match the request: only a person can say what happened.
    Mismatched,
    /// The customer is charged twice.
    Twice,
}

/// How a step ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Approved.
    Approved,
    /// Declined.
    Declined(&'static Reason),
}

/// The reason for a decline.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reason {
    /// The gateway's code.
    pub code: &'static str,
    /// A message suitable for the customer.
    pub message: &'static str,
    /// The kind of decline.
    pub kind: Decline,
}

/// What happens after a process has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Later {
    /// Nothing, whatever is requested.
    Nothing,
    /// Captures are declined.
    CaptureDeclined(&'static Reason),
    /// Refunds end this way. One that ends at once is not pending first.
    Refund {
        /// Whether the result comes later.
        pends: bool,
        /// How it ends.
        end: End,
    },
    /// The capture or refund is reversed when the time has passed.
    Reversed(TransactionKind),
    /// It is under review, until the gateway reaches this assessment.
    Reviewed(FraudStatus),
    /// The customer's bank takes the money back.
    Disputed,
    /// A declined process was charged after all.
    Paid,
}

const fn reason(code: &'static str, message: &'static str, kind: Decline) -> Reason {
    Reason { code, message, kind }
}

const DO_NOT_HONOR: Reason = reason("do_not_honor", "Your card was declined.", Decline::Hard);
const FUNDS: Reason = reason("insufficient_funds", "Your card has insufficient funds.", Decline::Soft);
const EXPIRED: Reason = reason("expired_card", "Your card has expired.", Decline::CustomerMustAct);
const CVC: Reason = reason("incorrect_cvc", "Your card's security code is incorrect.", Decline::CustomerMustAct);
const LOST: Reason = reason("lost_card", "Your card was declined.", Decline::Hard);
const CAPTURE: Reason = reason("capture_declined", "The authorization can no longer be captured.", Decline::Hard);
const REFUND: Reason = reason("refund_declined", "The charge cannot be refunded.", Decline::Hard);

const fn charge(word: &'static str, course: Course, end: End) -> Token {
    Token { word, course, end, later: Later::Nothing }
}

const fn paid(word: &'static str, later: Later) -> Token {
    Token { word, course: Course::AtOnce, end: End::Approved, later }
}

const fn refund(word: &'static str, pends: bool, end: End) -> Token {
    paid(word, Later::Refund { pends, end })
}

/// All tokens.
pub(super) static TOKENS: &[Token] = &[
    charge("tok_approved", Course::AtOnce, End::Approved),
    charge("tok_declined", Course::AtOnce, End::Declined(&DO_NOT_HONOR)),
    charge("tok_declined_insufficient_funds", Course::AtOnce, End::Declined(&FUNDS)),
    charge("tok_declined_expired_card", Course::AtOnce, End::Declined(&EXPIRED)),
    charge("tok_declined_incorrect_cvc", Course::AtOnce, End::Declined(&CVC)),
    charge("tok_declined_lost_card", Course::AtOnce, End::Declined(&LOST)),
    charge("tok_refused", Course::Refused, End::Approved),
    charge("tok_slow", Course::Slow, End::Approved),
    charge("tok_pending_success", Course::Pending, End::Approved),
    charge("tok_pending_failure", Course::Pending, End::Declined(&DO_NOT_HONOR)),
    charge("tok_redirect_success", Course::Redirect, End::Approved),
    charge("tok_redirect_failure", Course::Redirect, End::Declined(&DO_NOT_HONOR)),
    charge("tok_unknown_success", Course::Unanswered(Code::Timeout), End::Approved),
    charge("tok_unknown_failure", Course::Unanswered(Code::Timeout), End::Declined(&DO_NOT_HONOR)),
    charge("tok_unknown_person", Course::Mismatched, End::Approved),
    charge("tok_server_error", Course::Unanswered(Code::GatewayError), End::Approved),
    charge("tok_unreachable", Course::Unreachable, End::Approved),
    charge("tok_double_charge", Course::Twice, End::Approved),
    paid("tok_review_accepted", Later::Reviewed(FraudStatus::Accept)),
    paid("tok_review_rejected", Later::Reviewed(FraudStatus::Reject)),
    Token { word: "tok_late_success", course: Course::AtOnce, end: End::Declined(&DO_NOT_HONOR), later: Later::Paid },
    paid("tok_dispute", Later::Disputed),
    paid("tok_capture_declined", Later::CaptureDeclined(&CAPTURE)),
    paid("tok_capture_fails_later", Later::Reversed(TransactionKind::Capture)),
    refund("tok_refund_declined", false, End::Declined(&REFUND)),
    refund("tok_refund_pending_success", true, End::Approved),
    refund("tok_refund_pending_failure", true, End::Declined(&REFUND)),
    paid("tok_refund_fails_later", Later::Reversed(TransactionKind::Refund)),
];

/// Finds a token by name.
pub(super) fn find(word: &str) -> Option<&'static Token> {
    TOKENS.iter().find(|token| token.word == word)
}

/// Serializes a token as its name.
pub(super) fn serialize<S: Serializer>(token: &&'static Token, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(token.word)
}

/// Deserializes a token from its name.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'static Token, D::Error> {
    let word = String::deserialize(deserializer)?;
    find(&word).ok_or_else(|| D::Error::custom("no token of dummy's"))
}
