//! Sequence objects (Part 1, "Sequence Objects"; Part 3, chapter 17): a hash, a message authentication code, or the digests of an event,
//! computed over several commands.
//!
//! A sequence takes a slot of the transient objects. What is kept of it is the state of its computation, never the data. To commands that
//! are not about sequences it is an object without a Name, in the null hierarchy, that can do nothing: see [`Sequence::object`].

use super::{Computed, Object, ObjectFlags};
use crate::alg::{SymCipher, hash_alg, hash_id};
use crate::crypto::mac::Mac;
use crate::crypto::sym::MAX_BLOCK;
use crate::crypto::{Cmac, Hasher, HmacHasher};
use std::sync::Arc;
use vtpm_protocol::codec::{Decode, Encode, Reader, encode_sized};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    PCR_BANK_ALGS, PublicId, PublicParms, Secret2b, SensitiveComposite, Tpm2bAuth, Tpm2bDigest, Tpm2bName,
    TpmAlgId, TpmHandle, TpmaObject, TpmtPublic, TpmtSensitive, TpmtSymDef, TpmtSymDefObject,
};

/// The most bytes that a saved state of a hash has.
const MAX_STATE: usize = 256;

/// A sequence object.
#[derive(Clone)]
pub struct Sequence {
    object: Arc<Object>,
    /// What it computes.
    pub running: Running,
}

/// What a sequence computes.
#[derive(Clone)]
pub enum Running {
    /// A hash, for which a ticket is made in the end.
    Hash {
        /// So far.
        hasher: Hasher,
        /// Whether the first block cannot be that of a structure of the TPM; `None` as long as there is none.
        safe: Option<bool>,
    },
    /// An HMAC or CMAC.
    Mac(Mac),
    /// The digests of an event, one for each PCR bank that there can be, in the order of `PCR_BANK_ALGS`.
    Event(Vec<Hasher>),
}

impl Running {
    /// An event.
    #[must_use]
    pub fn event() -> Self {
        Self::Event(PCR_BANK_ALGS.iter().filter_map(|&id| hash_alg(id)).map(Hasher::new).collect())
    }
}

impl Sequence {
    /// A sequence with the authorization value that the caller gave it.
    #[must_use]
    pub fn new(auth: &Tpm2bAuth, running: Running) -> Self {
        Self { object: Arc::new(shown(auth.without_trailing_zeros())), running }
    }

    /// What commands for objects see of it: no type of key, no Name, no attribute but that its authorization value may be used and is not
    /// protected against dictionary attacks.
    #[must_use]
    pub fn object(&self) -> &Arc<Object> {
        &self.object
    }
}

fn shown(auth_value: Tpm2bAuth) -> Object {
    Object {
        public: TpmtPublic {
            name_alg: TpmAlgId::NULL,
            attributes: TpmaObject::USER_WITH_AUTH | TpmaObject::NO_DA,
            auth_policy: Tpm2bDigest::empty(),
            // No real object has this type: a symmetric cipher that is none.
            parms: PublicParms::SymCipher { sym: TpmtSymDefObject(TpmtSymDef::Null) },
            unique: PublicId::Digest(Tpm2bDigest::empty()),
        },
        sensitive: Some(TpmtSensitive {
            auth_value,
            seed_value: Tpm2bAuth::empty(),
            sensitive: SensitiveComposite::Sym(Secret2b::empty()),
        }),
        name: Tpm2bName::empty(),
        qualified_name: Tpm2bName::empty(),
        hierarchy: TpmHandle::NULL,
        flags: ObjectFlags::default(),
        computed: Computed::default(),
    }
}

impl Encode for Sequence {
    fn encode(&self, out: &mut Vec<u8>) {
        let Self { object, running } = self;
        match &object.sensitive {
            Some(sensitive) => sensitive.auth_value.encode(out),
            None => Tpm2bAuth::empty().encode(out),
        }
        match running {
            Running::Hash { hasher, safe } => {
                (0u8, safe.is_some(), safe.unwrap_or_default()).encode(out);
                encode_hasher(hasher, out);
            }
            Running::Mac(Mac::Hmac(hmac)) => {
                let [inner, outer] = hmac.save();
                (1u8, hash_id(hmac.alg())).encode(out);
                encode_sized(&inner, out);
                encode_sized(&outer, out);
            }
            Running::Mac(Mac::Cmac(cmac)) => {
                let (key, chain, filled) = cmac.save();
                (2u8, crate::alg::sym_id(cmac.alg())).encode(out);
                encode_sized(key, out);
                (chain, filled).encode(out);
            }
            Running::Event(hashers) => {
                (3u8, u8::try_from(hashers.len()).unwrap_or_default()).encode(out);
                hashers.iter().for_each(|hasher| encode_hasher(hasher, out));
            }
        }
    }
}

fn encode_hasher(hasher: &Hasher, out: &mut Vec<u8>) {
    hash_id(hasher.alg()).encode(out);
    encode_sized(&hasher.save(), out);
}

fn decode_hasher(r: &mut Reader<'_>) -> Result<Hasher, ResponseCode> {
    let alg = hash_alg(TpmAlgId::decode(r)?).ok_or(ResponseCode::HASH)?;
    Hasher::load(alg, r.sized(MAX_STATE)?).ok_or(ResponseCode::VALUE)
}

impl Decode for Sequence {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let (auth, kind): (Tpm2bAuth, u8) = Decode::decode(r)?;
        let running = match kind {
            0 => {
                let (begun, safe): (bool, bool) = Decode::decode(r)?;
                Running::Hash { hasher: decode_hasher(r)?, safe: begun.then_some(safe) }
            }
            1 => {
                let alg = hash_alg(TpmAlgId::decode(r)?).ok_or(ResponseCode::HASH)?;
                let states = [r.sized(MAX_STATE)?, r.sized(MAX_STATE)?];
                Running::Mac(Mac::Hmac(Box::new(HmacHasher::load(alg, states).ok_or(ResponseCode::VALUE)?)))
            }
            2 => {
                let alg = SymCipher::alg_of(TpmAlgId::decode(r)?).ok_or(ResponseCode::SYMMETRIC)?;
                let key = r.sized(32)?;
                let (chain, filled): ([u8; MAX_BLOCK], u8) = Decode::decode(r)?;
                Running::Mac(Mac::Cmac(Cmac::load(alg, key, &chain, filled).ok_or(ResponseCode::VALUE)?))
            }
            3 => {
                let count = u8::decode(r)?;
                let hashers = (0..count).map(|_| decode_hasher(r)).collect::<Result<Vec<_>, _>>()?;
                if !hashers.iter().map(|h| hash_id(h.alg())).eq(PCR_BANK_ALGS) {
                    return Err(ResponseCode::HASH);
                }
                Running::Event(hashers)
            }
            _ => return Err(ResponseCode::VALUE),
        };
        Ok(Self::new(&auth, running))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{HashAlg, SymAlg};
    use vtpm_protocol::codec::decode_exact;

    fn all() -> Vec<Sequence> {
        let mut hasher = Hasher::new(HashAlg::Sha3_384);
        hasher.update(b"data");
        let mut cmac = Cmac::new(SymAlg::Camellia, &[7; 24]).unwrap();
        cmac.update(b"some data that is longer than a block");
        let auth = Tpm2bAuth::new(*b"auth").unwrap();
        [
            Running::Hash { hasher: hasher.clone(), safe: Some(true) },
            Running::Hash { hasher, safe: None },
            Running::Mac(Mac::Hmac(Box::new(HmacHasher::new(HashAlg::Sm3, b"key")))),
            Running::Mac(Mac::Cmac(cmac)),
            Running::event(),
        ]
        .map(|running| Sequence::new(&auth, running))
        .to_vec()
    }

    #[test]
    fn a_sequence_survives_its_bytes() {
        for sequence in all() {
            let bytes = sequence.to_bytes();
            let read: Sequence = decode_exact(&bytes).unwrap();
            assert_eq!(read.to_bytes(), bytes);
            assert_eq!(read.object.sensitive.as_ref().unwrap().auth_value.expose(), b"auth");
            for i in 0..bytes.len() {
                assert!(decode_exact::<Sequence>(&bytes[..i]).is_err());
            }
        }
    }

    #[test]
    fn damaged_bytes_are_refused_or_make_a_sequence_that_ends() {
        for sequence in all() {
            let bytes = sequence.to_bytes();
            for i in 0..bytes.len() {
                for change in [1, 0x80, 0xff] {
                    let mut bad = bytes.clone();
                    bad[i] ^= change;
                    match decode_exact::<Sequence>(&bad).map(|s| s.running) {
                        Ok(Running::Hash { mut hasher, .. }) => {
                            hasher.update(&[1; 200]);
                            let _ = hasher.finish();
                        }
                        Ok(Running::Mac(mut mac)) => {
                            mac.update(&[1; 200]);
                            let _ = mac.finish();
                        }
                        Ok(Running::Event(hashers)) => assert_eq!(hashers.len(), PCR_BANK_ALGS.len()),
                        Err(_) => {}
                    }
                }
            }
        }
    }
}
