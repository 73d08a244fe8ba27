//! What outlives the process, and what the power.

use super::*;
use crate::tree::boot;
use vtpm_protocol::tpm::{
    Sized2b, Tpm2bAuth, Tpm2bDigest, TpmAlgId, TpmaNv, TpmiAlgHash, Tpml, TpmlDigestValues, TpmlPcrSelection,
    TpmsNvPublic, TpmsPcrSelection, TpmtHa,
};

const PCR: TpmHandle = TpmHandle(16);
const INDEX: TpmHandle = TpmHandle(0x0180_0001);

fn with_password(code: TpmCc, handle: TpmHandle, parameters: &impl Encode) -> Vec<u8> {
    let mut body = Vec::new();
    (handle, 9u32, TpmHandle::RS_PW, 0u16, 0u8, 0u16).encode(&mut body);
    parameters.encode(&mut body);
    command(TpmSt::SESSIONS, code, &body)
}

fn extend() -> Vec<u8> {
    let digests: TpmlDigestValues = Tpml(vec![TpmtHa { hash_alg: TpmAlgId::SHA256, digest: vec![7; 32] }]);
    with_password(TpmCc::PCR_EXTEND, PCR, &digests)
}

fn define() -> Vec<u8> {
    let public = TpmsNvPublic {
        nv_index: INDEX,
        name_alg: TpmiAlgHash(TpmAlgId::SHA256),
        attributes: TpmaNv::OWNER_WRITE | TpmaNv::OWNER_READ,
        auth_policy: Tpm2bDigest::empty(),
        data_size: 8,
    };
    with_password(TpmCc::NV_DEFINE_SPACE, TpmHandle::OWNER, &(Tpm2bAuth::empty(), Sized2b(public)))
}

fn read_public() -> Vec<u8> {
    command(TpmSt::NO_SESSIONS, TpmCc::NV_READ_PUBLIC, &INDEX.to_bytes())
}

fn pcr(vm: &Instance) -> Result<Vec<u8>, ResponseCode> {
    let selection: TpmlPcrSelection = Tpml(vec![TpmsPcrSelection::of(TpmAlgId::SHA256, [16])]);
    let response = vm.execute(0, &command(TpmSt::NO_SESSIONS, TpmCc::PCR_READ, &selection.to_bytes()), None);
    match code(&response) {
        ResponseCode::SUCCESS => Ok(response.last_chunk::<32>().unwrap().to_vec()),
        rc => Err(rc),
    }
}

fn run(vm: &Instance, command: &[u8]) {
    assert_eq!(code(&vm.execute(0, command, None)), ResponseCode::SUCCESS);
}

/// The power goes, and vtpmd starts in another boot of the host.
fn lose_power(host: &Host, boot: &[u8]) -> Host {
    let memory = host.memory.after_power_loss();
    let tree = Tree::open_in(memory.clone(), Zeroizing::new(AUTH.to_vec()), Some(boot)).unwrap();
    Host { memory, tree }
}

#[test]
fn pcrs_outlive_the_process_without_going_to_the_medium() {
    let host = Host::with_vm(0);
    let synchronised = host.memory.medium();
    run(&host.vm(), &extend());
    let value = pcr(&host.vm()).unwrap();
    assert_ne!(value, [0; 32]);
    assert!(host.memory.medium() == synchronised);
    let host = host.crash();
    assert_eq!(pcr(&host.vm()).unwrap(), value, "the machine goes on");
}

#[test]
fn a_loss_of_power_takes_the_boot_of_the_machine_and_leaves_the_rest() {
    let host = Host::with_vm(0);
    run(&host.vm(), &extend());
    run(&host.vm(), &define());
    run(&host.vm(), &extend());
    let host = lose_power(&host, b"the boot after");
    assert_eq!(pcr(&host.vm()), Err(ResponseCode::INITIALIZE));
    run(&host.vm(), &startup());
    assert_eq!(pcr(&host.vm()).unwrap(), [0; 32]);
    run(&host.vm(), &read_public());
}

#[test]
fn the_reset_that_a_boot_of_the_host_owes_is_paid_once() {
    let host = Host::with_vm(0);
    run(&host.vm(), &extend());
    let host = lose_power(&host, b"the boot after");
    // vtpmd dies before anybody asked.
    let again = |host: &Host| {
        let memory = host.memory.after_crash();
        let tree =
            Tree::open_in(memory.clone(), Zeroizing::new(AUTH.to_vec()), Some(b"the boot after")).unwrap();
        Host { memory, tree }
    };
    let host = again(&host);
    assert_eq!(pcr(&host.vm()), Err(ResponseCode::INITIALIZE));
    run(&host.vm(), &startup());
    run(&host.vm(), &extend());
    let value = pcr(&host.vm()).unwrap();
    let host = again(&host);
    assert_eq!(pcr(&host.vm()).unwrap(), value);
}

#[test]
fn linux_names_its_boots() {
    assert_eq!(boot::of_this_host().unwrap().len(), 36);
}
