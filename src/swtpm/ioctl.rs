//! `swtpm_ioctl`: one command over the control channel of a TPM.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use vtpm_protocol::codec::{Encode, Reader};
use vtpm_protocol::control::{
    BlobType, Command, ControlResult, InfoFlags, InitFlags, MAX_INFO_PART, Request, Response, StateFlags,
};

use super::options::{Parser, Spec, UsageError};

/// Where a TPM is reached over TCP unless something else is said.
const DEFAULT_HOST: &str = "127.0.0.1";
/// See [`DEFAULT_HOST`].
const DEFAULT_PORT: u16 = 6546;
/// How long a response is waited for: a TPM may be busy making a key.
const PATIENCE: Duration = Duration::from_secs(20);
/// The most that one `CMD_HASH_DATA` carries, which is swtpm's buffer.
const HASH_PART: usize = 4096;
/// The longest state that is taken from a TPM.
const MAX_BLOB: usize = 64 << 20;

const HELP: &str = "\
Usage: swtpm_ioctl command [--unix <path> | --tcp [<host>]:[<port>]]

Where the TPM is:
--unix <path>          a UNIX socket with the control channel
--tcp [<host>]:[<port>] a TCP port with it; 127.0.0.1 and 6546 unless given
--tpm-device <device>  a CUSE device, which vtpmd's programs neither make nor use

One of the commands:
-c                     print which commands the TPM understands
-i                     switch the TPM on (_TPM_Init), with volatile state if
                       there is any, which is then deleted
--stop                 switch the TPM off
-s                     switch the TPM off and end its process
-e                     print the bit tpmEstablished
-r <locality>          reset the bit tpmEstablished, as this locality
-v                     store the volatile state
-C                     cancel the TPM command that is being executed
-l <locality>          choose the locality, 0 to 4
-h <data>              hash the data as a dynamic launch does; - reads them from
                       standard input
--save <type> <file>   write the state of this type into a file; types are
                       permanent, volatile and savestate
--load <type> <file>   give the TPM the state of this type from a file
-g                     print which keys protect the state
-b <size>              choose how long TPM commands may be, and print that;
                       0 only prints
--info <flags>         print what TPM this is, as JSON
--lock-storage <tries> take the storage again after a migration that failed
--version              print the version
--help                 print this
";

/// Why the program ends with status 1.
#[derive(Debug, thiserror::Error)]
enum IoctlError {
    #[error(transparent)]
    Usage(#[from] UsageError),
    #[error("no command was given")]
    NoCommand,
    #[error("only one command may be given")]
    SecondCommand,
    #[error("the TPM is not named: --unix or --tcp")]
    NoTpm,
    #[error("{0} is a device for CUSE, which vtpmd has none of; use --unix or --tcp")]
    Device(String),
    #[error("'{0}' is no number")]
    Number(String),
    #[error("locality {0} is none of 0 to 4")]
    Locality(u32),
    #[error("'{0}' is no TCP port")]
    Port(String),
    #[error("there is no type of state called '{0}'")]
    BlobType(String),
    #[error("{0} needs a type and the name of a file")]
    NoFile(&'static str),
    #[error("cannot connect to {at}")]
    Connect {
        at: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot {action} {}", .path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot execute {what}")]
    Channel {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the response to {0} is none")]
    Response(&'static str),
    // In swtpm's words: this is the one message that programs look into.
    #[error("TPM result from {what}: 0x{code:x}")]
    Result { what: &'static str, code: u32 },
    #[error("cannot read standard input")]
    Stdin(#[source] io::Error),
    #[error("cannot write to standard output")]
    Stdout(#[source] io::Error),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Id {
    Device,
    Tcp,
    Unix,
    Capability,
    Init,
    Stop,
    Shutdown,
    Established,
    Reset,
    StoreVolatile,
    Cancel,
    Locality,
    Hash,
    Save,
    Load,
    Config,
    BufferSize,
    Info,
    LockStorage,
    Version,
    Help,
}

const OPTIONS: &[Spec<Id>] = &[
    Spec::value("tpm-device", Id::Device),
    Spec::value("tcp", Id::Tcp),
    Spec::value("unix", Id::Unix),
    Spec::flag("c", Id::Capability),
    Spec::flag("i", Id::Init),
    Spec::flag("stop", Id::Stop),
    Spec::flag("s", Id::Shutdown),
    Spec::flag("e", Id::Established),
    Spec::value("r", Id::Reset),
    Spec::flag("v", Id::StoreVolatile),
    Spec::flag("C", Id::Cancel),
    Spec::value("l", Id::Locality),
    Spec::value("h", Id::Hash),
    Spec::flag("g", Id::Config),
    Spec::value("b", Id::BufferSize),
    Spec::value("save", Id::Save),
    Spec::value("load", Id::Load),
    Spec::flag("version", Id::Version),
    Spec::value("info", Id::Info),
    Spec::value("lock-storage", Id::LockStorage),
    Spec::flag("help", Id::Help),
];

/// Where the TPM is.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Place {
    Unix(PathBuf),
    Tcp(String, u16),
    Device(String),
}

#[derive(PartialEq, Eq, Debug)]
enum Action {
    Send(Request),
    Hash(String),
    Save(BlobType, PathBuf),
    Load(BlobType, PathBuf),
    Info(InfoFlags),
}

#[derive(PartialEq, Eq, Debug)]
enum Invocation {
    Help,
    Version,
    Act(Place, Action),
}

/// The program: `arguments` without its name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut out = io::stdout().lock();
    match parse(arguments).and_then(|invocation| run(invocation, &mut io::stdin().lock(), &mut out)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ IoctlError::Result { .. }) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("swtpm_ioctl: {}", crate::sentence(&error));
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, IoctlError> {
    let mut parser = Parser::new(OPTIONS, true, arguments)?;
    let mut place = None;
    let mut action = None;
    while let Some((id, value)) = parser.next_option()? {
        let value = value.unwrap_or_default();
        let found = match id {
            Id::Help => return Ok(Invocation::Help),
            Id::Version => return Ok(Invocation::Version),
            Id::Device => {
                place = Some(Place::Device(value));
                continue;
            }
            Id::Unix => {
                place = Some(Place::Unix(value.into()));
                continue;
            }
            Id::Tcp => {
                place = Some(parse_tcp(&value)?);
                continue;
            }
            Id::Capability => Action::Send(Request::GetCapability),
            Id::Init => Action::Send(Request::Init(InitFlags::DELETE_VOLATILE)),
            Id::Stop => Action::Send(Request::Stop),
            Id::Shutdown => Action::Send(Request::Shutdown),
            Id::Established => Action::Send(Request::GetTpmEstablished),
            Id::Reset => Action::Send(Request::ResetTpmEstablished(locality(&value)?)),
            Id::StoreVolatile => Action::Send(Request::StoreVolatile),
            Id::Cancel => Action::Send(Request::CancelTpmCmd),
            Id::Locality => Action::Send(Request::SetLocality(locality(&value)?)),
            Id::Hash => Action::Hash(value),
            Id::Save | Id::Load => {
                let name = if id == Id::Save { "--save" } else { "--load" };
                let file = parser.next_argument().ok_or(IoctlError::NoFile(name))?.into();
                let blob = blob_type(value)?;
                if id == Id::Save { Action::Save(blob, file) } else { Action::Load(blob, file) }
            }
            Id::Config => Action::Send(Request::GetConfig),
            Id::BufferSize => Action::Send(Request::SetBufferSize(decimal(&value)?)),
            Id::Info => Action::Info(InfoFlags(any_base(&value)?)),
            Id::LockStorage => Action::Send(Request::LockStorage(decimal(&value)?)),
        };
        if action.replace(found).is_some() {
            return Err(IoctlError::SecondCommand);
        }
    }
    let action = action.ok_or(IoctlError::NoCommand)?;
    let place = place.or_else(|| parser.others.into_iter().next().map(Place::Device));
    Ok(Invocation::Act(place.ok_or(IoctlError::NoTpm)?, action))
}

fn decimal(text: &str) -> Result<u32, IoctlError> {
    text.trim().parse().map_err(|_| IoctlError::Number(text.to_owned()))
}

/// A number as C reads it: hexadecimal behind `0x`, octal behind `0`.
fn any_base(text: &str) -> Result<u64, IoctlError> {
    let (digits, base) = match (text.strip_prefix("0x"), text.strip_prefix('0')) {
        (Some(digits), _) => (digits, 16),
        (None, Some(digits)) if !digits.is_empty() => (digits, 8),
        _ => (text, 10),
    };
    u64::from_str_radix(digits, base).map_err(|_| IoctlError::Number(text.to_owned()))
}

fn locality(text: &str) -> Result<u8, IoctlError> {
    let number = decimal(text)?;
    u8::try_from(number).ok().filter(|&l| l <= 4).ok_or(IoctlError::Locality(number))
}

fn blob_type(name: String) -> Result<BlobType, IoctlError> {
    match name.as_str() {
        "permanent" => Ok(BlobType::PERMANENT),
        "volatile" => Ok(BlobType::VOLATILE),
        "savestate" => Ok(BlobType::SAVESTATE),
        _ => Err(IoctlError::BlobType(name)),
    }
}

fn parse_tcp(text: &str) -> Result<Place, IoctlError> {
    let Some((host, port)) = text.rsplit_once(':') else {
        return Ok(Place::Tcp(text.to_owned(), DEFAULT_PORT));
    };
    let port = match port {
        "" if host.is_empty() => DEFAULT_PORT,
        port => port.parse().map_err(|_| IoctlError::Port(port.to_owned()))?,
    };
    let host = if host.is_empty() { DEFAULT_HOST } else { host };
    Ok(Place::Tcp(host.to_owned(), port))
}

fn run(invocation: Invocation, input: &mut dyn Read, out: &mut dyn Write) -> Result<(), IoctlError> {
    let version = || format!("TPM emulator control tool version {}, of vtpmd\n", env!("CARGO_PKG_VERSION"));
    let text = match invocation {
        Invocation::Version => version(),
        Invocation::Help => format!("{}\n{HELP}", version()),
        Invocation::Act(place, action) => {
            let mut channel = connect(place)?;
            match action {
                Action::Send(request) => describe(exchange(&mut *channel, request, &[])?),
                Action::Hash(data) => hash(&mut *channel, &data, input).map(|()| String::new())?,
                Action::Save(blob, path) => save(&mut *channel, blob, path).map(|()| String::new())?,
                Action::Load(blob, path) => load(&mut *channel, blob, path).map(|()| String::new())?,
                Action::Info(flags) => info(&mut *channel, flags)?,
            }
        }
    };
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(IoctlError::Stdout)
}

trait Channel: Read + Write {}
impl<T: Read + Write> Channel for T {}

fn connect(place: Place) -> Result<Box<dyn Channel>, IoctlError> {
    let patience = Some(PATIENCE);
    match place {
        Place::Device(name) => Err(IoctlError::Device(name)),
        Place::Unix(path) => {
            let failed = |source| IoctlError::Connect { at: path.display().to_string(), source };
            let stream = UnixStream::connect(&path).map_err(failed)?;
            stream.set_read_timeout(patience).map_err(failed)?;
            Ok(Box::new(stream))
        }
        Place::Tcp(host, port) => {
            let failed = |source| IoctlError::Connect { at: format!("{host}, port {port}"), source };
            let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(&host);
            let stream = TcpStream::connect((bare, port)).map_err(failed)?;
            stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(patience)).map_err(failed)?;
            Ok(Box::new(stream))
        }
    }
}

/// The name of a command in messages, which are about swtpm's CUSE requests whatever the channel.
const fn name_of(command: Command) -> &'static str {
    match command {
        Command::GetCapability => "PTM_GET_CAPABILITY",
        Command::Init => "PTM_INIT",
        Command::Shutdown => "PTM_SHUTDOWN",
        Command::GetTpmEstablished => "PTM_GET_TPMESTABLISHED",
        Command::SetLocality => "PTM_SET_LOCALITY",
        Command::HashStart => "PTM_HASH_START",
        Command::HashData => "PTM_HASH_DATA",
        Command::HashEnd => "PTM_HASH_END",
        Command::CancelTpmCmd => "PTM_CANCEL_TPM_CMD",
        Command::StoreVolatile => "PTM_STORE_VOLATILE",
        Command::ResetTpmEstablished => "PTM_RESET_TPMESTABLISHED",
        Command::GetStateBlob => "PTM_GET_STATEBLOB",
        Command::SetStateBlob => "PTM_SET_STATEBLOB",
        Command::Stop => "PTM_STOP",
        Command::GetConfig => "PTM_GET_CONFIG",
        Command::SetDataFd => "PTM_SET_DATAFD",
        Command::SetBufferSize => "PTM_SET_BUFFERSIZE",
        Command::GetInfo => "PTM_GET_INFO",
        Command::LockStorage => "PTM_LOCK_STORAGE",
    }
}

/// Sends a request with its content and reads the response, without content that follows.
fn exchange(channel: &mut dyn Channel, request: Request, content: &[u8]) -> Result<Response, IoctlError> {
    let command = request.command();
    let what = name_of(command);
    let failed = |source: io::Error| {
        let source =
            if source.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { source };
        IoctlError::Channel { what, source }
    };
    let mut message = request.to_bytes();
    message.extend_from_slice(content);
    channel.write_all(&message).map_err(failed)?;
    let mut bytes = vec![0; 4];
    channel.read_exact(&mut bytes).map_err(failed)?;
    let code = bytes.first_chunk().map_or(0, |code| u32::from_be_bytes(*code));
    let length = Response::length(command, ControlResult(code));
    let mut fields = vec![0; length.saturating_sub(4)];
    channel.read_exact(&mut fields).map_err(failed)?;
    bytes.append(&mut fields);
    let response =
        Response::decode(command, &mut Reader::new(&bytes)).map_err(|_| IoctlError::Response(what))?;
    // A state that is not there is no error.
    if code == 0 || (command == Command::GetStateBlob && code & ControlResult::RETRY.0 != 0) {
        Ok(response)
    } else {
        Err(IoctlError::Result { what, code })
    }
}

/// What is printed about a response.
fn describe(response: Response) -> String {
    match response {
        Response::Capability(capabilities) => format!("ptm capability is 0x{:x}\n", capabilities.0),
        Response::TpmEstablished(bit) => format!("tpmEstablished is {}\n", u8::from(bit)),
        Response::Config(flags) => format!("ptm configuration flags: 0x{:x}\n", flags.0),
        Response::BufferSize { size, min, max } => {
            format!("TPM buffersize: {size}\nminimum size  : {min}\nmaximum size  : {max}\n")
        }
        Response::Result(_) | Response::StateBlob { .. } | Response::Info { .. } => String::new(),
    }
}

fn hash(channel: &mut dyn Channel, data: &str, input: &mut dyn Read) -> Result<(), IoctlError> {
    exchange(channel, Request::HashStart, &[])?;
    let mut bytes = data.as_bytes();
    let source: &mut dyn Read = if data == "-" { input } else { &mut bytes };
    let mut part = Vec::new();
    loop {
        part.clear();
        let limit = u64::try_from(HASH_PART).unwrap_or(u64::MAX);
        let got = Read::take(&mut *source, limit).read_to_end(&mut part).map_err(IoctlError::Stdin)?;
        if got == 0 {
            break;
        }
        exchange(channel, Request::HashData(u32::try_from(got).unwrap_or(u32::MAX)), &part)?;
    }
    exchange(channel, Request::HashEnd, &[]).map(drop)
}

fn save(channel: &mut dyn Channel, blob: BlobType, path: PathBuf) -> Result<(), IoctlError> {
    let what = name_of(Command::GetStateBlob);
    let failed = |source| IoctlError::File { action: "write", path: path.clone(), source };
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path).map_err(failed)?;
    let mut offset = 0;
    loop {
        let request = Request::GetStateBlob { flags: StateFlags::DECRYPTED, blob, offset };
        let Response::StateBlob { total, length, .. } = exchange(channel, request, &[])? else {
            return Err(IoctlError::Response(what));
        };
        let part = usize::try_from(length).unwrap_or(usize::MAX);
        if part > MAX_BLOB {
            return Err(IoctlError::Response(what));
        }
        let mut state = vec![0; part];
        channel.read_exact(&mut state).map_err(|source| IoctlError::Channel { what, source })?;
        file.write_all(&state).map_err(failed)?;
        // The total is what there is from the offset on.
        if length == 0 || length >= total {
            return file.sync_all().map_err(failed);
        }
        offset = offset.checked_add(length).ok_or(IoctlError::Response(what))?;
    }
}

fn load(channel: &mut dyn Channel, blob: BlobType, path: PathBuf) -> Result<(), IoctlError> {
    let state = std::fs::read(&path).map_err(|source| IoctlError::File {
        action: "read",
        path: path.clone(),
        source,
    })?;
    let too_long = |_| IoctlError::File { action: "send", path, source: io::ErrorKind::FileTooLarge.into() };
    let length = u32::try_from(state.len()).map_err(too_long)?;
    let request = Request::SetStateBlob { flags: StateFlags::default(), blob, length };
    exchange(channel, request, &state).map(drop)
}

fn info(channel: &mut dyn Channel, flags: InfoFlags) -> Result<String, IoctlError> {
    let what = name_of(Command::GetInfo);
    let mut text = Vec::new();
    loop {
        let offset = u32::try_from(text.len()).map_err(|_| IoctlError::Response(what))?;
        let request = Request::GetInfo { flags, offset };
        let Response::Info { total, length } = exchange(channel, request, &[])? else {
            return Err(IoctlError::Response(what));
        };
        let part = usize::try_from(length).unwrap_or(usize::MAX);
        if part > MAX_INFO_PART.saturating_mul(16) || part == 0 {
            return Err(IoctlError::Response(what));
        }
        let mut bytes = vec![0; part];
        channel.read_exact(&mut bytes).map_err(|source| IoctlError::Channel { what, source })?;
        text.append(&mut bytes);
        if text.len() >= usize::try_from(total).unwrap_or(usize::MAX) {
            break;
        }
    }
    text.retain(|&byte| byte != 0);
    text.push(b'\n');
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &[&str]) -> Result<Invocation, String> {
        parse(line.iter().map(OsString::from)).map_err(|e| e.to_string())
    }

    #[test]
    fn every_command_is_read_in_any_order() {
        let unix = || Place::Unix("/s".into());
        let act = |request| Ok(Invocation::Act(unix(), Action::Send(request)));
        assert_eq!(parsed(&["--unix", "/s", "-c"]), act(Request::GetCapability));
        assert_eq!(parsed(&["-s", "--unix=/s"]), act(Request::Shutdown));
        assert_eq!(parsed(&["-stop", "--unix", "/s"]), act(Request::Stop));
        assert_eq!(parsed(&["-C", "--unix", "/s"]), act(Request::CancelTpmCmd));
        assert_eq!(parsed(&["-l", "4", "--unix", "/s"]), act(Request::SetLocality(4)));
        assert_eq!(parsed(&["-r", "3", "--unix", "/s"]), act(Request::ResetTpmEstablished(3)));
        assert_eq!(parsed(&["--lock-storage", "7", "--unix", "/s"]), act(Request::LockStorage(7)));
        let save = Action::Save(BlobType::VOLATILE, "f".into());
        assert_eq!(parsed(&["--save", "volatile", "f", "--unix", "/s"]), Ok(Invocation::Act(unix(), save)));
        for (flags, number) in [("0x10", 16), ("010", 8), ("10", 10), ("0", 0)] {
            let info = Action::Info(InfoFlags(number));
            assert_eq!(parsed(&["--info", flags, "--unix", "/s"]), Ok(Invocation::Act(unix(), info)));
        }
    }

    #[test]
    fn tcp_has_swtpms_defaults() {
        for (text, host, port) in [
            ("h", "h", 6546),
            (":", "127.0.0.1", 6546),
            (":7", "127.0.0.1", 7),
            ("h:7", "h", 7),
            ("[::1]:7", "[::1]", 7),
        ] {
            assert_eq!(parse_tcp(text).unwrap(), Place::Tcp(host.into(), port));
        }
        assert!(parse_tcp("h:").is_err() && parse_tcp(":65536").is_err());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            &["--unix", "/s"][..],
            &["-c"],
            &["-c", "-i", "--unix", "/s"],
            &["-l", "5", "--unix", "/s"],
            &["-l", "x", "--unix", "/s"],
            &["--save", "permanent", "--unix", "/s"],
            &["--save", "all", "f", "--unix", "/s"],
            &["--info", "x", "--unix", "/s"],
            &["-q", "--unix", "/s"],
        ] {
            assert!(parsed(line).is_err(), "{line:?}");
        }
        assert_eq!(
            parsed(&["-c", "/dev/tpm0"]),
            Ok(Invocation::Act(Place::Device("/dev/tpm0".into()), Action::Send(Request::GetCapability)))
        );
        let refused = run(parsed(&["-c", "/dev/tpm0"]).unwrap(), &mut io::empty(), &mut io::sink());
        assert!(refused.unwrap_err().to_string().contains("CUSE"));
    }
}
