//! SetInstanceKey (figure 15): takes the keys of a migration, encrypted to storage key S.

use super::{LABEL, target, tree};
use crate::alg::hash_alg;
use crate::command::{Context, Output, parameters};
use crate::secret;
use crate::wrap::Wrapper;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::instance::SetInstanceKeyIn;
use vtpm_protocol::rc::ResponseCode;

/// Decrypts the key structure with S and hands it to the tree, which checks it.
///
/// # Errors
/// `TPM_RC_TYPE`, `TPM_RC_ATTRIBUTES`, `TPM_RC_KEY` for a key that cannot decrypt; `TPM_RC_VALUE`, `TPM_RC_ECC_POINT`,
/// `TPM_RC_INTEGRITY` for a structure that is damaged or for another S; those of the tree.
pub fn set_instance_key(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (input,): (SetInstanceKeyIn,) = parameters(r)?;
    let key = cx.state.object(cx.handle(1)?)?.clone();
    if !secret::is_asymmetric(&key.public) {
        return Err(ResponseCode::TYPE.handle(2));
    }
    if !key.is_storage_key() {
        return Err(ResponseCode::ATTRIBUTES.handle(2));
    }
    let (Some(alg), Some(cipher), true) =
        (hash_alg(key.public.name_alg), key.child_cipher(), key.sensitive.is_some())
    else {
        return Err(ResponseCode::KEY.handle(2));
    };
    let seed = secret::decrypt(&key, LABEL, &input.encrypted_secret).map_err(|e| e.parameter(1))?;
    let structure = Wrapper { alg, seed: &seed, name: &key.name, cipher }
        .open(&input.key_blob)
        .map_err(|e| e.parameter(1))?;
    let target = target(cx)?;
    tree(cx)?.set_instance_key(target, &structure)?;
    Ok(Output::none())
}
