//! `vtpmd init`: the root instance in an empty store.

use std::sync::Arc;

use vtpm_engine::Tpm;
use vtpm_protocol::codec::{Decode, Encode, Reader, encode_sized, encode_sized_with};
use vtpm_protocol::instance::{INSTANCE_SELF, InstanceAttributes, InstanceName, Uuid};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    PublicId, PublicParms, Scheme, Tpm2b, TpmAlgId, TpmCc, TpmEccCurve, TpmHandle, TpmSt, TpmSu, TpmaObject,
    TpmsEccPoint, TpmtPublic, TpmtSymDef, TpmtSymDefObject,
};
use zeroize::Zeroizing;

use super::environment::{Workshop, code_of};
use super::persistence::{Ops, Persistence, name};
use super::{Clock, ECC_STORAGE_KEY, RSA_STORAGE_KEY, Tree, TreeError};
use crate::migration::State;
use crate::store::{Batch, InstanceRow, Op};

/// What the root is made with.
pub struct RootOptions {
    /// Its owner and lockout authorization, 1 to 64 bytes without a zero at the end.
    pub owner_auth: Zeroizing<Vec<u8>>,
    /// Its name.
    pub name: InstanceName,
    /// Its UUID.
    pub uuid: Uuid,
}

impl RootOptions {
    /// The name `root`, and a random UUID.
    ///
    /// # Panics
    /// Never: the name is one.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a constant")]
    pub fn new(owner_auth: Zeroizing<Vec<u8>>) -> Self {
        let name = InstanceName::new("root").expect("a name");
        Self { owner_auth, name, uuid: Uuid(*uuid::Uuid::new_v4().as_bytes()) }
    }
}

impl Tree {
    /// Makes the root: a new TPM with the owner authorization given and two storage keys, an RSA-2048 one at
    /// [`RSA_STORAGE_KEY`] and an ECC P-256 one at [`ECC_STORAGE_KEY`], which cannot be duplicated. All of it becomes durable at once.
    ///
    /// # Errors
    /// [`TreeError`]; the store is then as it was.
    #[expect(clippy::needless_pass_by_value, reason = "as in `open`")]
    pub fn init(persistence: Arc<dyn Persistence>, options: RootOptions) -> Result<(), TreeError> {
        let auth = &options.owner_auth;
        if auth.is_empty() || auth.len() > 64 || auth.last() == Some(&0) {
            return Err(TreeError::OwnerAuth);
        }
        if !persistence.instances()?.is_empty() {
            return Err(TreeError::NotEmpty);
        }
        let clock = Clock::start();
        let mut root = Bench { tpm: Tpm::manufacture(&mut Workshop(&clock)), clock: &clock, auth };
        root.run("TPM2_Startup", TpmCc::STARTUP, &[], None, &TpmSu::CLEAR.to_bytes())?;
        let mut new_auth = Zeroizing::new(Vec::with_capacity(80));
        encode_sized(auth, &mut new_auth);
        for hierarchy in [TpmHandle::LOCKOUT, TpmHandle::OWNER] {
            let command = "TPM2_HierarchyChangeAuth";
            root.run(command, TpmCc::HIERARCHY_CHANGE_AUTH, &[hierarchy.0], Some(&[]), &new_auth)?;
        }
        root.storage_key(rsa_template(), RSA_STORAGE_KEY)?;
        root.storage_key(ecc_template(), ECC_STORAGE_KEY)?;
        root.run("TPM2_Shutdown", TpmCc::SHUTDOWN, &[], None, &TpmSu::CLEAR.to_bytes())?;

        let id = persistence.allocate_id();
        let mut ops = Ops::new(id);
        ops.list.push(Op::CreateInstance(InstanceRow {
            id,
            parent: None,
            handle: super::handle_of(id.0).unwrap_or(INSTANCE_SELF),
            name: options.name.as_str().to_owned(),
            uuid: options.uuid.0,
            attributes: InstanceAttributes::PRIVILEGED.bits(),
        }));
        for (key, value) in root.tpm.records() {
            ops.put(name::live(key)?, value);
        }
        ops.put(name::STATE, State::new_live().to_record());
        persistence.commit(Batch::new(ops.list))?;
        Ok(())
    }
}

/// A TPM in the making.
struct Bench<'a> {
    tpm: Tpm,
    clock: &'a Clock,
    auth: &'a [u8],
}

impl Bench<'_> {
    /// Executes a command, with a password for its first handle where one is given, and returns what follows the response header.
    fn run(
        &mut self,
        command: &'static str,
        code: TpmCc,
        handles: &[u32],
        password: Option<&[u8]>,
        parameters: &[u8],
    ) -> Result<Vec<u8>, TreeError> {
        let mut body = Zeroizing::new(Vec::with_capacity(1024));
        handles.iter().for_each(|h| h.encode(&mut body));
        let tag = if let Some(password) = password {
            let mut area = Zeroizing::new(Vec::with_capacity(128));
            (TpmHandle::RS_PW, 0u16, 0u8).encode(&mut area);
            encode_sized(password, &mut area);
            u32::try_from(area.len()).unwrap_or(u32::MAX).encode(&mut body);
            body.extend_from_slice(&area);
            TpmSt::SESSIONS
        } else {
            TpmSt::NO_SESSIONS
        };
        body.extend_from_slice(parameters);
        let mut bytes = Zeroizing::new(Vec::with_capacity(body.len().saturating_add(10)));
        let size = u32::try_from(body.len().saturating_add(10)).unwrap_or(u32::MAX);
        (tag, size, code).encode(&mut bytes);
        bytes.extend_from_slice(&body);
        let response = self.tpm.execute(&mut Workshop(self.clock), 0, &bytes);
        match code_of(&response) {
            ResponseCode::SUCCESS => Ok(response.get(10..).unwrap_or_default().to_vec()),
            code => Err(TreeError::Root { command, code }),
        }
    }

    fn storage_key(&mut self, template: TpmtPublic, at: u32) -> Result<(), TreeError> {
        let mut parameters = Vec::new();
        // inSensitive: empty authorization, no data.
        encode_sized_with(&mut parameters, |o| (0u16, 0u16).encode(o));
        encode_sized_with(&mut parameters, |o| template.encode(o));
        // outsideInfo, creationPCR.
        (0u16, 0u32).encode(&mut parameters);
        let owner = [TpmHandle::OWNER.0];
        let auth = self.auth.to_vec();
        let command = "TPM2_CreatePrimary";
        let out = self.run(command, TpmCc::CREATE_PRIMARY, &owner, Some(&auth), &parameters)?;
        let malformed = |code| TreeError::Root { command, code };
        let transient = u32::decode(&mut Reader::new(&out)).map_err(malformed)?;
        let handles = [TpmHandle::OWNER.0, transient];
        self.run("TPM2_EvictControl", TpmCc::EVICT_CONTROL, &handles, Some(&auth), &at.to_bytes())?;
        self.run("TPM2_FlushContext", TpmCc::FLUSH_CONTEXT, &[], None, &transient.to_bytes())?;
        Ok(())
    }
}

/// A restricted decryption key that stays in its TPM, as storage keys are (TCG's provisioning guidance calls it the SRK template).
fn storage_template(parms: PublicParms, unique: PublicId) -> TpmtPublic {
    let attributes = TpmaObject::FIXED_TPM.0
        | TpmaObject::FIXED_PARENT.0
        | TpmaObject::SENSITIVE_DATA_ORIGIN.0
        | TpmaObject::USER_WITH_AUTH.0
        | TpmaObject::NO_DA.0
        | TpmaObject::RESTRICTED.0
        | TpmaObject::DECRYPT.0;
    TpmtPublic {
        name_alg: TpmAlgId::SHA256,
        attributes: TpmaObject(attributes),
        auth_policy: Tpm2b::empty(),
        parms,
        unique,
    }
}

const AES_128_CFB: TpmtSymDefObject =
    TpmtSymDefObject(TpmtSymDef::Aes { key_bits: 128, mode: TpmAlgId::CFB });

fn rsa_template() -> TpmtPublic {
    let parms =
        PublicParms::Rsa { symmetric: AES_128_CFB, scheme: Scheme::NULL, key_bits: 2048, exponent: 0 };
    storage_template(parms, PublicId::Rsa(Tpm2b::empty()))
}

pub(super) fn ecc_template() -> TpmtPublic {
    let parms = PublicParms::Ecc {
        symmetric: AES_128_CFB,
        scheme: Scheme::NULL,
        curve: TpmEccCurve::NIST_P256,
        kdf: Scheme::NULL,
    };
    storage_template(parms, PublicId::Ecc(TpmsEccPoint::default()))
}
