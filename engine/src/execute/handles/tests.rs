//! Every handle of every command takes its kinds of handles, there or not, and no other (Part 2, chapter 9).

use super::*;
use crate::command::nv::testing::{INDEX, OPEN, define, public};
use crate::command::table;
use crate::signing::test_keys::{ecc, load};
use crate::testing::objects::start_policy;
use crate::testing::{TestTpm, command_bytes};
use std::collections::BTreeMap;
use vtpm_protocol::tpm::{Scheme, Tpm2bNonce, TpmAlgId, TpmCc, TpmSe};

const OBJECT: TpmHandle = TpmHandle(0x8000_0000);
const HMAC: TpmHandle = TpmHandle(0x0200_0000);
const POLICY: TpmHandle = TpmHandle(0x0300_0001);
const PCR: TpmHandle = TpmHandle(16);

/// Handles of nothing that any command takes.
const NONE: [u32; 15] = [
    24,
    0x00ff_ffff,
    0x0200_0040,
    0x0300_0040,
    0x4000_0000,
    0x4000_0002,
    0x4000_0003,
    0x4000_0006,
    0x4000_0009,
    0x4000_000d,
    0x4000_0120,
    0x8000_0003,
    0x80ff_ffff,
    0x9000_0000,
    0xffff_ffff,
];

/// Handles that are there, and of those that are not there handle and code.
type Class = (Vec<TpmHandle>, Vec<(u32, ResponseCode)>);

/// Every class of handles.
fn classes() -> BTreeMap<&'static str, Class> {
    let (handle, reference) = (ResponseCode::HANDLE, ResponseCode::REFERENCE_H0);
    [
        ("transient", (vec![OBJECT], vec![(0x8000_0002, reference)])),
        ("persistent", (vec![], vec![(0x8100_0000, handle), (0x8180_0000, handle)])),
        ("null", (vec![TpmHandle::NULL], vec![])),
        ("pcr", (vec![TpmHandle(0), PCR, TpmHandle(23)], vec![])),
        ("nv", (vec![INDEX], vec![(INDEX.0 + 1, handle)])),
        // A session in the slot that is of the other type is there and is not.
        ("hmac", (vec![HMAC], vec![(0x0200_0002, reference), (0x0200_0001, handle)])),
        ("policy", (vec![POLICY], vec![(0x0300_0002, reference), (0x0300_0000, handle)])),
        ("owner", (vec![TpmHandle::OWNER], vec![])),
        ("endorsement", (vec![TpmHandle::ENDORSEMENT], vec![])),
        ("platform", (vec![TpmHandle::PLATFORM], vec![])),
        ("lockout", (vec![TpmHandle::LOCKOUT], vec![])),
        (
            "act",
            (
                vec![TpmHandle::ACT_0],
                vec![(0x4000_0111, ResponseCode::VALUE), (0x4000_011f, ResponseCode::VALUE)],
            ),
        ),
    ]
    .into()
}

/// The classes that an interface type has in Part 2.
fn takes(kind: HandleKind) -> &'static [&'static str] {
    match kind {
        HandleKind::Object => &["transient", "persistent"],
        HandleKind::ObjectOrNull => &["transient", "persistent", "null"],
        HandleKind::ParentOrNull => &["transient", "persistent", "owner", "endorsement", "platform", "null"],
        HandleKind::Entity => {
            &["owner", "endorsement", "platform", "lockout", "transient", "persistent", "nv", "pcr"]
        }
        HandleKind::EntityOrNull => {
            &["owner", "endorsement", "platform", "lockout", "transient", "persistent", "nv", "pcr", "null"]
        }
        HandleKind::Pcr => &["pcr"],
        HandleKind::PcrOrNull => &["pcr", "null"],
        HandleKind::HmacSession => &["hmac"],
        HandleKind::PolicySession => &["policy"],
        HandleKind::Context => &["transient", "hmac", "policy"],
        HandleKind::HierarchyOrNull => &["owner", "endorsement", "platform", "null"],
        HandleKind::BaseHierarchy => &["owner", "endorsement", "platform"],
        HandleKind::Act => &["act"],
        HandleKind::HierarchyAuth => &["owner", "endorsement", "platform", "lockout"],
        HandleKind::HierarchyPolicy => &["owner", "endorsement", "platform", "lockout", "act"],
        HandleKind::Provision => &["owner", "platform"],
        HandleKind::Clear => &["lockout", "platform"],
        HandleKind::Owner => &["owner"],
        HandleKind::Platform => &["platform"],
        HandleKind::Endorsement => &["endorsement"],
        HandleKind::Lockout => &["lockout"],
        HandleKind::NvAuth => &["owner", "platform", "nv"],
        HandleKind::NvIndex => &["nv"],
        HandleKind::Instance => &[],
    }
}

/// A TPM in which one of each class is there.
fn prepared() -> TestTpm {
    let mut tpm = TestTpm::started();
    define(&mut tpm, TpmHandle::OWNER, b"", public(INDEX, OPEN, 8)).unwrap();
    assert_eq!(load(&mut tpm, ecc(Scheme::NULL)), OBJECT);
    let input = (Tpm2bNonce::new([7; 16]).unwrap(), 0u16, TpmSe::HMAC, TpmAlgId::NULL, TpmAlgId::SHA256);
    tpm.run(TpmCc::START_AUTH_SESSION, &[TpmHandle::NULL; 2], &input).unwrap();
    assert_eq!(start_policy(&mut tpm, TpmSe::POLICY), POLICY);
    tpm
}

/// Calls `check` for every command, every one of its handles, and handles that are right in all other places.
fn for_every_handle(mut check: impl FnMut(&Command, usize, &mut dyn FnMut(TpmHandle) -> Vec<u8>)) {
    let classes = classes();
    let right = |kind| classes[takes(kind)[0]].0[0];
    for command in table::COMMANDS.iter().filter(|c| !table::is_vendor(c.code)) {
        for n in 0..command.handles.len() {
            check(command, n, &mut |handle| {
                let mut handles: Vec<TpmHandle> = command.handles.iter().map(|h| right(h.kind)).collect();
                handles[n] = handle;
                command_bytes(command.code, &handles, &[], &[])
            });
        }
    }
}

#[test]
fn a_handle_of_another_kind_is_refused_by_its_number() {
    let (mut tpm, classes) = (prepared(), classes());
    let mut tried = 0;
    for_every_handle(|command, n, bytes| {
        let number = u32::try_from(n).unwrap() + 1;
        let taken = takes(command.handles[n].kind);
        let others = classes.iter().filter(|(class, _)| !taken.contains(class));
        let others =
            others.flat_map(|(_, (there, gone))| there.iter().map(|h| h.0).chain(gone.iter().map(|g| g.0)));
        for handle in others.chain(NONE) {
            let rc = tpm.rc(&bytes(TpmHandle(handle)));
            assert_eq!(rc, ResponseCode::VALUE.handle(number), "{:?} {handle:x}", command.code);
            tried += 1;
        }
    });
    assert!(tried > 2000, "{tried}");
}

#[test]
fn a_handle_of_what_is_not_there_is_told_by_its_number() {
    let (mut tpm, classes) = (prepared(), classes());
    let mut tried = 0;
    for_every_handle(|command, n, bytes| {
        let number = u32::try_from(n).unwrap() + 1;
        for class in takes(command.handles[n].kind) {
            for (handle, rc) in &classes[class].1 {
                let expected = match *rc {
                    ResponseCode::REFERENCE_H0 => ResponseCode::from_value(rc.value() + number - 1),
                    other => other.handle(number),
                };
                assert_eq!(tpm.rc(&bytes(TpmHandle(*handle))), expected, "{:?} {handle:x}", command.code);
                tried += 1;
            }
        }
    });
    assert!(tried > 200, "{tried}");
}

#[test]
fn a_disabled_hierarchy_and_what_belongs_to_it_is_told_by_its_number() {
    let mut tried = 0;
    for (hierarchy, class) in [
        (TpmHandle::OWNER, "owner"),
        (TpmHandle::ENDORSEMENT, "endorsement"),
        (TpmHandle::PLATFORM, "platform"),
    ] {
        let mut tpm = prepared();
        let volatile = tpm.state().volatile_mut();
        match hierarchy {
            TpmHandle::OWNER => volatile.state_clear.sh_enable = false,
            TpmHandle::ENDORSEMENT => volatile.state_clear.eh_enable = false,
            _ => volatile.ph_enable = false,
        }
        tpm.resave();
        for_every_handle(|command, n, bytes| {
            let number = u32::try_from(n).unwrap() + 1;
            let taken = takes(command.handles[n].kind);
            if taken.contains(&class) && n == 0 {
                let rc = tpm.rc(&bytes(hierarchy));
                assert_eq!(rc, ResponseCode::HIERARCHY.handle(number), "{:?}", command.code);
                tried += 1;
            }
            if hierarchy == TpmHandle::OWNER && taken.contains(&"nv") && n == 0 {
                let rc = tpm.rc(&bytes(INDEX));
                assert_eq!(rc, ResponseCode::HANDLE.handle(number), "{:?}", command.code);
                tried += 1;
            }
        });
    }
    assert!(tried > 40, "{tried}");
}
