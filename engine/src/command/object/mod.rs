//! Object commands (Part 3, chapter 12).

mod activate_credential;
#[cfg(test)]
mod ciphers;
mod create;
mod create_loaded;
mod load;
mod load_external;
mod make_credential;
mod object_change_auth;
mod read_public;
mod unseal;

pub use activate_credential::activate_credential;
pub use create::create;
pub use create_loaded::create_loaded;
pub use load::load;
pub use load_external::load_external;
pub use make_credential::make_credential;
pub use object_change_auth::object_change_auth;
pub use read_public::read_public;
pub use unseal::unseal;

use crate::secret;
use crate::state::Object;
use vtpm_protocol::rc::ResponseCode;

/// Whether a credential can be encrypted to the key in handle number `handle`: an asymmetric storage key.
fn check_identity_key(key: &Object, handle: u32) -> Result<(), ResponseCode> {
    if key.is_storage_key() && secret::is_asymmetric(&key.public) {
        Ok(())
    } else {
        Err(ResponseCode::TYPE.handle(handle))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::objects::*;
    use crate::testing::{TestTpm, code, command_bytes};
    use vtpm_protocol::codec::{Encode, encode_sized};
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    /// Changes each byte of a good command in three ways, and cuts the command at each. [`TestTpm::raw`] checks what must hold after any
    /// command; that a change is noticed is left to the tests of the commands.
    fn change_every_byte(tpm: &mut TestTpm, cc: TpmCc, handles: &[TpmHandle], parameters: &[u8]) {
        let mut area = Vec::new();
        if !handles.is_empty() {
            (TpmHandle::RS_PW, 0u16, 0u8).encode(&mut area);
            encode_sized(b"", &mut area);
        }
        let good = command_bytes(cc, handles, &area, parameters);
        let start = good.len() - parameters.len();
        let slots = tpm.state().transient.len();
        assert_eq!(tpm.rc(&good), ResponseCode::SUCCESS);
        let mut answered = 0;
        for i in 0..parameters.len() {
            for change in [1, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[start + i] ^= change;
                while tpm.state().transient.len() > slots {
                    let last = *tpm.state().transient.keys().last().unwrap();
                    flush(tpm, TpmHandle(last));
                }
                let response = tpm.raw(&bad);
                answered += usize::from(code(&response) != ResponseCode::SUCCESS);
            }
            let cut = command_bytes(cc, handles, &area, &parameters[..i]);
            assert_ne!(tpm.rc(&cut), ResponseCode::SUCCESS);
        }
        assert!(answered > 0);
        while tpm.state().transient.len() > slots {
            let last = *tpm.state().transient.keys().last().unwrap();
            flush(tpm, TpmHandle(last));
        }
    }

    #[test]
    fn commands_with_changed_bytes_are_answered_and_change_nothing_when_refused() {
        let mut tpm = TestTpm::started();
        let parent = create_primary(&mut tpm, TpmHandle::OWNER, ecc_storage_key()).unwrap().handle;
        let key = create(&mut tpm, parent, duplicable(ecc_signing_key()), b"pw", b"").unwrap();
        let loaded = load(&mut tpm, parent, &key).unwrap();
        let sensitive_area = tpm.state().object(loaded).unwrap().sensitive.clone().unwrap();
        flush(&mut tpm, loaded);
        let public = Sized2b(key.public.clone());

        let template = |t| {
            (sensitive(b"pw", b""), Sized2b(t), Tpm2bData::empty(), TpmlPcrSelection::default()).to_bytes()
        };
        change_every_byte(&mut tpm, TpmCc::CREATE_PRIMARY, &[TpmHandle::OWNER], &template(hmac_key()));
        change_every_byte(&mut tpm, TpmCc::CREATE, &[parent], &template(ecc_signing_key()));
        change_every_byte(&mut tpm, TpmCc::LOAD, &[parent], &(&key.private, &public).to_bytes());
        let external = (Tpm2bSensitive(Some(sensitive_area.clone())), &public, TpmHandle::NULL);
        change_every_byte(&mut tpm, TpmCc::LOAD_EXTERNAL, &[], &external.to_bytes());
        let mut clear = Vec::new();
        encode_sized(&sensitive_area.to_bytes(), &mut clear);
        let import = (0u16, &public, Tpm2bPrivate::new(clear).unwrap(), 0u16, NO_SYM);
        change_every_byte(&mut tpm, TpmCc::IMPORT, &[parent], &import.to_bytes());
    }
}
