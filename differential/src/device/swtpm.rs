//! swtpm, a process behind two UNIX sockets: one for commands, one for what the platform does.

use super::{Device, Died};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The messages of the control channel that are used here.
const CMD_INIT: u32 = 2;
const CMD_SET_LOCALITY: u32 = 5;
const CMD_HASH_START: u32 = 6;
const CMD_HASH_DATA: u32 = 7;
const CMD_HASH_END: u32 = 8;

/// How long a command may take: key generation on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running swtpm with a state of its own. It ends with the value.
pub struct Swtpm {
    process: Child,
    data: UnixStream,
    control: UnixStream,
    directory: TempDir,
}

fn connect(path: &Path, process: &mut Child) -> Result<UnixStream, Died> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE)).map_err(|e| Died(e.to_string()))?;
                return Ok(stream);
            }
            Err(e) => {
                let ended = process.try_wait().ok().flatten();
                if ended.is_some() || Instant::now() > deadline {
                    return Err(Died(format!("swtpm does not start: {e}, {ended:?}")));
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

impl Swtpm {
    /// A new one, before Startup.
    ///
    /// # Errors
    /// [`Died`], with what to install when there is no swtpm.
    pub fn start() -> Result<Self, Died> {
        let directory = TempDir::new().map_err(|e| Died(e.to_string()))?;
        let at = |name: &str| directory.path().join(name).display().to_string();
        fs::create_dir(at("state")).map_err(|e| Died(e.to_string()))?;
        let log = fs::File::create(at("log")).map_err(|e| Died(e.to_string()))?;
        let mut process = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init", "--tpmstate", &format!("dir={}", at("state"))])
            .args(["--server", &format!("type=unixio,path={}", at("data"))])
            .args(["--ctrl", &format!("type=unixio,path={}", at("control"))])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|e| {
                Died(format!("cannot run swtpm, the oracle of these tests ({e}): install it with `apt-get install swtpm`"))
            })?;
        let streams = connect(&directory.path().join("data"), &mut process)
            .and_then(|data| Ok((data, connect(&directory.path().join("control"), &mut process)?)));
        match streams {
            Ok((data, control)) => Ok(Self { process, data, control, directory }),
            Err(e) => {
                drop(process.kill());
                drop(process.wait());
                Err(e)
            }
        }
    }

    fn died(&self, e: &std::io::Error) -> Died {
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        Died(format!("swtpm: {e}; its log: {}", log.trim()))
    }

    fn control(&mut self, message: &[u8]) -> Result<(), Died> {
        let mut result = [0; 4];
        let exchanged = self.control.write_all(message).and_then(|()| self.control.read_exact(&mut result));
        exchanged.map_err(|e| self.died(&e))?;
        if result == [0; 4] {
            Ok(())
        } else {
            Err(Died(format!("swtpm refuses {message:02x?}: {result:02x?}")))
        }
    }

    fn exchange(&mut self, command: &[u8]) -> std::io::Result<Vec<u8>> {
        self.data.write_all(command)?;
        let mut response = vec![0; 10];
        self.data.read_exact(&mut response)?;
        let size = crate::bytes::u32_at(&response, 2) as usize;
        response.resize(size.max(10), 0);
        self.data.read_exact(&mut response[10..])?;
        Ok(response)
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Device for Swtpm {
    fn execute(&mut self, command: &[u8]) -> Result<Vec<u8>, Died> {
        self.exchange(command).map_err(|e| self.died(&e))
    }

    fn power_cycle(&mut self) -> Result<(), Died> {
        self.control(&[CMD_INIT.to_be_bytes(), [0; 4]].concat())
    }

    fn set_locality(&mut self, locality: u8) -> Result<(), Died> {
        self.control(&[&CMD_SET_LOCALITY.to_be_bytes()[..], &[locality]].concat())
    }

    fn measure(&mut self, data: &[u8]) -> Result<(), Died> {
        self.control(&CMD_HASH_START.to_be_bytes())?;
        let size = (data.len() as u32).to_be_bytes();
        self.control(&[&CMD_HASH_DATA.to_be_bytes()[..], &size, data].concat())?;
        self.control(&CMD_HASH_END.to_be_bytes())
    }
}
