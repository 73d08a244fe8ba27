//! The way to the daemon.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use vtpm_protocol::instance::MAX_INSTANCE_COMMAND;
use vtpm_protocol::tpm::HEADER_SIZE;

use super::args::Reach;
use super::{CtlError, Result};
use crate::config::{Config, ConfigArgs};
use crate::daemon::{OwnerAuth, root_socket};
use crate::migration::client::{Client, Transport, TransportError};

/// The raw TPM socket of the root.
pub(super) struct SocketTransport(Mutex<UnixStream>);

impl Transport for SocketTransport {
    fn transmit(&self, command: &[u8]) -> std::result::Result<Vec<u8>, TransportError> {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stream.write_all(command)?;
        let mut response = vec![0; HEADER_SIZE];
        stream.read_exact(&mut response)?;
        let size = match response.get(2..6).and_then(|b| <[u8; 4]>::try_from(b).ok()) {
            Some(bytes) => usize::try_from(u32::from_be_bytes(bytes)).unwrap_or(usize::MAX),
            None => 0,
        };
        if !(HEADER_SIZE..=MAX_INSTANCE_COMMAND).contains(&size) {
            return Err(io::Error::from(io::ErrorKind::InvalidData).into());
        }
        response.resize(size, 0);
        if let Some(rest) = response.get_mut(HEADER_SIZE..) {
            stream.read_exact(rest)?;
        }
        Ok(response)
    }
}

impl Reach {
    fn load(&self) -> Result<Config> {
        let args = ConfigArgs {
            config: self.config.clone(),
            state_dir: self.state_dir.clone(),
            runtime_dir: self.runtime_dir.clone(),
            ..ConfigArgs::default()
        };
        Ok(args.load()?)
    }

    /// The directory of the sockets.
    pub(super) fn runtime_dir(&self) -> Result<PathBuf> {
        Ok(self.load()?.runtime_dir)
    }

    /// A client of the root.
    pub(super) fn connect(&self) -> Result<Client<SocketTransport>> {
        let config = self.load()?;
        let owner = match &self.auth_file {
            Some(path) => OwnerAuth::read(path)?,
            None => OwnerAuth::load(&config.state_dir)?,
        };
        let path = root_socket(&config.runtime_dir);
        match UnixStream::connect(&path) {
            Ok(stream) => Ok(Client::new(SocketTransport(Mutex::new(stream)), owner.into_bytes())),
            Err(source) => Err(CtlError::Connect { path, source }),
        }
    }
}
