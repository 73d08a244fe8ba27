//! A swtpm of Debian, and its state directory.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use vtpm_engine::foreign::Foreign;
use vtpm_engine::{Change, CommitFailed, Environment, Tpm};
use vtpm_protocol::tpm::HEADER_SIZE;
use vtpmd::foreign::{FileKey, StateDir};
use zeroize::Zeroizing;

use crate::chip::Chip;

/// A running swtpm; killed when dropped.
pub struct Swtpm {
    child: Child,
    stream: UnixStream,
}

/// A directory that a swtpm keeps its state in.
pub struct Source {
    dir: tempfile::TempDir,
    arguments: Vec<String>,
    file: Option<String>,
}

impl Source {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("state")).unwrap();
        Self { dir, arguments: Vec::new(), file: None }
    }

    /// With its state in a file in place of a directory.
    pub fn in_file(self, file: &str) -> Self {
        Self { file: Some(file.to_owned()), ..self }
    }

    /// With more arguments for every swtpm on it.
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&a| a.to_owned()));
        self
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// A file beside the state.
    pub fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub fn permall(&self) -> PathBuf {
        self.path().join("tpm2-00.permall")
    }

    pub fn start(&self) -> Swtpm {
        let (data, control) = (self.dir.path().join("data"), self.dir.path().join("control"));
        let _old = (std::fs::remove_file(&data), std::fs::remove_file(&control));
        let mut program = Command::new("swtpm");
        program.args(["socket", "--tpm2", "--flags", "not-need-init"]);
        let directory = format!("dir={}", self.path().display());
        let place = self.file.as_ref().map_or(directory, |file| format!("backend-uri=file://{file}"));
        program.arg("--tpmstate").arg(place);
        program.arg("--server").arg(format!("type=unixio,path={}", data.display()));
        program.arg("--ctrl").arg(format!("type=unixio,path={}", control.display()));
        program.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = program.spawn().expect("swtpm of Debian is needed: apt install swtpm swtpm-tools");
        let until = Instant::now() + Duration::from_secs(30);
        let stream = loop {
            if let Ok(stream) = UnixStream::connect(&data) {
                break stream;
            }
            assert!(child.try_wait().unwrap().is_none(), "swtpm ended");
            assert!(Instant::now() < until, "swtpm does not answer");
            std::thread::sleep(Duration::from_millis(5));
        };
        Swtpm { child, stream }
    }

    /// What a swtpm, started anew, is told to do; it is stopped afterwards.
    pub fn boot<T>(&self, f: impl FnOnce(&mut Chip<'_>) -> T) -> T {
        let mut swtpm = self.start();
        let mut chip = swtpm.chip();
        chip.startup();
        f(&mut chip)
    }

    /// The state, decrypted.
    pub fn state(&self, key: Option<&FileKey>) -> Zeroizing<Vec<u8>> {
        StateDir::open(&self.path()).unwrap().read(key).unwrap()
    }

    /// The TPM, taken over.
    pub fn adopt(&self) -> Ours {
        Ours::new(&self.state(None))
    }
}

impl Swtpm {
    pub fn chip(&mut self) -> Chip<'_> {
        Chip(Box::new(|command| {
            self.stream.write_all(command).unwrap();
            let mut response = vec![0; HEADER_SIZE];
            self.stream.read_exact(&mut response).unwrap();
            let size = u32::from_be_bytes(response[2..6].try_into().unwrap());
            response.resize(size as usize, 0);
            self.stream.read_exact(&mut response[HEADER_SIZE..]).unwrap();
            response
        }))
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A TPM of ours, without a daemon around it.
pub struct Ours {
    tpm: Tpm,
    world: World,
}

struct World {
    random: std::fs::File,
    start: Instant,
}

impl Environment for World {
    fn fill_random(&mut self, out: &mut [u8]) {
        self.random.read_exact(out).unwrap();
    }

    fn now_ms(&mut self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap()
    }

    fn commit(&mut self, _: Vec<Change>, _: &[u8]) -> Result<(), CommitFailed> {
        Ok(())
    }
}

impl Ours {
    pub fn new(state: &[u8]) -> Self {
        let foreign = Foreign::read(state).unwrap_or_else(|error| panic!("{}", vtpmd::sentence(&error)));
        let random = std::fs::File::open("/dev/urandom").unwrap();
        let mut world = World { random, start: Instant::now() };
        let tpm = Tpm::adopt(foreign, &mut world).unwrap();
        // What is saved of it is what there is.
        let tpm = Tpm::from_records(&tpm.records()).unwrap();
        Self { tpm, world }
    }

    pub fn chip(&mut self) -> Chip<'_> {
        Chip(Box::new(|command| self.tpm.execute(&mut self.world, 0, command)))
    }

    /// A machine reset.
    pub fn reset(&mut self) {
        self.tpm.init(&mut self.world).unwrap();
    }
}
