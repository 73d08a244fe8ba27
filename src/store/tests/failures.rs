//! Media that fail or are full.

use super::*;
use std::process::Command;

fn page_limit(store: &Store, more: Option<i64>) {
    store.with_writer(move |writer| {
        let connection = writer.connection();
        let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        let limit = more.map_or(i64::from(u32::MAX - 1), |more| pages + more);
        connection.pragma_update(None, "max_page_count", limit).unwrap();
    });
}

#[test]
fn full_medium_fails_only_what_does_not_fit_and_is_got_over() {
    let place = Place::new();
    let store = place.create();
    let root = create_instance(&store, None, "root");
    commit(&store, vec![put(root, A, b"old")]).unwrap();
    page_limit(&store, Some(20));
    let big = vec![1; 400_000];
    let full = commit(&store, vec![put(root, A, b"lost"), put(root, B, &big)]);
    assert!(matches!(full, Err(StoreError::DiskFull { .. })));
    assert_eq!(contents(&store, root), [(A, b"old".to_vec())]);

    let outcomes = commit_together(
        &store,
        vec![
            vec![put(root, A, b"new")],
            vec![put(root, B, &big)],
            vec![put(root, RecordName::kind(3), b"new")],
        ],
    );
    assert!(matches!(outcomes[..], [Ok(()), Err(StoreError::DiskFull { .. }), Ok(())]), "{outcomes:?}");

    page_limit(&store, None);
    commit(&store, vec![put(root, B, &big)]).unwrap();
    store.close();
    let expected = [(A, b"new".to_vec()), (B, big), (RecordName::kind(3), b"new".to_vec())];
    assert_eq!(contents(&place.open(), root), expected);
}

/// A small file system of its own.
struct SmallMedium(tempfile::TempDir);

impl SmallMedium {
    fn mount() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "vtpmd-test"]).arg(directory.path());
        assert!(mount.status().unwrap().success());
        Self(directory)
    }

    fn enlarge(&self) {
        let mut mount = Command::new("mount");
        mount.args(["-o", "remount,size=16m"]).arg(self.0.path());
        assert!(mount.status().unwrap().success());
    }
}

impl Drop for SmallMedium {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn full_file_system_loses_nothing_acknowledged_and_is_got_over() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not run: only root can mount a small file system");
        return;
    }
    let medium = SmallMedium::mount();
    let path = medium.0.path().join("vtpmd.sqlite");
    let store = Store::create(&path, &key()).unwrap();
    let root = create_instance(&store, None, "root");
    let value = |n: u32| vec![u8::try_from(n % 251).unwrap(); 30_000];
    let mut acknowledged = Vec::new();
    let mut refused = Vec::new();
    for n in 0..100 {
        match commit(&store, vec![put(root, RecordName::indexed(1, n), &value(n))]) {
            Ok(()) => acknowledged.push((RecordName::indexed(1, n), value(n))),
            Err(error) => {
                assert!(matches!(error, StoreError::DiskFull { .. }), "{error:?}");
                refused.push(n);
            }
        }
    }
    assert!(acknowledged.len() > 5 && refused.len() > 5, "{} {}", acknowledged.len(), refused.len());
    assert_eq!(contents(&store, root), acknowledged);
    medium.enlarge();
    for n in refused {
        commit(&store, vec![put(root, RecordName::indexed(1, n), &value(n))]).unwrap();
        acknowledged.push((RecordName::indexed(1, n), value(n)));
    }
    store.close();
    acknowledged.sort();
    let store = Store::open(&path, &key()).unwrap();
    assert_eq!(contents(&store, root), acknowledged);
}

#[test]
fn store_opens_on_a_full_file_system_and_deletes_once_there_is_a_little_room() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not run: only root can mount a small file system");
        return;
    }
    let medium = SmallMedium::mount();
    let path = medium.0.path().join("vtpmd.sqlite");
    let store = Store::create(&path, &key()).unwrap();
    let root = create_instance(&store, None, "root");
    let child = create_instance(&store, Some(root), "child");
    let ballast = medium.0.path().join("ballast");
    let _ = std::fs::write(&ballast, vec![1; 2 << 20]);
    let full = commit(&store, vec![put(child, A, &vec![1; 100_000])]);
    assert!(matches!(full, Err(StoreError::DiskFull { .. })), "{full:?}");
    // Nor does it keep the daemon from starting.
    drop(store);
    let store = Store::open(&path, &key()).unwrap();
    assert_eq!(store.instances().unwrap().len(), 2);
    std::fs::remove_file(&ballast).unwrap();
    commit(&store, vec![Op::DeleteInstance(child)]).unwrap();
    drop(store);
    assert_eq!(Store::open(&path, &key()).unwrap().instances().unwrap().len(), 1);
}

#[test]
fn new_store_is_whole_or_not_there_however_little_room_there_is() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not run: only root can mount a small file system");
        return;
    }
    let medium = SmallMedium::mount();
    let (path, ballast) = (medium.0.path().join("vtpmd.sqlite"), medium.0.path().join("ballast"));
    let (mut refused, mut made) = (0, 0);
    for pages in 0..80 {
        std::fs::write(&ballast, vec![1; (1 << 20) - pages * 4096]).unwrap();
        match Store::create(&path, &key()) {
            Ok(store) => {
                made += 1;
                store.close();
                std::fs::remove_file(&path).unwrap();
            }
            Err(error) => {
                assert!(matches!(error, StoreError::DiskFull { .. } | StoreError::Io { .. }), "{error:?}");
                // A store that was made, but could not be opened for want of room, is complete all the same.
                if path.exists() {
                    std::fs::remove_file(&ballast).unwrap();
                    drop(Store::open(&path, &key()).unwrap());
                    std::fs::remove_file(&path).unwrap();
                }
                refused += 1;
            }
        }
        let _ = std::fs::remove_file(&ballast);
    }
    assert!(refused > 5 && made > 5, "{refused} {made}");
}

#[test]
fn consolidated_store_is_all_in_its_one_file() {
    let place = Place::new();
    let store = place.create();
    let root = create_instance(&store, None, "root");
    commit(&store, vec![put(root, A, b"1")]).unwrap();
    store.consolidate().unwrap();
    let copy = Place::new();
    std::fs::copy(place.path(), copy.path()).unwrap();
    assert_eq!(contents(&copy.open(), root), [(A, b"1".to_vec())]);

    // What closing would keep to itself.
    store.with_writer(|writer| writer.faults.recoveries = 1);
    store.with_writer(|writer| writer.close());
    assert!(matches!(store.consolidate(), Err(StoreError::Unavailable { .. })));
    store.consolidate().unwrap();
}

#[test]
fn failed_commit_that_did_not_take_place_is_tried_again_singly() {
    let place = Place::new();
    let store = place.create();
    let root = create_instance(&store, None, "root");
    store.with_writer(|writer| writer.faults.before_commit = true);
    let outcomes = commit_together(&store, vec![vec![put(root, A, b"1")], vec![put(root, B, b"2")]]);
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");

    store.with_writer(|writer| writer.faults.before_commit = true);
    let failed = commit(&store, vec![put(root, A, b"lost")]).unwrap_err();
    assert!(matches!(failed, StoreError::Database { .. }) && !failed.outcome_is_unknown(), "{failed:?}");
    assert_eq!(contents(&store, root), [(A, b"1".to_vec()), (B, b"2".to_vec())]);
    store.close();
    assert_eq!(contents(&place.open(), root), [(A, b"1".to_vec()), (B, b"2".to_vec())]);
}

#[test]
fn failed_commit_that_took_place_is_found_and_reported_as_done() {
    let place = Place::new();
    let store = place.create();
    let root = create_instance(&store, None, "root");
    let before = store.statistics();
    store.with_writer(|writer| writer.faults.after_commit = true);
    let outcomes = commit_together(
        &store,
        vec![vec![put(root, A, b"1")], vec![put(InstanceId(77), A, b"")], vec![put(root, B, b"2")]],
    );
    assert!(matches!(outcomes[..], [Ok(()), Err(StoreError::UnknownInstance(_)), Ok(())]), "{outcomes:?}");
    assert_eq!(store.statistics().commits - before.commits, 2);

    // This one could not be done twice: taken for failed, it would be refused.
    let child = row(&store, Some(root), "child");
    store.with_writer(|writer| writer.faults.after_commit = true);
    commit(&store, vec![Op::CreateInstance(child.clone()), Op::DeleteInstance(child.id)]).unwrap();
    assert_eq!(store.statistics().transactions - before.transactions, 2);
    // Both the versions that the thread knows and those in the file go on from there.
    commit(&store, vec![put(root, A, b"3")]).unwrap();
    store.close();
    assert_eq!(contents(&place.open(), root), [(A, b"3".to_vec()), (B, b"2".to_vec())]);
}

#[test]
fn outcome_is_called_unknown_only_when_it_cannot_be_found_out() {
    for took_place in [false, true] {
        let place = Place::new();
        let store = place.create();
        let root = create_instance(&store, None, "root");
        store.with_writer(move |writer| {
            writer.faults.before_commit = !took_place;
            writer.faults.after_commit = took_place;
            writer.faults.recoveries = 3;
        });
        let unknown = commit(&store, vec![put(root, A, b"perhaps")]).unwrap_err();
        assert!(unknown.outcome_is_unknown());
        assert!(unknown.to_string().contains("the state of instance 1 must be read again"), "{unknown}");
        // While it is broken nothing is tried, and nothing is called unknown.
        let unavailable = commit(&store, vec![put(root, A, b"not tried")]).unwrap_err();
        assert!(matches!(unavailable, StoreError::Unavailable { .. }) && !unavailable.outcome_is_unknown());
        assert!(matches!(store.records(root), Err(StoreError::Unavailable { .. })));
        // Then it works again by itself, and tells what is in it.
        let expected = if took_place { vec![(A, b"perhaps".to_vec())] } else { vec![] };
        assert_eq!(contents(&store, root), expected);
        commit(&store, vec![put(root, A, b"after")]).unwrap();
        store.close();
        assert_eq!(contents(&place.open(), root), [(A, b"after".to_vec())]);
    }
}

#[test]
fn log_moves_into_the_database_when_it_is_long() {
    let place = Place::new();
    let store = place.create();
    let root = create_instance(&store, None, "root");
    let mut longest = 0;
    for n in 0..60u8 {
        // A hundred pages each.
        let value = vec![n; 400_000];
        commit(&store, vec![put(root, A, &value)]).unwrap();
        longest = longest.max(std::fs::metadata(place.path().with_extension("sqlite-wal")).unwrap().len());
    }
    // Of six thousand pages that were written it has little more than the thousand with which it is long.
    assert!((1_000_000..8_000_000).contains(&longest), "{longest}");
    drop(store);
    assert_eq!(contents(&place.open(), root), [(A, vec![59; 400_000])]);
}
