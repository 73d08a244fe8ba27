//! Parameter encryption.

use crate::client::{Auth, Bench, Cmd, Entity, attr, b2, cc, rc, take_2b};
use crate::crypto::{ALGS, SHA1, SHA256, SHA384, Symmetric};
use crate::setup::{Start, get_random, password, quote, sign, with};

const CIPHERS: [Symmetric; 9] = [
    Symmetric::Aes(128),
    Symmetric::Aes(192),
    Symmetric::Aes(256),
    Symmetric::Camellia(128),
    Symmetric::Camellia(256),
    Symmetric::Tdes(128),
    Symmetric::Tdes(192),
    Symmetric::Xor(SHA256),
    // Its hash is not that of the session, which alone counts.
    Symmetric::Xor(SHA1),
];

/// The data that a quote carries.
fn extra_data(reply: &[u8]) -> Vec<u8> {
    let mut attest = take_2b(&mut &reply[..]);
    assert_eq!(attest[..6], [0xff, 0x54, 0x43, 0x47, 0x80, 0x18]);
    attest = &attest[6..];
    take_2b(&mut attest);
    take_2b(&mut attest).to_vec()
}

/// Every way to give decryption and encryption to the sessions of a command; a session without a use audits, and there is one
/// such session at most.
fn ways() -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for n in 1..=3usize {
        for d in 0..=n {
            for e in 0..=n {
                let mut uses = vec![attr::CONTINUE; n];
                if d < n {
                    uses[d] |= attr::DECRYPT;
                }
                if e < n {
                    uses[e] |= attr::ENCRYPT;
                }
                let idle: Vec<usize> = (1..n).filter(|i| uses[*i] == attr::CONTINUE).collect();
                if idle.len() < 2 {
                    idle.iter().for_each(|i| uses[*i] |= attr::AUDIT);
                    out.push(uses);
                }
            }
        }
    }
    out
}

#[test]
fn both_parameters_go_encrypted_under_every_cipher_whichever_sessions_do_it() {
    for cipher in CIPHERS {
        let mut bench = Bench::new();
        let key = bench.protected_key();
        let starts = [
            Start { symmetric: cipher, alg: SHA256, ..Start::default() },
            Start { symmetric: cipher, alg: SHA384, bind: Some(key.clone()), ..Start::default() },
            Start { symmetric: cipher, alg: SHA1, bind: Some(bench.owner()), ..Start::default() },
        ];
        let sessions: Vec<usize> = starts.iter().map(|s| bench.start(s)).collect();
        for uses in ways() {
            for first in 0..3 {
                let order = [first, (first + 1) % 3, (first + 2) % 3];
                let auths: Vec<_> =
                    uses.iter().zip(order).map(|(u, i)| Auth::Session(sessions[i], *u)).collect();
                for data in [&[][..], b"1", b"sixteen bytes...", b"and more of them than one block has"] {
                    let reply = bench.ok(&quote(&key, data, auths.clone()));
                    assert_eq!(extra_data(&reply.params), data, "{cipher:?} {uses:x?} {order:?}");
                }
                // A password in front of those that encrypt.
                let mut auths = auths;
                if auths.len() > 1 {
                    auths[0] = password(&key);
                    let reply = bench.ok(&quote(&key, b"data", auths));
                    assert_eq!(extra_data(&reply.params), b"data");
                }
            }
        }
    }
}

#[test]
fn salted_sessions_encrypt_for_commands_without_authorization() {
    let mut bench = Bench::new();
    let salt = Some(bench.ecc_salt_key());
    for alg in ALGS {
        for symmetric in CIPHERS {
            let session = bench.start(&Start { alg, symmetric, salt: salt.clone(), ..Start::default() });
            let reply = bench.ok(&get_random(vec![Auth::Session(session, attr::CONTINUE | attr::ENCRYPT)]));
            assert_eq!(reply.params[..2], [0, 16]);
            let stir = Cmd {
                code: cc::STIR_RANDOM,
                auths: vec![Auth::Session(session, attr::DECRYPT)],
                params: b2(b"entropy"),
                ..Cmd::default()
            };
            bench.ok(&stir);
        }
    }
}

#[test]
fn what_travels_is_not_what_was_meant() {
    let mut bench = Bench::new();
    let key = bench.free_key();
    let session = bench.start(&Start { symmetric: Symmetric::Aes(256), ..Start::default() });
    let cmd = quote(
        &key,
        b"a secret of some length",
        vec![Auth::Session(session, attr::CONTINUE | attr::DECRYPT | attr::ENCRYPT)],
    );
    let sent = bench.build(&cmd);
    let response = bench.raw(&sent.bytes);
    let holds = |bytes: &[u8]| bytes.windows(8).any(|w| w == b"a secret");
    assert!(!holds(&sent.bytes) && !holds(&response));
    assert!(holds(&bench.finish(&cmd, &sent, &response).unwrap().params));
}

#[test]
fn the_first_hmac_covers_the_nonces_of_the_sessions_that_encrypt() {
    let mut bench = Bench::new();
    let key = bench.free_key();
    let start = Start { symmetric: Symmetric::Aes(128), ..Start::default() };
    let (one, two, three) = (bench.start(&start), bench.start(&start), bench.start(&start));
    let both = Auth::Session(two, attr::CONTINUE | attr::DECRYPT | attr::ENCRYPT);
    let decrypts = Auth::Session(two, attr::CONTINUE | attr::DECRYPT);
    let encrypts = Auth::Session(three, attr::CONTINUE | attr::ENCRYPT);
    for auths in [
        vec![with(one), both],
        vec![with(one), decrypts.clone(), encrypts.clone()],
        vec![with(one), encrypts.clone()],
        vec![Auth::Session(one, attr::CONTINUE | attr::DECRYPT), encrypts],
        vec![Auth::Session(one, attr::CONTINUE | attr::ENCRYPT), decrypts],
    ] {
        let cmd = quote(&key, b"data", auths);
        assert_eq!(bench.fails(&Cmd { omits_other_nonces: true, ..cmd.clone() }), rc::bad_auth(1));
        bench.ok(&cmd);
    }
}

#[test]
fn encryption_is_for_commands_that_allow_it_and_for_one_session_each_way() {
    let mut bench = Bench::new();
    let key = bench.free_key();
    let start = Start { symmetric: Symmetric::Aes(128), ..Start::default() };
    let (one, two) = (bench.start(&start), bench.start(&start));
    let plain = bench.start(&Start::default());
    let (d, e) = (attr::CONTINUE | attr::DECRYPT, attr::CONTINUE | attr::ENCRYPT);

    assert_eq!(bench.fails(&get_random(vec![Auth::Session(one, d)])), rc::attributes(1));
    assert_eq!(bench.fails(&sign(&key, Auth::Session(one, e))), rc::attributes(1));
    assert_eq!(bench.fails(&get_random(vec![Auth::Session(plain, e)])), rc::symmetric(1));
    assert_eq!(bench.fails(&sign(&key, Auth::Session(plain, d))), rc::symmetric(1));
    for use_ in [d, e] {
        let auths = vec![Auth::Session(one, use_), Auth::Session(two, use_)];
        assert_eq!(bench.fails(&quote(&key, b"", auths)), rc::attributes(2));
    }
}

#[test]
fn a_changed_ciphertext_or_a_size_that_lies_does_not_get_through() {
    let mut bench = Bench::new();
    let key = bench.free_key();
    let session = bench.start(&Start { symmetric: Symmetric::Aes(128), ..Start::default() });
    let auth = Auth::Session(session, attr::CONTINUE | attr::DECRYPT);
    let sent = bench.build(&sign(&key, auth.clone()));
    let mut bytes = sent.bytes;
    let last = bytes.len() - 20;
    bytes[last] ^= 1;
    assert_eq!(bench.raw(&bytes)[6..], rc::bad_auth(1).to_be_bytes());

    let mut lies = sign(&key, auth.clone());
    lies.params[0] = 0xff;
    assert_eq!(bench.fails(&lies), rc::size(1));
    let wrong = Entity { auth: b"wrong".to_vec(), ..key.clone() };
    assert_eq!(bench.fails(&Cmd { handles: vec![wrong], ..lies }), rc::bad_auth(1));
    bench.ok(&sign(&key, auth));
}
