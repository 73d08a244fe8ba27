//! `TPM2_NV_Certify` (Part 3, 31.16).

use super::{Signer, attest};
use crate::alg::digest_2b;
use crate::command::{Context, Output, parameters};
use crate::nv;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    Attested, MAX_NV_BUFFER_SIZE, Tpm2bData, Tpm2bDigest, Tpm2bMaxNvBuffer, TpmtSigScheme,
};

/// Signs `size` bytes of an index from `offset` on, or, when both are zero, the digest of all of its data. The digest is made with the hash of
/// the scheme, so that without a signer it is empty.
///
/// # Errors
/// Those of [`Signer::new`], [`nv::check_read`] and [`attest`]; `TPM_RC_NV_RANGE` for bytes beyond the index; `TPM_RC_VALUE` for more than one
/// response carries.
pub fn nv_certify(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (qualifying_data, TpmtSigScheme(requested), size, offset): (Tpm2bData, _, u16, u16) = parameters(r)?;
    let signer = Signer::new(cx, 0, requested, 2)?;
    let (auth, handle) = (cx.handle(1)?, cx.handle(2)?);
    nv::check_read(cx.state, auth, handle)?;
    let index = cx.state.nv_index(handle)?;
    let bytes = index.range(offset, size).ok_or(ResponseCode::NV_RANGE)?;
    if bytes.len() > MAX_NV_BUFFER_SIZE {
        return Err(ResponseCode::VALUE.parameter(3));
    }
    let index_name = cx.state.name(handle)?;
    let attested = if size == 0 && offset == 0 {
        let nv_digest =
            signer.hash().map_or_else(Tpm2bDigest::empty, |alg| digest_2b(&alg.digest(&[&index.data])));
        Attested::NvDigest { index_name, nv_digest }
    } else {
        Attested::Nv { index_name, offset, nv_contents: Tpm2bMaxNvBuffer::new(bytes)? }
    };
    Ok(Output::of(&attest(cx, &signer, qualifying_data, attested)?))
}

#[cfg(test)]
mod tests {
    use crate::command::attestation::testing::*;
    use crate::command::nv::testing::{INDEX, OPEN, define, public, set_attribute, write};
    use crate::crypto::HashAlg;
    use crate::signing::test_keys::*;
    use crate::testing::TestTpm;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    const OWNER: TpmHandle = TpmHandle::OWNER;

    struct Bench {
        tpm: TestTpm,
        key: TpmHandle,
    }

    impl Bench {
        fn new(attributes: TpmaNv, data: &[u8]) -> Self {
            let mut tpm = TestTpm::started();
            define(&mut tpm, OWNER, b"pw", public(INDEX, attributes, u16::try_from(data.len()).unwrap()))
                .unwrap();
            for (offset, piece) in (0u16..).step_by(1024).zip(data.chunks(1024)) {
                write(&mut tpm, OWNER, b"", piece, offset).unwrap();
            }
            let key = load(&mut tpm, ecc(ECDSA));
            Self { tpm, key }
        }

        fn by(
            &mut self,
            auth: TpmHandle,
            password: &[u8],
            size: u16,
            offset: u16,
        ) -> Result<Attestation, ResponseCode> {
            let input = (nonce(), TpmtSigScheme(Scheme::NULL), size, offset);
            let handles = [self.key, auth, INDEX];
            let key_auth = if self.key == TpmHandle::NULL { b"".as_slice() } else { AUTH };
            attestation(&mut self.tpm, TpmCc::NV_CERTIFY, &handles, &[key_auth, password], &input)
        }

        fn rc(&mut self, size: u16, offset: u16) -> Result<(), ResponseCode> {
            self.by(OWNER, b"", size, offset).map(drop)
        }

        fn name(&mut self) -> Tpm2bName {
            self.tpm.state().name(INDEX).unwrap()
        }
    }

    #[test]
    fn a_part_of_the_data_is_signed() {
        let mut b = Bench::new(OPEN, b"12345678");
        for (auth, password) in [(OWNER, b"".as_slice()), (INDEX, b"pw")] {
            for (size, offset) in [(3, 2), (8, 0), (0, 8)] {
                let out = b.by(auth, password, size, offset).unwrap();
                out.check(&mut b.tpm, b.key, &nonce());
                let data = &b"12345678"[usize::from(offset)..usize::from(offset + size)];
                let expected = Attested::Nv {
                    index_name: b.name(),
                    offset,
                    nv_contents: Tpm2bMaxNvBuffer::new(data).unwrap(),
                };
                assert_eq!(out.attest.attested, expected);
            }
        }
    }

    #[test]
    fn size_and_offset_of_zero_ask_for_the_digest() {
        let data = vec![7; 2048];
        let mut b = Bench::new(OPEN, &data);
        let out = b.by(OWNER, b"", 0, 0).unwrap();
        out.check(&mut b.tpm, b.key, &nonce());
        let nv_digest = Tpm2bDigest::new(HashAlg::Sha256.digest(&[&data]).to_vec()).unwrap();
        assert_eq!(out.attest.attested, Attested::NvDigest { index_name: b.name(), nv_digest });
        b.key = TpmHandle::NULL;
        let out = b.by(OWNER, b"", 0, 0).unwrap();
        let nv_digest = Tpm2bDigest::empty();
        assert_eq!(out.attest.attested, Attested::NvDigest { index_name: b.name(), nv_digest });
        assert_eq!(out.signature, TpmtSignature::Null);
    }

    #[test]
    fn ranges_beyond_the_index_or_the_buffer_are_refused() {
        let mut b = Bench::new(OPEN, &[7; 2048]);
        assert_eq!(b.rc(1024, 1024), Ok(()));
        assert_eq!(b.rc(1025, 0), Err(ResponseCode::VALUE.parameter(3)));
        assert_eq!(b.rc(1, 2048), Err(ResponseCode::NV_RANGE));
        assert_eq!(b.rc(2, u16::MAX), Err(ResponseCode::NV_RANGE));
        assert_eq!(b.rc(u16::MAX, 2), Err(ResponseCode::NV_RANGE));
    }

    #[test]
    fn who_may_not_read_may_not_have_it_certified() {
        let mut b = Bench::new(OPEN, b"1");
        let platform = b.by(TpmHandle::PLATFORM, b"", 1, 0).map(drop);
        assert_eq!(platform, Err(ResponseCode::NV_AUTHORIZATION));
        assert_eq!(b.by(INDEX, b"no", 1, 0).map(drop), Err(ResponseCode::AUTH_FAIL.session(2)));
        set_attribute(&mut b.tpm, TpmaNv::READ_LOCKED, true);
        assert_eq!(b.rc(1, 0), Err(ResponseCode::NV_LOCKED));
        assert_eq!(b.rc(0, 0), Err(ResponseCode::NV_LOCKED));

        let mut b = Bench::new(TpmaNv::OWNER_WRITE | TpmaNv::PP_READ, b"1");
        assert_eq!(b.rc(1, 0), Err(ResponseCode::NV_AUTHORIZATION));
        assert_eq!(b.by(INDEX, b"pw", 1, 0).map(drop), Err(ResponseCode::AUTH_UNAVAILABLE.session(2)));
    }

    #[test]
    fn another_index_does_not_authorize() {
        let mut b = Bench::new(OPEN, b"1");
        let other = TpmHandle(INDEX.0 + 1);
        define(&mut b.tpm, OWNER, b"pw", public(other, OPEN, 1)).unwrap();
        let data = (Tpm2bMaxNvBuffer::new(*b"2").unwrap(), 0u16);
        b.tpm.run_with(TpmCc::NV_WRITE, &[OWNER, other], &[b""], &data).unwrap();
        assert_eq!(b.by(other, b"pw", 1, 0).map(drop), Err(ResponseCode::NV_AUTHORIZATION));
    }

    #[test]
    fn nothing_is_certified_before_it_is_written() {
        let mut tpm = TestTpm::started();
        define(&mut tpm, OWNER, b"pw", public(INDEX, OPEN, 8)).unwrap();
        let key = load(&mut tpm, ecc(ECDSA));
        let mut b = Bench { tpm, key };
        assert_eq!(b.rc(1, 0), Err(ResponseCode::NV_UNINITIALIZED));
        assert_eq!(b.rc(0, 0), Err(ResponseCode::NV_UNINITIALIZED));
        assert_eq!(b.by(INDEX, b"pw", 1, 0).map(drop), Err(ResponseCode::NV_UNINITIALIZED));
    }

    #[test]
    fn the_signer_is_looked_at_before_the_index() {
        let mut b = Bench::new(OPEN, b"1");
        b.key = load(&mut b.tpm, without(ecc(Scheme::NULL), TpmaObject::SIGN_ENCRYPT));
        assert_eq!(b.rc(9, 9), Err(ResponseCode::KEY.handle(1)));
        b.key = load(&mut b.tpm, rsa(Scheme::NULL));
        assert_eq!(b.rc(9, 9), Err(ResponseCode::SCHEME.parameter(2)));
    }
}
