//! The command line of `vtpmd`.

use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::ConfigArgs;

/// TPM 2.0 for virtual machines: many instances in one daemon, each migrating with its machine.
#[derive(Parser)]
#[command(name = "vtpmd", version, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    /// What to do, if not that.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// What to serve alone.
    #[command(flatten)]
    pub single: SingleArgs,
}

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// Make a state directory: host key, database, root instance, owner authorization
    Init(ConfigArgs),
    /// Serve all instances of a state directory
    Run(ConfigArgs),
}

/// Without a subcommand: serve one instance, as a manager starts a vhost-user back-end program.
#[derive(Args)]
pub struct SingleArgs {
    /// Serve one instance at this vhost-user socket
    #[arg(long, value_name = "PATH", conflicts_with = "fd")]
    pub socket_path: Option<PathBuf>,
    /// Serve one instance at this vhost-user socket, handed down open
    #[arg(long, value_name = "FDNUM")]
    pub fd: Option<RawFd>,
    /// Print what this back-end program can do, as JSON
    #[arg(long)]
    pub print_capabilities: bool,
    /// Its state.
    #[command(flatten)]
    pub config: ConfigArgs,
}
