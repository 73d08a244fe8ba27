//! Damaged commands: cut everywhere, and with every byte changed. The checks are those of [`TestTpm::raw`]: an answer, and no trace
//! of what failed.

use super::testing::{KDF2, decrypting, encrypt, ephemeral, generator, point};
use crate::signing::test_keys::*;
use crate::testing::{TestTpm, code, command_bytes};
use vtpm_protocol::codec::Encode;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::*;

const CURVE: TpmEccCurve = TpmEccCurve::NIST_P192;

/// A TPM with a key for decryption and one for anonymous signatures, and commands that it takes.
fn prepared() -> (TestTpm, Vec<Vec<u8>>) {
    let mut tpm = TestTpm::started();
    let key = load(&mut tpm, decrypting(ecc_on(CURVE, Scheme::NULL)));
    let ecdaa = Scheme::new(TpmAlgId::ECDAA, TpmAlgId::SHA256);
    let signer = load(&mut tpm, ecc_on(CURVE, ecdaa));
    let g = generator(CURVE);
    let (_, counter) = ephemeral(&mut tpm, CURVE);
    let (c1, c2, c3) = encrypt(&mut tpm, key, b"data", KDF2).unwrap();
    let plain_text = Tpm2bMaxBuffer::new(*b"data").unwrap();
    let area = (TpmHandle::RS_PW, 0u16, 0u8, Tpm2bDigest::new(AUTH).unwrap()).to_bytes();
    let with =
        |cc, handle, parameters: &dyn Encode| command_bytes(cc, &[handle], &area, &parameters.to_bytes());
    let without = |cc, handles: &[TpmHandle], parameters: &dyn Encode| {
        command_bytes(cc, handles, &[], &parameters.to_bytes())
    };
    let commands = vec![
        without(TpmCc::ECDH_KEY_GEN, &[key], &()),
        with(TpmCc::ECDH_ZGEN, key, &g),
        without(TpmCc::ECC_PARAMETERS, &[], &CURVE),
        with(TpmCc::ZGEN_2PHASE, key, &(&g, &g, TpmAlgId::ECMQV, counter)),
        without(TpmCc::ECC_ENCRYPT, &[key], &(plain_text, TpmtKdfScheme(KDF2))),
        with(TpmCc::ECC_DECRYPT, key, &(c1, c2, c3, TpmtKdfScheme(KDF2))),
        without(TpmCc::EC_EPHEMERAL, &[], &CURVE),
        with(TpmCc::COMMIT, signer, &(point(&[], &[]), 0u16, 0u16)),
        with(TpmCc::COMMIT, signer, &(&g, 0u16, 0u16)),
    ];
    (tpm, commands)
}

#[test]
fn every_command_is_answered_however_it_is_damaged() {
    let (mut tpm, commands) = prepared();
    for valid in commands {
        let sound = tpm.tpm.clone();
        assert_eq!(code(&tpm.raw(&valid)), ResponseCode::SUCCESS);
        let mut refused = 0;
        let mut check = |damaged: &[u8]| {
            tpm.tpm = sound.clone();
            tpm.resave();
            refused += usize::from(code(&tpm.raw(damaged)) != ResponseCode::SUCCESS);
        };
        for i in 10..valid.len() {
            let mut cut = valid[..i].to_vec();
            let size = u32::try_from(i).unwrap();
            cut[2..6].copy_from_slice(&size.to_be_bytes());
            check(&cut);
            for change in [0x01, 0xff] {
                let mut changed = valid.clone();
                changed[i] ^= change;
                check(&changed);
            }
        }
        assert!(refused >= valid.len() - 10, "{refused} of {}", valid.len());
        tpm.tpm = sound.clone();
        tpm.resave();
    }
}
