//! The daemon.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use vtpmd::config::{Config, ConfigArgs, DEFAULT_RUNTIME_DIR};
use vtpmd::daemon::{self, Arguments, Command, DaemonError, Endpoint, PRINTED_CAPABILITIES, SingleArgs};
use vtpmd::logging;
use vtpmd::service::Sockets;

fn main() -> ExitCode {
    vtpmd::memory::keep_together();
    vtpmd::fault::arm();
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::last_words(&format!("vtpmd: {}", vtpmd::sentence(&error)));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), DaemonError> {
    match arguments.command {
        Some(Command::Init(args)) => daemon::init(&configured(args)?),
        Some(Command::Run(args)) => {
            let config = configured(args)?;
            daemon::run(&config, Sockets::inherit()?)
        }
        None => serve_one(arguments.single),
    }
}

fn configured(args: ConfigArgs) -> Result<Config, DaemonError> {
    let config = args.load()?;
    logging::init(config.log_level, logging::format_for(config.log_format));
    Ok(config)
}

fn serve_one(single: SingleArgs) -> Result<(), DaemonError> {
    if single.print_capabilities {
        println!("{PRINTED_CAPABILITIES}");
        return Ok(());
    }
    let endpoint = match (single.socket_path, single.fd) {
        (Some(path), _) => Endpoint::Path(path),
        (None, Some(fd)) => Endpoint::Fd(take_fd(fd)?),
        (None, None) => Arguments::command()
            .error(
                clap::error::ErrorKind::MissingSubcommand,
                "say `run`, `init`, or --socket-path or --fd for a single instance",
            )
            .exit(),
    };
    let mut config = configured(single.config)?;
    if config.runtime_dir == Path::new(DEFAULT_RUNTIME_DIR) {
        config.runtime_dir = config.state_dir.join("run");
    }
    daemon::serve_one(&config, endpoint)
}

/// Takes a descriptor that the parent process left open for us.
fn take_fd(fd: RawFd) -> Result<OwnedFd, DaemonError> {
    let refused = |source| DaemonError::Make { path: PathBuf::from(format!("/proc/self/fd/{fd}")), source };
    if fd < 3 {
        return Err(refused(std::io::ErrorKind::InvalidInput.into()));
    }
    // SAFETY: F_GETFD looks at the descriptor's number only; a number that is not open gives EBADF.
    #[expect(unsafe_code, reason = "an inherited descriptor is known by its number only")]
    let open = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    if open < 0 {
        return Err(refused(std::io::Error::last_os_error()));
    }
    // SAFETY: the descriptor is open, not one of the standard ones, and this is called once, before the process has opened
    // any other, so that nothing else owns it.
    #[expect(unsafe_code, reason = "an inherited descriptor is known by its number only")]
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
