//! Every kind of session with every hash and cipher, in every use: who it is bound to and what it is salted with, whether it authorizes by an HMAC,
//! by a policy with the authorization value or by one with the password, which parameters it encrypts, and whether the session that does
//! so is the one that authorizes.

use crate::client::{Auth, Bench, Cmd, Entity, SaltKey, attr, b2, cc, rc, take_2b};
use crate::crypto::{ALGS, Alg, SHA256, SHA384, Symmetric};
use crate::setup::{NO_DA, Start, USER_WITH_AUTH, password, quote};

const CIPHERS: [Symmetric; 8] = [
    Symmetric::Aes(128),
    Symmetric::Aes(192),
    Symmetric::Aes(256),
    Symmetric::Camellia(128),
    Symmetric::Camellia(256),
    Symmetric::Tdes(128),
    Symmetric::Tdes(192),
    Symmetric::Xor(SHA256),
];
const POLICY_PASSWORD: u32 = 0x18c;
const USES: [u8; 4] = [0, attr::DECRYPT, attr::ENCRYPT, attr::DECRYPT | attr::ENCRYPT];

/// How a session authorizes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    Hmac,
    /// `TPM2_PolicyAuthValue`
    AuthValue,
    /// `TPM2_PolicyPassword`
    Password,
}
const ROLES: [Role; 3] = [Role::Hmac, Role::AuthValue, Role::Password];

/// What a session is bound to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bind {
    No,
    /// The entity that it authorizes.
    Same,
    /// Another one, whose authorization value is empty.
    Other,
}
const BINDS: [Bind; 3] = [Bind::No, Bind::Same, Bind::Other];

/// An HMAC key whose Name, and so its policy, is of `alg`. Its policy wants the authorization value.
fn key(bench: &mut Bench, alg: Alg) -> Entity {
    // fixedTPM, fixedParent, sensitiveDataOrigin, sign.
    let attributes = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 18 | USER_WITH_AUTH | NO_DA;
    let policy = alg.hash(&[&vec![0; alg.size()], &cc::POLICY_AUTH_VALUE.to_be_bytes()]);
    let head = [&[0, 8][..], &alg.0.to_be_bytes(), &u32::to_be_bytes(attributes)].concat();
    let template = [&head[..], &b2(&policy), &[0, 5, 0, 0x0b], &b2(b"key")].concat();
    bench.primary(b"authorization", &template).0
}

/// Makes a policy session fit to authorize once.
fn prepare(bench: &mut Bench, session: usize, role: Role) {
    let code = match role {
        Role::Hmac => return,
        Role::AuthValue => cc::POLICY_AUTH_VALUE,
        Role::Password => POLICY_PASSWORD,
    };
    let handle = Entity::permanent(bench.sessions[session].handle, b"");
    bench.ok(&Cmd { code, handles: vec![handle], ..Cmd::default() });
    let s = &mut bench.sessions[session];
    (s.auth_value_needed, s.password_needed) = (role == Role::AuthValue, role == Role::Password);
}

/// The data that a quote carries.
fn quoted(reply: &[u8]) -> Vec<u8> {
    let mut attest = &take_2b(&mut &reply[..])[6..];
    take_2b(&mut attest);
    take_2b(&mut attest).to_vec()
}

/// One session, in all its uses, right and wrong.
fn check(bench: &mut Bench, key: &Entity, start: &Start, role: Role) {
    let what = format!(
        "{role:?} {:?} {:?} bound: {:?} salted: {}",
        start.alg,
        start.symmetric,
        start.bind,
        start.salt.is_some()
    );
    let kind = if role == Role::Hmac { 0 } else { 1 };
    let session = bench.start(&Start { kind, ..start.clone() });
    let data = b"qualifying data of more than one block";
    let wrong = Entity { auth: b"another".to_vec(), ..key.clone() };
    for use_ in USES {
        let auth = Auth::Session(session, attr::CONTINUE | use_);
        prepare(bench, session, role);
        // What another authorization value encrypts or authorizes does not get in, and the session is as it was.
        assert_eq!(bench.fails(&quote(&wrong, data, vec![auth.clone()])), rc::bad_auth(1), "{what} {use_:x}");
        let reply = bench.ok(&quote(key, data, vec![auth.clone()]));
        assert_eq!(quoted(&reply.params), data, "{what} {use_:x}");
        assert_eq!(reply.attributes, [attr::CONTINUE | use_], "{what}");
        // As an extra session it has no entity, and a policy does not matter.
        let cmd = quote(key, data, vec![password(key), auth]);
        if use_ == 0 {
            assert_eq!(bench.fails(&cmd), rc::attributes(2), "{what}");
        } else {
            assert_eq!(quoted(&bench.ok(&cmd).params), data, "{what} {use_:x}");
        }
    }
    bench.flush(session);
}

fn bound(bind: Bind, key: &Entity, bench: &Bench) -> Option<Entity> {
    match bind {
        Bind::No => None,
        Bind::Same => Some(key.clone()),
        Bind::Other => Some(bench.owner()),
    }
}

/// All that a session is, but for the key that its salt goes to.
fn with_salt(salt: impl Fn(&mut Bench) -> Option<SaltKey>, algs: &[Alg]) {
    for &alg in algs {
        let mut bench = Bench::new();
        let salt = salt(&mut bench);
        let key = key(&mut bench, alg);
        for bind in BINDS {
            let bind = bound(bind, &key, &bench);
            for symmetric in CIPHERS {
                for role in ROLES {
                    let start = Start { kind: 0, alg, symmetric, bind: bind.clone(), salt: salt.clone() };
                    check(&mut bench, &key, &start, role);
                }
            }
        }
    }
}

#[test]
fn sessions_without_salt_in_every_use() {
    with_salt(|_| None, &ALGS);
}

#[test]
fn salted_sessions_in_every_use() {
    with_salt(|bench| Some(bench.ecc_salt_key()), &ALGS);
}

/// The key of the salt has a part in the session's key alone: one cipher for each.
fn with_key(salt: impl Fn(&mut Bench) -> SaltKey) {
    for (n, alg) in ALGS.into_iter().enumerate() {
        let mut bench = Bench::new();
        let salt = Some(salt(&mut bench));
        let key = key(&mut bench, alg);
        for (bind, role) in BINDS.into_iter().zip([Role::AuthValue, Role::Hmac, Role::Password]) {
            let symmetric = CIPHERS[n % CIPHERS.len()];
            let bind = bound(bind, &key, &bench);
            check(&mut bench, &key, &Start { kind: 0, alg, symmetric, bind, salt: salt.clone() }, role);
        }
    }
}

#[test]
fn a_salt_goes_to_an_rsa_key() {
    for name in [SHA256, SHA384] {
        with_key(|bench| bench.rsa_salt_key_of(name));
    }
}

#[test]
fn a_salt_goes_to_a_key_on_every_curve() {
    for curve in [1, 2, 3, 4, 5, 0x20] {
        for name in [SHA256, SHA384] {
            with_key(|bench| bench.ecc_salt_key_of(name, curve));
        }
    }
}
