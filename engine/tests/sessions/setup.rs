//! Keys and sessions for the tests.

use crate::client::{Auth, Bench, Cmd, Entity, NULL, OWNER, SaltKey, Session, attr, b2, cc, take_2b};
use crate::crypto::{Alg, SHA256, Symmetric};
use p256::elliptic_curve::group::Curve as _;
use p256::elliptic_curve::point::AffineCoordinates as _;
use p256::elliptic_curve::{AffinePoint, CurveArithmetic, FieldBytes, Group as _, ProjectivePoint, Scalar};

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
            Some(SaltKey::Rsa { key, alg, modulus }) => {
                let salt = b"a salt of thirty-two bytes......".to_vec();
                let block = alg.oaep(b"SECRET\0", &salt, modulus.len());
                (salt, rsa_public_operation(modulus, &block), key.clone())
            }
            Some(SaltKey::Ecc { key, alg, curve, point }) => {
                let (salt, ephemeral) = match curve {
                    1 => ecdh_salt::<p192::NistP192>(*alg, point),
                    2 => ecdh_salt::<p224::NistP224>(*alg, point),
                    3 => ecdh_salt::<p256::NistP256>(*alg, point),
                    4 => ecdh_salt::<p384::NistP384>(*alg, point),
                    5 => ecdh_salt::<p521::NistP521>(*alg, point),
                    _ => ecdh_salt::<sm2::Sm2>(*alg, point),
                };
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
        let alg = Alg(u16::from_be_bytes([public[2], public[3]]));
        let name = [&public[2..4], &alg.hash(&[&public])].concat();
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
        self.rsa_salt_key_of(SHA256)
    }

    pub fn ecc_salt_key(&mut self) -> SaltKey {
        self.ecc_salt_key_of(SHA256, 3)
    }

    /// A key with a Name of `alg`, which is the hash of its OAEP, too.
    pub fn rsa_salt_key_of(&mut self, alg: Alg) -> SaltKey {
        let (key, public) = self.primary(b"", &storage_template_of(alg, None));
        SaltKey::Rsa { key, alg, modulus: public[public.len() - 256..].to_vec() }
    }

    /// A key on a curve of TPM_ECC_CURVE.
    pub fn ecc_salt_key_of(&mut self, alg: Alg, curve: u16) -> SaltKey {
        let template = storage_template_of(alg, Some(curve));
        let (key, public) = self.primary(b"", &template);
        // The template without its two empty coordinates.
        let mut point = &public[template.len() - 4..];
        let (x, y) = (take_2b(&mut point).to_vec(), take_2b(&mut point).to_vec());
        SaltKey::Ecc { key, alg, curve, point: [x, y].concat() }
    }
}

/// The storage root key templates.
pub fn storage_template(rsa: bool) -> Vec<u8> {
    storage_template_of(SHA256, (!rsa).then_some(3))
}

/// The same with another hash of the Name, or on another curve.
fn storage_template_of(alg: Alg, curve: Option<u16>) -> Vec<u8> {
    let attributes = 0x0003_0472u32.to_be_bytes();
    let (kind, parms) = match curve {
        None => (1, vec![0, 0x10, 8, 0, 0, 0, 0, 0, 0, 0]),
        Some(curve) => (0x23, [&[0, 0x10][..], &curve.to_be_bytes(), &[0, 0x10, 0, 0, 0, 0]].concat()),
    };
    let head = [&[0, kind][..], &alg.0.to_be_bytes(), &attributes].concat();
    [&head[..], &[0, 0, 0, 6, 0, 0x80, 0, 0x43], &parms].concat()
}

fn rsa_public_operation(modulus: &[u8], block: &[u8]) -> Vec<u8> {
    use crypto_bigint::BoxedUint;
    let number = |bytes: &[u8]| BoxedUint::from_be_slice(bytes, 2048).unwrap();
    let key = rsa::RsaPublicKey::new(number(modulus), BoxedUint::from(65537u32)).unwrap();
    rsa::hazmat::rsa_encrypt(&key, &number(block)).unwrap().to_be_bytes().to_vec()
}

/// A salt shared with the point `x || y`, and the ephemeral point as it is sent.
fn ecdh_salt<C: CurveArithmetic>(alg: Alg, point: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (x, y) = point.split_at(point.len() / 2);
    let coordinate = |bytes: &[u8]| FieldBytes::<C>::try_from(bytes).unwrap();
    let public = AffinePoint::<C>::from_coordinates(&coordinate(x), &coordinate(y)).unwrap();
    let secret = Scalar::<C>::from(0x4242_4242_4242_4242);
    let shared = (ProjectivePoint::<C>::from(public) * secret).to_affine();
    let ephemeral = (ProjectivePoint::<C>::generator() * secret).to_affine();
    let salt = alg.kdfe(&shared.x(), "SECRET", &ephemeral.x(), x);
    (salt, [b2(&ephemeral.x()), b2(&ephemeral.y())].concat())
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
