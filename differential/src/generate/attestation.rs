//! Attestation: statements that the TPM signs.

use super::{Generator, pcr, signing};
use crate::bytes::{Bytes, Pair};
use crate::client::{Entity, Kind};
use crate::model::Object;
use crate::world::World;
use vtpm_protocol::tpm::{TpmCc as C, TpmHandle as H};

pub const GENERATORS: &[Generator] = &[
    (8, C::QUOTE, quote),
    (6, C::CERTIFY, certify),
    (4, C::GET_TIME, get_time),
    (4, C::GET_SESSION_AUDIT_DIGEST, session_audit),
    (4, C::GET_COMMAND_AUDIT_DIGEST, command_audit),
    (3, C::CERTIFY_X509, certify_x509),
];

fn qualifying(w: &mut World) -> Vec<u8> {
    let n = w.rng.pick(&[0, 8, 20, 32, 64]);
    w.rng.bytes(n)
}

fn quote(w: &mut World) {
    let Some((key, scheme)) = signing::attesting(w) else { return };
    let data = qualifying(w);
    let selection = pcr::selection(w);
    let call = w.call(C::QUOTE, &[&key], Bytes::new().b2(&data).raw(&scheme).raw(&selection));
    w.run(call);
}

fn certify(w: &mut World) {
    let Some((key, scheme)) = signing::attesting(w) else { return };
    let objects = w.model.objects.clone();
    let Some(o) = w.rng.choose(&objects) else { return };
    let data = qualifying(w);
    let call = w.call(C::CERTIFY, &[&o.entity, &key], Bytes::new().b2(&data).raw(&scheme));
    w.run(call);
}

/// Certifies the creation of an object; `proof` is the creation hash and the ticket.
pub fn certify_creation(w: &mut World, object: &Object, proof: &Pair<Vec<u8>>) {
    let Some((key, scheme)) = signing::attesting(w) else { return };
    let data = qualifying(w);
    let hashes = [0, 1].map(|s| crate::bytes::nth_2b(&proof[s], 0));
    let tickets = [0, 1].map(|s| proof[s].get(2 + hashes[s].len()..).unwrap_or_default().to_vec());
    let params = Bytes::new().b2(&data).b2_each(&hashes).raw(&scheme).each(&tickets);
    let call = w.call(C::CERTIFY_CREATION, &[&key, &object.entity], params);
    w.run(call);
}

fn get_time(w: &mut World) {
    let Some((key, scheme)) = signing::attesting(w) else { return };
    let data = qualifying(w);
    let endorsement = w.model.permanent(H::ENDORSEMENT);
    let call = w.call(C::GET_TIME, &[&endorsement, &key], Bytes::new().b2(&data).raw(&scheme));
    w.run(call);
}

fn session_audit(w: &mut World) {
    let Some((key, scheme)) = signing::attesting(w) else { return };
    let audited: Vec<u32> = w
        .model
        .loaded_sessions()
        .into_iter()
        .filter(|n| w.model.sessions.get(n).is_some_and(|s| s.audited))
        .collect();
    let n = match w.rng.choose(&audited) {
        Some(n) => n,
        None => {
            let Some(n) = super::session::any(w, Kind::Hmac, None) else { return };
            n
        }
    };
    let Some(session) = w.model.sessions.get(&n).map(|s| Entity::of_handles(s.handle)) else { return };
    let data = qualifying(w);
    let endorsement = w.model.permanent(H::ENDORSEMENT);
    let params = Bytes::new().b2(&data).raw(&scheme);
    let call = w.call(C::GET_SESSION_AUDIT_DIGEST, &[&endorsement, &key, &session], params);
    w.run(call);
}

fn command_audit(w: &mut World) {
    let Some((key, scheme)) = signing::attesting(w) else { return };
    let data = qualifying(w);
    let endorsement = w.model.permanent(H::ENDORSEMENT);
    let params = Bytes::new().b2(&data).raw(&scheme);
    let call = w.call(C::GET_COMMAND_AUDIT_DIGEST, &[&endorsement, &key], params);
    w.run(call);
}

fn certify_x509(w: &mut World) {
    let Some((key, scheme)) = signing::attesting(w) else { return };
    let objects = w.model.objects.clone();
    let Some(o) = w.rng.choose(&objects) else { return };
    // A partial certificate: issuer, validity, subject, extensions with a key usage that both may like.
    let name = hex::decode("300e310c300a06035504030c03766d31").unwrap_or_default();
    let validity =
        hex::decode("301e170d3236303130313030303030305a170d3336303130313030303030305a").unwrap_or_default();
    let usage = w.rng.pick(&["03020780", "030205a0", "03020520", "03020204"]);
    let octets = hex::decode(format!("300e0603551d0f0101ff0404{usage}")).unwrap_or_default();
    let list = [&[0x30, octets.len() as u8][..], &octets].concat();
    let extensions = [&[0xa3, list.len() as u8][..], &list].concat();
    let all = [&name[..], &validity, &name, &extensions].concat();
    let partial = [&[0x30, all.len() as u8][..], &all].concat();
    let params = Bytes::new().b2(&[]).raw(&scheme).b2(&partial);
    let call = w.call(C::CERTIFY_X509, &[&o.entity, &key], params);
    w.run(call);
}
