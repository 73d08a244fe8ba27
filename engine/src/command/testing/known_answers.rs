//! The known answers of the self-test: from FIPS 180-4, FIPS 202, GB/T 32905, RFC 4231, SP 800-38A, SP 800-38B, SP 800-67, RFC 3713,
//! RFC 6979 and GM/T 0003; what no standard has is from OpenSSL or other independent programs.

mod ecc;
mod rsa;

use crate::crypto::constant::hex;
use crate::crypto::sym::{BlockCipher, Mode, xor_obfuscate};
use crate::crypto::{Cmac, HashAlg, RandomSource, SymAlg, hmac, kdfa, kdfe};
use vtpm_protocol::tpm::TpmAlgId;

/// One test: what it is of, and whether it passes.
pub type KnownAnswer = (&'static str, fn(&mut dyn RandomSource) -> bool);

/// All tests.
pub const ALL: &[KnownAnswer] = &[
    ("SHA-1", |_| HashAlg::Sha1.digest(&[ABC]).as_slice() == SHA1_ABC),
    ("SHA-256", |_| HashAlg::Sha256.digest(&[ABC]).as_slice() == SHA256_ABC),
    ("SHA-384", |_| HashAlg::Sha384.digest(&[ABC]).as_slice() == SHA384_ABC),
    ("SHA-512", |_| HashAlg::Sha512.digest(&[ABC]).as_slice() == SHA512_ABC),
    ("SM3", |_| HashAlg::Sm3.digest(&[ABC]).as_slice() == SM3_ABC),
    ("SHA3-256", |_| HashAlg::Sha3_256.digest(&[ABC]).as_slice() == SHA3_256_ABC),
    ("SHA3-384", |_| HashAlg::Sha3_384.digest(&[ABC]).as_slice() == SHA3_384_ABC),
    ("SHA3-512", |_| HashAlg::Sha3_512.digest(&[ABC]).as_slice() == SHA3_512_ABC),
    ("HMAC", |_| hmac(HashAlg::Sha256, b"Jefe", &[b"what do ya want for nothing?"]).as_slice() == HMAC_JEFE),
    ("KDFa", |_| kdfa(HashAlg::Sha256, &counting(), b"TEST", &[1], &[2], 256).as_slice() == KDFA_TEST),
    ("AES-128", |_| cipher(SymAlg::Aes, &AES128_KEY, Mode::Cfb, &COUNTING, &AES_PLAIN, &AES128_CFB)),
    ("AES-192", |_| cipher(SymAlg::Aes, &AES192_KEY, Mode::Cfb, &COUNTING, &AES_PLAIN, &AES192_CFB)),
    ("AES-256", |_| cipher(SymAlg::Aes, &AES256_KEY, Mode::Cfb, &COUNTING, &AES_PLAIN, &AES256_CFB)),
    ("CTR", |_| cipher(SymAlg::Aes, &AES128_KEY, Mode::Ctr, &CTR_IV, &TWO_BLOCKS, &CTR_TWO)),
    ("CFB", |_| cipher(SymAlg::Aes, &AES128_KEY, Mode::Cfb, &COUNTING, &TWO_BLOCKS, &CFB_TWO)),
    ("OFB", |_| cipher(SymAlg::Aes, &AES128_KEY, Mode::Ofb, &COUNTING, &TWO_BLOCKS, &OFB_TWO)),
    ("CBC", |_| cipher(SymAlg::Aes, &AES128_KEY, Mode::Cbc, &COUNTING, &TWO_BLOCKS, &CBC_TWO)),
    ("ECB", |_| cipher(SymAlg::Aes, &AES128_KEY, Mode::Ecb, &[], &AES_PLAIN, &AES128_ECB)),
    ("CMAC", |_| {
        Cmac::new(SymAlg::Aes, &AES128_KEY).is_ok_and(|mut mac| {
            mac.update(&AES_PLAIN);
            mac.finish().as_slice() == AES128_CMAC
        })
    }),
    ("Camellia-128", |_| {
        cipher(SymAlg::Camellia, camellia_key(16), Mode::Ecb, &[], camellia_key(16), &CAMELLIA_128)
    }),
    ("Camellia-192", |_| {
        cipher(SymAlg::Camellia, camellia_key(24), Mode::Ecb, &[], camellia_key(16), &CAMELLIA_192)
    }),
    ("Camellia-256", |_| {
        cipher(SymAlg::Camellia, camellia_key(32), Mode::Ecb, &[], camellia_key(16), &CAMELLIA_256)
    }),
    ("TDES", |_| cipher(SymAlg::Tdes, &TDES_KEY, Mode::Ecb, &[], TDES_PLAIN, &TDES_ECB)),
    ("P-192", ecc::p192),
    ("P-224", ecc::p224),
    ("P-256", ecc::p256),
    ("P-384", ecc::p384),
    ("P-521", ecc::p521),
    ("SM2", ecc::sm2),
    ("EC-Schnorr", ecc::schnorr),
    ("ECDAA", ecc::ecdaa),
    ("ECDH", ecc::ecdh),
    ("MQV", ecc::mqv),
    ("KDF2", ecc::kdf),
    ("KDFe", |_| kdfe(HashAlg::Sha256, b"z", b"TEST", &[1], &[2], 320).as_slice() == KDFE_TEST),
    ("XOR", |_| {
        let mut data = ABC.to_vec();
        xor_obfuscate(HashAlg::Sha256, &counting(), &[1], &[2], &mut data);
        data == XOR_ABC
    }),
    ("RSA", rsa::rsa),
    ("RSASSA", rsa::rsassa),
    ("RSAPSS", rsa::rsapss),
    ("RSAES", rsa::rsaes),
    ("OAEP", rsa::oaep),
    ("MGF1", rsa::mgf1),
];

/// The tests of curves by ECDSA.
const NIST_CURVES: &[&str] = &["P-192", "P-224", "P-256", "P-384", "P-521"];

/// The tests of ciphers.
const CIPHERS: &[&str] =
    &["AES-128", "AES-192", "AES-256", "Camellia-128", "Camellia-192", "Camellia-256", "TDES"];

/// Which tests cover an algorithm: one of its own at least, but for types of objects, which are covered by what they are made of.
const COVERS: &[(TpmAlgId, &[&str])] = &[
    (TpmAlgId::RSA, &["RSA"]),
    (TpmAlgId::TDES, &["TDES"]),
    (TpmAlgId::SHA1, &["SHA-1"]),
    (TpmAlgId::HMAC, &["HMAC"]),
    (TpmAlgId::AES, &["AES-128", "AES-192", "AES-256"]),
    (TpmAlgId::MGF1, &["MGF1"]),
    (TpmAlgId::KEYEDHASH, &["HMAC", "KDFa"]),
    (TpmAlgId::XOR, &["XOR"]),
    (TpmAlgId::SHA256, &["SHA-256"]),
    (TpmAlgId::SHA384, &["SHA-384"]),
    (TpmAlgId::SHA512, &["SHA-512"]),
    (TpmAlgId::SM3_256, &["SM3"]),
    (TpmAlgId::RSASSA, &["RSASSA"]),
    (TpmAlgId::RSAES, &["RSAES"]),
    (TpmAlgId::RSAPSS, &["RSAPSS"]),
    (TpmAlgId::OAEP, &["OAEP"]),
    (TpmAlgId::ECDSA, NIST_CURVES),
    (TpmAlgId::ECDH, &["ECDH"]),
    (TpmAlgId::ECDAA, &["ECDAA"]),
    (TpmAlgId::SM2, &["SM2"]),
    (TpmAlgId::ECSCHNORR, &["EC-Schnorr"]),
    (TpmAlgId::ECMQV, &["MQV"]),
    (TpmAlgId::KDF1_SP800_56A, &["KDFe"]),
    (TpmAlgId::KDF2, &["KDF2"]),
    (TpmAlgId::KDF1_SP800_108, &["KDFa"]),
    (TpmAlgId::ECC, NIST_CURVES),
    (TpmAlgId::SYMCIPHER, CIPHERS),
    (TpmAlgId::CAMELLIA, &["Camellia-128", "Camellia-192", "Camellia-256"]),
    (TpmAlgId::SHA3_256, &["SHA3-256"]),
    (TpmAlgId::SHA3_384, &["SHA3-384"]),
    (TpmAlgId::SHA3_512, &["SHA3-512"]),
    (TpmAlgId::CMAC, &["CMAC"]),
    (TpmAlgId::CTR, &["CTR"]),
    (TpmAlgId::OFB, &["OFB"]),
    (TpmAlgId::CBC, &["CBC"]),
    (TpmAlgId::CFB, &["CFB"]),
    (TpmAlgId::ECB, &["ECB"]),
];

/// The tests that cover an algorithm.
pub fn tests_of(alg: TpmAlgId) -> impl Iterator<Item = &'static KnownAnswer> {
    let names = COVERS.iter().find(|(covered, _)| *covered == alg).map_or(&[][..], |(_, names)| names);
    ALL.iter().filter(|(name, _)| names.contains(name))
}

#[cfg(test)]
thread_local! {
    /// Makes the next tests of this thread fail, as broken cryptography would.
    pub static BROKEN: core::cell::Cell<bool> = const { core::cell::Cell::new(false) };
}

/// Runs tests until one fails.
///
/// # Errors
/// The name of that one.
pub fn run<'a>(
    tests: impl IntoIterator<Item = &'a KnownAnswer>,
    rng: &mut dyn RandomSource,
) -> Result<(), &'static str> {
    #[cfg(test)]
    if BROKEN.get() {
        return Err("a test");
    }
    tests.into_iter().find(|(_, test)| !test(rng)).map_or(Ok(()), |(name, _)| Err(*name))
}

/// A block of a cipher in a mode, both ways.
fn cipher(alg: SymAlg, key: &[u8], mode: Mode, iv: &[u8], plain: &[u8], expected: &[u8]) -> bool {
    let Ok(cipher) = BlockCipher::new(alg, key) else { return false };
    let mut data = plain.to_vec();
    cipher.encrypt(mode, &mut iv.to_vec(), &mut data).is_ok()
        && data == expected
        && cipher.decrypt(mode, &mut iv.to_vec(), &mut data).is_ok()
        && data == plain
}

/// The bytes 00 to 1f.
fn counting() -> [u8; 32] {
    core::array::from_fn(|i| u8::try_from(i).unwrap_or_default())
}

/// The beginning of the longest key of RFC 3713; the shortest is the plain text, too.
fn camellia_key(size: usize) -> &'static [u8] {
    CAMELLIA_KEY.get(..size).unwrap_or_default()
}

/// The message of FIPS 180-4's examples.
const ABC: &[u8] = b"abc";
/// Its digest.
const SHA1_ABC: [u8; 20] = hex(b"a9993e364706816aba3e25717850c26c9cd0d89d");
/// Its digest.
const SHA256_ABC: [u8; 32] = hex(b"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
/// Its digest.
const SHA384_ABC: [u8; 48] =
    hex(b"cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7");
/// Its digest.
const SHA512_ABC: [u8; 64] =
    hex(b"ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd\
      454d4423643ce80e2a9ac94fa54ca49f");
/// Its digest, from GB/T 32905-2016, A.1.
const SM3_ABC: [u8; 32] = hex(b"66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0");
/// Its digest, from NIST's examples for FIPS 202.
const SHA3_256_ABC: [u8; 32] = hex(b"3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532");
/// Its digest.
const SHA3_384_ABC: [u8; 48] =
    hex(b"ec01498288516fc926459f58e2c6ad8df9b473cb0fc08c2596da7cf0e49be4b298d88cea927ac7f539f1edf228376d25");
/// Its digest.
const SHA3_512_ABC: [u8; 64] =
    hex(b"b751850b1a57168a5693cd924b6b096e08f621827444f70d884f5d0240d2712e10e116e9192af3c91a7ec57647e39340\
      57340b4cf408d5a56592f8274eec53f0");
/// RFC 4231, test case 2.
const HMAC_JEFE: [u8; 32] = hex(b"5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
/// KDFa with the key 00 to 1f, label TEST, contexts 01 and 02, by an independent HMAC.
const KDFA_TEST: [u8; 32] = hex(b"fdc78261f0dea062e3cdc8c29ff676685851c5e5c80e38c5f57b10e96ae994b9");
/// KDFe of "z" with label TEST, parties 01 and 02, by an independent hash.
const KDFE_TEST: [u8; 40] =
    hex(b"91a5eabe3c369ca86690dfde1edcd821503bf20cd662a71856b7352c635be11cc02864e14ffa1c35");
/// "abc" obfuscated with the key 00 to 1f and contexts 01 and 02, by an independent HMAC.
const XOR_ABC: [u8; 3] = hex(b"61f539");
/// SP 800-38A, F.3.13 and F.3.17.
const AES_PLAIN: [u8; 16] = hex(b"6bc1bee22e409f96e93d7e117393172a");
/// The same and the block after it.
const TWO_BLOCKS: [u8; 32] = hex(b"6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
/// F.3.13.
const AES128_KEY: [u8; 16] = hex(b"2b7e151628aed2a6abf7158809cf4f3c");
/// F.3.13.
const AES128_CFB: [u8; 16] = hex(b"3b3fd92eb72dad20333449f8e83cfb4a");
/// Its first two blocks: in the first OFB is the same.
const CFB_TWO: [u8; 32] = hex(b"3b3fd92eb72dad20333449f8e83cfb4ac8a64537a0b3a93fcde3cdad9f1ce58b");
/// F.3.15.
const AES192_KEY: [u8; 24] = hex(b"8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b");
/// F.3.15.
const AES192_CFB: [u8; 16] = hex(b"cdc80d6fddf18cab34c25909c99a4174");
/// The initialization vector of the modes that chain.
const COUNTING: [u8; 16] = hex(b"000102030405060708090a0b0c0d0e0f");
/// F.5.1.
const CTR_IV: [u8; 16] = hex(b"f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff");
/// F.5.1.
const CTR_TWO: [u8; 32] = hex(b"874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff");
/// F.4.1.
const OFB_TWO: [u8; 32] = hex(b"3b3fd92eb72dad20333449f8e83cfb4a7789508d16918f03f53c52dac54ed825");
/// F.2.1.
const CBC_TWO: [u8; 32] = hex(b"7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2");
/// F.1.1.
const AES128_ECB: [u8; 16] = hex(b"3ad77bb40d7a3660a89ecaf32466ef97");
/// SP 800-38B, D.1, example 2.
const AES128_CMAC: [u8; 16] = hex(b"070a16b46b4d4144f79bdd9dd04a287c");
/// RFC 3713, appendix A.
const CAMELLIA_KEY: [u8; 32] = hex(b"0123456789abcdeffedcba987654321000112233445566778899aabbccddeeff");
/// Appendix A.
const CAMELLIA_128: [u8; 16] = hex(b"67673138549669730857065648eabe43");
/// Appendix A.
const CAMELLIA_192: [u8; 16] = hex(b"b4993401b3e996f84ee5cee7d79b09b9");
/// Appendix A.
const CAMELLIA_256: [u8; 16] = hex(b"9acc237dff16d76c20ef7c919e3a7509");
/// SP 800-67, appendix B.
const TDES_KEY: [u8; 24] = hex(b"0123456789abcdef23456789abcdef01456789abcdef0123");
/// Appendix B.
const TDES_PLAIN: &[u8] = b"The qufc";
/// Appendix B.
const TDES_ECB: [u8; 8] = hex(b"a826fd8ce53b855f");
/// F.3.17.
const AES256_KEY: [u8; 32] = hex(b"603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
/// F.3.17.
const AES256_CFB: [u8; 16] = hex(b"dc7e84bfda79164b7ecd8486985d3860");

#[cfg(test)]
mod tests {
    use super::*;

    struct Counting(u8);

    impl RandomSource for Counting {
        fn fill(&mut self, out: &mut [u8]) {
            for byte in out {
                self.0 = self.0.wrapping_mul(5).wrapping_add(17);
                *byte = self.0;
            }
        }
    }

    #[test]
    fn all_answers_are_the_known_ones() {
        assert_eq!(run(ALL, &mut Counting(1)), Ok(()));
    }

    #[test]
    fn every_algorithm_is_covered_by_tests_that_there_are() {
        for algorithm in crate::command::capability::implemented_algorithms() {
            assert!(tests_of(algorithm.alg).next().is_some(), "{:?}", algorithm.alg);
        }
        for (alg, names) in COVERS {
            assert_eq!(tests_of(*alg).count(), names.len(), "{alg:?}");
        }
    }

    #[test]
    fn no_two_algorithms_share_all_their_tests_but_ecc_and_its_signatures() {
        for (i, (alg, names)) in COVERS.iter().enumerate() {
            for (other, others) in &COVERS[..i] {
                let shared = names == others;
                assert_eq!(shared, (*other, *alg) == (TpmAlgId::ECDSA, TpmAlgId::ECC), "{other:?} {alg:?}");
            }
        }
        // Nor is there a test that covers nothing.
        for (name, _) in ALL {
            assert!(COVERS.iter().any(|(_, names)| names.contains(name)), "{name}");
        }
    }

    #[test]
    fn a_wrong_answer_is_named() {
        let mut tests = ALL.to_vec();
        tests.insert(2, ("a broken one", |_| false));
        assert_eq!(run(&tests, &mut Counting(1)), Err("a broken one"));
        assert!(!cipher(SymAlg::Aes, &AES128_KEY, Mode::Cfb, &COUNTING, &AES_PLAIN, &AES256_CFB));
    }
}
