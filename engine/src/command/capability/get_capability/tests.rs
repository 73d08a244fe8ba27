use crate::command::nv::testing::{OPEN, define, public};
use crate::command::table;
use crate::testing::TestTpm;
use vtpm_protocol::codec::{Decode, Reader, decode_exact};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    TpmAlgId, TpmCap, TpmCc, TpmHandle, TpmPt, TpmPtPcr, TpmSu, TpmaCc, Tpml, TpmlPcrSelection,
    TpmsAlgProperty, TpmsTaggedProperty,
};

/// More entries than any list has.
const ALL: u32 = u32::MAX;

/// The bytes of the list, and whether there is more.
fn get(
    tpm: &mut TestTpm,
    capability: TpmCap,
    property: u32,
    count: u32,
) -> Result<(bool, Vec<u8>), ResponseCode> {
    let out = tpm.run(TpmCc::GET_CAPABILITY, &[], &(capability, property, count))?;
    let mut r = Reader::new(&out);
    let (more, answered): (bool, TpmCap) = Decode::decode(&mut r).unwrap();
    assert_eq!(answered, capability);
    assert!(r.remaining() + 4 <= 1024, "over MAX_CAP_BUFFER");
    Ok((more, r.take_rest().to_vec()))
}

fn list<T: Decode>(tpm: &mut TestTpm, capability: TpmCap, property: u32, count: u32) -> (bool, Vec<T>) {
    let (more, bytes) = get(tpm, capability, property, count).unwrap();
    (more, decode_exact::<Tpml<T, 512>>(&bytes).unwrap().0)
}

fn property(tpm: &mut TestTpm, property: TpmPt) -> u32 {
    let (_, list) = list::<TpmsTaggedProperty>(tpm, TpmCap::TPM_PROPERTIES, property.0, 1);
    assert_eq!(list[0].property, property);
    list[0].value
}

#[test]
fn every_list_can_be_read_entry_by_entry() {
    let mut tpm = TestTpm::started();
    let (more, all) = list::<TpmaCc>(&mut tpm, TpmCap::COMMANDS, 0, ALL);
    assert!(!more);
    let (mut one_by_one, mut next, mut more) = (Vec::new(), 0, true);
    while more {
        let (m, mut entry) = list::<TpmaCc>(&mut tpm, TpmCap::COMMANDS, next, 1);
        next = (entry[0].0 & 0xffff) + 1;
        one_by_one.append(&mut entry);
        more = m;
    }
    assert_eq!(one_by_one, all);
    let (more, none) = list::<TpmaCc>(&mut tpm, TpmCap::COMMANDS, 0, 0);
    assert!(more && none.is_empty());
    let (more, none) = list::<TpmaCc>(&mut tpm, TpmCap::COMMANDS, 0xffff, ALL);
    assert!(!more && none.is_empty());
}

#[test]
fn an_unprivileged_instance_has_no_instance_commands() {
    let mut tpm = TestTpm::started();
    let (_, all) = list::<TpmaCc>(&mut tpm, TpmCap::COMMANDS, 0, ALL);
    let library = table::COMMANDS.iter().filter(|c| !table::is_vendor(c.code)).count();
    assert_eq!(all.len(), library);
    assert!(library < table::COMMANDS.len());
    assert_eq!(property(&mut tpm, TpmPt::TOTAL_COMMANDS) as usize, library);
    assert_eq!(property(&mut tpm, TpmPt::VENDOR_COMMANDS), 0);
    // TPM2_PCR_Extend: index, NV, one handle.
    assert!(all.contains(&TpmaCc(0x0182 | TpmaCc::NV.0 | 1 << 25)));
}

#[test]
fn algorithms_have_the_attributes_of_the_registry() {
    let mut tpm = TestTpm::started();
    let (more, algs) = list::<TpmsAlgProperty>(&mut tpm, TpmCap::ALGS, 0, ALL);
    assert!(!more);
    let of = |alg| algs.iter().find(|a| a.alg == alg).unwrap().properties.0;
    assert_eq!(of(TpmAlgId::RSA), 0x9);
    assert_eq!(of(TpmAlgId::KEYEDHASH), 0x30c);
    assert_eq!(of(TpmAlgId::ECDH), 0x401);
    let (_, rest) = list::<TpmsAlgProperty>(&mut tpm, TpmCap::ALGS, TpmAlgId::ECC.0.into(), 1);
    assert_eq!(rest[0].alg, TpmAlgId::ECC);
    // Above every id, though its lower half is one.
    let (_, none) = list::<TpmsAlgProperty>(&mut tpm, TpmCap::ALGS, 0x1_0001, ALL);
    assert!(none.is_empty());
}

#[test]
fn handles_are_listed_by_type() {
    let mut tpm = TestTpm::started();
    let (_, pcrs) = list::<TpmHandle>(&mut tpm, TpmCap::HANDLES, 0, ALL);
    assert_eq!(pcrs, (0..24).map(TpmHandle).collect::<Vec<_>>());
    let (_, permanent) = list::<TpmHandle>(&mut tpm, TpmCap::HANDLES, 0x4000_0000, ALL);
    assert!(permanent.contains(&TpmHandle::OWNER) && permanent.is_sorted());
    assert_eq!(permanent.last(), Some(&TpmHandle::ACT_0));

    for i in [3u32, 1, 2] {
        define(&mut tpm, TpmHandle::OWNER, b"", public(TpmHandle(0x0100_0000 + i), OPEN, 8)).unwrap();
    }
    let (more, nv) = list::<TpmHandle>(&mut tpm, TpmCap::HANDLES, 0x0100_0002, 1);
    assert_eq!((more, nv), (true, vec![TpmHandle(0x0100_0002)]));
    let (more, nv) = list::<TpmHandle>(&mut tpm, TpmCap::HANDLES, 0x0100_0002, 2);
    assert_eq!((more, nv.len()), (false, 2));

    for empty in [0x0200_0000u32, 0x0300_0000, 0x8000_0000, 0x8100_0000] {
        assert_eq!(list::<TpmHandle>(&mut tpm, TpmCap::HANDLES, empty, ALL), (false, vec![]));
    }
    for wrong in [0x0400_0000u32, 0x9000_0000, 0xffff_ffff] {
        let rc = get(&mut tpm, TpmCap::HANDLES, wrong, ALL).unwrap_err();
        assert_eq!(rc, ResponseCode::HANDLE.parameter(2));
    }
}

#[test]
fn loaded_and_saved_sessions_are_listed_apart() {
    let mut tpm = TestTpm::started();
    // An unbound HMAC session, no encryption, SHA-256.
    let mut parameters = vec![0, 16];
    parameters.resize(18, 1);
    parameters.extend_from_slice(&[0, 0, 0, 0, 0x10, 0, 0x0b]);
    let null = TpmHandle::NULL;
    let start = crate::testing::command_bytes(TpmCc::START_AUTH_SESSION, &[null, null], &[], &parameters);
    let mut policy = start.clone();
    policy[10 + 8 + 18 + 2] = 1;
    tpm.ok(&start);
    tpm.ok(&policy);
    let loaded = list::<TpmHandle>(&mut tpm, TpmCap::HANDLES, 0x0200_0000, ALL).1;
    assert_eq!(loaded, [TpmHandle(0x0200_0000), TpmHandle(0x0300_0001)]);
    tpm.run(TpmCc::CONTEXT_SAVE, &[loaded[1]], &()).unwrap();
    assert_eq!(list::<TpmHandle>(&mut tpm, TpmCap::HANDLES, 0x0200_0000, ALL).1, [loaded[0]]);
    assert_eq!(list::<TpmHandle>(&mut tpm, TpmCap::HANDLES, 0x0300_0000, ALL).1, [TpmHandle(0x0200_0001)]);
    assert_eq!(property(&mut tpm, TpmPt::HR_LOADED), 1);
    assert_eq!(property(&mut tpm, TpmPt::HR_ACTIVE), 2);
    assert_eq!(property(&mut tpm, TpmPt::HR_ACTIVE_AVAIL), 62);
}

#[test]
fn properties_stay_in_their_group_and_skip_what_is_not_there() {
    let mut tpm = TestTpm::started();
    let (more, fixed) = list::<TpmsTaggedProperty>(&mut tpm, TpmCap::TPM_PROPERTIES, 0, ALL);
    assert!(!more);
    assert_eq!(fixed[0].property, TpmPt::FAMILY_INDICATOR);
    assert!(fixed.iter().all(|p| p.property < TpmPt::PERMANENT));
    let (_, after_gap) = list::<TpmsTaggedProperty>(&mut tpm, TpmCap::TPM_PROPERTIES, 0x115, 1);
    assert_eq!(after_gap[0].property, TpmPt::NV_COUNTERS_MAX);
    let (_, variable) = list::<TpmsTaggedProperty>(&mut tpm, TpmCap::TPM_PROPERTIES, 0x200, ALL);
    assert_eq!(variable[0].property, TpmPt::PERMANENT);
    assert_eq!(variable.last().unwrap().property, TpmPt::AUDIT_COUNTER_1);
    for beyond in [0x300, u32::MAX] {
        let (more, none) = list::<TpmsTaggedProperty>(&mut tpm, TpmCap::TPM_PROPERTIES, beyond, ALL);
        assert!(!more && none.is_empty());
    }
}

#[test]
fn startup_attributes_tell_an_orderly_boot() {
    // Before the first one nothing ended without a Shutdown.
    let mut tpm = TestTpm::started();
    assert_eq!(property(&mut tpm, TpmPt::STARTUP_CLEAR), 0x8000_000f);
    tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::CLEAR).unwrap();
    tpm.init();
    tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).unwrap();
    assert_eq!(property(&mut tpm, TpmPt::STARTUP_CLEAR), 0x8000_000f);
    tpm.init();
    tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).unwrap();
    assert_eq!(property(&mut tpm, TpmPt::STARTUP_CLEAR), 0x0f);
}

#[test]
fn the_pcr_allocation_is_told_whole() {
    let mut tpm = TestTpm::started();
    let (more, bytes) = get(&mut tpm, TpmCap::PCRS, 0, 1).unwrap();
    let banks: TpmlPcrSelection = decode_exact(&bytes).unwrap();
    assert!(!more && banks.0.len() == 4 && banks.0.iter().all(|b| b.pcrs().count() == 24));
    assert_eq!(get(&mut tpm, TpmCap::PCRS, 0, 0).unwrap(), (true, vec![0; 4]));
    assert_eq!(get(&mut tpm, TpmCap::PCRS, 1, 1).unwrap_err(), ResponseCode::VALUE.parameter(2));
}

#[test]
fn pcr_properties_are_those_of_the_profile() {
    let mut tpm = TestTpm::started();
    let (more, all) = list::<(TpmPtPcr, u8, [u8; 3])>(&mut tpm, TpmCap::PCR_PROPERTIES, 0, ALL);
    assert!(!more);
    let of = |property| all.iter().find(|p| p.0 == property).unwrap().2;
    assert_eq!(of(TpmPtPcr::SAVE), [0xff, 0xff, 0]);
    assert_eq!(of(TpmPtPcr::EXTEND_L0), [0xff, 0xff, 0x81]);
    assert_eq!(of(TpmPtPcr::RESET_L0), [0, 0, 0x81]);
    assert_eq!(of(TpmPtPcr::EXTEND_L2), [0xff, 0xff, 0xff]);
    assert_eq!(of(TpmPtPcr::RESET_L4), [0, 0, 0x7e]);
    assert_eq!(of(TpmPtPcr::NO_INCREMENT), [0, 0, 0xe1]);
    assert_eq!(of(TpmPtPcr::DRTM_RESET), [0, 0, 0x7e]);
    let (_, after_gap) = list::<(TpmPtPcr, u8, [u8; 3])>(&mut tpm, TpmCap::PCR_PROPERTIES, 0x0b, 1);
    assert_eq!(after_gap[0].0, TpmPtPcr::NO_INCREMENT);
}

#[test]
fn policies_of_permanent_handles_are_listed_with_none_as_null() {
    let mut tpm = TestTpm::started();
    let (more, bytes) = get(&mut tpm, TpmCap::AUTH_POLICIES, 0x4000_0000, ALL).unwrap();
    assert!(!more);
    assert_eq!(bytes[..10], [0, 0, 0, 5, 0x40, 0, 0, 1, 0, 0x10]);
    assert_eq!(bytes[28..], [0x40, 0, 1, 0x10, 0, 0x10]);
    assert_eq!(get(&mut tpm, TpmCap::AUTH_POLICIES, 0, ALL).unwrap_err(), ResponseCode::VALUE.parameter(2));
}

#[test]
fn the_curves_are_listed_and_there_is_one_timer_and_no_button() {
    let mut tpm = TestTpm::started();
    let (more, curves) = get(&mut tpm, TpmCap::ECC_CURVES, 0, ALL).unwrap();
    assert_eq!((more, curves), (false, vec![0, 0, 0, 6, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 0x20]));
    assert_eq!(get(&mut tpm, TpmCap::ECC_CURVES, 3, 1).unwrap(), (true, vec![0, 0, 0, 1, 0, 3]));
    assert_eq!(get(&mut tpm, TpmCap::ECC_CURVES, 6, ALL).unwrap(), (false, vec![0, 0, 0, 1, 0, 0x20]));
    assert_eq!(get(&mut tpm, TpmCap::ECC_CURVES, 0x21, ALL).unwrap(), (false, vec![0; 4]));
    let timer = [vec![0, 0, 0, 1, 0x40, 0, 1, 0x10], vec![0; 8]].concat();
    assert_eq!(get(&mut tpm, TpmCap::ACT, 0x4000_0110, ALL).unwrap(), (false, timer));
    assert_eq!(get(&mut tpm, TpmCap::ACT, 0x4000_0110, 0).unwrap(), (true, vec![0; 4]));
    for none in [0x4000_0111, 0x4000_011f] {
        assert_eq!(get(&mut tpm, TpmCap::ACT, none, ALL).unwrap(), (false, vec![0; 4]));
    }
    for wrong in [0, 0x4000_010f, 0x4000_0120] {
        assert_eq!(get(&mut tpm, TpmCap::ACT, wrong, ALL).unwrap_err(), ResponseCode::VALUE.parameter(2));
    }
    // Only the command that chooses what needs presence needs it.
    let (more, commands) = get(&mut tpm, TpmCap::PP_COMMANDS, 0, ALL).unwrap();
    assert_eq!((more, commands), (false, vec![0, 0, 0, 1, 0, 0, 1, 0x2d]));
    assert_eq!(get(&mut tpm, TpmCap::PP_COMMANDS, 0, 0).unwrap(), (true, vec![0; 4]));
    assert_eq!(get(&mut tpm, TpmCap::PP_COMMANDS, 0x12e, ALL).unwrap(), (false, vec![0; 4]));
}

#[test]
fn an_unknown_capability_is_refused() {
    let mut tpm = TestTpm::started();
    for cap in [TpmCap::VENDOR_PROPERTY, TpmCap(0xd), TpmCap(0xffff_ffff)] {
        assert_eq!(get(&mut tpm, cap, 0, 1).unwrap_err(), ResponseCode::VALUE.parameter(1));
    }
}

#[test]
fn capabilities_of_secure_channels_are_refused_whatever_is_asked_of_them() {
    let mut tpm = TestTpm::started();
    for cap in [TpmCap::PUB_KEYS, TpmCap::SPDM_SESSION_INFO] {
        for (property, count) in [(0, 1), (0, 0), (0, ALL), (1, 1), (0xffff_ffff, 1)] {
            let rc = get(&mut tpm, cap, property, count).unwrap_err();
            assert_eq!(rc, ResponseCode::VALUE.parameter(1), "{cap:?} {property:x}");
        }
    }
}
