//! What policies ask for when they are used, with every kind of session, and what they do not allow.

use crate::client::{Auth, Bench, Cmd, Entity, OWNER, attr, b2, cc, rc, take_2b};
use crate::crypto::{SHA256, Symmetric};
use crate::setup::{NO_DA, Start, change_auth, password, quote, sign, storage_template, with};

const SET_PRIMARY_POLICY: u32 = 0x12e;
const POLICY_SECRET: u32 = 0x151;
const POLICY_COMMAND_CODE: u32 = 0x16c;
const POLICY_CP_HASH: u32 = 0x16e;
const POLICY_LOCALITY: u32 = 0x16f;
const POLICY_NAME_HASH: u32 = 0x170;
const POLICY_OR: u32 = 0x171;
const POLICY_RESTART: u32 = 0x180;
const POLICY_PHYSICAL_PRESENCE: u32 = 0x187;
const POLICY_PASSWORD: u32 = 0x18c;
const POLICY_TEMPLATE: u32 = 0x190;
const POLICY_PARAMETERS: u32 = 0x19c;
const POLICY_TRANSPORT_SPDM: u32 = 0x1a1;

const POLICY_FAIL: u32 = rc::policy_fail(1);
const POLICY_CC: u32 = rc::session(0x0a4, 1);
const EXPIRED: u32 = rc::session(0x0a3, 1);
const PP: u32 = rc::session(0x090, 1);
const CHANNEL: u32 = rc::session(0x0b0, 1);
const MODE: u32 = rc::session(0x089, 1);
const LOCALITY: u32 = 0x907;

/// A policy: commands with their parameters.
type Policy<'a> = &'a [(u32, Vec<u8>)];

fn run(bench: &mut Bench, session: usize, policy: Policy<'_>) {
    for (code, params) in policy {
        let handle = Entity::permanent(bench.sessions[session].handle, b"");
        bench.ok(&Cmd { code: *code, handles: vec![handle], params: params.clone(), ..Cmd::default() });
        let s = &mut bench.sessions[session];
        match *code {
            cc::POLICY_AUTH_VALUE => (s.auth_value_needed, s.password_needed) = (true, false),
            POLICY_PASSWORD => (s.auth_value_needed, s.password_needed) = (false, true),
            POLICY_RESTART => (s.auth_value_needed, s.password_needed) = (false, false),
            _ => {}
        }
    }
}

fn digest(bench: &mut Bench, session: usize) -> Vec<u8> {
    let handle = Entity::permanent(bench.sessions[session].handle, b"");
    let cmd = Cmd { code: cc::POLICY_GET_DIGEST, handles: vec![handle], ..Cmd::default() };
    take_2b(&mut &bench.ok(&cmd).params[..]).to_vec()
}

/// The digest of a policy, as a trial finds it.
fn of(bench: &mut Bench, policy: Policy<'_>) -> Vec<u8> {
    let trial = bench.start(&Start { kind: 3, ..Start::default() });
    run(bench, trial, policy);
    let digest = digest(bench, trial);
    bench.flush(trial);
    digest
}

/// Gives the owner a policy, and starts a session that has run it.
fn owned(policy: Policy<'_>) -> (Bench, usize) {
    let mut bench = Bench::new();
    let owner = bench.owner();
    let params = [b2(&of(&mut bench, policy)), vec![0, 0x0b]].concat();
    bench.ok(&Cmd {
        code: SET_PRIMARY_POLICY,
        handles: vec![owner.clone()],
        authorized: 1,
        auths: vec![password(&owner)],
        params,
        ..Cmd::default()
    });
    let session = bench.start(&Start::policy());
    run(&mut bench, session, policy);
    (bench, session)
}

/// `TPM2_HierarchyChangeAuth` of the owner to what it is.
fn keep_auth(bench: &Bench, session: usize) -> Cmd {
    change_auth(&bench.owner(), b"", with(session))
}

fn create_primary(bench: &Bench, template: &[u8], session: usize) -> Cmd {
    let params = [b2(&[0; 4]), b2(template), b2(&[]), vec![0; 4]].concat();
    Cmd {
        code: cc::CREATE_PRIMARY,
        handles: vec![bench.owner()],
        authorized: 1,
        auths: vec![with(session)],
        params,
        returns_handle: true,
        ..Cmd::default()
    }
}

#[test]
fn a_policy_session_for_one_command_is_not_accepted_for_another() {
    let mut bench = Bench::new();
    let policy = [(POLICY_COMMAND_CODE, cc::SIGN.to_be_bytes().to_vec())];
    let for_sign = of(&mut bench, &policy);
    let key = bench.hmac_key(b"key", NO_DA, &for_sign);
    let session = bench.start(&Start::policy());
    run(&mut bench, session, &policy);
    assert_eq!(bench.fails(&quote(&key, b"data", vec![with(session)])), POLICY_CC);
    bench.ok(&sign(&key, with(session)));
    // The same policy in one alternative of two does not carry over to the other.
    let other = [(POLICY_COMMAND_CODE, cc::QUOTE.to_be_bytes().to_vec())];
    let for_quote = of(&mut bench, &other);
    let either = [(POLICY_OR, [&[0, 0, 0, 2][..], &b2(&for_sign), &b2(&for_quote)].concat())];
    let both = of(&mut bench, &either);
    let key = bench.hmac_key(b"key", NO_DA, &both);
    run(&mut bench, session, &policy);
    run(&mut bench, session, &either);
    assert_eq!(bench.fails(&quote(&key, b"data", vec![with(session)])), POLICY_CC);
    bench.ok(&sign(&key, with(session)));
    run(&mut bench, session, &other);
    run(&mut bench, session, &either);
    assert_eq!(bench.fails(&sign(&key, with(session))), POLICY_CC);
    bench.ok(&quote(&key, b"data", vec![with(session)]));
}

#[test]
fn a_cp_hash_is_of_one_command_with_its_parameters() {
    let new = b2(b"");
    let hash = SHA256.hash(&[&cc::HIERARCHY_CHANGE_AUTH.to_be_bytes(), &OWNER.to_be_bytes(), &new]);
    let policy = [(POLICY_CP_HASH, b2(&hash))];
    let (mut bench, session) = owned(&policy);
    let owner = bench.owner();
    assert_eq!(bench.fails(&change_auth(&owner, b"other", with(session))), POLICY_FAIL);
    let create = create_primary(&bench, &storage_template(false), session);
    assert_eq!(bench.fails(&create), POLICY_FAIL);
    let cmd = keep_auth(&bench, session);
    bench.ok(&cmd);
}

#[test]
fn a_name_hash_is_of_the_entities_of_the_command() {
    let policy = |name: &[u8]| [(POLICY_NAME_HASH, b2(&SHA256.hash(&[name])))];
    let (mut bench, session) = owned(&policy(&OWNER.to_be_bytes()));
    let cmd = keep_auth(&bench, session);
    bench.ok(&cmd);
    let (mut bench, session) = owned(&policy(b"another"));
    let cmd = keep_auth(&bench, session);
    assert_eq!(bench.fails(&cmd), POLICY_FAIL);
}

#[test]
fn a_parameters_hash_is_of_one_command_with_its_parameters() {
    let hash = SHA256.hash(&[&cc::HIERARCHY_CHANGE_AUTH.to_be_bytes(), &b2(b"")]);
    let (mut bench, session) = owned(&[(POLICY_PARAMETERS, b2(&hash))]);
    let owner = bench.owner();
    assert_eq!(bench.fails(&change_auth(&owner, b"other", with(session))), POLICY_FAIL);
    let create = create_primary(&bench, &storage_template(false), session);
    assert_eq!(bench.fails(&create), POLICY_FAIL);
    let cmd = keep_auth(&bench, session);
    bench.ok(&cmd);
}

#[test]
fn a_template_hash_is_of_the_template_and_of_commands_that_create() {
    let template = storage_template(false);
    let policy = [(POLICY_TEMPLATE, b2(&SHA256.hash(&[&template])))];
    let (mut bench, session) = owned(&policy);
    let other = create_primary(&bench, &storage_template(true), session);
    assert_eq!(bench.fails(&other), POLICY_FAIL);
    let keep = keep_auth(&bench, session);
    assert_eq!(bench.fails(&keep), POLICY_FAIL);
    // A template that is cut, or not there.
    for params in [vec![], vec![0, 9, 0], [b2(&[0; 4]), vec![0, 200, 0]].concat()] {
        let cut = Cmd { params, ..create_primary(&bench, &[], session) };
        assert_eq!(bench.fails(&cut), POLICY_FAIL);
    }
    let create = create_primary(&bench, &template, session);
    bench.ok(&create);
}

#[test]
fn a_locality_is_that_of_the_command() {
    for (locality, good, bad) in [(0b01010u8, 3, 2), (0b1, 0, 4), (40, 40, 0), (40, 40, 41), (0b11111, 4, 32)]
    {
        let (mut bench, session) = owned(&[(POLICY_LOCALITY, vec![locality])]);
        let cmd = keep_auth(&bench, session);
        bench.locality = bad;
        assert_eq!(bench.fails(&cmd), LOCALITY, "{locality} at {bad}");
        bench.locality = good;
        bench.ok(&cmd);
    }
}

#[test]
fn physical_presence_and_a_secure_channel_are_never_there() {
    for (policy, expected) in
        [((POLICY_PHYSICAL_PRESENCE, vec![]), PP), ((POLICY_TRANSPORT_SPDM, vec![0; 4]), CHANNEL)]
    {
        let (mut bench, session) = owned(&[policy]);
        let cmd = keep_auth(&bench, session);
        assert_eq!(bench.fails(&cmd), expected);
    }
}

/// `TPM2_PolicySecret` of an entity for `session`, with an expiration.
fn policy_secret(bench: &Bench, entity: &Entity, auth: Auth, session: usize, expiration: i32) -> Cmd {
    let target = Entity::permanent(bench.sessions[session].handle, b"");
    let params = [vec![0; 6], expiration.to_be_bytes().to_vec()].concat();
    Cmd {
        code: POLICY_SECRET,
        handles: vec![entity.clone(), target],
        authorized: 1,
        auths: vec![auth],
        params,
        ..Cmd::default()
    }
}

#[test]
fn an_authorization_expires_also_after_it_was_taken() {
    let mut bench = Bench::new();
    let owner = bench.owner();
    let trial = bench.start(&Start { kind: 3, ..Start::default() });
    let cmd = policy_secret(&bench, &owner, password(&owner), trial, 0);
    bench.ok(&cmd);
    let policy = digest(&mut bench, trial);
    let key = bench.hmac_key(b"key", NO_DA, &policy);
    let session = bench.start(&Start::policy());
    // Without a nonce an expiration is a value of Time, which here began when the TPM was made.
    let cmd = policy_secret(&bench, &owner, password(&owner), session, 10);
    bench.ok(&cmd);
    bench.world.now += 11_000;
    assert_eq!(bench.fails(&sign(&key, with(session))), EXPIRED);
    run(&mut bench, session, &[(POLICY_RESTART, vec![])]);
    let cmd = policy_secret(&bench, &owner, password(&owner), session, 100);
    bench.ok(&cmd);
    bench.ok(&sign(&key, with(session)));
}

#[test]
fn a_secret_is_proven_by_every_kind_of_session_but_not_by_a_policy_without_it() {
    let mut bench = Bench::new();
    let value = of(&mut bench, &[(cc::POLICY_AUTH_VALUE, vec![])]);
    let nothing = vec![0; 32];
    let free = bench.free_key();
    let hmac = bench.start(&Start { bind: Some(free.clone()), ..Start::default() });
    let target = bench.start(&Start::policy());
    let cmd = policy_secret(&bench, &free, with(hmac), target, 0);
    bench.ok(&cmd);
    let wrong = Entity { auth: b"wrong".to_vec(), ..free.clone() };
    for auth in [with(hmac), password(&wrong)] {
        let cmd = policy_secret(&bench, &wrong, auth, target, 0);
        assert_eq!(bench.fails(&cmd), rc::bad_auth(1));
    }
    bench.flush(hmac);
    let session = bench.start(&Start::policy());
    let key = bench.hmac_key(b"key", NO_DA, &nothing);
    let cmd = policy_secret(&bench, &key, with(session), target, 0);
    assert_eq!(bench.fails(&cmd), MODE);
    let key = bench.hmac_key(b"key", NO_DA, &value);
    for ask in [cc::POLICY_AUTH_VALUE, POLICY_PASSWORD] {
        run(&mut bench, session, &[(ask, vec![])]);
        let wrong = Entity { auth: b"wrong".to_vec(), ..key.clone() };
        let cmd = policy_secret(&bench, &wrong, with(session), target, 0);
        assert_eq!(bench.fails(&cmd), rc::bad_auth(1));
        let cmd = policy_secret(&bench, &key, with(session), target, 0);
        bench.ok(&cmd);
    }
    // The session that is built cannot be the one that authorizes and be changed behind its own back.
    run(&mut bench, session, &[(cc::POLICY_AUTH_VALUE, vec![])]);
    let cmd = policy_secret(&bench, &key, with(session), session, 0);
    bench.ok(&cmd);
    assert_eq!(digest(&mut bench, session), nothing);
}

#[test]
fn a_password_by_policy_is_compared_as_it_is() {
    let mut bench = Bench::new();
    let salt = Some(bench.ecc_salt_key());
    let value = of(&mut bench, &[(cc::POLICY_AUTH_VALUE, vec![])]);
    let key = bench.hmac_key(b"key", NO_DA, &value);
    let salted = bench.start(&Start { salt, ..Start::policy() });
    let plain = bench.start(&Start::policy());
    for session in [plain, salted] {
        run(&mut bench, session, &[(POLICY_PASSWORD, vec![])]);
        let wrong = Entity { auth: b"wrong".to_vec(), ..key.clone() };
        assert_eq!(bench.fails(&sign(&wrong, with(session))), rc::bad_auth(1));
        let empty = Entity { auth: vec![], ..key.clone() };
        assert_eq!(bench.fails(&sign(&empty, with(session))), rc::bad_auth(1));
        bench.ok(&sign(&key, with(session)));
        // The policy is at its beginning again, and asks for nothing that it does not name.
        assert_eq!(bench.fails(&sign(&key, with(session))), POLICY_FAIL);
    }
}

#[test]
fn a_policy_of_several_parts_in_a_salted_and_bound_session_that_encrypts() {
    let mut bench = Bench::new();
    let salt = Some(bench.ecc_salt_key());
    let bind = Some(bench.free_key());
    let policy = [
        (cc::POLICY_AUTH_VALUE, vec![]),
        (POLICY_LOCALITY, vec![0b11]),
        (POLICY_COMMAND_CODE, cc::QUOTE.to_be_bytes().to_vec()),
    ];
    let digest = of(&mut bench, &policy);
    let key = bench.hmac_key(b"key", NO_DA, &digest);
    let start = Start { salt, bind, symmetric: Symmetric::Aes(128), ..Start::policy() };
    let session = bench.start(&start);
    run(&mut bench, session, &policy);
    let both = Auth::Session(session, attr::CONTINUE | attr::DECRYPT | attr::ENCRYPT);
    let cmd = quote(&key, b"qualifying", vec![both.clone()]);
    let wrong = Entity { auth: b"wrong".to_vec(), ..key.clone() };
    assert_eq!(bench.fails(&quote(&wrong, b"qualifying", vec![both])), rc::bad_auth(1));
    bench.locality = 2;
    assert_eq!(bench.fails(&cmd), LOCALITY);
    bench.locality = 1;
    let reply = bench.ok(&cmd);
    // The data went encrypted, and came back so.
    assert!(reply.params.windows(10).any(|w| w == b"qualifying"));
    assert_eq!(bench.fails(&cmd), POLICY_FAIL);
}

#[test]
fn missing_authorizations_of_handles_that_need_one_are_refused() {
    let mut bench = Bench::new();
    let key = bench.free_key();
    let session = bench.start(&Start { symmetric: Symmetric::Aes(128), ..Start::default() });
    let without = |cmd: Cmd| Cmd { auths: vec![], ..cmd };
    let target = bench.start(&Start::policy());
    let owner = bench.owner();
    for cmd in [
        sign(&key, password(&key)),
        quote(&key, b"", vec![]),
        change_auth(&owner, b"", password(&owner)),
        create_primary(&bench, &storage_template(false), session),
        policy_secret(&bench, &owner, password(&owner), target, 0),
    ] {
        assert_eq!(bench.fails(&without(cmd.clone())), rc::AUTH_MISSING, "{:x}", cmd.code);
    }
    // Certify has two: neither is authorized by the session of the other.
    let certify = |auths: Vec<Auth>| Cmd {
        code: 0x148,
        handles: vec![key.clone(), key.clone()],
        authorized: 2,
        auths,
        params: [b2(b""), vec![0, 0x10]].concat(),
        ..Cmd::default()
    };
    assert_eq!(bench.fails(&certify(vec![])), rc::AUTH_MISSING);
    assert_eq!(bench.fails(&certify(vec![password(&key)])), rc::AUTH_MISSING);
    assert_eq!(bench.fails(&certify(vec![with(session)])), rc::AUTH_MISSING);
}
