//! The ECC commands, for their tests.

use crate::secret;
use crate::signing::test_keys::{AUTH, ecc, restricted, rsa, with, without};
use crate::state::Object;
use crate::testing::TestTpm;
use vtpm_protocol::codec::{Encode, decode_exact};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::*;

pub const KDF2: Scheme = Scheme::new(TpmAlgId::KDF2, TpmAlgId::SHA256);

/// The same key for decryption instead of signatures.
pub fn decrypting(key: Object) -> Object {
    with(without(key, TpmaObject::SIGN_ENCRYPT), TpmaObject::DECRYPT)
}

/// Keys that multiply no point for the caller, and what their handle is blamed with.
pub fn not_for_exchange() -> [(Object, ResponseCode); 3] {
    [
        (decrypting(rsa(Scheme::NULL)), ResponseCode::KEY),
        (ecc(Scheme::NULL), ResponseCode::ATTRIBUTES),
        (restricted(decrypting(ecc(Scheme::NULL))), ResponseCode::ATTRIBUTES),
    ]
}

pub fn point(x: &[u8], y: &[u8]) -> Tpm2bEccPoint {
    Sized2b(TpmsEccPoint { x: Tpm2bEccParameter::new(x).unwrap(), y: Tpm2bEccParameter::new(y).unwrap() })
}

pub fn generator(curve: TpmEccCurve) -> Tpm2bEccPoint {
    let parameters = secret::curve(curve).unwrap().parameters();
    point(parameters.gx, parameters.gy)
}

pub fn public_of(key: &Object) -> Tpm2bEccPoint {
    match &key.public.unique {
        PublicId::Ecc(q) => Sized2b(q.clone()),
        _ => panic!("no point"),
    }
}

pub fn z_gen(tpm: &mut TestTpm, key: TpmHandle, p: &Tpm2bEccPoint) -> Result<Tpm2bEccPoint, ResponseCode> {
    let (_, out) = tpm.run_with(TpmCc::ECDH_ZGEN, &[key], &[AUTH], p)?;
    Ok(decode_exact(&out).unwrap())
}

pub fn ephemeral(tpm: &mut TestTpm, curve: TpmEccCurve) -> (Tpm2bEccPoint, u16) {
    decode_exact(&tpm.run(TpmCc::EC_EPHEMERAL, &[], &curve).unwrap()).unwrap()
}

/// `C1`, `C2`, `C3`.
pub type Encrypted = (Tpm2bEccPoint, Tpm2bMaxBuffer, Tpm2bDigest);

pub fn encrypt(
    tpm: &mut TestTpm,
    key: TpmHandle,
    plain_text: &[u8],
    scheme: Scheme,
) -> Result<Encrypted, ResponseCode> {
    let input = (Tpm2bMaxBuffer::new(plain_text).unwrap(), TpmtKdfScheme(scheme));
    Ok(decode_exact(&tpm.run(TpmCc::ECC_ENCRYPT, &[key], &input)?).unwrap())
}

pub fn decrypt(
    tpm: &mut TestTpm,
    key: TpmHandle,
    encrypted: &dyn Encode,
    scheme: Scheme,
) -> Result<Vec<u8>, ResponseCode> {
    let mut input = encrypted.to_bytes();
    scheme.encode(&mut input);
    let (_, out) = tpm.run_with(TpmCc::ECC_DECRYPT, &[key], &[AUTH], &Raw(input))?;
    Ok(decode_exact::<Tpm2bMaxBuffer>(&out).unwrap().to_vec())
}

/// Parameters that are encoded already.
struct Raw(Vec<u8>);

impl Encode for Raw {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
}
