//! Faults that other TPMs had in code like ours, each named for what it is known as.

use crate::client::{Auth, Bench, Cmd, Entity, NULL, b2, cc, u32_at};
use crate::crypto::SHA256;
use crate::setup::{Start, USER_WITH_AUTH, password, with};
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
    let session = bench.start(&Start::policy());
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

/// libtpms wrote an object into a slot that had held a sequence, and took sizes that the sequence had left there for the object's.
#[test]
fn cve_2021_3746_nothing_of_what_was_in_a_slot_stays() {
    let mut bench = Bench::new();
    let makers: [fn(&mut Bench) -> u32; 4] = [
        |b| rsa_key(b),
        |b| b.free_key().handle,
        |b| hash_sequence(b, 0x0b),
        // Of an event: every bank has its own.
        |b| hash_sequence(b, 0x10),
    ];
    for first in makers {
        for second in makers {
            let slot = first(&mut bench);
            survives_saving(&mut bench, "first");
            flush(&mut bench, slot);
            assert_eq!(second(&mut bench), slot);
            survives_saving(&mut bench, "second");
            bench.restart_daemon();
            flush(&mut bench, slot);
        }
    }
}

fn flush(bench: &mut Bench, handle: u32) {
    let params = handle.to_be_bytes().to_vec();
    bench.ok(&Cmd { code: cc::FLUSH_CONTEXT, params, ..Cmd::default() });
}

/// `TPM2_HashSequenceStart`.
fn hash_sequence(bench: &mut Bench, hash: u16) -> u32 {
    const HASH_SEQUENCE_START: u32 = 0x186;
    let params = [&[0, 0][..], &hash.to_be_bytes()].concat();
    let cmd = Cmd { code: HASH_SEQUENCE_START, params, returns_handle: true, ..Cmd::default() };
    bench.ok(&cmd).handle.unwrap()
}

/// libtpms returned the IV that it was given, not the one to go on with: in CBC, CFB and OFB two pieces of a message were encrypted with
/// the same one. With OpenSSL 3 it came back later under another number.
#[test]
fn cve_2021_3446_and_2026_21444_the_iv_to_go_on_with_comes_back() {
    const ENCRYPT_DECRYPT2: u32 = 0x193;
    let mut bench = Bench::new();
    // An unrestricted AES-128 key whose mode the caller chooses.
    let key = key(&mut bench, 0x25, SIGN_AND_DECRYPT, &[0, 6, 0, 0x80, 0, 0x10, 0, 0]);
    let mut run = |mode: u16, decrypt: bool, iv: &[u8], data: &[u8]| {
        let mode = mode.to_be_bytes();
        let params = [&b2(data)[..], &[u8::from(decrypt)], &mode, &b2(iv)].concat();
        let cmd = Cmd {
            code: ENCRYPT_DECRYPT2,
            handles: vec![key.clone()],
            authorized: 1,
            auths: vec![Auth::Password(vec![])],
            params,
            ..Cmd::default()
        };
        let params = bench.ok(&cmd).params;
        let mut rest = &params[..];
        let out = crate::client::take_2b(&mut rest).to_vec();
        (out, crate::client::take_2b(&mut rest).to_vec())
    };
    let message: Vec<u8> = (0..96).collect();
    let iv = [0x42; 16];
    for mode in [0x40, 0x41, 0x42, 0x43] {
        let (whole, last) = run(mode, false, &iv, &message);
        assert_ne!(last, iv, "mode {mode:x}");
        for cut in [16, 32, 80] {
            let (mut pieces, next) = run(mode, false, &iv, &message[..cut]);
            let (rest, end) = run(mode, false, &next, &message[cut..]);
            pieces.extend(rest);
            assert_eq!((&pieces, &end), (&whole, &last), "mode {mode:x}, {cut} bytes");
            let (mut plain, next) = run(mode, true, &iv, &whole[..cut]);
            let (rest, end) = run(mode, true, &next, &whole[cut..]);
            plain.extend(rest);
            assert_eq!((&plain, &end), (&message, &last), "mode {mode:x}, {cut} bytes");
        }
    }
}

/// Large, so that it fills its slot.
fn rsa_key(bench: &mut Bench) -> u32 {
    bench.primary(b"", &crate::setup::storage_template(true)).0.handle
}

/// The reference compared as much of a template hash as the session had, also where that was a cpHash, and for commands without a template.
#[test]
fn comparison_of_template_hashes() {
    const POLICY_TEMPLATE: u32 = 0x190;
    const POLICY_CP_HASH: u32 = 0x16e;
    const SET_PRIMARY_POLICY: u32 = 0x12e;
    const CREATE_LOADED: u32 = 0x191;
    const POLICY_FAIL: u32 = 0x99d;
    let template = crate::setup::storage_template(false);
    let hash = SHA256.hash(&[&template]);
    let policy = |code: u32| SHA256.hash(&[&[0; 32], &code.to_be_bytes(), &hash]);
    let sensitive = b2(&[0; 4]);
    let primary = |template: &[u8]| (cc::CREATE_PRIMARY, [&sensitive[..], &b2(template), &[0; 6]].concat());
    let loaded = |template: &[u8]| (CREATE_LOADED, [&sensitive[..], &b2(template)].concat());
    let mut other = template.clone();
    *other.last_mut().unwrap() ^= 1;
    let longer = [&template[..], &[0]].concat();
    // A command that has no template, whose parameters look as if it had one.
    let hierarchy_change_auth = (cc::HIERARCHY_CHANGE_AUTH, b2(&[0; 4]));
    for (set, command, expected) in [
        (POLICY_TEMPLATE, primary(&template), None),
        (POLICY_TEMPLATE, loaded(&template), None),
        (POLICY_TEMPLATE, primary(&other), Some(POLICY_FAIL)),
        (POLICY_TEMPLATE, loaded(&other), Some(POLICY_FAIL)),
        (POLICY_TEMPLATE, primary(&longer), Some(POLICY_FAIL)),
        (POLICY_TEMPLATE, loaded(&longer), Some(POLICY_FAIL)),
        (POLICY_TEMPLATE, primary(&template[..template.len() - 1]), Some(POLICY_FAIL)),
        (POLICY_TEMPLATE, hierarchy_change_auth, Some(POLICY_FAIL)),
        // The same digest as a cpHash is no template hash.
        (POLICY_CP_HASH, primary(&template), Some(POLICY_FAIL)),
    ] {
        let mut bench = Bench::new();
        let owner = bench.owner();
        bench.ok(&Cmd {
            code: SET_PRIMARY_POLICY,
            handles: vec![owner.clone()],
            authorized: 1,
            auths: vec![password(&owner)],
            params: [b2(&policy(set)), vec![0, 0x0b]].concat(),
            ..Cmd::default()
        });
        let session = bench.start(&Start::policy());
        let handle = Entity::permanent(bench.sessions[session].handle, b"");
        bench.ok(&Cmd { code: set, handles: vec![handle], params: b2(&hash), ..Cmd::default() });
        let (code, params) = command;
        let result = bench.run(&Cmd {
            code,
            handles: vec![owner],
            authorized: 1,
            auths: vec![with(session)],
            params,
            returns_handle: true,
            ..Cmd::default()
        });
        assert_eq!(result.err(), expected, "{code:x} after {set:x}");
    }
}
