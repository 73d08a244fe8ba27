//! File systems that stop to take writes: ext4 that found an error of its own, and a medium that cannot synchronise.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::*;

/// Whether the kernel lets a test mount a file system of its own from a file.
fn can_mount() -> bool {
    let can = nix::unistd::geteuid().is_root() && Path::new("/dev/loop-control").exists();
    let required = std::env::var("VTPMD_QEMU_TESTS").is_ok_and(|v| v == "required");
    assert!(can || !required, "these tests need root and loop devices");
    if !can {
        eprintln!("skipped: only root can mount a file system from a file");
    }
    can
}

/// A state with two machines that have a counter and an index each, copied beside itself for whatever is mounted over it.
fn prepared(dir: &Path) -> Host {
    let mut host = host(dir, &["a", "b"]);
    for name in ["a", "b"] {
        let mut machine = boot(&host, name);
        define(&mut machine.data, COUNTER, NT_COUNTER, 8);
        define(&mut machine.data, DATA, 0, 2048);
        assert_eq!(increment(&mut machine.data).unwrap(), ResponseCode::SUCCESS);
    }
    host.terminate();
    let copied = Command::new("cp").arg("-a").arg(host.state()).arg(kept(&host)).status();
    assert!(copied.unwrap().success());
    host
}

fn kept(host: &Host) -> PathBuf {
    host.state().with_extension("kept")
}

/// Starts the daemon in a mount namespace of its own, set up by this line of shell.
fn run_in_namespace(host: &mut Host, line: &str) {
    host.run_under(&format!("exec unshare --mount sh -c '{line} && exec \"$0\" \"$@\"' \"$0\" \"$@\""));
}

/// The name of the device that the daemon's state is on.
fn device(host: &Host) -> String {
    let mounts = std::fs::read_to_string(format!("/proc/{}/mounts", host.pid())).unwrap();
    let state = host.state().display().to_string();
    let line = mounts.lines().find(|line| line.split(' ').nth(1) == Some(&state)).unwrap();
    line.split(' ').next().unwrap().strip_prefix("/dev/").unwrap().to_owned()
}

/// What both machines' counters say.
fn counts(host: &Host) -> [u64; 2] {
    ["a", "b"].map(|name| count(&mut boot(host, name).data))
}

#[test]
fn a_file_system_gone_read_only_refuses_changes_until_it_is_mounted_anew_and_loses_nothing() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut host = prepared(dir.path());
    let (state, image) = (host.state().display().to_string(), dir.path().join("image"));
    let medium = image.display();
    let log = dir.path().join("log");
    run_in_namespace(
        &mut host,
        &format!(
            "truncate -s 64M {medium} && mkfs.ext4 -q {medium} && mount -o loop,errors=remount-ro {medium} {state} && \
             cp -a {state}.kept/. {state} && chmod 700 {state} && sync -f {state} && exec 2>{}",
            log.display()
        ),
    );
    // On request the kernel does not do it, as long as a file is open for writing.
    let pid = host.pid().to_string();
    let remounted =
        Command::new("nsenter").args(["--mount", "-t", &pid, "mount", "-o", "remount,ro", &state]).output();
    assert!(!remounted.unwrap().status.success(), "the database is open");
    let mut reader = boot(&host, "b");
    let of_reader = count(&mut reader.data);
    let mut writer = boot(&host, "a");
    let before = count(&mut writer.data);
    let written = AtomicU64::new(0);
    let (done, refused) = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let (mut done, mut refused) = (0u64, 0);
            while refused < 50 {
                match increment(&mut writer.data).unwrap() {
                    ResponseCode::SUCCESS => {
                        assert_eq!(refused, 0, "it is over for good");
                        done += 1;
                        written.store(done, Ordering::Relaxed);
                    }
                    ResponseCode::NV_UNAVAILABLE => refused += 1,
                    other => panic!("{other:?}"),
                }
            }
            (done, refused)
        });
        let until = Instant::now() + Duration::from_secs(30);
        while written.load(Ordering::Relaxed) < 20 {
            assert!(Instant::now() < until, "no load");
            std::thread::sleep(Duration::from_millis(5));
        }
        std::fs::write(format!("/sys/fs/ext4/{}/trigger_fs_error", device(&host)), "a test of vtpmd")
            .unwrap();
        // Whoever only reads does not notice.
        let until = Instant::now() + Duration::from_millis(200);
        while Instant::now() < until {
            assert_eq!(count(&mut reader.data), of_reader);
            assert_eq!(reader.random(), ResponseCode::SUCCESS);
        }
        thread.join().unwrap()
    });
    println!("{done} writes acknowledged, then {refused} refused");
    assert_eq!(increment(&mut reader.data).unwrap(), ResponseCode::NV_UNAVAILABLE);
    assert!(host.refused(&["create", "c"]).contains("0x923"));
    assert!(host.ended().is_none());
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.contains("is read-only") && !said.contains("panicked"), "{said}");
    drop((reader, writer));
    // Such a file system is mounted for writing again only after it was checked, and for that the daemon has to leave it.
    host.terminate();

    let checked = Command::new("e2fsck").args(["-p", "-f"]).arg(&image).output().unwrap();
    assert!(checked.status.code().is_some_and(|code| code < 4), "{checked:?}");
    // On one that is read-only, the daemon says why it does not start.
    let mount = |options: &str| {
        format!(
            "exec unshare --mount sh -c 'mount -o {options} {medium} {state} && exec \"$0\" \"$@\"' \"$0\" \"$@\""
        )
    };
    let vtpmd = host.vtpmd("run");
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(mount("loop,ro")).arg(vtpmd.get_program()).args(vtpmd.get_args());
    let output = shell.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("is read-only"), "{said}");
    run_in_namespace(&mut host, &format!("mount -o loop {medium} {state}"));
    let [a, b] = counts(&host);
    assert_eq!(b, of_reader);
    // The one during which it happened was executed, or was not.
    assert!(a == before + done || a == before + done + 1, "{a} after {before} + {done}");
    assert_eq!(increment(&mut boot(&host, "a").data).unwrap(), ResponseCode::SUCCESS);
}

#[test]
fn what_is_acknowledged_after_a_failed_synchronisation_is_on_the_medium() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut host = prepared(dir.path());
    let state = host.state().display().to_string();
    // A medium that promises more than it has, as thin volumes do. Where the file system gives out a block for the first time, it may turn out when it
    // is synchronised that there is none; what the kernel could not write it calls written from then on, and only keeps it in its memory.
    let medium = dir.path().join("medium");
    std::fs::create_dir(&medium).unwrap();
    let image = medium.join("image");
    run_in_namespace(
        &mut host,
        &format!(
            "mount -t tmpfs -o size=64m none {} && truncate -s 24M {image}.made && mkfs.ext4 -q -J size=4 {image}.made && \
             cp --sparse=never {image}.made {image} && rm {image}.made && \
             mount -o loop,errors=continue,commit=300 {image} {state} && cp -a {state}.kept/. {state} && chmod 700 {state} && \
             sync -f {state} && fstrim {state}",
            medium.display(),
            image = image.display()
        ),
    );
    let seen = |path: &Path| PathBuf::from(format!("/proc/{}/root{}", host.pid(), path.display()));
    let (filler, image) = (seen(&medium.join("filler")), seen(&image));
    let mut machines = ["a", "b"].map(|name| boot(&host, name));
    let mut refused = 0;
    for round in 0..4 {
        assert!(std::fs::write(&filler, vec![0; 64 << 20]).is_err(), "the medium is full");
        let mut denied = 0;
        for n in 0..400u16 {
            let machine = &mut machines[usize::from(n % 2)];
            let code = match n % 3 {
                0 => increment(&mut machine.data).unwrap(),
                1 => write(&mut machine.data, n as u8, 512 * (n % 4)),
                // What need not outlive a loss of power.
                _ => extend(&mut machine.data),
            };
            match code {
                ResponseCode::SUCCESS => {}
                ResponseCode::NV_UNAVAILABLE => denied += 1,
                other => panic!("{other:?}"),
            }
        }
        refused += denied;
        std::fs::remove_file(&filler).unwrap();
        // Without having been started anew.
        let until = Instant::now() + Duration::from_secs(30);
        for machine in &mut machines {
            while increment(&mut machine.data).unwrap() != ResponseCode::SUCCESS {
                assert!(Instant::now() < until, "there is room again");
            }
        }
        let acknowledged = [0, 1].map(|n: usize| count(&mut machines[n].data));
        // What the medium has at this moment is what a loss of power would leave.
        let copy = dir.path().join(format!("left-{round}"));
        std::fs::copy(&image, &copy).unwrap();
        let mut other = Host::at(dir.path().join(format!("other-{round}")));
        std::fs::create_dir_all(other.state()).unwrap();
        let checked = Command::new("e2fsck").args(["-p", "-f"]).arg(&copy).output().unwrap();
        assert!(checked.status.code().is_some_and(|code| code < 4), "{checked:?}");
        let line = format!("mount -o loop {} {}", copy.display(), other.state().display());
        run_in_namespace(&mut other, &line);
        assert_eq!(counts(&other), acknowledged, "round {round}");
        other.terminate();
        std::fs::remove_file(&copy).unwrap();
        println!("round {round}: {denied} of 400 refused");
    }
    assert!(refused > 0, "the medium never failed");
    assert!(host.ended().is_none());
}

fn extend(raw: &mut Raw) -> ResponseCode {
    // One digest of SHA-256.
    let parameters = [1u32.to_bytes(), 0x000bu16.to_bytes(), vec![7; 32]].concat();
    raw.run(TpmCc::PCR_EXTEND, &[TpmHandle(16)], Some(b""), &Bytes(parameters)).unwrap().0
}
