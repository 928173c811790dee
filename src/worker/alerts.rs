//! Alerts for what needs somebody's attention at once: a log line, and a counter by kind. The log line carries ids, the
//! metric labels do not, and neither carries an amount.

use tracing::{error, warn};

use crate::payment::code::Code;
use crate::payment::event::{Event, EventKind, Reason};
use crate::payment::status::Status;
use crate::telemetry::metrics::{self, Alert};

/// Raises the alerts of an event that was just stored.
pub fn raise(event: &Event) {
    for alert in alerts(&event.kind) {
        metrics::alert(&event.variant, alert);
        let payment = event.payment_id;
        let operation = event.cause.as_ref().map(|cause| cause.name.operation_id(&cause.subject)).unwrap_or_default();
        let code = code(&event.kind).map(Code::as_str).unwrap_or_default();
        match alert {
            Alert::Discrepancy => {
                warn!(%payment, %operation, code, "the gateway's amounts differ from those requested or booked");
            }
            Alert::Escalated => {
                error!(
                    %payment,
                    %operation,
                    code,
                    "the outcome of an operation is unknown; an operator must resolve it"
                );
            }
            Alert::MoneyAfterCancel => {
                error!(%payment, %operation, code, "money was taken or held for a cancelled payment");
            }
            Alert::DoubleCharge => {
                error!(
                    %payment,
                    %operation,
                    "the gateway took or holds money a second time; both transactions are booked: refund one of them \
                     by its reference"
                );
            }
        }
    }
}

fn alerts(kind: &EventKind) -> Vec<Alert> {
    let of_money = |why: &Reason| {
        let double = (why.code == Some(Code::DoubleCharge)).then_some(Alert::DoubleCharge);
        double.into_iter().chain(why.discrepancy.map(|_| Alert::Discrepancy))
    };
    match kind {
        EventKind::StatusChanged { previous, why, .. } => {
            // A payment leaves `cancelled` only on the gateway's proof of money.
            let after_cancel = (*previous == Status::Cancelled).then_some(Alert::MoneyAfterCancel);
            after_cancel.into_iter().chain(of_money(why)).collect()
        }
        EventKind::Updated { why, .. } | EventKind::Failed { why, .. } => of_money(why).collect(),
        EventKind::Delayed { reason: Code::Escalated | Code::Mismatch, .. } => vec![Alert::Escalated],
        EventKind::Delayed { .. }
        | EventKind::Created { .. }
        | EventKind::Rejected { .. }
        | EventKind::Succeeded { .. }
        | EventKind::Snapshot { .. }
        | EventKind::EventsResent(_)
        | EventKind::PauseChanged(_) => Vec::new(),
    }
}

fn code(kind: &EventKind) -> Option<Code> {
    match kind {
        EventKind::StatusChanged { why, .. } | EventKind::Updated { why, .. } | EventKind::Failed { why, .. } => {
            why.code
        }
        EventKind::Rejected { code, .. } | EventKind::Delayed { reason: code, .. } => Some(*code),
        EventKind::Created { .. }
        | EventKind::Succeeded { .. }
        | EventKind::Snapshot { .. }
        | EventKind::EventsResent(_)
        | EventKind::PauseChanged(_) => None,
    }
}
