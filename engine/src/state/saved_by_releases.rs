//! The states that earlier releases saved load in this one, and so do the contexts that they gave to guests. `saved/<release>.hex` holds a
//! record a line: key, value; `saved/contexts-<release>.hex` the contexts, and then the records of the TPM that they belong to.
//!
//! A release that changes a record raises its version, keeps reading the old one, and adds its own files to the lists, empty at first, and fills them with
//! `cargo test -p vtpm-engine write_saved_state -- --ignored`.

use crate::crypto::HashAlg;
use crate::env::RecordKey;
use crate::testing::objects::{self, create_primary, ecc_storage_key, flush};
use crate::testing::{TestTpm, command_bytes};
use crate::tpm::Tpm;
use vtpm_protocol::codec::{Encode, Reader, decode_exact};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::*;
use zeroize::Zeroizing;

const RELEASES: [(&str, &str); 3] = [
    ("0.1.0", include_str!("saved/0.1.0.hex")),
    ("0.2.0", include_str!("saved/0.2.0.hex")),
    ("0.3.0", include_str!("saved/0.3.0.hex")),
];

/// Release, contexts, and whether a context names its version.
const CONTEXTS: [(&str, &str, Option<u16>); 3] = [
    ("0.1.0", include_str!("saved/contexts-0.1.0.hex"), None),
    ("0.2.0", include_str!("saved/contexts-0.2.0.hex"), Some(2)),
    ("0.3.0", include_str!("saved/contexts-0.3.0.hex"), Some(3)),
];

const POLICY_SESSION: TpmHandle = TpmHandle(0x0300_0001);
const PERSISTENT: TpmHandle = TpmHandle(0x8100_0001);
const DATA: TpmHandle = TpmHandle(0x0100_0001);
const COUNTER: TpmHandle = TpmHandle(0x0100_0002);
const PCR_16: TpmHandle = TpmHandle(16);
const SEQUENCE: TpmHandle = TpmHandle(0x8000_0001);

/// A TPM in use, with something in every kind of record.
fn in_use() -> TestTpm {
    let mut tpm = TestTpm::started();
    let owner = TpmHandle::OWNER;
    let key = create_primary(&mut tpm, owner, ecc_storage_key()).unwrap().handle;
    tpm.run_with(TpmCc::EVICT_CONTROL, &[owner, key], &[b""], &PERSISTENT).unwrap();
    let write = TpmaNv::OWNER_WRITE | TpmaNv::OWNER_READ;
    for (nv_index, attributes, data_size) in [(DATA, write, 5), (COUNTER, write.with_nt(TpmNt::Counter), 8)] {
        let public = TpmsNvPublic {
            nv_index,
            name_alg: TpmiAlgHash(TpmAlgId::SHA256),
            attributes,
            auth_policy: Tpm2bDigest::empty(),
            data_size,
        };
        let input = (Tpm2bAuth::new(*b"nv").unwrap(), Sized2b(public));
        tpm.run_with(TpmCc::NV_DEFINE_SPACE, &[owner], &[b""], &input).unwrap();
    }
    let data = (Tpm2bMaxNvBuffer::new(*b"hello").unwrap(), 0u16);
    tpm.run_with(TpmCc::NV_WRITE, &[owner, DATA], &[b""], &data).unwrap();
    tpm.run_with(TpmCc::NV_INCREMENT, &[owner, COUNTER], &[b""], &()).unwrap();
    let event = Tpm2bEvent::new(*b"event").unwrap();
    tpm.run_with(TpmCc::PCR_EVENT, &[PCR_16], &[b""], &event).unwrap();
    let nonce = Tpm2bNonce::new([7; 16]).unwrap();
    for kind in [TpmSe::HMAC, TpmSe::POLICY] {
        let input = (&nonce, 0u16, kind, TpmAlgId::NULL, TpmAlgId::SHA256);
        tpm.run(TpmCc::START_AUTH_SESSION, &[TpmHandle::NULL; 2], &input).unwrap();
    }
    tpm.run(TpmCc::CONTEXT_SAVE, &[TpmHandle(0x0200_0000)], &()).unwrap();
    let out = tpm.run(TpmCc::HASH_SEQUENCE_START, &[], &(0u16, TpmAlgId::NULL)).unwrap();
    assert_eq!(decode_exact(&out), Ok(SEQUENCE));
    let data = Tpm2bMaxBuffer::new(*b"part of an event").unwrap();
    tpm.run_with(TpmCc::SEQUENCE_UPDATE, &[SEQUENCE], &[b""], &data).unwrap();
    tpm.run_with(TpmCc::ACT_SET_TIMEOUT, &[TpmHandle::ACT_0], &[b""], &1000u32).unwrap();
    let auth = Tpm2bAuth::new(*b"owner").unwrap();
    tpm.run_with(TpmCc::HIERARCHY_CHANGE_AUTH, &[owner], &[b""], &auth).unwrap();
    tpm
}

fn records(text: &str) -> Vec<(RecordKey, Zeroizing<Vec<u8>>)> {
    text.lines()
        .map(|line| {
            let (key, value) = line.split_once(' ').unwrap();
            let key = RecordKey::from_bytes(&hex::decode(key).unwrap()).unwrap();
            (key, Zeroizing::new(hex::decode(value).unwrap()))
        })
        .collect()
}

fn load(text: &str) -> TestTpm {
    let mut tpm = TestTpm::manufactured();
    tpm.tpm = Tpm::from_records(&records(text)).unwrap();
    tpm.resave();
    tpm
}

#[test]
fn the_states_of_every_release_load_and_work() {
    for (release, text) in RELEASES {
        let mut tpm = load(text);
        let read = |tpm: &mut TestTpm, index, size: u16| {
            let (_, out) =
                tpm.run_with(TpmCc::NV_READ, &[TpmHandle::OWNER, index], &[b"owner"], &(size, 0u16)).unwrap();
            out[2..].to_vec()
        };
        assert_eq!(read(&mut tpm, DATA, 5), b"hello", "{release}");
        assert_eq!(read(&mut tpm, COUNTER, 8), 1u64.to_be_bytes(), "{release}");
        let selection = Tpml(vec![TpmsPcrSelection::of(TpmAlgId::SHA256, [16])]);
        let out = tpm.run(TpmCc::PCR_READ, &[], &(selection as TpmlPcrSelection)).unwrap();
        assert_eq!(
            hex::encode(&out[out.len() - 32..]),
            "12db50484c569ef2d5446a9790ee2be42a913d1c755cde998469926762f54066",
            "{release}"
        );
        // The session that was loaded goes on; the object that was persistent is there, and its seed gives it again.
        tpm.run(TpmCc::POLICY_AUTH_VALUE, &[TpmHandle(0x0300_0001)], &()).unwrap();
        assert_eq!(
            tpm.run(TpmCc::POLICY_AUTH_VALUE, &[TpmHandle(0x0200_0000)], &()),
            Err(ResponseCode::VALUE.handle(1))
        );
        // There were no sequences and no countdown timer in the first release.
        let now = tpm.env.now;
        let act = tpm.state().act_data(now);
        assert_eq!((act.timeout, act.attributes.0), (if release == "0.1.0" { 0 } else { 1000 }, 0));
        if release != "0.1.0" {
            let handles = [TpmHandle::NULL, SEQUENCE];
            let input = Tpm2bMaxBuffer::new(*b", and the rest").unwrap();
            let (_, out) =
                tpm.run_with(TpmCc::EVENT_SEQUENCE_COMPLETE, &handles, &[b"", b""], &input).unwrap();
            let digest = HashAlg::Sha512.digest(&[b"part of an event, and the rest"]);
            assert_eq!(out[out.len() - 64..], *digest, "{release}");
        }
        let public = |out: &[u8]| decode_exact::<TpmtPublic>(Reader::new(out).sized(1024).unwrap()).unwrap();
        let kept = public(&tpm.run(TpmCc::READ_PUBLIC, &[PERSISTENT], &()).unwrap());
        let input = (
            Tpm2bSensitiveCreate::default(),
            Sized2b(ecc_storage_key()),
            Tpm2bData::empty(),
            TpmlPcrSelection::default(),
        );
        let (_, out) = tpm.run_with(TpmCc::CREATE_PRIMARY, &[TpmHandle::OWNER], &[b"owner"], &input).unwrap();
        assert!(kept == public(&out), "{release}: the primary key is another one");
    }
}

/// The objects of the contexts.
fn templates() -> [TpmtPublic; 8] {
    [
        ecc_storage_key(),
        objects::ecc_signing_key(),
        objects::rsa_storage_key(),
        objects::hmac_key(),
        objects::symmetric_key(),
        objects::symmetric_storage_key(),
        objects::derivation_parent(),
        objects::with(ecc_storage_key(), TpmaObject::ST_CLEAR),
    ]
}

/// Contexts of objects and of a policy session, and the records that belong to them.
fn contexts() -> String {
    let mut tpm = in_use();
    let mut contexts = Vec::new();
    for template in templates() {
        let key = create_primary(&mut tpm, TpmHandle::PLATFORM, template).unwrap().handle;
        contexts.push(tpm.run(TpmCc::CONTEXT_SAVE, &[key], &()).unwrap());
        flush(&mut tpm, key);
    }
    tpm.run(TpmCc::POLICY_AUTH_VALUE, &[POLICY_SESSION], &()).unwrap();
    contexts.push(tpm.run(TpmCc::CONTEXT_SAVE, &[POLICY_SESSION], &()).unwrap());
    let lines = contexts.iter().map(|context| format!("{CONTEXT}{}\n", hex::encode(context)));
    lines.collect::<String>() + &written(&mut tpm)
}

const CONTEXT: &str = "context ";

/// A guest that goes on after an upgrade has contexts of the release before.
#[test]
fn contexts_of_every_release_load_in_a_tpm_that_goes_on() {
    for (release, text, version) in CONTEXTS {
        let (contexts, records): (Vec<_>, Vec<_>) = text.lines().partition(|l| l.starts_with(CONTEXT));
        let mut contexts = contexts.iter().map(|line| hex::decode(&line[CONTEXT.len()..]).unwrap());
        let mut tpm = load(&records.join("\n"));
        for (n, template) in templates().into_iter().enumerate() {
            let bytes = contexts.next().unwrap();
            let context: TpmsContext = decode_exact(&bytes).unwrap();
            let named = u16::from_be_bytes(context.context_blob[66..68].try_into().unwrap());
            assert!(version.is_none_or(|version| version == named), "{release}");
            // Whatever is changed of it, its version included, it is no context any more.
            for i in (0..20).chain([82, 83, 84, 85, 86, bytes.len() - 1]) {
                let mut bad = bytes.clone();
                bad[i] ^= 3;
                let rc = tpm.rc(&command_bytes(TpmCc::CONTEXT_LOAD, &[], &[], &bad));
                assert_ne!(rc, ResponseCode::SUCCESS, "{release}: {i}");
            }
            let handle = decode_exact(&tpm.run(TpmCc::CONTEXT_LOAD, &[], &context).unwrap()).unwrap();
            let loaded = tpm.state().object(handle).unwrap().to_bytes();
            flush(&mut tpm, handle);
            let made = create_primary(&mut tpm, TpmHandle::PLATFORM, template).unwrap().handle;
            let same = tpm.state().object(made).unwrap().to_bytes() == loaded;
            assert!(same, "{release}: object {n} is another one");
            flush(&mut tpm, made);
        }
        let session = contexts.next().unwrap();
        assert_eq!(contexts.next(), None);
        let load = command_bytes(TpmCc::CONTEXT_LOAD, &[], &[], &session);
        tpm.ok(&load);
        let session = tpm.state().session(POLICY_SESSION).unwrap();
        assert!(session.flags.is_auth_value_needed && session.policy_digest.len() == 32);
        tpm.run(TpmCc::POLICY_AUTH_VALUE, &[POLICY_SESSION], &()).unwrap();
        // It is loaded now, and what it is saved as next is a context of this release.
        assert_eq!(tpm.rc(&load), ResponseCode::HANDLE.parameter(1), "{release}");
        let again = tpm.run(TpmCc::CONTEXT_SAVE, &[POLICY_SESSION], &()).unwrap();
        assert_eq!(again[84..86], crate::state::RECORD_VERSION.to_bytes());
        tpm.ok(&command_bytes(TpmCc::CONTEXT_LOAD, &[], &[], &again));
    }
}

/// The first release had the PCRs in the volatile record.
#[test]
fn pcrs_get_records_of_their_own_and_none_is_lost() {
    let mut tpm = TestTpm::manufactured();
    let first = records(RELEASES[0].1);
    tpm.tpm = Tpm::from_records(&first).unwrap();
    tpm.env.saved = first.into_iter().map(|(k, v)| (k, v.to_vec())).collect();
    let banks = |tpm: &Tpm| -> Vec<_> {
        tpm.records().into_iter().filter(|(k, _)| matches!(k, RecordKey::Pcr(_))).collect()
    };
    let mut seen = vec![banks(&tpm.tpm)];
    // The first of them is not counted, so that the volatile record stays.
    for (pcr, saved) in [(16, 1), (0, PCR_BANK_ALGS.len()), (16, PCR_BANK_ALGS.len())] {
        let digests = Tpml(vec![TpmtHa { hash_alg: TpmAlgId::SHA256, digest: vec![7; 32] }]);
        let digests: TpmlDigestValues = digests;
        let command = command_bytes(
            TpmCc::PCR_EXTEND,
            &[TpmHandle(pcr)],
            &[0x40, 0, 0, 9, 0, 0, 0, 0, 0],
            &digests.to_bytes(),
        );
        let response = tpm.tpm.execute(&mut tpm.env, 0, &command);
        assert_eq!(response[6..10], [0; 4]);
        let keys = tpm.env.saved.keys().filter(|k| matches!(k, RecordKey::Pcr(_)));
        assert_eq!(keys.count(), saved);
        let saved: Vec<_> = tpm.env.saved.iter().map(|(&k, v)| (k, Zeroizing::new(v.clone()))).collect();
        let again = banks(&Tpm::from_records(&saved).unwrap());
        assert!(again == banks(&tpm.tpm) && !seen.contains(&again), "{pcr}");
        seen.push(again);
    }
}

#[test]
fn the_newest_file_is_what_this_release_saves() {
    let (release, text) = RELEASES[RELEASES.len() - 1];
    assert!(text == written(&mut in_use()), "records changed since {release}: see the module documentation");
    let (release, text, _) = CONTEXTS[CONTEXTS.len() - 1];
    assert!(text == contexts(), "contexts changed since {release}: see the module documentation");
}

fn written(tpm: &mut TestTpm) -> String {
    let line = |(key, value): (RecordKey, Zeroizing<Vec<u8>>)| {
        format!("{} {}\n", hex::encode(key.to_bytes()), hex::encode(&*value))
    };
    tpm.tpm.records().into_iter().map(line).collect()
}

#[test]
#[ignore = "writes the files of the newest release of the list, once"]
fn write_saved_state() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/state/saved");
    let (version, _) = RELEASES[RELEASES.len() - 1];
    std::fs::write(format!("{folder}/{version}.hex"), written(&mut in_use())).unwrap();
    std::fs::write(format!("{folder}/contexts-{version}.hex"), contexts()).unwrap();
}
