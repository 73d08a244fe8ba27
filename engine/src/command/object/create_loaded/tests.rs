use crate::object::load;
use crate::testing::TestTpm;
use crate::testing::objects::*;
use vtpm_protocol::codec::{Encode, decode_exact};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::*;

mod libtpms;

const ORIGIN: TpmaObject = TpmaObject::SENSITIVE_DATA_ORIGIN;
const FIXED_PARENT: TpmaObject = TpmaObject::FIXED_PARENT;

struct Made {
    handle: TpmHandle,
    private: Tpm2bPrivate,
    public: TpmtPublic,
    name: Tpm2bName,
}

fn make(
    tpm: &mut TestTpm,
    parent: TpmHandle,
    sensitive: Tpm2bSensitiveCreate,
    template: &[u8],
) -> Result<Made, ResponseCode> {
    let parameters = (sensitive, Tpm2bTemplate::new(template).unwrap());
    let (handle, out) = tpm.run_with(TpmCc::CREATE_LOADED, &[parent], &[b""], &parameters)?;
    let (private, Sized2b(public), name) = decode_exact(&out).unwrap();
    Ok(Made { handle: handle.unwrap(), private, public, name })
}

fn rc(made: Result<Made, ResponseCode>) -> ResponseCode {
    made.err().unwrap()
}

fn derive(label: &[u8], context: &[u8]) -> Vec<u8> {
    (Secret2b::<128>::new(label).unwrap(), Secret2b::<128>::new(context).unwrap()).to_bytes()
}

/// The template of a derived object.
fn derived(public: &TpmtPublic, label: &[u8], context: &[u8]) -> Vec<u8> {
    let mut out = (public.parms.alg(), public.name_alg, public.attributes).to_bytes();
    (&public.auth_policy, &public.parms).encode(&mut out);
    out.extend(derive(label, context));
    out
}

/// An HMAC key as it may be derived below a parent that is not fixed to the TPM.
fn derived_hmac_key() -> TpmtPublic {
    with(without(duplicable(hmac_key()), ORIGIN), FIXED_PARENT)
}

/// A derivation parent whose secret is known, as after `TPM2_Import`.
fn known_parent(tpm: &mut TestTpm, hash: TpmAlgId) -> TpmHandle {
    let scheme = Scheme { kdf: TpmAlgId::KDF1_SP800_108, ..Scheme::new(TpmAlgId::XOR, hash) };
    let parms = PublicParms::KeyedHash { scheme };
    let public = TpmtPublic { parms, ..duplicable(derivation_parent()) };
    let bits = Secret2b::new(b"0123456789abcdef0123456789abcdef".to_vec()).unwrap();
    let sensitive = TpmtSensitive {
        auth_value: Tpm2bAuth::empty(),
        seed_value: Tpm2bAuth::new((0..32).collect::<Vec<u8>>()).unwrap(),
        sensitive: SensitiveComposite::Bits(bits),
    };
    let handle = tpm.state().insert_transient(load::primary(public, sensitive, TpmHandle::OWNER)).unwrap();
    tpm.resave();
    handle
}

#[test]
fn derived_objects_are_those_that_libtpms_derives() {
    let mut tpm = TestTpm::started();
    let mut compared = 0;
    for (i, hash) in [TpmAlgId::SHA256, TpmAlgId::SHA1, TpmAlgId::SHA512].into_iter().enumerate() {
        let parent = known_parent(&mut tpm, hash);
        for d in &libtpms::DERIVED {
            let parms = hex::decode(d.parms).unwrap();
            let supported = [d.alg.to_bytes(), parms.clone()].concat();
            if decode_exact::<TpmtPublicParms>(&supported).is_err() {
                continue;
            }
            let attributes = FIXED_PARENT | TpmaObject::USER_WITH_AUTH | TpmaObject::NO_DA | d.attributes;
            let mut template = (d.alg, d.name_alg, attributes, 0u16).to_bytes();
            template.extend(parms);
            template.extend(derive(d.label.as_bytes(), d.context.as_bytes()));
            let made = make(&mut tpm, parent, sensitive(b"", b""), &template).unwrap();
            assert_eq!(hex::encode(&made.name[2..]), d.names[i], "{} {}", d.alg.0, d.parms);
            assert!(made.private.is_empty());
            flush(&mut tpm, made.handle);
            compared += 1;
        }
        flush(&mut tpm, parent);
    }
    // What is missing is not implemented, which is what `TPM2_TestParms` says.
    assert!(compared >= 36, "{compared}");
}

#[test]
fn a_derived_object_is_the_child_of_its_parent() {
    let mut tpm = TestTpm::started();
    for template in [derivation_parent(), with(derivation_parent(), TpmaObject::ST_CLEAR)] {
        let parent = create_primary(&mut tpm, TpmHandle::ENDORSEMENT, template).unwrap();
        let public = without(hmac_key(), ORIGIN);
        let made =
            make(&mut tpm, parent.handle, sensitive(b"pw\0", b""), &derived(&public, b"l", b"c")).unwrap();
        let parent_object = tpm.state().object(parent.handle).unwrap().clone();
        let object = tpm.state().object(made.handle).unwrap().clone();
        assert_eq!(object.hierarchy, TpmHandle::ENDORSEMENT);
        assert_eq!(object.flags.st_clear, parent_object.flags.st_clear);
        let expected = crate::entity::qualified_name(&made.public, &parent_object.qualified_name, &made.name);
        assert_eq!(object.qualified_name, expected);
        assert_eq!(object.sensitive.as_ref().unwrap().auth_value.expose(), b"pw");
        assert_eq!(TpmtPublic { unique: public.unique.clone(), ..made.public }, public);
        flush(&mut tpm, made.handle);
        flush(&mut tpm, parent.handle);
    }
}

#[test]
fn label_and_context_of_the_template_go_before_those_of_the_caller() {
    let mut tpm = TestTpm::started();
    let parent = known_parent(&mut tpm, TpmAlgId::SHA256);
    let public = derived_hmac_key();
    let mut name = |label: &[u8], context: &[u8], data: &[u8]| {
        let template = derived(&public, label, context);
        let made = make(&mut tpm, parent, sensitive(b"", data), &template).unwrap();
        flush(&mut tpm, made.handle);
        made.name
    };
    let expected = name(b"label", b"context", b"");
    assert_eq!(name(b"", b"", &derive(b"label", b"context")), expected);
    assert_eq!(name(b"label", b"", &derive(b"LABEL", b"context")), expected);
    assert_eq!(name(b"", b"context", &derive(b"label", b"CONTEXT")), expected);
    assert_eq!(name(b"label", b"context", &derive(b"LABEL", b"CONTEXT")), expected);
    assert_eq!(name(b"label", b"context", &[derive(b"", b""), b"more".to_vec()].concat()), expected);
    assert_ne!(name(b"", b"", &derive(b"LABEL", b"context")), expected);
    assert_ne!(name(b"", b"", &derive(b"label", b"CONTEXT")), expected);
    assert_ne!(name(b"", b"", b""), expected);
}

#[test]
fn sensitive_data_that_is_no_label_and_context_is_refused() {
    let mut tpm = TestTpm::started();
    let parent = known_parent(&mut tpm, TpmAlgId::SHA256);
    let template = derived(&derived_hmac_key(), b"label", b"context");
    for (data, expected) in [
        (&[0][..], ResponseCode::INSUFFICIENT),
        (&[0, 1], ResponseCode::INSUFFICIENT),
        (&[0, 1, 7], ResponseCode::INSUFFICIENT),
        (&[0, 33, 7], ResponseCode::SIZE),
        (&[0, 0, 0, 33], ResponseCode::SIZE),
    ] {
        assert_eq!(rc(make(&mut tpm, parent, sensitive(b"", data), &template)), expected);
    }
    for (label, context) in [(33, 1), (1, 33)] {
        let template = derived(&derived_hmac_key(), &vec![7; label], &vec![7; context]);
        let made = make(&mut tpm, parent, sensitive(b"", b""), &template);
        assert_eq!(rc(made), ResponseCode::SIZE.parameter(2));
    }
}

#[test]
fn derived_objects_have_the_attributes_that_fit_their_parent() {
    let mut tpm = TestTpm::started();
    let fixed = create_primary(&mut tpm, TpmHandle::OWNER, derivation_parent()).unwrap().handle;
    let open = known_parent(&mut tpm, TpmAlgId::SHA256);
    let key = derived_hmac_key();
    let of_fixed = with(key.clone(), TpmaObject::FIXED_TPM);
    let wrong = ResponseCode::ATTRIBUTES.parameter(2);
    let storage_key = with(without(duplicable(ecc_storage_key()), ORIGIN), FIXED_PARENT);
    let cipher_parent = with(without(duplicable(symmetric_storage_key()), ORIGIN), FIXED_PARENT);
    let rsa = with(without(duplicable(rsa_signing_key()), ORIGIN), FIXED_PARENT);
    for (parent, public, expected) in [
        (fixed, &of_fixed, None),
        (open, &key, None),
        (fixed, &key, Some(wrong)),
        (open, &of_fixed, Some(wrong)),
        (open, &without(key.clone(), FIXED_PARENT), Some(wrong)),
        (fixed, &without(of_fixed.clone(), FIXED_PARENT), Some(wrong)),
        (open, &with(key.clone(), TpmaObject::ENCRYPTED_DUPLICATION), Some(wrong)),
        (open, &with(key.clone(), TpmaObject::DECRYPT), Some(ResponseCode::SCHEME.parameter(2))),
        (open, &with(key.clone(), TpmaObject::FIRMWARE_LIMITED), Some(wrong)),
        (open, &with(key.clone(), ORIGIN), Some(ResponseCode::ATTRIBUTES)),
        // Storage keys have the cipher of their parent, and a derivation parent has none.
        (open, &storage_key, Some(ResponseCode::SYMMETRIC.parameter(2))),
        (open, &cipher_parent, Some(ResponseCode::SYMMETRIC.parameter(2))),
        (open, &with(without(duplicable(derivation_parent()), ORIGIN), FIXED_PARENT), None),
        (open, &rsa, Some(ResponseCode::TYPE.parameter(2))),
    ] {
        let made = make(&mut tpm, parent, sensitive(b"", b""), &derived(public, b"l", b"c"));
        assert_eq!(made.as_ref().err().copied(), expected, "{:x}", public.attributes.0);
        if let Ok(made) = made {
            flush(&mut tpm, made.handle);
        }
    }
}

#[test]
fn a_template_fits_its_kind_to_the_last_byte() {
    let mut tpm = TestTpm::started();
    let derivation = known_parent(&mut tpm, TpmAlgId::SHA256);
    let primary = ecc_signing_key().to_bytes();
    for (parent, template) in
        [(derivation, derived(&derived_hmac_key(), b"l", b"c")), (TpmHandle::OWNER, primary)]
    {
        for cut in 0..template.len() {
            let made = make(&mut tpm, parent, sensitive(b"", b""), &template[..cut]);
            assert_eq!(rc(made), ResponseCode::INSUFFICIENT.parameter(2), "{cut} bytes");
        }
        let long = [&template[..], &[0]].concat();
        let made = make(&mut tpm, parent, sensitive(b"", b""), &long);
        assert_eq!(rc(made), ResponseCode::SIZE.parameter(2));
        let mut nameless = template.clone();
        nameless[2..4].copy_from_slice(&TpmAlgId::NULL.to_bytes());
        let made = make(&mut tpm, parent, sensitive(b"", b""), &nameless);
        assert_eq!(rc(made), ResponseCode::HASH.parameter(2));
        assert!(make(&mut tpm, parent, sensitive(b"", b""), &template).is_ok());
    }
}

#[test]
fn an_authorization_value_is_as_long_as_the_digest_at_most() {
    let mut tpm = TestTpm::started();
    let derivation = known_parent(&mut tpm, TpmAlgId::SHA256);
    let mut auth = vec![7; 32];
    auth.push(0);
    let template = derived(&derived_hmac_key(), b"l", b"c");
    for (parent, template) in [(derivation, template), (TpmHandle::OWNER, ecc_signing_key().to_bytes())] {
        auth[32] = 0;
        assert!(make(&mut tpm, parent, sensitive(&auth, b""), &template).is_ok());
        auth[32] = 7;
        let made = make(&mut tpm, parent, sensitive(&auth, b""), &template);
        assert_eq!(rc(made), ResponseCode::SIZE.parameter(1));
        let last = *tpm.state().transient.keys().last().unwrap();
        flush(&mut tpm, TpmHandle(last));
    }
}

#[test]
fn a_primary_object_is_the_one_of_create_primary() {
    let mut tpm = TestTpm::started();
    for hierarchy in [TpmHandle::OWNER, TpmHandle::ENDORSEMENT, TpmHandle::PLATFORM, TpmHandle::NULL] {
        for template in [ecc_storage_key(), hmac_key()] {
            let one = create_primary_with(&mut tpm, hierarchy, template.clone(), b"pw", b"data").unwrap();
            let other = make(&mut tpm, hierarchy, sensitive(b"pw", b"data"), &template.to_bytes()).unwrap();
            assert!(other.private.is_empty());
            assert_eq!((&other.public, &other.name), (&one.public, &one.name));
            let [one_object, other_object] =
                [one.handle, other.handle].map(|h| tpm.state().object(h).unwrap().to_bytes());
            assert_eq!(one_object, other_object);
            flush(&mut tpm, one.handle);
            flush(&mut tpm, other.handle);
        }
    }
}

#[test]
fn a_child_of_a_storage_key_can_be_loaded_again() {
    let mut tpm = TestTpm::started();
    for storage_key in [ecc_storage_key(), symmetric_storage_key()] {
        let parent = create_primary(&mut tpm, TpmHandle::OWNER, storage_key).unwrap().handle;
        for (template, data) in child_templates() {
            let made =
                make(&mut tpm, parent, sensitive(b"pw", data.as_bytes()), &template.to_bytes()).unwrap();
            let loaded = load_areas(&mut tpm, parent, &made.private, &made.public).unwrap();
            let [one, other] = [made.handle, loaded].map(|h| tpm.state().object(h).unwrap().to_bytes());
            assert_eq!(one, other);
            flush(&mut tpm, made.handle);
            flush(&mut tpm, loaded);
        }
        flush(&mut tpm, parent);
    }
}

#[test]
fn what_create_refuses_is_refused() {
    let mut tpm = TestTpm::started();
    let parent = create_primary(&mut tpm, TpmHandle::OWNER, ecc_storage_key()).unwrap().handle;
    let wrong = ResponseCode::ATTRIBUTES.parameter(2);
    for (handle, template, data, expected) in [
        (parent, hmac_key(), "data", wrong),
        (parent, sealed_data(), "", wrong),
        (parent, with(sealed_data(), ORIGIN), "", wrong),
        (parent, without(hmac_key(), FIXED_PARENT), "", wrong),
        (TpmHandle::OWNER, without(hmac_key(), FIXED_PARENT), "", wrong),
        (TpmHandle::OWNER, with(ecc_signing_key(), TpmaObject::RESTRICTED | TpmaObject::DECRYPT), "", wrong),
        (parent, with(ecc_signing_key(), TpmaObject::SVN_LIMITED), "", wrong),
        (parent, with(symmetric_key(), TpmaObject::RESTRICTED), "", wrong),
    ] {
        let made = make(&mut tpm, handle, sensitive(b"", data.as_bytes()), &template.to_bytes());
        assert_eq!(rc(made), expected);
    }
}

#[test]
fn the_parent_is_one_and_is_authorized() {
    let mut tpm = TestTpm::started();
    let template = ecc_signing_key().to_bytes();
    let leaf = create_primary(&mut tpm, TpmHandle::OWNER, ecc_signing_key()).unwrap().handle;
    let made = make(&mut tpm, leaf, sensitive(b"", b""), &template);
    assert_eq!(rc(made), ResponseCode::TYPE.handle(1));
    let made = make(&mut tpm, TpmHandle::LOCKOUT, sensitive(b"", b""), &template);
    assert_eq!(rc(made), ResponseCode::VALUE.handle(1));
    let public = create_primary(&mut tpm, TpmHandle::OWNER, ecc_storage_key()).unwrap();
    flush(&mut tpm, public.handle);
    let public = load_external(&mut tpm, None, &public.public, TpmHandle::OWNER).unwrap();
    let made = make(&mut tpm, public, sensitive(b"", b""), &template);
    assert_eq!(rc(made), ResponseCode::AUTH_UNAVAILABLE);
    let parameters = (sensitive(b"", b""), Tpm2bTemplate::new(template.clone()).unwrap());
    let none = tpm.run(TpmCc::CREATE_LOADED, &[TpmHandle::OWNER], &parameters);
    assert_eq!(none, Err(ResponseCode::AUTH_MISSING));
    assert!(make(&mut tpm, TpmHandle::OWNER, sensitive(b"", b""), &template).is_ok());
    let made = make(&mut tpm, TpmHandle::OWNER, sensitive(b"", b""), &template);
    assert_eq!(rc(made), ResponseCode::OBJECT_MEMORY);
}

#[test]
fn a_derivation_parent_has_no_other_children() {
    let mut tpm = TestTpm::started();
    let parent = create_primary(&mut tpm, TpmHandle::OWNER, derivation_parent()).unwrap().handle;
    let storage = create_primary(&mut tpm, TpmHandle::OWNER, ecc_storage_key()).unwrap().handle;
    let child = create(&mut tpm, storage, hmac_key(), b"", b"").unwrap();
    let wrong = ResponseCode::TYPE.handle(1);
    assert_eq!(create(&mut tpm, parent, hmac_key(), b"", b"").err(), Some(wrong));
    assert_eq!(load(&mut tpm, parent, &child).err(), Some(wrong));
    // And a derived object has no private area in which its authorization value could change.
    let public = without(hmac_key(), ORIGIN);
    flush(&mut tpm, storage);
    let made = make(&mut tpm, parent, sensitive(b"", b""), &derived(&public, b"l", b"c")).unwrap();
    let auth = Tpm2bAuth::new(b"new".to_vec()).unwrap();
    let changed = tpm.run_with(TpmCc::OBJECT_CHANGE_AUTH, &[made.handle, parent], &[b""], &auth);
    assert_eq!(changed.err(), Some(ResponseCode::TYPE.handle(2)));
}

#[test]
fn there_are_no_hierarchies_that_are_limited_to_a_firmware() {
    let mut tpm = TestTpm::started();
    let template = ecc_storage_key().to_bytes();
    // TPM_RH_FW_OWNER to TPM_RH_FW_NULL, and the first and the last of TPM_RH_SVN_OWNER_BASE.
    for handle in [0x4000_0140, 0x4000_0141, 0x4000_0142, 0x4000_0143, 0x4001_0000, 0x4001_ffff] {
        let made = make(&mut tpm, TpmHandle(handle), sensitive(b"", b""), &template);
        assert_eq!(rc(made), ResponseCode::VALUE.handle(1), "{handle:x}");
    }
}

#[test]
fn schemes_sizes_and_given_keys_are_checked_as_by_create() {
    let mut tpm = TestTpm::started();
    let parent = create_primary(&mut tpm, TpmHandle::OWNER, ecc_storage_key()).unwrap().handle;
    let tdes = TpmtSymDefObject(TpmtSymDef::Tdes { key_bits: 128, mode: TpmAlgId::CFB });
    let parms = PublicParms::SymCipher { sym: tdes };
    let weak = TpmtPublic { parms, ..without(symmetric_key(), ORIGIN) };
    let auth_policy = Tpm2bDigest::new([1; 20]).unwrap();
    let mut kdf = ecc_signing_key();
    if let PublicParms::Ecc { kdf, .. } = &mut kdf.parms {
        *kdf = Scheme::new(TpmAlgId::MGF1, TpmAlgId::SHA256);
    }
    for (template, data, expected) in [
        (
            TpmtPublic { parms: sealed_data().parms, ..hmac_key() },
            &b""[..],
            ResponseCode::SCHEME.parameter(2),
        ),
        (
            TpmtPublic { parms: ecc_storage_key().parms, ..ecc_signing_key() },
            b"",
            ResponseCode::SYMMETRIC.parameter(2),
        ),
        (
            TpmtPublic { parms: ecc_signing_key().parms, ..ecc_storage_key() },
            b"",
            ResponseCode::SCHEME.parameter(2),
        ),
        (TpmtPublic { auth_policy, ..hmac_key() }, b"", ResponseCode::SIZE.parameter(2)),
        (kdf, b"", ResponseCode::KDF.parameter(2)),
        (weak, &[1; 16], ResponseCode::KEY),
        (without(symmetric_key(), ORIGIN), &[1; 15], ResponseCode::KEY_SIZE),
        (without(hmac_key(), ORIGIN), &[1; 65], ResponseCode::SIZE),
    ] {
        for parent in [parent, TpmHandle::OWNER] {
            let made = make(&mut tpm, parent, sensitive(b"", data), &template.to_bytes());
            assert_eq!(rc(made), expected, "{template:?}");
        }
    }
}
