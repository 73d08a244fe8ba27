//! A database of which something was changed behind vtpmd's back, or lost.

use vtpm_protocol::control::{InitFlags, Request};
use vtpm_protocol::tpm::TpmSu;

use super::*;

/// What the page size of the database is.
const PAGE: usize = 4096;

/// Two machines; the counters of both say 1.
fn two_machines(dir: &Path) -> Host {
    let mut host = host(dir, &["a", "b"]);
    for name in ["a", "b"] {
        let mut machine = boot(&host, name);
        define(&mut machine.data, DATA, 0, 2048);
        define(&mut machine.data, COUNTER, NT_COUNTER, 8);
        assert_eq!(increment(&mut machine.data).unwrap(), ResponseCode::SUCCESS);
    }
    host.terminate();
    host
}

/// Name and state of all that `vtpmctl list` shows.
fn listed(host: &Host) -> Vec<(String, String)> {
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let list = host.json(&["list"]);
    list.as_array().unwrap().iter().map(|one| (text(&one["name"]), text(&one["state"]))).collect()
}

/// Makes this the database, without what a daemon that was killed left in its log.
fn put(path: &Path, bytes: &[u8]) {
    let _ = std::fs::remove_file(path.with_extension("sqlite-wal"));
    std::fs::write(path, bytes).unwrap();
}

fn pair(name: &str, state: &str) -> (String, String) {
    (name.to_owned(), state.to_owned())
}

#[test]
fn a_damaged_instance_is_listed_as_such_and_can_be_deleted_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = two_machines(dir.path());
    let path = host.state().join("vtpmd.sqlite");
    let whole = std::fs::read(&path).unwrap();
    let damages = [
        "UPDATE record SET sealed = zeroblob(length(sealed)) WHERE instance = (SELECT id FROM instance WHERE name = 'a')",
        "UPDATE instance SET attributes = attributes + 1 WHERE name = 'a'",
        "DELETE FROM instance_key WHERE instance = (SELECT id FROM instance WHERE name = 'a')",
    ];
    for sql in damages {
        put(&path, &whole);
        let database = rusqlite::Connection::open(&path).unwrap();
        assert!(database.execute(sql, []).unwrap() > 0);
        drop(database);
        host.run();
        // The first list makes it known, where nothing else has.
        assert_eq!(listed(&host), [pair("a", "damaged"), pair("b", "live")], "{sql}");
        assert!(host.refused(&["info", "a"]).contains("is damaged"));
        if let Ok(socket) = UnixStream::connect(host.runtime().join("a/control.sock")) {
            drop(socket);
            let mut a = Machine::connect(&host.runtime().join("a/control.sock"));
            assert_ne!(a.result(Request::Init(InitFlags(0))), 0);
        }
        let b = increment(&mut boot(&host, "b").data).unwrap();
        assert_eq!(b, ResponseCode::SUCCESS);
        assert!(host.refused(&["delete", "a"]).contains("is damaged"), "without --force");
        host.ctl(&["delete", "a", "--force"]);
        assert_eq!(listed(&host), [pair("b", "live")], "{sql}");
        host.ctl(&["create", "a"]);
        assert_eq!(host.state_of("a"), "live");
        host.terminate();
    }
}

#[test]
fn a_damaged_page_costs_the_instances_in_it_or_keeps_the_daemon_from_starting_with_the_cause() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = two_machines(dir.path());
    let path = host.state().join("vtpmd.sqlite");
    let whole = std::fs::read(&path).unwrap();
    let log = dir.path().join("log");
    let (mut refused, mut damaged, mut unnoticed) = (0, 0, 0);
    for page in 0..whole.len() / PAGE {
        let mut bytes = whole.clone();
        bytes[page * PAGE..][..PAGE].fill(0xa5);
        put(&path, &bytes);
        let mut program = host.vtpmd("run");
        program.stderr(std::fs::File::create(&log).unwrap());
        if host.launch(program).is_some() {
            let said = std::fs::read_to_string(&log).unwrap();
            let cause = ["vtpmd.sqlite is damaged", "vtpmd.sqlite is not a", "instance 1"];
            assert!(
                said.contains("vtpmd: ") && cause.iter().any(|cause| said.contains(cause)),
                "{page}: {said}"
            );
            assert!(!said.contains("panicked"), "{page}: {said}");
            refused += 1;
            host.kill();
            continue;
        }
        let list = listed(&host);
        let names: Vec<&str> = list.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b"], "{page}");
        for (name, state) in &list {
            if state == "damaged" {
                damaged += 1;
                continue;
            }
            // Whole: with all that was acknowledged, and more can be written.
            assert_eq!(state, "live", "{page}");
            let mut machine = Machine::connect(&host.runtime().join(name).join("control.sock"));
            assert_eq!(machine.result(Request::Init(InitFlags(0))), 0, "{page}");
            let started = machine.data.run(TpmCc::STARTUP, &[], None, &TpmSu::CLEAR).unwrap().0;
            assert_eq!(started, ResponseCode::SUCCESS, "{page}");
            assert_eq!(count(&mut machine.data), 1, "{page}");
            assert_eq!(increment(&mut machine.data).unwrap(), ResponseCode::SUCCESS, "{page}");
        }
        unnoticed += usize::from(list.iter().all(|(_, state)| state == "live"));
        assert!(host.ended().is_none(), "{page}");
        host.kill();
        let said = std::fs::read_to_string(&log).unwrap();
        assert!(!said.contains("panicked"), "{page}: {said}");
    }
    let pages = whole.len() / PAGE;
    println!(
        "of {pages} pages {refused} keep the daemon from starting, {unnoticed} had nothing in them; {damaged} times an instance"
    );
    assert!(refused > 0 && damaged > 0);
    // What was damaged is put back.
    put(&path, &whole);
    host.run();
    assert_eq!(count(&mut boot(&host, "a").data), 1);
}
