//! Rewrap, between a Duplicate and an Import.

use super::*;

fn rewrap(
    tpm: &mut TestTpm,
    [old_parent, new_parent]: [TpmHandle; 2],
    name: &[u8],
    d: &Duplicated,
) -> Result<Duplicated, ResponseCode> {
    let parameters = (&d.duplicate, Tpm2bName::new(name).unwrap(), &d.seed);
    let (_, out) = tpm.run_with(TpmCc::REWRAP, &[old_parent, new_parent], &[b""], &parameters)?;
    let (duplicate, seed) = decode_exact(&out).unwrap();
    Ok(Duplicated { key: d.key.clone(), duplicate, seed })
}

/// A pair, and in the source a storage key under which duplicates go through a third hand.
fn with_agent(template: TpmtPublic) -> (Pair, TpmHandle, Tpm2bName) {
    let mut p = pair(ecc_storage_key(), hmac_key());
    let name = object_name(&p.public);
    let agent = create_primary_with(&mut p.source, TpmHandle::OWNER, template, b"", b"agent").unwrap().handle;
    (p, agent, name)
}

fn arrives(p: &mut Pair, d: &Duplicated, symmetric: TpmtSymDefObject) {
    let private = import(&mut p.target, p.parent, &p.public, &d.key, d, symmetric).unwrap();
    let moved = load_areas(&mut p.target, p.parent, &private, &p.public).unwrap();
    assert_eq!(secrets(&mut p.target, moved), secrets(&mut p.source, p.object));
    flush(&mut p.target, moved);
}

#[test]
fn a_duplicate_goes_from_parent_to_parent_whatever_is_inside() {
    for template in [ecc_storage_key(), rsa_storage_key()] {
        let (mut p, agent, name) = with_agent(template);
        for symmetric in [NO_SYM, AES_128] {
            let d = duplicate(&mut p.source, p.object, agent, &key(b""), symmetric).unwrap();
            let passed = rewrap(&mut p.source, [agent, p.new_parent], &name, &d).unwrap();
            assert_ne!(passed.seed, d.seed);
            arrives(&mut p, &passed, symmetric);
        }
    }
}

#[test]
fn the_outer_wrapper_alone_comes_off_or_on() {
    let (mut p, agent, name) = with_agent(ecc_storage_key());
    for symmetric in [NO_SYM, AES_128] {
        let d = duplicate(&mut p.source, p.object, agent, &key(b""), symmetric).unwrap();
        let bare = rewrap(&mut p.source, [agent, TpmHandle::NULL], &name, &d).unwrap();
        assert!(bare.seed.is_empty());
        assert_eq!(bare.duplicate.len() + 34, d.duplicate.len());
        arrives(&mut p, &bare, symmetric);
        let same = rewrap(&mut p.source, [TpmHandle::NULL; 2], &name, &bare).unwrap();
        assert_eq!((&same.duplicate, same.seed.is_empty()), (&bare.duplicate, true));
        let wrapped = rewrap(&mut p.source, [TpmHandle::NULL, p.new_parent], &name, &bare).unwrap();
        arrives(&mut p, &wrapped, symmetric);
    }
}

#[test]
fn an_old_parent_goes_with_a_seed() {
    let (mut p, agent, name) = with_agent(ecc_storage_key());
    let d = duplicate(&mut p.source, p.object, agent, &key(b""), NO_SYM).unwrap();
    let wrong = ResponseCode::HANDLE.handle(1);
    let rc = rewrap(&mut p.source, [TpmHandle::NULL, p.new_parent], &name, &d).map(|_| ());
    assert_eq!(rc, Err(wrong));
    let seedless = Duplicated { seed: Tpm2bEncryptedSecret::empty(), ..d };
    let rc = rewrap(&mut p.source, [agent, p.new_parent], &name, &seedless).map(|_| ());
    assert_eq!(rc, Err(wrong));
}

#[test]
fn both_parents_are_asymmetric_storage_keys() {
    let (mut p, agent, name) = with_agent(ecc_storage_key());
    let d = duplicate(&mut p.source, p.object, agent, &key(b""), NO_SYM).unwrap();
    flush(&mut p.source, p.object);
    for template in [ecc_signing_key(), symmetric_storage_key(), derivation_parent()] {
        let other = create_primary(&mut p.source, TpmHandle::OWNER, template).unwrap().handle;
        let rc = rewrap(&mut p.source, [other, TpmHandle::NULL], &name, &d).map(|_| ());
        assert_eq!(rc, Err(ResponseCode::TYPE.handle(1)));
        let rc = rewrap(&mut p.source, [agent, other], &name, &d).map(|_| ());
        assert_eq!(rc, Err(ResponseCode::TYPE.handle(2)));
        flush(&mut p.source, other);
    }
    // The private key of the old one is needed, and its authorization.
    let rc = rewrap(&mut p.source, [p.new_parent, TpmHandle::NULL], &name, &d).map(|_| ());
    assert_eq!(rc, Err(ResponseCode::AUTH_UNAVAILABLE));
    let parameters = (&d.duplicate, &name, &d.seed);
    let rc = p.source.run(TpmCc::REWRAP, &[agent, TpmHandle::NULL], &parameters);
    assert_eq!(rc, Err(ResponseCode::AUTH_MISSING));
}

#[test]
fn what_is_not_wrapped_for_the_old_parent_under_this_name_is_refused() {
    let (mut p, agent, name) = with_agent(ecc_storage_key());
    let d = duplicate(&mut p.source, p.object, agent, &key(b""), NO_SYM).unwrap();
    flush(&mut p.source, p.object);
    let handles = [agent, p.new_parent];
    let integrity = Err(ResponseCode::INTEGRITY.parameter(1));
    let mut rc = |handles, name: &[u8], d: &Duplicated| rewrap(&mut p.source, handles, name, d).map(|_| ());
    assert_eq!(rc(handles, &name[..33], &d), integrity);
    assert_eq!(rc(handles, b"", &d), integrity);
    for i in 0..d.duplicate.len() {
        let mut bytes = d.duplicate.to_vec();
        bytes[i] ^= 1;
        let bad =
            Duplicated { key: key(b""), duplicate: Tpm2bPrivate::new(bytes).unwrap(), seed: d.seed.clone() };
        let expected = if i == 0 { Err(ResponseCode::SIZE.parameter(1)) } else { integrity };
        assert_eq!(rc(handles, &name, &bad), expected, "byte {i}");
    }
    for i in [0, 1, 5, 34, 67] {
        let mut seed = d.seed.to_vec();
        seed[i] ^= 1;
        let seed = Tpm2bEncryptedSecret::new(seed).unwrap();
        let bad = Duplicated { key: key(b""), duplicate: d.duplicate.clone(), seed };
        // Whatever is wrong with a seed.
        assert_eq!(rc(handles, &name, &bad), Err(ResponseCode::VALUE.parameter(3)), "byte {i}");
    }
    let empty = Duplicated { duplicate: Tpm2bPrivate::empty(), ..d };
    assert_eq!(rc(handles, &name, &empty), Err(ResponseCode::INSUFFICIENT.parameter(1)));
}

#[test]
fn an_empty_seed_is_refused() {
    let (mut p, agent, name) = with_agent(rsa_storage_key());
    let parent = p.source.state().object(agent).unwrap().clone();
    let rsa = secret::rsa_public(&parent.public).unwrap();
    let mut rng = crate::crypto::KdfaStream::new(HashAlg::Sha256, b"seed", b"test", b"");
    let seed = rsa.encrypt_oaep(HashAlg::Sha256, b"DUPLICATE\0", b"", &mut rng).unwrap();
    let wrapper = Wrapper { alg: HashAlg::Sha256, seed: b"", name: &name, cipher: AES_128_CIPHER };
    let forged = Duplicated {
        key: key(b""),
        duplicate: Tpm2bPrivate::new(wrapper.seal(b"anything").unwrap()).unwrap(),
        seed: Tpm2bEncryptedSecret::new(seed).unwrap(),
    };
    let rc = rewrap(&mut p.source, [agent, TpmHandle::NULL], &name, &forged).map(|_| ());
    assert_eq!(rc, Err(ResponseCode::VALUE.parameter(3)));
}

#[test]
fn a_wrapper_that_does_not_fit_is_not_put_on() {
    let (mut p, _, name) = with_agent(ecc_storage_key());
    let longest = Duplicated {
        key: key(b""),
        duplicate: Tpm2bPrivate::new(vec![7; 1536]).unwrap(),
        seed: Tpm2bEncryptedSecret::empty(),
    };
    let rc = rewrap(&mut p.source, [TpmHandle::NULL, p.new_parent], &name, &longest).map(|_| ());
    assert_eq!(rc, Err(ResponseCode::VALUE.parameter(1)));
    assert!(rewrap(&mut p.source, [TpmHandle::NULL; 2], &name, &longest).is_ok());
}

#[test]
fn a_seed_that_is_not_encrypted_to_an_rsa_parent_is_refused_with_one_code() {
    let (mut p, agent, name) = with_agent(rsa_storage_key());
    let d = duplicate(&mut p.source, p.object, agent, &key(b""), NO_SYM).unwrap();
    let mut changed = d.seed.to_vec();
    changed[255] ^= 1;
    for seed in [d.seed[1..].to_vec(), changed, vec![0xff; 256]] {
        let seed = Tpm2bEncryptedSecret::new(seed).unwrap();
        let bad = Duplicated { key: key(b""), duplicate: d.duplicate.clone(), seed };
        let rc = rewrap(&mut p.source, [agent, p.new_parent], &name, &bad).map(|_| ());
        assert_eq!(rc, Err(ResponseCode::VALUE.parameter(3)));
    }
}
