//! TLS 1.3 between two roots (RFC 8446), each with its link key as a raw public key (RFC 7250).
//!
//! The handshake proves that the other side holds the key that it shows, and nothing about whose key it is: that is the matter of the
//! hellos that follow it. The private keys stay in the TPMs; who makes a [`LinkKey`] says how to have something signed.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, ClientConfig, ClientConnection, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage, ServerConfig, ServerConnection,
};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureAlgorithm,
    SignatureScheme, StreamOwned,
};
use sha2::{Digest, Sha256};

use super::wire::{Timed, TimedSocket};

/// What the two sides speak over TLS (RFC 7301), so that neither takes another service for a peer.
const PROTOCOL: &[u8] = b"vtpm-link/1";

/// `SubjectPublicKeyInfo` of a P-256 key up to the coordinates (RFC 5480): id-ecPublicKey, secp256r1, uncompressed point.
const P256_SPKI: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
/// Bytes of one coordinate.
const COORDINATE: usize = 32;

/// A link's public key: the coordinates of a point of P-256, x first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LinkPublic(pub [u8; 2 * COORDINATE]);

impl LinkPublic {
    /// From its coordinates, which may have lost leading zeros, as in a `TPMS_ECC_POINT`; `None` when they are too long.
    #[must_use]
    pub fn from_point(x: &[u8], y: &[u8]) -> Option<Self> {
        let mut out = [0; 2 * COORDINATE];
        for (half, bytes) in out.chunks_exact_mut(COORDINATE).zip([x, y]) {
            let start = COORDINATE.checked_sub(bytes.len())?;
            half.get_mut(start..)?.copy_from_slice(bytes);
        }
        Some(Self(out))
    }

    /// The DER encoding of its `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn to_spki(self) -> Vec<u8> {
        [&P256_SPKI[..], &self.0].concat()
    }

    fn from_spki(spki: &[u8]) -> Option<Self> {
        let point = spki.strip_prefix(&P256_SPKI)?;
        point.try_into().ok().map(Self)
    }
}

impl fmt::Debug for LinkPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Signs a SHA-256 digest with the link key, ECDSA; r and s of 32 bytes each, or why not.
type Sign = dyn Fn(&[u8; 32]) -> Result<[u8; 64], String> + Send + Sync;

/// The link key of this side.
#[derive(Clone)]
pub struct LinkKey {
    public: LinkPublic,
    sign: Arc<Sign>,
}

impl LinkKey {
    /// `sign` signs a SHA-256 digest with the private part of `public`, ECDSA; it returns r and s of 32 bytes each, or a sentence that says
    /// why not.
    pub fn new(
        public: LinkPublic,
        sign: impl Fn(&[u8; 32]) -> Result<[u8; 64], String> + Send + Sync + 'static,
    ) -> Self {
        Self { public, sign: Arc::new(sign) }
    }

    /// The public part.
    #[must_use]
    pub fn public(&self) -> LinkPublic {
        self.public
    }

    fn certified(&self) -> Arc<CertifiedKey> {
        // With raw public keys, rustls keeps the SubjectPublicKeyInfo where a certificate stands otherwise.
        let spki = CertificateDer::from(self.public.to_spki());
        Arc::new(CertifiedKey::new(vec![spki], Arc::new(self.clone())))
    }
}

impl fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "link key {:?}", self.public)
    }
}

impl SigningKey for LinkKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let ours = offered.contains(&SignatureScheme::ECDSA_NISTP256_SHA256);
        ours.then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(self.public.to_spki()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for LinkKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let digest: [u8; 32] = Sha256::digest(message).into();
        match (self.sign)(&digest) {
            Ok(signature) => Ok(signature_der(&signature)),
            Err(why) => Err(Error::General(why)),
        }
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

/// `Ecdsa-Sig-Value` (RFC 3279, 2.2.3): a sequence of two integers, each without needless zeros in front and never negative.
fn signature_der(signature: &[u8; 64]) -> Vec<u8> {
    let mut integers = Vec::with_capacity(70);
    for number in signature.chunks_exact(COORDINATE) {
        let zeros = number.iter().take(COORDINATE.saturating_sub(1)).take_while(|&&byte| byte == 0).count();
        let digits = number.get(zeros..).unwrap_or_default();
        let padded = digits.first().is_some_and(|&first| first & 0x80 != 0);
        // At most 33 and 70: one byte of length.
        let length = digits.len().saturating_add(usize::from(padded));
        integers.extend([0x02, u8::try_from(length).unwrap_or_default()]);
        integers.extend(padded.then_some(0));
        integers.extend_from_slice(digits);
    }
    let mut out = vec![0x30, u8::try_from(integers.len()).unwrap_or_default()];
    out.append(&mut integers);
    out
}

/// Lets every P-256 key in that can sign: whose it is, the hello says.
#[derive(Debug)]
struct AnyLinkKey {
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyLinkKey {
    fn check(spki: &[u8], chain: &[CertificateDer<'_>]) -> Result<(), Error> {
        if LinkPublic::from_spki(spki).is_some() && chain.is_empty() {
            Ok(())
        } else {
            Err(CertificateError::BadEncoding.into())
        }
    }

    fn verify(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let spki = SubjectPublicKeyInfoDer::from(spki.as_ref());
        verify_tls13_signature_with_raw_key(message, &spki, signature, &self.algorithms)
    }
}

impl ServerCertVerifier for AnyLinkKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Self::check(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for AnyLinkKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Self::check(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Both ends of the link of one host.
#[derive(Clone)]
pub struct Tls {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Tls {
    /// With the link key of this host.
    ///
    /// # Errors
    /// [`rustls::Error`], when the provider lacks TLS 1.3, which ours does not.
    pub fn new(key: &LinkKey) -> Result<Self, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = || Arc::new(AnyLinkKey { algorithms: provider.signature_verification_algorithms });
        let versions = &[&rustls::version::TLS13];
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)?
            .with_client_cert_verifier(verifier())
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key.certified())));
        // Every connection shows its key anew.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        server.alpn_protocols = vec![PROTOCOL.to_vec()];
        let mut client = Self::client_builder(provider.clone(), versions)?
            .dangerous()
            .with_custom_certificate_verifier(verifier())
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key.certified())));
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        client.alpn_protocols = vec![PROTOCOL.to_vec()];
        // rustls wants a name; none is sent, and none is checked.
        let name = ServerName::try_from("vtpmd.invalid").map_err(|_| Error::General("no name".into()))?;
        Ok(Self { server: Arc::new(server), client: Arc::new(client), name })
    }

    fn client_builder(
        provider: Arc<CryptoProvider>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, Error> {
        ClientConfig::builder_with_provider(provider).with_protocol_versions(versions)
    }

    /// Shakes hands with who connected, in at most that time.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn accept(&self, socket: TcpStream, within: Duration) -> Result<TlsStream, TlsError> {
        let connection = ServerConnection::new(self.server.clone()).map_err(TlsError::Protocol)?;
        let mut stream = StreamOwned::new(connection, prepared(socket, within)?);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).map_err(failed)?;
        }
        let peer = peer_key(stream.conn.peer_certificates(), stream.conn.alpn_protocol())?;
        Ok(TlsStream { kind: Kind::Server(Box::new(stream)), peer })
    }

    /// Shakes hands with whom this side connected to, in at most that time.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn connect(&self, socket: TcpStream, within: Duration) -> Result<TlsStream, TlsError> {
        let connection =
            ClientConnection::new(self.client.clone(), self.name.clone()).map_err(TlsError::Protocol)?;
        let mut stream = StreamOwned::new(connection, prepared(socket, within)?);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).map_err(failed)?;
        }
        let peer = peer_key(stream.conn.peer_certificates(), stream.conn.alpn_protocol())?;
        Ok(TlsStream { kind: Kind::Client(Box::new(stream)), peer })
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The socket.
    #[error("the connection broke off")]
    Io(#[source] io::Error),
    /// The handshake, on either side.
    #[error("the TLS handshake failed")]
    Protocol(#[source] Error),
    /// The other side shows no key or speaks something else.
    #[error("the other side is no peer link")]
    NoLink,
}

fn failed(error: io::Error) -> TlsError {
    match error.downcast::<Error>() {
        Ok(error) => TlsError::Protocol(error),
        Err(error) => TlsError::Io(error),
    }
}

fn prepared(socket: TcpStream, within: Duration) -> Result<TimedSocket<TcpStream>, TlsError> {
    // A request and its answer are small, and somebody waits for them.
    socket.set_nodelay(true).map_err(TlsError::Io)?;
    let mut socket = TimedSocket::new(socket);
    let now = Instant::now();
    socket.set_deadline(now.checked_add(within).unwrap_or(now));
    Ok(socket)
}

fn peer_key(
    certificates: Option<&[CertificateDer<'_>]>,
    protocol: Option<&[u8]>,
) -> Result<LinkPublic, TlsError> {
    let spki = match certificates {
        Some([spki]) if protocol == Some(PROTOCOL) => spki,
        _ => return Err(TlsError::NoLink),
    };
    LinkPublic::from_spki(spki).ok_or(TlsError::NoLink)
}

enum Kind {
    Server(Box<StreamOwned<ServerConnection, TimedSocket<TcpStream>>>),
    Client(Box<StreamOwned<ClientConnection, TimedSocket<TcpStream>>>),
}

/// A connection after the handshake.
pub struct TlsStream {
    kind: Kind,
    peer: LinkPublic,
}

impl TlsStream {
    /// The key that the other side has shown and used.
    #[must_use]
    pub fn peer(&self) -> LinkPublic {
        self.peer
    }

    /// The socket below.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        match &self.kind {
            Kind::Server(stream) => stream.sock.socket(),
            Kind::Client(stream) => stream.sock.socket(),
        }
    }
}

impl Timed for TlsStream {
    fn set_deadline(&mut self, deadline: Instant) {
        match &mut self.kind {
            Kind::Server(stream) => stream.sock.set_deadline(deadline),
            Kind::Client(stream) => stream.sock.set_deadline(deadline),
        }
    }
}

impl Read for TlsStream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match &mut self.kind {
            Kind::Server(stream) => stream.read(out),
            Kind::Client(stream) => stream.read(out),
        }
    }
}

impl Write for TlsStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.kind {
            Kind::Server(stream) => stream.write(bytes),
            Kind::Client(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.kind {
            Kind::Server(stream) => stream.flush(),
            Kind::Client(stream) => stream.flush(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use p256::ecdsa::SigningKey as P256Key;
    use p256::ecdsa::signature::hazmat::PrehashSigner;
    use std::net::TcpListener;

    const SOON: Duration = Duration::from_secs(10);

    /// A link key outside of any TPM.
    pub(in crate::link) fn software_key(seed: u8) -> LinkKey {
        let secret = P256Key::from_slice(&[seed; 32]).unwrap();
        let point = secret.verifying_key().to_sec1_point(false);
        let public = LinkPublic(point.as_bytes()[1..].try_into().unwrap());
        LinkKey::new(public, move |digest| {
            let signature: p256::ecdsa::Signature = secret.sign_prehash(digest).unwrap();
            Ok(signature.to_bytes().into())
        })
    }

    /// A connection between the two, over a real socket.
    pub(in crate::link) fn connected(
        server: &LinkKey,
        client: &LinkKey,
    ) -> (Result<TlsStream, TlsError>, Result<TlsStream, TlsError>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let tls = Tls::new(server).unwrap();
        let accepting = std::thread::spawn(move || tls.accept(listener.accept().unwrap().0, SOON));
        let dialled = Tls::new(client).unwrap().connect(TcpStream::connect(address).unwrap(), SOON);
        (accepting.join().unwrap(), dialled)
    }

    #[test]
    fn both_sides_learn_the_others_key() {
        let (one, two) = (software_key(1), software_key(2));
        let (server, client) = connected(&one, &two);
        let (mut server, mut client) = (server.unwrap(), client.unwrap());
        assert_eq!((server.peer(), client.peer()), (two.public, one.public));
        for stream in [&mut server, &mut client] {
            stream.set_deadline(Instant::now() + SOON);
        }
        let mut out = [0; 5];
        client.write_all(b"hello").unwrap();
        server.read_exact(&mut out).unwrap();
        assert_eq!(&out, b"hello");
        server.write_all(b"world").unwrap();
        client.read_exact(&mut out).unwrap();
        assert_eq!(&out, b"world");
    }

    #[test]
    fn who_does_not_hold_the_key_that_it_shows_is_refused() {
        let honest = software_key(1);
        let (other, victim) = (software_key(2), software_key(3));
        let thief = LinkKey { public: victim.public, sign: other.sign };
        let (server, _client) = connected(&honest, &thief);
        assert!(matches!(server, Err(TlsError::Protocol(_))));
        let (_server, client) = connected(&thief, &honest);
        assert!(matches!(client, Err(TlsError::Protocol(_))));
    }

    #[test]
    fn a_key_that_cannot_sign_ends_the_handshake_with_its_reason() {
        let mute = LinkKey::new(software_key(1).public, |_| Err("the TPM is away".into()));
        let (_server, client) = connected(&software_key(2), &mute);
        let error = client.err().unwrap();
        assert!(crate::sentence(&error).contains("the TPM is away"), "{}", crate::sentence(&error));
    }

    #[test]
    fn a_client_with_nothing_to_show_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let tls = Tls::new(&software_key(1)).unwrap();
        let client = std::thread::spawn(move || {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let algorithms = provider.signature_verification_algorithms;
            let config = Tls::client_builder(provider, &[&rustls::version::TLS13])
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyLinkKey { algorithms }))
                .with_no_client_auth();
            let name = ServerName::try_from("vtpmd.invalid").unwrap();
            let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
            let mut socket = TcpStream::connect(address).unwrap();
            while connection.is_handshaking() && connection.complete_io(&mut socket).is_ok() {}
            let _ = connection.complete_io(&mut socket);
        });
        let accepted = tls.accept(listener.accept().unwrap().0, SOON);
        assert!(accepted.is_err());
        client.join().unwrap();
    }

    #[test]
    fn a_client_that_says_nothing_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _silent = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let tls = Tls::new(&software_key(1)).unwrap();
        let start = Instant::now();
        let accepted = tls.accept(listener.accept().unwrap().0, Duration::from_millis(200));
        assert!(matches!(accepted, Err(TlsError::Io(e)) if e.kind() == io::ErrorKind::TimedOut));
        assert!(start.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn signatures_are_encoded_without_needless_zeros() {
        let mut signature = [0u8; 64];
        signature[31] = 5;
        signature[32] = 0x80;
        let mut expected = vec![0x30, 38, 0x02, 1, 5, 0x02, 33, 0, 0x80];
        expected.extend([0; 31]);
        assert_eq!(signature_der(&signature), expected);
        assert_eq!(signature_der(&[0; 64]), [0x30, 6, 2, 1, 0, 2, 1, 0]);
    }

    #[test]
    fn a_point_gets_its_leading_zeros_back() {
        let key = LinkPublic::from_point(&[7], &[8; 32]).unwrap();
        assert_eq!((key.0[..31].to_vec(), key.0[31], key.0[32]), (vec![0; 31], 7, 8));
        assert!(LinkPublic::from_point(&[1; 33], &[1; 32]).is_none());
        assert_eq!(LinkPublic::from_spki(&key.to_spki()), Some(key));
        assert_eq!(LinkPublic::from_spki(&key.to_spki()[..90]), None);
    }
}
