//! TLS for the broker and the database: the trusted authorities, how far a certificate is verified, and the client
//! certificate.
//!
//! The provider is passed explicitly: if dependencies compile in two providers, rustls panics when it has to choose
//! one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// How far the server's certificate is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// The chain and the host name.
    Full,
    /// The chain only, like PostgreSQL's `verify-ca`. Needs a CA file, because a public authority signs certificates
    /// for anybody.
    Chain,
    /// Nothing, like PostgreSQL's `require`: it protects against eavesdroppers, not against impostors. With a CA file,
    /// the chain.
    Encrypt,
}

/// The PEM files of one connection.
#[derive(Debug, Clone, Copy, Default)]
pub struct TlsFiles<'a> {
    /// The only certificate authorities to trust; if `None`, those of the platform.
    pub ca: Option<&'a Path>,
    /// The client certificate and its chain, for a server that asks for one.
    pub cert: Option<&'a Path>,
    /// The private key of the client certificate: PKCS#8, PKCS#1 or SEC1.
    pub key: Option<&'a Path>,
}

/// Why a TLS configuration could not be built.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing, unreadable or not PEM.
    #[error("cannot read {what} from {}", path.display())]
    Read {
        /// What should have been in the file.
        what: &'static str,
        /// The path of the file.
        path: PathBuf,
        /// The cause.
        source: rustls::pki_types::pem::Error,
    },
    /// A file contains no certificate.
    #[error("{} contains no certificate", .0.display())]
    Empty(PathBuf),
    /// Only one of the two files of a client certificate is given.
    #[error("a client certificate needs both cert and key")]
    HalfIdentity,
    /// The chain cannot be verified against every authority of the platform without also verifying the host name.
    #[error("verifying the certificate chain without the host name needs a CA file")]
    CaNeeded,
    /// rustls rejects a certificate or a key.
    #[error("cannot use {what}")]
    Refused {
        /// What rustls rejects.
        what: &'static str,
        /// The cause.
        source: rustls::Error,
    },
    /// No verifier can be built from the CA file.
    #[error("cannot use the CA file {}", path.display())]
    Verifier {
        /// The path of the file.
        path: PathBuf,
        /// The cause.
        source: rustls::client::VerifierBuilderError,
    },
}

/// Builds the configuration of a client connection from the files. Connections to the broker read them anew each time,
/// so that a renewed certificate needs no restart; the database's are read once.
///
/// # Errors
/// A file is missing, or holds no certificate or key that can be used; only one of certificate and key is given; or
/// `Verify::Chain` has no CA file.
pub fn client_config(files: TlsFiles<'_>, verify: Verify) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = server_verifier(files.ca, verify, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Refused { what: "the TLS provider", source })?
        // rustls calls every custom verifier "dangerous". Only `Verify::Encrypt` without a CA file leaves the chain
        // unverified.
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match (files.cert, files.key) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(cert), Some(key)) => builder
            .with_client_auth_cert(certificates(cert)?, private_key(key)?)
            .map_err(|source| TlsError::Refused { what: "the client certificate", source }),
        _ => Err(TlsError::HalfIdentity),
    }
}

fn server_verifier(
    ca: Option<&Path>,
    verify: Verify,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    match (verify, ca) {
        (Verify::Full, Some(ca)) => Ok(authorities(ca, provider)?),
        (Verify::Full, None) => {
            let platform = rustls_platform_verifier::Verifier::new(Arc::clone(provider))
                .map_err(|source| TlsError::Refused { what: "the platform's certificate store", source })?;
            Ok(Arc::new(platform))
        }
        (Verify::Chain | Verify::Encrypt, Some(ca)) => Ok(Arc::new(ChainOnly(authorities(ca, provider)?))),
        (Verify::Chain, None) => Err(TlsError::CaNeeded),
        (Verify::Encrypt, None) => Ok(Arc::new(Anyone(Arc::clone(provider)))),
    }
}

fn authorities(path: &Path, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|source| TlsError::Refused { what: "a certificate of the CA file", source })?;
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|source| TlsError::Verifier { path: path.to_owned(), source })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |source| TlsError::Read { what: "certificates", path: path.to_owned(), source };
    let found = CertificateDer::pem_file_iter(path)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(unreadable)?;
    if found.is_empty() {
        return Err(TlsError::Empty(path.to_owned()));
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| TlsError::Read {
        what: "a private key",
        path: path.to_owned(),
        source,
    })
}

/// Verifies everything but the host name.
#[derive(Debug)]
struct ChainOnly(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for ChainOnly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verdict = self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verdict {
            // webpki verifies the host name last, so the chain is valid here.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Accepts any certificate, but the server must still prove that it holds the private key.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::server::WebPkiClientVerifier;
    use rustls::{ClientConnection, ServerConfig, ServerConnection};

    type Issuer = CertifiedIssuer<'static, KeyPair>;

    fn issuer(name: &str) -> Issuer {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
    }

    /// Issues a certificate for a name; returns it and its key as PEM.
    fn issued(by: &Issuer, name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        let certificate = params.signed_by(&key, by).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    /// A server for `broker.test` that asks for a client certificate of the same authority.
    fn server(by: &Issuer) -> ServerConfig {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (cert, key) = issued(by, "broker.test");
        let mut roots = RootCertStore::empty();
        roots.add(by.der().clone()).expect("an authority");
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(clients.allow_unauthenticated().build().expect("a verifier"))
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(cert.as_bytes()).expect("PEM")],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM"),
            )
            .expect("a server")
    }

    /// Performs a handshake in memory; returns how many certificates the client presented.
    fn handshake(client: ClientConfig, server: &ServerConfig, name: &'static str) -> Result<usize, rustls::Error> {
        let name = ServerName::try_from(name).expect("a name");
        let mut client = ClientConnection::new(Arc::new(client), name)?;
        let mut server = ServerConnection::new(Arc::new(server.clone()))?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).expect("memory");
            server.read_tls(&mut wire.as_slice()).expect("memory");
            server.process_new_packets()?;
            let mut wire = Vec::new();
            server.write_tls(&mut wire).expect("memory");
            client.read_tls(&mut wire.as_slice()).expect("memory");
            client.process_new_packets()?;
        }
        Ok(server.peer_certificates().map_or(0, <[_]>::len))
    }

    struct Files(PathBuf);

    impl Files {
        fn new() -> Files {
            let directory = std::env::temp_dir().join(format!("paybus-tls-{}", uuid::Uuid::new_v4()));
            std::fs::create_dir(&directory).expect("a directory");
            Files(directory)
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, text).expect("a file");
            path
        }
    }

    impl Drop for Files {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn each_way_checks_as_much_as_it_says() {
        let (ours, other) = (issuer("ours"), issuer("other"));
        let files = Files::new();
        let (ours_file, other_file) = (files.write("ours", &ours.pem()), files.write("other", &other.pem()));
        let server = server(&ours);
        let check = |verify: Verify, ca: Option<&Path>, name: &'static str, good: bool| {
            let files = TlsFiles { ca, ..TlsFiles::default() };
            let client = client_config(files, verify).expect("a configuration");
            let shaken = handshake(client, &server, name);
            assert_eq!(shaken.is_ok(), good, "{verify:?} {ca:?} {name}: {shaken:?}");
        };
        check(Verify::Full, Some(&ours_file), "broker.test", true);
        check(Verify::Full, Some(&ours_file), "impostor.test", false);
        check(Verify::Full, Some(&other_file), "broker.test", false);
        check(Verify::Full, None, "broker.test", false);
        check(Verify::Chain, Some(&ours_file), "impostor.test", true);
        check(Verify::Chain, Some(&other_file), "broker.test", false);
        check(Verify::Encrypt, Some(&ours_file), "impostor.test", true);
        check(Verify::Encrypt, Some(&other_file), "broker.test", false);
        check(Verify::Encrypt, None, "impostor.test", true);
    }

    #[test]
    fn a_client_certificate_is_shown() {
        let ours = issuer("ours");
        let files = Files::new();
        let (cert, key) = issued(&ours, "worker");
        let (ca, cert, key) = (files.write("ca", &ours.pem()), files.write("cert", &cert), files.write("key", &key));
        let identity = TlsFiles { ca: Some(&ca), cert: Some(&cert), key: Some(&key) };
        let client = client_config(identity, Verify::Full).expect("a configuration");
        assert_eq!(handshake(client, &server(&ours), "broker.test"), Ok(1));
    }

    #[test]
    fn what_cannot_work_is_refused_at_once() {
        let files = Files::new();
        let empty = files.write("empty", "");
        let missing = files.0.join("missing");
        let check = |files: TlsFiles<'_>, verify: Verify, text: &str| {
            let error = client_config(files, verify).expect_err(text);
            assert!(error.to_string().contains(text), "{error}");
        };
        let ca = |ca| TlsFiles { ca: Some(ca), ..TlsFiles::default() };
        check(ca(&empty), Verify::Full, "contains no certificate");
        check(ca(&missing), Verify::Full, "cannot read certificates from");
        check(TlsFiles::default(), Verify::Chain, "needs a CA file");
        let half = TlsFiles { cert: Some(&empty), ..TlsFiles::default() };
        check(half, Verify::Encrypt, "both cert and key");
    }
}
