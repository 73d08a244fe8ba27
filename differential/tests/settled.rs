//! Differences that were looked into one by one: what each side answers to just the commands in question.
#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test program: one that panics fails"
)]

use vtpm_differential::bytes::{OURS, Pair, THEIRS, u32_at};
use vtpm_differential::device::{Device, Ours, Swtpm};

/// Both after `TPM2_Startup(CLEAR)`.
fn both() -> Pair<Box<dyn Device>> {
    let swtpm = Swtpm::start().unwrap_or_else(|e| panic!("{}", e.0));
    let mut both: Pair<Box<dyn Device>> = [Box::new(swtpm), Box::new(Ours::manufacture(1, false))];
    assert_eq!(codes(&run(&mut both, STARTUP)), [0, 0]);
    both
}

const STARTUP: &str = "80010000000c000001440000";

fn run(devices: &mut Pair<Box<dyn Device>>, command: &str) -> Pair<Vec<u8>> {
    let command = hex::decode(command).unwrap();
    [THEIRS, OURS].map(|side| devices[side].execute(&command).unwrap_or_else(|e| panic!("{}", e.0)))
}

fn codes(responses: &Pair<Vec<u8>>) -> Pair<u32> {
    [THEIRS, OURS].map(|side| u32_at(&responses[side], 6))
}

/// `TPM2_SetCommandCodeAuditStatus` by the owner.
fn set_audit(alg: u16, set: &str) -> String {
    let parameters = format!("{alg:04x}{:08x}{set}00000000", set.len() / 8);
    let size = 27 + parameters.len() / 2;
    format!("8002{size:08x}000001404000000100000009400000090000000000{parameters}")
}

/// Seed 8, episode 718: `auditAlg` had become SM3, which libtpms 0.9 is without, and so HASH comes first there. A hash that both have gives
/// VALUE on both sides.
#[test]
fn an_audit_hash_with_a_list_is_refused_alike_where_both_have_the_hash() {
    let mut devices = both();
    let clear = "00000126";
    for (alg, with_list, alone) in [
        (0x000c, [0x1c4, 0x1c4], [0, 0]),
        (0x0012, [0x1c3, 0x1c4], [0x1c3, 0]),
        (0x0027, [0x1c3, 0x1c4], [0x1c3, 0]),
        (0x0099, [0x1c3, 0x1c3], [0x1c3, 0x1c3]),
    ] {
        assert_eq!(codes(&run(&mut devices, &set_audit(alg, clear))), with_list, "{alg:#x}");
        assert_eq!(codes(&run(&mut devices, &set_audit(alg, ""))), alone, "{alg:#x}");
    }
}

/// Seed 20, episode 54: libtpms writes the whole of its saved state in `TPM2_Clear`, with the allocation of before. Part 3, 24.6 has nothing
/// about PCRs, and so ours waits on for the reset.
#[test]
fn an_allocation_of_pcrs_that_waits_for_a_reset_outlives_clear_here_and_not_in_libtpms() {
    // PCR 16 only in the bank of SHA-256, then the lock-out authority clears.
    let allocate = "8002000000250000012b4000000c0000000940000009000000000000000001000b03000001";
    let clear = "80020000001b000001264000000a00000009400000090000000000";
    let read = "8001000000140000017e00000001000b03010000";
    for (cleared, expected) in [(false, ["000000", "000000"]), (true, ["010000", "000000"])] {
        let mut devices = both();
        let allocated = run(&mut devices, allocate);
        assert_eq!(codes(&allocated), [0, 0]);
        if cleared {
            assert_eq!(codes(&run(&mut devices, clear)), [0, 0]);
        }
        devices.iter_mut().for_each(|d| d.power_cycle().unwrap_or_else(|e| panic!("{}", e.0)));
        assert_eq!(codes(&run(&mut devices, STARTUP)), [0, 0]);
        let selected = run(&mut devices, read).map(|r| hex::encode(&r[21..24]));
        assert_eq!(selected, expected, "{cleared}");
    }
}
