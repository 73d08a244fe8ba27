//! Entities: whatever a handle can name (Part 1, "Entities"): their presence, Names, authorization values and policies.

use crate::alg::{hash_alg, hash_of};
use crate::execute::is_act_handle;
use crate::pcr::has_authorization;
use crate::state::{Derivation, NvIndex, Object, Policy, Sequence, Session, State};
use std::sync::Arc;
use vtpm_protocol::codec::Encode;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    Secret2b, Tpm2bAuth, Tpm2bName, TpmCc, TpmHandle, TpmHt, TpmaNv, TpmaObject, TpmsNvPublic, TpmtPublic,
};

/// The first persistent handle of the platform; those below belong to owner and endorsement.
pub const PLATFORM_PERSISTENT: u32 = 0x8180_0000;

impl State {
    /// Whether a hierarchy may be used now.
    #[must_use]
    pub fn hierarchy_enabled(&self, hierarchy: TpmHandle) -> bool {
        match hierarchy {
            TpmHandle::OWNER => self.volatile.state_clear.sh_enable,
            TpmHandle::ENDORSEMENT => self.volatile.state_clear.eh_enable,
            TpmHandle::PLATFORM => self.volatile.ph_enable,
            _ => true,
        }
    }

    /// The proof of a hierarchy; that of the null hierarchy for any other handle.
    #[must_use]
    pub fn proof(&self, hierarchy: TpmHandle) -> &Secret2b<64> {
        match hierarchy {
            TpmHandle::OWNER => &self.permanent.owner.proof,
            TpmHandle::ENDORSEMENT => &self.permanent.endorsement.proof,
            TpmHandle::PLATFORM => &self.permanent.platform.proof,
            _ => &self.volatile.state_reset.null_proof,
        }
    }

    /// The primary seed of a hierarchy; that of the null hierarchy for any other handle.
    #[must_use]
    pub fn seed(&self, hierarchy: TpmHandle) -> &Secret2b<64> {
        match hierarchy {
            TpmHandle::OWNER => &self.permanent.owner.seed,
            TpmHandle::ENDORSEMENT => &self.permanent.endorsement.seed,
            TpmHandle::PLATFORM => &self.permanent.platform.seed,
            _ => &self.volatile.state_reset.null_seed,
        }
    }

    /// How the primary seed of a hierarchy is used.
    #[must_use]
    pub fn derivation(&self, hierarchy: TpmHandle) -> Derivation {
        match hierarchy {
            TpmHandle::OWNER => self.permanent.owner.derivation,
            TpmHandle::ENDORSEMENT => self.permanent.endorsement.derivation,
            TpmHandle::PLATFORM => self.permanent.platform.derivation,
            // The seed of the null hierarchy is of this boot.
            _ => Derivation::Own,
        }
    }

    /// A loaded object, transient or persistent. Of a sequence it is [`Sequence::object`].
    ///
    /// # Errors
    /// `TPM_RC_HANDLE` when there is none.
    pub fn object(&self, handle: TpmHandle) -> Result<&Arc<Object>, ResponseCode> {
        let object = match handle.handle_type() {
            TpmHt::PERSISTENT => self.persistent.get(&handle.0),
            _ => self.transient.get(&handle.0).or_else(|| self.sequence(handle).map(Sequence::object)),
        };
        object.ok_or(ResponseCode::HANDLE)
    }

    /// A loaded session of either type.
    ///
    /// # Errors
    /// `TPM_RC_HANDLE` when there is none.
    pub fn session(&self, handle: TpmHandle) -> Result<&Arc<Session>, ResponseCode> {
        self.sessions.get(&handle.index()).ok_or(ResponseCode::HANDLE)
    }

    /// As [`Self::session`], for changing.
    ///
    /// # Errors
    /// `TPM_RC_HANDLE` when there is none.
    pub fn session_mut(&mut self, handle: TpmHandle) -> Result<&mut Session, ResponseCode> {
        self.sessions.get_mut(&handle.index()).map(Arc::make_mut).ok_or(ResponseCode::HANDLE)
    }

    /// An NV index.
    ///
    /// # Errors
    /// `TPM_RC_HANDLE` when it is not defined.
    pub fn nv_index(&self, handle: TpmHandle) -> Result<&Arc<NvIndex>, ResponseCode> {
        self.nv.get(&handle.0).ok_or(ResponseCode::HANDLE)
    }

    /// As [`Self::nv_index`], for changing.
    ///
    /// # Errors
    /// `TPM_RC_HANDLE` when it is not defined.
    pub fn nv_index_mut(&mut self, handle: TpmHandle) -> Result<&mut NvIndex, ResponseCode> {
        self.nv.get_mut(&handle.0).map(Arc::make_mut).ok_or(ResponseCode::HANDLE)
    }

    /// Whether what handle number `n` (from 1) of `command` names is there and accessible.
    ///
    /// # Errors
    /// `TPM_RC_HIERARCHY` for a disabled hierarchy, `TPM_RC_VALUE` for a countdown timer that there is not, `TPM_RC_HANDLE` for a persistent object or an NV index that is not there, and for a session
    /// of the other type, `TPM_RC_REFERENCE_Hx` for a transient object or a session that is not loaded.
    pub fn check_present(&self, command: TpmCc, handle: TpmHandle, n: u32) -> Result<(), ResponseCode> {
        let reference =
            ResponseCode::from_value(ResponseCode::REFERENCE_H0.value().saturating_add(n.saturating_sub(1)));
        match handle.handle_type() {
            TpmHt::PERMANENT if !self.hierarchy_enabled(handle) => Err(ResponseCode::HIERARCHY.handle(n)),
            TpmHt::PERMANENT if is_act_handle(handle) && handle != TpmHandle::ACT_0 => {
                Err(ResponseCode::VALUE.handle(n))
            }
            TpmHt::TRANSIENT => self.object(handle).map(|_| ()).map_err(|_| reference),
            TpmHt::PERSISTENT => match self.persistent.get(&handle.0) {
                Some(object) if self.persistent_accessible(command, handle, object) => Ok(()),
                _ => Err(ResponseCode::HANDLE.handle(n)),
            },
            TpmHt::NV_INDEX => match self.nv.get(&handle.0) {
                Some(index) if self.nv_accessible(&index.public) => Ok(()),
                _ => Err(ResponseCode::HANDLE.handle(n)),
            },
            TpmHt::HMAC_SESSION | TpmHt::POLICY_SESSION => match self.session(handle) {
                Ok(s) if s.is_policy() == (handle.handle_type() == TpmHt::POLICY_SESSION) => Ok(()),
                Ok(_) => Err(ResponseCode::HANDLE.handle(n)),
                Err(_) => Err(reference),
            },
            _ => Ok(()),
        }
    }

    /// A persistent object is there while the hierarchy is enabled to whose range its handle belongs, and its own. The owner may also remove
    /// objects of a disabled endorsement hierarchy.
    fn persistent_accessible(&self, command: TpmCc, handle: TpmHandle, object: &Object) -> bool {
        let range = if handle.0 >= PLATFORM_PERSISTENT { TpmHandle::PLATFORM } else { TpmHandle::OWNER };
        let own = self.hierarchy_enabled(object.hierarchy)
            || (object.hierarchy == TpmHandle::ENDORSEMENT && command == TpmCc::EVICT_CONTROL);
        self.hierarchy_enabled(range) && own
    }

    /// Whether the hierarchy to which an NV index belongs is enabled.
    #[must_use]
    pub fn nv_accessible(&self, public: &TpmsNvPublic) -> bool {
        if public.attributes.has(TpmaNv::PLATFORM_CREATE) {
            self.volatile.state_clear.ph_enable_nv
        } else {
            self.volatile.state_clear.sh_enable
        }
    }

    /// The authorization value of an entity.
    ///
    /// # Errors
    /// `TPM_RC_HANDLE` when the entity is gone.
    pub fn auth_value(&self, handle: TpmHandle) -> Result<Tpm2bAuth, ResponseCode> {
        Ok(match (handle, handle.handle_type()) {
            (TpmHandle::OWNER, _) => self.permanent.owner.auth.clone(),
            (TpmHandle::ENDORSEMENT, _) => self.permanent.endorsement.auth.clone(),
            // Part 1, "Authenticated Countdown Timer": that of the platform.
            (TpmHandle::PLATFORM | TpmHandle::ACT_0, _) => self.volatile.state_clear.platform_auth.clone(),
            (TpmHandle::LOCKOUT, _) => self.permanent.lockout_auth.clone(),
            (_, TpmHt::TRANSIENT | TpmHt::PERSISTENT) => self
                .object(handle)?
                .sensitive
                .as_ref()
                .map_or_else(Tpm2bAuth::empty, |s| s.auth_value.clone()),
            (_, TpmHt::NV_INDEX) => self.nv_index(handle)?.auth.clone(),
            (_, TpmHt::PCR) if has_authorization(handle) => self.volatile.state_clear.pcr_auth.clone(),
            _ => Tpm2bAuth::empty(),
        })
    }

    /// The policy of an entity; none for those that have none.
    ///
    /// # Errors
    /// `TPM_RC_HANDLE` when the entity is gone.
    pub fn policy(&self, handle: TpmHandle) -> Result<Policy, ResponseCode> {
        Ok(match (handle, handle.handle_type()) {
            (TpmHandle::OWNER, _) => self.permanent.owner.policy.clone(),
            (TpmHandle::ENDORSEMENT, _) => self.permanent.endorsement.policy.clone(),
            (TpmHandle::PLATFORM, _) => self.volatile.state_clear.platform_policy.clone(),
            (TpmHandle::LOCKOUT, _) => self.permanent.lockout_policy.clone(),
            (TpmHandle::ACT_0, _) => self.volatile.act.policy.clone(),
            (_, TpmHt::TRANSIENT | TpmHt::PERSISTENT) => {
                let public = &self.object(handle)?.public;
                Policy { alg: public.name_alg, digest: public.auth_policy.clone() }
            }
            (_, TpmHt::NV_INDEX) => {
                let public = &self.nv_index(handle)?.public;
                Policy { alg: public.name_alg.0, digest: public.auth_policy.clone() }
            }
            (_, TpmHt::PCR) if has_authorization(handle) => self.permanent.pcr_policy.clone(),
            _ => Policy::default(),
        })
    }

    /// The Name of an entity (Part 1, "Names"): the handle itself where there is no public area.
    ///
    /// # Errors
    /// `TPM_RC_HANDLE` when the entity is gone.
    pub fn name(&self, handle: TpmHandle) -> Result<Tpm2bName, ResponseCode> {
        Ok(match handle.handle_type() {
            TpmHt::TRANSIENT | TpmHt::PERSISTENT => self.object(handle)?.name.clone(),
            TpmHt::NV_INDEX => nv_name(&self.nv_index(handle)?.public),
            _ => handle_name(handle),
        })
    }

    /// Whether failures to authorize an entity do not count for dictionary attack protection.
    #[must_use]
    pub fn is_da_exempt(&self, handle: TpmHandle) -> bool {
        match handle.handle_type() {
            TpmHt::PERMANENT => handle != TpmHandle::LOCKOUT,
            TpmHt::TRANSIENT | TpmHt::PERSISTENT => {
                self.object(handle).is_ok_and(|o| o.has(TpmaObject::NO_DA))
            }
            TpmHt::NV_INDEX => self.nv_index(handle).is_ok_and(|i| i.public.attributes.has(TpmaNv::NO_DA)),
            TpmHt::PCR => true,
            _ => false,
        }
    }
}

/// A handle as a Name.
#[must_use]
pub fn handle_name(handle: TpmHandle) -> Tpm2bName {
    Tpm2bName::new(handle.to_bytes()).unwrap_or_default()
}

/// The Name of an object: its name algorithm and the digest of its public area; empty for a null name algorithm.
#[must_use]
pub fn object_name(public: &TpmtPublic) -> Tpm2bName {
    hash_alg(public.name_alg).map_or_else(Tpm2bName::empty, |alg| {
        let digest = alg.digest(&[&public.to_bytes()]);
        Tpm2bName::new([&public.name_alg.to_bytes(), digest.as_slice()].concat()).unwrap_or_default()
    })
}

/// The Name of an NV index.
#[must_use]
pub fn nv_name(public: &TpmsNvPublic) -> Tpm2bName {
    let digest = hash_of(public.name_alg).digest(&[&public.to_bytes()]);
    Tpm2bName::new([&public.name_alg.to_bytes(), digest.as_slice()].concat()).unwrap_or_default()
}

/// The Qualified Name of an object under a parent of that Qualified Name: `H(QN(parent) || Name)`.
#[must_use]
pub fn qualified_name(public: &TpmtPublic, parent_qualified_name: &[u8], name: &[u8]) -> Tpm2bName {
    hash_alg(public.name_alg).map_or_else(Tpm2bName::empty, |alg| {
        let digest = alg.digest(&[parent_qualified_name, name]);
        Tpm2bName::new([&public.name_alg.to_bytes(), digest.as_slice()].concat()).unwrap_or_default()
    })
}
