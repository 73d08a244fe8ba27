use crate::testing::objects::*;
use crate::testing::{TestTpm, command_bytes};
use vtpm_protocol::codec::{Decode, Encode, Reader, decode_exact};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::*;

fn start(tpm: &mut TestTpm) -> TpmHandle {
    let input =
        (Tpm2bNonce::new(vec![7; 16]).unwrap(), 0u16, TpmSe::POLICY, TpmAlgId::NULL, TpmAlgId::SHA256);
    let out = tpm.run(TpmCc::START_AUTH_SESSION, &[TpmHandle::NULL; 2], &input).unwrap();
    TpmHandle::decode(&mut Reader::new(&out)).unwrap()
}

fn save(tpm: &mut TestTpm, handle: TpmHandle) -> TpmsContext {
    decode_exact(&tpm.run(TpmCc::CONTEXT_SAVE, &[handle], &()).unwrap()).unwrap()
}

fn load_context(tpm: &mut TestTpm, context: &TpmsContext) -> Result<TpmHandle, ResponseCode> {
    let out = tpm.run(TpmCc::CONTEXT_LOAD, &[], context)?;
    Ok(decode_exact(&out).unwrap())
}

#[test]
fn a_session_is_in_memory_or_in_its_context_but_not_in_both() {
    let mut tpm = TestTpm::started();
    let session = start(&mut tpm);
    let context = save(&mut tpm, session);
    assert_eq!(tpm.run(TpmCc::POLICY_RESTART, &[session], &()), Err(ResponseCode::REFERENCE_H0));
    assert_eq!(load_context(&mut tpm, &context), Ok(session));
    assert_eq!(load_context(&mut tpm, &context), Err(ResponseCode::HANDLE.parameter(1)));
    let newer = save(&mut tpm, session);
    assert_eq!(load_context(&mut tpm, &context), Err(ResponseCode::HANDLE.parameter(1)));
    assert!(tpm.run(TpmCc::FLUSH_CONTEXT, &[], &session).is_ok());
    assert_eq!(load_context(&mut tpm, &newer), Err(ResponseCode::HANDLE.parameter(1)));
}

#[test]
fn a_context_with_any_changed_byte_is_refused() {
    let mut tpm = TestTpm::started();
    let session = start(&mut tpm);
    let bytes = save(&mut tpm, session).to_bytes();
    for i in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[i] ^= 1;
        let command = command_bytes(TpmCc::CONTEXT_LOAD, &[], &[], &bad);
        assert_ne!(tpm.rc(&command), ResponseCode::SUCCESS, "byte {i}");
    }
    let command = command_bytes(TpmCc::CONTEXT_LOAD, &[], &[], &bytes);
    assert_eq!(tpm.rc(&command), ResponseCode::SUCCESS);
}

#[test]
fn contexts_end_with_a_tpm_reset() {
    let mut tpm = TestTpm::started();
    let session = start(&mut tpm);
    let context = save(&mut tpm, session);
    tpm.init();
    tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).unwrap();
    assert_eq!(load_context(&mut tpm, &context), Err(ResponseCode::INTEGRITY.parameter(1)));
}

#[test]
fn a_shutdown_is_void_when_a_session_is_saved_after_it_but_not_when_one_is_started() {
    let mut tpm = TestTpm::started();
    tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE).unwrap();
    let _ = start(&mut tpm);
    tpm.init();
    tpm.run(TpmCc::STARTUP, &[], &TpmSu::STATE).unwrap();
    tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE).unwrap();
    let session = start(&mut tpm);
    let _ = save(&mut tpm, session);
    tpm.init();
    assert_eq!(tpm.run(TpmCc::STARTUP, &[], &TpmSu::STATE), Err(ResponseCode::VALUE.parameter(1)));
}

#[test]
fn a_session_that_was_saved_too_long_ago_is_loaded_before_others_are_saved() {
    let mut tpm = TestTpm::started();
    let (first, second) = (start(&mut tpm), start(&mut tpm));
    let (oldest, newer) = (save(&mut tpm, first), save(&mut tpm, second));
    tpm.state().volatile_mut().state_reset.contexts.counter =
        oldest.sequence + crate::state::CONTEXT_GAP_MAX - 1;
    tpm.resave();
    let third = start(&mut tpm);
    let _ = save(&mut tpm, third);
    let fourth = start(&mut tpm);
    let gap = Err(ResponseCode::CONTEXT_GAP);
    assert_eq!(tpm.run(TpmCc::CONTEXT_SAVE, &[fourth], &()), gap);
    let _ = start(&mut tpm);
    let input =
        (Tpm2bNonce::new(vec![7; 16]).unwrap(), 0u16, TpmSe::POLICY, TpmAlgId::NULL, TpmAlgId::SHA256);
    assert_eq!(tpm.run(TpmCc::START_AUTH_SESSION, &[TpmHandle::NULL; 2], &input), gap);
    assert_eq!(load_context(&mut tpm, &newer), Err(ResponseCode::CONTEXT_GAP));
    assert_eq!(load_context(&mut tpm, &oldest), Ok(first));
    let _ = save(&mut tpm, first);
    assert_eq!(load_context(&mut tpm, &newer), Ok(second));
}

#[test]
fn saved_sessions_live_on_after_a_resume() {
    let mut tpm = TestTpm::started();
    let session = start(&mut tpm);
    let context = save(&mut tpm, session);
    tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE).unwrap();
    tpm.init();
    tpm.run(TpmCc::STARTUP, &[], &TpmSu::STATE).unwrap();
    assert_eq!(load_context(&mut tpm, &context), Ok(session));
}

#[test]
fn the_oldest_context_must_not_fall_behind_too_far() {
    let mut tpm = TestTpm::started();
    let (old, other) = (start(&mut tpm), start(&mut tpm));
    let oldest = save(&mut tpm, old);
    tpm.state().volatile_mut().state_reset.contexts.counter += crate::state::CONTEXT_GAP_MAX;
    tpm.resave();
    assert_eq!(tpm.run(TpmCc::CONTEXT_SAVE, &[other], &()), Err(ResponseCode::CONTEXT_GAP));
    assert_eq!(load_context(&mut tpm, &oldest), Ok(old));
    assert!(tpm.run(TpmCc::CONTEXT_SAVE, &[other], &()).is_ok());
}

/// A loaded storage key of a hierarchy, and its context.
fn saved_object(tpm: &mut TestTpm, hierarchy: TpmHandle, template: TpmtPublic) -> TpmsContext {
    let object = create_primary(tpm, hierarchy, template).unwrap().handle;
    let context = save(tpm, object);
    flush(tpm, object);
    context
}

const INTEGRITY: Result<TpmHandle, ResponseCode> = Err(ResponseCode::INTEGRITY.parameter(1));

fn restart(tpm: &mut TestTpm, shutdown: TpmSu, startup: TpmSu) {
    tpm.run(TpmCc::SHUTDOWN, &[], &shutdown).unwrap();
    tpm.init();
    tpm.run(TpmCc::STARTUP, &[], &startup).unwrap();
}

#[test]
fn an_object_comes_back_as_it_was_and_as_often_as_wanted() {
    let mut tpm = TestTpm::started();
    let parent = create_primary(&mut tpm, TpmHandle::ENDORSEMENT, ecc_storage_key()).unwrap().handle;
    let child = create(&mut tpm, parent, sealed_data(), b"pw", b"data").unwrap();
    let child = load(&mut tpm, parent, &child).unwrap();
    let object = tpm.state().object(child).unwrap().to_bytes();
    let context = save(&mut tpm, child);
    assert_eq!((context.saved_handle.0, context.hierarchy), (0x8000_0000, TpmHandle::ENDORSEMENT));
    assert!(tpm.state().object(child).is_ok(), "an object stays loaded");
    flush(&mut tpm, parent);
    for _ in 0..2 {
        let handle = load_context(&mut tpm, &context).unwrap();
        assert_eq!(tpm.state().object(handle).unwrap().to_bytes(), object);
    }
    let full = load_context(&mut tpm, &context);
    assert_eq!(full, Err(ResponseCode::OBJECT_MEMORY));
}

#[test]
fn contexts_of_one_object_differ() {
    let mut tpm = TestTpm::started();
    let object = create_primary(&mut tpm, TpmHandle::OWNER, ecc_storage_key()).unwrap().handle;
    let (one, two) = (save(&mut tpm, object), save(&mut tpm, object));
    assert!(two.sequence > one.sequence);
    // Another sequence number makes another key: nothing of the two is the same.
    let same = one.context_blob.iter().zip(two.context_blob.iter()).skip(66).filter(|(a, b)| a == b).count();
    assert!(same < one.context_blob.len() / 8, "{same}");
}

#[test]
fn unauthenticated_object_contexts_are_refused() {
    let mut tpm = TestTpm::started();
    let context = saved_object(&mut tpm, TpmHandle::OWNER, ecc_storage_key());
    let bytes = context.to_bytes();
    for i in 0..bytes.len() {
        for change in [1, 0x80, 0xff] {
            let mut bad = bytes.clone();
            bad[i] ^= change;
            let command = command_bytes(TpmCc::CONTEXT_LOAD, &[], &[], &bad);
            assert_ne!(tpm.rc(&command), ResponseCode::SUCCESS, "byte {i}");
        }
    }
    assert!(load_context(&mut tpm, &context).is_ok());
}

/// What is decoded was made by this TPM: bytes that nobody authenticated are told apart by the HMAC alone, whatever they decrypt to.
#[test]
fn nothing_is_decrypted_before_the_integrity_is_checked() {
    let mut tpm = TestTpm::started();
    let context = saved_object(&mut tpm, TpmHandle::OWNER, ecc_storage_key());
    let tag = context.context_blob[..66].to_vec();
    for len in [8, 9, 100, 1000, MAX_CONTEXT_SIZE - 66] {
        for fill in [0, 0xff] {
            let blob = [&tag[..], &vec![fill; len]].concat();
            let forged =
                TpmsContext { context_blob: Tpm2bContextData::new(blob).unwrap(), ..context.clone() };
            assert_eq!(load_context(&mut tpm, &forged), INTEGRITY);
        }
    }
}

#[test]
fn a_blob_of_another_shape_is_told_by_its_code() {
    let mut tpm = TestTpm::started();
    let context = saved_object(&mut tpm, TpmHandle::OWNER, ecc_storage_key());
    let tag = context.context_blob[2..66].to_vec();
    let rest = context.context_blob[66..].to_vec();
    let blob = |size: u16, tag: &[u8], rest: &[u8]| [&size.to_be_bytes(), tag, rest].concat();
    for (bytes, expected) in [
        (vec![], ResponseCode::INSUFFICIENT),
        (vec![0], ResponseCode::INSUFFICIENT),
        (blob(64, &tag[..63], &[]), ResponseCode::INSUFFICIENT),
        (blob(65, &tag, &rest), ResponseCode::SIZE),
        (blob(0, &[], &rest), ResponseCode::SIZE.parameter(1)),
        (blob(32, &tag[..32], &rest), ResponseCode::SIZE.parameter(1)),
        (blob(64, &tag, &[]), ResponseCode::SIZE.parameter(1)),
        (blob(64, &tag, &rest[..7]), ResponseCode::SIZE.parameter(1)),
        (blob(64, &tag, &rest[..8]), ResponseCode::INTEGRITY.parameter(1)),
    ] {
        let context_blob = Tpm2bContextData::new(bytes).unwrap();
        let bad = TpmsContext { context_blob, ..context.clone() };
        assert_eq!(load_context(&mut tpm, &bad), Err(expected));
    }
}

#[test]
fn handles_and_hierarchies_that_no_context_has_are_refused() {
    let mut tpm = TestTpm::started();
    let context = saved_object(&mut tpm, TpmHandle::OWNER, ecc_storage_key());
    let value = Err(ResponseCode::VALUE.parameter(1));
    for handle in [0x8000_0003, 0x8100_0000, 0x0200_0040, 0x0300_0040, 0x4000_0001, 0, u32::MAX] {
        let bad = TpmsContext { saved_handle: TpmHandle(handle), ..context.clone() };
        assert_eq!(load_context(&mut tpm, &bad), value, "{handle:x}");
    }
    for hierarchy in [TpmHandle::LOCKOUT, TpmHandle(0), TpmHandle::RS_PW] {
        let bad = TpmsContext { hierarchy, ..context.clone() };
        assert_eq!(load_context(&mut tpm, &bad), value);
    }
    // Those that another context has do not fit this one.
    for handle in [0x8000_0002, 0x0200_0000, 0x0300_0000] {
        let bad = TpmsContext { saved_handle: TpmHandle(handle), ..context.clone() };
        assert_eq!(load_context(&mut tpm, &bad), INTEGRITY);
    }
    for hierarchy in [TpmHandle::ENDORSEMENT, TpmHandle::PLATFORM, TpmHandle::NULL] {
        let bad = TpmsContext { hierarchy, ..context.clone() };
        assert_eq!(load_context(&mut tpm, &bad), INTEGRITY);
    }
}

#[test]
fn an_object_context_ends_with_a_reset_and_lives_on_after_restart_and_resume() {
    for hierarchy in [TpmHandle::OWNER, TpmHandle::ENDORSEMENT, TpmHandle::PLATFORM, TpmHandle::NULL] {
        let mut tpm = TestTpm::started();
        let context = saved_object(&mut tpm, hierarchy, ecc_storage_key());
        for startup in [TpmSu::STATE, TpmSu::CLEAR] {
            restart(&mut tpm, TpmSu::STATE, startup);
            let handle = load_context(&mut tpm, &context).unwrap();
            flush(&mut tpm, handle);
        }
        restart(&mut tpm, TpmSu::CLEAR, TpmSu::CLEAR);
        assert_eq!(load_context(&mut tpm, &context), INTEGRITY);
    }
}

#[test]
fn an_st_clear_object_ends_with_a_restart_but_not_with_a_resume() {
    let mut tpm = TestTpm::started();
    let template = with(ecc_storage_key(), TpmaObject::ST_CLEAR);
    let context = saved_object(&mut tpm, TpmHandle::OWNER, template);
    assert_eq!(context.saved_handle, TpmHandle(0x8000_0002));
    restart(&mut tpm, TpmSu::STATE, TpmSu::STATE);
    let handle = load_context(&mut tpm, &context).unwrap();
    flush(&mut tpm, handle);
    // It cannot pass for one that stays.
    let renamed = TpmsContext { saved_handle: TpmHandle(0x8000_0000), ..context.clone() };
    assert_eq!(load_context(&mut tpm, &renamed), INTEGRITY);
    restart(&mut tpm, TpmSu::STATE, TpmSu::CLEAR);
    assert_eq!(load_context(&mut tpm, &context), INTEGRITY);
    assert_eq!(load_context(&mut tpm, &renamed), INTEGRITY);
}

#[test]
fn an_st_clear_object_that_ended_with_a_restart_does_not_come_back_with_a_clear() {
    let mut tpm = TestTpm::started();
    let template = with(ecc_storage_key(), TpmaObject::ST_CLEAR);
    let contexts = [TpmHandle::PLATFORM, TpmHandle::NULL]
        .map(|hierarchy| saved_object(&mut tpm, hierarchy, template.clone()));
    restart(&mut tpm, TpmSu::STATE, TpmSu::CLEAR);
    tpm.run_with(TpmCc::CLEAR, &[TpmHandle::LOCKOUT], &[b""], &()).unwrap();
    for context in &contexts {
        assert_eq!(load_context(&mut tpm, context), INTEGRITY);
    }
}

#[test]
fn no_two_contexts_are_encrypted_with_one_key_also_not_in_two_boots() {
    let mut tpm = TestTpm::started();
    // The same primary object, and the same number, in each boot.
    let first = saved_object(&mut tpm, TpmHandle::OWNER, ecc_storage_key());
    tpm.init();
    tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).unwrap();
    let second = saved_object(&mut tpm, TpmHandle::OWNER, ecc_storage_key());
    assert_eq!((first.sequence, first.saved_handle), (second.sequence, second.saved_handle));
    let encrypted = |context: &TpmsContext| context.context_blob.get(2 + 64..).map(<[u8]>::to_vec).unwrap();
    let (first, second) = (encrypted(&first), encrypted(&second));
    assert_eq!(first.len(), second.len());
    assert_ne!(first[..16], second[..16]);
}

#[test]
fn an_object_context_ends_with_the_proof_of_its_hierarchy() {
    let mut tpm = TestTpm::started();
    let [owner, endorsement, platform, null] =
        [TpmHandle::OWNER, TpmHandle::ENDORSEMENT, TpmHandle::PLATFORM, TpmHandle::NULL]
            .map(|hierarchy| saved_object(&mut tpm, hierarchy, ecc_storage_key()));
    tpm.run_with(TpmCc::CLEAR, &[TpmHandle::LOCKOUT], &[b""], &()).unwrap();
    assert_eq!(load_context(&mut tpm, &owner), INTEGRITY);
    assert_eq!(load_context(&mut tpm, &endorsement), INTEGRITY);
    assert!(load_context(&mut tpm, &platform).is_ok());
    assert!(load_context(&mut tpm, &null).is_ok());
}

#[test]
fn an_object_of_a_disabled_hierarchy_is_not_loaded() {
    let mut tpm = TestTpm::started();
    let context = saved_object(&mut tpm, TpmHandle::OWNER, ecc_storage_key());
    tpm.state().volatile_mut().state_clear.sh_enable = false;
    tpm.resave();
    assert_eq!(load_context(&mut tpm, &context), Err(ResponseCode::HIERARCHY.parameter(1)));
    // That it is damaged is told before that.
    let damaged = TpmsContext { sequence: context.sequence + 1, ..context };
    assert_eq!(load_context(&mut tpm, &damaged), INTEGRITY);
}

#[test]
fn a_context_of_another_tpm_is_refused() {
    let (mut one, mut other) = (TestTpm::started(), TestTpm::started());
    let session = start(&mut one);
    let contexts = [
        save(&mut one, session),
        saved_object(&mut one, TpmHandle::OWNER, ecc_storage_key()),
        saved_object(&mut one, TpmHandle::NULL, ecc_storage_key()),
    ];
    // Both test environments give the same randomness, so that the proofs are the same up to here.
    let proof = Secret2b::new(vec![7; 64]).unwrap();
    other.state().permanent_mut().owner.proof = proof.clone();
    other.state().volatile_mut().state_reset.null_proof = proof;
    other.resave();
    for context in contexts {
        assert_eq!(load_context(&mut other, &context), INTEGRITY);
    }
}

/// A context as another version of the records would have it: with an HMAC that is good.
#[test]
fn a_context_of_a_newer_release_is_refused_although_this_tpm_made_it() {
    use crate::crypto::hmac;
    let mut tpm = TestTpm::started();
    let object = create_primary(&mut tpm, TpmHandle::OWNER, ecc_storage_key()).unwrap().handle;
    let current = save(&mut tpm, object);
    let (version, rest) = current.context_blob[66..].split_at(2);
    assert_eq!(version, crate::state::RECORD_VERSION.to_bytes());
    let state = tpm.state();
    let proof = state.proof(TpmHandle::OWNER).expose().to_vec();
    let resets = state.permanent.total_reset_count.to_bytes();
    let described =
        [current.sequence.to_bytes(), current.saved_handle.to_bytes(), TpmHandle::OWNER.to_bytes()].concat();
    let mut other = |version: u16| {
        let parts: [&[u8]; 4] = [&version.to_bytes(), &resets, &described, rest];
        let mut blob = Vec::new();
        vtpm_protocol::codec::encode_sized(&hmac(crate::context::HASH, &proof, &parts), &mut blob);
        blob.extend_from_slice(&version.to_bytes());
        blob.extend_from_slice(rest);
        let context_blob = Tpm2bContextData::new(blob).unwrap();
        load_context(&mut tpm, &TpmsContext { context_blob, ..current.clone() })
    };
    for version in [0, 1, crate::state::RECORD_VERSION + 1, u16::MAX] {
        assert_eq!(other(version), INTEGRITY, "{version}");
    }
    assert!(other(crate::state::RECORD_VERSION).is_ok());
}

#[test]
fn windows_fills_a_context_up_to_the_size_that_the_tpm_tells() {
    let mut tpm = TestTpm::started();
    let session = start(&mut tpm);
    for context in [saved_object(&mut tpm, TpmHandle::OWNER, ecc_storage_key()), save(&mut tpm, session)] {
        let bytes = context.to_bytes();
        let told = crate::context::MAX_CONTEXT;
        for len in [bytes.len() + 1, told - 1, told + 1] {
            let mut padded = bytes.clone();
            padded.resize(len, 0);
            let command = command_bytes(TpmCc::CONTEXT_LOAD, &[], &[], &padded);
            assert_eq!(tpm.rc(&command), ResponseCode::SIZE, "{len} bytes");
        }
        // What is filled in does not matter, but the context does.
        let mut padded = bytes.clone();
        padded.resize(told, 0xa5);
        padded[20] ^= 1;
        let command = command_bytes(TpmCc::CONTEXT_LOAD, &[], &[], &padded);
        assert_eq!(tpm.rc(&command), ResponseCode::INTEGRITY.parameter(1));
        padded[20] ^= 1;
        tpm.ok(&command_bytes(TpmCc::CONTEXT_LOAD, &[], &[], &padded));
    }
}

#[test]
fn the_numbers_of_contexts_end() {
    let mut tpm = TestTpm::started();
    let object = create_primary(&mut tpm, TpmHandle::OWNER, ecc_storage_key()).unwrap().handle;
    let session = start(&mut tpm);
    let group = &mut tpm.state().volatile_mut().state_reset;
    group.object_context_id = u64::MAX - 1;
    group.contexts.counter = u64::MAX;
    tpm.resave();
    assert_eq!(save(&mut tpm, object).sequence, u64::MAX);
    for handle in [object, session] {
        let rc = tpm.run(TpmCc::CONTEXT_SAVE, &[handle], &());
        assert_eq!(rc, Err(ResponseCode::TOO_MANY_CONTEXTS));
    }
    assert!(tpm.run(TpmCc::POLICY_RESTART, &[session], &()).is_ok(), "the session is still loaded");
}

#[test]
fn only_transient_objects_and_sessions_are_saved() {
    let mut tpm = TestTpm::started();
    let object = create_primary(&mut tpm, TpmHandle::OWNER, ecc_storage_key()).unwrap().handle;
    let persistent = TpmHandle(0x8100_0000);
    tpm.run_with(TpmCc::EVICT_CONTROL, &[TpmHandle::OWNER, object], &[b""], &persistent).unwrap();
    let mut rc = |h| tpm.run(TpmCc::CONTEXT_SAVE, &[TpmHandle(h)], &()).unwrap_err();
    for handle in [0x8100_0000, 0x8000_0003, 0x0200_0040, 0x0300_0040, 0x4000_0001, 0x0100_0000] {
        assert_eq!(rc(handle), ResponseCode::VALUE.handle(1), "{handle:x}");
    }
    for handle in [0x8000_0001, 0x0200_0000, 0x0300_003f] {
        assert_eq!(rc(handle), ResponseCode::REFERENCE_H0, "{handle:x}");
    }
}

#[test]
fn a_full_memory_takes_no_session() {
    let mut tpm = TestTpm::started();
    let first = start(&mut tpm);
    let context = save(&mut tpm, first);
    for _ in 0..3 {
        let _ = start(&mut tpm);
    }
    assert_eq!(load_context(&mut tpm, &context), Err(ResponseCode::SESSION_MEMORY));
}
