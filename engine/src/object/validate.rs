//! Whether a public area is usable and a sensitive area belongs to it (Part 1, "Object Loading"; Part 3, 12.2 and 12.3).

use super::Blame;
use super::generate::symmetric_unique;
use super::template::{check_attributes, check_schemes};
use crate::alg::{SymCipher, hash_alg};
use crate::crypto::rsa::{self, RsaPrivate, RsaPublic};
use crate::crypto::{CryptoError, ecc};
use crate::secret;
use crate::state::Object;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{
    PublicId, PublicParms, SensitiveComposite, TpmEccCurve, TpmaObject, TpmsEccPoint, TpmtPublic,
    TpmtSensitive,
};

/// Where a key pair comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// This TPM made or checked it.
    Here,
    /// Anywhere.
    Outside,
}

/// Checks an object that comes into the TPM. With a parent as its child, without as one from outside. `sensitive` is `None` when only the
/// public area comes.
///
/// The child of a fixedTPM parent was made by this TPM, or checked when it was imported: nobody outside knows the seed that protects it. Of
/// its key pair only so much is checked as costs little. Everything else may have been put together by someone who wants to learn what comes
/// of a private key that does not belong to the public one, and is checked in full.
///
/// # Errors
/// Those of [`check_attributes`] (a public area alone and one without a name algorithm: of [`check_schemes`]), `TPM_RC_KEY` for a unique
/// field of a wrong size, `TPM_RC_ECC_POINT` for a point that is not on the curve, `TPM_RC_VALUE` for an exponent, all blaming the public area;
/// `TPM_RC_TYPE` for areas of different types, `TPM_RC_SIZE` for an authorization value or a parent's seedValue, `TPM_RC_KEY_SIZE` for a
/// secret or a seedValue of a wrong size, blaming the sensitive area; `TPM_RC_KEY_SIZE` for an ECC secret that is none of the curve and
/// `TPM_RC_BINDING`, blaming neither, when both areas are well formed but do
/// not belong together.
pub fn check_object(
    parent: Option<&Object>,
    public: &TpmtPublic,
    sensitive: Option<&TpmtSensitive>,
    blame: Blame,
) -> Result<(), ResponseCode> {
    let digest_size = hash_alg(public.name_alg).map(|alg| alg.digest_size());
    let (Some(sensitive), Some(digest_size)) = (sensitive, digest_size) else {
        check_schemes(None, public).map_err(|e| e.parameter(blame.public))?;
        return match sensitive {
            None => check_public(public).map_err(|e| e.parameter(blame.public)),
            Some(sensitive) => check_pair(public, sensitive, Origin::Outside, blame),
        };
    };
    let seed_size = sensitive.seed_value.len();
    if seed_size > digest_size {
        return Err(ResponseCode::KEY_SIZE.parameter(blame.sensitive));
    }
    check_attributes(parent, public).map_err(|e| e.parameter(blame.public))?;
    let origin = match parent {
        Some(parent) if parent.has(TpmaObject::FIXED_TPM) => Origin::Here,
        _ => Origin::Outside,
    };
    check_pair(public, sensitive, origin, blame)?;
    // Half a digest of seed is what the protection of children needs at least.
    let is_parent = public.attributes.has(TpmaObject::RESTRICTED | TpmaObject::DECRYPT);
    if is_parent && seed_size < digest_size / 2 {
        return Err(ResponseCode::SIZE.parameter(blame.sensitive));
    }
    Ok(())
}

/// A public area that comes alone.
fn check_public(public: &TpmtPublic) -> Result<(), ResponseCode> {
    match (&public.parms, &public.unique) {
        (PublicParms::Rsa { key_bits, exponent, .. }, PublicId::Rsa(n)) => {
            check_rsa_public(n, *key_bits, *exponent).map(|_| ())
        }
        (PublicParms::Ecc { curve, .. }, PublicId::Ecc(p)) => {
            let curve = secret::curve(*curve).ok_or(ResponseCode::CURVE)?;
            if p.x.len() != curve.field_size() || p.y.len() != curve.field_size() {
                return Err(ResponseCode::KEY);
            }
            // Without a Name, too: nothing in here works with a point off its curve.
            if ecc::is_on_curve(curve, &secret::point(p)) { Ok(()) } else { Err(ResponseCode::ECC_POINT) }
        }
        (_, PublicId::Digest(d)) => {
            let size = hash_alg(public.name_alg).map_or(0, |alg| alg.digest_size());
            if d.len() == size { Ok(()) } else { Err(ResponseCode::KEY) }
        }
        _ => Err(ResponseCode::TYPE),
    }
}

fn check_rsa_public(n: &[u8], key_bits: u16, exponent: u32) -> Result<RsaPublic, ResponseCode> {
    if n.len() != usize::from(key_bits / 8) || n.first().is_none_or(|first| first & 0x80 == 0) {
        return Err(ResponseCode::KEY);
    }
    if exponent != 0 && exponent < 7 {
        return Err(ResponseCode::VALUE);
    }
    RsaPublic::new(n, exponent).map_err(|e| match e {
        CryptoError::Exponent => ResponseCode::VALUE,
        _ => ResponseCode::KEY,
    })
}

/// A public and a sensitive area that come together.
fn check_pair(
    public: &TpmtPublic,
    sensitive: &TpmtSensitive,
    origin: Origin,
    blame: Blame,
) -> Result<(), ResponseCode> {
    if public.parms.alg() != sensitive.sensitive.alg() {
        return Err(ResponseCode::TYPE.parameter(blame.sensitive));
    }
    let alg = hash_alg(public.name_alg);
    if alg.is_some_and(|alg| sensitive.auth_value.len() > alg.digest_size()) {
        return Err(ResponseCode::SIZE.parameter(blame.sensitive));
    }
    match (&public.parms, &public.unique, &sensitive.sensitive) {
        (PublicParms::Rsa { key_bits, exponent, .. }, PublicId::Rsa(n), SensitiveComposite::Rsa(p)) => {
            let key = check_rsa_public(n, *key_bits, *exponent).map_err(|e| e.parameter(blame.public))?;
            let top_bit = p.expose().first().is_some_and(|first| first & 0x80 != 0);
            if p.len().checked_mul(2) != Some(n.len()) || !top_bit {
                return Err(ResponseCode::KEY_SIZE.parameter(blame.sensitive));
            }
            let belongs = match origin {
                Origin::Here => rsa::is_factor(&key, p.expose()),
                Origin::Outside => RsaPrivate::from_parts(n, *exponent, p.expose()).is_ok(),
            };
            if belongs { Ok(()) } else { Err(ResponseCode::BINDING) }
        }
        (PublicParms::Ecc { curve, .. }, PublicId::Ecc(point), SensitiveComposite::Ecc(d)) => {
            check_ecc_pair(*curve, point, d.expose(), alg.is_some() && origin == Origin::Outside, blame)
        }
        (PublicParms::SymCipher { sym }, PublicId::Digest(_), SensitiveComposite::Sym(key)) => {
            let cipher = SymCipher::of(sym.0).ok_or(ResponseCode::SYMMETRIC.parameter(blame.public))?;
            check_symmetric_key(cipher, key.expose()).map_err(|e| e.parameter(blame.sensitive))?;
            check_symmetric_binding(public, sensitive, blame)
        }
        (PublicParms::KeyedHash { scheme }, PublicId::Digest(_), SensitiveComposite::Bits(bits)) => {
            // Without a scheme it is data, or a key for any hash, and capped by its type alone.
            let max = hash_alg(scheme.hash).map_or(usize::MAX, |alg| alg.block_size());
            if bits.len() > max {
                return Err(ResponseCode::KEY_SIZE.parameter(blame.sensitive));
            }
            check_symmetric_binding(public, sensitive, blame)
        }
        _ => Err(ResponseCode::TYPE.parameter(blame.sensitive)),
    }
}

/// Checks that the two areas of an object that this TPM is to hold belong together, whatever its attributes.
///
/// # Errors
/// Those of [`check_object`] that blame the sensitive area or neither (as parameter 1), and `TPM_RC_CURVE` and `TPM_RC_SYMMETRIC` for what is
/// not implemented (as parameter 2).
pub fn check_held(public: &TpmtPublic, sensitive: &TpmtSensitive) -> Result<(), ResponseCode> {
    check_pair(public, sensitive, Origin::Outside, Blame { public: 2, sensitive: 1 })
}

/// `bound` when the point must be that of the private value; without a name algorithm the public area is not relied on.
fn check_ecc_pair(
    curve: TpmEccCurve,
    point: &TpmsEccPoint,
    d: &[u8],
    bound: bool,
    blame: Blame,
) -> Result<(), ResponseCode> {
    let curve = secret::curve(curve).ok_or(ResponseCode::CURVE.parameter(blame.public))?;
    if !bound {
        return if ecc::is_private(curve, d) { Ok(()) } else { Err(ResponseCode::KEY_SIZE) };
    }
    let expected = ecc::public_of(curve, d).map_err(|_| ResponseCode::KEY_SIZE)?;
    let same = number(&point.x) == number(&expected.x) && number(&point.y) == number(&expected.y);
    if same { Ok(()) } else { Err(ResponseCode::BINDING) }
}

/// Checks a symmetric key that comes from outside.
///
/// # Errors
/// `TPM_RC_KEY_SIZE` for one of another size than the cipher says; `TPM_RC_KEY` for one with which TDES would be weak.
pub fn check_symmetric_key(cipher: SymCipher, key: &[u8]) -> Result<(), ResponseCode> {
    if key.len() != cipher.key_size() {
        return Err(ResponseCode::KEY_SIZE);
    }
    if cipher.alg.is_good_key(key) { Ok(()) } else { Err(ResponseCode::KEY) }
}

/// A number without leading zeros.
fn number(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|&&b| b == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

fn check_symmetric_binding(
    public: &TpmtPublic,
    sensitive: &TpmtSensitive,
    blame: Blame,
) -> Result<(), ResponseCode> {
    let Some(alg) = hash_alg(public.name_alg) else { return Ok(()) };
    if sensitive.seed_value.len() != alg.digest_size() {
        return Err(ResponseCode::KEY_SIZE.parameter(blame.sensitive));
    }
    match &public.unique {
        PublicId::Digest(unique) if *unique == symmetric_unique(alg, public, sensitive) => Ok(()),
        _ => Err(ResponseCode::BINDING),
    }
}
