//! Migrations over the control channel, with QEMU's requests in QEMU's order.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use vtpm_protocol::control::{InitFlags, Request};
use vtpm_protocol::rc::ResponseCode;

use crate::client::Machine;
use crate::common::Host;

const NAME: &str = "vm";

fn control_of(host: &Host) -> PathBuf {
    host.runtime().join(NAME).join("control.sock")
}

/// Two hosts that take each other's tickets, with an instance on the first.
fn hosts(dir: &Path) -> (Host, Host) {
    let (a, b) = (Host::start(dir, "a"), Host::start(dir, "b"));
    a.pin(&b);
    b.pin(&a);
    a.ctl(&["create", NAME]);
    (a, b)
}

/// A slot on `b`, for which the instance on `a` is armed.
fn prepare(a: &Host, b: &Host, dir: &Path) {
    let uuid = a.json(&["info", NAME])["uuid"].as_str().unwrap().to_owned();
    let ticket = dir.join("ticket").display().to_string();
    let _absent = std::fs::remove_file(&ticket);
    b.ctl(&["migrate", "prepare", NAME, "--uuid", &uuid, "--ticket", &ticket]);
    a.ctl(&["migrate", "arm", NAME, "--ticket", &ticket]);
}

fn receipt(host: &Host, outcome: &str) -> String {
    host.json(&["migrate", outcome, NAME])["receipt"].as_str().unwrap().to_owned()
}

/// Until the connection before is noticed to be over, and the next one is served.
fn reconnect(host: &Host) -> Machine {
    std::thread::sleep(Duration::from_millis(50));
    Machine::connect(&control_of(host))
}

#[test]
fn the_tpm_goes_along_and_lives_from_its_first_command_on() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = hosts(dir.path());
    let mut source = Machine::connect(&control_of(&a));
    source.boot();
    source.extend(10);
    let pcr = source.pcr(10);
    // Nothing is prepared.
    assert_eq!(source.state(), (9, Vec::new()));
    assert_eq!(source.random(), ResponseCode::SUCCESS);
    assert_eq!(a.state_of(NAME), "live");

    prepare(&a, &b, dir.path());
    let (result, state) = source.state();
    assert_eq!((result, a.state_of(NAME).as_str()), (0, "exported"));
    // An early machine, and one that does not wait for a state.
    let mut early = Machine::connect(&control_of(&b));
    assert_eq!(early.result(Request::Init(InitFlags(0))), 9, "there is no TPM yet");
    assert_eq!(early.random(), ResponseCode::FAILURE);
    drop(early);
    // A stream that was cut short, and then the whole.
    let mut destination = reconnect(&b);
    assert_ne!(destination.arrive(&state[..state.len() - 1]).0, 0);
    assert_eq!(destination.arrive(&state), (0, 0));
    assert_eq!(b.state_of(NAME), "imported");
    // Resumed, and gone again before its guest ran: that was no life, nor is the question of the next one's QEMU.
    assert_eq!(destination.result(Request::Shutdown), 0);
    drop(destination);
    let mut next = reconnect(&b);
    assert_eq!(next.random(), ResponseCode::FAILURE);
    assert_eq!(b.state_of(NAME), "imported");
    drop(next);
    b.ctl(&["migrate", "status", NAME]);
    // The source's QEMU ends; that gives nothing up.
    assert_eq!(source.result(Request::Shutdown), 0);
    drop(source);
    assert_eq!((a.state_of(NAME), b.state_of(NAME)), ("exported".into(), "imported".into()));

    // This machine was not migrated to: for it, the TPM is switched on.
    let mut reset = reconnect(&b);
    assert_eq!(reset.result(Request::Init(InitFlags(0))), 0);
    assert_eq!(b.state_of(NAME), "live");
    let started = reset.data.run(vtpm_protocol::tpm::TpmCc::STARTUP, &[], None, &0u16).unwrap();
    assert_eq!(started.0, ResponseCode::SUCCESS);
    assert_eq!(reset.pcr(10), [0; 32]);
    drop(reset);

    // And back, as it should be.
    a.ctl(&["migrate", "commit", NAME, "--receipt", &receipt(&b, "commit")]);
    let mut source = reconnect(&b);
    source.boot();
    source.extend(10);
    assert_eq!(source.pcr(10), pcr);
    prepare(&b, &a, dir.path());
    let (result, state) = source.state();
    assert_eq!(result, 0);
    let mut destination = Machine::connect(&control_of(&a));
    assert_eq!(destination.arrive(&state), (0, 0));
    assert_eq!(a.state_of(NAME), "imported");
    assert_eq!(destination.pcr(10), pcr);
    assert_eq!(a.state_of(NAME), "live");
    b.ctl(&["migrate", "commit", NAME, "--receipt", &receipt(&a, "commit")]);
    // Once more into a TPM that is on: never.
    assert_eq!(destination.result(Request::Stop), 0);
    assert_eq!(destination.arrive(&state).0, 9);
}

#[test]
fn a_machine_that_falls_back_waits_for_the_receipt() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = hosts(dir.path());
    let mut source = Machine::connect(&control_of(&a));
    source.boot();
    source.extend(10);
    let pcr = source.pcr(10);
    prepare(&a, &b, dir.path());
    assert_eq!(source.state().0, 0);
    // Nobody asks for a receipt here, and so nobody waits for it.
    let begin = Instant::now();
    assert_eq!(source.result(Request::LockStorage(300)), 9);
    assert!(begin.elapsed() < Duration::from_secs(2));
    assert_eq!(source.random(), ResponseCode::RETRY);
    // QEMU would end if this failed; the reset is owed.
    assert_eq!(source.result(Request::Init(InitFlags(0))), 0);
    assert_eq!(source.random(), ResponseCode::RETRY);
    a.ctl(&["migrate", "abort", NAME, "--receipt", &receipt(&b, "abort")]);
    assert_eq!(source.random(), ResponseCode::INITIALIZE);
    source.boot();
    assert_ne!(source.pcr(10), pcr);
    assert_eq!(source.result(Request::LockStorage(300)), 0);
    b.ctl(&["delete", NAME]);
}

#[test]
fn under_the_policy_availability_it_lives_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = hosts(dir.path());
    a.ctl(&["policy", NAME, "availability"]);
    let mut source = Machine::connect(&control_of(&a));
    source.boot();
    source.extend(10);
    let pcr = source.pcr(10);
    prepare(&a, &b, dir.path());
    assert_eq!(source.state().0, 0);
    assert_eq!(source.result(Request::LockStorage(300)), 0);
    assert_eq!((source.random(), source.pcr(10)), (ResponseCode::SUCCESS, pcr));
}
