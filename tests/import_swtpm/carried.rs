//! What the TPM that was taken over holds is what a swtpm on the same state holds after its next start.

use vtpm_protocol::codec::{Decode, Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::*;

use crate::chip::{Auth, Chip, NO_AUTH, OWNER, Raw};
use crate::primaries::{ecc, ecc_signing, ek};
use crate::source::{Ours, Source};

const READ_WRITE: TpmaNv = TpmaNv(TpmaNv::OWNER_WRITE.0 | TpmaNv::OWNER_READ.0 | TpmaNv::AUTH_READ.0);

const DATA: u32 = 0x0150_0000;
const BLANK: u32 = 0x0150_0001;
const COUNTER: u32 = 0x0150_0002;
const BITS: u32 = 0x0150_0003;
const DIGEST: u32 = 0x0150_0004;
const PIN: u32 = 0x0150_0005;
const ORDERLY: u32 = 0x0150_0006;
const ORDERLY_COUNTER: u32 = 0x0150_0007;
const LOCKED: u32 = 0x0150_0008;
const LARGE: u32 = 0x0150_0009;
const GONE: u32 = 0x0150_000a;
const INDICES: [u32; 10] = [DATA, BLANK, COUNTER, BITS, DIGEST, PIN, ORDERLY, ORDERLY_COUNTER, LOCKED, LARGE];

fn fill_nv(chip: &mut Chip<'_>) {
    chip.define(DATA, READ_WRITE, 20);
    chip.nv_write(DATA, b"twenty bytes of data");
    chip.define(BLANK, READ_WRITE, 7);
    for index in [GONE, COUNTER] {
        chip.define(index, READ_WRITE.with_nt(TpmNt::Counter), 8);
        for _ in 0..3 {
            chip.nv(TpmCc::NV_INCREMENT, index, &()).unwrap();
        }
    }
    chip.run(TpmCc::NV_UNDEFINE_SPACE, &[OWNER, TpmHandle(GONE)], &[NO_AUTH], &()).unwrap();
    chip.define(BITS, READ_WRITE.with_nt(TpmNt::Bits), 8);
    chip.nv(TpmCc::NV_SET_BITS, BITS, &0x8000_0000_0000_0101u64).unwrap();
    chip.define(DIGEST, READ_WRITE.with_nt(TpmNt::Extend), 32);
    chip.nv(TpmCc::NV_EXTEND, DIGEST, &Tpm2bMaxNvBuffer::new(*b"event").unwrap()).unwrap();
    let pin = TpmaNv::OWNER_WRITE | TpmaNv::OWNER_READ | TpmaNv::NO_DA;
    chip.define(PIN, pin.with_nt(TpmNt::PinFail), 8);
    chip.nv_write(PIN, &[0, 0, 0, 1, 0, 0, 0, 5]);
    chip.define(ORDERLY, READ_WRITE | TpmaNv::ORDERLY, 5);
    chip.nv_write(ORDERLY, b"order");
    chip.define(ORDERLY_COUNTER, READ_WRITE.with_nt(TpmNt::Counter) | TpmaNv::ORDERLY, 8);
    for _ in 0..3 {
        chip.nv(TpmCc::NV_INCREMENT, ORDERLY_COUNTER, &()).unwrap();
    }
    chip.define(LOCKED, READ_WRITE | TpmaNv::WRITE_DEFINE, 3);
    chip.nv_write(LOCKED, b"for");
    chip.nv(TpmCc::NV_WRITE_LOCK, LOCKED, &()).unwrap();
    chip.define(LARGE, READ_WRITE, 2048);
    chip.nv_write(LARGE, &[0x5a; 1000]);
}

/// Public area with Name, and data.
type Seen = (Vec<u8>, Result<Vec<u8>, ResponseCode>);

/// Everything of an index that can be seen.
fn seen(chip: &mut Chip<'_>, index: u32, size: u16) -> Seen {
    (chip.nv_public(index).unwrap(), chip.nv_read(index, size))
}

fn all_seen(chip: &mut Chip<'_>) -> Vec<Seen> {
    let sizes = [20, 7, 8, 8, 32, 8, 5, 8, 3, 1024];
    INDICES.into_iter().zip(sizes).map(|(index, size)| seen(chip, index, size)).collect()
}

/// After a start with `kind`, or without the end of a boot, ours shows what swtpm shows.
fn nv_is_the_same(kind: Option<TpmSu>) {
    let source = Source::new();
    source.boot(|chip| {
        fill_nv(chip);
        if let Some(kind) = kind {
            chip.shutdown(kind);
        }
    });
    let mut ours = source.adopt();
    let theirs = source.boot(all_seen);
    let mut chip = ours.chip();
    chip.startup();
    let seen = all_seen(&mut chip);
    for ((index, theirs), ours) in INDICES.into_iter().zip(&theirs).zip(&seen) {
        assert_eq!(theirs, ours, "0x{index:08x} after {kind:?}");
    }
    assert_eq!(seen[0].1.as_deref(), Ok(&b"twenty bytes of data"[..]));
    // Counters count on, also above those that are gone.
    let count = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
    for (index, at) in [(COUNTER, 2), (ORDERLY_COUNTER, 7)] {
        let before = count(seen[at].1.as_ref().unwrap());
        assert!(before >= 3);
        chip.nv(TpmCc::NV_INCREMENT, index, &()).unwrap();
        assert_eq!(count(&chip.nv_read(index, 8).unwrap()), before + 1);
    }
    chip.define(GONE, READ_WRITE.with_nt(TpmNt::Counter), 8);
    chip.nv(TpmCc::NV_INCREMENT, GONE, &()).unwrap();
    assert!(count(&chip.nv_read(GONE, 8).unwrap()) > 3);
    // The locked one stays so, the others can be written.
    let write = (Tpm2bMaxNvBuffer::new(*b"new").unwrap(), 0u16);
    assert_eq!(chip.nv(TpmCc::NV_WRITE, LOCKED, &write), Err(ResponseCode::NV_LOCKED));
    chip.nv(TpmCc::NV_WRITE, DATA, &write).unwrap();
    chip.nv(TpmCc::NV_SET_BITS, BITS, &2u64).unwrap();
    assert_eq!(count(&chip.nv_read(BITS, 8).unwrap()), 0x8000_0000_0000_0103);
    // The authorization value came along.
    let index = TpmHandle(DATA);
    let read = chip.out(TpmCc::NV_READ, &[index, index], &[Auth::Password(b"nv")], &(3u16, 0u16));
    assert_eq!(read.unwrap()[2..], *b"new");
}

#[test]
fn nv_indices_of_every_type_go_on_after_a_shutdown() {
    nv_is_the_same(Some(TpmSu::CLEAR));
}

#[test]
fn nv_indices_of_every_type_go_on_after_a_loss_of_power() {
    nv_is_the_same(None);
}

#[test]
fn nv_indices_of_every_type_go_on_after_a_suspension() {
    nv_is_the_same(Some(TpmSu::STATE));
}

#[test]
fn persistent_keys_sign_and_unseal_here_what_belongs_to_them_there() {
    let source = Source::new();
    let (srk, ek_at, signer) = (0x8100_0001, 0x8101_0001, 0x8100_0002);
    let (sealed, publics) = source.boot(|chip| {
        for (hierarchy, template, at) in [
            (OWNER, ecc(TpmEccCurve::NIST_P256), srk),
            (TpmHandle::ENDORSEMENT, ek(), ek_at),
            (OWNER, ecc_signing(), signer),
        ] {
            let made = chip.primary(hierarchy, &template).unwrap().handle;
            chip.persist(made, at);
            chip.flush(made);
        }
        // The PCR as a boot leaves it.
        chip.extend(7, [1; 32]);
        let (trial, policy) = chip.pcr_policy(TpmSe::TRIAL, 7);
        chip.flush(trial);
        let sealed = chip.seal(TpmHandle(srk), b"the key of a disk", Some(&policy)).unwrap();
        (sealed, [srk, ek_at, signer].map(|at| chip.read_public(at).unwrap()))
    });
    let mut ours = source.adopt();
    let mut chip = ours.chip();
    chip.startup();
    assert_eq!([srk, ek_at, signer].map(|at| chip.read_public(at).unwrap()), publics);
    // The primary keys are those, too.
    for (hierarchy, template, public) in
        [(OWNER, ecc(TpmEccCurve::NIST_P256), &publics[0]), (TpmHandle::ENDORSEMENT, ek(), &publics[1])]
    {
        let made = chip.primary(hierarchy, &template).unwrap();
        assert_eq!(made.public, *public);
        chip.flush(made.handle);
    }
    // Another boot than the one that it was sealed to does not open it; the same one does.
    let object = chip.load(TpmHandle(srk), &sealed).unwrap();
    let (session, _) = chip.pcr_policy(TpmSe::POLICY, 7);
    assert_eq!(chip.unseal(object, Auth::Session(session)), Err(ResponseCode::POLICY_FAIL.session(1)));
    chip.flush(session);
    chip.extend(7, [1; 32]);
    let (session, _) = chip.pcr_policy(TpmSe::POLICY, 7);
    assert_eq!(chip.unseal(object, Auth::Session(session)).unwrap(), b"the key of a disk");
    chip.flush(session);
    chip.flush(object);
    // A signature of ours is one of the key that swtpm has.
    let digest = Tpm2bDigest::new([9; 32]).unwrap();
    let ticket = (TpmSt::HASHCHECK, TpmHandle::NULL, 0u16);
    let input = (digest.clone(), TpmAlgId::NULL, ticket);
    let signature = chip.out(TpmCc::SIGN, &[TpmHandle(signer)], &[NO_AUTH], &input).unwrap();
    source.boot(|chip| {
        let handles = [TpmHandle(signer)];
        chip.run(TpmCc::VERIFY_SIGNATURE, &handles, &[], &(digest, Raw(&signature))).unwrap();
    });
}

/// A curve that there is not here: the key is named, and all else comes along.
#[test]
fn an_object_with_an_algorithm_that_is_missing_is_left_out_and_named() {
    let source = Source::new();
    source.boot(|chip| {
        let template = ecc(TpmEccCurve(0x10));
        let handle = chip.primary_handle(OWNER, &template).unwrap();
        chip.persist(handle, 0x8100_0003);
        chip.flush(handle);
        let kept = chip.primary(OWNER, &ecc(TpmEccCurve::NIST_P256)).unwrap().handle;
        chip.persist(kept, 0x8100_0004);
        chip.define(DATA, READ_WRITE, 3);
    });
    let foreign = vtpm_engine::foreign::Foreign::read(&source.state(None)).unwrap();
    let notes: Vec<String> = foreign.notes().iter().map(ToString::to_string).collect();
    assert_eq!(notes, ["the persistent object 0x81000003 is left out: its curve is not implemented"]);
    assert_eq!((foreign.persistent_objects(), foreign.nv_indices()), (vec![0x8100_0004], vec![DATA]));
}

#[test]
fn the_authorization_values_of_objects_come_along() {
    let source = Source::new();
    let at = 0x8100_0009;
    source.boot(|chip| {
        let made = chip.primary(OWNER, &ecc_signing()).unwrap().handle;
        // Another value than the primary object has when it is made anew.
        let made_with = chip.primary_for(OWNER, &ecc_signing(), b"secret").unwrap().handle;
        chip.flush(made);
        chip.persist(made_with, at);
    });
    let mut ours = source.adopt();
    let mut chip = ours.chip();
    chip.startup();
    let digest = Tpm2bDigest::new([9; 32]).unwrap();
    let input = (digest, TpmAlgId::NULL, (TpmSt::HASHCHECK, TpmHandle::NULL, 0u16));
    let mut sign =
        |auth: &[u8]| chip.out(TpmCc::SIGN, &[TpmHandle(at)], &[Auth::Password(auth)], &input).map(drop);
    assert_eq!(sign(b"secret"), Ok(()));
    assert_eq!(sign(b"secreT"), Err(ResponseCode::AUTH_FAIL.session(1)));
}

/// What GetCapability says of `property`, and `count` more.
fn capability(chip: &mut Chip<'_>, capability: u32, property: u32, count: u32) -> Vec<u8> {
    chip.run(TpmCc::GET_CAPABILITY, &[], &[], &(capability, property, count)).unwrap()
}

/// Lockout counter, limit, interval and recovery, and `TPMA_PERMANENT`.
const LOCKOUT: [u32; 5] = [0x20e, 0x20f, 0x210, 0x211, 0x200];

fn fails(chip: &mut Chip<'_>) {
    let index = TpmHandle(DATA);
    let read = chip.out(TpmCc::NV_READ, &[index, index], &[Auth::Password(b"wrong")], &(3u16, 0u16));
    assert_eq!(read, Err(ResponseCode::AUTH_FAIL.session(1)));
}

#[test]
fn lockout_counts_and_parameters_come_along() {
    for shutdown in [true, false] {
        let source = Source::new();
        source.boot(|chip| {
            chip.define(DATA, READ_WRITE, 3);
            chip.nv_write(DATA, b"abc");
            let parameters = (6u32, 100_000u32, 200_000u32);
            let handles = [TpmHandle::LOCKOUT];
            chip.run(TpmCc::DICTIONARY_ATTACK_PARAMETERS, &handles, &[NO_AUTH], &parameters).unwrap();
            fails(chip);
            fails(chip);
            if shutdown {
                chip.shutdown(TpmSu::CLEAR);
            }
        });
        let mut ours = source.adopt();
        let theirs = source.boot(|chip| LOCKOUT.map(|property| chip.property(property)));
        let mut chip = ours.chip();
        chip.startup();
        assert_eq!(LOCKOUT.map(|property| chip.property(property)), theirs, "shutdown: {shutdown}");
        assert_eq!(theirs[..4], [if shutdown { 2 } else { 3 }, 6, 100_000, 200_000]);
        for _ in theirs[0]..6 {
            fails(&mut chip);
        }
        let index = TpmHandle(DATA);
        let locked = chip.out(TpmCc::NV_READ, &[index, index], &[Auth::Password(b"nv")], &(3u16, 0u16));
        assert_eq!(locked, Err(ResponseCode::LOCKOUT));
    }
}

#[test]
fn authorizations_policies_audit_and_the_rest_of_the_permanent_state_come_along() {
    let source = Source::new();
    let audited = [TpmCc::GET_RANDOM, TpmCc::QUOTE, TpmCc::NV_UNDEFINE_SPACE_SPECIAL];
    source.boot(|chip| {
        for (hierarchy, auth) in
            [(OWNER, "owner"), (TpmHandle::ENDORSEMENT, "endorsement"), (TpmHandle::LOCKOUT, "lockout")]
        {
            let policy = (Tpm2bDigest::new([hierarchy.0 as u8; 32]).unwrap(), TpmAlgId::SHA256);
            chip.run(TpmCc::SET_PRIMARY_POLICY, &[hierarchy], &[NO_AUTH], &policy).unwrap();
            let auth = Tpm2bAuth::new(auth).unwrap();
            chip.run(TpmCc::HIERARCHY_CHANGE_AUTH, &[hierarchy], &[NO_AUTH], &auth).unwrap();
        }
        let platform = [TpmHandle::PLATFORM];
        let list: TpmlCc = Tpml(audited.to_vec());
        let input = (TpmAlgId::NULL, list, 0u32);
        chip.run(TpmCc::SET_COMMAND_CODE_AUDIT_STATUS, &platform, &[NO_AUTH], &input).unwrap();
        let list: TpmlCc = Tpml(vec![TpmCc::CLEAR, TpmCc::CHANGE_EPS]);
        chip.run(TpmCc::PP_COMMANDS, &platform, &[NO_AUTH], &(list, 0u32)).ok();
        chip.run(TpmCc::SET_ALGORITHM_SET, &platform, &[NO_AUTH], &7u32).unwrap();
        let banks: TpmlPcrSelection = Tpml(vec![
            TpmsPcrSelection::of(TpmAlgId::SHA1, []),
            TpmsPcrSelection::of(TpmAlgId::SHA384, 0..8),
        ]);
        chip.run(TpmCc::PCR_ALLOCATE, &platform, &[NO_AUTH], &banks).unwrap();
        let auth = [Auth::Password(b"lockout")];
        chip.run(TpmCc::CLEAR_CONTROL, &[TpmHandle::LOCKOUT], &auth, &true).unwrap();
        chip.shutdown(TpmSu::CLEAR);
    });
    let mut ours = source.adopt();
    // PCRs, audited commands, commands that need presence, TPMA_PERMANENT and the set of algorithms.
    let look = |chip: &mut Chip<'_>| {
        (
            [5u32, 4, 3].map(|c| capability(chip, c, if c == 5 { 0 } else { 0x11f }, 254)),
            capability(chip, 6, 0x200, 1),
            capability(chip, 9, 0x4000_0001, 20),
        )
    };
    let theirs = source.boot(look);
    let mut chip = ours.chip();
    chip.startup();
    let (commands, permanent, policies) = look(&mut chip);
    assert_eq!((&permanent, &commands[1], &commands[2]), (&theirs.1, &theirs.0[1], &theirs.0[2]));
    // The order of banks is each TPM's own.
    let banks = |bytes: &[u8]| {
        let mut r = Reader::new(&bytes[5..]);
        let mut list: Vec<TpmsPcrSelection> =
            TpmlPcrSelection::decode(&mut r).unwrap().0.into_iter().collect();
        list.sort_by_key(|bank| bank.hash.0);
        list
    };
    assert_eq!(banks(&commands[0]), banks(&theirs.0[0]));
    // Ours has a countdown timer, too.
    assert!(policies[9..].starts_with(&theirs.2[9..]) && policies[8] == theirs.2[8] + 1);
    for code in audited {
        assert!(commands[1].windows(4).any(|bytes| bytes == code.to_bytes()), "{code:?}");
    }
    for (hierarchy, auth) in [(OWNER, &b"owner"[..]), (TpmHandle::ENDORSEMENT, b"endorsement")] {
        let template = ecc(TpmEccCurve::NIST_P256);
        let made = chip.primary_with(hierarchy, Auth::Password(auth), &template, b"").unwrap();
        chip.flush(made.handle);
        assert!(chip.primary_with(hierarchy, NO_AUTH, &template, b"").is_err());
    }
    let handles = [TpmHandle::LOCKOUT];
    let clear = chip.run(TpmCc::CLEAR, &handles, &[Auth::Password(b"lockout")], &());
    assert_eq!(clear, Err(ResponseCode::DISABLED));
}

#[test]
fn clock_goes_on_and_counts_resets() {
    for shutdown in [true, false] {
        let source = Source::new();
        source.boot(|_| ());
        let before = source.boot(|chip| {
            // A Clock that was set is one that a restarted TPM must not fall behind.
            chip.run(TpmCc::CLOCK_SET, &[OWNER], &[NO_AUTH], &1_000_000_000u64).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(30));
            let clock = chip.clock();
            if shutdown {
                chip.shutdown(TpmSu::CLEAR);
            }
            clock
        });
        let mut ours = source.adopt();
        let theirs = source.boot(|chip| chip.clock());
        let mut chip = ours.chip();
        chip.startup();
        let after = chip.clock();
        // Without a Shutdown swtpm falls back to what it has saved, and shows what it showed before: here it goes on above that.
        let least = if shutdown { &before } else { &theirs };
        assert!(after.clock_info.clock >= least.clock_info.clock, "{before:?} {theirs:?} {after:?}");
        assert!(after.clock_info.clock < least.clock_info.clock + 10_000);
        assert!(after.clock_info.safe);
        assert_eq!(after.clock_info.reset_count, theirs.clock_info.reset_count);
        assert_eq!(after.clock_info.reset_count, before.clock_info.reset_count + 1);
        assert_eq!(after.clock_info.restart_count, 0);
    }
}

#[test]
fn a_suspended_tpm_resumes_with_its_pcrs_or_restarts_without() {
    let source = Source::new();
    let before = source.boot(|chip| {
        chip.extend(3, [5; 32]);
        let auth = Tpm2bAuth::new(*b"platform").unwrap();
        chip.run(TpmCc::HIERARCHY_CHANGE_AUTH, &[TpmHandle::PLATFORM], &[NO_AUTH], &auth).unwrap();
        let pcr = pcr_3(chip);
        chip.shutdown(TpmSu::STATE);
        pcr
    });
    let state = source.state(None);
    let mut ours = Ours::new(&state);
    let mut chip = ours.chip();
    chip.run(TpmCc::STARTUP, &[], &[], &TpmSu::STATE).unwrap();
    assert_eq!(pcr_3(&mut chip), before);
    let by_platform = |chip: &mut Chip<'_>, auth| {
        let auth = [Auth::Password(auth)];
        chip.run(TpmCc::CLEAR_CONTROL, &[TpmHandle::PLATFORM], &auth, &false).map(drop)
    };
    by_platform(&mut chip, b"platform").unwrap();
    assert_eq!(chip.clock().clock_info.restart_count, 1);
    let mut ours = Ours::new(&state);
    let mut chip = ours.chip();
    chip.startup();
    assert_ne!(pcr_3(&mut chip), before);
    by_platform(&mut chip, b"").unwrap();
    assert_eq!(chip.clock().clock_info.restart_count, 1);
    drop(chip);
    // And a reset after it.
    ours.reset();
    let mut chip = ours.chip();
    chip.startup();
    assert_eq!(chip.clock().clock_info.restart_count, 0);
}

fn pcr_3(chip: &mut Chip<'_>) -> Vec<u8> {
    let selection: TpmlPcrSelection = Tpml(vec![TpmsPcrSelection::of(TpmAlgId::SHA256, [3])]);
    // Behind the counter of updates.
    chip.run(TpmCc::PCR_READ, &[], &[], &selection).unwrap()[4..].to_vec()
}
