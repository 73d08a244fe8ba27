//! What `scripts/demo` shows, as a test, so that it stays true.

use qemu_tests::process::run;
use qemu_tests::{ensure, guest_test};
use std::path::Path;

#[test]
fn the_demo_shows_what_it_should() {
    guest_test("demo", |_, _| {
        let printed = run::<&str>(Path::new(env!("CARGO_BIN_EXE_demo")), [])?;
        let printed = String::from_utf8_lossy(&printed);
        println!("{printed}");
        ensure(printed.contains("all as it should be"), "the demo does not say that all is well")
    });
}
