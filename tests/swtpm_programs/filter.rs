//! The filter of system calls, and what a TPM does behind it.

use super::*;

/// What the kernel says of each thread of a process: `NoNewPrivs` and `Seccomp`.
fn filters(process: u32) -> Vec<(String, String)> {
    let status = |path: PathBuf| fs::read_to_string(path.join("status")).unwrap();
    let field = |status: &str, name: &str| -> String {
        status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
    };
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let all = threads.map(|thread| status(thread.unwrap().path()));
    all.map(|status| (field(&status, "NoNewPrivs:"), field(&status, "Seccomp:"))).collect()
}

#[test]
fn all_threads_are_behind_a_filter_unless_that_is_not_wanted() {
    let (dir, state) = place();
    for (more, expected) in [
        (&["--flags", "startup-clear"][..], ("1", "2")),
        (&["--flags", "startup-clear", "--seccomp", "action=log"], ("1", "2")),
        (&["--flags", "startup-clear", "--seccomp", "action=none"], ("0", "0")),
    ] {
        let server = Server::start(SWTPM, &state, dir.path(), more);
        let mut client = UnixStream::connect(dir.path().join("s")).unwrap();
        client.write_all(&GET_RANDOM).unwrap();
        client.read_exact(&mut [0; 20]).unwrap();
        let found = filters(server.child.id());
        // The main thread, those that wait for signals and clients, one of the store, and that of the client.
        assert!(found.len() >= 5, "{found:?}");
        let expected = (expected.0.to_owned(), expected.1.to_owned());
        assert!(found.iter().all(|thread| *thread == expected), "{more:?}: {found:?}");
        drop(client);
        server.shut_down();
    }
}

#[test]
fn an_rsa_key_is_made_and_used_behind_the_filter() {
    let (dir, state) = place();
    let server =
        Server::start(SWTPM, &state, dir.path(), &["--flags", "startup-clear", "--seccomp", "action=kill"]);
    let mut client = UnixStream::connect(dir.path().join("s")).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    // TPM2_CreatePrimary: no data, a key of 2048 bits that signs with RSASSA and SHA-256, nothing from outside, no PCRs.
    let template = [0, 1, 0, 11, 0, 4, 4, 0x72, 0, 0, 0, 0x10, 0, 0x14, 0, 11, 8, 0, 0, 0, 0, 0, 0, 0];
    let parameters = [&[0, 4, 0, 0, 0, 0, 0, 24][..], &template, &[0; 6]].concat();
    let made = run(&mut client, 0x131, 0x4000_0001, &parameters);
    let handle = u32::from_be_bytes(made[..4].try_into().unwrap());
    // TPM2_Sign: a digest, the key's own scheme, the ticket of none.
    let parameters = [&[0, 32][..], &[7; 32], &[0, 0x10, 0x80, 0x24, 0x40, 0, 0, 7, 0, 0]].concat();
    let signed = run(&mut client, 0x15d, handle, &parameters);
    assert_eq!(signed[4..10], [0, 0x14, 0, 11, 1, 0]);
    drop(client);
    server.shut_down();
}
