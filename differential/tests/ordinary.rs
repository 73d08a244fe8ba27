//! The ordinary run: 30,000 commands of a fixed seed, and 6,000 of another one to a TPM that goes on from its records now and then. `cargo run --release -p vtpm-differential -- --commands 1000000 --seed S` is a long one.

use vtpm_differential::run::{Config, run};

#[test]
fn our_tpm_answers_as_swtpm_does() {
    let config = Config { commands: 30_000, ..Config::default() };
    let report = run(&config).unwrap_or_else(|e| panic!("{}", e.0));
    let text = report.text(&config);
    println!("{text}");
    assert!(report.passed(), "{text}");
    assert!(report.coverage.total() >= config.commands);
}

#[test]
fn our_tpm_answers_as_swtpm_does_also_after_it_was_loaded_from_what_it_saved() {
    let config = Config { seed: 2, commands: 6_000, reload: true, ..Config::default() };
    let report = run(&config).unwrap_or_else(|e| panic!("{}", e.0));
    let text = report.text(&config);
    assert!(report.passed(), "{text}");
    assert!(report.reloaded >= config.commands / 5, "{text}");
}
