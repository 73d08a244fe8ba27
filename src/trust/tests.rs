//! Identities and certificates, with keys of a real root.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, date_time_ymd,
};
use vtpm_protocol::codec::{Encode, decode_exact};
use vtpm_protocol::instance::{
    Identity, InstanceName, KeyRole, PeerAddress, PeerEntry, PeerKind, PeerRights,
};
use vtpm_protocol::tpm::{PublicId, Tpm2b, TpmaObject, TpmtPublic};

use super::identity::{self, IdentityError};
use super::{Untrusted, VerifiedIdentity, certificate, recognize, spki};
use crate::tree::tests::root_identity;

/// `tcg-kp-AIKCertificate`.
const AIK: &[u64] = &[2, 23, 133, 8, 3];

/// A key that somebody else holds, as the subject of a certificate.
pub(crate) struct Subject(Vec<u8>);

impl Subject {
    pub(crate) fn of(public: &[u8]) -> Self {
        let PublicId::Ecc(point) = decode_exact::<TpmtPublic>(public).unwrap().unique else { panic!() };
        let mut bytes = vec![4];
        for coordinate in [&point.x, &point.y] {
            bytes.extend(std::iter::repeat_n(0, 32usize.saturating_sub(coordinate.len())));
            bytes.extend_from_slice(coordinate);
        }
        Self(bytes)
    }
}

impl PublicKeyData for Subject {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }
    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// An authority of the tests.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate: Vec<u8>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().to_vec();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// A certificate for years 2020 to `until`.
    pub(crate) fn certify(&self, subject: &Subject, until: i32, usages: &[&[u64]]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "host-b");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        params.extended_key_usages =
            usages.iter().map(|oid| ExtendedKeyUsagePurpose::Other(oid.to_vec())).collect();
        params.signed_by(subject, &self.issuer).unwrap().der().to_vec()
    }
}

pub(crate) fn peer(label: &str, kind: PeerKind, credential: &[u8]) -> PeerEntry {
    PeerEntry {
        label: InstanceName::new(label).unwrap(),
        kind,
        rights: PeerRights::default(),
        credential: Tpm2b::new(credential).unwrap(),
        address: PeerAddress::default(),
    }
}

/// 2026, whenever the test runs.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(1_790_000_000)).unwrap()
}

fn document() -> Identity {
    static MADE: OnceLock<Identity> = OnceLock::new();
    MADE.get_or_init(|| root_identity(0)).clone()
}

fn verified() -> VerifiedIdentity {
    identity::verify(document()).unwrap()
}

#[test]
fn a_root_certifies_its_keys_at_init() {
    let verified = verified();
    assert!(verified.fingerprint().starts_with("000b") && verified.fingerprint().len() == 68);
    let roles: Vec<KeyRole> = verified.keys().map(|(role, _)| role).collect();
    assert_eq!(roles, [KeyRole::RsaStorage, KeyRole::EccStorage, KeyRole::Link]);
    assert!(verified.key(KeyRole::Link).unwrap().attributes.has(TpmaObject::FIXED_TPM));
    assert!(verified.key(KeyRole::Fleet).is_none());
    assert_ne!(verified.name(), identity::verify(root_identity(1)).unwrap().name());
}

#[test]
fn an_identity_survives_its_text_and_nothing_else_is_one() {
    let text = identity::to_text(&document());
    assert!(text.starts_with("-----BEGIN VTPMD IDENTITY-----\n"));
    assert_eq!(identity::from_text(text.as_bytes()), Ok(document()));
    let other = text.replace("VTPMD IDENTITY", "CERTIFICATE");
    assert_eq!(identity::from_text(other.as_bytes()), Err(IdentityError::Text));
    assert_eq!(identity::from_text(b"nothing"), Err(IdentityError::Text));
    let mut bytes = document().to_bytes();
    bytes.push(0);
    let longer = pem_rfc7468::encode_string("VTPMD IDENTITY", pem_rfc7468::LineEnding::LF, &bytes).unwrap();
    assert_eq!(identity::from_text(longer.as_bytes()), Err(IdentityError::Malformed));
}

#[test]
fn a_changed_bit_anywhere_but_in_the_certificate_makes_it_no_identity_of_this_host() {
    let good = document();
    let name = verified().name().to_vec();
    let bytes = good.to_bytes();
    // The certificate's size field and the count of keys are between attestation key and keys.
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let Ok(document) = decode_exact::<Identity>(&changed) else { continue };
        // With other attributes the same key is one with another Name, which nobody has pinned.
        if let Ok(verified) = identity::verify(document) {
            assert_ne!(verified.name(), name, "byte {at} of {}", bytes.len());
        }
    }
}

#[test]
fn keys_in_each_others_roles_twice_or_of_another_root_are_refused() {
    let good = document();
    let mut swapped = good.clone();
    swapped.keys[2].role = KeyRole::EccStorage;
    swapped.keys.remove(1);
    assert_eq!(identity::verify(swapped).err(), Some(IdentityError::Role(KeyRole::EccStorage)));
    let mut fleet = good.clone();
    fleet.keys[1].role = KeyRole::Fleet;
    assert_eq!(identity::verify(fleet).err(), Some(IdentityError::Role(KeyRole::Fleet)));
    let mut twice = good.clone();
    twice.keys.push(good.keys[0].clone());
    assert_eq!(identity::verify(twice).err(), Some(IdentityError::Twice(KeyRole::RsaStorage)));
    let mut foreign = good.clone();
    foreign.keys[1] = root_identity(1).keys[1].clone();
    assert_eq!(identity::verify(foreign).err(), Some(IdentityError::NotCertified(KeyRole::EccStorage)));
    // The attestation of one key does not stand for another.
    let mut exchanged = good.clone();
    exchanged.keys[0].public = good.keys[1].public.clone();
    assert_eq!(identity::verify(exchanged).err(), Some(IdentityError::NotCertified(KeyRole::RsaStorage)));
    // The link key is not restricted: it vouches for nothing.
    let mut link = good.clone();
    link.attestation = good.keys[2].public.clone();
    assert_eq!(identity::verify(link).err(), Some(IdentityError::NoAttestationKey));
    let mut none = good;
    none.attestation = Tpm2b::new(vec![1, 2, 3]).unwrap();
    assert_eq!(identity::verify(none).err(), Some(IdentityError::Malformed));
}

#[test]
fn a_pinned_key_is_recognized_by_its_name() {
    let verified = verified();
    let address = peer("address", PeerKind::Address, b"");
    let other = peer("other", PeerKind::Pinned, &root_identity(1).attestation);
    let pinned = peer("host-b", PeerKind::Pinned, &document().attestation);
    assert_eq!(verified.recognize(&[], now()).err(), Some(Untrusted::Unknown));
    assert_eq!(verified.recognize(&[address.clone(), other.clone()], now()).err(), Some(Untrusted::Unknown));
    let peers = [address, other, pinned];
    assert_eq!(verified.recognize(&peers, now()).unwrap().label.as_str(), "host-b");
    // The same bytes as an authority pin nothing.
    let wrong = peer("host-b", PeerKind::Authority, &document().attestation);
    assert_eq!(verified.recognize(&[wrong], now()).err(), Some(Untrusted::Unknown));
    // Nor does the name of a key make another key it.
    let link = verified.key(KeyRole::Link).unwrap();
    let result = recognize(&peers, link, verified.name(), &[], now());
    assert_eq!(result.err(), Some(Untrusted::NoAttestationKey));
}

#[test]
fn a_certificate_counts_when_issued_by_an_authority_for_this_key_at_this_time() {
    let (fleet, stranger) = (Authority::new("fleet"), Authority::new("stranger"));
    let subject = Subject::of(&document().attestation);
    let peers = [peer("fleet", PeerKind::Authority, &fleet.certificate)];
    let judge = |certificate: Vec<u8>, peers: &[PeerEntry]| {
        let document = Identity { certificate: Tpm2b::new(certificate).unwrap(), ..document() };
        let verified = identity::verify(document).unwrap();
        verified.recognize(peers, now()).map(|peer| peer.label.to_string())
    };
    let good = fleet.certify(&subject, 2040, &[]);
    assert_eq!(judge(good.clone(), &peers).as_deref(), Ok("fleet"));
    assert_eq!(judge(fleet.certify(&subject, 2040, &[AIK]), &peers).as_deref(), Ok("fleet"));
    // Among several authorities, too.
    let both = [peer("a", PeerKind::Authority, &stranger.certificate), peers[0].clone()];
    assert_eq!(judge(good.clone(), &both).as_deref(), Ok("fleet"));

    assert_eq!(judge(good.clone(), &[]), Err(Untrusted::Authority));
    assert_eq!(judge(good.clone(), &both[..1]), Err(Untrusted::Authority));
    // An authority of the same name with another key.
    let namesake = [peer("fleet", PeerKind::Authority, &Authority::new("fleet").certificate)];
    assert_eq!(judge(good.clone(), &namesake), Err(Untrusted::Authority));
    assert_eq!(judge(fleet.certify(&subject, 2021, &[]), &peers), Err(Untrusted::NotNow));
    let server_auth: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 1];
    assert_eq!(judge(fleet.certify(&subject, 2040, &[server_auth]), &peers), Err(Untrusted::Usage));
    let other = Subject::of(&root_identity(1).attestation);
    assert_eq!(judge(fleet.certify(&other, 2040, &[]), &peers), Err(Untrusted::OtherKey));
    assert_eq!(judge(vec![0x30, 0], &peers), Err(Untrusted::Certificate));
    // The authority's own certificate is nobody else's.
    assert_eq!(judge(fleet.certificate.clone(), &peers), Err(Untrusted::OtherKey));
    // Not valid yet.
    let verified =
        identity::verify(Identity { certificate: Tpm2b::new(good).unwrap(), ..document() }).unwrap();
    let early = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    assert_eq!(verified.recognize(&peers, early).err(), Some(Untrusted::NotNow));
}

#[test]
fn only_a_certificate_can_be_an_authority() {
    assert!(certificate::is_authority(&Authority::new("fleet").certificate));
    assert!(!certificate::is_authority(b"certificate"));
    assert!(!certificate::is_authority(&document().attestation));
}

/// What `openssl` writes for the same keys.
#[test]
fn public_keys_are_written_as_x509_has_them() {
    let verified = verified();
    let ecc = spki::of_public(verified.attestation()).unwrap();
    let expected = {
        let subject = Subject::of(&document().attestation);
        subject.subject_public_key_info()
    };
    assert_eq!(ecc, expected);
    let rsa = spki::of_public(verified.key(KeyRole::RsaStorage).unwrap()).unwrap();
    assert_eq!(rsa[..24], hex::decode("30820122300d06092a864886f70d01010105000382010f00").unwrap());
    assert_eq!(rsa[rsa.len() - 5..], [2, 3, 1, 0, 1]);
    // The modulus has its highest bit set and gets a zero in front.
    assert_eq!(rsa[24..33], hex::decode("3082010a0282010100").unwrap());
    assert_eq!(rsa.len(), 294);
}
