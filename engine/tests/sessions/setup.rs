//! Keys and sessions for the tests.

use crate::client::{Auth, Bench, Cmd, Entity, NULL, OWNER, SaltKey, Session, attr, b2, cc, take_2b};
use crate::crypto::{Alg, SHA256, Symmetric};

/// How a session is started.
#[derive(Clone)]
pub struct Start {
    /// 0 HMAC, 1 policy, 3 trial.
    pub kind: u8,
    pub alg: Alg,
    pub symmetric: Symmetric,
    pub bind: Option<Entity>,
    pub salt: Option<SaltKey>,
}

impl Default for Start {
    fn default() -> Self {
        Self { kind: 0, alg: SHA256, symmetric: Symmetric::Null, bind: None, salt: None }
    }
}

impl Start {
    pub fn policy() -> Self {
        Self { kind: 1, ..Self::default() }
    }
}

pub const NO_DA: u32 = 1 << 10;
pub const USER_WITH_AUTH: u32 = 1 << 6;
/// fixedTPM, fixedParent, sensitiveDataOrigin, sign.
const SIGNING: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 18;

impl Bench {
    pub fn owner(&self) -> Entity {
        Entity::permanent(OWNER, b"")
    }

    /// Starts a session and returns its number.
    pub fn start(&mut self, start: &Start) -> usize {
        let nonce = self.new_nonce(start.alg.size());
        let null = Entity::permanent(NULL, b"");
        let (salt, encrypted, key) = match &start.salt {
            None => (vec![], vec![], null.clone()),
            Some(SaltKey::Rsa { key, modulus }) => {
                let salt = b"a salt of thirty-two bytes......".to_vec();
                let block = SHA256.oaep(b"SECRET\0", &salt, modulus.len());
                (salt, rsa_public_operation(modulus, &block), key.clone())
            }
            Some(SaltKey::Ecc { key, point }) => {
                let (salt, ephemeral) = ecdh_salt(point);
                (salt, ephemeral, key.clone())
            }
        };
        let bind = start.bind.clone().unwrap_or(null);
        let params = [
            b2(&nonce),
            b2(&encrypted),
            vec![start.kind],
            start.symmetric.bytes(),
            start.alg.0.to_be_bytes().to_vec(),
        ]
        .concat();
        let reply = self.ok(&Cmd {
            code: cc::START_AUTH_SESSION,
            handles: vec![key, bind.clone()],
            params,
            returns_handle: true,
            ..Cmd::default()
        });
        let nonce_tpm = take_2b(&mut &reply.params[..]).to_vec();
        let key = if start.bind.is_none() && salt.is_empty() {
            vec![]
        } else {
            let secret = [bind.auth.clone(), salt].concat();
            start.alg.kdfa(&secret, "ATH", &nonce_tpm, &nonce, start.alg.size() * 8)
        };
        self.sessions.push(Session {
            handle: reply.handle.unwrap(),
            alg: start.alg,
            symmetric: start.symmetric,
            key,
            nonce_tpm,
            bound: start.bind.clone().filter(|_| start.kind == 0).map(|b| (b.name, b.auth)),
            auth_value_needed: false,
            password_needed: false,
            audit_digest: vec![],
        });
        self.sessions.len() - 1
    }

    pub fn flush(&mut self, session: usize) {
        let params = self.sessions[session].handle.to_be_bytes().to_vec();
        self.ok(&Cmd { code: cc::FLUSH_CONTEXT, params, ..Cmd::default() });
    }

    /// A primary object of the owner, whose authorization value is still empty; with its public area.
    pub fn primary(&mut self, auth: &[u8], template: &[u8]) -> (Entity, Vec<u8>) {
        let sensitive = b2(&[b2(auth), b2(&[])].concat());
        let params = [sensitive, b2(template), b2(&[]), vec![0; 4]].concat();
        let reply = self.ok(&Cmd {
            code: cc::CREATE_PRIMARY,
            handles: vec![self.owner()],
            authorized: 1,
            auths: vec![Auth::Password(vec![])],
            params,
            returns_handle: true,
            ..Cmd::default()
        });
        let public = take_2b(&mut &reply.params[..]).to_vec();
        let name = [&[0, 0x0b][..], &SHA256.hash(&[&public])].concat();
        (Entity { handle: reply.handle.unwrap(), name, auth: auth.to_vec() }, public)
    }

    /// An HMAC key, for `TPM2_Sign` and `TPM2_Quote`.
    pub fn hmac_key(&mut self, auth: &[u8], attributes: u32, policy: &[u8]) -> Entity {
        let attributes = (SIGNING | attributes).to_be_bytes();
        let template = [&[0, 8, 0, 0x0b][..], &attributes, &b2(policy), &[0, 5, 0, 0x0b], &b2(auth)].concat();
        self.primary(auth, &template).0
    }

    /// Subject to dictionary attack protection.
    pub fn protected_key(&mut self) -> Entity {
        self.hmac_key(b"protected", USER_WITH_AUTH, &[])
    }

    /// Not subject to it.
    pub fn free_key(&mut self) -> Entity {
        self.hmac_key(b"free", USER_WITH_AUTH | NO_DA, &[])
    }

    pub fn rsa_salt_key(&mut self) -> SaltKey {
        let (key, public) = self.primary(b"", &storage_template(true));
        SaltKey::Rsa { key, modulus: public[public.len() - 256..].to_vec() }
    }

    pub fn ecc_salt_key(&mut self) -> SaltKey {
        let (key, public) = self.primary(b"", &storage_template(false));
        let mut point = &public[public.len() - 68..];
        let (x, y) = (take_2b(&mut point).to_vec(), take_2b(&mut point).to_vec());
        SaltKey::Ecc { key, point: [x, y].concat() }
    }
}

/// The storage root key templates.
pub fn storage_template(rsa: bool) -> Vec<u8> {
    let attributes = 0x0003_0472u32.to_be_bytes();
    let parms: &[u8] =
        if rsa { &[0, 0x10, 8, 0, 0, 0, 0, 0, 0, 0] } else { &[0, 0x10, 0, 3, 0, 0x10, 0, 0, 0, 0] };
    let kind = if rsa { 1 } else { 0x23 };
    [&[0, kind, 0, 0x0b][..], &attributes, &[0, 0, 0, 6, 0, 0x80, 0, 0x43], parms].concat()
}

fn rsa_public_operation(modulus: &[u8], block: &[u8]) -> Vec<u8> {
    use crypto_bigint::BoxedUint;
    let number = |bytes: &[u8]| BoxedUint::from_be_slice(bytes, 2048).unwrap();
    let key = rsa::RsaPublicKey::new(number(modulus), BoxedUint::from(65537u32)).unwrap();
    rsa::hazmat::rsa_encrypt(&key, &number(block)).unwrap().to_be_bytes().to_vec()
}

/// A salt shared with the point `x || y`, and the ephemeral point as it is sent.
fn ecdh_salt(point: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let secret = p256::SecretKey::from_slice(&[0x42; 32]).unwrap();
    let public = p256::PublicKey::from_sec1_bytes(&[&[4], point].concat()).unwrap();
    let shared = p256::ecdh::diffie_hellman(secret.to_nonzero_scalar(), public.as_affine());
    let ephemeral = secret.public_key().to_sec1_bytes();
    let (x, y) = ephemeral[1..].split_at(32);
    let salt = SHA256.kdfe(shared.raw_secret_bytes(), "SECRET", x, &point[..32]);
    (salt, [b2(x), b2(y)].concat())
}

/// `TPM2_Sign` with an HMAC key: one handle that is authorized, a first parameter that may be encrypted.
pub fn sign(key: &Entity, auth: Auth) -> Cmd {
    let params = [b2(&[0x5a; 32]), vec![0, 0x10], vec![0x80, 0x24], NULL.to_be_bytes().to_vec(), b2(&[])];
    Cmd {
        code: cc::SIGN,
        handles: vec![key.clone()],
        authorized: 1,
        auths: vec![auth],
        params: params.concat(),
        ..Cmd::default()
    }
}

/// `TPM2_Quote` with an HMAC key: both first parameters may be encrypted, and the second carries the first.
pub fn quote(key: &Entity, data: &[u8], auths: Vec<Auth>) -> Cmd {
    let params = [b2(data), vec![0, 0x10], vec![0; 4]].concat();
    Cmd { code: cc::QUOTE, handles: vec![key.clone()], authorized: 1, auths, params, ..Cmd::default() }
}

/// `TPM2_GetRandom`: no authorization, a response that may be encrypted.
pub fn get_random(auths: Vec<Auth>) -> Cmd {
    Cmd { code: cc::GET_RANDOM, auths, params: vec![0, 16], ..Cmd::default() }
}

/// `TPM2_HierarchyChangeAuth`.
pub fn change_auth(hierarchy: &Entity, new: &[u8], auth: Auth) -> Cmd {
    Cmd {
        code: cc::HIERARCHY_CHANGE_AUTH,
        handles: vec![hierarchy.clone()],
        authorized: 1,
        auths: vec![auth],
        params: b2(new),
        new_auth: Some(new.to_vec()),
        ..Cmd::default()
    }
}

/// A session that goes on.
pub fn with(session: usize) -> Auth {
    Auth::Session(session, attr::CONTINUE)
}

pub fn password(entity: &Entity) -> Auth {
    Auth::Password(entity.auth.clone())
}
