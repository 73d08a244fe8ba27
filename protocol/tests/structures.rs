#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that panics fails"
)]
//! Properties of all structures of Part 2: they survive their bytes; there is one form of bytes for each of them, of which no
//! beginning is one, too; and no bytes at all make decoding panic.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use vtpm_protocol::codec::{Decode, Encode, Reader, decode_exact};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::*;

/// A value without `Debug`, as secrets are; what fails shows its bytes itself.
struct Shown<T>(T);

impl<T: 'static> std::fmt::Debug for Shown<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(std::any::type_name::<T>())
    }
}

trait Show<T> {
    fn show(self) -> Shown<T>;
}

impl<T> Show<T> for T {
    fn show(self) -> Shown<T> {
        Shown(self)
    }
}

impl<T> Show<T> for Shown<T> {
    fn show(self) -> Shown<T> {
        self
    }
}

/// Any bytes that fit.
fn buffer<const MAX: usize>() -> impl Strategy<Value = Tpm2b<MAX>> {
    prop_oneof![4 => vec(any::<u8>(), 0..=MAX.min(80)), 1 => Just(vec![0xa5; MAX])]
        .prop_map(|bytes| Tpm2b::new(bytes).unwrap())
}

fn secret<const MAX: usize>() -> impl Strategy<Value = Shown<Secret2b<MAX>>> {
    buffer::<MAX>().prop_map(|b| Shown(Secret2b::new(b.to_vec()).unwrap()))
}

fn hash() -> impl Strategy<Value = TpmAlgId> {
    select(HASH_ALGS.to_vec())
}

fn hash_or_null() -> impl Strategy<Value = TpmAlgId> {
    prop_oneof![hash(), Just(TpmAlgId::NULL)]
}

fn handle() -> impl Strategy<Value = TpmHandle> {
    any::<u32>().prop_map(TpmHandle)
}

fn cipher(xor: bool) -> impl Strategy<Value = TpmtSymDef> {
    let mode = || select([&[TpmAlgId::CMAC, TpmAlgId::NULL], &CIPHER_MODES[..]].concat());
    let aes = (select(AES_KEY_BITS.to_vec()), mode())
        .prop_map(|(key_bits, mode)| TpmtSymDef::Aes { key_bits, mode });
    let camellia = (select(CAMELLIA_KEY_BITS.to_vec()), mode())
        .prop_map(|(key_bits, mode)| TpmtSymDef::Camellia { key_bits, mode });
    let tdes = (select(TDES_KEY_BITS.to_vec()), mode())
        .prop_map(|(key_bits, mode)| TpmtSymDef::Tdes { key_bits, mode });
    let last = hash().prop_map(move |hash| if xor { TpmtSymDef::Xor { hash } } else { TpmtSymDef::Null });
    prop_oneof![Just(TpmtSymDef::Null), aes, camellia, tdes, last]
}

fn scheme(allowed: &[TpmAlgId]) -> impl Strategy<Value = Scheme> + use<> {
    let parts = (option::of(select(allowed.to_vec())), hash(), any::<u16>());
    parts.prop_map(|(scheme, hash, count)| match scheme {
        None => Scheme::NULL,
        Some(TpmAlgId::RSAES) => Scheme::new(TpmAlgId::RSAES, TpmAlgId::NULL),
        Some(scheme @ TpmAlgId::XOR) => Scheme { kdf: TpmAlgId::KDF1_SP800_108, ..Scheme::new(scheme, hash) },
        Some(scheme @ TpmAlgId::ECDAA) => Scheme { count, ..Scheme::new(scheme, hash) },
        Some(scheme) => Scheme::new(scheme, hash),
    })
}

fn point() -> impl Strategy<Value = TpmsEccPoint> {
    (buffer(), buffer()).prop_map(|(x, y)| TpmsEccPoint { x, y })
}

fn curve_parameters() -> impl Strategy<Value = TpmsAlgorithmDetailEcc> {
    let parts = (select(ECC_CURVES.to_vec()), any::<u16>(), scheme(&KDFS), scheme(&ECC_SCHEMES));
    (parts, vec(buffer(), 7)).prop_map(|((curve, key_size, kdf, sign), numbers)| {
        let [p, a, b, gx, gy, n, h] = numbers.try_into().unwrap();
        let (kdf, sign) = (TpmtKdfScheme(kdf), TpmtEccScheme(sign));
        TpmsAlgorithmDetailEcc { curve, key_size, kdf, sign, p, a, b, gx, gy, n, h }
    })
}

fn parms_and_unique() -> impl Strategy<Value = (PublicParms, PublicId)> {
    prop_oneof![
        (scheme(&KEYEDHASH_SCHEMES), buffer())
            .prop_map(|(scheme, d)| (PublicParms::KeyedHash { scheme }, PublicId::Digest(d))),
        (cipher(false).prop_filter("a cipher", |sym| *sym != TpmtSymDef::Null), buffer()).prop_map(
            |(sym, d)| { (PublicParms::SymCipher { sym: TpmtSymDefObject(sym) }, PublicId::Digest(d)) }
        ),
        (cipher(false), scheme(&RSA_SCHEMES), select(RSA_KEY_BITS.to_vec()), any::<u32>(), buffer())
            .prop_map(|(sym, scheme, key_bits, exponent, n)| {
                let symmetric = TpmtSymDefObject(sym);
                (PublicParms::Rsa { symmetric, scheme, key_bits, exponent }, PublicId::Rsa(n))
            }),
        (cipher(false), scheme(&ECC_SCHEMES), select(ECC_CURVES.to_vec()), scheme(&KDFS), point()).prop_map(
            |(sym, scheme, curve, kdf, q)| {
                let symmetric = TpmtSymDefObject(sym);
                (PublicParms::Ecc { symmetric, scheme, curve, kdf }, PublicId::Ecc(q))
            }
        ),
    ]
}

fn public() -> impl Strategy<Value = TpmtPublic> {
    (hash_or_null(), any::<u32>(), buffer(), parms_and_unique()).prop_map(
        |(name_alg, attributes, auth_policy, (parms, unique))| TpmtPublic {
            name_alg,
            attributes: TpmaObject(attributes & !TpmaObject::RESERVED),
            auth_policy,
            parms,
            unique,
        },
    )
}

fn sensitive() -> impl Strategy<Value = Shown<TpmtSensitive>> {
    let composite = prop_oneof![
        secret().prop_map(|s| Shown(SensitiveComposite::Rsa(s.0))),
        secret().prop_map(|s| Shown(SensitiveComposite::Ecc(s.0))),
        secret().prop_map(|s| Shown(SensitiveComposite::Bits(s.0))),
        secret().prop_map(|s| Shown(SensitiveComposite::Sym(s.0))),
    ];
    (secret(), secret(), composite).prop_map(|(auth_value, seed_value, sensitive)| {
        Shown(TpmtSensitive { auth_value: auth_value.0, seed_value: seed_value.0, sensitive: sensitive.0 })
    })
}

fn ha() -> impl Strategy<Value = TpmtHa> {
    (hash(), any::<[u8; 64]>()).prop_map(|(hash_alg, bytes)| TpmtHa {
        hash_alg,
        digest: bytes[..hash_size(hash_alg).unwrap()].to_vec(),
    })
}

const ECC_SIGNATURES: [TpmAlgId; 4] = [TpmAlgId::ECDSA, TpmAlgId::ECDAA, TpmAlgId::SM2, TpmAlgId::ECSCHNORR];

fn signature() -> impl Strategy<Value = TpmtSignature> {
    prop_oneof![
        Just(TpmtSignature::Null),
        (select(vec![TpmAlgId::RSASSA, TpmAlgId::RSAPSS]), hash(), buffer())
            .prop_map(|(scheme, hash, sig)| TpmtSignature::Rsa { scheme, hash, sig }),
        (select(ECC_SIGNATURES.to_vec()), hash(), buffer(), buffer())
            .prop_map(|(scheme, hash, r, s)| TpmtSignature::Ecc { scheme, hash, r, s }),
        ha().prop_map(TpmtSignature::Hmac),
    ]
}

fn selection() -> impl Strategy<Value = TpmsPcrSelection> {
    (hash(), any::<[u8; 3]>()).prop_map(|(hash, select)| TpmsPcrSelection { hash, select })
}

fn list<T: std::fmt::Debug, const MAX: usize>(
    entry: impl Strategy<Value = T>,
) -> impl Strategy<Value = Tpml<T, MAX>> {
    vec(entry, 0..=MAX).prop_map(Tpml)
}

fn ticket() -> impl Strategy<Value = TpmtTk> {
    (any::<u16>(), handle(), buffer()).prop_map(|(tag, hierarchy, digest)| TpmtTk {
        tag: TpmSt(tag),
        hierarchy,
        digest,
    })
}

fn clock_info() -> impl Strategy<Value = TpmsClockInfo> {
    any::<(u64, u32, u32, bool)>().prop_map(|(clock, reset_count, restart_count, safe)| TpmsClockInfo {
        clock,
        reset_count,
        restart_count,
        safe,
    })
}

fn attest() -> impl Strategy<Value = TpmsAttest> {
    let attested = prop_oneof![
        (list(selection()), buffer())
            .prop_map(|(pcr_select, pcr_digest)| Attested::Quote { pcr_select, pcr_digest }),
        (buffer(), buffer())
            .prop_map(|(object_name, creation_hash)| Attested::Creation { object_name, creation_hash }),
        (buffer(), buffer()).prop_map(|(name, qualified_name)| Attested::Certify { name, qualified_name }),
    ];
    (buffer(), buffer(), clock_info(), any::<u64>(), attested).prop_map(
        |(qualified_signer, extra_data, clock_info, firmware_version, attested)| TpmsAttest {
            qualified_signer,
            extra_data,
            clock_info,
            firmware_version,
            attested,
        },
    )
}

fn creation_data() -> impl Strategy<Value = TpmsCreationData> {
    (list(selection()), buffer(), any::<u8>(), hash_or_null(), buffer(), buffer(), buffer()).prop_map(
        |(pcr_select, pcr_digest, locality, alg, parent_name, parent_qualified_name, outside_info)| {
            TpmsCreationData {
                pcr_select,
                pcr_digest,
                locality: TpmaLocality(locality),
                parent_name_alg: alg,
                parent_name,
                parent_qualified_name,
                outside_info,
            }
        },
    )
}

fn nv_public() -> impl Strategy<Value = TpmsNvPublic> {
    (handle(), hash(), any::<u32>(), buffer(), 0..=MAX_NV_INDEX_SIZE as u16).prop_map(
        |(nv_index, name_alg, attributes, auth_policy, data_size)| TpmsNvPublic {
            nv_index: TpmHandle::new(TpmHt::NV_INDEX, nv_index.0),
            name_alg: TpmiAlgHash(name_alg),
            attributes: TpmaNv(attributes & !TpmaNv::RESERVED),
            auth_policy,
            data_size,
        },
    )
}

fn context() -> impl Strategy<Value = TpmsContext> {
    (any::<u64>(), handle(), handle(), buffer()).prop_map(
        |(sequence, saved_handle, hierarchy, context_blob)| TpmsContext {
            sequence,
            saved_handle,
            hierarchy,
            context_blob,
        },
    )
}

fn auth_command() -> impl Strategy<Value = Shown<TpmsAuthCommand>> {
    (handle(), buffer(), any::<u8>(), secret()).prop_map(|(session_handle, nonce, attributes, hmac)| {
        let session_attributes = TpmaSession(attributes & !TpmaSession::RESERVED);
        Shown(TpmsAuthCommand { session_handle, nonce, session_attributes, hmac: hmac.0 })
    })
}

/// The value survives its bytes, and neither fewer nor more of them are one.
fn check_value<T: Encode + Decode>(value: &T) -> Result<(), TestCaseError> {
    let bytes = value.to_bytes();
    let again =
        decode_exact::<T>(&bytes).map_err(|e| TestCaseError::fail(format!("{e} from {bytes:02x?}")))?;
    prop_assert_eq!(again.to_bytes(), bytes.clone());
    for n in 0..bytes.len() {
        prop_assert!(decode_exact::<T>(&bytes[..n]).is_err(), "{} of {} bytes", n, bytes.len());
    }
    let longer = [&bytes[..], &[0]].concat();
    prop_assert!(decode_exact::<T>(&longer).is_err_and(|e| e == ResponseCode::SIZE));
    Ok(())
}

/// Bytes that decode are the bytes that the value has.
fn check_bytes<T: Encode + Decode>(bytes: &[u8]) -> Result<(), TestCaseError> {
    let mut r = Reader::new(bytes);
    if let Ok(value) = T::decode(&mut r) {
        let taken = bytes.len() - r.remaining();
        prop_assert_eq!(value.to_bytes(), &bytes[..taken]);
    }
    Ok(())
}

macro_rules! structures {
    ($($name:ident: $type:ty = $strategy:expr;)*) => {
        $(
            mod $name {
                use super::*;

                proptest! {
                    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

                    #[test]
                    fn survives_its_bytes(value in $strategy.prop_map(Show::<$type>::show)) {
                        check_value::<$type>(&value.0)?;
                    }

                    #[test]
                    fn has_one_form_of_bytes(
                        value in $strategy.prop_map(Show::<$type>::show),
                        changes in vec((any::<Index>(), prop_oneof![any::<u8>(), 0..0x48u8]), 1..4),
                    ) {
                        let mut bytes = value.0.to_bytes();
                        for (at, byte) in changes {
                            *at.get_mut(&mut bytes) = byte;
                        }
                        check_bytes::<$type>(&bytes)?;
                    }
                }
            }
        )*

        proptest! {
            #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

            /// Small numbers and algorithm ids, so that decoding gets somewhere.
            #[test]
            fn any_bytes_decode_or_are_refused(
                bytes in vec(prop_oneof![2 => Just(0u8), 3 => 0..0x48u8, 1 => any::<u8>()], 0..200),
            ) {
                $(check_bytes::<$type>(&bytes)?;)*
            }
        }
    };
}

structures! {
    digests: Tpm2bDigest = buffer::<MAX_DIGEST_SIZE>();
    rsa_numbers: Tpm2bPublicKeyRsa = buffer::<MAX_RSA_KEY_BYTES>();
    authorizations: Tpm2bAuth = secret::<MAX_DIGEST_SIZE>();
    symmetric_definitions: TpmtSymDef = cipher(true);
    object_ciphers: TpmtSymDefObject = cipher(false).prop_map(TpmtSymDefObject);
    signing_schemes: TpmtSigScheme = scheme(&SIG_SCHEMES).prop_map(TpmtSigScheme);
    points: Tpm2bEccPoint = point().prop_map(Sized2b);
    curve_parameters: TpmsAlgorithmDetailEcc = curve_parameters();
    key_derivations: TpmtKdfScheme = scheme(&KDFS).prop_map(TpmtKdfScheme);
    key_exchanges: TpmiEccKeyExchange = select(ECC_KEY_EXCHANGES.to_vec()).prop_map(TpmiEccKeyExchange);
    curves: TpmiEccCurve = select(ECC_CURVES.to_vec()).prop_map(TpmiEccCurve);
    public_areas: TpmtPublic = public();
    sized_public_areas: Tpm2bPublic = public().prop_map(Sized2b);
    sensitive_areas: TpmtSensitive = sensitive();
    sized_sensitive_areas: Tpm2bSensitive =
        option::of(sensitive()).prop_map(|s| Shown(Tpm2bSensitive(s.map(|s| s.0))));
    sensitive_data: Tpm2bSensitiveCreate =
        (secret(), secret()).prop_map(|(a, d)| Shown(Tpm2bSensitiveCreate { user_auth: a.0, data: d.0 }));
    creation: TpmsCreationData = creation_data();
    hashes: TpmtHa = ha();
    digest_values: TpmlDigestValues = list::<_, PCR_BANK_COUNT>(ha());
    digest_lists: TpmlDigest = list::<_, 8>(buffer::<MAX_DIGEST_SIZE>());
    pcr_selections: TpmlPcrSelection = list::<_, PCR_BANK_COUNT>(selection());
    signatures: TpmtSignature = signature();
    tickets: TpmtTk = ticket();
    times: TpmsTimeInfo =
        (any::<u64>(), clock_info()).prop_map(|(time, clock_info)| TpmsTimeInfo { time, clock_info });
    attestations: TpmsAttest = attest();
    nv_areas: Tpm2bNvPublic = nv_public().prop_map(Sized2b);
    contexts: TpmsContext = context();
    session_uses: TpmsAuthCommand = auth_command();
}
