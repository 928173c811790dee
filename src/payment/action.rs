//! Actions that a gateway carries out.

use strum::{Display, IntoStaticStr};

use super::transaction::TransactionKind;

/// An action on a payment at its gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Display, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Action {
    /// Charge or authorize.
    Process,
    /// Take authorized money.
    Capture,
    /// Release (void) an authorization.
    Release,
    /// Refund money.
    Refund,
    /// End a payment before any money moved.
    Cancel,
}

impl Action {
    /// The action's name in gateway URLs and in metrics.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Returns the kind of transaction that the action causes, `None` if it moves no money. `captures`: whether a
    /// process captures at once.
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
