//! A virtio-tpm device over vhost-user that keeps its TPM elsewhere: every command goes to the data channel of a
//! running swtpm, a machine reset to its control channel. For work on the QEMU device, on the guest's driver, or on the
//! transport alone, and to compare vtpmd with another TPM behind the same door.
//!
//! ```text
//! swtpm socket --tpm2 --tpmstate dir=/tmp/tpm --flags not-need-init \
//!     --server type=unixio,path=/tmp/tpm/data --ctrl type=unixio,path=/tmp/tpm/ctrl &
//! cargo run -p vtpm-backend --example proxy-device -- \
//!     --socket /tmp/vtpm.sock --data /tmp/tpm/data --ctrl /tmp/tpm/ctrl --state /tmp/vtpm.state
//! ```
//!
//! A migration moves the bytes of the state file with a frame around them; the TPM itself stays where it is, so two
//! proxies in front of one swtpm show a guest one TPM before and after. `--refuse-save` and `--refuse-load` make either
//! side of it fail.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Parser;
use vtpm_backend::device::{DeviceError, MAX_RESPONSE_SIZE, TpmDevice};
use vtpm_backend::vhost::{FrontDoor, Options};
use vtpm_protocol::rc::ResponseCode;

/// virtio-tpm over vhost-user in front of a running swtpm.
#[derive(Parser)]
struct Arguments {
    /// The vhost-user socket to listen on.
    #[arg(long)]
    socket: PathBuf,
    /// The data channel of swtpm.
    #[arg(long)]
    data: PathBuf,
    /// The control channel of swtpm; without it a machine reset does not reach the TPM.
    #[arg(long)]
    ctrl: Option<PathBuf>,
    /// The file whose bytes a migration carries; made when it is absent.
    #[arg(long)]
    state: PathBuf,
    /// Fail every save.
    #[arg(long)]
    refuse_save: bool,
    /// Fail every load.
    #[arg(long)]
    refuse_load: bool,
}

/// What a migrated state begins with.
const MAGIC: &[u8; 8] = b"vtpmprox";
/// The longest state that is loaded.
const MAX_STATE: u64 = 1 << 20;
/// swtpm's `CMD_INIT`, with no flags.
const CTRL_INIT: [u8; 8] = [0, 0, 0, 2, 0, 0, 0, 0];
/// A command that takes longer than this has failed. Generating keys is slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// The last command with its slot and response, until the guest has it.
type Last = Option<(u16, Vec<u8>, Vec<u8>)>;

struct Proxy {
    arguments: Arguments,
    last: Mutex<Last>,
}

impl Proxy {
    /// One command, on a connection of its own: swtpm serves one at a time, and two proxies may share it.
    fn transmit(&self, command: &[u8]) -> io::Result<Vec<u8>> {
        let mut tpm = UnixStream::connect(&self.arguments.data)?;
        tpm.set_read_timeout(Some(PATIENCE))?;
        tpm.write_all(command)?;
        let mut header = [0; 10];
        tpm.read_exact(&mut header)?;
        let [_, _, a, b, c, d, ..] = header;
        let rest = usize::try_from(u32::from_be_bytes([a, b, c, d]))
            .ok()
            .filter(|size| *size <= MAX_RESPONSE_SIZE)
            .and_then(|size| size.checked_sub(header.len()))
            .ok_or(io::ErrorKind::InvalidData)?;
        let mut body = vec![0; rest];
        tpm.read_exact(&mut body)?;
        Ok([&header[..], &body].concat())
    }

    fn reset(&self) -> io::Result<()> {
        let Some(ctrl) = &self.arguments.ctrl else {
            log::warn!("a machine reset goes no further: no --ctrl");
            return Ok(());
        };
        let mut ctrl = UnixStream::connect(ctrl)?;
        ctrl.set_read_timeout(Some(PATIENCE))?;
        ctrl.write_all(&CTRL_INIT)?;
        let mut result = [0; 4];
        ctrl.read_exact(&mut result)?;
        match u32::from_be_bytes(result) {
            0 => Ok(()),
            code => Err(io::Error::other(format!("CMD_INIT ended with {code:#x}"))),
        }
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TpmDevice for Proxy {
    fn execute(&self, locality: u8, command: &[u8], slot: Option<u16>) -> Vec<u8> {
        let mut last = self.last();
        if let (Some(slot), Some((old_slot, old_command, response))) = (slot, &*last)
            && slot == *old_slot
            && command == old_command
        {
            log::info!("slot {slot}: answered again, not executed again");
            return response.clone();
        }
        let code = command.get(6..10).unwrap_or_default();
        let response = self.transmit(command).unwrap_or_else(|e| {
            log::error!("the TPM does not answer: {e}");
            let failure = ResponseCode::FAILURE.value().to_be_bytes();
            [&[0x80, 1, 0, 0, 0, 10], &failure[..]].concat()
        });
        log::debug!(
            "slot {slot:?} locality {locality}: command {code:02x?}, {} bytes; response {:02x?}, {} bytes",
            command.len(),
            response.get(6..10).unwrap_or_default(),
            response.len()
        );
        *last = slot.map(|slot| (slot, command.to_vec(), response.clone()));
        response
    }

    fn completed(&self, _slot: u16) {
        *self.last() = None;
    }

    fn queue_stopped(&self) {
        log::info!("the queue stopped");
        *self.last() = None;
    }

    fn machine_reset(&self) {
        log::info!("machine reset");
        *self.last() = None;
        if let Err(e) = self.reset() {
            log::error!("the TPM was not reset: {e}");
        }
    }

    fn run_state(&self, running: bool) {
        log::info!("the machine {}", if running { "runs" } else { "is stopped" });
    }

    fn migration_started(&self, logging: bool) {
        log::info!("dirty logging {}", if logging { "on" } else { "off" });
    }

    fn save(&self, out: &mut dyn Write) -> Result<(), DeviceError> {
        if self.arguments.refuse_save {
            return Err(DeviceError::Refused("--refuse-save was given".into()));
        }
        let state = fs::read(&self.arguments.state).map_err(DeviceError::Io)?;
        let length = u64::try_from(state.len()).unwrap_or(u64::MAX);
        [MAGIC, &length.to_be_bytes(), &state[..]]
            .iter()
            .try_for_each(|part| out.write_all(part))
            .map_err(DeviceError::Io)?;
        log::info!("saved {length} bytes");
        Ok(())
    }

    fn load(&self, input: &mut dyn Read) -> Result<(), DeviceError> {
        if self.arguments.refuse_load {
            return Err(DeviceError::Refused("--refuse-load was given".into()));
        }
        let (mut magic, mut length, mut state) = ([0; 8], [0; 8], Vec::new());
        input.read_exact(&mut magic).map_err(DeviceError::Io)?;
        input.read_exact(&mut length).map_err(DeviceError::Io)?;
        let length = u64::from_be_bytes(length);
        if &magic != MAGIC || length > MAX_STATE {
            return Err(DeviceError::BadStream("the header is wrong".into()));
        }
        input.take(MAX_STATE.saturating_add(1)).read_to_end(&mut state).map_err(DeviceError::Io)?;
        if u64::try_from(state.len()) != Ok(length) {
            return Err(DeviceError::BadStream(format!(
                "{} bytes follow where {length} were announced",
                state.len()
            )));
        }
        fs::write(&self.arguments.state, &state).map_err(DeviceError::Io)?;
        log::info!("loaded {length} bytes");
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let arguments = Arguments::parse();
    if !arguments.state.exists() {
        fs::write(&arguments.state, format!("made by process {}\n", std::process::id()))?;
    }
    let socket = arguments.socket.clone();
    let device = Arc::new(Proxy { arguments, last: Mutex::new(None) });
    let mut door = FrontDoor::bind(&socket, device, Options::new("proxy"))?;
    log::info!("listening on {}", socket.display());
    door.wait();
    Ok(())
}
