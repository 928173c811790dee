//! Payment statuses and the table of their transitions.

use strum::{Display, EnumIter, EnumString, IntoStaticStr};

/// The status of a payment, in django-payments' terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Display, EnumIter, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Status {
    /// Waiting for its process, or for the gateway to complete it.
    Waiting,
    /// The customer must act, at `redirect_url`.
    Input,
    /// Authorized, not captured.
    Preauth,
    /// Money is captured.
    Confirmed,
    /// The gateway declined.
    Rejected,
    /// Nothing remains of what was captured or authorized.
    Refunded,
    /// The request was refused, or given up with proof that nothing was charged.
    Error,
    /// Cancelled before any money moved.
    Cancelled,
}

impl Status {
    /// The word in messages and in the database.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Parses a status.
    pub fn from_word(word: &str) -> Option<Status> {
        word.parse().ok()
    }

    /// Whether the table below allows the transition to `to` for this cause.
    pub fn may_become(self, to: Status, cause: Cause) -> bool {
        TRANSITIONS
            .iter()
            .any(|(from, targets, causes)| *from == self && targets.contains(&to) && causes.contains(&cause))
    }
}

/// What causes a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumIter)]
pub enum Cause {
    /// The result of the payment's own process.
    Process,
    /// A cancel accepted by the gateway.
    Cancel,
    /// A capture of an authorization.
    Capture,
    /// A release of an authorization.
    Release,
    /// A refund that leaves nothing.
    Refund,
    /// What the gateway reports otherwise: a look-up, a notification, a late answer.
    Proof,
}

use Cause as By;
use Status::{Cancelled, Confirmed, Error, Input, Preauth, Refunded, Rejected, Waiting};

/// All allowed transitions. Any other is recorded without changing the status.
const TRANSITIONS: &[(Status, &[Status], &[Cause])] = &[
    (Waiting, &[Input, Preauth, Confirmed, Rejected, Error], &[By::Process, By::Proof]),
    (Waiting, &[Cancelled], &[By::Cancel, By::Proof]),
    (Input, &[Waiting, Preauth, Confirmed, Rejected, Error], &[By::Process, By::Proof]),
    (Input, &[Cancelled], &[By::Cancel, By::Proof]),
    // A new process starts over, because the earlier one is proved closed.
    (Rejected, &[Input, Waiting, Preauth, Confirmed, Error], &[By::Process]),
    (Error, &[Input, Waiting, Preauth, Confirmed, Rejected], &[By::Process]),
    (Rejected, &[Preauth, Confirmed], &[By::Proof]),
    (Error, &[Preauth, Confirmed], &[By::Proof]),
    // A release of what several captures left over.
    (Preauth, &[Confirmed], &[By::Capture, By::Release, By::Proof]),
    (Preauth, &[Refunded], &[By::Release, By::Proof]),
    (Confirmed, &[Refunded], &[By::Refund, By::Proof]),
    // The captured money never arrived: settlement failed.
    (Confirmed, &[Rejected], &[By::Proof]),
    // A cancel that overtook a capture, once the gateway's own figures say that nothing was captured.
    (Preauth, &[Cancelled], &[By::Cancel]),
    (Confirmed, &[Cancelled], &[By::Cancel]),
    // A refund failed later, or there is money after all: only the gateway's statement undoes a final status.
    (Refunded, &[Confirmed], &[By::Proof]),
    (Cancelled, &[Preauth, Confirmed], &[By::Proof]),
];

/// The gateway's fraud assessment, in django-payments' terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumIter, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum FraudStatus {
    /// The gateway said nothing.
    Unknown,
    /// No fraud was found.
    Accept,
    /// Considered fraud.
    Reject,
    /// Flagged for review by a person.
    Review,
}

impl FraudStatus {
    /// The word in messages and in the database.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Parses a fraud status.
    pub fn from_word(word: &str) -> Option<FraudStatus> {
        word.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;

    /// The contract's table again, as a picture: rows from, columns to, in the order of `Status`. Each letter is a
    /// cause: p process, x cancel, c capture, v release, r refund, g proof by the gateway.
    const PICTURE: [(Status, [&str; 8]); 8] = [
        //          waiting input preauth confirmed rejected refunded error cancelled
        (Waiting, ["", "pg", "pg", "pg", "pg", "", "pg", "xg"]),
        (Input, ["pg", "", "pg", "pg", "pg", "", "pg", "xg"]),
        (Preauth, ["", "", "", "cvg", "", "vg", "", "x"]),
        (Confirmed, ["", "", "", "", "g", "rg", "", "x"]),
        (Rejected, ["p", "p", "pg", "pg", "", "", "p", ""]),
        (Refunded, ["", "", "", "g", "", "", "", ""]),
        (Error, ["p", "p", "pg", "pg", "p", "", "", ""]),
        (Cancelled, ["", "", "g", "g", "", "", "", ""]),
    ];

    #[test]
    fn every_pair_of_statuses_and_causes() {
        let letter = |cause| match cause {
            Cause::Process => 'p',
            Cause::Cancel => 'x',
            Cause::Capture => 'c',
            Cause::Release => 'v',
            Cause::Refund => 'r',
            Cause::Proof => 'g',
        };
        for (from, row) in PICTURE {
            for (to, allowed) in Status::iter().zip(row) {
                for cause in Cause::iter() {
                    assert_eq!(
                        from.may_become(to, cause),
                        allowed.contains(letter(cause)),
                        "{from} to {to} by {cause:?}"
                    );
                }
            }
        }
    }
}
