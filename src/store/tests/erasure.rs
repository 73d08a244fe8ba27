//! What deleting leaves in the files.

use super::*;
use rusqlite::config::DbConfig;

/// The wrapped key of an instance, as it lies in the file.
fn wrapped_key(store: &Store, id: InstanceId) -> Vec<u8> {
    store.with_writer(move |writer| {
        let sql = "SELECT wrapped FROM instance_key WHERE instance = ?1";
        writer.connection().query_row(sql, [i64::try_from(id.0).unwrap()], |row| row.get(0)).unwrap()
    })
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

impl Place {
    /// Everything in all files, whether or not the store has them open.
    fn bytes(&self) -> Vec<u8> {
        let files = std::fs::read_dir(self.directory.path()).unwrap();
        files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
    }

    /// Whether the ciphertext of the key is in the files, or enough of what it was spread over to be of use.
    fn holds(&self, wrapped: &[u8]) -> bool {
        let bytes = self.bytes();
        // The first 4 KiB may lie in two places; a part of the rest is looked for in steps.
        let ciphertext = &wrapped[wrapped.len() - 48..];
        contains(&bytes, ciphertext)
            || wrapped[1024..seal::SPREAD_BYTES].chunks(512).all(|part| contains(&bytes, &part[..64]))
    }
}

#[test]
fn key_of_a_deleted_instance_leaves_the_files_before_the_deletion_is_acknowledged() {
    let place = Place::new();
    let store = place.create();
    let root = create_instance(&store, None, "root");
    let instances: Vec<_> = (0..6).map(|n| create_instance(&store, Some(root), &format!("vm{n}"))).collect();
    let keys: Vec<_> = instances.iter().map(|id| wrapped_key(&store, *id)).collect();
    for id in &instances {
        commit(&store, vec![put(*id, A, &[1; 5000])]).unwrap();
    }
    for (deleted, id) in instances.iter().enumerate().rev() {
        assert!(place.holds(&keys[deleted]), "the test finds a key that is there");
        commit(&store, vec![Op::DeleteInstance(*id)]).unwrap();
        for (other, key) in keys.iter().enumerate() {
            assert_eq!(place.holds(key), other < deleted, "key {other} after deleting {deleted}");
        }
    }
}

#[test]
fn no_rearrangement_of_pages_keeps_a_copy_of_a_key() {
    let place = Place::new();
    let store = place.create();
    let root = create_instance(&store, None, "root");
    // Numbers out of order and rows of unequal size, so that SQLite splits and merges pages in the middle.
    let mut waiting: Vec<_> =
        (0..60).map(|n| row(&store, Some(root), &format!("{n} {}", "x".repeat(n % 7 * 40)))).collect();
    let mut alive = Vec::new();
    let mut deleted = Vec::new();
    let mut step = 0usize;
    while !waiting.is_empty() || alive.len() > 5 {
        step += 1;
        if !waiting.is_empty() && !step.is_multiple_of(3) {
            let row = waiting.swap_remove(step * 31 % waiting.len());
            let id = row.id;
            let records = (0..3).map(|n| put(id, RecordName::kind(n), &vec![n; step * 97 % 3000]));
            commit(&store, std::iter::once(Op::CreateInstance(row)).chain(records).collect()).unwrap();
            alive.push((id, wrapped_key(&store, id)));
        } else {
            let (id, key) = alive.swap_remove(step * 17 % alive.len());
            commit(&store, vec![Op::DeleteInstance(id)]).unwrap();
            deleted.push(key);
        }
    }
    assert!(deleted.len() > 50);
    assert!(deleted.iter().all(|key| !place.holds(key)));
    assert!(alive.iter().all(|(_, key)| place.holds(key)));
}

#[test]
fn traces_that_a_killed_process_left_are_wiped_at_the_next_start() {
    let place = Place::new();
    let store = place.create();
    let root = create_instance(&store, None, "root");
    let child = create_instance(&store, Some(root), "child");
    let key = wrapped_key(&store, child);
    // The deletion itself, and then no more: the log stays as it is.
    store.with_writer(move |writer| {
        let connection = writer.connection();
        connection.execute("DELETE FROM instance WHERE id = ?1", [i64::try_from(child.0).unwrap()]).unwrap();
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    });
    store.close();
    assert!(place.holds(&key));
    let store = place.open();
    assert!(!place.holds(&key));
    assert_eq!(store.instances().unwrap().len(), 1);
}
