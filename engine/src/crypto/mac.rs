//! Message authentication codes: HMAC (RFC 2104) and CMAC (SP 800-38B).
//!
//! What is computed in one go is the crate's, where it wipes the key. Here are those of sequences, a dozen lines each over hash and block
//! cipher: a sequence must survive the process, and the crates of that name do not let their state out.

use core::fmt;

use ::hmac::digest::Output;
use ::hmac::{EagerHash, Hmac, KeyInit, Mac as _};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use sm3::Sm3;
use zeroize::{Zeroize, Zeroizing};

use super::CryptoError;
use super::hash::{Digest, HashAlg, Hasher, MAX_BLOCK_SIZE};
use super::sym::{BlockCipher, MAX_BLOCK, SymAlg};

/// An HMAC being computed (RFC 2104). A clone of a fresh one saves hashing the key again.
#[derive(Clone)]
pub struct HmacHasher {
    inner: Hasher,
    outer: Hasher,
}

impl HmacHasher {
    /// Starts an HMAC under `key`, which may have any length, also none.
    pub fn new(alg: HashAlg, key: &[u8]) -> HmacHasher {
        let mut block = Zeroizing::new([0; MAX_BLOCK_SIZE]);
        let size = alg.block_size();
        if key.len() <= size {
            fill(&mut *block, key);
        } else {
            let digest = Zeroizing::new(<[u8; 64]>::from(alg.digest(&[key])));
            fill(&mut *block, &*digest);
        }
        let padded = block.get_mut(..size).unwrap_or_default();
        let mut under = |pad: u8| {
            padded.iter_mut().for_each(|byte| *byte ^= pad);
            let mut hasher = Hasher::new(alg);
            hasher.update(padded);
            hasher
        };
        // The second pad takes the first one off.
        HmacHasher { inner: under(IPAD), outer: under(IPAD ^ OPAD) }
    }

    /// The algorithm that it was started with.
    pub fn alg(&self) -> HashAlg {
        self.inner.alg()
    }

    /// Takes in more data.
    pub fn update(&mut self, data: &[u8]) {
        self.inner.update(data);
    }

    /// The HMAC of all that was taken in. Compare it with [`ct_eq`](super::ct_eq).
    pub fn finish(self) -> Digest {
        let mut outer = self.outer;
        outer.update(&self.inner.finish());
        outer.finish()
    }

    /// What [`Self::load`] goes on from: as secret as the key.
    pub fn save(&self) -> [Zeroizing<Vec<u8>>; 2] {
        [self.inner.save(), self.outer.save()]
    }

    /// Goes on from where [`Self::save`] was called on an HMAC of this algorithm; `None` for other bytes.
    pub fn load(alg: HashAlg, [inner, outer]: [&[u8]; 2]) -> Option<HmacHasher> {
        Some(HmacHasher { inner: Hasher::load(alg, inner)?, outer: Hasher::load(alg, outer)? })
    }
}

const IPAD: u8 = 0x36;
const OPAD: u8 = 0x5c;

/// Copies `from` to the front of `to`, as far as there is room.
fn fill(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}

impl fmt::Debug for HmacHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HmacHasher({:?})", self.alg())
    }
}

/// The HMAC of the parts, one after the other, under `key`. Compare it with [`ct_eq`](super::ct_eq).
pub fn hmac(alg: HashAlg, key: &[u8], parts: &[&[u8]]) -> Digest {
    match alg {
        HashAlg::Sha1 => by_crate::<Sha1, 20>(key, parts),
        HashAlg::Sha256 => by_crate::<Sha256, 32>(key, parts),
        HashAlg::Sha384 => by_crate::<Sha384, 48>(key, parts),
        HashAlg::Sha512 => by_crate::<Sha512, 64>(key, parts),
        HashAlg::Sm3 => by_crate::<Sm3, 32>(key, parts),
        // The one of the crate's HMACs that takes a sponge does not wipe the key.
        HashAlg::Sha3_256 | HashAlg::Sha3_384 | HashAlg::Sha3_512 => {
            let mut mac = HmacHasher::new(alg, key);
            parts.iter().for_each(|part| mac.update(part));
            mac.finish()
        }
    }
}

fn by_crate<D: EagerHash, const N: usize>(key: &[u8], parts: &[&[u8]]) -> Digest
where
    Hmac<D>: ::hmac::Mac + KeyInit,
    Output<Hmac<D>>: Into<[u8; N]>,
{
    // No length of a key is invalid.
    let Ok(mut mac) = <Hmac<D> as KeyInit>::new_from_slice(key) else { return Digest::default() };
    parts.iter().for_each(|part| mac.update(part));
    Digest::of_array::<N>(mac.finalize().into_bytes().into())
}

/// A CMAC being computed.
#[derive(Clone)]
pub struct Cmac {
    alg: SymAlg,
    key: Zeroizing<Vec<u8>>,
    /// The chaining value, with the bytes of the last block XORed in.
    chain: Zeroizing<[u8; MAX_BLOCK]>,
    /// How many bytes of the last block there are. A full block waits: it may be the last one, which is treated in another way.
    filled: usize,
}

impl Cmac {
    /// Starts a CMAC.
    ///
    /// # Errors
    /// [`CryptoError::KeySize`] for a key that the cipher does not take.
    pub fn new(alg: SymAlg, key: &[u8]) -> Result<Cmac, CryptoError> {
        BlockCipher::new(alg, key)?;
        Ok(Cmac { alg, key: Zeroizing::new(key.to_vec()), chain: Zeroizing::default(), filled: 0 })
    }

    /// The cipher.
    pub fn alg(&self) -> SymAlg {
        self.alg
    }

    /// Takes in more data.
    pub fn update(&mut self, data: &[u8]) {
        let Ok(cipher) = BlockCipher::new(self.alg, &self.key) else { return };
        let size = self.alg.block_size();
        for byte in data {
            if self.filled >= size {
                cipher.encrypt_block(&mut *self.chain);
                self.filled = 0;
            }
            if let Some(to) = self.chain.get_mut(self.filled) {
                *to ^= byte;
            }
            self.filled = self.filled.saturating_add(1);
        }
    }

    /// The CMAC of all that was taken in, a block long.
    pub fn finish(mut self) -> Digest {
        let size = self.alg.block_size();
        let Ok(cipher) = BlockCipher::new(self.alg, &self.key) else { return Digest::EMPTY };
        let mut subkey = Zeroizing::new([0; MAX_BLOCK]);
        cipher.encrypt_block(&mut *subkey);
        double(subkey.get_mut(..size).unwrap_or_default());
        if self.filled < size {
            double(subkey.get_mut(..size).unwrap_or_default());
            if let Some(byte) = self.chain.get_mut(self.filled) {
                *byte ^= 0x80;
            }
        }
        for (to, from) in self.chain.iter_mut().zip(subkey.iter()) {
            *to ^= from;
        }
        cipher.encrypt_block(&mut *self.chain);
        self.chain.get(..size).and_then(Digest::from_slice).unwrap_or_default()
    }

    /// What [`Self::load`] goes on from: the key, the chaining value, and how much of the last block is there.
    pub fn save(&self) -> (&[u8], &[u8; MAX_BLOCK], u8) {
        (&self.key, &self.chain, u8::try_from(self.filled).unwrap_or_default())
    }

    /// Goes on from where [`Self::save`] was called on a CMAC of this cipher; `None` for other values.
    pub fn load(alg: SymAlg, key: &[u8], chain: &[u8; MAX_BLOCK], filled: u8) -> Option<Cmac> {
        let filled = usize::from(filled);
        let fresh = Cmac::new(alg, key).ok()?;
        (filled <= alg.block_size()).then(|| Cmac { chain: Zeroizing::new(*chain), filled, ..fresh })
    }
}

impl fmt::Debug for Cmac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cmac({:?})", self.alg)
    }
}

/// An HMAC or a CMAC being computed.
#[derive(Clone, Debug)]
pub enum Mac {
    /// An HMAC.
    Hmac(Box<HmacHasher>),
    /// A CMAC.
    Cmac(Cmac),
}

impl Mac {
    /// Takes in more data.
    pub fn update(&mut self, data: &[u8]) {
        match self {
            Mac::Hmac(hmac) => hmac.update(data),
            Mac::Cmac(cmac) => cmac.update(data),
        }
    }

    /// The code of all that was taken in. Compare it with [`ct_eq`](super::ct_eq).
    pub fn finish(self) -> Digest {
        match self {
            Mac::Hmac(hmac) => hmac.finish(),
            Mac::Cmac(cmac) => cmac.finish(),
        }
    }
}

/// Doubles a block as an element of GF(2^n), in a time that does not depend on it.
fn double(block: &mut [u8]) {
    let reduction = if block.len() == 8 { 0x1b } else { 0x87 };
    let mut carry = 0;
    for byte in block.iter_mut().rev() {
        let next = *byte >> 7;
        *byte = (*byte << 1) | carry;
        carry = next;
    }
    if let Some(last) = block.last_mut() {
        *last ^= reduction & 0u8.wrapping_sub(carry);
    }
    carry.zeroize();
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::cmac::KeyInit;
    use proptest::prelude::*;

    /// RFC 2202, cases 1, 2, 6 and RFC 4231, cases 1, 2, 3, 6.
    #[test]
    fn hmacs_of_the_rfcs() {
        let long_text = b"Test Using Larger Than Block-Size Key - Hash Key First";
        let cases: [(HashAlg, &[u8], &[u8], &str); 13] = [
            (HashAlg::Sha1, &[0x0b; 20], b"Hi There", "b617318655057264e28bc0b6fb378c8ef146be00"),
            (
                HashAlg::Sha1,
                b"Jefe",
                b"what do ya want for nothing?",
                "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79",
            ),
            (HashAlg::Sha1, &[0xaa; 80], long_text, "aa4ae5e15272d00e95705637ce8a3b55ed402112"),
            (
                HashAlg::Sha256,
                &[0x0b; 20],
                b"Hi There",
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                HashAlg::Sha256,
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                HashAlg::Sha256,
                &[0xaa; 20],
                &[0xdd; 50],
                "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
            ),
            (
                HashAlg::Sha256,
                &[0xaa; 131],
                long_text,
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
            (
                HashAlg::Sha384,
                &[0x0b; 20],
                b"Hi There",
                "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59c\
                 faea9ea9076ede7f4af152e8b2fa9cb6",
            ),
            (
                HashAlg::Sha384,
                b"Jefe",
                b"what do ya want for nothing?",
                "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e\
                 8e2240ca5e69e2c78b3239ecfab21649",
            ),
            (
                HashAlg::Sha384,
                &[0xaa; 131],
                long_text,
                "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c6\
                 0c2ef6ab4030fe8296248df163f44952",
            ),
            (
                HashAlg::Sha512,
                &[0x0b; 20],
                b"Hi There",
                "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde\
                 daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
            ),
            (
                HashAlg::Sha512,
                b"Jefe",
                b"what do ya want for nothing?",
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554\
                 9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
            ),
            (
                HashAlg::Sha512,
                &[0xaa; 131],
                long_text,
                "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f352\
                 6b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598",
            ),
        ];
        for (alg, key, text, expected) in cases {
            assert_eq!(format!("{:?}", hmac(alg, key, &[text])), expected, "{alg:?}");
            let (head, tail) = text.split_at(text.len() / 2);
            assert_eq!(format!("{:?}", hmac(alg, key, &[head, &[], tail])), expected, "{alg:?} in parts");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// The HMACs of sequences are those of the crate, wherever they are interrupted.
        #[test]
        fn hmacs_of_sequences_are_those_of_the_crate(
            key in proptest::collection::vec(any::<u8>(), 0..300),
            data in proptest::collection::vec(any::<u8>(), 0..600),
            cut in any::<proptest::sample::Index>(),
        ) {
            for &alg in HashAlg::ALL {
                let (head, tail) = data.split_at(cut.index(data.len() + 1));
                let mut mac = HmacHasher::new(alg, &key);
                mac.update(head);
                let [inner, outer] = mac.save();
                let mut mac = HmacHasher::load(alg, [&inner, &outer]).unwrap();
                mac.update(tail);
                prop_assert!(mac.finish() == hmac(alg, &key, &[head, tail]), "{alg:?}");
            }
        }
    }

    /// NIST's examples of HMAC with SHA-3: keys shorter than the block, of its length, and longer.
    #[test]
    fn hmacs_with_sha_3() {
        let key: Vec<u8> = (0..=255).collect();
        for (alg, len, text, expected) in [
            (
                HashAlg::Sha3_256,
                32,
                "Sample message for keylen<blocklen",
                "4fe8e202c4f058e8dddc23d8c34e467343e23555e24fc2f025d598f558f67205",
            ),
            (
                HashAlg::Sha3_256,
                136,
                "Sample message for keylen=blocklen",
                "68b94e2e538a9be4103bebb5aa016d47961d4d1aa906061313b557f8af2c3faa",
            ),
            (
                HashAlg::Sha3_256,
                168,
                "Sample message for keylen>blocklen",
                "9bcf2c238e235c3ce88404e813bd2f3a97185ac6f238c63d6229a00b07974258",
            ),
        ] {
            assert_eq!(
                format!("{:?}", hmac(alg, &key[..len], &[text.as_bytes()])),
                expected,
                "{alg:?} {len}"
            );
        }
    }

    #[test]
    fn a_saved_hmac_goes_on_where_it_was() {
        for &alg in HashAlg::ALL {
            let mut mac = HmacHasher::new(alg, b"key");
            mac.update(&[1; 77]);
            let [inner, outer] = mac.save();
            let mut loaded = HmacHasher::load(alg, [&inner, &outer]).unwrap();
            loaded.update(&[2; 99]);
            assert_eq!(loaded.finish(), hmac(alg, b"key", &[&[1; 77], &[2; 99]]));
            assert!(HmacHasher::load(alg, [&inner, &[]]).is_none());
        }
    }

    /// SP 800-38B, appendix D, and RFC 4493.
    #[test]
    fn cmacs_of_sp_800_38b() {
        let text = hex::decode(
            "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51\
             30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710",
        )
        .unwrap();
        let (aes_128, aes_192, aes_256) = (
            "2b7e151628aed2a6abf7158809cf4f3c",
            "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
            "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
        );
        let (tdes_3, tdes_2) = (
            "8aa83bf8cbda10620bc1bf19fbb6cd58bc313d4a371ca8b5",
            "4cf15134a2850dd58a3d10ba80570d384cf15134a2850dd5",
        );
        for (alg, key, len, expected) in [
            (SymAlg::Aes, aes_128, 0, "bb1d6929e95937287fa37d129b756746"),
            (SymAlg::Aes, aes_128, 16, "070a16b46b4d4144f79bdd9dd04a287c"),
            (SymAlg::Aes, aes_128, 40, "dfa66747de9ae63030ca32611497c827"),
            (SymAlg::Aes, aes_128, 64, "51f0bebf7e3b9d92fc49741779363cfe"),
            (SymAlg::Aes, aes_192, 0, "d17ddf46adaacde531cac483de7a9367"),
            (SymAlg::Aes, aes_192, 40, "8a1de5be2eb31aad089a82e6ee908b0e"),
            (SymAlg::Aes, aes_256, 0, "028962f61b7bf89efc6b551f4667d983"),
            (SymAlg::Aes, aes_256, 64, "e1992190549f6ed5696a2c056c315410"),
            (SymAlg::Tdes, tdes_3, 0, "b7a688e122ffaf95"),
            (SymAlg::Tdes, tdes_3, 8, "8e8f293136283797"),
            (SymAlg::Tdes, tdes_3, 20, "743ddbe0ce2dc2ed"),
            (SymAlg::Tdes, tdes_3, 32, "33e6b1092400eae5"),
            (SymAlg::Tdes, &tdes_2[..32], 0, "bd2ebf9a3ba00361"),
            (SymAlg::Tdes, &tdes_2[..32], 8, "4ff2ab813c53ce83"),
            (SymAlg::Tdes, &tdes_2[..32], 20, "62dd1b471902bd4e"),
            (SymAlg::Tdes, &tdes_2[..32], 32, "31b1e431dabc4eb8"),
        ] {
            for step in [1, 7, 8, 16, 64] {
                let mut mac = Cmac::new(alg, &hex::decode(key).unwrap()).unwrap();
                for part in text[..len].chunks(step) {
                    mac.update(part);
                }
                assert_eq!(
                    format!("{:?}", mac.finish()),
                    expected,
                    "{alg:?}, {len} bytes in steps of {step}"
                );
            }
        }
    }

    #[test]
    fn a_saved_cmac_goes_on_where_it_was() {
        for (alg, key) in
            [(SymAlg::Aes, &[1; 16][..]), (SymAlg::Camellia, &[2; 32]), (SymAlg::Tdes, &[3; 24])]
        {
            for at in [0, 5, 8, 16, 17, 40] {
                let mut mac = Cmac::new(alg, key).unwrap();
                mac.update(&[9; 40][..at]);
                let (key, chain, filled) = mac.save();
                let mut loaded = Cmac::load(alg, key, chain, filled).unwrap();
                loaded.update(&[9; 40][at..]);
                let mut whole = Cmac::new(alg, key).unwrap();
                whole.update(&[9; 40]);
                assert_eq!(loaded.finish(), whole.finish());
            }
        }
        assert!(Cmac::load(SymAlg::Tdes, &[1; 16], &[0; 16], 9).is_none());
        assert!(Cmac::load(SymAlg::Aes, &[1; 15], &[0; 16], 0).is_none());
    }

    proptest! {
        /// There are no published CMACs of Camellia; the crate's is another hand's.
        #[test]
        fn cmacs_of_camellia_are_those_of_the_crate(
            key in any::<[u8; 32]>(),
            text in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            for size in [16, 24, 32] {
                let mut mine = Cmac::new(SymAlg::Camellia, &key[..size]).unwrap();
                mine.update(&text);
                let theirs = match size {
                    16 => crate_cmac::<camellia::Camellia128>(&key[..size], &text),
                    24 => crate_cmac::<camellia::Camellia192>(&key[..size], &text),
                    _ => crate_cmac::<camellia::Camellia256>(&key[..size], &text),
                };
                prop_assert_eq!(mine.finish().to_vec(), theirs);
            }
        }
    }

    fn crate_cmac<C>(key: &[u8], text: &[u8]) -> Vec<u8>
    where
        C: ::cmac::block_api::CmacCipher,
        ::cmac::Cmac<C>: ::cmac::Mac + KeyInit,
    {
        let mut mac = <::cmac::Cmac<C> as KeyInit>::new_from_slice(key).unwrap();
        ::cmac::Mac::update(&mut mac, text);
        mac.finalize().into_bytes().to_vec()
    }
}
