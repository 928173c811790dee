//! What an exchange with a gateway proves if it brings no result.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use super::clean::{self, MESSAGE_CHARACTERS_MAX};
use crate::error_chain::chain;
use crate::payment::code::Code;
use crate::payment::outcome::{Found, GatewayError, Outcome};

/// Maximum wait that a gateway may request: an error in its clock must not stop a payment for years.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How far a failed call may have got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// The gateway refused the request and did nothing.
    Refused,
    /// The gateway never received it, or says that it did not act.
    NotSent,
    /// It may have been received.
    Unknown,
}

/// A call without a result.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) reach: Reach,
    pub(super) error: GatewayError,
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Outcome {
        match failure.reach {
            Reach::Refused => Outcome::Refused(failure.error),
            Reach::NotSent => Outcome::NotSent(failure.error),
            Reach::Unknown => Outcome::Unknown(failure.error),
        }
    }
}

impl From<Failure> for Found {
    fn from(failure: Failure) -> Found {
        Found::Failed(failure.error)
    }
}

impl Failure {
    /// An answer that cannot be used, although the gateway may have acted.
    pub(super) fn unusable(error: GatewayError) -> Failure {
        Failure { reach: Reach::Unknown, error }
    }

    /// The call's time ran out before its next request was sent.
    pub(super) fn out_of_time() -> Failure {
        let message = "the call timed out before the next request";
        Failure { reach: Reach::NotSent, error: GatewayError::new(Code::Timeout, message) }
    }

    /// The exchange failed.
    ///
    /// `is_connect` is set only if the connector failed (name resolution, TCP, TLS, a proxy's tunnel, or a timeout of
    /// these), that is before the first byte of a request. A pooled connection that turns out to be closed is not
    /// included: hyper itself resends what provably never left its queue, and reports the rest as a failed send. A
    /// builder error occurs before anything is connected. In all other cases the request may have been received.
    pub(super) fn of_transport(error: reqwest::Error) -> Failure {
        let (reach, code, what) = if error.is_connect() || error.is_builder() {
            (Reach::NotSent, Code::Unreachable, "the gateway could not be reached")
        } else if error.is_timeout() {
            (Reach::Unknown, Code::Timeout, "the gateway did not answer in time")
        } else {
            (Reach::Unknown, Code::InvalidAnswer, "the connection broke before the answer was complete")
        };
        let message = format!("{what}: {}", chain(&error.without_url()));
        let message = clean::text(&message, MESSAGE_CHARACTERS_MAX);
        Failure { reach, error: GatewayError::new(code, message) }
    }

    /// Whether the gateway refused our credentials.
    pub(super) fn is_misconfigured(&self) -> bool {
        self.error.code == Code::Misconfigured
    }

    /// The error message, for people.
    pub(super) fn message(self) -> String {
        self.error.message
    }
}

/// How long the gateway asks us to wait: seconds or an HTTP date. An unreadable value is ignored.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until = rfc2822::parse(text).ok()?.timestamp();
            Duration::try_from(until.duration_since(now)).unwrap_or_default()
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::net::TcpListener;

    use reqwest::header::HeaderValue;

    use super::*;

    /// The message for a gateway that cannot be used at this address.
    async fn message_from(url: &str) -> String {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let error = client.get(url).send().await.expect_err("no gateway");
        Failure::of_transport(error).message()
    }

    #[tokio::test]
    async fn transport_errors_are_reported_without_the_librarys_words() {
        let refused = "the gateway could not be reached: Connection refused (os error 111)";
        assert_eq!(message_from("http://127.0.0.1:9/").await, refused);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept()?;
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")?;
            // Closing it now would reset the connection before the answer is read.
            Ok::<_, io::Error>(stream)
        });
        let plaintext = message_from(&format!("https://127.0.0.1:{port}/")).await;
        let expected = "the gateway could not be reached: the server does not speak TLS: ";
        assert!(plaintext.starts_with(expected), "{plaintext}");
        serving.join().expect("no panic").expect("an answer");
    }

    #[test]
    fn waits_are_seconds_or_dates() {
        let now: Timestamp = "1994-11-06T08:49:00Z".parse().unwrap();
        for (text, wait) in [
            ("120", Some(120)),
            ("0", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(37)),
            ("Sun, 06 Nov 1994 08:40:00 GMT", Some(0)),
            ("99999999999", Some(86_400)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).unwrap())]);
            assert_eq!(retry_after(&headers, now), wait.map(Duration::from_secs), "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
