//! Keys of a state and of migrations, in each form.

use super::*;

#[test]
fn a_state_with_a_key_opens_with_that_key_only() {
    let (dir, state) = place();
    let config = dir.path().join("conf").display().to_string();
    fs::write(&config, "").unwrap();
    let key = dir.path().join("key").display().to_string();
    fs::write(&key, "a passphrase").unwrap();
    said(
        SETUP,
        &[
            "--tpm2",
            "--tpmstate",
            &format!("dir://{state}"),
            "--pwdfile",
            &key,
            "--cipher",
            "aes-256-cbc",
            "--config",
            &config,
        ],
    );
    assert!(!Path::new(&state).join("host.key").exists());
    let channel = format!("type=unixio,path={}", dir.path().join("c").display());
    let socket = |more: &[&str]| {
        let tpm = format!("backend-uri=dir://{state}");
        refused(SWTPM, &[&["socket", "--tpm2", "--tpmstate", &tpm, "--ctrl", &channel], more].concat())
    };
    assert!(socket(&[]).contains("opens with the key"));
    assert!(
        socket(&["--key", &format!("pwdfile={key},mode=aes-256-cbc,kdf=sha512")])
            .contains("host key is not the one")
    );
    let with_key = format!("pwdfile={key},mode=aes-256-cbc,remove");
    let server = Server::start(SWTPM, &state, dir.path(), &["--key", &with_key]);
    assert!(!Path::new(&key).exists());
    assert_eq!(said(IOCTL, &["--unix", &server.control(), "-g"]), "ptm configuration flags: 0x1\n");
    server.shut_down();
}

#[test]
fn a_key_comes_over_a_descriptor_that_was_handed_down() {
    let (dir, state) = place();
    let at = |name: &str| dir.path().join(name).display().to_string();
    fs::write(at("key"), "00112233445566778899aabbccddeeff").unwrap();
    let (control, log) = (format!("type=unixio,path={}", at("c")), format!("file={}", at("log")));
    let tpm = format!("dir={state}");
    let line = |key| {
        vec![
            SWTPM,
            "socket",
            "--tpm2",
            "--daemon",
            "--tpmstate",
            &tpm,
            "--ctrl",
            &control,
            "--log",
            &log,
            "--key",
            key,
        ]
    };
    let redirected = |key| {
        let shell = format!("exec \"$@\" 5<{}", at("key"));
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &shell, "sh"]).args(line(key)).stdin(Stdio::null());
        command.output().unwrap()
    };
    // 3 is the log, which the program opened itself.
    for key in ["fd=3", "fd=5", "fd=77", "fd=1"] {
        let error = refused(SWTPM, &line(key)[1..]);
        assert!(error.contains("cannot be used") || error.contains("no value of fd"), "{error}");
    }
    let short = redirected("fd=5,mode=aes-256-cbc");
    assert!(text(&short.stderr).contains("length of its mode"));
    let started = redirected("fd=5");
    assert!(started.status.success(), "{}", text(&started.stderr));
    assert_eq!(said(IOCTL, &["--unix", &at("c"), "-g"]), "ptm configuration flags: 0x1\n");
    said(IOCTL, &["--unix", &at("c"), "-s"]);
    assert!(!Path::new(&state).join("host.key").exists());
}

#[test]
fn a_migration_key_is_read_in_each_form_that_debians_swtpm_reads_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let digits = "00112233445566778899aabbccddeeff";
    for (name, content) in [
        ("hex", digits.to_owned()),
        ("0x", format!("0x{digits}\n")),
        ("long", digits.repeat(2)),
        ("binary", "0123456789abcdef".to_owned()),
        ("short", digits[..30].to_owned()),
        ("pwd", "a passphrase".to_owned()),
    ] {
        fs::write(at(name), content).unwrap();
    }
    for program in [SWTPM, DEBIANS].into_iter().filter(|p| *p == SWTPM || debian(&["swtpm"])) {
        let (place, state) = place();
        let control = place.path().join("c").display().to_string();
        let start = |key: &str, open: &str| {
            let (tpm, channel) = (format!("dir={state}"), format!("type=unixio,path={control}"));
            let line = ["socket", "--tpm2", "--tpmstate", &tpm, "--ctrl", &channel, "--migration-key", key];
            with_descriptor(program, &line, fs::File::open(open).unwrap().into())
        };
        for (key, open) in [
            (format!("file={}", at("hex")), "hex"),
            (format!("file={},mode=aes-cbc", at("0x")), "hex"),
            (format!("file={},mode=aes-256-cbc,format=hex", at("long")), "hex"),
            (format!("file={},format=binary", at("binary")), "hex"),
            ("fd=5,mode=aes-128-cbc".to_owned(), "hex"),
            (format!("pwdfile={}", at("pwd")), "hex"),
            (format!("pwdfile={},kdf=sha512,mode=aes-256-cbc", at("pwd")), "hex"),
            ("pwdfd=5,kdf=pbkdf2".to_owned(), "pwd"),
        ] {
            let mut child = start(&key, &at(open));
            until("the control channel", || {
                assert!(child.try_wait().unwrap().is_none(), "{program} {key}");
                UnixStream::connect(&control).ok()
            });
            // PTM_CONFIG_FLAG_MIGRATION_KEY, and no key of the state.
            let flags = said(IOCTL, &["--unix", &control, "-g"]);
            assert_eq!(flags, "ptm configuration flags: 0x2\n", "{program} {key}");
            said(IOCTL, &["--unix", &control, "-s"]);
            assert!(ended(&mut child), "{program} {key}");
            let _gone = fs::remove_file(&control);
        }
        for key in [
            format!("file={}", at("short")),
            format!("file={},mode=aes-256-cbc", at("hex")),
            format!("file={},mode=des", at("hex")),
            format!("file={},format=octal", at("hex")),
            format!("file={}", at("nothing")),
            format!("pwdfile={},kdf=md5", at("pwd")),
            "fd=77".to_owned(),
            "mode=aes-cbc".to_owned(),
        ] {
            let mut child = start(&key, &at("hex"));
            assert!(!ended(&mut child), "{program} {key}");
        }
        // The file goes when that is asked for.
        fs::write(at("once"), digits).unwrap();
        let mut child = start(&format!("file={},remove=true", at("once")), &at("hex"));
        until("the control channel", || UnixStream::connect(&control).ok());
        assert!(!Path::new(&at("once")).exists(), "{program}");
        said(IOCTL, &["--unix", &control, "-s"]);
        assert!(ended(&mut child), "{program}");
    }
}
