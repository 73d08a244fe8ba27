//! Parameters that are not whole: each command blames the number of the one that ends too soon, is longer than its type, or follows the last.

use super::nv::testing::{INDEX, OPEN, define, public, write};
use crate::signing::test_keys::{ecc, load};
use crate::testing::objects::{hmac_key, sensitive, start_policy};
use crate::testing::{Raw, TestTpm};
use vtpm_protocol::codec::Encode;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::*;

/// A command with its handles, the passwords of its sessions, and its parameters.
struct Case(TpmCc, Vec<TpmHandle>, Vec<&'static [u8]>, Vec<Vec<u8>>);

const COUNTER: TpmHandle = TpmHandle(INDEX.0 + 1);
const BITS: TpmHandle = TpmHandle(INDEX.0 + 2);
const EXTEND: TpmHandle = TpmHandle(INDEX.0 + 3);

/// A TPM with a key, indices and a policy session.
fn prepared() -> (TestTpm, TpmHandle, TpmHandle) {
    let mut tpm = TestTpm::started();
    define(&mut tpm, TpmHandle::OWNER, b"", public(INDEX, OPEN, 8)).unwrap();
    write(&mut tpm, TpmHandle::OWNER, b"", b"12345678", 0).unwrap();
    for (index, nt, size) in
        [(COUNTER, TpmNt::Counter, 8), (BITS, TpmNt::Bits, 8), (EXTEND, TpmNt::Extend, 32)]
    {
        define(&mut tpm, TpmHandle::OWNER, b"", public(index, OPEN.with_nt(nt), size)).unwrap();
    }
    let key = load(&mut tpm, ecc(Scheme::new(TpmAlgId::ECDSA, TpmAlgId::SHA256)));
    let session = start_policy(&mut tpm, TpmSe::POLICY);
    (tpm, key, session)
}

/// Those that add to a policy.
fn policies(key: TpmHandle, session: TpmHandle) -> Vec<Case> {
    let b2 = |bytes: &[u8]| Tpm2bDigest::new(bytes).unwrap().to_bytes();
    let digest = b2(&[7; 32]);
    let name = b2(&[&[0, 0x0b][..], &[7; 32]].concat());
    let (half, word, no) = (vec![0; 2], vec![0; 4], vec![0]);
    let signature =
        TpmtSignature::Hmac(TpmtHa { hash_alg: TpmAlgId::SHA256, digest: vec![7; 32] }).to_bytes();
    let ticket = |tag| TpmtTk::null(tag).to_bytes();
    let two: TpmlDigest = Tpml(vec![Tpm2bDigest::new([7; 32]).unwrap(); 2]);
    let pcrs: TpmlPcrSelection = Tpml(vec![TpmsPcrSelection::of(TpmAlgId::SHA256, [0])]);
    let d = || digest.clone();
    let n = || name.clone();
    let policy = |cc, parameters| Case(cc, vec![session], vec![], parameters);
    vec![
        Case(TpmCc::POLICY_SIGNED, vec![key, session], vec![], vec![d(), d(), d(), word.clone(), signature]),
        Case(
            TpmCc::POLICY_SECRET,
            vec![TpmHandle::OWNER, session],
            vec![b""],
            vec![d(), d(), d(), word.clone()],
        ),
        Case(
            TpmCc::POLICY_NV,
            vec![TpmHandle::OWNER, INDEX, session],
            vec![b""],
            vec![d(), half.clone(), half.clone()],
        ),
        Case(TpmCc::POLICY_AUTHORIZE_NV, vec![TpmHandle::OWNER, INDEX, session], vec![b""], vec![]),
        policy(TpmCc::POLICY_TICKET, vec![b2(&[0; 8]), d(), d(), n(), ticket(TpmSt::AUTH_SECRET)]),
        policy(TpmCc::POLICY_OR, vec![two.to_bytes()]),
        policy(TpmCc::POLICY_PCR, vec![d(), pcrs.to_bytes()]),
        policy(TpmCc::POLICY_LOCALITY, vec![vec![1]]),
        policy(TpmCc::POLICY_COUNTER_TIMER, vec![d(), half.clone(), half.clone()]),
        policy(TpmCc::POLICY_COMMAND_CODE, vec![TpmCc::CLEAR.to_bytes()]),
        policy(TpmCc::POLICY_CP_HASH, vec![d()]),
        policy(TpmCc::POLICY_NAME_HASH, vec![d()]),
        policy(TpmCc::POLICY_TEMPLATE, vec![d()]),
        policy(TpmCc::POLICY_PARAMETERS, vec![d()]),
        policy(TpmCc::POLICY_DUPLICATION_SELECT, vec![n(), n(), no.clone()]),
        policy(TpmCc::POLICY_AC_SEND_SELECT, vec![n(), n(), n(), no.clone()]),
        policy(TpmCc::POLICY_AUTHORIZE, vec![d(), d(), n(), ticket(TpmSt::VERIFIED)]),
        policy(TpmCc::POLICY_NV_WRITTEN, vec![no]),
        policy(TpmCc::POLICY_CAPABILITY, vec![d(), half.clone(), half, word.clone(), word]),
        policy(TpmCc::POLICY_TRANSPORT_SPDM, vec![n(), n()]),
        policy(TpmCc::POLICY_AUTH_VALUE, vec![]),
        policy(TpmCc::POLICY_PASSWORD, vec![]),
        policy(TpmCc::POLICY_PHYSICAL_PRESENCE, vec![]),
        policy(TpmCc::POLICY_GET_DIGEST, vec![]),
        policy(TpmCc::POLICY_RESTART, vec![]),
    ]
}

/// Those of NV.
fn indices() -> Vec<Case> {
    let auth = Tpm2bAuth::new(*b"x").unwrap().to_bytes();
    let new = Sized2b(public(TpmHandle(INDEX.0 + 9), OPEN, 8)).to_bytes();
    let new2 = Sized2b(TpmtNvPublic2::NvIndex(public(TpmHandle(INDEX.0 + 9), OPEN, 8))).to_bytes();
    let data = Tpm2bMaxNvBuffer::new(*b"1234").unwrap().to_bytes();
    let owner = TpmHandle::OWNER;
    let on = |cc, index, parameters| Case(cc, vec![owner, index], vec![b""], parameters);
    vec![
        Case(TpmCc::NV_DEFINE_SPACE, vec![owner], vec![b""], vec![auth.clone(), new]),
        Case(TpmCc::NV_DEFINE_SPACE2, vec![owner], vec![b""], vec![auth, new2]),
        on(TpmCc::NV_WRITE, INDEX, vec![data.clone(), vec![0; 2]]),
        on(TpmCc::NV_READ, INDEX, vec![vec![0; 2], vec![0; 2]]),
        on(TpmCc::NV_INCREMENT, COUNTER, vec![]),
        on(TpmCc::NV_SET_BITS, BITS, vec![vec![0; 8]]),
        on(TpmCc::NV_EXTEND, EXTEND, vec![data]),
        on(TpmCc::NV_WRITE_LOCK, INDEX, vec![]),
        on(TpmCc::NV_READ_LOCK, INDEX, vec![]),
        on(TpmCc::NV_UNDEFINE_SPACE, INDEX, vec![]),
        Case(TpmCc::NV_GLOBAL_WRITE_LOCK, vec![owner], vec![b""], vec![]),
        Case(TpmCc::NV_READ_PUBLIC, vec![INDEX], vec![], vec![]),
        Case(TpmCc::NV_READ_PUBLIC2, vec![INDEX], vec![], vec![]),
    ]
}

/// Those of hierarchies, PCRs, clock, audit and the rest.
fn others() -> Vec<Case> {
    let (platform, lockout, owner, pcr) =
        (TpmHandle::PLATFORM, TpmHandle::LOCKOUT, TpmHandle::OWNER, TpmHandle(20));
    let digest = Tpm2bDigest::new([7; 32]).unwrap().to_bytes();
    let auth = Tpm2bAuth::new(*b"new").unwrap().to_bytes();
    let alg = TpmAlgId::SHA256.to_bytes();
    let pcrs: TpmlPcrSelection = Tpml(vec![TpmsPcrSelection::of(TpmAlgId::SHA256, [0, 17])]);
    let digests: TpmlDigestValues = Tpml(vec![TpmtHa { hash_alg: TpmAlgId::SHA1, digest: vec![7; 20] }]);
    let list = |code: TpmCc| Tpml::<TpmCc, 254>(vec![code]).to_bytes();
    let by = |cc, handle, parameters| Case(cc, vec![handle], vec![b"".as_slice()], parameters);
    vec![
        by(
            TpmCc::CREATE_PRIMARY,
            owner,
            vec![
                sensitive(b"a", b"").to_bytes(),
                Sized2b(hmac_key()).to_bytes(),
                digest.clone(),
                pcrs.to_bytes(),
            ],
        ),
        by(TpmCc::HIERARCHY_CONTROL, platform, vec![owner.to_bytes(), vec![0]]),
        by(TpmCc::HIERARCHY_CHANGE_AUTH, owner, vec![auth.clone()]),
        by(TpmCc::SET_PRIMARY_POLICY, owner, vec![digest.clone(), alg.clone()]),
        by(TpmCc::CLEAR_CONTROL, lockout, vec![vec![1]]),
        by(TpmCc::READ_ONLY_CONTROL, platform, vec![vec![1]]),
        by(TpmCc::CLEAR, lockout, vec![]),
        by(TpmCc::CHANGE_EPS, platform, vec![]),
        by(TpmCc::CHANGE_PPS, platform, vec![]),
        by(TpmCc::DICTIONARY_ATTACK_LOCK_RESET, lockout, vec![]),
        by(TpmCc::DICTIONARY_ATTACK_PARAMETERS, lockout, vec![vec![0; 4], vec![0; 4], vec![0; 4]]),
        by(TpmCc::PCR_ALLOCATE, platform, vec![pcrs.to_bytes()]),
        by(TpmCc::PCR_EVENT, pcr, vec![auth.clone()]),
        by(TpmCc::PCR_EXTEND, pcr, vec![digests.to_bytes()]),
        by(TpmCc::PCR_RESET, pcr, vec![]),
        by(TpmCc::PCR_SET_AUTH_VALUE, pcr, vec![auth]),
        by(TpmCc::PCR_SET_AUTH_POLICY, platform, vec![digest, alg, vec![0, 0, 0, 20]]),
        Case(TpmCc::PCR_READ, vec![], vec![], vec![pcrs.to_bytes()]),
        by(TpmCc::CLOCK_SET, owner, vec![vec![0; 8]]),
        by(TpmCc::CLOCK_RATE_ADJUST, owner, vec![vec![0]]),
        Case(TpmCc::READ_CLOCK, vec![], vec![], vec![]),
        by(TpmCc::ACT_SET_TIMEOUT, TpmHandle::ACT_0, vec![vec![0; 4]]),
        by(TpmCc::SET_ALGORITHM_SET, platform, vec![vec![0; 4]]),
        by(
            TpmCc::SET_COMMAND_CODE_AUDIT_STATUS,
            owner,
            vec![TpmAlgId::NULL.to_bytes(), list(TpmCc::CLEAR), list(TpmCc::HASH)],
        ),
        Case(
            TpmCc::GET_CAPABILITY,
            vec![],
            vec![],
            vec![TpmCap::TPM_PROPERTIES.to_bytes(), vec![0; 4], vec![0; 4]],
        ),
        Case(
            TpmCc::TEST_PARMS,
            vec![],
            vec![],
            vec![[0, 1, 0, 6, 0, 0x80, 0, 0x43, 0, 0x10, 8, 0, 0, 0, 0, 0].to_vec()],
        ),
    ]
}

impl Case {
    fn rc(&self, tpm: &mut TestTpm, parameters: &[u8]) -> ResponseCode {
        tpm.run_with(self.0, &self.1, &self.2, &Raw(parameters))
            .map_or_else(|rc| rc, |_| ResponseCode::SUCCESS)
    }
}

#[test]
fn a_parameter_that_ends_too_soon_is_blamed_by_its_number() {
    let (mut tpm, key, session) = prepared();
    for case in policies(key, session).into_iter().chain(indices()).chain(others()) {
        let mut before = Vec::new();
        for (parameter, n) in case.3.iter().zip(1..) {
            for keep in 0..parameter.len() {
                let rc = case.rc(&mut tpm, &[&before, &parameter[..keep]].concat());
                // A structure that is shorter than its size says so, or that it ends too soon.
                assert_eq!(rc, ResponseCode::INSUFFICIENT.parameter(n), "{:?} cut to {keep}", case.0);
            }
            before.extend_from_slice(parameter);
        }
        before.push(0);
        assert_eq!(case.rc(&mut tpm, &before), ResponseCode::SIZE, "{:?}", case.0);
    }
}

#[test]
fn a_buffer_that_is_longer_than_its_type_is_blamed_by_its_number() {
    let (mut tpm, key, session) = prepared();
    let mut tried = 0;
    for case in policies(key, session).into_iter().chain(indices()).chain(others()) {
        let mut before = Vec::new();
        for (parameter, n) in case.3.iter().zip(1..) {
            let size = parameter.get(..2).map(|s| usize::from(u16::from_be_bytes(s.try_into().unwrap())));
            if size.is_some_and(|size| size > 0 && size + 2 == parameter.len()) {
                let long = [&before[..], &[0xff, 0xff], &parameter[2..]].concat();
                assert_eq!(case.rc(&mut tpm, &long), ResponseCode::SIZE.parameter(n), "{:?}", case.0);
                tried += 1;
            }
            before.extend_from_slice(parameter);
        }
    }
    assert!(tried > 40, "{tried}");
}

#[test]
fn what_changes_something_that_cannot_be_made_durable_does_not_happen() {
    let (mut tpm, ..) = prepared();
    tpm.env.fail_commits = true;
    let mut refused = 0;
    for case in indices().into_iter().chain(others()) {
        let before = tpm.tpm.records();
        let rc = case.rc(&mut tpm, &case.3.concat());
        if rc == ResponseCode::NV_UNAVAILABLE {
            assert!(tpm.tpm.records() == before, "{:?}", case.0);
            refused += 1;
        }
        let lasts = crate::command::hierarchy::is_refused_in_read_only_mode(case.0);
        assert!(
            rc == ResponseCode::NV_UNAVAILABLE || !lasts || tpm.tpm.records() == before,
            "{:?}: {rc}",
            case.0
        );
    }
    assert!(refused > 20, "{refused}");
}
