//! What every attestation command refuses of its signer, its scheme and its parameters.

use super::testing::*;
use crate::command::nv::testing::{INDEX, OPEN, define, public, write};
use crate::signing::test_keys::*;
use crate::testing::{Raw, TestTpm};
use vtpm_protocol::codec::Encode;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::*;

/// A command, where its signer stands among its handles and sessions (from 1), and where its scheme among its parameters.
struct Case {
    cc: TpmCc,
    handles: Vec<TpmHandle>,
    signer: usize,
    /// The sessions of the handles; that of the signer is put in.
    passwords: Vec<&'static [u8]>,
    /// The parameters; that of the scheme is put in.
    parameters: Vec<Vec<u8>>,
    scheme: usize,
}

/// A TPM with an object in slot 0 and an audit session, and every attestation command on it.
fn prepared() -> (TestTpm, Vec<Case>) {
    let mut tpm = TestTpm::started();
    let object = load(&mut tpm, ecc(ECDSA));
    define(&mut tpm, TpmHandle::OWNER, b"", public(INDEX, OPEN, 8)).unwrap();
    write(&mut tpm, TpmHandle::OWNER, b"", b"12345678", 0).unwrap();
    let start = (Tpm2bNonce::new([7; 16]).unwrap(), 0u16, TpmSe::HMAC, TpmAlgId::NULL, TpmAlgId::SHA256);
    tpm.run(TpmCc::START_AUTH_SESSION, &[TpmHandle::NULL; 2], &start).unwrap();
    let session = TpmHandle(0x0200_0000);
    std::sync::Arc::make_mut(tpm.state().sessions.get_mut(&0).unwrap()).flags.is_audit = true;
    let (admin, null, data) = (TpmHandle::ENDORSEMENT, TpmHandle::NULL, nonce().to_bytes());
    let case =
        |cc, handles: &[TpmHandle], signer, passwords: &[&'static [u8]], parameters: &[&[u8]], scheme| {
            let parameters = parameters.iter().map(|p| p.to_vec()).collect();
            Case { cc, handles: handles.to_vec(), signer, passwords: passwords.to_vec(), parameters, scheme }
        };
    let hash = Tpm2bDigest::new([1; 32]).unwrap();
    let name = tpm.state().name(object).unwrap();
    let ticket = crate::ticket::creation(tpm.state(), TpmHandle::OWNER, &name, &hash).to_bytes();
    let hash = hash.to_bytes();
    let cases = vec![
        case(TpmCc::CERTIFY, &[object, null], 2, &[AUTH, b""], &[&data, b""], 2),
        case(TpmCc::CERTIFY_CREATION, &[null, object], 1, &[b""], &[&data, &hash, b"", &ticket], 3),
        case(TpmCc::QUOTE, &[null], 1, &[b""], &[&data, b"", &[0; 4]], 2),
        case(TpmCc::GET_SESSION_AUDIT_DIGEST, &[admin, null, session], 2, &[b"", b""], &[&data, b""], 2),
        case(TpmCc::GET_COMMAND_AUDIT_DIGEST, &[admin, null], 2, &[b"", b""], &[&data, b""], 2),
        case(TpmCc::GET_TIME, &[admin, null], 2, &[b"", b""], &[&data, b""], 2),
        case(TpmCc::CERTIFY_X509, &[object, null], 2, &[AUTH, b""], &[&[0; 2], b"", &[0; 2]], 2),
        case(TpmCc::NV_CERTIFY, &[null, INDEX, INDEX], 1, &[b"", b""], &[&data, b"", &[0, 8], &[0; 2]], 2),
    ];
    tpm.resave();
    (tpm, cases)
}

impl Case {
    fn bytes(&self, scheme: Scheme) -> Vec<Vec<u8>> {
        let mut parameters = self.parameters.clone();
        parameters[self.scheme - 1] = TpmtSigScheme(scheme).to_bytes();
        parameters
    }

    fn with(
        &self,
        tpm: &mut TestTpm,
        signer: TpmHandle,
        password: &'static [u8],
        parameters: &[Vec<u8>],
    ) -> ResponseCode {
        let (mut handles, mut passwords) = (self.handles.clone(), self.passwords.clone());
        handles[self.signer - 1] = signer;
        passwords[self.signer - 1] = password;
        let bytes = parameters.concat();
        tpm.run_with(self.cc, &handles, &passwords, &Raw(&bytes))
            .map_or_else(|rc| rc, |_| ResponseCode::SUCCESS)
    }

    fn by(&self, tpm: &mut TestTpm, signer: TpmHandle, scheme: Scheme) -> ResponseCode {
        self.with(tpm, signer, AUTH, &self.bytes(scheme))
    }
}

/// The number of a handle, session or parameter.
fn nth(n: usize) -> u32 {
    u32::try_from(n).unwrap()
}

#[test]
fn a_signer_is_a_key_in_memory_with_its_private_part_and_authorized() {
    let (mut tpm, cases) = prepared();
    let gone = TpmHandle(0x8000_0002);
    let public = load(&mut tpm, public_only(ecc(ECDSA)));
    for case in cases {
        let (n, no_handle) =
            (nth(case.signer), [TpmHandle::OWNER, INDEX, TpmHandle(16), TpmHandle(0x8000_0003)]);
        for handle in no_handle {
            assert_eq!(case.by(&mut tpm, handle, ECDSA), ResponseCode::VALUE.handle(n), "{:?}", case.cc);
        }
        let reference = ResponseCode::from_value(ResponseCode::REFERENCE_H0.value() + n - 1);
        assert_eq!(case.by(&mut tpm, gone, ECDSA), reference, "{:?}", case.cc);
        let persistent = case.by(&mut tpm, TpmHandle(0x8100_0000), ECDSA);
        assert_eq!(persistent, ResponseCode::HANDLE.handle(n), "{:?}", case.cc);
        assert_eq!(case.by(&mut tpm, public, ECDSA), ResponseCode::AUTH_UNAVAILABLE, "{:?}", case.cc);
        let wrong = case.with(&mut tpm, TpmHandle(0x8000_0000), b"no", &case.bytes(ECDSA));
        assert_eq!(wrong, ResponseCode::AUTH_FAIL.session(n), "{:?}", case.cc);
        let null = case.with(&mut tpm, TpmHandle::NULL, b"no", &case.bytes(ECDSA));
        assert_eq!(null, ResponseCode::BAD_AUTH.session(n), "{:?}", case.cc);
    }
}

#[test]
fn a_scheme_fits_the_type_of_the_key_and_its_own_scheme() {
    let (mut tpm, cases) = prepared();
    let (hmac, sha384) = (TpmAlgId::HMAC, TpmAlgId::SHA384);
    let keyed = keyed_hash(Scheme::new(hmac, TpmAlgId::SHA256));
    let ecdaa = Scheme::new(TpmAlgId::ECDAA, TpmAlgId::SHA256);
    for (key, schemes) in [
        (
            ecc(Scheme::NULL),
            vec![Scheme::NULL, Scheme::new(hmac, sha384), Scheme::new(TpmAlgId::RSAPSS, sha384)],
        ),
        (rsa(Scheme::NULL), vec![Scheme::NULL, ECDSA, Scheme::new(hmac, sha384)]),
        (keyed_hash(Scheme::NULL), vec![Scheme::NULL, ECDSA, Scheme::new(TpmAlgId::RSASSA, sha384)]),
        (
            ecc(ECDSA),
            vec![Scheme::new(TpmAlgId::ECDSA, sha384), Scheme::new(TpmAlgId::ECSCHNORR, TpmAlgId::SHA256)],
        ),
        (keyed, vec![Scheme::new(hmac, sha384)]),
        (ecc(ecdaa), vec![Scheme::NULL, ECDSA]),
    ] {
        let key = load(&mut tpm, key);
        for case in &cases {
            for scheme in &schemes {
                let rc = case.by(&mut tpm, key, *scheme);
                assert_eq!(rc, ResponseCode::SCHEME.parameter(nth(case.scheme)), "{:?} {scheme:?}", case.cc);
            }
        }
        crate::testing::objects::flush(&mut tpm, key);
    }
    for key in [without(ecc(Scheme::NULL), TpmaObject::SIGN_ENCRYPT), symmetric()] {
        let key = load(&mut tpm, key);
        for case in &cases {
            // The key is told before the scheme.
            let rc = case.by(&mut tpm, key, Scheme::NULL);
            assert_eq!(rc, ResponseCode::KEY.handle(nth(case.signer)), "{:?}", case.cc);
        }
        crate::testing::objects::flush(&mut tpm, key);
    }
}

#[test]
fn a_commitment_that_was_not_made_signs_nothing() {
    let (mut tpm, cases) = prepared();
    let ecdaa = Scheme::new(TpmAlgId::ECDAA, TpmAlgId::SHA256);
    let key = load(&mut tpm, ecc(ecdaa));
    for case in &cases {
        // The certificate is empty, which is told first.
        let x509 = case.cc == TpmCc::CERTIFY_X509;
        let expected = if x509 { ResponseCode::VALUE.parameter(3) } else { ResponseCode::VALUE };
        assert_eq!(case.by(&mut tpm, key, Scheme { count: 7, ..ecdaa }), expected, "{:?}", case.cc);
    }
}

#[test]
fn parameters_are_whole_and_of_known_algorithms() {
    let (mut tpm, cases) = prepared();
    let key = TpmHandle(0x8000_0000);
    for case in &cases {
        let whole = case.bytes(ECDSA);
        for n in 0..whole.len() {
            for keep in 0..whole[n].len() {
                let mut cut = whole[..=n].to_vec();
                cut[n].truncate(keep);
                let rc = case.with(&mut tpm, key, AUTH, &cut);
                assert_eq!(rc, ResponseCode::INSUFFICIENT.parameter(nth(n + 1)), "{:?} {keep}", case.cc);
            }
        }
        let long = [whole.clone(), vec![vec![0]]].concat();
        assert_eq!(case.with(&mut tpm, key, AUTH, &long), ResponseCode::SIZE, "{:?}", case.cc);
        // A buffer that is too long for its type.
        let mut long = whole.clone();
        long[0] = vec![0xff; 2];
        assert_eq!(case.with(&mut tpm, key, AUTH, &long), ResponseCode::SIZE.parameter(1), "{:?}", case.cc);
        let n = nth(case.scheme);
        for (bytes, rc) in [
            ([0, 0x06, 0, 0x0b], ResponseCode::SCHEME),
            ([0, 0x18, 0, 0x0a], ResponseCode::HASH),
            ([0, 0x18, 0, 0x10], ResponseCode::HASH),
        ] {
            let mut unknown = whole.clone();
            unknown[case.scheme - 1] = bytes.to_vec();
            assert_eq!(case.with(&mut tpm, key, AUTH, &unknown), rc.parameter(n), "{:?} {bytes:?}", case.cc);
        }
    }
}
