use proptest::prelude::*;

use super::exchange::{Keys, mqv, sm2};
use super::*;
use crate::crypto::hash::HashAlg;
use crate::crypto::kdf::KdfaStream;
use vectors::{EXCHANGES, FROZEN, Key, RFC_6979};

mod vectors;

const CURVE: Curve = Curve::NistP256;

/// The frozen key of P-256.
const D: &str = FROZEN[2].d;

fn bytes(hex: &str) -> Vec<u8> {
    hex::decode(hex).unwrap()
}

fn point_of(key: &Key) -> Point {
    Point { x: bytes(key.x), y: bytes(key.y) }
}

fn public() -> Point {
    point_of(&FROZEN[2])
}

fn primary_stream() -> KdfaStream {
    KdfaStream::new(HashAlg::Sha256, b"a fixed primary seed", b"ECC", b"template")
}

fn generator(curve: Curve) -> Point {
    let parameters = curve.parameters();
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
    for key in &FROZEN {
        let (d, point) = generate(key.curve, &mut primary_stream());
        assert_eq!((hex::encode(&*d).as_str(), point), (key.d, point_of(key)), "{:?}", key.curve);
    }
    assert!(FROZEN.iter().map(|key| key.curve).eq(Curve::ALL.iter().copied()));
}

#[test]
fn a_broken_source_still_gives_a_key_in_range() {
    for &curve in Curve::ALL {
        for byte in [0x00, 0x55, 0xff] {
            let (d, point) = generate(curve, &mut Constant(byte));
            assert_eq!((d.len(), point.x.len()), (curve.order_size(), curve.field_size()));
            assert_eq!(public_of(curve, &d).unwrap(), point);
            assert!(is_on_curve(curve, &point));
        }
        assert_eq!(generate(curve, &mut Constant(0)).1, generator(curve));
    }
}

#[test]
fn the_parameters_describe_the_curve() {
    for &curve in Curve::ALL {
        let parameters = curve.parameters();
        let bits = u32::from(parameters.key_bits).next_multiple_of(8);
        let number = |bytes: &[u8]| BoxedUint::from_be_slice(bytes, bits).unwrap();
        assert_eq!(number(parameters.n).bits(), u32::from(parameters.key_bits));
        assert_eq!(number(parameters.p).bits(), u32::from(parameters.key_bits));
        assert!(is_on_curve(curve, &generator(curve)));
        assert_eq!(public_of(curve, &[1]).unwrap(), generator(curve));
        // (n - 1) G = -G: the same x, the other y.
        let negated = public_of(curve, &plus(parameters.n, -1)).unwrap();
        assert_eq!(negated.x, parameters.gx);
        let sum = number(&negated.y).wrapping_add(number(parameters.gy));
        assert_eq!(sum, number(parameters.p));
        // y^2 = x^3 + a x + b for the generator, with the a and b that are reported.
        let p = NonZero::new(number(parameters.p)).unwrap();
        let (x, y) = (number(parameters.gx), number(parameters.gy));
        let cube = x.square_mod(&p).mul_mod(&x, &p);
        let right =
            cube.add_mod(&x.mul_mod(&number(parameters.a), &p), &p).add_mod(&number(parameters.b), &p);
        assert_eq!(y.square_mod(&p), right, "{curve:?}");
    }
}

#[test]
fn a_number_modulo_p_has_the_field_s_length() {
    for &curve in Curve::ALL {
        let p = curve.parameters().p;
        assert_eq!(modulo_p(curve, p), vec![0; p.len()]);
        let long = modulo_p(curve, &[&[1], p, &[7]].concat());
        assert_eq!(long.len(), p.len());
        assert_eq!(modulo_p(curve, &[5]).last(), Some(&5));
        assert_eq!(modulo_p(curve, &plus(p, -1)), plus(p, -1));
    }
    let p = CURVE.parameters().p;
    // 256 p + 7
    assert_eq!(modulo_p(CURVE, &[p, &[7]].concat()).last(), Some(&7));
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
    for &curve in Curve::ALL {
        let mut rng = primary_stream();
        let (a, a_point) = generate(curve, &mut rng);
        let (b, b_point) = generate(curve, &mut rng);
        assert_ne!(a, b);
        assert_eq!(ecdh(curve, &a, &b_point).unwrap(), ecdh(curve, &b, &a_point).unwrap());
    }
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
        assert!(!ecdsa_verify(CURVE, &generator(CURVE), &digest, &bytes(r), &bytes(s)), "{alg:?}");
    }
}

#[test]
fn accepts_the_ecdsa_signatures_of_rfc_6979() {
    for vector in &RFC_6979 {
        let (curve, public) = (vector.key.curve, point_of(&vector.key));
        assert_eq!(public_of(curve, &bytes(vector.key.d)).unwrap(), public);
        for (alg, r, s) in &vector.signatures {
            let verify = |message: &[u8], r, s| {
                ecdsa_verify(curve, &public, &alg.digest(&[message]), &bytes(r), &bytes(s))
            };
            assert!(verify(b"sample", r, s), "{curve:?} {alg:?}");
            assert!(!verify(b"test", r, s), "{curve:?} {alg:?}");
            assert!(!verify(b"sample", s, r), "{curve:?} {alg:?}");
        }
    }
}

/// GM/T 0003.5, annex A: the digest covers the identity of the signer.
#[test]
fn accepts_the_sm2_signature_of_the_standard() {
    let curve = Curve::Sm2P256;
    let d = bytes("3945208f7b2144b13f36e38ac6d39f95889393692860b51a42fb81ef4df7c5b8");
    let public = public_of(curve, &d).unwrap();
    assert_eq!(hex::encode(&public.x), "09f9df311e5421a150dd7d161e4bc5c672179fad1833fc076bb08ff356f35020");
    let e = bytes("f0b43e94ba45accaace692ed534382eb17e6ab5a19ce7b31f4486fdfc0d28640");
    let r = bytes("f5a03b0648d2c4630eeac513e1bb81a15944da3827d5b74143ac7eaceee720b3");
    let s = bytes("b1b6aa29df212fd8763182bc0d421ca1bb9038fd1f7f42d4840b69c485bbc1aa");
    assert!(sm2_verify(curve, &public, &e, &r, &s));
    assert!(!sm2_verify(curve, &public, &e, &s, &r));
    assert!(!sm2_verify(curve, &public, &e[1..], &r, &s));
    assert!(!sm2_verify(curve, &generator(curve), &e, &r, &s));
}

type Sign = fn(Curve, &[u8], HashAlg, &[u8], &mut dyn RandomSource) -> Result<signature::Pair, CryptoError>;
type Verify = fn(Curve, &Point, HashAlg, &[u8], &[u8], &[u8]) -> bool;

/// What is signed and verified with a key alone.
const SCHEMES: [(Sign, Verify); 3] = [
    (
        |c, d, _, digest, rng| ecdsa_sign(c, d, digest, rng),
        |c, q, _, digest, r, s| ecdsa_verify(c, q, digest, r, s),
    ),
    (ec_schnorr_sign, ec_schnorr_verify),
    (
        |c, d, _, digest, rng| sm2_sign(c, d, digest, rng),
        |c, q, _, digest, r, s| sm2_verify(c, q, digest, r, s),
    ),
];

#[test]
fn signatures_verify_on_every_curve_and_differ_from_each_other() {
    for &curve in Curve::ALL {
        let mut rng = primary_stream();
        let (d, public) = generate(curve, &mut rng);
        for alg in [HashAlg::Sha1, HashAlg::Sha256, HashAlg::Sha512] {
            let digest = alg.digest(&[b"vtpmd"]);
            for (i, (sign, verify)) in SCHEMES.iter().enumerate() {
                let (r, s) = sign(curve, &d, alg, &digest, &mut rng).unwrap();
                assert_eq!((r.len(), s.len()), (curve.order_size(), curve.order_size()));
                assert!(verify(curve, &public, alg, &digest, &r, &s), "{curve:?} {alg:?} {i}");
                assert!(!verify(curve, &public, alg, &alg.digest(&[b"other"]), &r, &s));
                assert!(!verify(curve, &generator(curve), alg, &digest, &r, &s));
                let other = SCHEMES[(i + 1) % 3].1;
                assert!(!other(curve, &public, alg, &digest, &r, &s));
                assert_ne!(sign(curve, &d, alg, &digest, &mut rng).unwrap(), (r, s));
            }
        }
    }
}

/// A point with this x coordinate, if there is one.
pub(crate) fn with_x(curve: Curve, x: &[u8]) -> Option<Point> {
    use p256::elliptic_curve::point::DecompressPoint;
    on_curve!(curve, C => {
        let point = AffinePoint::<C>::decompress(&field::<C>(x)?, 0.into()).into_option()?;
        Some(write_point::<C>(&ProjectivePoint::<C>::from(point)))
    })
}

/// Whether `a P = E + b Q`, with numbers of any size.
pub(crate) fn is_sum(curve: Curve, (a, p): (&[u8], &Point), e: &Point, (b, q): (&[u8], &Point)) -> bool {
    on_curve!(curve, C => {
        let project = |p: &Point| ProjectivePoint::<C>::from(read_point::<C>(p).unwrap());
        let scalar = |number: &[u8]| {
            number.iter().fold(Scalar::<C>::from(0u64), |sum, byte| {
                sum * Scalar::<C>::from(256u64) + Scalar::<C>::from(u64::from(*byte))
            })
        };
        project(p) * scalar(a) == project(e) + project(q) * scalar(b)
    })
}

#[test]
fn an_ecdaa_signature_fits_its_commitment() {
    for &curve in Curve::ALL {
        let mut rng = primary_stream();
        let (d, public) = generate(curve, &mut rng);
        let (committed, commitment) = generate(curve, &mut rng);
        let alg = HashAlg::Sha256;
        let digest = alg.digest(&[b"vtpmd"]);
        let (nonce, s) = ecdaa_sign(curve, &d, &committed, alg, &digest, &mut rng).unwrap();
        let t = alg.digest(&[&nonce, &digest]);
        let g = generator(curve);
        assert!(is_sum(curve, (&s, &g), &commitment, (&t, &public)), "{curve:?}");
        assert!(!is_sum(curve, (&s, &g), &public, (&t, &public)), "{curve:?}");
        for bad in [&[][..], &[0], curve.parameters().n] {
            let refused = Err(CryptoError::Scalar);
            assert_eq!(ecdaa_sign(curve, bad, &committed, alg, &digest, &mut rng), refused);
            assert_eq!(ecdaa_sign(curve, &d, bad, alg, &digest, &mut rng), refused);
        }
    }
}

#[test]
fn the_nonce_of_an_ecdaa_signature_has_no_leading_zeros() {
    // c mod (n - 1) + 1 of a small number is a small number.
    struct Small;
    impl RandomSource for Small {
        fn fill(&mut self, out: &mut [u8]) {
            out.fill(0);
            *out.last_mut().unwrap() = 5;
        }
    }
    let (nonce, _) = ecdaa_sign(CURVE, &bytes(D), &[9], HashAlg::Sha256, &[1; 32], &mut Small).unwrap();
    assert_eq!(nonce, [6]);
}

#[test]
fn nothing_is_signed_by_sm2_with_the_key_minus_one() {
    let n = Curve::Sm2P256.parameters().n;
    let result = sm2_sign(Curve::Sm2P256, &plus(n, -1), &[1; 32], &mut primary_stream());
    assert_eq!(result, Err(CryptoError::Scalar));
}

#[test]
fn key_exchanges_give_what_another_program_gives_to_both_sides() {
    for vector in &EXCHANGES {
        let curve = vector.curve;
        let (a, b) = (vector.a.map(bytes), vector.b.map(bytes));
        let public = |side: &[Vec<u8>; 2]| [0, 1].map(|i| public_of(curve, &side[i]).unwrap());
        let (public_a, public_b) = (public(&a), public(&b));
        let side_a = Keys {
            own_static: &a[0],
            own_ephemeral: &a[1],
            static_public: &public_b[0],
            ephemeral_public: &public_b[1],
        };
        let side_b = Keys {
            own_static: &b[0],
            own_ephemeral: &b[1],
            static_public: &public_a[0],
            ephemeral_public: &public_a[1],
        };
        let shared = mqv(curve, side_a).unwrap();
        assert_eq!(hex::encode(&shared.x), vector.mqv, "{curve:?}");
        assert_eq!(mqv(curve, side_b).unwrap(), shared);
        let shared = sm2(curve, side_a).unwrap();
        assert_eq!(hex::encode(&shared.x), vector.sm2, "{curve:?}");
        assert_eq!(sm2(curve, side_b).unwrap(), shared);

        for exchange in [mqv, sm2] {
            let off = Point { x: public_b[0].y.clone(), y: public_b[0].x.clone() };
            let bad = exchange(curve, Keys { static_public: &off, ..side_a });
            assert_eq!(bad, Err(CryptoError::Point));
            let bad = exchange(curve, Keys { ephemeral_public: &off, ..side_a });
            assert_eq!(bad, Err(CryptoError::Point));
            let n = curve.parameters().n;
            assert_eq!(exchange(curve, Keys { own_static: n, ..side_a }), Err(CryptoError::Scalar));
            assert_eq!(exchange(curve, Keys { own_ephemeral: &[], ..side_a }), Err(CryptoError::Scalar));
        }
    }
}

/// GM/T 0003.5, annex B; from this point and the identities comes the key 6c89347354de2484c60b4ab1fde4c6e5 of the standard.
#[test]
fn the_sm2_exchange_gives_the_point_of_the_standard() {
    let curve = Curve::Sm2P256;
    let shared = sm2(
        curve,
        Keys {
            own_static: &bytes("81eb26e941bb5af16df116495f90695272ae2cd63d6c4ae1678418be48230029"),
            own_ephemeral: &bytes("d4de15474db74d06491c440d305e012400990f3e390c7e87153c12db2ea60bb3"),
            static_public: &Point {
                x: bytes("6ae848c57c53c7b1b5fa99eb2286af078ba64c64591b8b566f7357d576f16dfb"),
                y: bytes("ee489d771621a27b36c5c7992062e9cd09a9264386f3fbea54dff69305621c4d"),
            },
            ephemeral_public: &Point {
                x: bytes("acc27688a6f7b706098bc91ff3ad1bff7dc2802cdb14ccccdb0a90471f9bd707"),
                y: bytes("2fedac0494b2ffc4d6853876c79b8f301c6573ad0aa50f39fc87181e1a1b46fe"),
            },
        },
    )
    .unwrap();
    assert_eq!(hex::encode(shared.x), "c558b44bee5301d9f52b44d939bb59584d75b9034dd6a9fc826872109a65739f");
    assert_eq!(hex::encode(shared.y), "3252b35b191d8ae01cd122c025204334c5eacf68a0cb4854c6a7d367ecad4de7");
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
        assert!(!ec_schnorr_verify(CURVE, &generator(CURVE), alg, &digest, &bytes(r), &bytes(s)), "{alg:?}");
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
fn points_of_no_curve_are_refused_on_every_curve() {
    for &curve in Curve::ALL {
        let p = curve.parameters().p;
        let g = generator(curve);
        let d = plus(&[0], 3);
        for bad in [
            Point { x: g.x.clone(), y: g.x.clone() },
            Point { x: vec![0; p.len()], y: vec![0; p.len()] },
            Point { x: p.to_vec(), y: g.y.clone() },
            Point { x: g.x.clone(), y: vec![0xff; p.len()] },
            Point::default(),
        ] {
            assert!(!is_on_curve(curve, &bad), "{curve:?} {bad:?}");
            assert_eq!(multiply(curve, &d, &bad), Err(CryptoError::Point));
        }
        assert!(is_on_curve(curve, &Point { x: [&[0], g.x.as_slice()].concat(), y: g.y }));
    }
    // A point of another curve of the same size.
    assert!(!is_on_curve(Curve::Sm2P256, &generator(Curve::NistP256)));
}

#[test]
fn a_private_value_out_of_range_is_refused_everywhere() {
    for &curve in Curve::ALL {
        let n = curve.parameters().n;
        let (longer, ones) = ([&[1], n].concat(), vec![0xff; n.len()]);
        for bad in [&[][..], &[0], &vec![0; n.len()], n, &plus(n, 1), &ones, &longer] {
            let point = generator(curve);
            assert_eq!(public_of(curve, bad), Err(CryptoError::Scalar));
            assert_eq!(ecdh(curve, bad, &point), Err(CryptoError::Scalar));
            for (sign, verify) in SCHEMES {
                let signed = sign(curve, bad, HashAlg::Sha256, &[1; 32], &mut primary_stream());
                assert_eq!(signed, Err(CryptoError::Scalar));
                assert!(!verify(curve, &point, HashAlg::Sha256, &[1; 32], bad, &[1]));
                assert!(!verify(curve, &point, HashAlg::Sha256, &[1; 32], &[1], bad));
            }
        }
        assert!(public_of(curve, &plus(n, -1)).is_ok());
    }
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
        for &curve in Curve::ALL {
            let _ = is_on_curve(curve, &arbitrary);
            let _ = ecdh(curve, &c, &arbitrary);
            let _ = modulo_p(curve, &a);
        }
        let _ = public_of(CURVE, &a);
        let _ = ecdsa_sign(CURVE, &a, &b, &mut primary_stream());
        prop_assert!(!sm2_verify(CURVE, &public(), &a, &b, &c));
        prop_assert!(!sm2_verify(CURVE, &public(), &a, &short, &short));
        prop_assert!(!ecdsa_verify(CURVE, &public(), &a, &b, &c));
        prop_assert!(!ecdsa_verify(CURVE, &public(), &a, &short, &short));
        prop_assert!(!ec_schnorr_verify(CURVE, &public(), HashAlg::Sha1, &a, &b, &c));
        prop_assert!(!ec_schnorr_verify(CURVE, &public(), HashAlg::Sha512, &a, &short, &short));
    }
}
