//! The part of the tests that runs inside the guest.
//!
//! It is linked statically and packed into the initramfs by `scripts/fetch-guest`. Process 1 starts it as `agent`;
//! the rest is started by the host through the agent.

mod agent;
mod bus;
mod command_loop;

use qemu_tests::tpm::{ALG_SHA1, ALG_SHA256, ALG_SHA384, ALG_SHA512, Tpm};
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "usage: guest-helper
  agent TTY                     run the commands that the host sends over the serial port
  loop [--pcr N] [--index N] [--count N] [--stop FILE] [--progress FILE]
                                TPM commands until FILE exists or N rounds are done, then a summary in JSON
  pcrs [BANK]                   the PCRs of a bank (sha1, sha256, sha384, sha512), one a line
  raw HEX                       one TPM command as it is, and the response
  rebind                        unbind the driver from the device and bind it again
  flr [--unbound]               reset the PCI function, under the driver or with the driver unbound";

type Failure = Box<dyn Error>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        ["agent", tty] => agent::run(Path::new(tty)),
        ["loop", options @ ..] => command_loop::run(options),
        ["pcrs"] => pcrs(ALG_SHA256),
        ["pcrs", "sha1"] => pcrs(ALG_SHA1),
        ["pcrs", "sha256"] => pcrs(ALG_SHA256),
        ["pcrs", "sha384"] => pcrs(ALG_SHA384),
        ["pcrs", "sha512"] => pcrs(ALG_SHA512),
        ["raw", command] => raw(command),
        ["rebind"] => bus::rebind(),
        ["flr"] => bus::function_level_reset(false),
        ["flr", "--unbound"] => bus::function_level_reset(true),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut message = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                message.push_str(": ");
                message.push_str(&error.to_string());
                cause = error.source();
            }
            eprintln!("guest-helper: {message}");
            ExitCode::FAILURE
        }
    }
}

fn pcrs(bank: u16) -> Result<(), Failure> {
    let mut tpm = Tpm::open(Path::new(bus::TPM))?;
    for pcr in 0..24 {
        println!("{pcr} {}", hex::encode(tpm.pcr_read(bank, pcr)?));
    }
    Ok(())
}

fn raw(command: &str) -> Result<(), Failure> {
    let mut tpm = Tpm::open(Path::new(bus::TPM))?;
    println!("{}", hex::encode(tpm.transmit(&hex::decode(command)?)?));
    Ok(())
}
