//! The command line of `vtpmctl`.

use std::path::PathBuf;

use clap::builder::ArgPredicate;
use clap::{Args, Parser, Subcommand, ValueEnum};
use vtpm_protocol::instance::{MigrationPolicy, SavePermission};

use crate::foreign::KeyOptions;

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
    /// Make an instance of the TPM 2.0 that a swtpm has kept in its state directory, where no swtpm may run any more
    ImportSwtpm {
        /// The state directory
        dir: PathBuf,
        /// The name of the instance [default: the name of the directory]
        name: Option<String>,
        /// Its UUID, that of the virtual machine [default: a random one]
        #[arg(long)]
        uuid: Option<uuid::Uuid>,
        /// The key of an encrypted state, as swtpm takes it: file=F[,format=hex|binary], fd=N, pwdfile=F[,kdf=pbkdf2|sha512] or pwdfd=N,
        /// and mode=aes-256-cbc; or only the path of a file with a key in hexadecimal digits
        #[arg(long, value_name = "OPTIONS")]
        key: Option<KeyOptions>,
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
        /// Which; with --force also one that is damaged, by its name or the handle that the list and the log tell
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
        /// Keep nothing of what is exported that this host could read; only the destination brings it back
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
        /// Keep nothing of it that this host could read; with --ticket
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
    /// Show or set what becomes of a migration of which the source hears no end
    Policy {
        /// Which
        name: String,
        /// The policy, from the next migration on; it travels with the instance
        #[arg(value_enum)]
        policy: Option<Policy>,
    },
    /// Show or set whether a machine may be saved with its TPM on this host: to a file, a managed save, a snapshot
    ///
    /// What was saved comes back once, and only as long as the machine has not run without it. It is of use on this host only.
    Saves {
        /// Which
        name: String,
        /// The permission, from the next save on; it stays on this host when the instance leaves
        #[arg(value_enum)]
        permission: Option<Saves>,
    },
    /// Run a whole migration; prepare, arm and settle those of running machines
    #[command(subcommand)]
    Migrate(Migrate),
    /// Show this host to others: its attestation key and what that certifies
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// Say to which hosts instances may migrate
    #[command(subcommand)]
    Peer(PeerCommand),
    /// Share a storage key with other hosts, whose tickets then need no peer
    #[command(subcommand)]
    FleetKey(FleetKeyCommand),
    /// Called by libvirt's hook for QEMU: prepares the TPM's place before a domain migrates to this host
    LibvirtHook {
        /// The domain, whose XML comes on standard input
        domain: String,
        /// What libvirt is about to do
        operation: String,
        /// How far it is
        stage: String,
        /// What libvirt adds
        #[arg(default_value = "-")]
        extra: String,
    },
}

/// The commands about the fleet key.
#[derive(Subcommand)]
pub enum FleetKeyCommand {
    /// Make one on this host
    Create,
    /// Write it for one other host, which must be a peer; nobody else can use the file
    Duplicate {
        /// The identity of the other host, as it exported it
        #[arg(long, value_name = "IDENTITY")]
        to: PathBuf,
        /// Where to; '-' for standard output
        #[arg(long, short, value_name = "FILE", default_value = "-")]
        output: PathBuf,
    },
    /// Take the one that another host, which must be a peer, duplicated for this one
    Import {
        /// The file; '-' for standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Print its Name
    Show,
    /// Take it away from this host
    Remove,
}

/// The commands about the identity of this host.
#[derive(Subcommand)]
pub enum IdentityCommand {
    /// Print the fingerprint and the keys, of this host or of an identity in a file
    Show {
        /// An identity that another host exported; '-' for standard input
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Write the identity for `vtpmctl peer add` on other hosts
    Export {
        /// Where to; '-' for standard output
        #[arg(long, short, value_name = "FILE", default_value = "-")]
        output: PathBuf,
        /// Write the public key of the attestation key instead (PEM), for an authority that is to certify it
        #[arg(long)]
        public_key: bool,
    },
    /// Keep the certificate that an authority issued for the attestation key of this host
    Certify {
        /// The X.509 certificate, PEM or DER
        #[arg(value_name = "FILE", required_unless_present = "remove")]
        file: Option<PathBuf>,
        /// Take the certificate away
        #[arg(long, conflicts_with = "file")]
        remove: bool,
    },
}

/// The commands about peers.
#[derive(Subcommand)]
pub enum PeerCommand {
    /// Add a host, an authority that certifies hosts, or an address
    Add(PeerAdd),
    /// List them
    List,
    /// Remove one
    Remove {
        /// Its label
        label: String,
    },
}

/// A peer to be added.
#[derive(Args)]
pub struct PeerAdd {
    /// What to call it here
    pub label: String,
    /// The identity that the other host exported, which is pinned
    #[arg(long, value_name = "FILE", conflicts_with = "authority")]
    pub identity: Option<PathBuf>,
    /// The fingerprint that the identity must have, as `vtpmctl identity show` prints it on the other host
    #[arg(long, value_name = "HEX", requires = "identity")]
    pub fingerprint: Option<String>,
    /// The certificate of an authority (PEM or DER): trust every attestation key that it has certified
    #[arg(long, value_name = "FILE")]
    pub authority: Option<PathBuf>,
    /// Where the peer's link listens
    #[arg(long, value_name = "HOST:PORT", required_unless_present_any = ["identity", "authority"])]
    pub address: Option<String>,
    /// The peer may prepare instances on this host over the link
    #[arg(long)]
    pub may_prepare: bool,
}

/// The commands about migrations.
#[derive(Subcommand)]
pub enum Migrate {
    /// On the source: move an instance whose machine is shut down to another host, all of it
    ///
    /// Finds the slot that was prepared there or, with the right to, makes one; locks the instance, sends its state, and has it taken in. An
    /// attempt that was interrupted is gone on with by the same command. The instance lives there from the first command of its machine on;
    /// until then the TPM can be brought back, and afterwards what is kept here is destroyed: by the peer link, by this command with
    /// --wait, or by it again.
    #[command(after_long_help = "\
Examples:
  vtpmctl migrate run alice --to b
  vtpmctl migrate run alice --to b --wait 60 --json
  vtpmctl migrate run alice --host tpm@b.example --ssh-command 'ssh -p 2222' --bootstrap ssh
  vtpmctl migrate run alice --host tpm@b.example --remote-command 'sudo -n {} --config /etc/b.toml'
  vtpmctl migrate run alice --ticket alice.ticket --to-file alice.stream")]
    Run(Box<Run>),
    /// On the destination: answer a source on standard input and output, for `run --via ssh`, which starts it
    ///
    /// Whoever can start it can do all that the owner of the root can, and is not asked who he is.
    Serve {
        /// Over standard input and output
        #[arg(long, required = true)]
        stdio: bool,
    },
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
        /// Keep nothing of what is exported that this host could read; only the destination brings it back
        #[arg(long)]
        strict: bool,
        /// Take the ticket away again
        #[arg(long, conflicts_with_all = ["ticket", "strict"])]
        disarm: bool,
    },
    /// Show the steps of the last migration with their times, also after the instance is gone
    Status {
        /// Of which instance [default: of all that the log has]
        name: Option<String>,
    },
    /// Give a migration up: on the destination first, which prints the receipt; then, with it, on the source. Or give up what was saved
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

/// A whole migration.
#[derive(Args)]
pub struct Run {
    /// Which
    pub name: String,
    /// To which peer, as `vtpmctl peer list` has it; with ssh, who must be there [default: any peer]
    #[arg(long, value_name = "PEER", required_unless_present_any = ["host", "to_file"])]
    pub to: Option<String>,
    /// How: over the peer link, with a vtpmctl that ssh starts on the other host, or by a file
    #[arg(
        long,
        value_enum,
        value_name = "WAY",
        default_value_if("host", ArgPredicate::IsPresent, "ssh"),
        default_value_if("to_file", ArgPredicate::IsPresent, "file"),
        default_value = "link"
    )]
    pub via: Via,
    /// Where ssh goes
    #[arg(long, value_name = "USER@HOST", required_if_eq("via", "ssh"), help_heading = "With ssh")]
    pub host: Option<String>,
    /// ssh, and options for it; a shell reads it
    #[arg(long, value_name = "COMMAND", default_value = "ssh", requires = "host", help_heading = "With ssh")]
    pub ssh_command: String,
    /// What is run on the other host, with {} in the place of vtpmctl: 'sudo -n {} --config FILE'; a shell there reads it
    #[arg(long, value_name = "COMMAND", default_value = "{}", requires = "host", help_heading = "With ssh")]
    pub remote_command: String,
    /// Send this program to the other host if it has no vtpmctl that can be run, for the time of the migration
    #[arg(long, value_enum, value_name = "WAY", requires = "host", help_heading = "With ssh")]
    pub bootstrap: Option<Bootstrap>,
    /// Write the stream to this file, for `vtpmctl import` there
    #[arg(
        long,
        value_name = "FILE",
        required_if_eq("via", "file"),
        conflicts_with = "host",
        help_heading = "With a file"
    )]
    pub to_file: Option<PathBuf>,
    /// The destination's ticket, where the instance is not locked with it yet
    #[arg(long, value_name = "FILE", requires = "to_file", help_heading = "With a file")]
    pub ticket: Option<PathBuf>,
    /// Its name there, where it is not prepared yet [default: the same]
    #[arg(long = "as", value_name = "NAME")]
    pub name_there: Option<String>,
    /// Keep no escrow: what is exported is destroyed here at once, and nothing brings it back
    #[arg(long)]
    pub strict: bool,
    /// Move area by area, also where both hosts have room for the whole state in one step
    #[arg(long)]
    pub piecewise: bool,
    /// Move no more than this at a time, as if a host had no room for more
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1024..))]
    pub buffer: Option<u32>,
    /// Wait so long for the first command of the machine there, and then end the migration here
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub wait: u64,
    /// Also while a machine is connected, which is not to run here any more
    #[arg(long)]
    pub connected: bool,
    /// Show how far it is, also where standard error is no terminal
    #[arg(long)]
    pub progress: bool,
}

/// How two hosts reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Via {
    /// The peer link: TLS between the two roots
    Link,
    /// A pipe of ssh
    Ssh,
    /// A file that somebody carries
    File,
}

/// How a program is sent to a host that lacks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Bootstrap {
    /// Through the pipe of ssh
    Ssh,
}

/// See [`MigrationPolicy`].
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Policy {
    /// The source keeps what it exported until the destination's receipt settles it
    Recoverable,
    /// The source keeps nothing of what it exported that it could read itself
    Strict,
    /// As recoverable, but when the machine runs again on the source, so does its TPM: two copies can come to be
    Availability,
}

impl From<Policy> for MigrationPolicy {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Recoverable => Self::Recoverable,
            Policy::Strict => Self::Strict,
            Policy::Availability => Self::Availability,
        }
    }
}

/// See [`SavePermission`].
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Saves {
    /// It may
    Allowed,
    /// It may not
    Refused,
    /// As `saves` in the configuration of vtpmd says, which means not unless it does
    Configured,
}

impl From<Saves> for SavePermission {
    fn from(saves: Saves) -> Self {
        match saves {
            Saves::Allowed => Self::Allowed,
            Saves::Refused => Self::Refused,
            Saves::Configured => Self::Configured,
        }
    }
}

/// The storage keys of the root.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum StorageKey {
    /// RSA-2048
    Rsa,
    /// ECC P-256
    Ecc,
    /// The one that this host shares with the source (`vtpmctl fleet-key`), which then needs no peer
    Fleet,
}
