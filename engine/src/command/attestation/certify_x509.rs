//! `TPM2_CertifyX509` (Part 3, 18.8).

use super::Signer;
use super::x509::{self, Partial};
use crate::alg::{digest_2b, hash_alg};
use crate::command::{Context, Output, parameters};
use crate::signing;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bData, Tpm2bMaxBuffer, TpmtSigScheme};

/// `SIZE_OF_X509_SERIAL_NUMBER`: what RFC 5280 lets a serial number have.
const SERIAL_SIZE: usize = 20;

/// Makes an X.509 certificate of a loaded key out of issuer, validity, subject and extensions: adds version, serial number and public key,
/// and the algorithm of the signature where it is not given, and signs it all. The serial number is a digest of the rest and of the Names
/// of both keys.
///
/// # Errors
/// `TPM_RC_SIZE` for reserved bytes; those of [`Signer::new`], and `TPM_RC_KEY` for no signer; `TPM_RC_ASYMMETRIC` for an object that has no public
/// key; those of [`Partial::parse`] and [`Partial::check`]; `TPM_RC_SCHEME` for a signature that has no algorithm identifier; and those
/// of [`signing::sign`].
pub fn certify_x509(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (reserved, TpmtSigScheme(requested), partial): (Tpm2bData, _, Tpm2bMaxBuffer) = parameters(r)?;
    if !reserved.is_empty() {
        return Err(ResponseCode::SIZE.parameter(1));
    }
    let signer = Signer::new(cx, 1, requested, 2)?;
    let (key, scheme) = signer.key().ok_or(ResponseCode::KEY.handle(2))?;
    let object = cx.state.object(cx.handle(0)?)?;
    let public_key = x509::public_key(object).map_err(|e| e.handle(1))?;
    let partial = Partial::parse(&partial).map_err(|e| e.parameter(3))?;
    let made_algorithm = match partial.signature {
        Some(_) => Vec::new(),
        None => x509::signature_algorithm(key, *scheme)?,
    };
    partial.check(object.public.attributes)?;

    let algorithm = partial.signature.unwrap_or(&made_algorithm);
    let [issuer, validity, subject] = partial.issuer_to_subject;
    let rest = [algorithm, issuer, validity, subject, &public_key, partial.extensions];
    let alg = hash_alg(scheme.hash).ok_or(ResponseCode::SCHEME.parameter(2))?;
    let digest = key.name_alg().unwrap_or(alg).digest(&[&rest.concat(), &key.name, &object.name]);
    let mut serial: Vec<u8> = digest.iter().copied().take(SERIAL_SIZE).collect();
    // Positive without another byte.
    if let Some(first) = serial.first_mut() {
        *first &= 0x7f;
    }
    let (version, serial) = (x509::version_3()?, x509::integer(&serial)?);
    let added = x509::sequence(&[&version, &serial, &made_algorithm, &public_key])?;
    let tbs = x509::sequence(&[&version, &serial, &rest.concat()])?;
    let tbs_digest = alg.digest(&[&tbs]);
    let signature = signing::sign(cx, key, *scheme, &tbs_digest)?;
    Ok(Output::of(&(Tpm2bMaxBuffer::new(added)?, digest_2b(&tbs_digest), signature)))
}

#[cfg(test)]
mod tests;
