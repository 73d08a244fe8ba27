//! `TPM2_NV_DefineSpace2` (Part 3, 31.17).

use super::nv_define_space::{PUBLIC_INFO, define};
use crate::command::{Context, Output, parameters};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bAuth, Tpm2bNvPublic2, TpmtNvPublic2};

/// Defines an index as `TPM2_NV_DefineSpace` does, from a public area that names the type of its handle. Of the types there are only those
/// in the TPM: it has no store outside, and nothing of a manufacturer.
///
/// # Errors
/// Those of `TPM2_NV_DefineSpace`; `TPM_RC_HANDLE` for a type of handle that cannot be defined, `TPM_RC_SELECTOR` for one that is none.
pub fn nv_define_space2(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (auth, public): (Tpm2bAuth, Tpm2bNvPublic2) = parameters(r)?;
    match public.0 {
        TpmtNvPublic2::NvIndex(public) => define(cx, &auth, public),
        TpmtNvPublic2::ExternalNv(_) | TpmtNvPublic2::PermanentNv(_) => {
            Err(ResponseCode::HANDLE.parameter(PUBLIC_INFO))
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::command::nv::testing::{INDEX, OPEN, define, public};
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::{Encode, encode_sized};
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{
        Sized2b, Tpm2bAuth, Tpm2bDigest, TpmAlgId, TpmCc, TpmHandle, TpmHt, TpmNt, TpmaNv, TpmaNvExp,
        TpmiAlgHash, TpmsNvPublicExpAttr, TpmtNvPublic2,
    };

    fn run(tpm: &mut TestTpm, public: TpmtNvPublic2) -> Result<(), ResponseCode> {
        let parameters = (Tpm2bAuth::new(*b"pw").unwrap(), Sized2b(public));
        tpm.run_with(TpmCc::NV_DEFINE_SPACE2, &[TpmHandle::OWNER], &[b""], &parameters).map(|_| ())
    }

    #[test]
    fn it_defines_what_the_older_command_defines() {
        let (mut a, mut b) = (TestTpm::started(), TestTpm::started());
        for (n, nt) in [(0, TpmNt::Ordinary), (1, TpmNt::Counter), (2, TpmNt::Bits)] {
            let public = public(TpmHandle(INDEX.0 + n), OPEN.with_nt(nt), 8);
            define(&mut a, TpmHandle::OWNER, b"pw", public.clone()).unwrap();
            run(&mut b, TpmtNvPublic2::NvIndex(public)).unwrap();
        }
        let nv = |tpm: &mut TestTpm| tpm.state().nv.values().map(|i| i.to_bytes()).collect::<Vec<_>>();
        assert!(nv(&mut a) == nv(&mut b));
    }

    #[test]
    fn it_checks_what_the_older_command_checks() {
        let mut tpm = TestTpm::started();
        let mut rc =
            |attributes, size| run(&mut tpm, TpmtNvPublic2::NvIndex(public(INDEX, attributes, size)));
        assert_eq!(rc(TpmaNv::OWNER_READ, 8), Err(ResponseCode::ATTRIBUTES.parameter(2)));
        assert_eq!(rc(OPEN | TpmaNv::PLATFORM_CREATE, 8), Err(ResponseCode::ATTRIBUTES.handle(1)));
        assert_eq!(rc(OPEN.with_nt(TpmNt::Counter), 9), Err(ResponseCode::SIZE.parameter(2)));
        assert_eq!(rc(OPEN, 8), Ok(()));
        assert_eq!(rc(OPEN, 8), Err(ResponseCode::NV_DEFINED));
    }

    #[test]
    fn indices_outside_the_tpm_and_of_a_manufacturer_are_not_defined() {
        let mut tpm = TestTpm::started();
        let external = TpmsNvPublicExpAttr {
            nv_index: TpmHandle(0x1100_0001),
            name_alg: TpmiAlgHash(TpmAlgId::SHA256),
            attributes: TpmaNvExp(u64::from(OPEN.0)) | TpmaNvExp::EXTERNAL_NV_ENCRYPTION,
            auth_policy: Tpm2bDigest::empty(),
            data_size: 8,
        };
        let refused = Err(ResponseCode::HANDLE.parameter(2));
        assert_eq!(run(&mut tpm, TpmtNvPublic2::ExternalNv(external)), refused);
        assert_eq!(run(&mut tpm, TpmtNvPublic2::PermanentNv(public(INDEX, OPEN, 8))), refused);
    }

    #[test]
    fn the_type_in_front_must_be_that_of_the_handle() {
        let mut tpm = TestTpm::started();
        let mut rc = |ht: TpmHt, handle: u32| {
            let mut parameters = vec![0, 0];
            encode_sized(&(ht, public(TpmHandle(handle), OPEN, 8)).to_bytes(), &mut parameters);
            struct Raw(Vec<u8>);
            impl Encode for Raw {
                fn encode(&self, out: &mut Vec<u8>) {
                    out.extend_from_slice(&self.0);
                }
            }
            tpm.run_with(TpmCc::NV_DEFINE_SPACE2, &[TpmHandle::OWNER], &[b""], &Raw(parameters)).unwrap_err()
        };
        assert_eq!(rc(TpmHt::NV_INDEX, 0x1100_0001), ResponseCode::VALUE.parameter(2));
        assert_eq!(rc(TpmHt::EXTERNAL_NV, INDEX.0), ResponseCode::VALUE.parameter(2));
        assert_eq!(rc(TpmHt::PERMANENT_NV, 0x1200_0001), ResponseCode::VALUE.parameter(2));
        assert_eq!(rc(TpmHt::PERSISTENT, 0x8100_0001), ResponseCode::SELECTOR.parameter(2));
    }
}
