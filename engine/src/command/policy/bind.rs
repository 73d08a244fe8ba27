//! What binds a policy to one use of it: the hash of a command, its handles, its parameters or a template. A policy has at most one, of which
//! the flags of the session say what it is of.

use super::{digest_size, extend};
use crate::alg::{digest_2b, hash_of};
use crate::command::{Context, Output, parameters};
use crate::crypto::ct_eq;
use crate::state::{Session, SessionFlags};
use vtpm_protocol::codec::{Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bDigest, TpmCc};

/// What tells the commands that take a hash from one another.
pub struct Binding {
    /// The command.
    pub code: TpmCc,
    /// The flag that says of the session's hash that it is of this kind.
    pub flag: fn(&mut SessionFlags) -> &mut bool,
    /// The hash that the policy has already may come again.
    pub may_repeat: bool,
    /// A hash that is not the policy's is told before one of the wrong size.
    pub other_before_size: bool,
}

impl Binding {
    /// The handler of the command: takes the hash and binds the policy to it.
    ///
    /// # Errors
    /// `TPM_RC_SIZE` for what is no digest of the session's hash; `TPM_RC_CPHASH` when the policy has a hash that may not come again, or is not
    /// this one.
    pub fn run(&self, cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
        let (hash,): (Tpm2bDigest,) = parameters(r)?;
        let handle = cx.handle(0)?;
        let session = cx.state.session_mut(handle)?;
        let repeated = self.may_repeat && *(self.flag)(&mut session.flags) && ct_eq(&hash, &session.cp_hash);
        let other = !session.cp_hash.is_empty() && !repeated;
        if other && self.other_before_size {
            return Err(ResponseCode::CPHASH);
        }
        if hash.len() != digest_size(session) {
            return Err(ResponseCode::SIZE.parameter(1));
        }
        if other {
            return Err(ResponseCode::CPHASH);
        }
        extend(session, &[&self.code.to_bytes(), &hash]);
        session.cp_hash = hash;
        *(self.flag)(&mut session.flags) = true;
        Ok(Output::none())
    }
}

/// Binds a policy to one command and the Names of its handles.
///
/// # Errors
/// `TPM_RC_CPHASH` when the policy has a hash already, `TPM_RC_COMMAND_CODE` when it has a command already.
pub fn bind_to_names(session: &mut Session, command: TpmCc, names: &[&[u8]]) -> Result<(), ResponseCode> {
    if !session.cp_hash.is_empty() {
        return Err(ResponseCode::CPHASH);
    }
    if session.command_code.0 != 0 {
        return Err(ResponseCode::COMMAND_CODE);
    }
    session.cp_hash = digest_2b(&hash_of(session.auth_hash).digest(names));
    session.flags.is_name_hash_defined = true;
    session.command_code = command;
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::command::policy::testing::{START, b2, both, digest, hash, policy};
    use crate::state::SessionFlags;
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::Encode;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::TpmCc;

    /// The commands, whether the same hash may come again, and whether a hash that is not the policy's is told before its size.
    const COMMANDS: [(TpmCc, bool, bool); 4] = [
        (TpmCc::POLICY_CP_HASH, true, false),
        (TpmCc::POLICY_NAME_HASH, false, false),
        (TpmCc::POLICY_PARAMETERS, false, false),
        (TpmCc::POLICY_TEMPLATE, true, true),
    ];

    fn is_defined(flags: &SessionFlags) -> [bool; 4] {
        [
            flags.is_cp_hash_defined,
            flags.is_name_hash_defined,
            flags.is_parameters_hash_defined,
            flags.is_template_hash_defined,
        ]
    }

    #[test]
    fn the_digest_is_that_of_the_formula_and_the_session_knows_what_its_hash_is_of() {
        let mut tpm = TestTpm::started();
        for (code, ..) in COMMANDS {
            let (session, trial) = both(&mut tpm);
            for session in [session, trial] {
                policy(&mut tpm, code, session, &b2(&[5; 32])).unwrap();
                assert_eq!(digest(&mut tpm, session), hash(&[&START, &code.to_bytes(), &[5; 32]]));
                let state = tpm.state().session(session).unwrap();
                assert_eq!(is_defined(&state.flags), COMMANDS.map(|c| c.0 == code), "{code:?}");
                assert_eq!(state.cp_hash.as_slice(), [5; 32]);
            }
        }
    }

    #[test]
    fn a_second_hash_is_held_against_the_first_and_one_of_another_kind_stands_in_its_way() {
        let mut tpm = TestTpm::started();
        let (session, trial) = both(&mut tpm);
        for (code, may_repeat, _) in COMMANDS {
            for (first, ..) in COMMANDS {
                for session in [session, trial] {
                    policy(&mut tpm, TpmCc::POLICY_RESTART, session, &()).unwrap();
                    policy(&mut tpm, first, session, &b2(&[5; 32])).unwrap();
                    let same = policy(&mut tpm, code, session, &b2(&[5; 32]));
                    let expected =
                        if first == code && may_repeat { Ok(()) } else { Err(ResponseCode::CPHASH) };
                    assert_eq!(same, expected, "{code:?} after {first:?}");
                    let other = policy(&mut tpm, code, session, &b2(&[6; 32]));
                    assert_eq!(other, Err(ResponseCode::CPHASH), "{code:?} after {first:?}");
                }
            }
        }
    }

    #[test]
    fn a_hash_has_the_size_of_the_session_s() {
        let mut tpm = TestTpm::started();
        let (session, trial) = both(&mut tpm);
        let refused = Err(ResponseCode::SIZE.parameter(1));
        for (code, _, other_before_size) in COMMANDS {
            for session in [session, trial] {
                policy(&mut tpm, TpmCc::POLICY_RESTART, session, &()).unwrap();
                for size in [0, 20, 31, 33, 64] {
                    let result = policy(&mut tpm, code, session, &b2(&vec![5; size]));
                    assert_eq!(result, refused, "{code:?} {size}");
                }
                policy(&mut tpm, code, session, &b2(&[5; 32])).unwrap();
                let expected = if other_before_size { Err(ResponseCode::CPHASH) } else { refused };
                assert_eq!(policy(&mut tpm, code, session, &b2(&[5; 31])), expected, "{code:?}");
            }
        }
    }
}
