use super::testing::*;
use crate::crypto::HashAlg;
use crate::signing::test_keys::{self, ecc, keyed_hash};
use crate::testing::TestTpm;
use crate::testing::objects::*;
use crate::ticket;
use vtpm_protocol::codec::decode_exact;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::*;

const OWNER: TpmHandle = TpmHandle::OWNER;
const MAGIC: &[u8] = b"\xffTCG";
const HMAC_SHA256: Scheme = Scheme::new(TpmAlgId::HMAC, TpmAlgId::SHA256);

/// The ticket of a hash over the parts, the last of which comes with the completion.
fn ticket_of(tpm: &mut TestTpm, parts: &[&[u8]], hierarchy: TpmHandle) -> TpmtTk {
    let sequence = start_hash(tpm, TpmAlgId::SHA256).unwrap();
    let (last, rest) = parts.split_last().unwrap();
    for part in rest {
        update(tpm, sequence, part).unwrap();
    }
    let (result, ticket) = complete(tpm, sequence, last, hierarchy).unwrap();
    assert_eq!(result.as_slice(), HashAlg::Sha256.digest(parts).as_slice());
    ticket
}

#[test]
fn a_hash_in_pieces_is_that_of_the_whole_with_every_algorithm() {
    let mut tpm = TestTpm::started();
    for &alg in HASH_ALGS {
        let sequence = start_hash(&mut tpm, alg).unwrap();
        let data = [&[7; 1024][..], &[8; 1000], b"", b"x"];
        for part in &data {
            update(&mut tpm, sequence, part).unwrap();
        }
        let (result, ticket) = complete(&mut tpm, sequence, b"end", OWNER).unwrap();
        let expected = crate::alg::hash_alg(alg).unwrap().digest(&[&data.concat(), b"end"]);
        assert_eq!(result.as_slice(), expected.as_slice());
        assert!(ticket::is_same(&ticket, &ticket::hash_check(tpm.state(), OWNER, alg, &result)));
    }
}

#[test]
fn a_ticket_says_that_the_data_does_not_begin_as_a_structure_of_the_tpm() {
    let mut tpm = TestTpm::started();
    let null = TpmtTk::null(TpmSt::HASHCHECK);
    for safe in [&[&b"data"[..]][..], &[b"data", MAGIC], &[b"\xffTCH", b""], &[&[0xff; 1024], MAGIC]] {
        assert!(!ticket_of(&mut tpm, safe, OWNER).is_null());
        assert_eq!(ticket_of(&mut tpm, safe, TpmHandle::NULL), null);
    }
    // What is too short to tell is not trusted, nor is an empty block at the beginning.
    for unsafe_start in [
        &[MAGIC][..],
        &[MAGIC, b"data"],
        &[b"\xff", b"TCGdata"],
        &[b"", MAGIC],
        &[b"", b"data"],
        &[b"abc"],
        &[b""],
    ] {
        assert_eq!(ticket_of(&mut tpm, unsafe_start, OWNER), null);
    }
}

#[test]
fn a_restricted_key_signs_what_a_sequence_hashed_and_nothing_that_looks_like_an_attestation() {
    let mut tpm = TestTpm::started();
    let scheme = Scheme::new(TpmAlgId::ECDSA, TpmAlgId::SHA256);
    let key = test_keys::load(&mut tpm, test_keys::restricted(ecc(scheme)));
    for (data, expected) in
        [(&b"a long message"[..], Ok(())), (b"\xffTCG\x80\x18", Err(ResponseCode::TICKET.parameter(3)))]
    {
        let sequence = start_hash(&mut tpm, TpmAlgId::SHA256).unwrap();
        let (digest, ticket) = complete(&mut tpm, sequence, data, OWNER).unwrap();
        let input = (digest, TpmtSigScheme(Scheme::NULL), ticket);
        let result = tpm.run_with(TpmCc::SIGN, &[key], &[test_keys::AUTH], &input).map(drop);
        assert_eq!(result, expected);
    }
}

#[test]
fn an_event_extends_every_bank() {
    let mut tpm = TestTpm::started();
    let pcr = TpmHandle(7);
    let sequence = start_hash(&mut tpm, TpmAlgId::NULL).unwrap();
    update(&mut tpm, sequence, &[1; 1024]).unwrap();
    update(&mut tpm, sequence, b"more").unwrap();
    let digests = complete_event(&mut tpm, pcr, sequence, b"end").unwrap();
    assert!(digests.0.iter().map(|d| d.hash_alg).eq(PCR_BANK_ALGS));
    for TpmtHa { hash_alg, digest } in digests.0 {
        let alg = crate::alg::hash_alg(hash_alg).unwrap();
        assert_eq!(digest, alg.digest(&[&[1; 1024], b"more", b"end"]).to_vec());
        let extended = alg.digest(&[&vec![0; alg.digest_size()], &digest]);
        assert_eq!(tpm.state().volatile.pcrs.get(hash_alg, 7).unwrap().as_slice(), extended.as_slice());
    }
}

#[test]
fn an_event_without_a_pcr_only_hashes() {
    let mut tpm = TestTpm::started();
    let sequence = start_hash(&mut tpm, TpmAlgId::NULL).unwrap();
    let counter = tpm.state().volatile.state_reset.pcr_counter;
    let digests = complete_event(&mut tpm, TpmHandle::NULL, sequence, b"event").unwrap();
    assert_eq!(digests.0[0].digest, HashAlg::Sha1.digest(&[b"event"]).to_vec());
    assert_eq!(tpm.state().volatile.state_reset.pcr_counter, counter);
}

#[test]
fn an_event_for_a_pcr_of_another_locality_is_refused_and_the_sequence_goes_on() {
    let mut tpm = TestTpm::started();
    let sequence = start_hash(&mut tpm, TpmAlgId::NULL).unwrap();
    let result = complete_event(&mut tpm, TpmHandle(17), sequence, b"event");
    assert_eq!(result, Err(ResponseCode::LOCALITY));
    assert!(complete_event(&mut tpm, TpmHandle(0), sequence, b"event").is_ok());
}

#[test]
fn each_kind_has_its_own_completion() {
    let mut tpm = TestTpm::started();
    let key = test_keys::load(&mut tpm, keyed_hash(HMAC_SHA256));
    let (hash, event) =
        (start_hash(&mut tpm, TpmAlgId::SHA256).unwrap(), start_hash(&mut tpm, TpmAlgId::NULL).unwrap());
    let mode = ResponseCode::MODE;
    assert_eq!(complete(&mut tpm, event, b"", OWNER), Err(mode.handle(1)));
    assert_eq!(complete_event(&mut tpm, TpmHandle(0), hash, b""), Err(mode.handle(2)));
    // The order of the checks: what the handle is comes before what the locality may.
    assert_eq!(complete_event(&mut tpm, TpmHandle(17), hash, b""), Err(mode.handle(2)));
    flush(&mut tpm, event);
    let mac = start_mac(&mut tpm, key, TpmAlgId::NULL).unwrap();
    assert_eq!(complete_event(&mut tpm, TpmHandle(0), mac, b""), Err(mode.handle(2)));

    let input = Tpm2bMaxBuffer::empty();
    let auth = test_keys::AUTH;
    let rc = |r: Result<(Option<TpmHandle>, Vec<u8>), ResponseCode>| r.map(drop).unwrap_err();
    assert_eq!(rc(tpm.run_with(TpmCc::SEQUENCE_UPDATE, &[key], &[auth], &input)), mode.handle(1));
    let last = (&input, OWNER);
    assert_eq!(rc(tpm.run_with(TpmCc::SEQUENCE_COMPLETE, &[key], &[auth], &last)), mode.handle(1));
    let handles = [TpmHandle(0), key];
    assert_eq!(
        rc(tpm.run_with(TpmCc::EVENT_SEQUENCE_COMPLETE, &handles, &[b"", auth], &input)),
        mode.handle(2)
    );
}

#[test]
fn a_completed_sequence_is_gone_and_one_that_failed_is_not() {
    let mut tpm = TestTpm::started();
    let sequence = start_hash(&mut tpm, TpmAlgId::SHA256).unwrap();
    assert_eq!(complete(&mut tpm, sequence, b"", TpmHandle::LOCKOUT), Err(ResponseCode::VALUE.parameter(2)));
    assert!(complete(&mut tpm, sequence, b"", OWNER).is_ok());
    assert_eq!(update(&mut tpm, sequence, b""), Err(ResponseCode::REFERENCE_H0));
    assert!(tpm.state().sequences.is_empty());
}

#[test]
fn a_sequence_is_authorized_with_its_value_which_is_not_protected_against_guessing() {
    let mut tpm = TestTpm::started();
    let sequence = start_hash(&mut tpm, TpmAlgId::SHA256).unwrap();
    let input = Tpm2bMaxBuffer::empty();
    for (passwords, rc) in [
        (&[][..], ResponseCode::AUTH_MISSING),
        (&[&b"wrong"[..]], ResponseCode::BAD_AUTH.session(1)),
        (&[b""], ResponseCode::BAD_AUTH.session(1)),
    ] {
        let result = tpm.run_with(TpmCc::SEQUENCE_UPDATE, &[sequence], passwords, &input).map(drop);
        assert_eq!(result, Err(rc));
    }
    assert_eq!(tpm.state().permanent.da.failed_tries, 0);
    // The zeros at the end of what was given count neither way.
    assert!(tpm.run_with(TpmCc::SEQUENCE_UPDATE, &[sequence], &[SEQUENCE_AUTH], &input).is_ok());
}

#[test]
fn a_sequence_has_no_policy() {
    let mut tpm = TestTpm::started();
    let sequence = start_hash(&mut tpm, TpmAlgId::SHA256).unwrap();
    let session = start_policy(&mut tpm, TpmSe::POLICY);
    let input = Tpm2bMaxBuffer::empty();
    let result = run_with_policy(&mut tpm, TpmCc::SEQUENCE_UPDATE, &[sequence], session, &input);
    assert_eq!(result, Err(ResponseCode::AUTH_UNAVAILABLE.session(1)));
}

#[test]
fn to_other_commands_a_sequence_is_an_object_that_can_do_nothing() {
    let mut tpm = TestTpm::started();
    let sequence = start_hash(&mut tpm, TpmAlgId::SHA256).unwrap();
    assert_eq!(tpm.run(TpmCc::READ_PUBLIC, &[sequence], &()), Err(ResponseCode::SEQUENCE));
    let mut rc =
        |cc, handles: &[TpmHandle], passwords: &[&[u8]], input: &dyn vtpm_protocol::codec::Encode| {
            tpm.run_with(cc, handles, passwords, input).map(drop).unwrap_err()
        };
    let pw: &[&[u8]] = &[b"seq"];
    let empty = Tpm2bMaxBuffer::empty();
    assert_eq!(rc(TpmCc::HMAC, &[sequence], pw, &(&empty, TpmAlgId::SHA256)), ResponseCode::TYPE.handle(1));
    assert_eq!(rc(TpmCc::MAC_START, &[sequence], pw, &(0u16, TpmAlgId::CMAC)), ResponseCode::TYPE.handle(1));
    let input = (false, TpmAlgId::CFB, Tpm2bIv::new([0; 16]).unwrap(), &empty);
    assert_eq!(rc(TpmCc::ENCRYPT_DECRYPT, &[sequence], pw, &input), ResponseCode::KEY.handle(1));
    assert_eq!(rc(TpmCc::UNSEAL, &[sequence], pw, &()), ResponseCode::TYPE.handle(1));
    let digest = Tpm2bDigest::new([0; 32]).unwrap();
    let input = (&digest, TpmtSigScheme(HMAC_SHA256), TpmtTk::null(TpmSt::HASHCHECK));
    assert_eq!(rc(TpmCc::SIGN, &[sequence], pw, &input), ResponseCode::KEY.handle(1));
    let input =
        (sensitive(b"", b""), Sized2b(ecc_signing_key()), Tpm2bData::empty(), TpmlPcrSelection::default());
    assert_eq!(rc(TpmCc::CREATE, &[sequence], pw, &input), ResponseCode::TYPE.handle(1));
    let rc_change = rc(TpmCc::OBJECT_CHANGE_AUTH, &[sequence, sequence], pw, &0u16);
    assert_eq!(rc_change, ResponseCode::TYPE.handle(1));
    let rc = rc(TpmCc::EVICT_CONTROL, &[OWNER, sequence], &[b""], &TpmHandle(0x8100_0000));
    assert_eq!(rc, ResponseCode::ATTRIBUTES.handle(2));
}

#[test]
fn a_sequence_takes_a_slot_shows_its_handle_and_can_be_flushed() {
    let mut tpm = TestTpm::started();
    let handles: Vec<TpmHandle> = [TpmAlgId::SHA1, TpmAlgId::NULL, TpmAlgId::SM3_256]
        .map(|alg| start_hash(&mut tpm, alg).unwrap())
        .to_vec();
    assert_eq!(handles, [0x8000_0000, 0x8000_0001, 0x8000_0002].map(TpmHandle));
    assert_eq!(start_hash(&mut tpm, TpmAlgId::SHA1), Err(ResponseCode::OBJECT_MEMORY));
    let primary = create_primary(&mut tpm, OWNER, ecc_storage_key()).map(drop);
    assert_eq!(primary, Err(ResponseCode::OBJECT_MEMORY));
    let capability = (TpmCap::HANDLES, 0x8000_0000u32, 10u32);
    let out = tpm.run(TpmCc::GET_CAPABILITY, &[], &capability).unwrap();
    let (_, cap, listed): (bool, TpmCap, Tpml<TpmHandle, 10>) = decode_exact(&out).unwrap();
    assert_eq!((cap, listed.0), (TpmCap::HANDLES, handles.clone()));
    flush(&mut tpm, handles[1]);
    assert_eq!(update(&mut tpm, handles[1], b""), Err(ResponseCode::REFERENCE_H0));
    assert_eq!(create_primary(&mut tpm, OWNER, ecc_storage_key()).unwrap().handle, handles[1]);
}

#[test]
fn a_sequence_can_be_saved_and_goes_on_from_where_it_was_saved() {
    let mut tpm = TestTpm::started();
    let key = test_keys::load(&mut tpm, keyed_hash(HMAC_SHA256));
    for kind in 0..3 {
        let sequence = match kind {
            0 => start_hash(&mut tpm, TpmAlgId::SHA512).unwrap(),
            1 => start_hash(&mut tpm, TpmAlgId::NULL).unwrap(),
            _ => start_mac(&mut tpm, key, TpmAlgId::NULL).unwrap(),
        };
        update(&mut tpm, sequence, b"data before").unwrap();
        let out = tpm.run(TpmCc::CONTEXT_SAVE, &[sequence], &()).unwrap();
        let context: TpmsContext = decode_exact(&out).unwrap();
        assert_eq!((context.saved_handle, context.hierarchy), (TpmHandle(0x8000_0001), TpmHandle::NULL));
        // It stays loaded, and what comes later does not change what was saved.
        update(&mut tpm, sequence, b"data lost").unwrap();
        flush(&mut tpm, sequence);
        let out = tpm.run(TpmCc::CONTEXT_LOAD, &[], &context).unwrap();
        let loaded: TpmHandle = decode_exact(&out).unwrap();
        let digest = if kind == 1 {
            complete_event(&mut tpm, TpmHandle::NULL, loaded, b" after").unwrap().0[3].digest.clone()
        } else {
            let (digest, ticket) = complete(&mut tpm, loaded, b" after", OWNER).unwrap();
            assert_eq!(ticket.is_null(), kind == 2);
            digest.to_vec()
        };
        let expected = match kind {
            2 => crate::crypto::hmac(HashAlg::Sha256, &[7; 32], &[b"data before after"]),
            _ => HashAlg::Sha512.digest(&[b"data before after"]),
        };
        assert_eq!(digest, expected.to_vec());
    }
}

#[test]
fn the_context_of_a_sequence_is_not_that_of_an_object() {
    let mut tpm = TestTpm::started();
    let sequence = start_hash(&mut tpm, TpmAlgId::SHA256).unwrap();
    let out = tpm.run(TpmCc::CONTEXT_SAVE, &[sequence], &()).unwrap();
    let context: TpmsContext = decode_exact(&out).unwrap();
    for other in [0x8000_0000, 0x8000_0002] {
        let changed = TpmsContext { saved_handle: TpmHandle(other), ..context.clone() };
        let result = tpm.run(TpmCc::CONTEXT_LOAD, &[], &changed);
        assert_eq!(result, Err(ResponseCode::INTEGRITY.parameter(1)));
    }
}

#[test]
fn sequences_end_with_the_power() {
    let mut tpm = TestTpm::started();
    let sequence = start_hash(&mut tpm, TpmAlgId::SHA256).unwrap();
    tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE).unwrap();
    tpm.init();
    tpm.run(TpmCc::STARTUP, &[], &TpmSu::STATE).unwrap();
    assert_eq!(update(&mut tpm, sequence, b""), Err(ResponseCode::REFERENCE_H0));
}

#[test]
fn a_sequence_does_not_make_a_shutdown_void() {
    let mut tpm = TestTpm::started();
    tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE).unwrap();
    start_hash(&mut tpm, TpmAlgId::SHA256).unwrap();
    tpm.init();
    assert!(tpm.run(TpmCc::STARTUP, &[], &TpmSu::STATE).is_ok());
}
