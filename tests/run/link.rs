//! Over the peer link.

use std::process::{Child, Stdio};
use std::time::Duration;

use vtpm_protocol::instance::{
    GetInstanceDataIn, InstanceState, LockFlags, MigrationTicket, PieceKind, Uuid,
};
use vtpmd::tree::ECC_STORAGE_KEY;

use crate::proxy::Proxy;
use crate::site::{NAME, Site, UUID, until};
use crate::tpm::{INDICES, Possessions, fill, is_locked, possessions};

pub const RUN: [&str; 5] = ["migrate", "run", NAME, "--to", "b"];
/// What a connection sends before the stream: the handshake, the hello, the requests.
const BEFORE: usize = 6000;

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&RUN[..], more].concat()
}

/// A machine that has used its TPM and is shut down.
fn create(site: &Site) -> Possessions {
    site.ctl(&["create", NAME, "--uuid", UUID]);
    fill(site);
    possessions(site)
}

/// Two hosts and the TPM on the first.
pub fn pair() -> (Site, Site, Possessions) {
    let (a, b) = Site::pair();
    let kept = create(&a);
    (a, b, kept)
}

/// As [`pair`], with a network in between that the test has in its hand.
fn pair_with_proxy() -> (Site, Site, Possessions, Proxy) {
    let (a, b, kept) = pair();
    let proxy = Proxy::to(&b.address());
    a.forget(&b);
    a.add_peer(&b, &["--address", proxy.address()]);
    (a, b, kept, proxy)
}

/// The machine starts at the destination, and the source learns of it.
fn assert_arrived(a: &Site, b: &Site, kept: &Possessions) {
    assert_eq!(a.state(NAME).as_deref(), Some("exported"));
    assert_eq!(b.state(NAME).as_deref(), Some("imported"));
    assert_eq!(possessions(b), *kept);
    until("gone", || a.live_state().is_none());
    assert_eq!(b.state(NAME).as_deref(), Some("live"));
}

fn spawn(site: &Site, arguments: &[&str]) -> Child {
    site.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn uuid() -> Uuid {
    Uuid(*uuid::Uuid::parse_str(UUID).unwrap().as_bytes())
}

#[test]
fn an_instance_moves_whole_with_one_command() {
    let (a, b, kept) = pair();
    let told = a.json(&RUN);
    assert_eq!((&told["source"], &told["destination"]), (&"exported".into(), &"imported".into()), "{told}");
    assert_eq!((&told["portions"], &told["to"]), (&"whole".into(), &"b".into()), "{told}");
    assert!(told["bytes"].as_u64().unwrap() > 1900 * u64::from(INDICES), "{told}");
    assert_arrived(&a, &b, &kept);
    // Once more is no other migration.
    assert_eq!(a.json(&RUN)["done"], "gone");
    let missing = a.refused(&["migrate", "run", "nobody", "--to", "b"]);
    assert!(missing.contains("no instance \"nobody\""), "{missing}");
}

#[test]
fn nobody_is_served_between_the_export_and_the_first_command_there() {
    let (a, b, _kept) = pair();
    a.ctl(&RUN);
    // Again, before anything is decided: the same stream is taken again.
    let again = a.ctl(&RUN);
    assert!(again.contains("imported on b") && again.contains("first command of its machine"), "{again}");
    assert_eq!((a.state(NAME).as_deref(), b.state(NAME).as_deref()), (Some("exported"), Some("imported")));
    // The machine was started at the source after all: it is not answered, and calls the migration off.
    assert!(is_locked(&a));
    until("live", || a.live_state() == Some(InstanceState::Live));
    assert_eq!(b.state(NAME).as_deref(), Some("void"));
    assert!(is_locked(&b));
    // What was given up is in the way of another attempt, and both sides say so.
    let refused = a.refused(&RUN);
    assert!(refused.contains("was given up") && refused.contains("delete it"), "{refused}");
    assert_eq!(a.state(NAME).as_deref(), Some("live"));
    b.ctl(&["delete", NAME]);
    a.ctl(&RUN);
    assert_eq!(b.state(NAME).as_deref(), Some("imported"));
}

#[test]
fn one_that_waits_for_the_machine_ends_the_migration() {
    let (a, b, kept) = pair();
    let mut running = spawn(&a, &with(&["--wait", "60", "--json"]));
    until("imported", || b.state(NAME).as_deref() == Some("imported"));
    std::thread::sleep(Duration::from_millis(200));
    assert!(running.try_wait().unwrap().is_none(), "nothing is decided yet");
    assert_eq!(possessions(&b), kept);
    let output = running.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told["source"], &told["destination"]), (&"gone".into(), &"live".into()), "{told}");
    assert_eq!(a.state(NAME), None);
}

#[test]
fn without_a_link_of_the_source_the_command_fetches_the_receipt_itself() {
    let (mut a, b, kept) = pair();
    a.ctl(&RUN);
    // The receipt is decided while nobody at the source can ask for it.
    a.stop();
    assert_eq!(possessions(&b), kept);
    a.silence();
    a.run();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(a.state(NAME).as_deref(), Some("exported"));
    let told = a.json(&RUN);
    assert_eq!((&told["source"], &told["destination"]), (&"gone".into(), &"live".into()), "{told}");
    assert_eq!(a.state(NAME), None);
}

#[test]
fn the_state_moves_area_by_area_where_told_to_or_where_a_buffer_is_small() {
    for (more, portions, limit) in [
        (&["--progress"][..], "one step", None),
        (&["--progress", "--piecewise"], "area by area", None),
        (&["--progress", "--buffer", "9000"], "area by area", Some(9000)),
        (&["--progress", "--buffer", "1024"], "area by area", Some(1024)),
    ] {
        let (a, b, kept) = pair();
        let output = a.output(&with(more));
        let (text, progress) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success(), "{progress}");
        println!("{progress}{text}");
        assert!(text.contains(portions) && progress.contains(portions), "{text}{progress}");
        let indices = format!("{INDICES} NV indices, 1 persistent objects, 3 more");
        assert_eq!(text.contains(&indices), portions == "area by area", "{text}");
        if let Some(limit) = limit {
            assert!(text.contains(&format!("at most {limit} bytes at a time")), "{text}");
        }
        assert!(progress.contains("exporting: ") && progress.contains("sending: "), "{progress}");
        assert!(progress.contains("(100%)") && progress.contains("/s"), "{progress}");
        // One response for each area and each further part of one; or one for all.
        let steps = a.json(&["migrate", "status", NAME])["steps"].clone();
        let data = steps.as_array().unwrap().iter().find(|step| step["step"] == "get-data").unwrap();
        let count = data["count"].as_u64().unwrap();
        let areas = u64::from(INDICES) + 4;
        match (portions, limit) {
            ("one step", _) => assert_eq!(count, 1),
            (_, Some(1024)) => assert!(count > 2 * areas, "{count}"),
            _ => assert_eq!(count, areas),
        }
        assert_arrived(&a, &b, &kept);
    }
}

#[test]
fn json_is_not_mixed_with_progress() {
    let (a, _b, _kept) = pair();
    let output = a.output(&with(&["--json", "--progress"]));
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 1);
}

#[test]
fn without_the_right_a_slot_must_be_prepared_there() {
    let (a, b, kept) = pair();
    b.forget(&a);
    b.add_peer(&a, &["--address", &a.address()]);
    let refused = a.refused(&RUN);
    assert!(refused.contains("does not let you prepare") && refused.contains(UUID), "{refused}");
    assert_eq!((a.state(NAME).as_deref(), b.state(NAME)), (Some("live"), None));
    assert_eq!(possessions(&a), kept);
    let ticket = b.path("ticket");
    b.ctl(&["migrate", "prepare", "alice", "--uuid", UUID, "--ticket", &ticket]);
    a.ctl(&RUN);
    assert_eq!(b.state("alice").as_deref(), Some("imported"));
}

#[test]
fn a_name_of_its_own_there_and_names_that_are_taken() {
    let (a, b, _kept) = pair();
    b.ctl(&["create", NAME]);
    let refused = a.refused(&RUN);
    assert!(refused.contains("there is an instance with this name or UUID"), "{refused}");
    assert_eq!(a.state(NAME).as_deref(), Some("live"));
    let bad = a.refused(&with(&["--as", "../up"]));
    assert!(bad.contains("cannot be the name"), "{bad}");
    a.ctl(&with(&["--as", "moved"]));
    assert_eq!(b.state("moved").as_deref(), Some("imported"));
    assert_eq!(b.state(NAME).as_deref(), Some("live"));
}

#[test]
fn an_unpinned_destination_is_refused_with_nothing_locked() {
    let (a, b, kept) = pair();
    a.forget(&b);
    let unknown = a.refused(&RUN);
    assert!(unknown.contains("there is no peer \"b\""), "{unknown}");
    // Trusted for its address only.
    a.ctl(&["peer", "add", "b", "--address", &b.address()]);
    let unpinned = a.refused(&RUN);
    let fingerprint = b.json(&["identity", "show"])["fingerprint"].as_str().unwrap().to_owned();
    assert!(unpinned.contains(&fingerprint) && unpinned.contains("not pinned"), "{unpinned}");
    assert_eq!((a.state(NAME).as_deref(), b.state(NAME)), (Some("live"), None));
    a.forget(&b);
    a.add_peer(&b, &[]);
    let nowhere = a.refused(&RUN);
    assert!(nowhere.contains("no address"), "{nowhere}");
    // Nor is this host trusted there.
    a.forget(&b);
    a.add_peer(&b, &["--address", &b.address()]);
    b.forget(&a);
    let stranger = a.refused(&RUN);
    assert!(stranger.contains("refuses") && stranger.contains("as it was"), "{stranger}");
    assert_eq!(possessions(&a), kept);
}

#[test]
fn an_instance_that_has_not_come_cannot_leave() {
    let (a, b, _kept) = pair();
    let ticket = b.path("ticket");
    b.ctl(&["migrate", "prepare", NAME, "--uuid", UUID, "--ticket", &ticket]);
    let locked = b.refused(&["migrate", "run", NAME, "--to", "a"]);
    assert!(locked.contains("destination-locked") && locked.contains("has not come"), "{locked}");
    a.ctl(&RUN);
    // Arrived, and no command executed: it may go on, and lives here by that.
    assert_eq!(b.state(NAME).as_deref(), Some("imported"));
}

#[test]
fn another_destination_than_that_of_the_lock_is_told_apart() {
    let (a, b, _kept) = pair();
    let c = Site::start("c");
    a.add_peer(&c, &["--address", &c.address()]);
    c.add_peer(&a, &["--address", &a.address(), "--may-prepare"]);
    a.ctl(&RUN);
    let wrong = a.refused(&["migrate", "run", NAME, "--to", "c"]);
    assert!(wrong.contains("exported here, for a migration that c knows nothing of"), "{wrong}");
    assert_eq!(c.state(NAME), None);
    assert_eq!(b.state(NAME).as_deref(), Some("imported"));
}

#[test]
fn a_connection_that_is_cut_in_the_middle_is_made_again() {
    let (a, b, kept, proxy) = pair_with_proxy();
    proxy.cut(1, BEFORE + 9000);
    let output = a.output(&with(&["--progress"]));
    let progress = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{progress}");
    assert_eq!(proxy.reached(), 1);
    assert!(progress.contains("once more"), "{progress}");
    assert_arrived(&a, &b, &kept);
}

#[test]
fn a_network_that_is_always_cut_leaves_a_migration_that_the_same_command_ends() {
    let (a, b, kept, proxy) = pair_with_proxy();
    for after in [BEFORE + 3000, BEFORE + 20_000] {
        proxy.cut(u64::MAX, after);
        let broken = a.refused(&with(&["--piecewise"]));
        assert!(broken.contains("not served now") && broken.contains("same command again"), "{broken}");
        assert!(proxy.reached() >= 1);
        assert_eq!(a.state(NAME).as_deref(), Some("exported"));
        // Its server hears of the cut on its own, and empties the slot then.
        until("emptied", || b.state(NAME).as_deref() == Some("destination-locked"));
        proxy.open();
    }
    let told = a.json(&RUN);
    assert_eq!(told["destination"], "imported");
    assert_arrived(&a, &b, &kept);
}

#[test]
fn a_destination_that_is_killed_while_it_imports_goes_on_after_its_restart() {
    let (a, mut b, kept, proxy) = pair_with_proxy();
    b.stop();
    b.run_process();
    // The first pieces are there, the others on their way.
    proxy.stall(BEFORE + 18_000);
    let running = spawn(&a, &with(&["--piecewise"]));
    until("importing", || b.state(NAME).as_deref() == Some("importing"));
    b.kill();
    let output = running.wait_with_output().unwrap();
    let broken = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && broken.contains("same command again"), "{broken}");
    assert_eq!(a.state(NAME).as_deref(), Some("exported"));
    proxy.open();
    b.run_process();
    assert_eq!(b.state(NAME).as_deref(), Some("importing"));
    a.ctl(&RUN);
    b.stop();
    b.run();
    assert_arrived(&a, &b, &kept);
}

#[test]
fn a_command_that_is_killed_in_the_middle_can_be_given_again() {
    for after in [BEFORE + 1000, BEFORE + 18_000] {
        let (a, b, kept, proxy) = pair_with_proxy();
        proxy.stall(after);
        let mut running = spawn(&a, &with(&["--piecewise"]));
        until("stalled", || proxy.reached() == 1);
        running.kill().unwrap();
        running.wait().unwrap();
        proxy.open();
        assert_eq!(a.state(NAME).as_deref(), Some("exported"));
        a.ctl(&RUN);
        assert_arrived(&a, &b, &kept);
    }
}

#[test]
fn a_source_whose_daemon_is_killed_goes_on_after_its_restart() {
    let (mut a, b, kept, proxy) = pair_with_proxy();
    a.stop();
    a.run_process();
    proxy.stall(BEFORE + 18_000);
    let running = spawn(&a, &with(&["--piecewise", "--wait", "3", "--json"]));
    until("importing", || b.state(NAME).as_deref() == Some("importing"));
    a.kill();
    // The stream is out of the daemon, and needs it no more; the receipt does.
    proxy.open();
    until("imported", || b.state(NAME).as_deref() == Some("imported"));
    assert_eq!(possessions(&b), kept);
    let output = running.wait_with_output().unwrap();
    // The receipt reached nobody, and nobody says that it did.
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told["source"], &told["destination"]), (&"exported".into(), &"imported".into()), "{told}");
    a.run_process();
    // The peer link brings it, if this command is not first.
    let told = a.json(&RUN);
    assert!(told["done"] == "gone" || told["source"] == "gone", "{told}");
    assert_eq!(a.state(NAME), None);
}

#[test]
fn an_export_that_was_begun_in_any_way_is_gone_on_with() {
    let begin: [fn(&Site, &MigrationTicket); 4] = [
        |_, _| {},
        keys,
        |a, ticket| {
            keys(a, ticket);
            take(a, 0, PieceKind::Everything, 0, 5000);
        },
        |a, ticket| {
            keys(a, ticket);
            // The first part of an index that is not the first.
            take(a, 0, PieceKind::NvIndex, 0x0150_0003, 1000);
        },
    ];
    for (n, begin) in begin.into_iter().enumerate() {
        for piecewise in [false, true] {
            let (a, b, kept) = pair();
            let ticket = b.client().prepare(NAME, uuid(), ECC_STORAGE_KEY).unwrap().ticket;
            a.client().lock(a.guest().handle(), &ticket, LockFlags::default()).unwrap();
            begin(&a, &ticket);
            println!("begun in way {n}, piecewise {piecewise}: {:?}", a.live_state());
            let more: &[&str] = if piecewise { &["--piecewise"] } else { &[] };
            a.ctl(&with(more));
            assert_arrived(&a, &b, &kept);
        }
    }
}

fn keys(a: &Site, ticket: &MigrationTicket) {
    let mut stream = Vec::new();
    let departure = vtpmd::migration::client::Departure { ticket: ticket.clone(), lock: None };
    // The header and the key get through, and nothing else.
    struct Short<'a>(&'a mut Vec<u8>);
    impl std::io::Write for Short<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.extend_from_slice(bytes);
            if self.0.len() > 300 { Err(std::io::ErrorKind::BrokenPipe.into()) } else { Ok(bytes.len()) }
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    a.client().export(a.guest().handle(), &departure, &mut Short(&mut stream)).unwrap_err();
    assert_eq!(a.live_state(), Some(InstanceState::SourceKeyed));
}

fn take(a: &Site, sequence: u32, kind: PieceKind, handle: u32, max_size: u32) {
    let request = GetInstanceDataIn { sequence, kind, handle, max_size };
    a.client().get_data(a.guest().handle(), &request).unwrap();
    assert_eq!(a.live_state(), Some(InstanceState::Exporting));
}

#[test]
fn a_stream_that_the_destination_refuses_brings_the_instance_back() {
    let (a, b, kept) = pair();
    let ticket = b.path("ticket");
    // To a storage key that is there no more when the stream comes.
    b.ctl(&["fleet-key", "create"]);
    let fleet = ["--storage-key", "fleet"];
    b.ctl(&[&["migrate", "prepare", NAME, "--uuid", UUID, "--ticket", &ticket], &fleet[..]].concat());
    a.share_fleet_key(&b);
    b.ctl(&["fleet-key", "remove"]);
    let refused = a.refused(&RUN);
    assert!(refused.contains("lives here again") && refused.contains("no storage key here"), "{refused}");
    assert_eq!((a.state(NAME).as_deref(), b.state(NAME).as_deref()), (Some("live"), Some("void")));
    assert_eq!(possessions(&a), kept);
    b.ctl(&["delete", NAME]);
    a.ctl(&RUN);
    assert_arrived(&a, &b, &kept);
}

#[test]
fn a_strict_migration_that_broke_off_is_ended_by_the_same_command() {
    let (a, b, kept, proxy) = pair_with_proxy();
    proxy.cut(u64::MAX, BEFORE + 9000);
    let broken = a.refused(&with(&["--strict"]));
    assert!(broken.contains("not served now"), "{broken}");
    assert_eq!(a.state(NAME).as_deref(), Some("exported"));
    proxy.open();
    a.ctl(&RUN);
    assert_arrived(&a, &b, &kept);
}

#[test]
fn a_strict_migration_whose_stream_never_came_comes_back_by_the_keys_alone() {
    let (mut a, b, kept, proxy) = pair_with_proxy();
    proxy.cut(u64::MAX, BEFORE + 9000);
    a.refused(&with(&["--strict"]));
    // The destination gives up before it has seen the keys, and nobody but this command tells the source.
    a.stop();
    a.silence();
    a.run();
    let receipt = b.json(&["migrate", "abort", NAME])["receipt"].as_str().unwrap().to_owned();
    let sealed = a.refused(&["migrate", "abort", NAME, "--receipt", &receipt]);
    assert!(sealed.contains("TPM_RC_AUTH_UNAVAILABLE"), "{sealed}");
    proxy.open();
    let back = a.refused(&RUN);
    assert!(back.contains("has given the migration up, and guest lives here again"), "{back}");
    assert_eq!(possessions(&a), kept);
}

#[test]
fn an_instance_whose_machine_is_connected_stays() {
    let (a, b, kept) = pair();
    let socket = a.path(&format!("run/{NAME}/vhost-user.sock"));
    let machine = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    let refused = a.refused(&RUN);
    assert!(refused.contains("a machine is connected to guest"), "{refused}");
    assert_eq!((a.state(NAME).as_deref(), b.state(NAME)), (Some("live"), None));
    drop(machine);
    until("gone", || a.output(&RUN).status.success());
    assert_arrived(&a, &b, &kept);
    // One that is connected and does nothing, at the operator's word.
    let (a, b, kept) = pair();
    let _machine =
        std::os::unix::net::UnixStream::connect(a.path(&format!("run/{NAME}/vhost-user.sock"))).unwrap();
    a.ctl(&with(&["--connected"]));
    assert_arrived(&a, &b, &kept);
}

#[test]
fn an_instance_with_others_below_it_stays() {
    let (a, b) = Site::pair();
    a.ctl(&["create", "tenant", "--privileged"]);
    a.ctl(&["create", "inner", "--parent", "tenant"]);
    let refused = a.refused(&["migrate", "run", "tenant", "--to", "b"]);
    assert!(refused.contains("tenant has instances below it"), "{refused}");
    assert_eq!(a.state("tenant").as_deref(), Some("live"));
    // The one below goes alone; the slot that was made for the other is of no harm.
    a.ctl(&["migrate", "run", "inner", "--to", "b"]);
    assert_eq!(b.state("inner").as_deref(), Some("imported"));
    assert_eq!(b.state("tenant").as_deref(), Some("destination-locked"));
}
