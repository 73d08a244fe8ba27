use crate::command::asymmetric::testing::{
    decrypting, ephemeral, generator, not_for_exchange, point, public_of, z_gen,
};
use crate::signing::test_keys::*;
use crate::testing::TestTpm;
use vtpm_protocol::codec::decode_exact;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::*;

const P256: TpmEccCurve = TpmEccCurve::NIST_P256;

fn z_gen_2phase(
    tpm: &mut TestTpm,
    key: TpmHandle,
    qs: &Tpm2bEccPoint,
    qe: &Tpm2bEccPoint,
    scheme: TpmAlgId,
    counter: u16,
) -> Result<(Tpm2bEccPoint, Tpm2bEccPoint), ResponseCode> {
    let input = (qs, qe, scheme, counter);
    let (_, out) = tpm.run_with(TpmCc::ZGEN_2PHASE, &[key], &[AUTH], &input)?;
    Ok(decode_exact(&out).unwrap())
}

/// Two TPMs with keys of their own.
fn parties(curve: TpmEccCurve, scheme: Scheme) -> [(TestTpm, TpmHandle, Tpm2bEccPoint); 2] {
    [&b"alice"[..], b"bob"].map(|label| {
        let mut tpm = TestTpm::started();
        let key = decrypting(ecc_labelled(label, curve, scheme));
        let public = public_of(&key);
        let key = load(&mut tpm, key);
        (tpm, key, public)
    })
}

#[test]
fn both_sides_get_the_same_points_with_every_scheme_on_every_curve() {
    for curve in ECC_CURVES {
        let [(mut alice, key_a, qs_a), (mut bob, key_b, qs_b)] = parties(curve, Scheme::NULL);
        assert_ne!(qs_a, qs_b);
        // So that the counters differ.
        ephemeral(&mut bob, curve);
        for scheme in ECC_KEY_EXCHANGES {
            let ((qe_a, count_a), (qe_b, count_b)) =
                (ephemeral(&mut alice, curve), ephemeral(&mut bob, curve));
            let a = z_gen_2phase(&mut alice, key_a, &qs_b, &qe_b, scheme, count_a).unwrap();
            let b = z_gen_2phase(&mut bob, key_b, &qs_a, &qe_a, scheme, count_b).unwrap();
            assert_eq!(a, b, "{curve:?} {scheme:?}");
            if scheme == TpmAlgId::ECDH {
                assert_eq!(z_gen(&mut alice, key_a, &qs_b), Ok(a.0));
            } else {
                assert_eq!(a.1, point(&[], &[]));
            }
        }
    }
}

#[test]
fn a_commitment_is_used_once_and_a_failure_does_not_use_it() {
    let [(mut alice, key, _), (_, _, qs)] = parties(P256, Scheme::NULL);
    let mut run = |qs: &Tpm2bEccPoint, qe: &Tpm2bEccPoint, counter| {
        z_gen_2phase(&mut alice, key, qs, qe, TpmAlgId::ECMQV, counter).map(drop)
    };
    let refused = Err(ResponseCode::VALUE.parameter(4));
    assert_eq!(run(&qs, &qs, 0), refused);
    let (_, counter) = ephemeral(&mut alice, P256);
    let mut run = |qs: &Tpm2bEccPoint, qe: &Tpm2bEccPoint, counter| {
        z_gen_2phase(&mut alice, key, qs, qe, TpmAlgId::ECMQV, counter).map(drop)
    };
    let off = point(&qs.0.y, &qs.0.x);
    assert_eq!(run(&off, &qs, counter), Err(ResponseCode::ECC_POINT.parameter(1)));
    assert_eq!(run(&qs, &off, counter), Err(ResponseCode::ECC_POINT.parameter(2)));
    assert_eq!(run(&qs, &point(&[], &[]), counter), Err(ResponseCode::ECC_POINT.parameter(2)));
    assert_eq!(run(&qs, &qs, counter + 1), refused);
    assert_eq!(run(&qs, &qs, counter + 128), refused);
    assert_eq!(run(&qs, &qs, counter), Ok(()));
    assert_eq!(run(&qs, &qs, counter), refused);
}

#[test]
fn a_reset_forgets_commitments_and_a_restart_does_not() {
    let [(mut alice, key, _), (_, _, qs)] = parties(P256, Scheme::NULL);
    let object = (*alice.state().object(key).unwrap()).clone();
    let counters = [0, 1, 2].map(|_| ephemeral(&mut alice, P256).1);
    let boot = |tpm: &mut TestTpm, end, start, counter| {
        tpm.run(TpmCc::SHUTDOWN, &[], &end).unwrap();
        tpm.init();
        tpm.run(TpmCc::STARTUP, &[], &start).unwrap();
        let key = load(tpm, (*object).clone());
        z_gen_2phase(tpm, key, &qs, &qs, TpmAlgId::ECDH, counter).map(drop)
    };
    assert_eq!(boot(&mut alice, TpmSu::STATE, TpmSu::STATE, counters[0]), Ok(()));
    assert_eq!(boot(&mut alice, TpmSu::STATE, TpmSu::CLEAR, counters[1]), Ok(()));
    let refused = Err(ResponseCode::VALUE.parameter(4));
    assert_eq!(boot(&mut alice, TpmSu::CLEAR, TpmSu::CLEAR, counters[2]), refused);
}

#[test]
fn the_scheme_must_be_the_key_s() {
    for own in ECC_KEY_EXCHANGES {
        let [(mut alice, key, _), (_, _, qs)] = parties(P256, Scheme::new(own, TpmAlgId::SHA256));
        for scheme in ECC_KEY_EXCHANGES {
            let (_, counter) = ephemeral(&mut alice, P256);
            let result = z_gen_2phase(&mut alice, key, &qs, &qs, scheme, counter).map(drop);
            let expected = if scheme == own { Ok(()) } else { Err(ResponseCode::SCHEME.parameter(3)) };
            assert_eq!(result, expected);
        }
        for scheme in [TpmAlgId::NULL, TpmAlgId::ECDSA, TpmAlgId(0x7777)] {
            let result = z_gen_2phase(&mut alice, key, &qs, &qs, scheme, 0).map(drop);
            assert_eq!(result, Err(ResponseCode::SCHEME.parameter(3)));
        }
    }
}

#[test]
fn the_key_must_be_for_this() {
    let mut tpm = TestTpm::started();
    let g = generator(P256);
    for (key, rc) in not_for_exchange() {
        tpm.state().transient.clear();
        let key = load(&mut tpm, key);
        let (_, counter) = ephemeral(&mut tpm, P256);
        let result = z_gen_2phase(&mut tpm, key, &g, &g, TpmAlgId::ECDH, counter);
        assert_eq!(result, Err(rc.handle(1)));
    }
}
