//! In the place of swtpm's program of this name: sends one command over a control channel.

use std::process::ExitCode;

fn main() -> ExitCode {
    vtpmd::swtpm::ioctl::main(std::env::args_os().skip(1))
}
