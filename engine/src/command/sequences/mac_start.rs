//! `TPM2_HMAC_Start` and `TPM2_MAC_Start` (Part 3, 17.2 and 17.3): one command, of which the type of the key tells which it is.

use crate::command::symmetric::start_mac;
use crate::command::{Context, Output, parameters};
use crate::state::{Running, Sequence};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bAuth, TpmiAlgMacSchemeOrNull};

/// Starts the HMAC of a keyed hash key (handle 1, USER), or the CMAC of a symmetric key, and returns the handle of the sequence, to which
/// the caller gives an authorization value.
///
/// # Errors
/// Those of [`start_mac`]; `TPM_RC_OBJECT_MEMORY` when there is no free slot.
pub fn mac_start(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (auth, scheme): (Tpm2bAuth, TpmiAlgMacSchemeOrNull) = parameters(r)?;
    let mac = start_mac(&**cx.state.object(cx.handle(0)?)?, scheme)?;
    let handle = cx.state.insert_sequence(Sequence::new(&auth, Running::Mac(mac)))?;
    Ok(Output::with_handle(handle, &()))
}

#[cfg(test)]
mod tests {
    use crate::command::sequences::testing::*;
    use crate::crypto::{Cmac, HashAlg, SymAlg, hmac};
    use crate::signing::test_keys::{ecc, keyed_hash, load, restricted, symmetric, with, without};
    use crate::state::Object;
    use crate::testing::TestTpm;
    use crate::testing::objects::flush;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    const HMAC_SHA256: Scheme = Scheme::new(TpmAlgId::HMAC, TpmAlgId::SHA256);

    fn cmac_key() -> Object {
        let mut key = symmetric();
        let sym = TpmtSymDef::Aes { key_bits: 128, mode: TpmAlgId::CMAC };
        key.public.parms = PublicParms::SymCipher { sym: TpmtSymDefObject(sym) };
        with(key, TpmaObject::SIGN_ENCRYPT)
    }

    #[test]
    fn the_sequence_has_the_code_of_all_its_data_even_when_the_key_is_gone() {
        let mut tpm = TestTpm::started();
        let data = [&[1; 1024][..], b"more", b"", b"last"];
        let whole = data.concat();
        let mut cmac = Cmac::new(SymAlg::Aes, &[8; 16]).unwrap();
        cmac.update(&whole);
        for (key, scheme, expected) in [
            (keyed_hash(HMAC_SHA256), TpmAlgId::NULL, hmac(HashAlg::Sha256, &[7; 32], &[&whole])),
            (keyed_hash(Scheme::NULL), TpmAlgId::SHA3_384, hmac(HashAlg::Sha3_384, &[7; 32], &[&whole])),
            (cmac_key(), TpmAlgId::NULL, cmac.finish()),
        ] {
            let key = load(&mut tpm, key);
            let sequence = start_mac(&mut tpm, key, scheme).unwrap();
            flush(&mut tpm, key);
            for part in &data[..3] {
                update(&mut tpm, sequence, part).unwrap();
            }
            let (result, ticket) = complete(&mut tpm, sequence, data[3], TpmHandle::OWNER).unwrap();
            assert_eq!(result.as_slice(), expected.as_slice());
            // Whoever has the key can make the same: there is nothing to prove.
            assert_eq!(ticket, TpmtTk::null(TpmSt::HASHCHECK));
        }
    }

    #[test]
    fn the_key_must_be_one_that_makes_codes() {
        let mut tpm = TestTpm::started();
        for (key, scheme, rc) in [
            (ecc(Scheme::NULL), TpmAlgId::NULL, ResponseCode::TYPE.handle(1)),
            (restricted(keyed_hash(HMAC_SHA256)), TpmAlgId::NULL, ResponseCode::ATTRIBUTES.handle(1)),
            (without(cmac_key(), TpmaObject::SIGN_ENCRYPT), TpmAlgId::NULL, ResponseCode::KEY.handle(1)),
            (keyed_hash(HMAC_SHA256), TpmAlgId::SHA1, ResponseCode::VALUE.parameter(2)),
            (keyed_hash(Scheme::NULL), TpmAlgId::NULL, ResponseCode::VALUE.parameter(2)),
            (keyed_hash(Scheme::NULL), TpmAlgId::CMAC, ResponseCode::SCHEME.parameter(2)),
            (keyed_hash(Scheme::NULL), TpmAlgId::CFB, ResponseCode::SYMMETRIC.parameter(2)),
        ] {
            let key = load(&mut tpm, key);
            assert_eq!(start_mac(&mut tpm, key, scheme), Err(rc));
            flush(&mut tpm, key);
        }
    }

    #[test]
    fn without_a_free_slot_nothing_starts() {
        let mut tpm = TestTpm::started();
        let key = load(&mut tpm, keyed_hash(HMAC_SHA256));
        for _ in 0..2 {
            assert!(start_mac(&mut tpm, key, TpmAlgId::NULL).is_ok());
        }
        assert_eq!(start_mac(&mut tpm, key, TpmAlgId::NULL), Err(ResponseCode::OBJECT_MEMORY));
        assert_eq!(start_hash(&mut tpm, TpmAlgId::SHA256), Err(ResponseCode::OBJECT_MEMORY));
    }
}
