//! Side by side with swtpm (0.7.1, as Debian 12 has it).

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use vtpm_protocol::codec::Encode;
use vtpm_protocol::control::{BlobType, InfoFlags, InitFlags, Request, StateFlags};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{TpmCc, TpmHandle, TpmSt};

use crate::client::{Machine, Swtpm, swtpm_ioctl};
use crate::common::Host;

fn control_of(host: &Host, name: &str) -> PathBuf {
    host.runtime().join(name).join("control.sock")
}

/// What swtpm_ioctl says of each option: its status and both of its outputs.
fn said(socket: &std::path::Path, options: &str) -> (Option<i32>, String) {
    let options: Vec<&str> = options.split(' ').collect();
    let output = swtpm_ioctl(socket, &options);
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[test]
fn swtpm_ioctl_finds_what_it_finds_at_swtpm() {
    let dir = tempfile::tempdir().unwrap();
    let Some(theirs) = Swtpm::start(dir.path()) else { return };
    let host = Host::start(dir.path(), "a");
    host.ctl(&["create", "vm"]);
    let ours = control_of(&host, "vm");
    // What differs, and why, stands in docs/control.md; here, what ours says.
    let differs: &[(&str, &str)] =
        &[("-c", "ptm capability is 0x1ffff\n"), ("-g", "ptm configuration flags: 0x3\n")];
    let both = [
        "-c", "-g", "-b 0", "-C", "-r 3", "-h abc", "-v", "-l 3", "-l 4", "-l 0", "-b 100", "-b 3000",
        "-b 9999", "--stop", "-i", "-e", "-C", "-r 0", "-r 3", "-e", "-h abc", "-e", "-r 2", "-r 4", "-e",
        "-v", "-b 3000", "-b 0", "--stop", "-b 3000", "-h abc", "-i", "-i",
    ];
    for options in both {
        let (here, there) = (said(&ours, options), said(&theirs.control, options));
        match differs.iter().find(|(of, _)| *of == options) {
            Some((_, text)) => assert_eq!(here, (Some(0), (*text).to_owned())),
            None => assert_eq!(here, there, "swtpm_ioctl {options}"),
        }
    }
    // Before the TPM is on, Cloud Hypervisor asks.
    said(&ours, "--stop");
    assert_eq!(said(&ours, "-e"), (Some(0), "tpmEstablished is 0\n".into()));
    // What the TPM is.
    let (status, text) = said(&ours, "--info 0xff");
    assert_eq!(status, Some(0));
    let info: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(info["TPMSpecification"]["family"], "2.0");
    assert_eq!(info["TPMFeatures"]["RSAKeySizes"], serde_json::json!([1024, 2048, 3072, 4096]));
    let theirs_too: serde_json::Value = serde_json::from_str(&said(&theirs.control, "--info 7").1).unwrap();
    for (member, content) in theirs_too.as_object().unwrap() {
        for name in content.as_object().unwrap().keys() {
            assert!(info[member].get(name).is_some(), "{member}.{name}");
        }
    }
    // State without a destination stays.
    said(&ours, "-i");
    let file = dir.path().join("blob").display().to_string();
    let refused = said(&ours, &format!("--save permanent {file}"));
    assert_eq!(refused, (Some(1), "TPM result from PTM_GET_STATEBLOB: 0x9\n".into()));
    assert_eq!(said(&ours, &format!("--save savestate {file}")), (Some(0), String::new()));
    assert_eq!(said(&ours, "-s"), (Some(0), String::new()));
    assert_eq!(host.state_of("vm"), "live");
}

/// The same requests, before the TPM is on, while it is, and after it.
#[test]
fn responses_are_those_of_swtpm_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let Some(theirs) = Swtpm::start(dir.path()) else { return };
    let host = Host::start(dir.path(), "a");
    host.ctl(&["create", "vm"]);
    let mut machines = [Machine::connect(&control_of(&host, "vm")), Machine::connect(&theirs.control)];
    let get = |blob| Request::GetStateBlob { flags: StateFlags::DECRYPTED, blob, offset: 0 };
    let requests = [
        Request::SetLocality(0),
        Request::SetLocality(5),
        Request::ResetTpmEstablished(0),
        Request::ResetTpmEstablished(5),
        Request::ResetTpmEstablished(4),
        Request::HashStart,
        Request::HashData(0),
        Request::HashEnd,
        Request::CancelTpmCmd,
        Request::StoreVolatile,
        Request::SetBufferSize(0),
        Request::SetBufferSize(4096),
        Request::SetDataFd,
        Request::GetInfo { flags: InfoFlags(1), offset: 10_000 },
        Request::ResetTpmEstablished(3),
    ];
    let mut both = |request: Request| {
        let [ours, swtpms] = machines.each_mut().map(|machine| machine.ask(request, &[]));
        assert_eq!(ours, swtpms, "{request:?}");
        ours
    };
    for state in ["off", "on", "off again"] {
        for request in requests {
            both(request);
        }
        match state {
            "off" => both(Request::Init(InitFlags(0))),
            "on" => {
                both(get(BlobType::SAVESTATE));
                both(Request::GetTpmEstablished);
                both(Request::Stop)
            }
            _ => both(Request::Shutdown),
        };
    }
    // An unknown command, which costs the connection here.
    for machine in &mut machines[..1] {
        machine.control.write_all(&[0, 0, 0, 99]).unwrap();
        let mut answer = Vec::new();
        std::io::Read::read_to_end(&mut machine.control, &mut answer).unwrap();
        assert_eq!(answer, [0, 0, 0, 10]);
    }
}

/// TPM commands over the data channel at both, with the hardware's signals between them.
#[test]
fn a_dynamic_launch_leaves_the_pcrs_that_it_leaves_at_swtpm() {
    let dir = tempfile::tempdir().unwrap();
    let Some(theirs) = Swtpm::start(dir.path()) else { return };
    let host = Host::start(dir.path(), "a");
    host.ctl(&["create", "vm"]);
    let mut machines = [Machine::connect(&control_of(&host, "vm")), Machine::connect(&theirs.control)];
    let [ours, swtpms] = machines.each_mut().map(|m| {
        let mut seen = Vec::new();
        // Off: the version is asked for, as QEMU does.
        let capability = (6u32, 0x100u32, 1u32);
        seen.push(m.data.run(TpmCc::GET_CAPABILITY, &[], None, &capability).unwrap().1);
        assert_eq!(m.result(Request::Init(InitFlags(0))), 0);
        // On, but not started.
        seen.push(m.random().value().to_be_bytes().to_vec());
        // What is measured before Startup is the H-CRTM.
        let hash = |m: &mut Machine, data: &[u8]| {
            assert_eq!(m.result(Request::HashStart), 0);
            let request = Request::HashData(data.len().try_into().unwrap());
            assert_eq!(m.ask(request, data), [0; 4]);
            assert_eq!(m.result(Request::HashEnd), 0);
        };
        hash(m, b"firmware");
        let startup = (TpmSt::NO_SESSIONS, 12u32, TpmCc::STARTUP, 0u16).to_bytes();
        seen.push(m.data.transmit(&startup).unwrap());
        seen.push(m.pcr(0));
        m.extend(10);
        hash(m, &[7; 10_000]);
        for pcr in [0, 10, 16, 17, 18, 22, 23] {
            seen.push(m.pcr(pcr));
        }
        seen.push(m.ask(Request::GetTpmEstablished, &[]));
        // Locality 4 may reset what others may not.
        for locality in [0u8, 4] {
            assert_eq!(m.result(Request::SetLocality(locality)), 0);
            let (code, _) = m.data.run(TpmCc::PCR_RESET, &[TpmHandle(20)], Some(b""), &()).unwrap();
            seen.push(code.value().to_be_bytes().to_vec());
        }
        // A reset takes the PCRs. The locality stays, and none above 3 may start a TPM.
        assert_eq!(m.result(Request::Init(InitFlags(0))), 0);
        seen.push(m.data.transmit(&startup).unwrap());
        assert_eq!(m.result(Request::SetLocality(0)), 0);
        m.boot();
        seen.push(m.pcr(10));
        seen.push(m.pcr(17));
        seen
    });
    assert_eq!(ours, swtpms);
    assert_eq!(ours.len(), 17);
}

/// Our engine, too, can be called off, while others wait for nothing.
#[test]
fn making_a_large_key_is_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), "a");
    host.ctl(&["create", "vm"]);
    let mut m = Machine::connect(&control_of(&host, "vm"));
    m.boot();
    // TPM2_CreatePrimary of a signing key with 4096 bits, and of one that takes no time.
    let key = |alg: u16| {
        let mut parameters = Vec::new();
        let attributes = 0x0004_0072u32;
        match alg {
            1 => (0x0010u16, 0x0014u16, 0x000bu16, 4096u16, 0u32, 0u16).encode(&mut parameters),
            _ => (0x0010u16, 0x0018u16, 0x000bu16, 3u16, 0x0010u16, 0u32).encode(&mut parameters),
        }
        let public = [(alg, 0x000bu16, attributes, 0u16).to_bytes(), parameters].concat();
        let size = u16::try_from(public.len()).unwrap();
        [(4u16, 0u32, size).to_bytes(), public, (0u16, 0u32).to_bytes()].concat()
    };
    let create = |alg| {
        let body =
            [(TpmHandle::OWNER, 9u32, TpmHandle::RS_PW, 0u16, 0u8, 0u16).to_bytes(), key(alg)].concat();
        let size = u32::try_from(body.len() + 10).unwrap();
        [(TpmSt::SESSIONS, size, TpmCc::CREATE_PRIMARY).to_bytes(), body].concat()
    };
    // Whether it comes in time is up to the primes: the first one may be there at once.
    let canceled = (0..5).any(|_| {
        m.data.0.write_all(&create(1)).unwrap();
        let begin = Instant::now();
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(m.result(Request::CancelTpmCmd), 0);
        let mut header = [0; 10];
        std::io::Read::read_exact(&mut m.data.0, &mut header).unwrap();
        let code = u32::from_be_bytes(header[6..].try_into().unwrap());
        println!("{:?}: 0x{code:x}", begin.elapsed());
        let size = usize::try_from(u32::from_be_bytes(header[2..6].try_into().unwrap())).unwrap();
        std::io::Read::read_exact(&mut m.data.0, &mut vec![0; size - 10]).unwrap();
        ResponseCode::from_value(code) == ResponseCode::CANCELED
    });
    assert!(canceled);
    // The next one is not concerned.
    assert_eq!(m.result(Request::CancelTpmCmd), 0);
    let response = m.data.transmit(&create(0x23)).unwrap();
    assert_eq!(response[6..10], [0; 4]);
}
