//! Certificates are taken apart and put together here by hand, so that the DER of the engine does not check itself.

use crate::command::attestation::testing::ECDSA;
use crate::crypto::HashAlg;
use crate::signing::test_keys::*;
use crate::signing::verify;
use crate::state::Object;
use crate::testing::TestTpm;
use crate::testing::objects::flush;
use proptest::prelude::*;
use vtpm_protocol::codec::decode_exact;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::*;

const SEQUENCE: u8 = 0x30;
const OCTETS: u8 = 0x04;
const BITS: u8 = 0x03;
const EXTENSIONS: u8 = 0xa3;
const KEY_USAGE: &[u8] = &[6, 3, 0x55, 0x1d, 0x0f];
const TPMA_OBJECT: &[u8] = &[6, 7, 0x67, 0x81, 5, 10, 1, 1, 1];

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = match u16::try_from(content.len()).unwrap().to_be_bytes() {
        [0, n @ 0..=0x7f] => vec![n],
        [0, n] => vec![0x81, n],
        [high, low] => vec![0x82, high, low],
    };
    [[tag].as_slice(), &length, &content].concat()
}

/// The elements in a value, each with its tag and length.
fn elements(bytes: &[u8]) -> Vec<&[u8]> {
    let (mut all, mut rest) = (Vec::new(), content(bytes));
    while !rest.is_empty() {
        let (header, length) = header(rest);
        let (one, more) = rest.split_at(header + length);
        all.push(one);
        rest = more;
    }
    all
}

fn header(bytes: &[u8]) -> (usize, usize) {
    match bytes[1] {
        0x82 => (4, usize::from(bytes[2]) << 8 | usize::from(bytes[3])),
        0x81 => (3, usize::from(bytes[2])),
        n => (2, usize::from(n)),
    }
}

fn content(bytes: &[u8]) -> &[u8] {
    let (start, length) = header(bytes);
    assert_eq!(start + length, bytes.len());
    &bytes[start..]
}

fn bits(value: u32) -> Vec<u8> {
    tlv(BITS, &[&[0], &value.to_be_bytes()])
}

fn extension(id: &[u8], value: &[u8]) -> Vec<u8> {
    // Critical.
    tlv(SEQUENCE, &[id, &[1, 1, 0xff], &tlv(OCTETS, &[value])])
}

fn extensions(list: &[&[u8]]) -> Vec<u8> {
    tlv(EXTENSIONS, &[&tlv(SEQUENCE, list)])
}

/// With the usage in one bit string of two bytes, as certificates have it.
fn usage(first: u8, second: u8) -> Vec<u8> {
    extensions(&[&extension(KEY_USAGE, &tlv(BITS, &[&[7, first, second]]))])
}

const DIGITAL_SIGNATURE: u8 = 0x80;
const NONREPUDIATION: u8 = 0x40;
const KEY_ENCIPHERMENT: u8 = 0x20;
const DATA_ENCIPHERMENT: u8 = 0x10;
const KEY_CERT_SIGN: u8 = 0x04;

fn issuer_to_subject() -> [Vec<u8>; 3] {
    let name = |text: &[u8]| {
        let attribute = tlv(SEQUENCE, &[&[6, 3, 0x55, 4, 3], &tlv(0x0c, &[text])]);
        tlv(SEQUENCE, &[&tlv(0x31, &[&attribute])])
    };
    let time = |text: &[u8]| tlv(0x17, &[text]);
    let validity = tlv(SEQUENCE, &[&time(b"260101000000Z"), &time(b"361231235959Z")]);
    [name(b"issuer"), validity, name(b"subject")]
}

fn partial(extensions: &[u8]) -> Vec<u8> {
    let [issuer, validity, subject] = issuer_to_subject();
    tlv(SEQUENCE, &[&issuer, &validity, &subject, extensions])
}

struct Certified {
    added: Vec<u8>,
    digest: Tpm2bDigest,
    signature: TpmtSignature,
}

fn certify(
    tpm: &mut TestTpm,
    handles: [TpmHandle; 2],
    scheme: Scheme,
    partial: &[u8],
) -> Result<Certified, ResponseCode> {
    let input = (0u16, TpmtSigScheme(scheme), Tpm2bMaxBuffer::new(partial).unwrap());
    let auth = |handle| if handle == TpmHandle::NULL { b"".as_slice() } else { AUTH };
    let passwords = handles.map(auth);
    let (_, out) = tpm.run_with(TpmCc::CERTIFY_X509, &handles, &passwords, &input)?;
    let (added, digest, signature): (Tpm2bMaxBuffer, _, _) = decode_exact(&out).unwrap();
    Ok(Certified { added: added.to_vec(), digest, signature })
}

/// One key as object and signer.
fn with_key(object: Object) -> (TestTpm, TpmHandle) {
    let mut tpm = TestTpm::started();
    let key = load(&mut tpm, object);
    (tpm, key)
}

fn rc(tpm: &mut TestTpm, key: TpmHandle, partial: &[u8]) -> Result<(), ResponseCode> {
    certify(tpm, [key, key], ECDSA, partial).map(drop)
}

#[test]
fn what_is_added_and_what_was_given_make_the_certificate_that_is_signed() {
    let mut tpm = TestTpm::started();
    let pss = Scheme::new(TpmAlgId::RSAPSS, TpmAlgId::SHA256);
    let rsassa = Scheme::new(TpmAlgId::RSASSA, TpmAlgId::SHA384);
    for (object, signer, hash, algorithm) in [
        (ecc(Scheme::NULL), rsa(rsassa), HashAlg::Sha384, "300d06092a864886f70d01010c0500"),
        (rsa(Scheme::NULL), restricted(ecc(ECDSA)), HashAlg::Sha256, "300a06082a8648ce3d040302"),
        (
            sized_rsa(1024, Scheme::NULL),
            rsa(pss),
            HashAlg::Sha256,
            "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d\
             06096086480165030402010500a203020120",
        ),
    ] {
        let handles = [object, signer].map(|o| load(&mut tpm, with(o, TpmaObject::X509_SIGN)));
        let given = usage(DIGITAL_SIGNATURE | NONREPUDIATION | KEY_CERT_SIGN, 0);
        let out = certify(&mut tpm, handles, Scheme::NULL, &partial(&given)).unwrap();
        let added = elements(&out.added);
        let [version, serial, made_algorithm, public_key] = added[..] else { panic!("{added:x?}") };
        assert_eq!(version, [0xa0, 3, 2, 1, 2]);
        assert_eq!(hex::encode(made_algorithm), algorithm);
        let [issuer, validity, subject] = issuer_to_subject();
        let rest: [&[u8]; 6] = [made_algorithm, &issuer, &validity, &subject, public_key, &given];
        let tbs = tlv(SEQUENCE, &[version, serial, &rest.concat()]);
        assert_eq!(out.digest.as_slice(), &*hash.digest(&[&tbs]));
        let state = tpm.state();
        let (object, signer) = (state.object(handles[0]).unwrap(), state.object(handles[1]).unwrap());
        assert_eq!(verify(signer, &out.digest, &out.signature), Ok(()));
        // The serial number: the digest with the signer's name algorithm.
        let digest = HashAlg::Sha256.digest(&[&rest.concat(), &signer.name, &object.name]);
        let mut number = digest[..20].to_vec();
        number[0] &= 0x7f;
        let (tag, value) = (serial[0], content(serial));
        assert_eq!((tag, value), (2, &number[20 - value.len()..]));
        // The public key.
        let [algorithm, key] = elements(public_key)[..] else { panic!() };
        match &object.public.unique {
            PublicId::Ecc(point) => {
                assert_eq!(hex::encode(algorithm), "301306072a8648ce3d020106082a8648ce3d030107");
                assert_eq!(content(key), [&[0, 4], point.x.as_slice(), &point.y].concat());
            }
            PublicId::Rsa(n) => {
                assert_eq!(hex::encode(algorithm), "300d06092a864886f70d0101010500");
                let numbers = [tlv(2, &[&[0], n]), tlv(2, &[&[1, 0, 1]])].concat();
                assert_eq!(content(key), [&[0], tlv(SEQUENCE, &[&numbers]).as_slice()].concat());
            }
            PublicId::Digest(_) => panic!(),
        }
        handles.into_iter().for_each(|h| flush(&mut tpm, h));
    }
}

#[test]
fn the_algorithm_of_the_signature_may_be_given() {
    let (mut tpm, key) = with_key(ecc(ECDSA));
    let [issuer, validity, subject] = issuer_to_subject();
    let algorithm = tlv(SEQUENCE, &[&[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]]);
    let given = usage(DIGITAL_SIGNATURE, 0);
    let partial = tlv(SEQUENCE, &[&algorithm, &issuer, &validity, &subject, &given]);
    let out = certify(&mut tpm, [key, key], Scheme::NULL, &partial).unwrap();
    let [version, serial, public_key] = elements(&out.added)[..] else { panic!() };
    let tbs = tlv(SEQUENCE, &[version, serial, &algorithm, &issuer, &validity, &subject, public_key, &given]);
    assert_eq!(out.digest.as_slice(), &*HashAlg::Sha256.digest(&[&tbs]));
    // Even one that the TPM has no identifier for.
    let mac = load(&mut tpm, keyed_hash(Scheme::new(TpmAlgId::HMAC, TpmAlgId::SHA256)));
    assert!(certify(&mut tpm, [key, mac], Scheme::NULL, &partial).is_ok());
    let made = certify(&mut tpm, [key, mac], Scheme::NULL, &signing_partial()).map(drop);
    assert_eq!(made, Err(ResponseCode::SCHEME.handle(2)));
}

fn signing_partial() -> Vec<u8> {
    partial(&usage(DIGITAL_SIGNATURE, 0))
}

#[test]
fn the_usage_must_fit_the_attributes() {
    let value = Err(ResponseCode::VALUE.parameter(3));
    let decrypting = |restricted| {
        let key = with(without(ecc(Scheme::NULL), TpmaObject::SIGN_ENCRYPT), TpmaObject::DECRYPT);
        if restricted { with(key, TpmaObject::RESTRICTED) } else { key }
    };
    let mut tpm = TestTpm::started();
    let signer = load(&mut tpm, ecc(ECDSA));
    for (object, first, second, expected) in [
        (ecc(ECDSA), DIGITAL_SIGNATURE, 0, Ok(())),
        (ecc(ECDSA), NONREPUDIATION, 0, Ok(())),
        (without(ecc(ECDSA), TpmaObject::FIXED_TPM), NONREPUDIATION, 0, value),
        (ecc(ECDSA), DATA_ENCIPHERMENT, 0, value),
        (ecc(ECDSA), 0, 0x80, value),
        (decrypting(false), DIGITAL_SIGNATURE, 0, value),
        (decrypting(false), KEY_CERT_SIGN, 0, value),
        (decrypting(false), 2, 0, value),
        (decrypting(false), DATA_ENCIPHERMENT | 8 | 1, 0x80, Ok(())),
        (decrypting(false), KEY_ENCIPHERMENT, 0, value),
        (decrypting(true), KEY_ENCIPHERMENT, 0, Ok(())),
        (ecc(ECDSA), 0, 0, Ok(())),
    ] {
        let handle = load(&mut tpm, object);
        let result = certify(&mut tpm, [handle, signer], ECDSA, &partial(&usage(first, second)));
        assert_eq!(result.map(drop), expected, "{first:x} {second:x}");
        flush(&mut tpm, handle);
    }
    let reserved = extensions(&[&extension(KEY_USAGE, &bits(0x8040_0000))]);
    assert_eq!(rc(&mut tpm, signer, &partial(&reserved)), Err(ResponseCode::RESERVED_BITS.parameter(3)));
}

#[test]
fn stated_attributes_are_the_key_s_and_nothing_else() {
    let (mut tpm, key) = with_key(ecc(ECDSA));
    let usage = extension(KEY_USAGE, &tlv(BITS, &[&[7, DIGITAL_SIGNATURE, 0]]));
    let attributes = tpm.state().object(key).unwrap().public.attributes.0;
    for (stated, expected) in
        [(attributes, Ok(())), (attributes ^ 2, Err(ResponseCode::ATTRIBUTES.handle(1)))]
    {
        let stated = extension(TPMA_OBJECT, &bits(stated));
        assert_eq!(rc(&mut tpm, key, &partial(&extensions(&[&usage, &stated]))), expected);
    }
    // Too long, and no bit string.
    let five = extension(TPMA_OBJECT, &tlv(BITS, &[&[0; 6]]));
    let octets = extension(TPMA_OBJECT, &tlv(OCTETS, &[&attributes.to_be_bytes()]));
    for wrong in [five, octets] {
        let partial = partial(&extensions(&[&usage, &wrong]));
        assert_eq!(rc(&mut tpm, key, &partial), Err(ResponseCode::VALUE.parameter(3)));
    }
}

#[test]
fn a_partial_certificate_of_another_shape_is_refused() {
    let (mut tpm, key) = with_key(ecc(ECDSA));
    let good = signing_partial();
    assert_eq!(rc(&mut tpm, key, &good), Ok(()));
    let size = Err(ResponseCode::SIZE.parameter(3));
    let value = Err(ResponseCode::VALUE.parameter(3));
    assert_eq!(rc(&mut tpm, key, &[]), value);
    // Not one SEQUENCE, or not all of it.
    assert_eq!(rc(&mut tpm, key, &[good.as_slice(), &[0]].concat()), size);
    assert_eq!(rc(&mut tpm, key, &good[..good.len() - 1]), size);
    assert_eq!(rc(&mut tpm, key, &[&[0x31], &good[1..]].concat()), size);
    assert_eq!(rc(&mut tpm, key, &[SEQUENCE, 0x80, 0, 0]), size);
    // A length in more bytes than it needs.
    assert_eq!(rc(&mut tpm, key, &[&[SEQUENCE, 0x82, 0], &good[2..]].concat()), size);
    let [issuer, validity, subject] = issuer_to_subject();
    let ext = usage(DIGITAL_SIGNATURE, 0);
    let unique = tlv(0xa1, &[&[BITS, 2, 0, 1]]);
    let shapes: [&[&[u8]]; 9] = [
        &[],
        &[&issuer, &validity, &subject],
        &[&issuer, &validity, &ext],
        &[&issuer, &issuer, &issuer, &validity, &subject, &ext],
        &[&issuer, &validity, &subject, &ext, &ext],
        &[&ext, &issuer, &validity, &subject],
        &[&issuer, &validity, &subject, &unique, &ext],
        &[&issuer, &validity, &[5, 0], &ext],
        &[&issuer, &validity, &subject, &ext, &[0x30, 5]],
    ];
    for shape in shapes {
        assert_eq!(rc(&mut tpm, key, &tlv(SEQUENCE, shape)), value, "{shape:x?}");
    }
    let one = extension(KEY_USAGE, &tlv(BITS, &[&[7, DIGITAL_SIGNATURE, 0]]));
    for wrong in [
        tlv(EXTENSIONS, &[]),
        extensions(&[]),
        extensions(&[&extension(&[6, 3, 0x55, 0x1d, 0x13], &[0x30, 0])]),
        extensions(&[&one, &one]),
        extensions(&[&one, &[5, 0]]),
        extensions(&[&tlv(SEQUENCE, &[KEY_USAGE, &[BITS, 2, 7, 0x80]])]),
        extensions(&[&extension(KEY_USAGE, &[BITS, 2, 9, 0x80])]),
        tlv(EXTENSIONS, &[&tlv(SEQUENCE, &[&one]), &[5, 0]]),
        tlv(EXTENSIONS, &[&tlv(0x31, &[&one])]),
    ] {
        assert_eq!(rc(&mut tpm, key, &partial(&wrong)), value, "{wrong:x?}");
    }
    // Others are the issuer's business, critical or not.
    let other = tlv(SEQUENCE, &[&[6, 3, 0x55, 0x1d, 0x13], &[OCTETS, 2, 0x30, 0]]);
    assert_eq!(rc(&mut tpm, key, &partial(&extensions(&[&other, &one]))), Ok(()));
}

#[test]
fn keys_roles_and_reserved_bytes_are_checked() {
    let (mut tpm, key) = with_key(ecc(ECDSA));
    let good = signing_partial();
    let run = |tpm: &mut TestTpm, object: Object, as_signer: bool| {
        let other = load(tpm, object);
        let handles = if as_signer { [key, other] } else { [other, key] };
        let result = certify(tpm, handles, Scheme::NULL, &good).map(drop);
        flush(tpm, other);
        result
    };
    let no_signer = without(ecc(Scheme::NULL), TpmaObject::SIGN_ENCRYPT);
    assert_eq!(run(&mut tpm, no_signer, true), Err(ResponseCode::KEY.handle(2)));
    assert_eq!(run(&mut tpm, rsa(Scheme::NULL), true), Err(ResponseCode::SCHEME.parameter(2)));
    assert_eq!(run(&mut tpm, symmetric(), false), Err(ResponseCode::ASYMMETRIC.handle(1)));
    assert_eq!(run(&mut tpm, keyed_hash(Scheme::NULL), false), Err(ResponseCode::ASYMMETRIC.handle(1)));
    let admin = with(ecc(ECDSA), TpmaObject::ADMIN_WITH_POLICY);
    assert_eq!(run(&mut tpm, admin, false), Err(ResponseCode::AUTH_TYPE.session(1)));
    let schnorr = Scheme::new(TpmAlgId::ECSCHNORR, TpmAlgId::SHA256);
    assert_eq!(run(&mut tpm, ecc(schnorr), true), Err(ResponseCode::SCHEME.handle(2)));
    let nobody = certify(&mut tpm, [key, TpmHandle::NULL], ECDSA, &good).map(drop);
    assert_eq!(nobody, Err(ResponseCode::KEY.handle(2)));
    let input = (Tpm2bData::new([1]).unwrap(), TpmtSigScheme(ECDSA), Tpm2bMaxBuffer::new(&*good).unwrap());
    let reserved = tpm.run_with(TpmCc::CERTIFY_X509, &[key, key], &[AUTH, AUTH], &input).map(drop);
    assert_eq!(reserved, Err(ResponseCode::SIZE.parameter(1)));
}

#[test]
fn a_signature_without_an_algorithm_identifier_is_told_before_faults_of_the_extensions() {
    let (mut tpm, key) = with_key(ecc(ECDSA));
    let schnorr = load(&mut tpm, ecc(Scheme::new(TpmAlgId::ECSCHNORR, TpmAlgId::SHA256)));
    let faulty = partial(&extensions(&[]));
    let mut run = |signer, partial: &[u8]| certify(&mut tpm, [key, signer], Scheme::NULL, partial).map(drop);
    assert_eq!(run(schnorr, &faulty), Err(ResponseCode::SCHEME.handle(2)));
    assert_eq!(run(key, &faulty), Err(ResponseCode::VALUE.parameter(3)));
    // A SEQUENCE that is none comes first.
    assert_eq!(run(schnorr, &[]), Err(ResponseCode::VALUE.parameter(3)));
}

#[test]
fn sha_1_in_pss_is_left_out_of_the_algorithm_as_a_default() {
    let scheme = Scheme::new(TpmAlgId::RSAPSS, TpmAlgId::SHA1);
    let (mut tpm, key) = with_key(rsa(scheme));
    let out = certify(&mut tpm, [key, key], Scheme::NULL, &signing_partial()).unwrap();
    assert_eq!(hex::encode(elements(&out.added)[2]), "300d06092a864886f70d01010a3000");
}

proptest! {
    /// Neither does damage lead to a panic, nor to a certificate of something else than what was sent.
    #[test]
    fn damaged_partial_certificates_never_panic(at in 0usize..200, byte: u8, cut in 0usize..200) {
        let mut bytes = signing_partial();
        let at = at % bytes.len();
        bytes[at] = byte;
        bytes.truncate(bytes.len() - cut.min(bytes.len()) / 8);
        let _ = super::Partial::parse(&bytes).map(|p| p.check(TpmaObject(u32::MAX)));
    }

    #[test]
    fn arbitrary_bytes_are_no_partial_certificate(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(super::Partial::parse(&bytes).is_err());
    }
}
