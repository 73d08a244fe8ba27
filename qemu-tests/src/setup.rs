//! What the tests run on: a QEMU with our device, guests to boot, the programs under test.

use crate::error::{Error, Result};
use crate::process::{run, tail};
use std::env;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Where everything is.
///
/// | variable | what it names | otherwise |
/// | --- | --- | --- |
/// | `VTPMD_QEMU` | `qemu-system-x86_64` with our device, as `scripts/build-qemu` prints it | the tests are skipped |
/// | `VTPMD_GUEST` | the directory that `scripts/fetch-guest` prints | the script is run |
/// | `VTPMD_BIN` | the directory with `vtpmd` and `vtpmctl` | the one that cargo built this test into |
/// | `VTPMD_KVM` | `1` to use KVM | TCG |
/// | `VTPMD_KERNEL` | the guest kernel for tests that want any: `6.1` or `6.12` | the newest |
/// | `VTPMD_QEMU_TESTS` | `required` makes a missing `VTPMD_QEMU` an error | |
#[derive(Clone, Debug)]
pub struct Setup {
    /// QEMU.
    pub qemu: PathBuf,
    /// The directory with a subdirectory for every kernel.
    pub guests: PathBuf,
    /// The directory with the programs under test.
    pub programs: PathBuf,
    /// `kvm` or `tcg`.
    pub accelerator: &'static str,
    /// The kernel for tests that want any.
    pub kernel: String,
}

impl Setup {
    /// Reads the environment. `None`: there is no QEMU, and that is allowed.
    ///
    /// # Errors
    /// [`Error::Setup`] if what the environment names is not there.
    pub fn from_environment() -> Result<Option<Self>> {
        let Some(qemu) = path_of("VTPMD_QEMU") else {
            return match env::var("VTPMD_QEMU_TESTS").as_deref() {
                Ok("required") => {
                    Err(Error::Setup("VTPMD_QEMU is not set, but the tests are required".into()))
                }
                _ => Ok(None),
            };
        };
        let guests = match path_of("VTPMD_GUEST") {
            Some(guests) => guests,
            None => fetch_guest()?,
        };
        let programs = match path_of("VTPMD_BIN") {
            Some(programs) => programs,
            None => programs_beside_test()?,
        };
        let accelerator = if env::var("VTPMD_KVM").as_deref() == Ok("1") { "kvm" } else { "tcg" };
        let mut setup = Self { qemu, guests, programs, accelerator, kernel: String::new() };
        for path in [&setup.qemu, &setup.guests] {
            if !path.exists() {
                return Err(Error::Setup(format!("{} does not exist", path.display())));
            }
        }
        let kernels = setup.kernels()?;
        setup.kernel = match env::var("VTPMD_KERNEL") {
            Ok(kernel) if kernels.contains(&kernel) => kernel,
            Ok(kernel) => return Err(Error::Setup(format!("no kernel {kernel}, only {kernels:?}"))),
            Err(_) => kernels.last().cloned().unwrap_or_default(),
        };
        Ok(Some(setup))
    }

    /// The kernels there are, oldest first.
    ///
    /// # Errors
    /// [`Error::Setup`] if there is none.
    pub fn kernels(&self) -> Result<Vec<String>> {
        let what = || self.guests.display().to_string();
        let mut kernels = Vec::new();
        for entry in fs::read_dir(&self.guests).map_err(Error::io(what()))? {
            let entry = entry.map_err(Error::io(what()))?;
            if entry.path().join("vmlinuz").exists() {
                kernels.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        if kernels.is_empty() {
            return Err(Error::Setup(format!("no kernel in {}", what())));
        }
        kernels
            .sort_by_key(|name| name.split('.').map(|part| part.parse().unwrap_or(0u32)).collect::<Vec<_>>());
        Ok(kernels)
    }
}

fn path_of(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn fetch_guest() -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/fetch-guest");
    let printed = run::<&str>(&script, [])?;
    Ok(PathBuf::from(String::from_utf8_lossy(&printed).trim()))
}

/// `target/debug`, for a test in `target/debug/deps` and a program in `target/debug`.
fn programs_beside_test() -> Result<PathBuf> {
    let test = env::current_exe().map_err(Error::io("the path of this test"))?;
    let directory = test.ancestors().skip(1).find(|directory| !directory.ends_with("deps"));
    directory.map(Path::to_owned).ok_or_else(|| Error::Setup("the programs are nowhere".into()))
}

/// Runs the body of a test in a directory of its own, which stays when the test fails. Without a QEMU it says so and
/// does nothing.
///
/// # Panics
/// If the body fails, with the error, the ends of the logs and the name of the directory.
#[expect(clippy::panic, reason = "that is how a test fails")]
pub fn guest_test(name: &str, body: impl FnOnce(&Setup, &Path) -> Result<()>) {
    let setup = match Setup::from_environment() {
        Ok(Some(setup)) => setup,
        Ok(None) => {
            eprintln!(
                "{name}: skipped, because VTPMD_QEMU names no QEMU with our device (scripts/test does)"
            );
            return;
        }
        Err(error) => panic!("{name}: {}", error.chain()),
    };
    // The path of a UNIX socket is short, and so this is not under the target directory.
    let scratch = match TempDir::with_prefix("vtpmd-test-") {
        Ok(scratch) => scratch,
        Err(error) => panic!("{name}: no temporary directory: {error}"),
    };
    let failed = match catch_unwind(AssertUnwindSafe(|| body(&setup, scratch.path()))) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => Ok(error.chain()),
        Err(panic) => Err(panic),
    };
    let kept = scratch.keep();
    let mut logs = String::new();
    let mut entries: Vec<PathBuf> = fs::read_dir(&kept)
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default();
    entries.sort();
    for log in entries.iter().filter(|path| path.extension().is_some_and(|extension| extension == "log")) {
        logs.push_str(&format!("\n---- {}\n{}", log.display(), tail(log)));
    }
    match failed {
        Ok(error) => panic!("{name}: {error}{logs}\n---- all of it is in {}", kept.display()),
        Err(panic) => {
            eprintln!("{name}: panicked{logs}\n---- all of it is in {}", kept.display());
            resume_unwind(panic)
        }
    }
}
