//! Objects as they are held in memory and saved (Part 1, "Object Structure").

use crate::alg::{SymCipher, hash_alg};
use crate::crypto::rsa::{RsaPrivate, RsaPublic};
use crate::crypto::{CryptoError, HashAlg};
use std::sync::{Arc, OnceLock};
use vtpm_protocol::codec::{Decode, Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    PublicParms, Sized2b, Tpm2bName, Tpm2bSensitive, TpmHandle, TpmaObject, TpmtPublic, TpmtSensitive,
};

/// What the TPM remembers of an object beside its areas.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ObjectFlags {
    /// Only the public area is known.
    pub public_only: bool,
    /// Loaded by `TPM2_LoadExternal`.
    pub external: bool,
    /// A primary object.
    pub primary: bool,
    /// It or an ancestor has stClear set.
    pub st_clear: bool,
}

impl Encode for ObjectFlags {
    fn encode(&self, out: &mut Vec<u8>) {
        let Self { public_only, external, primary, st_clear } = *self;
        (public_only, external, primary, st_clear).encode(out);
    }
}

impl Decode for ObjectFlags {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let (public_only, external, primary, st_clear) = Decode::decode(r)?;
        Ok(Self { public_only, external, primary, st_clear })
    }
}

/// A loaded object, transient or persistent.
#[derive(Clone)]
pub struct Object {
    /// The public area.
    pub public: TpmtPublic,
    /// The sensitive area; `None` when only the public area is known.
    pub sensitive: Option<TpmtSensitive>,
    /// The Name; empty when the name algorithm is null.
    pub name: Tpm2bName,
    /// The Qualified Name.
    pub qualified_name: Tpm2bName,
    /// The hierarchy: owner, endorsement, platform or null.
    pub hierarchy: TpmHandle,
    /// The rest.
    pub flags: ObjectFlags,
    /// What was computed of the rest.
    pub computed: Computed,
}

/// What it takes long to compute of an object's areas, kept while the object is loaded and not longer: it is wiped with the last copy of
/// the object, and never saved.
#[derive(Clone, Default)]
pub struct Computed {
    rsa_public: Arc<OnceLock<Arc<RsaPublic>>>,
    rsa_private: Arc<OnceLock<Arc<RsaPrivate>>>,
}

impl Computed {
    /// What [`RsaPublic::new`] makes of these.
    ///
    /// # Errors
    /// Those of [`RsaPublic::new`].
    pub fn rsa_public(&self, n: &[u8], e: u32) -> Result<Arc<RsaPublic>, CryptoError> {
        kept(&self.rsa_public, |key| key.is_of(n, e), || RsaPublic::new(n, e))
    }

    /// What [`RsaPrivate::from_parts`] makes of these.
    ///
    /// # Errors
    /// Those of [`RsaPrivate::from_parts`].
    pub fn rsa_private(&self, n: &[u8], e: u32, p: &[u8]) -> Result<Arc<RsaPrivate>, CryptoError> {
        kept(&self.rsa_private, |key| key.is_of_parts(n, e, p), || RsaPrivate::from_parts(n, e, p))
    }

    /// The private key that is kept.
    #[cfg(test)]
    pub fn kept(&self) -> Option<&Arc<RsaPrivate>> {
        self.rsa_private.get()
    }
}

/// What `place` keeps, if it is `right`: an object that was copied and then changed has what was computed of the first one. Otherwise
/// what `make` makes.
fn kept<T>(
    place: &OnceLock<Arc<T>>,
    right: impl Fn(&T) -> bool,
    make: impl FnOnce() -> Result<T, CryptoError>,
) -> Result<Arc<T>, CryptoError> {
    if let Some(value) = place.get().filter(|value| right(value)) {
        return Ok(Arc::clone(value));
    }
    let value = Arc::new(make()?);
    // Where another thread was quicker, it kept the same.
    let _ = place.set(Arc::clone(&value));
    Ok(value)
}

impl Encode for Object {
    fn encode(&self, out: &mut Vec<u8>) {
        let Self { public, sensitive, name, qualified_name, hierarchy, flags, computed: _ } = self;
        Sized2b(public.clone()).encode(out);
        Tpm2bSensitive(sensitive.clone()).encode(out);
        (name, qualified_name, hierarchy, flags).encode(out);
    }
}

impl Decode for Object {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let Sized2b(public) = Decode::decode(r)?;
        let Tpm2bSensitive(sensitive) = Decode::decode(r)?;
        let (name, qualified_name, hierarchy, flags) = Decode::decode(r)?;
        Ok(Self { public, sensitive, name, qualified_name, hierarchy, flags, computed: Computed::default() })
    }
}

impl Object {
    /// The hash of the Name; `None` for `TPM_ALG_NULL`.
    #[must_use]
    pub fn name_alg(&self) -> Option<HashAlg> {
        hash_alg(self.public.name_alg)
    }

    /// Whether all of the given attributes are set.
    #[must_use]
    pub fn has(&self, attributes: TpmaObject) -> bool {
        self.public.attributes.has(attributes)
    }

    /// Whether it can have children: restricted, decrypt, and with both areas loaded.
    #[must_use]
    pub fn is_parent(&self) -> bool {
        self.is_storage_key() && self.sensitive.is_some()
    }

    /// Whether objects can be derived from it: a keyed hash that is restricted and decrypts, with both areas loaded.
    #[must_use]
    pub fn is_derivation_parent(&self) -> bool {
        matches!(self.public.parms, PublicParms::KeyedHash { .. })
            && self.has(TpmaObject::RESTRICTED | TpmaObject::DECRYPT)
            && self.sensitive.is_some()
            && self.name_alg().is_some()
    }

    /// Restricted and decrypt, with a symmetric cipher for children.
    #[must_use]
    pub fn is_storage_key(&self) -> bool {
        self.has(TpmaObject::RESTRICTED | TpmaObject::DECRYPT)
            && !self.has(TpmaObject::SIGN_ENCRYPT)
            && self.child_cipher().is_some()
    }

    /// The symmetric cipher with which a storage key protects its children, always in CFB mode.
    #[must_use]
    pub fn child_cipher(&self) -> Option<SymCipher> {
        let sym = match &self.public.parms {
            PublicParms::Rsa { symmetric, .. } | PublicParms::Ecc { symmetric, .. } => symmetric.0,
            PublicParms::SymCipher { sym } => sym.0,
            PublicParms::KeyedHash { .. } => return None,
        };
        SymCipher::of(sym)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execute::is_transient_handle;
    use crate::secret::rsa_private;
    use crate::signing::test_keys::{AUTH, load, rsa};
    use crate::testing::TestTpm;
    use crate::testing::objects::flush;
    use vtpm_protocol::tpm::{Scheme, Tpm2bDigest, TpmAlgId, TpmCc, TpmSt, TpmtTk};

    const SCHEME: Scheme = Scheme::new(TpmAlgId::RSASSA, TpmAlgId::SHA256);

    fn sign(tpm: &mut TestTpm, key: TpmHandle) -> Vec<u8> {
        let ticket =
            TpmtTk { tag: TpmSt::HASHCHECK, hierarchy: TpmHandle::NULL, digest: Tpm2bDigest::empty() };
        let input = (Tpm2bDigest::new([7; 32]).unwrap(), TpmAlgId::NULL, ticket);
        tpm.run_with(TpmCc::SIGN, &[key], &[AUTH], &input).unwrap().1
    }

    #[test]
    fn an_rsa_key_is_computed_once_while_it_is_loaded_and_dropped_when_it_is_flushed() {
        let mut tpm = TestTpm::started();
        let key = load(&mut tpm, rsa(SCHEME));
        assert!(is_transient_handle(key));
        let kept = |tpm: &mut TestTpm| tpm.state().object(key).unwrap().computed.kept().map(Arc::downgrade);
        assert!(kept(&mut tpm).is_none());
        let first = sign(&mut tpm, key);
        let computed = kept(&mut tpm).unwrap();
        // Commands that change the state, and others that fail, leave it where it is.
        assert_eq!(sign(&mut tpm, key), first);
        let refused = tpm.run_with(TpmCc::SIGN, &[key], &[b"wrong"], &()).unwrap_err();
        assert_eq!(refused, ResponseCode::AUTH_FAIL.session(1));
        assert!(computed.ptr_eq(&kept(&mut tpm).unwrap()));
        // It is not saved; what is loaded from the records signs as before.
        let records = tpm.state().records();
        let restored =
            crate::state::State::from_records(records.iter().map(|(k, v)| (*k, v.as_slice()))).unwrap();
        let object = restored.object(key).unwrap();
        assert!(object.computed.kept().is_none());
        let again = rsa_private(object).unwrap().sign_rsassa(HashAlg::Sha256, &[7; 32]).unwrap();
        assert!(first.ends_with(&again));
        flush(&mut tpm, key);
        assert!(computed.upgrade().is_none());
    }

    #[test]
    fn a_copy_with_other_areas_has_another_key() {
        let object = rsa(SCHEME);
        let first = rsa_private(&object).unwrap();
        let mut other = object.clone();
        assert!(Arc::ptr_eq(&first, &rsa_private(&other).unwrap()));
        if let PublicParms::Rsa { exponent, .. } = &mut other.public.parms {
            *exponent = 65539;
        }
        let second = rsa_private(&other).unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        let digest = [7; 32];
        let signature = second.sign_rsassa(HashAlg::Sha256, &digest).unwrap();
        assert!(crate::secret::rsa_public(&other.public).unwrap().verify_rsassa(
            HashAlg::Sha256,
            &digest,
            &signature
        ));
        assert!(Arc::ptr_eq(&first, &rsa_private(&object).unwrap()));
    }
}
