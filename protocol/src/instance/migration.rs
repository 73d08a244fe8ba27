//! What travels from one host to the other: the ticket, the key structure, and the pieces of state.

use super::{MigrationId, MigrationPolicy, PieceInfo, PieceKind, Uuid, decode_list, encode_list};
use crate::codec::{Decode, Encode, Reader, decode_exact};
use crate::rc::ResponseCode;
use crate::structure;
use crate::tpm::{TPM_GENERATED, Tpm2b, Tpm2bName, TpmAlgId};
use zeroize::Zeroizing;

/// The longest encoded [`MigrationTicket`].
pub const MAX_TICKET: usize = 3700;
const TICKET_MAGIC: u32 = 0x7654_504b; // "vTPK"
const TICKET_VERSION: u16 = 2;
/// What releases up to 0.2.0 wrote, without signature.
const TICKET_VERSION_1: u16 = 1;

const KEY_MAGIC: u32 = 0x7654_504d; // "vTPM"
const KEY_VERSION_1: u16 = 1;
const KEY_VERSION: u16 = 2;
/// The one flag of a key structure.
const KEY_STRICT: u16 = 1;
/// Bits of the symmetric key.
const KEY_BITS: u16 = 256;

const PIECE_MAGIC: u32 = 0x7654_5044; // "vTPD"
const PIECE_VERSION: u16 = 1;
/// Length of [`PieceHeader`] in bytes.
pub const PIECE_HEADER: usize = 4 + 2 + 2 + 32 + 16 + 4 + 2 + 4 + 4 + 4 + 4;
/// Length of the HMAC behind a piece's ciphertext.
pub const PIECE_HMAC: usize = 32;
/// What a sealed piece is longer than its content.
pub const PIECE_OVERHEAD: usize = PIECE_HEADER + PIECE_HMAC;
/// The longest content of one piece, over all its parts, in bytes.
pub const MAX_PIECE: u32 = 1 << 24;

const MANIFEST_VERSION: u16 = 2;
/// The most pieces that one instance can have.
pub const MAX_PIECES: usize = 8192;
/// How many migrations back an instance knows.
pub const MAX_PAST: usize = 64;

/// The destination's word to the source, made by CreateInstance: what the migration is called, whom it is for, under which key, the
/// hashes of the two receipts, and who says so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MigrationTicket {
    /// N.
    pub migration_id: MigrationId,
    /// The instance that it is for.
    pub uuid: Uuid,
    /// The Name of the storage key S to which the instance key must be encrypted; empty when the instance was not made for a
    /// migration, and then no source takes the ticket.
    pub storage_name: Tpm2bName,
    /// `TPMT_PUBLIC` of S, of which `storage_name` is the Name.
    pub storage_public: Tpm2b<1024>,
    /// SHA-256 of the receipt that says "it will never live here".
    pub void: [u8; 32],
    /// SHA-256 of the receipt that says "it lives here".
    pub live: [u8; 32],
    /// `TPMT_PUBLIC` of the key that signs; empty when there is no signature or S itself authenticates the ticket.
    pub signer: Tpm2b<1024>,
    /// An X.509 certificate (DER) of the signer, or nothing. The signature does not cover it: it speaks for itself.
    pub certificate: Tpm2b<1536>,
    /// `TPMT_SIGNATURE` over [`Self::signed_bytes`]: of the signer, or with `TPM_ALG_HMAC` under a key that follows from S; empty when
    /// unsigned.
    pub signature: Tpm2b<1024>,
}

impl MigrationTicket {
    /// A `TPM2B` around the ticket.
    ///
    /// # Errors
    /// `TPM_RC_SIZE`, or what [`Decode`] says.
    pub fn decode_sized(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        decode_exact(r.sized(MAX_TICKET)?)
    }

    /// What the signature covers: `TPM_GENERATED_VALUE`, then the ticket from its magic up to the signer. A TPM hashes nothing that begins
    /// with this value for a restricted key to sign, so that only CreateInstance gets such a signature of one; and no attestation has
    /// the ticket's magic in the place of its type.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut out = TPM_GENERATED.to_bytes();
        self.encode_fields(&mut out);
        self.signer.encode(&mut out);
        out
    }

    fn encode_fields(&self, out: &mut Vec<u8>) {
        (TICKET_MAGIC, TICKET_VERSION, self.migration_id, self.uuid).encode(out);
        (&self.storage_name, &self.storage_public, self.void, self.live).encode(out);
    }
}

impl Encode for MigrationTicket {
    fn encode(&self, out: &mut Vec<u8>) {
        self.encode_fields(out);
        (&self.signer, &self.certificate, &self.signature).encode(out);
    }
}

impl Decode for MigrationTicket {
    /// A ticket of version 1 decodes as one without a signature, and is of version 2 from then on.
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let start = r.remaining();
        let (magic, version): (u32, u16) = Decode::decode(r)?;
        if magic != TICKET_MAGIC || !matches!(version, TICKET_VERSION_1 | TICKET_VERSION) {
            return Err(ResponseCode::VALUE);
        }
        let migration_id = r.array()?;
        let uuid = Uuid::decode(r)?;
        let (storage_name, storage_public) = Decode::decode(r)?;
        let (void, live) = (r.array()?, r.array()?);
        let (signer, certificate) =
            if version == TICKET_VERSION { Decode::decode(r)? } else { (Tpm2b::empty(), Tpm2b::empty()) };
        let signature = Tpm2b::decode(r)?;
        if version == TICKET_VERSION_1 && !signature.is_empty() {
            return Err(ResponseCode::VALUE);
        }
        if start.saturating_sub(r.remaining()) > MAX_TICKET {
            return Err(ResponseCode::SIZE);
        }
        Ok(Self {
            migration_id,
            uuid,
            storage_name,
            storage_public,
            void,
            live,
            signer,
            certificate,
            signature,
        })
    }
}

/// `TPM_RC_VALUE` for another magic or version.
fn expect_version(r: &mut Reader<'_>, magic: u32, version: u16) -> Result<(), ResponseCode> {
    if (u32::decode(r)?, u16::decode(r)?) == (magic, version) { Ok(()) } else { Err(ResponseCode::VALUE) }
}

/// The symmetric key structure and the HMAC key, which travel under storage key S.
pub struct KeyStructure {
    /// N.
    pub migration_id: MigrationId,
    /// The instance that it is for.
    pub uuid: Uuid,
    /// AES-256, CTR.
    pub key: Zeroizing<[u8; 32]>,
    /// HMAC-SHA-256.
    pub hmac_key: Zeroizing<[u8; 32]>,
    /// The source locked strictly: it cannot come back without what the destination makes of these keys when it gives up.
    pub strict: bool,
}

impl KeyStructure {
    /// The bytes that are encrypted under S.
    #[must_use]
    pub fn to_secret_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(128));
        // What is not strict is written as releases before version 2 read it.
        let version = if self.strict { KEY_VERSION } else { KEY_VERSION_1 };
        (KEY_MAGIC, version, self.migration_id, self.uuid).encode(&mut out);
        if self.strict {
            KEY_STRICT.encode(&mut out);
        }
        (TpmAlgId::AES, KEY_BITS, TpmAlgId::CTR, TpmAlgId::SHA256).encode(&mut out);
        out.extend_from_slice(&*self.key);
        out.extend_from_slice(&*self.hmac_key);
        out
    }

    /// From the bytes that were decrypted with S.
    ///
    /// # Errors
    /// `TPM_RC_VALUE` for another magic or version, `TPM_RC_RESERVED_BITS` for flags that are not known, `TPM_RC_SYMMETRIC` for other
    /// algorithms, `TPM_RC_SIZE` and `TPM_RC_INSUFFICIENT` for another length.
    pub fn from_secret_bytes(bytes: &[u8]) -> Result<Self, ResponseCode> {
        let mut r = Reader::new(bytes);
        let (magic, version): (u32, u16) = Decode::decode(&mut r)?;
        if magic != KEY_MAGIC || !matches!(version, KEY_VERSION_1 | KEY_VERSION) {
            return Err(ResponseCode::VALUE);
        }
        let migration_id = r.array()?;
        let uuid = Uuid::decode(&mut r)?;
        let strict = version == KEY_VERSION;
        if strict && u16::decode(&mut r)? != KEY_STRICT {
            return Err(ResponseCode::RESERVED_BITS);
        }
        let algorithms: (TpmAlgId, u16, TpmAlgId, TpmAlgId) = Decode::decode(&mut r)?;
        if algorithms != (TpmAlgId::AES, KEY_BITS, TpmAlgId::CTR, TpmAlgId::SHA256) {
            return Err(ResponseCode::SYMMETRIC);
        }
        let key = Zeroizing::new(r.array()?);
        let hmac_key = Zeroizing::new(r.array()?);
        r.finish()?;
        Ok(Self { migration_id, uuid, key, hmac_key, strict })
    }
}

/// What stands in front of a sealed piece, in plain, and is covered by its HMAC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PieceHeader {
    /// It is the last one of the migration.
    pub last: bool,
    /// N.
    pub migration_id: MigrationId,
    /// The instance.
    pub uuid: Uuid,
    /// Position in the stream, from 0. Also the start of the counter block, so it never repeats under one key.
    pub sequence: u32,
    /// What it is.
    pub kind: PieceKind,
    /// The handle of an NV index or persistent object, else 0.
    pub handle: u32,
    /// Where in the content of the piece this part begins.
    pub offset: u32,
    /// The length of the whole content, at most [`MAX_PIECE`].
    pub total: u32,
    /// The length of this part.
    pub length: u32,
}

impl Encode for PieceHeader {
    fn encode(&self, out: &mut Vec<u8>) {
        (PIECE_MAGIC, PIECE_VERSION, u16::from(self.last)).encode(out);
        (self.migration_id, self.uuid, self.sequence).encode(out);
        (self.kind, self.handle, self.offset, self.total, self.length).encode(out);
    }
}

impl Decode for PieceHeader {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        expect_version(r, PIECE_MAGIC, PIECE_VERSION)?;
        let last = match u16::decode(r)? {
            0 => false,
            1 => true,
            _ => return Err(ResponseCode::RESERVED_BITS),
        };
        let (migration_id, uuid, sequence) = Decode::decode(r)?;
        let (kind, handle, offset, total, length) = Decode::decode(r)?;
        let header = Self { last, migration_id, uuid, sequence, kind, handle, offset, total, length };
        if kind == PieceKind::Everything {
            return Err(ResponseCode::VALUE);
        }
        let end = offset.checked_add(length).ok_or(ResponseCode::SIZE)?;
        if total > MAX_PIECE || end > total {
            return Err(ResponseCode::SIZE);
        }
        Ok(header)
    }
}

/// A sealed piece as it lies in a buffer: header, ciphertext of [`PieceHeader::length`] bytes, HMAC-SHA-256 over both.
#[derive(Clone, Copy, Debug)]
pub struct SealedPiece<'a> {
    /// The header, read.
    pub header: PieceHeader,
    /// All of the piece, which the digest is extended with.
    pub bytes: &'a [u8],
    /// Header and ciphertext, which the HMAC covers.
    pub authenticated: &'a [u8],
    /// The ciphertext.
    pub ciphertext: &'a [u8],
    /// The HMAC.
    pub hmac: [u8; PIECE_HMAC],
}

impl<'a> SealedPiece<'a> {
    /// Takes one piece from the front of `r`.
    ///
    /// # Errors
    /// What [`PieceHeader::decode`] says, `TPM_RC_INSUFFICIENT` when the bytes end early.
    pub fn take(r: &mut Reader<'a>) -> Result<Self, ResponseCode> {
        let start = r.peek_rest();
        let header = PieceHeader::decode(r)?;
        let length = usize::try_from(header.length).map_err(|_| ResponseCode::SIZE)?;
        let ciphertext = r.take(length)?;
        let taken = start.len().saturating_sub(r.remaining());
        let authenticated = start.get(..taken).ok_or(ResponseCode::INSUFFICIENT)?;
        let hmac = r.array()?;
        let taken = start.len().saturating_sub(r.remaining());
        let bytes = start.get(..taken).ok_or(ResponseCode::INSUFFICIENT)?;
        Ok(Self { header, bytes, authenticated, ciphertext, hmac })
    }
}

structure! {
    /// One record of the engine's saved state inside the content of a piece.
    pub struct PieceRecord {
        /// The engine's name of the record.
        pub key: [u8; 5],
        /// Its bytes.
        pub value: SecretLong,
    }
}

/// Secret bytes with a 32-bit size; wiped when dropped.
pub struct SecretLong(pub Zeroizing<Vec<u8>>);

impl Encode for SecretLong {
    fn encode(&self, out: &mut Vec<u8>) {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX).encode(out);
        out.extend_from_slice(&self.0);
    }
}

impl Decode for SecretLong {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let size = u32::decode(r)?;
        if size > MAX_PIECE {
            return Err(ResponseCode::SIZE);
        }
        let size = usize::try_from(size).map_err(|_| ResponseCode::SIZE)?;
        Ok(Self(Zeroizing::new(r.take(size)?.to_vec())))
    }
}

/// The content of the last piece: what the source exported. The destination unlocks nothing that it does not match.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// The policy of the instance. Version 1 had none, and no past.
    pub policy: MigrationPolicy,
    /// The migrations that it was locked for before, the newest last: their tickets are used up.
    pub past: Vec<MigrationId>,
    /// Every other piece, in the order of export, with the length of its content.
    pub pieces: Vec<PieceInfo>,
}

impl Encode for Manifest {
    fn encode(&self, out: &mut Vec<u8>) {
        (MANIFEST_VERSION, self.policy).encode(out);
        encode_list(&self.past, out);
        encode_list(&self.pieces, out);
    }
}

impl Decode for Manifest {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let (policy, past) = match u16::decode(r)? {
            1 => (MigrationPolicy::Recoverable, Vec::new()),
            MANIFEST_VERSION => (MigrationPolicy::decode(r)?, decode_list(r, MAX_PAST)?),
            _ => return Err(ResponseCode::VALUE),
        };
        Ok(Self { policy, past, pieces: decode_list(r, MAX_PIECES)? })
    }
}
