//! A store in one file: what a crash, a loss of power and a full device leave.

use super::*;
use crate::store::{Container, Durability};
use std::os::unix::fs::FileExt;

/// Slots begin behind the first block.
const BLOCK: usize = 4096;

struct File {
    directory: tempfile::TempDir,
}

impl File {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    fn container(&self) -> Arc<Container> {
        Container::open(&self.path(), 0o600).unwrap()
    }

    fn create(&self) -> Store {
        let container = self.container();
        container.prepare(false).unwrap();
        let store = Store::create_in(&container, &key()).unwrap();
        container.finish().unwrap();
        store
    }

    fn open(&self) -> Result<Store, StoreError> {
        Store::open_in(&self.container(), &key())
    }

    /// What a host finds that reads the medium now, with some of it changed: another file.
    fn medium(&self, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let other = Self::new();
        let mut bytes = std::fs::read(self.path()).unwrap();
        change(&mut bytes);
        std::fs::write(other.path(), bytes).unwrap();
        other
    }

    fn slot_length(&self) -> usize {
        let bytes = std::fs::read(self.path()).unwrap();
        u64::from_be_bytes(*bytes[24..].first_chunk().unwrap()) as usize
    }
}

/// The slots by the numbers of their images, the newest first.
fn slots(bytes: &[u8], length: usize) -> Vec<usize> {
    let number = |slot: &usize| {
        let header = bytes.get(BLOCK + slot * length..).unwrap_or_default();
        std::cmp::Reverse(header.get(16..24).map(|number| u64::from_be_bytes(number.try_into().unwrap())))
    };
    let mut slots = vec![0, 1, 2];
    slots.sort_by_key(number);
    slots
}

fn spoil(bytes: &mut [u8], length: usize, slot: usize) {
    if let Some(byte) = bytes.get_mut(BLOCK + slot * length + 5000) {
        *byte ^= 1;
    }
}

#[test]
fn what_was_committed_is_there_after_closing_and_after_a_crash() {
    let file = File::new();
    let store = file.create();
    let root = create_instance(&store, None, "root");
    for number in 0..10u8 {
        commit(&store, vec![put(root, A, &[number])]).unwrap();
        let crashed = file.medium(|_| {}).open().unwrap();
        assert_eq!(contents(&crashed, root), [(A, vec![number])]);
        assert!(crashed.damaged().unwrap().is_empty());
    }
    store.close();
    let store = file.open().unwrap();
    assert_eq!(contents(&store, root), [(A, vec![9])]);
    commit(&store, vec![put(root, A, b"on")]).unwrap();
    drop(store);
    assert_eq!(contents(&file.open().unwrap(), root), [(A, b"on".to_vec())]);
    let only: Vec<_> = std::fs::read_dir(file.directory.path()).unwrap().collect();
    assert_eq!(only.len(), 1, "nothing lies beside it");
}

#[test]
fn a_write_that_was_cut_off_leaves_the_state_before() {
    let file = File::new();
    let store = file.create();
    let length = file.slot_length();
    let root = create_instance(&store, None, "root");
    commit(&store, vec![put(root, A, b"before")]).unwrap();
    commit(&store, vec![put(root, A, b"cut off")]).unwrap();
    let cut = file.medium(|bytes| {
        let newest = slots(bytes, length)[0];
        spoil(bytes, length, newest);
    });
    assert_eq!(contents(&cut.open().unwrap(), root), [(A, b"before".to_vec())]);
    // With no image that is whole it is damaged, which is not the same as new.
    let lost = file.medium(|bytes| (0..3).for_each(|slot| spoil(bytes, length, slot)));
    assert!(matches!(lost.open(), Err(StoreError::BrokenContainer { .. })));
    assert!(matches!(Container::look(&lost.path()), Err(StoreError::BrokenContainer { .. })));
    let front = file.medium(|bytes| bytes[30] ^= 1);
    assert!(matches!(Container::open(&front.path(), 0o600), Err(StoreError::BrokenContainer { .. })));
    let newer = file.medium(|bytes| bytes[19] = 2);
    assert!(matches!(Container::open(&newer.path(), 0o600), Err(StoreError::Newer { found: 2, .. })));
}

#[test]
fn what_need_not_outlive_a_loss_of_power_never_takes_along_what_must() {
    let file = File::new();
    let store = file.create();
    let length = file.slot_length();
    let root = create_instance(&store, None, "root");
    commit(&store, vec![put(root, A, b"durable")]).unwrap();
    for number in 0..7u8 {
        let ops = vec![put(root, B, &[number])];
        store.commit(Batch { ops, durability: Durability::Process }).unwrap();
        let killed = file.medium(|_| {}).open().unwrap();
        assert_eq!(contents(&killed, root).last().unwrap().1, [number]);
        // All that was not synchronised is lost, in the middle of its pages.
        let off = file.medium(|bytes| {
            let all = slots(bytes, length);
            let kept = all.iter().position(|&slot| {
                let mut only = bytes.clone();
                all.iter().filter(|&&other| other != slot).for_each(|&other| spoil(&mut only, length, other));
                let alone = File::new();
                std::fs::write(alone.path(), only).unwrap();
                alone.open().is_ok_and(|store| contents(&store, root) == [(A, b"durable".to_vec())])
            });
            // It is one of the three.
            let kept = all[kept.unwrap()];
            all.iter().filter(|&&slot| slot != kept).for_each(|&slot| spoil(bytes, length, slot));
        });
        assert_eq!(contents(&off.open().unwrap(), root), [(A, b"durable".to_vec())]);
    }
    commit(&store, vec![put(root, A, b"more")]).unwrap();
    assert_eq!(contents(&file.medium(|_| {}).open().unwrap(), root).len(), 2);
}

#[test]
fn a_full_file_refuses_what_does_not_fit_and_goes_on() {
    let file = File::new();
    // As a volume has it that is given out in units of 4 MiB.
    std::fs::File::create(file.path()).unwrap().set_len(4 << 20).unwrap();
    let store = file.create();
    let root = create_instance(&store, None, "root");
    let value = vec![7; 100_000];
    let mut fitted = 0u32;
    let error = loop {
        match commit(&store, vec![put(root, RecordName::indexed(9, fitted), &value)]) {
            Ok(()) => fitted += 1,
            Err(error) => break error,
        }
        assert!(fitted < 100, "it never ends");
    };
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    assert!(fitted >= 10, "{fitted}");
    commit(&store, vec![Op::Delete { instance: root, key: RecordName::indexed(9, 0) }]).unwrap();
    commit(&store, vec![put(root, A, b"there is room")]).unwrap();
    drop(store);
    assert_eq!(contents(&file.open().unwrap(), root).len(), fitted as usize);
    assert_eq!(std::fs::metadata(file.path()).unwrap().len(), 4 << 20, "it has not grown");
}

#[test]
fn one_process_has_it_and_a_store_that_is_not_finished_is_none() {
    let file = File::new();
    let container = file.container();
    assert!(matches!(Container::open(&file.path(), 0o600), Err(StoreError::Locked { .. })));
    container.prepare(true).unwrap();
    let kept = container.host_key().unwrap();
    drop(Store::create_in(&container, &kept).unwrap());
    assert!(!container.has_store() && Container::look(&file.path()).unwrap().size.is_none());
    drop(container);

    let container = file.container();
    assert!(!container.has_store() && container.host_key().is_none());
    container.prepare(true).unwrap();
    let store = Store::create_in(&container, &container.host_key().unwrap()).unwrap();
    container.finish().unwrap();
    assert!(matches!(container.prepare(true), Err(StoreError::Exists { .. })));
    drop((store, container));
    let container = file.container();
    assert!(Container::look(&file.path()).unwrap().size.is_some_and(|size| size > 0));
    drop(Store::open_in(&container, &container.host_key().unwrap()).unwrap());
    let wrong = Store::open_in(&container, &key()).err().unwrap();
    assert!(matches!(wrong, StoreError::WrongHostKey { .. }), "{wrong}");
    // What was cleared does not come back, whatever is in the slots.
    container.clear().unwrap();
    container.prepare(false).unwrap();
    drop(Store::create_in(&container, &key()).unwrap());
    container.finish().unwrap();
    drop(container);
    assert!(file.open().unwrap().instances().unwrap().is_empty());
}

#[test]
fn after_a_failed_commit_the_file_tells_what_came_of_it() {
    let file = File::new();
    let store = file.create();
    let root = create_instance(&store, None, "root");
    commit(&store, vec![put(root, A, b"before")]).unwrap();
    // It took place in memory, and was not written.
    store.with_writer(|writer| writer.faults.after_commit = true);
    commit(&store, vec![put(root, A, b"lost")]).unwrap_err();
    assert_eq!(contents(&store, root), [(A, b"before".to_vec())]);
    store.with_writer(|writer| {
        writer.faults.before_commit = true;
        writer.faults.recoveries = 1;
    });
    assert!(commit(&store, vec![put(root, A, b"unknown")]).unwrap_err().outcome_is_unknown());
    commit(&store, vec![put(root, B, b"again")]).unwrap();
    drop(store);
    let found = contents(&file.open().unwrap(), root);
    assert_eq!(found, [(A, b"before".to_vec()), (B, b"again".to_vec())]);
}

#[test]
fn nothing_of_a_deleted_instance_remains() {
    let file = File::new();
    let store = file.create();
    let root = create_instance(&store, None, "root");
    let child = create_instance(&store, Some(root), "a name that is told from others");
    commit(&store, vec![put(child, A, b"a")]).unwrap();
    let there = || {
        let bytes = std::fs::read(file.path()).unwrap();
        bytes.windows(31).any(|window| window == b"a name that is told from others")
    };
    assert!(there());
    commit(&store, vec![Op::DeleteInstance(child)]).unwrap();
    assert!(!there());
}

#[test]
fn a_device_without_room_is_refused_and_a_file_grows() {
    let file = File::new();
    let container = file.container();
    container.prepare(false).unwrap();
    drop((container, file));
    // A device that is no file and has no length.
    let null = Container::open(Path::new("/dev/null"), 0o600).unwrap();
    assert!(matches!(null.prepare(false), Err(StoreError::TooSmall { length: 0, .. })));
    let written = std::fs::File::open("/dev/null").unwrap().read_at(&mut [0; 1], 0).unwrap();
    assert_eq!(written, 0);
}
