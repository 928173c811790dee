//! What is stored of a command for the call.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::plan::Plan;
use super::process::stored_verification;
use crate::gateway::Ask;
use crate::payment::status::Status;

/// The body of a request: everything that the answer depends on.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Written {
    /// The `process` object.
    pub data: Map<String, Value>,
    /// The result of the verification that the payment waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    verification_result: Option<String>,
    /// The token's plan, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
}

impl Written {
    pub(super) fn new(ask: &Ask<'_>) -> Written {
        let waits = ask.payment.status == Status::Input;
        let stored = stored_verification(&ask.payment.extra_data).filter(|_| waits);
        Written {
            data: ask.data.clone(),
            verification_result: stored.map(|status| status.as_str().to_owned()),
            plan: Plan::of(ask),
        }
    }

    /// Serialization only fails for maps with keys that are not strings, of which there are none.
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(super) fn verification_result(&self) -> Option<Status> {
        self.verification_result.as_deref().and_then(Status::from_word)
    }
}
