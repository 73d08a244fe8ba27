//! `vtpmctl`: the instance commands for people and scripts, over the raw TPM socket of the root.

mod args;
mod files;
mod fleet;
mod import;
mod libvirt;
mod output;
mod progress;
mod reach;
mod run;
mod serve;
mod status;
mod trust;

pub use args::Arguments;
pub use libvirt::HookError;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vtpm_engine::foreign::ForeignError;
use vtpm_protocol::codec::Encode;
use vtpm_protocol::instance::{
    CreateInstanceIn, INSTANCE_SELF, InstanceAttributes, InstanceName, InstanceState, InstanceSummary,
    LockFlags, MigrationTicket, Uuid,
};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::Tpm2b;

use crate::config::ConfigError;
use crate::daemon::OwnerAuthError;
use crate::foreign::{KeyError, SwtpmError};
use crate::link::trust::HelloError;
use crate::link::wire::WireError;
use crate::migration::client::{Client, ClientError, Departure};
use crate::migration::session::MigrationDigest;
use crate::tree::{ECC_STORAGE_KEY, FLEET_KEY, RSA_STORAGE_KEY};
use crate::trust::{IdentityError, Untrusted};
use args::{Command, Migrate, StorageKey};
use files::{Sink, open, read_ticket};
use output::Output;
use reach::SocketTransport;
use run::RunError;

/// Why `vtpmctl` could not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// The configuration.
    #[error("the configuration cannot be used")]
    Config(#[from] ConfigError),
    /// The owner authorization.
    #[error("the owner authorization cannot be used")]
    OwnerAuth(#[from] OwnerAuthError),
    /// No daemon answers.
    #[error("no vtpmd answers at {}", .path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// There is no instance of that name.
    #[error("there is no instance {0:?}")]
    NoInstance(String),
    /// The name cannot be that of an instance.
    #[error(
        "{0:?} cannot be the name of an instance: 1 to 64 letters, digits, '.', '_' or '-', no '.' in front"
    )]
    Name(String),
    /// The name is taken.
    #[error("there is an instance {0:?} already, or one with that UUID")]
    Exists(String),
    /// The ticket is none.
    #[error("{} holds no migration ticket", .0.display())]
    Ticket(PathBuf),
    /// The ticket is for another instance.
    #[error("the ticket is for the instance with UUID {ticket}, this one has {own}")]
    ForeignTicket {
        /// In the ticket.
        ticket: uuid::Uuid,
        /// Of the instance.
        own: uuid::Uuid,
    },
    /// The root has no attestation key.
    #[error("this host has no identity; the log of its vtpmd says why")]
    NoIdentity,
    /// What the root shows of itself does not verify.
    #[error("the identity of this host does not verify")]
    OwnIdentity(#[from] IdentityError),
    /// A file is no identity.
    #[error("{} holds no identity", .path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: IdentityError,
    },
    /// The identity is of another host than the operator expected.
    #[error("the identity has the fingerprint {found}, which is not the one given; nothing was added")]
    Fingerprint {
        /// Of the identity.
        found: String,
    },
    /// There is no fleet key.
    #[error(
        "there is no fleet key here: `vtpmctl fleet-key create` makes one, `import` takes another host's"
    )]
    NoFleetKey,
    /// There is a fleet key.
    #[error("there is a fleet key here already; `vtpmctl fleet-key remove` takes it away")]
    FleetKeyExists,
    /// A file is no fleet key.
    #[error("{} holds no fleet key", .0.display())]
    FleetKey(PathBuf),
    /// The fleet key is encrypted to another host, or the identity has no storage key.
    #[error("the fleet key in {} is for another host", .0.display())]
    ForeignFleetKey(PathBuf),
    /// The other host is no peer.
    #[error(
        "the host with the fingerprint {fingerprint} is not trusted here; `vtpmctl peer add` makes it a peer"
    )]
    Untrusted {
        /// Of its identity.
        fingerprint: String,
        /// Why.
        #[source]
        source: Untrusted,
    },
    /// A file is no certificate.
    #[error("{} holds no usable X.509 certificate", .0.display())]
    Certificate(PathBuf),
    /// The certificate is of another key.
    #[error("the certificate in {} is not of the attestation key of this host", .0.display())]
    ForeignCertificate(PathBuf),
    /// The certificate is too long.
    #[error("the certificate in {} is too long", .0.display())]
    LongCertificate(PathBuf),
    /// An address is none.
    #[error("{0:?} is not an address: host:port, an IPv6 address in brackets")]
    Address(String),
    /// The label cannot be one.
    #[error("{0:?} cannot be a label: 1 to 64 letters, digits, '.', '_' or '-', no '.' in front")]
    Label(String),
    /// See [`HookError`].
    #[error(transparent)]
    Hook(HookError),
    /// A digest or receipt is none.
    #[error("{0:?} is not a value of 32 bytes in hexadecimal digits")]
    Hex(String),
    /// An instance that is not locked was to be exported without a ticket.
    #[error("{0:?} has no migration going on: --ticket names the destination's ticket")]
    NoTicket(String),
    /// The store has nothing whole of the instance.
    #[error(
        "what the state database has of {0:?} is damaged, as the log of vtpmd says; `vtpmctl delete --force` gets rid of it"
    )]
    Damaged(String),
    /// The instance holds a receipt or an escrow, or is the only copy.
    #[error(
        "{name:?} is {state}: its migration is not settled, and what it holds may be needed to bring the TPM back; \
         `vtpmctl migrate commit` or `abort` settles it, --force deletes it all the same"
    )]
    Unsettled {
        /// Its name.
        name: String,
        /// Where it stands.
        state: InstanceState,
    },
    /// A state directory of swtpm.
    #[error(transparent)]
    Swtpm(#[from] SwtpmError),
    /// The key of one.
    #[error("the key of the state cannot be used")]
    Key(#[from] KeyError),
    /// The TPM in one.
    #[error("the TPM in {} is not taken over", .path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: ForeignError,
    },
    /// A file.
    #[error("cannot use {}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The link over a pipe.
    #[error("the link with the source ended")]
    Link(#[from] WireError),
    /// Its hellos.
    #[error("no link with the source")]
    Hello(#[from] HelloError),
    /// See [`RunError`].
    #[error(transparent)]
    Run(Box<RunError>),
    /// The root refused, for a reason that can be said in plain words.
    #[error("{what}")]
    Explained {
        /// The words.
        what: String,
        /// What the root said.
        #[source]
        source: ClientError,
    },
    /// The root refused.
    #[error(transparent)]
    Client(#[from] ClientError),
}

type Result<T> = std::result::Result<T, CtlError>;

impl From<RunError> for CtlError {
    fn from(error: RunError) -> Self {
        Self::Run(Box::new(error))
    }
}

/// Does what the command line says and prints the outcome.
///
/// # Errors
/// [`CtlError`].
pub fn run(arguments: Arguments) -> Result<()> {
    if let Command::LibvirtHook { domain, operation, stage, extra: _ } = &arguments.command {
        // Of most of what libvirt tells nothing is wanted, and then no daemon has to answer.
        return libvirt::hook(&arguments.reach, domain, operation, stage, io::stdin());
    }
    let client = Arc::new(arguments.reach.connect()?);
    let ctl =
        Ctl { client, out: Output { json: arguments.json, runtime_dir: arguments.reach.runtime_dir()? } };
    match arguments.command {
        Command::Create { name, uuid, privileged, parent } => {
            ctl.create(&name, uuid, privileged, parent.as_deref())
        }
        Command::ImportSwtpm { dir, name, uuid, key } => {
            ctl.import_swtpm(&dir, name.as_deref(), uuid, key.as_ref())
        }
        Command::List => ctl.list(),
        Command::Info { name } => ctl.info(&name),
        Command::Delete { name, force } => {
            let instance = match (ctl.find(&name), handle(&name)) {
                // As the log names one that is damaged.
                (Err(CtlError::NoInstance(_)), Some(unlisted)) if force => {
                    ctl.client.delete(unlisted)?;
                    ctl.out.done(&name, "deleted");
                    return Ok(());
                }
                (found, _) => found?,
            };
            if !force && instance.state == InstanceState::Damaged {
                return Err(CtlError::Damaged(name));
            }
            // A void one has revealed its receipt; every other one still holds what the other host may need.
            if !force && !matches!(instance.state, InstanceState::Live | InstanceState::Void) {
                return Err(CtlError::Unsettled { name, state: instance.state });
            }
            explained(ctl.client.delete(instance.instance), &instance)?;
            ctl.out.done(&name, "deleted");
            Ok(())
        }
        Command::Lock { name, ticket, strict } => {
            let instance = ctl.find(&name)?;
            let ticket = read_ticket(&ticket, &instance)?;
            let locked = ctl.client.lock(instance.instance, &ticket, lock_flags(strict));
            ctl.explained_ticket(locked, &instance, Some(&ticket))?;
            ctl.out.done(&name, "source-locked");
            Ok(())
        }
        Command::Export { name, output, ticket, strict } => {
            ctl.export(&name, &output, ticket.as_deref(), strict)
        }
        Command::Import { name, input } => ctl.import(&name, &input),
        Command::Unlock { name, digest } => ctl.unlock(&name, digest.as_deref()),
        Command::Policy { name, policy } => {
            let instance = ctl.find(&name)?;
            if let Some(policy) = policy {
                explained(ctl.client.set_policy(instance.instance, policy.into()), &instance)?;
            }
            ctl.out.done(&name, ctl.client.info(instance.instance)?.policy.as_str());
            Ok(())
        }
        Command::Saves { name, permission } => {
            let instance = ctl.find(&name)?;
            if let Some(permission) = permission {
                explained(ctl.client.permit_save(instance.instance, permission.into()), &instance)?;
            }
            ctl.out.saves(&ctl.client.info(instance.instance)?);
            Ok(())
        }
        Command::Migrate(command) => ctl.migrate(command),
        Command::Identity(command) => ctl.identity(command),
        Command::Peer(command) => ctl.peer(command),
        Command::FleetKey(command) => ctl.fleet(command),
        Command::LibvirtHook { .. } => Ok(()),
    }
}

/// A handle, as lists and logs show it.
fn handle(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

struct Ctl {
    client: Arc<Client<SocketTransport>>,
    out: Output,
}

impl Ctl {
    /// The instance of a name, wherever in the tree it is.
    fn find(&self, name: &str) -> Result<InstanceSummary> {
        let found = self.tree()?.into_iter().map(|(_, i)| i).find(|i| i.name.as_str() == name);
        found.ok_or_else(|| CtlError::NoInstance(name.to_owned()))
    }

    /// All instances with their depth, parents before their children.
    fn tree(&self) -> Result<Vec<(usize, InstanceSummary)>> {
        let mut out = Vec::new();
        let top = self.client.list(INSTANCE_SELF)?;
        let mut waiting: Vec<(usize, _)> = top.into_iter().rev().map(|i| (0, i)).collect();
        while let Some((depth, instance)) = waiting.pop() {
            if instance.attributes.privileged() {
                let children = self.client.list(instance.instance)?;
                waiting.extend(children.into_iter().rev().map(|i| (depth.saturating_add(1), i)));
            }
            out.push((depth, instance));
        }
        Ok(out)
    }

    fn create(
        &self,
        name: &str,
        uuid: Option<uuid::Uuid>,
        privileged: bool,
        parent: Option<&str>,
    ) -> Result<()> {
        let parent = parent.map_or(Ok(INSTANCE_SELF), |p| self.find(p).map(|i| i.instance))?;
        let attributes =
            if privileged { InstanceAttributes::PRIVILEGED } else { InstanceAttributes::default() };
        let input = CreateInstanceIn {
            uuid: Uuid(*uuid.unwrap_or_else(uuid::Uuid::new_v4).as_bytes()),
            name: InstanceName::new(name).map_err(|_| CtlError::Name(name.to_owned()))?,
            attributes,
            storage_public: Tpm2b::empty(),
            certificate: Tpm2b::empty(),
        };
        let made = self.client.create(parent, &input).map_err(|e| taken(e, name))?;
        // The TPM is made by lifting the lock of the empty instance with the digest of an empty migration.
        let digest = MigrationDigest::initial(&made.ticket.migration_id, input.uuid);
        if let Err(error) = self.client.unlock(made.instance, digest.as_bytes()) {
            let _best_effort = self.client.delete(made.instance);
            return Err(error.into());
        }
        self.info(name)
    }

    fn list(&self) -> Result<()> {
        self.out.list(&self.tree()?);
        Ok(())
    }

    fn info(&self, name: &str) -> Result<()> {
        let found = self.find(name)?;
        if found.state == InstanceState::Damaged {
            return Err(CtlError::Damaged(name.to_owned()));
        }
        self.out.info(&self.client.info(found.instance)?);
        Ok(())
    }

    fn export(&self, name: &str, output: &Path, ticket: Option<&Path>, strict: bool) -> Result<()> {
        let instance = self.find(name)?;
        let departure = match ticket {
            Some(path) => Departure { ticket: read_ticket(path, &instance)?, lock: Some(lock_flags(strict)) },
            None => self.locked_departure(&instance)?,
        };
        let mut sink = Sink::create(output)?;
        let exported = self.client.export(instance.instance, &departure, &mut sink);
        self.explained_ticket(exported, &instance, Some(&departure.ticket))?;
        // Durable: whoever waits for it may be about to go on.
        sink.finish()?;
        self.out.done_unless_stdout(name, "exported", output);
        Ok(())
    }

    /// For an instance that is locked already.
    fn locked_departure(&self, instance: &InstanceSummary) -> Result<Departure> {
        let locked = instance.state.is_source_locked();
        let ticket = self.client.info(instance.instance)?.ticket.filter(|_| locked);
        let ticket = ticket.ok_or_else(|| CtlError::NoTicket(instance.name.as_str().to_owned()))?;
        Ok(Departure { ticket, lock: None })
    }

    fn import(&self, name: &str, input: &Path) -> Result<()> {
        let instance = self.find(name)?;
        let mut source = open(input)?;
        explained(self.client.import(instance.instance, &mut *source), &instance)?;
        self.out.done(name, "imported");
        Ok(())
    }

    fn unlock(&self, name: &str, digest: Option<&str>) -> Result<()> {
        let instance = self.find(name)?;
        let digest = match digest {
            Some(hex) => bytes_32(hex)?,
            None => {
                let info = self.client.info(instance.instance)?;
                let ticket = info.ticket.ok_or(ClientError::State(instance.state))?;
                MigrationDigest::initial(&ticket.migration_id, instance.uuid).as_bytes().to_vec()
            }
        };
        explained(self.client.unlock(instance.instance, &digest), &instance)?;
        self.out.done(name, "unlocked");
        Ok(())
    }

    /// As [`explained`], with the reason why a ticket is refused.
    fn explained_ticket<T>(
        &self,
        result: std::result::Result<T, ClientError>,
        instance: &InstanceSummary,
        ticket: Option<&MigrationTicket>,
    ) -> Result<T> {
        match (result, ticket) {
            (Err(source @ ClientError::Refused { command: LOCK | ARM, code }), Some(ticket))
                if code.is(ResponseCode::SIGNATURE) =>
            {
                Err(CtlError::Explained { what: self.why_refused(ticket)?, source })
            }
            (result, _) => explained(result, instance),
        }
    }

    fn migrate(&self, command: Migrate) -> Result<()> {
        match command {
            Migrate::Prepare { name, uuid, ticket, storage_key } => {
                let storage = match storage_key {
                    StorageKey::Rsa => RSA_STORAGE_KEY,
                    StorageKey::Ecc => ECC_STORAGE_KEY,
                    StorageKey::Fleet => self.fleet_key().map(|_| FLEET_KEY)?,
                };
                InstanceName::new(&name).map_err(|_| CtlError::Name(name.clone()))?;
                // First the file: an instance whose ticket cannot be written is of no use.
                let sink = Sink::create(&ticket)?;
                let made = self
                    .client
                    .prepare(&name, Uuid(*uuid.as_bytes()), storage)
                    .map_err(|e| taken(e, &name))?;
                if let Err(error) = sink.put(&made.ticket.to_bytes()) {
                    let _best_effort = self.client.delete(made.instance);
                    return Err(error);
                }
                self.out.done_unless_stdout(&name, "destination-locked", &ticket);
            }
            Migrate::Arm { name, ticket, strict, disarm: _ } => {
                let instance = self.find(&name)?;
                let ticket = ticket.map(|path| read_ticket(&path, &instance)).transpose()?;
                let word = if ticket.is_some() { "armed" } else { "disarmed" };
                let armed = self.client.arm(instance.instance, ticket.clone(), lock_flags(strict));
                self.explained_ticket(armed, &instance, ticket.as_ref())?;
                self.out.done(&name, word);
            }
            Migrate::Run(run) => self.run(&run)?,
            Migrate::Serve { stdio: _ } => self.serve()?,
            Migrate::Status { name } => self.status(name.as_deref())?,
            Migrate::Abort { name, receipt } => {
                let instance = self.find(&name)?;
                if instance.state.is_save() && receipt.is_none() {
                    explained(self.client.drop_saved(instance.instance), &instance)?;
                    self.out.done(&name, "live, without what was saved");
                    return Ok(());
                }
                let receipt = receipt.map_or(Ok(Vec::new()), |hex| bytes_32(&hex))?;
                let returned = explained(self.client.abort(instance.instance, &receipt), &instance)?;
                self.out.receipt(&name, "aborted", &returned);
            }
            Migrate::Commit { name, receipt } => {
                let instance = self.find(&name)?;
                let receipt = receipt.map_or(Ok(Vec::new()), |hex| bytes_32(&hex))?;
                let returned = explained(self.client.commit(instance.instance, &receipt), &instance)?;
                self.out.receipt(&name, "committed", &returned);
            }
            Migrate::Reset { name } => {
                let instance = self.find(&name)?;
                explained(self.client.reset(instance.instance), &instance)?;
                self.out.done(&name, "reset");
            }
        }
        Ok(())
    }
}

fn lock_flags(strict: bool) -> LockFlags {
    if strict { LockFlags::STRICT } else { LockFlags::default() }
}

/// CreateInstance answers a name or UUID that is in use with `TPM_RC_NV_DEFINED`.
fn taken(error: ClientError, name: &str) -> CtlError {
    match error {
        ClientError::Refused { code, .. } if code.is(ResponseCode::NV_DEFINED) => {
            CtlError::Exists(name.to_owned())
        }
        other => other.into(),
    }
}

/// The words for what AddPeer and RemovePeer may answer.
fn explained_peer(result: std::result::Result<(), ClientError>, label: &str) -> Result<()> {
    let source = match result {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    let ClientError::Refused { command, code } = &source else { return Err(source.into()) };
    let what = if code.is(ResponseCode::NV_DEFINED) {
        format!("there is a peer {label:?} already")
    } else if code.is(ResponseCode::NV_SPACE) {
        "there are as many peers as there may be".to_owned()
    } else if *command == "REMOVE_PEER" && code.is(ResponseCode::VALUE) {
        format!("there is no peer {label:?}")
    } else {
        return Err(source.into());
    };
    Err(CtlError::Explained { what, source })
}

const LOCK: &str = "LOCK_INSTANCE";
const ARM: &str = "ARM_INSTANCE";
const ABORT: &str = "ABORT_MIGRATION";
const COMMIT: &str = "COMMIT_MIGRATION";

/// The words for what an operator may meet; anything else is as the root said it.
fn explained<T>(result: std::result::Result<T, ClientError>, instance: &InstanceSummary) -> Result<T> {
    let source = match result {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let ClientError::Refused { command, code } = &source else { return Err(source.into()) };
    let (name, state) = (instance.name.as_str(), instance.state);
    let what = if code.is(ResponseCode::SEQUENCE) {
        match (*command, state) {
            (COMMIT, InstanceState::Imported) => {
                format!(
                    "{name} has arrived, but its machine has not used it yet: it is not decided that it lives here"
                )
            }
            (COMMIT | ABORT, InstanceState::Live) => {
                format!(
                    "{name} is live, and no migration of it is to be settled here; `migrate arm --disarm` takes a ticket away"
                )
            }
            _ => format!("{name} is {state}, which does not go with this"),
        }
    } else if code.is(ResponseCode::PARENT) {
        format!("{name} has instances below it")
    } else {
        return Err(source.into());
    };
    Err(CtlError::Explained { what, source })
}

fn bytes_32(text: &str) -> Result<Vec<u8>> {
    match hex::decode(text.trim()) {
        Ok(bytes) if bytes.len() == 32 => Ok(bytes),
        _ => Err(CtlError::Hex(text.to_owned())),
    }
}
