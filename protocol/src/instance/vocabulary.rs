//! The words of the instance commands: names, identities, attributes, states, kinds.

use super::MAX_INSTANCE_NAME;
use crate::codec::{Decode, Encode, Reader, encode_sized};
use crate::rc::ResponseCode;
use core::fmt;
use core::ops::Deref;

/// A byte string with a 32-bit size, of at most `MAX` bytes. The `TPM2B` of the specification ends at 65,535.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Long2b<const MAX: usize>(Vec<u8>);

impl<const MAX: usize> Long2b<MAX> {
    /// Wraps bytes.
    ///
    /// # Errors
    /// `TPM_RC_SIZE` when they are more than `MAX`.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, ResponseCode> {
        let bytes = bytes.into();
        if bytes.len() > MAX || u32::try_from(bytes.len()).is_err() {
            return Err(ResponseCode::SIZE);
        }
        Ok(Self(bytes))
    }

    /// The bytes, for good.
    #[must_use]
    pub fn into_inner(self) -> Vec<u8> {
        self.0
    }
}

impl<const MAX: usize> Deref for Long2b<MAX> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<const MAX: usize> fmt::Debug for Long2b<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl<const MAX: usize> Encode for Long2b<MAX> {
    fn encode(&self, out: &mut Vec<u8>) {
        // `new` and `decode` let nothing longer than 32 bits in.
        u32::try_from(self.0.len()).unwrap_or(u32::MAX).encode(out);
        out.extend_from_slice(&self.0);
    }
}

impl<const MAX: usize> Decode for Long2b<MAX> {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let size = usize::try_from(u32::decode(r)?).map_err(|_| ResponseCode::SIZE)?;
        if size > MAX {
            return Err(ResponseCode::SIZE);
        }
        Ok(Self(r.take(size)?.to_vec()))
    }
}

/// The name of an instance: 1 to 64 bytes, letters, digits, `.`, `_`, `-`, and no `.` in front. It stands in paths of sockets, so
/// nothing else is let in.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceName(String);

impl InstanceName {
    /// Checks a name.
    ///
    /// # Errors
    /// `TPM_RC_SIZE` for an empty or too long one, `TPM_RC_VALUE` for a byte that is not allowed.
    pub fn new(name: &str) -> Result<Self, ResponseCode> {
        if name.is_empty() || name.len() > MAX_INSTANCE_NAME {
            return Err(ResponseCode::SIZE);
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if name.starts_with('.') || !name.bytes().all(allowed) {
            return Err(ResponseCode::VALUE);
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Encode for InstanceName {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_sized(self.0.as_bytes(), out);
    }
}

impl Decode for InstanceName {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let bytes = r.sized(MAX_INSTANCE_NAME)?;
        Self::new(core::str::from_utf8(bytes).map_err(|_| ResponseCode::VALUE)?)
    }
}

/// A UUID, 16 bytes in the order in which it is written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Encode for Uuid {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }
}

impl Decode for Uuid {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        Ok(Self(r.array()?))
    }
}

/// Attributes of an instance, 32 bits. Bits that have no meaning must be clear.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct InstanceAttributes(u32);

impl InstanceAttributes {
    /// Bit 0: the instance is privileged, that is, may have children and processes instance commands.
    pub const PRIVILEGED: Self = Self(1);

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// From the bits.
    ///
    /// # Errors
    /// `TPM_RC_RESERVED_BITS` when a bit without a meaning is set.
    pub const fn from_bits(bits: u32) -> Result<Self, ResponseCode> {
        if bits & !Self::PRIVILEGED.0 != 0 { Err(ResponseCode::RESERVED_BITS) } else { Ok(Self(bits)) }
    }

    /// Whether the instance may have children.
    #[must_use]
    pub const fn privileged(self) -> bool {
        self.0 & Self::PRIVILEGED.0 != 0
    }
}

impl Encode for InstanceAttributes {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }
}

impl Decode for InstanceAttributes {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        Self::from_bits(u32::decode(r)?)
    }
}

/// How a source treats what it has exported. 32 bits; bits that have no meaning must be clear.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LockFlags(u32);

impl LockFlags {
    /// Bit 0: when all is exported, nothing is kept that the source could read, and the destination alone brings the instance back.
    pub const STRICT: Self = Self(1);
    /// Bit 1: the peer link found the ticket; that of a later migration takes its place. Says nothing about the lock itself.
    pub const AUTOMATIC: Self = Self(2);
    /// Bit 2: the machine is saved to a file or snapshot on this host. The destination is this store itself, which makes the ticket.
    pub const SAVE: Self = Self(4);

    /// From the bits.
    ///
    /// # Errors
    /// `TPM_RC_RESERVED_BITS` when a bit without a meaning is set.
    pub const fn from_bits(bits: u32) -> Result<Self, ResponseCode> {
        if bits & !(Self::STRICT.0 | Self::AUTOMATIC.0 | Self::SAVE.0) != 0 {
            Err(ResponseCode::RESERVED_BITS)
        } else {
            Ok(Self(bits))
        }
    }

    /// These and those.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the peer link found the ticket.
    #[must_use]
    pub const fn automatic(self) -> bool {
        self.0 & Self::AUTOMATIC.0 != 0
    }

    /// Whether no escrow is kept.
    #[must_use]
    pub const fn strict(self) -> bool {
        self.0 & Self::STRICT.0 != 0
    }

    /// Whether the machine is saved on this host.
    #[must_use]
    pub const fn save(self) -> bool {
        self.0 & Self::SAVE.0 != 0
    }
}

impl Encode for LockFlags {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }
}

impl Decode for LockFlags {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        Self::from_bits(u32::decode(r)?)
    }
}

/// What a peer may do here beyond being a destination. 32 bits; bits that have no meaning must be clear.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PeerRights(u32);

impl PeerRights {
    /// Bit 0: it may prepare instances here over the link.
    pub const PREPARE: Self = Self(1);

    /// From the bits.
    ///
    /// # Errors
    /// `TPM_RC_RESERVED_BITS` when a bit without a meaning is set.
    pub const fn from_bits(bits: u32) -> Result<Self, ResponseCode> {
        if bits & !Self::PREPARE.0 != 0 { Err(ResponseCode::RESERVED_BITS) } else { Ok(Self(bits)) }
    }

    /// Whether the peer may prepare instances here.
    #[must_use]
    pub const fn may_prepare(self) -> bool {
        self.0 & Self::PREPARE.0 != 0
    }
}

impl Encode for PeerRights {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }
}

impl Decode for PeerRights {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        Self::from_bits(u32::decode(r)?)
    }
}

macro_rules! enumeration {
    ($(#[$m:meta])* $name:ident : $repr:ty { $($(#[$vm:meta])* $v:ident = $n:expr, $text:expr;)* }) => {
        $(#[$m])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr($repr)]
        pub enum $name { $($(#[$vm])* $v = $n),* }

        impl $name {
            /// The word for it in the output of tools.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$v => $text),* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Encode for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                let number: $repr = match self { $(Self::$v => $n),* };
                number.encode(out);
            }
        }

        impl Decode for $name {
            fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
                match <$repr>::decode(r)? {
                    $($n => Ok(Self::$v),)*
                    _ => Err(ResponseCode::VALUE),
                }
            }
        }
    };
}

enumeration! {
    /// Where an instance stands. The arrows between the states are drawn in the package vtpmd, module `migration`.
    InstanceState: u8 {
        /// Executes commands.
        Live = 0x01, "live";
        /// Source lock engaged.
        SourceLocked = 0x10, "source-locked";
        /// Source lock engaged, keys made.
        SourceKeyed = 0x11, "source-keyed";
        /// Some pieces are exported.
        Exporting = 0x12, "exporting";
        /// All pieces are exported.
        Exported = 0x13, "exported";
        /// Source lock engaged, since the machine is being saved on this host.
        Saving = 0x14, "saving";
        /// All pieces are exported, to a machine that is saved on this host.
        Saved = 0x15, "saved";
        /// Destination lock engaged; empty.
        DestinationLocked = 0x20, "destination-locked";
        /// Destination lock engaged, keys set.
        DestinationKeyed = 0x21, "destination-keyed";
        /// Some pieces are imported.
        Importing = 0x22, "importing";
        /// Complete and unlocked; has not executed a command yet.
        Imported = 0x23, "imported";
        /// The migration was given up here.
        Void = 0x24, "void";
        /// What the store has of it does not hold together. It can be listed and deleted, and nothing else.
        Damaged = 0xff, "damaged";
    }
}

impl InstanceState {
    /// Its source lock is engaged, and another host knows what becomes of it.
    #[must_use]
    pub const fn is_source_locked(self) -> bool {
        matches!(self, Self::SourceLocked | Self::SourceKeyed | Self::Exporting | Self::Exported)
    }

    /// Its source lock is engaged for a machine that is saved on this host.
    #[must_use]
    pub const fn is_save(self) -> bool {
        matches!(self, Self::Saving | Self::Saved)
    }
}

enumeration! {
    /// What a piece of state is.
    PieceKind: u16 {
        /// An NV index with its data.
        NvIndex = 1, "nv-index";
        /// A persistent object.
        Persistent = 2, "persistent";
        /// What survives `_TPM_Init`: seeds, proofs, authorizations, clock.
        Permanent = 3, "permanent";
        /// What a machine reset clears: PCRs, transient objects, sessions.
        Volatile = 4, "volatile";
        /// The list of all pieces; always the last.
        Manifest = 5, "manifest";
        /// In a request only: all pieces that are left, as many as fit.
        Everything = 0xffff, "everything";
    }
}

enumeration! {
    /// What GetInstanceCapability can be asked for.
    InstanceCapability: u32 {
        /// The NV indices, from handle `property` on.
        NvIndices = 1, "nv-indices";
        /// The persistent objects, from handle `property` on.
        Persistent = 2, "persistent";
        /// The pieces that are not exported yet, with their sizes, from position `property` on.
        Pieces = 3, "pieces";
        /// The limits, see [`LimitTag`], from tag `property` on.
        Limits = 4, "limits";
    }
}

enumeration! {
    /// Names a limit.
    LimitTag: u32 {
        /// The longest instance command, in bytes.
        MaxCommand = 1, "max-command";
        /// The longest response to one.
        MaxResponse = 2, "max-response";
        /// The longest parameter `data`.
        MaxData = 3, "max-data";
        /// What a piece's header and HMAC add to its content.
        PieceOverhead = 4, "piece-overhead";
    }
}

enumeration! {
    /// Which receipt an instance that came by migration, or a slot for one, can show.
    Outcome: u8 {
        /// No migration, or one that is still open.
        Open = 0, "open";
        /// It lives here: the `live` receipt.
        Live = 1, "live";
        /// It will never live here: the `void` receipt.
        Void = 2, "void";
    }
}

enumeration! {
    /// How a peer is recognized.
    PeerKind: u8 {
        /// By its attestation key: the credential is the `TPMT_PUBLIC` of it.
        Pinned = 1, "pinned";
        /// By a certificate: the credential is the X.509 certificate (DER) of the authority that issues them.
        Authority = 2, "authority";
        /// Not by this entry, which is an address only: one of the other two recognizes who answers there.
        Address = 3, "address";
    }
}

enumeration! {
    /// What a certified key of a root is for.
    KeyRole: u8 {
        /// The RSA storage key.
        RsaStorage = 1, "rsa-storage";
        /// The ECC storage key.
        EccStorage = 2, "ecc-storage";
        /// The key of its end of the peer link.
        Link = 3, "link";
        /// The storage key that it shares with other roots.
        Fleet = 4, "fleet";
    }
}

enumeration! {
    /// Which end of a migration a host is.
    MigrationSide: u8 {
        /// From where the instance leaves.
        Source = 1, "source";
        /// Where it is to arrive.
        Destination = 2, "destination";
    }
}

enumeration! {
    /// A step of a migration in the log: the low byte of the code of its command, or what is no command.
    LoggedStep: u8 {
        /// CreateInstance.
        Prepare = 0x01, "prepare";
        /// LockInstance.
        Lock = 0x02, "lock";
        /// GetInstanceKey.
        GetKey = 0x03, "get-key";
        /// GetInstanceData.
        GetData = 0x05, "get-data";
        /// DeleteInstance.
        Delete = 0x06, "delete";
        /// SetInstanceKey.
        SetKey = 0x07, "set-key";
        /// SetInstanceData.
        SetData = 0x08, "set-data";
        /// UnlockInstance.
        Unlock = 0x09, "unlock";
        /// AbortMigration.
        Abort = 0x0c, "abort";
        /// CommitMigration.
        Commit = 0x0d, "commit";
        /// ArmInstance.
        Arm = 0x0e, "arm";
        /// ResetInstance.
        Reset = 0x0f, "reset";
        /// The first command of the guest at the destination: from here on the instance lives there.
        FirstCommand = 0x80, "first-command";
        /// No command: the machine ran again at the source, whose policy is to be available; or ran on, after it was saved.
        MachineRuns = 0x81, "machine-runs";
    }
}

enumeration! {
    /// Whether the machine of an instance may be saved to a file or snapshot on this host. It belongs to the host, and does not travel.
    SavePermission: u8 {
        /// As the configuration of the daemon says.
        Configured = 0, "configured";
        /// It may.
        Allowed = 1, "allowed";
        /// It may not.
        Refused = 2, "refused";
    }
}

#[expect(
    clippy::derivable_impls,
    reason = "the macro that makes the enumerations has no place for the attribute"
)]
impl Default for SavePermission {
    fn default() -> Self {
        Self::Configured
    }
}

enumeration! {
    /// What a source does with a migration of which it does not hear the end. It belongs to the instance and travels with it.
    MigrationPolicy: u8 {
        /// What was exported stays in the escrow until a receipt of the destination settles it.
        Recoverable = 0, "recoverable";
        /// Every migration is locked strictly, see [`LockFlags::STRICT`].
        Strict = 1, "strict";
        /// As recoverable; but when the machine runs again on the source, the instance lives again there without a receipt. This gives up that
        /// there is one live copy at most.
        Availability = 2, "availability";
    }
}

#[expect(
    clippy::derivable_impls,
    reason = "the macro that makes the enumerations has no place for the attribute"
)]
impl Default for MigrationPolicy {
    fn default() -> Self {
        Self::Recoverable
    }
}
