//! The ordinary run: 30,000 commands of a fixed seed. `cargo run --release -p vtpm-differential -- --commands 1000000 --seed S` is a long one.

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
