//! The DER of `TPM2_CertifyX509`: what the caller gives of a certificate, and what the TPM adds (Part 3, 18.8; RFC 5280, 4.1).
//!
//! The DER is read by the `der` crate, which takes the distinguished encoding and no other; the TCG's reference also takes lengths that are
//! longer than need be. Names, validity and extensions other than the two below are opaque here as they are there.

use crate::alg;
use crate::crypto::CryptoError;
use crate::secret::rsa_public;
use crate::state::Object;
use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier, OctetStringRef, UintRef};
use der::{Decode, Encode, Reader, SliceReader, Tag, TagNumber};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    PublicId, PublicParms, Scheme, TpmAlgId, TpmEccCurve, TpmaObject, TpmaX509KeyUsage,
};

const fn oid(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(text)
}

const KEY_USAGE: ObjectIdentifier = oid("2.5.29.15");
/// `tcg-tpmaObject`.
const TPMA_OBJECT: ObjectIdentifier = oid("2.23.133.10.1.1.1");
const RSA_ENCRYPTION: ObjectIdentifier = oid("1.2.840.113549.1.1.1");
const RSASSA_PSS: ObjectIdentifier = oid("1.2.840.113549.1.1.10");
const MGF1: ObjectIdentifier = oid("1.2.840.113549.1.1.8");
const EC_PUBLIC_KEY: ObjectIdentifier = oid("1.2.840.10045.2.1");

/// The tag of the extensions in a certificate, and of the version.
const fn explicit(number: u32) -> Tag {
    Tag::ContextSpecific { constructed: true, number: TagNumber(number) }
}

const EXTENSIONS: Tag = explicit(3);
/// The most elements that a partial certificate has.
const MAX_ELEMENTS: usize = 5;

/// The caller's part of a certificate, every field with its tag and length.
#[derive(Debug)]
pub struct Partial<'a> {
    /// The algorithm identifier of the signature, where the caller has one.
    pub signature: Option<&'a [u8]>,
    /// issuer, validity, subject, in this order as they follow each other in a certificate.
    pub issuer_to_subject: [&'a [u8]; 3],
    /// The extensions.
    pub extensions: &'a [u8],
}

impl<'a> Partial<'a> {
    /// Takes a partial certificate apart.
    ///
    /// # Errors
    /// `TPM_RC_SIZE` for bytes that are not one SEQUENCE, `TPM_RC_VALUE` for other fields in it than there must be.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ResponseCode> {
        if bytes.is_empty() {
            return Err(ResponseCode::VALUE);
        }
        let outer = AnyRef::from_der(bytes).map_err(|_| ResponseCode::SIZE)?;
        let outer = Some(outer).filter(|o| o.header().tag() == Tag::Sequence).ok_or(ResponseCode::SIZE)?;
        let elements = elements(outer.value()).map_err(|_| ResponseCode::VALUE)?;
        let sequences = match elements.split_last() {
            Some(((EXTENSIONS, _), head)) if head.iter().all(|(tag, _)| *tag == Tag::Sequence) => head,
            _ => return Err(ResponseCode::VALUE),
        };
        let (signature, issuer_to_subject) = match sequences {
            [(_, issuer), (_, validity), (_, subject)] => (None, [*issuer, *validity, *subject]),
            [(_, signature), (_, issuer), (_, validity), (_, subject)] => {
                (Some(*signature), [*issuer, *validity, *subject])
            }
            _ => return Err(ResponseCode::VALUE),
        };
        let (_, extensions) = elements.last().ok_or(ResponseCode::VALUE)?;
        Ok(Self { signature, issuer_to_subject, extensions })
    }

    /// Checks the extensions against the attributes of the key that is certified.
    ///
    /// # Errors
    /// `TPM_RC_ATTRIBUTES`, blaming handle 1, for other attributes than the key's. Blaming parameter 3, `TPM_RC_VALUE` for extensions that are
    /// none, and for ones without the usage of the key; `TPM_RC_RESERVED_BITS` for a usage that there is not, `TPM_RC_VALUE` for one that the
    /// attributes of the key forbid.
    pub fn check(&self, attributes: TpmaObject) -> Result<(), ResponseCode> {
        let none = ResponseCode::VALUE.parameter(3);
        // What they say of the key's attributes, if anything, and of its usage.
        let (tpma_object, key_usage) = extension_bits(self.extensions).map_err(|_| none)?;
        let usage = TpmaX509KeyUsage(key_usage.ok_or(none)?);
        if tpma_object.is_some_and(|stated| stated != attributes.0) {
            return Err(ResponseCode::ATTRIBUTES.handle(1));
        }
        if usage.any(TpmaX509KeyUsage(TpmaX509KeyUsage::RESERVED)) {
            return Err(ResponseCode::RESERVED_BITS.parameter(3));
        }
        type Usage = TpmaX509KeyUsage;
        let signs = Usage::DIGITAL_SIGNATURE | Usage::KEY_CERT_SIGN | Usage::CRL_SIGN;
        let decrypts = Usage::KEY_ENCIPHERMENT
            | Usage::DATA_ENCIPHERMENT
            | Usage::KEY_AGREEMENT
            | Usage::ENCIPHER_ONLY
            | Usage::DECIPHER_ONLY;
        let allowed = [
            (signs, TpmaObject::SIGN_ENCRYPT),
            (decrypts, TpmaObject::DECRYPT),
            (Usage::NONREPUDIATION, TpmaObject::FIXED_TPM),
            (Usage::KEY_ENCIPHERMENT, TpmaObject::RESTRICTED),
        ]
        .into_iter()
        .all(|(uses, needed)| !usage.any(uses) || attributes.has(needed));
        if allowed { Ok(()) } else { Err(none) }
    }
}

/// The elements in a constructed value, with their tags.
fn elements(content: &[u8]) -> der::Result<Vec<(Tag, &[u8])>> {
    let mut r = SliceReader::new(content)?;
    let mut elements = Vec::new();
    while !r.is_finished() && elements.len() <= MAX_ELEMENTS {
        elements.push((Tag::peek(&r)?, r.tlv_bytes()?));
    }
    r.finish()?;
    Ok(elements)
}

/// The values of [`TPMA_OBJECT`] and [`KEY_USAGE`] in the extensions.
fn extension_bits(extensions: &[u8]) -> der::Result<(Option<u32>, Option<u32>)> {
    let mut r = SliceReader::new(AnyRef::from_der(extensions)?.value())?;
    let found = r.sequence(|r| {
        let (mut object, mut usage) = (None, None);
        while !r.is_finished() {
            let (id, value) = r.sequence(|r| {
                let id = AnyRef::decode(r)?;
                id.header().tag().assert_eq(Tag::ObjectIdentifier)?;
                // Whether it is critical is the issuer's business.
                Option::<bool>::decode(r)?;
                der::Result::Ok((id.value(), <&OctetStringRef>::decode(r)?.as_bytes()))
            })?;
            let slot = match id {
                id if id == TPMA_OBJECT.as_bytes() => &mut object,
                id if id == KEY_USAGE.as_bytes() => &mut usage,
                _ => continue,
            };
            // An extension is there once (RFC 5280, 4.2).
            if slot.replace(left_justified(BitStringRef::from_der(value)?)?).is_some() {
                return Err(r.error(der::ErrorKind::Value { tag: Tag::BitString }));
            }
        }
        der::Result::Ok((object, usage))
    })?;
    r.finish()?;
    Ok(found)
}

/// A bit string of at most 32 bits, the first one highest.
fn left_justified(bits: BitStringRef<'_>) -> der::Result<u32> {
    let mut word = [0; 4];
    let bytes = bits.raw_bytes();
    word.get_mut(..bytes.len()).ok_or(der::ErrorKind::Overflow)?.copy_from_slice(bytes);
    Ok(u32::from_be_bytes(word))
}

/// What cannot be: the lengths are far below what DER can say.
fn failed(_: der::Error) -> ResponseCode {
    ResponseCode::FAILURE
}

fn value(tag: Tag, parts: &[&[u8]]) -> Result<Vec<u8>, ResponseCode> {
    AnyRef::new(tag, &parts.concat()).and_then(|any| any.to_der()).map_err(failed)
}

/// A SEQUENCE of values.
pub fn sequence(parts: &[&[u8]]) -> Result<Vec<u8>, ResponseCode> {
    value(Tag::Sequence, parts)
}

/// A positive INTEGER.
pub fn integer(bytes: &[u8]) -> Result<Vec<u8>, ResponseCode> {
    UintRef::new(bytes).and_then(|n| n.to_der()).map_err(failed)
}

/// The field that says that a certificate is of version 3.
pub fn version_3() -> Result<Vec<u8>, ResponseCode> {
    value(explicit(0), &[&integer(&[2])?])
}

fn object_identifier(id: ObjectIdentifier) -> Result<Vec<u8>, ResponseCode> {
    id.to_der().map_err(failed)
}

fn bit_string(bytes: &[u8]) -> Result<Vec<u8>, ResponseCode> {
    BitStringRef::from_bytes(bytes).and_then(|b| b.to_der()).map_err(failed)
}

/// An algorithm identifier with NULL parameters.
fn algorithm(id: ObjectIdentifier) -> Result<Vec<u8>, ResponseCode> {
    sequence(&[&object_identifier(id)?, &AnyRef::NULL.to_der().map_err(failed)?])
}

/// `SubjectPublicKeyInfo` of a key.
///
/// # Errors
/// `TPM_RC_ASYMMETRIC` for an object that has none, or is on a curve without an object identifier.
pub fn public_key(object: &Object) -> Result<Vec<u8>, ResponseCode> {
    match (&object.public.parms, &object.public.unique) {
        (PublicParms::Rsa { exponent, .. }, PublicId::Rsa(n)) => {
            let exponent = if *exponent == 0 { crate::crypto::rsa::DEFAULT_EXPONENT } else { *exponent };
            let key = sequence(&[&integer(n)?, &integer(&exponent.to_be_bytes())?])?;
            sequence(&[&algorithm(RSA_ENCRYPTION)?, &bit_string(&key)?])
        }
        (PublicParms::Ecc { curve, .. }, PublicId::Ecc(point)) => {
            let curve = curve_id(*curve).ok_or(ResponseCode::ASYMMETRIC)?;
            let algorithm = sequence(&[&object_identifier(EC_PUBLIC_KEY)?, &object_identifier(curve)?])?;
            sequence(&[&algorithm, &bit_string(&[&[4], point.x.as_slice(), &point.y].concat())?])
        }
        _ => Err(ResponseCode::ASYMMETRIC),
    }
}

fn curve_id(curve: TpmEccCurve) -> Option<ObjectIdentifier> {
    Some(oid(match curve {
        TpmEccCurve::NIST_P192 => "1.2.840.10045.3.1.1",
        TpmEccCurve::NIST_P224 => "1.3.132.0.33",
        TpmEccCurve::NIST_P256 => "1.2.840.10045.3.1.7",
        TpmEccCurve::NIST_P384 => "1.3.132.0.34",
        TpmEccCurve::NIST_P521 => "1.3.132.0.35",
        TpmEccCurve::SM2_P256 => "1.2.156.10197.1.301",
        _ => return None,
    }))
}

fn hash_id(hash: TpmAlgId) -> Option<ObjectIdentifier> {
    Some(oid(match hash {
        TpmAlgId::SHA1 => "1.3.14.3.2.26",
        TpmAlgId::SHA256 => "2.16.840.1.101.3.4.2.1",
        TpmAlgId::SHA384 => "2.16.840.1.101.3.4.2.2",
        TpmAlgId::SHA512 => "2.16.840.1.101.3.4.2.3",
        TpmAlgId::SHA3_256 => "2.16.840.1.101.3.4.2.8",
        TpmAlgId::SHA3_384 => "2.16.840.1.101.3.4.2.9",
        TpmAlgId::SHA3_512 => "2.16.840.1.101.3.4.2.10",
        TpmAlgId::SM3_256 => "1.2.156.10197.1.401",
        _ => return None,
    }))
}

fn rsassa_id(hash: TpmAlgId) -> Option<ObjectIdentifier> {
    Some(oid(match hash {
        TpmAlgId::SHA1 => "1.2.840.113549.1.1.5",
        TpmAlgId::SHA256 => "1.2.840.113549.1.1.11",
        TpmAlgId::SHA384 => "1.2.840.113549.1.1.12",
        TpmAlgId::SHA512 => "1.2.840.113549.1.1.13",
        TpmAlgId::SHA3_256 => "2.16.840.1.101.3.4.3.14",
        TpmAlgId::SHA3_384 => "2.16.840.1.101.3.4.3.15",
        TpmAlgId::SHA3_512 => "2.16.840.1.101.3.4.3.16",
        TpmAlgId::SM3_256 => "1.2.156.10197.1.504",
        _ => return None,
    }))
}

fn ecdsa_id(hash: TpmAlgId) -> Option<ObjectIdentifier> {
    Some(oid(match hash {
        TpmAlgId::SHA1 => "1.2.840.10045.4.1",
        TpmAlgId::SHA256 => "1.2.840.10045.4.3.2",
        TpmAlgId::SHA384 => "1.2.840.10045.4.3.3",
        TpmAlgId::SHA512 => "1.2.840.10045.4.3.4",
        TpmAlgId::SHA3_256 => "2.16.840.1.101.3.4.3.10",
        TpmAlgId::SHA3_384 => "2.16.840.1.101.3.4.3.11",
        TpmAlgId::SHA3_512 => "2.16.840.1.101.3.4.3.12",
        _ => return None,
    }))
}

/// The algorithm identifier of a signature by `key` with `scheme`.
///
/// # Errors
/// `TPM_RC_SCHEME`, blaming handle 2, for a scheme and hash that have none; `TPM_RC_VALUE` for a hash that is too long for the key.
pub fn signature_algorithm(key: &Object, scheme: Scheme) -> Result<Vec<u8>, ResponseCode> {
    let unknown = ResponseCode::SCHEME.handle(2);
    match scheme.scheme {
        TpmAlgId::RSASSA => algorithm(rsassa_id(scheme.hash).ok_or(unknown)?),
        TpmAlgId::RSAPSS => rsapss_algorithm(key, scheme.hash),
        TpmAlgId::ECDSA => sequence(&[&object_identifier(ecdsa_id(scheme.hash).ok_or(unknown)?)?]),
        _ => Err(unknown),
    }
}

/// `RSASSA-PSS-params` of RFC 4055, 3.1. Of SHA-1 they are the defaults, which DER leaves out, unless the key is too small for a salt of 20 bytes.
fn rsapss_algorithm(key: &Object, hash: TpmAlgId) -> Result<Vec<u8>, ResponseCode> {
    let unknown = ResponseCode::SCHEME.handle(2);
    let alg = alg::hash_alg(hash).ok_or(unknown)?;
    let salt = rsa_public(&key.public)?.pss_salt_size(alg).map_err(|e| match e {
        CryptoError::HashTooLarge => ResponseCode::VALUE,
        _ => ResponseCode::FAILURE,
    })?;
    let salt = u32::try_from(salt).map_err(|_| ResponseCode::FAILURE)?;
    let parameters = if hash == TpmAlgId::SHA1 && salt == 20 {
        Vec::new()
    } else {
        let digest = algorithm(hash_id(hash).ok_or(unknown)?)?;
        let mask = sequence(&[&object_identifier(MGF1)?, &digest])?;
        [
            value(explicit(0), &[&digest])?,
            value(explicit(1), &[&mask])?,
            value(explicit(2), &[&integer(&salt.to_be_bytes())?])?,
        ]
        .concat()
    };
    sequence(&[&object_identifier(RSASSA_PSS)?, &sequence(&[&parameters])?])
}
