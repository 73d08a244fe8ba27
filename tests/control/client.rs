//! A client of a control channel, vtpmd's or swtpm's.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use vmm_sys_util::sock_ctrl_msg::ScmSocket;
use vtpm_protocol::codec::{Encode, Reader};
use vtpm_protocol::control::{BlobType, ControlResult, InitFlags, Request, Response, StateFlags};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{TpmAlgId, TpmCc, TpmHandle, TpmSu};

use crate::common::Raw;

/// A machine at a control channel, with a data channel of its own, as QEMU has it.
pub struct Machine {
    pub control: UnixStream,
    pub data: Raw,
}

impl Machine {
    pub fn connect(socket: &Path) -> Self {
        let control = UnixStream::connect(socket).unwrap();
        control.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let (here, there) = UnixStream::pair().unwrap();
        here.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        control.send_with_fd(&[0u8, 0, 0, 16][..], there.as_raw_fd()).unwrap();
        let mut machine = Self { control, data: Raw(here) };
        assert_eq!(machine.read(4), [0; 4]);
        machine
    }

    fn read(&mut self, length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        self.control.read_exact(&mut out).unwrap();
        out
    }

    /// Sends a request with its content; the response with its own, as they are.
    pub fn ask(&mut self, request: Request, content: &[u8]) -> Vec<u8> {
        self.control.write_all(&[request.to_bytes(), content.to_vec()].concat()).unwrap();
        let mut bytes = self.read(4);
        let result = ControlResult(u32::from_be_bytes(bytes[..].try_into().unwrap()));
        let rest = self.read(Response::length(request.command(), result) - 4);
        bytes.extend(rest);
        let response = Response::decode(request.command(), &mut Reader::new(&bytes)).unwrap();
        let content = self.read(usize::try_from(response.content_length()).unwrap());
        bytes.extend(content);
        bytes
    }

    /// The result of a request.
    pub fn result(&mut self, request: Request) -> u32 {
        u32::from_be_bytes(self.ask(request, &[])[..4].try_into().unwrap())
    }

    /// `CMD_INIT` and `TPM2_Startup(CLEAR)`.
    pub fn boot(&mut self) {
        assert_eq!(self.result(Request::Init(InitFlags(0))), 0);
        let started = self.data.run(TpmCc::STARTUP, &[], None, &TpmSu::CLEAR).unwrap();
        assert_eq!(started.0, ResponseCode::SUCCESS);
    }

    /// The response code of `TPM2_GetRandom`.
    pub fn random(&mut self) -> ResponseCode {
        self.data.run(TpmCc::GET_RANDOM, &[], None, &8u16).unwrap().0
    }

    /// Extends a PCR of SHA-256.
    pub fn extend(&mut self, pcr: u32) {
        let value = (1u32, TpmAlgId::SHA256, [7u8; 32]);
        let done = self.data.run(TpmCc::PCR_EXTEND, &[TpmHandle(pcr)], Some(b""), &value).unwrap();
        assert_eq!(done.0, ResponseCode::SUCCESS);
    }

    /// What a PCR of SHA-256 holds.
    pub fn pcr(&mut self, pcr: u32) -> Vec<u8> {
        let mut selected = [0u8; 3];
        selected[usize::try_from(pcr / 8).unwrap()] = 1 << (pcr % 8);
        let selection = (1u32, TpmAlgId::SHA256, 3u8, selected);
        let (code, read) = self.data.run(TpmCc::PCR_READ, &[], None, &selection).unwrap();
        assert_eq!(code, ResponseCode::SUCCESS);
        read[read.len() - 32..].to_vec()
    }

    /// What QEMU takes along when it migrates: the result, and the permanent blob.
    pub fn state(&mut self) -> (u32, Vec<u8>) {
        let get = |blob| Request::GetStateBlob { flags: StateFlags::DECRYPTED, blob, offset: 0 };
        let bytes = self.ask(get(BlobType::PERMANENT), &[]);
        let result = u32::from_be_bytes(bytes[..4].try_into().unwrap());
        if result == 0 {
            assert_eq!(bytes[4..8], [0, 0, 0, 2], "encrypted");
            for other in [BlobType::VOLATILE, BlobType::SAVESTATE] {
                // No error for QEMU, and nothing to send.
                assert_eq!(self.ask(get(other), &[]), [&[0, 0, 8, 0][..], &[0; 12]].concat());
            }
        }
        (result, bytes[16..].to_vec())
    }

    /// What QEMU does with it at the destination: the result of loading, and that of resuming.
    pub fn arrive(&mut self, state: &[u8]) -> (u32, u32) {
        assert_eq!(self.random(), ResponseCode::FAILURE, "it is off");
        assert_eq!(self.result(Request::Stop), 0);
        assert_eq!(self.result(Request::SetBufferSize(3968)), 0);
        assert_eq!(self.result(Request::Stop), 0);
        let length = state.len().try_into().unwrap();
        let set = Request::SetStateBlob { flags: StateFlags::ENCRYPTED, blob: BlobType::PERMANENT, length };
        let loaded = u32::from_be_bytes(self.ask(set, state)[..4].try_into().unwrap());
        let resumed =
            if loaded == 0 { self.result(Request::Init(InitFlags::DELETE_VOLATILE)) } else { u32::MAX };
        (loaded, resumed)
    }
}

/// A swtpm of the machine's own packages; killed when it is dropped.
pub struct Swtpm {
    child: Child,
    pub control: PathBuf,
}

impl Swtpm {
    /// `None`, with a word about it, where there is none and tests may be skipped.
    pub fn start(dir: &Path) -> Option<Self> {
        let there = |program| Command::new(program).arg("--version").output().is_ok();
        if !there("swtpm") || !there("swtpm_ioctl") {
            let required = std::env::var("VTPMD_QEMU_TESTS").is_ok_and(|v| v == "required");
            assert!(!required, "there is no swtpm; scripts/test installs it");
            eprintln!("skipped: there is no swtpm here");
            return None;
        }
        let (state, control) = (dir.join("swtpm"), dir.join("swtpm.ctrl"));
        std::fs::create_dir(&state).unwrap();
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--tpmstate"])
            .arg(format!("dir={}", state.display()))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}", control.display()))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let swtpm = Self { child, control };
        let until = Instant::now() + Duration::from_secs(20);
        while !swtpm.control.exists() {
            assert!(Instant::now() < until, "swtpm does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(swtpm)
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// Runs swtpm_ioctl on a control channel.
pub fn swtpm_ioctl(socket: &Path, options: &[&str]) -> Output {
    Command::new("swtpm_ioctl").arg("--unix").arg(socket).args(options).stdin(Stdio::null()).output().unwrap()
}
