//! What a machine keeps in its TPM, and the commands for it.

use vtpm_protocol::codec::Encode;
use vtpm_protocol::tpm::*;

use crate::site::Site;

const PCR: TpmHandle = TpmHandle(16);
const INDEX: u32 = 0x0150_0000;
const KEY: TpmHandle = TpmHandle(0x8101_0000);
const OWNER: TpmHandle = TpmHandle::OWNER;
/// `TPM_RC_RETRY`.
const RETRY: u32 = 0x922;
/// NV indices.
pub const INDICES: u32 = 12;

const HMAC_SHA256: Scheme =
    Scheme { scheme: TpmAlgId::HMAC, hash: TpmAlgId::SHA256, kdf: TpmAlgId::NULL, count: 0 };

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

fn code(response: &[u8]) -> u32 {
    u32::from_be_bytes(response[6..10].try_into().unwrap())
}

/// Whether the instance refuses every command for now. A machine that asks tells a source that it runs there: not for the middle of a
/// migration.
pub fn is_locked(site: &Site) -> bool {
    code(&site.execute(&command(TpmCc::GET_RANDOM, &[], 0, &8u16))) == RETRY
}

fn success(site: &Site, command: &[u8]) -> Vec<u8> {
    let response = site.execute(command);
    assert_eq!(code(&response), 0, "{response:02x?} to {command:02x?}");
    response
}

/// The machine boots, fills its TPM, and is shut down.
pub fn fill(site: &Site) {
    let run = |command: &[u8]| success(site, command);
    run(&command(TpmCc::STARTUP, &[], 0, &TpmSu::CLEAR));
    run(&command(TpmCc::PCR_EXTEND, &[PCR], 1, &(1u32, TpmAlgId::SHA256, [7u8; 32])));
    for n in 0..INDICES {
        let public = TpmsNvPublic {
            nv_index: TpmHandle(INDEX + n),
            name_alg: TpmiAlgHash(TpmAlgId::SHA256),
            attributes: TpmaNv::OWNER_WRITE | TpmaNv::OWNER_READ | TpmaNv(0).with_nt(TpmNt::Ordinary),
            auth_policy: Tpm2bDigest::empty(),
            data_size: 1900,
        };
        run(&command(TpmCc::NV_DEFINE_SPACE, &[OWNER], 1, &(Tpm2bAuth::empty(), Sized2b(public))));
        for offset in [0u16, 950] {
            let data = (Tpm2b::<1024>::new([0x50 + n as u8; 950]).unwrap(), offset);
            run(&command(TpmCc::NV_WRITE, &[OWNER, TpmHandle(INDEX + n)], 1, &data));
        }
    }
    let public = TpmtPublic {
        name_alg: TpmAlgId::SHA256,
        attributes: TpmaObject::USER_WITH_AUTH
            | TpmaObject::SENSITIVE_DATA_ORIGIN
            | TpmaObject::SIGN_ENCRYPT
            | TpmaObject::FIXED_TPM
            | TpmaObject::FIXED_PARENT,
        auth_policy: Tpm2bDigest::empty(),
        parms: PublicParms::KeyedHash { scheme: HMAC_SHA256 },
        unique: PublicId::Digest(Tpm2bDigest::empty()),
    };
    let sensitive = Tpm2bSensitiveCreate { user_auth: Tpm2bAuth::empty(), data: Secret2b::new(b"").unwrap() };
    let input = (sensitive, Sized2b(public), Tpm2bData::empty(), TpmlPcrSelection::default());
    let made = run(&command(TpmCc::CREATE_PRIMARY, &[OWNER], 1, &input));
    let transient = TpmHandle(u32::from_be_bytes(made[10..14].try_into().unwrap()));
    run(&command(TpmCc::EVICT_CONTROL, &[OWNER, transient], 1, &KEY));
    run(&command(TpmCc::FLUSH_CONTEXT, &[], 0, &transient));
}

/// What the TPM holds: the PCR, the NV indices, and what only its persistent key computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Possessions(Vec<Vec<u8>>);

pub fn possessions(site: &Site) -> Possessions {
    let mut all = vec![{
        let pcr = command(TpmCc::PCR_READ, &[], 0, &(1u32, TpmAlgId::SHA256, 3u8, [0u8, 0, 1]));
        let out = success(site, &pcr);
        out[out.len() - 32..].to_vec()
    }];
    for n in 0..INDICES {
        for offset in [0u16, 950] {
            let read = command(TpmCc::NV_READ, &[OWNER, TpmHandle(INDEX + n)], 1, &(950u16, offset));
            let data = success(site, &read)[16..16 + 950].to_vec();
            assert_eq!(data, [0x50 + n as u8; 950]);
            all.push(data);
        }
    }
    let input = (Tpm2b::<1024>::new(b"message").unwrap(), TpmAlgId::SHA256);
    all.push(success(site, &command(TpmCc::HMAC, &[KEY], 1, &input))[16..48].to_vec());
    Possessions(all)
}
