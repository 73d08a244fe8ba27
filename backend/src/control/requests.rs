//! What is answered to each request.

use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::sys::socket::{SockType, SockaddrStorage, getpeername, getsockopt, sockopt};
use vtpm_protocol::codec::Encode;
use vtpm_protocol::control::{Capabilities, ControlResult, MAX_INFO_PART, Request, Response};

use super::channel::{Broken, Channel, Content, Message, deadline};
use super::door::{ControlEvent, Shared};
use super::machine::{MAX_BUFFER, MAX_LOCALITY, MIN_BUFFER};
use crate::device::DeviceError;

/// Between two attempts to lock the storage, as swtpm has it.
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// The most that is waited for a lock, however many attempts are asked for; QEMU asks for as much.
const MAX_LOCK_WAIT: Duration = Duration::from_secs(3);

/// Every command there is.
const CAPABILITIES: Capabilities = Capabilities((1 << 17) - 1);

/// What a request leads to.
pub(super) struct Answer {
    pub(super) bytes: Vec<u8>,
    /// The data channel from now on.
    pub(super) data: Option<Channel>,
    /// What the owner of the door is to be told when the response is on its way.
    pub(super) event: Option<ControlEvent>,
    /// The connection ends with it, for this reason.
    pub(super) end: Option<&'static str>,
}

impl Answer {
    fn new(response: Response) -> Self {
        Self { bytes: response.to_bytes(), data: None, event: None, end: None }
    }

    fn result(result: ControlResult) -> Self {
        Self::new(Response::Result(result))
    }

    fn content(response: Response, content: &[u8]) -> Self {
        let mut answer = Self::new(response);
        answer.bytes.extend_from_slice(content);
        answer
    }
}

impl Shared {
    /// Answers one request. `data` tells whether there is a data channel.
    ///
    /// # Errors
    /// [`Broken`], when its content does not come to its end.
    pub(super) fn answer(&self, message: Message, channel: &Channel, data: bool) -> Result<Answer, Broken> {
        let Message { request, content, passed } = message;
        // Cloud Hypervisor passes its standard input along with every request; what nobody asked for is closed.
        Ok(match request {
            Request::GetCapability => Answer::new(Response::Capability(CAPABILITIES)),
            Request::Init(flags) => Answer::result(self.told("CMD_INIT", self.power_on(flags))),
            Request::Shutdown => {
                self.power_off();
                let event = Some(ControlEvent::Shutdown);
                Answer { event, ..Answer::result(ControlResult::SUCCESS) }
            }
            Request::Stop => {
                self.power_off();
                Answer::result(ControlResult::SUCCESS)
            }
            // Cloud Hypervisor asks before it switches the TPM on.
            Request::GetTpmEstablished => Answer::new(Response::TpmEstablished(self.device.is_established())),
            Request::SetLocality(locality) => Answer::result(if self.options.allows(locality) {
                self.machine().locality = locality;
                ControlResult::SUCCESS
            } else {
                ControlResult::BAD_LOCALITY
            }),
            Request::ResetTpmEstablished(locality) => Answer::result(self.running(|| {
                if locality > MAX_LOCALITY {
                    return ControlResult::BAD_LOCALITY;
                }
                match self.device.reset_established(locality) {
                    Ok(true) => ControlResult::SUCCESS,
                    Ok(false) => ControlResult::BAD_LOCALITY,
                    Err(error) => self.told("CMD_RESET_TPMESTABLISHED", Err(error)),
                }
            })),
            Request::HashStart => {
                Answer::result(self.running(|| self.told("CMD_HASH_START", self.device.hash_start())))
            }
            Request::HashData(length) => Answer::result(self.hash_data(length, &content, channel)?),
            Request::HashEnd => {
                Answer::result(self.running(|| self.told("CMD_HASH_END", self.device.hash_end())))
            }
            Request::CancelTpmCmd => Answer::result(self.cancel()),
            Request::StoreVolatile => {
                let mut machine = self.machine();
                machine.resumes |= machine.running;
                let running = machine.running;
                Answer::result(if running { ControlResult::SUCCESS } else { ControlResult::BAD_ORDINAL })
            }
            Request::GetStateBlob { flags: _, blob, offset } => {
                let (response, content) = self.give_blob(blob, offset);
                Answer::content(response, &content)
            }
            Request::SetStateBlob { flags: _, blob, length } => {
                Answer::result(self.take_blob(blob, length, &content, channel)?)
            }
            Request::GetConfig => Answer::new(Response::Config(self.options.config)),
            Request::SetDataFd => self.set_data_fd(passed, data),
            Request::SetBufferSize(wanted) => self.set_buffer_size(wanted),
            Request::GetInfo { flags, offset } => {
                let mut text = self.device.info(flags).into_bytes();
                text.push(0);
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                match text.get(from..).filter(|rest| rest.len() > 1) {
                    None => Answer::result(ControlResult::BAD_PARAMETER),
                    Some(rest) => {
                        let part = rest.get(..MAX_INFO_PART).unwrap_or(rest);
                        let number = |n| u32::try_from(n).unwrap_or(u32::MAX);
                        let (total, length) = (number(text.len()), number(part.len()));
                        Answer::content(Response::Info { total, length }, part)
                    }
                }
            }
            Request::LockStorage(retries) => {
                self.machine().exported = None;
                let patience = LOCK_PAUSE.saturating_mul(retries).min(MAX_LOCK_WAIT);
                Answer::result(if self.device.machine_resumed(patience) {
                    ControlResult::SUCCESS
                } else {
                    log::error!(instance:% = self.options.name; "{}: the machine runs here again, but its TPM has no receipt yet that it may",
                        self.options.name);
                    ControlResult::FAIL
                })
            }
        })
    }

    /// The result of something that the device may refuse; the log says why.
    fn told(&self, what: &str, done: Result<(), DeviceError>) -> ControlResult {
        match done {
            Ok(()) => ControlResult::SUCCESS,
            Err(error) => {
                log::error!(instance:% = self.options.name; "{}: {what}: {error}", self.options.name);
                ControlResult::FAIL
            }
        }
    }

    /// Does what only a TPM does that is switched on.
    fn running(&self, work: impl FnOnce() -> ControlResult) -> ControlResult {
        let machine = self.machine();
        if machine.running { work() } else { ControlResult::BAD_ORDINAL }
    }

    fn hash_data(&self, length: u32, come: &[u8], channel: &Channel) -> Result<ControlResult, Broken> {
        let mut content = Content::new(come, length, channel, deadline(self.options.transfer_timeout));
        let result = self.running(|| {
            let mut part = [0; 4096];
            while let Ok(got @ 1..) = content.read(&mut part) {
                let done = self.device.hash_data(part.get(..got).unwrap_or_default());
                if done.is_err() {
                    return self.told("CMD_HASH_DATA", done);
                }
            }
            ControlResult::SUCCESS
        });
        content.drain()?;
        Ok(result)
    }

    /// Does not wait for the command that it is about.
    fn cancel(&self) -> ControlResult {
        if self.executing.load(Ordering::Acquire) {
            self.device.cancel();
            return ControlResult::SUCCESS;
        }
        self.running(|| ControlResult::SUCCESS)
    }

    fn set_data_fd(&self, passed: Option<OwnedFd>, data: bool) -> Answer {
        if data {
            log::warn!(instance:% = self.options.name; "{}: a second data channel is refused", self.options.name);
            return Answer::result(ControlResult::IO_ERROR);
        }
        match passed.ok_or("CMD_SET_DATAFD came without a descriptor").and_then(serveable) {
            Ok(channel) => Answer { data: Some(channel), ..Answer::result(ControlResult::SUCCESS) },
            Err(why) => Answer { end: Some(why), ..Answer::result(ControlResult::BAD_PARAMETER) },
        }
    }

    fn set_buffer_size(&self, wanted: u32) -> Answer {
        let mut machine = self.machine();
        if wanted > 0 {
            if machine.running {
                return Answer::result(ControlResult::BAD_ORDINAL);
            }
            machine.buffer = wanted.clamp(MIN_BUFFER, MAX_BUFFER);
        }
        Answer::new(Response::BufferSize { size: machine.buffer, min: MIN_BUFFER, max: MAX_BUFFER })
    }
}

/// A descriptor as a data channel: a stream socket with somebody at its other end.
fn serveable(descriptor: OwnedFd) -> Result<Channel, &'static str> {
    const WRONG: &str = "the descriptor of CMD_SET_DATAFD is no connected stream socket";
    if getsockopt(&descriptor, sockopt::SockType) != Ok(SockType::Stream)
        || getpeername::<SockaddrStorage>(descriptor.as_raw_fd()).is_err()
    {
        return Err(WRONG);
    }
    Channel::new(descriptor).map_err(|_| WRONG)
}
