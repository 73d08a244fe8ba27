//! Damaged commands: every valid one, cut everywhere and with every byte changed, is answered, and leaves no trace when it fails. The
//! checks are those of [`TestTpm::raw`].

use super::nv::testing::{INDEX, OPEN, define, public, write};
use crate::signing::test_keys::{AUTH, load, symmetric, with};
use crate::testing::{TestTpm, command_bytes};
use vtpm_protocol::codec::Encode;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    Sized2b, Tpm2bAuth, Tpm2bDigest, Tpm2bEvent, Tpm2bIv, Tpm2bMaxBuffer, Tpm2bMaxNvBuffer, TpmAlgId, TpmCap,
    TpmCc, TpmHandle, TpmNt, TpmPt, TpmaNv, TpmaObject, Tpml, TpmlDigestValues, TpmlPcrSelection,
    TpmsPcrSelection, TpmtHa, TpmtNvPublic2,
};

const COUNTER: TpmHandle = TpmHandle(INDEX.0 + 1);
const BITS: TpmHandle = TpmHandle(INDEX.0 + 2);
const EXTEND: TpmHandle = TpmHandle(INDEX.0 + 3);

const CIPHER: TpmHandle = TpmHandle(0x8000_0000);
const HASH_SEQUENCE: TpmHandle = TpmHandle(0x8000_0001);
const EVENT_SEQUENCE: TpmHandle = TpmHandle(0x8000_0002);

/// A TPM on which each of [`commands`] succeeds.
fn prepared() -> TestTpm {
    let mut tpm = TestTpm::started();
    let attributes = OPEN | TpmaNv::NO_DA | TpmaNv::WRITE_ST_CLEAR | TpmaNv::READ_ST_CLEAR;
    define(&mut tpm, TpmHandle::OWNER, b"pw", public(INDEX, attributes, 8)).unwrap();
    write(&mut tpm, TpmHandle::OWNER, b"", b"12345678", 0).unwrap();
    let counter = public(COUNTER, attributes.with_nt(TpmNt::Counter), 8);
    define(&mut tpm, TpmHandle::OWNER, b"", counter).unwrap();
    for (index, nt, size) in [(BITS, TpmNt::Bits, 8), (EXTEND, TpmNt::Extend, 32)] {
        define(&mut tpm, TpmHandle::OWNER, b"", public(index, attributes.with_nt(nt), size)).unwrap();
    }
    load(&mut tpm, with(symmetric(), TpmaObject::DECRYPT));
    for alg in [TpmAlgId::SHA256, TpmAlgId::NULL] {
        tpm.run(TpmCc::HASH_SEQUENCE_START, &[], &(0u16, alg)).unwrap();
    }
    tpm
}

fn with_password(cc: TpmCc, handles: &[TpmHandle], password: &[u8], parameters: &impl Encode) -> Vec<u8> {
    let mut area = (TpmHandle::RS_PW, 0u16, 0u8).to_bytes();
    Tpm2bAuth::new(password).unwrap().encode(&mut area);
    command_bytes(cc, handles, &area, &parameters.to_bytes())
}

fn without(cc: TpmCc, handles: &[TpmHandle], parameters: &impl Encode) -> Vec<u8> {
    command_bytes(cc, handles, &[], &parameters.to_bytes())
}

fn with_password_twice(cc: TpmCc, handles: &[TpmHandle], parameters: &impl Encode) -> Vec<u8> {
    let one = (TpmHandle::RS_PW, 0u16, 0u8, 0u16);
    command_bytes(cc, handles, &(one, one).to_bytes(), &parameters.to_bytes())
}

fn data_2b() -> Tpm2bMaxBuffer {
    Tpm2bMaxBuffer::new(*b"some data").unwrap()
}

fn commands() -> Vec<Vec<u8>> {
    let owner = TpmHandle::OWNER;
    let selection: TpmlPcrSelection = Tpml(vec![
        TpmsPcrSelection::of(TpmAlgId::SHA256, [0, 17]),
        TpmsPcrSelection::of(TpmAlgId::SHA1, [23]),
    ]);
    let digests: TpmlDigestValues = Tpml(vec![TpmtHa { hash_alg: TpmAlgId::SHA1, digest: vec![7; 20] }]);
    let new = public(TpmHandle(INDEX.0 + 4), OPEN, 8);
    let new2 = public(TpmHandle(INDEX.0 + 5), OPEN, 8);
    let data = Tpm2bMaxNvBuffer::new(*b"abcd").unwrap();
    vec![
        with_password(TpmCc::NV_DEFINE_SPACE, &[owner], b"", &(Tpm2bAuth::new(*b"x").unwrap(), Sized2b(new))),
        with_password(TpmCc::NV_UNDEFINE_SPACE, &[owner, INDEX], b"", &()),
        with_password(TpmCc::NV_WRITE, &[INDEX, INDEX], b"pw", &(data, 2u16)),
        with_password(TpmCc::NV_READ, &[INDEX, INDEX], b"pw", &(4u16, 4u16)),
        with_password(TpmCc::NV_INCREMENT, &[owner, COUNTER], b"", &()),
        with_password(TpmCc::NV_SET_BITS, &[owner, BITS], b"", &5u64),
        with_password(TpmCc::NV_EXTEND, &[owner, EXTEND], b"", &Tpm2bMaxNvBuffer::new(*b"data").unwrap()),
        without(TpmCc::NV_READ_PUBLIC, &[INDEX], &()),
        without(TpmCc::NV_READ_PUBLIC2, &[INDEX], &()),
        with_password(TpmCc::NV_DEFINE_SPACE2, &[owner], b"", &(0u16, Sized2b(TpmtNvPublic2::NvIndex(new2)))),
        with_password(TpmCc::NV_WRITE_LOCK, &[INDEX, INDEX], b"pw", &()),
        with_password(TpmCc::NV_READ_LOCK, &[owner, INDEX], b"", &()),
        with_password(TpmCc::NV_GLOBAL_WRITE_LOCK, &[owner], b"", &()),
        without(TpmCc::PCR_READ, &[], &selection),
        with_password(TpmCc::PCR_EXTEND, &[TpmHandle(16)], b"", &digests),
        with_password(TpmCc::PCR_EVENT, &[TpmHandle(16)], b"", &Tpm2bEvent::new(*b"data").unwrap()),
        with_password(TpmCc::PCR_RESET, &[TpmHandle(16)], b"", &()),
        with_password(TpmCc::CLEAR, &[TpmHandle::PLATFORM], b"", &()),
        with_password(
            TpmCc::HIERARCHY_CHANGE_AUTH,
            &[TpmHandle::ENDORSEMENT],
            b"",
            &Tpm2bAuth::new(*b"new").unwrap(),
        ),
        without(TpmCc::GET_CAPABILITY, &[], &(TpmCap::TPM_PROPERTIES, TpmPt::MANUFACTURER, 1u32)),
        without(TpmCc::GET_TEST_RESULT, &[], &()),
        without(TpmCc::HASH, &[], &(Tpm2bAuth::new(*b"abc").unwrap(), TpmAlgId::SHA256, owner)),
        with_password(TpmCc::HIERARCHY_CONTROL, &[TpmHandle::PLATFORM], b"", &(owner, false)),
        with_password(
            TpmCc::SET_PRIMARY_POLICY,
            &[TpmHandle::LOCKOUT],
            b"",
            &(Tpm2bDigest::new([7; 32]).unwrap(), TpmAlgId::SHA256),
        ),
        with_password(TpmCc::CHANGE_EPS, &[TpmHandle::PLATFORM], b"", &()),
        with_password(TpmCc::CHANGE_PPS, &[TpmHandle::PLATFORM], b"", &()),
        with_password(TpmCc::CLEAR_CONTROL, &[TpmHandle::LOCKOUT], b"", &true),
        with_password(TpmCc::READ_ONLY_CONTROL, &[TpmHandle::PLATFORM], b"", &true),
        with_password(TpmCc::DICTIONARY_ATTACK_LOCK_RESET, &[TpmHandle::LOCKOUT], b"", &()),
        with_password(
            TpmCc::DICTIONARY_ATTACK_PARAMETERS,
            &[TpmHandle::LOCKOUT],
            b"",
            &(32u32, 7200u32, 86400u32),
        ),
        with_password(TpmCc::CLOCK_SET, &[owner], b"", &0x1_0000u64),
        with_password(TpmCc::CLOCK_RATE_ADJUST, &[owner], b"", &1u8),
        with_password(TpmCc::PCR_ALLOCATE, &[TpmHandle::PLATFORM], b"", &selection),
        with_password(
            TpmCc::PCR_SET_AUTH_POLICY,
            &[TpmHandle::PLATFORM],
            b"",
            &(Tpm2bDigest::new([7; 32]).unwrap(), TpmAlgId::SHA256, 20u32),
        ),
        with_password(TpmCc::PCR_SET_AUTH_VALUE, &[TpmHandle(20)], b"", &Tpm2bAuth::new(*b"pcr").unwrap()),
        with_password(TpmCc::SET_ALGORITHM_SET, &[TpmHandle::PLATFORM], b"", &1u32),
        without(TpmCc::INCREMENTAL_SELF_TEST, &[], &(1u32, TpmAlgId::SHA256)),
        without(TpmCc::READ_CLOCK, &[], &()),
        with_password(TpmCc::ACT_SET_TIMEOUT, &[TpmHandle::ACT_0], b"", &60u32),
        without(TpmCc::GET_CAPABILITY, &[], &(TpmCap::ACT, TpmHandle::ACT_0, 1u32)),
        with_password(TpmCc::SEQUENCE_UPDATE, &[HASH_SEQUENCE], b"", &data_2b()),
        with_password(TpmCc::SEQUENCE_COMPLETE, &[HASH_SEQUENCE], b"", &(data_2b(), owner)),
        with_password_twice(TpmCc::EVENT_SEQUENCE_COMPLETE, &[TpmHandle(16), EVENT_SEQUENCE], &data_2b()),
        with_password(
            TpmCc::ENCRYPT_DECRYPT,
            &[CIPHER],
            AUTH,
            &(true, TpmAlgId::NULL, Tpm2bIv::new([1; 16]).unwrap(), data_2b()),
        ),
        with_password(
            TpmCc::ENCRYPT_DECRYPT2,
            &[CIPHER],
            AUTH,
            &(data_2b(), false, TpmAlgId::CFB, Tpm2bIv::new([1; 16]).unwrap()),
        ),
    ]
}

fn set_size(command: &mut [u8], size: usize) {
    command[2..6].copy_from_slice(&u32::try_from(size).unwrap().to_be_bytes());
}

#[test]
fn a_command_that_is_cut_or_too_long_fails_without_a_trace() {
    let mut tpm = prepared();
    for whole in commands() {
        for length in 0..whole.len() {
            // With the size that it has, and with the size that it had.
            let mut cut = whole[..length].to_vec();
            assert_ne!(tpm.rc(&cut), ResponseCode::SUCCESS);
            if length >= 6 {
                set_size(&mut cut, length);
                assert_ne!(tpm.rc(&cut), ResponseCode::SUCCESS, "{whole:02x?} cut to {length}");
            }
        }
        let mut long = [whole.as_slice(), &[0]].concat();
        set_size(&mut long, whole.len() + 1);
        assert_ne!(tpm.rc(&long), ResponseCode::SUCCESS, "{whole:02x?}");
    }
    // Nothing of all that kept the commands from working.
    for whole in commands() {
        prepared().ok(&whole);
    }
}

#[test]
fn a_command_with_any_byte_changed_is_answered_and_leaves_no_trace_when_it_fails() {
    for whole in commands() {
        let mut tpm = prepared();
        for position in 0..whole.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[position] ^= change;
                if tpm.rc(&changed) == ResponseCode::SUCCESS {
                    tpm = prepared();
                }
            }
        }
    }
}
