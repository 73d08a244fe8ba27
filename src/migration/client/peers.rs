//! Peers, identity and the certificate of the attestation key.

use vtpm_protocol::codec::{Decode, Encode, decode_exact, encode_sized, encode_sized_with};
use vtpm_protocol::instance::{
    CERTIFICATE_INDEX, CertifiedKey, Identity, InstanceName, KeyRole, ListPeersIn, ListPeersOut,
    MAX_CERTIFICATE, PeerEntry, RemovePeerIn, cc,
};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    MAX_NV_BUFFER_SIZE, Sized2b, Tpm2b, Tpm2bDigest, Tpm2bMaxNvBuffer, Tpm2bName, TpmAlgId, TpmCc, TpmHandle,
    TpmaNv, TpmiAlgHash, TpmsNvPublic, TpmtSignature,
};

use super::{Client, ClientError, Result, Transport, command_name};
use crate::tree::{ATTESTATION_KEY, FLEET_KEY};

impl<T: Transport> Client<T> {
    /// A command about the processing instance itself: owner authorization, parameters in, parameters out.
    pub(super) fn on_self<O: Decode>(&self, code: TpmCc, input: &impl Encode) -> Result<O> {
        let name = command_name(code);
        let out = self.raw((code, name), &[TpmHandle::OWNER.0], &[&self.owner_auth], &input.to_bytes())?;
        decode_exact(&out).map_err(|_| ClientError::Malformed { command: name })
    }

    /// AddPeer.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn add_peer(&self, entry: &PeerEntry) -> Result<()> {
        self.on_self(cc::ADD_PEER, entry)
    }

    /// RemovePeer.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn remove_peer(&self, label: &InstanceName) -> Result<()> {
        self.on_self(cc::REMOVE_PEER, &RemovePeerIn { label: label.clone() })
    }

    /// All peers in the order of their labels, with as many ListPeers as it takes.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn peers(&self) -> Result<Vec<PeerEntry>> {
        let mut all = Vec::new();
        loop {
            let first = u32::try_from(all.len()).unwrap_or(u32::MAX);
            let page: ListPeersOut = self.on_self(cc::LIST_PEERS, &ListPeersIn { first, count: u32::MAX })?;
            let more = page.more && !page.peers.is_empty();
            all.extend(page.peers);
            if !more {
                return Ok(all);
            }
        }
    }

    /// GetIdentity, with the fleet key, if there is one, certified for the occasion.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn identity(&self) -> Result<Identity> {
        let mut identity: Identity = self.on_self(cc::GET_IDENTITY, &())?;
        match self.read_public(FLEET_KEY) {
            Ok((public, _)) => identity.keys.push(self.certify(FLEET_KEY, KeyRole::Fleet, public)?),
            Err(ClientError::Refused { code, .. }) if code.is(ResponseCode::HANDLE) => {}
            Err(error) => return Err(error),
        }
        Ok(identity)
    }

    fn certify(&self, handle: u32, role: KeyRole, public: Tpm2b<1024>) -> Result<CertifiedKey> {
        let command = "TPM2_Certify";
        let input = (0u16, TpmAlgId::NULL).to_bytes();
        let out = self.raw((TpmCc::CERTIFY, command), &[handle, ATTESTATION_KEY], &[&[], &[]], &input)?;
        let malformed = |_| ClientError::Malformed { command };
        let (attest, signature): (Tpm2b<1024>, TpmtSignature) = decode_exact(&out).map_err(malformed)?;
        let signature = Tpm2b::new(signature.to_bytes()).map_err(malformed)?;
        Ok(CertifiedKey { role, public, attest, signature })
    }

    /// The certificate of the attestation key; empty when there is none.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn certificate(&self) -> Result<Tpm2b<MAX_CERTIFICATE>> {
        let command = "TPM2_NV_ReadPublic";
        let out = match self.raw((TpmCc::NV_READ_PUBLIC, command), &[CERTIFICATE_INDEX], &[], &[]) {
            Err(ClientError::Refused { code, .. }) if code.is(ResponseCode::HANDLE) => {
                return Ok(Tpm2b::empty());
            }
            other => other?,
        };
        let (Sized2b(public), _name): (Sized2b<TpmsNvPublic>, Tpm2bName) =
            decode_exact(&out).map_err(|_| ClientError::Malformed { command })?;
        if !public.attributes.has(TpmaNv::WRITTEN) {
            return Ok(Tpm2b::empty());
        }
        let command = "TPM2_NV_Read";
        let malformed = |_| ClientError::Malformed { command };
        let mut certificate = Vec::new();
        while certificate.len() < usize::from(public.data_size) {
            let offset = u16::try_from(certificate.len()).unwrap_or(u16::MAX);
            let most = u16::try_from(MAX_NV_BUFFER_SIZE).unwrap_or(u16::MAX);
            let size = public.data_size.saturating_sub(offset).min(most);
            let handles = [TpmHandle::OWNER.0, CERTIFICATE_INDEX];
            let input = (size, offset).to_bytes();
            let out = self.raw((TpmCc::NV_READ, command), &handles, &[&self.owner_auth], &input)?;
            let part: Tpm2bMaxNvBuffer = decode_exact(&out).map_err(malformed)?;
            if part.is_empty() {
                return Err(ClientError::Malformed { command });
            }
            certificate.extend_from_slice(&part);
        }
        Tpm2b::new(certificate).map_err(malformed)
    }

    /// Writes the certificate of the attestation key (DER), in place of the one that is there; an empty one takes that away.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn set_certificate(&self, certificate: &Tpm2b<MAX_CERTIFICATE>) -> Result<()> {
        let owner: &[&[u8]] = &[&self.owner_auth];
        let handles = [TpmHandle::OWNER.0, CERTIFICATE_INDEX];
        match self.raw((TpmCc::NV_UNDEFINE_SPACE, "TPM2_NV_UndefineSpace"), &handles, owner, &[]) {
            Err(ClientError::Refused { code, .. }) if code.is(ResponseCode::HANDLE) => {}
            other => drop(other?),
        }
        if certificate.is_empty() {
            return Ok(());
        }
        let public = TpmsNvPublic {
            nv_index: TpmHandle(CERTIFICATE_INDEX),
            name_alg: TpmiAlgHash(TpmAlgId::SHA256),
            attributes: TpmaNv::OWNER_WRITE | TpmaNv::OWNER_READ | TpmaNv::AUTH_READ | TpmaNv::NO_DA,
            auth_policy: Tpm2bDigest::empty(),
            data_size: u16::try_from(certificate.len()).unwrap_or(u16::MAX),
        };
        let mut input = Vec::new();
        0u16.encode(&mut input);
        encode_sized_with(&mut input, |o| public.encode(o));
        let define = (TpmCc::NV_DEFINE_SPACE, "TPM2_NV_DefineSpace");
        self.raw(define, &[TpmHandle::OWNER.0], owner, &input)?;
        let mut offset = 0u16;
        for part in certificate.chunks(MAX_NV_BUFFER_SIZE) {
            let mut input = Vec::new();
            encode_sized(part, &mut input);
            offset.encode(&mut input);
            self.raw((TpmCc::NV_WRITE, "TPM2_NV_Write"), &handles, owner, &input)?;
            offset = offset.saturating_add(u16::try_from(part.len()).unwrap_or(u16::MAX));
        }
        Ok(())
    }
}
