//! A TPM in memory and a client that talks to it in bytes.

use crate::crypto::{Alg, SHA256, Symmetric};
use std::collections::BTreeMap;
use vtpm_engine::{Change, CommitFailed, Environment, RecordKey, Tpm};

pub const NULL: u32 = 0x4000_0007;
pub const OWNER: u32 = 0x4000_0001;
pub const LOCKOUT: u32 = 0x4000_000a;
pub const RS_PW: u32 = 0x4000_0009;
pub const ENDORSEMENT: u32 = 0x4000_000b;

pub mod cc {
    pub const HIERARCHY_CHANGE_AUTH: u32 = 0x129;
    pub const CREATE_PRIMARY: u32 = 0x131;
    pub const STARTUP: u32 = 0x144;
    pub const STIR_RANDOM: u32 = 0x146;
    pub const SET_COMMAND_CODE_AUDIT_STATUS: u32 = 0x140;
    pub const DUPLICATE: u32 = 0x14b;
    pub const GET_SESSION_AUDIT_DIGEST: u32 = 0x14d;
    pub const QUOTE: u32 = 0x158;
    pub const SEQUENCE_COMPLETE: u32 = 0x13e;
    pub const SEQUENCE_UPDATE: u32 = 0x15c;
    pub const HASH_SEQUENCE_START: u32 = 0x186;
    pub const SIGN: u32 = 0x15d;
    pub const FLUSH_CONTEXT: u32 = 0x165;
    pub const POLICY_AUTH_VALUE: u32 = 0x16b;
    pub const START_AUTH_SESSION: u32 = 0x176;
    pub const GET_RANDOM: u32 = 0x17b;
    pub const POLICY_PCR: u32 = 0x17f;
    pub const POLICY_GET_DIGEST: u32 = 0x189;
    pub const PCR_EXTEND: u32 = 0x182;
    pub const READ_PUBLIC: u32 = 0x173;
}

/// Session attributes.
pub mod attr {
    pub const CONTINUE: u8 = 1;
    pub const EXCLUSIVE: u8 = 2;
    pub const RESET: u8 = 4;
    pub const DECRYPT: u8 = 0x20;
    pub const ENCRYPT: u8 = 0x40;
    pub const AUDIT: u8 = 0x80;
}

/// Response codes, with the number of a session, parameter or handle where they carry one.
pub mod rc {
    pub const EXCLUSIVE: u32 = 0x121;
    pub const AUTH_TYPE: u32 = 0x124;
    pub const AUTH_MISSING: u32 = 0x125;
    pub const PCR_CHANGED: u32 = 0x128;
    pub const AUTH_UNAVAILABLE: u32 = 0x12f;
    pub const AUTHSIZE: u32 = 0x144;
    pub const AUTH_CONTEXT: u32 = 0x145;
    pub const LOCKOUT: u32 = 0x921;
    pub const NV_UNAVAILABLE: u32 = 0x923;
    const AUTH_FAIL: u32 = 0x08e;
    const BAD_AUTH: u32 = 0x0a2;

    pub const fn session(base: u32, n: u32) -> u32 {
        base | 0x800 | n << 8
    }
    pub const fn auth_fail(n: u32) -> u32 {
        session(AUTH_FAIL, n)
    }
    pub const fn bad_auth(n: u32) -> u32 {
        session(BAD_AUTH, n)
    }
    pub const fn is_auth_fail(rc: u32) -> bool {
        rc & 0xbf == AUTH_FAIL
    }
    pub const fn attributes(n: u32) -> u32 {
        session(0x082, n)
    }
    pub const fn value(n: u32) -> u32 {
        session(0x084, n)
    }
    pub const fn handle(n: u32) -> u32 {
        session(0x08b, n)
    }
    pub const fn nonce(n: u32) -> u32 {
        session(0x08f, n)
    }
    pub const fn size(n: u32) -> u32 {
        session(0x095, n)
    }
    pub const fn symmetric(n: u32) -> u32 {
        session(0x096, n)
    }
    pub const fn policy_fail(n: u32) -> u32 {
        session(0x09d, n)
    }
    pub const fn reference_s(n: u32) -> u32 {
        0x918 + n - 1
    }
}

/// The world of the TPM, deterministic.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct World {
    counter: u64,
    pub now: u64,
    pub fail_commits: bool,
    pub saved: BTreeMap<RecordKey, Vec<u8>>,
}

impl Environment for World {
    fn fill_random(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(32) {
            self.counter += 1;
            let block = SHA256.hash(&[b"world", &self.counter.to_be_bytes()]);
            chunk.copy_from_slice(&block[..chunk.len()]);
        }
    }

    fn now_ms(&mut self) -> u64 {
        self.now
    }

    fn commit(&mut self, changes: Vec<Change>, _: &[u8]) -> Result<(), CommitFailed> {
        if self.fail_commits {
            return Err(CommitFailed);
        }
        for change in changes {
            match change.value {
                Some(value) => self.saved.insert(change.key, value.to_vec()),
                None => self.saved.remove(&change.key),
            };
        }
        Ok(())
    }
}

/// Something with a handle, a Name and an authorization value.
#[derive(Clone, Debug)]
pub struct Entity {
    pub handle: u32,
    pub name: Vec<u8>,
    pub auth: Vec<u8>,
}

impl Entity {
    pub fn permanent(handle: u32, auth: &[u8]) -> Self {
        Self { handle, name: handle.to_be_bytes().to_vec(), auth: auth.to_vec() }
    }
}

/// The client's side of a session.
#[derive(Clone)]
pub struct Session {
    pub handle: u32,
    pub alg: Alg,
    pub symmetric: Symmetric,
    pub key: Vec<u8>,
    pub nonce_tpm: Vec<u8>,
    /// Name and authorization value of the entity that it is bound to.
    pub bound: Option<(Vec<u8>, Vec<u8>)>,
    /// A policy session whose policy wants the authorization value.
    pub auth_value_needed: bool,
    /// A policy session whose policy wants it as a password.
    pub password_needed: bool,
    /// What the TPM must have as audit digest.
    pub audit_digest: Vec<u8>,
}

impl Session {
    fn is_policy(&self) -> bool {
        self.handle >> 24 == 3
    }

    fn includes_auth(&self, entity: &Entity) -> bool {
        if self.is_policy() {
            self.auth_value_needed
        } else {
            self.bound.as_ref() != Some(&(entity.name.clone(), entity.auth.clone()))
        }
    }
}

/// One entry of the authorization area: a password, or a session of the client by number with attributes.
#[derive(Clone)]
pub enum Auth {
    Password(Vec<u8>),
    Session(usize, u8),
}

/// What a salt is encrypted to.
#[derive(Clone)]
pub enum SaltKey {
    Rsa { key: Entity, alg: Alg, modulus: Vec<u8> },
    Ecc { key: Entity, alg: Alg, curve: u16, point: Vec<u8> },
}

/// A command. The first `authorized` of the handles take the first entries of `auths`.
#[derive(Clone, Default)]
pub struct Cmd {
    pub code: u32,
    pub handles: Vec<Entity>,
    pub authorized: usize,
    pub auths: Vec<Auth>,
    pub params: Vec<u8>,
    pub returns_handle: bool,
    /// What the authorization value of the first handle is after the command, where it changes it.
    pub new_auth: Option<Vec<u8>>,
    /// Leaves the nonces of the decrypting and encrypting session out of the first HMAC: a wrong client.
    pub omits_other_nonces: bool,
}

/// A command as it was sent, with what is needed to check the response.
pub struct Sent {
    pub bytes: Vec<u8>,
    nonces: Vec<Vec<u8>>,
    /// Whether each session sent an HMAC; the TPM answers with one in that case, even under an empty key.
    macs: Vec<bool>,
    /// What the cpHash is of.
    pub cp_parts: Vec<u8>,
}

/// A response.
#[derive(Debug)]
pub struct Reply {
    pub handle: Option<u32>,
    pub params: Vec<u8>,
    /// The attributes of each session.
    pub attributes: Vec<u8>,
}

pub fn b2(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

/// Takes a `TPM2B` from the front.
pub fn take_2b<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    let size = usize::from(u16::from_be_bytes(bytes[..2].try_into().unwrap()));
    let (out, rest) = bytes[2..].split_at(size);
    *bytes = rest;
    out
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// The TPM and the client.
pub struct Bench {
    pub tpm: Tpm,
    pub world: World,
    pub locality: u8,
    pub sessions: Vec<Session>,
    nonces: u64,
}

impl Bench {
    pub fn manufactured() -> Self {
        let mut world = World { now: 5_000, ..World::default() };
        let tpm = Tpm::manufacture(&mut world);
        world.saved = tpm.records().into_iter().map(|(k, v)| (k, v.to_vec())).collect();
        Self { tpm, world, locality: 0, sessions: Vec::new(), nonces: 0 }
    }

    /// After `Startup(CLEAR)`.
    pub fn new() -> Self {
        let mut bench = Self::manufactured();
        bench.ok(&Cmd { code: cc::STARTUP, params: vec![0, 0], ..Cmd::default() });
        bench
    }

    /// As after SIGKILL and a new start of the daemon.
    pub fn restart_daemon(&mut self) {
        let records: Vec<_> = self.world.saved.iter().map(|(k, v)| (*k, v.clone().into())).collect();
        self.tpm = Tpm::from_records(&records).unwrap();
    }

    /// `_TPM_Init`; for a TPM that was reloaded before it, too.
    pub fn lose_power(&mut self) {
        let mut reloaded = Tpm::from_records(&self.tpm.records()).unwrap();
        let mut world = self.world.clone();
        self.tpm.init(&mut self.world).unwrap();
        reloaded.init(&mut world).unwrap();
        assert!(reloaded.records() == self.tpm.records() && world == self.world);
    }

    /// Bytes in, bytes out. Whatever went in, what comes out is a well-formed response; a failed command changed nothing, or the permanent
    /// state alone where a failed authorization counts; and what the TPM remembers is what was committed.
    ///
    /// A second TPM, which is loaded from the records of the first before every command, answers the same bytes and has the same records
    /// after it: whenever a daemon is started anew, its guest does not learn of it.
    pub fn raw(&mut self, command: &[u8]) -> Vec<u8> {
        let before = self.tpm.records();
        let mut reloaded = Tpm::from_records(&before).unwrap();
        let mut world = self.world.clone();
        let response = self.tpm.execute(&mut self.world, self.locality, command);
        let after = self.tpm.records();
        assert_eq!(
            reloaded.execute(&mut world, self.locality, command),
            response,
            "reloaded before {command:02x?}"
        );
        assert!(reloaded.records() == after, "reloaded before {command:02x?}");
        assert!(world == self.world, "reloaded before {command:02x?}");
        assert!(response.len() >= 10, "{response:02x?}");
        assert_eq!(u32_at(&response, 2) as usize, response.len());
        let rc = u32_at(&response, 6);
        let tag = u16::from_be_bytes([response[0], response[1]]);
        if rc != 0 {
            assert_eq!(response.len(), 10);
            assert_eq!(tag, 0x8001);
            for (then, now) in before.iter().zip(&after) {
                // A failed authorization counts even where it cannot be made durable.
                let may_count = rc::is_auth_fail(rc) || self.world.fail_commits;
                let counted = then.0 == RecordKey::Permanent && may_count;
                assert!(then == now || counted, "{rc:x} changed {:?}", then.0);
            }
            assert_eq!(before.len(), after.len());
        } else {
            assert_eq!([response[0], response[1]], command[..2]);
        }
        if !self.world.fail_commits {
            let now: BTreeMap<_, _> = after.iter().map(|(k, v)| (*k, v.to_vec())).collect();
            assert!(now == self.world.saved, "what was committed is not what the TPM remembers");
        }
        response
    }

    pub fn new_nonce(&mut self, size: usize) -> Vec<u8> {
        self.nonces += 1;
        SHA256.kdfa(b"client", "NONCE", &self.nonces.to_be_bytes(), &[], size * 8)
    }

    /// Makes the bytes of a command, with fresh nonces, parameter encryption and HMACs.
    pub fn build(&mut self, cmd: &Cmd) -> Sent {
        let uses: Vec<Option<(Session, u8)>> = cmd
            .auths
            .iter()
            .map(|a| match a {
                Auth::Password(_) => None,
                Auth::Session(i, attributes) => Some((self.sessions[*i].clone(), *attributes)),
            })
            .collect();
        let nonces: Vec<Vec<u8>> = uses
            .iter()
            .map(|u| u.as_ref().map_or_else(Vec::new, |(s, _)| self.new_nonce(s.alg.size())))
            .collect();
        let find = |bit: u8| uses.iter().position(|u| u.as_ref().is_some_and(|(_, a)| a & bit != 0));
        let (decrypt, encrypt) = (find(attr::DECRYPT), find(attr::ENCRYPT));

        let mut params = cmd.params.clone();
        if let Some(i) = decrypt
            && let Some((s, _)) = &uses[i]
            && s.symmetric != Symmetric::Null
        {
            let key = [s.key.clone(), self.entity(cmd, i).map_or(vec![], |e| e.auth.clone())].concat();
            // A test may send less than a whole first parameter; that goes as it is.
            let size = params.first_chunk().map_or(0, |size| usize::from(u16::from_be_bytes(*size)));
            if let Some(data) = params.get_mut(2..2 + size) {
                s.symmetric.apply(s.alg, &key, &nonces[i], &s.nonce_tpm, data, true);
            }
        }

        let names: Vec<u8> = cmd.handles.iter().flat_map(|h| h.name.clone()).collect();
        let cp_parts = [&cmd.code.to_be_bytes()[..], &names, &params].concat();
        let mut area = Vec::new();
        let mut macs = vec![false; cmd.auths.len()];
        for (i, auth) in cmd.auths.iter().enumerate() {
            match (auth, &uses[i]) {
                (Auth::Password(password), _) => {
                    area.extend([&RS_PW.to_be_bytes()[..], &[0, 0, 0], &b2(password)].concat());
                }
                (Auth::Session(..), Some((s, attributes))) => {
                    let entity = self.entity(cmd, i);
                    let mut others = Vec::new();
                    if i == 0 && entity.is_some() && !cmd.omits_other_nonces {
                        if let Some(d) = decrypt.filter(|d| *d != 0) {
                            others.extend_from_slice(&uses[d].as_ref().unwrap().0.nonce_tpm);
                        }
                        if let Some(e) = encrypt.filter(|e| *e != 0 && Some(*e) != decrypt) {
                            others.extend_from_slice(&uses[e].as_ref().unwrap().0.nonce_tpm);
                        }
                    }
                    let key = hmac_key(s, entity);
                    let mac = if s.password_needed {
                        entity.map_or(vec![], |e| e.auth.clone())
                    } else if key.is_empty() {
                        vec![]
                    } else {
                        let cp_hash = s.alg.hash(&[&cp_parts]);
                        s.alg.hmac(&key, &[&cp_hash, &nonces[i], &s.nonce_tpm, &others, &[*attributes]])
                    };
                    macs[i] = !mac.is_empty();
                    let handle = s.handle.to_be_bytes();
                    area.extend([&handle[..], &b2(&nonces[i]), &[*attributes], &b2(&mac)].concat());
                }
                _ => {}
            }
        }
        let mut body: Vec<u8> = cmd.handles.iter().flat_map(|h| h.handle.to_be_bytes()).collect();
        if !cmd.auths.is_empty() {
            body.extend((area.len() as u32).to_be_bytes());
            body.extend(area);
        }
        body.extend(params);
        let tag: [u8; 2] = if cmd.auths.is_empty() { [0x80, 1] } else { [0x80, 2] };
        let size = (body.len() as u32 + 10).to_be_bytes();
        let bytes = [&tag[..], &size, &cmd.code.to_be_bytes(), &body].concat();
        Sent { bytes, nonces, macs, cp_parts }
    }

    fn entity<'a>(&self, cmd: &'a Cmd, i: usize) -> Option<&'a Entity> {
        cmd.handles.get(i).filter(|_| i < cmd.authorized)
    }

    /// Checks the HMACs of a response, takes its nonces over, decrypts its first parameter.
    pub fn finish(&mut self, cmd: &Cmd, sent: &Sent, response: &[u8]) -> Result<Reply, u32> {
        let code = u32_at(response, 6);
        if code != 0 {
            return Err(code);
        }
        let mut rest = &response[10..];
        let handle = cmd.returns_handle.then(|| {
            let h = u32_at(rest, 0);
            rest = &rest[4..];
            h
        });
        if cmd.auths.is_empty() {
            return Ok(Reply { handle, params: rest.to_vec(), attributes: vec![] });
        }
        let size = u32_at(rest, 0) as usize;
        let mut params = rest[4..4 + size].to_vec();
        let mut area = &rest[4 + size..];
        let mut all_attributes = Vec::new();
        let mut decrypt = None;
        for (i, auth) in cmd.auths.iter().enumerate() {
            let nonce = take_2b(&mut area).to_vec();
            let attributes = area[0];
            area = &area[1..];
            let mac = take_2b(&mut area).to_vec();
            all_attributes.push(attributes);
            let Auth::Session(number, sent_attributes) = auth else {
                assert_eq!((nonce.len(), attributes, mac.len()), (0, attr::CONTINUE, 0));
                continue;
            };
            let entity = self.entity(cmd, i).map(|e| {
                let new = cmd.new_auth.clone().filter(|_| i == 0);
                (e.clone(), Entity { auth: new.unwrap_or_else(|| e.auth.clone()), ..e.clone() })
            });
            let s = &mut self.sessions[*number];
            let mut key = s.key.clone();
            let mut full_key = s.key.clone();
            if let Some((then, now)) = &entity {
                full_key.extend_from_slice(&now.auth);
                if s.includes_auth(then) {
                    key.extend_from_slice(&now.auth);
                }
            }
            assert_ne!(nonce, s.nonce_tpm, "the nonce does not roll");
            assert_eq!(nonce.len(), s.nonce_tpm.len());
            s.nonce_tpm = nonce;
            let rp_parts = [&[0; 4][..], &cmd.code.to_be_bytes(), &params].concat();
            let rp_hash = s.alg.hash(&[&rp_parts]);
            let expected = if s.password_needed || (key.is_empty() && !sent.macs[i]) {
                vec![]
            } else {
                s.alg.hmac(&key, &[&rp_hash, &s.nonce_tpm, &sent.nonces[i], &[attributes]])
            };
            assert_eq!(mac, expected, "HMAC {i} of the response");
            if sent_attributes & attr::AUDIT != 0 {
                if s.audit_digest.is_empty() || sent_attributes & attr::RESET != 0 {
                    s.audit_digest = vec![0; s.alg.size()];
                    s.bound = None;
                }
                let cp_hash = s.alg.hash(&[&sent.cp_parts]);
                s.audit_digest = s.alg.hash(&[&s.audit_digest, &cp_hash, &rp_hash]);
            }
            if sent_attributes & attr::ENCRYPT != 0 {
                decrypt = Some((s.clone(), full_key, sent.nonces[i].clone()));
            }
            if s.is_policy() {
                s.auth_value_needed = false;
                s.password_needed = false;
            }
        }
        assert!(area.is_empty(), "bytes after the last session");
        if let Some((s, key, nonce)) = decrypt {
            let size = usize::from(u16::from_be_bytes([params[0], params[1]]));
            s.symmetric.apply(s.alg, &key, &s.nonce_tpm, &nonce, &mut params[2..2 + size], false);
        }
        Ok(Reply { handle, params, attributes: all_attributes })
    }

    pub fn run(&mut self, cmd: &Cmd) -> Result<Reply, u32> {
        let sent = self.build(cmd);
        let response = self.raw(&sent.bytes);
        self.finish(cmd, &sent, &response)
    }

    pub fn ok(&mut self, cmd: &Cmd) -> Reply {
        self.run(cmd).unwrap_or_else(|rc| panic!("command {:x} failed with {rc:x}", cmd.code))
    }

    /// The code of a command that must fail.
    pub fn fails(&mut self, cmd: &Cmd) -> u32 {
        self.run(cmd).expect_err("the command succeeded")
    }
}

fn hmac_key(s: &Session, entity: Option<&Entity>) -> Vec<u8> {
    let mut key = s.key.clone();
    if let Some(e) = entity.filter(|e| s.includes_auth(e)) {
        key.extend_from_slice(&e.auth);
    }
    key
}
