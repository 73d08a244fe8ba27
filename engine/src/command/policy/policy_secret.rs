//! `TPM2_PolicySecret` (Part 3, 23.4).

use super::authorization::{Terms, no_ticket};
use super::is_trial;
use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bDigest, Tpm2bNonce, TpmCc, TpmHt, TpmNt, TpmSt};

/// The policy needs that another entity was authorized, by its authorization value: this command is so authorized. A negative expiration
/// asks for a ticket, which a PIN Pass index does not give, as every use of it counts.
///
/// # Errors
/// Those of [`Terms::begin`]; `TPM_RC_READ_ONLY` for a PIN index in read-only mode.
pub fn policy_secret(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (nonce, cp_hash, policy_ref, expiration): (Tpm2bNonce, Tpm2bDigest, Tpm2bNonce, i32) = parameters(r)?;
    let (entity, handle) = (cx.handle(0)?, cx.handle(1)?);
    let nt = match entity.handle_type() {
        TpmHt::NV_INDEX => Some(cx.state.nv_index(entity)?.public.attributes.nt()?),
        _ => None,
    };
    // Their use is counted in NV.
    if cx.state.volatile.state_clear.read_only && matches!(nt, Some(TpmNt::PinFail | TpmNt::PinPass)) {
        return Err(ResponseCode::READ_ONLY);
    }
    let name = cx.state.name(entity)?;
    let terms = Terms::begin(cx, handle, &nonce, cp_hash, policy_ref, expiration)?;
    let session = cx.state.session_mut(handle)?;
    terms.apply(session, TpmCc::POLICY_SECRET, &name);
    if expiration >= 0 || is_trial(session) || nt == Some(TpmNt::PinPass) {
        return Ok(no_ticket(TpmSt::AUTH_SECRET));
    }
    Ok(terms.ticket(cx, TpmSt::AUTH_SECRET, entity, &name))
}

#[cfg(test)]
mod tests {
    use crate::command::nv::testing::{INDEX, OPEN, define, public, write};
    use crate::command::policy::testing::{START, b2, both, digest, nonce, policy_secret, updated};
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::Encode;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    const OWNER: TpmHandle = TpmHandle::OWNER;
    const NONE: TpmtTk = TpmtTk::null(TpmSt::AUTH_SECRET);

    #[test]
    fn the_digest_is_that_of_the_formula_also_in_a_trial() {
        let mut tpm = TestTpm::started();
        let (session, trial) = both(&mut tpm);
        let expected = updated(&START, TpmCc::POLICY_SECRET, &OWNER.to_bytes(), b"ref");
        let input = (nonce(&mut tpm, session), b2(b""), b2(b"ref"), 0i32);
        assert_eq!(policy_secret(&mut tpm, OWNER, session, &input), Ok((vec![], NONE)));
        assert_eq!(digest(&mut tpm, session), expected);
        // Nothing of this holds for a trial, which gives no ticket either.
        let input = (b2(b"nonce"), b2(b"hash"), b2(b"ref"), -1i32);
        assert_eq!(policy_secret(&mut tpm, OWNER, trial, &input), Ok((vec![], NONE)));
        assert_eq!(digest(&mut tpm, trial), expected);
    }

    #[test]
    fn the_entity_is_authorized_by_its_value() {
        let mut tpm = TestTpm::started();
        let (session, trial) = both(&mut tpm);
        tpm.run_with(TpmCc::HIERARCHY_CHANGE_AUTH, &[OWNER], &[b""], &Tpm2bAuth::new(*b"own").unwrap())
            .map(|_| ())
            .unwrap();
        let input = (b2(b""), b2(b""), b2(b""), 0i32);
        for session in [session, trial] {
            let mut rc = |handle, passwords: &[&[u8]]| {
                tpm.run_with(TpmCc::POLICY_SECRET, &[handle, session], passwords, &input).map(drop)
            };
            assert_eq!(rc(OWNER, &[b""]), Err(ResponseCode::BAD_AUTH.session(1)));
            assert_eq!(rc(OWNER, &[]), Err(ResponseCode::AUTH_MISSING));
            assert_eq!(rc(OWNER, &[b"own"]), Ok(()));
            assert_eq!(rc(TpmHandle::NULL, &[b""]), Err(ResponseCode::VALUE.handle(1)));
        }
    }

    #[test]
    fn a_time_counts_from_the_start_of_the_session_or_is_one_of_the_tpm() {
        let mut tpm = TestTpm::started();
        let (session, _) = both(&mut tpm);
        let begun = tpm.state().session(session).unwrap().start_time;
        tpm.env.now += 5_250;
        let nonce = nonce(&mut tpm, session);
        let mut run = |nonce: &Tpm2bNonce, expiration: i32| {
            let result = policy_secret(&mut tpm, OWNER, session, &(nonce, b2(b""), b2(b""), expiration));
            let timeout = tpm.state().session(session).unwrap().timeout;
            tpm.run(TpmCc::POLICY_RESTART, &[session], &()).unwrap();
            result.map(|(told, ticket)| (told, ticket.hierarchy, timeout))
        };
        let none = (vec![], TpmHandle::NULL);
        assert_eq!(run(&nonce, 0), Ok((none.0.clone(), none.1, 0)));
        assert_eq!(run(&nonce, 6), Ok((none.0.clone(), none.1, begun + 6_000)));
        assert_eq!(run(&nonce, -6), Ok(((begun + 6_000).to_bytes(), OWNER, begun + 6_000)));
        assert_eq!(run(&nonce, 5), Err(ResponseCode::EXPIRED.parameter(4)));
        assert_eq!(run(&nonce, -5), Err(ResponseCode::EXPIRED.parameter(4)));
        // Time is 5.25 s after the start of the TPM.
        let any = Tpm2bNonce::empty();
        assert_eq!(run(&any, 4), Err(ResponseCode::EXPIRED.parameter(4)));
        assert_eq!(run(&any, 5), Ok((none.0.clone(), none.1, 5_250)));
        assert_eq!(run(&any, -5), Ok((((1 << 63) | 5_250u64).to_bytes(), OWNER, 5_250)));
        let longest = (1u64 << 31) * 1000 + 250;
        assert_eq!(run(&any, i32::MIN), Ok((((1 << 63) | longest).to_bytes(), OWNER, longest)));
    }

    #[test]
    fn the_earliest_of_several_times_counts() {
        let mut tpm = TestTpm::started();
        let (session, _) = both(&mut tpm);
        for (expiration, expected) in [(20i32, 20_000), (30, 20_000), (0, 20_000), (10, 10_000)] {
            let input = (b2(b""), b2(b""), b2(b""), expiration);
            policy_secret(&mut tpm, OWNER, session, &input).unwrap();
            assert_eq!(tpm.state().session(session).unwrap().timeout, expected);
        }
    }

    #[test]
    fn another_nonce_or_command_is_refused() {
        let mut tpm = TestTpm::started();
        let (session, _) = both(&mut tpm);
        let mut rc = |nonce: &[u8], cp_hash: &[u8]| {
            policy_secret(&mut tpm, OWNER, session, &(b2(nonce), b2(cp_hash), b2(b""), 0i32)).map(drop)
        };
        assert_eq!(rc(b"nonce", b""), Err(ResponseCode::NONCE.parameter(1)));
        assert_eq!(rc(b"", &[1; 31]), Err(ResponseCode::SIZE.parameter(2)));
        assert_eq!(rc(b"", &[1; 32]), Ok(()));
        assert_eq!(rc(b"", &[1; 32]), Ok(()));
        assert_eq!(rc(b"", &[2; 32]), Err(ResponseCode::CPHASH));
        assert_eq!(rc(b"", b""), Ok(()));
        let session = tpm.state().session(session).unwrap();
        assert!(session.flags.is_cp_hash_defined && session.cp_hash.as_slice() == [1; 32]);
    }

    #[test]
    fn a_pin_pass_index_counts_every_use_and_gives_no_ticket() {
        let mut tpm = TestTpm::started();
        let (session, _) = both(&mut tpm);
        let open = TpmaNv(OPEN.0 & !TpmaNv::AUTH_WRITE.0) | TpmaNv::NO_DA;
        define(&mut tpm, OWNER, b"", public(INDEX, open.with_nt(TpmNt::PinPass), 8)).unwrap();
        write(&mut tpm, OWNER, b"", &[0, 0, 0, 0, 0, 0, 0, 1], 0).unwrap();
        let name = tpm.state().name(INDEX).unwrap();
        let input = (b2(b""), b2(b""), b2(b""), -100i32);
        assert_eq!(policy_secret(&mut tpm, INDEX, session, &input), Ok((vec![], NONE)));
        assert_eq!(digest(&mut tpm, session), updated(&START, TpmCc::POLICY_SECRET, &name, b""));
        let refused = Err(ResponseCode::AUTH_UNAVAILABLE);
        assert_eq!(policy_secret(&mut tpm, INDEX, session, &input), refused);
    }

    #[test]
    fn a_ticket_is_of_the_hierarchy_of_its_entity() {
        let mut tpm = TestTpm::started();
        let (session, _) = both(&mut tpm);
        let platform = OPEN | TpmaNv::PLATFORM_CREATE;
        define(&mut tpm, TpmHandle::PLATFORM, b"", public(INDEX, platform, 8)).unwrap();
        for (entity, hierarchy) in [
            (TpmHandle::OWNER, OWNER),
            (TpmHandle::LOCKOUT, OWNER),
            (TpmHandle(16), OWNER),
            (TpmHandle::ENDORSEMENT, TpmHandle::ENDORSEMENT),
            (TpmHandle::PLATFORM, TpmHandle::PLATFORM),
            (INDEX, TpmHandle::PLATFORM),
        ] {
            let input = (b2(b""), b2(b""), b2(b""), -100i32);
            let (_, ticket) = policy_secret(&mut tpm, entity, session, &input).unwrap();
            assert_eq!((ticket.tag, ticket.hierarchy), (TpmSt::AUTH_SECRET, hierarchy));
        }
    }

    #[test]
    fn in_read_only_mode_no_pin_is_used_up() {
        for nt in [TpmNt::PinPass, TpmNt::PinFail] {
            let mut tpm = TestTpm::started();
            let attributes = TpmaNv::OWNER_WRITE | TpmaNv::AUTH_READ | TpmaNv::NO_DA;
            define(&mut tpm, OWNER, b"", public(INDEX, attributes.with_nt(nt), 8)).unwrap();
            write(&mut tpm, OWNER, b"", &[0, 0, 0, 0, 0, 0, 0, 5], 0).unwrap();
            tpm.run_with(TpmCc::READ_ONLY_CONTROL, &[TpmHandle::PLATFORM], &[b""], &true).unwrap();
            let (session, trial) = both(&mut tpm);
            let input = (b2(b""), b2(b""), b2(b""), 0i32);
            for session in [session, trial] {
                let result = policy_secret(&mut tpm, INDEX, session, &input);
                assert_eq!(result, Err(ResponseCode::READ_ONLY), "{nt:?}");
            }
            assert_eq!(policy_secret(&mut tpm, OWNER, session, &input), Ok((vec![], NONE)));
        }
    }
}
