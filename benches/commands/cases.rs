//! The commands that are measured, each with what must be there for it.

use crate::client::{Client, command};
use vtpm_protocol::codec::decode_exact;
use vtpm_protocol::tpm::*;

/// One command.
pub struct Case {
    pub name: &'static str,
    /// Makes what the command needs; returns its bytes.
    pub prepare: fn(&mut Client) -> Vec<u8>,
    /// What is done after each, outside of the time.
    pub after: Option<fn(&mut Client)>,
    /// What is done at the end.
    pub finish: Option<fn(&mut Client)>,
    /// It returns a handle, which is flushed each time.
    pub makes_handle: bool,
    /// It changes NV.
    pub writes_nv: bool,
    /// The command of another round, where not all are the same.
    pub next: Option<fn(u16) -> Vec<u8>>,
    /// How many times fewer rounds it gets.
    pub weight: usize,
}

const fn case(name: &'static str, prepare: fn(&mut Client) -> Vec<u8>) -> Case {
    Case {
        name,
        prepare,
        after: None,
        finish: None,
        makes_handle: false,
        writes_nv: false,
        next: None,
        weight: 1,
    }
}

const fn makes(name: &'static str, weight: usize, prepare: fn(&mut Client) -> Vec<u8>) -> Case {
    Case { makes_handle: true, weight, ..case(name, prepare) }
}

const fn nv(name: &'static str, prepare: fn(&mut Client) -> Vec<u8>) -> Case {
    Case { writes_nv: true, finish: Some(undefine), ..case(name, prepare) }
}

const INDEX: TpmHandle = TpmHandle(0x0140_0001);
const OWNER: TpmHandle = TpmHandle::OWNER;
const SHA256: TpmAlgId = TpmAlgId::SHA256;
const AES: TpmtSymDefObject = TpmtSymDefObject(TpmtSymDef::Aes { key_bits: 128, mode: TpmAlgId::CFB });
const NO_SYM: TpmtSymDefObject = TpmtSymDefObject(TpmtSymDef::Null);
const SIGN: TpmaObject = TpmaObject(TpmaObject::SIGN_ENCRYPT.0);
const DECRYPT: TpmaObject = TpmaObject(TpmaObject::DECRYPT.0);
const STORAGE: TpmaObject = TpmaObject(TpmaObject::DECRYPT.0 | TpmaObject::RESTRICTED.0);

fn public(attributes: TpmaObject, parms: PublicParms, unique: PublicId) -> TpmtPublic {
    let user = TpmaObject::USER_WITH_AUTH | TpmaObject::NO_DA;
    let fixed = TpmaObject::FIXED_TPM | TpmaObject::FIXED_PARENT;
    let attributes = attributes | user | fixed | TpmaObject::SENSITIVE_DATA_ORIGIN;
    TpmtPublic { name_alg: SHA256, attributes, auth_policy: Tpm2bDigest::empty(), parms, unique }
}

fn rsa(attributes: TpmaObject, scheme: Scheme) -> TpmtPublic {
    let symmetric = if attributes.has(TpmaObject::RESTRICTED | TpmaObject::DECRYPT) { AES } else { NO_SYM };
    let parms = PublicParms::Rsa { symmetric, scheme, key_bits: 2048, exponent: 0 };
    public(attributes, parms, PublicId::Rsa(Tpm2bPublicKeyRsa::empty()))
}

fn ecc(attributes: TpmaObject, scheme: Scheme) -> TpmtPublic {
    let symmetric = if attributes.has(TpmaObject::RESTRICTED | TpmaObject::DECRYPT) { AES } else { NO_SYM };
    let parms = PublicParms::Ecc { symmetric, scheme, curve: TpmEccCurve::NIST_P256, kdf: Scheme::NULL };
    public(attributes, parms, PublicId::Ecc(TpmsEccPoint::default()))
}

fn hmac_key() -> TpmtPublic {
    let parms = PublicParms::KeyedHash { scheme: Scheme::new(TpmAlgId::HMAC, SHA256) };
    public(SIGN, parms, PublicId::Digest(Tpm2bDigest::empty()))
}

fn aes_key() -> TpmtPublic {
    public(SIGN | DECRYPT, PublicParms::SymCipher { sym: AES }, PublicId::Digest(Tpm2bDigest::empty()))
}

const ECDSA: Scheme = Scheme::new(TpmAlgId::ECDSA, SHA256);
const RSASSA: Scheme = Scheme::new(TpmAlgId::RSASSA, SHA256);
const OAEP: Scheme = Scheme::new(TpmAlgId::OAEP, SHA256);

type CreateIn = (Tpm2bSensitiveCreate, Tpm2bPublic, Tpm2bData, TpmlPcrSelection);

fn create_in(public: TpmtPublic, data: &[u8]) -> CreateIn {
    let sensitive =
        Tpm2bSensitiveCreate { user_auth: Tpm2bAuth::empty(), data: Secret2b::new(data).unwrap() };
    (sensitive, Sized2b(public), Tpm2bData::empty(), TpmlPcrSelection::default())
}

fn create_primary(public: TpmtPublic) -> Vec<u8> {
    command(TpmCc::CREATE_PRIMARY, &[TpmHandle::ENDORSEMENT], 1, &create_in(public, b""))
}

fn rsa_primary(n: u16) -> Vec<u8> {
    let unique = Tpm2bPublicKeyRsa::new(n.to_be_bytes()).unwrap();
    create_primary(TpmtPublic { unique: PublicId::Rsa(unique), ..rsa(STORAGE, Scheme::NULL) })
}

fn primary(client: &mut Client, public: TpmtPublic) -> TpmHandle {
    client.load(&create_primary(public)).0
}

/// The areas of a new child.
fn child(
    client: &mut Client,
    parent: TpmHandle,
    public: TpmtPublic,
    data: &[u8],
) -> (Tpm2bPrivate, Tpm2bPublic) {
    let out = client.parameters(&command(TpmCc::CREATE, &[parent], 1, &create_in(public, data)));
    type Out = (Tpm2bPrivate, Tpm2bPublic, Sized2b<TpmsCreationData>, Tpm2bDigest, TpmtTk);
    let (private, public, ..): Out = decode_exact(&out).unwrap();
    (private, public)
}

fn sealed() -> TpmtPublic {
    let parms = PublicParms::KeyedHash { scheme: Scheme::NULL };
    let public = public(TpmaObject(0), parms, PublicId::Digest(Tpm2bDigest::empty()));
    TpmtPublic { attributes: public.attributes.with(TpmaObject::SENSITIVE_DATA_ORIGIN, false), ..public }
}

fn load_of(client: &mut Client, parent: TpmtPublic, public: TpmtPublic, data: &[u8]) -> Vec<u8> {
    let parent = primary(client, parent);
    let areas = child(client, parent, public, data);
    command(TpmCc::LOAD, &[parent], 1, &areas)
}

fn digest() -> Tpm2bDigest {
    Tpm2bDigest::new([0x5a; 32]).unwrap()
}

fn sign(client: &mut Client, public: TpmtPublic) -> Vec<u8> {
    let key = primary(client, public);
    let ticket = TpmtTk { tag: TpmSt::HASHCHECK, hierarchy: TpmHandle::NULL, digest: Tpm2bDigest::empty() };
    command(TpmCc::SIGN, &[key], 1, &(digest(), TpmAlgId::NULL, ticket))
}

fn verify(client: &mut Client, public: TpmtPublic) -> Vec<u8> {
    let sign = sign(client, public);
    let key = TpmHandle(u32::from_be_bytes(sign[10..14].try_into().unwrap()));
    let signature: TpmtSignature = decode_exact(&client.parameters(&sign)).unwrap();
    command(TpmCc::VERIFY_SIGNATURE, &[key], 0, &(digest(), signature))
}

fn quote(client: &mut Client, public: TpmtPublic) -> Vec<u8> {
    let key = primary(client, public);
    let pcrs: TpmlPcrSelection = Tpml(vec![TpmsPcrSelection::of(SHA256, 0..8)]);
    command(TpmCc::QUOTE, &[key], 1, &(Tpm2bData::empty(), TpmAlgId::NULL, pcrs))
}

fn start_session(kind: TpmSe, salt: TpmHandle, encrypted: Tpm2bEncryptedSecret) -> Vec<u8> {
    let parameters = (
        Tpm2bNonce::new([7; 32]).unwrap(),
        encrypted,
        kind,
        TpmtSymDef::Aes { key_bits: 128, mode: TpmAlgId::CFB },
        SHA256,
    );
    command(TpmCc::START_AUTH_SESSION, &[salt, TpmHandle::NULL], 0, &parameters)
}

fn define(client: &mut Client, nt: TpmNt, size: u16) {
    let attributes = TpmaNv::OWNER_WRITE | TpmaNv::OWNER_READ | TpmaNv::NO_DA;
    let public = TpmsNvPublic {
        nv_index: INDEX,
        name_alg: TpmiAlgHash(SHA256),
        attributes: attributes.with_nt(nt),
        auth_policy: Tpm2bDigest::empty(),
        data_size: size,
    };
    let define = client.owner(TpmCc::NV_DEFINE_SPACE, &[OWNER], &(Tpm2bAuth::empty(), Sized2b(public)));
    client.run(&define);
}

fn undefine(client: &mut Client) {
    let undefine = client.owner(TpmCc::NV_UNDEFINE_SPACE, &[OWNER, INDEX], &());
    client.run(&undefine);
}

fn nv_write(client: &Client) -> Vec<u8> {
    let data = Tpm2bMaxNvBuffer::new([1; 64]).unwrap();
    client.owner(TpmCc::NV_WRITE, &[OWNER, INDEX], &(data, 0u16))
}

/// All of them, the quick ones first.
pub const CASES: &[Case] = &[
    case("GetRandom 32", |_| command(TpmCc::GET_RANDOM, &[], 0, &32u16)),
    case("GetCapability properties", |_| {
        command(TpmCc::GET_CAPABILITY, &[], 0, &(TpmCap::TPM_PROPERTIES, 0x100u32, 64u32))
    }),
    case("ReadClock", |_| command(TpmCc::READ_CLOCK, &[], 0, &())),
    case("PCR_Read 8", |_| {
        let pcrs: TpmlPcrSelection = Tpml(vec![TpmsPcrSelection::of(SHA256, 0..8)]);
        command(TpmCc::PCR_READ, &[], 0, &pcrs)
    }),
    case("PCR_Extend 16, one bank", |_| {
        let digests: TpmlDigestValues = Tpml(vec![TpmtHa { hash_alg: SHA256, digest: vec![1; 32] }]);
        command(TpmCc::PCR_EXTEND, &[TpmHandle(16)], 1, &digests)
    }),
    case("PCR_Event 16, 512 bytes", |_| {
        command(TpmCc::PCR_EVENT, &[TpmHandle(16)], 1, &Tpm2bEvent::new([1; 512]).unwrap())
    }),
    case("Hash SHA-256, 1024 bytes", |_| {
        let data = Tpm2bMaxBuffer::new([1; 1024]).unwrap();
        command(TpmCc::HASH, &[], 0, &(data, SHA256, TpmHandle::NULL))
    }),
    case("HMAC SHA-256, 1024 bytes", |client| {
        let key = primary(client, hmac_key());
        command(TpmCc::HMAC, &[key], 1, &(Tpm2bMaxBuffer::new([1; 1024]).unwrap(), TpmAlgId::NULL))
    }),
    makes("HashSequenceStart", 1, |_| {
        command(TpmCc::HASH_SEQUENCE_START, &[], 0, &(Tpm2bAuth::empty(), SHA256))
    }),
    case("SequenceUpdate 1024 bytes", |client| {
        let (sequence, _) =
            client.load(&command(TpmCc::HASH_SEQUENCE_START, &[], 0, &(Tpm2bAuth::empty(), SHA256)));
        command(TpmCc::SEQUENCE_UPDATE, &[sequence], 1, &Tpm2bMaxBuffer::new([1; 1024]).unwrap())
    }),
    case("EncryptDecrypt AES-128 CFB, 1 KiB", |client| {
        let key = primary(client, aes_key());
        let data = Tpm2bMaxBuffer::new([1; 1024]).unwrap();
        let iv = Tpm2bDigest::new([0; 16]).unwrap();
        command(TpmCc::ENCRYPT_DECRYPT, &[key], 1, &(false, TpmAlgId::CFB, iv, data))
    }),
    makes("StartAuthSession HMAC", 1, |_| {
        start_session(TpmSe::HMAC, TpmHandle::NULL, Tpm2bEncryptedSecret::empty())
    }),
    makes("StartAuthSession policy", 1, |_| {
        start_session(TpmSe::POLICY, TpmHandle::NULL, Tpm2bEncryptedSecret::empty())
    }),
    case("PolicyPCR", |client| {
        let (session, _) =
            client.load(&start_session(TpmSe::TRIAL, TpmHandle::NULL, Tpm2bEncryptedSecret::empty()));
        let pcrs: TpmlPcrSelection = Tpml(vec![TpmsPcrSelection::of(SHA256, 0..8)]);
        command(TpmCc::POLICY_PCR, &[session], 0, &(Tpm2bDigest::empty(), pcrs))
    }),
    case("PolicyOR of 8", |client| {
        let (session, _) =
            client.load(&start_session(TpmSe::TRIAL, TpmHandle::NULL, Tpm2bEncryptedSecret::empty()));
        let list: TpmlDigest = Tpml(vec![digest(); 8]);
        command(TpmCc::POLICY_OR, &[session], 0, &list)
    }),
    case("ReadPublic", |client| {
        let key = primary(client, ecc(SIGN, ECDSA));
        command(TpmCc::READ_PUBLIC, &[key], 0, &())
    }),
    case("ContextSave ECC key", |client| {
        let key = primary(client, ecc(SIGN, ECDSA));
        command(TpmCc::CONTEXT_SAVE, &[key], 0, &())
    }),
    makes("ContextLoad ECC key", 1, |client| {
        let key = primary(client, ecc(SIGN, ECDSA));
        let response = client.run(&command(TpmCc::CONTEXT_SAVE, &[key], 0, &()));
        let context: TpmsContext = decode_exact(&response[10..]).unwrap();
        command(TpmCc::CONTEXT_LOAD, &[], 0, &context)
    }),
    makes("Load ECC below ECC", 1, |client| {
        load_of(client, ecc(STORAGE, Scheme::NULL), ecc(SIGN, ECDSA), b"")
    }),
    makes("Load RSA below ECC", 1, |client| {
        load_of(client, ecc(STORAGE, Scheme::NULL), rsa(SIGN, RSASSA), b"")
    }),
    makes("Load sealed data below RSA", 1, |client| {
        load_of(client, rsa(STORAGE, Scheme::NULL), sealed(), b"secret")
    }),
    case("Unseal", |client| {
        let load = load_of(client, ecc(STORAGE, Scheme::NULL), sealed(), b"secret");
        let (object, _) = client.load(&load);
        command(TpmCc::UNSEAL, &[object], 1, &())
    }),
    case("Create sealed data", |client| {
        let parent = primary(client, ecc(STORAGE, Scheme::NULL));
        command(TpmCc::CREATE, &[parent], 1, &create_in(sealed(), b"secret"))
    }),
    case("Create ECC P-256", |client| {
        let parent = primary(client, ecc(STORAGE, Scheme::NULL));
        command(TpmCc::CREATE, &[parent], 1, &create_in(ecc(SIGN, ECDSA), b""))
    }),
    makes("CreatePrimary ECC P-256", 1, |_| create_primary(ecc(STORAGE, Scheme::NULL))),
    case("Sign ECDSA P-256", |client| sign(client, ecc(SIGN, ECDSA))),
    case("VerifySignature ECDSA P-256", |client| verify(client, ecc(SIGN, ECDSA))),
    case("Quote ECDSA P-256", |client| quote(client, ecc(SIGN | TpmaObject::RESTRICTED, ECDSA))),
    case("ECDH_KeyGen P-256", |client| {
        let key = primary(client, ecc(DECRYPT, Scheme::NULL));
        command(TpmCc::ECDH_KEY_GEN, &[key], 0, &())
    }),
    case("ECDH_ZGen P-256", |client| {
        let key = primary(client, ecc(DECRYPT, Scheme::NULL));
        let response = client.run(&command(TpmCc::ECDH_KEY_GEN, &[key], 0, &()));
        let (_, point): (Tpm2bEccPoint, Tpm2bEccPoint) = decode_exact(&response[10..]).unwrap();
        command(TpmCc::ECDH_ZGEN, &[key], 1, &point)
    }),
    case("Sign RSASSA 2048", |client| sign(client, rsa(SIGN, RSASSA))),
    case("VerifySignature RSASSA 2048", |client| verify(client, rsa(SIGN, RSASSA))),
    case("Quote RSASSA 2048", |client| quote(client, rsa(SIGN | TpmaObject::RESTRICTED, RSASSA))),
    case("RSA_Encrypt OAEP 2048", |client| {
        let key = primary(client, rsa(DECRYPT, OAEP));
        let message = Tpm2bPublicKeyRsa::new(*b"message").unwrap();
        command(TpmCc::RSA_ENCRYPT, &[key], 0, &(message, TpmAlgId::NULL, Tpm2bData::empty()))
    }),
    case("RSA_Decrypt OAEP 2048", |client| {
        let key = primary(client, rsa(DECRYPT, OAEP));
        let message = Tpm2bPublicKeyRsa::new(*b"message").unwrap();
        let parameters = (message, TpmAlgId::NULL, Tpm2bData::empty());
        let response = client.run(&command(TpmCc::RSA_ENCRYPT, &[key], 0, &parameters));
        let cipher: Tpm2bPublicKeyRsa = decode_exact(&response[10..]).unwrap();
        command(TpmCc::RSA_DECRYPT, &[key], 1, &(cipher, TpmAlgId::NULL, Tpm2bData::empty()))
    }),
    Case {
        weight: 2,
        ..case("Create RSA 2048", |client| {
            let parent = primary(client, ecc(STORAGE, Scheme::NULL));
            command(TpmCc::CREATE, &[parent], 1, &create_in(rsa(SIGN, RSASSA), b""))
        })
    },
    Case {
        // Each is another key: how long the search for one takes depends on nothing but chance.
        next: Some(rsa_primary),
        ..makes("CreatePrimary RSA 2048", 2, |_| rsa_primary(0))
    },
    Case {
        writes_nv: false,
        ..nv("NV_Read 64 bytes", |client| {
            define(client, TpmNt::Ordinary, 64);
            let write = nv_write(client);
            client.run(&write);
            client.owner(TpmCc::NV_READ, &[OWNER, INDEX], &(64u16, 0u16))
        })
    },
    nv("NV_Write 64 bytes", |client| {
        define(client, TpmNt::Ordinary, 64);
        nv_write(client)
    }),
    nv("NV_Increment", |client| {
        define(client, TpmNt::Counter, 8);
        client.owner(TpmCc::NV_INCREMENT, &[OWNER, INDEX], &())
    }),
    Case {
        after: Some(undefine),
        finish: None,
        ..nv("NV_DefineSpace 64 bytes", |client| {
            define(client, TpmNt::Ordinary, 64);
            undefine(client);
            let attributes = TpmaNv::OWNER_WRITE | TpmaNv::OWNER_READ | TpmaNv::NO_DA;
            let public = TpmsNvPublic {
                nv_index: INDEX,
                name_alg: TpmiAlgHash(SHA256),
                attributes,
                auth_policy: Tpm2bDigest::empty(),
                data_size: 64,
            };
            client.owner(TpmCc::NV_DEFINE_SPACE, &[OWNER], &(Tpm2bAuth::empty(), Sized2b(public)))
        })
    },
];
