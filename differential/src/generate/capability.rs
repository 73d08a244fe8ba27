//! What the TPM tells of itself, and parameters it is asked about.

use super::{Generator, templates};
use crate::bytes::Bytes;
use crate::world::World;
use vtpm_protocol::tpm::{TpmAlgId as A, TpmCap, TpmCc as C};

pub const GENERATORS: &[Generator] = &[
    (16, C::GET_CAPABILITY, get),
    (8, C::TEST_PARMS, test_parms),
    (3, C::ECC_PARAMETERS, ecc_parameters),
    (4, C::GET_CAPABILITY, ours_only),
];

fn get(w: &mut World) {
    let (capability, first) = match w.rng.below(14) {
        0 => (TpmCap::ALGS, w.rng.below(0x46) as u32),
        1..=3 => {
            let kind = w.rng.pick(&[0u32, 1, 2, 3, 0x40, 0x80, 0x81]);
            let first = w.rng.pick(&[0, 0, 0, 1, 0x50_0000, 0x50_0003]);
            (TpmCap::HANDLES, kind << 24 | if kind == 0x80 { 0 } else { first })
        }
        4 => (TpmCap::COMMANDS, 0x11f + w.rng.below(0x80) as u32),
        5 => (TpmCap::PP_COMMANDS, 0x11f),
        6 => (TpmCap::AUDIT_COMMANDS, 0x11f + w.rng.below(2) as u32 * 0x40),
        7 => (TpmCap::PCRS, 0),
        8 => (TpmCap::TPM_PROPERTIES, 0x100 + w.rng.below(0x30) as u32),
        9 => (TpmCap::TPM_PROPERTIES, 0x200 + w.rng.below(0x16) as u32),
        10 => (TpmCap::PCR_PROPERTIES, w.rng.below(0x15) as u32),
        11 => (TpmCap::ECC_CURVES, w.rng.below(0x21) as u32),
        12 => (TpmCap::AUTH_POLICIES, 0x4000_0000 + w.rng.below(14) as u32),
        _ => (TpmCap(w.rng.below(12) as u32), w.rng.draw() as u32),
    };
    let count = w.rng.pick(&[0u32, 1, 2, 5, 64, 128, 0xffff_ffff]);
    let params = Bytes::new().u32(capability.0).u32(first).u32(count);
    let call = w.call(C::GET_CAPABILITY, &[], params);
    w.run(call);
}

fn test_parms(w: &mut World) {
    let t = match w.rng.below(5) {
        0 => templates::storage(w),
        1 => templates::signing(w),
        2 => templates::decrypting(w),
        3 => templates::wild(w),
        _ => templates::known(w, &[]).0,
    };
    let mut parms = t.parms;
    if t.alg == A::RSA && w.rng.chance(40) {
        let at = parms.len() - 6;
        let sizes: Vec<u16> = w.common.rsa_bits.iter().copied().chain([512, 1025]).collect();
        let bits = w.rng.pick(&sizes).to_be_bytes();
        parms[at..at + 2].copy_from_slice(&bits);
    }
    let call = w.call(C::TEST_PARMS, &[], Bytes::new().u16(t.alg.0).raw(&parms));
    w.run(call);
}

fn ecc_parameters(w: &mut World) {
    let mut curve = templates::any_curve(w);
    if w.rng.chance(15) {
        curve = w.rng.pick(&[0u16, 6, 0x12, 0xffff]);
    }
    if w.common.disputed_curves.contains(&curve) {
        return;
    }
    let call = w.call(C::ECC_PARAMETERS, &[], Bytes::new().u16(curve));
    w.run(call);
}

/// A command that only we have: tried on a copy of our TPM, for it not to crash.
fn ours_only(w: &mut World) {
    let codes: Vec<u32> = w.common.ours_only.iter().copied().collect();
    let Some(code) = w.rng.choose(&codes).map(C) else { return };
    let row = vtpm_engine::command::table::find(code);
    let mut there: Vec<crate::client::Entity> = w.model.objects.iter().map(|o| o.entity.clone()).collect();
    there.extend(w.model.nv.iter().map(|n| n.entity.clone()));
    there.extend(w.model.sessions.values().map(|s| crate::client::Entity::of_handles(s.handle)));
    there.push(w.model.permanent(vtpm_protocol::tpm::TpmHandle::OWNER));
    there.push(w.model.permanent(vtpm_protocol::tpm::TpmHandle::PLATFORM));
    let handles: Vec<_> = (0..row.map_or(0, |r| r.handles.len())).map(|_| w.rng.pick(&there)).collect();
    let n = w.rng.below(60);
    let rest = w.rng.bytes(n);
    let params = if w.rng.chance(60) { Bytes::new().b2(&rest).u16(0x10) } else { Bytes::same(&rest) };
    let call = w.call(code, &handles.iter().collect::<Vec<_>>(), params);
    w.run(call);
}
