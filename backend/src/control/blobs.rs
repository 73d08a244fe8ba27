//! The state on its way from or to QEMU: our migration stream in the permanent blob, and no other blobs.

use std::io::{self, Write};

use vtpm_protocol::control::{BlobType, ControlResult, Response, StateFlags};

use super::channel::{Broken, Channel, Content, deadline};
use super::door::Shared;
use crate::device::DeviceError;

/// The longest blob: as long as a migration stream can be.
pub(super) const MAX_BLOB: usize = 64 << 20;

/// Collects a stream, up to its longest.
#[derive(Default)]
struct Collector(Vec<u8>);

impl Write for Collector {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len().saturating_add(bytes.len()) > MAX_BLOB {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// For the operator's log, with the cause.
fn sentence(error: &DeviceError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

impl Shared {
    /// `CMD_GET_STATEBLOB`: the response, and what follows it. QEMU asks for the permanent blob first, and gives the migration up when it
    /// does not get it; the others are told not to be there.
    pub(super) fn give_blob(&self, blob: BlobType, offset: u32) -> (Response, Vec<u8>) {
        let nothing = |result| {
            let flags = StateFlags::default();
            (Response::StateBlob { result, flags, total: 0, length: 0 }, Vec::new())
        };
        let mut machine = self.machine();
        if !machine.running {
            return nothing(ControlResult::BAD_ORDINAL);
        }
        match blob {
            BlobType::PERMANENT => {}
            BlobType::VOLATILE => return nothing(ControlResult::RETRY),
            BlobType::SAVESTATE => {
                if machine.exported.take().is_some() {
                    self.device.has_left();
                }
                return nothing(ControlResult::RETRY);
            }
            _ => return nothing(ControlResult::FAIL),
        }
        if offset == 0 {
            let name = &self.options.name;
            let mut stream = Collector::default();
            if let Err(error) = self.device.save_unannounced(&mut stream) {
                log::error!(instance:% = name; "{name}: the state is not given out: {}", sentence(&error));
                return nothing(ControlResult::FAIL);
            }
            log::info!(instance:% = name; "{name}: the state was given out, {} bytes", stream.0.len());
            machine.has_left(stream.0);
        }
        let Some(stream) = &machine.exported else { return nothing(ControlResult::FAIL) };
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = stream.get(from..).unwrap_or_default().to_vec();
        let length = u32::try_from(rest.len()).unwrap_or(u32::MAX);
        let flags = StateFlags::ENCRYPTED;
        (Response::StateBlob { result: ControlResult::SUCCESS, flags, total: length, length }, rest)
    }

    /// `CMD_SET_STATEBLOB`, with `come` of its content. The client writes all before it reads the response, so all is read.
    ///
    /// # Errors
    /// [`Broken`], when the blob does not come to its end.
    pub(super) fn take_blob(
        &self,
        blob: BlobType,
        length: u32,
        come: &[u8],
        channel: &Channel,
    ) -> Result<ControlResult, Broken> {
        let name = &self.options.name;
        if usize::try_from(length).is_ok_and(|length| length > MAX_BLOB) {
            log::warn!(instance:% = name; "{name}: a state of {length} bytes is too long");
            return Err(Broken::Io(io::ErrorKind::FileTooLarge.into()));
        }
        let mut content = Content::new(come, length, channel, deadline(self.options.transfer_timeout));
        let mut machine = self.machine();
        let result = if machine.running {
            ControlResult::BAD_ORDINAL
        } else {
            match blob {
                BlobType::PERMANENT => match self.device.load(&mut content) {
                    Ok(()) => {
                        log::info!(instance:% = name; "{name}: a state of {length} bytes was taken");
                        machine.resumes = true;
                        ControlResult::SUCCESS
                    }
                    Err(error) => {
                        log::error!(instance:% = name; "{name}: a state is not taken: {}", sentence(&error));
                        match error {
                            DeviceError::BadStream(_) => ControlResult::DECRYPT_ERROR,
                            _ => ControlResult::FAIL,
                        }
                    }
                },
                BlobType::VOLATILE | BlobType::SAVESTATE if length == 0 => ControlResult::SUCCESS,
                _ => {
                    log::warn!(instance:% = name; "{name}: a state of {blob} kind is none of ours");
                    ControlResult::BAD_PARAMETER
                }
            }
        };
        drop(machine);
        content.drain()?;
        Ok(result)
    }
}
