//! `TPM2_SetCommandCodeAuditStatus` (Part 3, 21.2).

use crate::command::{Context, Output, parameters, table};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bDigest, TpmAlgId, TpmCc, TpmiAlgHash, TpmiAlgHashOrNull, TpmlCc};

/// Changes which commands are audited, or the hash of the audit, which ends the digest. Codes of commands that are not there are passed over, as
/// are `TPM2_Shutdown`, which is never audited, and in the list to clear this command, which always is.
///
/// # Errors
/// `TPM_RC_VALUE` for another hash and a list in one command.
pub fn set_command_code_audit_status(
    cx: &mut Context<'_>,
    r: &mut Reader<'_>,
) -> Result<Output, ResponseCode> {
    let (TpmiAlgHashOrNull(alg), set, clear): (_, TpmlCc, TpmlCc) = parameters(r)?;
    let audit = &cx.state.permanent.command_audit;
    if alg != TpmAlgId::NULL && alg != audit.alg.0 {
        if !set.0.is_empty() || !clear.0.is_empty() {
            return Err(ResponseCode::VALUE.parameter(1));
        }
        cx.state.permanent_mut().command_audit.alg = TpmiAlgHash(alg);
        cx.state.volatile_mut().state_reset.command_audit_digest = Tpm2bDigest::empty();
        return Ok(Output::none());
    }
    let mut commands = audit.commands.0.clone();
    let has_instances = cx.env.instances().is_some();
    for code in set.0 {
        let is_there = table::find(code).is_some() && (has_instances || !table::is_vendor(code));
        if is_there
            && code != TpmCc::SHUTDOWN
            && let Err(at) = commands.binary_search(&code)
        {
            commands.insert(at, code);
        }
    }
    commands.retain(|code| *code == TpmCc::SET_COMMAND_CODE_AUDIT_STATUS || !clear.0.contains(code));
    cx.state.permanent_mut().command_audit.commands.0 = commands;
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::{Decode, Encode, Reader};
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    const ALWAYS: TpmCc = TpmCc::SET_COMMAND_CODE_AUDIT_STATUS;

    fn set(tpm: &mut TestTpm, alg: TpmAlgId, set: &[TpmCc], clear: &[TpmCc]) -> Result<(), ResponseCode> {
        let list = |codes: &[TpmCc]| -> TpmlCc { Tpml(codes.to_vec()) };
        let input = (alg, list(set), list(clear));
        tpm.run_with(ALWAYS, &[TpmHandle::OWNER], &[b""], &input).map(drop)
    }

    /// `TPM_CAP_AUDIT_COMMANDS` from a code on.
    fn audited(tpm: &mut TestTpm, first: TpmCc, count: u32) -> (bool, Vec<TpmCc>) {
        let out = tpm.run(TpmCc::GET_CAPABILITY, &[], &(TpmCap::AUDIT_COMMANDS, first, count)).unwrap();
        let mut r = Reader::new(&out);
        let (more, cap, TpmlCc { 0: list }) = Decode::decode(&mut r).unwrap();
        assert_eq!((cap, r.is_empty()), (TpmCap::AUDIT_COMMANDS, true));
        (more, list)
    }

    #[test]
    fn the_list_is_what_was_set_and_not_cleared() {
        let mut tpm = TestTpm::started();
        assert_eq!(audited(&mut tpm, TpmCc(0), 100), (false, vec![ALWAYS]));
        let codes = [TpmCc::READ_CLOCK, TpmCc::GET_RANDOM, TpmCc::CLEAR];
        set(&mut tpm, TpmAlgId::NULL, &codes, &[]).unwrap();
        let expected = vec![TpmCc::CLEAR, ALWAYS, TpmCc::GET_RANDOM, TpmCc::READ_CLOCK];
        assert_eq!(audited(&mut tpm, TpmCc(0), 100), (false, expected.clone()));
        assert_eq!(audited(&mut tpm, TpmCc(0), 2), (true, expected[..2].to_vec()));
        assert_eq!(audited(&mut tpm, TpmCc::STIR_RANDOM, 9), (false, expected[2..].to_vec()));
        // Named in both lists it is cleared. The hash may be repeated.
        set(&mut tpm, TpmAlgId::SHA512, &[TpmCc::HASH], &[TpmCc::HASH, TpmCc::CLEAR]).unwrap();
        assert_eq!(audited(&mut tpm, TpmCc(0), 100), (false, expected[1..].to_vec()));
        // It stays over a reset.
        tpm.init();
        tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).unwrap();
        assert_eq!(audited(&mut tpm, TpmCc(0), 100), (false, expected[1..].to_vec()));
    }

    #[test]
    fn some_commands_are_always_audited_and_some_never() {
        let mut tpm = TestTpm::started();
        let unknown = TpmCc(0x0175);
        // There is no tree of instances.
        let vendor = vtpm_protocol::instance::cc::LIST_INSTANCES;
        set(&mut tpm, TpmAlgId::NULL, &[TpmCc::SHUTDOWN, unknown, vendor], &[ALWAYS]).unwrap();
        assert_eq!(audited(&mut tpm, TpmCc(0), 100), (false, vec![ALWAYS]));
    }

    #[test]
    fn the_hash_is_changed_alone() {
        let mut tpm = TestTpm::started();
        let both = Err(ResponseCode::VALUE.parameter(1));
        assert_eq!(set(&mut tpm, TpmAlgId::SHA256, &[TpmCc::CLEAR], &[]), both);
        assert_eq!(set(&mut tpm, TpmAlgId::SHA256, &[], &[TpmCc::CLEAR]), both);
        assert_eq!(set(&mut tpm, TpmAlgId::SHA256, &[], &[]), Ok(()));
        assert_eq!(tpm.state().permanent.command_audit.alg.0, TpmAlgId::SHA256);
        assert_eq!(set(&mut tpm, TpmAlgId(0x99), &[], &[]), Err(ResponseCode::HASH.parameter(1)));
    }

    /// A TPM without one of them, as libtpms 0.9 is without SM3, answers HASH before it looks at the lists.
    #[test]
    fn every_hash_there_is_can_be_that_of_the_audit_but_only_alone() {
        for alg in [
            TpmAlgId::SHA256,
            TpmAlgId::SHA384,
            TpmAlgId::SM3_256,
            TpmAlgId::SHA3_256,
            TpmAlgId::SHA3_384,
            TpmAlgId::SHA3_512,
        ] {
            let mut tpm = TestTpm::started();
            let value = Err(ResponseCode::VALUE.parameter(1));
            assert_eq!(set(&mut tpm, alg, &[TpmCc::CLEAR], &[]), value, "{alg:?}");
            assert_eq!(set(&mut tpm, alg, &[], &[]), Ok(()), "{alg:?}");
            assert_eq!(tpm.state().permanent.command_audit.alg.0, alg);
        }
    }

    #[test]
    fn owner_and_platform_may_do_it() {
        let mut tpm = TestTpm::started();
        let input = (TpmAlgId::NULL, 0u32, 0u32);
        let mut run = |auth, passwords: &[&[u8]], input: &dyn Encode| {
            tpm.run_with(ALWAYS, &[auth], passwords, input).map(drop)
        };
        assert_eq!(run(TpmHandle::PLATFORM, &[b""], &input), Ok(()));
        assert_eq!(run(TpmHandle::OWNER, &[b"no"], &input), Err(ResponseCode::BAD_AUTH.session(1)));
        assert_eq!(run(TpmHandle::OWNER, &[], &input), Err(ResponseCode::AUTH_MISSING));
        assert_eq!(run(TpmHandle::ENDORSEMENT, &[b""], &input), Err(ResponseCode::VALUE.handle(1)));
        let too_many = (TpmAlgId::NULL, 255u32, 0u32);
        assert_eq!(run(TpmHandle::OWNER, &[b""], &too_many), Err(ResponseCode::SIZE.parameter(2)));
    }
}
