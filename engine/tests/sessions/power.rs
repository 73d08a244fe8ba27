//! What sessions, clocks and PCRs are after a loss of power, and after a dynamic launch.

use crate::client::{Auth, Bench, Cmd, Entity, attr, b2, cc, rc, take_2b, u32_at};
use crate::crypto::{SHA256, SHA384, Symmetric};
use crate::setup::{NO_DA, Start, get_random, password, quote, sign, with};

const CONTEXT_LOAD: u32 = 0x161;
const CONTEXT_SAVE: u32 = 0x162;
const PCR_READ: u32 = 0x17e;
const PCR_RESET: u32 = 0x13d;
const READ_CLOCK: u32 = 0x181;
const SHUTDOWN: u32 = 0x145;
const CLEAR: u8 = 0;
const STATE: u8 = 1;
const LOCALITY: u32 = 0x907;
const INTEGRITY: u32 = 0x1df;

fn shutdown(bench: &mut Bench, kind: u8) {
    bench.ok(&Cmd { code: SHUTDOWN, params: vec![0, kind], ..Cmd::default() });
}

fn startup(bench: &mut Bench, kind: u8) -> Result<(), u32> {
    bench.run(&Cmd { code: cc::STARTUP, params: vec![0, kind], ..Cmd::default() }).map(drop)
}

/// A shutdown, a loss of power, and a start.
fn cycle(bench: &mut Bench, down: u8, up: u8) {
    shutdown(bench, down);
    bench.lose_power();
    startup(bench, up).unwrap();
}

fn save(bench: &mut Bench, handle: u32) -> Vec<u8> {
    let handles = vec![Entity::permanent(handle, b"")];
    bench.ok(&Cmd { code: CONTEXT_SAVE, handles, ..Cmd::default() }).params
}

fn load(bench: &mut Bench, context: &[u8]) -> Result<u32, u32> {
    let cmd = Cmd { code: CONTEXT_LOAD, params: context.to_vec(), returns_handle: true, ..Cmd::default() };
    bench.run(&cmd).map(|reply| reply.handle.unwrap())
}

/// `TPM2_PolicyPCR` of no PCR, and `TPM2_PolicyAuthValue`.
fn run_policy(bench: &mut Bench, session: usize) {
    let handle = Entity::permanent(bench.sessions[session].handle, b"");
    let no_pcr = [b2(&[]), vec![0; 4]].concat();
    for (code, params) in [(cc::POLICY_PCR, no_pcr), (cc::POLICY_AUTH_VALUE, vec![])] {
        bench.ok(&Cmd { code, handles: vec![handle.clone()], params, ..Cmd::default() });
    }
    bench.sessions[session].auth_value_needed = true;
}

fn policy() -> Vec<u8> {
    let pcrs = [&[0; 32][..], &cc::POLICY_PCR.to_be_bytes(), &[0; 4], &SHA256.hash(&[])].concat();
    SHA256.hash(&[&SHA256.hash(&[&pcrs]), &cc::POLICY_AUTH_VALUE.to_be_bytes()])
}

#[test]
fn sessions_and_objects_in_their_contexts_go_on_after_restart_and_resume_but_not_after_a_reset() {
    for (down, up) in [(STATE, STATE), (STATE, CLEAR), (CLEAR, CLEAR)] {
        let mut bench = Bench::new();
        let salt = Some(bench.ecc_salt_key());
        // userWithAuth besides the policy.
        let key = bench.hmac_key(b"key", 1 << 6 | NO_DA, &policy());
        let start =
            Start { salt, bind: Some(key.clone()), symmetric: Symmetric::Aes(128), ..Start::default() };
        let bound = bench.start(&Start { alg: SHA384, ..start.clone() });
        let audit = Auth::Session(bound, attr::CONTINUE | attr::AUDIT | attr::ENCRYPT);
        bench.ok(&get_random(vec![audit]));
        let by_policy = bench.start(&Start { kind: 1, ..start });
        run_policy(&mut bench, by_policy);
        let lost = bench.start(&Start::default());
        let object = save(&mut bench, key.handle);
        let contexts = [bound, by_policy].map(|s| {
            let handle = bench.sessions[s].handle;
            save(&mut bench, handle)
        });
        cycle(&mut bench, down, up);

        // What was loaded is gone.
        assert_eq!(bench.fails(&get_random(vec![Auth::Session(lost, attr::AUDIT)])), rc::reference_s(1));
        if down == CLEAR {
            for context in [&object, &contexts[0], &contexts[1]] {
                assert_eq!(load(&mut bench, context), Err(INTEGRITY));
            }
            continue;
        }
        let key = Entity { handle: load(&mut bench, &object).unwrap(), ..key };
        for (s, context) in [bound, by_policy].into_iter().zip(&contexts) {
            assert_eq!(load(&mut bench, context), Ok(bench.sessions[s].handle));
            assert_eq!(load(&mut bench, context), Err(0x1cb), "it is loaded already");
        }
        // The session that audits goes on with its nonce, key and digest, and is exclusive no longer.
        let exclusive = Auth::Session(bound, attr::CONTINUE | attr::AUDIT | attr::EXCLUSIVE);
        assert_eq!(bench.fails(&get_random(vec![exclusive])), rc::EXCLUSIVE);
        let uses = attr::CONTINUE | attr::AUDIT | attr::DECRYPT | attr::ENCRYPT;
        let reply = bench.ok(&quote(&key, b"data", vec![Auth::Session(bound, uses)]));
        assert_eq!(reply.attributes, [uses]);
        // PCRs are not what they were when the policy saw them.
        assert_eq!(bench.fails(&sign(&key, with(by_policy))), rc::PCR_CHANGED);
        let handle = Entity::permanent(bench.sessions[by_policy].handle, b"");
        bench.ok(&Cmd { code: 0x180, handles: vec![handle], ..Cmd::default() });
        run_policy(&mut bench, by_policy);
        let both = Auth::Session(by_policy, attr::CONTINUE | attr::DECRYPT | attr::ENCRYPT);
        bench.ok(&quote(&key, b"data", vec![both]));
    }
}

/// Time, Clock, resetCount, restartCount, and whether Clock is safe.
fn clock(bench: &mut Bench) -> (u64, u64, u32, u32, u8) {
    let info = bench.ok(&Cmd { code: READ_CLOCK, ..Cmd::default() }).params;
    let long = |at: usize| u64::from(u32_at(&info, at)) << 32 | u64::from(u32_at(&info, at + 4));
    assert_eq!(info.len(), 25);
    (long(0), long(8), u32_at(&info, 16), u32_at(&info, 20), info[24])
}

#[test]
fn clocks_and_counts_over_all_ways_to_lose_power() {
    let mut bench = Bench::new();
    let (_, mut total, resets, restarts, safe) = clock(&mut bench);
    assert_eq!((resets, restarts, safe), (1, 0, 1));
    // How it ends and starts, and what is counted then.
    for (down, up, resets, restarts) in [
        (Some(STATE), STATE, 1, 1),
        (Some(STATE), STATE, 1, 2),
        (Some(STATE), CLEAR, 1, 3),
        (Some(STATE), STATE, 1, 4),
        (Some(CLEAR), CLEAR, 2, 0),
        (Some(STATE), CLEAR, 2, 1),
        (None, CLEAR, 3, 0),
    ] {
        bench.world.now += 1_000;
        if let Some(down) = down {
            shutdown(&mut bench, down);
        }
        bench.world.now += 500;
        bench.lose_power();
        bench.world.now += 70;
        startup(&mut bench, up).unwrap();
        bench.restart_daemon();
        bench.world.now += 7;
        total += 1_577;
        // No time is lost, although nothing but the loss of power was saved: Clock is safe after it, too.
        assert_eq!(clock(&mut bench), (77, total, resets, restarts, 1), "{down:?} {up}");
    }
}

#[test]
fn what_is_flushed_after_a_shutdown_stays_so_and_the_rest_resumes() {
    let mut bench = Bench::new();
    let (saved, loaded) = (bench.start(&Start::default()), bench.start(&Start::default()));
    let handle = bench.sessions[saved].handle;
    let context = save(&mut bench, handle);
    let key = bench.free_key();
    shutdown(&mut bench, STATE);
    bench.flush(saved);
    bench.flush(loaded);
    bench.ok(&Cmd { code: cc::FLUSH_CONTEXT, params: key.handle.to_be_bytes().to_vec(), ..Cmd::default() });
    bench.lose_power();
    startup(&mut bench, STATE).unwrap();
    assert_eq!(load(&mut bench, &context), Err(0x1cb));
}

fn pcr(bench: &mut Bench, n: u8) -> Vec<u8> {
    let mut selection = [0, 0, 0, 1, 0, 0x0b, 3, 0, 0, 0];
    selection[7 + usize::from(n / 8)] = 1 << (n % 8);
    let reply = bench.ok(&Cmd { code: PCR_READ, params: selection.to_vec(), ..Cmd::default() });
    reply.params[reply.params.len() - 32..].to_vec()
}

fn launch(bench: &mut Bench, parts: &[&[u8]]) {
    bench.tpm.hash_start(&mut bench.world).unwrap();
    parts.iter().for_each(|part| bench.tpm.hash_data(part));
    bench.tpm.hash_end(&mut bench.world).unwrap();
}

#[test]
fn a_dynamic_launch_is_seen_by_policies_and_its_pcrs_belong_to_their_localities() {
    let mut bench = Bench::new();
    let key = bench.hmac_key(b"key", NO_DA, &policy());
    let session = bench.start(&Start::policy());
    run_policy(&mut bench, session);
    let (_, _, resets, restarts, _) = clock(&mut bench);
    (17..=22).for_each(|n| assert_eq!(pcr(&mut bench, n), [0xff; 32], "PCR {n}"));

    launch(&mut bench, &[b"launched ", b"code"]);
    let measured = SHA256.hash(&[&[0; 32], &SHA256.hash(&[b"launched code"])]);
    assert_eq!(pcr(&mut bench, 17), measured);
    (18..=22).for_each(|n| assert_eq!(pcr(&mut bench, n), [0; 32], "PCR {n}"));
    assert_eq!(bench.fails(&sign(&key, with(session))), rc::PCR_CHANGED);
    let (_, _, resets_now, restarts_now, _) = clock(&mut bench);
    assert_eq!((resets_now, restarts_now), (resets, restarts + 1));

    // Which localities extend and reset a PCR (PC Client profile, 4.6.2). A command resets none of the first three of the launch.
    let extend = [vec![0, 0, 0, 1, 0, 0x0b], vec![7; 32]].concat();
    for (n, extends, resets) in [
        (16, 0b11111, 0b01111),
        (17, 0b11100, 0),
        (18, 0b11100, 0),
        (19, 0b01100, 0),
        (20, 0b01110, 0b00100),
        (21, 0b00100, 0b00100),
        (22, 0b00100, 0b00100),
        (23, 0b11111, 0b01111),
        (0, 0b11111, 0),
    ] {
        for locality in 0..5u8 {
            bench.locality = locality;
            let owner = Entity::permanent(n, b"");
            let cmd = |code, params: &[u8]| Cmd {
                code,
                handles: vec![owner.clone()],
                authorized: 1,
                auths: vec![password(&owner)],
                params: params.to_vec(),
                ..Cmd::default()
            };
            for (code, params, allowed) in [(cc::PCR_EXTEND, &extend[..], extends), (PCR_RESET, &[], resets)]
            {
                let expected = if allowed & 1 << locality != 0 { Ok(()) } else { Err(LOCALITY) };
                let result = bench.run(&cmd(code, params)).map(drop);
                assert_eq!(result, expected, "PCR {n} command {code:x} at locality {locality}");
            }
        }
    }
}

#[test]
fn a_launch_is_aborted_by_a_command_and_lost_with_the_daemon() {
    let command = |bench: &mut Bench| {
        clock(bench);
    };
    for abort in [command, Bench::restart_daemon, Bench::lose_power] {
        let mut bench = Bench::new();
        bench.tpm.hash_start(&mut bench.world).unwrap();
        bench.tpm.hash_data(b"launched");
        abort(&mut bench);
        bench.tpm.hash_end(&mut bench.world).unwrap();
        // That it has been started already is no matter.
        let _ = startup(&mut bench, CLEAR);
        assert_eq!(pcr(&mut bench, 17), [0xff; 32]);
        let audit = bench.start(&Start::default());
        let mut told = &bench.ok(&get_random(vec![Auth::Session(audit, attr::AUDIT)])).params[..];
        assert_eq!(take_2b(&mut told).len(), 16);
    }
}
