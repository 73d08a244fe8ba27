//! `swtpm chardev`: TPM commands come from a device, and responses go there.
//!
//! A device has no connections. So it is carried to and from a socket, which is a data channel like any other; with the device, the channel ends.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vtpm_backend::control::Entrance;
use vtpm_backend::device::{MAX_COMMAND_SIZE, MAX_RESPONSE_SIZE};
use vtpm_protocol::control::SendCommand;
use vtpm_protocol::tpm::HEADER_SIZE;
use zeroize::{Zeroize, Zeroizing};

use crate::swtpm::error::{SwtpmError, file};

/// Where Linux makes TPM devices with a program behind them.
const PROXY: &str = "/dev/vtpmx";
/// The device is a TPM 2.0.
const PROXY_TPM2: u32 = 1;
/// Longer than any command, for Linux gives a command whole or not at all.
const ROOM: usize = MAX_COMMAND_SIZE + SendCommand::LENGTH + 1;
/// What stands around a response to a command with a prefix: its length, and a result.
const AROUND: usize = 8;

/// `struct vtpm_proxy_new_dev` of Linux.
#[repr(C)]
#[derive(Default)]
struct NewDevice {
    flags: u32,
    number: u32,
    fd: u32,
    major: u32,
    minor: u32,
}

mod request {
    nix::ioctl_readwrite!(new_device, 0xa1, 0, super::NewDevice);
}

/// A device that commands are read from.
pub(super) struct Device(File);

impl Device {
    /// The one at `path`.
    pub(super) fn open(path: &str) -> Result<Self, SwtpmError> {
        let opened = OpenOptions::new().read(true).write(true).open(path).map_err(file("open", path))?;
        Self::check(opened)
    }

    /// One that was handed down: a character device, or anything else that bytes come from and go to.
    pub(super) fn from_fd(fd: OwnedFd) -> Result<Self, SwtpmError> {
        Self::check(fd.into())
    }

    fn check(device: File) -> Result<Self, SwtpmError> {
        let kind = device.metadata().map_err(file("use", "the device"))?.file_type();
        if kind.is_file() || kind.is_dir() || kind.is_block_device() {
            return Err(SwtpmError::Needs {
                option: "swtpm chardev",
                needs: "a file, directory or block device is no place where commands come from",
            });
        }
        Ok(Self(device))
    }
}

/// Where Linux is asked for a device.
pub(super) struct Proxy(File);

impl Proxy {
    /// Opens it, which takes rights that the program may not have for long.
    pub(super) fn open() -> Result<Self, SwtpmError> {
        let opened = OpenOptions::new().read(true).write(true).open(PROXY).map_err(file("open", PROXY))?;
        Ok(Self(opened))
    }

    /// A new `/dev/tpmN`, whose commands come to us, and the line that tells of it. Linux sends its first commands at once, and has no
    /// patience: the TPM is to be ready.
    pub(super) fn make(self) -> Result<(Device, String), SwtpmError> {
        let failed = || file("make a device of", Path::new(PROXY));
        let mut made = NewDevice { flags: PROXY_TPM2, ..NewDevice::default() };
        // SAFETY: the structure is that of the request, and lives during it.
        #[expect(unsafe_code, reason = "a request of a driver")]
        unsafe { request::new_device(self.0.as_raw_fd(), &raw mut made) }.map_err(|e| failed()(e.into()))?;
        let fd = i32::try_from(made.fd).map_err(|_| failed()(ErrorKind::InvalidData.into()))?;
        // SAFETY: the driver has just opened it for this process, and told nobody else.
        #[expect(unsafe_code, reason = "the driver gives it by its number")]
        let device = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        let NewDevice { number, major, minor, .. } = made;
        let line = format!("New TPM device: /dev/tpm{number} (major/minor = {major}/{minor})\n");
        Ok((Device(device), line))
    }
}

/// A data channel whose commands come from `device`. It ends when the device does.
pub(super) fn channel(device: Device) -> Result<Entrance, SwtpmError> {
    let failed = || file("serve", "the device");
    let (ours, doors) = UnixStream::pair().map_err(failed())?;
    let entrance = Entrance::from_fd(doors.into())?;
    std::thread::Builder::new()
        .name("chardev".into())
        .spawn(move || match carry(&device.0, &ours) {
            Ok(()) => log::info!("the device is gone"),
            Err(e) => log::warn!("the device cannot be served: {e}"),
        })
        .map_err(failed())?;
    Ok(entrance)
}

/// Carries commands to the data channel and responses back until one of the two ends.
fn carry(mut device: &File, mut channel: &UnixStream) -> io::Result<()> {
    let mut command = Zeroizing::new(vec![0; ROOM]);
    let mut response = Zeroizing::new(Vec::with_capacity(MAX_RESPONSE_SIZE.saturating_add(AROUND)));
    // The command that is being executed came with a prefix; so does its response.
    let mut prefixed = false;
    // Of the next command nothing has come.
    let mut fresh = true;
    loop {
        let mut fds =
            [PollFd::new(device.as_fd(), PollFlags::POLLIN), PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            other => other?,
        };
        let [spoken, answered] = fds.map(|fd| fd.any().unwrap_or(true));
        if answered {
            let begun = response.len();
            response.resize(begun.saturating_add(MAX_RESPONSE_SIZE), 0);
            let got = channel.read(response.get_mut(begun..).unwrap_or_default())?;
            response.truncate(begun.saturating_add(got));
            if got == 0 {
                return Ok(());
            }
            if is_whole(&response, prefixed) {
                device.write_all(&response)?;
                response.zeroize();
                fresh = true;
            }
        }
        if spoken {
            let got = match device.read(&mut command) {
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                // As a terminal says that nobody is at its other end.
                Err(e) if e.raw_os_error() == Some(libc::EIO) => 0,
                other => other?,
            };
            let come = command.get_mut(..got).unwrap_or_default();
            if come.is_empty() {
                return Ok(());
            }
            if std::mem::take(&mut fresh) {
                prefixed = come.first_chunk().is_some_and(|b| u32::from_be_bytes(*b) == SendCommand::NUMBER);
            }
            channel.write_all(come)?;
            come.zeroize();
        }
    }
}

/// A device is given a response with one write.
fn is_whole(response: &[u8], prefixed: bool) -> bool {
    let number = |from: usize| {
        let bytes = response.get(from..)?.first_chunk()?;
        usize::try_from(u32::from_be_bytes(*bytes)).ok()
    };
    let length = if prefixed { number(0).map(|n| n.saturating_add(AROUND)) } else { number(2) };
    length.is_some_and(|length| response.len() >= length.max(HEADER_SIZE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_written_when_it_is_whole() {
        let bare = [0x80, 1, 0, 0, 0, 12, 0, 0, 0, 0, 7, 7];
        let framed = [&[0, 0, 0, 12][..], &bare, &[0; 4]].concat();
        for (response, prefixed) in [(&bare[..], false), (&framed, true)] {
            for cut in 0..response.len() {
                assert!(!is_whole(&response[..cut], prefixed), "{cut}");
            }
            assert!(is_whole(response, prefixed));
        }
    }

    #[test]
    fn files_are_no_devices() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "").unwrap();
        for wrong in [path, dir.path().to_owned(), "/nonexistent".into()] {
            assert!(Device::open(wrong.to_str().unwrap()).is_err(), "{wrong:?}");
        }
        assert!(Device::open("/dev/null").is_ok());
    }
}
