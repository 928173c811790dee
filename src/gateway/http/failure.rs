//! What an answer with a status other than 200 proves, by the contract of this protocol.

use std::time::Duration;

use reqwest::StatusCode;

use super::answer::{self, Words};
use crate::gateway::clean::{self, MESSAGE_CHARACTERS_MAX};
use crate::gateway::failure::{Failure, Reach};
use crate::payment::code::Code;
use crate::payment::outcome::GatewayError;

/// Classifies an answer with a status other than 200; `body` is as much of it as could be read.
pub(super) fn of_status(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> Failure {
    let words = answer::words_of_failure(body);
    let (reach, code) = class(status, &words);
    let mut message = format!("the gateway answered {status}");
    if let Some(said) = &words.message {
        message = format!("{message}: {said}");
    } else if status.is_client_error() && code == Code::InvalidAnswer {
        message.push_str(" without a JSON error; it may come from a proxy and proves nothing");
    }
    let message = clean::text(&message, MESSAGE_CHARACTERS_MAX);
    Failure { reach, error: GatewayError { code, message, gateway_code: words.code, retry_after } }
}

/// Classifies a status together with what the body says.
fn class(status: StatusCode, words: &Words) -> (Reach, Code) {
    match by_status(status, words.is_protocol) {
        // Status and body contradict each other about money.
        (Reach::Refused | Reach::NotSent, _) if words.claims_success => (Reach::Unknown, Code::InvalidAnswer),
        proved => proved,
    }
}

/// Only the gateway's own answer ends a command: an ingress without a route also answers 404, with a page or an empty
/// body, and some inspect the gateway's answer and replace it with their own 403.
fn by_status(status: StatusCode, is_protocol: bool) -> (Reach, Code) {
    match status.as_u16() {
        // These redirect the same request to another address, such as https instead of http: the server did not act on
        // it, and the configured address is wrong. Frameworks also send other redirects (302, 303) after acting.
        301 | 307 | 308 => (Reach::NotSent, Code::Misconfigured),
        300..=399 => (Reach::Unknown, Code::Misconfigured),
        // From any server: by HTTP itself (RFC 9110) the request was not applied.
        401 => (Reach::NotSent, Code::Misconfigured),
        403 if is_protocol => (Reach::NotSent, Code::Misconfigured),
        403 => (Reach::Unknown, Code::Misconfigured),
        // Some servers send it for a timeout of their own backend.
        408 => (Reach::Unknown, Code::Timeout),
        // An earlier request under this key may still be running.
        409 => (Reach::Unknown, Code::Conflict),
        // Any server that sends these does so before passing the request on.
        425 | 429 => (Reach::NotSent, Code::RateLimited),
        400..=499 if is_protocol => (Reach::Refused, Code::Refused),
        400..=499 => (Reach::Unknown, Code::InvalidAnswer),
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
        for (status, by_the_gateway, by_anybody) in [
            (201, (Unknown, Code::InvalidAnswer), (Unknown, Code::InvalidAnswer)),
            (202, (Unknown, Code::InvalidAnswer), (Unknown, Code::InvalidAnswer)),
            (204, (Unknown, Code::InvalidAnswer), (Unknown, Code::InvalidAnswer)),
            (301, (NotSent, Code::Misconfigured), (NotSent, Code::Misconfigured)),
            (302, (Unknown, Code::Misconfigured), (Unknown, Code::Misconfigured)),
            (303, (Unknown, Code::Misconfigured), (Unknown, Code::Misconfigured)),
            (307, (NotSent, Code::Misconfigured), (NotSent, Code::Misconfigured)),
            (308, (NotSent, Code::Misconfigured), (NotSent, Code::Misconfigured)),
            (400, (Refused, Code::Refused), (Unknown, Code::InvalidAnswer)),
            (401, (NotSent, Code::Misconfigured), (NotSent, Code::Misconfigured)),
            (402, (Refused, Code::Refused), (Unknown, Code::InvalidAnswer)),
            (403, (NotSent, Code::Misconfigured), (Unknown, Code::Misconfigured)),
            (404, (Refused, Code::Refused), (Unknown, Code::InvalidAnswer)),
            (405, (Refused, Code::Refused), (Unknown, Code::InvalidAnswer)),
            (408, (Unknown, Code::Timeout), (Unknown, Code::Timeout)),
            (409, (Unknown, Code::Conflict), (Unknown, Code::Conflict)),
            (413, (Refused, Code::Refused), (Unknown, Code::InvalidAnswer)),
            (422, (Refused, Code::Refused), (Unknown, Code::InvalidAnswer)),
            (425, (NotSent, Code::RateLimited), (NotSent, Code::RateLimited)),
            (429, (NotSent, Code::RateLimited), (NotSent, Code::RateLimited)),
            (500, (Unknown, Code::GatewayError), (Unknown, Code::GatewayError)),
            (503, (Unknown, Code::GatewayError), (Unknown, Code::GatewayError)),
            (599, (Unknown, Code::GatewayError), (Unknown, Code::GatewayError)),
            (600, (Unknown, Code::InvalidAnswer), (Unknown, Code::InvalidAnswer)),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let proved = |body: &str| {
                let failure = of_status(status, None, body.as_bytes());
                (failure.reach, failure.error.code)
            };
            for body in [r#"{"message": "no"}"#, r#"{"code": 51}"#, "\u{feff}{\"message\": \"half: \\ud83d\"}"] {
                assert_eq!(proved(body), by_the_gateway, "{status} {body}");
            }
            for body in
                ["", "<html>404</html>", "404 page not found", "{}", "[]", "null", "{\"detail\": \"Not Found\"}"]
            {
                assert_eq!(proved(body), by_anybody, "{status} {body}");
            }
            // The body contradicts the status.
            for body in [r#"{"result": "approved"}"#, r#"{"result": "pending", "message": "wait"}"#] {
                assert_eq!(proved(body).0, Unknown, "{status} {body}");
            }
        }
    }

    #[test]
    fn an_answer_without_json_is_reported_as_such() {
        let error = of_status(StatusCode::NOT_FOUND, None, b"<html>").error;
        assert!(error.message.contains("404 Not Found without a JSON error"), "{}", error.message);
        let error = of_status(StatusCode::SERVICE_UNAVAILABLE, None, b"<html>").error;
        assert_eq!(error.message, "the gateway answered 503 Service Unavailable");
    }

    #[test]
    fn a_refusal_brings_the_gateways_words_scrubbed() {
        let body = br#"{"code": "no_token", "message": "no token for 4111 1111 1111 1111"}"#;
        let error = of_status(StatusCode::BAD_REQUEST, None, body).error;
        assert_eq!(error.gateway_code.as_deref(), Some("no_token"));
        assert!(error.message.starts_with("the gateway answered 400 Bad Request: no token"), "{}", error.message);
        assert!(!error.message.contains("4111"), "{}", error.message);
    }
}
