//! vtpmd and vtpmctl as an operator has them.
#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]

mod common;

use common::Host;
use serde_json::json;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};
use vtpm_protocol::instance::{CreateInstanceIn, INSTANCE_SELF, InstanceAttributes, InstanceName, Uuid, cc};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::*;

const UUID: &str = "b9a6a2d4-5f6e-4c3b-9a51-6f3c1d2e4f50";

#[test]
fn init_makes_a_private_state_once() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), "a");
    for file in ["root.auth", "host.key", "vtpmd.sqlite"] {
        assert_eq!(std::fs::metadata(host.state().join(file)).unwrap().mode() & 0o077, 0, "{file}");
    }
    let again = host.vtpmd("init").output().unwrap();
    assert!(!again.status.success());
    assert!(String::from_utf8_lossy(&again.stderr).contains("exists already"));
    let second = host.vtpmd("run").output().unwrap();
    assert!(!second.status.success(), "two daemons on one state");
}

#[test]
fn instances_are_made_listed_shown_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = Host::start(dir.path(), "a");
    let made = host.json(&["create", "guest", "--uuid", UUID]);
    assert_eq!(made["state"], "live");
    assert_eq!(made["uuid"], UUID);
    let socket = host.runtime().join("guest/vhost-user.sock");
    assert_eq!(made["socket"], socket.to_str().unwrap());
    assert!(socket.exists());
    assert!(host.refused(&["create", "guest"]).contains("already"));
    assert!(host.refused(&["create", "other", "--uuid", UUID]).contains("already"));
    assert!(host.refused(&["create", "../up"]).contains("cannot be the name"));
    assert!(host.refused(&["info", "nobody"]).contains("no instance"));

    host.ctl(&["create", "tenant", "--privileged"]);
    host.ctl(&["create", "inner", "--parent", "tenant"]);
    assert!(!host.ctl_output(&["delete", "tenant"]).status.success(), "it has a descendant");
    let names = |host: &Host| -> Vec<String> {
        let list = host.json(&["list"]);
        list.as_array().unwrap().iter().map(|i| i["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&host), ["guest", "tenant", "inner"]);
    assert!(host.ctl(&["list"]).contains("    inner") || host.ctl(&["list"]).contains("  inner"));

    host.terminate();
    assert!(!socket.exists());
    host.run();
    assert_eq!(names(&host), ["guest", "tenant", "inner"]);
    assert!(socket.exists());
    for name in ["inner", "tenant", "guest"] {
        host.ctl(&["delete", name]);
    }
    assert!(names(&host).is_empty());
    assert!(!socket.exists());
}

#[test]
fn no_more_instances_are_made_than_the_configuration_allows() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = Host::start(dir.path(), "a");
    host.terminate();
    let config = dir.path().join("vtpmd.toml");
    std::fs::write(&config, "[limits]\ninstances = 2\n").unwrap();
    host.run_with(&["--config", config.to_str().unwrap()]);
    host.ctl(&["create", "one"]);
    assert!(host.refused(&["create", "two"]).contains("TPM_RC_NV_SPACE"));
    host.ctl(&["delete", "one"]);
    host.ctl(&["create", "two"]);
}

#[test]
fn a_group_may_connect_to_the_machines_sockets_and_to_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = Host::start(dir.path(), "a");
    host.ctl(&["create", "before"]);
    let mode = |path: &str| std::fs::metadata(host.runtime().join(path)).unwrap().mode() & 0o777;
    assert_eq!((mode(""), mode("before"), mode("before/vhost-user.sock")), (0o700, 0o700, 0o600));
    host.terminate();

    let own = std::fs::metadata(dir.path()).unwrap();
    let group = if own.uid() == 0 { 4711 } else { own.gid() };
    host.run_with(&["--socket-group", &group.to_string()]);
    host.ctl(&["create", "after"]);
    let found = |path: &str| {
        let found = std::fs::metadata(host.runtime().join(path)).unwrap();
        (found.mode() & 0o777, found.gid() == group)
    };
    assert_eq!(found(""), (0o710, true));
    for name in ["before", "after"] {
        assert_eq!(found(name), (0o710, true));
        assert_eq!(found(&format!("{name}/vhost-user.sock")), (0o660, true));
    }
    assert_eq!((found("root").0, found("root/tpm.sock").0), (0o700, 0o600));

    host.terminate();
    let refused = host.vtpmd("run").args(["--socket-group", "no-such-group"]).output().unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8(refused.stderr).unwrap().contains("no-such-group"));
}

#[test]
fn a_low_soft_limit_on_descriptors_does_not_limit_the_instances() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = Host::start(dir.path(), "a");
    host.terminate();
    host.run_under("ulimit -S -n 24");
    for n in 0..20 {
        let name = format!("i{n}");
        host.ctl(&["create", &name]);
        std::os::unix::net::UnixStream::connect(host.runtime().join(name).join("vhost-user.sock")).unwrap();
    }
}

#[test]
fn the_platform_hierarchy_of_the_root_is_nobodys() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), "a");
    let (rc, _) = host.raw().run(TpmCc::CLEAR, &[TpmHandle::PLATFORM], Some(b""), &()).unwrap();
    assert_eq!(rc, ResponseCode::BAD_AUTH.session(1));
}

#[test]
fn the_owner_authorization_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), "a");
    let auth = host.state().join("root.auth");
    let (rc, _) = host
        .raw()
        .run(cc::LIST_INSTANCES, &[TpmHandle::OWNER, TpmHandle(0xa000_0000)], Some(b"x"), &(0u32, 9u32))
        .unwrap();
    assert_eq!(rc, ResponseCode::BAD_AUTH.session(1));
    std::fs::write(&auth, "00ff\n").unwrap();
    assert!(host.refused(&["list"]).contains("TPM_RC_BAD_AUTH"));
    std::fs::remove_file(&auth).unwrap();
    assert!(host.refused(&["list"]).contains("root.auth"));
}

/// Prepares `name` on `to` and returns the path of the ticket.
fn prepare(to: &Host, name: &str, dir: &std::path::Path, ticket: &str, storage_key: &str) -> String {
    let path = dir.join(ticket).to_str().unwrap().to_owned();
    to.ctl(&["migrate", "prepare", name, "--uuid", UUID, "--ticket", &path, "--storage-key", storage_key]);
    path
}

#[test]
fn an_instance_moves_as_a_file_once() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Host::start(dir.path(), "a"), Host::start(dir.path(), "b"));
    a.pin(&b);
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    for storage_key in ["ecc", "rsa"] {
        let stream = path(&format!("{storage_key}.stream"));
        a.ctl(&["create", "guest", "--uuid", UUID]);
        assert!(a.refused(&["export", "guest", "--output", &stream]).contains("--ticket"));
        let ticket = prepare(&b, "guest", dir.path(), &format!("{storage_key}.ticket"), storage_key);
        assert_eq!(b.state_of("guest"), "destination-locked");
        a.ctl(&["export", "guest", "--ticket", &ticket, "--output", &stream]);
        assert_eq!(a.state_of("guest"), "exported");
        b.ctl(&["import", "guest", "--input", &stream]);
        assert_eq!(b.state_of("guest"), "imported");
        // The same stream again changes nothing.
        b.ctl(&["import", "guest", "--input", &stream]);
        assert_eq!(b.state_of("guest"), "imported");
        assert!(b.refused(&["migrate", "commit", "guest"]).contains("has not used it yet"));
        // The destination has not executed a command: it can still give up, and then the source lives again.
        let receipt = b.json(&["migrate", "abort", "guest"])["receipt"].as_str().unwrap().to_owned();
        assert_eq!(b.state_of("guest"), "void");
        let wrong = a.refused(&["migrate", "commit", "guest", "--receipt", &receipt]);
        assert!(wrong.contains("the receipt is not one") && wrong.contains("TPM_RC_SIGNATURE"), "{wrong}");
        a.ctl(&["migrate", "abort", "guest", "--receipt", &receipt]);
        assert_eq!(a.state_of("guest"), "live");
        assert!(a.refused(&["migrate", "abort", "guest"]).contains("guest is live"));
        b.ctl(&["delete", "guest"]);
        // A new slot is another migration: the old stream is foreign to it.
        let second = prepare(&b, "guest", dir.path(), &format!("{storage_key}.ticket2"), storage_key);
        assert!(b.refused(&["import", "guest", "--input", &stream]).contains("another migration"));
        let again = path(&format!("{storage_key}.stream2"));
        a.ctl(&["lock", "guest", "--ticket", &second]);
        assert_eq!(a.state_of("guest"), "source-locked");
        a.ctl(&["export", "guest", "--output", &again]);
        b.ctl(&["import", "guest", "--input", &again]);
        for host in [&a, &b] {
            assert!(host.refused(&["delete", "guest"]).contains("not settled"));
            host.ctl(&["delete", "guest", "--force"]);
        }
        // The log outlives the instance.
        let status = a.json(&["migrate", "status", "guest"]);
        assert_eq!((&status["side"], &status["state"]), (&json!("source"), &json!(null)));
        let steps: Vec<_> =
            status["steps"].as_array().unwrap().iter().map(|s| s["step"].as_str().unwrap()).collect();
        assert_eq!(steps, ["lock", "get-key", "get-data", "delete"]);
        assert!(status["steps"][2]["bytes"].as_u64().unwrap() > 1000);
        let text = b.ctl(&["migrate", "status"]);
        assert!(
            text.contains("guest: gone from here\n") && text.contains("this is its destination"),
            "{text}"
        );
        assert!(b.refused(&["migrate", "status", "other"]).contains("no instance"));
    }
}

#[test]
fn a_ticket_that_cannot_be_written_leaves_no_instance() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), "a");
    let prepare = ["migrate", "prepare", "guest", "--uuid", UUID, "--ticket"];
    assert!(host.refused(&[&prepare[..], &["/nonexistent/ticket"]].concat()).contains("/nonexistent/ticket"));
    assert_eq!(host.json(&["list"]), json!([]));
    let ticket = dir.path().join("ticket");
    host.ctl(&[&prepare[..], &[ticket.to_str().unwrap()]].concat());
}

#[test]
fn a_ticket_for_another_instance_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Host::start(dir.path(), "a"), Host::start(dir.path(), "b"));
    a.ctl(&["create", "guest"]);
    let ticket = prepare(&b, "guest", dir.path(), "ticket", "ecc");
    assert!(a.refused(&["migrate", "arm", "guest", "--ticket", &ticket]).contains(UUID));
    let junk = dir.path().join("junk");
    std::fs::write(&junk, [0; 100]).unwrap();
    assert!(
        a.refused(&["lock", "guest", "--ticket", junk.to_str().unwrap()]).contains("no migration ticket")
    );
    assert_eq!(a.state_of("guest"), "live");
}

#[test]
fn a_raw_client_that_sends_nonsense_is_answered_and_hung_up_on() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), "a");
    for header in [[0x80, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 1, 0x7b], [0x80, 1, 0, 0, 0, 9, 0, 0, 1, 0x7b]] {
        let mut raw = host.raw();
        let response = raw.transmit(&header).unwrap();
        assert_eq!(response[6..10], ResponseCode::COMMAND_SIZE.value().to_be_bytes());
        assert!(raw.transmit(&header).is_err());
    }
    let (rc, _) = host.raw().run(TpmCc::GET_RANDOM, &[], None, &8u16).unwrap();
    assert_eq!(rc, ResponseCode::SUCCESS);
}

#[test]
fn sigkill_at_any_moment_loses_no_acknowledged_command() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = Host::start(dir.path(), "a");
    let auth = host.owner_auth();
    let index = TpmHandle(0x0150_0000);
    let public = TpmsNvPublic {
        nv_index: index,
        name_alg: TpmiAlgHash(TpmAlgId::SHA256),
        attributes: TpmaNv::OWNER_WRITE | TpmaNv::OWNER_READ | TpmaNv(0).with_nt(TpmNt::Counter),
        auth_policy: Tpm2bDigest::empty(),
        data_size: 8,
    };
    let (rc, _) = host
        .raw()
        .run(TpmCc::NV_DEFINE_SPACE, &[TpmHandle::OWNER], Some(&auth), &(Tpm2bAuth::empty(), Sized2b(public)))
        .unwrap();
    assert_eq!(rc, ResponseCode::SUCCESS);
    let increment =
        |raw: &mut common::Raw| raw.run(TpmCc::NV_INCREMENT, &[TpmHandle::OWNER, index], Some(&auth), &());
    let read = |host: &Host| {
        let (rc, out) =
            host.raw().run(TpmCc::NV_READ, &[TpmHandle::OWNER, index], Some(&auth), &(8u16, 0u16)).unwrap();
        assert_eq!(rc, ResponseCode::SUCCESS);
        u64::from_be_bytes(out[6..14].try_into().unwrap())
    };
    assert_eq!(increment(&mut host.raw()).unwrap().0, ResponseCode::SUCCESS);
    let mut acknowledged = read(&host);
    for round in 0..10u64 {
        let mut raw = host.raw();
        // A killer beside a client that goes on until its connection breaks.
        std::thread::scope(|scope| {
            let client = scope.spawn(|| {
                let mut done = 0u64;
                while let Ok((rc, _)) = increment(&mut raw) {
                    assert_eq!(rc, ResponseCode::SUCCESS);
                    done += 1;
                }
                done
            });
            std::thread::sleep(Duration::from_millis(20 + 13 * round));
            host.kill();
            acknowledged += client.join().unwrap();
        });
        host.run();
        let now = read(&host);
        assert!(
            now == acknowledged || now == acknowledged + 1,
            "round {round}: {acknowledged} acknowledged, {now} there"
        );
        acknowledged = now;
    }
}

/// CreateInstance alone: a slot that is no TPM yet.
fn create_empty(host: &Host, name: &str) {
    let input = CreateInstanceIn {
        uuid: Uuid([7; 16]),
        name: InstanceName::new(name).unwrap(),
        attributes: InstanceAttributes::default(),
        storage_public: Tpm2b::empty(),
        certificate: Tpm2b::empty(),
    };
    let handles = [TpmHandle::OWNER, TpmHandle::NULL, TpmHandle(INSTANCE_SELF)];
    let passwords: [&[u8]; 2] = [&host.owner_auth(), b""];
    let (rc, _) = host.raw().run_with(cc::CREATE_INSTANCE, &handles, &passwords, &input).unwrap();
    assert_eq!(rc, ResponseCode::SUCCESS);
    assert_eq!(host.state_of(name), "destination-locked");
}

#[test]
fn unlock_makes_an_empty_instance_a_tpm_unless_the_digest_is_another() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), "a");
    create_empty(&host, "guest");
    assert!(host.refused(&["unlock", "guest", "--digest", &"00".repeat(32)]).contains("TPM_RC_VALUE"));
    assert!(host.refused(&["unlock", "guest", "--digest", "00"]).contains("32 bytes"));
    assert_eq!(host.state_of("guest"), "destination-locked");
    host.ctl(&["unlock", "guest"]);
    assert_eq!(host.state_of("guest"), "live");
    assert!(host.refused(&["unlock", "guest"]).contains("live"));
}

#[test]
fn a_single_back_end_finishes_the_instance_that_a_killed_one_began() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = Host::start(dir.path(), "a");
    create_empty(&host, "tpm");
    host.terminate();
    host.run_single(&dir.path().join("device.sock"));
    assert_eq!(host.state_of("tpm"), "live");
}

#[test]
fn a_manager_starts_one_back_end_with_qemus_conventions() {
    let dir = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_vtpmd");
    let printed = std::process::Command::new(program).arg("--print-capabilities").output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert_eq!(json["type"], "tpm");

    let socket = dir.path().join("device.sock");
    let mut child = std::process::Command::new(program)
        .arg("--socket-path")
        .arg(&socket)
        .arg("--state-dir")
        .arg(dir.path().join("state"))
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        assert!(Instant::now() < until && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(10));
    }
    // Beside others of its kind: all that it makes is in its own directory.
    assert!(dir.path().join("state/run/root/tpm.sock").exists());
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(!socket.exists());

    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    // Without close-on-exec, as a manager hands it down.
    let theirs = nix::unistd::dup(&theirs).unwrap();
    let number = std::os::fd::AsRawFd::as_raw_fd(&theirs);
    let mut child = std::process::Command::new(program)
        .arg(format!("--fd={number}"))
        .arg("--state-dir")
        .arg(dir.path().join("state"))
        .arg("--runtime-dir")
        .arg(dir.path().join("run"))
        .spawn()
        .unwrap();
    drop(theirs);
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none(), "it serves the connection");
    drop(ours);
    assert!(child.wait().unwrap().success(), "it ends with its connection");
}

#[test]
fn a_daemon_without_a_link_has_no_thread_for_it_and_one_with_it_few() {
    let threads = |configuration: &str| -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let mut host = Host::start(dir.path(), "a");
        host.terminate();
        let file = dir.path().join("vtpmd.toml");
        std::fs::write(&file, configuration).unwrap();
        host.run_with(&["--config", file.to_str().unwrap()]);
        std::thread::sleep(Duration::from_millis(300));
        let tasks = std::fs::read_dir(format!("/proc/{}/task", host.pid())).unwrap();
        let names = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap());
        names.map(|name| name.trim().to_owned()).filter(|name| name.starts_with("link")).collect()
    };
    assert_eq!(threads(""), Vec::<String>::new());
    let mut with = threads("[link]\nlisten = '127.0.0.1:0'\n");
    with.sort();
    assert_eq!(with, ["link courier", "link listener"]);
}
