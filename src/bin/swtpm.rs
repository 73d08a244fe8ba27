//! In the place of swtpm's program of this name: one TPM 2.0 in one process.

use std::process::ExitCode;

fn main() -> ExitCode {
    vtpmd::swtpm::socket::main(std::env::args_os().skip(1))
}
