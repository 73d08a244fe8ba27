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
use std::time::Instant;

const USAGE: &str = "usage: guest-helper
  agent TTY                     run the commands that the host sends over the serial port
  loop [--pcr N] [--index N] [--count N] [--stop FILE] [--progress FILE]
                                TPM commands until FILE exists or N rounds are done, then a summary in JSON
  pcrs [BANK]                   the PCRs of a bank (sha1, sha256, sha384, sha512), one a line
  raw HEX                       one TPM command as it is, and the response
  time COUNT HEX                the same command COUNT times: microseconds of the tenth, the half and nine tenths of them
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
        ["time", count, command] => time(count, command),
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

fn time(count: &str, command: &str) -> Result<(), Failure> {
    let mut tpm = Tpm::open(Path::new(bus::TPM))?;
    let command = hex::decode(command)?;
    let mut took = Vec::new();
    for _ in 0..count.parse::<usize>()? {
        let start = Instant::now();
        let response = tpm.transmit(&command)?;
        took.push(start.elapsed().as_micros());
        if response.get(6..10) != Some(&[0; 4]) {
            return Err(format!("response {}", hex::encode(response)).into());
        }
    }
    took.sort_unstable();
    let at = |tenths: usize| took.get(took.len().saturating_mul(tenths) / 10).copied().unwrap_or_default();
    println!("{} {} {}", at(1), at(5), at(9));
    Ok(())
}
