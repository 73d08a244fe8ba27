//! Faults that other TPMs had in code like ours, each named for what it is known as.

use crate::client::{Bench, Cmd, Entity, NULL, b2, cc, u32_at};
use crate::setup::{USER_WITH_AUTH, password};
use std::collections::BTreeMap;
use vtpm_engine::Tpm;

const SIZE_1: u32 = 0x1d5;
const SCHEME_2: u32 = 0x2d2;
const HASH_2: u32 = 0x2c3;

/// sign and decrypt, the origin in the TPM, fixed.
const SIGN_AND_DECRYPT: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 17 | 1 << 18;
const SIGN: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 18;

fn key(bench: &mut Bench, kind: u16, attributes: u32, parms_and_unique: &[u8]) -> Entity {
    let attributes = (attributes | USER_WITH_AUTH).to_be_bytes();
    let template = [&kind.to_be_bytes()[..], &[0, 0x0b], &attributes, &[0, 0], parms_and_unique].concat();
    bench.primary(b"", &template).0
}

/// `TPM2_Sign` of a digest with a scheme.
fn sign(key: &Entity, digest: &[u8], scheme: &[u8]) -> Cmd {
    let ticket = [&[0x80, 0x24][..], &NULL.to_be_bytes(), &[0, 0]].concat();
    Cmd {
        code: cc::SIGN,
        handles: vec![key.clone()],
        authorized: 1,
        auths: vec![password(key)],
        params: [&b2(digest), scheme, &ticket].concat(),
        ..Cmd::default()
    }
}

/// The reference signed with an HMAC key and the scheme of an asymmetric one, and took for the hash what stood in another member of the union.
#[test]
fn cve_2025_2884_and_49133_a_scheme_of_another_kind_of_key_does_not_sign() {
    const HMAC: u16 = 0x05;
    const SM2: u16 = 0x1b;
    const ECDAA: u16 = 0x1a;
    let mut bench = Bench::new();
    // An HMAC key with a scheme, one without, and asymmetric keys without.
    let keys = [
        (bench.free_key(), vec![HMAC]),
        (key(&mut bench, 0x08, SIGN_AND_DECRYPT, &[0, 0x10, 0, 0]), vec![HMAC]),
        (
            key(&mut bench, 0x23, SIGN, &[0, 0x10, 0, 0x10, 0, 3, 0, 0x10, 0, 0, 0, 0]),
            vec![0x18, 0x1c, SM2, ECDAA],
        ),
    ];
    for (key, own) in &keys {
        for scheme in (0u16..0x60).chain([0x7fff, 0xffff]) {
            for (hash, size) in [(0x04u16, 20), (0x0b, 32), (0x0c, 48), (0x0d, 64), (0x10, 32), (0x7fff, 32)]
            {
                let count: &[u8] = if scheme == ECDAA { &[0, 0] } else { &[] };
                let bytes = [&scheme.to_be_bytes()[..], &hash.to_be_bytes(), count].concat();
                let result = bench.run(&sign(key, &vec![0x5a; size], &bytes)).map(|reply| reply.params);
                let what = format!("key {:x}, scheme {scheme:x}, hash {hash:x}: {result:x?}", key.handle);
                if scheme == 0x10 {
                    // Without a scheme there are two bytes too many.
                    assert!(result.is_err(), "{what}");
                } else if !own.contains(&scheme) {
                    assert!(matches!(result, Err(SCHEME_2 | HASH_2)), "{what}");
                } else if !matches!(hash, 0x04 | 0x0b | 0x0c | 0x0d) {
                    assert_eq!(result, Err(HASH_2), "{what}");
                } else if let Ok(signature) = result {
                    let expected = [scheme.to_be_bytes(), hash.to_be_bytes()].concat();
                    assert_eq!(signature[..4], expected, "{what}");
                } else {
                    // The key's own scheme is another one, or ECDAA lacks its first half.
                    let other_hash = key.handle == keys[0].0.handle && hash != 0x0b;
                    assert!(other_hash || scheme == ECDAA || scheme == SM2, "{what}");
                }
            }
        }
    }
    // Of a digest of another size than its hash has nothing is read beyond its end.
    for size in 0..=64 {
        let result = bench.run(&sign(&keys[1].0, &vec![0x5a; size], &[0, 5, 0, 0x0d]));
        let expected = if size == 64 { Ok(4 + 64) } else { Err(SIZE_1) };
        assert_eq!(result.map(|reply| reply.params.len()), expected, "{size}");
    }
}

/// A command as it comes from whoever has read no specification: some handles, some passwords, and bytes.
fn blind(code: u32, handles: &[u32], passwords: usize, params: &[u8]) -> Vec<u8> {
    let mut body: Vec<u8> = handles.iter().flat_map(|h| h.to_be_bytes()).collect();
    if passwords > 0 {
        body.extend((9 * passwords as u32).to_be_bytes());
        (0..passwords).for_each(|_| body.extend([0x40, 0, 0, 9, 0, 0, 0, 0, 0]));
    }
    body.extend(params);
    let tag = if passwords > 0 { 2 } else { 1 };
    [&[0x80, tag][..], &(body.len() as u32 + 10).to_be_bytes(), &code.to_be_bytes(), &body].concat()
}

/// What is saved of the TPM makes the same TPM.
fn survives_saving(bench: &mut Bench, what: &str) {
    let records = bench.tpm.records();
    let restored = Tpm::from_records(&records).unwrap_or_else(|e| panic!("{what}: {e}"));
    let same =
        |tpm: &Tpm| tpm.records().into_iter().map(|(k, v)| (k, v.to_vec())).collect::<BTreeMap<_, _>>();
    assert_eq!(same(&restored), same(&bench.tpm), "{what}");
}

/// libtpms kept sizes and algorithms of refused commands in memory, and read and wrote by them when it saved the volatile state.
#[test]
fn cve_2021_3623_nothing_of_a_refused_command_gets_into_the_saved_state() {
    // A self test changes nothing that is saved but takes its time.
    let skipped = [0x142, 0x143, cc::STARTUP];
    let mut bench = Bench::new();
    let key = bench.hmac_key(b"", USER_WITH_AUTH, b"");
    let session = bench.start(&crate::setup::Start::policy());
    let session = bench.sessions[session].handle;
    let owner = 0x4000_0001;
    let fillings: [&[u8]; 6] = [
        &[],
        &[0xff; 40],
        &[0, 0xff, 0, 0xff, 0, 0xff, 0, 0xff, 0, 0xff, 0, 0xff],
        &[
            0, 0x10, 0x7f, 0xff, 0x7f, 0xff, 0x7f, 0xff, 0x7f, 0xff, 0x7f, 0xff, 0x7f, 0xff, 0x7f, 0xff,
            0x7f, 0xff,
        ],
        &[0, 4, 0, 0, 0xff, 0xff, 0, 0x23, 0, 0x0b, 0xff, 0xff, 0xff, 0xff],
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
    ];
    let mut refused = 0;
    for code in (0x11f..=0x1a1).filter(|code| !skipped.contains(code)) {
        for handles in [&[][..], &[owner], &[key.handle], &[session], &[owner, key.handle], &[key.handle; 2]]
        {
            for passwords in 0..=handles.len() {
                for filling in fillings {
                    let response = bench.raw(&blind(code, handles, passwords, filling));
                    refused += usize::from(u32_at(&response, 6) != 0);
                }
            }
        }
        survives_saving(&mut bench, &format!("{code:x}"));
    }
    assert!(refused > 5000, "{refused}");
}
