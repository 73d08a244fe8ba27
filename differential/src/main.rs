//! Runs generated commands on swtpm and on ours, and tells where they differ.

use clap::Parser;
use std::process::ExitCode;
use vtpm_differential::run::{Config, run};

/// Compares our TPM with swtpm on generated command sequences.
#[derive(Parser)]
struct Arguments {
    /// The seed of all choices.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many commands, at least.
    #[arg(long, default_value_t = 20_000)]
    commands: u64,
    /// Just this episode of the seed.
    #[arg(long)]
    episode: Option<u64>,
    /// How many steps an episode has.
    #[arg(long, default_value_t = 150)]
    steps: usize,
    /// How many commands of a hundred are made wrong.
    #[arg(long, default_value_t = 25)]
    mutations: usize,
    /// How many episodes run at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Compares swtpm with itself: what differs then is the generator's fault.
    #[arg(long)]
    oracle_twice: bool,
    /// Our TPM is dropped between commands now and then, and goes on from what it has committed.
    #[arg(long)]
    reload: bool,
    /// After how many kinds of differences to stop.
    #[arg(long, default_value_t = 10)]
    differences: usize,
    /// Do not look for the few steps that lead to a difference.
    #[arg(long)]
    no_shrink: bool,
    /// Tells what each accepted difference was needed for.
    #[arg(long)]
    accepted: bool,
    /// No word on how far it is.
    #[arg(long)]
    quiet: bool,
}

fn main() -> ExitCode {
    let a = Arguments::parse();
    let config = Config {
        seed: a.seed,
        commands: a.commands,
        episode: a.episode,
        steps: a.steps,
        mutations: a.mutations,
        jobs: a.jobs.max(1),
        oracle_twice: a.oracle_twice,
        reload: a.reload,
        differences: a.differences,
        shrink: !a.no_shrink,
        progress: !a.quiet,
    };
    match run(&config) {
        Ok(report) => {
            if a.accepted {
                print!("{}", report.usage.table());
            }
            print!("{}", report.text(&config));
            if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(e) => {
            eprintln!("vtpm-differential: {}", e.0);
            ExitCode::FAILURE
        }
    }
}
