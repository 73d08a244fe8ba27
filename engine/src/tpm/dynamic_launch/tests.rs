//! Dynamic launches and H-CRTMs, with the values that the PC Client profile gives their PCRs.

use crate::crypto::HashAlg;
use crate::testing::TestTpm;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bEvent, TpmAlgId, TpmCc, TpmHandle, TpmSu};

fn measure(tpm: &mut TestTpm, parts: &[&[u8]]) {
    tpm.tpm.hash_start(&mut tpm.env).unwrap();
    parts.iter().for_each(|part| tpm.tpm.hash_data(part));
    tpm.tpm.hash_end(&mut tpm.env).unwrap();
}

fn pcr(tpm: &mut TestTpm, alg: TpmAlgId, n: u32) -> Vec<u8> {
    tpm.state().volatile.pcrs.get(alg, n).unwrap().to_vec()
}

fn startup(tpm: &mut TestTpm, kind: TpmSu) -> Result<(), ResponseCode> {
    tpm.run(TpmCc::STARTUP, &[], &kind).map(drop)
}

/// What a measurement makes of a PCR that begins with zeros and `last`.
fn extended(alg: HashAlg, last: u8, data: &[u8]) -> Vec<u8> {
    let mut begin = vec![0; alg.digest_size()];
    *begin.last_mut().unwrap() = last;
    alg.digest(&[&begin, &alg.digest(&[data])]).to_vec()
}

#[test]
fn a_launch_resets_its_pcrs_and_extends_the_first() {
    let mut tpm = TestTpm::started();
    for n in [0, 16, 23] {
        let event = Tpm2bEvent::new(*b"event").unwrap();
        tpm.run_with(TpmCc::PCR_EVENT, &[TpmHandle(n)], &[b""], &event).unwrap();
    }
    let before: Vec<_> = (0..24).map(|n| pcr(&mut tpm, TpmAlgId::SHA256, n)).collect();
    let (counter, restarts) = {
        let group = &tpm.state().volatile.state_reset;
        (group.pcr_counter, group.restart_count)
    };
    assert!(!tpm.tpm.is_established());
    measure(&mut tpm, &[b"mea", b"", b"sured"]);
    for (alg, id) in [
        (HashAlg::Sha1, TpmAlgId::SHA1),
        (HashAlg::Sha256, TpmAlgId::SHA256),
        (HashAlg::Sha384, TpmAlgId::SHA384),
        (HashAlg::Sha512, TpmAlgId::SHA512),
    ] {
        assert_eq!(pcr(&mut tpm, id, 17), extended(alg, 0, b"measured"));
    }
    for n in 0..24 {
        let expected = if (18..=22).contains(&n) { vec![0; 32] } else { before[n as usize].clone() };
        assert!(n == 17 || pcr(&mut tpm, TpmAlgId::SHA256, n) == expected, "PCR {n}");
    }
    let group = &tpm.state().volatile.state_reset;
    assert_eq!((group.pcr_counter, group.restart_count), (counter + 4, restarts + 1));
    assert!(tpm.tpm.is_established());
    // What was committed is what the TPM remembers: `raw` compares.
    tpm.run(TpmCc::READ_CLOCK, &[], &()).unwrap();
    // Another one begins with zeros again.
    measure(&mut tpm, &[b"other"]);
    assert_eq!(pcr(&mut tpm, TpmAlgId::SHA256, 17), extended(HashAlg::Sha256, 0, b"other"));
}

#[test]
fn a_command_a_boot_and_another_start_abort_a_measurement() {
    let aborts: [fn(&mut TestTpm); 2] = [
        |tpm| drop(tpm.run(TpmCc::READ_CLOCK, &[], &())),
        |tpm| {
            tpm.init();
            startup(tpm, TpmSu::CLEAR).unwrap();
        },
    ];
    for abort in aborts {
        let mut tpm = TestTpm::started();
        tpm.tpm.hash_start(&mut tpm.env).unwrap();
        tpm.tpm.hash_data(b"data");
        abort(&mut tpm);
        tpm.tpm.hash_data(b"more");
        tpm.tpm.hash_end(&mut tpm.env).unwrap();
        assert_eq!(pcr(&mut tpm, TpmAlgId::SHA256, 17), [0xff; 32]);
    }
    let mut tpm = TestTpm::started();
    tpm.tpm.hash_start(&mut tpm.env).unwrap();
    tpm.tpm.hash_data(b"data");
    measure(&mut tpm, &[b"other"]);
    assert_eq!(pcr(&mut tpm, TpmAlgId::SHA256, 17), extended(HashAlg::Sha256, 0, b"other"));
    // An end without a start changes nothing.
    tpm.tpm.hash_end(&mut tpm.env).unwrap();
    assert_eq!(pcr(&mut tpm, TpmAlgId::SHA256, 17), extended(HashAlg::Sha256, 0, b"other"));
}

#[test]
fn before_startup_it_is_an_h_crtm() {
    let mut tpm = TestTpm::manufactured();
    measure(&mut tpm, &[b"first"]);
    measure(&mut tpm, &[b"boot ", b"block"]);
    tpm.locality = 3;
    startup(&mut tpm, TpmSu::CLEAR).unwrap();
    assert_eq!(pcr(&mut tpm, TpmAlgId::SHA256, 0), extended(HashAlg::Sha256, 4, b"boot block"));
    assert_eq!(pcr(&mut tpm, TpmAlgId::SHA512, 0), extended(HashAlg::Sha512, 4, b"boot block"));
    assert_eq!(pcr(&mut tpm, TpmAlgId::SHA256, 17), [0xff; 32]);
    // The next boot has none, and begins with its locality.
    tpm.init();
    startup(&mut tpm, TpmSu::CLEAR).unwrap();
    assert_eq!(pcr(&mut tpm, TpmAlgId::SHA256, 0), [[0; 31].as_slice(), &[3]].concat());
}

#[test]
fn a_resume_has_an_h_crtm_as_the_start_had() {
    for with in [false, true] {
        let mut tpm = TestTpm::manufactured();
        let crtm = |tpm: &mut TestTpm, with: bool| {
            if with {
                measure(tpm, &[b"boot block"]);
            }
        };
        crtm(&mut tpm, with);
        startup(&mut tpm, TpmSu::CLEAR).unwrap();
        let event = Tpm2bEvent::new(*b"event").unwrap();
        tpm.run_with(TpmCc::PCR_EVENT, &[TpmHandle(0)], &[b""], &event).unwrap();
        let value = pcr(&mut tpm, TpmAlgId::SHA256, 0);
        tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE).unwrap();
        tpm.init();
        crtm(&mut tpm, !with);
        assert_eq!(startup(&mut tpm, TpmSu::STATE), Err(ResponseCode::VALUE.parameter(1)));
        tpm.init();
        crtm(&mut tpm, with);
        startup(&mut tpm, TpmSu::STATE).unwrap();
        assert_eq!(pcr(&mut tpm, TpmAlgId::SHA256, 0), value);
    }
}

#[test]
fn what_is_not_durable_did_not_happen() {
    for started in [false, true] {
        let mut tpm = if started { TestTpm::started() } else { TestTpm::manufactured() };
        tpm.env.fail_commits = true;
        assert!(tpm.tpm.hash_start(&mut tpm.env).is_err());
        assert!(!tpm.tpm.is_established());
        tpm.env.fail_commits = false;
        tpm.tpm.hash_start(&mut tpm.env).unwrap();
        let before = tpm.tpm.records();
        tpm.env.fail_commits = true;
        assert!(tpm.tpm.hash_end(&mut tpm.env).is_err());
        assert!(tpm.tpm.records() == before);
    }
}

#[test]
fn established_stays_until_it_is_reset_from_a_high_locality() {
    let mut tpm = TestTpm::started();
    tpm.tpm.hash_start(&mut tpm.env).unwrap();
    tpm.init();
    for locality in 0..5 {
        assert!(tpm.tpm.is_established());
        let reset = tpm.tpm.reset_established(&mut tpm.env, locality).unwrap();
        assert_eq!(reset, locality >= 3, "{locality}");
        assert_eq!(tpm.tpm.is_established(), !reset);
        tpm.tpm.hash_start(&mut tpm.env).unwrap();
    }
}
