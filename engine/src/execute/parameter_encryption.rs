//! Encryption of the first parameter (Part 1, "Session-based encryption").

use super::auth::SessionUse;
use crate::alg::{SymCipher, hash_of};
use crate::command::Context;
use crate::crypto::{kdfa, sym};
use crate::state::{Session, State};
use vtpm_protocol::codec::{Decode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::TpmtSymDef;
use zeroize::Zeroizing;

/// Decrypts the first command parameter if a session asks for it. Caller's nonce is the newer one.
///
/// # Errors
/// `TPM_RC_INSUFFICIENT` for a parameter area without room for a size, `TPM_RC_SIZE` for a size beyond its end, blaming the session.
pub fn decrypt_command(cx: &Context<'_>, parameters: &mut [u8]) -> Result<(), ResponseCode> {
    let Some((number, entry)) = cx.sessions.decrypt() else { return Ok(()) };
    let session = cx.state.session(entry.handle)?;
    let key = key(cx.state, session, entry);
    let data = first_2b(parameters).map_err(|e| e.session(number))?;
    apply(session, &key, &entry.nonce_caller, &session.nonce_tpm, data, false)
}

/// Encrypts the first response parameter if a session asks for it. The TPM's nonce is the newer one.
///
/// # Errors
/// `TPM_RC_FAILURE` when a handler returned no `TPM2B` where its row says so.
pub fn encrypt_response(cx: &Context<'_>, parameters: &mut [u8]) -> Result<(), ResponseCode> {
    let Some((_, entry)) = cx.sessions.encrypt() else { return Ok(()) };
    let session = cx.state.session(entry.handle)?;
    let key = key(cx.state, session, entry);
    let data = first_2b(parameters).map_err(|_| ResponseCode::FAILURE)?;
    apply(session, &key, &session.nonce_tpm, &entry.nonce_caller, data, true)
}

/// sessionKey || authValue of the entity that the session authorizes.
fn key(state: &State, session: &Session, entry: &SessionUse) -> Zeroizing<Vec<u8>> {
    let mut key = Zeroizing::new(Vec::with_capacity(128));
    key.extend_from_slice(session.session_key.expose());
    if let Some(auth) = entry.associated.and_then(|h| state.auth_value(h).ok()) {
        key.extend_from_slice(auth.expose());
    }
    key
}

fn first_2b(parameters: &mut [u8]) -> Result<&mut [u8], ResponseCode> {
    let size = usize::from(u16::decode(&mut Reader::new(parameters))?);
    parameters.get_mut(2..).and_then(|p| p.get_mut(..size)).ok_or(ResponseCode::SIZE)
}

fn apply(
    session: &Session,
    key: &[u8],
    nonce_newer: &[u8],
    nonce_older: &[u8],
    data: &mut [u8],
    encrypt: bool,
) -> Result<(), ResponseCode> {
    match session.symmetric {
        TpmtSymDef::Null => Err(ResponseCode::SYMMETRIC),
        // The hash of the session, whatever the definition of the obfuscation names.
        TpmtSymDef::Xor { .. } => {
            sym::xor_obfuscate(hash_of(session.auth_hash), key, nonce_newer, nonce_older, data);
            Ok(())
        }
        TpmtSymDef::Aes { .. } | TpmtSymDef::Camellia { .. } | TpmtSymDef::Tdes { .. } => {
            let SymCipher { alg, key_bits } =
                SymCipher::of(session.symmetric).ok_or(ResponseCode::SYMMETRIC)?;
            let iv_bits = u32::try_from(alg.block_size()).unwrap_or_default().saturating_mul(8);
            let bits = u32::from(key_bits).saturating_add(iv_bits);
            let material = kdfa(hash_of(session.auth_hash), key, b"CFB", nonce_newer, nonce_older, bits);
            let (cipher_key, iv) =
                material.split_at_checked(usize::from(key_bits / 8)).ok_or(ResponseCode::FAILURE)?;
            let done = if encrypt {
                sym::cfb_encrypt(alg, cipher_key, iv, data)
            } else {
                sym::cfb_decrypt(alg, cipher_key, iv, data)
            };
            done.map_err(|_| ResponseCode::FAILURE)
        }
    }
}
