//! Statuses of a payment and the one table of the ways between them.

use std::fmt;

/// Where a payment stands; the words are django-payments'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Waiting for its process, or for the gateway to finish it.
    Waiting,
    /// The customer must act, at `redirect_url`.
    Input,
    /// Authorized, not captured.
    Preauth,
    /// Money is captured.
    Confirmed,
    /// The gateway declined.
    Rejected,
    /// Nothing is left of what was captured or authorized.
    Refunded,
    /// Refused as a request, or given up with proof that nothing was charged.
    Error,
    /// Cancelled before any money moved.
    Cancelled,
}

impl Status {
    /// Every status.
    pub const ALL: [Status; 8] = [
        Status::Waiting,
        Status::Input,
        Status::Preauth,
        Status::Confirmed,
        Status::Rejected,
        Status::Refunded,
        Status::Error,
        Status::Cancelled,
    ];

    /// The word in messages and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Waiting => "waiting",
            Status::Input => "input",
            Status::Preauth => "preauth",
            Status::Confirmed => "confirmed",
            Status::Rejected => "rejected",
            Status::Refunded => "refunded",
            Status::Error => "error",
            Status::Cancelled => "cancelled",
        }
    }

    /// The status of a word.
    pub fn from_word(word: &str) -> Option<Status> {
        Status::ALL.into_iter().find(|status| status.as_str() == word)
    }

    /// Whether the table below has a way from here to `to` for this cause.
    pub fn may_become(self, to: Status, cause: Cause) -> bool {
        TRANSITIONS
            .iter()
            .any(|(from, targets, causes)| *from == self && targets.contains(&to) && causes.contains(&cause))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// What moves a payment from one status to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The payment's own process, as the gateway answered it.
    Process,
    /// A cancel that the gateway took.
    Cancel,
    /// A capture of an authorization.
    Capture,
    /// A release of an authorization.
    Release,
    /// A refund that leaves nothing.
    Refund,
    /// What the gateway says by itself: a look-up, a notification, a late answer.
    Proof,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Cause; 6] =
        [Cause::Process, Cause::Cancel, Cause::Capture, Cause::Release, Cause::Refund, Cause::Proof];
}

use Cause as By;
use Status::{Cancelled, Confirmed, Error, Input, Preauth, Refunded, Rejected, Waiting};

/// Every allowed transition; what is not here is recorded and ignored as a status.
const TRANSITIONS: &[(Status, &[Status], &[Cause])] = &[
    (Waiting, &[Input, Preauth, Confirmed, Rejected, Error], &[By::Process, By::Proof]),
    (Waiting, &[Cancelled], &[By::Cancel, By::Proof]),
    (Input, &[Waiting, Preauth, Confirmed, Rejected, Error], &[By::Process, By::Proof]),
    (Input, &[Cancelled], &[By::Cancel, By::Proof]),
    // A new process begins anew, because the earlier one is proved closed.
    (Rejected, &[Input, Waiting, Preauth, Confirmed, Error], &[By::Process]),
    (Error, &[Input, Waiting, Preauth, Confirmed, Rejected], &[By::Process]),
    (Rejected, &[Preauth, Confirmed], &[By::Proof]),
    (Error, &[Preauth, Confirmed], &[By::Proof]),
    // A release of what several captures left.
    (Preauth, &[Confirmed], &[By::Capture, By::Release, By::Proof]),
    (Preauth, &[Refunded], &[By::Release, By::Proof]),
    (Confirmed, &[Refunded], &[By::Refund, By::Proof]),
    // What was captured never arrived: the settlement failed.
    (Confirmed, &[Rejected], &[By::Proof]),
    // A cancel that overtook a capture, once the gateway's own figures say that nothing was taken.
    (Preauth, &[Cancelled], &[By::Cancel]),
    (Confirmed, &[Cancelled], &[By::Cancel]),
    // A refund failed later, or money is there after all: only the gateway's word undoes an end.
    (Refunded, &[Confirmed], &[By::Proof]),
    (Cancelled, &[Preauth, Confirmed], &[By::Proof]),
];

/// What the gateway thinks of fraud; the words are django-payments'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FraudStatus {
    /// The gateway said nothing.
    Unknown,
    /// No fraud was found.
    Accept,
    /// Taken for fraud.
    Reject,
    /// Marked for a review by a person.
    Review,
}

impl FraudStatus {
    /// Every fraud status.
    pub const ALL: [FraudStatus; 4] =
        [FraudStatus::Unknown, FraudStatus::Accept, FraudStatus::Reject, FraudStatus::Review];

    /// The word in messages and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            FraudStatus::Unknown => "unknown",
            FraudStatus::Accept => "accept",
            FraudStatus::Reject => "reject",
            FraudStatus::Review => "review",
        }
    }

    /// The fraud status of a word.
    pub fn from_word(word: &str) -> Option<FraudStatus> {
        FraudStatus::ALL.into_iter().find(|status| status.as_str() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the contract once more, as a picture: rows from, columns to, in the order of `Status::ALL`. Each
    /// letter is a cause: p process, x cancel, c capture, v release, r refund, g the gateway's proof.
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
            for (to, allowed) in Status::ALL.into_iter().zip(row) {
                for cause in Cause::ALL {
                    assert_eq!(
                        from.may_become(to, cause),
                        allowed.contains(letter(cause)),
                        "{from} to {to} by {cause:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn words_read_back() {
        for status in Status::ALL {
            assert_eq!(Status::from_word(status.as_str()), Some(status));
        }
        for status in FraudStatus::ALL {
            assert_eq!(FraudStatus::from_word(status.as_str()), Some(status));
        }
        assert_eq!(Status::from_word("bogus"), None);
    }
}
