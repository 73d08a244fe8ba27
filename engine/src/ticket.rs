//! Tickets (Part 2, 10.7): proof that this TPM made or checked something, an HMAC under the proof of a hierarchy.
//!
//! All of them use the hash of saved contexts, SHA-512. A ticket ends with the proof of its hierarchy: those of the null hierarchy with a
//! TPM Reset, those of owner and endorsement with `TPM2_Clear`.

use crate::alg::digest_2b;
use crate::command::policy::Terms;
use crate::context::HASH;
use crate::crypto::{ct_eq, hmac};
use crate::state::State;
use vtpm_protocol::codec::{Encode, encode_sized};
use vtpm_protocol::tpm::{TPM_GENERATED, TpmAlgId, TpmHandle, TpmSt, TpmtTk};

fn compute(state: &State, tag: TpmSt, hierarchy: TpmHandle, parts: &[&[u8]]) -> TpmtTk {
    let tag_bytes = tag.to_bytes();
    let mut data: Vec<&[u8]> = vec![&tag_bytes];
    data.extend_from_slice(parts);
    let digest = hmac(HASH, state.proof(hierarchy).expose(), &data);
    TpmtTk { tag, hierarchy, digest: digest_2b(&digest) }
}

/// `TPMT_TK_CREATION`: the object of this Name was created here, with creation data of this digest.
#[must_use]
pub fn creation(state: &State, hierarchy: TpmHandle, name: &[u8], creation_hash: &[u8]) -> TpmtTk {
    compute(state, TpmSt::CREATION, hierarchy, &[name, creation_hash])
}

/// `TPMT_TK_VERIFIED`: a signature over `digest` by the key of this Name was verified here. `hierarchy` is the key's; for one of the
/// null hierarchy the caller returns [`TpmtTk::null`] instead (Part 3, 20.1).
#[must_use]
pub fn verified(state: &State, hierarchy: TpmHandle, digest: &[u8], key_name: &[u8]) -> TpmtTk {
    compute(state, TpmSt::VERIFIED, hierarchy, &[digest, key_name])
}

/// `TPMT_TK_HASHCHECK`: `digest` was computed here, with `alg`, over data for which [`is_safe_to_sign`] holds. For the null hierarchy the
/// caller returns [`TpmtTk::null`] instead (Part 3, 15.4).
#[must_use]
pub fn hash_check(state: &State, hierarchy: TpmHandle, alg: TpmAlgId, digest: &[u8]) -> TpmtTk {
    compute(state, TpmSt::HASHCHECK, hierarchy, &[&alg.to_bytes(), digest])
}

/// `TPMT_TK_AUTH`: the entity of this Name authorized on these terms, by signature (`TPM_ST_AUTH_SIGNED`) or by its authorization value
/// (`TPM_ST_AUTH_SECRET`). One with a timeout ends with the time epoch, and if the terms say so with a TPM Reset.
///
/// What the specification concatenates has its sizes here: else one could take the bytes of a policyRef for those of a cpHash.
#[must_use]
pub fn auth(state: &State, tag: TpmSt, hierarchy: TpmHandle, terms: &Terms, name: &[u8]) -> TpmtTk {
    let mut data = (&terms.cp_hash, &terms.policy_ref).to_bytes();
    encode_sized(name, &mut data);
    terms.timeout.encode(&mut data);
    if terms.timeout != 0 {
        state.volatile.time_epoch.encode(&mut data);
        if terms.expires_on_reset {
            state.permanent.total_reset_count.encode(&mut data);
        }
    }
    compute(state, tag, hierarchy, &[&data])
}

/// Whether `ticket` is `expected`: the one that this TPM would make over the same data. The HMACs are compared in constant time.
#[must_use]
pub fn is_same(ticket: &TpmtTk, expected: &TpmtTk) -> bool {
    ticket.tag == expected.tag
        && ticket.hierarchy == expected.hierarchy
        && ct_eq(&ticket.digest, &expected.digest)
}

/// Whether a digest of `data` may be signed by a restricted key: the data cannot be taken for a structure that the TPM made itself, as it has
/// four bytes at least and does not begin with `TPM_GENERATED_VALUE`. For data in pieces, `data` is the beginning.
#[must_use]
pub fn is_safe_to_sign(data: &[u8]) -> bool {
    data.get(..4).is_some_and(|start| start != TPM_GENERATED.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestTpm;

    #[test]
    fn a_ticket_is_the_hmac_of_its_kind_and_data_under_the_proof() {
        let mut tpm = TestTpm::started();
        let state = tpm.state();
        let proof = state.permanent.owner.proof.expose().to_vec();
        let expected = hmac(HASH, &proof, &[&[0x80, 0x21], b"name", b"hash"]);
        let ticket = creation(state, TpmHandle::OWNER, b"name", b"hash");
        assert_eq!((ticket.tag, ticket.hierarchy), (TpmSt::CREATION, TpmHandle::OWNER));
        assert_eq!(ticket.digest.as_slice(), &*expected);
        let expected = hmac(HASH, &proof, &[&[0x80, 0x24, 0, 0x0b], b"digest"]);
        let ticket = hash_check(state, TpmHandle::OWNER, TpmAlgId::SHA256, b"digest");
        assert_eq!(ticket.digest.as_slice(), &*expected);
    }

    #[test]
    fn a_ticket_of_another_kind_hierarchy_or_data_is_not_the_same() {
        let mut tpm = TestTpm::started();
        let state = tpm.state();
        let expected = verified(state, TpmHandle::OWNER, b"digest", b"name");
        assert!(is_same(&verified(state, TpmHandle::OWNER, b"digest", b"name"), &expected));
        assert!(!is_same(&verified(state, TpmHandle::ENDORSEMENT, b"digest", b"name"), &expected));
        assert!(!is_same(&verified(state, TpmHandle::OWNER, b"digesT", b"name"), &expected));
        assert!(!is_same(&creation(state, TpmHandle::OWNER, b"digest", b"name"), &expected));
        assert!(!is_same(&TpmtTk::null(TpmSt::VERIFIED), &expected));
        let renamed = TpmtTk { hierarchy: TpmHandle::PLATFORM, ..expected.clone() };
        assert!(!is_same(&renamed, &expected));
    }

    #[test]
    fn data_that_looks_like_an_attestation_is_not_safe() {
        assert!(is_safe_to_sign(b"data"));
        assert!(!is_safe_to_sign(b"dat"));
        assert!(!is_safe_to_sign(&[0xff, b'T', b'C', b'G', 1, 2]));
        assert!(is_safe_to_sign(&[0xff, b'T', b'C', b'H', 1, 2]));
    }
}
