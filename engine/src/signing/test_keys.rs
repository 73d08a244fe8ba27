//! Keys for the tests of what signs and verifies, put into the state as they are.

use crate::crypto::{HashAlg, KdfaStream, ecc as curves, rsa::RsaPrivate};
use crate::entity::{handle_name, object_name, qualified_name};
use crate::secret::{self, ecc_point};
use crate::state::{Computed, Object, ObjectFlags};
use crate::testing::TestTpm;
use std::sync::OnceLock;
use vtpm_protocol::tpm::*;
use zeroize::Zeroizing;

/// The authorization value of all of them.
pub const AUTH: &[u8] = b"auth";

/// Modulus and prime.
type RsaParts = (Vec<u8>, Zeroizing<Vec<u8>>);

fn stream(label: &[u8]) -> KdfaStream {
    KdfaStream::new(HashAlg::Sha256, b"test keys", label, &[])
}

/// With Names and as a primary object of the owner.
fn object(parms: PublicParms, unique: PublicId, sensitive: SensitiveComposite) -> Object {
    let public = TpmtPublic {
        name_alg: TpmAlgId::SHA256,
        attributes: TpmaObject::SIGN_ENCRYPT | TpmaObject::USER_WITH_AUTH | TpmaObject::FIXED_TPM,
        auth_policy: Tpm2bDigest::empty(),
        parms,
        unique,
    };
    let sensitive = TpmtSensitive {
        auth_value: Tpm2bAuth::new(AUTH.to_vec()).unwrap(),
        seed_value: Tpm2bAuth::empty(),
        sensitive,
    };
    let object = Object {
        public,
        sensitive: Some(sensitive),
        name: Tpm2bName::empty(),
        qualified_name: Tpm2bName::empty(),
        hierarchy: TpmHandle::OWNER,
        flags: ObjectFlags::default(),
        computed: Computed::default(),
    };
    named(object)
}

fn named(mut object: Object) -> Object {
    object.name = object_name(&object.public);
    object.qualified_name = qualified_name(&object.public, &handle_name(object.hierarchy), &object.name);
    object
}

pub fn rsa(scheme: Scheme) -> Object {
    sized_rsa(2048, scheme)
}

/// An RSA key of a size in bits, which is made once for all tests.
pub fn sized_rsa(key_bits: u16, scheme: Scheme) -> Object {
    static MADE: [OnceLock<RsaParts>; RSA_KEY_BITS.len()] = [const { OnceLock::new() }; RSA_KEY_BITS.len()];
    let at = RSA_KEY_BITS.iter().position(|bits| *bits == key_bits).unwrap();
    let make = || RsaPrivate::generate(usize::from(key_bits), 0, &mut stream(b"rsa")).unwrap();
    let (n, p) = MADE[at].get_or_init(make).clone();
    let symmetric = TpmtSymDefObject(TpmtSymDef::Null);
    object(
        PublicParms::Rsa { symmetric, scheme, key_bits, exponent: 0 },
        PublicId::Rsa(Tpm2bPublicKeyRsa::new(n).unwrap()),
        SensitiveComposite::Rsa(Secret2b::new(p.to_vec()).unwrap()),
    )
}

pub fn ecc(scheme: Scheme) -> Object {
    ecc_on(TpmEccCurve::NIST_P256, scheme)
}

pub fn ecc_on(curve: TpmEccCurve, scheme: Scheme) -> Object {
    ecc_labelled(b"ecc", curve, scheme)
}

/// Another key for another label.
pub fn ecc_labelled(label: &[u8], curve: TpmEccCurve, scheme: Scheme) -> Object {
    let (d, q) = curves::generate(secret::curve(curve).unwrap(), &mut stream(label));
    let symmetric = TpmtSymDefObject(TpmtSymDef::Null);
    object(
        PublicParms::Ecc { symmetric, scheme, curve, kdf: Scheme::NULL },
        PublicId::Ecc(ecc_point(&q).unwrap()),
        SensitiveComposite::Ecc(Secret2b::new(d.to_vec()).unwrap()),
    )
}

pub fn keyed_hash(scheme: Scheme) -> Object {
    object(
        PublicParms::KeyedHash { scheme },
        PublicId::Digest(Tpm2bDigest::new(vec![1; 32]).unwrap()),
        SensitiveComposite::Bits(Secret2b::new(vec![7; 32]).unwrap()),
    )
}

/// A cipher, for which the sign attribute means encrypt.
pub fn symmetric() -> Object {
    object(
        PublicParms::SymCipher {
            sym: TpmtSymDefObject(TpmtSymDef::Aes { key_bits: 128, mode: TpmAlgId::CFB }),
        },
        PublicId::Digest(Tpm2bDigest::new(vec![2; 32]).unwrap()),
        SensitiveComposite::Sym(Secret2b::new(vec![8; 16]).unwrap()),
    )
}

pub fn with(mut object: Object, attribute: TpmaObject) -> Object {
    object.public.attributes = object.public.attributes.with(attribute, true);
    named(object)
}

pub fn without(mut object: Object, attribute: TpmaObject) -> Object {
    object.public.attributes = object.public.attributes.with(attribute, false);
    named(object)
}

pub fn restricted(object: Object) -> Object {
    with(object, TpmaObject::RESTRICTED)
}

pub fn in_hierarchy(mut object: Object, hierarchy: TpmHandle) -> Object {
    object.hierarchy = hierarchy;
    named(object)
}

pub fn public_only(mut object: Object) -> Object {
    object.sensitive = None;
    object.flags.public_only = true;
    object
}

/// Puts the key into a transient slot.
pub fn load(tpm: &mut TestTpm, object: Object) -> TpmHandle {
    let handle = tpm.state().insert_transient(object).unwrap();
    tpm.resave();
    handle
}
