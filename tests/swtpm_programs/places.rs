//! States in one file or on a block device: `file://`.

use std::os::unix::fs::PermissionsExt;

use super::*;

/// An NV index that tells one TPM from another and outlives a restart.
const DEFINE: &str = "tpm2_nvdefine 0x1500001 -C o -s 4 -a ownerread|ownerwrite";
const READ: &str = "tpm2_nvread 0x1500001 -C o -s 4";
const WHEN_ON: &[&str] = &["--flags", "not-need-init,startup-clear"];

fn uri(path: &Path) -> String {
    format!("file://{}", path.display())
}

fn write(server: &Server, text: &str) {
    fs::write(server.dir.join("data"), text).unwrap();
    server.tool_said("tpm2_nvwrite 0x1500001 -C o -i data");
}

#[test]
fn a_state_in_one_file_is_kept_whatever_becomes_of_the_process() {
    if !debian(&["tpm2_nvdefine"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state");
    let server = Server::start(SWTPM, &uri(&file), dir.path(), WHEN_ON);
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    server.tool_said(DEFINE);
    write(&server, "kept");
    // Another process is told that it cannot have it; Debian's lets it in, and one of the two writes over the other.
    let control = format!("type=unixio,path={}", dir.path().join("other").display());
    let place = format!("backend-uri={}", uri(&file));
    let second = refused(SWTPM, &["socket", "--tpm2", "--tpmstate", &place, "--ctrl", &control]);
    assert!(second.contains("in use"), "{second}");
    let states = ["socket", "--tpm2", "--print-states", "--tpmstate", &place];
    assert!(said(SWTPM, &states).contains("permall"));
    // SIGKILL.
    drop(server);
    for socket in ["s", "s.ctrl"] {
        fs::remove_file(dir.path().join(socket)).unwrap();
    }
    let server = Server::start(SWTPM, &uri(&file), dir.path(), WHEN_ON);
    assert_eq!(server.tool_said(READ), "kept");
    for number in 1000..1020 {
        write(&server, &number.to_string());
    }
    server.shut_down();
    let server = Server::start(SWTPM, &uri(&file), dir.path(), WHEN_ON);
    assert_eq!(server.tool_said(READ), "1019");
    server.shut_down();
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| ["state", "data"].iter().any(|n| name == n)), "{names:?}");
    // The mode, where one is said.
    let moded = format!("backend-uri={},mode=0640", uri(&file));
    said(
        SWTPM,
        &["socket", "--tpm2", "--tpmstate", &moded, "--ctrl", &format!("{control},terminate"), "--daemon"],
    );
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o640);
    drop(UnixStream::connect(dir.path().join("other")).unwrap());
}

/// TPM2_NV_Increment of the counter with the owner's authorization, which is empty.
fn increment() -> Vec<u8> {
    let handles = [0x4000_0001u32.to_be_bytes(), COUNTER.to_be_bytes()].concat();
    let password = [0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0];
    [&[0x80, 2, 0, 0, 0, 31, 0, 0, 1, 0x34][..], &handles, &password].concat()
}

const COUNTER: u32 = 0x0150_0002;

#[test]
fn what_was_answered_is_in_the_file_whenever_the_process_is_killed() {
    if !debian(&["tpm2_nvdefine"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state");
    let mut counted = 0u64;
    for round in 0..12u64 {
        let server = Server::start(SWTPM, &uri(&file), dir.path(), WHEN_ON);
        if round == 0 {
            let attributes = "ownerread|ownerwrite|authread|authwrite|nt=counter";
            server.tool_said(&format!("tpm2_nvdefine {COUNTER:#x} -C o -a {attributes}"));
            server.tool_said(&format!("tpm2_nvincrement {COUNTER:#x} -C o"));
        }
        let read = server.tool(&format!("tpm2_nvread {COUNTER:#x} -C o")).stdout;
        let found = u64::from_be_bytes(read.try_into().unwrap());
        // What was not answered any more may have been done.
        assert!(round == 0 || (counted..=counted + 1).contains(&found), "{found} after {counted}");
        let mut client = UnixStream::connect(dir.path().join("s")).unwrap();
        let counting = std::thread::spawn(move || {
            let (mut counted, command) = (found, increment());
            let mut response = [0; 19];
            while client.write_all(&command).and_then(|()| client.read_exact(&mut response)).is_ok() {
                assert_eq!(response[6..10], [0; 4]);
                counted += 1;
            }
            counted
        });
        std::thread::sleep(Duration::from_millis(40 + 17 * round));
        drop(server);
        counted = counting.join().unwrap();
        for socket in ["s", "s.ctrl"] {
            fs::remove_file(dir.path().join(socket)).unwrap();
        }
    }
    assert!(counted > 100, "{counted} increments are too few to say anything");
}

#[test]
fn a_key_protects_a_state_in_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let (file, control) = (dir.path().join("state"), dir.path().join("c").display().to_string());
    let key = dir.path().join("key");
    fs::write(&key, "0123456789abcdef0123456789abcdef").unwrap();
    let (state, place) = (uri(&file), format!("backend-uri={}", uri(&file)));
    said(SETUP, &["--tpm2", "--tpmstate", &state, "--keyfile", key.to_str().unwrap(), "--createek"]);
    let control_option = format!("type=unixio,path={control},terminate");
    let line = ["socket", "--tpm2", "--daemon", "--tpmstate", &place, "--ctrl", &control_option];
    assert!(refused(SWTPM, &line).contains("with the key"));
    let key = format!("file={},mode=aes-cbc,format=hex", key.display());
    said(SWTPM, &[&line[..], &["--key", &key]].concat());
    assert_eq!(said(IOCTL, &["--unix", &control, "-g"]), "ptm configuration flags: 0x1\n");
}

#[test]
fn what_is_in_a_file_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let control = format!("type=unixio,path={}", dir.path().join("c").display());
    let all_refuse = |file: &Path, word: &str| {
        let before = fs::read(file).unwrap();
        let place = format!("backend-uri={}", uri(file));
        let errors = [
            refused(SWTPM, &["socket", "--tpm2", "--tpmstate", &place, "--ctrl", &control]),
            refused(SETUP, &["--tpm2", "--tpmstate", &uri(file)]),
            refused(SETUP, &["--tpm2", "--tpmstate", &uri(file), "--overwrite"]),
        ];
        assert!(errors.iter().all(|error| error.contains(word)), "{errors:?}");
        assert_eq!(fs::read(file).unwrap(), before);
    };
    let other = dir.path().join("other");
    fs::write(&other, "not a TPM").unwrap();
    all_refuse(&other, "something");
    if debian(&["swtpm", "swtpm_setup"]) {
        let theirs = dir.path().join("theirs");
        said("/usr/bin/swtpm_setup", &["--tpm2", "--tpmstate", &uri(&theirs)]);
        all_refuse(&theirs, "import-swtpm");
    }
    // A TPM of ours goes only when that is asked for.
    let ours = dir.path().join("ours");
    said(SETUP, &["--tpm2", "--tpmstate", &uri(&ours), "--createek"]);
    let made = fs::read(&ours).unwrap();
    assert!(refused(SETUP, &["--tpm2", "--tpmstate", &uri(&ours)]).contains("already"));
    said(SETUP, &["--tpm2", "--tpmstate", &uri(&ours), "--not-overwrite"]);
    assert!(fs::read(&ours).unwrap() == made);
    said(SETUP, &["--tpm2", "--tpmstate", &uri(&ours), "--overwrite"]);
    assert!(fs::read(&ours).unwrap() != made);
    // What fails leaves nothing.
    let none = dir.path().join("none");
    refused(SETUP, &["--tpm2", "--tpmstate", &uri(&none), "--pcr-banks", "sm3"]);
    assert!(!none.exists());
}

#[test]
fn places_that_are_none_are_refused_as_debians_refuses_them() {
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path().display();
    let programs: &[&str] = if debian(&["swtpm"]) { &[SWTPM, DEBIANS] } else { &[SWTPM] };
    for place in [
        "backend-uri=/plain".into(),
        "backend-uri=other://x".into(),
        "backend-uri=file://".into(),
        format!("backend-uri=file://{here}"),
        format!("backend-uri=file://{here}/absent/x"),
        format!("backend-uri=dir://{here}/absent"),
        format!("dir={here}/absent"),
        "mode=0600".into(),
    ] {
        for program in programs {
            refused(program, &["socket", "--tpm2", "--print-states", "--tpmstate", &place]);
        }
    }
    // Of two places the directory counts.
    let both = format!("backend-uri=file://{here}/absent/x,dir={here}");
    for program in programs {
        assert!(
            said(program, &["socket", "--tpm2", "--print-states", "--tpmstate", &both]).contains("states")
        );
    }
}

/// A block device with a file behind it, which is taken away when this is dropped.
struct Loop(String);

impl Loop {
    fn new(file: &Path) -> Option<Self> {
        let made = Command::new("losetup").args(["--find", "--show"]).arg(file).output().ok()?;
        let device = text(&made.stdout).trim().to_owned();
        (made.status.success() && !device.is_empty()).then_some(Self(device))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _gone = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

#[test]
fn a_block_device_holds_a_state_if_it_has_room() {
    let dir = tempfile::tempdir().unwrap();
    let device = |name: &str, length: u64| {
        let file = dir.path().join(name);
        fs::File::create(&file).unwrap().set_len(length).unwrap();
        Loop::new(&file)
    };
    let (Some(small), Some(usual)) = (device("small", 1 << 20), device("usual", 4 << 20)) else {
        eprintln!("not tried: this system makes no loop devices");
        return;
    };
    let place = |device: &Loop| uri(Path::new(&device.0));
    assert!(refused(SETUP, &["--tpm2", "--tpmstate", &place(&small)]).contains("bytes"));
    let mode = fs::metadata(&usual.0).unwrap().permissions().mode();
    said(SETUP, &["--tpm2", "--tpmstate", &place(&usual), "--createek"]);
    // As udev does, which looks at a device when it appears, and whenever somebody has written to it.
    let other = fs::File::open(&usual.0).unwrap();
    other.lock_shared().unwrap();
    let unlocking = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        drop(other);
    });
    let server = Server::start(SWTPM, &place(&usual), dir.path(), WHEN_ON);
    unlocking.join().unwrap();
    let mut tpm = UnixStream::connect(dir.path().join("s")).unwrap();
    assert_eq!(transmit(&mut tpm, &GET_RANDOM).len(), 20);
    let second = format!("backend-uri={}", place(&usual));
    let control = format!("type=unixio,path={}", dir.path().join("second").display());
    let line = ["socket", "--tpm2", "--tpmstate", &second, "--ctrl", &control];
    assert!(refused(SWTPM, &line).contains("in use"));
    server.shut_down();
    assert!(fs::metadata(&usual.0).unwrap().permissions().mode() == mode);
    said(SETUP, &["--tpm2", "--tpmstate", &place(&usual), "--not-overwrite"]);
    said(SETUP, &["--tpm2", "--tpmstate", &place(&usual), "--overwrite"]);
}
