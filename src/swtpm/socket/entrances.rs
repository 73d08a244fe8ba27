//! The channels of a TPM, as the command line names them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::Path;

use nix::unistd::{Group, User};
use vtpm_backend::control::{Access, Entrance};

use super::arguments::{Arguments, Interface};
use super::device::{self, Device};
use crate::swtpm::error::{SwtpmError, file};
use crate::swtpm::process::take_fd;
use crate::swtpm::suboptions::SubOptions;

/// The mode of a UNIX socket unless another is said.
const SOCKET_MODE: u32 = 0o770;
const SERVER: &[&str] =
    &["type", "path", "port", "bindaddr", "ifname", "fd", "disconnect", "mode", "uid", "gid"];
const CONTROL: &[&str] =
    &["type", "path", "port", "bindaddr", "ifname", "fd", "clientfd", "mode", "uid", "gid", "terminate"];

/// The channels, and what ends the program.
pub(super) struct Entrances {
    pub(super) control: Option<Entrance>,
    pub(super) data: Option<Entrance>,
    pub(super) disconnect: bool,
    pub(super) end_with_data: bool,
    pub(super) end_with_control: bool,
}

impl Entrances {
    /// Opens the channels, with the descriptors that were handed down and the device that is open; one that is still to be made is no channel
    /// yet. To be called once.
    pub(super) fn open(arguments: &Arguments, device: Option<Device>) -> Result<Self, SwtpmError> {
        let mut all = Self {
            control: None,
            data: None,
            disconnect: false,
            end_with_data: arguments.terminate,
            end_with_control: false,
        };
        match arguments.interface {
            Interface::Chardev => {
                let device = match (device, arguments.fd) {
                    (Some(device), _) => Some(device),
                    (None, Some(fd)) => Some(Device::from_fd(take_fd(fd)?)?),
                    (None, None) if arguments.proxy => None,
                    (None, None) => {
                        return Err(SwtpmError::Needs {
                            option: "swtpm chardev",
                            needs: "--chardev, --fd or --vtpm-proxy is needed",
                        });
                    }
                };
                all.data = device.map(device::channel).transpose()?;
                all.end_with_data = true;
            }
            Interface::Socket => all.data(arguments)?,
        }
        if let Some(text) = &arguments.control {
            let sub = SubOptions::parse("--ctrl", CONTROL, text)?;
            all.end_with_control = sub.flag("terminate")?;
            if sub.text("type").is_none() {
                return Err(sub.needs("type= is needed"));
            }
            all.control = Some(open(&sub, "unixio")?);
        }
        if all.control.is_none() && all.data.is_none() && !arguments.proxy {
            return Err(SwtpmError::Needs {
                option: "swtpm socket",
                needs: "--ctrl, --server, --port or --fd is needed",
            });
        }
        Ok(all)
    }

    fn data(&mut self, arguments: &Arguments) -> Result<(), SwtpmError> {
        if let Some(fd) = arguments.fd {
            self.data = Some(Entrance::from_fd(take_fd(fd)?)?);
            self.end_with_data = true;
        } else if let Some(text) = &arguments.server {
            let sub = SubOptions::parse("--server", SERVER, text)?;
            self.disconnect = sub.flag("disconnect")?;
            let data = open(&sub, "tcp")?;
            self.end_with_data |= !data.listens();
            self.data = Some(data);
        }
        Ok(())
    }
}

fn open(sub: &SubOptions, usual: &'static str) -> Result<Entrance, SwtpmError> {
    let kind = sub.text("type").unwrap_or(usual);
    if !matches!(kind, "tcp" | "unixio") {
        return Err(sub.wrong("type", kind));
    }
    if sub.text("fd").is_some() && sub.text("clientfd").is_some() {
        return Err(sub.needs("one of fd= and clientfd= is enough"));
    }
    for name in ["fd", "clientfd"] {
        if let Some(fd) = sub.descriptor(name)? {
            return Ok(Entrance::from_fd(take_fd(fd)?)?);
        }
    }
    if kind == "unixio" {
        let path = sub.text("path").ok_or_else(|| sub.needs("path= or fd= is needed"))?;
        let mode = Some(sub.mode("mode")?.unwrap_or(SOCKET_MODE));
        return Ok(Entrance::bind_unix(
            Path::new(path),
            Access { user: user(sub)?, group: group(sub)?, mode },
        )?);
    }
    let port = sub.number("port")?.ok_or_else(|| sub.needs("port= or fd= is needed"))?;
    let address: IpAddr = sub.number("bindaddr")?.unwrap_or(IpAddr::from([127, 0, 0, 1]));
    let address = match (address, sub.text("ifname")) {
        (IpAddr::V6(address), Some(name)) => scoped(sub, address, port, name)?,
        (IpAddr::V4(_), Some(_)) => return Err(sub.needs("ifname= is for addresses of IPv6")),
        (IpAddr::V6(address), None) if address.is_unicast_link_local() => {
            return Err(sub.needs("ifname= is needed with a link-local address"));
        }
        (address, None) => SocketAddr::new(address, port),
    };
    Ok(Entrance::bind_tcp(address)?)
}

/// Whose the socket is, by number or name.
fn user(sub: &SubOptions) -> Result<Option<u32>, SwtpmError> {
    let Some(text) = sub.text("uid") else { return Ok(None) };
    let named = || User::from_name(text).ok().flatten().map(|user| user.uid.as_raw());
    text.parse().ok().or_else(named).map(Some).ok_or_else(|| sub.wrong("uid", text))
}

/// As [`user`].
fn group(sub: &SubOptions) -> Result<Option<u32>, SwtpmError> {
    let Some(text) = sub.text("gid") else { return Ok(None) };
    let named = || Group::from_name(text).ok().flatten().map(|group| group.gid.as_raw());
    text.parse().ok().or_else(named).map(Some).ok_or_else(|| sub.wrong("gid", text))
}

/// A link-local address belongs to an interface.
fn scoped(sub: &SubOptions, address: Ipv6Addr, port: u16, name: &str) -> Result<SocketAddr, SwtpmError> {
    if name.contains('/') {
        return Err(sub.wrong("ifname", name));
    }
    let path = Path::new("/sys/class/net").join(name).join("ifindex");
    let index = std::fs::read_to_string(&path).map_err(file("read", path))?;
    let index = index.trim().parse().map_err(|_| sub.wrong("ifname", name))?;
    Ok(SocketAddrV6::new(address, port, 0, index).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_need_what_they_are_made_of() {
        for (interface, line) in [
            (Interface::Socket, &["--tpm2"][..]),
            (Interface::Socket, &["--ctrl", "path=/x"]),
            (Interface::Socket, &["--ctrl", "type=unixio"]),
            (Interface::Socket, &["--ctrl", "type=unixio,fd=77,clientfd=78"]),
            (Interface::Socket, &["--ctrl", "type=unixio,path=/x,uid=no such user"]),
            (Interface::Socket, &["--ctrl", "type=unixio,path=/x,gid=no such group"]),
            (Interface::Socket, &["--ctrl", "type=tcp"]),
            (Interface::Socket, &["--ctrl", "type=vsock,port=1"]),
            (Interface::Socket, &["--server", "type=tcp,bindaddr=nowhere,port=1"]),
            (Interface::Socket, &["--server", "port=1,ifname=lo"]),
            (Interface::Socket, &["--server", "port=1,bindaddr=fe80::1"]),
            (Interface::Chardev, &["--tpm2"]),
            (Interface::Chardev, &["--fd", "77"]),
        ] {
            let arguments = Arguments::parse(interface, line.iter().map(Into::into)).unwrap();
            assert!(Entrances::open(&arguments, None).is_err(), "{line:?}");
        }
    }
}
