//! Templates and the commands around them, for tests.

use super::TestTpm;
use vtpm_protocol::codec::{Encode, decode_exact};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::*;

/// AES-128 in CFB mode.
pub const AES_128: TpmtSymDefObject =
    TpmtSymDefObject(TpmtSymDef::Aes { key_bits: 128, mode: TpmAlgId::CFB });
/// The same for a wrapper.
pub const AES_128_CIPHER: crate::alg::SymCipher =
    crate::alg::SymCipher { alg: crate::crypto::SymAlg::Aes, key_bits: 128 };
/// No symmetric algorithm.
pub const NO_SYM: TpmtSymDefObject = TpmtSymDefObject(TpmtSymDef::Null);

const FIXED: TpmaObject = TpmaObject(TpmaObject::FIXED_TPM.0 | TpmaObject::FIXED_PARENT.0);
const USER: TpmaObject = TpmaObject(TpmaObject::USER_WITH_AUTH.0 | TpmaObject::SENSITIVE_DATA_ORIGIN.0);

fn template(attributes: TpmaObject, parms: PublicParms) -> TpmtPublic {
    let unique = match parms.alg() {
        TpmAlgId::RSA => PublicId::Rsa(Tpm2bPublicKeyRsa::empty()),
        TpmAlgId::ECC => PublicId::Ecc(TpmsEccPoint::default()),
        _ => PublicId::Digest(Tpm2bDigest::empty()),
    };
    let auth_policy = Tpm2bDigest::empty();
    TpmtPublic { name_alg: TpmAlgId::SHA256, attributes, auth_policy, parms, unique }
}

pub fn ecc_storage_key() -> TpmtPublic {
    ecc_storage_key_on(TpmEccCurve::NIST_P256)
}

pub fn ecc_storage_key_on(curve: TpmEccCurve) -> TpmtPublic {
    template(
        FIXED | USER | TpmaObject::RESTRICTED | TpmaObject::DECRYPT | TpmaObject::NO_DA,
        PublicParms::Ecc { symmetric: AES_128, scheme: Scheme::NULL, curve, kdf: Scheme::NULL },
    )
}

pub fn rsa_storage_key() -> TpmtPublic {
    template(
        FIXED | USER | TpmaObject::RESTRICTED | TpmaObject::DECRYPT | TpmaObject::NO_DA,
        PublicParms::Rsa { symmetric: AES_128, scheme: Scheme::NULL, key_bits: 2048, exponent: 0 },
    )
}

/// An unrestricted ECDSA key.
pub fn ecc_signing_key() -> TpmtPublic {
    template(
        FIXED | USER | TpmaObject::SIGN_ENCRYPT,
        PublicParms::Ecc {
            symmetric: NO_SYM,
            scheme: Scheme::new(TpmAlgId::ECDSA, TpmAlgId::SHA256),
            curve: TpmEccCurve::NIST_P256,
            kdf: Scheme::NULL,
        },
    )
}

/// An unrestricted RSASSA key.
pub fn rsa_signing_key() -> TpmtPublic {
    template(
        FIXED | USER | TpmaObject::SIGN_ENCRYPT,
        PublicParms::Rsa {
            symmetric: NO_SYM,
            scheme: Scheme::new(TpmAlgId::RSASSA, TpmAlgId::SHA256),
            key_bits: 2048,
            exponent: 0,
        },
    )
}

pub fn sealed_data() -> TpmtPublic {
    template(FIXED | TpmaObject::USER_WITH_AUTH, PublicParms::KeyedHash { scheme: Scheme::NULL })
}

pub fn hmac_key() -> TpmtPublic {
    let scheme = Scheme::new(TpmAlgId::HMAC, TpmAlgId::SHA256);
    template(FIXED | USER | TpmaObject::SIGN_ENCRYPT, PublicParms::KeyedHash { scheme })
}

pub fn derivation_parent() -> TpmtPublic {
    let scheme = Scheme { kdf: TpmAlgId::KDF1_SP800_108, ..Scheme::new(TpmAlgId::XOR, TpmAlgId::SHA256) };
    template(FIXED | USER | TpmaObject::RESTRICTED | TpmaObject::DECRYPT, PublicParms::KeyedHash { scheme })
}

pub fn symmetric_key() -> TpmtPublic {
    template(
        FIXED | USER | TpmaObject::SIGN_ENCRYPT | TpmaObject::DECRYPT,
        PublicParms::SymCipher { sym: AES_128 },
    )
}

pub fn symmetric_storage_key() -> TpmtPublic {
    template(
        FIXED | USER | TpmaObject::RESTRICTED | TpmaObject::DECRYPT,
        PublicParms::SymCipher { sym: AES_128 },
    )
}

/// A template of every type that an ordinary child can have, and the data to seal in it.
pub fn child_templates() -> [(TpmtPublic, &'static str); 8] {
    [
        (ecc_storage_key(), ""),
        (ecc_signing_key(), ""),
        (rsa_signing_key(), ""),
        (hmac_key(), ""),
        (sealed_data(), "data"),
        (symmetric_key(), ""),
        (symmetric_storage_key(), ""),
        (derivation_parent(), ""),
    ]
}

/// The same template, but its object may leave TPM and parent.
pub fn duplicable(mut public: TpmtPublic) -> TpmtPublic {
    public.attributes = public.attributes.with(FIXED, false);
    public
}

pub fn with(mut public: TpmtPublic, attributes: TpmaObject) -> TpmtPublic {
    public.attributes = public.attributes | attributes;
    public
}

pub fn without(mut public: TpmtPublic, attributes: TpmaObject) -> TpmtPublic {
    public.attributes = public.attributes.with(attributes, false);
    public
}

/// inSensitive.
pub fn sensitive(auth: &[u8], data: &[u8]) -> Tpm2bSensitiveCreate {
    Tpm2bSensitiveCreate { user_auth: Tpm2bAuth::new(auth).unwrap(), data: Secret2b::new(data).unwrap() }
}

/// What `TPM2_CreatePrimary` returned.
pub struct Primary {
    pub handle: TpmHandle,
    pub public: TpmtPublic,
    pub name: Tpm2bName,
}

/// A primary object with empty authorization.
pub fn create_primary(
    tpm: &mut TestTpm,
    hierarchy: TpmHandle,
    public: TpmtPublic,
) -> Result<Primary, ResponseCode> {
    create_primary_with(tpm, hierarchy, public, b"", b"")
}

pub fn create_primary_with(
    tpm: &mut TestTpm,
    hierarchy: TpmHandle,
    public: TpmtPublic,
    auth: &[u8],
    data: &[u8],
) -> Result<Primary, ResponseCode> {
    let parameters =
        (sensitive(auth, data), Sized2b(public), Tpm2bData::empty(), TpmlPcrSelection::default());
    let (handle, out) = tpm.run_with(TpmCc::CREATE_PRIMARY, &[hierarchy], &[b""], &parameters)?;
    type Response = (Tpm2bPublic, Sized2b<TpmsCreationData>, Tpm2bDigest, TpmtTk, Tpm2bName);
    let (Sized2b(public), _, _, _, name): Response = decode_exact(&out).unwrap();
    Ok(Primary { handle: handle.unwrap(), public, name })
}

/// What `TPM2_Create` returned.
pub struct Created {
    pub private: Tpm2bPrivate,
    pub public: TpmtPublic,
    pub creation_data: TpmsCreationData,
    pub creation_hash: Tpm2bDigest,
    pub ticket: TpmtTk,
}

/// A child of `parent`, whose authorization value is empty.
pub fn create(
    tpm: &mut TestTpm,
    parent: TpmHandle,
    public: TpmtPublic,
    auth: &[u8],
    data: &[u8],
) -> Result<Created, ResponseCode> {
    let pcrs = TpmlPcrSelection::default();
    create_with(tpm, parent, &(sensitive(auth, data), Sized2b(public), Tpm2bData::empty(), pcrs))
}

/// As [`create`], with the parameters as they are.
pub fn create_with(
    tpm: &mut TestTpm,
    parent: TpmHandle,
    parameters: &dyn Encode,
) -> Result<Created, ResponseCode> {
    let (_, out) = tpm.run_with(TpmCc::CREATE, &[parent], &[b""], parameters)?;
    let (private, Sized2b(public), Sized2b(creation_data), creation_hash, ticket) =
        decode_exact(&out).unwrap();
    Ok(Created { private, public, creation_data, creation_hash, ticket })
}

pub fn load(tpm: &mut TestTpm, parent: TpmHandle, created: &Created) -> Result<TpmHandle, ResponseCode> {
    load_areas(tpm, parent, &created.private, &created.public)
}

pub fn load_areas(
    tpm: &mut TestTpm,
    parent: TpmHandle,
    private: &Tpm2bPrivate,
    public: &TpmtPublic,
) -> Result<TpmHandle, ResponseCode> {
    let parameters = (private, Sized2b(public.clone()));
    let (handle, _) = tpm.run_with(TpmCc::LOAD, &[parent], &[b""], &parameters)?;
    Ok(handle.unwrap())
}

pub fn load_external(
    tpm: &mut TestTpm,
    sensitive: Option<TpmtSensitive>,
    public: &TpmtPublic,
    hierarchy: TpmHandle,
) -> Result<TpmHandle, ResponseCode> {
    let parameters = (Tpm2bSensitive(sensitive), Sized2b(public.clone()), hierarchy);
    let out = tpm.run(TpmCc::LOAD_EXTERNAL, &[], &parameters)?;
    Ok(TpmHandle(u32::from_be_bytes(out[..4].try_into().unwrap())))
}

pub fn flush(tpm: &mut TestTpm, handle: TpmHandle) {
    tpm.run(TpmCc::FLUSH_CONTEXT, &[], &handle).unwrap();
}

/// A policy or trial session with SHA-256.
pub fn start_policy(tpm: &mut TestTpm, kind: TpmSe) -> TpmHandle {
    let input = (Tpm2bNonce::new(vec![7; 16]).unwrap(), 0u16, kind, TpmAlgId::NULL, TpmAlgId::SHA256);
    let out = tpm.run(TpmCc::START_AUTH_SESSION, &[TpmHandle::NULL; 2], &input).unwrap();
    TpmHandle(u32::from_be_bytes(out[..4].try_into().unwrap()))
}

/// Runs a command whose first handle a policy session authorizes, without an HMAC.
pub fn run_with_policy(
    tpm: &mut TestTpm,
    cc: TpmCc,
    handles: &[TpmHandle],
    session: TpmHandle,
    parameters: &dyn Encode,
) -> Result<Vec<u8>, ResponseCode> {
    let area = (session, 0u16, TpmaSession::CONTINUE_SESSION, 0u16).to_bytes();
    let response = tpm.raw(&super::command_bytes(cc, handles, &area, &parameters.to_bytes()));
    match super::code(&response) {
        ResponseCode::SUCCESS => {
            let size = u32::from_be_bytes(response[10..14].try_into().unwrap()) as usize;
            Ok(response[14..14 + size].to_vec())
        }
        rc => Err(rc),
    }
}
