use proptest::prelude::*;

use super::super::kdf::KdfaStream;
use super::*;

const CURVE: Curve = Curve::NistP256;

/// What an independent program derives from the stream of [`primary_stream`], and the point OpenSSL has for it.
const D: &str = "c586130ae7ab379348e5acb2cd246e401a93619908858cb6c2d4e3ed6d217681";
const X: &str = "ee0d20929533476377b5d13662945ab3d5054d687c5d764891917d1415ec9b9c";
const Y: &str = "4929492d93246299d2c11181c4389b96be5542347fe0c0b49da8a338dc62fa62";

fn bytes(hex: &str) -> Vec<u8> {
    hex::decode(hex).unwrap()
}

fn public() -> Point {
    Point { x: bytes(X), y: bytes(Y) }
}

fn primary_stream() -> KdfaStream {
    KdfaStream::new(HashAlg::Sha256, b"a fixed primary seed", b"ECC", b"template")
}

fn generator() -> Point {
    let parameters = CURVE.parameters();
    Point { x: parameters.gx.to_vec(), y: parameters.gy.to_vec() }
}

/// The big-endian number `number + add`, for numbers whose last byte does not overflow.
fn plus(number: &[u8], add: i8) -> Vec<u8> {
    let mut out = number.to_vec();
    let last = out.last_mut().unwrap();
    *last = last.checked_add_signed(add).unwrap();
    out
}

struct Constant(u8);

impl RandomSource for Constant {
    fn fill(&mut self, out: &mut [u8]) {
        out.fill(self.0);
    }
}

#[test]
fn a_stream_gives_the_same_key_forever() {
    let (d, point) = generate(CURVE, &mut primary_stream());
    assert_eq!((hex::encode(&*d).as_str(), point), (D, public()));
}

#[test]
fn a_broken_source_still_gives_a_key_in_range() {
    for byte in [0x00, 0x55, 0xff] {
        let (d, point) = generate(CURVE, &mut Constant(byte));
        assert_eq!(d.len(), 32);
        assert_eq!(public_of(CURVE, &d).unwrap(), point);
        assert!(is_on_curve(CURVE, &point));
    }
    assert_eq!(generate(CURVE, &mut Constant(0)).1, generator());
}

#[test]
fn the_parameters_describe_the_curve() {
    let parameters = CURVE.parameters();
    assert!(is_on_curve(CURVE, &generator()));
    assert_eq!(public_of(CURVE, &[1]).unwrap(), generator());
    // (n - 1) G = -G: the same x, the other y.
    let negated = public_of(CURVE, &plus(parameters.n, -1)).unwrap();
    assert_eq!(negated.x, parameters.gx);
    let sum: Vec<u8> = {
        let y = BoxedUint::from_be_slice(&negated.y, 256).unwrap();
        y.wrapping_add(BoxedUint::from_be_slice(parameters.gy, 256).unwrap()).to_be_bytes().into_vec()
    };
    assert_eq!(sum, parameters.p);
    // y^2 = x^3 + a x + b at x = 0 needs the right b: the square root of b is a point's y.
    let square = |bytes: &[u8]| {
        let p = NonZero::new(BoxedUint::from_be_slice(parameters.p, 256).unwrap()).unwrap();
        BoxedUint::from_be_slice(bytes, 256).unwrap().square_mod(&p).to_be_bytes().into_vec()
    };
    let root = bytes("66485c780e2f83d72433bd5d84a06bb6541c2af31dae871728bf856a174f93f4");
    assert_eq!(square(&root), parameters.b);
    assert!(is_on_curve(CURVE, &Point { x: vec![0], y: root }));
    assert_eq!(plus(parameters.a, 3), parameters.p);
}

/// The first vector for P-256 of NIST's ECC CDH primitive test.
#[test]
fn ecdh_vector() {
    let z = ecdh(
        CURVE,
        &bytes("7d7dc5f71eb29ddaf80d6214632eeae03d9058af1fb6d22ed80badb62bc1a534"),
        &Point {
            x: bytes("700c48f77f56584c5cc632ca65640db91b6bacce3a4df6b42ce7cc838833d287"),
            y: bytes("db71e509e3fd9b060ddb20ba5c51dcc5948d46fbf640dfe0441782cab85fa4ac"),
        },
    );
    assert_eq!(hex::encode(&*z.unwrap()), "46fc62106420ff012e54a434fbdd2d25ccc5852060561e68040dd7778997bd7b");
}

#[test]
fn both_sides_of_ecdh_agree() {
    let mut rng = primary_stream();
    let (a, a_point) = generate(CURVE, &mut rng);
    let (b, b_point) = generate(CURVE, &mut rng);
    assert_ne!(a, b);
    assert_eq!(ecdh(CURVE, &a, &b_point).unwrap(), ecdh(CURVE, &b, &a_point).unwrap());
}

/// Signatures that OpenSSL 3.0 made over digests of "vtpmd" with the key `D`.
#[test]
fn accepts_ecdsa_signatures_of_openssl_for_shorter_and_longer_digests() {
    for (alg, r, s) in [
        (
            HashAlg::Sha1,
            "1c32c0d75163c52dd32ee7a8b607e06794b189dcca996e68c077f2af88e5594a",
            "5548e082002b936c5a5ff1210cfd7d379c0184ebaebd2450c042945ee3a311eb",
        ),
        (
            HashAlg::Sha256,
            "3ee77e55ff7701d0c0342fccecec143530f91eb29bdbcccecd4c62a5fffa5625",
            "25fbf98c25eedead91af82d903bcc7a848046795f77b282de6f3cdb04f1776b6",
        ),
        (
            HashAlg::Sha384,
            "4e5ac31069eaf01d43c483e786f9ee059da5e3e14ebe04e8bff164d4e07b7873",
            "6cc87e23d0e22819e889416b1a66851db4c2586de7614e2098ad622c5db43221",
        ),
        (
            HashAlg::Sha512,
            "fa510d54cfee9339114ed6848708501faf3a1c8bba0c6700ffa848914f0f9bc1",
            "acb5f24b66ba321dacb29d5f9ee2b234b640b4d39d4390f3260e55ca09e39266",
        ),
    ] {
        let digest = alg.digest(&[b"vtpmd"]);
        assert!(ecdsa_verify(CURVE, &public(), &digest, &bytes(r), &bytes(s)), "{alg:?}");
        assert!(!ecdsa_verify(CURVE, &public(), &digest, &bytes(s), &bytes(r)), "{alg:?}");
        assert!(!ecdsa_verify(CURVE, &generator(), &digest, &bytes(r), &bytes(s)), "{alg:?}");
    }
}

/// RFC 6979, A.2.5, message "sample".
#[test]
fn accepts_the_ecdsa_signature_of_rfc_6979() {
    let public = Point {
        x: bytes("60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6"),
        y: bytes("7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299"),
    };
    let d = bytes("c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721");
    assert_eq!(public_of(CURVE, &d).unwrap(), public);
    // Its s is in the upper half of the order, which TPM 2.0 does not forbid.
    let r = bytes("efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716");
    let s = bytes("f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8");
    assert!(ecdsa_verify(CURVE, &public, &HashAlg::Sha256.digest(&[b"sample"]), &r, &s));
}

#[test]
fn ecdsa_signatures_verify_and_differ_from_each_other() {
    let mut rng = primary_stream();
    let (d, public) = generate(CURVE, &mut rng);
    for alg in HashAlg::ALL {
        let digest = alg.digest(&[b"vtpmd"]);
        let (r, s) = ecdsa_sign(CURVE, &d, &digest, &mut rng).unwrap();
        assert_eq!((r.len(), s.len()), (32, 32));
        assert!(ecdsa_verify(CURVE, &public, &digest, &r, &s));
        assert!(!ecdsa_verify(CURVE, &public, &alg.digest(&[b"other"]), &r, &s));
        assert_ne!(ecdsa_sign(CURVE, &d, &digest, &mut rng).unwrap(), (r, s));
    }
}

#[test]
fn a_repeating_source_does_not_repeat_the_ephemeral_key_for_another_digest() {
    let sign = |digest: &[u8]| ecdsa_sign(CURVE, &bytes(D), digest, &mut Constant(1)).unwrap().0;
    assert_ne!(sign(&[1; 32]), sign(&[2; 32]));
}

#[test]
fn a_signature_out_of_range_is_none() {
    let n = CURVE.parameters().n;
    let digest = [1; 32];
    let (r, s) = ecdsa_sign(CURVE, &bytes(D), &digest, &mut primary_stream()).unwrap();
    let (sr, ss) =
        ec_schnorr_sign(CURVE, &bytes(D), HashAlg::Sha256, &digest, &mut primary_stream()).unwrap();
    for bad in [&[][..], &[0; 32], n, &[0xff; 32], &[1; 33]] {
        assert!(!ecdsa_verify(CURVE, &public(), &digest, bad, &s));
        assert!(!ecdsa_verify(CURVE, &public(), &digest, &r, bad));
        assert!(!ec_schnorr_verify(CURVE, &public(), HashAlg::Sha256, &digest, bad, &ss));
        assert!(!ec_schnorr_verify(CURVE, &public(), HashAlg::Sha256, &digest, &sr, bad));
    }
    // Leading zeros are no damage.
    let wide = |number: &[u8]| [&[0; 4], number].concat();
    assert!(ecdsa_verify(CURVE, &public(), &digest, &wide(&r), &wide(&s)));
}

/// With the ephemeral value 1234567890abcdef…, computed by an independent program.
#[test]
fn accepts_ec_schnorr_signatures_of_another_program() {
    for (alg, r, s) in [
        (
            HashAlg::Sha1,
            "987d43292ca0e9f3445c143fa3df0cb0dac4b523",
            "9779457c9358273f9ab39fd31423f8df1495244cec738bc9c339188b99f1f8a8",
        ),
        (
            HashAlg::Sha256,
            "aa45dd3b698d448b16cb8b36ba1455117939e778efe559e7a577fccf3ced9d69",
            "2d5637949750d4ccdda3ac682627dfcb6d84bc495d59fb15406ce5067df10f3f",
        ),
        (
            HashAlg::Sha512,
            "83e577d99e86699c18a8ab503870fdf040d7abbb952fe66095cc9b510940bf55",
            "61809f13f9f70d4ad5058efabcdfbab67db03ec4c865ce490e4ee9fbc0e4169d",
        ),
    ] {
        let digest = alg.digest(&[b"vtpmd"]);
        assert!(ec_schnorr_verify(CURVE, &public(), alg, &digest, &bytes(r), &bytes(s)), "{alg:?}");
        assert!(!ec_schnorr_verify(CURVE, &generator(), alg, &digest, &bytes(r), &bytes(s)), "{alg:?}");
    }
}

#[test]
fn ec_schnorr_signatures_verify() {
    let mut rng = primary_stream();
    for alg in HashAlg::ALL {
        let digest = alg.digest(&[b"vtpmd"]);
        let (r, s) = ec_schnorr_sign(CURVE, &bytes(D), *alg, &digest, &mut rng).unwrap();
        assert_eq!((r.len(), s.len()), (32, 32));
        assert!(ec_schnorr_verify(CURVE, &public(), *alg, &digest, &r, &s));
        assert!(!ec_schnorr_verify(CURVE, &public(), *alg, b"other", &r, &s));
        assert!(!ecdsa_verify(CURVE, &public(), &digest, &r, &s));
    }
}

#[test]
fn a_point_off_the_curve_is_refused_everywhere() {
    let p = CURVE.parameters().p;
    let good = public();
    let point = |x: &[u8], y: &[u8]| Point { x: x.to_vec(), y: y.to_vec() };
    for bad in [
        point(&good.x, &plus(&good.y, 1)),
        point(&good.y, &good.x),
        point(&[], &[]),
        point(&[0; 32], &[0; 32]),
        // Not reduced, though y would do modulo p.
        point(p, &bytes("66485c780e2f83d72433bd5d84a06bb6541c2af31dae871728bf856a174f93f4")),
        point(&good.x, p),
        point(&[&[1], good.x.as_slice()].concat(), &good.y),
        point(&[0xff; 64], &[0xff; 64]),
    ] {
        assert!(!is_on_curve(CURVE, &bad), "{bad:?}");
        assert_eq!(ecdh(CURVE, &bytes(D), &bad), Err(CryptoError::Point));
        assert_eq!(multiply(CURVE, &[1], &bad), Err(CryptoError::Point));
        assert!(!ecdsa_verify(CURVE, &bad, &[1; 32], &[1; 32], &[1; 32]));
        assert!(!ec_schnorr_verify(CURVE, &bad, HashAlg::Sha256, &[1; 32], &[1; 32], &[1; 32]));
    }
    assert!(is_on_curve(CURVE, &point(&[&[0; 3], good.x.as_slice()].concat(), &good.y)));
}

#[test]
fn a_private_value_out_of_range_is_refused_everywhere() {
    let n = CURVE.parameters().n;
    for bad in [&[][..], &[0], &[0; 32], n, &plus(n, 1), &[0xff; 32], &[1; 33]] {
        assert_eq!(public_of(CURVE, bad), Err(CryptoError::Scalar));
        assert_eq!(ecdh(CURVE, bad, &public()), Err(CryptoError::Scalar));
        assert_eq!(ecdsa_sign(CURVE, bad, &[1; 32], &mut primary_stream()), Err(CryptoError::Scalar));
        assert_eq!(
            ec_schnorr_sign(CURVE, bad, HashAlg::Sha256, &[1; 32], &mut primary_stream()),
            Err(CryptoError::Scalar)
        );
    }
    assert!(public_of(CURVE, &plus(n, -1)).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_input_never_panics_and_never_verifies(
        a in proptest::collection::vec(any::<u8>(), 0..80),
        b in proptest::collection::vec(any::<u8>(), 0..80),
        c in proptest::collection::vec(any::<u8>(), 0..80),
        short in proptest::collection::vec(any::<u8>(), 1..33),
    ) {
        let arbitrary = Point { x: a.clone(), y: b.clone() };
        let _ = is_on_curve(CURVE, &arbitrary);
        let _ = ecdh(CURVE, &c, &arbitrary);
        let _ = public_of(CURVE, &a);
        let _ = ecdsa_sign(CURVE, &a, &b, &mut primary_stream());
        prop_assert!(!ecdsa_verify(CURVE, &public(), &a, &b, &c));
        prop_assert!(!ecdsa_verify(CURVE, &public(), &a, &short, &short));
        prop_assert!(!ec_schnorr_verify(CURVE, &public(), HashAlg::Sha1, &a, &b, &c));
        prop_assert!(!ec_schnorr_verify(CURVE, &public(), HashAlg::Sha512, &a, &short, &short));
    }
}
