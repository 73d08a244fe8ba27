//! The command line of `swtpm socket`.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::Path;

use vtpm_backend::control::{Access, Entrance};
use vtpm_protocol::tpm::TpmSu;

use crate::swtpm::error::{SwtpmError, file};
use crate::swtpm::options::{Parser, Spec, Takes};
use crate::swtpm::process::take_fd;
use crate::swtpm::seccomp::Action;
use crate::swtpm::suboptions::SubOptions;
use crate::tree::PROFILE;

/// The mode of a UNIX socket unless another is said.
const SOCKET_MODE: u32 = 0o770;

pub(super) const PROGRAM_HELP: &str = "\
Usage: swtpm socket [options]
       swtpm --version | --help

One TPM 2.0 in one process, of vtpmd. `swtpm socket --help` prints the options.
";

pub(super) const HELP: &str = "\
Usage: swtpm socket --tpm2 [options]

-d|--daemon            go into the background when the TPM is served
-f|--fd <fd>           TPM commands come over this connected socket
-p|--port <port>       as --server type=tcp,port=<port>,disconnect
-t|--terminate         end when the connection with TPM commands ends
-r|--runas <user>      become this user
--tpm2                 a TPM 2.0; there is no other
--tpmstate dir=<dir>|backend-uri=dir://<dir>[,mode=<mode>][,lock][,fsync]
                       where the state is; mode is that of the database
--ctrl type=unixio,path=<path>[,mode=<mode>][,uid=<uid>][,gid=<gid>][,terminate]
--ctrl type=tcp,port=<port>[,bindaddr=<address>[,ifname=<name>]][,terminate]
--ctrl type=unixio|tcp,fd=<fd>|clientfd=<fd>[,terminate]
                       the control channel; terminate ends with its client
--server type=unixio,path=<path>[,mode=<mode>][,uid=<uid>][,gid=<gid>]
--server [type=tcp],port=<port>[,bindaddr=<address>[,ifname=<name>]]
--server fd=<fd>       a socket for TPM commands; ,disconnect ends a connection
                       with its first response
--key file=<path>|fd=<fd>[,mode=aes-128-cbc|aes-256-cbc][,format=hex|binary]
--key pwdfile=<path>|pwdfd=<fd>[,mode=...][,kdf=pbkdf2|sha512]
                       the key of the state; ,remove removes the file
--migration-key ...    as --key; a state that leaves is encrypted with or without
--locality [reject-locality-4][,allow-set-locality]
--flags [not-need-init][,startup-clear|startup-state|startup-none]
        [,disable-auto-shutdown]
--log file=<path>|fd=<fd>[,level=<n>][,prefix=<text>][,truncate]
                       file=- logs nothing
--pid file=<path>|fd=<fd>
--seccomp action=kill|log|none
                       what becomes of a process that makes a system call which
                       a TPM does not make; kill without it
--profile name=vtpmd   there are no other profiles
--print-capabilities, --print-states, --print-profiles, --print-info <flags>
-h|--help
";

/// What is printed instead of serving.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ask {
    Help,
    Capabilities,
    States,
    Profiles,
    Info(u64),
}

/// The command line, as far as it can be read without opening anything.
#[derive(Default)]
pub(super) struct Arguments {
    pub(super) ask: Option<Ask>,
    pub(super) daemon: bool,
    terminate: bool,
    pub(super) tpm2: bool,
    pub(super) run_as: Option<String>,
    pub(super) state: Option<String>,
    pub(super) key: Option<String>,
    pub(super) migration_key: Option<String>,
    pub(super) log: Option<String>,
    pub(super) pid: Option<String>,
    control: Option<String>,
    server: Option<String>,
    fd: Option<i32>,
    pub(super) running: bool,
    pub(super) startup: Option<TpmSu>,
    pub(super) auto_shutdown: bool,
    pub(super) reject_locality_4: bool,
    pub(super) allow_set_locality: bool,
    pub(super) seccomp: Action,
}

/// The channels, and what ends the program.
pub(super) struct Entrances {
    pub(super) control: Option<Entrance>,
    pub(super) data: Option<Entrance>,
    pub(super) disconnect: bool,
    pub(super) end_with_data: bool,
    pub(super) end_with_control: bool,
}

#[derive(Clone, Copy)]
enum Id {
    Daemon,
    Help,
    Port,
    Fd,
    Server,
    RunAs,
    Chroot,
    Terminate,
    Locality,
    Log,
    Key,
    MigrationKey,
    Pid,
    State,
    Control,
    Flags,
    Tpm2,
    Seccomp,
    Migration,
    Capabilities,
    States,
    Profile,
    Profiles,
    Info,
    Pcap,
}

const fn both(name: &'static str, short: char, takes: Takes, id: Id) -> Spec<Id> {
    Spec { name, short: Some(short), takes, id }
}

const OPTIONS: &[Spec<Id>] = &[
    both("daemon", 'd', Takes::Nothing, Id::Daemon),
    both("help", 'h', Takes::Nothing, Id::Help),
    both("port", 'p', Takes::Value, Id::Port),
    both("fd", 'f', Takes::Value, Id::Fd),
    Spec::value("server", Id::Server),
    both("runas", 'r', Takes::Value, Id::RunAs),
    both("chroot", 'R', Takes::Value, Id::Chroot),
    both("terminate", 't', Takes::Nothing, Id::Terminate),
    Spec::value("locality", Id::Locality),
    Spec::value("log", Id::Log),
    Spec::value("key", Id::Key),
    Spec::value("migration-key", Id::MigrationKey),
    Spec::value("pid", Id::Pid),
    Spec::value("tpmstate", Id::State),
    Spec::value("ctrl", Id::Control),
    Spec::value("flags", Id::Flags),
    Spec::flag("tpm2", Id::Tpm2),
    Spec::value("seccomp", Id::Seccomp),
    Spec::value("migration", Id::Migration),
    Spec::flag("print-capabilities", Id::Capabilities),
    Spec::flag("print-states", Id::States),
    Spec::value("profile", Id::Profile),
    Spec::flag("print-profiles", Id::Profiles),
    Spec::value("print-info", Id::Info),
    Spec::value("pcap", Id::Pcap),
];

fn unsupported(option: &str, reason: &'static str) -> SwtpmError {
    SwtpmError::Unsupported { option: option.to_owned(), reason }
}

fn wrong(option: &'static str, value: String) -> SwtpmError {
    SwtpmError::Value { option, name: "the option", value }
}

impl Arguments {
    /// Reads the arguments behind `socket`.
    pub(super) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, SwtpmError> {
        let mut parser = Parser::new(OPTIONS, false, arguments)?;
        let mut read = Self { auto_shutdown: true, ..Self::default() };
        while let Some((id, value)) = parser.next_option()? {
            let value = value.unwrap_or_default();
            match id {
                Id::Daemon => read.daemon = true,
                Id::Help => read.ask = Some(Ask::Help),
                Id::Port => {
                    let port: u16 = value.parse().map_err(|_| wrong("--port", value))?;
                    read.server = Some(format!("type=tcp,port={port},disconnect"));
                }
                Id::Fd => read.fd = Some(value.parse().map_err(|_| wrong("--fd", value))?),
                Id::Server => read.server = Some(value),
                Id::RunAs => read.run_as = Some(value),
                Id::Chroot => {
                    return Err(unsupported("--chroot", "a unit of systemd does it with RootDirectory="));
                }
                Id::Terminate => read.terminate = true,
                Id::Locality => read.locality(&value)?,
                Id::Log => read.log = Some(value),
                Id::Key => read.key = Some(value),
                Id::MigrationKey => read.migration_key = Some(value),
                Id::Pid => read.pid = Some(value),
                Id::State => read.state = Some(value),
                Id::Control => read.control = Some(value),
                Id::Flags => read.flags(&value)?,
                Id::Tpm2 => read.tpm2 = true,
                Id::Seccomp => read.seccomp = Action::parse(&value)?,
                Id::Migration => {
                    return Err(unsupported(
                        "--migration",
                        "a TPM arrives and leaves with a ticket of vtpmctl",
                    ));
                }
                Id::Capabilities => read.ask = Some(Ask::Capabilities),
                Id::States => read.ask = Some(Ask::States),
                Id::Profile => profile(&value)?,
                Id::Profiles => read.ask = Some(Ask::Profiles),
                Id::Info => read.ask = Some(Ask::Info(info_flags(value)?)),
                Id::Pcap => return Err(unsupported("--pcap", "TPM commands hold secrets of the guest")),
            }
        }
        match parser.others.into_iter().next() {
            Some(other) => Err(SwtpmError::Parameter(other)),
            None => Ok(read),
        }
    }

    fn locality(&mut self, value: &str) -> Result<(), SwtpmError> {
        let sub = SubOptions::parse("--locality", &["reject-locality-4", "allow-set-locality"], value)?;
        self.reject_locality_4 = sub.flag("reject-locality-4")?;
        self.allow_set_locality = sub.flag("allow-set-locality")?;
        Ok(())
    }

    fn flags(&mut self, value: &str) -> Result<(), SwtpmError> {
        const NAMES: &[&str] = &[
            "not-need-init",
            "startup-none",
            "startup-clear",
            "startup-state",
            "startup-deactivated",
            "disable-auto-shutdown",
        ];
        let sub = SubOptions::parse("--flags", NAMES, value)?;
        if sub.flag("startup-deactivated")? {
            return Err(sub.unsupported("startup-deactivated", "only TPM 1.2 can be deactivated"));
        }
        self.startup = None;
        if !sub.flag("startup-none")? {
            for (name, kind) in [("startup-state", TpmSu::STATE), ("startup-clear", TpmSu::CLEAR)] {
                if sub.flag(name)? {
                    self.startup = Some(kind);
                }
            }
        }
        // A TPM that is started is one that is on.
        self.running = sub.flag("not-need-init")? || self.startup.is_some();
        self.auto_shutdown = !sub.flag("disable-auto-shutdown")?;
        Ok(())
    }

    /// Opens the channels, with the descriptors that were handed down. To be called once.
    pub(super) fn entrances(&self) -> Result<Entrances, SwtpmError> {
        let mut all = Entrances {
            control: None,
            data: None,
            disconnect: false,
            end_with_data: self.terminate,
            end_with_control: false,
        };
        if let Some(fd) = self.fd {
            all.data = Some(Entrance::from_fd(take_fd(fd)?)?);
            all.end_with_data = true;
        } else if let Some(text) = &self.server {
            const NAMES: &[&str] =
                &["type", "path", "port", "bindaddr", "ifname", "fd", "disconnect", "mode", "uid", "gid"];
            let sub = SubOptions::parse("--server", NAMES, text)?;
            all.disconnect = sub.flag("disconnect")?;
            all.end_with_data |= sub.text("fd").is_some();
            all.data = Some(open(&sub, "tcp")?);
        }
        if let Some(text) = &self.control {
            const NAMES: &[&str] = &[
                "type",
                "path",
                "port",
                "bindaddr",
                "ifname",
                "fd",
                "clientfd",
                "mode",
                "uid",
                "gid",
                "terminate",
            ];
            let sub = SubOptions::parse("--ctrl", NAMES, text)?;
            all.end_with_control = sub.flag("terminate")?;
            if sub.text("type").is_none() {
                return Err(sub.needs("type= is needed"));
            }
            all.control = Some(open(&sub, "unixio")?);
        }
        if all.control.is_none() && all.data.is_none() {
            return Err(SwtpmError::Needs {
                option: "swtpm socket",
                needs: "--ctrl, --server or --fd is needed",
            });
        }
        Ok(all)
    }
}

fn open(sub: &SubOptions, usual: &'static str) -> Result<Entrance, SwtpmError> {
    let kind = sub.text("type").unwrap_or(usual);
    if !matches!(kind, "tcp" | "unixio") {
        return Err(sub.wrong("type", kind));
    }
    for name in ["fd", "clientfd"] {
        if let Some(fd) = sub.descriptor(name)? {
            return Ok(Entrance::from_fd(take_fd(fd)?)?);
        }
    }
    if kind == "unixio" {
        let path = sub.text("path").ok_or_else(|| sub.needs("path= or fd= is needed"))?;
        let mode = Some(sub.mode("mode")?.unwrap_or(SOCKET_MODE));
        let access = Access { user: sub.number("uid")?, group: sub.number("gid")?, mode };
        return Ok(Entrance::bind_unix(Path::new(path), access)?);
    }
    let port = sub.number("port")?.ok_or_else(|| sub.needs("port= or fd= is needed"))?;
    let address: IpAddr = sub.number("bindaddr")?.unwrap_or(IpAddr::from([127, 0, 0, 1]));
    let address = match (address, sub.text("ifname")) {
        (IpAddr::V6(address), Some(name)) => scoped(sub, address, port, name)?,
        (IpAddr::V4(_), Some(_)) => return Err(sub.needs("ifname= is for addresses of IPv6")),
        (address, None) => SocketAddr::new(address, port),
    };
    Ok(Entrance::bind_tcp(address)?)
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

fn profile(value: &str) -> Result<(), SwtpmError> {
    let sub = SubOptions::parse("--profile", &["name", "profile", "file", "fd", "remove-disabled"], value)?;
    match sub.text("name") {
        Some(PROFILE) => Ok(()),
        Some(other) => Err(sub.wrong("name", other)),
        None => Err(sub.unsupported("", "there is one profile, name=vtpmd")),
    }
}

fn info_flags(value: String) -> Result<u64, SwtpmError> {
    let (digits, base) = value.strip_prefix("0x").map_or((value.as_str(), 10), |digits| (digits, 16));
    u64::from_str_radix(digits, base).map_err(|_| wrong("--print-info", value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> Result<Arguments, String> {
        Arguments::parse(line.iter().map(OsString::from)).map_err(|e| e.to_string())
    }

    #[test]
    fn flags_switch_the_tpm_on_and_start_it() {
        for (flags, running, startup) in [
            ("not-need-init", true, None),
            ("startup-clear", true, Some(TpmSu::CLEAR)),
            ("not-need-init,startup-state", true, Some(TpmSu::STATE)),
            ("startup-none", false, None),
        ] {
            let read = parse(&["--flags", flags]).unwrap();
            assert_eq!((read.running, read.startup), (running, startup), "{flags}");
        }
        assert!(!parse(&["--flags", "disable-auto-shutdown"]).unwrap().auto_shutdown);
    }

    #[test]
    fn what_is_not_done_is_refused_with_its_reason() {
        for (line, word) in [
            (&["--flags", "startup-deactivated"][..], "1.2"),
            (&["--migration", "incoming"], "ticket"),
            (&["--seccomp", "action=trap"], "trap"),
            (&["--chroot", "/x"], "RootDirectory"),
            (&["--pcap", "file=x"], "secrets"),
            (&["--profile", "name=default-v2"], "default-v2"),
            (&["--profile", "profile={}"], "name=vtpmd"),
            (&["--unknown"], "--unknown"),
            (&["--tpm2", "extra"], "extra"),
            (&["--flags", "init"], "init"),
            (&["--port", "70000"], "70000"),
        ] {
            let error = parse(line).err().unwrap();
            assert!(error.contains(word), "{error}");
        }
        assert!(parse(&["--seccomp", "action=none", "--profile", "name=vtpmd"]).is_ok());
    }

    #[test]
    fn channels_need_what_they_are_made_of() {
        for line in [
            &["--tpm2"][..],
            &["--ctrl", "path=/x"],
            &["--ctrl", "type=unixio"],
            &["--ctrl", "type=tcp"],
            &["--ctrl", "type=vsock,port=1"],
            &["--server", "type=tcp,bindaddr=nowhere,port=1"],
            &["--server", "port=1,ifname=lo"],
        ] {
            assert!(parse(line).unwrap().entrances().is_err(), "{line:?}");
        }
    }
}
