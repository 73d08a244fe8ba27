//! Indices for the tests of the NV commands.

use crate::crypto::HashAlg;
use crate::testing::TestTpm;
use vtpm_protocol::codec::{Decode, Encode};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    Sized2b, Tpm2bAuth, Tpm2bDigest, Tpm2bMaxNvBuffer, TpmAlgId, TpmCc, TpmHandle, TpmSu, TpmaNv,
    TpmiAlgHash, TpmsNvPublic,
};

/// The index of most tests.
pub const INDEX: TpmHandle = TpmHandle(0x0150_0001);
/// Owner and index may read and write.
pub const OPEN: TpmaNv =
    TpmaNv(TpmaNv::OWNER_WRITE.0 | TpmaNv::OWNER_READ.0 | TpmaNv::AUTH_WRITE.0 | TpmaNv::AUTH_READ.0);

/// A public area with SHA-256 and no policy.
pub fn public(index: TpmHandle, attributes: TpmaNv, data_size: u16) -> TpmsNvPublic {
    TpmsNvPublic {
        nv_index: index,
        name_alg: TpmiAlgHash(TpmAlgId::SHA256),
        attributes,
        auth_policy: Tpm2bDigest::empty(),
        data_size,
    }
}

/// `TPM2_NV_DefineSpace` by `auth` with an index password.
pub fn define(
    tpm: &mut TestTpm,
    auth: TpmHandle,
    password: &[u8],
    public: TpmsNvPublic,
) -> Result<(), ResponseCode> {
    let parameters = (Tpm2bAuth::new(password).unwrap(), Sized2b(public));
    tpm.run_with(TpmCc::NV_DEFINE_SPACE, &[auth], &[b""], &parameters).map(|_| ())
}

/// `TPM2_NV_Write` of [`INDEX`].
pub fn write(
    tpm: &mut TestTpm,
    auth: TpmHandle,
    password: &[u8],
    data: &[u8],
    offset: u16,
) -> Result<(), ResponseCode> {
    let parameters = (Tpm2bMaxNvBuffer::new(data).unwrap(), offset);
    tpm.run_with(TpmCc::NV_WRITE, &[auth, INDEX], &[password], &parameters).map(|_| ())
}

/// `TPM2_NV_Read` of [`INDEX`].
pub fn read(
    tpm: &mut TestTpm,
    auth: TpmHandle,
    password: &[u8],
    size: u16,
    offset: u16,
) -> Result<Vec<u8>, ResponseCode> {
    let (_, out) = tpm.run_with(TpmCc::NV_READ, &[auth, INDEX], &[password], &(size, offset))?;
    Ok(Tpm2bMaxNvBuffer::decode(&mut vtpm_protocol::codec::Reader::new(&out)).unwrap().to_vec())
}

/// The attributes of [`INDEX`] as they are now.
pub fn attributes(tpm: &mut TestTpm) -> TpmaNv {
    tpm.state().nv_index(INDEX).unwrap().public.attributes
}

/// Sets or clears attributes of [`INDEX`] behind the TPM's back, as a lock command would.
pub fn set_attribute(tpm: &mut TestTpm, attribute: TpmaNv, on: bool) {
    let index = tpm.state().nv_index_mut(INDEX).unwrap();
    index.public.attributes = index.public.attributes.with(attribute, on);
    tpm.resave();
}

/// The machine starts anew after a `TPM2_Shutdown`, or without one.
pub fn boot(tpm: &mut TestTpm, shutdown: Option<TpmSu>, startup: TpmSu) {
    if let Some(kind) = shutdown {
        tpm.run(TpmCc::SHUTDOWN, &[], &kind).unwrap();
    }
    tpm.init();
    tpm.run(TpmCc::STARTUP, &[], &startup).unwrap();
}

/// The policy that is `TPM2_PolicyCommandCode` alone.
pub fn policy_for(code: TpmCc) -> Tpm2bDigest {
    let digest =
        HashAlg::Sha256.digest(&[&[0; 32], &TpmCc::POLICY_COMMAND_CODE.to_bytes(), &code.to_bytes()]);
    Tpm2bDigest::new(digest.as_slice()).unwrap()
}
