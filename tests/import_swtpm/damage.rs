//! States that are not whole, and keys that do not fit, end in a sentence.

use vtpm_engine::foreign::Foreign;
use vtpm_protocol::tpm::*;
use vtpmd::foreign::{KeyOptions, StateDir, SwtpmError};

use crate::chip::OWNER;
use crate::primaries::{ecc, rsa};
use crate::source::Source;

/// A state with something of everything.
fn source() -> Source {
    let source = Source::new();
    source.boot(|chip| {
        let made = chip.primary(OWNER, &ecc(TpmEccCurve::NIST_P256)).unwrap().handle;
        chip.persist(made, 0x8100_0001);
        chip.flush(made);
        let write = TpmaNv::OWNER_WRITE | TpmaNv::OWNER_READ;
        chip.define(0x0150_0000, write, 8);
        chip.nv_write(0x0150_0000, b"eight by");
        chip.define(0x0150_0001, write | TpmaNv::ORDERLY, 4);
        chip.nv_write(0x0150_0001, b"four");
        chip.extend(1, [1; 32]);
        chip.shutdown(TpmSu::STATE);
    });
    source
}

#[test]
fn every_truncation_is_refused() {
    let state = source().state(None);
    assert!(Foreign::read(&state).is_ok());
    for end in 0..state.len() {
        assert!(Foreign::read(&state[..end]).is_err(), "{end}");
    }
    assert!(Foreign::read(&[&state[..], &[0]].concat()).is_err());
}

/// A format without a checksum cannot tell every change; none may make the engine fall over.
#[test]
fn no_change_of_a_byte_is_answered_otherwise_than_by_a_sentence_or_a_tpm_that_works() {
    let source = source();
    let state = source.state(None);
    let (mut refused, mut taken) = (0, 0);
    for at in 0..state.len() {
        let mut bad = state.to_vec();
        bad[at] ^= 1 << (at % 8);
        match Foreign::read(&bad) {
            Err(error) => {
                assert!(!vtpmd::sentence(&error).is_empty());
                refused += 1;
            }
            Ok(_) if at % 16 == 0 => {
                let mut ours = crate::source::Ours::new(&bad);
                let mut chip = ours.chip();
                chip.startup();
                chip.run(TpmCc::GET_RANDOM, &[], &[], &8u16).unwrap();
                taken += 1;
            }
            Ok(_) => taken += 1,
        }
    }
    println!("{refused} refused, {taken} taken of {}", state.len());
    assert!(refused > state.len() / 10);
}

#[test]
fn changes_of_structure_are_refused() {
    let state = source().state(None);
    // Numbers that are all ones, or none, at any place: sizes, counts, versions.
    for at in (0..state.len()).step_by(3) {
        for value in [0u8, 0xff] {
            let mut bad = state.to_vec();
            for byte in bad.iter_mut().skip(at).take(4) {
                *byte = value;
            }
            let _either = Foreign::read(&bad);
        }
    }
    let wrong = |at: usize, value: u8| {
        let mut bad = state.to_vec();
        bad[at] = value;
        vtpmd::sentence(&Foreign::read(&bad).err().unwrap())
    };
    assert!(wrong(2, 0).contains("not the state of a TPM 2.0 of libtpms"));
    // The least version that a reader must know.
    assert!(wrong(7, 9).contains("newer libtpms"), "{}", wrong(7, 9));
    let at = state.windows(4).position(|bytes| bytes == 0x1221_3443u32.to_be_bytes()).unwrap();
    assert!(wrong(at + 5, 9).contains("newer libtpms"));
    // A key whose private part is another's.
    let name = state.windows(4).rposition(|bytes| bytes == 0x75be_73afu32.to_be_bytes()).unwrap();
    assert!(wrong(name + 24, state[name + 24] ^ 1).contains("0x81000001"), "{}", wrong(name + 24, 1));
    assert!(Foreign::read(&vec![0; 256 * 1024 + 1]).err().unwrap().to_string().contains("too many"));
}

#[test]
fn every_form_of_the_key_opens_the_state_and_another_does_not() {
    let digits = "00112233445566778899aabbccddeeff";
    let long = format!("0x{digits}{digits}");
    let files = Source::new();
    let (key, key_256) = (files.file("key", digits.as_bytes()), files.file("key256", long.as_bytes()));
    let binary = files.file("binary", &[0x42; 16]);
    let password = files.file("password", b"correct horse battery staple\n");
    let other = files.file("other", b"another passphrase");
    for (options, wrong, wrong_size) in [
        (
            format!("file={key},mode=aes-cbc,format=hex"),
            format!("file={binary},format=binary"),
            format!("file={key_256},mode=aes-256-cbc"),
        ),
        (
            format!("file={key_256},mode=aes-256-cbc"),
            format!("pwdfile={other},mode=aes-256-cbc"),
            key.clone(),
        ),
        (
            format!("file={binary},format=binary,mode=aes-128-cbc"),
            key.clone(),
            format!("file={key_256},mode=aes-256-cbc"),
        ),
        (
            format!("pwdfile={password}"),
            format!("pwdfile={other}"),
            format!("pwdfile={password},mode=aes-256-cbc"),
        ),
        (
            format!("pwdfile={password},kdf=sha512,mode=aes-256-cbc"),
            format!("pwdfile={password},mode=aes-256-cbc"),
            key.clone(),
        ),
    ] {
        let source = Source::new().with(&["--key", &options]);
        let public = source.boot(|chip| {
            let made = chip.primary(OWNER, &rsa(2048)).unwrap();
            chip.persist(made.handle, 0x8100_0001);
            made.public
        });
        let dir = StateDir::open(&source.path()).unwrap();
        let read = |options: &str| dir.read(Some(&options.parse::<KeyOptions>().unwrap().load().unwrap()));
        let state = read(&options).unwrap();
        let mut ours = crate::source::Ours::new(&state);
        let mut chip = ours.chip();
        chip.startup();
        assert_eq!(chip.read_public(0x8100_0001).unwrap(), public, "{options}");
        assert!(matches!(read(&wrong), Err(SwtpmError::WrongKey(_))), "{options}");
        assert!(matches!(read(&wrong_size), Err(SwtpmError::KeySize { .. })), "{options}");
        assert!(matches!(dir.read(None), Err(SwtpmError::NeedsKey(_))), "{options}");
        // A changed ciphertext is told from a state.
        let mut bytes = std::fs::read(source.permall()).unwrap();
        for at in [20, bytes.len() / 2] {
            bytes[at] ^= 1;
            std::fs::write(source.permall(), &bytes).unwrap();
            assert!(matches!(read(&options), Err(SwtpmError::WrongKey(_))), "{options}");
        }
    }
}

#[test]
fn files_that_are_no_state_of_swtpm_are_refused() {
    let source = source();
    let dir = StateDir::open(&source.path()).unwrap();
    let good = std::fs::read(source.permall()).unwrap();
    let sentence = |bytes: &[u8]| {
        std::fs::write(source.permall(), bytes).unwrap();
        vtpmd::sentence(&dir.read(None).err().unwrap())
    };
    for end in [0, 5, 9, 10, 15, good.len() - 1] {
        assert!(sentence(&good[..end]).contains("damaged"), "{end}");
    }
    let with = |at: usize, value: u8| {
        let mut bad = good.clone();
        bad[at] = value;
        sentence(&bad)
    };
    assert!(with(1, 9).contains("newer swtpm"));
    assert!(with(3, 9).contains("header"));
    assert!(with(11, 9).contains("no state"));
    assert!(with(12, 9).contains("cut off"));
    assert!(sentence(&vec![0; 3 << 20]).contains("too long"));
    std::fs::write(source.permall(), &good).unwrap();
    let key = source.file("key", b"00112233445566778899aabbccddeeff");
    let key = key.parse::<KeyOptions>().unwrap().load().unwrap();
    assert!(matches!(dir.read(Some(&key)), Err(SwtpmError::NeedsNoKey(_))));
}
