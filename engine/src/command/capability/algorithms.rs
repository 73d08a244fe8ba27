//! `TPM_CAP_ALGS` and `TPM_CAP_ECC_CURVES`: what is implemented.

use vtpm_protocol::tpm::{TpmAlgId, TpmaAlgorithm, TpmsAlgProperty};

const ASYMMETRIC: TpmaAlgorithm = TpmaAlgorithm::ASYMMETRIC;
const SYMMETRIC: TpmaAlgorithm = TpmaAlgorithm::SYMMETRIC;
const HASH: TpmaAlgorithm = TpmaAlgorithm::HASH;
const OBJECT: TpmaAlgorithm = TpmaAlgorithm::OBJECT;
const SIGNING: TpmaAlgorithm = TpmaAlgorithm::SIGNING;
const ENCRYPTING: TpmaAlgorithm = TpmaAlgorithm::ENCRYPTING;
const METHOD: TpmaAlgorithm = TpmaAlgorithm::METHOD;

const fn entry(alg: TpmAlgId, attributes: &[TpmaAlgorithm]) -> TpmsAlgProperty {
    let (mut bits, mut rest) = (0, attributes);
    while let [first, tail @ ..] = rest {
        bits |= first.0;
        rest = tail;
    }
    TpmsAlgProperty { alg, properties: TpmaAlgorithm(bits) }
}

/// The algorithms in ascending order, with the attributes that the registry of algorithms gives them.
const ALGORITHMS: &[TpmsAlgProperty] = &[
    entry(TpmAlgId::RSA, &[ASYMMETRIC, OBJECT]),
    entry(TpmAlgId::TDES, &[SYMMETRIC]),
    entry(TpmAlgId::SHA1, &[HASH]),
    entry(TpmAlgId::HMAC, &[HASH, SIGNING]),
    entry(TpmAlgId::AES, &[SYMMETRIC]),
    entry(TpmAlgId::MGF1, &[HASH, METHOD]),
    entry(TpmAlgId::KEYEDHASH, &[HASH, OBJECT, SIGNING, ENCRYPTING]),
    entry(TpmAlgId::XOR, &[HASH, SYMMETRIC]),
    entry(TpmAlgId::SHA256, &[HASH]),
    entry(TpmAlgId::SHA384, &[HASH]),
    entry(TpmAlgId::SHA512, &[HASH]),
    entry(TpmAlgId::SM3_256, &[HASH]),
    entry(TpmAlgId::RSASSA, &[ASYMMETRIC, SIGNING]),
    entry(TpmAlgId::RSAES, &[ASYMMETRIC, ENCRYPTING]),
    entry(TpmAlgId::RSAPSS, &[ASYMMETRIC, SIGNING]),
    entry(TpmAlgId::OAEP, &[ASYMMETRIC, ENCRYPTING]),
    entry(TpmAlgId::ECDSA, &[ASYMMETRIC, SIGNING]),
    entry(TpmAlgId::ECDH, &[ASYMMETRIC, METHOD]),
    entry(TpmAlgId::ECDAA, &[ASYMMETRIC, SIGNING]),
    entry(TpmAlgId::SM2, &[ASYMMETRIC, SIGNING, METHOD]),
    entry(TpmAlgId::ECSCHNORR, &[ASYMMETRIC, SIGNING]),
    entry(TpmAlgId::ECMQV, &[ASYMMETRIC, METHOD]),
    entry(TpmAlgId::KDF1_SP800_56A, &[HASH, METHOD]),
    entry(TpmAlgId::KDF2, &[HASH, METHOD]),
    entry(TpmAlgId::KDF1_SP800_108, &[HASH, METHOD]),
    entry(TpmAlgId::ECC, &[ASYMMETRIC, OBJECT]),
    entry(TpmAlgId::SYMCIPHER, &[OBJECT]),
    entry(TpmAlgId::CAMELLIA, &[SYMMETRIC]),
    entry(TpmAlgId::SHA3_256, &[HASH]),
    entry(TpmAlgId::SHA3_384, &[HASH]),
    entry(TpmAlgId::SHA3_512, &[HASH]),
    entry(TpmAlgId::CMAC, &[SYMMETRIC, SIGNING]),
    entry(TpmAlgId::CTR, &[SYMMETRIC, ENCRYPTING]),
    entry(TpmAlgId::OFB, &[SYMMETRIC, ENCRYPTING]),
    entry(TpmAlgId::CBC, &[SYMMETRIC, ENCRYPTING]),
    entry(TpmAlgId::CFB, &[SYMMETRIC, ENCRYPTING]),
    entry(TpmAlgId::ECB, &[SYMMETRIC, ENCRYPTING]),
];

/// The implemented algorithms.
pub fn implemented() -> impl Iterator<Item = TpmsAlgProperty> {
    ALGORITHMS.iter().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vtpm_protocol::tpm::HASH_ALGS;

    #[test]
    fn algorithms_ascend_and_hashes_are_the_implemented_ones() {
        let algs: Vec<_> = implemented().collect();
        assert!(algs.is_sorted_by(|a, b| a.alg < b.alg));
        let hashes: Vec<TpmAlgId> = algs.iter().filter(|a| a.properties == HASH).map(|a| a.alg).collect();
        assert_eq!(hashes, HASH_ALGS);
    }
}
