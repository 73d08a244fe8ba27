//! The command line of `vtpmctl`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Manages the TPM instances of a vtpmd on this host.
#[derive(Parser)]
#[command(name = "vtpmctl", version)]
pub struct Arguments {
    /// Where to find the daemon.
    #[command(flatten)]
    pub reach: Reach,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Where the daemon and its owner authorization are.
#[derive(Args)]
pub struct Reach {
    /// Directory of the daemon's sockets [default: /run/vtpmd]
    #[arg(long, global = true, value_name = "DIR")]
    pub runtime_dir: Option<PathBuf>,
    /// Directory of the daemon's state, for the owner authorization [default: /var/lib/vtpmd]
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// File with the owner authorization [default: root.auth in the state directory]
    #[arg(long, global = true, value_name = "FILE")]
    pub auth_file: Option<PathBuf>,
    /// The daemon's configuration file, for both directories [default: /etc/vtpmd/vtpmd.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// Make an instance with a new TPM
    Create {
        /// Its name: letters, digits, '.', '_' and '-', at most 64
        name: String,
        /// Its UUID, that of the virtual machine [default: a random one]
        #[arg(long)]
        uuid: Option<uuid::Uuid>,
        /// The instance may have instances of its own
        #[arg(long)]
        privileged: bool,
        /// The instance below which it is made [default: the root]
        #[arg(long, value_name = "NAME")]
        parent: Option<String>,
    },
    /// List the instances
    List,
    /// Show one instance
    Info {
        /// Which
        name: String,
    },
    /// Delete an instance and destroy its state
    Delete {
        /// Which
        name: String,
        /// Delete it even though it is part of a migration that is not settled
        #[arg(long)]
        force: bool,
    },
    /// Engage the source lock for the migration that a ticket describes
    Lock {
        /// Which
        name: String,
        /// The destination's ticket
        #[arg(long, value_name = "FILE")]
        ticket: PathBuf,
        /// Keep no escrow: what is exported is destroyed here at once, and nothing brings it back
        #[arg(long)]
        strict: bool,
    },
    /// Write the migration stream of an instance, encrypted to the destination of its ticket
    Export {
        /// Which
        name: String,
        /// Where to; '-' for standard output
        #[arg(long, short, value_name = "FILE")]
        output: PathBuf,
        /// The destination's ticket; engages the source lock first
        #[arg(long, value_name = "FILE")]
        ticket: Option<PathBuf>,
        /// Keep no escrow; with --ticket
        #[arg(long, requires = "ticket")]
        strict: bool,
    },
    /// Take a migration stream into the instance that was prepared for it
    Import {
        /// Which
        name: String,
        /// Where from; '-' for standard input
        #[arg(long, short, value_name = "FILE")]
        input: PathBuf,
    },
    /// Lift the lock of an instance: with the migration digest after an import, or without one to make a new TPM
    Unlock {
        /// Which
        name: String,
        /// The migration digest, in hexadecimal digits
        #[arg(long, value_name = "HEX")]
        digest: Option<String>,
    },
    /// Prepare, arm and settle migrations
    #[command(subcommand)]
    Migrate(Migrate),
}

/// The commands about migrations.
#[derive(Subcommand)]
pub enum Migrate {
    /// On the destination: make an empty instance and write the ticket for the source
    Prepare {
        /// The name of the instance here
        name: String,
        /// The UUID of the instance on the source
        #[arg(long)]
        uuid: uuid::Uuid,
        /// Where the ticket goes; '-' for standard output
        #[arg(long, value_name = "FILE")]
        ticket: PathBuf,
        /// The storage key to which the stream will be encrypted
        #[arg(long, value_enum, default_value_t = StorageKey::Ecc)]
        storage_key: StorageKey,
    },
    /// On the source: let the next live migration of the machine take the instance along
    Arm {
        /// Which
        name: String,
        /// The destination's ticket; '-' for standard input
        #[arg(long, value_name = "FILE", required_unless_present = "disarm")]
        ticket: Option<PathBuf>,
        /// Keep no escrow: what is exported is destroyed here at once, and nothing brings it back
        #[arg(long)]
        strict: bool,
        /// Take the ticket away again
        #[arg(long, conflicts_with_all = ["ticket", "strict"])]
        disarm: bool,
    },
    /// Give a migration up: on the destination first, which prints the receipt; then, with it, on the source
    Abort {
        /// Which
        name: String,
        /// The destination's receipt, in hexadecimal digits; on the source
        #[arg(long, value_name = "HEX")]
        receipt: Option<String>,
    },
    /// End a migration that has succeeded: on the destination, which prints the receipt; then, with it, on the source
    Commit {
        /// Which
        name: String,
        /// The destination's receipt, in hexadecimal digits; on the source
        #[arg(long, value_name = "HEX")]
        receipt: Option<String>,
    },
    /// On the destination: empty a half-imported instance so that the stream can come again
    Reset {
        /// Which
        name: String,
    },
}

/// The storage keys of the root.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum StorageKey {
    /// RSA-2048
    Rsa,
    /// ECC P-256
    Ecc,
}
