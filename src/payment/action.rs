//! What a gateway is asked to do.

use std::fmt;

use super::transaction::TransactionKind;

/// What a gateway can be asked to do with a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Charge or authorize.
    Process,
    /// Take authorized money.
    Capture,
    /// Let an authorization go.
    Release,
    /// Give money back.
    Refund,
    /// End a payment before money moved.
    Cancel,
}

impl Action {
    /// The word in a gateway's address and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Process => "process",
            Action::Capture => "capture",
            Action::Release => "release",
            Action::Refund => "refund",
            Action::Cancel => "cancel",
        }
    }

    /// What it does with money; a process as it `captures` at once or not.
    pub fn moves(self, captures: bool) -> Option<TransactionKind> {
        match self {
            Action::Process if captures => Some(TransactionKind::Capture),
            Action::Process => Some(TransactionKind::Authorization),
            Action::Capture => Some(TransactionKind::Capture),
            Action::Release => Some(TransactionKind::Void),
            Action::Refund => Some(TransactionKind::Refund),
            Action::Cancel => None,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}
