//! The `process` object of `dummy` without a token: it determines the next answer.

use std::time::Duration;

use serde_json::{Map, Value};

use super::VERIFICATION_RESULT;
use crate::payment::code::{Code, Rejection};
use crate::payment::field::quoted;
use crate::payment::status::{FraudStatus, Status};

const LATENCY_MILLISECONDS_MAX: u64 = 60_000;

/// The statuses in which a process can end.
const STATUSES: [Status; 6] =
    [Status::Input, Status::Waiting, Status::Preauth, Status::Confirmed, Status::Rejected, Status::Error];

/// How the gateway behaves, in django-payments' terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Response {
    /// `3ds-disabled`: it answers at once.
    Direct,
    /// `3ds-redirect`: the customer is redirected for verification.
    Redirect,
    /// `failure`: the network fails and nothing is received.
    Failure,
    /// `payment-error`: the request is refused.
    PaymentError,
}

/// The `process` object.
#[derive(Debug, PartialEq)]
pub(super) struct Process {
    /// The status in which to end; confirmed if omitted and no verification is pending.
    pub status: Option<Status>,
    /// The fraud status to report.
    pub fraud_status: Option<FraudStatus>,
    /// How the gateway behaves.
    pub response: Response,
    /// How the customer's verification, or a pending process, ends.
    pub verification_result: Option<Status>,
    /// Number of attempts of this operation that fail before one is received.
    pub fail_times: u32,
    /// How long the answer takes.
    pub latency: Duration,
    /// The first attempt received is carried out, but its answer is lost.
    pub lose_answer: bool,
}

impl Process {
    /// Reads the object.
    ///
    /// # Errors
    /// Names the field that is unknown or has a wrong type or value, and what is allowed.
    pub(super) fn read(data: &Map<String, Value>) -> Result<Process, Rejection> {
        let mut process = Process {
            status: None,
            fraud_status: None,
            response: Response::Direct,
            verification_result: None,
            fail_times: 0,
            latency: Duration::ZERO,
            lose_answer: false,
        };
        for (name, value) in data {
            match name.as_str() {
                "status" => process.status = Some(status(name, value, &STATUSES)?),
                "fraud_status" => process.fraud_status = Some(fraud_status(value)?),
                "gateway_response" => process.response = response(value)?,
                VERIFICATION_RESULT => process.verification_result = Some(verification(value)?),
                "fail_times" => process.fail_times = number(name, value, u32::MAX.into())? as u32,
                "latency_ms" => {
                    process.latency = Duration::from_millis(number(name, value, LATENCY_MILLISECONDS_MAX)?);
                }
                "lose_answer" => process.lose_answer = boolean(name, value)?,
                _ => {
                    let message = format!("process.{}: the dummy gateway has no such field", quoted(name));
                    return Err(Rejection::new(Code::UnknownField, message));
                }
            }
        }
        if process.response == Response::Redirect && process.verification_result.is_none() {
            return Err(invalid(VERIFICATION_RESULT, "is required with 3ds-redirect"));
        }
        Ok(process)
    }
}

pub(super) fn invalid(name: &str, what: &str) -> Rejection {
    Rejection::new(Code::InvalidData, format!("process.{name}: {what}"))
}

fn status(name: &str, value: &Value, allowed: &[Status]) -> Result<Status, Rejection> {
    let status = value.as_str().and_then(Status::from_word);
    status.filter(|status| allowed.contains(status)).ok_or_else(|| {
        let words: Vec<&str> = allowed.iter().map(|status| status.as_str()).collect();
        invalid(name, &format!("must be one of {}", words.join(", ")))
    })
}

/// Any status except the first, `input`: a verification does not redirect the customer again.
fn verification(value: &Value) -> Result<Status, Rejection> {
    status(VERIFICATION_RESULT, value, &STATUSES[1..])
}

fn fraud_status(value: &Value) -> Result<FraudStatus, Rejection> {
    value
        .as_str()
        .and_then(FraudStatus::from_word)
        .ok_or_else(|| invalid("fraud_status", "must be one of unknown, accept, reject, review"))
}

fn response(value: &Value) -> Result<Response, Rejection> {
    match value.as_str() {
        Some("3ds-disabled") => Ok(Response::Direct),
        Some("3ds-redirect") => Ok(Response::Redirect),
        Some("failure") => Ok(Response::Failure),
        Some("payment-error") => Ok(Response::PaymentError),
        _ => Err(invalid("gateway_response", "must be one of 3ds-disabled, 3ds-redirect, failure, payment-error")),
    }
}

pub(super) fn number(name: &str, value: &Value, max: u64) -> Result<u64, Rejection> {
    value
        .as_u64()
        .filter(|number| *number <= max)
        .ok_or_else(|| invalid(name, &format!("must be a whole number from 0 to {max}")))
}

fn boolean(name: &str, value: &Value) -> Result<bool, Rejection> {
    value.as_bool().ok_or_else(|| invalid(name, "must be true or false"))
}

/// The result of a verification, from a payment's `extra_data`.
pub(super) fn stored_verification(extra_data: &Map<String, Value>) -> Option<Status> {
    let word = extra_data.get(VERIFICATION_RESULT)?.as_str()?;
    Status::from_word(word)
}
