//! The constants of the curves: SP 800-186, 3.2.1 (P-224 to P-521), SEC 2 version 1, 2.5.2 (P-192), and GB/T 32918.5 (SM2).

use super::Curve;
use crate::crypto::constant::hex;

/// The constants of a curve, as `TPM2_ECC_Parameters` reports them: big-endian, of the field's (or order's) length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CurveParameters {
    /// The bits of a key, which are those of the order.
    pub key_bits: u16,
    /// The prime of the field.
    pub p: &'static [u8],
    /// The linear coefficient.
    pub a: &'static [u8],
    /// The constant coefficient.
    pub b: &'static [u8],
    /// The x coordinate of the generator.
    pub gx: &'static [u8],
    /// The y coordinate of the generator.
    pub gy: &'static [u8],
    /// The order of the generator.
    pub n: &'static [u8],
    /// The cofactor.
    pub h: &'static [u8],
}

impl Curve {
    /// The constants of the curve.
    #[must_use]
    pub const fn parameters(self) -> CurveParameters {
        match self {
            Curve::NistP192 => P192,
            Curve::NistP224 => P224,
            Curve::NistP256 => P256,
            Curve::NistP384 => P384,
            Curve::NistP521 => P521,
            Curve::Sm2P256 => SM2_P256,
        }
    }
}

const P192: CurveParameters = CurveParameters {
    key_bits: 192,
    p: &hex::<24>(b"fffffffffffffffffffffffffffffffeffffffffffffffff"),
    a: &hex::<24>(b"fffffffffffffffffffffffffffffffefffffffffffffffc"),
    b: &hex::<24>(b"64210519e59c80e70fa7e9ab72243049feb8deecc146b9b1"),
    gx: &hex::<24>(b"188da80eb03090f67cbf20eb43a18800f4ff0afd82ff1012"),
    gy: &hex::<24>(b"07192b95ffc8da78631011ed6b24cdd573f977a11e794811"),
    n: &hex::<24>(b"ffffffffffffffffffffffff99def836146bc9b1b4d22831"),
    h: &[1],
};

const P224: CurveParameters = CurveParameters {
    key_bits: 224,
    p: &hex::<28>(b"ffffffffffffffffffffffffffffffff000000000000000000000001"),
    a: &hex::<28>(b"fffffffffffffffffffffffffffffffefffffffffffffffffffffffe"),
    b: &hex::<28>(b"b4050a850c04b3abf54132565044b0b7d7bfd8ba270b39432355ffb4"),
    gx: &hex::<28>(b"b70e0cbd6bb4bf7f321390b94a03c1d356c21122343280d6115c1d21"),
    gy: &hex::<28>(b"bd376388b5f723fb4c22dfe6cd4375a05a07476444d5819985007e34"),
    n: &hex::<28>(b"ffffffffffffffffffffffffffff16a2e0b8f03e13dd29455c5c2a3d"),
    h: &[1],
};

const P256: CurveParameters = CurveParameters {
    key_bits: 256,
    p: &hex::<32>(b"ffffffff00000001000000000000000000000000ffffffffffffffffffffffff"),
    a: &hex::<32>(b"ffffffff00000001000000000000000000000000fffffffffffffffffffffffc"),
    b: &hex::<32>(b"5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b"),
    gx: &hex::<32>(b"6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"),
    gy: &hex::<32>(b"4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"),
    n: &hex::<32>(b"ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"),
    h: &[1],
};

const P384: CurveParameters = CurveParameters {
    key_bits: 384,
    p: &hex::<48>(
        b"fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffeffffffff00000000\
          00000000ffffffff",
    ),
    a: &hex::<48>(
        b"fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffeffffffff00000000\
          00000000fffffffc",
    ),
    b: &hex::<48>(
        b"b3312fa7e23ee7e4988e056be3f82d19181d9c6efe8141120314088f5013875ac656398d8a2ed19d\
          2a85c8edd3ec2aef",
    ),
    gx: &hex::<48>(
        b"aa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a385502f25dbf55296c\
          3a545e3872760ab7",
    ),
    gy: &hex::<48>(
        b"3617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a60b1ce1d7e819d\
          7a431d7c90ea0e5f",
    ),
    n: &hex::<48>(
        b"ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77a\
          ecec196accc52973",
    ),
    h: &[1],
};

const P521: CurveParameters = CurveParameters {
    key_bits: 521,
    p: &hex::<66>(
        b"01ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\
          ffffffffffffffffffffffffffffffffffffffffffffffffffff",
    ),
    a: &hex::<66>(
        b"01ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\
          fffffffffffffffffffffffffffffffffffffffffffffffffffc",
    ),
    b: &hex::<66>(
        b"0051953eb9618e1c9a1f929a21a0b68540eea2da725b99b315f3b8b489918ef109e156193951ec7e\
          937b1652c0bd3bb1bf073573df883d2c34f1ef451fd46b503f00",
    ),
    gx: &hex::<66>(
        b"00c6858e06b70404e9cd9e3ecb662395b4429c648139053fb521f828af606b4d3dbaa14b5e77efe7\
          5928fe1dc127a2ffa8de3348b3c1856a429bf97e7e31c2e5bd66",
    ),
    gy: &hex::<66>(
        b"011839296a789a3bc0045c8a5fb42c7d1bd998f54449579b446817afbd17273e662c97ee72995ef4\
          2640c550b9013fad0761353c7086a272c24088be94769fd16650",
    ),
    n: &hex::<66>(
        b"01fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffa51868783bf2f\
          966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409",
    ),
    h: &[1],
};

const SM2_P256: CurveParameters = CurveParameters {
    key_bits: 256,
    p: &hex::<32>(b"fffffffeffffffffffffffffffffffffffffffff00000000ffffffffffffffff"),
    a: &hex::<32>(b"fffffffeffffffffffffffffffffffffffffffff00000000fffffffffffffffc"),
    b: &hex::<32>(b"28e9fa9e9d9f5e344d5a9e4bcf6509a7f39789f515ab8f92ddbcbd414d940e93"),
    gx: &hex::<32>(b"32c4ae2c1f1981195f9904466a39c9948fe30bbff2660be1715a4589334c74c7"),
    gy: &hex::<32>(b"bc3736a2f4f6779c59bdcee36b692153d0a9877cc62a474002df32e52139f0a0"),
    n: &hex::<32>(b"fffffffeffffffffffffffffffffffff7203df6b21c6052b53bbf40939d54123"),
    h: &[1],
};
