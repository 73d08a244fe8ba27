//! A handful of TPM commands as bytes, for a test that must know exactly what goes over the wire.
//!
//! This is not the project's codec on purpose: what the guest sends and expects is written down a second time, from
//! the specification, so that a mistake in the first does not hide in both.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

/// `TPM_ALG_SHA1`
pub const ALG_SHA1: u16 = 0x0004;
/// `TPM_ALG_SHA256`
pub const ALG_SHA256: u16 = 0x000B;
/// `TPM_ALG_SHA384`
pub const ALG_SHA384: u16 = 0x000C;
/// `TPM_ALG_SHA512`
pub const ALG_SHA512: u16 = 0x000D;
/// `TPM_RC_NV_DEFINED`
pub const RC_NV_DEFINED: u32 = 0x14C;
/// `TPM_RC_RETRY`
pub const RC_RETRY: u32 = 0x922;

const ST_NO_SESSIONS: u16 = 0x8001;
const ST_SESSIONS: u16 = 0x8002;
const RH_OWNER: u32 = 0x4000_0001;
const RS_PW: u32 = 0x4000_0009;

const CC_NV_DEFINE_SPACE: u32 = 0x12A;
const CC_NV_INCREMENT: u32 = 0x134;
const CC_NV_READ: u32 = 0x14E;
const CC_GET_RANDOM: u32 = 0x17B;
const CC_PCR_READ: u32 = 0x17E;
const CC_PCR_EXTEND: u32 = 0x182;

/// `TPMA_NV` of the counter: TPM_NT_COUNTER, TPMA_NV_AUTHWRITE, TPMA_NV_AUTHREAD, TPMA_NV_NO_DA.
const COUNTER_ATTRIBUTES: u32 = (1 << 4) | (1 << 2) | (1 << 18) | (1 << 25);

/// What can go wrong with one command.
#[derive(Debug, thiserror::Error)]
pub enum TpmError {
    /// The TPM answered with a response code.
    #[error("response code {0:#x}")]
    Code(u32),
    /// The driver answered with an error.
    #[error("the driver")]
    Io(#[source] io::Error),
    /// The response is not one to this command.
    #[error("malformed response {0}")]
    Malformed(String),
}

/// A TPM behind a character device.
#[derive(Debug)]
pub struct Tpm {
    device: File,
}

impl Tpm {
    /// Opens the device, `/dev/tpm0` as a rule; only one process at a time can.
    ///
    /// # Errors
    /// What opening it says.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { device: OpenOptions::new().read(true).write(true).open(path)? })
    }

    /// Sends one command and returns the whole response, whatever its code.
    ///
    /// # Errors
    /// What the driver says.
    pub fn transmit(&mut self, command: &[u8]) -> io::Result<Vec<u8>> {
        self.device.write_all(command)?;
        let mut response = vec![0; 4096];
        let length = self.device.read(&mut response)?;
        response.truncate(length);
        Ok(response)
    }

    fn execute(&mut self, command: &Command) -> Result<Vec<u8>, TpmError> {
        let response = self.transmit(&command.bytes()).map_err(TpmError::Io)?;
        let malformed = || TpmError::Malformed(hex::encode(&response));
        let mut fields = Reader(&response);
        let tag = fields.u16().ok_or_else(malformed)?;
        let length = fields.u32().ok_or_else(malformed)?;
        let code = fields.u32().ok_or_else(malformed)?;
        if usize::try_from(length) != Ok(response.len()) {
            return Err(malformed());
        }
        if code != 0 {
            return Err(TpmError::Code(code));
        }
        if tag != command.tag() {
            return Err(malformed());
        }
        if tag == ST_SESSIONS {
            let size = fields.u32().and_then(|size| usize::try_from(size).ok()).ok_or_else(malformed)?;
            return fields.0.get(..size).map(<[u8]>::to_vec).ok_or_else(malformed);
        }
        Ok(fields.0.to_vec())
    }

    /// `TPM2_PCR_Extend` of a SHA-256 digest.
    ///
    /// # Errors
    /// See [`TpmError`].
    pub fn pcr_extend(&mut self, pcr: u32, digest: &[u8; 32]) -> Result<(), TpmError> {
        let mut command = Command::with_password(CC_PCR_EXTEND, &[pcr]);
        command.u32(1).u16(ALG_SHA256).raw(digest);
        self.execute(&command).map(drop)
    }

    /// `TPM2_PCR_Read` of one PCR of one bank. Empty: the TPM does not have that bank.
    ///
    /// # Errors
    /// See [`TpmError`].
    pub fn pcr_read(&mut self, bank: u16, pcr: u32) -> Result<Vec<u8>, TpmError> {
        let mut select = [0u8; 3];
        if let Some(byte) = usize::try_from(pcr / 8).ok().and_then(|index| select.get_mut(index)) {
            *byte = 1 << (pcr % 8);
        }
        let mut command = Command::plain(CC_PCR_READ);
        command.u32(1).u16(bank).raw(&[3]).raw(&select);
        let parameters = self.execute(&command)?;
        let malformed = || TpmError::Malformed(hex::encode(&parameters));
        let mut fields = Reader(&parameters);
        fields.u32().ok_or_else(malformed)?; // update counter
        let selections = fields.u32().ok_or_else(malformed)?;
        for _ in 0..selections {
            fields.u16().ok_or_else(malformed)?;
            let size = fields.u8().ok_or_else(malformed)?;
            fields.take(usize::from(size)).ok_or_else(malformed)?;
        }
        match fields.u32().ok_or_else(malformed)? {
            0 => Ok(Vec::new()),
            1 => fields.sized().ok_or_else(malformed),
            _ => Err(malformed()),
        }
    }

    /// `TPM2_GetRandom`.
    ///
    /// # Errors
    /// See [`TpmError`].
    pub fn get_random(&mut self, count: u16) -> Result<Vec<u8>, TpmError> {
        let mut command = Command::plain(CC_GET_RANDOM);
        command.u16(count);
        let parameters = self.execute(&command)?;
        Reader(&parameters).sized().ok_or_else(|| TpmError::Malformed(hex::encode(&parameters)))
    }

    /// `TPM2_NV_DefineSpace` of a counter that is used with an empty password; one that exists already is fine.
    ///
    /// # Errors
    /// See [`TpmError`].
    pub fn define_counter(&mut self, index: u32) -> Result<(), TpmError> {
        let mut public = Command::default();
        public.u32(index).u16(ALG_SHA256).u32(COUNTER_ATTRIBUTES).u16(0).u16(8);
        let mut command = Command::with_password(CC_NV_DEFINE_SPACE, &[RH_OWNER]);
        command.u16(0).sized(&public.parameters);
        match self.execute(&command) {
            Ok(_) | Err(TpmError::Code(RC_NV_DEFINED)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// `TPM2_NV_Increment`.
    ///
    /// # Errors
    /// See [`TpmError`].
    pub fn increment(&mut self, index: u32) -> Result<(), TpmError> {
        self.execute(&Command::with_password(CC_NV_INCREMENT, &[index, index])).map(drop)
    }

    /// `TPM2_NV_Read` of a counter.
    ///
    /// # Errors
    /// See [`TpmError`].
    pub fn read_counter(&mut self, index: u32) -> Result<u64, TpmError> {
        let mut command = Command::with_password(CC_NV_READ, &[index, index]);
        command.u16(8).u16(0);
        let parameters = self.execute(&command)?;
        let value = Reader(&parameters).sized().and_then(|value| value.try_into().ok());
        value.map(u64::from_be_bytes).ok_or_else(|| TpmError::Malformed(hex::encode(&parameters)))
    }
}

/// A command under construction.
#[derive(Default)]
struct Command {
    code: u32,
    handles: Vec<u32>,
    password: bool,
    parameters: Vec<u8>,
}

impl Command {
    fn plain(code: u32) -> Self {
        Self { code, ..Self::default() }
    }

    /// The first handle is authorized with an empty password.
    fn with_password(code: u32, handles: &[u32]) -> Self {
        Self { code, handles: handles.to_vec(), password: true, ..Self::default() }
    }

    fn tag(&self) -> u16 {
        if self.password { ST_SESSIONS } else { ST_NO_SESSIONS }
    }

    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.parameters.extend_from_slice(bytes);
        self
    }

    fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    fn sized(&mut self, bytes: &[u8]) -> &mut Self {
        self.u16(u16::try_from(bytes.len()).unwrap_or(u16::MAX)).raw(bytes)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut rest = Vec::new();
        for handle in &self.handles {
            rest.extend(handle.to_be_bytes());
        }
        if self.password {
            rest.extend(9u32.to_be_bytes());
            rest.extend(RS_PW.to_be_bytes());
            rest.extend([0; 5]); // no nonce, no attributes, no password
        }
        rest.extend(&self.parameters);
        let length = u32::try_from(rest.len().saturating_add(10)).unwrap_or(u32::MAX);
        let mut bytes = self.tag().to_be_bytes().to_vec();
        bytes.extend(length.to_be_bytes());
        bytes.extend(self.code.to_be_bytes());
        bytes.extend(rest);
        bytes
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.first_chunk().copied().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.first_chunk().copied().map(u32::from_be_bytes)
    }

    fn sized(&mut self) -> Option<Vec<u8>> {
        let length = self.u16()?;
        self.take(usize::from(length)).map(<[u8]>::to_vec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn get_random_is_as_part_3_has_it() {
        let mut command = Command::plain(CC_GET_RANDOM);
        command.u16(16);
        assert_eq!(hex::encode(command.bytes()), "80010000000c0000017b0010");
    }

    #[test]
    fn increment_carries_both_handles_and_a_password_session() {
        let command = Command::with_password(CC_NV_INCREMENT, &[0x0180_0100, 0x0180_0100]);
        assert_eq!(
            hex::encode(command.bytes()),
            "80020000001f00000134018001000180010000000009400000090000000000"
        );
    }
}
