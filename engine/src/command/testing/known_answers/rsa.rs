//! Known answers of RSA: from OpenSSL, with a key that it made for this. The random pads of encryptions and signatures are part of what is known, so
//! that what is tested with those is the way back; a fresh one has to come back, too.

use crate::crypto::constant::hex;
use crate::crypto::rsa::RsaPrivate;
use crate::crypto::{HashAlg, RandomSource, mgf1_xor};

/// The message of all.
const ABC: &[u8] = b"abc";
/// The hash of all schemes.
const ALG: HashAlg = HashAlg::Sha256;

fn with_key(test: impl FnOnce(RsaPrivate) -> bool) -> bool {
    RsaPrivate::from_parts(&RSA_N, 65537, &RSA_P).is_ok_and(test)
}

/// The numbers themselves.
pub fn rsa(_: &mut dyn RandomSource) -> bool {
    with_key(|key| {
        let plain = key.decrypt_raw(&RAW_ABC);
        key.public().encrypt_raw(ABC).is_ok_and(|c| c == RAW_ABC)
            && plain.is_ok_and(|p| p.strip_suffix(ABC).is_some_and(|zeros| zeros.iter().all(|b| *b == 0)))
    })
}

/// A known signature is made and verifies.
pub fn rsassa(_: &mut dyn RandomSource) -> bool {
    let digest = ALG.digest(&[ABC]);
    with_key(|key| {
        key.sign_rsassa(ALG, &digest).is_ok_and(|s| s == RSASSA_ABC)
            && key.public().verify_rsassa(ALG, &digest, &RSASSA_ABC)
            && !key.public().verify_rsassa(ALG, &ALG.digest(&[b"abd"]), &RSASSA_ABC)
    })
}

/// A known signature verifies, and a fresh one.
pub fn rsapss(rng: &mut dyn RandomSource) -> bool {
    let digest = ALG.digest(&[ABC]);
    with_key(|key| {
        key.public().verify_rsapss(ALG, &digest, &RSAPSS_ABC)
            && !key.public().verify_rsapss(ALG, &ALG.digest(&[b"abd"]), &RSAPSS_ABC)
            && key.sign_rsapss(ALG, &digest, rng).is_ok_and(|s| key.public().verify_rsapss(ALG, &digest, &s))
    })
}

/// A known ciphertext is decrypted, and a fresh one.
pub fn rsaes(rng: &mut dyn RandomSource) -> bool {
    with_key(|key| {
        key.decrypt_rsaes(&RSAES_ABC).is_ok_and(|m| m.as_slice() == ABC)
            && key
                .public()
                .encrypt_rsaes(ABC, rng)
                .and_then(|c| key.decrypt_rsaes(&c))
                .is_ok_and(|m| m.as_slice() == ABC)
    })
}

/// A known ciphertext is decrypted, and a fresh one, with their label only.
pub fn oaep(rng: &mut dyn RandomSource) -> bool {
    let label = b"TEST\0";
    with_key(|key| {
        key.decrypt_oaep(ALG, label, &OAEP_ABC).is_ok_and(|m| m.as_slice() == ABC)
            && key.decrypt_oaep(ALG, b"REST\0", &OAEP_ABC).is_err()
            && key
                .public()
                .encrypt_oaep(ALG, label, ABC, rng)
                .and_then(|c| key.decrypt_oaep(ALG, label, &c))
                .is_ok_and(|m| m.as_slice() == ABC)
    })
}

/// The mask of a known seed, more than one block of it.
pub fn mgf1(_: &mut dyn RandomSource) -> bool {
    let mut mask = [0; MGF1_ABC.len()];
    mgf1_xor(ALG, ABC, &mut mask);
    mask == MGF1_ABC
}

/// The modulus.
const RSA_N: [u8; 256] =
    hex(b"ce405c539616e8b62dc7734fbef754e40bc1641b72d68bc927d7cb0f1f6e6957839e43388c7371a735f26e8c1e9ff596\
      e5956a630a810ad6cff0834f540645368f4bab43fe42c431c3d4a32e2945c59cc7fb283e10243bb7a628837551211e36\
      dc5d0249fb2c2f4f13a829d03d001dce5e04cd7cadfad64051652d8bbf4b6ece37888df5260bc5a04971bb0a0f5ba8b0\
      1918a11b9627664cdb82c7bc953fa73b40b003ff32e42d4207524ad3095b0138d7299a360299ba0af3e26944d22fc649\
      64f3b4f2dbe92341ef595cdb92079be08f0f69287d33eac92290bc027ec5ed8d602161dcd85c6bd4555e60ff20e951f0\
      7ce59fa817d2030a51e2282c2248d031");
/// Its first prime.
const RSA_P: [u8; 128] =
    hex(b"ee7ba4af871a1ad3eef1a92950f24f0966f871b9f3cabae22aefe553050ec3d4a083351fecabdec604b2735cc6bac696\
      7689ff06c3d727ae867993444f8c479c15f173d4c69d6433c3f3f408983ba2989e3ba1fdb3e9bc05957ef28bbd68edce\
      34c6fc2b13edf3fe1c62134f4a4025c3706fbc4e37607d073bd39d75aef242b3");
/// "abc" as a number, to the power of the exponent, by an independent program.
const RAW_ABC: [u8; 256] =
    hex(b"c6d59276bc49736d7c52bc11b2d80b236599c6f58919534353d86f533bbed19463de4f14a0183a230c4c224794a9d4c0\
      6f56362d8b0772215b77be5b473cc6eb6d472a8cefe8df6c4ac608818d7e007e55d97f0a1251b143e38a8409b146e0e8\
      514d46496afcd7133c41b14df27508216359da47225f325953e0353c15e4ad4c64fb93608d829ae09e18f47e20f742ba\
      9c80a59cab8f5c6b5f0f07b0e097fcbd482ef0edebb12976ec9b3010d3119a4422512f0e72afa6c81f23f73143b2dd25\
      6fd637f4a30df5fccd44c93d096632783f55556c49247f355096289d367dc423c4b7d637b5b6411e759486a693952053\
      c1ed499047b5effd4923fa78c01788a3");
/// RSASSA with SHA-256 over "abc".
const RSASSA_ABC: [u8; 256] =
    hex(b"46c4e5856ebb6d7db706f6afe25de6965640aa8f8b5bd1590830edca7de60e4715b359e31b34caa5131f586d8ae0a1c8\
      a54c52a378bd48c8fc7a97d6f8a4c1ae21e29cfc21884402caf59b292fb825eee1227389c1ff61a738b0077172bda0fa\
      4da2a4ed58f5279ce7c2c9647d02543d93da6712b3f717218e8244e3c40597564a8cab0c06fd1f27566809b4792277bb\
      fcfd468b7717fbe56dd3d0a5fdabe23903d886256282e11ee5da3af10e02d24ed6a4e6fe2ce8244ff7ea8dd215d1dab6\
      7dfd1fe60e658cb4c333194f8153b20af5ea745a89bc917d65a331b65fee8b09e517fb20a3b15d08dbec67738b60be6b\
      8932b33eb0c7edc0cbe348da3984bc58");
/// RSASSA-PSS with SHA-256, MGF1 with it, and a salt of 32 bytes, over "abc".
const RSAPSS_ABC: [u8; 256] =
    hex(b"696893379d95203ffb624ed67b95b3b5c83be20924b6fc7a352cabdb354a85a610ddd4b055c81e3a9f887a73c62180fe\
      5a7fd9eb84beabac8450317710c3265779b0172bf1b834072d525bd833bba2a2a39c2000306db3ce5c20bf68edb0989c\
      4d6d5917bb156cf69b17a4157bb0805fcb7d81782b5ea75ad0d437187cb0aa7ae3edc1719d8075198ea0c3b2005af7eb\
      20e4ab601ce35d523c577a0fd3d072bae89c4976cb13f5c14f7e8f25bfbd0c55ed2d090f8f7829793012498fb10edeba\
      644588cab774a0e387cd0aa6b36e36c925d1c3689ec446c26c6c4b683437f0ad7861065f8d7734fa7a30dde8f5d09b25\
      9cb98e87fca83e9062e4319b51959f36");
/// RSAES-PKCS1-v1_5 of "abc".
const RSAES_ABC: [u8; 256] =
    hex(b"242988af50a34e787059720a0d7ea58713f5fefe2a31e77c1f1cf20e5fbc7fd0ba77c8d5bfed88bb7300b8ace86d0348\
      276e683550f8dedc84c520bb3ee77bb94d7adddb4bee74f5ea7b1b61b95533301abd399c4a758c51fb20276925b9dee8\
      e1181588c95ff57f3fa04ca8374bfbc9de9735326c496d807e08b197cdbeb3b451899dad41e8fc10d3dc9c534e34f00c\
      9747c70e69a8c7824ba22e43eae10eded0dc69993d50446a5afb2659eb003cbff83b7c939eb25e072028233ec0445eb1\
      6fb407126e497800a78b93206d2ce66dbf998d8c101a5baefdd2b5a6826cbc4686522d7a460d4d31bb97f65d42d1eab9\
      5205a42082d737afd22566116f8b30eb");
/// RSAES-OAEP of "abc" with SHA-256, MGF1 with it, and the label "TEST\0".
const OAEP_ABC: [u8; 256] =
    hex(b"8feed37a754f99d95cda8e25efcf47c3216a7ed22697dd5476f4183d5d01b1be76e417ab4490f59ca09853303b8d10f2\
      481275b3f93344ca3563d03a33a232571f05e6c76d1c6a2ba8beacd018e893aa8052bc01f677be4acf565e201f53bfd9\
      5efacdc30229cfd19f1d77080a9d43938dcaf6896a057c92edbe304c7180540c965178c1dae58164da435b74fe6cfc62\
      e54b84c2e385be39eb2f8458e197dadad93c809fb57f4323774b973c559ae285e531477b02e03a7b1ab02cfe15bc7ea3\
      a939ff6a2e2702439e79ff6f144d25286a798aa64d2eb1d5a86d1ab24507b4125d06cfc79d57433b57c340c07742fc6d\
      e603a9cb3b46a434fe8c847803e7f422");
/// MGF1 with SHA-256 of "abc", by an independent program.
const MGF1_ABC: [u8; 40] =
    hex(b"cf2db1ac9867debdf8ce91f99f141e5544bf26ca36b3fd4f8e4035eec42cab0d46c386ebccef82ba");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_is_of_its_scheme_only() {
        assert!(with_key(|key| {
            let digest = ALG.digest(&[ABC]);
            !key.public().verify_rsapss(ALG, &digest, &RSASSA_ABC)
                && !key.public().verify_rsassa(ALG, &digest, &RSAPSS_ABC)
                && key.decrypt_rsaes(&OAEP_ABC).is_err()
                && key.decrypt_oaep(ALG, b"TEST\0", &RSAES_ABC).is_err()
        }));
    }
}
