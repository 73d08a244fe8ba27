//! What the door knows of the machine: whether its TPM is on, at which locality it speaks, how much fits its buffer.

use std::sync::atomic::Ordering;

use vtpm_protocol::codec::Encode;
use vtpm_protocol::control::InitFlags;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{HEADER_SIZE, TpmCc, TpmSt, TpmSu};

use super::door::Shared;
use crate::device::{DeviceError, MAX_COMMAND_SIZE};

/// The smallest buffer that can be chosen: that of libtpms 0.9, into which every command and response of a TPM 2.0 fits.
pub(super) const MIN_BUFFER: u32 = 2808;
/// The largest one, which is the one in use as long as nobody chooses.
#[expect(clippy::cast_possible_truncation, reason = "4096")]
pub(super) const MAX_BUFFER: u32 = MAX_COMMAND_SIZE as u32;
/// The highest locality.
pub(super) const MAX_LOCALITY: u8 = 4;
/// The command of swtpm that chooses a locality on the data channel, where that is allowed.
const SET_LOCALITY: u32 = 0x2000_1000;

/// The machine of a door.
pub(super) struct Machine {
    /// The TPM is switched on.
    pub(super) running: bool,
    /// Where its commands come from.
    pub(super) locality: u8,
    /// How long a command and a response may be.
    pub(super) buffer: u32,
    /// The next `CMD_INIT` resumes the TPM as it is: a migration brought it, or `CMD_STORE_VOLATILE` kept it. Any command ends this.
    pub(super) resumes: bool,
    /// The code of the last command since the TPM was switched on.
    pub(super) last_command: Option<u32>,
    /// The migration stream that was given out last, for those who read it in parts.
    pub(super) exported: Option<Vec<u8>>,
}

impl Machine {
    pub(super) fn new(running: bool) -> Self {
        Self { running, locality: 0, buffer: MAX_BUFFER, resumes: false, last_command: None, exported: None }
    }

    /// The state has left: nothing may be sent to the TPM on the machine's behalf.
    pub(super) fn has_left(&mut self, stream: Vec<u8>) {
        self.exported = Some(stream);
        self.last_command = None;
    }
}

/// A response that says nothing but a code.
pub(super) fn bare(code: ResponseCode) -> Vec<u8> {
    (TpmSt::NO_SESSIONS, 10u32, code.value()).to_bytes()
}

/// The command code, or the response code.
fn code_of(bytes: &[u8]) -> Option<u32> {
    bytes.get(6..10).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes)
}

impl Shared {
    /// Switches the TPM on; off before, if it was on.
    pub(super) fn power_on(&self, flags: InitFlags) -> Result<(), DeviceError> {
        let mut machine = self.machine();
        self.shut_down(&mut machine);
        machine.running = false;
        machine.exported = None;
        if machine.resumes {
            machine.resumes = !flags.contains(InitFlags::DELETE_VOLATILE);
            log::info!(instance:% = self.options.name; "{}: the TPM goes on where it was", self.options.name);
        } else {
            self.device.power_on()?;
        }
        machine.running = true;
        machine.last_command = None;
        Ok(())
    }

    /// Switches the TPM off.
    pub(super) fn power_off(&self) {
        let mut machine = self.machine();
        self.shut_down(&mut machine);
        machine.running = false;
        machine.exported = None;
    }

    /// The machine is gone, with what it was about to do.
    pub(super) fn machine_gone(&self) {
        let mut machine = self.machine();
        self.shut_down(&mut machine);
        *machine = Machine::new(self.options.running);
    }

    /// `TPM2_Shutdown`, for a machine that was switched off or reset without it: a TPM that was in use takes its lack for an attack on
    /// the authorizations that it protects.
    fn shut_down(&self, machine: &mut Machine) {
        if !self.options.auto_shutdown || !machine.running {
            return;
        }
        match machine.last_command.take() {
            None => return,
            Some(code) if code == TpmCc::SHUTDOWN.0 => return,
            Some(_) => {}
        }
        for kind in [TpmSu::STATE, TpmSu::CLEAR] {
            let command = (TpmSt::NO_SESSIONS, 12u32, TpmCc::SHUTDOWN, kind).to_bytes();
            let answer = code_of(&self.device.execute(0, &command, None));
            if [ResponseCode::SUCCESS, ResponseCode::INITIALIZE].iter().any(|c| answer == Some(c.value())) {
                return;
            }
        }
    }

    /// Executes what came over a data channel; `locality` is what a prefix says.
    pub(super) fn execute(&self, locality: Option<u8>, command: &[u8]) -> Vec<u8> {
        let mut machine = self.machine();
        if let Some(locality) = locality {
            if !self.options.allows(locality) {
                return bare(ResponseCode::LOCALITY);
            }
            machine.locality = locality;
        }
        let fits = |bytes: &[u8]| u32::try_from(bytes.len()).is_ok_and(|length| length <= machine.buffer);
        if command.len() < HEADER_SIZE || !fits(command) {
            return bare(ResponseCode::COMMAND_SIZE);
        }
        let code = code_of(command);
        if self.options.allow_set_locality && code == Some(SET_LOCALITY) {
            return match command.get(HEADER_SIZE) {
                Some(&locality) if self.options.allows(locality) => {
                    machine.locality = locality;
                    bare(ResponseCode::SUCCESS)
                }
                Some(_) => bare(ResponseCode::LOCALITY),
                None => bare(ResponseCode::COMMAND_SIZE),
            };
        }
        if !machine.running {
            return bare(ResponseCode::FAILURE);
        }
        machine.resumes = false;
        machine.last_command = code;
        self.executing.store(true, Ordering::Release);
        let response = self.device.execute(machine.locality, command, None);
        self.executing.store(false, Ordering::Release);
        if response.len() < HEADER_SIZE
            || response.len() > usize::try_from(machine.buffer).unwrap_or(usize::MAX)
        {
            return bare(ResponseCode::NO_RESULT);
        }
        response
    }
}
