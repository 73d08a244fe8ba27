//! The fleet key: a storage key that roots share, by `TPM2_Duplicate` and `TPM2_Import` (figure 5, step 502).

use sha2::{Digest, Sha256};
use vtpm_protocol::codec::{Decode, Encode, Reader, decode_exact, encode_sized_with};
use vtpm_protocol::instance::{FleetKey, KeyRole};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    PublicId, PublicParms, Scheme, Tpm2b, Tpm2bDigest, Tpm2bName, TpmAlgId, TpmCc, TpmEccCurve, TpmHandle,
    TpmaObject, TpmsEccPoint, TpmtPublic, TpmtSymDef, TpmtSymDefObject,
};

use super::{Client, ClientError, Result, Transport};
use crate::tree::{ECC_STORAGE_KEY, FLEET_KEY};
use crate::trust::VerifiedIdentity;

const AES_128_CFB: TpmtSymDefObject =
    TpmtSymDefObject(TpmtSymDef::Aes { key_bits: 128, mode: TpmAlgId::CFB });

/// Who may duplicate the key: the owner of the root where it is (`TPM2_PolicySecret` of the owner, whose Name is the same everywhere, and
/// `TPM2_PolicyCommandCode` of `TPM2_Duplicate`).
fn policy() -> Tpm2bDigest {
    let secret = Sha256::new()
        .chain_update([0; 32])
        .chain_update((TpmCc::POLICY_SECRET, TpmHandle::OWNER).to_bytes())
        .finalize();
    // The second half of the extension is over an empty policyRef.
    let secret = Sha256::digest(secret);
    let digest = Sha256::new()
        .chain_update(secret)
        .chain_update((TpmCc::POLICY_COMMAND_CODE, TpmCc::DUPLICATE).to_bytes())
        .finalize();
    Tpm2bDigest::new(digest.to_vec()).unwrap_or_default()
}

/// An ECC P-256 storage key that leaves its TPM by duplication with both wrappers only.
pub(crate) fn template() -> TpmtPublic {
    TpmtPublic {
        name_alg: TpmAlgId::SHA256,
        attributes: TpmaObject::SENSITIVE_DATA_ORIGIN
            | TpmaObject::USER_WITH_AUTH
            | TpmaObject::NO_DA
            | TpmaObject::ENCRYPTED_DUPLICATION
            | TpmaObject::RESTRICTED
            | TpmaObject::DECRYPT,
        auth_policy: policy(),
        parms: PublicParms::Ecc {
            symmetric: AES_128_CFB,
            scheme: Scheme::NULL,
            curve: TpmEccCurve::NIST_P256,
            kdf: Scheme::NULL,
        },
        unique: PublicId::Ecc(TpmsEccPoint::default()),
    }
}

impl<T: Transport> Client<T> {
    /// `TPMT_PUBLIC` and Name of the fleet key, if there is one.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn fleet_key(&self) -> Result<Option<(Tpm2b<1024>, Tpm2bName)>> {
        match self.read_public(FLEET_KEY) {
            Ok(key) => Ok(Some(key)),
            Err(ClientError::Refused { code, .. }) if code.is(ResponseCode::HANDLE) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a fleet key, a child of the ECC storage key, and keeps it at [`FLEET_KEY`].
    ///
    /// # Errors
    /// [`ClientError`]; `TPM_RC_NV_DEFINED` when there is one.
    pub fn create_fleet_key(&self) -> Result<()> {
        let command = "TPM2_Create";
        let mut input = Vec::new();
        // inSensitive: empty authorization, no data.
        encode_sized_with(&mut input, |o| (0u16, 0u16).encode(o));
        encode_sized_with(&mut input, |o| template().encode(o));
        // outsideInfo, creationPCR.
        (0u16, 0u32).encode(&mut input);
        let out = self.raw((TpmCc::CREATE, command), &[ECC_STORAGE_KEY], &[&[]], &input)?;
        let (private, public): (Tpm2b<1536>, Tpm2b<1024>) =
            Decode::decode(&mut Reader::new(&out)).map_err(|_| ClientError::Malformed { command })?;
        self.keep_fleet_key(&private, &public)
    }

    /// Loads a child of the ECC storage key and makes it persistent.
    fn keep_fleet_key(&self, private: &Tpm2b<1536>, public: &Tpm2b<1024>) -> Result<()> {
        let command = (TpmCc::LOAD, "TPM2_Load");
        let handles = [ECC_STORAGE_KEY];
        let area = password(&[]);
        let out = self.send_for_handle(command, &handles, &area, &(private, public).to_bytes())?;
        let owner: &[&[u8]] = &[&self.owner_auth];
        let handles = [TpmHandle::OWNER.0, out];
        let evict = (TpmCc::EVICT_CONTROL, "TPM2_EvictControl");
        let kept = self.raw(evict, &handles, owner, &FLEET_KEY.to_bytes());
        self.flush(out)?;
        kept.map(drop)
    }

    /// Takes the fleet key away from this root.
    ///
    /// # Errors
    /// [`ClientError`]; `TPM_RC_HANDLE` when there is none.
    pub fn remove_fleet_key(&self) -> Result<()> {
        let handles = [TpmHandle::OWNER.0, FLEET_KEY];
        let evict = (TpmCc::EVICT_CONTROL, "TPM2_EvictControl");
        self.raw(evict, &handles, &[&self.owner_auth], &FLEET_KEY.to_bytes()).map(drop)
    }

    /// `TPM2_Duplicate` of the fleet key, with inner and outer wrapper, to the ECC storage key of another root. That the other root is
    /// trusted is for the caller to see to; that the key stays in its TPM, its identity says.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::NoStorageKey`] when the identity has no such key or there is no fleet key here.
    pub fn duplicate_fleet_key(&self, to: &VerifiedIdentity) -> Result<FleetKey> {
        let (public, _name) = self.fleet_key()?.ok_or(ClientError::NoStorageKey)?;
        let parent = to.key(KeyRole::EccStorage).ok_or(ClientError::NoStorageKey)?;
        let malformed = |command| move |_| ClientError::Malformed { command };
        let parent_public = Tpm2b::new(parent.to_bytes()).map_err(malformed("TPM2_Duplicate"))?;
        let name = crate::migration::source::storage_name(&parent_public).ok_or(ClientError::NoStorageKey)?;
        let session = self.duplication_session()?;
        let done = self.with_external(&parent_public, |parent| {
            let mut area = Vec::new();
            // The policy is fulfilled without an authorization value: no HMAC. continueSession is clear.
            (session, 0u16, 0u8, 0u16).encode(&mut area);
            let command = "TPM2_Duplicate";
            let input = (0u16, AES_128_CFB).to_bytes();
            let out = self.send((TpmCc::DUPLICATE, command), &[FLEET_KEY, parent], &area, &input)?;
            let made: (Tpm2b<66>, Tpm2b<1536>, Tpm2b<512>) =
                decode_exact(&out).map_err(malformed(command))?;
            Ok(made)
        });
        let (inner_key, duplicate, encrypted_secret) = match done {
            Ok(made) => made,
            Err(error) => {
                let _best_effort = self.flush(session);
                return Err(error);
            }
        };
        let parent = Tpm2b::new(name).map_err(malformed("TPM2_Duplicate"))?;
        Ok(FleetKey { identity: self.identity()?, parent, public, duplicate, encrypted_secret, inner_key })
    }

    /// A policy session that fulfils [`policy`].
    pub(crate) fn duplication_session(&self) -> Result<u32> {
        let command = (TpmCc::START_AUTH_SESSION, "TPM2_StartAuthSession");
        let mut input = Vec::new();
        // nonceCaller, no salt, a policy session, no cipher, SHA-256.
        (16u16, [0u8; 16], 0u16, 1u8, TpmAlgId::NULL, TpmAlgId::SHA256).encode(&mut input);
        let null = TpmHandle::NULL.0;
        let session = self.send_for_handle(command, &[null, null], &[], &input)?;
        let fulfil = || {
            let handles = [TpmHandle::OWNER.0, session];
            // nonceTPM, cpHashA, policyRef are empty, expiration is none.
            let input = (0u16, 0u16, 0u16, 0u32).to_bytes();
            let secret = (TpmCc::POLICY_SECRET, "TPM2_PolicySecret");
            self.raw(secret, &handles, &[&self.owner_auth], &input)?;
            let code = (TpmCc::POLICY_COMMAND_CODE, "TPM2_PolicyCommandCode");
            self.raw(code, &[session], &[], &TpmCc::DUPLICATE.to_bytes())
        };
        match fulfil() {
            Ok(_) => Ok(session),
            Err(error) => {
                let _best_effort = self.flush(session);
                Err(error)
            }
        }
    }

    /// `TPM2_Import` of a fleet key that another root duplicated to the ECC storage key of this one. That the other root is trusted, and
    /// certifies this key, is for the caller to see to.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::NoStorageKey`] when it is encrypted to another key.
    pub fn import_fleet_key(&self, key: &FleetKey) -> Result<()> {
        if self.read_public(ECC_STORAGE_KEY)?.1 != key.parent {
            return Err(ClientError::NoStorageKey);
        }
        let command = "TPM2_Import";
        let wrapped = (&key.inner_key, &key.public, &key.duplicate, &key.encrypted_secret, AES_128_CFB);
        let input = wrapped.to_bytes();
        let out = self.raw((TpmCc::IMPORT, command), &[ECC_STORAGE_KEY], &[&[]], &input)?;
        let private: Tpm2b<1536> = decode_exact(&out).map_err(|_| ClientError::Malformed { command })?;
        self.keep_fleet_key(&private, &key.public)
    }
}

fn password(password: &[u8]) -> Vec<u8> {
    let mut area = Vec::new();
    (TpmHandle::RS_PW, 0u16, 0u8).encode(&mut area);
    vtpm_protocol::codec::encode_sized(password, &mut area);
    area
}
