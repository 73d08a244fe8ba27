//! A TPM behind bytes, theirs or ours, and the commands of these tests.

use vtpm_protocol::codec::{Decode, Encode, Reader, decode_exact, encode_sized};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::*;

pub type Result<T> = std::result::Result<T, ResponseCode>;

pub const OWNER: TpmHandle = TpmHandle::OWNER;

/// Commands in, responses out.
type Execute<'a> = dyn FnMut(&[u8]) -> Vec<u8> + 'a;

/// A TPM.
pub struct Chip<'a>(pub Box<Execute<'a>>);

/// A loaded object.
#[derive(Clone)]
pub struct Loaded {
    pub handle: TpmHandle,
    pub public: TpmtPublic,
}

/// How a handle is authorized.
#[derive(Clone, Copy)]
pub enum Auth<'a> {
    Password(&'a [u8]),
    Session(TpmHandle),
}

pub const NO_AUTH: Auth<'static> = Auth::Password(b"");

impl Chip<'_> {
    /// What follows the header of the response.
    pub fn run(
        &mut self,
        code: TpmCc,
        handles: &[TpmHandle],
        auths: &[Auth<'_>],
        parameters: &dyn Encode,
    ) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        handles.iter().for_each(|h| h.encode(&mut body));
        if !auths.is_empty() {
            let mut area = Vec::new();
            for auth in auths {
                match auth {
                    Auth::Password(password) => {
                        (TpmHandle::RS_PW, 0u16, 0u8).encode(&mut area);
                        encode_sized(password, &mut area);
                    }
                    Auth::Session(session) => (*session, 0u16, 1u8, 0u16).encode(&mut area),
                }
            }
            u32::try_from(area.len()).unwrap().encode(&mut body);
            body.append(&mut area);
        }
        parameters.encode(&mut body);
        let tag = if auths.is_empty() { TpmSt::NO_SESSIONS } else { TpmSt::SESSIONS };
        let size = u32::try_from(HEADER_SIZE + body.len()).unwrap();
        let command = [(tag, size, code).to_bytes(), body].concat();
        let mut response = self.0(&command);
        // Swtpm's first protected authorization after a start is answered so.
        if response[6..10] == ResponseCode::RETRY.value().to_be_bytes() {
            response = self.0(&command);
        }
        match ResponseCode::from_value(u32::from_be_bytes(response[6..10].try_into().unwrap())) {
            ResponseCode::SUCCESS => Ok(response[HEADER_SIZE..].to_vec()),
            code => Err(code),
        }
    }

    /// As [`Self::run`] of a command without a handle in its response, without the size of its parameters and its sessions.
    pub fn out(
        &mut self,
        code: TpmCc,
        handles: &[TpmHandle],
        auths: &[Auth<'_>],
        parameters: &dyn Encode,
    ) -> Result<Vec<u8>> {
        let out = self.run(code, handles, auths, parameters)?;
        if auths.is_empty() {
            return Ok(out);
        }
        let size = u32::from_be_bytes(out[..4].try_into().unwrap()) as usize;
        Ok(out[4..4 + size].to_vec())
    }

    pub fn startup(&mut self) {
        self.run(TpmCc::STARTUP, &[], &[], &TpmSu::CLEAR).unwrap();
    }

    pub fn shutdown(&mut self, kind: TpmSu) {
        self.run(TpmCc::SHUTDOWN, &[], &[], &kind).unwrap();
    }

    pub fn flush(&mut self, handle: TpmHandle) {
        self.run(TpmCc::FLUSH_CONTEXT, &[], &[], &handle).unwrap();
    }

    pub fn primary_with(
        &mut self,
        hierarchy: TpmHandle,
        auth: Auth<'_>,
        template: &TpmtPublic,
        data: &[u8],
    ) -> Result<Loaded> {
        let sensitive = Tpm2bSensitiveCreate {
            user_auth: Tpm2bAuth::empty(),
            data: Tpm2bSensitiveData::new(data).unwrap(),
        };
        self.create_primary(hierarchy, auth, template, sensitive)
    }

    fn create_primary(
        &mut self,
        hierarchy: TpmHandle,
        auth: Auth<'_>,
        template: &TpmtPublic,
        sensitive: Tpm2bSensitiveCreate,
    ) -> Result<Loaded> {
        let input = (sensitive, Sized2b(template.clone()), 0u16, 0u32);
        let out = self.run(TpmCc::CREATE_PRIMARY, &[hierarchy], &[auth], &input)?;
        let mut r = Reader::new(&out);
        let (handle, _size): (TpmHandle, u32) = Decode::decode(&mut r).unwrap();
        let Sized2b(public) = Decode::decode(&mut r).unwrap();
        Ok(Loaded { handle, public })
    }

    /// The handle of one, of which the public area need not be understood.
    pub fn primary_handle(&mut self, hierarchy: TpmHandle, template: &TpmtPublic) -> Result<TpmHandle> {
        let input = (Tpm2bSensitiveCreate::default(), Sized2b(template.clone()), 0u16, 0u32);
        let out = self.run(TpmCc::CREATE_PRIMARY, &[hierarchy], &[NO_AUTH], &input)?;
        Ok(TpmHandle::decode(&mut Reader::new(&out)).unwrap())
    }

    /// One with an authorization value.
    pub fn primary_for(
        &mut self,
        hierarchy: TpmHandle,
        template: &TpmtPublic,
        auth: &[u8],
    ) -> Result<Loaded> {
        let sensitive = Tpm2bSensitiveCreate {
            user_auth: Tpm2bAuth::new(auth).unwrap(),
            data: Tpm2bSensitiveData::empty(),
        };
        self.create_primary(hierarchy, NO_AUTH, template, sensitive)
    }

    pub fn primary(&mut self, hierarchy: TpmHandle, template: &TpmtPublic) -> Result<Loaded> {
        self.primary_with(hierarchy, NO_AUTH, template, b"")
    }

    /// A primary object by `TPM2_CreateLoaded`.
    pub fn loaded(&mut self, hierarchy: TpmHandle, template: &TpmtPublic, data: &[u8]) -> Result<Loaded> {
        let sensitive = Tpm2bSensitiveCreate {
            user_auth: Tpm2bAuth::empty(),
            data: Tpm2bSensitiveData::new(data).unwrap(),
        };
        let input = (sensitive, Sized2b(template.clone()));
        let out = self.run(TpmCc::CREATE_LOADED, &[hierarchy], &[NO_AUTH], &input)?;
        let mut r = Reader::new(&out);
        let (handle, _size): (TpmHandle, u32) = Decode::decode(&mut r).unwrap();
        assert!(r.sized(2048).unwrap().is_empty());
        let Sized2b(public) = Decode::decode(&mut r).unwrap();
        Ok(Loaded { handle, public })
    }

    /// A child with data sealed in it, as it leaves the TPM: private and public area.
    pub fn seal(&mut self, parent: TpmHandle, data: &[u8], policy: Option<&[u8]>) -> Result<Vec<u8>> {
        let mut attributes = TpmaObject::FIXED_TPM | TpmaObject::FIXED_PARENT;
        if policy.is_none() {
            attributes = attributes | TpmaObject::USER_WITH_AUTH;
        }
        let template = TpmtPublic {
            name_alg: TpmAlgId::SHA256,
            attributes,
            auth_policy: Tpm2bDigest::new(policy.unwrap_or_default()).unwrap(),
            parms: PublicParms::KeyedHash { scheme: Scheme::NULL },
            unique: PublicId::Digest(Tpm2bDigest::empty()),
        };
        let sensitive = Tpm2bSensitiveCreate {
            user_auth: Tpm2bAuth::empty(),
            data: Tpm2bSensitiveData::new(data).unwrap(),
        };
        let input = (sensitive, Sized2b(template), 0u16, 0u32);
        let out = self.out(TpmCc::CREATE, &[parent], &[NO_AUTH], &input)?;
        let mut r = Reader::new(&out);
        let start = r.remaining();
        r.sized(2048).unwrap();
        r.sized(2048).unwrap();
        Ok(out[..start - r.remaining()].to_vec())
    }

    /// Loads what [`Self::seal`] gave.
    pub fn load(&mut self, parent: TpmHandle, areas: &[u8]) -> Result<TpmHandle> {
        let out = self.run(TpmCc::LOAD, &[parent], &[NO_AUTH], &Raw(areas))?;
        Ok(TpmHandle::decode(&mut Reader::new(&out)).unwrap())
    }

    pub fn unseal(&mut self, object: TpmHandle, auth: Auth<'_>) -> Result<Vec<u8>> {
        let out = self.out(TpmCc::UNSEAL, &[object], &[auth], &())?;
        Ok(Reader::new(&out).sized(256).unwrap().to_vec())
    }

    pub fn persist(&mut self, object: TpmHandle, at: u32) {
        self.run(TpmCc::EVICT_CONTROL, &[OWNER, object], &[NO_AUTH], &at).unwrap();
    }

    pub fn read_public(&mut self, handle: u32) -> Result<TpmtPublic> {
        let out = self.run(TpmCc::READ_PUBLIC, &[TpmHandle(handle)], &[], &())?;
        let Sized2b(public) = Decode::decode(&mut Reader::new(&out)).unwrap();
        Ok(public)
    }

    pub fn define(&mut self, index: u32, attributes: TpmaNv, size: u16) {
        let public = TpmsNvPublic {
            nv_index: TpmHandle(index),
            name_alg: TpmiAlgHash(TpmAlgId::SHA256),
            attributes,
            auth_policy: Tpm2bDigest::empty(),
            data_size: size,
        };
        let input = (Tpm2bAuth::new(*b"nv").unwrap(), Sized2b(public));
        self.run(TpmCc::NV_DEFINE_SPACE, &[OWNER], &[NO_AUTH], &input).unwrap();
    }

    pub fn nv(&mut self, code: TpmCc, index: u32, parameters: &dyn Encode) -> Result<Vec<u8>> {
        self.out(code, &[OWNER, TpmHandle(index)], &[NO_AUTH], parameters)
    }

    pub fn nv_write(&mut self, index: u32, data: &[u8]) {
        let data = Tpm2bMaxNvBuffer::new(data).unwrap();
        self.nv(TpmCc::NV_WRITE, index, &(data, 0u16)).unwrap();
    }

    pub fn nv_read(&mut self, index: u32, size: u16) -> Result<Vec<u8>> {
        let out = self.nv(TpmCc::NV_READ, index, &(size, 0u16))?;
        Ok(Reader::new(&out).sized(2048).unwrap().to_vec())
    }

    /// Public area and Name.
    pub fn nv_public(&mut self, index: u32) -> Result<Vec<u8>> {
        self.run(TpmCc::NV_READ_PUBLIC, &[TpmHandle(index)], &[], &())
    }

    pub fn extend(&mut self, pcr: u32, digest: [u8; 32]) {
        let digests = (1u32, TpmAlgId::SHA256, digest);
        self.run(TpmCc::PCR_EXTEND, &[TpmHandle(pcr)], &[NO_AUTH], &digests).unwrap();
    }

    /// A policy session that has satisfied PolicyPCR with what the PCR of the SHA-256 bank is now, or a trial session.
    pub fn pcr_policy(&mut self, kind: TpmSe, pcr: u32) -> (TpmHandle, Vec<u8>) {
        let nonce = Tpm2bNonce::new([7; 16]).unwrap();
        let input = (nonce, 0u16, kind, TpmAlgId::NULL, TpmAlgId::SHA256);
        let out = self.run(TpmCc::START_AUTH_SESSION, &[TpmHandle::NULL; 2], &[], &input).unwrap();
        let session = TpmHandle::decode(&mut Reader::new(&out)).unwrap();
        let selection: TpmlPcrSelection = Tpml(vec![TpmsPcrSelection::of(TpmAlgId::SHA256, [pcr])]);
        self.run(TpmCc::POLICY_PCR, &[session], &[], &(0u16, selection)).unwrap();
        let out = self.run(TpmCc::POLICY_GET_DIGEST, &[session], &[], &()).unwrap();
        (session, Reader::new(&out).sized(64).unwrap().to_vec())
    }

    /// Properties of `TPM_CAP_TPM_PROPERTIES`.
    pub fn property(&mut self, property: u32) -> u32 {
        let out = self.run(TpmCc::GET_CAPABILITY, &[], &[], &(6u32, property, 1u32)).unwrap();
        let (_more, _cap, count, found, value): (u8, u32, u32, u32, u32) = decode_exact(&out).unwrap();
        assert_eq!((count, found), (1, property));
        value
    }

    pub fn clock(&mut self) -> TpmsTimeInfo {
        decode_exact(&self.run(TpmCc::READ_CLOCK, &[], &[], &()).unwrap()).unwrap()
    }
}

/// Bytes as they are.
pub struct Raw<'a>(pub &'a [u8]);

impl Encode for Raw<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0);
    }
}
