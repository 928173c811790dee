//! A gateway's URL.

use std::fmt;

use reqwest::Url;
use serde::Deserialize;

use crate::hosts::is_loopback;

/// A gateway's URL: http or https, optionally with a path, without a trailing slash. It never contains credentials, so
/// that it can be logged and stored with the payment.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct GatewayUrl {
    text: String,
    host: String,
    is_https: bool,
}

/// Why a text is not a gateway's URL. The errors do not quote it, because it might contain a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not a URL, or a different scheme.
    #[error("must be an http or https URL, such as \"https://gateway.example/payments\"")]
    Scheme,
    /// It contains a user or a password.
    #[error("must not contain a user or a password; set token instead")]
    Credentials,
    /// It contains a query or a fragment.
    #[error("must not have a query or a fragment: the operation's name is appended to its path")]
    Query,
}

impl TryFrom<String> for GatewayUrl {
    type Error = UrlError;

    fn try_from(text: String) -> Result<GatewayUrl, UrlError> {
        let url = Url::parse(&text).map_err(|_| UrlError::Scheme)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(UrlError::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UrlError::Credentials);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(UrlError::Query);
        }
        Ok(GatewayUrl {
            text: url.as_str().trim_end_matches('/').to_owned(),
            host: url.host_str().unwrap_or_default().to_owned(),
            is_https: url.scheme() == "https",
        })
    }
}

impl GatewayUrl {
    /// The default host of a well-known gateway.
    pub(super) fn https(host: &str) -> GatewayUrl {
        GatewayUrl { text: format!("https://{host}"), host: host.to_owned(), is_https: true }
    }

    /// The URL, without a trailing slash.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the environment's proxy may be used. Never for this machine itself, and never for plain http: such a
    /// proxy could read the token and answer in the gateway's place.
    pub(super) fn may_use_proxy(&self) -> bool {
        self.is_https && !is_loopback(&self.host)
    }

    /// The host, if it is reached over a network without TLS.
    pub(super) fn plaintext_host(&self) -> Option<&str> {
        (!self.is_https && !is_loopback(&self.host)).then_some(&self.host)
    }
}

impl fmt::Display for GatewayUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl fmt::Debug for GatewayUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, formatter)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn url(text: &str) -> Result<GatewayUrl, UrlError> {
        GatewayUrl::try_from(text.to_owned())
    }

    #[test]
    fn addresses_are_trimmed_and_keep_their_path() {
        for (text, kept) in [
            ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
            ("http://127.0.0.1:9000/", "http://127.0.0.1:9000"),
            ("HTTPS://Gateway.Example:443/pay//", "https://gateway.example/pay"),
        ] {
            assert_eq!(url(text).unwrap().as_str(), kept);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_and_not_quoted() {
        for (text, error) in [
            ("", UrlError::Scheme),
            ("gateway.example", UrlError::Scheme),
            ("ftp://gateway.example", UrlError::Scheme),
            ("http://", UrlError::Scheme),
            ("https://user:hunter2@gateway.example", UrlError::Credentials),
            ("https://hunter2@gateway.example", UrlError::Credentials),
            ("https://gateway.example/?key=hunter2", UrlError::Query),
            ("https://gateway.example/#hunter2", UrlError::Query),
        ] {
            assert_eq!(url(text), Err(error), "{text}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }

    proptest! {
        /// An accepted URL leads to the host that it names, with the operation's name at the end of its path, and
        /// contains nothing that must not be logged.
        #[test]
        fn any_text_is_an_address_or_refused(
            text in prop_oneof![
                1 => any::<String>(),
                4 => "(https?|HTTP|ftp|file):(//|/|)([a-z0-9@:%.\\[\\]\u{e9}\u{202e}\\\\ -]{0,20})([/?#%a-z.\n]{0,12})",
            ],
        ) {
            let Ok(read) = url(&text) else { return Ok(()) };
            prop_assert!(!read.as_str().contains(['?', '#']) && !read.as_str().chars().any(char::is_control), "{read}");
            let whole = Url::parse(&format!("{read}/process")).unwrap();
            let named = Url::parse(&text).unwrap();
            prop_assert!(whole.username().is_empty() && whole.password().is_none(), "{whole}");
            prop_assert_eq!(whole.host_str(), named.host_str());
            prop_assert_eq!(whole.port_or_known_default(), named.port_or_known_default());
            prop_assert!(whole.path().ends_with("/process") && whole.query().is_none(), "{whole}");
            prop_assert_eq!(url(read.as_str()), Ok(read));
        }
    }

    #[test]
    fn proxies_are_for_https_to_other_machines() {
        for (text, allowed) in [
            ("https://gateway.example", true),
            ("http://gateway.example", false),
            ("https://localhost:9000", false),
            ("https://127.0.0.2", false),
            ("https://[::1]:9000", false),
        ] {
            assert_eq!(url(text).unwrap().may_use_proxy(), allowed, "{text}");
        }
    }

    #[test]
    fn plain_http_to_another_machine_is_reported() {
        for (text, host) in [
            ("http://gateway.example/pay", Some("gateway.example")),
            ("http://10.0.0.1:9000", Some("10.0.0.1")),
            ("http://[fd00::5]:9000", Some("[fd00::5]")),
            ("http://127.0.0.2:9000", None),
            ("http://[::1]:9000", None),
            ("http://localhost:9000", None),
            ("https://gateway.example", None),
        ] {
            assert_eq!(url(text).unwrap().plaintext_host(), host, "{text}");
        }
    }
}
