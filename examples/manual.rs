//! Writes the manual pages of `vtpmd`, `vtpmctl` and each of their commands, for the package: `cargo run --example manual -- DIR`

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_mangen::Man;

fn main() -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: manual DIR");
        return ExitCode::FAILURE;
    };
    for program in [vtpmd::daemon::Arguments::command(), vtpmd::ctl::Arguments::command()] {
        let mut program = program.disable_help_subcommand(true);
        program.build();
        if let Err(error) = write(program, &dir) {
            eprintln!("manual: cannot write to {}: {error}", dir.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn write(command: Command, dir: &Path) -> io::Result<()> {
    for subcommand in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        write(subcommand.clone(), dir)?;
    }
    // Section 8 is that of administrators.
    let source = concat!("vtpmd ", env!("CARGO_PKG_VERSION"));
    Man::new(command).section("8").source(source).manual("vtpmd").generate_to(dir).map(drop)
}
