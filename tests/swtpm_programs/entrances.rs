//! Where the programs take commands from, and what they become before they do: devices, sockets that were handed down, addresses, users.

use std::os::unix::fs::chown;
use std::os::unix::net::UnixListener;

use nix::pty::openpty;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::ttyname;

use super::*;

/// TPM2_GetCapability of TPM_PT_FAMILY_INDICATOR, which is the same for all.
const FAMILY: &[u8] = &[0x80, 1, 0, 0, 0, 22, 0, 0, 1, 0x7a, 0, 0, 0, 6, 0, 0, 1, 0, 0, 0, 0, 1];
/// A command of no known code, which is answered all the same.
const UNKNOWN: &[u8] = &[0x80, 1, 0, 0, 0, 10, 0, 0, 9, 0x99];

#[test]
fn a_device_that_is_handed_down_is_served_as_debians_swtpm_serves_it_and_its_end_is_the_programs() {
    let mut all = Vec::new();
    for program in [SWTPM, DEBIANS].into_iter().filter(|p| *p == SWTPM || debian(&["swtpm"])) {
        let (_dir, state) = place();
        let tpm = format!("dir={state}");
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(LONG)).unwrap();
        let line = ["chardev", "--tpm2", "--fd", "5", "--tpmstate", &tpm, "--flags", "not-need-init"];
        let mut child = with_descriptor(program, &line, theirs.into());
        let responses: Vec<_> =
            [FAMILY, STARTUP, FAMILY, UNKNOWN].map(|command| transmit(&mut ours, command)).into();
        all.push(responses);
        drop(ours);
        assert!(ended(&mut child), "{program}");
    }
    assert!(all[0][2].ends_with(b"2.0\0"));
    assert!(all.iter().all(|responses| *responses == all[0]), "{all:02x?}");
}

#[test]
fn a_device_is_opened_by_its_path_and_has_a_control_channel() {
    let (dir, state) = place();
    let pair = openpty(None, None).unwrap();
    let mut modes = tcgetattr(&pair.slave).unwrap();
    cfmakeraw(&mut modes);
    tcsetattr(&pair.slave, SetArg::TCSANOW, &modes).unwrap();
    let path = ttyname(&pair.slave).unwrap().display().to_string();
    let control = dir.path().join("c").display().to_string();
    let start = || {
        let child = Command::new(SWTPM)
            .args(["chardev", "--tpm2", "--chardev", &path, "--tpmstate", &format!("dir={state}")])
            .args(["--ctrl", &format!("type=unixio,path={control}")])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        until("the control channel", || UnixStream::connect(&control).ok());
        child
    };
    // SIGTERM ends it in good order.
    let mut child = start();
    let process = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(ended(&mut child));
    assert!(!Path::new(&control).exists());
    let mut child = start();
    said(IOCTL, &["--unix", &control, "-i"]);
    let mut master = fs::File::from(pair.master);
    assert_eq!(transmit(&mut master, STARTUP)[6..], [0; 4]);
    assert_eq!(transmit(&mut master, &GET_RANDOM).len(), 20);
    assert_eq!(said(IOCTL, &["--unix", &control, "-e"]), "tpmEstablished is 0\n");
    said(IOCTL, &["--unix", &control, "-s"]);
    assert!(ended(&mut child));
}

#[test]
fn what_is_no_device_is_refused() {
    let (dir, state) = place();
    let tpm = format!("dir={state}");
    let nothing = dir.path().join("nothing").display().to_string();
    for (more, word) in [
        (&[][..], "--chardev"),
        (&["--chardev", &state], "directory"),
        (&["--chardev", &nothing], "nothing"),
        (&["--fd", "77"], "77"),
        (&["--vtpm-proxy", "--chardev", "/dev/null"], "one device"),
        (&["--server", "port=1"], "--server"),
    ] {
        let line = [&["chardev", "--tpm2", "--tpmstate", &tpm], more].concat();
        let error = refused(SWTPM, &line);
        assert!(error.contains(word), "{line:?}: {error}");
    }
    if !Path::new("/dev/vtpmx").exists() {
        let error = refused(SWTPM, &["chardev", "--tpm2", "--tpmstate", &tpm, "--vtpm-proxy"]);
        assert!(error.contains("/dev/vtpmx"), "{error}");
    }
}

#[test]
fn listening_sockets_and_clients_are_handed_down() {
    let (dir, state) = place();
    let tpm = format!("dir={state}");
    let path = dir.path().join("c");
    let listener = UnixListener::bind(&path).unwrap();
    let line = ["socket", "--tpm2", "--tpmstate", &tpm, "--ctrl", "type=unixio,fd=5"];
    let mut child = with_descriptor(SWTPM, &line, listener.into());
    let control = path.display().to_string();
    for _ in 0..2 {
        assert_eq!(said(IOCTL, &["--unix", &control, "-e"]), "tpmEstablished is 0\n");
    }
    said(IOCTL, &["--unix", &control, "-s"]);
    assert!(ended(&mut child));

    // As a socket for TPM commands, which one client after the other uses.
    let data = dir.path().join("d");
    let listener = UnixListener::bind(&data).unwrap();
    let ctrl = format!("type=unixio,path={}", dir.path().join("c2").display());
    let server = ["--server", "type=unixio,fd=5", "--flags", "startup-clear", "--ctrl", &ctrl];
    let line = [&["socket", "--tpm2", "--tpmstate", &tpm][..], &server].concat();
    let mut child = with_descriptor(SWTPM, &line, listener.into());
    for _ in 0..2 {
        let mut client = UnixStream::connect(&data).unwrap();
        client.set_read_timeout(Some(LONG)).unwrap();
        assert_eq!(transmit(&mut client, &GET_RANDOM).len(), 20);
    }
    let control = dir.path().join("c2").display().to_string();
    said(IOCTL, &["--unix", &control, "-s"]);
    assert!(ended(&mut child));

    // A client that is connected already, over which the program ends with it.
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let line = ["socket", "--tpm2", "--tpmstate", &tpm, "--ctrl", "type=unixio,clientfd=5,terminate"];
    let mut child = with_descriptor(SWTPM, &line, theirs.into());
    // CMD_GET_CAPABILITY.
    ours.write_all(&[0, 0, 0, 1]).unwrap();
    let mut response = [0; 8];
    ours.set_read_timeout(Some(LONG)).unwrap();
    ours.read_exact(&mut response).unwrap();
    assert_eq!(response[..4], [0; 4]);
    drop(ours);
    assert!(ended(&mut child));
}

#[test]
fn an_address_of_one_link_needs_its_interface() {
    let (_dir, state) = place();
    let tpm = format!("dir={state}");
    let server = |more: &str| format!("type=tcp,port=2345,bindaddr=fe80::7{more}");
    let error = refused(SWTPM, &["socket", "--tpm2", "--tpmstate", &tpm, "--server", &server("")]);
    assert!(error.contains("ifname"), "{error}");
    // In a network of its own: the address is nobody else's.
    let shell = "ip link set lo up && ip -6 address add fe80::7/64 dev lo nodad && exec \"$@\"";
    let mut child = Command::new("unshare")
        .args(["--net", "sh", "-c", shell, "sh", SWTPM, "socket", "--tpm2", "--tpmstate", &tpm])
        .args(["--server", &server(",ifname=lo")])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let table = format!("/proc/{}/net/tcp6", child.id());
    // In the order of bytes that the table has; 2345 is 0x929, and 0A a socket that listens.
    until("the socket", || {
        let table = fs::read_to_string(&table).unwrap_or_default();
        let ours =
            |line: &&str| line.contains("000080FE000000000000000007000000:0929") && line.contains(" 0A ");
        table.lines().find(ours).map(drop)
    });
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn another_user_and_another_root_are_taken_before_anything_is_made() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not tried: only root may become somebody else");
        return;
    }
    let (dir, state) = place();
    let (nobody, group) = (65534, 65534);
    chown(&state, Some(nobody), Some(group)).unwrap();
    let log = dir.path().join("state/log").display().to_string();
    let mut child = Command::new(SWTPM)
        .args(["socket", "--tpm2", "--tpmstate", "dir=/", "--ctrl", "type=unixio,path=/c"])
        .args(["--chroot", &state, "--runas", "nobody", "--log", "file=/log"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let control = format!("{state}/c");
    until("the control channel", || {
        assert!(child.try_wait().unwrap().is_none(), "it ended: {:?}", fs::read_to_string(&log));
        UnixStream::connect(&control).ok()
    });
    let process = format!("/proc/{}", child.id());
    let status = fs::read_to_string(format!("{process}/status")).unwrap();
    for (field, expected) in
        [("Uid:", "65534\t65534\t65534\t65534"), ("Groups:", "65534"), ("CapEff:", "0000000000000000")]
    {
        let found = status.lines().find_map(|line| line.strip_prefix(field)).unwrap().trim();
        assert_eq!(found, expected, "{field}");
    }
    assert_eq!(fs::read_link(format!("{process}/root")).unwrap(), Path::new(&state));
    said(IOCTL, &["--unix", &control, "-i"]);
    said(IOCTL, &["--unix", &control, "-s"]);
    assert!(ended(&mut child));
    for file in fs::read_dir(&state).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().uid(), nobody, "{file:?}");
    }
    let error = refused(
        SWTPM,
        &[
            "socket",
            "--tpm2",
            "--tpmstate",
            "dir=/x",
            "--ctrl",
            "type=unixio,path=/c",
            "--runas",
            "no such user",
        ],
    );
    assert!(error.contains("no such user"), "{error}");
}
