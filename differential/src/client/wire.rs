//! Commands to bytes, and responses from bytes.

use super::{Auth, Call, Entity, Session, Sessions, attr};
use crate::bytes::{b2, take, take_2b, take_number, u32_at};
use crate::client::crypto::Symmetric;
use crate::rng::Rng;

const RS_PW: u32 = 0x4000_0009;

/// A command as it was sent, with what is needed to check the response.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// The bytes.
    pub bytes: Vec<u8>,
    nonces: Vec<Vec<u8>>,
    /// Whether each session sent an HMAC; the TPM answers with one in that case, even under an empty key.
    macs: Vec<bool>,
}

/// A response.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// The handle, 0 where there is none.
    pub handle: u32,
    /// The parameters, decrypted.
    pub params: Vec<u8>,
    /// For each session: the size of the nonce, the attributes, the size of the HMAC.
    pub sessions: Vec<(usize, u8, usize)>,
    /// What is wrong with it, in the eyes of the client.
    pub faults: Vec<String>,
}

fn entity(call: &Call, i: usize) -> Option<&Entity> {
    call.handles.get(i).filter(|_| i < call.authorized)
}

/// The key of the HMAC.
fn hmac_key(s: &Session, side: usize, entity: Option<&Entity>) -> Vec<u8> {
    let mut key = s.key[side].clone();
    if let Some(e) = entity.filter(|e| s.includes_auth(side, e)) {
        key.extend_from_slice(&e.auth);
    }
    key
}

/// Puts a command together for one side, with fresh nonces, parameter encryption and HMACs.
pub fn build(call: &Call, side: usize, sessions: &Sessions, rng: &mut Rng) -> Sent {
    let uses: Vec<Option<(&Session, u8)>> = call
        .auths
        .iter()
        .map(|a| match a {
            Auth::Password(_) => None,
            Auth::Session(n, attributes) => sessions.get(n).map(|s| (s, *attributes)),
        })
        .collect();
    let nonces: Vec<Vec<u8>> =
        uses.iter().map(|u| u.map_or_else(Vec::new, |(s, _)| rng.bytes(s.alg.size()))).collect();
    let find = |bit: u8| uses.iter().position(|u| u.is_some_and(|(_, a)| a & bit != 0));
    let (decrypt, encrypt) = (find(attr::DECRYPT), find(attr::ENCRYPT));

    let mut params = call.params.0[side].clone();
    if let Some(i) = decrypt
        && let Some((s, _)) = uses[i]
        && s.symmetric != Symmetric::Null
        && params.len() >= 2
    {
        let key = [s.key[side].clone(), entity(call, i).map_or(vec![], |e| e.auth.clone())].concat();
        let size = usize::from(u16::from_be_bytes([params[0], params[1]]));
        if let Some(data) = params.get_mut(2..2 + size) {
            s.symmetric.apply(s.alg, &key, &nonces[i], &s.nonce_tpm[side], data, true);
        }
    }

    let names: Vec<u8> = call.handles.iter().flat_map(|h| h.name[side].clone()).collect();
    let cp_parts = [&call.code.to_be_bytes()[..], &names, &params].concat();
    let mut area = Vec::new();
    let mut macs = vec![false; call.auths.len()];
    for (i, auth) in call.auths.iter().enumerate() {
        let entity = entity(call, i);
        let Some((s, attributes)) = uses[i] else {
            let password: &[u8] = if let Auth::Password(p) = auth { p } else { &[] };
            area.extend([&RS_PW.to_be_bytes()[..], &[0, 0, 0], &b2(password)].concat());
            continue;
        };
        let mut others = Vec::new();
        if i == 0 && entity.is_some() {
            for other in [decrypt.filter(|d| *d != 0), encrypt.filter(|e| *e != 0 && Some(*e) != decrypt)] {
                others.extend(other.and_then(|o| uses[o]).map_or(vec![], |(s, _)| s.nonce_tpm[side].clone()));
            }
        }
        let key = hmac_key(s, side, entity);
        let mac = if s.is_policy() && s.password_needed {
            entity.map_or(vec![], |e| e.auth.clone())
        } else if key.is_empty() {
            vec![]
        } else {
            let cp_hash = s.alg.hash(&[&cp_parts]);
            s.alg.hmac(&key, &[&cp_hash, &nonces[i], &s.nonce_tpm[side], &others, &[attributes]])
        };
        macs[i] = !mac.is_empty();
        area.extend([&s.handle[side].to_be_bytes()[..], &b2(&nonces[i]), &[attributes], &b2(&mac)].concat());
    }
    let mut body: Vec<u8> = call.handles.iter().flat_map(|h| h.handle[side].to_be_bytes()).collect();
    if !call.auths.is_empty() {
        body.extend((area.len() as u32).to_be_bytes());
        body.extend(area);
    }
    body.extend(params);
    let tag: [u8; 2] = if call.auths.is_empty() { [0x80, 1] } else { [0x80, 2] };
    let mut bytes = [&tag[..], &[0; 4], &call.code.to_be_bytes(), &body].concat();
    call.edits.iter().for_each(|e| e.apply(&mut bytes));
    // A size that lies is not for a stream: swtpm would wait for the rest.
    bytes.resize(bytes.len().clamp(10, 4096), 0);
    let size = (bytes.len() as u32).to_be_bytes();
    bytes[2..6].copy_from_slice(&size);
    Sent { bytes, nonces, macs }
}

/// Reads a successful response: checks its HMACs, takes its nonces over, decrypts its first parameter.
pub fn read(call: &Call, side: usize, sessions: &mut Sessions, sent: &Sent, response: &[u8]) -> Reply {
    let mut reply = Reply::default();
    if read_into(call, side, sessions, sent, response, &mut reply).is_none() {
        reply.faults.push("shorter than its parts".into());
    }
    reply
}

fn read_into(
    call: &Call,
    side: usize,
    sessions: &mut Sessions,
    sent: &Sent,
    response: &[u8],
    reply: &mut Reply,
) -> Option<()> {
    let mut rest = response.get(10..)?;
    if call.returns_handle {
        reply.handle = take_number(&mut rest, 4)? as u32;
    }
    if response[..2] == [0x80, 1] {
        reply.params = rest.to_vec();
        return Some(());
    }
    let size = take_number(&mut rest, 4)? as usize;
    reply.params = take(&mut rest, size)?.to_vec();
    let encrypted = reply.params.clone();
    for (i, auth) in call.auths.iter().enumerate() {
        let nonce = take_2b(&mut rest)?.to_vec();
        let attributes = take_number(&mut rest, 1)? as u8;
        let mac = take_2b(&mut rest)?.to_vec();
        reply.sessions.push((nonce.len(), attributes, mac.len()));
        let Auth::Session(number, sent_attributes) = auth else { continue };
        let Some(s) = sessions.get_mut(number) else { continue };
        let entity = entity(call, i);
        let new = call.new_auth.as_ref().filter(|_| i == 0);
        let auth_now = entity.map(|e| new.unwrap_or(&e.auth).clone()).unwrap_or_default();
        let includes_auth = entity.is_some_and(|e| s.includes_auth(side, e));
        let full_key = [s.key[side].clone(), auth_now.clone()].concat();
        let key = if includes_auth { full_key.clone() } else { s.key[side].clone() };
        if nonce.len() != s.nonce_tpm[side].len() {
            reply.faults.push(format!("nonce of {} bytes from session {}", nonce.len(), i + 1));
        }
        s.nonce_tpm[side] = nonce;
        let rp_hash = s.alg.hash(&[&[0; 4], &call.code.to_be_bytes(), &encrypted]);
        let expected = if s.password_needed && s.is_policy() || key.is_empty() && !sent.macs[i] {
            vec![]
        } else {
            s.alg.hmac(&key, &[&rp_hash, &s.nonce_tpm[side], &sent.nonces[i], &[attributes]])
        };
        if mac != expected {
            reply.faults.push(format!("HMAC {} of the response", i + 1));
        }
        if sent_attributes & attr::ENCRYPT != 0 && s.symmetric != Symmetric::Null && reply.params.len() >= 2 {
            let size = u32_at(&[&[0, 0], &reply.params[..2]].concat(), 0) as usize;
            if let Some(data) = reply.params.get_mut(2..2 + size) {
                s.symmetric.apply(s.alg, &full_key, &s.nonce_tpm[side], &sent.nonces[i], data, false);
            }
        }
    }
    if !rest.is_empty() {
        reply.faults.push("bytes after the last session".into());
    }
    Some(())
}
