//! Why `swtpm` or `swtpm_setup` end with status 1.

use std::io;
use std::path::PathBuf;

use vtpm_backend::control::FrontDoorError;
use vtpm_backend::device::DeviceError;

use super::options::UsageError;
use crate::daemon::DaemonError;

/// For whoever called the program; each source says more.
#[derive(Debug, thiserror::Error)]
pub(super) enum SwtpmError {
    #[error(transparent)]
    Usage(#[from] UsageError),
    #[error("unknown parameter '{0}'")]
    Parameter(String),
    #[error("{option}: unknown option '{name}'")]
    SubOption { option: &'static str, name: String },
    #[error("{option}: '{value}' is no value of {name}")]
    Value { option: &'static str, name: &'static str, value: String },
    #[error("{option}: {needs}")]
    Needs { option: &'static str, needs: &'static str },
    #[error("{option} is not supported: {reason}")]
    Unsupported { option: String, reason: &'static str },
    #[error("TPM 1.2 is not supported; say --tpm2")]
    Tpm12,
    #[error("descriptor {0} cannot be used")]
    Descriptor(i32, #[source] io::Error),
    #[error("cannot {action} {}", .path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("there is no user {0:?}")]
    User(String),
    #[error("cannot become user {user:?}")]
    RunAs {
        user: String,
        #[source]
        source: io::Error,
    },
    #[error("the system calls cannot be filtered; --seccomp action=none does without")]
    Filter(#[source] seccompiler::Error),
    #[error("cannot become a daemon")]
    Daemon(#[source] io::Error),
    #[error(
        "{} holds a TPM of swtpm; `vtpmctl import-swtpm` takes it over, and nothing else is made beside it", .0.display()
    )]
    ForeignState(PathBuf),
    #[error("{} holds something that is no state of a TPM, and is not overwritten; a file or device for one is empty or begins with zeros", .0.display())]
    NotBlank(PathBuf),
    #[error("{} holds a TPM already; --overwrite or --not-overwrite says what to do", .0.display())]
    Exists(PathBuf),
    #[error("{} holds no TPM", .0.display())]
    NoState(PathBuf),
    #[error("the state in {} opens with the key that it was made with only", .0.display())]
    KeyNeeded(PathBuf),
    #[error("the state cannot be used")]
    State(#[from] DaemonError),
    #[error("the socket cannot be opened")]
    Door(#[from] FrontDoorError),
    #[error("the TPM cannot be switched on")]
    PowerOn(#[from] DeviceError),
    #[error("{what} failed: 0x{code:x}")]
    Tpm { what: &'static str, code: u32 },
    #[error("the response to {0} is none")]
    Response(&'static str),
    #[error("none of the PCR banks {0} can be had")]
    NoBank(String),
    #[error("{program} ended with {status}: {errors}")]
    Tool { program: String, status: std::process::ExitStatus, errors: String },
    #[error("{0} is no file that is found")]
    NoTool(String),
    #[error("{file} has no certificate of at most {most} bytes")]
    Certificate { file: String, most: usize },
}

/// A function for `map_err`.
pub(super) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> SwtpmError {
    let path = path.into();
    move |source| SwtpmError::File { action, path, source }
}
