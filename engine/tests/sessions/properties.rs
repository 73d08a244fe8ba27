//! Whatever comes in: no panic, a well-formed response, no change by what fails, and nothing but what was committed. All of this is
//! checked by [`Bench::raw`].

use crate::client::{Auth, Bench, Cmd, Entity, attr, b2, cc};
use crate::crypto::{SHA1, SHA512, Symmetric};
use crate::setup::{Start, change_auth, get_random, password, quote, sign, storage_template, with};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use vtpm_engine::RecordKey;
use vtpm_engine::command::table::COMMANDS;
use vtpm_engine::state::Session;
use vtpm_protocol::codec::decode_exact;

/// What is done to a command.
#[derive(Clone, Debug)]
enum Mutation {
    Set(Index, u8),
    Flip(Index, u8),
    Remove(Index, u8),
    Insert(Index, Vec<u8>),
    /// A 16-bit number, as sizes and algorithms are.
    Short(Index, u16),
    /// A 32-bit number, as handles and sizes are.
    Word(Index, u32),
    Code(Index),
}

fn interesting() -> impl Strategy<Value = u32> {
    prop_oneof![
        any::<u32>(),
        prop::sample::select(vec![
            0,
            1,
            10,
            23,
            24,
            0x0100_0001,
            0x0200_0000,
            0x0200_0001,
            0x0300_0001,
            0x0300_0002,
            0x4000_0001,
            0x4000_0007,
            0x4000_0009,
            0x4000_000a,
            0x4000_000b,
            0x4000_000c,
            0x4000_0110,
            0x4000_0111,
            0x8000_0000,
            0x8000_0001,
            0x8100_0000,
            0xa000_0000,
            u32::MAX,
        ]),
    ]
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(i, b)| Mutation::Set(i, b)),
        (at(), 0..8u8).prop_map(|(i, b)| Mutation::Flip(i, b)),
        (at(), any::<u8>()).prop_map(|(i, n)| Mutation::Remove(i, n)),
        (at(), vec(any::<u8>(), 1..40)).prop_map(|(i, b)| Mutation::Insert(i, b)),
        (at(), prop_oneof![0..0x50u16, any::<u16>()]).prop_map(|(i, n)| Mutation::Short(i, n)),
        (at(), interesting()).prop_map(|(i, n)| Mutation::Word(i, n)),
        at().prop_map(Mutation::Code),
    ]
}

fn apply(bytes: &mut Vec<u8>, mutation: &Mutation) {
    let put = |bytes: &mut Vec<u8>, i: usize, new: &[u8]| {
        bytes.iter_mut().skip(i).zip(new).for_each(|(b, n)| *b = *n);
    };
    match mutation {
        _ if bytes.is_empty() => {}
        Mutation::Set(i, b) => *i.get_mut(bytes) = *b,
        Mutation::Flip(i, b) => *i.get_mut(bytes) ^= 1 << b,
        Mutation::Remove(i, n) => {
            let from = i.index(bytes.len());
            let to = (from + usize::from(*n)).min(bytes.len());
            bytes.drain(from..to);
        }
        Mutation::Insert(i, new) => {
            let at = i.index(bytes.len());
            bytes.splice(at..at, new.iter().copied());
        }
        Mutation::Short(i, n) => put(bytes, i.index(bytes.len()), &n.to_be_bytes()),
        Mutation::Word(i, n) => put(bytes, i.index(bytes.len()), &n.to_be_bytes()),
        Mutation::Code(i) => put(bytes, 6, &i.get(COMMANDS).code.0.to_be_bytes()),
    }
}

fn fix_size(bytes: &mut [u8]) {
    let size = (bytes.len() as u32).to_be_bytes();
    if let Some(field) = bytes.get_mut(2..6) {
        field.copy_from_slice(&size);
    }
}

/// A TPM with two keys and three sessions, and commands that succeed on it.
fn corpus() -> (Bench, Vec<Cmd>) {
    let mut bench = Bench::new();
    let (protected, free) = (bench.protected_key(), bench.free_key());
    let cipher = bench.start(&Start { symmetric: Symmetric::Aes(128), ..Start::default() });
    let bound = bench.start(&Start {
        bind: Some(protected.clone()),
        symmetric: Symmetric::Xor(SHA1),
        alg: SHA512,
        ..Start::default()
    });
    let policy = bench.start(&Start::policy());
    let policy_handle = Entity::permanent(bench.sessions[policy].handle, b"");
    let both = Auth::Session(cipher, attr::CONTINUE | attr::DECRYPT | attr::ENCRYPT);
    let encrypts = Auth::Session(cipher, attr::CONTINUE | attr::ENCRYPT);
    let selection = [0, 0, 0, 1, 0, 0x0b, 3, 1, 0, 0];
    let owner = bench.owner();
    let template = storage_template(false);
    let create = [b2(&[b2(b"auth"), b2(b"")].concat()), b2(&template), b2(b"info"), selection.to_vec()];
    let plain = |code, handles: Vec<Entity>, params: Vec<u8>| Cmd { code, handles, params, ..Cmd::default() };
    let cmds = vec![
        sign(&protected, password(&protected)),
        sign(&free, with(bound)),
        quote(&free, b"data", vec![both.clone()]),
        quote(&protected, b"data", vec![with(bound), both.clone()]),
        get_random(vec![Auth::Session(bound, attr::CONTINUE | attr::AUDIT), encrypts]),
        plain(cc::POLICY_PCR, vec![policy_handle.clone()], [&b2(&[])[..], &selection].concat()),
        plain(cc::POLICY_GET_DIGEST, vec![policy_handle], vec![]),
        plain(cc::READ_PUBLIC, vec![free.clone()], vec![]),
        change_auth(&owner, b"", password(&owner)),
        Cmd {
            code: cc::CREATE_PRIMARY,
            handles: vec![owner.clone()],
            authorized: 1,
            auths: vec![password(&owner)],
            params: create.concat(),
            returns_handle: true,
            ..Cmd::default()
        },
    ];
    (bench, cmds)
}

/// Takes the nonces over from the TPM, as responses to commands that nobody meant to send cannot be checked.
fn adopt_nonces(bench: &mut Bench) {
    for s in &mut bench.sessions {
        if let Some(record) = bench.world.saved.get(&RecordKey::Session(s.handle & 0x00ff_ffff)) {
            s.nonce_tpm = decode_exact::<Session>(&record[2..]).unwrap().nonce_tpm.to_vec();
        }
    }
}

#[test]
fn the_corpus_succeeds_as_it_is() {
    let (mut bench, cmds) = corpus();
    for cmd in cmds {
        bench.ok(&cmd);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes(commands in vec(vec(any::<u8>(), 0..200), 1..20)) {
        let mut bench = Bench::new();
        for command in commands {
            bench.raw(&command);
        }
    }

    #[test]
    fn any_command_with_an_arbitrary_body(
        commands in vec((any::<Index>(), any::<bool>(), vec(interesting(), 0..4), vec(any::<u8>(), 0..120)), 1..20),
    ) {
        let (mut bench, _) = corpus();
        for (code, sessions, words, rest) in commands {
            let mut bytes = vec![0x80, if sessions { 2 } else { 1 }, 0, 0, 0, 0];
            bytes.extend(code.get(COMMANDS).code.0.to_be_bytes());
            words.iter().for_each(|w| bytes.extend(w.to_be_bytes()));
            bytes.extend(rest);
            fix_size(&mut bytes);
            bench.raw(&bytes);
        }
    }

    #[test]
    fn good_commands_with_something_wrong(
        steps in vec((any::<Index>(), vec(mutation(), 0..4), any::<bool>()), 1..12),
    ) {
        let (mut bench, cmds) = corpus();
        for (which, mutations, fixed) in steps {
            let cmd = which.get(&cmds);
            let sent = bench.build(cmd);
            let mut bytes = sent.bytes.clone();
            mutations.iter().for_each(|m| apply(&mut bytes, m));
            if fixed {
                fix_size(&mut bytes);
            }
            bench.raw(&bytes);
            adopt_nonces(&mut bench);
        }
    }

    #[test]
    fn a_commit_that_fails_takes_the_command_back(which in any::<Index>()) {
        let (mut bench, cmds) = corpus();
        let cmd = which.get(&cmds);
        let sent = bench.build(cmd);
        let before = bench.tpm.records();
        bench.world.fail_commits = true;
        let response = bench.raw(&sent.bytes);
        let unchanged = bench.tpm.records() == before;
        prop_assert!(unchanged);
        bench.world.fail_commits = false;
        if response[6..10] != [0; 4] {
            // And it can be sent again as it was.
            let response = bench.raw(&sent.bytes);
            prop_assert!(bench.finish(cmd, &sent, &response).is_ok());
        }
    }
}
