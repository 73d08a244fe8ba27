//! The control program.

use std::process::ExitCode;

use clap::Parser;
use vtpmd::ctl::{self, Arguments};

fn main() -> ExitCode {
    match ctl::run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vtpmctl: {}", vtpmd::sentence(&error));
            ExitCode::FAILURE
        }
    }
}
