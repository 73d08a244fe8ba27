//! The hosts that a privileged instance trusts: AddPeer, RemovePeer, ListPeers.

use super::{InstanceName, PeerKind, PeerRights, decode_list, encode_list};
use crate::codec::{Decode, Encode, Reader, encode_sized};
use crate::rc::ResponseCode;
use crate::structure;
use crate::tpm::Tpm2b;
use core::fmt;

/// The most peers of one instance.
pub const MAX_PEERS: usize = 256;
/// The longest address of a peer, in bytes of UTF-8.
pub const MAX_PEER_ADDRESS: usize = 256;
/// The most entries in one response of ListPeers, and the most bytes of them unless the first alone has more: they fit a response of 4096
/// bytes.
pub const MAX_CAP_PEERS: usize = 64;
/// See [`MAX_CAP_PEERS`].
pub const MAX_CAP_PEER_BYTES: usize = 3800;

/// Where a peer's link listens: `host:port`, an IPv6 address in brackets; or nothing.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct PeerAddress(String);

impl PeerAddress {
    /// Checks an address; the empty one is none.
    ///
    /// # Errors
    /// `TPM_RC_SIZE` for a longer one than [`MAX_PEER_ADDRESS`], `TPM_RC_VALUE` for what is not `host:port`.
    pub fn new(address: &str) -> Result<Self, ResponseCode> {
        if address.len() > MAX_PEER_ADDRESS {
            return Err(ResponseCode::SIZE);
        }
        if address.is_empty() {
            return Ok(Self::default());
        }
        let (host, port) = address.rsplit_once(':').ok_or(ResponseCode::VALUE)?;
        let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let name = bracketed.unwrap_or(host);
        let allowed = |b: u8| {
            b.is_ascii_alphanumeric()
                || matches!(b, b'.' | b'-' | b'_')
                || (bracketed.is_some() && b":%".contains(&b))
        };
        let is_port =
            port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0);
        if name.is_empty() || !name.bytes().all(allowed) || !is_port {
            return Err(ResponseCode::VALUE);
        }
        Ok(Self(address.to_owned()))
    }

    /// The address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Encode for PeerAddress {
    fn encode(&self, out: &mut Vec<u8>) {
        encode_sized(self.0.as_bytes(), out);
    }
}

impl Decode for PeerAddress {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let bytes = r.sized(MAX_PEER_ADDRESS)?;
        Self::new(core::str::from_utf8(bytes).map_err(|_| ResponseCode::VALUE)?)
    }
}

structure! {
    /// A host that the processing instance trusts, or where to look for one. Parameters of AddPeer.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct PeerEntry {
        /// What the operator calls it; unique among the peers of the instance.
        pub label: InstanceName,
        /// How it is recognized.
        pub kind: PeerKind,
        /// What it may do.
        pub rights: PeerRights,
        /// By what it is recognized, see [`PeerKind`].
        pub credential: Tpm2b<2048>,
        /// Where its link listens.
        pub address: PeerAddress,
    }
}

structure! {
    /// Parameters of RemovePeer.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct RemovePeerIn {
        /// Which.
        pub label: InstanceName,
    }
}

structure! {
    /// Parameters of ListPeers.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct ListPeersIn {
        /// The position of the first entry wanted, from 0, in the order of the labels.
        pub first: u32,
        /// How many at most.
        pub count: u32,
    }
}

/// Response parameters of ListPeers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListPeersOut {
    /// There are more.
    pub more: bool,
    /// The entries.
    pub peers: Vec<PeerEntry>,
}

impl Encode for ListPeersOut {
    fn encode(&self, out: &mut Vec<u8>) {
        self.more.encode(out);
        encode_list(&self.peers, out);
    }
}

impl Decode for ListPeersOut {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        Ok(Self { more: bool::decode(r)?, peers: decode_list(r, MAX_CAP_PEERS)? })
    }
}
