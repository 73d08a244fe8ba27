use super::*;
use crate::host_key::HostKey;
use std::path::PathBuf;

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
    InstanceRow { id, parent, handle: 0x100 | number, name: name.into(), uuid, attributes: 0 }
}

fn commit(store: &Store, ops: Vec<Op>) -> Result<(), StoreError> {
    store.commit(Batch { ops })
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
