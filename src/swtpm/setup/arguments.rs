//! The command line of `swtpm_setup`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::config_files::Wish;
use super::ek::Use;
use crate::swtpm::error::SwtpmError;
use crate::swtpm::options::{Parser, Spec, Takes};
use crate::tree::PROFILE;

pub(super) const HELP: &str = "\
Usage: swtpm_setup --tpm2 --tpm-state <dir> [options]

Makes a TPM 2.0 of vtpmd in a directory or file, for `swtpm socket`.

--tpm-state|--tpmstate <dir>   where: a directory, plainly or as dir://, or
                               a file or block device as file://
--tpm <program>        the swtpm beside this program; no other
--createek             make the endorsement keys, RSA and ECC P-384
--create-ek-cert       and certificates for them
--create-platform-cert and a platform certificate
--create-spk           make a storage key at 0x81000001, RSA 2048; ECC P-384
                       with --ecc
--allow-signing        endorsement keys may sign
--decryption           and decrypt nevertheless
--rsa-keysize <bits>   2048, 3072, 4096 or max
--lock-nvram           what is in NV indices cannot be written any more
--pcr-banks <names>    these banks and no others; - leaves them alone
--reconfigure          only the banks, of a TPM that is there
--overwrite            replace a TPM that is there
--not-overwrite        end silently if there is one
--vmid <name>          for the certificates
--write-ek-cert-files <dir>
--create-config-files [overwrite,root|skip-if-exist]
                       make a configuration below the user's own directory
--config <file>        instead of swtpm_setup.conf
--keyfile <file>, --keyfile-fd <fd>, --pwdfile <file>, --pwdfile-fd <fd>
                       the key of the state; --cipher aes-128-cbc|aes-256-cbc
--logfile <file>
--runas <user>
--display              print which handles there are
--profile {\"Name\":\"vtpmd\"}, --profile-name vtpmd
--print-capabilities, --version, --help|-h";

/// What is done instead of making a TPM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ask {
    Help,
    Version,
    Capabilities,
    ConfigFiles(Wish),
}

/// The command line.
#[derive(Default)]
pub(super) struct Arguments {
    pub(super) ask: Option<Ask>,
    pub(super) tpm2: bool,
    pub(super) state: Option<String>,
    pub(super) endorsement: bool,
    pub(super) certificate: bool,
    pub(super) platform_certificate: bool,
    pub(super) storage_key: bool,
    pub(super) ecc: bool,
    pub(super) purpose: Use,
    pub(super) lock_nvram: bool,
    pub(super) display: bool,
    pub(super) config: Option<PathBuf>,
    pub(super) vmid: Option<String>,
    /// As the value of swtpm's `--key`.
    pub(super) key: Option<String>,
    pub(super) run_as: Option<String>,
    pub(super) log_file: Option<String>,
    pub(super) overwrite: bool,
    pub(super) not_overwrite: bool,
    pub(super) banks: Option<String>,
    pub(super) rsa_bits: Option<String>,
    pub(super) certificates_dir: Option<String>,
    pub(super) reconfigure: bool,
}

#[derive(Clone, Copy)]
enum Id {
    State,
    Tpm,
    Ioctl,
    Tpm2,
    Ecc,
    Endorsement,
    StorageKey,
    Ownership,
    Certificate,
    PlatformCertificate,
    LockNvram,
    Display,
    Config,
    Vmid,
    KeyFile,
    KeyFd,
    PwdFile,
    PwdFd,
    Cipher,
    RunAs,
    LogFile,
    Overwrite,
    NotOverwrite,
    Sign,
    Decrypt,
    Banks,
    RsaBits,
    CertificatesDir,
    ConfigFiles,
    Tcsd,
    Version,
    Capabilities,
    Reconfigure,
    Profile,
    ProfileName,
    Help,
}

const OPTIONS: &[Spec<Id>] = &[
    Spec::value("tpm-state", Id::State),
    Spec::value("tpmstate", Id::State),
    Spec::value("tpm", Id::Tpm),
    Spec::value("swtpm_ioctl", Id::Ioctl),
    Spec::flag("tpm2", Id::Tpm2),
    Spec::flag("ecc", Id::Ecc),
    Spec::flag("createek", Id::Endorsement),
    Spec::flag("create-spk", Id::StorageKey),
    Spec::flag("take-ownership", Id::Ownership),
    Spec::value("ownerpass", Id::Ownership),
    Spec::flag("owner-well-known", Id::Ownership),
    Spec::value("srkpass", Id::Ownership),
    Spec::flag("srk-well-known", Id::Ownership),
    Spec::flag("create-ek-cert", Id::Certificate),
    Spec::flag("create-platform-cert", Id::PlatformCertificate),
    Spec::flag("lock-nvram", Id::LockNvram),
    Spec::flag("display", Id::Display),
    Spec::value("config", Id::Config),
    Spec::value("vmid", Id::Vmid),
    Spec::value("keyfile", Id::KeyFile),
    Spec::value("keyfile-fd", Id::KeyFd),
    Spec::value("pwdfile", Id::PwdFile),
    Spec::value("pwdfile-fd", Id::PwdFd),
    Spec::value("cipher", Id::Cipher),
    Spec::value("runas", Id::RunAs),
    Spec::value("logfile", Id::LogFile),
    Spec::flag("overwrite", Id::Overwrite),
    Spec::flag("not-overwrite", Id::NotOverwrite),
    Spec::flag("allow-signing", Id::Sign),
    Spec::flag("decryption", Id::Decrypt),
    Spec::value("pcr-banks", Id::Banks),
    Spec::value("rsa-keysize", Id::RsaBits),
    Spec::value("write-ek-cert-files", Id::CertificatesDir),
    Spec { name: "create-config-files", short: None, takes: Takes::Perhaps, id: Id::ConfigFiles },
    Spec::value("tcsd-system-ps-file", Id::Tcsd),
    Spec::flag("version", Id::Version),
    Spec::flag("print-capabilities", Id::Capabilities),
    Spec::flag("reconfigure", Id::Reconfigure),
    Spec::value("profile", Id::Profile),
    Spec::value("profile-name", Id::ProfileName),
    Spec { name: "help", short: Some('h'), takes: Takes::Nothing, id: Id::Help },
];

fn unsupported(option: &str, reason: &'static str) -> SwtpmError {
    SwtpmError::Unsupported { option: option.to_owned(), reason }
}

impl Arguments {
    /// Reads the arguments.
    pub(super) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, SwtpmError> {
        let mut parser = Parser::new(OPTIONS, false, arguments)?;
        let mut read = Self::default();
        let mut cipher = None;
        let mut keys: Vec<String> = Vec::new();
        while let Some((id, value)) = parser.next_option()? {
            let value = value.unwrap_or_default();
            match id {
                Id::State => read.state = Some(value),
                Id::Tpm => is_beside(&value)?,
                Id::Ioctl | Id::Tcsd => {
                    return Err(unsupported(
                        "--swtpm_ioctl or --tcsd-system-ps-file",
                        "it has had no effect for long",
                    ));
                }
                Id::Tpm2 => read.tpm2 = true,
                Id::Ecc => read.ecc = true,
                Id::Endorsement => read.endorsement = true,
                Id::StorageKey => read.storage_key = true,
                Id::Ownership => {
                    return Err(unsupported("taking ownership", "a TPM 2.0 comes with empty authorizations"));
                }
                Id::Certificate => (read.endorsement, read.certificate) = (true, true),
                Id::PlatformCertificate => (read.endorsement, read.platform_certificate) = (true, true),
                Id::LockNvram => read.lock_nvram = true,
                Id::Display => read.display = true,
                Id::Config => read.config = Some(value.into()),
                Id::Vmid => read.vmid = Some(value),
                Id::KeyFile => keys.push(format!("file={value}")),
                Id::KeyFd => keys.push(format!("fd={value}")),
                Id::PwdFile => keys.push(format!("pwdfile={value}")),
                Id::PwdFd => keys.push(format!("pwdfd={value}")),
                Id::Cipher => cipher = Some(value),
                Id::RunAs => read.run_as = Some(value),
                Id::LogFile => read.log_file = Some(value),
                Id::Overwrite => read.overwrite = true,
                Id::NotOverwrite => read.not_overwrite = true,
                Id::Sign => read.purpose.sign = true,
                Id::Decrypt => read.purpose.decrypt = true,
                Id::Banks => {
                    read.banks = Some(match read.banks {
                        Some(banks) => format!("{banks},{value}"),
                        None => value,
                    });
                }
                Id::RsaBits => read.rsa_bits = Some(value),
                Id::CertificatesDir => read.certificates_dir = Some(value),
                Id::ConfigFiles => {
                    let value = Some(value.as_str()).filter(|value| !value.is_empty());
                    read.ask = Some(Ask::ConfigFiles(Wish::parse(value)?));
                }
                Id::Version => read.ask = Some(Ask::Version),
                Id::Capabilities => read.ask = Some(Ask::Capabilities),
                Id::Reconfigure => read.reconfigure = true,
                Id::Profile => {
                    let json: Option<serde_json::Value> = serde_json::from_str(&value).ok();
                    profile(json.as_ref().and_then(|json| json["Name"].as_str()).unwrap_or(&value))?;
                }
                Id::ProfileName => profile(&value)?,
                Id::Help => read.ask = Some(Ask::Help),
            }
        }
        let mut others = parser.others.into_iter();
        if let Some(Ask::ConfigFiles(wish)) = &mut read.ask
            && *wish == Wish::default()
            && let Some(value) = others.next()
        {
            // libvirt gives the value as a word of its own.
            *wish = Wish::parse(Some(&value))?;
        }
        if let Some(other) = others.next() {
            return Err(SwtpmError::Parameter(other));
        }
        if keys.len() > 1 {
            return Err(SwtpmError::Needs { option: "--keyfile", needs: "there is one key only" });
        }
        read.key = keys.pop().map(|key| format!("{key},mode={}", cipher.as_deref().unwrap_or("aes-128-cbc")));
        if read.reconfigure && (read.endorsement || read.storage_key) {
            return Err(SwtpmError::Needs { option: "--reconfigure", needs: "no keys are made with it" });
        }
        Ok(read)
    }
}

fn profile(name: &str) -> Result<(), SwtpmError> {
    if name == PROFILE {
        return Ok(());
    }
    Err(SwtpmError::Value { option: "--profile", name: "the option", value: name.to_owned() })
}

/// The state is made for the `swtpm` that is installed with this program; another one could not read it.
fn is_beside(command: &str) -> Result<(), SwtpmError> {
    let program = command.split_whitespace().next().unwrap_or_default();
    let dir = |path: &Path| std::fs::canonicalize(path).ok()?.parent().map(Path::to_owned);
    let ours = std::env::current_exe().ok().and_then(|path| dir(&path));
    if ours.is_some() && dir(Path::new(program)) == ours {
        return Ok(());
    }
    Err(unsupported("--tpm with another swtpm", "it could not read the state that is made here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> Result<Arguments, String> {
        Arguments::parse(line.iter().map(OsString::from)).map_err(|e| e.to_string())
    }

    #[test]
    fn libvirts_command_line_is_read() {
        let read = parse(&[
            "--tpm2",
            "--tpm-state",
            "/s",
            "--vmid",
            "a:b",
            "--logfile",
            "/l",
            "--createek",
            "--create-ek-cert",
            "--create-platform-cert",
            "--lock-nvram",
            "--not-overwrite",
            "--pwdfile-fd",
            "7",
            "--cipher",
            "aes-256-cbc",
            "--pcr-banks",
            "sha1",
            "--pcr-banks",
            "sha256",
        ])
        .unwrap();
        assert!(
            read.tpm2 && read.endorsement && read.certificate && read.platform_certificate && read.lock_nvram
        );
        assert_eq!(read.key.as_deref(), Some("pwdfd=7,mode=aes-256-cbc"));
        assert_eq!(read.banks.as_deref(), Some("sha1,sha256"));
    }

    #[test]
    fn what_is_not_done_is_refused_with_its_reason() {
        for (line, word) in [
            (&["--take-ownership"][..], "empty authorizations"),
            (&["--tpm", "/usr/bin/true"], "another swtpm"),
            (&["--create-config-files=all"], "all"),
            (&["--create-config-files", "all"], "all"),
            (&["--create-config-files", "root", "overwrite"], "overwrite"),
            (&["--tcsd-system-ps-file", "x"], "no effect"),
            (&["--profile", r#"{"Name":"default-v2"}"#], "default-v2"),
            (&["--keyfile", "a", "--pwdfile", "b"], "one key"),
            (&["--reconfigure", "--createek"], "no keys"),
            (&["--nonsense"], "--nonsense"),
        ] {
            let error = parse(line).err().unwrap();
            assert!(error.contains(word), "{error}");
        }
        assert!(parse(&["--profile", r#"{"Name":"vtpmd"}"#, "--profile-name=vtpmd"]).is_ok());
    }
}
