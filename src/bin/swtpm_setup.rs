//! In the place of swtpm's program of this name: manufactures a TPM 2.0 with its keys and certificates.

use std::process::ExitCode;

fn main() -> ExitCode {
    vtpmd::swtpm::setup::main(std::env::args_os().skip(1))
}
