//! `swtpm_setup`: manufactures a TPM 2.0 in a directory or file from which [`swtpm socket`](super::socket) serves it.

mod arguments;
mod certificates;
mod config_files;
mod ek;
mod log;
mod tpm;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use super::error::SwtpmError;
use super::process::User;
use super::state::StatePlace;
use super::{VERSION, json_list, key, rsa_features};
use crate::daemon::Single;
use arguments::{Arguments, Ask};
use certificates::{Authority, ConfigFile};
use ek::{EndorsementKey, PLATFORM_CERTIFICATE};
use log::Log;
use tpm::Manufacture;

/// The banks that are active unless others are asked for.
const USUAL_BANKS: &str = "sha256";
/// The first persistent handle, and the first NV index.
const FIRST_PERSISTENT: u32 = 0x8100_0000;
/// See [`FIRST_PERSISTENT`].
const FIRST_NV: u32 = 0x0100_0000;

/// What there is of the features of swtpm_setup, apart from the lengths of RSA keys.
const FEATURES: &[&str] = &[
    "tpm-2.0",
    "cmdarg-keyfile-fd",
    "cmdarg-pwdfile-fd",
    // Nothing here needs root.
    "tpm12-not-need-root",
    "cmdarg-write-ek-cert-files",
    "cmdarg-create-config-files",
    "cmdarg-reconfigure-pcr-banks",
    "cmdarg-profile",
];

/// The program: `arguments` without its name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::parse(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return failed(&mut None, &error),
    };
    let mut log = match Log::open(arguments.log_file.as_deref()) {
        Ok(log) => Some(log),
        Err(error) => return failed(&mut None, &error),
    };
    let done = match &mut log {
        Some(log) => run(&arguments, log),
        None => Ok(()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&mut log, &error),
    }
}

fn failed(log: &mut Option<Log>, error: &SwtpmError) -> ExitCode {
    let sentence = format!("swtpm_setup: {}", crate::sentence(error));
    match log {
        Some(log) => log.error(&sentence),
        None => eprintln!("{sentence}"),
    }
    ExitCode::FAILURE
}

fn capabilities() -> String {
    let keys = rsa_features("tpm2-rsa-keysize-", 2048);
    let features = FEATURES.iter().copied().chain(keys.iter().map(String::as_str));
    format!(
        "{{ \"type\": \"swtpm_setup\", \"features\": [ {} ], \"profiles\": [ \"{}\" ], \"version\": \"{VERSION}\" }}",
        json_list(features),
        crate::tree::PROFILE
    )
}

fn run(arguments: &Arguments, log: &mut Log) -> Result<(), SwtpmError> {
    // What is asked for is printed even when there is a log.
    let asked = match arguments.ask {
        Some(Ask::Help) => Some(arguments::HELP.to_owned()),
        Some(Ask::Version) => Some(format!("TPM emulator setup tool version {VERSION}, of vtpmd")),
        Some(Ask::Capabilities) => Some(capabilities()),
        Some(Ask::ConfigFiles(wish)) => return wish.fulfil(log),
        None => None,
    };
    if let Some(text) = asked {
        return Log::open(None)?.line(&text);
    }
    if !arguments.tpm2 {
        return Err(SwtpmError::Tpm12);
    }
    if let Some(user) = &arguments.run_as {
        User::find(user)?.become_it()?;
    }
    let needs = SwtpmError::Needs { option: "--tpm-state", needs: "the place of the state is needed" };
    let state = StatePlace::from_argument(arguments.state.as_deref().ok_or(needs)?)?;
    state.check_directory()?;
    state.check_foreign()?;
    let key = arguments.key.as_deref().map(|text| key::load("--keyfile", text)).transpose()?;
    let key = key.as_ref().map(|key| key.as_slice());
    let config = arguments.config.clone().unwrap_or_else(ConfigFile::usual);
    if arguments.reconfigure {
        if state.size()?.is_none() {
            return Err(SwtpmError::NoState(state.path().to_owned()));
        }
        return in_tpm(&state, key, |tpm| {
            let config = ConfigFile::read(&config)?;
            activate(arguments, &config, tpm, log)?;
            log.line("Reconfigured the TPM.")
        });
    }
    if state.size()?.is_some() {
        if arguments.not_overwrite {
            return log.line("There is a TPM already, and it stays as it is.");
        }
        if !arguments.overwrite {
            return Err(SwtpmError::Exists(state.path().to_owned()));
        }
    }
    // Read before anything is removed.
    let config = ConfigFile::read(&config)?;
    state.remove()?;
    log.line(&format!("Making a TPM in {}.", state.path().display()))?;
    let made = in_tpm(&state, key, |tpm| manufacture(arguments, &config, tpm, log));
    match made {
        Ok(()) => log.line("Successfully authored TPM state."),
        Err(error) => {
            // Half a TPM is none.
            if let Err(left) = state.remove() {
                log.error(&format!("swtpm_setup: {}", crate::sentence(&left)));
            }
            Err(error)
        }
    }
}

/// Does `work` on the TPM of a state, which is made if it is not there, between `TPM2_Startup` and `TPM2_Shutdown`.
fn in_tpm(
    state: &StatePlace,
    key: Option<&[u8]>,
    work: impl FnOnce(&Manufacture<'_>) -> Result<(), SwtpmError>,
) -> Result<(), SwtpmError> {
    let single: Single = state.open(key)?;
    let done = {
        let instance = single.instance();
        let tpm = Manufacture(&instance);
        tpm.start().and_then(|()| work(&tpm)).and_then(|()| tpm.shut_down())
    };
    single.close();
    done
}

fn activate(
    arguments: &Arguments,
    config: &ConfigFile,
    tpm: &Manufacture<'_>,
    log: &mut Log,
) -> Result<(), SwtpmError> {
    let wanted = arguments.banks.as_deref().or_else(|| config.get("active_pcr_banks")).unwrap_or(USUAL_BANKS);
    if wanted == "-" {
        return Ok(());
    }
    let (active, all) = tpm.activate_banks(wanted)?;
    log.line(&format!("Successfully activated PCR banks {active} among {all}."))
}

fn manufacture(
    arguments: &Arguments,
    config: &ConfigFile,
    tpm: &Manufacture<'_>,
    log: &mut Log,
) -> Result<(), SwtpmError> {
    if arguments.storage_key {
        tpm.storage_key(arguments.ecc)?;
        log.line(&format!("Successfully created storage primary key with handle 0x{:x}.", ek::STORAGE_KEY))?;
    }
    let bits = arguments.rsa_bits.as_deref().or_else(|| config.get("rsa_keysize")).unwrap_or("2048");
    let rsa = EndorsementKey::rsa(bits).ok_or_else(|| SwtpmError::Value {
        option: "--rsa-keysize",
        name: "the option",
        value: bits.to_owned(),
    })?;
    if arguments.endorsement {
        for key in [rsa, EndorsementKey::EccP384] {
            endorse(arguments, config, tpm, key, log)?;
        }
    }
    activate(arguments, config, tpm, log)?;
    if arguments.display {
        for (what, first) in [("Persistent handles", FIRST_PERSISTENT), ("NV indices", FIRST_NV)] {
            let handles: Vec<String> =
                tpm.handles(first)?.iter().map(|handle| format!("0x{handle:x}")).collect();
            log.line(&format!("{what}: {}", handles.join(" ")))?;
        }
    }
    Ok(())
}

/// An endorsement key with its certificate, and with the first of them the platform's.
fn endorse(
    arguments: &Arguments,
    config: &ConfigFile,
    tpm: &Manufacture<'_>,
    key: EndorsementKey,
    log: &mut Log,
) -> Result<(), SwtpmError> {
    let lock = arguments.lock_nvram;
    let parameters = tpm.endorsement_key(key, arguments.purpose, lock)?;
    log.line(&format!("Successfully created {} EK with handle 0x{:x}.", key.name(), key.handle()))?;
    let authority = Authority {
        config,
        vmid: arguments.vmid.as_deref(),
        log_file: arguments.log_file.as_deref(),
        sign: arguments.purpose.sign,
        decrypt: arguments.purpose.decrypt,
    };
    if arguments.certificate
        && let Some(certificate) = authority.certify("ek", &parameters, log)?
    {
        tpm.nv(key.certificate(), &certificate, lock)?;
        log.line(&format!(
            "Successfully created NVRAM area 0x{:x} for {} EK certificate.",
            key.certificate(),
            key.name()
        ))?;
        if let Some(dir) = &arguments.certificates_dir {
            certificates::write(Path::new(dir), key.short_name(), &certificate)?;
        }
    }
    if arguments.platform_certificate
        && key != EndorsementKey::EccP384
        && let Some(certificate) = authority.certify("platform", &parameters, log)?
    {
        tpm.nv(PLATFORM_CERTIFICATE, &certificate, lock)?;
        log.line(&format!(
            "Successfully created NVRAM area 0x{PLATFORM_CERTIFICATE:x} for platform certificate."
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_json_and_hold_what_libvirt_asks_for() {
        let json: serde_json::Value = serde_json::from_str(&capabilities()).unwrap();
        assert_eq!(json["type"], "swtpm_setup");
        let features = json["features"].as_array().unwrap();
        for there in [
            "tpm-2.0",
            "cmdarg-create-config-files",
            "cmdarg-pwdfile-fd",
            "cmdarg-reconfigure-pcr-banks",
            "tpm2-rsa-keysize-3072",
        ] {
            assert!(features.iter().any(|f| f == there), "{there}");
        }
        assert!(!features.iter().any(|f| f == "tpm-1.2"));
    }
}
