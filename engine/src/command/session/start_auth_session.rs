//! `TPM2_StartAuthSession` (Part 3, 11.1).

use crate::alg::{digest_2b, hash_of};
use crate::command::{Context, Output, parameters};
use crate::crypto::kdfa;
use crate::execute::bound_auth;
use crate::secret;
use crate::state::{Session, SessionFlags};
use std::sync::Arc;
use vtpm_protocol::codec::{Decode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    Secret2b, Tpm2bAuth, Tpm2bDigest, Tpm2bEncryptedSecret, Tpm2bName, Tpm2bNonce, TpmAlgId, TpmCc,
    TpmHandle, TpmHt, TpmNt, TpmSe, TpmaLocality, TpmaObject, TpmiAlgHash, TpmtSymDef, hash_size,
};
use zeroize::Zeroizing;

/// The smallest nonce of a caller, in bytes.
const SMALLEST_NONCE: usize = 16;

/// Starts an HMAC, policy or trial session, salted with a decryption key (handle 1), bound to an entity (handle 2), both, or
/// neither.
///
/// # Errors
/// `TPM_RC_SIZE` for a nonce under 16 bytes or over the digest; `TPM_RC_VALUE` for a salt without a key, one that does not decrypt, or an unknown
/// session type; `TPM_RC_KEY`, `TPM_RC_ATTRIBUTES` for a key that cannot decrypt; `TPM_RC_HANDLE` for a key without its private part and
/// for a bind entity without an authorization value; `TPM_RC_MODE`; `TPM_RC_SESSION_MEMORY`, `TPM_RC_SESSION_HANDLES` when there is no room.
pub fn start_auth_session(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (nonce_caller, encrypted_salt, SessionType(kind), symmetric, auth_hash): (
        Tpm2bNonce,
        Tpm2bEncryptedSecret,
        SessionType,
        TpmtSymDef,
        TpmiAlgHash,
    ) = parameters(r)?;
    let (tpm_key, bind) = (cx.handle(0)?, cx.handle(1)?);
    let digest_size = hash_size(auth_hash.0).ok_or(ResponseCode::HASH.parameter(5))?;
    if nonce_caller.len() < SMALLEST_NONCE || nonce_caller.len() > digest_size {
        return Err(ResponseCode::SIZE.parameter(1));
    }
    let salt = salt(cx, tpm_key, &encrypted_salt)?;
    let bind_auth = bind_auth(cx, bind)?;
    // Parameter encryption is CFB and nothing else.
    if symmetric.block_cipher().is_some_and(|(_, _, mode)| mode != TpmAlgId::CFB) {
        return Err(ResponseCode::MODE.parameter(4));
    }

    let slot = cx.state.allocate_session(cx.env.limits().active_sessions)?;
    let mut nonce = vec![0; nonce_caller.len()];
    cx.env.fill_random(&mut nonce);
    let nonce_tpm = Tpm2bNonce::new(nonce)?;
    let alg = hash_of(auth_hash);
    let session_key = if bind == TpmHandle::NULL && salt.is_empty() {
        Secret2b::empty()
    } else {
        let key = Zeroizing::new([bind_auth.expose(), &salt].concat());
        let bits = u32::try_from(digest_size).unwrap_or_default().saturating_mul(8);
        Secret2b::new(kdfa(alg, &key, b"ATH", &nonce_tpm, &nonce_caller, bits).to_vec())?
    };
    let mut session = Session {
        kind,
        symmetric,
        auth_hash,
        session_key,
        nonce_tpm: nonce_tpm.clone(),
        flags: SessionFlags::default(),
        bound_entity: Tpm2bName::empty(),
        bound_auth: Tpm2bDigest::empty(),
        audit_digest: Tpm2bDigest::empty(),
        policy_digest: Tpm2bDigest::empty(),
        cp_hash: Tpm2bDigest::empty(),
        command_code: TpmCc(0),
        command_locality: TpmaLocality(0),
        pcr_counter: 0,
        start_time: cx.state.time(cx.now),
        timeout: 0,
        epoch: cx.state.volatile.time_epoch,
    };
    if bind != TpmHandle::NULL {
        session.flags.is_lockout_bound = bind == TpmHandle::LOCKOUT;
        session.flags.is_da_bound = session.flags.is_lockout_bound || !cx.state.is_da_exempt(bind);
        if kind == TpmSe::HMAC {
            session.flags.is_bound = true;
            session.bound_entity = cx.state.name(bind)?;
            session.bound_auth = digest_2b(&bound_auth(&session, &bind_auth));
        }
    }
    if session.is_policy() {
        session.reset_policy();
    }
    let handle = session.handle(slot);
    cx.state.sessions.insert(slot, Arc::new(session));
    Ok(Output::with_handle(handle, &nonce_tpm))
}

/// `TPM_SE` as a parameter: one of the three that there are.
struct SessionType(TpmSe);

impl Decode for SessionType {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        match TpmSe::decode(r)? {
            kind @ (TpmSe::HMAC | TpmSe::POLICY | TpmSe::TRIAL) => Ok(Self(kind)),
            _ => Err(ResponseCode::VALUE),
        }
    }
}

fn salt(
    cx: &mut Context<'_>,
    tpm_key: TpmHandle,
    encrypted: &Tpm2bEncryptedSecret,
) -> Result<Zeroizing<Vec<u8>>, ResponseCode> {
    if tpm_key == TpmHandle::NULL {
        return if encrypted.is_empty() {
            Ok(Zeroizing::default())
        } else {
            Err(ResponseCode::VALUE.parameter(2))
        };
    }
    let key = cx.state.object(tpm_key)?;
    if !secret::is_asymmetric(&key.public) {
        return Err(ResponseCode::KEY.handle(1));
    }
    if encrypted.is_empty() {
        return Err(ResponseCode::VALUE.parameter(2));
    }
    if key.sensitive.is_none() {
        return Err(ResponseCode::HANDLE.handle(1));
    }
    if !key.has(TpmaObject::DECRYPT) {
        return Err(ResponseCode::ATTRIBUTES.handle(1));
    }
    // One code for all that can be wrong with it.
    secret::decrypt(key, b"SECRET", encrypted).map_err(|_| ResponseCode::VALUE.parameter(2))
}

/// The authorization value of the bind entity, which must be one that has a lasting one.
fn bind_auth(cx: &Context<'_>, bind: TpmHandle) -> Result<Tpm2bAuth, ResponseCode> {
    let unfit = match bind.handle_type() {
        TpmHt::TRANSIENT | TpmHt::PERSISTENT => cx.state.object(bind)?.sensitive.is_none(),
        TpmHt::NV_INDEX => {
            matches!(cx.state.nv_index(bind)?.public.attributes.nt()?, TpmNt::PinFail | TpmNt::PinPass)
        }
        _ => false,
    };
    if unfit { Err(ResponseCode::HANDLE.handle(2)) } else { cx.state.auth_value(bind) }
}

#[cfg(test)]
mod tests {
    use crate::command::asymmetric::testing::decrypting;
    use crate::command::nv::testing::{INDEX, OPEN, define, public};
    use crate::crypto::{HashAlg, KdfaStream};
    use crate::env::Limits;
    use crate::secret;
    use crate::signing::test_keys::*;
    use crate::testing::TestTpm;
    use crate::testing::objects::flush;
    use vtpm_protocol::codec::{Decode, Encode, Reader};
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    const NULLS: [TpmHandle; 2] = [TpmHandle::NULL, TpmHandle::NULL];

    fn input(nonce: usize, kind: TpmSe) -> Vec<u8> {
        (Tpm2bNonce::new(vec![7; nonce]).unwrap(), 0u16, kind, TpmAlgId::NULL, TpmAlgId::SHA256).to_bytes()
    }

    fn start(tpm: &mut TestTpm, nonce: usize, kind: TpmSe) -> Result<TpmHandle, ResponseCode> {
        let bytes = input(nonce, kind);
        let out = tpm.run(TpmCc::START_AUTH_SESSION, &NULLS, &Raw(bytes))?;
        Ok(TpmHandle::decode(&mut Reader::new(&out)).unwrap())
    }

    struct Raw(Vec<u8>);
    impl Encode for Raw {
        fn encode(&self, out: &mut Vec<u8>) {
            out.extend_from_slice(&self.0);
        }
    }

    #[test]
    fn handles_name_the_type_and_the_slot() {
        let mut tpm = TestTpm::started();
        assert_eq!(start(&mut tpm, 16, TpmSe::HMAC), Ok(TpmHandle(0x0200_0000)));
        assert_eq!(start(&mut tpm, 32, TpmSe::POLICY), Ok(TpmHandle(0x0300_0001)));
        assert_eq!(start(&mut tpm, 16, TpmSe::TRIAL), Ok(TpmHandle(0x0300_0002)));
        assert_eq!(start(&mut tpm, 16, TpmSe::HMAC), Err(ResponseCode::SESSION_MEMORY));
        assert!(tpm.run(TpmCc::FLUSH_CONTEXT, &[], &TpmHandle(0x0300_0001)).is_ok());
        assert_eq!(start(&mut tpm, 16, TpmSe::HMAC), Ok(TpmHandle(0x0200_0001)));
    }

    #[test]
    fn a_host_may_allow_fewer_active_sessions() {
        let mut tpm = TestTpm::started();
        tpm.env.limits = Some(Limits { active_sessions: 2, ..Limits::MOST });
        let first = start(&mut tpm, 16, TpmSe::HMAC).unwrap();
        assert!(tpm.run(TpmCc::CONTEXT_SAVE, &[], &first).is_ok());
        assert!(start(&mut tpm, 16, TpmSe::HMAC).is_ok());
        assert_eq!(start(&mut tpm, 16, TpmSe::HMAC), Err(ResponseCode::SESSION_HANDLES));
        assert!(tpm.run(TpmCc::FLUSH_CONTEXT, &[], &first).is_ok());
        assert!(start(&mut tpm, 16, TpmSe::HMAC).is_ok());
    }

    #[test]
    fn refuses_short_nonces_long_nonces_and_unknown_types() {
        let mut tpm = TestTpm::started();
        assert_eq!(start(&mut tpm, 15, TpmSe::HMAC), Err(ResponseCode::SIZE.parameter(1)));
        assert_eq!(start(&mut tpm, 33, TpmSe::HMAC), Err(ResponseCode::SIZE.parameter(1)));
        assert_eq!(start(&mut tpm, 16, TpmSe(2)), Err(ResponseCode::VALUE.parameter(3)));
    }

    #[test]
    fn parameters_are_encrypted_in_cfb_mode_only() {
        let mut tpm = TestTpm::started();
        let nonce = Tpm2bNonce::new(vec![7; 16]).unwrap();
        for alg in [TpmAlgId::AES, TpmAlgId::CAMELLIA, TpmAlgId::TDES] {
            let mut start = |mode: TpmAlgId| {
                let input = (&nonce, 0u16, TpmSe::HMAC, (alg, 128u16, mode), TpmAlgId::SHA256);
                tpm.run(TpmCc::START_AUTH_SESSION, &NULLS, &input).map(drop)
            };
            assert_eq!(start(TpmAlgId::CFB), Ok(()));
            for mode in [TpmAlgId::CTR, TpmAlgId::ECB, TpmAlgId::CMAC, TpmAlgId::NULL, TpmAlgId::SHA1] {
                assert_eq!(start(mode), Err(ResponseCode::MODE.parameter(4)));
            }
        }
    }

    #[test]
    fn a_salt_without_a_key_is_refused() {
        let mut tpm = TestTpm::started();
        let bytes =
            (Tpm2bNonce::new(vec![7; 16]).unwrap(), 1u16, 9u8, TpmSe::HMAC, TpmAlgId::NULL, TpmAlgId::SHA256);
        assert_eq!(tpm.run(TpmCc::START_AUTH_SESSION, &NULLS, &bytes), Err(ResponseCode::VALUE.parameter(2)));
    }

    #[test]
    fn rejects_a_truncated_session_id() {
        let mut tpm = TestTpm::started();
        let command = [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x76, 0x40, 0];
        assert_eq!(tpm.rc(&command), ResponseCode::INSUFFICIENT.handle(1));
    }

    /// With a key, an entity to be bound to, and a salt.
    fn start_with(tpm: &mut TestTpm, handles: [TpmHandle; 2], salt: &[u8]) -> Result<(), ResponseCode> {
        let salt = Tpm2bEncryptedSecret::new(salt).unwrap();
        let nonce = Tpm2bNonce::new(vec![7; 16]).unwrap();
        let input = (nonce, salt, TpmSe::HMAC, TpmAlgId::NULL, TpmAlgId::SHA256);
        let out = tpm.run(TpmCc::START_AUTH_SESSION, &handles, &input)?;
        flush(tpm, TpmHandle::decode(&mut Reader::new(&out)).unwrap());
        Ok(())
    }

    fn rng() -> KdfaStream {
        KdfaStream::new(HashAlg::Sha256, b"seed", b"salts", b"")
    }

    #[test]
    fn a_salt_is_for_a_key_that_decrypts() {
        let mut tpm = TestTpm::started();
        let null = TpmHandle::NULL;
        for scheme in [Scheme::NULL, Scheme::new(TpmAlgId::HMAC, TpmAlgId::SHA256)] {
            for key in [keyed_hash(scheme), symmetric()] {
                let key = load(&mut tpm, with(key, TpmaObject::DECRYPT));
                for salt in [&b""[..], b"salt"] {
                    let rc = start_with(&mut tpm, [key, null], salt);
                    assert_eq!(rc, Err(ResponseCode::KEY.handle(1)));
                }
                flush(&mut tpm, key);
            }
        }
        for key in [decrypting(ecc(Scheme::NULL)), decrypting(rsa(Scheme::NULL))] {
            let (_, salt) = secret::encrypt(&key.public, b"SECRET", &mut rng()).unwrap();
            let signing = with(without(key.clone(), TpmaObject::DECRYPT), TpmaObject::SIGN_ENCRYPT);
            for (key, rc) in [
                (key.clone(), Ok(())),
                (restricted(key.clone()), Ok(())),
                (public_only(key), Err(ResponseCode::HANDLE.handle(1))),
                (signing, Err(ResponseCode::ATTRIBUTES.handle(1))),
            ] {
                let key = load(&mut tpm, key);
                assert_eq!(start_with(&mut tpm, [key, null], &salt), rc);
                assert_eq!(start_with(&mut tpm, [key, null], b""), Err(ResponseCode::VALUE.parameter(2)));
                flush(&mut tpm, key);
            }
        }
    }

    #[test]
    fn a_salt_that_is_not_encrypted_to_the_key_is_refused_with_one_code() {
        let mut tpm = TestTpm::started();
        let value = Err(ResponseCode::VALUE.parameter(2));
        let object = decrypting(ecc(Scheme::NULL));
        let (_, salt) = secret::encrypt(&object.public, b"SECRET", &mut rng()).unwrap();
        let key = load(&mut tpm, object);
        let (mut off, mut long) = (salt.to_vec(), salt.to_vec());
        *off.last_mut().unwrap() ^= 1;
        long.push(0);
        for bad in [&salt[..salt.len() - 1], &[0], &off, &long] {
            assert_eq!(start_with(&mut tpm, [key, TpmHandle::NULL], bad), value);
        }

        let object = decrypting(rsa(Scheme::NULL));
        let public = secret::rsa_public(&object.public).unwrap();
        let encrypt = |label: &[u8], size| {
            public.encrypt_oaep(HashAlg::Sha256, label, &vec![7; size], &mut rng()).unwrap()
        };
        let (good, other_label, longer_than_the_digest) =
            (encrypt(b"SECRET\0", 32), encrypt(b"SECRET", 32), encrypt(b"SECRET\0", 33));
        let key = load(&mut tpm, object);
        assert_eq!(start_with(&mut tpm, [key, TpmHandle::NULL], &good), Ok(()));
        for bad in [&good[1..], &[0xff; 256], &other_label, &longer_than_the_digest] {
            assert_eq!(start_with(&mut tpm, [key, TpmHandle::NULL], bad), value);
        }
        // A scheme that no secret comes with.
        let rsaes = load(&mut tpm, decrypting(rsa(Scheme::new(TpmAlgId::RSAES, TpmAlgId::NULL))));
        assert_eq!(start_with(&mut tpm, [rsaes, TpmHandle::NULL], &good), value);
    }

    #[test]
    fn a_session_is_bound_to_what_has_a_lasting_authorization_value() {
        let mut tpm = TestTpm::started();
        let unfit = Err(ResponseCode::HANDLE.handle(2));
        let public_key = load(&mut tpm, public_only(ecc(Scheme::NULL)));
        assert_eq!(start_with(&mut tpm, [TpmHandle::NULL, public_key], b""), unfit);
        for (i, (nt, rc)) in
            (0..).zip([(TpmNt::Ordinary, Ok(())), (TpmNt::PinFail, unfit), (TpmNt::PinPass, unfit)])
        {
            let index = TpmHandle(INDEX.0 + i);
            let attributes = OPEN.with_nt(nt) | TpmaNv::NO_DA;
            let attributes = TpmaNv(attributes.0 & !TpmaNv::AUTH_WRITE.0);
            define(&mut tpm, TpmHandle::OWNER, b"pw", public(index, attributes, 8)).unwrap();
            assert_eq!(start_with(&mut tpm, [TpmHandle::NULL, index], b""), rc, "{nt:?}");
        }
        for entity in [TpmHandle::OWNER, TpmHandle::LOCKOUT, TpmHandle(0)] {
            assert_eq!(start_with(&mut tpm, [TpmHandle::NULL, entity], b""), Ok(()));
        }
    }

    #[test]
    fn unknown_algorithms_are_refused() {
        let mut tpm = TestTpm::started();
        let nonce = Tpm2bNonce::new(vec![7; 16]).unwrap();
        for (symmetric, hash, rc) in [
            (TpmAlgId::NULL, TpmAlgId::NULL, ResponseCode::HASH.parameter(5)),
            (TpmAlgId::NULL, TpmAlgId::AES, ResponseCode::HASH.parameter(5)),
            (TpmAlgId::SHA256, TpmAlgId::SHA256, ResponseCode::SYMMETRIC.parameter(4)),
        ] {
            let input = (&nonce, 0u16, TpmSe::HMAC, symmetric, hash);
            assert_eq!(tpm.run(TpmCc::START_AUTH_SESSION, &NULLS, &input), Err(rc));
        }
    }

    #[test]
    fn as_many_sessions_as_there_are_handles_can_be_active() {
        let mut tpm = TestTpm::started();
        for i in 0..64 {
            let session = start(&mut tpm, 16, TpmSe::HMAC).unwrap();
            assert_eq!(session.index(), i);
            tpm.run(TpmCc::CONTEXT_SAVE, &[session], &()).unwrap();
        }
        assert_eq!(start(&mut tpm, 16, TpmSe::HMAC), Err(ResponseCode::SESSION_HANDLES));
        flush(&mut tpm, TpmHandle(0x0200_0005));
        assert_eq!(start(&mut tpm, 16, TpmSe::HMAC), Ok(TpmHandle(0x0200_0005)));
    }
}
