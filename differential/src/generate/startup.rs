//! Power, Startup and Shutdown, self tests, random numbers.

use super::Generator;
use crate::bytes::Bytes;
use crate::world::World;
use vtpm_protocol::tpm::{TpmCc as C, TpmHandle as H};

pub const GENERATORS: &[Generator] = &[
    (2, C::STARTUP, power),
    (2, C::SHUTDOWN, shutdown),
    (2, C::SELF_TEST, self_test),
    (2, C::INCREMENTAL_SELF_TEST, incremental),
    (2, C::GET_TEST_RESULT, test_result),
    (6, C::GET_RANDOM, get_random),
    (2, C::STIR_RANDOM, stir),
    (3, C::READ_CLOCK, read_clock),
    (1, C::CLOCK_SET, clock_set),
    (1, C::CLOCK_RATE_ADJUST, clock_rate),
    (2, C::STARTUP, locality),
    (2, C::STARTUP, measure),
];

/// The first Startup, after what may come before it.
pub fn first(w: &mut World) {
    let call = w.call(C::STARTUP, &[], Bytes::new().u16(0));
    w.run_good(call);
    same_lockout(w);
}

/// Dictionary attack parameters that are the same on both sides, whatever they are made with.
pub fn same_lockout(w: &mut World) {
    let lockout = w.model.permanent(H::LOCKOUT);
    let params = Bytes::new().u32(8).u32(100_000).u32(100_000);
    let call = w.call(C::DICTIONARY_ATTACK_PARAMETERS, &[&lockout], params);
    w.run_good(call);
}

fn power(w: &mut World) {
    match w.rng.below(10) {
        0..=2 => {
            let kind = w.rng.below(3) as u16;
            let call = w.call(C::STARTUP, &[], Bytes::new().u16(kind));
            w.run(call);
        }
        3..=5 => {
            let state = w.rng.chance(20);
            w.power_cycle(state);
        }
        _ => {
            let saved = w.rng.chance(60);
            let call = w.call(C::SHUTDOWN, &[], Bytes::new().u16(u16::from(saved)));
            w.run_good(call);
            let state = saved && w.rng.chance(75);
            w.power_cycle(state);
        }
    }
}

/// A dynamic launch, or a measurement between `_TPM_Init` and Startup.
fn measure(w: &mut World) {
    let size = w.rng.between(1, 100);
    let data = w.rng.bytes(size);
    if w.rng.chance(60) {
        w.measure(&data);
    } else {
        w.power_off();
        w.measure(&data);
        w.start(false);
    }
    for hash in [4u16, 0xb] {
        let selection = [&[0, 0, 0, 1][..], &hash.to_be_bytes(), &[3, 1, 0, 0x7e]].concat();
        let call = w.call(C::PCR_READ, &[], Bytes::same(&selection));
        w.run_good(call);
    }
}

fn shutdown(w: &mut World) {
    // What makes one of STATE void is not the same command by command, so that with it the power goes at once.
    let call = w.call(C::SHUTDOWN, &[], Bytes::new().u16(0));
    w.run(call);
}

fn self_test(w: &mut World) {
    let full = w.rng.below(2) as u8;
    let call = w.call(C::SELF_TEST, &[], Bytes::new().u8(full));
    w.run(call);
}

fn incremental(w: &mut World) {
    let algs: Vec<u16> = w.common.algs.iter().copied().collect();
    let n = w.rng.below(4);
    let list: Vec<u8> = (0..n).flat_map(|_| w.rng.pick(&algs).to_be_bytes()).collect();
    let call = w.call(C::INCREMENTAL_SELF_TEST, &[], Bytes::new().u32(n as u32).raw(&list));
    w.run(call);
}

fn test_result(w: &mut World) {
    let call = w.call(C::GET_TEST_RESULT, &[], Bytes::new());
    w.run(call);
}

fn get_random(w: &mut World) {
    let n = w.rng.pick(&[0u16, 1, 16, 32, 48, 64, 65, 128, 1024, 0xffff]);
    let call = w.call(C::GET_RANDOM, &[], Bytes::new().u16(n));
    w.run(call);
}

fn stir(w: &mut World) {
    let n = w.rng.pick(&[0, 1, 32, 127, 128, 129]);
    let data = w.rng.bytes(n);
    let call = w.call(C::STIR_RANDOM, &[], Bytes::new().b2(&data));
    w.run(call);
}

fn read_clock(w: &mut World) {
    let call = w.call(C::READ_CLOCK, &[], Bytes::new());
    w.run(call);
}

fn clock_set(w: &mut World) {
    let handle = w.rng.pick(&[H::OWNER, H::PLATFORM]);
    let entity = w.model.permanent(handle);
    // Far in the past or future, as the clocks are not the same.
    let time = w.rng.pick(&[0, 1 << 40, 1 << 41, 0xffff_0000_0000_0000, 0xffff_0000_0000_0001]);
    let call = w.call(C::CLOCK_SET, &[&entity], Bytes::new().u64(time));
    w.run(call);
}

fn clock_rate(w: &mut World) {
    let handle = w.rng.pick(&[H::OWNER, H::PLATFORM]);
    let entity = w.model.permanent(handle);
    let rate = w.rng.pick(&[0xfdu8, 0xfe, 0xff, 0, 1, 2, 3, 4]);
    let call = w.call(C::CLOCK_RATE_ADJUST, &[&entity], Bytes::new().u8(rate));
    w.run(call);
}

fn locality(w: &mut World) {
    let n = w.rng.pick(&[0, 0, 0, 1, 2, 3, 4]);
    w.set_locality(n);
    for _ in 0..w.rng.below(3) {
        super::step(w);
    }
    w.set_locality(0);
}
