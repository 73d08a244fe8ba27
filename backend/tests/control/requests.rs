//! Every command, answered as swtpm answers it, and where not, as `docs/control.md` says.

use std::time::Duration;

use vtpm_protocol::control::{
    BlobType, Capabilities, Command, ConfigFlags, InfoFlags, InitFlags, Request, Response, StateFlags,
};

use crate::world::{INFO, Told, World, command};

const BAD_PARAMETER: u32 = 3;
const BAD_ORDINAL: u32 = 10;
const BAD_LOCALITY: u32 = 0x3d;

const GET: Request =
    Request::GetStateBlob { flags: StateFlags::DECRYPTED, blob: BlobType::PERMANENT, offset: 0 };

#[test]
fn what_only_a_tpm_does_that_is_on_is_refused_before_init() {
    let w = World::new();
    let mut c = w.client();
    for request in [
        Request::ResetTpmEstablished(3),
        Request::HashStart,
        Request::HashEnd,
        Request::CancelTpmCmd,
        Request::StoreVolatile,
        GET,
    ] {
        assert_eq!(c.result(request), BAD_ORDINAL, "{request:?}");
    }
    assert_eq!(c.request(Request::HashData(3), b"abc").0.result().0, BAD_ORDINAL);
    // QEMU reads all of this response, whatever its result.
    let (response, _) = c.request(GET, &[]);
    assert!(matches!(response, Response::StateBlob { total: 0, length: 0, .. }));
    assert_eq!(w.mock.told(), []);
}

#[test]
fn all_commands_are_there() {
    let w = World::new();
    let (response, _) = w.client().request(Request::GetCapability, &[]);
    let Response::Capability(all) = response else { panic!("{response:?}") };
    assert_eq!(all.0, 0x1_ffff);
    assert!(all.contains(Capabilities::LOCK_STORAGE.with(Capabilities::SEND_COMMAND_HEADER)));
    // And each is answered: none with the code for what there is not, once the TPM is on.
    let mut c = w.client();
    assert_eq!(c.result(Request::Init(InitFlags(0))), 0);
    w.mock.lock().state = Some(vec![7; 10]);
    for &command in Command::ALL {
        let (request, content): (Request, &[u8]) = match command {
            Command::GetCapability => (Request::GetCapability, &[]),
            Command::Init => (Request::Init(InitFlags(0)), &[]),
            Command::GetTpmEstablished => (Request::GetTpmEstablished, &[]),
            Command::SetLocality => (Request::SetLocality(3), &[]),
            Command::HashStart => (Request::HashStart, &[]),
            Command::HashData => (Request::HashData(2), b"ab"),
            Command::HashEnd => (Request::HashEnd, &[]),
            Command::CancelTpmCmd => (Request::CancelTpmCmd, &[]),
            Command::StoreVolatile => (Request::StoreVolatile, &[]),
            Command::ResetTpmEstablished => (Request::ResetTpmEstablished(3), &[]),
            Command::GetStateBlob => (GET, &[]),
            Command::GetConfig => (Request::GetConfig, &[]),
            Command::SetBufferSize => (Request::SetBufferSize(0), &[]),
            Command::GetInfo => (Request::GetInfo { flags: InfoFlags(1), offset: 0 }, &[]),
            Command::LockStorage => (Request::LockStorage(0), &[]),
            // Those that end something have tests of their own.
            Command::Shutdown | Command::Stop | Command::SetStateBlob | Command::SetDataFd => continue,
        };
        assert_eq!(c.request(request, content).0.result().0, 0, "{command}");
    }
    assert_eq!((c.result(Request::Stop), c.result(Request::Shutdown)), (0, 0));
}

#[test]
fn a_dynamic_launch_is_told_in_full() {
    let w = World::new();
    let mut c = w.client();
    c.result(Request::Init(InitFlags(0)));
    assert_eq!(c.request(Request::GetTpmEstablished, &[]).0, Response::TpmEstablished(false));
    assert_eq!(c.result(Request::HashStart), 0);
    assert_eq!(c.request(Request::GetTpmEstablished, &[]).0, Response::TpmEstablished(true));
    let data: Vec<u8> = (0..20_000u32).map(|n| n as u8).collect();
    assert_eq!(c.request(Request::HashData(20_000), &data).0.result().0, 0);
    assert_eq!(c.request(Request::HashData(0), &[]).0.result().0, 0);
    assert_eq!(c.result(Request::HashEnd), 0);
    assert_eq!(w.mock.told(), [Told::PowerOn, Told::HashStart, Told::HashData(data), Told::HashEnd]);
    for (locality, result) in [(0, BAD_LOCALITY), (5, BAD_LOCALITY), (255, BAD_LOCALITY), (3, 0), (4, 0)] {
        assert_eq!(c.result(Request::ResetTpmEstablished(locality)), result);
    }
    assert_eq!(c.request(Request::GetTpmEstablished, &[]).0, Response::TpmEstablished(false));
    w.mock.lock().refuse = true;
    assert_eq!(c.result(Request::HashStart), 9);
}

#[test]
fn commands_come_from_the_locality_that_was_set() {
    let w = World::new();
    let mut m = w.machine();
    for locality in 0..=4 {
        assert_eq!(m.control.result(Request::SetLocality(locality)), 0);
        m.execute(&command(0x17b));
    }
    assert_eq!(m.control.result(Request::SetLocality(5)), BAD_LOCALITY);
    // The form of QEMU, with padding.
    assert_eq!(m.control.ask(&[0, 0, 0, 5, 2, 0, 0, 0], 4), [0; 4]);
    m.execute(&command(0x17b));
    let localities: Vec<u8> = w
        .mock
        .told()
        .into_iter()
        .filter_map(|told| if let Told::Execute(locality, _) = told { Some(locality) } else { None })
        .collect();
    assert_eq!(localities, [0, 1, 2, 3, 4, 2]);
}

#[test]
fn localities_can_be_restricted_and_chosen_on_the_data_channel() {
    let w = World::with(|o| {
        o.reject_locality_4 = true;
        o.allow_set_locality = true;
    });
    let mut m = w.machine();
    assert_eq!(m.control.result(Request::SetLocality(4)), BAD_LOCALITY);
    let set = |locality: u8| [&[0x80, 1, 0, 0, 0, 11, 0x20, 0, 0x10, 0][..], &[locality]].concat();
    assert_eq!(m.execute(&set(3))[6..], [0, 0, 0, 0]);
    assert_eq!(m.execute(&set(4))[6..], [0, 0, 9, 7]);
    m.execute(&command(0x17b));
    assert_eq!(w.mock.told().last(), Some(&Told::Execute(3, command(0x17b))));
}

#[test]
fn the_buffer_is_chosen_while_the_tpm_is_off_and_limits_commands_and_responses() {
    let w = World::new();
    let mut c = w.client();
    for (wanted, size) in [(0, 4096), (1, 2808), (9999, 4096), (3968, 3968), (0, 3968)] {
        let (response, _) = c.request(Request::SetBufferSize(wanted), &[]);
        assert_eq!(response, Response::BufferSize { size, min: 2808, max: 4096 });
    }
    let mut data = c.pass_data();
    c.result(Request::Init(InitFlags(0)));
    assert_eq!(c.result(Request::SetBufferSize(3000)), BAD_ORDINAL);
    assert_eq!(c.result(Request::SetBufferSize(0)), 0);
    let long = |size: u32| {
        let mut bytes = command(0x17b);
        bytes[2..6].copy_from_slice(&size.to_be_bytes());
        bytes.resize(size.try_into().unwrap(), 0);
        bytes
    };
    use crate::world::{OK, TOO_LONG, exchange};
    assert_eq!(exchange(&mut data, &long(3968)), OK);
    assert_eq!(exchange(&mut data, &long(3969)), TOO_LONG);
    // A response that QEMU has no room for.
    w.mock.lock().response = long(3969);
    assert_eq!(exchange(&mut data, &command(0x17b)), [0x80, 1, 0, 0, 0, 10, 0, 0, 1, 0x54]);
    w.mock.lock().response = long(3968);
    assert_eq!(exchange(&mut data, &command(0x17b)).len(), 3968);
}

#[test]
fn the_configuration_says_that_state_is_encrypted() {
    let w = World::new();
    let both = ConfigFlags::FILE_KEY.with(ConfigFlags::MIGRATION_KEY);
    assert_eq!(w.client().request(Request::GetConfig, &[]).0, Response::Config(both));
}

#[test]
fn what_the_tpm_is_comes_in_parts_with_a_zero_at_the_end() {
    let w = World::new();
    let mut c = w.client();
    let ask = |flags, offset| Request::GetInfo { flags: InfoFlags(flags), offset };
    let (response, text) = c.request(ask(1, 0), &[]);
    let length = u32::try_from(INFO.len() + 1).unwrap();
    assert_eq!(response, Response::Info { total: length, length });
    assert_eq!(text, [INFO.as_bytes(), &[0]].concat());
    let (response, text) = c.request(ask(1, 10), &[]);
    assert_eq!(response, Response::Info { total: length, length: length - 10 });
    assert_eq!(text, [&INFO.as_bytes()[10..], &[0]].concat());
    assert_eq!(c.result(ask(1, length - 1)), BAD_PARAMETER);
    assert_eq!(c.result(ask(1, u32::MAX)), BAD_PARAMETER);
    // Longer than one response.
    let flags = 5000 << 32;
    let (mut whole, mut total) = (Vec::new(), u32::MAX);
    while whole.len() < total as usize {
        let (response, part) = c.request(ask(flags, u32::try_from(whole.len()).unwrap()), &[]);
        let Response::Info { total: all, .. } = response else { panic!("{response:?}") };
        assert!(part.len() <= 3072);
        whole.extend(part);
        total = all;
    }
    assert_eq!((whole.len(), whole.last()), (INFO.len() + 5001, Some(&0)));
}

#[test]
fn a_command_that_takes_long_is_cancelled_and_no_other_request_overtakes_it() {
    let w = World::new();
    let mut m = w.machine();
    // Nothing to be cancelled.
    assert_eq!(m.control.result(Request::CancelTpmCmd), 0);
    assert_eq!(w.mock.told(), [Told::PowerOn]);
    w.mock.lock().held = true;
    use std::io::Write;
    m.data.write_all(&command(0x131)).unwrap();
    crate::world::wait_for("command", || w.mock.lock().waiting);
    assert_eq!(m.control.result(Request::CancelTpmCmd), 0);
    assert_eq!(crate::world::read_response(&mut m.data), crate::world::OK);
    assert_eq!(w.mock.told(), [Told::Execute(0, command(0x131)), Told::Cancel]);
    // A stop waits for the command.
    w.mock.lock().held = true;
    m.data.write_all(&command(0x131)).unwrap();
    crate::world::wait_for("command", || w.mock.lock().waiting);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            w.mock.release();
        });
        assert_eq!(m.control.result(Request::Stop), 0);
        assert!(!w.mock.lock().held);
    });
}
