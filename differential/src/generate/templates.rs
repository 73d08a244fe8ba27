//! Public areas: templates for new objects, and the objects that are the same on both sides.

use crate::bytes::b2;
use crate::client::crypto::Alg;
use crate::known_keys;
use crate::world::World;
use vtpm_protocol::tpm::{TpmAlgId as A, TpmaObject as O};

/// A public area in parts.
#[derive(Clone, Debug)]
pub struct Template {
    /// The type.
    pub alg: A,
    /// The hash of the Name.
    pub name_alg: A,
    /// The attributes.
    pub attributes: O,
    /// The policy.
    pub policy: Vec<u8>,
    /// The parameters of the type.
    pub parms: Vec<u8>,
    /// The unique part, with its sizes.
    pub unique: Vec<u8>,
}

impl Template {
    /// `TPMT_PUBLIC`.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(self.alg.0.to_be_bytes());
        out.extend(self.name_alg.0.to_be_bytes());
        out.extend(self.attributes.0.to_be_bytes());
        out.extend(b2(&self.policy));
        out.extend(&self.parms);
        out.extend(&self.unique);
        out
    }

    fn empty_unique(mut self) -> Self {
        self.unique = if self.alg == A::ECC { vec![0; 4] } else { vec![0; 2] };
        self
    }
}

fn alg(a: A) -> [u8; 2] {
    a.0.to_be_bytes()
}

const NULL: [u8; 2] = [0, 0x10];

/// AES-CFB with a key of so many bits, as a `TPMT_SYM_DEF_OBJECT`.
pub fn aes_cfb(bits: u16) -> Vec<u8> {
    [&alg(A::AES)[..], &bits.to_be_bytes(), &alg(A::CFB)].concat()
}

/// A hash that both have.
pub fn any_hash(w: &mut World) -> A {
    let all: Vec<A> = [A::SHA256, A::SHA256, A::SHA256, A::SHA1, A::SHA384, A::SHA512]
        .into_iter()
        .filter(|a| w.common.algs.contains(&a.0))
        .collect();
    w.rng.pick(&all)
}

/// The attributes of an object that the TPM makes and that stays where it is.
pub const FIXED: O = O(O::FIXED_TPM.0 | O::FIXED_PARENT.0);

fn flags(w: &mut World, base: O) -> O {
    let mut bits = base;
    bits = bits.with(O::USER_WITH_AUTH, w.rng.chance(92));
    bits = bits.with(O::ADMIN_WITH_POLICY, w.rng.chance(15));
    bits = bits.with(O::NO_DA, w.rng.chance(80));
    bits.with(O::ST_CLEAR, w.rng.chance(5))
}

fn template(alg: A, name_alg: A, attributes: O, parms: &[&[u8]]) -> Template {
    Template { alg, name_alg, attributes, policy: vec![], parms: parms.concat(), unique: vec![] }
        .empty_unique()
}

/// A curve that both have; mostly P-256.
pub fn any_curve(w: &mut World) -> u16 {
    let all: Vec<u16> = w.common.curves.iter().copied().collect();
    if w.rng.chance(60) { 3 } else { w.rng.choose(&all).unwrap_or(3) }
}

/// A storage key: elliptic mostly, now and then RSA or symmetric.
pub fn storage(w: &mut World) -> Template {
    let bits = flags(w, O::RESTRICTED | O::DECRYPT | O::SENSITIVE_DATA_ORIGIN);
    let name_alg = any_hash(w);
    let aes = aes_cfb(w.rng.pick(&[128, 128, 256]));
    match w.rng.below(40) {
        0 => template(A::RSA, name_alg, bits, &[&aes, &NULL, &2048u16.to_be_bytes(), &[0; 4]]),
        1..=4 => template(A::SYMCIPHER, name_alg, bits, &[&aes]),
        _ => {
            let curve = any_curve(w).to_be_bytes();
            template(A::ECC, name_alg, bits, &[&aes, &NULL, &curve, &NULL])
        }
    }
}

/// The common storage root key, which is quick to make.
pub fn storage_root() -> Template {
    let bits = FIXED | O::RESTRICTED | O::DECRYPT | O::SENSITIVE_DATA_ORIGIN | O::USER_WITH_AUTH | O::NO_DA;
    template(A::ECC, A::SHA256, bits, &[&aes_cfb(128), &NULL, &[0, 3], &NULL])
}

fn ecc_signing_scheme(w: &mut World) -> Vec<u8> {
    let hash = alg(any_hash(w));
    match w.rng.below(8) {
        0..=2 => [alg(A::ECDSA), hash].concat(),
        3 if w.common.algs.contains(&A::ECSCHNORR.0) => [alg(A::ECSCHNORR), hash].concat(),
        4 if w.common.algs.contains(&A::ECDAA.0) => [&alg(A::ECDAA)[..], &hash, &[0, 0]].concat(),
        _ => NULL.to_vec(),
    }
}

/// A signing scheme for RSA; null now and then.
pub fn rsa_signing_scheme(w: &mut World) -> Vec<u8> {
    let hash = alg(any_hash(w));
    match w.rng.below(3) {
        0 => [alg(A::RSASSA), hash].concat(),
        1 => [alg(A::RSAPSS), hash].concat(),
        _ => NULL.to_vec(),
    }
}

fn hmac_scheme(w: &mut World) -> Vec<u8> {
    let hash = alg(any_hash(w));
    if w.rng.chance(75) { [alg(A::HMAC), hash].concat() } else { NULL.to_vec() }
}

fn cipher(w: &mut World) -> Vec<u8> {
    let name = if w.common.algs.contains(&A::CAMELLIA.0) && w.rng.chance(25) { A::CAMELLIA } else { A::AES };
    let sizes: Vec<u16> = w.common.aes_bits.iter().copied().collect();
    let bits = w.rng.pick(&sizes);
    let modes: Vec<A> = [A::CFB, A::CTR, A::OFB, A::CBC, A::ECB, A::NULL]
        .into_iter()
        .filter(|a| w.common.algs.contains(&a.0) || *a == A::NULL)
        .collect();
    let mode = w.rng.pick(&modes);
    [&alg(name)[..], &bits.to_be_bytes(), &alg(mode)].concat()
}

/// A key that signs: elliptic or an HMAC key, restricted or not.
pub fn signing(w: &mut World) -> Template {
    let mut bits = flags(w, O::SIGN_ENCRYPT | O::SENSITIVE_DATA_ORIGIN);
    let name_alg = any_hash(w);
    bits = bits.with(O::RESTRICTED, w.rng.chance(25));
    if w.rng.chance(60) {
        let mut scheme = ecc_signing_scheme(w);
        if bits.has(O::RESTRICTED) && scheme == NULL {
            scheme = [alg(A::ECDSA), alg(A::SHA256)].concat();
        }
        let curve = any_curve(w).to_be_bytes();
        template(A::ECC, name_alg, bits, &[&NULL, &scheme, &curve, &NULL])
    } else {
        let mut scheme = hmac_scheme(w);
        if bits.has(O::RESTRICTED) && scheme == NULL {
            scheme = [alg(A::HMAC), alg(A::SHA256)].concat();
        }
        template(A::KEYEDHASH, name_alg, bits, &[&scheme])
    }
}

/// A key that decrypts and is no storage key.
pub fn decrypting(w: &mut World) -> Template {
    let name_alg = any_hash(w);
    match w.rng.below(6) {
        0 | 1 => {
            let bits = flags(w, O::DECRYPT | O::SENSITIVE_DATA_ORIGIN);
            let scheme =
                if w.rng.chance(50) { [alg(A::ECDH), alg(A::SHA256)].concat() } else { NULL.to_vec() };
            let curve = any_curve(w).to_be_bytes();
            template(A::ECC, name_alg, bits, &[&NULL, &scheme, &curve, &NULL])
        }
        2 => {
            let bits = flags(w, O::DECRYPT | O::RESTRICTED);
            let scheme = [alg(A::XOR), alg(A::SHA256), alg(A::KDF1_SP800_108)].concat();
            template(A::KEYEDHASH, name_alg, bits, &[&scheme])
        }
        _ => {
            let mut bits = flags(w, O::DECRYPT | O::SENSITIVE_DATA_ORIGIN);
            bits = bits.with(O::SIGN_ENCRYPT, w.rng.chance(60));
            let parms = cipher(w);
            template(A::SYMCIPHER, name_alg, bits, &[&parms])
        }
    }
}

/// Sealed data.
pub fn sealed(w: &mut World) -> Template {
    let bits = flags(w, O(0));
    let name_alg = any_hash(w);
    template(A::KEYEDHASH, name_alg, bits, &[&NULL])
}

/// Anything: parts that may not fit each other.
pub fn wild(w: &mut World) -> Template {
    let mut t = match w.rng.below(4) {
        0 => storage(w),
        1 => signing(w),
        2 => decrypting(w),
        _ => sealed(w),
    };
    let mut bits = O(0);
    for bit in [
        O::FIXED_TPM,
        O::FIXED_PARENT,
        O::SENSITIVE_DATA_ORIGIN,
        O::USER_WITH_AUTH,
        O::ADMIN_WITH_POLICY,
        O::NO_DA,
        O::ENCRYPTED_DUPLICATION,
        O::RESTRICTED,
        O::DECRYPT,
        O::SIGN_ENCRYPT,
        O::ST_CLEAR,
    ] {
        bits = bits.with(bit, w.rng.chance(50));
    }
    if w.rng.chance(70) {
        t.attributes = bits;
    }
    if w.rng.chance(20) {
        t.policy = w.rng.bytes(32);
    }
    if w.rng.chance(30) {
        t.unique = b2(&w.rng.bytes(16));
    }
    t
}

/// Whether data is given for it and not made by the TPM.
pub fn takes_data(t: &Template) -> bool {
    !t.attributes.has(O::SENSITIVE_DATA_ORIGIN)
}

/// An object whose sensitive part is known: public area, and `TPMT_SENSITIVE` with an authorization value.
pub fn known(w: &mut World, auth: &[u8]) -> (Template, Vec<u8>) {
    let name_alg = any_hash(w);
    let base = O::USER_WITH_AUTH.with(O::NO_DA, w.rng.chance(90));
    let seed_size = Alg(name_alg.0).size();
    let (mut t, secret, seed) = match w.rng.below(12) {
        0..=3 => {
            let bits = w.rng.pick(&[1024u16, 2048, 2048, 3072]);
            let bits = if w.common.rsa_bits.contains(&bits) { bits } else { 2048 };
            let (modulus, prime) = known_keys::rsa(bits);
            let signs = w.rng.chance(60);
            let use_bits = if signs { O::SIGN_ENCRYPT } else { O::DECRYPT };
            let scheme = if signs { rsa_signing_scheme(w) } else { rsa_encryption_scheme(w) };
            let parms = [&NULL[..], &scheme, &bits.to_be_bytes(), &[0; 4]];
            let mut t = template(A::RSA, name_alg, base | use_bits, &parms);
            t.unique = b2(&modulus);
            (t, prime, vec![])
        }
        4..=6 => {
            let curve = if w.common.curves.contains(&4) { w.rng.pick(&[3u16, 3, 4]) } else { 3 };
            let scalar = known_keys::scalar(w.rng.below(20) as u8, if curve == 3 { 32 } else { 48 });
            let (x, y) = known_keys::point(curve, &scalar).unwrap_or_default();
            let signs = w.rng.chance(60);
            let use_bits = if signs { O::SIGN_ENCRYPT } else { O::DECRYPT };
            let scheme = if signs { ecc_signing_scheme(w) } else { NULL.to_vec() };
            let parms = [&NULL[..], &scheme, &curve.to_be_bytes(), &NULL];
            let mut t = template(A::ECC, name_alg, base | use_bits, &parms);
            t.unique = [b2(&x), b2(&y)].concat();
            (t, scalar, vec![])
        }
        7..=9 => {
            let scheme = hmac_scheme(w);
            let restricted = w.rng.chance(20) && scheme != NULL;
            let bits = (base | O::SIGN_ENCRYPT).with(O::RESTRICTED, restricted);
            let t = template(A::KEYEDHASH, name_alg, bits, &[&scheme]);
            let size = w.rng.between(1, 64);
            (t, w.rng.bytes(size), w.rng.bytes(seed_size))
        }
        _ => {
            let parms = cipher(w);
            let size = usize::from(crate::bytes::u16_at(&parms, 2) / 8);
            let bits = base | O::DECRYPT | O::SIGN_ENCRYPT;
            let t = template(A::SYMCIPHER, name_alg, bits, &[&parms]);
            (t, w.rng.bytes(size), w.rng.bytes(seed_size))
        }
    };
    if !seed.is_empty() {
        t.unique = b2(&Alg(name_alg.0).hash(&[&seed, &secret]));
    }
    let sensitive = [&alg(t.alg)[..], &b2(auth), &b2(&seed), &b2(&secret)].concat();
    (t, sensitive)
}

/// A storage key whose sensitive part is known, for both to have the same parent.
pub fn known_parent(w: &mut World) -> (Template, Vec<u8>) {
    let n = w.rng.below(4) as u8;
    let bits = O::RESTRICTED | O::DECRYPT | O::USER_WITH_AUTH | O::NO_DA;
    let mut t = template(A::ECC, A::SHA256, bits, &[&aes_cfb(128), &NULL, &[0, 3], &NULL]);
    let scalar = known_keys::scalar(100 + n, 32);
    let (x, y) = known_keys::point(3, &scalar).unwrap_or_default();
    t.unique = [b2(&x), b2(&y)].concat();
    let seed = vec![n; 32];
    let sensitive = [&alg(A::ECC)[..], &b2(&[]), &b2(&seed), &b2(&scalar)].concat();
    (t, sensitive)
}

/// An encryption scheme for RSA; null now and then.
pub fn rsa_encryption_scheme(w: &mut World) -> Vec<u8> {
    match w.rng.below(3) {
        0 if w.common.algs.contains(&A::RSAES.0) => alg(A::RSAES).to_vec(),
        1 => [alg(A::OAEP), alg(any_hash(w))].concat(),
        _ => NULL.to_vec(),
    }
}
