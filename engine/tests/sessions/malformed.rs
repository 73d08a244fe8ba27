//! Commands that are not well-formed.

use crate::client::{Auth, Bench, Cmd, RS_PW, attr, cc, rc, u32_at};
use crate::crypto::{SHA256, Symmetric};
use crate::setup::{Start, get_random, password, sign, with};

const BAD_TAG: u32 = 0x1e;
const COMMAND_SIZE: u32 = 0x142;
const COMMAND_CODE: u32 = 0x143;
const SIZE: u32 = 0x95;
const INSUFFICIENT: u32 = 0x9a;
const RESERVED_BITS: u32 = 0xa1;

fn code(bench: &mut Bench, bytes: &[u8]) -> u32 {
    u32_at(&bench.raw(bytes), 6)
}

/// A command with an authorization area of which all is given, its size, too.
fn with_area(size: u32, rest: &[u8]) -> Vec<u8> {
    let body = [&size.to_be_bytes()[..], rest].concat();
    [&[0x80, 2][..], &(body.len() as u32 + 10).to_be_bytes(), &cc::GET_RANDOM.to_be_bytes(), &body].concat()
}

#[test]
fn headers_are_checked_field_by_field() {
    let mut bench = Bench::new();
    let good = bench.build(&get_random(vec![])).bytes;
    assert_eq!(code(&mut bench, &good), 0);
    for n in 0..good.len() {
        let expected = if n < 2 { BAD_TAG } else { COMMAND_SIZE };
        assert_eq!(code(&mut bench, &good[..n]), expected, "{n} bytes");
    }
    for tag in [0u16, 0x8000, 0x8003, 0x00c4, 0xffff] {
        let bytes = [&tag.to_be_bytes()[..], &good[2..]].concat();
        assert_eq!(code(&mut bench, &bytes), BAD_TAG);
    }
    // TPM_ORD_GetTicks: who asks a TPM 1.2 must not be answered by one.
    assert_eq!(bench.raw(&[0, 0xc1, 0, 0, 0, 10, 0, 0, 0, 0xf1]), [0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0x1e]);
    for size in [0, 9, 10, 11, 13, u32::MAX] {
        let bytes = [&good[..2], &u32::to_be_bytes(size), &good[6..]].concat();
        assert_eq!(code(&mut bench, &bytes), COMMAND_SIZE);
    }
    let short = [&good[..2], &9u32.to_be_bytes(), &good[6..9]].concat();
    assert_eq!(code(&mut bench, &short), COMMAND_SIZE);
    for cc in [0u32, 0x11e, 0x1fff, 0x2000_0000, u32::MAX] {
        let bytes = [&good[..6], &cc.to_be_bytes(), &good[10..]].concat();
        assert_eq!(code(&mut bench, &bytes), COMMAND_CODE);
    }
}

#[test]
fn the_size_of_the_authorization_area_must_be_possible() {
    let mut bench = Bench::new();
    let area = [0x40, 0, 0, 9, 0, 0, 0, 0, 0];
    for (size, rest) in [(0, &area[..]), (8, &area), (10, &area), (u32::MAX, &area), (9, &area[..8])] {
        assert_eq!(code(&mut bench, &with_area(size, rest)), rc::AUTHSIZE);
    }
    for n in 10..14 {
        let mut none = with_area(0, &[]);
        none.truncate(n);
        none[5] = n as u8;
        assert_eq!(code(&mut bench, &none), rc::AUTHSIZE, "{n} bytes");
    }
}

#[test]
fn an_area_that_ends_within_a_session_names_that_session() {
    let mut bench = Bench::new();
    let key = bench.free_key();
    let (one, two) = (bench.start(&Start::default()), bench.start(&Start::default()));
    let mut cmd = sign(&key, with(one));
    cmd.auths.push(Auth::Session(two, 0x81));
    let sent = bench.build(&cmd);
    let size = u32_at(&sent.bytes, 14);
    for n in 9..size {
        let mut bytes = sent.bytes.clone();
        bytes[14..18].copy_from_slice(&n.to_be_bytes());
        // The first session has no HMAC key but the authorization value: 4 + 2 + 32 + 1 + 2 + 32 bytes.
        let expected = match n {
            0..73 => rc::session(INSUFFICIENT, 1),
            73 => rc::bad_auth(1),
            _ => rc::session(INSUFFICIENT, 2),
        };
        assert_eq!(code(&mut bench, &bytes), expected, "{n} of {size} bytes");
    }
    let response = bench.raw(&sent.bytes);
    bench.finish(&cmd, &sent, &response).unwrap();
}

#[test]
fn three_sessions_are_the_most() {
    let mut bench = Bench::new();
    let key = bench.free_key();
    let mut cmd = sign(&key, password(&key));
    cmd.auths = vec![password(&key); 4];
    assert_eq!(bench.fails(&cmd), rc::size(4));
}

#[test]
fn a_password_has_no_nonce_and_sessions_have_no_reserved_attributes() {
    let mut bench = Bench::new();
    let key = bench.free_key();
    let session = bench.start(&Start::default());
    let entry = |handle: u32, nonce: &[u8], attributes| {
        let nonce = crate::client::b2(nonce);
        [&handle.to_be_bytes()[..], &nonce, &[attributes], &[0, 4], b"free"].concat()
    };
    let mut run = |entry: &[u8]| {
        let params = sign(&key, password(&key)).params;
        let size = (entry.len() as u32).to_be_bytes();
        let body = [&key.handle.to_be_bytes()[..], &size, entry, &params].concat();
        let header = [&[0x80, 2][..], &(body.len() as u32 + 10).to_be_bytes(), &cc::SIGN.to_be_bytes()];
        code(&mut bench, &[&header.concat()[..], &body].concat())
    };
    assert_eq!(run(&entry(RS_PW, b"", 0)), 0);
    assert_eq!(run(&entry(RS_PW, b"n", 0)), rc::nonce(1));
    let s = 0x0200_0000;
    for reserved in [0x08, 0x10, 0x18] {
        assert_eq!(run(&entry(RS_PW, b"", reserved)), rc::session(RESERVED_BITS, 1));
        assert_eq!(run(&entry(s, &[1; 16], reserved)), rc::session(RESERVED_BITS, 1));
    }
    assert_eq!(run(&entry(s, &[1; 65], 1)), rc::size(1));
    assert_eq!(run(&entry(s, &[1; 64], 1)), rc::bad_auth(1));
    for handle in [0, 0x0100_0001, 0x4000_0001, 0x4000_0007, 0x8000_0000, 0x0200_0040, 0x03ff_ffff] {
        assert_eq!(run(&entry(handle, &[1; 16], 1)), rc::value(1), "{handle:x}");
    }
    assert_eq!(run(&entry(0x0200_0001, &[1; 16], 1)), rc::reference_s(1));
    assert_eq!(run(&entry(0x0300_0001, &[1; 16], 1)), rc::reference_s(1));
    assert_eq!(run(&entry(0x0300_0000, &[1; 16], 1)), rc::handle(1));
    assert_eq!(bench.sessions[session].handle, s);
}

#[test]
fn commands_for_which_sessions_make_no_sense_take_none() {
    let mut bench = Bench::new();
    let session = bench.start(&Start::default());
    let params = bench.sessions[session].handle.to_be_bytes().to_vec();
    let auths = vec![Auth::Session(session, 0x81)];
    let cmd = Cmd { code: cc::FLUSH_CONTEXT, auths, params, ..Cmd::default() };
    assert_eq!(bench.fails(&cmd), rc::AUTH_CONTEXT);
}

/// The reference read a size where no two bytes were left, and decrypted as many bytes as that said, over the end of the buffer.
#[test]
fn cve_2023_1017_and_1018_a_parameter_that_is_too_short_is_not_decrypted() {
    let mut bench = Bench::new();
    let key = bench.free_key();
    for symmetric in [Symmetric::Aes(128), Symmetric::Aes(256), Symmetric::Xor(SHA256)] {
        let session = bench.start(&Start { symmetric, ..Start::default() });
        let decrypt = Auth::Session(session, attr::CONTINUE | attr::DECRYPT);
        let good = sign(&key, decrypt.clone());
        // With the key's authorization in the decrypting session, and with a session that only decrypts.
        let alone = Cmd { code: cc::STIR_RANDOM, auths: vec![decrypt], ..Cmd::default() };
        for cmd in [good, alone] {
            for (params, expected) in [
                (vec![], Some(INSUFFICIENT)),
                (vec![0], Some(INSUFFICIENT)),
                (vec![0xff], Some(INSUFFICIENT)),
                (vec![0, 1], Some(SIZE)),
                (vec![0, 2, 7], Some(SIZE)),
                (vec![0xff; 2], Some(SIZE)),
                (vec![0xff; 40], Some(SIZE)),
                ([&[0, 33][..], &[7; 32]].concat(), Some(SIZE)),
                // What is there is decrypted, and what it means is the command's business.
                ([&[0, 32][..], &[7; 32]].concat(), None),
            ] {
                // The client does not encrypt what is not there.
                let rc = bench.run(&Cmd { params: params.clone(), ..cmd.clone() }).err();
                match expected {
                    Some(base) => assert_eq!(rc, Some(rc::session(base, 1)), "{params:02x?}"),
                    None => assert!(rc.is_none_or(|rc| rc & 0x840 == 0x40), "{rc:x?}"),
                }
            }
        }
        bench.flush(session);
    }
}

#[test]
fn startup_comes_first_and_once() {
    let mut bench = Bench::manufactured();
    const INITIALIZE: u32 = 0x100;
    assert_eq!(bench.fails(&get_random(vec![])), INITIALIZE);
    let startup = |params: &[u8]| Cmd { code: cc::STARTUP, params: params.to_vec(), ..Cmd::default() };
    assert_eq!(bench.fails(&startup(&[0])), 0x1da);
    bench.ok(&startup(&[0, 0]));
    assert_eq!(bench.fails(&startup(&[0])), INITIALIZE);
}
