//! What an answer of another status than 200 proves, by the contract of this protocol.

use std::time::Duration;

use reqwest::StatusCode;

use super::answer;
use crate::gateway::clean::{self, MESSAGE_CHARACTERS_MAX};
use crate::gateway::failure::{Failure, Reach};
use crate::payment::code::Code;
use crate::payment::outcome::Trouble;

/// The gateway answered with another status than 200; `body` is what could be read of the answer.
pub(super) fn of_status(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> Failure {
    let (reach, code) = class(status);
    let (gateway_code, words) = answer::words_of_failure(body);
    let message = match words {
        Some(words) => format!("the gateway answered {status}: {words}"),
        None => format!("the gateway answered {status}"),
    };
    let trouble = Trouble { code, message: clean::text(&message, MESSAGE_CHARACTERS_MAX), gateway_code, retry_after };
    Failure { reach, trouble }
}

/// What a status other than 200 proves, by the contract of this protocol.
fn class(status: StatusCode) -> (Reach, Code) {
    match status.as_u16() {
        // These ask for the same request at another address, such as https for http: who answers so did not act on it,
        // and the configured address is wrong. Other redirects (302, 303) are also what a framework sends after it acted.
        301 | 307 | 308 => (Reach::NotSent, Code::Misconfigured),
        300..=399 => (Reach::Unknown, Code::Misconfigured),
        401 | 403 => (Reach::NotSent, Code::Misconfigured),
        // Some send it for their own backend's time-out.
        408 => (Reach::Unknown, Code::Timeout),
        // An earlier request under this key may be running.
        409 => (Reach::Unknown, Code::Conflict),
        425 | 429 => (Reach::NotSent, Code::RateLimited),
        400..=499 => (Reach::Refused, Code::Refused),
        500..=599 => (Reach::Unknown, Code::GatewayError),
        // 201 or 204 is no result: whatever it means there, the gateway may have acted.
        _ => (Reach::Unknown, Code::InvalidAnswer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_status_proves() {
        use Reach::{NotSent, Refused, Unknown};
        for (status, reach, code) in [
            (201, Unknown, Code::InvalidAnswer),
            (202, Unknown, Code::InvalidAnswer),
            (204, Unknown, Code::InvalidAnswer),
            (301, NotSent, Code::Misconfigured),
            (302, Unknown, Code::Misconfigured),
            (303, Unknown, Code::Misconfigured),
            (307, NotSent, Code::Misconfigured),
            (308, NotSent, Code::Misconfigured),
            (400, Refused, Code::Refused),
            (401, NotSent, Code::Misconfigured),
            (402, Refused, Code::Refused),
            (403, NotSent, Code::Misconfigured),
            (404, Refused, Code::Refused),
            (408, Unknown, Code::Timeout),
            (409, Unknown, Code::Conflict),
            (413, Refused, Code::Refused),
            (422, Refused, Code::Refused),
            (425, NotSent, Code::RateLimited),
            (429, NotSent, Code::RateLimited),
            (500, Unknown, Code::GatewayError),
            (502, Unknown, Code::GatewayError),
            (503, Unknown, Code::GatewayError),
            (599, Unknown, Code::GatewayError),
            (600, Unknown, Code::InvalidAnswer),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(class(status), (reach, code), "{status}");
        }
    }

    #[test]
    fn a_refusal_brings_the_gateways_words_scrubbed() {
        let body = br#"{"code": "no_token", "message": "no token for 4111 1111 1111 1111"}"#;
        let trouble = of_status(StatusCode::BAD_REQUEST, None, body).trouble;
        assert_eq!(trouble.gateway_code.as_deref(), Some("no_token"));
        assert!(trouble.message.starts_with("the gateway answered 400 Bad Request: no token"), "{}", trouble.message);
        assert!(!trouble.message.contains("4111"), "{}", trouble.message);
        let trouble = of_status(StatusCode::BAD_REQUEST, None, b"<html>").trouble;
        assert_eq!(trouble.message, "the gateway answered 400 Bad Request");
    }
}
