//! Webhook signatures of the form `t=UNIX,v1=HEX[,v1=HEX]`: HMAC-SHA256 of `{t}.{body}`. Used by Stripe and by `http`
//! gateways.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha2::Sha256;

use super::client::BuildError;
use super::notification::{NotGenuine, TOLERANCE, Webhook};

/// The signature scheme that counts; others are ignored.
const SCHEME: &str = "v1";

/// Length of a signature, in bytes.
const SIGNATURE: usize = 32;

/// Maximum number of signatures: no secret rotation needs more.
const SIGNATURES_MAX: usize = 8;

/// The secrets with which webhooks may be signed: one, or several during rotation. A single string, such as an
/// environment variable, is split at commas.
#[derive(Clone, Default, Deserialize)]
#[serde(from = "OneOrMany")]
pub struct WebhookSecrets(Vec<SecretString>);

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl From<OneOrMany> for WebhookSecrets {
    fn from(given: OneOrMany) -> WebhookSecrets {
        let secrets = match given {
            OneOrMany::One(secrets) => secrets.split(',').map(|secret| secret.trim().to_owned()).collect(),
            OneOrMany::Many(secrets) => secrets,
        };
        WebhookSecrets(secrets.into_iter().map(SecretString::from).collect())
    }
}

impl WebhookSecrets {
    /// Whether there are no secrets, and therefore no webhooks.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Rejects empty secrets, with which anyone could sign.
    ///
    /// # Errors
    /// A secret is empty.
    pub(super) fn check(&self) -> Result<(), BuildError> {
        if self.iter().any(|secret| secret.expose_secret().is_empty()) {
            let wrong = "must not be empty; omit it if there are no webhooks";
            return Err(BuildError::Setting { key: "webhook_secret", wrong });
        }
        Ok(())
    }

    /// All secrets.
    pub fn iter(&self) -> impl Iterator<Item = &SecretString> {
        self.0.iter()
    }
}

impl fmt::Debug for WebhookSecrets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} secrets", self.0.len())
    }
}

/// Checks that a webhook was signed with one of the secrets, within the tolerance of its receipt; `header` is the
/// signature header's name.
///
/// # Errors
/// The signature is missing, malformed, made with another secret, or out of time.
pub fn check(webhook: &Webhook, header: &str, secrets: &WebhookSecrets) -> Result<(), NotGenuine> {
    let mut headers = webhook.header(header);
    let signed = Signed::read(headers.next().ok_or(NotGenuine::NotSigned)?).ok_or(NotGenuine::Unreadable)?;
    if headers.next().is_some() {
        return Err(NotGenuine::Unreadable);
    }
    if !secrets.iter().any(|secret| signed.is_by(secret, &webhook.body)) {
        return Err(NotGenuine::WrongSignature);
    }
    if !signed.is_of_the_time(webhook.received_at) {
        return Err(NotGenuine::OutOfTime);
    }
    Ok(())
}

/// The content of the header.
struct Signed<'a> {
    /// As written, because that is what was signed.
    time: &'a str,
    seconds: i64,
    signatures: Vec<[u8; SIGNATURE]>,
}

impl<'a> Signed<'a> {
    fn read(header: &'a str) -> Option<Signed<'a>> {
        let parts = || header.split(',').filter_map(|part| part.trim().split_once('='));
        let time = parts().find(|(name, _)| *name == "t")?.1;
        let seconds = time.parse().ok()?;
        let signatures: Vec<_> =
            parts().filter(|(name, _)| *name == SCHEME).filter_map(|(_, hex)| decoded(hex)).collect();
        (1..=SIGNATURES_MAX).contains(&signatures.len()).then_some(Signed { time, seconds, signatures })
    }

    /// Compares in constant time.
    fn is_by(&self, secret: &SecretString, body: &[u8]) -> bool {
        let Ok(keyed) = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()) else {
            return false;
        };
        let signed = keyed.chain_update(self.time).chain_update(".").chain_update(body);
        self.signatures.iter().any(|signature| signed.clone().verify_slice(signature).is_ok())
    }

    fn is_of_the_time(&self, received_at: Timestamp) -> bool {
        let Ok(tolerance) = i64::try_from(TOLERANCE.as_secs()) else { return false };
        received_at.as_second().abs_diff(self.seconds) <= tolerance.unsigned_abs()
    }
}

/// Decodes two hexadecimal digits per byte.
fn decoded(hex: &str) -> Option<[u8; SIGNATURE]> {
    let digits = hex.as_bytes();
    if digits.len() != 2 * SIGNATURE {
        return None;
    }
    let mut bytes = [0; SIGNATURE];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = [pair.first()?, pair.get(1)?].map(|digit| char::from(*digit).to_digit(16));
        *byte = u8::try_from(high? * 16 + low?).ok()?;
    }
    Some(bytes)
}

/// Signs like a gateway, for tests.
#[cfg(test)]
pub fn sign(secret: &str, seconds: i64, body: &[u8]) -> String {
    let keyed = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    let signature = keyed.chain_update(seconds.to_string()).chain_update(".").chain_update(body).finalize();
    let hex: String = signature.into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={seconds},v1={hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECONDS: i64 = 1_700_000_000;
    const BODY: &[u8] = br#"{"id":"evt_1"}"#;

    fn secrets(secrets: &[&str]) -> WebhookSecrets {
        WebhookSecrets(secrets.iter().map(|secret| SecretString::from(*secret)).collect())
    }

    fn webhook(signature: &str, body: &[u8], received: i64) -> Webhook {
        Webhook {
            received_at: Timestamp::from_second(received).unwrap(),
            method: "POST".to_owned(),
            url: "/webhooks/cards".to_owned(),
            headers: vec![("stripe-signature".to_owned(), signature.to_owned())],
            body: body.to_vec(),
        }
    }

    fn checked(signature: &str, received: i64, by: &[&str]) -> Result<(), NotGenuine> {
        check(&webhook(signature, BODY, received), "stripe-signature", &secrets(by))
    }

    /// Made with openssl: printf '1700000000.{"id":"evt_1"}' | openssl dgst -sha256 -hmac whsec_test
    #[test]
    fn a_signature_that_another_tool_made_is_right() {
        let signature = "c89214b5b5da833daed6f0b8c5bb6bd58cea9022bd80ccc78230f3942d632925";
        assert_eq!(checked(&format!("t={SECONDS},v1={signature}"), SECONDS, &["whsec_test"]), Ok(()));
        assert_eq!(sign("whsec_test", SECONDS, BODY), format!("t={SECONDS},v1={signature}"));
    }

    #[test]
    fn any_secret_may_have_made_any_of_the_signatures() {
        let [old, new, other] = ["old", "new", "other"].map(|secret| sign(secret, SECONDS, BODY));
        let v1 = |signed: &str| signed.split_once(',').unwrap().1.to_owned();
        let both = format!("{old},{},v0=00", v1(&new));
        assert_eq!(checked(&old, SECONDS, &["new", "old"]), Ok(()), "ours are rolled");
        assert_eq!(checked(&both, SECONDS, &["new"]), Ok(()), "theirs are rolled");
        assert_eq!(checked(&format!("{other},{}", v1(&new)), SECONDS, &["old", "new"]), Ok(()));
        assert_eq!(checked(&other, SECONDS, &["old", "new"]), Err(NotGenuine::WrongSignature));
        assert_eq!(checked(&old, SECONDS, &[]), Err(NotGenuine::WrongSignature));
    }

    #[test]
    fn every_byte_of_the_body_and_the_time_is_signed() {
        let signed = sign("secret", SECONDS, BODY);
        let later = signed.replace("t=1700000000", "t=1700000001");
        assert_eq!(checked(&later, SECONDS, &["secret"]), Err(NotGenuine::WrongSignature));
        for at in 0..BODY.len() {
            let mut body = BODY.to_vec();
            body[at] ^= 1;
            let changed = webhook(&signed, &body, SECONDS);
            let found = check(&changed, "stripe-signature", &secrets(&["secret"]));
            assert_eq!(found, Err(NotGenuine::WrongSignature), "{at}");
        }
    }

    #[test]
    fn what_is_older_or_younger_than_the_tolerance_is_refused() {
        let signed = sign("secret", SECONDS, BODY);
        for (after, is_right) in [(0, true), (300, true), (301, false), (-300, true), (-301, false)] {
            let expected = if is_right { Ok(()) } else { Err(NotGenuine::OutOfTime) };
            assert_eq!(checked(&signed, SECONDS + after, &["secret"]), expected, "{after}");
        }
        let signed = sign("secret", i64::MIN, BODY);
        assert_eq!(checked(&signed, SECONDS, &["secret"]), Err(NotGenuine::OutOfTime));
    }

    #[test]
    fn what_is_no_signature_is_refused() {
        let signed = sign("secret", SECONDS, BODY);
        let v1 = signed.split_once(',').unwrap().1;
        for header in [
            "",
            "t=",
            "t=1700000000",
            v1,
            &format!("t=now,{v1}"),
            "t=1700000000,v1=00",
            &format!("t=1700000000,v1={}", "zz".repeat(32)),
            &format!("t=1700000000,v0={}", &v1[3..]),
            &format!("t=1700000000,{}", [v1; 9].join(",")),
            "t=1700000000,v1=\u{20ac}\u{20ac}",
        ] {
            assert_eq!(checked(header, SECONDS, &["secret"]), Err(NotGenuine::Unreadable), "{header}");
        }
        let mut twice = webhook(&signed, BODY, SECONDS);
        twice.headers.push(twice.headers[0].clone());
        assert_eq!(check(&twice, "stripe-signature", &secrets(&["secret"])), Err(NotGenuine::Unreadable));
        assert_eq!(check(&twice, "x-signature", &secrets(&["secret"])), Err(NotGenuine::NotSigned));
    }

    proptest::proptest! {
        #[test]
        fn no_header_stops_the_reader(header in ".{0,200}", more in "(t=[0-9]{0,12}|v1=[0-9a-f]{0,64}|,){0,20}") {
            for header in [header, more] {
                proptest::prop_assert!(checked(&header, SECONDS, &["secret"]).is_err());
            }
        }
    }

    #[test]
    fn there_may_be_several_secrets_and_none_is_shown() {
        for (given, count) in [
            (serde_json::json!("a"), 1),
            (serde_json::json!("a, b"), 2),
            (serde_json::json!(["a", "b"]), 2),
            (serde_json::json!([]), 0),
        ] {
            let secrets: WebhookSecrets = serde_json::from_value(given).unwrap();
            assert_eq!((secrets.iter().count(), secrets.is_empty()), (count, count == 0));
        }
        assert_eq!(format!("{:?}", secrets(&["hunter2"])), "1 secrets");
    }
}
