//! Formats errors with all their causes, for operators. Libraries word their messages for developers, so the known ones
//! are replaced.

use std::error::Error;

use crate::excerpt::{ERROR_MAX, excerpt};

/// How library messages begin, and what is printed instead.
static PLAIN: [(&str, Plain); 24] = [
    // rustls, on its own or wrapped by another library.
    ("received corrupt message of type", Plain::Words(NO_TLS)),
    ("tls handshake eof", Plain::Words(TLS_ENDED)),
    ("invalid peer certificate: UnknownIssuer", Plain::Words(UNKNOWN_ISSUER)),
    ("received fatal alert: CertificateRequired", Plain::Words(CERTIFICATE_REQUIRED)),
    ("received fatal alert: BadCertificate", Plain::Words(CERTIFICATE_REFUSED)),
    ("received fatal alert: CertificateUnknown", Plain::Words(CERTIFICATE_REFUSED)),
    ("received fatal alert: UnknownCA", Plain::Words(CERTIFICATE_REFUSED)),
    // lapin.
    ("IO error", Plain::CauseOnly),
    ("protocol error", Plain::CauseOnly),
    ("connection aborted", Plain::Words("the server closed the connection")),
    ("failed to parse", Plain::Words(NO_AMQP)),
    ("Parsing Error", Plain::Nothing),
    // tokio-postgres.
    ("db error", Plain::CauseOnly),
    ("error connecting to server", Plain::CauseOnly),
    ("error communicating with the server", Plain::CauseOnly),
    ("error performing TLS handshake", Plain::CauseOnly),
    ("server does not support TLS", Plain::Words(NO_DATABASE_TLS)),
    ("bytes remaining on stream", Plain::Words(NO_POSTGRES)),
    // reqwest, hyper and hyper-util.
    ("error sending request", Plain::CauseOnly),
    ("client error (", Plain::CauseOnly),
    ("tcp connect error", Plain::CauseOnly),
    ("connection error", Plain::CauseOnly),
    ("dns error", Plain::CauseOnly),
    ("error resolving DNS", Plain::Words("the host name cannot be resolved")),
];

const NO_TLS: &str = "the server does not speak TLS: correct the port of the address, or connect without TLS";
const TLS_ENDED: &str = "the server ended the TLS handshake without a reason: correct the port of the address, or set \
                         tls.cert and tls.key if it asks for a client certificate";
const UNKNOWN_ISSUER: &str = "the server's certificate is signed by an authority that is not trusted (UnknownIssuer): \
    set amqp.tls.ca or database.tls.ca to the authority's file, or install it on this machine";
const CERTIFICATE_REQUIRED: &str =
    "the server asks for a client certificate (CertificateRequired): set tls.cert and tls.key";
const CERTIFICATE_REFUSED: &str =
    "the server refuses the client certificate: set tls.cert and tls.key to one that it trusts";
const NO_AMQP: &str = "the server does not speak AMQP: correct the port of amqp.url, or use amqps:// if it is for TLS";
const NO_DATABASE_TLS: &str = "the server has no TLS: set ssl = on there, or database.tls_mode = \"disable\" here";
const NO_POSTGRES: &str = "the server does not speak PostgreSQL's protocol: correct the port of the address";

#[derive(Clone, Copy)]
enum Plain {
    /// Print these words instead.
    Words(&'static str),
    /// Print nothing if there is a cause, because the cause says more.
    CauseOnly,
    /// Print nothing.
    Nothing,
}

/// Formats an error and its causes in one line, for a log or a person. `Display` prints only the outermost error.
pub fn chain(error: &dyn Error) -> String {
    let mut text = String::new();
    let mut next: Option<&dyn Error> = Some(error);
    while let Some(error) = next {
        next = error.source();
        let said = error.to_string();
        let own = match next {
            Some(cause) => without_cause(&said, &cause.to_string()),
            None => said.as_str(),
        };
        let words = plain(own, next.is_some());
        if words.is_empty() || text.contains(words) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(words);
    }
    excerpt(&text, ERROR_MAX).into_owned()
}

/// Returns the error's own message. Some errors repeat their cause in it.
fn without_cause<'a>(said: &'a str, cause: &str) -> &'a str {
    said.strip_suffix(cause).map_or(said, |own| own.trim_end_matches([':', ' ']))
}

fn plain(said: &str, has_cause: bool) -> &str {
    match PLAIN.iter().find(|(theirs, _)| said.starts_with(theirs)) {
        Some((_, Plain::Words(words))) => words,
        Some((_, Plain::Nothing)) => "",
        Some((_, Plain::CauseOnly)) if has_cause => "",
        Some((_, Plain::CauseOnly)) | None => said,
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use rustls::{CertificateError, ClientConnection};

    use super::*;
    use crate::bus::BusError;
    use crate::store::StoreError;
    use crate::tls::{TlsFiles, Verify, client_config};

    /// An error as lapin reports it when it cannot connect.
    fn of_broker(source: impl Into<Box<dyn Error + Send + Sync>>) -> BusError {
        let source = io::Error::new(io::ErrorKind::InvalidData, source).into();
        BusError::Broker { doing: "connecting to the broker", source }
    }

    /// The error that rustls reports when the peer does not speak TLS.
    fn no_tls() -> rustls::Error {
        let config = client_config(TlsFiles::default(), Verify::Encrypt).expect("a configuration");
        let name = "localhost".try_into().expect("a name");
        let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
        client.read_tls(&mut &b"AMQP\x00\x00\x09\x01"[..]).expect("memory");
        client.process_new_packets().expect_err("no TLS")
    }

    #[test]
    fn tls_at_a_port_without_it_is_reported_as_such() {
        let text = chain(&of_broker(no_tls()));
        assert_eq!(text, format!("connecting to the broker failed: {NO_TLS}"));
    }

    #[test]
    fn an_unknown_issuer_is_reported_with_what_to_do() {
        let text = chain(&of_broker(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)));
        assert_eq!(text, format!("connecting to the broker failed: {UNKNOWN_ISSUER}"));
        // A message that is clear enough is left unchanged.
        let text = chain(&of_broker(rustls::Error::InvalidCertificate(CertificateError::Expired)));
        assert!(text.starts_with("connecting to the broker failed: invalid peer certificate"), "{text}");
    }

    #[test]
    fn each_cause_is_reported_once_and_in_order() {
        assert_eq!(chain(&of_broker("refused")), "connecting to the broker failed: refused");
        let error = StoreError::Unavailable(Box::new(io::Error::other("no route")));
        assert_eq!(chain(&error), "the database cannot be reached: no route");
    }

    #[tokio::test]
    async fn an_unreachable_database_is_reported_without_the_librarys_words() {
        let connecting = tokio_postgres::connect("postgres://paybus@127.0.0.1:9/paybus", tokio_postgres::NoTls);
        let Err(error) = connecting.await else { panic!("nobody listens there") };
        let text = chain(&StoreError::from(error));
        assert_eq!(text, "the database cannot be reached: Connection refused (os error 111)");
    }

    #[test]
    fn a_text_without_a_cause_is_never_left_out() {
        assert_eq!(plain("db error", false), "db error");
        assert_eq!(plain("db error", true), "");
        assert_eq!(plain("anything else", true), "anything else");
    }
}
