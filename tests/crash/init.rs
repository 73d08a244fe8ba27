//! `vtpmd init`, killed at every system call that changes a file, and on a medium that fails there.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use crate::common::Host;

/// What an operator reads of a medium that is full or fails.
const MEDIUM: [&str; 4] = ["No space left", "Input/output error", "no room left", "disk I/O error"];

/// Runs `vtpmd init` with a fault at call 1 and every `stride`th after it, each on what the one before left, until it strikes no more; how
/// often it did.
fn sweep(kind: &str, stride: usize) -> u32 {
    let dir = tempfile::tempdir().unwrap();
    let (name, lasting) = kind.strip_suffix('+').map_or((kind, ""), |name| (name, "+"));
    let killed = name.ends_with("kill-call") || name.ends_with("tear-call");
    let mut struck = 0;
    for n in (1..1000).step_by(stride) {
        let mut host = Host::at(dir.path().join("host"));
        let init = host.vtpmd("init").env("VTPMD_FAULT", format!("{name}:{n}{lasting}")).output().unwrap();
        let said = String::from_utf8(init.stderr).unwrap();
        let met = said.contains("fault: ");
        struck += u32::from(met);
        if met && killed {
            assert_eq!(init.status.signal(), Some(9), "{kind} {n}: {said}");
        } else if !init.status.success() {
            assert!(met && MEDIUM.iter().any(|words| said.contains(words)), "{kind} {n}: {said}");
        }
        // The database has its name when all is done.
        if host.state().join("vtpmd.sqlite").exists() {
            works(&mut host, &format!("{kind} {n}: {said}"));
            fs::remove_dir_all(host.state()).unwrap();
        } else {
            assert!(!init.status.success(), "{kind} {n}: {said}");
        }
        if !met {
            println!("init, {kind}: {struck} faults");
            return struck;
        }
    }
    panic!("{kind}: always another fault");
}

/// The state can be served, and `init` leaves it alone.
fn works(host: &mut Host, told: &str) {
    let again = host.vtpmd("init").output().unwrap();
    assert!(String::from_utf8_lossy(&again.stderr).contains("exists already"), "{told}");
    let mut run = host.vtpmd("run");
    run.stderr(Stdio::null());
    assert_eq!(host.launch(run), None, "{told}");
    assert_eq!(host.json(&["list"]), serde_json::json!([]), "{told}");
    host.terminate();
    let entries = fs::read_dir(host.state()).unwrap();
    let mut left: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["host.key", "root.auth", "vtpmd.lock", "vtpmd.sqlite"], "{told}");
}

#[test]
fn init_that_was_killed_can_be_run_again() {
    assert!(sweep("kill-call", 1) > 60);
}

// Making the keys takes most of the time; these are content with a part of the places.

#[test]
fn init_that_was_killed_in_a_write_can_be_run_again() {
    assert!(sweep("tear-call", 3) > 20);
}

#[test]
fn init_without_room_can_be_run_again() {
    assert!(sweep("enospc-call+", 3) > 20);
}

#[test]
fn init_on_a_medium_that_does_not_synchronise_can_be_run_again() {
    assert!(sweep("fsync-call", 4) > 20);
}
