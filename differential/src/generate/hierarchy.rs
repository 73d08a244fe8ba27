//! Hierarchies, dictionary attack, audit of commands, miscellaneous platform commands.

use super::{Generator, object, policy, templates};
use crate::bytes::Bytes;
use crate::world::World;
use vtpm_protocol::tpm::{TpmCc as C, TpmHandle as H};

pub const GENERATORS: &[Generator] = &[
    (4, C::HIERARCHY_CHANGE_AUTH, change_auth),
    (3, C::SET_PRIMARY_POLICY, set_policy),
    (2, C::HIERARCHY_CONTROL, control),
    (1, C::CLEAR, clear),
    (2, C::CLEAR_CONTROL, clear_control),
    (1, C::CHANGE_EPS, |w| change_seed(w, C::CHANGE_EPS)),
    (1, C::CHANGE_PPS, |w| change_seed(w, C::CHANGE_PPS)),
    (3, C::DICTIONARY_ATTACK_LOCK_RESET, lock_reset),
    (2, C::DICTIONARY_ATTACK_PARAMETERS, parameters),
    (2, C::PP_COMMANDS, pp_commands),
    (2, C::SET_ALGORITHM_SET, algorithm_set),
    (3, C::SET_COMMAND_CODE_AUDIT_STATUS, audit_status),
    (1, C::READ_ONLY_CONTROL, read_only),
    (1, C::ACT_SET_TIMEOUT, act),
];

fn change_auth(w: &mut World) {
    let handle = w.rng.pick(&[H::OWNER, H::ENDORSEMENT, H::PLATFORM, H::LOCKOUT]);
    let entity = w.model.permanent(handle);
    let new = object::any_auth(w);
    let mut call = w.call(C::HIERARCHY_CHANGE_AUTH, &[&entity], Bytes::new().b2(&new));
    call.new_auth = Some(crate::effects::trimmed(&new));
    w.run(call);
}

fn set_policy(w: &mut World) {
    let handle = w.rng.pick(&[H::OWNER, H::ENDORSEMENT, H::PLATFORM, H::LOCKOUT]);
    let entity = w.model.permanent(handle);
    let alg = templates::any_hash(w);
    let (digest, alg) = match policy::recipe(w, alg).filter(|_| w.rng.chance(80)) {
        Some(r) => (r.digest, r.alg),
        None => (vec![], 0x10),
    };
    let call = w.call(C::SET_PRIMARY_POLICY, &[&entity], Bytes::new().b2(&digest).u16(alg));
    w.run(call);
}

fn control(w: &mut World) {
    let authority = w.rng.pick(&[H::PLATFORM, H::PLATFORM, H::OWNER, H::ENDORSEMENT]);
    let enable = w.rng.pick(&[H::OWNER, H::ENDORSEMENT, H::PLATFORM, H(0x4000_000d)]);
    let state = w.rng.below(2) as u8;
    let entity = w.model.permanent(authority);
    let call = w.call(C::HIERARCHY_CONTROL, &[&entity], Bytes::new().u32(enable.0).u8(state));
    let done = w.run(call).is_some();
    if done && state == 0 && w.rng.chance(80) {
        // Off for a few steps only, as little goes without.
        for _ in 0..w.rng.below(4) {
            super::step(w);
        }
        if enable == H::PLATFORM || w.rng.chance(20) {
            w.power_cycle(false);
        } else {
            let platform = w.model.permanent(H::PLATFORM);
            let call = w.call(C::HIERARCHY_CONTROL, &[&platform], Bytes::new().u32(enable.0).u8(1));
            w.run_good(call);
        }
    }
}

fn clear(w: &mut World) {
    let handle = w.rng.pick(&[H::LOCKOUT, H::PLATFORM]);
    let entity = w.model.permanent(handle);
    let mut call = w.call(C::CLEAR, &[&entity], Bytes::new());
    if handle == H::LOCKOUT {
        call.new_auth = Some(vec![]);
    }
    if w.run(call).is_some() {
        // With which they start anew differs.
        super::startup::same_lockout(w);
        // libtpms forgets an allocation that waits for a reset, as docs/tpm.md tells; now it is the same again.
        if let Some(params) = w.model.allocation.clone() {
            let platform = w.model.permanent(H::PLATFORM);
            let call = w.call(C::PCR_ALLOCATE, &[&platform], params);
            w.run_good(call);
        }
        object::prepare(w);
    }
}

fn clear_control(w: &mut World) {
    let handle = w.rng.pick(&[H::LOCKOUT, H::PLATFORM, H::PLATFORM]);
    let entity = w.model.permanent(handle);
    let disable = w.rng.below(2) as u8;
    let call = w.call(C::CLEAR_CONTROL, &[&entity], Bytes::new().u8(disable));
    w.run(call);
}

fn change_seed(w: &mut World, code: C) {
    let platform = w.model.permanent(H::PLATFORM);
    let call = w.call(code, &[&platform], Bytes::new());
    w.run(call);
}

fn lock_reset(w: &mut World) {
    let lockout = w.model.permanent(H::LOCKOUT);
    let call = w.call(C::DICTIONARY_ATTACK_LOCK_RESET, &[&lockout], Bytes::new());
    w.run(call);
}

fn parameters(w: &mut World) {
    let lockout = w.model.permanent(H::LOCKOUT);
    let tries = w.rng.pick(&[0u32, 1, 3, 8, 32]);
    // Long enough that nothing recovers while it runs, or never.
    let recovery = w.rng.pick(&[0u32, 100_000, 0xffff_ffff]);
    let lockout_recovery = w.rng.pick(&[0u32, 100_000, 0xffff_ffff]);
    let params = Bytes::new().u32(tries).u32(recovery).u32(lockout_recovery);
    let call = w.call(C::DICTIONARY_ATTACK_PARAMETERS, &[&lockout], params);
    w.run(call);
}

fn codes(w: &mut World) -> Vec<u8> {
    let all: Vec<u32> = w.common.commands.iter().copied().collect();
    let n = w.rng.below(4);
    let list: Vec<u8> = (0..n).flat_map(|_| w.rng.pick(&all).to_be_bytes()).collect();
    [&(n as u32).to_be_bytes()[..], &list].concat()
}

fn pp_commands(w: &mut World) {
    let platform = w.model.permanent(H::PLATFORM);
    let (set, clear) = (codes(w), codes(w));
    let call = w.call(C::PP_COMMANDS, &[&platform], Bytes::same(&set).raw(&clear));
    w.run(call);
}

fn algorithm_set(w: &mut World) {
    let platform = w.model.permanent(H::PLATFORM);
    let set = w.rng.below(3) as u32;
    let call = w.call(C::SET_ALGORITHM_SET, &[&platform], Bytes::new().u32(set));
    w.run(call);
}

fn audit_status(w: &mut World) {
    let handle = w.rng.pick(&[H::OWNER, H::PLATFORM]);
    let entity = w.model.permanent(handle);
    let call = if w.rng.chance(25) {
        let alg = templates::any_hash(w);
        w.call(C::SET_COMMAND_CODE_AUDIT_STATUS, &[&entity], Bytes::new().u16(alg.0).u32(0).u32(0))
    } else {
        let (set, clear) = (codes(w), codes(w));
        let params = Bytes::new().u16(0x10).raw(&set).raw(&clear);
        w.call(C::SET_COMMAND_CODE_AUDIT_STATUS, &[&entity], params)
    };
    w.run(call);
}

fn read_only(w: &mut World) {
    let platform = w.model.permanent(H::PLATFORM);
    let state = w.rng.below(2) as u8;
    let call = w.call(C::READ_ONLY_CONTROL, &[&platform], Bytes::new().u8(state));
    w.run(call);
}

fn act(w: &mut World) {
    let act = crate::client::Entity::of_handle(H::ACT_0.0, b"");
    let call = w.call(C::ACT_SET_TIMEOUT, &[&act], Bytes::new().u32(10));
    w.run(call);
}
