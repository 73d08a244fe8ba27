//! Known answers of elliptic curves.

use crate::crypto::constant::hex;
use crate::crypto::ecc::{self, exchange};
use crate::crypto::{CryptoError, Curve, HashAlg, Point, RandomSource, kdf2};

/// A key with its signature over SHA-256 of "sample" (SM2: over [`SM2_E`]).
struct Known {
    curve: Curve,
    d: &'static [u8],
    x: &'static [u8],
    y: &'static [u8],
    r: &'static [u8],
    s: &'static [u8],
}

/// The keys of a two-phase exchange and what they lead to.
struct Exchange {
    curve: Curve,
    own_static: &'static [u8],
    own_ephemeral: &'static [u8],
    static_public: (&'static [u8], &'static [u8]),
    ephemeral_public: (&'static [u8], &'static [u8]),
    shared_x: &'static [u8],
}

/// ECDSA.
pub fn p192(rng: &mut dyn RandomSource) -> bool {
    ecdsa(&P192, rng)
}

/// ECDSA.
pub fn p224(rng: &mut dyn RandomSource) -> bool {
    ecdsa(&P224, rng)
}

/// ECDSA.
pub fn p256(rng: &mut dyn RandomSource) -> bool {
    ecdsa(&P256, rng)
}

/// ECDSA.
pub fn p384(rng: &mut dyn RandomSource) -> bool {
    ecdsa(&P384, rng)
}

/// ECDSA.
pub fn p521(rng: &mut dyn RandomSource) -> bool {
    ecdsa(&P521, rng)
}

fn digest(message: &[u8]) -> Vec<u8> {
    HashAlg::Sha256.digest(&[message]).to_vec()
}

fn point((x, y): (&[u8], &[u8])) -> Point {
    Point { x: x.to_vec(), y: y.to_vec() }
}

/// The private value has its public point, a known signature verifies, for its digest only, and so does a fresh one of the same key.
fn ecdsa(known: &Known, rng: &mut dyn RandomSource) -> bool {
    let Known { curve, d, x, y, r, s } = *known;
    let public = point((x, y));
    let (sample, other) = (digest(b"sample"), digest(b"test"));
    ecc::public_of(curve, d).as_ref() == Ok(&public)
        && ecc::ecdsa_verify(curve, &public, &sample, r, s)
        && !ecc::ecdsa_verify(curve, &public, &other, r, s)
        && ecc::ecdsa_sign(curve, d, &other, rng)
            .is_ok_and(|(r, s)| ecc::ecdsa_verify(curve, &public, &other, &r, &s))
}

/// SM2: as ECDSA.
pub fn sm2(rng: &mut dyn RandomSource) -> bool {
    let Known { curve, d, x, y, r, s } = SM2;
    let public = point((x, y));
    let other = digest(b"test");
    ecc::public_of(curve, d).as_ref() == Ok(&public)
        && ecc::sm2_verify(curve, &public, &SM2_E, r, s)
        && !ecc::sm2_verify(curve, &public, &other, r, s)
        && ecc::sm2_sign(curve, d, &other, rng)
            .is_ok_and(|(r, s)| ecc::sm2_verify(curve, &public, &other, &r, &s))
        && exchanged(&SM2_EXCHANGE, exchange::sm2)
}

/// EC-Schnorr: as ECDSA, with P-256.
pub fn schnorr(rng: &mut dyn RandomSource) -> bool {
    let Known { curve, d, x, y, .. } = P256;
    let (public, alg) = (point((x, y)), HashAlg::Sha256);
    let (sample, other) = (digest(b"sample"), digest(b"test"));
    ecc::ec_schnorr_verify(curve, &public, alg, &sample, &SCHNORR_R, &SCHNORR_S)
        && !ecc::ec_schnorr_verify(curve, &public, alg, &other, &SCHNORR_R, &SCHNORR_S)
        && ecc::ec_schnorr_sign(curve, d, alg, &other, rng)
            .is_ok_and(|(r, s)| ecc::ec_schnorr_verify(curve, &public, alg, &other, &r, &s))
}

/// ECDAA with a nonce that is known.
pub fn ecdaa(_: &mut dyn RandomSource) -> bool {
    struct Constant;
    impl RandomSource for Constant {
        fn fill(&mut self, out: &mut [u8]) {
            out.fill(0x5a);
        }
    }
    let sample = digest(b"sample");
    ecc::ecdaa_sign(P256.curve, P256.d, &ECDAA_COMMITTED, HashAlg::Sha256, &sample, &mut Constant)
        .is_ok_and(|(nonce, s)| nonce == ECDAA_NONCE && s == ECDAA_S)
}

/// A private value has its known public point, and two parties agree.
pub fn ecdh(rng: &mut dyn RandomSource) -> bool {
    let Known { curve, d, x, y, .. } = P256;
    let public = point((x, y));
    let (other, ephemeral) = ecc::generate(curve, rng);
    ecc::public_of(curve, d).as_ref() == Ok(&public)
        && match (ecc::ecdh(curve, &other, &public), ecc::ecdh(curve, d, &ephemeral)) {
            (Ok(one), Ok(two)) => *one == *two,
            _ => false,
        }
}

/// MQV.
pub fn mqv(_: &mut dyn RandomSource) -> bool {
    exchanged(&MQV, exchange::mqv)
}

fn exchanged(
    known: &Exchange,
    exchange: fn(Curve, exchange::Keys<'_>) -> Result<Point, CryptoError>,
) -> bool {
    let keys = exchange::Keys {
        own_static: known.own_static,
        own_ephemeral: known.own_ephemeral,
        static_public: &point(known.static_public),
        ephemeral_public: &point(known.ephemeral_public),
    };
    exchange(known.curve, keys).is_ok_and(|shared| shared.x == known.shared_x)
}

/// KDF2.
pub fn kdf(_: &mut dyn RandomSource) -> bool {
    kdf2(HashAlg::Sha256, b"z", KDF2_Z.len()).as_slice() == KDF2_Z
}

/// RFC 6979, A.2.3.
const P192: Known = Known {
    curve: Curve::NistP192,
    d: &hex::<24>(b"6fab034934e4c0fc9ae67f5b5659a9d7d1fefd187ee09fd4"),
    x: &hex::<24>(b"ac2c77f529f91689fea0ea5efec7f210d8eea0b9e047ed56"),
    y: &hex::<24>(b"3bc723e57670bd4887ebc732c523063d0a7c957bc97c1c43"),
    r: &hex::<24>(b"4b0b8ce98a92866a2820e20aa6b75b56382e0f9bfd5ecb55"),
    s: &hex::<24>(b"ccdb006926ea9565cbadc840829d8c384e06de1f1e381b85"),
};
/// RFC 6979, A.2.4.
const P224: Known = Known {
    curve: Curve::NistP224,
    d: &hex::<28>(b"f220266e1105bfe3083e03ec7a3a654651f45e37167e88600bf257c1"),
    x: &hex::<28>(b"00cf08da5ad719e42707fa431292dea11244d64fc51610d94b130d6c"),
    y: &hex::<28>(b"eeab6f3debe455e3dbf85416f7030cbd94f34f2d6f232c69f3c1385a"),
    r: &hex::<28>(b"61aa3da010e8e8406c656bc477a7a7189895e7e840cdfe8ff42307ba"),
    s: &hex::<28>(b"bc814050dab5d23770879494f9e0a680dc1af7161991bde692b10101"),
};
/// RFC 6979, A.2.5.
const P256: Known = Known {
    curve: Curve::NistP256,
    d: &hex::<32>(b"c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721"),
    x: &hex::<32>(b"60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6"),
    y: &hex::<32>(b"7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299"),
    r: &hex::<32>(b"efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716"),
    s: &hex::<32>(b"f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8"),
};
/// RFC 6979, A.2.6.
const P384: Known = Known {
    curve: Curve::NistP384,
    d: &hex::<48>(
        b"6b9d3dad2e1b8c1c05b19875b6659f4de23c3b667bf297ba9aa47740787137d896d5724e4c70a825f872c9ea\
              60d2edf5",
    ),
    x: &hex::<48>(
        b"ec3a4e415b4e19a4568618029f427fa5da9a8bc4ae92e02e06aae5286b300c64def8f0ea9055866064a25451\
              5480bc13",
    ),
    y: &hex::<48>(
        b"8015d9b72d7d57244ea8ef9ac0c621896708a59367f9dfb9f54ca84b3f1c9db1288b231c3ae0d4fe7344fd25\
              33264720",
    ),
    r: &hex::<48>(
        b"21b13d1e013c7fa1392d03c5f99af8b30c570c6f98d4ea8e354b63a21d3daa33bde1e888e63355d92fa2b3c3\
              6d8fb2cd",
    ),
    s: &hex::<48>(
        b"f3aa443fb107745bf4bd77cb3891674632068a10ca67e3d45db2266fa7d1feebefdc63eccd1ac42ec0cb8668\
              a4fa0ab0",
    ),
};
/// RFC 6979, A.2.7.
const P521: Known = Known {
    curve: Curve::NistP521,
    d: &hex::<66>(
        b"00fad06daa62ba3b25d2fb40133da757205de67f5bb0018fee8c86e1b68c7e75caa896eb32f1f47c70855836\
              a6d16fcc1466f6d8fbec67db89ec0c08b0e996b83538",
    ),
    x: &hex::<66>(
        b"01894550d0785932e00eaa23b694f213f8c3121f86dc97a04e5a7167db4e5bcd371123d46e45db6b5d5370a7\
              f20fb633155d38ffa16d2bd761dcac474b9a2f5023a4",
    ),
    y: &hex::<66>(
        b"00493101c962cd4d2fddf782285e64584139c2f91b47f87ff82354d6630f746a28a0db25741b5b34a828008b\
              22acc23f924faafbd4d33f81ea66956dfeaa2bfdfcf5",
    ),
    r: &hex::<66>(
        b"01511bb4d675114fe266fc4372b87682baecc01d3cc62cf2303c92b3526012659d16876e25c7c1e57648f23b\
              73564d67f61c6f14d527d54972810421e7d87589e1a7",
    ),
    s: &hex::<66>(
        b"004a171143a83163d6df460aaf61522695f207a58b95c0644d87e52aa1a347916e4f7a72930b1bc06dbe22ce\
              3f58264afd23704cbb63b29b931f7de6c9d949a7ecfc",
    ),
};
/// GM/T 0003.5, annex A.
const SM2: Known = Known {
    curve: Curve::Sm2P256,
    d: &hex::<32>(b"3945208f7b2144b13f36e38ac6d39f95889393692860b51a42fb81ef4df7c5b8"),
    x: &hex::<32>(b"09f9df311e5421a150dd7d161e4bc5c672179fad1833fc076bb08ff356f35020"),
    y: &hex::<32>(b"ccea490ce26775a52dc6ea718cc1aa600aed05fbf35e084a6632f6072da9ad13"),
    r: &hex::<32>(b"f5a03b0648d2c4630eeac513e1bb81a15944da3827d5b74143ac7eaceee720b3"),
    s: &hex::<32>(b"b1b6aa29df212fd8763182bc0d421ca1bb9038fd1f7f42d4840b69c485bbc1aa"),
};
/// The hash of signer and message that it signs.
const SM2_E: [u8; 32] = hex(b"f0b43e94ba45accaace692ed534382eb17e6ab5a19ce7b31f4486fdfc0d28640");
/// A committed value.
const ECDAA_COMMITTED: [u8; 32] = hex(b"c586130ae7ab379348e5acb2cd246e401a93619908858cb6c2d4e3ed6d217681");
/// The nonce that a source of 5a bytes leads to.
const ECDAA_NONCE: [u8; 32] = hex(b"b4b4b4b3a5a5a5a67208d4b3be9715393fa46dac7b8dfd0bda7e45b8b227de1b");
/// The second half of the signature over SHA-256 of "sample" with both, by an independent program.
const ECDAA_S: [u8; 32] = hex(b"2317ca3dcecd23fe3761f8093cd35b054d307b7aee5a6a44e2e8e07c55bfff48");
/// An EC-Schnorr signature over SHA-256 of "sample" by an independent program.
const SCHNORR_R: [u8; 32] = hex(b"d86cc5b6b1c58cec1c6b1323f4942711ec72123b68cc3715cfabf3735cb30cf1");
/// Its second half.
const SCHNORR_S: [u8; 32] = hex(b"cd982156d23ffed6c2336f8ec825637412f8435c748fe783e5521b9be1721e00");
/// By an independent program.
const MQV: Exchange = Exchange {
    curve: Curve::NistP256,
    own_static: &hex::<32>(b"d8739d11c5ade569bd5361baee783f1c6597e2b026d0fa52430e1c23b30fb8ba"),
    own_ephemeral: &hex::<32>(b"cfb3087ecc35913d52f3f45c6c3357cf09d8b005edc5c84a1339753764d8e09c"),
    static_public: (
        &hex::<32>(b"751e7a3ad03ecedda6d0284498211c3cbad106c3b36742f3612eaec5dd2b1b33"),
        &hex::<32>(b"4e07f7537de65b963f2531ff7c41df07ced4f16cb0c46515a7f787bec9b361b1"),
    ),
    ephemeral_public: (
        &hex::<32>(b"e9bff7c07e78b787b9119817b767cdc4d17bf70899c764e53cd75fd5be5c9edb"),
        &hex::<32>(b"eac1f0a8f69de17f6c22a76f31cb59fe9b3de5c3e6908bd8d359b2d4f0b2a36f"),
    ),
    shared_x: &hex::<32>(b"f3d102326cfecb24bd15338afa62f6f39e904cda45bfb6b929e0406d7e48e60d"),
};
/// GM/T 0003.5, annex B.
const SM2_EXCHANGE: Exchange = Exchange {
    curve: Curve::Sm2P256,
    own_static: &hex::<32>(b"81eb26e941bb5af16df116495f90695272ae2cd63d6c4ae1678418be48230029"),
    own_ephemeral: &hex::<32>(b"d4de15474db74d06491c440d305e012400990f3e390c7e87153c12db2ea60bb3"),
    static_public: (
        &hex::<32>(b"6ae848c57c53c7b1b5fa99eb2286af078ba64c64591b8b566f7357d576f16dfb"),
        &hex::<32>(b"ee489d771621a27b36c5c7992062e9cd09a9264386f3fbea54dff69305621c4d"),
    ),
    ephemeral_public: (
        &hex::<32>(b"acc27688a6f7b706098bc91ff3ad1bff7dc2802cdb14ccccdb0a90471f9bd707"),
        &hex::<32>(b"2fedac0494b2ffc4d6853876c79b8f301c6573ad0aa50f39fc87181e1a1b46fe"),
    ),
    shared_x: &hex::<32>(b"c558b44bee5301d9f52b44d939bb59584d75b9034dd6a9fc826872109a65739f"),
};
/// KDF2 with SHA-256 of "z", by an independent hash.
const KDF2_Z: [u8; 40] =
    hex(b"66f1a3e660c61a7603e3d9ac615ff1b281316ab5fb23f7aa734660519efacc462dac978dd6bb48a8");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::KdfaStream;

    #[test]
    fn a_wrong_answer_fails() {
        let mut rng = KdfaStream::new(HashAlg::Sha256, b"seed", b"label", b"");
        for known in [P192, P224, P256, P384, P521] {
            assert!(ecdsa(&known, &mut rng));
            assert!(!ecdsa(&Known { d: known.r, ..known }, &mut rng));
            assert!(!ecdsa(&Known { r: known.s, ..known }, &mut rng));
            assert!(!ecdsa(&Known { x: known.y, ..known }, &mut rng));
        }
        assert!(!exchanged(&MQV, exchange::sm2));
        assert!(!exchanged(&SM2_EXCHANGE, exchange::mqv));
    }
}
