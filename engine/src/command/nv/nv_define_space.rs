//! `TPM2_NV_DefineSpace` (Part 3, 31.3).

use crate::alg::hash_of;
use crate::command::{Context, Output, parameters};
use crate::state::NvIndex;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    MAX_NV_BUFFER_SIZE, MAX_NV_INDEX_SIZE, Tpm2bAuth, Tpm2bNvPublic, TpmHandle, TpmNt, TpmaNv, TpmsNvPublic,
};

/// Both commands that define an index have authHandle, auth, publicInfo.
pub(super) const PUBLIC_INFO: u32 = 2;

/// Defines an index, by the owner or by the platform.
///
/// # Errors
/// Those of [`define`]; `TPM_RC_VALUE` for a handle that is not one of an index.
pub fn nv_define_space(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (auth, public): (Tpm2bAuth, Tpm2bNvPublic) = parameters(r)?;
    define(cx, &auth, public.0)
}

/// What `TPM2_NV_DefineSpace` and `TPM2_NV_DefineSpace2` have in common.
///
/// # Errors
/// `TPM_RC_HIERARCHY` when the platform may not use NV; `TPM_RC_ATTRIBUTES` for attributes that do not fit each other, the creator,
/// or the commands that there are; `TPM_RC_SIZE` for an authorization value or policy that does not fit the name algorithm, and for
/// a data size that does not fit the type; `TPM_RC_NV_DEFINED` when it is defined; `TPM_RC_NV_SPACE`.
pub(super) fn define(
    cx: &mut Context<'_>,
    auth: &Tpm2bAuth,
    public: TpmsNvPublic,
) -> Result<Output, ResponseCode> {
    let creator = cx.handle(0)?;
    let digest_size = hash_of(public.name_alg).digest_size();
    if !public.auth_policy.is_empty() && public.auth_policy.len() != digest_size {
        return Err(ResponseCode::SIZE.parameter(PUBLIC_INFO));
    }
    let auth = auth.without_trailing_zeros();
    if auth.len() > digest_size {
        return Err(ResponseCode::SIZE.parameter(1));
    }
    if creator == TpmHandle::PLATFORM && !cx.state.volatile.state_clear.ph_enable_nv {
        return Err(ResponseCode::HIERARCHY.handle(1));
    }
    check_type(&public, digest_size).map_err(|e| e.parameter(PUBLIC_INFO))?;
    check_attributes(public.attributes).map_err(|e| e.parameter(PUBLIC_INFO))?;
    // Who defines an index must be able to undefine it.
    if public.attributes.has(TpmaNv::PLATFORM_CREATE) != (creator == TpmHandle::PLATFORM) {
        return Err(ResponseCode::ATTRIBUTES.handle(1));
    }
    if public.attributes.has(TpmaNv::POLICY_DELETE) && creator != TpmHandle::PLATFORM {
        return Err(ResponseCode::ATTRIBUTES.parameter(PUBLIC_INFO));
    }
    if public.attributes.has(TpmaNv::WRITE_ALL) && usize::from(public.data_size) > MAX_NV_BUFFER_SIZE {
        return Err(ResponseCode::SIZE.parameter(PUBLIC_INFO));
    }
    if cx.state.nv.contains_key(&public.nv_index.0) {
        return Err(ResponseCode::NV_DEFINED);
    }
    let limits = cx.env.limits();
    cx.state.add_nv_index(NvIndex::new(public, auth)?, &limits)?;
    Ok(Output::none())
}

/// The type, and what it wants of size and attributes.
fn check_type(public: &TpmsNvPublic, digest_size: usize) -> Result<(), ResponseCode> {
    let attributes = public.attributes;
    let nt = attributes.nt()?;
    let size = usize::from(public.data_size);
    let fits = match nt {
        TpmNt::Ordinary => size <= MAX_NV_INDEX_SIZE,
        TpmNt::Extend => size == digest_size,
        TpmNt::Counter | TpmNt::Bits | TpmNt::PinFail | TpmNt::PinPass => size == 8,
    };
    if !fits {
        return Err(ResponseCode::SIZE);
    }
    let refused = match nt {
        // A counter never goes back, so that a Restart cannot clear it.
        TpmNt::Counter => attributes.has(TpmaNv::CLEAR_ST_CLEAR),
        // Its authorization value works only once it is written, and must not be able to set its own limit.
        TpmNt::PinPass => is_unfit_for_pin(attributes),
        // It counts failures itself, instead of dictionary attack protection.
        TpmNt::PinFail => is_unfit_for_pin(attributes) || !attributes.has(TpmaNv::NO_DA),
        TpmNt::Ordinary | TpmNt::Bits | TpmNt::Extend => false,
    };
    if refused { Err(ResponseCode::ATTRIBUTES) } else { Ok(()) }
}

fn is_unfit_for_pin(attributes: TpmaNv) -> bool {
    attributes.any(TpmaNv::AUTH_WRITE | TpmaNv::GLOBAL_LOCK | TpmaNv::WRITE_DEFINE)
}

/// What holds for all types.
fn check_attributes(attributes: TpmaNv) -> Result<(), ResponseCode> {
    let state = TpmaNv::WRITTEN | TpmaNv::WRITE_LOCKED | TpmaNv::READ_LOCKED;
    let readers = TpmaNv::OWNER_READ | TpmaNv::PP_READ | TpmaNv::AUTH_READ | TpmaNv::POLICY_READ;
    let writers = TpmaNv::OWNER_WRITE | TpmaNv::PP_WRITE | TpmaNv::AUTH_WRITE | TpmaNv::POLICY_WRITE;
    if attributes.any(state)
        || !attributes.any(readers)
        || !attributes.any(writers)
        || attributes.has(TpmaNv::CLEAR_ST_CLEAR | TpmaNv::WRITE_DEFINE)
    {
        return Err(ResponseCode::ATTRIBUTES);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::command::nv::testing::{INDEX, OPEN, define, public};
    use crate::env::Limits;
    use crate::nv::{MAX_BYTES, MAX_INDICES};
    use crate::state::NvIndex;
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::Encode;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{
        MAX_NV_BUFFER_SIZE, MAX_NV_INDEX_SIZE, Sized2b, Tpm2bAuth, Tpm2bDigest, TpmAlgId, TpmCc, TpmHandle,
        TpmNt, TpmaNv, TpmiAlgHash, TpmsNvPublic,
    };

    const ATTRIBUTES: Result<(), ResponseCode> = Err(ResponseCode::ATTRIBUTES.parameter(2));
    const SIZE: Result<(), ResponseCode> = Err(ResponseCode::SIZE.parameter(2));
    const PLATFORM: TpmaNv = TpmaNv(TpmaNv::PP_READ.0 | TpmaNv::PP_WRITE.0 | TpmaNv::PLATFORM_CREATE.0);

    /// The code with which a fresh TPM answers a definition by the owner.
    fn owner(attributes: TpmaNv, size: u16) -> Result<(), ResponseCode> {
        define(&mut TestTpm::started(), TpmHandle::OWNER, b"", public(INDEX, attributes, size))
    }

    #[test]
    fn an_index_is_defined_once() {
        let mut tpm = TestTpm::started();
        assert_eq!(define(&mut tpm, TpmHandle::OWNER, b"pw", public(INDEX, OPEN, 8)), Ok(()));
        let index = tpm.state().nv_index(INDEX).unwrap().clone();
        assert_eq!((index.auth.expose(), index.data.as_slice()), (&b"pw"[..], &[0xff; 8][..]));
        let again = define(&mut tpm, TpmHandle::OWNER, b"", public(INDEX, OPEN, 9));
        assert_eq!(again, Err(ResponseCode::NV_DEFINED));
    }

    #[test]
    fn the_size_fits_the_type() {
        let max = u16::try_from(MAX_NV_INDEX_SIZE).unwrap();
        assert_eq!(owner(OPEN, 0), Ok(()));
        assert_eq!(owner(OPEN, max), Ok(()));
        assert_eq!(owner(OPEN, max + 1), SIZE);
        assert_eq!(owner(OPEN, u16::MAX), SIZE);
        assert_eq!(owner(OPEN.with_nt(TpmNt::Counter), 8), Ok(()));
        assert_eq!(owner(OPEN.with_nt(TpmNt::Counter), 9), SIZE);
        assert_eq!(owner(OPEN.with_nt(TpmNt::Bits), 8), Ok(()));
        assert_eq!(owner(OPEN.with_nt(TpmNt::Bits), 0), SIZE);
        assert_eq!(owner(OPEN.with_nt(TpmNt::Extend), 32), Ok(()));
        assert_eq!(owner(OPEN.with_nt(TpmNt::Extend), 20), SIZE);
        let pin = TpmaNv(OPEN.0 & !TpmaNv::AUTH_WRITE.0);
        assert_eq!(owner(pin.with_nt(TpmNt::PinPass), 8), Ok(()));
        assert_eq!(owner(pin.with_nt(TpmNt::PinPass), 16), SIZE);
    }

    #[test]
    fn a_type_that_does_not_exist_is_refused() {
        for nt in [3, 5, 6, 7, 10, 15] {
            assert_eq!(owner(TpmaNv(OPEN.0 | nt << 4), 8), ATTRIBUTES, "{nt}");
        }
    }

    #[test]
    fn a_write_of_all_must_fit_one_command() {
        let max = u16::try_from(MAX_NV_BUFFER_SIZE).unwrap();
        assert_eq!(owner(OPEN | TpmaNv::WRITE_ALL, max), Ok(()));
        assert_eq!(owner(OPEN | TpmaNv::WRITE_ALL, max + 1), SIZE);
    }

    #[test]
    fn an_index_is_readable_and_writable_and_begins_unlocked_and_unwritten() {
        assert_eq!(owner(TpmaNv::OWNER_READ, 8), ATTRIBUTES);
        assert_eq!(owner(TpmaNv::OWNER_WRITE, 8), ATTRIBUTES);
        assert_eq!(owner(TpmaNv(0), 8), ATTRIBUTES);
        assert_eq!(owner(TpmaNv::POLICY_READ | TpmaNv::POLICY_WRITE, 8), Ok(()));
        for state in [TpmaNv::WRITTEN, TpmaNv::WRITE_LOCKED, TpmaNv::READ_LOCKED] {
            assert_eq!(owner(OPEN | state, 8), ATTRIBUTES, "{state:?}");
        }
    }

    #[test]
    fn attributes_that_contradict_each_other_are_refused() {
        assert_eq!(owner(OPEN | TpmaNv::CLEAR_ST_CLEAR | TpmaNv::WRITE_DEFINE, 8), ATTRIBUTES);
        assert_eq!(owner(OPEN.with_nt(TpmNt::Counter) | TpmaNv::CLEAR_ST_CLEAR, 8), ATTRIBUTES);
        assert_eq!(owner(OPEN | TpmaNv::CLEAR_ST_CLEAR, 8), Ok(()));
        assert_eq!(owner(OPEN | TpmaNv::WRITE_DEFINE, 8), Ok(()));
        assert_eq!(owner(TpmaNv(OPEN.0 | 1 << 8), 8), Err(ResponseCode::RESERVED_BITS.parameter(2)));
        assert_eq!(owner(TpmaNv(OPEN.0 | 1 << 24), 8), Err(ResponseCode::RESERVED_BITS.parameter(2)));
    }

    #[test]
    fn a_pin_cannot_set_its_own_limit() {
        let pin = TpmaNv::OWNER_WRITE | TpmaNv::AUTH_READ;
        for nt in [TpmNt::PinPass, TpmNt::PinFail] {
            let pin = pin.with_nt(nt) | TpmaNv::NO_DA;
            assert_eq!(owner(pin, 8), Ok(()), "{nt:?}");
            for extra in [TpmaNv::AUTH_WRITE, TpmaNv::GLOBAL_LOCK, TpmaNv::WRITE_DEFINE] {
                assert_eq!(owner(pin | extra, 8), ATTRIBUTES, "{nt:?} {extra:?}");
            }
        }
        assert_eq!(owner(pin.with_nt(TpmNt::PinPass), 8), Ok(()));
        assert_eq!(owner(pin.with_nt(TpmNt::PinFail), 8), ATTRIBUTES);
    }

    #[test]
    fn the_creator_is_the_one_who_can_delete() {
        let creator = Err(ResponseCode::ATTRIBUTES.handle(1));
        assert_eq!(owner(OPEN | TpmaNv::PLATFORM_CREATE, 8), creator);
        let mut tpm = TestTpm::started();
        assert_eq!(define(&mut tpm, TpmHandle::PLATFORM, b"", public(INDEX, OPEN, 8)), creator);
        assert_eq!(define(&mut tpm, TpmHandle::PLATFORM, b"", public(INDEX, PLATFORM, 8)), Ok(()));
        assert_eq!(owner(OPEN | TpmaNv::POLICY_DELETE, 8), ATTRIBUTES);
        let mut tpm = TestTpm::started();
        let special = public(INDEX, PLATFORM | TpmaNv::POLICY_DELETE, 8);
        assert_eq!(define(&mut tpm, TpmHandle::PLATFORM, b"", special), Ok(()));
    }

    #[test]
    fn the_platform_needs_its_nv_enabled() {
        let mut tpm = TestTpm::started();
        tpm.state().volatile_mut().state_clear.ph_enable_nv = false;
        tpm.resave();
        let result = define(&mut tpm, TpmHandle::PLATFORM, b"", public(INDEX, PLATFORM, 8));
        assert_eq!(result, Err(ResponseCode::HIERARCHY.handle(1)));
    }

    #[test]
    fn authorization_and_policy_fit_the_name_algorithm() {
        let mut tpm = TestTpm::started();
        let sha1 = |policy: usize| TpmsNvPublic {
            name_alg: TpmiAlgHash(TpmAlgId::SHA1),
            auth_policy: Tpm2bDigest::new(vec![1; policy]).unwrap(),
            ..public(INDEX, OPEN, 8)
        };
        let mut run = |auth: &[u8], policy| define(&mut tpm, TpmHandle::OWNER, auth, sha1(policy));
        assert_eq!(run(&[1; 21], 0), Err(ResponseCode::SIZE.parameter(1)));
        assert_eq!(run(b"", 32), SIZE);
        assert_eq!(run(b"", 19), SIZE);
        // Trailing zeros do not count.
        let mut padded = vec![1; 20];
        padded.resize(64, 0);
        assert_eq!(run(&padded, 20), Ok(()));
        assert_eq!(tpm.state().nv_index(INDEX).unwrap().auth.len(), 20);
    }

    #[test]
    fn only_handles_of_indices_are_defined() {
        for handle in [0u32, 0x0200_0000, 0x8150_0001, TpmHandle::OWNER.0] {
            let result =
                define(&mut TestTpm::started(), TpmHandle::OWNER, b"", public(TpmHandle(handle), OPEN, 8));
            assert_eq!(result, Err(ResponseCode::VALUE.parameter(2)), "{handle:x}");
        }
    }

    #[test]
    fn a_public_area_fills_its_size_exactly() {
        let mut tpm = TestTpm::started();
        let mut run = |declared: u16, bytes: &[u8]| {
            let mut parameters = [&[0, 0], &declared.to_be_bytes()[..]].concat();
            parameters.extend_from_slice(bytes);
            struct Raw(Vec<u8>);
            impl Encode for Raw {
                fn encode(&self, out: &mut Vec<u8>) {
                    out.extend_from_slice(&self.0);
                }
            }
            tpm.run_with(TpmCc::NV_DEFINE_SPACE, &[TpmHandle::OWNER], &[b""], &Raw(parameters)).unwrap_err()
        };
        let bytes = public(INDEX, OPEN, 8).to_bytes();
        let size = u16::try_from(bytes.len()).unwrap();
        for declared in [0, size - 1, size + 1, u16::MAX] {
            let rc = run(declared, &bytes);
            assert!(
                rc == ResponseCode::SIZE.parameter(2) || rc == ResponseCode::INSUFFICIENT.parameter(2),
                "{declared}: {rc}"
            );
        }
        assert_eq!(run(size, &bytes[..bytes.len() - 1]), ResponseCode::INSUFFICIENT.parameter(2));
    }

    #[test]
    fn there_is_room_for_so_many_indices_and_so_many_bytes() {
        // Those that are there are put there directly: a thousand definitions take long.
        let mut tpm = TestTpm::started();
        for i in 1..u32::try_from(MAX_INDICES).unwrap() {
            let index = NvIndex::new(public(TpmHandle(0x0100_0000 + i), OPEN, 1), Tpm2bAuth::empty());
            tpm.state().add_nv_index(index.unwrap(), &Limits::MOST).unwrap();
        }
        tpm.resave();
        let mut run = |n| define(&mut tpm, TpmHandle::OWNER, b"", public(TpmHandle(INDEX.0 + n), OPEN, 1));
        assert_eq!((run(0), run(1)), (Ok(()), Err(ResponseCode::NV_SPACE)));

        let mut tpm = TestTpm::started();
        // As many as swtpm has room for.
        for i in 0..68 {
            let index = NvIndex::new(public(TpmHandle(0x0100_0000 + i), OPEN, 2048), Tpm2bAuth::empty());
            tpm.state().add_nv_index(index.unwrap(), &Limits::MOST).unwrap();
        }
        tpm.resave();
        let mut defined = 0;
        while define(&mut tpm, TpmHandle::OWNER, b"", public(TpmHandle(INDEX.0 + defined), OPEN, 2048))
            .is_ok()
        {
            defined += 1;
        }
        let left = tpm.state().nv_bytes_free(&Limits::MOST);
        assert!(left < 2048 + 64 && (68 + defined as usize) * 2048 <= MAX_BYTES);
        let rc = define(&mut tpm, TpmHandle::OWNER, b"", public(TpmHandle(0x0170_0000), OPEN, 2048));
        assert_eq!(rc, Err(ResponseCode::NV_SPACE));
        // What is undefined makes room.
        tpm.run_with(TpmCc::NV_UNDEFINE_SPACE, &[TpmHandle::OWNER, INDEX], &[b""], &()).map(|_| ()).unwrap();
        assert_eq!(define(&mut tpm, TpmHandle::OWNER, b"", public(INDEX, OPEN, 2048)), Ok(()));
    }

    #[test]
    fn a_host_may_leave_less_room_and_what_is_there_stays() {
        let mut tpm = TestTpm::started();
        let at = |n| TpmHandle(INDEX.0 + n);
        let define =
            |tpm: &mut TestTpm, n, size| define(tpm, TpmHandle::OWNER, b"", public(at(n), OPEN, size));
        assert_eq!(define(&mut tpm, 0, 2048), Ok(()));

        tpm.env.limits = Some(Limits { nv_bytes: 2048, ..Limits::MOST });
        assert_eq!(define(&mut tpm, 1, 1), Err(ResponseCode::NV_SPACE));
        assert_eq!(tpm.state().nv.len(), 1);

        tpm.env.limits = Some(Limits { nv_indices: 2, ..Limits::MOST });
        assert_eq!(define(&mut tpm, 1, 1), Ok(()));
        assert_eq!(define(&mut tpm, 2, 1), Err(ResponseCode::NV_SPACE));
        tpm.run_with(TpmCc::NV_UNDEFINE_SPACE, &[TpmHandle::OWNER, at(0)], &[b""], &()).map(|_| ()).unwrap();
        assert_eq!(define(&mut tpm, 2, 1), Ok(()));
    }

    #[test]
    fn an_index_is_not_authorized_by_the_index() {
        let mut tpm = TestTpm::started();
        let parameters = (Tpm2bAuth::empty(), Sized2b(public(INDEX, OPEN, 8)));
        for handle in [TpmHandle::ENDORSEMENT, TpmHandle::LOCKOUT, TpmHandle::NULL, INDEX] {
            let rc = tpm.run_with(TpmCc::NV_DEFINE_SPACE, &[handle], &[b""], &parameters).unwrap_err();
            assert_eq!(rc, ResponseCode::VALUE.handle(1));
        }
        let rc = tpm.run(TpmCc::NV_DEFINE_SPACE, &[TpmHandle::OWNER], &parameters).unwrap_err();
        assert_eq!(rc, ResponseCode::AUTH_MISSING);
    }
}
