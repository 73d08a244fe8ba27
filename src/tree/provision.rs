//! `vtpmd init`: the root instance in an empty store; and the keys that a root of an earlier release lacks.

use std::sync::Arc;

use vtpm_engine::Tpm;
use vtpm_protocol::codec::{Decode, Encode, Reader, decode_exact, encode_sized, encode_sized_with};
use vtpm_protocol::instance::{
    CertifiedKey, INSTANCE_SELF, Identity, InstanceAttributes, InstanceName, KeyRole, Uuid,
};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    PublicId, PublicParms, Scheme, Tpm2b, TpmAlgId, TpmCc, TpmEccCurve, TpmHandle, TpmSt, TpmSu, TpmaObject,
    TpmsEccPoint, TpmtPublic, TpmtSignature, TpmtSymDef, TpmtSymDefObject,
};
use zeroize::Zeroizing;

use super::environment::{Workshop, code_of};
use super::persistence::{Ops, Persistence, Stored, name};
use super::{ATTESTATION_KEY, Clock, ECC_STORAGE_KEY, LINK_KEY, RSA_STORAGE_KEY, Tree, TreeError};
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
    /// Makes the root: a new TPM with the owner authorization given and four keys that cannot be duplicated: an attestation key at
    /// [`ATTESTATION_KEY`], storage keys at [`RSA_STORAGE_KEY`] and [`ECC_STORAGE_KEY`], the key of the peer link at [`LINK_KEY`]. The first
    /// certifies the others. All of it becomes durable at once.
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
        let mut tpm = Tpm::manufacture(&mut Workshop(&clock));
        let mut execute = |command: &[u8]| tpm.execute(&mut Workshop(&clock), 0, command);
        let mut root = Bench { execute: &mut execute, auth };
        root.run("TPM2_Startup", TpmCc::STARTUP, &[], &[], &TpmSu::CLEAR.to_bytes())?;
        let mut new_auth = Zeroizing::new(Vec::with_capacity(80));
        encode_sized(auth, &mut new_auth);
        for hierarchy in [TpmHandle::LOCKOUT, TpmHandle::OWNER] {
            let command = "TPM2_HierarchyChangeAuth";
            root.run(command, TpmCc::HIERARCHY_CHANGE_AUTH, &[hierarchy.0], &[&[]], &new_auth)?;
        }
        let identity = root.complete()?;
        root.run("TPM2_Shutdown", TpmCc::SHUTDOWN, &[], &[], &TpmSu::CLEAR.to_bytes())?;

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
        for (key, value) in tpm.records() {
            ops.put(name::live(key)?, value);
        }
        ops.put(name::STATE, State::new_live().to_record());
        ops.put(name::IDENTITY, Zeroizing::new(identity.to_bytes()));
        persistence.commit(Batch::new(ops.list))?;
        Ok(())
    }

    /// Gives a root that an earlier release made the keys that it lacks, and certifies them. When they are all there, this reads only.
    pub(super) fn complete_root(&self) -> Result<(), TreeError> {
        let root = self.root();
        let mut execute = |command: &[u8]| root.execute_long(command);
        let mut bench = Bench { execute: &mut execute, auth: &self.owner_auth };
        let known = Stored::read(&*self.persistence, root.id())?.identity;
        let known = known.and_then(|record| decode_exact::<Identity>(&record).ok());
        if let Some(known) = known
            && bench.read_public(ATTESTATION_KEY).is_some_and(|public| *known.attestation == *public)
        {
            return Ok(());
        }
        let identity = bench.complete()?;
        let mut ops = Ops::new(root.id());
        ops.put(name::IDENTITY, Zeroizing::new(identity.to_bytes()));
        self.persistence.commit(Batch::new(ops.list))?;
        log::info!("the root has an attestation key and a link key now");
        Ok(())
    }
}

/// The persistent keys of a root, the attestation key first.
fn root_keys() -> [(u32, Option<KeyRole>, TpmtPublic); 4] {
    [
        (ATTESTATION_KEY, None, signing_template(TpmaObject::RESTRICTED)),
        (RSA_STORAGE_KEY, Some(KeyRole::RsaStorage), rsa_template()),
        (ECC_STORAGE_KEY, Some(KeyRole::EccStorage), ecc_template()),
        (LINK_KEY, Some(KeyRole::Link), signing_template(TpmaObject(0))),
    ]
}

/// A TPM in the making, or one that is being completed.
struct Bench<'a> {
    execute: &'a mut dyn FnMut(&[u8]) -> Vec<u8>,
    auth: &'a [u8],
}

impl Bench<'_> {
    /// Executes a command, with a password for each of its first handles, and returns what follows the response header.
    fn run(
        &mut self,
        command: &'static str,
        code: TpmCc,
        handles: &[u32],
        passwords: &[&[u8]],
        parameters: &[u8],
    ) -> Result<Vec<u8>, TreeError> {
        let mut body = Zeroizing::new(Vec::with_capacity(1024));
        handles.iter().for_each(|h| h.encode(&mut body));
        let tag = if passwords.is_empty() {
            TpmSt::NO_SESSIONS
        } else {
            let mut area = Zeroizing::new(Vec::with_capacity(256));
            for password in passwords {
                (TpmHandle::RS_PW, 0u16, 0u8).encode(&mut area);
                encode_sized(password, &mut area);
            }
            u32::try_from(area.len()).unwrap_or(u32::MAX).encode(&mut body);
            body.extend_from_slice(&area);
            TpmSt::SESSIONS
        };
        body.extend_from_slice(parameters);
        let mut bytes = Zeroizing::new(Vec::with_capacity(body.len().saturating_add(10)));
        let size = u32::try_from(body.len().saturating_add(10)).unwrap_or(u32::MAX);
        (tag, size, code).encode(&mut bytes);
        bytes.extend_from_slice(&body);
        let response = (self.execute)(&bytes);
        match code_of(&response) {
            ResponseCode::SUCCESS => Ok(response.get(10..).unwrap_or_default().to_vec()),
            code => Err(TreeError::Root { command, code }),
        }
    }

    /// All keys of [`root_keys`]: those that are missing are made, and all are certified.
    fn complete(&mut self) -> Result<Identity, TreeError> {
        let mut attestation = Tpm2b::empty();
        let mut keys = Vec::new();
        for (handle, role, template) in root_keys() {
            let public = match self.read_public(handle) {
                Some(public) => public,
                None => {
                    self.make_key(&template, handle)?;
                    self.read_public(handle).ok_or(TreeError::ForeignKey(handle))?
                }
            };
            // What an operator may have put there is no key of ours.
            let ours = decode_exact::<TpmtPublic>(&public).is_ok_and(|public| {
                TpmtPublic { unique: template.unique.clone(), ..public }.to_bytes() == template.to_bytes()
            });
            if !ours {
                return Err(TreeError::ForeignKey(handle));
            }
            match role {
                None => attestation = public,
                Some(role) => keys.push(self.certify(handle, role, public)?),
            }
        }
        Ok(Identity { attestation, certificate: Tpm2b::empty(), keys })
    }

    /// `TPMT_PUBLIC` of a persistent object; `None` when there is none.
    fn read_public(&mut self, handle: u32) -> Option<Tpm2b<1024>> {
        let out = self.run("TPM2_ReadPublic", TpmCc::READ_PUBLIC, &[handle], &[], &[]).ok()?;
        Tpm2b::decode(&mut Reader::new(&out)).ok()
    }

    fn certify(
        &mut self,
        handle: u32,
        role: KeyRole,
        public: Tpm2b<1024>,
    ) -> Result<CertifiedKey, TreeError> {
        let command = "TPM2_Certify";
        let malformed = |code| TreeError::Root { command, code };
        // No qualifying data, the scheme of the key.
        let parameters = (0u16, TpmAlgId::NULL).to_bytes();
        let handles = [handle, ATTESTATION_KEY];
        let out = self.run(command, TpmCc::CERTIFY, &handles, &[&[], &[]], &parameters)?;
        let mut r = Reader::new(&out);
        let (_size, attest): (u32, Tpm2b<1024>) = Decode::decode(&mut r).map_err(malformed)?;
        let signature = TpmtSignature::decode(&mut r).map_err(malformed)?;
        let signature = Tpm2b::new(signature.to_bytes()).map_err(malformed)?;
        Ok(CertifiedKey { role, public, attest, signature })
    }

    fn make_key(&mut self, template: &TpmtPublic, at: u32) -> Result<(), TreeError> {
        let mut parameters = Vec::new();
        // inSensitive: empty authorization, no data.
        encode_sized_with(&mut parameters, |o| (0u16, 0u16).encode(o));
        encode_sized_with(&mut parameters, |o| template.encode(o));
        // outsideInfo, creationPCR.
        (0u16, 0u32).encode(&mut parameters);
        let owner = [TpmHandle::OWNER.0];
        let auth = self.auth;
        let command = "TPM2_CreatePrimary";
        let out = self.run(command, TpmCc::CREATE_PRIMARY, &owner, &[auth], &parameters)?;
        let malformed = |code| TreeError::Root { command, code };
        let transient = u32::decode(&mut Reader::new(&out)).map_err(malformed)?;
        let handles = [TpmHandle::OWNER.0, transient];
        let kept = self.run("TPM2_EvictControl", TpmCc::EVICT_CONTROL, &handles, &[auth], &at.to_bytes());
        self.run("TPM2_FlushContext", TpmCc::FLUSH_CONTEXT, &[], &[], &transient.to_bytes())?;
        kept.map(drop)
    }
}

/// An ECC P-256 key that signs with ECDSA and SHA-256 and stays in its TPM, with these attributes besides.
fn signing_template(more: TpmaObject) -> TpmtPublic {
    let attributes = TpmaObject::FIXED_TPM
        | TpmaObject::FIXED_PARENT
        | TpmaObject::SENSITIVE_DATA_ORIGIN
        | TpmaObject::USER_WITH_AUTH
        | TpmaObject::NO_DA
        | TpmaObject::SIGN_ENCRYPT
        | more;
    TpmtPublic {
        name_alg: TpmAlgId::SHA256,
        attributes,
        auth_policy: Tpm2b::empty(),
        parms: PublicParms::Ecc {
            symmetric: TpmtSymDefObject(TpmtSymDef::Null),
            scheme: Scheme::new(TpmAlgId::ECDSA, TpmAlgId::SHA256),
            curve: TpmEccCurve::NIST_P256,
            kdf: Scheme::NULL,
        },
        unique: PublicId::Ecc(TpmsEccPoint::default()),
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
