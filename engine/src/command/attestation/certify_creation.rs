//! `TPM2_CertifyCreation` (Part 3, 18.3).

use super::{Signer, attest};
use crate::command::{Context, Output, parameters};
use crate::ticket;
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Attested, Tpm2bData, Tpm2bDigest, TpmtSigScheme, TpmtTkCreation};

/// Signs that this TPM created a loaded object, with creation data of the given digest. The ticket of the creation tells.
///
/// # Errors
/// Those of [`Signer::new`] and [`attest`]; `TPM_RC_TICKET` for a ticket that this TPM did not make for this object and digest.
pub fn certify_creation(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (qualifying_data, creation_hash, TpmtSigScheme(requested), TpmtTkCreation(creation_ticket)): (
        Tpm2bData,
        Tpm2bDigest,
        _,
        _,
    ) = parameters(r)?;
    let signer = Signer::new(cx, 0, requested, 3)?;
    let object_name = cx.state.object(cx.handle(1)?)?.name.clone();
    let expected = ticket::creation(cx.state, creation_ticket.hierarchy, &object_name, &creation_hash);
    if !ticket::is_same(&creation_ticket, &expected) {
        return Err(ResponseCode::TICKET.parameter(4));
    }
    let attested = Attested::Creation { object_name, creation_hash };
    Ok(Output::of(&attest(cx, &signer, qualifying_data, attested)?))
}

#[cfg(test)]
mod tests {
    use crate::command::attestation::testing::*;
    use crate::signing::test_keys::*;
    use crate::testing::TestTpm;
    use crate::testing::objects as build;
    use crate::testing::objects::{Created, create, create_primary, ecc_storage_key, hmac_key};
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::*;

    struct Bench {
        tpm: TestTpm,
        key: TpmHandle,
        object: TpmHandle,
        created: Created,
    }

    fn bench() -> Bench {
        let mut tpm = TestTpm::started();
        let parent = create_primary(&mut tpm, TpmHandle::OWNER, ecc_storage_key()).unwrap().handle;
        let created = create(&mut tpm, parent, hmac_key(), b"", b"").unwrap();
        let object = build::load(&mut tpm, parent, &created).unwrap();
        build::flush(&mut tpm, parent);
        let key = load(&mut tpm, ecc(ECDSA));
        Bench { tpm, key, object, created }
    }

    impl Bench {
        fn certify(&mut self, hash: &Tpm2bDigest, ticket: &TpmtTk) -> Result<Attestation, ResponseCode> {
            let input = (nonce(), hash, TpmtSigScheme(Scheme::NULL), ticket);
            let handles = [self.key, self.object];
            attestation(&mut self.tpm, TpmCc::CERTIFY_CREATION, &handles, &[AUTH], &input)
        }
    }

    #[test]
    fn a_creation_that_the_ticket_proves_is_signed() {
        let mut b = bench();
        let (hash, ticket) = (b.created.creation_hash.clone(), b.created.ticket.clone());
        let out = b.certify(&hash, &ticket).unwrap();
        out.check(&mut b.tpm, b.key, &nonce());
        let object_name = b.tpm.state().object(b.object).unwrap().name.clone();
        assert_eq!(out.attest.attested, Attested::Creation { object_name, creation_hash: hash });
    }

    #[test]
    fn objects_of_the_null_hierarchy_have_tickets_of_their_own() {
        let mut b = bench();
        let parent = create_primary(&mut b.tpm, TpmHandle::NULL, ecc_storage_key()).unwrap().handle;
        build::flush(&mut b.tpm, b.object);
        b.created = create(&mut b.tpm, parent, hmac_key(), b"", b"").unwrap();
        b.object = build::load(&mut b.tpm, parent, &b.created).unwrap();
        let (hash, ticket) = (b.created.creation_hash.clone(), b.created.ticket.clone());
        assert_eq!(ticket.hierarchy, TpmHandle::NULL);
        assert!(b.certify(&hash, &ticket).is_ok());
        let none = TpmtTk::null(TpmSt::CREATION);
        assert_eq!(b.certify(&hash, &none).map(drop), Err(ResponseCode::TICKET.parameter(4)));
    }

    #[test]
    fn a_ticket_of_another_object_digest_kind_or_hierarchy_is_refused() {
        let mut b = bench();
        let (hash, ticket) = (b.created.creation_hash.clone(), b.created.ticket.clone());
        let refused = Err(ResponseCode::TICKET.parameter(4));
        let mut other = hash.to_vec();
        other[0] ^= 1;
        assert_eq!(b.certify(&Tpm2bDigest::new(other).unwrap(), &ticket).map(drop), refused);
        let moved = TpmtTk { hierarchy: TpmHandle::ENDORSEMENT, ..ticket.clone() };
        assert_eq!(b.certify(&hash, &moved).map(drop), refused);
        for wrong in [TpmSt::HASHCHECK, TpmSt::VERIFIED] {
            let kind = TpmtTk { tag: wrong, ..ticket.clone() };
            assert_eq!(b.certify(&hash, &kind).map(drop), Err(ResponseCode::TAG.parameter(4)));
        }
        let nowhere = TpmtTk { hierarchy: TpmHandle::LOCKOUT, ..ticket.clone() };
        assert_eq!(b.certify(&hash, &nowhere).map(drop), Err(ResponseCode::VALUE.parameter(4)));
        let object = core::mem::replace(&mut b.object, b.key);
        assert_eq!(b.certify(&hash, &ticket).map(drop), refused);
        b.object = object;
        assert!(b.certify(&hash, &ticket).is_ok());
    }

    #[test]
    fn the_scheme_is_parameter_three_and_the_signer_handle_one() {
        let mut b = bench();
        let (hash, ticket) = (b.created.creation_hash.clone(), b.created.ticket.clone());
        let input = (nonce(), &hash, TpmtSigScheme(Scheme::new(TpmAlgId::ECDSA, TpmAlgId::SHA1)), &ticket);
        let (key, object) = (b.key, b.object);
        let mut run = |handles: &[TpmHandle], passwords: &[&[u8]]| {
            attestation(&mut b.tpm, TpmCc::CERTIFY_CREATION, handles, passwords, &input).map(drop)
        };
        assert_eq!(run(&[key, object], &[AUTH]), Err(ResponseCode::SCHEME.parameter(3)));
        assert_eq!(run(&[key, object], &[b"no"]), Err(ResponseCode::AUTH_FAIL.session(1)));
        assert_eq!(run(&[TpmHandle::NULL, object], &[b""]), Ok(()));
        assert_eq!(run(&[TpmHandle::NULL, TpmHandle::NULL], &[b""]), Err(ResponseCode::VALUE.handle(2)));
        b.key = load(&mut b.tpm, without(ecc(Scheme::NULL), TpmaObject::SIGN_ENCRYPT));
        assert_eq!(b.certify(&hash, &ticket).map(drop), Err(ResponseCode::KEY.handle(1)));
    }
}
