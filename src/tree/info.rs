//! What TPM an instance is, in the JSON of libtpms: for `CMD_GET_INFO` of the control channel, and for programs that ask before there is an
//! instance.

use std::fmt::Write;

use vtpm_engine::command::capability::{describe, implemented_algorithms};
use vtpm_protocol::control::InfoFlags;
use vtpm_protocol::tpm::{
    AES_KEY_BITS, CAMELLIA_KEY_BITS, ECC_CURVES, RSA_KEY_BITS, TDES_KEY_BITS, TpmAlgId, TpmCc, TpmEccCurve,
};

/// The name of the one profile that there is.
pub const PROFILE: &str = "vtpmd";

/// An object with a member for each flag that is known, in the order of libtpms.
#[must_use]
pub fn describe_tpm(flags: InfoFlags) -> String {
    let tpm = describe();
    let mut members = Vec::new();
    let mut member = |flag, text: &dyn Fn() -> String| {
        if flags.contains(flag) {
            members.push(text());
        }
    };
    member(InfoFlags::TPM_SPECIFICATION, &|| {
        format!(r#""TPMSpecification":{{"family":"2.0","level":{},"revision":{}}}"#, tpm.level, tpm.revision)
    });
    member(InfoFlags::TPM_ATTRIBUTES, &|| {
        format!(
            r#""TPMAttributes":{{"manufacturer":"id:{:08X}","version":"id:{:08X}","model":"vtpmd"}}"#,
            tpm.manufacturer, tpm.firmware_version
        )
    });
    member(InfoFlags::TPM_FEATURES, &|| {
        format!(
            r#""TPMFeatures":{{"RSAKeySizes":[{}],"CamelliaKeySizes":[{}]}}"#,
            list(&RSA_KEY_BITS),
            list(&CAMELLIA_KEY_BITS)
        )
    });
    // Nothing can be switched off.
    let runtime = |name: &str, all: &str| {
        format!(r#""{name}":{{"Implemented":"{all}","CanBeDisabled":"","Enabled":"{all}","Disabled":""}}"#)
    };
    member(InfoFlags::RUNTIME_ALGORITHMS, &|| runtime("RuntimeAlgorithms", &algorithms()));
    member(InfoFlags::RUNTIME_COMMANDS, &|| runtime("RuntimeCommands", &ranges(&tpm.commands)));
    member(InfoFlags::ACTIVE_PROFILE, &|| format!(r#""ActiveProfile":{}"#, profile(&tpm.commands)));
    member(InfoFlags::AVAILABLE_PROFILES, &|| format!(r#""AvailableProfiles":[{}]"#, profile(&tpm.commands)));
    member(InfoFlags::RUNTIME_ATTRIBUTES, &|| runtime("RuntimeAttributes", ""));
    format!("{{{}}}", members.join(","))
}

fn profile(commands: &[TpmCc]) -> String {
    format!(
        r#"{{"Name":"{PROFILE}","Commands":"{}","Algorithms":"{}","Attributes":"","Description":"Everything that is implemented; there is no other profile."}}"#,
        ranges(commands),
        algorithms()
    )
}

fn list(numbers: &[u16]) -> String {
    numbers.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
}

/// Codes in ascending order as `0x11f-0x122,0x124`.
fn ranges(codes: &[TpmCc]) -> String {
    let mut out = String::new();
    let mut rest = codes.iter().map(|code| code.0).peekable();
    while let Some(first) = rest.next() {
        let mut last = first;
        while let Some(next) = rest.next_if(|&next| Some(next) == last.checked_add(1)) {
            last = next;
        }
        let comma = if out.is_empty() { "" } else { "," };
        // Writing to a string does not fail.
        let _ = write!(out, "{comma}0x{first:x}");
        if last > first {
            let _ = write!(out, "-0x{last:x}");
        }
    }
    out
}

fn algorithms() -> String {
    let mut names: Vec<String> = Vec::new();
    for algorithm in implemented_algorithms() {
        let Some(name) = algorithm_name(algorithm.alg) else { continue };
        names.push(name.to_owned());
        let sizes: &[u16] = match algorithm.alg {
            TpmAlgId::RSA => &RSA_KEY_BITS,
            TpmAlgId::TDES => &TDES_KEY_BITS,
            TpmAlgId::AES => &AES_KEY_BITS,
            TpmAlgId::CAMELLIA => &CAMELLIA_KEY_BITS,
            _ => &[],
        };
        if let Some(least) = sizes.iter().min() {
            names.push(format!("{name}-min-size={least}"));
        }
        if algorithm.alg == TpmAlgId::ECC {
            names.extend(ECC_CURVES.iter().filter_map(|&curve| curve_name(curve)).map(str::to_owned));
        }
    }
    names.join(",")
}

fn algorithm_name(alg: TpmAlgId) -> Option<&'static str> {
    Some(match alg {
        TpmAlgId::RSA => "rsa",
        TpmAlgId::TDES => "tdes",
        TpmAlgId::SHA1 => "sha1",
        TpmAlgId::HMAC => "hmac",
        TpmAlgId::AES => "aes",
        TpmAlgId::MGF1 => "mgf1",
        TpmAlgId::KEYEDHASH => "keyedhash",
        TpmAlgId::XOR => "xor",
        TpmAlgId::SHA256 => "sha256",
        TpmAlgId::SHA384 => "sha384",
        TpmAlgId::SHA512 => "sha512",
        TpmAlgId::SM3_256 => "sm3-256",
        TpmAlgId::RSASSA => "rsassa",
        TpmAlgId::RSAES => "rsaes",
        TpmAlgId::RSAPSS => "rsapss",
        TpmAlgId::OAEP => "oaep",
        TpmAlgId::ECDSA => "ecdsa",
        TpmAlgId::ECDH => "ecdh",
        TpmAlgId::ECDAA => "ecdaa",
        TpmAlgId::SM2 => "sm2",
        TpmAlgId::ECSCHNORR => "ecschnorr",
        TpmAlgId::ECMQV => "ecmqv",
        TpmAlgId::KDF1_SP800_56A => "kdf1-sp800-56a",
        TpmAlgId::KDF2 => "kdf2",
        TpmAlgId::KDF1_SP800_108 => "kdf1-sp800-108",
        TpmAlgId::ECC => "ecc",
        TpmAlgId::SYMCIPHER => "symcipher",
        TpmAlgId::CAMELLIA => "camellia",
        TpmAlgId::SHA3_256 => "sha3-256",
        TpmAlgId::SHA3_384 => "sha3-384",
        TpmAlgId::SHA3_512 => "sha3-512",
        TpmAlgId::CMAC => "cmac",
        TpmAlgId::CTR => "ctr",
        TpmAlgId::OFB => "ofb",
        TpmAlgId::CBC => "cbc",
        TpmAlgId::CFB => "cfb",
        TpmAlgId::ECB => "ecb",
        _ => return None,
    })
}

fn curve_name(curve: TpmEccCurve) -> Option<&'static str> {
    Some(match curve {
        TpmEccCurve::NIST_P192 => "ecc-nist-p192",
        TpmEccCurve::NIST_P224 => "ecc-nist-p224",
        TpmEccCurve::NIST_P256 => "ecc-nist-p256",
        TpmEccCurve::NIST_P384 => "ecc-nist-p384",
        TpmEccCurve::NIST_P521 => "ecc-nist-p521",
        TpmEccCurve::SM2_P256 => "ecc-sm2-p256",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use vtpm_engine::command::table::COMMANDS;

    #[test]
    fn every_flag_adds_its_member_and_all_is_json() {
        let members = [
            "TPMSpecification",
            "TPMAttributes",
            "TPMFeatures",
            "RuntimeAlgorithms",
            "RuntimeCommands",
            "ActiveProfile",
            "AvailableProfiles",
            "RuntimeAttributes",
        ];
        assert_eq!(describe_tpm(InfoFlags(0)), "{}");
        assert_eq!(describe_tpm(InfoFlags(1 << 40)), "{}");
        for (bit, member) in members.into_iter().enumerate() {
            let text = describe_tpm(InfoFlags(1 << bit));
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
            assert_eq!(keys, [member], "{text}");
        }
        let all: serde_json::Value = serde_json::from_str(&describe_tpm(InfoFlags(0xff))).unwrap();
        assert_eq!(all.as_object().unwrap().len(), 8);
        assert_eq!(all["TPMSpecification"]["revision"], 184);
        assert_eq!(all["TPMAttributes"]["manufacturer"], "id:5654504D");
        assert_eq!(all["ActiveProfile"], all["AvailableProfiles"][0]);
    }

    #[test]
    fn commands_are_told_as_ranges_that_hold_all_of_them_and_no_others() {
        let mut told = Vec::new();
        for range in ranges(&describe().commands).split(',') {
            let number = |hex: &str| u32::from_str_radix(hex.trim_start_matches("0x"), 16).unwrap();
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            told.extend(number(first)..=number(last));
        }
        let mut there: Vec<u32> = COMMANDS.iter().map(|c| c.code.0).filter(|c| c >> 29 == 0).collect();
        there.sort_unstable();
        assert_eq!(told, there);
    }

    #[test]
    fn every_algorithm_and_curve_has_a_name() {
        assert!(implemented_algorithms().all(|a| algorithm_name(a.alg).is_some()));
        assert!(ECC_CURVES.into_iter().all(|curve| curve_name(curve).is_some()));
    }
}
