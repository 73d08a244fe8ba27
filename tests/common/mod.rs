//! A "host" for the tests of the programs: a state, a running vtpmd, and vtpmctl for it.

#[allow(dead_code, reason = "each program of tests uses a part")]
pub mod command;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use vtpm_protocol::codec::{Encode, encode_sized};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{HEADER_SIZE, TpmCc, TpmHandle, TpmSt};

/// Killed when dropped.
pub struct Host {
    dir: PathBuf,
    child: Option<Child>,
}

impl Host {
    /// A new state below `dir`, and a daemon on it.
    pub fn start(dir: &Path, name: &str) -> Self {
        let mut host = Self::at(dir.join(name));
        let init = host.vtpmd("init").output().unwrap();
        assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
        host.run();
        host
    }

    /// A state at `dir` that is there or still to be made, with no daemon on it.
    pub fn at(dir: PathBuf) -> Self {
        Self { dir, child: None }
    }

    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    pub fn runtime(&self) -> PathBuf {
        self.dir.join("run")
    }

    pub fn vtpmd(&self, command: &str) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_vtpmd"));
        program.arg(command).arg("--state-dir").arg(self.state()).arg("--runtime-dir").arg(self.runtime());
        program.stdin(Stdio::null());
        program
    }

    /// Starts the daemon and waits until it answers.
    pub fn run(&mut self) {
        self.run_with(&[]);
    }

    /// From here on this host takes tickets of the other one, which it calls by the name of its directory.
    pub fn pin(&self, other: &Self) {
        let identity = self.dir.join(format!("{}.identity", other.label()));
        let path = identity.to_str().unwrap();
        other.ctl(&["identity", "export", "--output", path]);
        let fingerprint = other.json(&["identity", "show"])["fingerprint"].as_str().unwrap().to_owned();
        self.ctl(&["peer", "add", &other.label(), "--identity", path, "--fingerprint", &fingerprint]);
    }

    fn label(&self) -> String {
        self.dir.file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// As [`Self::run`], with more arguments.
    pub fn run_with(&mut self, arguments: &[&str]) {
        let mut program = self.vtpmd("run");
        program.args(arguments);
        self.wait_for(program);
    }

    /// As [`Self::run`], after a line of shell that sets the process up.
    pub fn run_under(&mut self, line: &str) {
        let vtpmd = self.vtpmd("run");
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("{line} && exec \"$0\" \"$@\"")).arg(vtpmd.get_program());
        shell.args(vtpmd.get_args()).stdin(Stdio::null());
        self.wait_for(shell);
    }

    /// As [`Self::run`], but as a back end for one device.
    pub fn run_single(&mut self, socket: &Path) {
        let mut program = Command::new(env!("CARGO_BIN_EXE_vtpmd"));
        program.arg("--socket-path").arg(socket).arg("--state-dir").arg(self.state());
        program.arg("--runtime-dir").arg(self.runtime()).stdin(Stdio::null());
        self.wait_for(program);
    }

    fn wait_for(&mut self, program: Command) {
        let ended = self.launch(program);
        assert!(ended.is_none(), "vtpmd ended: {ended:?}");
    }

    /// Starts `program` and waits until it answers, or has ended: how.
    pub fn launch(&mut self, mut program: Command) -> Option<ExitStatus> {
        self.child = Some(program.spawn().unwrap());
        let until = Instant::now() + Duration::from_secs(60);
        while UnixStream::connect(self.runtime().join("root/tpm.sock")).is_err() {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            assert!(Instant::now() < until, "vtpmd does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    /// How the daemon ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().unwrap())
    }

    /// The number of the daemon's process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGTERM; the daemon must end by itself and well.
    pub fn terminate(&mut self) {
        let mut child = self.child.take().unwrap();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert!(child.wait().unwrap().success());
    }

    pub fn ctl_output(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_vtpmctl"))
            .arg("--state-dir")
            .arg(self.state())
            .arg("--runtime-dir")
            .arg(self.runtime())
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// What vtpmctl prints; it must succeed.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let output = self.ctl_output(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What vtpmctl prints with --json.
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.ctl(&[arguments, &["--json"]].concat())).unwrap()
    }

    /// What vtpmctl complains of; it must fail.
    pub fn refused(&self, arguments: &[&str]) -> String {
        let output = self.ctl_output(arguments);
        assert!(!output.status.success(), "{arguments:?} succeeded");
        String::from_utf8(output.stderr).unwrap()
    }

    /// The state of an instance as `vtpmctl info` names it.
    pub fn state_of(&self, name: &str) -> String {
        self.json(&["info", name])["state"].as_str().unwrap().to_owned()
    }

    /// The owner authorization of the root.
    pub fn owner_auth(&self) -> Vec<u8> {
        hex::decode(std::fs::read_to_string(self.state().join("root.auth")).unwrap().trim()).unwrap()
    }

    /// A connection to the raw socket of the root.
    pub fn raw(&self) -> Raw {
        Raw(UnixStream::connect(self.runtime().join("root/tpm.sock")).unwrap())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A raw TPM socket.
pub struct Raw(pub UnixStream);

impl Raw {
    /// Bytes there and back.
    pub fn transmit(&mut self, command: &[u8]) -> std::io::Result<Vec<u8>> {
        self.0.write_all(command)?;
        let mut response = vec![0; HEADER_SIZE];
        self.0.read_exact(&mut response)?;
        let size = u32::from_be_bytes(response[2..6].try_into().unwrap());
        response.resize(usize::try_from(size).unwrap(), 0);
        self.0.read_exact(&mut response[HEADER_SIZE..])?;
        Ok(response)
    }

    /// A command with one password session, or none; its code and what follows the header.
    pub fn run(
        &mut self,
        code: TpmCc,
        handles: &[TpmHandle],
        password: Option<&[u8]>,
        parameters: &dyn Encode,
    ) -> std::io::Result<(ResponseCode, Vec<u8>)> {
        self.run_with(code, handles, password.as_slice(), parameters)
    }

    /// As [`Self::run`], with a password for each of the first handles.
    pub fn run_with(
        &mut self,
        code: TpmCc,
        handles: &[TpmHandle],
        passwords: &[&[u8]],
        parameters: &dyn Encode,
    ) -> std::io::Result<(ResponseCode, Vec<u8>)> {
        let mut body = Vec::new();
        handles.iter().for_each(|h| h.encode(&mut body));
        if !passwords.is_empty() {
            let mut area = Vec::new();
            for password in passwords {
                (TpmHandle::RS_PW, 0u16, 0u8).encode(&mut area);
                encode_sized(password, &mut area);
            }
            u32::try_from(area.len()).unwrap().encode(&mut body);
            body.append(&mut area);
        }
        parameters.encode(&mut body);
        let tag = if passwords.is_empty() { TpmSt::NO_SESSIONS } else { TpmSt::SESSIONS };
        let size = u32::try_from(HEADER_SIZE + body.len()).unwrap();
        let command = [(tag, size, code).to_bytes(), body].concat();
        let response = self.transmit(&command)?;
        let rc = ResponseCode::from_value(u32::from_be_bytes(response[6..10].try_into().unwrap()));
        Ok((rc, response[HEADER_SIZE..].to_vec()))
    }
}
