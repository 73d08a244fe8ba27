use super::*;
use crate::host_key::HostKey;
use std::path::PathBuf;

mod containers;
mod durability;
mod erasure;
mod failures;
mod tampering;

/// A store in a directory of its own.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("vtpmd.sqlite")
    }

    fn create(&self) -> Store {
        Store::create(&self.path(), &key()).unwrap()
    }

    fn open(&self) -> Store {
        Store::open(&self.path(), &key()).unwrap()
    }

    fn open_error(&self) -> StoreError {
        Store::open(&self.path(), &key()).err().unwrap()
    }

    /// Changes the closed database behind the store's back.
    fn tamper(&self, sql: &str) {
        let connection = rusqlite::Connection::open(self.path()).unwrap();
        connection.pragma_update(None, "foreign_keys", false).unwrap();
        connection.execute_batch(sql).unwrap();
    }
}

fn key() -> HostKey {
    HostKey::for_tests(1)
}

fn row(store: &Store, parent: Option<InstanceId>, name: &str) -> InstanceRow {
    let id = store.allocate_id();
    let number = u32::try_from(id.0).unwrap();
    let mut uuid = [0; 16];
    uuid[12..].copy_from_slice(&number.to_be_bytes());
    InstanceRow {
        id,
        parent,
        handle: number.checked_add(0x100).unwrap(),
        name: name.into(),
        uuid,
        attributes: 0,
    }
}

fn commit(store: &Store, ops: Vec<Op>) -> Result<(), StoreError> {
    store.commit(Batch::new(ops))
}

fn create_instance(store: &Store, parent: Option<InstanceId>, name: &str) -> InstanceId {
    let row = row(store, parent, name);
    let id = row.id;
    commit(store, vec![Op::CreateInstance(row)]).unwrap();
    id
}

fn put(instance: InstanceId, key: RecordName, value: &[u8]) -> Op {
    Op::Put { instance, key, value: Zeroizing::new(value.to_vec()) }
}

fn contents(store: &Store, id: InstanceId) -> Vec<(RecordName, Vec<u8>)> {
    store.records(id).unwrap().into_iter().map(|(name, value)| (name, value.to_vec())).collect()
}

const A: RecordName = RecordName::kind(1);
const B: RecordName = RecordName::indexed(2, 0x0150_0001);

#[test]
fn what_was_committed_is_read_back_at_once_and_after_reopening() {
    let place = Place::new();
    let store = place.create();
    let root = row(&store, None, "root");
    let child = InstanceRow { attributes: 7, ..row(&store, Some(root.id), "child") };
    commit(
        &store,
        vec![
            Op::CreateInstance(root.clone()),
            Op::CreateInstance(child.clone()),
            put(root.id, A, b"root a"),
            put(child.id, A, b"child a"),
            put(child.id, B, b"child b, old"),
            put(child.id, B, b"child b"),
        ],
    )
    .unwrap();
    commit(&store, vec![put(root.id, B, b""), Op::Delete { instance: root.id, key: A }]).unwrap();
    let check = |store: &Store| {
        assert_eq!(store.instances().unwrap(), [root.clone(), child.clone()]);
        assert_eq!(contents(store, root.id), [(B, vec![])]);
        assert_eq!(contents(store, child.id), [(A, b"child a".to_vec()), (B, b"child b".to_vec())]);
        assert!(store.damaged().unwrap().is_empty());
    };
    check(&store);
    store.close();
    check(&place.open());
}

/// Hands several batches to the writer at once, and returns what came of each.
fn commit_together(store: &Store, batches: Vec<Vec<Op>>) -> Vec<Result<(), StoreError>> {
    let (release, held) = mpsc::channel::<()>();
    let hold = Request::Inspect(Box::new(move |_| held.recv().unwrap()));
    store.requests.send(hold).unwrap();
    let answers: Vec<_> = batches.into_iter().map(|ops| store.join(Batch::new(ops)).unwrap()).collect();
    release.send(()).unwrap();
    answers.into_iter().map(Ticket::wait).collect()
}

#[test]
fn files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let store = place.create();
    create_instance(&store, None, "root");
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(place.directory.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
        seen.push(entry.file_name().into_string().unwrap());
    }
    seen.sort();
    assert_eq!(seen, ["vtpmd.lock", "vtpmd.sqlite", "vtpmd.sqlite-wal"]);
}

#[test]
fn settings_are_in_force() {
    let place = Place::new();
    let store = place.create();
    let settings = store.with_writer(|writer| {
        let text =
            |name| writer.connection().pragma_query_value(None, name, |row| row.get::<_, String>(0)).unwrap();
        let number =
            |name| writer.connection().pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
        let numbers = ["synchronous", "foreign_keys", "secure_delete", "temp_store"].map(number);
        (["journal_mode", "locking_mode"].map(text), numbers)
    });
    assert_eq!(settings, (["wal".into(), "exclusive".into()], [2, 1, 1, 2]));
}

#[test]
fn second_opener_is_refused_and_told_who_holds_the_state() {
    let place = Place::new();
    let store = place.create();
    let holder = format!("process {}", std::process::id());
    assert!(matches!(place.open_error(), StoreError::Locked { holder: found, .. } if found == holder));
    assert!(matches!(Store::create(&place.path(), &key()), Err(StoreError::Locked { .. })));
    // Without the lock file there is still SQLite's lock.
    std::fs::remove_file(place.path().with_extension("lock")).unwrap();
    assert!(matches!(place.open_error(), StoreError::Locked { .. }));
    store.close();
    place.open().close();
}

#[test]
fn create_never_replaces_and_open_never_makes() {
    let place = Place::new();
    assert!(matches!(place.open_error(), StoreError::Missing { .. }));
    assert_eq!(std::fs::read_dir(place.directory.path()).unwrap().count(), 0);
    // What an interrupted create leaves does not hinder the next.
    std::fs::write(place.directory.path().join("vtpmd.sqlite.new"), b"half").unwrap();
    let store = place.create();
    let root = create_instance(&store, None, "root");
    store.close();
    assert!(matches!(Store::create(&place.path(), &key()), Err(StoreError::Exists { .. })));
    assert_eq!(place.open().instances().unwrap()[0].id, root);
    assert!(!place.directory.path().join("vtpmd.sqlite.new").exists());
}

#[test]
fn numbers_are_not_given_out_again() {
    let place = Place::new();
    let store = place.create();
    let root = create_instance(&store, None, "root");
    let late = row(&store, Some(root), "late");
    let child = create_instance(&store, Some(root), "child");
    commit(&store, vec![Op::DeleteInstance(child)]).unwrap();
    let again = InstanceRow { id: child, ..row(&store, Some(root), "again") };
    let refused = commit(&store, vec![Op::CreateInstance(again)]);
    assert!(matches!(refused, Err(StoreError::NotReserved(id)) if id == child));
    // A number reserved earlier may come into the store later.
    commit(&store, vec![Op::CreateInstance(late.clone())]).unwrap();
    assert!(matches!(commit(&store, vec![Op::CreateInstance(late)]), Err(StoreError::NotReserved(_))));
    store.close();
    assert!(place.open().allocate_id() > child);
}

#[test]
fn update_changes_the_row_and_moves_the_instance() {
    let place = Place::new();
    let store = place.create();
    let root = create_instance(&store, None, "root");
    let first = create_instance(&store, Some(root), "first");
    let second = create_instance(&store, Some(first), "second");
    commit(&store, vec![put(second, A, b"stays")]).unwrap();
    let old = store.instances().unwrap().pop().unwrap();
    let new = InstanceRow {
        id: second,
        parent: Some(root),
        handle: 9,
        name: "renamed".into(),
        uuid: [9; 16],
        attributes: u32::MAX,
    };
    commit(&store, vec![Op::UpdateInstance(new.clone())]).unwrap();
    // What it had is free for another.
    commit(&store, vec![Op::CreateInstance(InstanceRow { id: store.allocate_id(), ..old })]).unwrap();
    store.close();
    let store = place.open();
    assert!(store.instances().unwrap().contains(&new));
    assert_eq!(contents(&store, second), [(A, b"stays".to_vec())]);
}

#[test]
fn refused_batch_names_its_fault_and_changes_nothing() {
    let place = Place::new();
    let store = place.create();
    let root = create_instance(&store, None, "root");
    let child = create_instance(&store, Some(root), "child");
    commit(&store, vec![put(child, A, b"before")]).unwrap();
    let [root_row, child_row] = <[_; 2]>::try_from(store.instances().unwrap()).unwrap();
    let ghost = InstanceId(u64::from(u32::MAX));
    let clash = |change: fn(&mut InstanceRow, &InstanceRow)| {
        let mut fresh = row(&store, Some(root), "fresh");
        change(&mut fresh, &child_row);
        fresh
    };
    let name = clash(|fresh, child| fresh.name.clone_from(&child.name));
    let handle = clash(|fresh, child| fresh.handle = child.handle);
    let uuid = clash(|fresh, child| fresh.uuid = child.uuid);
    let orphan = InstanceRow { parent: Some(ghost), ..row(&store, None, "orphan") };
    let cases: Vec<(Op, &str)> = vec![
        (Op::CreateInstance(name), "the name \"child\" is taken by another instance"),
        (Op::CreateInstance(handle), "the handle 0x00000102 is taken by another instance"),
        (Op::CreateInstance(uuid), "the UUID 00000000000000000000000000000002 is taken by another instance"),
        (Op::CreateInstance(orphan), "there is no instance 4294967295"),
        (
            Op::UpdateInstance(InstanceRow { name: "root".into(), ..child_row.clone() }),
            "the name \"root\" is taken",
        ),
        (Op::UpdateInstance(InstanceRow { id: ghost, ..child_row.clone() }), "there is no instance"),
        (
            Op::UpdateInstance(InstanceRow { parent: Some(child), ..root_row.clone() }),
            "cannot become a descendant of itself",
        ),
        (Op::DeleteInstance(root), "instance 1 has descendants"),
        (Op::DeleteInstance(ghost), "there is no instance"),
        (put(ghost, A, b""), "there is no instance"),
        (
            put(child, B, &vec![0; MAX_VALUE_BYTES + 1]),
            "record 0201500001 of instance 2 would have 16777217 bytes",
        ),
        (Op::Delete { instance: ghost, key: A }, "there is no instance"),
    ];
    for (op, sentence) in cases {
        let refused = commit(&store, vec![put(child, A, b"after"), put(root, B, b"after"), op]).unwrap_err();
        assert!(refused.to_string().contains(sentence), "{refused} / {sentence}");
    }
    let check = |store: &Store| {
        assert_eq!(store.instances().unwrap(), [root_row.clone(), child_row.clone()]);
        assert_eq!(contents(store, child), [(A, b"before".to_vec())]);
        assert_eq!(contents(store, root), []);
    };
    check(&store);
    store.close();
    check(&place.open());
}

#[test]
fn record_names_are_bounded_and_distinct() {
    assert!(RecordName::new(b"").is_err());
    assert!(RecordName::new(&[1; 17]).is_err());
    assert_eq!(RecordName::new(&[7; 16]).unwrap().as_bytes(), [7; 16]);
    assert_ne!(RecordName::new(&[1]).unwrap(), RecordName::new(&[1, 0]).unwrap());
    assert_eq!(RecordName::new(&[2, 1, 0x50, 0, 1]).unwrap(), B);
    assert_eq!(B.to_string(), "record 0201500001");
}

#[test]
fn waiting_commits_share_one_transaction() {
    let place = Place::new();
    let store = place.create();
    let root = create_instance(&store, None, "root");
    let before = store.statistics();
    // Some batches are of one instance: each sees what the one before it did.
    let batches = (0..64).map(|n| vec![put(root, RecordName::kind(n % 16), &[n])]).collect();
    assert!(commit_together(&store, batches).iter().all(Result::is_ok));
    let after = store.statistics();
    assert_eq!((after.commits - before.commits, after.transactions - before.transactions), (64, 1));
    store.close();
    let expected: Vec<_> = (0..16).map(|n| (RecordName::kind(n), vec![n + 48])).collect();
    assert_eq!(contents(&place.open(), root), expected);
}

#[test]
fn commits_of_many_threads_share_transactions() {
    let place = Place::new();
    let store = place.create();
    let root = create_instance(&store, None, "root");
    let instances: Vec<_> = (0..64).map(|n| create_instance(&store, Some(root), &format!("vm{n}"))).collect();
    let before = store.statistics();
    std::thread::scope(|scope| {
        for id in &instances {
            let store = &store;
            scope.spawn(move || {
                for n in 0..10u8 {
                    commit(store, vec![put(*id, A, &[n]), put(*id, RecordName::indexed(1, n.into()), &[n])])
                        .unwrap();
                }
            });
        }
    });
    let after = store.statistics();
    let (commits, transactions) = (after.commits - before.commits, after.transactions - before.transactions);
    assert_eq!(commits, 640);
    assert!(transactions < commits / 2, "{transactions} transactions for {commits} commits");
    store.close();
    let store = place.open();
    for id in instances {
        let found = contents(&store, id);
        assert_eq!(found.len(), 11);
        assert_eq!(found[0], (A, vec![9]));
    }
}

#[test]
fn bad_batch_does_not_touch_its_neighbours() {
    let place = Place::new();
    let store = place.create();
    let root = create_instance(&store, None, "root");
    let taken = InstanceRow { name: "root".into(), ..row(&store, Some(root), "") };
    let good = row(&store, Some(root), "good");
    let late = InstanceRow { name: "good".into(), ..row(&store, Some(root), "") };
    let good_id = good.id;
    let outcomes = commit_together(
        &store,
        vec![
            vec![put(root, A, b"1")],
            vec![put(root, A, b"lost"), put(root, B, b"lost"), Op::CreateInstance(taken)],
            vec![Op::CreateInstance(good), put(good_id, A, b"2")],
            vec![Op::DeleteInstance(InstanceId(99))],
            // Its name is taken by a batch of the same transaction.
            vec![Op::CreateInstance(late)],
            vec![put(root, RecordName::kind(3), b"3")],
        ],
    );
    let good: Vec<_> = outcomes.iter().map(Result::is_ok).collect();
    assert_eq!(good, [true, false, true, false, false, true]);
    assert_eq!(store.statistics().transactions, 2);
    store.close();
    let store = place.open();
    assert_eq!(contents(&store, root), [(A, b"1".to_vec()), (RecordName::kind(3), b"3".to_vec())]);
    assert_eq!(contents(&store, good_id), [(A, b"2".to_vec())]);
}

#[test]
fn dropping_the_store_finishes_what_waits() {
    let place = Place::new();
    let store = place.create();
    let root = create_instance(&store, None, "root");
    let ticket = store.join(Batch::new(vec![put(root, A, b"last")])).unwrap();
    drop(store);
    ticket.wait().unwrap();
    assert_eq!(contents(&place.open(), root), [(A, b"last".to_vec())]);
    assert!(!place.path().with_extension("sqlite-wal").exists(), "the log was written into the database");
}
