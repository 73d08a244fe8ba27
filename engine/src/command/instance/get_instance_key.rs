//! GetInstanceKey (figure 12): the keys of a migration, encrypted to storage key S.

use super::{LABEL, target, tree};
use crate::alg::hash_alg;
use crate::command::{Context, EnvRandom, Output, parameters};
use crate::instances::InstanceKey;
use crate::secret;
use crate::wrap::Wrapper;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::instance::GetInstanceKeyOut;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::Tpm2b;

/// Makes fresh keys for the instance and returns them encrypted to S, which must be a restricted decryption key; its public part
/// is enough, as the destination's S is used that was loaded from the ticket.
///
/// # Errors
/// `TPM_RC_KEY`, `TPM_RC_ATTRIBUTES` or `TPM_RC_TYPE` for a key that is no storage key; those of the tree.
pub fn get_instance_key(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let () = parameters(r)?;
    let key = cx.state.object(cx.handle(1)?)?.clone();
    if !secret::is_asymmetric(&key.public) {
        return Err(ResponseCode::TYPE.handle(2));
    }
    if !key.is_storage_key() {
        return Err(ResponseCode::ATTRIBUTES.handle(2));
    }
    let (Some(alg), Some(cipher)) = (hash_alg(key.public.name_alg), key.child_cipher()) else {
        return Err(ResponseCode::KEY.handle(2));
    };
    let target = target(cx)?;
    let structure = match tree(cx)?.get_instance_key(target, &key.name)? {
        InstanceKey::Plain(structure) => structure,
        InstanceKey::Encrypted(out) => return Ok(Output::of(&out)),
    };
    let (seed, encrypted_secret) = secret::encrypt(&key.public, LABEL, &mut EnvRandom(cx.env))?;
    let blob = Wrapper { alg, seed: &seed, name: &key.name, cipher }.seal(&structure)?;
    let out = GetInstanceKeyOut {
        encrypted_secret: Tpm2b::new(encrypted_secret.to_vec())?,
        key_blob: Tpm2b::new(blob)?,
    };
    tree(cx)?.keep_instance_key(&out)?;
    Ok(Output::of(&out))
}
