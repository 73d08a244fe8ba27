//! What the machine keeps in its TPM, and the commands for it.

use vtpm_protocol::codec::Encode;
use vtpm_protocol::tpm::*;

use crate::machine::Machine;
use crate::site::Site;

const PCR: TpmHandle = TpmHandle(16);
const COUNTER: TpmHandle = TpmHandle(0x0150_0001);
const INDEX: TpmHandle = TpmHandle(0x0150_0002);
const SEALED: TpmHandle = TpmHandle(0x8101_0000);
const OWNER: TpmHandle = TpmHandle::OWNER;

/// A command with empty passwords for its first handles.
fn command(code: TpmCc, handles: &[TpmHandle], passwords: usize, parameters: &dyn Encode) -> Vec<u8> {
    let mut body = Vec::new();
    handles.iter().for_each(|h| h.encode(&mut body));
    if passwords > 0 {
        u32::try_from(9 * passwords).unwrap().encode(&mut body);
        (0..passwords).for_each(|_| (TpmHandle::RS_PW, 0u16, 0u8, 0u16).encode(&mut body));
    }
    parameters.encode(&mut body);
    let tag = if passwords > 0 { TpmSt::SESSIONS } else { TpmSt::NO_SESSIONS };
    [(tag, u32::try_from(HEADER_SIZE + body.len()).unwrap(), code).to_bytes(), body].concat()
}

/// The code of a response.
pub fn code(response: &[u8]) -> u32 {
    u32::from_be_bytes(response[6..10].try_into().unwrap())
}

pub fn get_random() -> Vec<u8> {
    command(TpmCc::GET_RANDOM, &[], 0, &8u16)
}

/// Counts on.
pub fn increment() -> Vec<u8> {
    command(TpmCc::NV_INCREMENT, &[OWNER, COUNTER], 1, &())
}

fn success(machine: &mut Machine, site: &mut Site, command: &[u8]) -> Vec<u8> {
    let response = machine.run(site, command);
    assert_eq!(code(&response), 0, "{response:02x?} to {command:02x?}");
    response
}

fn define(handle: TpmHandle, nt: TpmNt, size: u16) -> Vec<u8> {
    let public = TpmsNvPublic {
        nv_index: handle,
        name_alg: TpmiAlgHash(TpmAlgId::SHA256),
        attributes: TpmaNv::OWNER_WRITE | TpmaNv::OWNER_READ | TpmaNv(0).with_nt(nt),
        auth_policy: Tpm2bDigest::empty(),
        data_size: size,
    };
    command(TpmCc::NV_DEFINE_SPACE, &[OWNER], 1, &(Tpm2bAuth::empty(), Sized2b(public)))
}

/// The machine boots and fills its TPM.
pub fn fill(machine: &mut Machine, site: &mut Site) {
    machine.reset(site);
    let mut run = |command: &[u8]| success(machine, site, command);
    run(&command(TpmCc::STARTUP, &[], 0, &TpmSu::CLEAR));
    run(&command(TpmCc::PCR_EXTEND, &[PCR], 1, &(1u32, TpmAlgId::SHA256, [7u8; 32])));
    run(&define(COUNTER, TpmNt::Counter, 8));
    run(&increment());
    run(&define(INDEX, TpmNt::Ordinary, 700));
    let data = (Tpm2b::<1024>::new([0x5a; 700]).unwrap(), 0u16);
    run(&command(TpmCc::NV_WRITE, &[OWNER, INDEX], 1, &data));
    let public = TpmtPublic {
        name_alg: TpmAlgId::SHA256,
        attributes: TpmaObject::USER_WITH_AUTH
            | TpmaObject::NO_DA
            | TpmaObject::FIXED_TPM
            | TpmaObject::FIXED_PARENT,
        auth_policy: Tpm2bDigest::empty(),
        parms: PublicParms::KeyedHash { scheme: Scheme::NULL },
        unique: PublicId::Digest(Tpm2bDigest::empty()),
    };
    let sensitive =
        Tpm2bSensitiveCreate { user_auth: Tpm2bAuth::empty(), data: Secret2b::new(b"sealed").unwrap() };
    let input = (sensitive, Sized2b(public), Tpm2bData::empty(), TpmlPcrSelection::default());
    let made = run(&command(TpmCc::CREATE_PRIMARY, &[OWNER], 1, &input));
    let transient = TpmHandle(u32::from_be_bytes(made[10..14].try_into().unwrap()));
    run(&command(TpmCc::EVICT_CONTROL, &[OWNER, transient], 1, &SEALED));
    run(&command(TpmCc::FLUSH_CONTEXT, &[], 0, &transient));
}

/// What the TPM holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Possessions {
    pub counter: u64,
    pub pcr: Vec<u8>,
    pub data: Vec<u8>,
    pub sealed: Vec<u8>,
    /// `resetCount` and `restartCount`.
    pub boots: (u32, u32),
}

pub fn possessions(machine: &mut Machine, site: &mut Site) -> Possessions {
    let mut run = |command: &[u8]| success(machine, site, command);
    // Behind header, parameter size and the size of the buffer.
    let counter = run(&command(TpmCc::NV_READ, &[OWNER, COUNTER], 1, &(8u16, 0u16)));
    let data = run(&command(TpmCc::NV_READ, &[OWNER, INDEX], 1, &(700u16, 0u16)));
    let sealed = run(&command(TpmCc::UNSEAL, &[SEALED], 1, &()));
    let pcr = run(&command(TpmCc::PCR_READ, &[], 0, &(1u32, TpmAlgId::SHA256, 3u8, [0u8, 0, 1])));
    let clock = run(&command(TpmCc::READ_CLOCK, &[], 0, &()));
    let word = |at: usize| u32::from_be_bytes(clock[at..at + 4].try_into().unwrap());
    assert_eq!(&sealed[16..22], b"sealed");
    Possessions {
        counter: u64::from_be_bytes(counter[16..24].try_into().unwrap()),
        pcr: pcr[pcr.len() - 32..].to_vec(),
        data: data[16..716].to_vec(),
        sealed: sealed[16..22].to_vec(),
        // Time and Clock come before them.
        boots: (word(26), word(30)),
    }
}
