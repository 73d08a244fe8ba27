//! What an instance may take of its host.

use vtpm_engine::env::Limits;

use super::*;
use crate::tree::{CommandRate, InstanceLimits};

#[test]
fn a_machine_that_sends_too_much_gets_retry_and_the_others_notice_nothing() {
    let host = Host::with_vm(0);
    let rate = CommandRate { per_second: 1, burst: 20 };
    host.tree.set_instance_limits(InstanceLimits { rate: Some(rate), ..InstanceLimits::default() });
    host.client().create_fresh("other", None).unwrap();
    let (vm, other) = (host.vm(), host.tree.by_name("other").unwrap());
    other.machine_reset();
    succeed(&other, &startup());

    let is_granted = |_: &usize| code(&vm.execute(0, &get_random(), None)) == ResponseCode::SUCCESS;
    let granted = (0..100_000).take_while(is_granted).count();
    // One comes back in a second, and this takes less than a minute.
    assert!((20..80).contains(&granted), "{granted}");
    let before = host.content();
    assert_eq!(code(&vm.execute(0, &extend(1), None)), ResponseCode::RETRY);
    assert!(host.content() == before);
    succeed(&other, &get_random());
    // The operator's commands to the root are not counted.
    for _ in 0..100 {
        host.client().list(host.tree.root().handle()).unwrap();
    }
}

/// `TPM2_NV_DefineSpace` by the owner, whose password is `auth`.
fn define(auth: &[u8], index: u32) -> Vec<u8> {
    let mut body = TpmHandle::OWNER.0.to_bytes();
    encode_sized_with_32(&mut body, |o| {
        (TpmHandle::RS_PW, 0u16, 0u8).encode(o);
        encode_sized(auth, o);
    });
    0u16.encode(&mut body);
    encode_sized_with(&mut body, |o| (index, 0x000bu16, 0x0002_0002u32, 0u16, 8u16).encode(o));
    command(TpmSt::SESSIONS, TpmCc::NV_DEFINE_SPACE, &body)
}

fn encode_sized_with_32(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    write(&mut inner);
    u32::try_from(inner.len()).unwrap().encode(out);
    out.extend_from_slice(&inner);
}

#[test]
fn an_instance_fills_the_room_it_is_given_and_the_root_has_its_own() {
    let host = Host::with_vm(0);
    let engine = Limits { nv_indices: 1, ..Limits::MOST };
    host.tree.set_instance_limits(InstanceLimits { engine, ..InstanceLimits::default() });
    let vm = host.vm();
    succeed(&vm, &define(b"", 0x0100_0098));
    assert_eq!(code(&vm.execute(0, &define(b"", 0x0100_0099), None)), ResponseCode::NV_SPACE);
    for index in [0x0100_0098, 0x0100_0099] {
        let response = host.tree.root().execute_long(&define(AUTH, index));
        assert_eq!(code(&response), ResponseCode::SUCCESS);
    }
}
