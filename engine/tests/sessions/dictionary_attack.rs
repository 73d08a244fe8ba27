//! Dictionary attack protection: 32 tries, one forgotten every two hours; lockoutAuth again after a day.

use crate::client::{Bench, Cmd, Entity, LOCKOUT, cc, rc};
use crate::setup::{Start, change_auth, password, sign, with};

const TRIES: usize = 32;
const RECOVERY_MS: u64 = 7_200_000;
const LOCKOUT_RECOVERY_MS: u64 = 86_400_000;

fn wrong(key: &Entity) -> Entity {
    Entity { auth: b"wrong".to_vec(), ..key.clone() }
}

fn fail(bench: &mut Bench, key: &Entity) {
    let wrong = wrong(key);
    assert_eq!(bench.fails(&sign(&wrong, password(&wrong))), rc::auth_fail(1));
}

#[test]
fn after_32_failures_nothing_protected_can_be_used_and_the_rest_can() {
    let mut bench = Bench::new();
    let (protected, free) = (bench.protected_key(), bench.free_key());
    let session = bench.start(&Start::default());
    let bound = bench.start(&Start { bind: Some(protected.clone()), ..Start::default() });
    for i in 0..TRIES {
        // A success in between changes nothing.
        bench.ok(&sign(&protected, password(&protected)));
        if i % 2 == 0 {
            fail(&mut bench, &protected);
        } else {
            assert_eq!(bench.fails(&sign(&wrong(&protected), with(session))), rc::auth_fail(1));
        }
    }
    for _ in 0..2 {
        for cmd in [
            sign(&protected, password(&protected)),
            sign(&protected, with(session)),
            sign(&protected, with(bound)),
            sign(&wrong(&protected), password(&wrong(&protected))),
            // A session that is bound to it is of no use at all.
            sign(&free, with(bound)),
        ] {
            assert_eq!(bench.fails(&cmd), rc::LOCKOUT);
        }
        bench.ok(&sign(&free, password(&free)));
        bench.ok(&sign(&free, with(session)));
        bench.restart_daemon();
    }
}

#[test]
fn one_failure_is_forgotten_in_two_hours_and_another_one_starts_the_time_anew() {
    let mut bench = Bench::new();
    let key = bench.protected_key();
    (0..TRIES).for_each(|_| fail(&mut bench, &key));
    let use_ = sign(&key, password(&key));

    bench.world.now += RECOVERY_MS - 1;
    assert_eq!(bench.fails(&use_), rc::LOCKOUT);
    bench.world.now += 1;
    bench.ok(&use_);
    fail(&mut bench, &key);
    assert_eq!(bench.fails(&use_), rc::LOCKOUT);

    bench.world.now += RECOVERY_MS * 3 / 2;
    bench.ok(&use_);
    fail(&mut bench, &key);
    bench.world.now += RECOVERY_MS / 2;
    assert_eq!(bench.fails(&use_), rc::LOCKOUT);
    bench.world.now += RECOVERY_MS / 2;
    bench.ok(&use_);
    fail(&mut bench, &key);

    bench.world.now += RECOVERY_MS * 3;
    for _ in 0..3 {
        bench.ok(&use_);
        fail(&mut bench, &key);
    }
    assert_eq!(bench.fails(&use_), rc::LOCKOUT);

    bench.world.now += RECOVERY_MS * 1000;
    (0..TRIES).for_each(|_| fail(&mut bench, &key));
    assert_eq!(bench.fails(&use_), rc::LOCKOUT);
}

#[test]
fn failures_that_do_not_count_stay_uncounted() {
    let mut bench = Bench::new();
    let (protected, free) = (bench.protected_key(), bench.free_key());
    for _ in 0..TRIES * 2 {
        assert_eq!(bench.fails(&sign(&wrong(&free), password(&wrong(&free)))), rc::bad_auth(1));
    }
    bench.ok(&sign(&protected, password(&protected)));
}

#[test]
fn the_count_survives_a_reset_of_the_machine_and_a_clock_that_goes_back() {
    let mut bench = Bench::new();
    let key = bench.protected_key();
    (0..TRIES).for_each(|_| fail(&mut bench, &key));
    bench.world.now -= 2_000;
    bench.lose_power();
    bench.restart_daemon();
    bench.ok(&Cmd { code: cc::STARTUP, params: vec![0, 0], ..Cmd::default() });
    bench.sessions.clear();
    let key = bench.protected_key();
    assert_eq!(bench.fails(&sign(&key, password(&key))), rc::LOCKOUT);
    bench.world.now += RECOVERY_MS + 2_000;
    bench.ok(&sign(&key, password(&key)));
}

#[test]
fn a_failure_counts_even_when_it_cannot_be_saved() {
    let mut bench = Bench::new();
    let key = bench.protected_key();
    bench.world.fail_commits = true;
    let wrong = wrong(&key);
    for _ in 0..TRIES {
        assert_eq!(bench.fails(&sign(&wrong, password(&wrong))), rc::NV_UNAVAILABLE);
    }
    assert_eq!(bench.fails(&sign(&wrong, password(&wrong))), rc::LOCKOUT);
}

#[test]
fn one_failure_of_lockout_auth_disables_it_for_a_day_and_nothing_else() {
    let mut bench = Bench::new();
    let key = bench.protected_key();
    let lockout = Entity::permanent(LOCKOUT, b"");
    bench.ok(&change_auth(&lockout, b"lockout", password(&lockout)));
    let lockout = Entity::permanent(LOCKOUT, b"lockout");
    let bound = bench.start(&Start { bind: Some(lockout.clone()), ..Start::default() });
    let use_ = change_auth(&lockout, b"lockout", password(&lockout));
    bench.ok(&use_);

    let wrong = wrong(&lockout);
    assert_eq!(bench.fails(&change_auth(&wrong, b"", password(&wrong))), rc::auth_fail(1));
    assert_eq!(bench.fails(&use_), rc::LOCKOUT);
    assert_eq!(bench.fails(&change_auth(&lockout, b"lockout", with(bound))), rc::LOCKOUT);
    bench.ok(&sign(&key, password(&key)));
    bench.world.now += LOCKOUT_RECOVERY_MS - 1;
    assert_eq!(bench.fails(&use_), rc::LOCKOUT);
    bench.world.now += 1;
    bench.ok(&use_);
    bench.ok(&change_auth(&lockout, b"lockout", with(bound)));
}

#[test]
fn lockout_auth_works_while_the_rest_is_locked_out() {
    let mut bench = Bench::new();
    let key = bench.protected_key();
    (0..TRIES).for_each(|_| fail(&mut bench, &key));
    let lockout = Entity::permanent(LOCKOUT, b"");
    bench.ok(&change_auth(&lockout, b"", password(&lockout)));
}

/// CVE-2020-26933: after a shutdown that was not orderly a failed authorization before it was not counted, so that who cut the power after
/// each guess guessed for ever. Here a failure is durable before its response leaves, and the end of the boot counts once more.
#[test]
fn cve_2020_26933_a_loss_of_power_forgives_no_failure() {
    let mut bench = Bench::new();
    for _ in 0..TRIES / 2 {
        let key = bench.protected_key();
        // That the key was used in this boot is what the TPMs concerned should have remembered.
        bench.ok(&sign(&key, password(&key)));
        fail(&mut bench, &key);
        bench.restart_daemon();
        bench.lose_power();
        bench.ok(&Cmd { code: cc::STARTUP, params: vec![0, 0], ..Cmd::default() });
    }
    let key = bench.protected_key();
    assert_eq!(bench.fails(&sign(&key, password(&key))), rc::LOCKOUT);
    bench.lose_power();
    bench.ok(&Cmd { code: cc::STARTUP, params: vec![0, 0], ..Cmd::default() });
    let key = bench.protected_key();
    assert_eq!(bench.fails(&sign(&key, password(&key))), rc::LOCKOUT);
}
