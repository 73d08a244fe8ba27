//! `TPM2_EncryptDecrypt` and `TPM2_EncryptDecrypt2` (Part 3, 15.2 and 15.3), which differ in the order of their parameters only: the data
//! of the second one can be encrypted by a session.

use crate::alg::{SymCipher, cipher_mode};
use crate::command::{Context, Output, parameters};
use crate::crypto::sym::{BlockCipher, Mode};
use vtpm_protocol::codec::{Encode, Reader, encode_sized};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    MAX_DIGEST_BUFFER, PublicParms, Secret2b, Tpm2bIv, TpmAlgId, TpmaObject, TpmiAlgCipherModeOrNull,
};

type Data = Secret2b<MAX_DIGEST_BUFFER>;

/// Encrypts or decrypts data with a symmetric key (handle 1, USER), and returns it with the initialization vector for what comes next.
///
/// # Errors
/// `TPM_RC_KEY` (handle 1) for another type of key; `TPM_RC_ATTRIBUTES` (handle 1) for a restricted key and one that may not do this;
/// `TPM_RC_MODE` (handle 1) for a key that makes CMACs, (parameter 2) when the mode is not the key's, or when there is none; `TPM_RC_SIZE`
/// (parameter 3) for an initialization vector that is not a block long, or in ECB mode not empty, (parameter 4) for data that is not whole
/// blocks in CBC or ECB mode.
pub fn encrypt_decrypt(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (decrypt, mode, iv, data): (bool, TpmiAlgCipherModeOrNull, Tpm2bIv, Data) = parameters(r)?;
    run(cx, &Input { decrypt, mode, iv: &iv, data: &data }, Numbers { mode: 2, iv: 3, data: 4 })
}

/// As [`encrypt_decrypt`], with the data as the first parameter.
///
/// # Errors
/// As [`encrypt_decrypt`], but mode, initialization vector and data are the parameters 3, 4 and 1.
pub fn encrypt_decrypt2(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (data, decrypt, mode, iv): (Data, bool, TpmiAlgCipherModeOrNull, Tpm2bIv) = parameters(r)?;
    run(cx, &Input { decrypt, mode, iv: &iv, data: &data }, Numbers { mode: 3, iv: 4, data: 1 })
}

struct Input<'a> {
    decrypt: bool,
    mode: TpmiAlgCipherModeOrNull,
    iv: &'a [u8],
    data: &'a Data,
}

/// The numbers of the parameters.
struct Numbers {
    mode: u32,
    iv: u32,
    data: u32,
}

fn run(cx: &Context<'_>, input: &Input<'_>, n: Numbers) -> Result<Output, ResponseCode> {
    let key = cx.state.object(cx.handle(0)?)?;
    let wrong_key = ResponseCode::KEY.handle(1);
    let PublicParms::SymCipher { sym } = key.public.parms else { return Err(wrong_key) };
    let (Some(cipher), Some((_, _, own)), Some(sensitive)) =
        (SymCipher::of(sym.0), sym.0.block_cipher(), &key.sensitive)
    else {
        return Err(wrong_key);
    };
    let needed = if input.decrypt { TpmaObject::DECRYPT } else { TpmaObject::SIGN_ENCRYPT };
    if key.has(TpmaObject::RESTRICTED) || !key.has(needed) {
        return Err(ResponseCode::ATTRIBUTES.handle(1));
    }
    if own == TpmAlgId::CMAC {
        return Err(ResponseCode::MODE.handle(1));
    }
    let mode = match (own, input.mode.0) {
        (TpmAlgId::NULL, requested) => cipher_mode(requested),
        (own, TpmAlgId::NULL) => cipher_mode(own),
        (own, requested) => cipher_mode(own).filter(|_| own == requested),
    }
    .ok_or(ResponseCode::MODE.parameter(n.mode))?;

    let block = cipher.alg.block_size();
    if input.iv.len() != if mode == Mode::Ecb { 0 } else { block } {
        return Err(ResponseCode::SIZE.parameter(n.iv));
    }
    if mode.needs_whole_blocks() && !input.data.expose().chunks_exact(block).remainder().is_empty() {
        return Err(ResponseCode::SIZE.parameter(n.data));
    }
    let keyed = BlockCipher::new(cipher.alg, sensitive.sensitive.expose()).map_err(|_| wrong_key)?;
    let mut iv = input.iv.to_vec();
    let mut data = zeroize::Zeroizing::new(input.data.expose().to_vec());
    let done = if input.decrypt {
        keyed.decrypt(mode, &mut iv, &mut data)
    } else {
        keyed.encrypt(mode, &mut iv, &mut data)
    };
    done.map_err(|_| ResponseCode::FAILURE)?;
    let mut parameters = Vec::with_capacity(data.len().saturating_add(24));
    encode_sized(&data, &mut parameters);
    Tpm2bIv::new(iv)?.encode(&mut parameters);
    Ok(Output { handle: None, parameters })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SymAlg;
    use crate::signing::test_keys::*;
    use crate::state::Object;
    use crate::testing::TestTpm;
    use crate::testing::objects::flush;
    use vtpm_protocol::codec::decode_exact;
    use vtpm_protocol::tpm::*;

    fn cipher(sym: TpmtSymDef) -> Object {
        let mut key = with(symmetric(), TpmaObject::DECRYPT);
        let size = SymCipher::of(sym).map_or(16, SymCipher::key_size);
        let bytes: Vec<u8> = (1..=size as u8).map(|i| i.wrapping_mul(37)).collect();
        key.public.parms = PublicParms::SymCipher { sym: TpmtSymDefObject(sym) };
        if let Some(s) = &mut key.sensitive {
            s.sensitive = SensitiveComposite::Sym(Secret2b::new(bytes).unwrap());
        }
        with(key, TpmaObject::SIGN_ENCRYPT)
    }

    fn aes(mode: TpmAlgId) -> Object {
        cipher(TpmtSymDef::Aes { key_bits: 128, mode })
    }

    type Answer = Result<(Vec<u8>, Vec<u8>), ResponseCode>;

    fn answer(out: Result<(Option<TpmHandle>, Vec<u8>), ResponseCode>) -> Answer {
        let (data, iv): (Tpm2bMaxBuffer, Tpm2bIv) = decode_exact(&out?.1).unwrap();
        Ok((data.to_vec(), iv.to_vec()))
    }

    fn one(
        tpm: &mut TestTpm,
        key: TpmHandle,
        decrypt: bool,
        mode: TpmAlgId,
        iv: &[u8],
        data: &[u8],
    ) -> Answer {
        let (iv, data) = (Tpm2bIv::new(iv).unwrap(), Tpm2bMaxBuffer::new(data).unwrap());
        answer(tpm.run_with(TpmCc::ENCRYPT_DECRYPT, &[key], &[AUTH], &(decrypt, mode, iv, data)))
    }

    fn two(
        tpm: &mut TestTpm,
        key: TpmHandle,
        decrypt: bool,
        mode: TpmAlgId,
        iv: &[u8],
        data: &[u8],
    ) -> Answer {
        let (iv, data) = (Tpm2bIv::new(iv).unwrap(), Tpm2bMaxBuffer::new(data).unwrap());
        answer(tpm.run_with(TpmCc::ENCRYPT_DECRYPT2, &[key], &[AUTH], &(data, decrypt, mode, iv)))
    }

    #[test]
    fn both_commands_do_what_the_cipher_does_in_every_mode() {
        let mut tpm = TestTpm::started();
        let mode = TpmAlgId::NULL;
        for sym in [
            TpmtSymDef::Aes { key_bits: 192, mode },
            TpmtSymDef::Camellia { key_bits: 256, mode },
            TpmtSymDef::Tdes { key_bits: 128, mode },
            TpmtSymDef::Tdes { key_bits: 192, mode },
        ] {
            let object = cipher(sym);
            let alg = SymCipher::of(sym).unwrap().alg;
            let secret = object.sensitive.as_ref().unwrap().sensitive.expose().to_vec();
            let key = load(&mut tpm, object);
            for id in CIPHER_MODES {
                let mode = cipher_mode(id).unwrap();
                let iv = vec![9; if mode == Mode::Ecb { 0 } else { alg.block_size() }];
                for plain in [vec![], vec![3; 48], vec![4; 1024]] {
                    let (mut data, mut next) = (plain.clone(), iv.clone());
                    BlockCipher::new(alg, &secret).unwrap().encrypt(mode, &mut next, &mut data).unwrap();
                    let expected = Ok((data.clone(), next.clone()));
                    assert_eq!(one(&mut tpm, key, false, id, &iv, &plain), expected);
                    assert_eq!(two(&mut tpm, key, false, id, &iv, &plain), expected);
                    let expected = Ok((plain, next));
                    assert_eq!(one(&mut tpm, key, true, id, &iv, &data), expected);
                    assert_eq!(two(&mut tpm, key, true, id, &iv, &data), expected);
                }
            }
            flush(&mut tpm, key);
        }
    }

    #[test]
    fn data_in_two_commands_is_as_in_one() {
        let mut tpm = TestTpm::started();
        let key = load(&mut tpm, aes(TpmAlgId::NULL));
        for mode in [TpmAlgId::CTR, TpmAlgId::OFB, TpmAlgId::CBC, TpmAlgId::CFB] {
            let whole = one(&mut tpm, key, false, mode, &[1; 16], &[5; 64]).unwrap();
            let (first, iv) = one(&mut tpm, key, false, mode, &[1; 16], &[5; 32]).unwrap();
            let (second, iv) = two(&mut tpm, key, false, mode, &iv, &[5; 32]).unwrap();
            assert_eq!(([first, second].concat(), iv), whole);
        }
    }

    #[test]
    fn the_mode_is_the_key_s_or_else_the_caller_s() {
        let mut tpm = TestTpm::started();
        let fixed = load(&mut tpm, aes(TpmAlgId::CBC));
        let free = load(&mut tpm, aes(TpmAlgId::NULL));
        let expected = one(&mut tpm, fixed, false, TpmAlgId::CBC, &[1; 16], &[5; 32]);
        assert!(expected.is_ok());
        assert_eq!(one(&mut tpm, fixed, false, TpmAlgId::NULL, &[1; 16], &[5; 32]), expected);
        for (key, mode) in [(fixed, TpmAlgId::CFB), (free, TpmAlgId::NULL)] {
            let result = one(&mut tpm, key, false, mode, &[1; 16], &[5; 32]);
            assert_eq!(result, Err(ResponseCode::MODE.parameter(2)));
            let result = two(&mut tpm, key, true, mode, &[1; 16], &[5; 32]);
            assert_eq!(result, Err(ResponseCode::MODE.parameter(3)));
        }
        for mode in [TpmAlgId::CMAC, TpmAlgId::AES] {
            let result = one(&mut tpm, free, false, mode, &[1; 16], &[5; 32]);
            assert_eq!(result, Err(ResponseCode::MODE.parameter(2)));
        }
        let cmac = load(&mut tpm, without(aes(TpmAlgId::CMAC), TpmaObject::DECRYPT));
        for mode in [TpmAlgId::NULL, TpmAlgId::CFB] {
            let result = one(&mut tpm, cmac, false, mode, &[1; 16], &[5; 32]);
            assert_eq!(result, Err(ResponseCode::MODE.handle(1)));
        }
    }

    #[test]
    fn sizes_that_do_not_fit_the_mode_are_refused() {
        let mut tpm = TestTpm::started();
        let aes = load(&mut tpm, aes(TpmAlgId::NULL));
        let tdes = load(&mut tpm, cipher(TpmtSymDef::Tdes { key_bits: 192, mode: TpmAlgId::NULL }));
        assert_eq!(SymAlg::Tdes.block_size(), 8);
        for (key, mode, iv, data) in [
            (aes, TpmAlgId::CTR, 0, 16),
            (aes, TpmAlgId::CFB, 15, 16),
            (aes, TpmAlgId::CBC, 8, 15),
            (aes, TpmAlgId::ECB, 16, 15),
            (tdes, TpmAlgId::OFB, 16, 16),
        ] {
            let result = one(&mut tpm, key, false, mode, &vec![1; iv], &vec![5; data]);
            assert_eq!(result, Err(ResponseCode::SIZE.parameter(3)));
            let result = two(&mut tpm, key, true, mode, &vec![1; iv], &vec![5; data]);
            assert_eq!(result, Err(ResponseCode::SIZE.parameter(4)));
        }
        for (key, mode, iv, data) in
            [(aes, TpmAlgId::CBC, 16, 17), (aes, TpmAlgId::ECB, 0, 24), (tdes, TpmAlgId::CBC, 8, 12)]
        {
            let result = one(&mut tpm, key, true, mode, &vec![1; iv], &vec![5; data]);
            assert_eq!(result, Err(ResponseCode::SIZE.parameter(4)));
            let result = two(&mut tpm, key, false, mode, &vec![1; iv], &vec![5; data]);
            assert_eq!(result, Err(ResponseCode::SIZE.parameter(1)));
        }
        assert!(one(&mut tpm, tdes, false, TpmAlgId::CBC, &[1; 8], &[5; 24]).is_ok());
        let too_long = (false, TpmAlgId::CFB, 17u16);
        let result = tpm.run_with(TpmCc::ENCRYPT_DECRYPT, &[aes], &[AUTH], &too_long).map(drop);
        assert_eq!(result, Err(ResponseCode::SIZE.parameter(3)));
        let result = tpm.run_with(TpmCc::ENCRYPT_DECRYPT2, &[aes], &[AUTH], &1025u16).map(drop);
        assert_eq!(result, Err(ResponseCode::SIZE.parameter(1)));
        let result = tpm.run_with(TpmCc::ENCRYPT_DECRYPT, &[aes], &[AUTH], &2u8).map(drop);
        assert_eq!(result, Err(ResponseCode::VALUE.parameter(1)));
    }

    #[test]
    fn the_attributes_of_the_key_say_what_it_may_do() {
        let mut tpm = TestTpm::started();
        let (attributes, key) = (ResponseCode::ATTRIBUTES.handle(1), ResponseCode::KEY.handle(1));
        for (object, encrypts, decrypts) in [
            (without(aes(TpmAlgId::CFB), TpmaObject::DECRYPT), Ok(()), Err(attributes)),
            (without(aes(TpmAlgId::CFB), TpmaObject::SIGN_ENCRYPT), Err(attributes), Ok(())),
            (restricted(aes(TpmAlgId::CFB)), Err(attributes), Err(attributes)),
            (keyed_hash(Scheme::NULL), Err(key), Err(key)),
            (ecc(Scheme::NULL), Err(key), Err(key)),
        ] {
            let handle = load(&mut tpm, object);
            for (decrypt, expected) in [(false, encrypts), (true, decrypts)] {
                assert_eq!(
                    one(&mut tpm, handle, decrypt, TpmAlgId::CFB, &[1; 16], b"data").map(drop),
                    expected
                );
                assert_eq!(
                    two(&mut tpm, handle, decrypt, TpmAlgId::CFB, &[1; 16], b"data").map(drop),
                    expected
                );
            }
            flush(&mut tpm, handle);
        }
    }

    #[test]
    fn a_public_area_alone_does_neither() {
        let mut tpm = TestTpm::started();
        let key = load(&mut tpm, public_only(aes(TpmAlgId::CFB)));
        for decrypt in [false, true] {
            let refused = one(&mut tpm, key, decrypt, TpmAlgId::CFB, &[1; 16], b"data");
            assert_eq!(refused, Err(ResponseCode::AUTH_UNAVAILABLE));
        }
    }
}
