//! Primary objects of the TPM that was taken over are those of swtpm.

use vtpm_protocol::tpm::*;

use crate::chip::{Chip, OWNER};
use crate::source::{Ours, Source};

const HIERARCHIES: [TpmHandle; 3] = [OWNER, TpmHandle::ENDORSEMENT, TpmHandle::PLATFORM];

const STORAGE: u32 = TpmaObject::FIXED_TPM.0
    | TpmaObject::FIXED_PARENT.0
    | TpmaObject::SENSITIVE_DATA_ORIGIN.0
    | TpmaObject::USER_WITH_AUTH.0
    | TpmaObject::NO_DA.0
    | TpmaObject::RESTRICTED.0
    | TpmaObject::DECRYPT.0;
const SIGNING: u32 = TpmaObject::FIXED_TPM.0
    | TpmaObject::FIXED_PARENT.0
    | TpmaObject::SENSITIVE_DATA_ORIGIN.0
    | TpmaObject::USER_WITH_AUTH.0
    | TpmaObject::SIGN_ENCRYPT.0;

const fn aes(key_bits: u16) -> TpmtSymDefObject {
    TpmtSymDefObject(TpmtSymDef::Aes { key_bits, mode: TpmAlgId::CFB })
}

fn template(attributes: u32, parms: PublicParms, unique: PublicId) -> TpmtPublic {
    TpmtPublic {
        name_alg: TpmAlgId::SHA256,
        attributes: TpmaObject(attributes),
        auth_policy: Tpm2bDigest::empty(),
        parms,
        unique,
    }
}

pub fn ecc(curve: TpmEccCurve) -> TpmtPublic {
    let parms = PublicParms::Ecc { symmetric: aes(128), scheme: Scheme::NULL, curve, kdf: Scheme::NULL };
    template(STORAGE, parms, PublicId::Ecc(TpmsEccPoint::default()))
}

pub fn rsa(key_bits: u16) -> TpmtPublic {
    let parms = PublicParms::Rsa { symmetric: aes(128), scheme: Scheme::NULL, key_bits, exponent: 0 };
    template(STORAGE, parms, PublicId::Rsa(Tpm2b::empty()))
}

/// TCG's template L-1 of an endorsement key.
pub fn ek() -> TpmtPublic {
    let policy = "837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa";
    TpmtPublic {
        auth_policy: Tpm2bDigest::new(hex::decode(policy).unwrap()).unwrap(),
        attributes: TpmaObject(0x0003_00b2),
        unique: PublicId::Rsa(Tpm2b::new(vec![0; 256]).unwrap()),
        ..rsa(2048)
    }
}

pub fn ecc_signing() -> TpmtPublic {
    let parms = PublicParms::Ecc {
        symmetric: TpmtSymDefObject(TpmtSymDef::Null),
        scheme: Scheme::new(TpmAlgId::ECDSA, TpmAlgId::SHA256),
        curve: TpmEccCurve::NIST_P256,
        kdf: Scheme::NULL,
    };
    template(SIGNING, parms, PublicId::Ecc(TpmsEccPoint::default()))
}

fn symmetric(key_bits: u16) -> TpmtPublic {
    let parms = PublicParms::SymCipher { sym: aes(key_bits) };
    template(STORAGE, parms, PublicId::Digest(Tpm2bDigest::empty()))
}

fn keyed_hash(attributes: u32, scheme: Scheme) -> TpmtPublic {
    template(attributes, PublicParms::KeyedHash { scheme }, PublicId::Digest(Tpm2bDigest::empty()))
}

/// Templates with a word for each, and data.
fn quick() -> Vec<(&'static str, TpmtPublic, &'static [u8])> {
    let hmac = Scheme::new(TpmAlgId::HMAC, TpmAlgId::SHA256);
    let sha384 = TpmtPublic { name_alg: TpmAlgId::SHA384, ..ecc(TpmEccCurve::NIST_P384) };
    let mut unique = ecc(TpmEccCurve::NIST_P256);
    unique.unique = PublicId::Ecc(TpmsEccPoint {
        x: Tpm2bEccParameter::new([1; 32]).unwrap(),
        y: Tpm2bEccParameter::new([2; 7]).unwrap(),
    });
    vec![
        ("P-256", ecc(TpmEccCurve::NIST_P256), b""),
        ("P-256 for signing", ecc_signing(), b""),
        ("P-256 with entropy", unique, b""),
        ("P-256 with data", ecc(TpmEccCurve::NIST_P256), b""),
        ("P-384", ecc(TpmEccCurve::NIST_P384), b""),
        ("P-384 with SHA-384", sha384, b""),
        ("P-521", ecc(TpmEccCurve::NIST_P521), b""),
        ("P-224", ecc(TpmEccCurve::NIST_P224), b""),
        ("AES-128", symmetric(128), b""),
        ("AES-256", symmetric(256), b""),
        ("HMAC", keyed_hash(SIGNING, hmac), b""),
        ("HMAC with a key", keyed_hash(SIGNING & !TpmaObject::SENSITIVE_DATA_ORIGIN.0, hmac), b"a key"),
        (
            "sealed data",
            keyed_hash(
                SIGNING & !(TpmaObject::SENSITIVE_DATA_ORIGIN | TpmaObject::SIGN_ENCRYPT).0,
                Scheme::NULL,
            ),
            b"data",
        ),
    ]
}

/// The primary objects with these templates in all hierarchies.
fn primaries(
    chip: &mut Chip<'_>,
    templates: &[(&'static str, TpmtPublic, &'static [u8])],
) -> Vec<(String, crate::chip::Result<TpmtPublic>)> {
    let mut out = Vec::new();
    for hierarchy in HIERARCHIES {
        for (word, template, data) in templates {
            let made = chip.primary_with(hierarchy, crate::chip::NO_AUTH, template, data);
            if let Ok(made) = &made {
                chip.flush(made.handle);
            }
            out.push((format!("{word} in {hierarchy:?}"), made.map(|made| made.public)));
            let made = chip.loaded(hierarchy, template, data);
            if let Ok(made) = &made {
                chip.flush(made.handle);
            }
            out.push((format!("{word} in {hierarchy:?} by CreateLoaded"), made.map(|made| made.public)));
        }
    }
    out
}

fn compare(source: &Source, templates: &[(&'static str, TpmtPublic, &'static [u8])], fewest: usize) {
    let theirs = source.boot(|chip| primaries(chip, templates));
    let mut ours = source.adopt();
    let mut chip = ours.chip();
    chip.startup();
    let made = primaries(&mut chip, templates);
    let mut same = 0;
    for ((what, theirs), (_, ours)) in theirs.iter().zip(&made) {
        assert_eq!(theirs, ours, "{what}");
        same += usize::from(theirs.is_ok());
    }
    assert!(same >= fewest, "only {same} were made");
}

/// A state with seeds as from before libtpms 0.8.
fn with_old_seeds() -> Source {
    let source = Source::new();
    source.boot(|_| ());
    // The block with the levels of the three seeds, and the empty one in it.
    let (new, old) = ([1, 0, 6, 1, 1, 1, 1, 0, 0], [1, 0, 6, 0, 0, 0, 1, 0, 0]);
    let mut state = std::fs::read(source.permall()).unwrap();
    let places: Vec<usize> =
        (0..state.len() - new.len()).filter(|&at| state[at..at + new.len()] == new).collect();
    let &[at] = places.as_slice() else { panic!("{places:?}") };
    state[at..at + old.len()].copy_from_slice(&old);
    std::fs::write(source.permall(), state).unwrap();
    source
}

#[test]
fn primary_objects_but_rsa_keys_come_out_the_same() {
    compare(&Source::new(), &quick(), 72);
}

#[test]
fn rsa_primary_keys_come_out_the_same() {
    compare(&Source::new(), &[("RSA-2048", rsa(2048), b""), ("the RSA EK", ek(), b"")], 12);
}

#[test]
fn large_and_small_rsa_primary_keys_come_out_the_same() {
    compare(&Source::new(), &[("RSA-1024", rsa(1024), b""), ("RSA-3072", rsa(3072), b"")], 12);
}

#[test]
fn primary_objects_of_seeds_from_before_libtpms_0_8_come_out_the_same() {
    let templates = [("P-256", ecc(TpmEccCurve::NIST_P256), &b""[..]), ("RSA-2048", rsa(2048), b"")];
    compare(&with_old_seeds(), &templates, 12);
}

/// The private parts, too: what a primary key of swtpm protects, the same key of ours opens.
#[test]
fn what_was_sealed_under_primary_keys_of_swtpm_is_unsealed() {
    let source = Source::new();
    let templates = [ecc(TpmEccCurve::NIST_P256), rsa(2048), symmetric(128)];
    let each = || HIERARCHIES.into_iter().flat_map(|h| templates.iter().map(move |t| (h, t)));
    let sealed: Vec<Vec<u8>> = source.boot(|chip| {
        let mut seal = |(hierarchy, template)| {
            let parent = chip.primary(hierarchy, template).unwrap().handle;
            let sealed = chip.seal(parent, b"secret", None).unwrap();
            chip.flush(parent);
            sealed
        };
        each().map(&mut seal).collect()
    });
    let mut ours = source.adopt();
    let mut chip = ours.chip();
    chip.startup();
    for ((hierarchy, template), sealed) in each().zip(&sealed) {
        let parent = chip.primary(hierarchy, template).unwrap().handle;
        let object = chip.load(parent, sealed).unwrap();
        assert_eq!(chip.unseal(object, crate::chip::NO_AUTH).unwrap(), b"secret");
        chip.flush(object);
        chip.flush(parent);
    }
}

#[test]
fn a_new_seed_is_used_as_ours_are() {
    let source = Source::new();
    source.boot(|_| ());
    let state = source.state(None);
    // Two TPMs of one state are the same until each has a seed of its own; the endorsement seed survives a Clear.
    let (mut first, mut second) = (Ours::new(&state), Ours::new(&state));
    let template = ecc(TpmEccCurve::NIST_P256);
    let made = [&mut first, &mut second].map(|ours| {
        let mut chip = ours.chip();
        chip.startup();
        let before = HIERARCHIES.map(|h| chip.primary(h, &template).map(|made| made.public).unwrap());
        for slot in 0..3 {
            chip.flush(TpmHandle(0x8000_0000 + slot));
        }
        chip.run(TpmCc::CLEAR, &[TpmHandle::PLATFORM], &[crate::chip::NO_AUTH], &()).unwrap();
        let after = HIERARCHIES.map(|h| chip.primary(h, &template).map(|made| made.public).unwrap());
        (before, after)
    });
    let [(before, after), (_, other)] = made;
    assert!(before[0] != after[0] && after[0] != other[0]);
    assert!(before[1] == after[1] && before[2] == after[2]);
}
