//! `TPM2_PolicyTicket` (Part 3, 23.5).

use super::authorization::{Blame, Terms, Tpm2bTimeout, read_timeout};
use super::is_trial;
use crate::command::{Context, Output, parameters};
use crate::ticket;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bDigest, Tpm2bName, Tpm2bNonce, TpmCc, TpmSt, TpmtTkAuth};

const BLAME: Blame = Blame { nonce: 0, cp_hash: 2, expiration: 1 };

/// The policy needs an authorization that `TPM2_PolicySigned` or `TPM2_PolicySecret` took before, as their ticket proves; the digest is
/// the same as if they had been run.
///
/// # Errors
/// `TPM_RC_ATTRIBUTES` for a trial session; `TPM_RC_SIZE` for a timeout that is none; those of [`Terms::check`]; `TPM_RC_TICKET` for
/// a ticket that was not made here on these terms, or has ended; `TPM_RC_TAG` for one of another kind.
pub fn policy_ticket(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (timeout, cp_hash, policy_ref, name, TpmtTkAuth(given)): (
        Tpm2bTimeout,
        Tpm2bDigest,
        Tpm2bNonce,
        Tpm2bName,
        _,
    ) = parameters(r)?;
    let handle = cx.handle(0)?;
    let session = cx.state.session(handle)?;
    if is_trial(session) {
        return Err(ResponseCode::ATTRIBUTES.handle(1));
    }
    let (timeout, expires_on_reset) = read_timeout(&timeout).map_err(|e| e.parameter(1))?;
    let terms = Terms { cp_hash, policy_ref, timeout, expires_on_reset };
    terms.check(cx.state, cx.now, session, &[], &BLAME)?;
    let expected = ticket::auth(cx.state, given.tag, given.hierarchy, &terms, &name);
    if !ticket::is_same(&given, &expected) {
        return Err(ResponseCode::TICKET.parameter(5));
    }
    let code = if given.tag == TpmSt::AUTH_SIGNED { TpmCc::POLICY_SIGNED } else { TpmCc::POLICY_SECRET };
    terms.apply(cx.state.session_mut(handle)?, code, &name);
    Ok(Output::none())
}

#[cfg(test)]
mod tests {
    use crate::command::policy::testing::{START, b2, both, digest, nonce, policy, policy_secret, updated};
    use crate::testing::TestTpm;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    const CODE: TpmCc = TpmCc::POLICY_TICKET;
    const OWNER: TpmHandle = TpmHandle::OWNER;

    /// The parameters of a ticket that the owner gave.
    #[derive(Clone)]
    struct Given {
        timeout: Vec<u8>,
        cp_hash: Vec<u8>,
        policy_ref: Vec<u8>,
        name: Vec<u8>,
        ticket: TpmtTk,
    }

    fn give(
        tpm: &mut TestTpm,
        session: TpmHandle,
        nonce: Tpm2bNonce,
        cp_hash: &[u8],
        expiration: i32,
    ) -> Given {
        let input = (nonce, b2(cp_hash), b2(b"ref"), expiration);
        let (timeout, ticket) = policy_secret(tpm, OWNER, session, &input).unwrap();
        tpm.run(TpmCc::POLICY_RESTART, &[session], &()).unwrap();
        let name = OWNER.0.to_be_bytes().to_vec();
        Given { timeout, cp_hash: cp_hash.to_vec(), policy_ref: b"ref".to_vec(), name, ticket }
    }

    fn take(tpm: &mut TestTpm, session: TpmHandle, given: &Given) -> Result<(), ResponseCode> {
        let input = (
            b2(&given.timeout),
            b2(&given.cp_hash),
            b2(&given.policy_ref),
            Tpm2bName::new(given.name.clone()).unwrap(),
            given.ticket.clone(),
        );
        policy(tpm, CODE, session, &input)
    }

    #[test]
    fn a_ticket_stands_for_the_authorization_also_in_another_session() {
        let mut tpm = TestTpm::started();
        let (session, _) = both(&mut tpm);
        let bound = nonce(&mut tpm, session);
        let given = give(&mut tpm, session, bound, &[6; 32], -10);
        let (other, _) = both(&mut tpm);
        take(&mut tpm, other, &given).unwrap();
        let expected = updated(&START, TpmCc::POLICY_SECRET, &given.name, b"ref");
        assert_eq!(digest(&mut tpm, other), expected);
        let state = tpm.state().session(other).unwrap();
        assert_eq!(state.cp_hash.as_slice(), [6; 32]);
        assert!(state.flags.is_cp_hash_defined);
        assert_eq!(state.timeout, u64::from_be_bytes(given.timeout.try_into().unwrap()));
    }

    #[test]
    fn nothing_in_a_ticket_can_be_changed() {
        let mut tpm = TestTpm::started();
        let (session, _) = both(&mut tpm);
        let given = give(&mut tpm, session, Tpm2bNonce::empty(), &[6; 32], -5000);
        let mut later = given.clone();
        later.timeout[6] ^= 1;
        let mut outliving = given.clone();
        outliving.timeout[0] ^= 0x80;
        let mut any_command = given.clone();
        any_command.cp_hash.clear();
        let mut other_ref = given.clone();
        other_ref.policy_ref[0] ^= 1;
        let mut other_name = given.clone();
        other_name.name[3] ^= 1;
        let mut signed = given.clone();
        signed.ticket.tag = TpmSt::AUTH_SIGNED;
        let mut other_hierarchy = given.clone();
        other_hierarchy.ticket.hierarchy = TpmHandle::PLATFORM;
        let mut cut = given.clone();
        cut.ticket.digest = b2(&given.ticket.digest[1..]);
        // The bytes of one parameter are not those of the next.
        let mut moved = given.clone();
        moved.cp_hash.clear();
        moved.policy_ref = [&[6; 32], &b"ref"[..]].concat();
        let all = [later, outliving, any_command, other_ref, other_name, signed, other_hierarchy, cut, moved];
        for (i, bad) in all.iter().enumerate() {
            assert_eq!(take(&mut tpm, session, bad), Err(ResponseCode::TICKET.parameter(5)), "{i}");
        }
        assert_eq!(take(&mut tpm, session, &given), Ok(()));
    }

    #[test]
    fn a_ticket_ends_in_time_with_a_step_of_time_and_with_a_reset_if_not_bound_to_a_session() {
        let mut tpm = TestTpm::started();
        let (session, _) = both(&mut tpm);
        let bound = nonce(&mut tpm, session);
        let given = give(&mut tpm, session, bound, b"", -10);
        tpm.env.now += 10_000;
        assert_eq!(take(&mut tpm, session, &given), Ok(()));
        tpm.env.now += 1;
        assert_eq!(take(&mut tpm, session, &given), Err(ResponseCode::EXPIRED.parameter(1)));
        // Time that went back may be any later time.
        let bound = nonce(&mut tpm, session);
        let given = give(&mut tpm, session, bound, b"", -1000);
        tpm.env.now = 10;
        assert_eq!(take(&mut tpm, session, &given), Err(ResponseCode::EXPIRED.parameter(1)));
        let (fresh, _) = both(&mut tpm);
        assert_eq!(take(&mut tpm, fresh, &given), Err(ResponseCode::TICKET.parameter(5)));
        let given = give(&mut tpm, fresh, Tpm2bNonce::empty(), b"", i32::MIN);
        assert_eq!(take(&mut tpm, fresh, &given), Ok(()));
        tpm.init();
        tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).unwrap();
        let (fresh, _) = both(&mut tpm);
        assert_eq!(take(&mut tpm, fresh, &given), Err(ResponseCode::TICKET.parameter(5)));
    }

    #[test]
    fn a_ticket_for_one_command_is_not_taken_by_a_policy_for_another() {
        let mut tpm = TestTpm::started();
        let (session, _) = both(&mut tpm);
        let given = give(&mut tpm, session, Tpm2bNonce::empty(), &[6; 32], -5000);
        tpm.run(TpmCc::POLICY_CP_HASH, &[session], &b2(&[7; 32])).unwrap();
        assert_eq!(take(&mut tpm, session, &given), Err(ResponseCode::CPHASH));
        let mut short = given;
        short.cp_hash.pop();
        assert_eq!(take(&mut tpm, session, &short), Err(ResponseCode::SIZE.parameter(2)));
    }

    #[test]
    fn trials_timeouts_of_another_size_and_other_tickets_are_refused() {
        let mut tpm = TestTpm::started();
        let (session, trial) = both(&mut tpm);
        let given = give(&mut tpm, session, Tpm2bNonce::empty(), b"", -5000);
        assert_eq!(take(&mut tpm, trial, &given), Err(ResponseCode::ATTRIBUTES.handle(1)));
        for size in [0, 7, 9] {
            let bad = Given { timeout: vec![0; size], ..given.clone() };
            assert_eq!(take(&mut tpm, session, &bad), Err(ResponseCode::SIZE.parameter(1)), "{size}");
        }
        let mut verified = given;
        verified.ticket.tag = TpmSt::VERIFIED;
        assert_eq!(take(&mut tpm, session, &verified), Err(ResponseCode::TAG.parameter(5)));
    }
}
