//! The command lines of `swtpm socket` and `swtpm chardev`.

use std::ffi::OsString;

use vtpm_protocol::tpm::TpmSu;

use crate::swtpm::error::SwtpmError;
use crate::swtpm::options::{Parser, Spec, Takes};
use crate::swtpm::seccomp::Action;
use crate::swtpm::suboptions::SubOptions;
use crate::tree::PROFILE;

pub(super) const PROGRAM_HELP: &str = "\
Usage: swtpm socket|chardev [options]
       swtpm -v|--version | --help

One TPM 2.0 in one process, of vtpmd. `swtpm socket --help` and `swtpm chardev
--help` print the options.
";

const SOCKET_HELP: &str = "\
Usage: swtpm socket --tpm2 [options]

-f|--fd <fd>           TPM commands come over this connected socket
-p|--port <port>       as --server type=tcp,port=<port>,disconnect
-t|--terminate         end when the connection with TPM commands ends
--server type=unixio,path=<path>[,mode=<mode>][,uid=<uid>][,gid=<gid>]
--server [type=tcp],port=<port>[,bindaddr=<address>[,ifname=<name>]]
--server fd=<fd>       a socket for TPM commands; ,disconnect ends a connection
                       with its first response
";

const CHARDEV_HELP: &str = "\
Usage: swtpm chardev --tpm2 [options]

-c|--chardev <device>  TPM commands come from this device
-f|--fd <fd>           or from this descriptor
--vtpm-proxy           or from a new device, /dev/tpm<n>, which Linux makes; its
                       name goes to standard output. The TPM is on and started
";

const HELP: &str = "\
-d|--daemon            go into the background when the TPM is served
-r|--runas <user>      become this user
-R|--chroot <dir>      this directory is the root of all paths
--tpm2                 a TPM 2.0; there is no other
--tpmstate dir=<dir>|backend-uri=dir://<dir>|backend-uri=file://<file or block device>
           [,mode=<mode>][,lock][,fsync]
                       where the state is; mode is that of the database
--ctrl type=unixio,path=<path>[,mode=<mode>][,uid=<uid>][,gid=<gid>][,terminate]
--ctrl type=tcp,port=<port>[,bindaddr=<address>[,ifname=<name>]][,terminate]
--ctrl type=unixio|tcp,fd=<fd>|clientfd=<fd>[,terminate]
                       the control channel; terminate ends with its client
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
--migration [incoming][,release-lock-outgoing]
                       the state is opened when the TPM arrives, and closed
                       when it has left, for hosts that share the directory
--seccomp action=kill|log|none
                       what becomes of a process that makes a system call which
                       a TPM does not make; kill without it
--profile name=vtpmd   there are no other profiles
--print-capabilities, --print-states, --print-profiles, --print-info <flags>
-h|--help
";

/// Where TPM commands come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Interface {
    #[default]
    Socket,
    Chardev,
}

impl Interface {
    /// The text that `--help` prints.
    pub(super) fn help(self) -> String {
        let own = match self {
            Self::Socket => SOCKET_HELP,
            Self::Chardev => CHARDEV_HELP,
        };
        format!("{own}{HELP}")
    }

    fn options(self) -> Vec<Spec<Id>> {
        let mut options = match self {
            Self::Socket => vec![
                both("port", 'p', Takes::Value, Id::Port),
                Spec::value("server", Id::Server),
                both("terminate", 't', Takes::Nothing, Id::Terminate),
            ],
            Self::Chardev => {
                vec![both("chardev", 'c', Takes::Value, Id::Chardev), Spec::flag("vtpm-proxy", Id::Proxy)]
            }
        };
        options.extend([
            both("daemon", 'd', Takes::Nothing, Id::Daemon),
            both("help", 'h', Takes::Nothing, Id::Help),
            both("fd", 'f', Takes::Value, Id::Fd),
            both("runas", 'r', Takes::Value, Id::RunAs),
            both("chroot", 'R', Takes::Value, Id::Chroot),
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
        ]);
        options
    }
}

/// What `--migration` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Migration {
    /// The state is opened when the TPM arrives.
    pub(super) incoming: bool,
    /// The state is closed when the TPM has left.
    pub(super) release_lock_outgoing: bool,
}

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
    pub(super) interface: Interface,
    pub(super) ask: Option<Ask>,
    pub(super) daemon: bool,
    pub(super) terminate: bool,
    pub(super) tpm2: bool,
    pub(super) run_as: Option<String>,
    pub(super) state: Option<String>,
    pub(super) key: Option<String>,
    pub(super) migration_key: Option<String>,
    pub(super) log: Option<String>,
    pub(super) pid: Option<String>,
    pub(super) control: Option<String>,
    pub(super) server: Option<String>,
    pub(super) fd: Option<i32>,
    /// The path of a device.
    pub(super) device: Option<String>,
    /// A new device of Linux.
    pub(super) proxy: bool,
    pub(super) root: Option<String>,
    pub(super) running: bool,
    pub(super) startup: Option<TpmSu>,
    pub(super) auto_shutdown: bool,
    pub(super) reject_locality_4: bool,
    pub(super) allow_set_locality: bool,
    pub(super) seccomp: Action,
    pub(super) migration: Option<Migration>,
}

#[derive(Clone, Copy)]
enum Id {
    Daemon,
    Help,
    Port,
    Fd,
    Chardev,
    Proxy,
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

fn unsupported(option: &str, reason: &'static str) -> SwtpmError {
    SwtpmError::Unsupported { option: option.to_owned(), reason }
}

fn wrong(option: &'static str, value: String) -> SwtpmError {
    SwtpmError::Value { option, name: "the option", value }
}

impl Arguments {
    /// Reads the arguments behind `socket` or `chardev`.
    pub(super) fn parse(
        interface: Interface,
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, SwtpmError> {
        let options = interface.options();
        let mut parser = Parser::new(&options, false, arguments)?;
        let mut read = Self { interface, auto_shutdown: true, ..Self::default() };
        let mut flags = None;
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
                Id::Chardev => read.device = Some(value),
                Id::Proxy => read.proxy = true,
                Id::Server => read.server = Some(value),
                Id::RunAs => read.run_as = Some(value),
                Id::Chroot => read.root = Some(value),
                Id::Terminate => read.terminate = true,
                Id::Locality => read.locality(&value)?,
                Id::Log => read.log = Some(value),
                Id::Key => read.key = Some(value),
                Id::MigrationKey => read.migration_key = Some(value),
                Id::Pid => read.pid = Some(value),
                Id::State => read.state = Some(value),
                Id::Control => read.control = Some(value),
                Id::Flags => flags = Some(value),
                Id::Tpm2 => read.tpm2 = true,
                Id::Seccomp => read.seccomp = Action::parse(&value)?,
                Id::Migration => read.migration = Some(migration(&value)?),
                Id::Capabilities => read.ask = Some(Ask::Capabilities),
                Id::States => read.ask = Some(Ask::States),
                Id::Profile => profile(&value)?,
                Id::Profiles => read.ask = Some(Ask::Profiles),
                Id::Info => read.ask = Some(Ask::Info(info_flags(value)?)),
                Id::Pcap => return Err(unsupported("--pcap", "TPM commands hold secrets of the guest")),
            }
        }
        if let Some(other) = parser.others.into_iter().next() {
            return Err(SwtpmError::Parameter(other));
        }
        if read.proxy {
            if read.device.is_some() || read.fd.is_some() {
                return Err(SwtpmError::Needs { option: "--vtpm-proxy", needs: "there is one device only" });
            }
            // Linux sends commands to its device at once, and tells the locality by a command.
            (read.running, read.startup, read.allow_set_locality) = (true, Some(TpmSu::CLEAR), true);
        }
        if let Some(flags) = flags {
            read.flags(&flags)?;
        }
        if read.running && read.migration.is_some_and(|migration| migration.incoming) {
            return Err(SwtpmError::Needs {
                option: "--migration incoming",
                needs: "a TPM that is to arrive is switched on by its machine, not by --flags or --vtpm-proxy",
            });
        }
        Ok(read)
    }

    fn locality(&mut self, value: &str) -> Result<(), SwtpmError> {
        let sub = SubOptions::parse("--locality", &["reject-locality-4", "allow-set-locality"], value)?;
        self.reject_locality_4 = sub.flag("reject-locality-4")?;
        self.allow_set_locality |= sub.flag("allow-set-locality")?;
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
        if sub.flag("startup-none")? {
            self.startup = None;
        } else {
            for (name, kind) in [("startup-state", TpmSu::STATE), ("startup-clear", TpmSu::CLEAR)] {
                if sub.flag(name)? {
                    self.startup = Some(kind);
                }
            }
        }
        // A TPM that is started is one that is on.
        self.running |= sub.flag("not-need-init")? || self.startup.is_some();
        self.auto_shutdown = !sub.flag("disable-auto-shutdown")?;
        Ok(())
    }
}

fn migration(value: &str) -> Result<Migration, SwtpmError> {
    let sub = SubOptions::parse("--migration", &["incoming", "release-lock-outgoing"], value)?;
    Ok(Migration {
        incoming: sub.flag("incoming")?,
        release_lock_outgoing: sub.flag("release-lock-outgoing")?,
    })
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
        Arguments::parse(Interface::Socket, line.iter().map(OsString::from)).map_err(|e| e.to_string())
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
            (&["--migration", "outgoing"], "outgoing"),
            (&["--migration", "incoming", "--flags", "startup-clear"], "switched on"),
            (&["--seccomp", "action=trap"], "trap"),
            (&["--chardev", "/dev/null"], "--chardev"),
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
        let both = parse(&["--migration", "release-lock-outgoing,incoming"]).unwrap().migration.unwrap();
        assert!(both.incoming && both.release_lock_outgoing);
        assert_eq!(parse(&["--migration", "incoming=false"]).unwrap().migration, Some(Migration::default()));
    }

    #[test]
    fn a_device_has_options_of_its_own_and_a_proxy_is_started() {
        let parse = |line: &[&str]| Arguments::parse(Interface::Chardev, line.iter().map(OsString::from));
        let read = parse(&["--tpm2", "--vtpm-proxy"]).unwrap();
        assert!(read.running && read.allow_set_locality && read.startup == Some(TpmSu::CLEAR));
        let none =
            parse(&["--vtpm-proxy", "--flags", "startup-none", "--locality", "reject-locality-4"]).unwrap();
        assert!(none.running && none.allow_set_locality && none.startup.is_none());
        assert!(!parse(&["-c", "/dev/x"]).unwrap().running);
        assert!(parse(&["--vtpm-proxy", "--fd", "5"]).is_err());
        for other in [&["--server", "port=1"][..], &["-p", "1"], &["-t"]] {
            assert!(parse(other).is_err(), "{other:?}");
        }
    }
}
