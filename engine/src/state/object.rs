//! Objects as they are held in memory and saved (Part 1, "Object Structure").

use crate::alg::{SymCipher, hash_alg};
use crate::crypto::HashAlg;
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
}

impl Encode for Object {
    fn encode(&self, out: &mut Vec<u8>) {
        let Self { public, sensitive, name, qualified_name, hierarchy, flags } = self;
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
        Ok(Self { public, sensitive, name, qualified_name, hierarchy, flags })
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
