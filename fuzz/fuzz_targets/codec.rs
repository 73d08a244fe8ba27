//! Bytes that decode as a structure are the one form of bytes that the structure has. The first byte chooses the structure.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vtpm_protocol::codec::{Decode, Encode, Reader};
use vtpm_protocol::control::{Command, Parsed, Request, Response};
use vtpm_protocol::instance::migration::{Manifest, MigrationTicket, PieceHeader};
use vtpm_protocol::instance::{
    CreateInstanceIn, FleetKey, GetInstanceCapabilityIn, GetInstanceDataIn, Identity, ListInstancesIn,
    ListPeersIn, LockInstanceIn, PeerEntry, ReceiptIn, SetInstanceDataIn, UnlockInstanceIn,
};
use vtpm_protocol::stream::StreamDecoder;
use vtpm_protocol::tpm::*;

/// One form of bytes, unless decoding refuses them.
fn check<T: Encode + Decode>(bytes: &[u8]) {
    let mut r = Reader::new(bytes);
    if let Ok(value) = T::decode(&mut r) {
        let taken = bytes.len() - r.remaining();
        assert_eq!(value.to_bytes(), &bytes[..taken]);
    }
}

/// Tickets, what has one in it, and manifests have a second form, that of version 1, and are written in version 2.
fn check_versions<T: Encode + Decode + PartialEq>(bytes: &[u8]) {
    let mut r = Reader::new(bytes);
    if let Ok(value) = T::decode(&mut r) {
        let written = value.to_bytes();
        let mut again = Reader::new(&written);
        assert!(T::decode(&mut again).is_ok_and(|read| read == value) && again.is_empty());
    }
}

/// The stream of a migration, in pieces as the rest of the bytes cut them.
fn check_stream(bytes: &[u8]) {
    let mut decoder = StreamDecoder::new();
    for piece in bytes.chunks(usize::from(bytes.first().copied().unwrap_or(1)).max(1)) {
        if decoder.feed(piece).is_err() {
            return;
        }
        while let Ok(Some(_)) = decoder.next_frame() {}
    }
    let _ = decoder.finish();
}

/// A message of the control channel, in both directions. Padding is not written again.
fn check_control(bytes: &[u8]) {
    if let Ok(Parsed::Whole(request, content)) = Request::parse(bytes) {
        let written = [request.to_bytes(), content.to_vec()].concat();
        assert_eq!(Request::parse(&written), Ok(Parsed::Whole(request, content)));
    }
    for &command in Command::ALL {
        let mut r = Reader::new(bytes);
        if let Ok(response) = Response::decode(command, &mut r) {
            assert_eq!(bytes.len() - r.remaining(), Response::length(command, response.result()));
            let written = response.to_bytes();
            assert_eq!(Response::decode(command, &mut Reader::new(&written)), Ok(response));
        }
    }
}

macro_rules! structures {
    ($($t:ty),* $(,)?; $($of_versions:ty),* $(,)?) => {
        &[$(check::<$t>,)* $(check_versions::<$of_versions>),*]
    };
}

const STRUCTURES: &[fn(&[u8])] = structures![
    Tpm2bDigest,
    TpmtSymDef,
    TpmtSymDefObject,
    TpmtSigScheme,
    Tpm2bEccPoint,
    TpmtPublic,
    Tpm2bPublic,
    TpmtSensitive,
    Tpm2bSensitive,
    Tpm2bSensitiveCreate,
    TpmsCreationData,
    TpmtHa,
    TpmlDigestValues,
    TpmlDigest,
    TpmlPcrSelection,
    TpmtSignature,
    TpmtTk,
    TpmsTimeInfo,
    TpmsAttest,
    Tpm2bNvPublic,
    TpmsContext,
    TpmsAuthCommand,
    CreateInstanceIn,
    GetInstanceCapabilityIn,
    GetInstanceDataIn,
    SetInstanceDataIn,
    UnlockInstanceIn,
    ReceiptIn,
    ListInstancesIn,
    PieceHeader,
    PeerEntry,
    ListPeersIn,
    Identity,
    FleetKey;
    LockInstanceIn,
    Manifest,
    MigrationTicket,
];

fuzz_target!(|data: &[u8]| {
    let Some((&which, bytes)) = data.split_first() else { return };
    match usize::from(which) % (STRUCTURES.len() + 2) {
        n if n == STRUCTURES.len() => check_stream(bytes),
        n => match STRUCTURES.get(n) {
            Some(check) => check(bytes),
            None => check_control(bytes),
        },
    }
});
