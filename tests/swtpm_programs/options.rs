//! Where the log and the number of the process go.

use std::fs::{File, OpenOptions};

use super::*;

/// Runs a TPM with `--log` of this value, and with `file` as its descriptor 5; what it said to standard error.
fn logged(program: &str, log: &str, file: &str) -> String {
    let (dir, state) = place();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (control, errors) = (at("c"), at("errors"));
    let shell = format!("exec \"$@\" 5>>{file} 2>{errors}");
    let mut child = Command::new("/bin/sh")
        .args(["-c", &shell, "sh", program, "socket", "--tpm2", "--tpmstate", &format!("dir={state}")])
        .args(["--ctrl", &format!("type=unixio,path={control}"), "--log", log])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    until("the control channel", || {
        assert!(child.try_wait().unwrap().is_none(), "{program} {log}: {:?}", fs::read_to_string(&errors));
        UnixStream::connect(&control).ok()
    });
    said(IOCTL, &["--unix", &control, "-i"]);
    said(IOCTL, &["--unix", &control, "-s"]);
    assert!(ended(&mut child), "{program} {log}");
    fs::read_to_string(errors).unwrap()
}

#[test]
fn the_log_goes_where_it_is_wanted_with_its_prefix_and_at_its_level() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (file, other) = (path("log"), path("other"));
    let read = || fs::read_to_string(&file).unwrap();
    let prefixed = |text: &str, prefix: &str| {
        let lines = text.lines().filter(|line| line.starts_with(prefix)).count();
        assert!(lines > 0, "{text}");
        lines
    };
    for program in [SWTPM, DEBIANS].into_iter().filter(|p| *p == SWTPM || debian(&["swtpm"])) {
        let _gone = fs::remove_file(&file);
        // Level 20 is where both tell of each request.
        logged(program, &format!("file={file},level=20,prefix=one:"), &other);
        let first = prefixed(&read(), "one:");
        assert_eq!(first, read().lines().count(), "{program}: every line has it");
        logged(program, &format!("file={file},level=20,prefix=two:"), &other);
        assert_eq!(prefixed(&read(), "one:"), first, "{program}: the second follows the first");
        prefixed(&read(), "two:");
        logged(program, &format!("file={file},level=20,prefix=three:,truncate"), &other);
        assert_eq!(prefixed(&read(), "three:"), read().lines().count(), "{program}: the others are gone");
        logged(program, "fd=5,level=20,prefix=handed:", &other);
        prefixed(&fs::read_to_string(&other).unwrap(), "handed:");
        fs::remove_file(&other).unwrap();
        assert_eq!(logged(program, "file=-,level=20", &other), "", "{program}: nothing is said");
        assert_eq!(fs::read_to_string(&other).unwrap(), "");
    }
    let _gone = fs::remove_file(&file);
    // What is told at which level is ours: warnings, what happens, connections and requests.
    let at_level = |level: u32| {
        logged(SWTPM, &format!("file={file},level={level},truncate"), &other);
        read()
    };
    assert_eq!(at_level(0), "");
    let (usual, verbose) = (at_level(1), at_level(5));
    assert!(usual.contains("serves the TPM in"), "{usual}");
    assert!(verbose.lines().count() > usual.lines().count(), "{verbose}");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o640);
}

#[test]
fn a_log_that_cannot_be_is_an_error() {
    let (dir, state) = place();
    let tpm = format!("dir={state}");
    let control = format!("type=unixio,path={}", dir.path().join("c").display());
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();
    for log in [
        "file=/nonexistent/log".to_owned(),
        format!("file={}", link.display()),
        "fd=77".to_owned(),
        "level=loud".to_owned(),
        "colour=red".to_owned(),
    ] {
        refused(SWTPM, &["socket", "--tpm2", "--tpmstate", &tpm, "--ctrl", &control, "--log", &log]);
    }
}

#[test]
fn the_number_of_the_process_is_written_to_a_file_or_a_descriptor() {
    let (dir, state) = place();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (control, file, open) = (at("c"), at("pid"), at("open"));
    for program in [SWTPM, DEBIANS].into_iter().filter(|p| *p == SWTPM || debian(&["swtpm"])) {
        // Neither reads the state of the other.
        let state = format!("{state}-{}", program == SWTPM);
        fs::create_dir(&state).unwrap();
        let (tpm, channel) = (format!("dir={state}"), format!("type=unixio,path={control}"));
        let start = |pid: &str| {
            let handed = OpenOptions::new().write(true).create(true).truncate(true).open(&open).unwrap();
            let line = ["socket", "--tpm2", "--tpmstate", &tpm, "--ctrl", &channel, "--pid", pid];
            with_descriptor(program, &line, handed.into())
        };
        for (pid, written) in [(format!("file={file}"), &file), ("fd=5".to_owned(), &open)] {
            let mut child = start(&pid);
            until("the control channel", || {
                assert!(child.try_wait().unwrap().is_none(), "{program} {pid}");
                UnixStream::connect(&control).ok()
            });
            let number = fs::read_to_string(written).unwrap();
            assert_eq!(number.trim(), child.id().to_string(), "{program} {pid}");
            said(IOCTL, &["--unix", &control, "-s"]);
            assert!(ended(&mut child));
            // What has a name goes with the process. What was handed down is its owner's; Debian's removes that too.
            assert_eq!(File::open(written).is_ok(), pid == "fd=5" && program == SWTPM, "{program} {pid}");
            let _gone = fs::remove_file(&control);
        }
        for pid in ["file=/nonexistent/pid", "fd=77", "mode=0600", "number=1"] {
            assert!(!ended(&mut start(pid)), "{program} {pid}");
        }
    }
}
