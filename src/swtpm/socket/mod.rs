//! `swtpm socket` and `swtpm chardev`: one TPM 2.0 in one process, with its state in a directory or file and no daemon.

mod arguments;
mod device;
mod entrances;
mod logging;
mod shared;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use vtpm_backend::control::{ControlDoor, ControlEvent, Options};
use vtpm_backend::device::{ControlledTpm, TpmDevice};
use vtpm_protocol::codec::Encode;
use vtpm_protocol::control::{ConfigFlags, InfoFlags};
use vtpm_protocol::tpm::{TpmCc, TpmSt, TpmSu};

use super::error::SwtpmError;
use super::process::{PidFile, User, become_daemon, change_root};
use super::seccomp::confine;
use super::state::StatePlace;
use super::{VERSION, json_list, key, rsa_features};
use crate::daemon::{block_signals, wait_for_signal};
use crate::tree::describe_tpm;
use arguments::{Arguments, Ask, Interface};
use device::{Device, Proxy};
use entrances::Entrances;
use shared::SharedTpm;

/// What the log calls the instance.
const NAME: &str = "tpm";

/// What there is of swtpm's features, apart from the lengths of RSA keys.
const FEATURES: &[&str] = &[
    "tpm-2.0",
    "tpm-send-command-header",
    "flags-opt-startup",
    "flags-opt-disable-auto-shutdown",
    "ctrl-opt-terminate",
    "cmdarg-seccomp",
    "cmdarg-chroot",
    "cmdarg-migration",
    "cmdarg-key-fd",
    "cmdarg-pwd-fd",
    "cmdarg-print-states",
    "cmdarg-print-profiles",
    "cmdarg-profile",
    "cmdarg-print-info",
    "nvram-backend-dir",
    "nvram-backend-file",
    "tpmstate-opt-lock",
    "tpmstate-dir-backend-opt-fsync",
];

/// The program: `arguments` without its name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let sentence = crate::sentence(&error);
            if logging::is_apart() {
                log::error!("{sentence}");
            }
            // A daemon that came up has no standard error any more.
            let _gone = writeln!(std::io::stderr(), "swtpm: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<(), SwtpmError> {
    let mut arguments = arguments.into_iter();
    let first = arguments.next().unwrap_or_default();
    let interface = match first.to_str() {
        Some("socket") => Interface::Socket,
        Some("chardev") => Interface::Chardev,
        Some("--version" | "-v") => return print(&format!("TPM emulator version {VERSION}, of vtpmd\n")),
        Some("--help" | "-h") => return print(arguments::PROGRAM_HELP),
        Some("cuse") => {
            return Err(unsupported("swtpm cuse", "vtpmd makes no devices of CUSE; use `swtpm socket`"));
        }
        _ => return Err(SwtpmError::Parameter(first.to_string_lossy().into_owned())),
    };
    let arguments = Arguments::parse(interface, arguments)?;
    // Looked up and opened while the files and the rights for that are there.
    let user = arguments.run_as.as_deref().map(User::find).transpose()?;
    let opened = open_device(&arguments)?;
    if let Some(root) = &arguments.root {
        change_root(root)?;
    }
    if let Some(user) = user {
        user.become_it()?;
    }
    logging::start(arguments.log.as_deref())?;
    let state = arguments.state.as_deref().map(StatePlace::parse).transpose()?;
    match arguments.ask {
        Some(Ask::Help) => print(&interface.help()),
        Some(Ask::Capabilities) => print(&capabilities()),
        Some(Ask::States) => {
            let needs = SwtpmError::Needs { option: "--print-states", needs: "--tpmstate is needed" };
            let state = state.ok_or(needs)?;
            state.check_directory()?;
            let size = state.size()?;
            let states = size.map(|size| format!(r#"{{"name": "permall", "size": {size}}}"#));
            let states = states.map_or_else(String::new, |one| format!(" {one} "));
            print(&format!(r#"{{ "type": "swtpm", "states": [{states}] }}"#))
        }
        Some(Ask::Profiles) => print(&format!("{}\n", describe_tpm(InfoFlags::AVAILABLE_PROFILES))),
        Some(Ask::Info(flags)) => print(&format!("{}\n", describe_tpm(InfoFlags(flags)))),
        None if !arguments.tpm2 => Err(SwtpmError::Tpm12),
        None => serve(arguments, state, opened),
    }
}

/// Where the commands of `swtpm chardev` come from, unless it is handed down, or is not wanted for what is asked.
enum Opened {
    Device(Device),
    /// A device that is to be made.
    Proxy(Proxy),
    Nothing,
}

fn open_device(arguments: &Arguments) -> Result<Opened, SwtpmError> {
    match &arguments.device {
        _ if arguments.ask.is_some() => Ok(Opened::Nothing),
        _ if arguments.proxy => Proxy::open().map(Opened::Proxy),
        Some(path) => Device::open(path).map(Opened::Device),
        None => Ok(Opened::Nothing),
    }
}

fn unsupported(option: &str, reason: &'static str) -> SwtpmError {
    SwtpmError::Unsupported { option: option.to_owned(), reason }
}

fn print(text: &str) -> Result<(), SwtpmError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(super::error::file("write to", "standard output"))
}

fn capabilities() -> String {
    let keys = rsa_features("rsa-keysize-", 1024);
    let features = FEATURES.iter().copied().chain(keys.iter().map(String::as_str));
    format!(
        "{{ \"type\": \"swtpm\", \"features\": [ {} ], \"profiles\": {{ \"names\": [ \"{}\" ] }}, \"version\": \"{VERSION}\" }}\n",
        json_list(features),
        crate::tree::PROFILE
    )
}

/// Why the program ends.
enum End {
    Signal,
    Event(ControlEvent),
}

fn serve(arguments: Arguments, state: Option<StatePlace>, opened: Opened) -> Result<(), SwtpmError> {
    let state = match state {
        Some(state) => state,
        // As with swtpm.
        None => StatePlace::directory(
            std::env::var("TPM_PATH")
                .map_err(|_| SwtpmError::Needs { option: "--tpmstate", needs: "dir= is needed" })?,
        ),
    };
    state.check_directory()?;
    state.check_foreign()?;
    // Whatever is handed down is taken before anything else is opened.
    let key = arguments.key.as_deref().map(|text| key::load("--key", text)).transpose()?;
    let migration_key =
        arguments.migration_key.as_deref().map(|text| key::load("--migration-key", text)).transpose()?;
    // Before there is a second thread.
    let ready = arguments.daemon.then(become_daemon).transpose()?;
    // Before any thread, which would take a signal otherwise.
    block_signals()?;
    let (device, proxy) = match opened {
        Opened::Device(device) => (Some(device), None),
        Opened::Proxy(proxy) => (None, Some(proxy)),
        Opened::Nothing => (None, None),
    };
    let mut doors = Entrances::open(&arguments, device)?;
    let _pid_file = arguments.pid.as_deref().map(PidFile::write).transpose()?;

    let given_key = key.is_some();
    let tpm = Arc::new(SharedTpm::open(state, key, arguments.migration.unwrap_or_default())?);
    if arguments.running {
        tpm.power_on()?;
        if let Some(kind) = arguments.startup {
            startup(&*tpm, kind)?;
        }
    }
    // Nobody needs it who does not know vtpmctl; its path may be too long for a socket. In a directory that two hosts share it would be that
    // of both, and a TPM that goes from hand to hand is not to leave in another way besides.
    let raw_socket = match (arguments.migration, tpm.state().runtime_dir()) {
        (None, Some(dir)) => tpm.if_open(|single| single.listen_raw(dir)),
        _ => None,
    };
    let raw_socket = raw_socket
        .transpose()
        .inspect_err(|e| log::warn!("there is no TPM socket of the root: {}", crate::sentence(e)))
        .ok();
    let (sender, ends) = channel();
    let mut config = ConfigFlags::default();
    for (given, flag) in
        [(given_key, ConfigFlags::FILE_KEY), (migration_key.is_some(), ConfigFlags::MIGRATION_KEY)]
    {
        config = if given { config.with(flag) } else { config };
    }
    let events = sender.clone();
    let options = Options {
        config,
        running: arguments.running,
        auto_shutdown: arguments.auto_shutdown,
        reject_locality_4: arguments.reject_locality_4,
        allow_set_locality: arguments.allow_set_locality,
        disconnect: doors.disconnect,
        on_event: Some(Arc::new(move |event| {
            // Nobody listens any more when the program ends.
            let _over = events.send(End::Event(event));
        })),
        ..Options::new(NAME)
    };
    let (end_with_data, end_with_control) = (doors.end_with_data, doors.end_with_control);
    if let Some(proxy) = proxy {
        let (device, line) = proxy.make()?;
        print(&line)?;
        doors.data = Some(device::channel(device)?);
    }
    // Whatever there is to be opened is open now, and nobody has been served.
    confine(arguments.seccomp)?;
    let door = ControlDoor::open(doors.control, doors.data, tpm.clone(), options)?;
    std::thread::spawn(move || signalled(&sender));
    log::info!("version {VERSION} of vtpmd serves the TPM in {}", tpm.state().path().display());
    if let Some(ready) = ready {
        ready.tell()?;
    }
    for end in ends {
        match end {
            End::Signal | End::Event(ControlEvent::Shutdown) => break,
            End::Event(ControlEvent::DataClosed) if end_with_data => break,
            End::Event(ControlEvent::ControlClosed) if end_with_control => break,
            End::Event(_) => {}
        }
    }
    door.close();
    drop(raw_socket);
    tpm.close();
    Ok(())
}

fn signalled(ends: &Sender<End>) {
    if let Err(error) = wait_for_signal() {
        log::error!("{}", crate::sentence(&error));
    }
    let _over = ends.send(End::Signal);
}

/// `TPM2_Startup`, in the place of a firmware that does not send it.
fn startup(tpm: &impl TpmDevice, kind: TpmSu) -> Result<(), SwtpmError> {
    let command = (TpmSt::NO_SESSIONS, 12u32, TpmCc::STARTUP, kind).to_bytes();
    let response = tpm.execute(0, &command, None);
    let code = response.get(6..10).and_then(|code| code.try_into().ok()).map(u32::from_be_bytes);
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(SwtpmError::Tpm { what: "TPM2_Startup", code }),
        None => Err(SwtpmError::Response("TPM2_Startup")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_json_and_do_not_promise_what_is_refused() {
        let json: serde_json::Value = serde_json::from_str(&capabilities()).unwrap();
        assert_eq!(json["type"], "swtpm");
        let features = json["features"].as_array().unwrap();
        for there in
            ["tpm-2.0", "cmdarg-pwd-fd", "cmdarg-migration", "nvram-backend-file", "rsa-keysize-2048"]
        {
            assert!(features.iter().any(|f| f == there), "{there}");
        }
        for refused in ["tpm-1.2", "cmdarg-pcap"] {
            assert!(!features.iter().any(|f| f == refused), "{refused}");
        }
    }
}
