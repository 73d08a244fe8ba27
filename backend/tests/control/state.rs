//! The state on its way, and the TPM on and off.

use std::io::Write;
use std::time::Duration;

use vtpm_protocol::codec::Encode;
use vtpm_protocol::control::{BlobType, ControlResult, InitFlags, Request, Response, StateFlags};

use crate::world::*;

const INIT: Request = Request::Init(InitFlags(0));
const RESUME: Request = Request::Init(InitFlags::DELETE_VOLATILE);

fn get(blob: BlobType, offset: u32) -> Request {
    Request::GetStateBlob { flags: StateFlags::DECRYPTED, blob, offset }
}

fn set(blob: BlobType, length: usize) -> Request {
    Request::SetStateBlob { flags: StateFlags::ENCRYPTED, blob, length: length.try_into().unwrap() }
}

fn blob(result: ControlResult, flags: StateFlags, length: usize) -> Response {
    let length = length.try_into().unwrap();
    Response::StateBlob { result, flags, total: length, length }
}

/// As QEMU has it before it sends its own state.
#[test]
fn the_stream_leaves_in_the_permanent_blob_and_the_others_are_not_there() {
    let w = World::new();
    let mut m = w.machine();
    let state: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    w.mock.lock().state = Some(state.clone());
    w.mock.told();
    let (response, content) = m.control.request(get(BlobType::PERMANENT, 0), &[]);
    assert_eq!(response, blob(ControlResult::SUCCESS, StateFlags::ENCRYPTED, 100_000));
    assert!(content == state);
    // It is produced once, also for who reads it in parts.
    let (response, content) = m.control.request(get(BlobType::PERMANENT, 99_000), &[]);
    assert_eq!(response, blob(ControlResult::SUCCESS, StateFlags::ENCRYPTED, 1000));
    assert!(content == state[99_000..]);
    let (response, _) = m.control.request(get(BlobType::PERMANENT, 200_000), &[]);
    assert_eq!(response, blob(ControlResult::SUCCESS, StateFlags::ENCRYPTED, 0));
    assert_eq!(w.mock.told(), [Told::Save]);
    for other in [BlobType::VOLATILE, BlobType::SAVESTATE] {
        let (response, _) = m.control.request(get(other, 0), &[]);
        assert_eq!(response, blob(ControlResult::RETRY, StateFlags(0), 0));
    }
    assert_eq!(m.control.result(get(BlobType(9), 0)), 9);
    // After the last blob it is forgotten, which is told once.
    assert_eq!(w.mock.told(), [Told::Left]);
    assert_eq!(
        m.control.request(get(BlobType::SAVESTATE, 0), &[]).0,
        blob(ControlResult::RETRY, StateFlags(0), 0)
    );
    assert_eq!(m.control.result(get(BlobType::PERMANENT, 10)), 9);
    // QEMU falls back, and says for how long it has patience.
    assert_eq!(m.control.result(Request::LockStorage(300)), 0);
    assert_eq!(m.control.result(Request::LockStorage(u32::MAX)), 0);
    w.mock.lock().refuse = true;
    assert_eq!(m.control.result(Request::LockStorage(1)), 9);
    let waits = [3000, 3000, 10].map(|ms| Told::Resumed(Duration::from_millis(ms)));
    assert_eq!(w.mock.told(), waits);
}

#[test]
fn an_unprepared_migration_fails_and_the_machine_runs_on() {
    let w = World::new();
    let mut m = w.machine();
    let (response, content) = m.control.request(get(BlobType::PERMANENT, 0), &[]);
    assert_eq!(response, blob(ControlResult::FAIL, StateFlags(0), 0));
    assert!(content.is_empty());
    assert_eq!(m.execute(&command(0x17b)), OK);
    assert_eq!(m.control.result(get(BlobType::PERMANENT, 1)), 9);
}

/// As QEMU has it when its own state has come.
#[test]
fn a_stream_is_taken_and_the_tpm_goes_on_where_it_was() {
    let w = World::new();
    let mut c = w.client();
    let mut data = c.pass_data();
    assert_eq!(exchange(&mut data, &command(0x17a)), OFF);
    assert_eq!(c.result(Request::Stop), 0);
    assert_eq!(c.result(Request::SetBufferSize(3968)), 0);
    assert_eq!(c.result(Request::Stop), 0);
    let state: Vec<u8> = (0..300_000u32).map(|n| (n / 3) as u8).collect();
    // QEMU sends the header on its own.
    c.stream.write_all(&set(BlobType::PERMANENT, state.len()).to_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(10));
    c.stream.write_all(&state).unwrap();
    assert_eq!(c.response(vtpm_protocol::control::Command::SetStateBlob).0.result().0, 0);
    assert_eq!(c.result(RESUME), 0);
    assert!(w.mock.told() == [Told::Load(state)], "no reset, and no command");
    assert_eq!(exchange(&mut data, &command(0x17b)), OK);
    // Later the guest reboots.
    assert_eq!(c.result(INIT), 0);
    let shutdown = [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x45, 0, 1].to_vec();
    let told = w.mock.told();
    assert_eq!(told, [Told::Execute(0, command(0x17b)), Told::Execute(0, shutdown), Told::PowerOn]);
}

#[test]
fn a_stream_that_is_refused_is_read_to_its_end_and_the_connection_stays() {
    let w = World::new();
    let mut c = w.client();
    w.mock.lock().refuse = true;
    let (response, _) = c.request(set(BlobType::PERMANENT, 500_000), &vec![7; 500_000]);
    assert_eq!(response.result(), ControlResult::DECRYPT_ERROR);
    w.mock.lock().refuse = false;
    // Blobs of swtpm's own are none of ours; empty ones are what we gave.
    assert_eq!(c.request(set(BlobType::VOLATILE, 3), b"abc").0.result(), ControlResult::BAD_PARAMETER);
    assert_eq!(c.request(set(BlobType::VOLATILE, 0), &[]).0.result(), ControlResult::SUCCESS);
    assert_eq!(c.request(set(BlobType(7), 3), b"abc").0.result(), ControlResult::BAD_PARAMETER);
    assert_eq!(c.result(INIT), 0);
    assert_eq!(w.mock.told(), [Told::PowerOn]);
    // Not into a TPM that is on.
    assert_eq!(c.request(set(BlobType::PERMANENT, 3), b"abc").0.result(), ControlResult::BAD_ORDINAL);
    assert_eq!(w.mock.told(), []);
}

#[test]
fn a_machine_that_goes_before_its_tpm_is_on_leaves_no_resume_behind() {
    let w = World::new();
    let mut c = w.client();
    let data = c.pass_data();
    assert_eq!(c.request(set(BlobType::PERMANENT, 3), b"abc").0.result().0, 0);
    drop((c, data));
    wait_for("end", || w.attachment.client().is_none());
    w.machine();
    assert_eq!(w.mock.told(), [Told::Load(b"abc".to_vec()), Told::PowerOn]);
}

#[test]
fn a_stored_volatile_state_is_resumed_until_a_command_or_a_flag_ends_it() {
    let w = World::with(|o| o.auto_shutdown = false);
    let mut m = w.machine();
    w.mock.told();
    assert_eq!(m.control.result(Request::StoreVolatile), 0);
    assert_eq!(m.control.result(Request::Stop), 0);
    assert_eq!((m.control.result(INIT), m.control.result(RESUME)), (0, 0));
    assert_eq!(w.mock.told(), []);
    assert_eq!(m.control.result(INIT), 0);
    assert_eq!(w.mock.told(), [Told::PowerOn]);
    assert_eq!(m.control.result(Request::StoreVolatile), 0);
    m.execute(&command(0x17b));
    assert_eq!(m.control.result(INIT), 0);
    assert_eq!(w.mock.told(), [Told::Execute(0, command(0x17b)), Told::PowerOn]);
}

#[test]
fn a_tpm_that_was_used_is_shut_down_in_good_order() {
    let shutdown = |kind: u8| Told::Execute(0, vec![0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x45, 0, kind]);
    let w = World::new();
    let mut m = w.machine();
    // Not used yet.
    assert_eq!(m.control.result(INIT), 0);
    assert_eq!(w.mock.told(), [Told::PowerOn, Told::PowerOn]);
    m.execute(&command(0x17b));
    assert_eq!(m.control.result(Request::Stop), 0);
    assert_eq!(w.mock.told(), [Told::Execute(0, command(0x17b)), shutdown(1)]);
    // The guest did it itself.
    m.control.result(INIT);
    m.execute(&command(0x145));
    assert_eq!(m.control.result(Request::Shutdown), 0);
    assert_eq!(w.mock.told(), [Told::PowerOn, Told::Execute(0, command(0x145))]);
    // It does not work with state: the other kind is tried.
    m.control.result(INIT);
    w.mock.lock().response = vec![0x80, 1, 0, 0, 0, 10, 0, 0, 1, 0x2e];
    m.execute(&command(0x17b));
    drop(m);
    wait_for("end", || w.attachment.client().is_none());
    assert_eq!(w.mock.told(), [Told::PowerOn, Told::Execute(0, command(0x17b)), shutdown(1), shutdown(0)]);
    // A TPM whose state has left is not spoken to: that would tell the destination to give up.
    w.mock.lock().response.clear();
    w.mock.lock().state = Some(vec![1]);
    let mut m = w.machine();
    m.execute(&command(0x17b));
    m.control.request(get(BlobType::PERMANENT, 0), &[]);
    w.mock.told();
    assert_eq!(m.control.result(Request::Shutdown), 0);
    drop(m);
    wait_for("end", || w.attachment.client().is_none());
    assert_eq!(w.mock.told(), []);
}

#[test]
fn an_instance_that_has_no_tpm_cannot_be_switched_on() {
    let w = World::new();
    let mut c = w.client();
    let mut data = c.pass_data();
    w.mock.lock().refuse = true;
    assert_eq!(c.result(INIT), 9);
    assert_eq!(exchange(&mut data, &command(0x17b)), OFF);
}
