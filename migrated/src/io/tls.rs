//! TLS 1.3 with raw public keys (RFC 7250): who a host is, is its Ed25519 key, and nothing else.
//!
//! The dialler knows whom it wants and pins it: another key ends the handshake. The listener takes any key that its
//! owner can prove, and decides by the hello: so a stranger is told in words that it is one. Until then a stranger
//! costs one handshake and a few seconds, and starts nothing.

use std::fmt;
use std::sync::Arc;

use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::keys::{Keys, Spki};
use crate::link::token::hash_key;

pub mod socket;
pub mod greeting;

/// The protocol's name in the handshake (ALPN): a TLS server of another kind is told apart at once.
const PROTOCOL: &[u8] = b"migrated-link";
/// Context of the exported key that binds a pairing to its connection.
const EXPORTER_LABEL: &[u8] = b"EXPERIMENTAL migrated pairing";

/// Whom a side accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// This key.
    Key(Spki),
    /// A key with this SHA-256.
    Hash([u8; 32]),
    /// Any key that its owner can prove; the hello decides.
    Any,
}

impl Pin {
    fn accepts(&self, spki: &[u8]) -> bool {
        match self {
            Pin::Key(key) => key == spki,
            Pin::Hash(hash) => *hash == hash_key(spki),
            Pin::Any => true,
        }
    }
}

/// Dials with this host's key, and accepts only what is pinned.
pub fn connector(keys: &Keys, pin: Pin) -> Result<TlsConnector, Error> {
    let provider = Arc::new(ring::default_provider());
    let resolver = AlwaysResolvesClientRawPublicKeys::new(certified(keys, &provider)?);
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier::new(pin, &provider)))
        .with_client_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    // A session ticket would go around the pin of the next dial.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Listens with this host's key.
pub fn acceptor(keys: &Keys) -> Result<TlsAcceptor, Error> {
    let provider = Arc::new(ring::default_provider());
    let resolver = AlwaysResolvesServerRawPublicKeys::new(certified(keys, &provider)?);
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(Verifier::new(Pin::Any, &provider)))
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The name that stands in a dialler's hello; it means nothing to us.
pub fn server_name() -> ServerName<'static> {
    ServerName::try_from("migrated.invalid").expect("it is a name")
}

/// The key that the other side of a handshake proved.
pub fn peer_key(connection: &rustls::CommonState) -> Option<Spki> {
    let key = connection.peer_certificates()?.first()?;
    Spki::try_from(key.as_ref()).ok()
}

/// Bytes that only the two ends of this connection know.
pub fn exporter<T>(connection: &rustls::ConnectionCommon<T>) -> Result<[u8; 32], Error> {
    connection.export_keying_material([0; 32], EXPORTER_LABEL, None)
}

fn certified(keys: &Keys, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, Error> {
    let pkcs8 = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(keys.pkcs8().to_vec()));
    let key = provider.key_provider.load_private_key(pkcs8)?;
    Ok(Arc::new(CertifiedKey::new(vec![CertificateDer::from(keys.spki().to_vec())], key)))
}

/// Checks raw keys, at either side.
struct Verifier {
    pin: Pin,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn new(pin: Pin, provider: &CryptoProvider) -> Self {
        Self { pin, algorithms: provider.signature_verification_algorithms }
    }

    fn check(&self, key: &CertificateDer<'_>) -> Result<(), Error> {
        let wellformed = Spki::try_from(key.as_ref()).is_ok();
        match wellformed && self.pin.accepts(key) {
            true => Ok(()),
            false => Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
        }
    }

    fn check_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("pin", &self.pin).finish_non_exhaustive()
    }
}

/// TLS 1.2 is not offered; a signature of it is a breach.
fn old_version() -> Error {
    Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(old_version())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(old_version())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
