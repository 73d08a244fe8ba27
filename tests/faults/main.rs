//! What goes wrong on a host, done to the real program: it is killed, its disk is full, its key is gone, its clock goes back, it has no
//! descriptors left. What was acknowledged is there afterwards. `docs/operating.md` says what an operator sees.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]

#[allow(dead_code, reason = "shared with tests/control, which uses the rest")]
#[path = "../control/client.rs"]
mod client;
#[allow(dead_code, reason = "shared with tests/programs.rs, which uses the rest")]
#[path = "../common/mod.rs"]
mod common;
mod damage;
mod media;

use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use client::Machine;
use common::{Host, Raw};
use vtpm_protocol::codec::{Encode, encode_sized};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{TpmCc, TpmHandle};

/// A counter, and an index of 2048 bytes; both are the owner's.
const COUNTER: TpmHandle = TpmHandle(0x0100_0010);
const DATA: TpmHandle = TpmHandle(0x0100_0011);
const NT_COUNTER: u32 = 0x10;
const OWNER_READ_WRITE: u32 = 0x0002_0002;

fn define(raw: &mut Raw, index: TpmHandle, attributes: u32, size: u16) {
    let mut parameters = 0u16.to_bytes();
    let public = (index, 0x000bu16, attributes | OWNER_READ_WRITE, 0u16, size).to_bytes();
    encode_sized(&public, &mut parameters);
    let (code, _) =
        raw.run(TpmCc::NV_DEFINE_SPACE, &[TpmHandle::OWNER], Some(b""), &Bytes(parameters)).unwrap();
    assert_eq!(code, ResponseCode::SUCCESS);
}

struct Bytes(Vec<u8>);

impl Encode for Bytes {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
}

fn increment(raw: &mut Raw) -> std::io::Result<ResponseCode> {
    let handles = [TpmHandle::OWNER, COUNTER];
    raw.run(TpmCc::NV_INCREMENT, &handles, Some(b""), &()).map(|(code, _)| code)
}

fn try_count(raw: &mut Raw) -> std::io::Result<u64> {
    let handles = [TpmHandle::OWNER, COUNTER];
    let (code, read) = raw.run(TpmCc::NV_READ, &handles, Some(b""), &(8u16, 0u16))?;
    assert_eq!(code, ResponseCode::SUCCESS);
    // The size of the parameters, that of the buffer, and the counter.
    Ok(u64::from_be_bytes(read[6..14].try_into().unwrap()))
}

fn count(raw: &mut Raw) -> u64 {
    try_count(raw).unwrap()
}

fn write(raw: &mut Raw, byte: u8, offset: u16) -> ResponseCode {
    let mut parameters = Vec::new();
    encode_sized(&[byte; 512], &mut parameters);
    offset.encode(&mut parameters);
    raw.run(TpmCc::NV_WRITE, &[TpmHandle::OWNER, DATA], Some(b""), &Bytes(parameters)).unwrap().0
}

/// One TPM of the daemon, booted.
fn boot(host: &Host, name: &str) -> Machine {
    let mut machine = Machine::connect(&host.runtime().join(name).join("control.sock"));
    machine.boot();
    machine
}

fn host(dir: &Path, machines: &[&str]) -> Host {
    let host = Host::start(dir, "host");
    machines.iter().for_each(|name| drop(host.ctl(&["create", name])));
    host
}

#[test]
fn a_hundred_kills_under_load_lose_nothing_that_was_acknowledged() {
    const NAMES: [&str; 3] = ["a", "b", "c"];
    let dir = tempfile::tempdir().unwrap();
    let mut host = host(dir.path(), &NAMES);
    let mut acknowledged = NAMES.map(|name| {
        let mut machine = boot(&host, name);
        define(&mut machine.data, COUNTER, NT_COUNTER, 8);
        assert_eq!(increment(&mut machine.data).unwrap(), ResponseCode::SUCCESS);
        count(&mut machine.data)
    });
    let (mut written, mut asked) = (0, 0);
    for round in 0..100 {
        let machines = NAMES.map(|name| boot(&host, name));
        let counts = std::thread::scope(|scope| {
            let threads = machines.map(|machine| {
                scope.spawn(move || {
                    // All of it: without its control channel it would be a machine that left.
                    let mut machine = machine;
                    let found = try_count(&mut machine.data).ok()?;
                    let mut done = 0;
                    // Until it is killed.
                    while let Ok(code) = increment(&mut machine.data) {
                        assert_eq!(code, ResponseCode::SUCCESS);
                        done += 1;
                    }
                    Some((found, done))
                })
            });
            // Another moment each time.
            std::thread::sleep(Duration::from_micros(5000 + 137 * round));
            host.kill();
            threads.map(|thread| thread.join().unwrap())
        });
        for (acknowledged, counted) in acknowledged.iter_mut().zip(counts) {
            // Killed before it could be asked.
            let Some((found, done)) = counted else { continue };
            // The command whose answer never came was executed, or was not.
            assert!(found == *acknowledged || found == *acknowledged + 1, "{found} after {acknowledged}");
            *acknowledged = found + done;
            written += done;
            asked += 1;
        }
        host.run();
    }
    println!("{written} writes acknowledged, {asked} counters read in 100 rounds");
    assert!(written > 300 && asked > 100, "no load: {written}, {asked}");
}

#[test]
fn a_full_disk_refuses_changes_and_nothing_else_and_is_over_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = host(dir.path(), &["a", "b"]);
    let mut machine = boot(&host, "a");
    define(&mut machine.data, COUNTER, NT_COUNTER, 8);
    define(&mut machine.data, DATA, 0, 2048);
    assert_eq!(increment(&mut machine.data).unwrap(), ResponseCode::SUCCESS);
    drop(machine);
    host.terminate();
    // A small file system of its own, which only the daemon sees, with something in it that can be taken away.
    let state = host.state().display().to_string();
    let line = format!(
        "exec unshare --mount sh -c 'cp -a {state} {state}.kept && mount -t tmpfs -o size=1m,mode=700 none {state} && \
         cp -a {state}.kept/. {state} && head -c 300000 /dev/zero >{state}/filler && exec \"$0\" \"$@\"' \"$0\" \"$@\""
    );
    host.run_under(&line);
    let mut a = boot(&host, "a");
    let before = count(&mut a.data);

    // Whoever fills the disk is not the only one who is refused.
    let filler = std::path::PathBuf::from(format!("/proc/{}/root{state}", host.pid()));
    let rest = std::fs::write(filler.join("rest"), vec![0; 1 << 20]);
    assert!(rest.is_err(), "the disk is full");
    let mut refused = 0;
    let mut done = 0;
    for n in 0..200u16 {
        match write(&mut a.data, n as u8, 512 * (n % 4)) {
            ResponseCode::SUCCESS => done += 1,
            ResponseCode::NV_UNAVAILABLE => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(refused > 0, "{done} were written");
    assert_eq!(a.random(), ResponseCode::SUCCESS);
    assert_eq!(count(&mut a.data), before);
    let denied = increment(&mut a.data).unwrap();
    assert_eq!(denied, ResponseCode::NV_UNAVAILABLE);
    assert!(host.refused(&["create", "c"]).contains("0x923"), "{}", host.refused(&["create", "c"]));

    std::fs::remove_file(filler.join("filler")).unwrap();
    std::fs::remove_file(filler.join("rest")).unwrap();
    assert_eq!(increment(&mut a.data).unwrap(), ResponseCode::SUCCESS);
    assert_eq!(count(&mut a.data), before + 1);
    let mut b = boot(&host, "b");
    define(&mut b.data, COUNTER, NT_COUNTER, 8);
    host.ctl(&["create", "c"]);
}

#[test]
fn without_its_host_key_the_daemon_says_so_and_leaves_everything_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = host(dir.path(), &["a"]);
    let mut machine = boot(&host, "a");
    define(&mut machine.data, COUNTER, NT_COUNTER, 8);
    assert_eq!(increment(&mut machine.data).unwrap(), ResponseCode::SUCCESS);
    let before = count(&mut machine.data);
    drop(machine);
    host.terminate();
    let key = host.state().join("host.key");
    let kept = host.state().join("kept");
    let database = std::fs::read(host.state().join("vtpmd.sqlite")).unwrap();
    std::fs::rename(&key, &kept).unwrap();
    let output = host.vtpmd("run").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("host.key"), "{said}");
    // Nor does another key open it, nor init make a new one beside it.
    std::fs::copy(&kept, &key).unwrap();
    let other: Vec<u8> = std::fs::read(&kept).unwrap().iter().map(|byte| byte ^ 1).collect();
    std::fs::write(&key, other).unwrap();
    let output = host.vtpmd("run").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("key"), "{said}");
    std::fs::remove_file(&key).unwrap();
    assert!(!host.vtpmd("init").output().unwrap().status.success());
    assert_eq!(std::fs::read(host.state().join("vtpmd.sqlite")).unwrap(), database);

    std::fs::rename(&kept, &key).unwrap();
    host.run();
    assert_eq!(count(&mut boot(&host, "a").data), before);
}

#[test]
fn without_descriptors_new_clients_wait_and_those_that_are_there_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = host(dir.path(), &["a", "b"]);
    host.terminate();
    host.run_under("ulimit -n 64");
    let mut a = boot(&host, "a");
    let socket = host.runtime().join("root/tpm.sock");
    // More than there are descriptors, and fewer than the 128 that may wait: the one after them would wait to wait.
    let many: Vec<_> = (0..120).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", host.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = ticks();
    for _ in 0..20 {
        assert_eq!(a.random(), ResponseCode::SUCCESS);
        std::thread::sleep(Duration::from_millis(50));
    }
    // In a second that nearly nothing happens in; a hundred of them are a processor.
    assert!(ticks() - before < 30, "it waits and does not spin: {}", ticks() - before);
    drop(many);
    let mut b = boot(&host, "b");
    define(&mut b.data, COUNTER, NT_COUNTER, 8);
    assert!(host.ctl(&["list"]).contains('b'));
}

#[test]
fn a_clock_that_goes_back_holds_nothing_up() {
    let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    if !Path::new(library).exists() {
        let required = std::env::var("VTPMD_QEMU_TESTS").is_ok_and(|v| v == "required");
        assert!(!required, "there is no libfaketime; scripts/test installs it");
        eprintln!("skipped: there is no libfaketime here");
        return;
    }
    let clock = |machine: &mut Machine| {
        let (code, read) = machine.data.run(TpmCc::READ_CLOCK, &[], None, &()).unwrap();
        assert_eq!(code, ResponseCode::SUCCESS);
        let number = |at: usize| u64::from_be_bytes(read[at..at + 8].try_into().unwrap());
        let count = |at: usize| u32::from_be_bytes(read[at..at + 4].try_into().unwrap());
        // time, clock, resetCount and restartCount, of which each start counts one on.
        (number(0), number(8), count(16) + count(20))
    };
    let dir = tempfile::tempdir().unwrap();
    let mut host = host(dir.path(), &["a"]);
    host.terminate();
    let mut last = None;
    // In the file, which may be changed while the daemon runs.
    let file = dir.path().join("offset");
    for offset in ["+10d", "-10d", "+1y"] {
        std::fs::write(&file, offset).unwrap();
        host.run_under(&format!(
            "export LD_PRELOAD={library} FAKETIME_TIMESTAMP_FILE={} FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1",
            file.display()
        ));
        let mut machine = boot(&host, "a");
        let (time, now, starts) = clock(&mut machine);
        assert!(time < 60_000, "time counts from the start of the TPM: {time}");
        if let Some((before, starts_before)) = last {
            // It goes on over a start as the host's clock does, but never back.
            assert!(now >= before, "{now} after {before}");
            assert_eq!(starts, starts_before + 1);
        }
        std::fs::write(&file, "-20d").unwrap();
        let begin = Instant::now();
        std::thread::sleep(Duration::from_millis(30));
        let (_, later, _) = clock(&mut machine);
        let passed = u64::try_from(begin.elapsed().as_millis()).unwrap();
        assert!(later >= now + 20 && later <= now + passed + 1000, "{later} after {now}");
        assert_eq!(machine.random(), ResponseCode::SUCCESS);
        last = Some((later, starts));
        drop(machine);
        host.terminate();
    }
}

#[test]
fn without_memory_new_clients_wait_and_an_end_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = host(dir.path(), &["a"]);
    host.terminate();
    let log = dir.path().join("log");
    host.run_under(&format!("exec 2>{}", log.display()));
    let mut machine = boot(&host, "a");
    define(&mut machine.data, COUNTER, NT_COUNTER, 8);
    assert_eq!(increment(&mut machine.data).unwrap(), ResponseCode::SUCCESS);
    let before = count(&mut machine.data);
    let pid = host.pid();
    let limit = |bytes: Option<u64>| {
        let bytes = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
        let limited =
            Command::new("prlimit").args([format!("--pid={pid}"), format!("--as={bytes}:")]).status();
        assert!(limited.unwrap().success());
    };
    let size = || {
        let size = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
        size.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096
    };

    // Enough for what it does, but not for the stack of one more thread.
    limit(Some(size() + (1 << 20)));
    let socket = host.runtime().join("root/tpm.sock");
    let many: Vec<_> = (0..200).map_while(|_| UnixStream::connect(&socket).ok()).collect();
    assert!(many.len() > 20, "{}", many.len());
    for _ in 0..100 {
        assert_eq!(increment(&mut machine.data).unwrap(), ResponseCode::SUCCESS);
    }
    assert!(host.ended().is_none());
    drop(many);
    limit(None);
    let until = Instant::now() + Duration::from_secs(10);
    while !host.ctl_output(&["list"]).status.success() {
        assert!(Instant::now() < until, "there is memory again");
    }

    // From here on nothing more than what it has, and many who want something.
    let mut acknowledged = before + 100;
    limit(Some(size()));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut all = Vec::new();
            while !stop.load(Ordering::Relaxed) && all.len() < 500 {
                all.extend(UnixStream::connect(&socket));
            }
        });
        for _ in 0..300 {
            match increment(&mut machine.data) {
                Ok(ResponseCode::SUCCESS) => acknowledged += 1,
                Ok(other) => assert!(
                    [ResponseCode::NV_UNAVAILABLE, ResponseCode::MEMORY, ResponseCode::RETRY]
                        .contains(&other),
                    "{other:?}"
                ),
                Err(_) => break,
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    drop(machine);
    // If it ended, then as a process does that gets no memory, which systemd takes for a failure, and starts it again.
    std::thread::sleep(Duration::from_millis(50));
    let ended = host.ended();
    println!("{} writes acknowledged; ended: {ended:?}", acknowledged - before);
    let said = std::fs::read_to_string(&log).unwrap();
    if let Some(status) = ended {
        assert_eq!(status.signal(), Some(libc::SIGABRT), "{status:?}");
        let cause = ["memory allocation of", "Cannot allocate memory"];
        assert!(cause.iter().any(|cause| said.contains(cause)), "{said}");
    }
    host.kill();
    host.run();
    let found = count(&mut boot(&host, "a").data);
    assert!(found == acknowledged || found == acknowledged + 1, "{found} after {acknowledged}");
}
