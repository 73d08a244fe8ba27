use crate::alg::hash_alg;
use crate::command::asymmetric::testing::decrypting;
use crate::command::asymmetric::testing::{generator, point, public_of, z_gen};
use crate::crypto::{HashAlg, ecc};
use crate::secret;
use crate::signing::test_keys::*;
use crate::state::Object;
use crate::testing::TestTpm;
use vtpm_protocol::codec::decode_exact;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::*;

const P256: TpmEccCurve = TpmEccCurve::NIST_P256;
const ECDAA: Scheme = Scheme::new(TpmAlgId::ECDAA, TpmAlgId::SHA256);

/// `K`, `L`, `E`, counter.
type Commitment = (Tpm2bEccPoint, Tpm2bEccPoint, Tpm2bEccPoint, u16);

fn commit(
    tpm: &mut TestTpm,
    key: TpmHandle,
    p1: &Tpm2bEccPoint,
    s2: &[u8],
    y2: &[u8],
) -> Result<Commitment, ResponseCode> {
    let input = (p1, Tpm2bSensitiveData::new(s2).unwrap(), Tpm2bEccParameter::new(y2).unwrap());
    let (_, out) = tpm.run_with(TpmCc::COMMIT, &[key], &[AUTH], &input)?;
    Ok(decode_exact(&out).unwrap())
}

fn sign(tpm: &mut TestTpm, key: TpmHandle, scheme: Scheme) -> Result<TpmtSignature, ResponseCode> {
    let digest = Tpm2bDigest::new(vec![0x5a; 32]).unwrap();
    let input = (digest, TpmtSigScheme(scheme), TpmtTk::null(TpmSt::HASHCHECK));
    let (_, out) = tpm.run_with(TpmCc::SIGN, &[key], &[AUTH], &input)?;
    Ok(decode_exact(&out).unwrap())
}

fn none() -> Tpm2bEccPoint {
    point(&[], &[])
}

/// An `s2` whose hash is the x coordinate of a point, and that point.
fn basename(curve: TpmEccCurve) -> (Vec<u8>, Tpm2bEccPoint) {
    let curve = secret::curve(curve).unwrap();
    for i in 0u32.. {
        let s2 = i.to_be_bytes().to_vec();
        let x = ecc::modulo_p(curve, &HashAlg::Sha256.digest(&[&s2]));
        if let Some(p) = ecc::tests::with_x(curve, &x) {
            return (s2, point(&p.x, &p.y));
        }
    }
    unreachable!()
}

/// Whether `s P = E + t Q`, where `E` and `Q` are *r* and *d* times `P`.
fn fits(key: &Object, p: &Tpm2bEccPoint, e: &Tpm2bEccPoint, q: &Tpm2bEccPoint, sig: &TpmtSignature) -> bool {
    let TpmtSignature::Ecc { scheme: TpmAlgId::ECDAA, hash, r, s } = sig else { panic!("{sig:?}") };
    let PublicParms::Ecc { curve, .. } = key.public.parms else { panic!("no curve") };
    let curve = secret::curve(curve).unwrap();
    let t = hash_alg(*hash).unwrap().digest(&[r, &[0x5a; 32]]);
    ecc::tests::is_sum(curve, (s, &secret::point(&p.0)), &secret::point(&e.0), (&t, &secret::point(&q.0)))
}

#[test]
fn a_signature_fits_the_commitment_to_the_generator_on_every_curve() {
    for curve in ECC_CURVES {
        let mut tpm = TestTpm::started();
        let object = ecc_on(curve, ECDAA);
        let key = load(&mut tpm, object.clone());
        let (k, l, e, counter) = commit(&mut tpm, key, &none(), b"", b"").unwrap();
        assert_eq!((k, l), (none(), none()));
        let sig = sign(&mut tpm, key, Scheme { count: counter, ..ECDAA }).unwrap();
        assert!(fits(&object, &generator(curve), &e, &public_of(&object), &sig), "{curve:?}");
        let (_, _, other, _) = commit(&mut tpm, key, &none(), b"", b"").unwrap();
        assert!(!fits(&object, &generator(curve), &other, &public_of(&object), &sig));
    }
}

#[test]
fn points_of_the_caller_are_multiplied() {
    for curve in
        [TpmEccCurve::NIST_P192, P256, TpmEccCurve::NIST_P384, TpmEccCurve::NIST_P521, TpmEccCurve::SM2_P256]
    {
        let mut tpm = TestTpm::started();
        let object = ecc_on(curve, ECDAA);
        let key = load(&mut tpm, object.clone());
        let (s2, p2) = basename(curve);
        let p1 = public_of(&object);

        let (k, l, e, counter) = commit(&mut tpm, key, &p1, &s2, &p2.0.y).unwrap();
        let for_z = load(&mut tpm, decrypting(ecc_on(curve, Scheme::NULL)));
        assert_eq!(z_gen(&mut tpm, for_z, &p2), Ok(k.clone()));
        let sig = sign(&mut tpm, key, Scheme { count: counter, ..ECDAA }).unwrap();
        assert!(fits(&object, &p2, &l, &k, &sig), "{curve:?}");
        let d_p1 = z_gen(&mut tpm, for_z, &p1).unwrap();
        assert!(fits(&object, &p1, &e, &d_p1, &sig));

        let (k_again, l_again, e, _) = commit(&mut tpm, key, &none(), &s2, &p2.0.y).unwrap();
        assert_eq!((k_again, e), (k, none()));
        assert_ne!(l_again, l);
        let (k, l, e, counter) = commit(&mut tpm, key, &p1, b"", b"").unwrap();
        assert_eq!((k, l), (none(), none()));
        let sig = sign(&mut tpm, key, Scheme { count: counter, ..ECDAA }).unwrap();
        assert!(fits(&object, &p1, &e, &d_p1, &sig));
    }
}

#[test]
fn a_commitment_is_used_once_by_its_key() {
    let mut tpm = TestTpm::started();
    let key = load(&mut tpm, ecc(ECDAA));
    let scheme = |count| Scheme { count, ..ECDAA };
    assert_eq!(sign(&mut tpm, key, scheme(0)), Err(ResponseCode::VALUE));
    let (_, _, _, counter) = commit(&mut tpm, key, &none(), b"", b"").unwrap();
    assert_eq!(counter, 0);
    assert_eq!(sign(&mut tpm, key, Scheme::NULL), Err(ResponseCode::SCHEME.parameter(2)));
    let other_hash = Scheme { hash: TpmAlgId::SHA384, ..ECDAA };
    assert_eq!(sign(&mut tpm, key, other_hash), Err(ResponseCode::SCHEME.parameter(2)));
    assert_eq!(sign(&mut tpm, key, scheme(1)), Err(ResponseCode::VALUE));
    assert!(sign(&mut tpm, key, scheme(0)).is_ok());
    assert_eq!(sign(&mut tpm, key, scheme(0)), Err(ResponseCode::VALUE));

    // Another key's commitment leads to nothing that fits.
    let object = ecc_labelled(b"other", P256, ECDAA);
    let other = load(&mut tpm, object.clone());
    let (_, _, e, counter) = commit(&mut tpm, key, &none(), b"", b"").unwrap();
    let sig = sign(&mut tpm, other, scheme(counter)).unwrap();
    assert!(!fits(&object, &generator(P256), &e, &public_of(&object), &sig));
}

#[test]
fn an_attestation_uses_a_commitment_up_as_well() {
    let mut tpm = TestTpm::started();
    let key = load(&mut tpm, ecc(ECDAA));
    let (_, _, _, count) = commit(&mut tpm, key, &none(), b"", b"").unwrap();
    let quote = |tpm: &mut TestTpm, scheme| {
        let input = (Tpm2bData::empty(), TpmtSigScheme(scheme), TpmlPcrSelection::default());
        tpm.run_with(TpmCc::QUOTE, &[key], &[AUTH], &input).map(drop)
    };
    assert_eq!(quote(&mut tpm, Scheme::NULL), Err(ResponseCode::SCHEME.parameter(2)));
    let scheme = Scheme { count, ..ECDAA };
    assert_eq!(quote(&mut tpm, scheme), Ok(()));
    assert_eq!(quote(&mut tpm, scheme), Err(ResponseCode::VALUE));
    assert_eq!(sign(&mut tpm, key, scheme), Err(ResponseCode::VALUE));
}

#[test]
fn an_anonymous_signature_is_not_verified_here() {
    let mut tpm = TestTpm::started();
    let key = load(&mut tpm, ecc(ECDAA));
    let (_, _, _, count) = commit(&mut tpm, key, &none(), b"", b"").unwrap();
    let sig = sign(&mut tpm, key, Scheme { count, ..ECDAA }).unwrap();
    let digest = Tpm2bDigest::new(vec![0x5a; 32]).unwrap();
    let result = tpm.run(TpmCc::VERIFY_SIGNATURE, &[key], &(digest, sig));
    assert_eq!(result, Err(ResponseCode::SCHEME.parameter(2)));
}

#[test]
fn what_is_no_ecdaa_key_does_not_commit() {
    let mut tpm = TestTpm::started();
    for (key, rc) in [
        (rsa(Scheme::NULL), ResponseCode::KEY),
        (keyed_hash(Scheme::NULL), ResponseCode::KEY),
        (ecc(Scheme::NULL), ResponseCode::SCHEME),
        (ecc(Scheme::new(TpmAlgId::ECDSA, TpmAlgId::SHA256)), ResponseCode::SCHEME),
    ] {
        tpm.state().transient.clear();
        let key = load(&mut tpm, key);
        assert_eq!(commit(&mut tpm, key, &none(), b"", b""), Err(rc.handle(1)));
    }
    let mut nameless = ecc(ECDAA);
    nameless.public.name_alg = TpmAlgId::NULL;
    let nameless = load(&mut tpm, nameless);
    let (s2, p2) = basename(P256);
    assert_eq!(commit(&mut tpm, nameless, &none(), &s2, &p2.0.y), Err(ResponseCode::HASH.handle(1)));
}

#[test]
fn points_must_be_whole_and_on_the_curve() {
    let mut tpm = TestTpm::started();
    let key = load(&mut tpm, ecc(ECDAA));
    let (s2, p2) = basename(P256);
    let g = generator(P256);
    let size = Err(ResponseCode::SIZE.parameter(3));
    assert_eq!(commit(&mut tpm, key, &none(), &s2, b""), size);
    assert_eq!(commit(&mut tpm, key, &none(), b"", &p2.0.y), size);
    let off = Err(ResponseCode::ECC_POINT.parameter(2));
    assert_eq!(commit(&mut tpm, key, &g, &s2, &g.0.y), off);
    assert_eq!(commit(&mut tpm, key, &none(), &s2[1..], &p2.0.y), off);
    let off = Err(ResponseCode::ECC_POINT.parameter(1));
    for bad in [point(&g.0.y, &g.0.x), point(&g.0.x, &[]), point(&[], &g.0.y)] {
        assert_eq!(commit(&mut tpm, key, &bad, b"", b""), off);
        assert_eq!(commit(&mut tpm, key, &bad, &s2, &p2.0.y), off);
    }
    // A size of zero is no point at all.
    let input = (0u16, 0u16, 0u16);
    let result = tpm.run_with(TpmCc::COMMIT, &[key], &[AUTH], &input);
    assert_eq!(result.unwrap_err(), ResponseCode::SIZE.parameter(1));
    assert_eq!(commit(&mut tpm, key, &none(), b"", b"").unwrap().3, 0);
}

#[test]
fn a_restricted_key_commits_and_a_public_one_does_not() {
    let mut tpm = TestTpm::started();
    let key = load(&mut tpm, restricted(ecc(ECDAA)));
    assert!(commit(&mut tpm, key, &none(), b"", b"").is_ok());
    let public = load(&mut tpm, public_only(ecc(ECDAA)));
    let refused = commit(&mut tpm, public, &none(), b"", b"").unwrap_err();
    assert_eq!(refused, ResponseCode::AUTH_UNAVAILABLE);
}
