//! The commands that manufacturing sends to the TPM. All authorizations of a fresh TPM are empty.

use vtpm_backend::device::{ControlledTpm, TpmDevice};
use vtpm_protocol::codec::{Decode, Encode, Reader, encode_sized, encode_sized_with};
use vtpm_protocol::tpm::{
    PCR_COUNT, PublicId, Tpm2b, TpmAlgId, TpmCc, TpmHandle, TpmSt, TpmSu, TpmaNv, Tpml, TpmlPcrSelection,
    TpmsPcrSelection, TpmtPublic,
};

use super::ek::{EndorsementKey, STORAGE_KEY, Use, storage_template};
use crate::swtpm::error::SwtpmError;
use crate::tree::Instance;

/// `TPM_CAP_HANDLES` and `TPM_CAP_PCRS`.
const CAP_HANDLES: u32 = 1;
/// See [`CAP_HANDLES`].
const CAP_PCRS: u32 = 5;
/// The most that one `TPM2_NV_Write` is given.
const NV_PART: usize = 1024;
/// How many handles are asked for at once.
const MANY: u32 = 254;

/// Names of PCR banks, as `--pcr-banks` has them.
const BANKS: &[(&str, TpmAlgId)] = &[
    ("sha1", TpmAlgId::SHA1),
    ("sha256", TpmAlgId::SHA256),
    ("sha384", TpmAlgId::SHA384),
    ("sha512", TpmAlgId::SHA512),
    ("sm3-256", TpmAlgId::SM3_256),
    ("sha3-256", TpmAlgId::SHA3_256),
    ("sha3-384", TpmAlgId::SHA3_384),
    ("sha3-512", TpmAlgId::SHA3_512),
];

/// What a certificate is made for, as `swtpm_localca --ek` takes it: the modulus, or the point and its curve.
pub(super) type KeyParameters = String;

/// A TPM that is being made.
pub(super) struct Manufacture<'a>(pub(super) &'a Instance);

impl Manufacture<'_> {
    /// `_TPM_Init` and `TPM2_Startup`.
    pub(super) fn start(&self) -> Result<(), SwtpmError> {
        self.0.power_on()?;
        self.run("TPM2_Startup", TpmCc::STARTUP, &[], &TpmSu::CLEAR.to_bytes()).map(drop)
    }

    /// `TPM2_Shutdown`.
    pub(super) fn shut_down(&self) -> Result<(), SwtpmError> {
        self.run("TPM2_Shutdown", TpmCc::SHUTDOWN, &[], &TpmSu::CLEAR.to_bytes()).map(drop)
    }

    /// Executes a command, with an empty password for its first handle if it has any, and returns what follows the header.
    fn run(
        &self,
        what: &'static str,
        code: TpmCc,
        handles: &[TpmHandle],
        parameters: &[u8],
    ) -> Result<Vec<u8>, SwtpmError> {
        let mut body = Vec::new();
        handles.iter().for_each(|handle| handle.0.encode(&mut body));
        let tag = if handles.is_empty() {
            TpmSt::NO_SESSIONS
        } else {
            let area = (TpmHandle::RS_PW, 0u16, 0u8, 0u16).to_bytes();
            u32::try_from(area.len()).unwrap_or(u32::MAX).encode(&mut body);
            body.extend(area);
            TpmSt::SESSIONS
        };
        body.extend_from_slice(parameters);
        let size = u32::try_from(body.len().saturating_add(10)).unwrap_or(u32::MAX);
        let mut command = (tag, size, code).to_bytes();
        command.append(&mut body);
        let response = self.0.execute(0, &command, None);
        let code = response.get(6..10).and_then(|code| code.try_into().ok()).map(u32::from_be_bytes);
        match code {
            Some(0) => Ok(response.get(10..).unwrap_or_default().to_vec()),
            Some(code) => Err(SwtpmError::Tpm { what, code }),
            None => Err(SwtpmError::Response(what)),
        }
    }

    /// Makes a primary key persistent, and returns its public part.
    fn primary(
        &self,
        hierarchy: TpmHandle,
        template: &TpmtPublic,
        at: u32,
    ) -> Result<TpmtPublic, SwtpmError> {
        let what = "TPM2_CreatePrimary";
        let mut parameters = Vec::new();
        encode_sized_with(&mut parameters, |o| (0u16, 0u16).encode(o));
        encode_sized_with(&mut parameters, |o| template.encode(o));
        (0u16, 0u32).encode(&mut parameters);
        let out = self.run(what, TpmCc::CREATE_PRIMARY, &[hierarchy], &parameters)?;
        let malformed = |_| SwtpmError::Response(what);
        let mut r = Reader::new(&out);
        let (transient, _size): (u32, u32) = Decode::decode(&mut r).map_err(malformed)?;
        let public: Tpm2b<1024> = Decode::decode(&mut r).map_err(malformed)?;
        let public = vtpm_protocol::codec::decode_exact(&public).map_err(malformed)?;
        let handles = [TpmHandle::OWNER, TpmHandle(transient)];
        self.run("TPM2_EvictControl", TpmCc::EVICT_CONTROL, &handles, &at.to_bytes())?;
        self.run("TPM2_FlushContext", TpmCc::FLUSH_CONTEXT, &[], &transient.to_bytes())?;
        Ok(public)
    }

    /// A storage key.
    pub(super) fn storage_key(&self, ecc: bool) -> Result<(), SwtpmError> {
        self.primary(TpmHandle::OWNER, &storage_template(ecc), STORAGE_KEY).map(drop)
    }

    /// An endorsement key. One that may sign has its template beside it, for nobody could guess it.
    pub(super) fn endorsement_key(
        &self,
        key: EndorsementKey,
        purpose: Use,
        lock: bool,
    ) -> Result<KeyParameters, SwtpmError> {
        let template = key.template(purpose);
        let public = self.primary(TpmHandle::ENDORSEMENT, &template, key.handle())?;
        if purpose.sign {
            self.nv(key.template_index(), &template.to_bytes(), lock)?;
        }
        match public.unique {
            PublicId::Rsa(modulus) => Ok(hex::encode(&*modulus)),
            PublicId::Ecc(point) => Ok(format!(
                "x={},y={},id={}",
                hex::encode(&*point.x),
                hex::encode(&*point.y),
                key.short_name()
            )),
            _ => Err(SwtpmError::Response("TPM2_CreatePrimary")),
        }
    }

    /// An NV index of the platform that everybody may read.
    pub(super) fn nv(&self, index: u32, data: &[u8], lock: bool) -> Result<(), SwtpmError> {
        let attributes = TpmaNv::PLATFORM_CREATE
            | TpmaNv::AUTH_READ
            | TpmaNv::OWNER_READ
            | TpmaNv::PP_READ
            | TpmaNv::PP_WRITE
            | TpmaNv::NO_DA
            | TpmaNv::WRITE_DEFINE;
        let too_long = |_| SwtpmError::Certificate {
            file: format!("NV index 0x{index:x}"),
            most: usize::from(u16::MAX),
        };
        let size = u16::try_from(data.len()).map_err(too_long)?;
        let mut parameters = 0u16.to_bytes();
        encode_sized_with(&mut parameters, |o| {
            (index, TpmAlgId::SHA256, attributes).encode(o);
            (0u16, size).encode(o);
        });
        self.run("TPM2_NV_DefineSpace", TpmCc::NV_DEFINE_SPACE, &[TpmHandle::PLATFORM], &parameters)?;
        let handles = [TpmHandle::PLATFORM, TpmHandle(index)];
        let mut offset = 0u16;
        for part in data.chunks(NV_PART) {
            let mut parameters = Vec::new();
            encode_sized(part, &mut parameters);
            offset.encode(&mut parameters);
            self.run("TPM2_NV_Write", TpmCc::NV_WRITE, &handles, &parameters)?;
            offset = offset.saturating_add(u16::try_from(part.len()).unwrap_or(u16::MAX));
        }
        if lock {
            self.run("TPM2_NV_WriteLock", TpmCc::NV_WRITE_LOCK, &handles, &[])?;
        }
        Ok(())
    }

    fn capability(&self, capability: u32, first: u32, count: u32) -> Result<Vec<u8>, SwtpmError> {
        let out = self.run(
            "TPM2_GetCapability",
            TpmCc::GET_CAPABILITY,
            &[],
            &(capability, first, count).to_bytes(),
        )?;
        // Whether there is more, and the capability again.
        Ok(out.get(5..).unwrap_or_default().to_vec())
    }

    /// Activates the banks of these names, and no others; returns which those are, and which there could be.
    pub(super) fn activate_banks(&self, wanted: &str) -> Result<(String, String), SwtpmError> {
        let Tpml(there) = TpmlPcrSelection::decode(&mut Reader::new(&self.capability(CAP_PCRS, 0, 64)?))
            .map_err(|_| SwtpmError::Response("TPM2_GetCapability"))?;
        let wanted_names: Vec<&str> = wanted.split(',').map(str::trim).collect();
        let known: Vec<_> =
            BANKS.iter().filter(|(_, bank)| there.iter().any(|selection| selection.hash == *bank)).collect();
        let active: Vec<&str> =
            known.iter().map(|(name, _)| *name).filter(|name| wanted_names.contains(name)).collect();
        if active.is_empty() {
            return Err(SwtpmError::NoBank(wanted.to_owned()));
        }
        let selections: Vec<_> = there
            .iter()
            .map(|selection| {
                let on = known.iter().any(|(name, bank)| *bank == selection.hash && active.contains(name));
                TpmsPcrSelection::of(selection.hash, (0..PCR_COUNT).filter(|_| on))
            })
            .collect();
        let mut parameters = u32::try_from(selections.len()).unwrap_or(u32::MAX).to_bytes();
        selections.iter().for_each(|selection| selection.encode(&mut parameters));
        let out = self.run("TPM2_PCR_Allocate", TpmCc::PCR_ALLOCATE, &[TpmHandle::PLATFORM], &parameters)?;
        // Behind the length of the parameters.
        if out.get(4) != Some(&1) {
            return Err(SwtpmError::NoBank(wanted.to_owned()));
        }
        let all = known.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(",");
        Ok((active.join(","), all))
    }

    /// The handles of a kind, by its first one.
    pub(super) fn handles(&self, first: u32) -> Result<Vec<u32>, SwtpmError> {
        let out = self.capability(CAP_HANDLES, first, MANY)?;
        Ok(out
            .get(4..)
            .unwrap_or_default()
            .chunks_exact(4)
            .filter_map(|b| b.try_into().ok().map(u32::from_be_bytes))
            .collect())
    }
}
