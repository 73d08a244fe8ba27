//! `--migration`: two processes that have one directory, of which one after the other has the TPM in it.

use super::*;

/// TPM2_PCR_Extend of PCR 10.
const EXTEND: u32 = 0x182;
/// TPM2_PCR_Read of PCR 10 in the bank of SHA-256.
const PCR_READ: &[u8] = &[0x80, 1, 0, 0, 0, 20, 0, 0, 1, 0x7e, 0, 0, 0, 1, 0, 11, 3, 0, 4, 0];
/// A locked TPM's answer: TPM_RC_RETRY.
const RETRY: &[u8] = &[0x80, 1, 0, 0, 0, 10, 0, 0, 9, 0x22];

const OUTGOING: &[&str] = &["--migration", "release-lock-outgoing"];
const INCOMING: &[&str] = &["--migration", "incoming,release-lock-outgoing"];

/// A process with its sockets in a directory of its own.
struct Host {
    server: Server,
    dir: tempfile::TempDir,
}

impl Host {
    fn start(state: &str, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = format!("file={}", dir.path().join("log").display());
        let server = Server::start(SWTPM, state, dir.path(), &[more, &["--log", &log]].concat());
        Self { server, dir }
    }

    fn ioctl(&self, arguments: &[&str]) -> Output {
        call(IOCTL, &[&["--unix", &self.server.control()], arguments].concat())
    }

    fn must(&self, arguments: &[&str]) {
        let output = self.ioctl(arguments);
        assert!(output.status.success(), "{arguments:?}: {} {}", text(&output.stderr), self.log());
    }

    fn client(&self) -> UnixStream {
        let client = UnixStream::connect(self.dir.path().join("s")).unwrap();
        client.set_read_timeout(Some(LONG)).unwrap();
        client
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// As QEMU does when a machine leaves: all kinds of state, in its order.
    fn give(&self, to: &Path) -> String {
        let blob = to.join("blob").display().to_string();
        self.must(&["--save", "permanent", &blob]);
        for kind in ["volatile", "savestate"] {
            self.ioctl(&["--save", kind, &to.join(kind).display().to_string()]);
        }
        blob
    }

    /// As QEMU does when a machine arrives.
    fn take(&self, blob: &str) {
        self.must(&["--stop"]);
        self.must(&["--load", "permanent", blob]);
        self.must(&["-i"]);
    }
}

/// What PCR 10 is, without the counter of changes before it.
fn pcr(client: &mut UnixStream) -> Vec<u8> {
    let response = transmit(client, PCR_READ);
    assert_eq!(response[6..10], [0; 4]);
    response[response.len() - 32..].to_vec()
}

fn extend(client: &mut UnixStream, with: u8) {
    run(client, EXTEND, 10, &[&[0, 0, 0, 1, 0, 11][..], &[with; 32]].concat());
}

#[test]
fn a_tpm_goes_to_the_process_that_its_machine_goes_to_and_back() {
    let (dir, state) = place();
    let first = Host::start(&state, OUTGOING);
    first.must(&["-i"]);
    let mut guest = first.client();
    transmit(&mut guest, STARTUP);
    extend(&mut guest, 7);
    let extended = pcr(&mut guest);

    // The other one starts while the state is in use, and has not touched it.
    let second = Host::start(&state, INCOMING);
    assert_eq!(text(&second.ioctl(&["-e"]).stdout), "tpmEstablished is 0\n");
    assert_eq!(pcr(&mut guest), extended);
    let blob = first.give(dir.path());
    second.take(&blob);
    let mut arrived = second.client();
    assert_eq!(pcr(&mut arrived), extended, "no TPM2_Startup, and what was");

    // The first one has it no more, whatever it is asked.
    assert_eq!(transmit(&mut guest, &GET_RANDOM), RETRY);
    assert!(!first.ioctl(&["--lock-storage", "1"]).status.success());
    assert!(!first.ioctl(&["-i"]).status.success());
    assert!(first.log().contains("in use by process"), "{}", first.log());

    // And back, to a process that is started for it, with what happened meanwhile.
    extend(&mut arrived, 9);
    let extended = pcr(&mut arrived);
    drop((guest, first));
    let third = Host::start(&state, INCOMING);
    let old = format!("{blob}.old");
    fs::rename(&blob, &old).unwrap();
    let again = second.give(dir.path());
    assert!(!third.ioctl(&["--load", "permanent", &old]).status.success(), "it came back once already");
    third.take(&again);
    assert_eq!(pcr(&mut third.client()), extended);
    drop(arrived);
    second.server.shut_down();
    third.server.shut_down();
}

#[test]
fn a_machine_that_falls_back_has_its_tpm_back_and_what_it_gave_out_is_worth_nothing() {
    let (dir, state) = place();
    let source = Host::start(&state, OUTGOING);
    source.must(&["-i"]);
    let mut guest = source.client();
    transmit(&mut guest, STARTUP);
    extend(&mut guest, 7);
    let destination = Host::start(&state, INCOMING);
    let blob = source.give(dir.path());
    // QEMU asks for it when the machine runs on at the source, before it does.
    source.must(&["--lock-storage", "300"]);
    extend(&mut guest, 8);
    let extended = pcr(&mut guest);
    // It waits for the other one, in vain.
    assert!(!destination.ioctl(&["--load", "permanent", &blob]).status.success());
    assert!(destination.log().contains("in use by process"), "{}", destination.log());
    assert_eq!(pcr(&mut guest), extended);
    drop(guest);
    source.server.shut_down();
    // Nor is it worth anything when the source is gone.
    assert!(!destination.ioctl(&["--load", "permanent", &blob]).status.success());
    assert!(destination.log().contains("comes back once"), "{}", destination.log());
    destination.must(&["-i"]);
    assert_eq!(transmit(&mut destination.client(), STARTUP)[6..], [0; 4]);
    destination.server.shut_down();
}

#[test]
fn a_source_that_is_not_told_to_let_go_keeps_the_tpm() {
    let (dir, state) = place();
    let source = Host::start(&state, &[]);
    source.must(&["-i"]);
    let mut guest = source.client();
    transmit(&mut guest, STARTUP);
    let destination = Host::start(&state, &["--migration", "incoming"]);
    let blob = source.give(dir.path());
    assert!(!destination.ioctl(&["--load", "permanent", &blob]).status.success());
    source.must(&["--lock-storage", "1"]);
    assert_eq!(transmit(&mut guest, &GET_RANDOM).len(), 20);
}
