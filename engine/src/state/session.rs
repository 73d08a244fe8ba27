//! Sessions (Part 1, "Authorization Sessions", "Policy Session").

use super::State;
use vtpm_protocol::codec::{Decode, Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::structure;
use vtpm_protocol::tpm::{
    Secret2b, Tpm2bDigest, Tpm2bName, Tpm2bNonce, TpmAlgId, TpmCc, TpmHandle, TpmHt, TpmSe, TpmaLocality,
    TpmiAlgHash, TpmtSymDef,
};

macro_rules! flags {
    ($(#[$m:meta])* $name:ident { $($(#[$fm:meta])* $f:ident),* $(,)? }) => {
        $(#[$m])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct $name { $($(#[$fm])* pub $f: bool),* }

        impl Encode for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                let Self { $($f),* } = *self;
                $($f.encode(out);)*
            }
        }

        impl Decode for $name {
            fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
                Ok(Self { $($f: bool::decode(r)?),* })
            }
        }
    };
}

flags! {
    /// What is true of a session.
    SessionFlags {
        /// Bound to an entity; its Name and authorization are in `bound_entity`.
        is_bound,
        /// The bound entity is subject to dictionary attack protection.
        is_da_bound,
        /// Bound to lockoutAuth.
        is_lockout_bound,
        /// `TPM2_PolicyAuthValue` was run.
        is_auth_value_needed,
        /// `TPM2_PolicyPassword` was run.
        is_password_needed,
        /// `TPM2_PolicyPhysicalPresence` was run.
        is_pp_required,
        /// The session audits.
        is_audit,
        /// `cp_hash` holds a cpHash.
        is_cp_hash_defined,
        /// `cp_hash` holds a nameHash.
        is_name_hash_defined,
        /// `cp_hash` holds a template hash.
        is_template_hash_defined,
        /// `TPM2_PolicyNvWritten` was run.
        check_nv_written,
        /// The state it asked for.
        nv_written_state,
        /// `cp_hash` holds a hash of the parameters.
        is_parameters_hash_defined,
        /// `TPM2_PolicyTransportSPDM` was run.
        check_secure_channel,
    }
}

structure! {
    /// A loaded session.
    #[derive(Clone)]
    pub struct Session {
        /// HMAC, policy or trial.
        pub kind: TpmSe,
        /// The cipher of parameter encryption.
        pub symmetric: TpmtSymDef,
        /// The hash of the session.
        pub auth_hash: TpmiAlgHash,
        /// The session key; empty for an unbound and unsalted session.
        pub session_key: Secret2b<64>,
        /// The newest nonce of the TPM.
        pub nonce_tpm: Tpm2bNonce,
        /// What is true of it.
        pub flags: SessionFlags,
        /// For a bound session the entity: Name, and the digest of the authorization at that time.
        pub bound_entity: Tpm2bName,
        /// The digest of that authorization.
        pub bound_auth: Tpm2bDigest,
        /// The audit digest.
        pub audit_digest: Tpm2bDigest,
        /// The policy digest.
        pub policy_digest: Tpm2bDigest,
        /// cpHash, nameHash or template hash of a policy session.
        pub cp_hash: Tpm2bDigest,
        /// The command that the policy is limited to; 0 for any.
        pub command_code: TpmCc,
        /// The localities that the policy is limited to; 0 for any.
        pub command_locality: TpmaLocality,
        /// The PCR counter when `TPM2_PolicyPCR` was run; 0 for not run.
        pub pcr_counter: u32,
        /// TPM time at which the session began, or of a policy session the last use of it ended, in milliseconds.
        pub start_time: u64,
        /// TPM time at which it expires; 0 for never.
        pub timeout: u64,
        /// The time epoch of `start_time`.
        pub epoch: u32,
    }
}

impl State {
    /// Ends the session in the slot of `handle`, loaded or saved, and frees the slot. Which type of session the handle names does not matter.
    pub fn flush_session(&mut self, handle: TpmHandle) {
        self.sessions.remove(&handle.index());
        let volatile = self.volatile_mut();
        if let Some(slot) =
            usize::try_from(handle.index()).ok().and_then(|i| volatile.state_reset.contexts.slots.get_mut(i))
        {
            *slot = 0;
        }
        let exclusive = volatile.exclusive_audit_session;
        if exclusive != TpmHandle::UNASSIGNED && exclusive.index() == handle.index() {
            volatile.exclusive_audit_session = TpmHandle::UNASSIGNED;
        }
    }
}

impl Session {
    /// Policy or trial.
    #[must_use]
    pub fn is_policy(&self) -> bool {
        self.kind != TpmSe::HMAC
    }

    /// The handle of the session in `slot`.
    #[must_use]
    pub fn handle(&self, slot: u32) -> TpmHandle {
        TpmHandle::new(if self.is_policy() { TpmHt::POLICY_SESSION } else { TpmHt::HMAC_SESSION }, slot)
    }

    /// Forgets what policy commands recorded, as `TPM2_PolicyRestart` and the end of a use do; not when the nonce was made.
    pub fn reset_policy(&mut self) {
        let size = vtpm_protocol::tpm::hash_size(self.auth_hash.0).unwrap_or_default();
        self.policy_digest = Tpm2bDigest::new(vec![0; size]).unwrap_or_default();
        self.flags = SessionFlags {
            is_bound: self.flags.is_bound,
            is_da_bound: self.flags.is_da_bound,
            is_lockout_bound: self.flags.is_lockout_bound,
            is_audit: self.flags.is_audit,
            ..SessionFlags::default()
        };
        self.cp_hash = Tpm2bDigest::empty();
        self.command_code = TpmCc(0);
        self.command_locality = TpmaLocality(0);
        self.pcr_counter = 0;
        self.timeout = 0;
    }

    /// The session hash as an algorithm id.
    #[must_use]
    pub fn auth_hash_id(&self) -> TpmAlgId {
        self.auth_hash.0
    }
}
