//! What the commands that write, read and lock an index refuse, for each of them and attribute by attribute.

use super::testing::{INDEX, OPEN, boot, define, policy_for, public, set_attribute};
use crate::testing::objects::{run_with_policy, start_policy};
use crate::testing::{Raw, TestTpm};
use vtpm_protocol::codec::Encode;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::*;

const OWNER: TpmHandle = TpmHandle::OWNER;
const PLATFORM: TpmHandle = TpmHandle::PLATFORM;
const LOCKABLE: TpmaNv = TpmaNv(TpmaNv::WRITE_ST_CLEAR.0 | TpmaNv::READ_ST_CLEAR.0);

/// A command on [`INDEX`], with the type and size that it takes, and its parameters.
struct Case(TpmCc, TpmNt, u16, Vec<u8>);

fn writers() -> [Case; 5] {
    let data = Tpm2bMaxNvBuffer::new([7; 8]).unwrap();
    [
        Case(TpmCc::NV_WRITE, TpmNt::Ordinary, 8, (&data, 0u16).to_bytes()),
        Case(TpmCc::NV_INCREMENT, TpmNt::Counter, 8, Vec::new()),
        Case(TpmCc::NV_SET_BITS, TpmNt::Bits, 8, 1u64.to_bytes()),
        Case(TpmCc::NV_EXTEND, TpmNt::Extend, 32, data.to_bytes()),
        Case(TpmCc::NV_WRITE_LOCK, TpmNt::Ordinary, 8, Vec::new()),
    ]
}

fn readers() -> [Case; 2] {
    [
        Case(TpmCc::NV_READ, TpmNt::Ordinary, 8, (8u16, 0u16).to_bytes()),
        Case(TpmCc::NV_READ_LOCK, TpmNt::Ordinary, 8, Vec::new()),
    ]
}

impl Case {
    /// A TPM with the index and a policy for this command; data was written, behind the TPM's back.
    fn defined(&self, attributes: TpmaNv) -> TestTpm {
        let mut tpm = TestTpm::started();
        let mut index = public(INDEX, attributes.with_nt(self.1), self.2);
        index.auth_policy = policy_for(self.0);
        define(&mut tpm, OWNER, b"pw", index).unwrap();
        if self.1 == TpmNt::Ordinary {
            set_attribute(&mut tpm, TpmaNv::WRITTEN, true);
        }
        tpm
    }

    fn run(&self, tpm: &mut TestTpm, by: TpmHandle) -> Result<(), ResponseCode> {
        let password: &[u8] = if by == INDEX { b"pw" } else { b"" };
        tpm.run_with(self.0, &[by, INDEX], &[password], &Raw(&self.3)).map(drop)
    }

    fn run_with_policy(&self, tpm: &mut TestTpm) -> Result<(), ResponseCode> {
        let session = start_policy(tpm, TpmSe::POLICY);
        tpm.run(TpmCc::POLICY_COMMAND_CODE, &[session], &self.0).unwrap();
        run_with_policy(tpm, self.0, &[INDEX, INDEX], session, &Raw(&self.3)).map(drop)
    }

    /// The attribute that is there admits its entity and no other.
    fn check_who(&self, admitting: [TpmaNv; 4], other: TpmaNv) {
        let [owner, platform, auth, policy] = admitting;
        for attribute in admitting {
            let mut tpm = self.defined(attribute | other | LOCKABLE);
            let only = |admits, rc| if attribute == admits { Ok(()) } else { Err(rc) };
            let refused = ResponseCode::NV_AUTHORIZATION;
            let context = format!("{:?} {attribute:?}", self.0);
            // Whoever is refused comes first: a lock that is there would be an answer, too.
            let mut expected = [
                (OWNER, only(owner, refused)),
                (PLATFORM, only(platform, refused)),
                (INDEX, only(auth, ResponseCode::AUTH_UNAVAILABLE)),
            ];
            expected.sort_by_key(|(_, expected)| expected.is_ok());
            let unavailable = ResponseCode::AUTH_UNAVAILABLE;
            if attribute != policy {
                assert_eq!(self.run_with_policy(&mut tpm), Err(unavailable), "{context}");
            }
            for (by, expected) in expected {
                assert_eq!(self.run(&mut tpm, by), expected, "{context} by {by:?}");
            }
            if attribute == policy {
                assert_eq!(self.run_with_policy(&mut tpm), Ok(()), "{context}");
            }
        }
    }
}

#[test]
fn each_write_attribute_admits_its_entity_and_no_other() {
    let admitting = [TpmaNv::OWNER_WRITE, TpmaNv::PP_WRITE, TpmaNv::AUTH_WRITE, TpmaNv::POLICY_WRITE];
    writers().iter().for_each(|case| case.check_who(admitting, TpmaNv::OWNER_READ));
}

#[test]
fn each_read_attribute_admits_its_entity_and_no_other() {
    let admitting = [TpmaNv::OWNER_READ, TpmaNv::PP_READ, TpmaNv::AUTH_READ, TpmaNv::POLICY_READ];
    readers().iter().for_each(|case| case.check_who(admitting, TpmaNv::OWNER_WRITE));
}

#[test]
fn another_index_authorizes_neither_writes_nor_reads_nor_locks() {
    for case in writers().iter().chain(&readers()) {
        let mut tpm = case.defined(OPEN | LOCKABLE);
        let other = TpmHandle(INDEX.0 + 1);
        define(&mut tpm, OWNER, b"", public(other, OPEN | LOCKABLE, 8)).unwrap();
        tpm.run_with(TpmCc::NV_WRITE, &[OWNER, other], &[b""], &(Tpm2bMaxNvBuffer::empty(), 0u16)).unwrap();
        assert_eq!(case.run(&mut tpm, other), Err(ResponseCode::NV_AUTHORIZATION), "{:?}", case.0);
    }
}

#[test]
fn a_lock_is_told_before_who_may_write_or_read() {
    for case in writers() {
        let mut tpm = case.defined(OPEN | LOCKABLE);
        set_attribute(&mut tpm, TpmaNv::WRITE_LOCKED, true);
        // To lock what is locked is no error.
        let locked = if case.0 == TpmCc::NV_WRITE_LOCK { Ok(()) } else { Err(ResponseCode::NV_LOCKED) };
        for by in [OWNER, PLATFORM, INDEX] {
            assert_eq!(case.run(&mut tpm, by), locked, "{:?} by {by:?}", case.0);
        }
    }
    let [read, lock] = readers();
    let mut tpm = read.defined(OPEN | LOCKABLE);
    set_attribute(&mut tpm, TpmaNv::READ_LOCKED, true);
    for by in [OWNER, PLATFORM, INDEX] {
        assert_eq!(read.run(&mut tpm, by), Err(ResponseCode::NV_LOCKED));
        assert_eq!(lock.run(&mut tpm, by), Ok(()));
    }
}

#[test]
fn each_command_takes_indices_of_its_type_only() {
    let types = [TpmNt::Ordinary, TpmNt::Counter, TpmNt::Bits, TpmNt::Extend, TpmNt::PinFail, TpmNt::PinPass];
    for Case(cc, own, _, parameters) in writers().into_iter().take(4) {
        for nt in types {
            let size = if nt == TpmNt::Extend { 32 } else { 8 };
            let case = Case(cc, nt, size, parameters.clone());
            let mut tpm = case.defined(TpmaNv::OWNER_WRITE | TpmaNv::OWNER_READ | TpmaNv::NO_DA);
            // Counts of PINs are written as data are.
            let fits = nt == own || (cc == TpmCc::NV_WRITE && matches!(nt, TpmNt::PinFail | TpmNt::PinPass));
            let expected = match fits {
                true => Ok(()),
                false if cc == TpmCc::NV_WRITE => Err(ResponseCode::ATTRIBUTES),
                false => Err(ResponseCode::ATTRIBUTES.handle(2)),
            };
            assert_eq!(case.run(&mut tpm, OWNER), expected, "{cc:?} {nt:?}");
        }
    }
}

#[test]
fn in_read_only_mode_nothing_is_written_or_locked_but_what_is_gone_with_the_boot() {
    let read_only = Err(ResponseCode::READ_ONLY);
    for case in writers().iter().chain(&readers()) {
        let passing = TpmaNv::ORDERLY | TpmaNv::CLEAR_ST_CLEAR;
        let counter = case.1 == TpmNt::Counter;
        for more in [TpmaNv(0), TpmaNv::ORDERLY, TpmaNv::CLEAR_ST_CLEAR, passing] {
            if counter && more.has(TpmaNv::CLEAR_ST_CLEAR) {
                continue;
            }
            let mut tpm = case.defined(OPEN | LOCKABLE | more);
            tpm.run_with(TpmCc::READ_ONLY_CONTROL, &[PLATFORM], &[b""], &true).unwrap();
            let free = case.0 == TpmCc::NV_READ || more == passing;
            let expected = if free { Ok(()) } else { read_only };
            assert_eq!(case.run(&mut tpm, OWNER), expected, "{:?} {more:?}", case.0);
            // It is told before the lock and before who may.
            if !free {
                set_attribute(&mut tpm, TpmaNv::WRITE_LOCKED, true);
                assert_eq!(case.run(&mut tpm, PLATFORM), read_only, "{:?} {more:?}", case.0);
            }
            boot(&mut tpm, None, TpmSu::CLEAR);
            set_attribute(&mut tpm, TpmaNv::WRITTEN, case.1 == TpmNt::Ordinary);
            set_attribute(&mut tpm, TpmaNv::WRITE_LOCKED, false);
            assert_eq!(case.run(&mut tpm, OWNER), Ok(()), "{:?} {more:?}", case.0);
        }
    }
}

/// Part 2, "TPMA_NV": what a definition says to every bit, set alone beside those that make an index readable and writable.
#[test]
fn every_attribute_is_taken_or_refused_by_itself() {
    let attributes = Err(ResponseCode::ATTRIBUTES.parameter(2));
    for (creator, base) in [
        (OWNER, TpmaNv::OWNER_READ | TpmaNv::OWNER_WRITE),
        (PLATFORM, TpmaNv::PP_READ | TpmaNv::PP_WRITE | TpmaNv::PLATFORM_CREATE),
    ] {
        for bit in 0..32 {
            let attribute = TpmaNv(1 << bit);
            let expected = match attribute {
                // Counter, and the types 2 (bits), 4 (extend), 8 (PIN fail): none but PIN fail needs more than its size.
                TpmaNv(0x10 | 0x20) => Ok(()),
                TpmaNv(0x40) => Err(ResponseCode::SIZE.parameter(2)),
                TpmaNv(0x80) => attributes,
                TpmaNv::WRITTEN | TpmaNv::WRITE_LOCKED | TpmaNv::READ_LOCKED => attributes,
                TpmaNv::POLICY_DELETE if creator == OWNER => attributes,
                TpmaNv::PLATFORM_CREATE if creator == OWNER => Err(ResponseCode::ATTRIBUTES.handle(1)),
                _ if matches!(bit, 8..=9 | 20..=24) => Err(ResponseCode::RESERVED_BITS.parameter(2)),
                _ => Ok(()),
            };
            let mut tpm = TestTpm::started();
            let result = define(&mut tpm, creator, b"", public(INDEX, base | attribute, 8));
            assert_eq!(result, expected, "bit {bit} by {creator:?}");
        }
    }
}
