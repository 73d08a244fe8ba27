//! The daemon.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use vtpmd::config::{Config, ConfigArgs, DEFAULT_RUNTIME_DIR};
use vtpmd::daemon::{self, DaemonError, Endpoint, PRINTED_CAPABILITIES};
use vtpmd::logging;
use vtpmd::service::Sockets;

/// TPM 2.0 for virtual machines: many instances in one daemon, each migrating with its machine.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Program {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    single: Single,
}

#[derive(Subcommand)]
enum Command {
    /// Make a state directory: host key, database, root instance, owner authorization
    Init(ConfigArgs),
    /// Serve all instances of a state directory
    Run(ConfigArgs),
}

/// Without a subcommand: serve one instance, as a manager starts a vhost-user back-end program.
#[derive(Args)]
struct Single {
    /// Serve one instance at this vhost-user socket
    #[arg(long, value_name = "PATH", conflicts_with = "fd")]
    socket_path: Option<PathBuf>,
    /// Serve one instance at this vhost-user socket, handed down open
    #[arg(long, value_name = "FDNUM")]
    fd: Option<RawFd>,
    /// Print what this back-end program can do, as JSON
    #[arg(long)]
    print_capabilities: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

fn main() -> ExitCode {
    vtpmd::memory::keep_together();
    vtpmd::fault::arm();
    match run(Program::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::last_words(&format!("vtpmd: {}", vtpmd::sentence(&error)));
            ExitCode::FAILURE
        }
    }
}

fn run(program: Program) -> Result<(), DaemonError> {
    match program.command {
        Some(Command::Init(args)) => daemon::init(&configured(args)?),
        Some(Command::Run(args)) => {
            let config = configured(args)?;
            daemon::run(&config, Sockets::inherit()?)
        }
        None => serve_one(program.single),
    }
}

fn configured(args: ConfigArgs) -> Result<Config, DaemonError> {
    let config = args.load()?;
    logging::init(config.log_level, logging::format_for(config.log_format));
    Ok(config)
}

fn serve_one(single: Single) -> Result<(), DaemonError> {
    if single.print_capabilities {
        println!("{PRINTED_CAPABILITIES}");
        return Ok(());
    }
    let endpoint = match (single.socket_path, single.fd) {
        (Some(path), _) => Endpoint::Path(path),
        (None, Some(fd)) => Endpoint::Fd(take_fd(fd)?),
        (None, None) => {
            use clap::CommandFactory;
            Program::command()
                .error(
                    clap::error::ErrorKind::MissingSubcommand,
                    "say `run`, `init`, or --socket-path or --fd for a single instance",
                )
                .exit()
        }
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
