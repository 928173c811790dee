//! What a gateway's webhook tells: facts, of which none changes a payment by its word. They say where to look.

use uuid::Uuid;

/// One thing that a webhook tells, of one payment. The gateway is asked for the truth about it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fact {
    /// The gateway's id of the event: the same fact told again has the same. Nothing where the gateway gives none.
    pub key: Option<String>,
    /// The payment it is about, where the webhook carries our reference.
    pub payment_id: Option<Uuid>,
    /// The operation of ours it is about, where the webhook carries that.
    pub operation_id: Option<Uuid>,
    /// What the gateway calls the thing it is about, by which it can be asked whose it is.
    pub reference: Option<String>,
    /// The gateway's word for what happened: for logs, never for a decision.
    pub kind: String,
}
