//! Files that someone changed, and files of others.

use super::*;

/// Two instances whose records have equal names, values and versions, so that nothing but the seals tells them apart.
fn twins() -> (Place, InstanceId, InstanceId) {
    let place = Place::new();
    let store = place.create();
    let root = create_instance(&store, None, "root");
    let left = create_instance(&store, Some(root), "left");
    let right = create_instance(&store, Some(root), "right");
    for id in [left, right] {
        commit(&store, vec![put(id, A, b"same"), put(id, B, b"same")]).unwrap();
    }
    store.close();
    (place, left, right)
}

#[test]
fn changed_or_exchanged_values_are_named() {
    let corrupted_left_a = "record 01 of instance 2 is corrupted: its seal does not hold";
    for (what, sql) in [
        ("cut", "UPDATE record SET sealed = substr(sealed, 1, length(sealed) - 1) WHERE instance = 2 AND name = x'01'"),
        ("emptied", "UPDATE record SET sealed = x'' WHERE instance = 2 AND name = x'01'"),
        ("longer", "UPDATE record SET sealed = CAST(sealed || x'00' AS BLOB) WHERE instance = 2 AND name = x'01'"),
        (
            "another record's",
            "UPDATE record SET sealed = (SELECT sealed FROM record WHERE instance = 2 AND name = x'0201500001')
             WHERE instance = 2 AND name = x'01'",
        ),
        (
            "another instance's",
            "UPDATE record SET sealed = (SELECT sealed FROM record WHERE instance = 3 AND name = x'01')
             WHERE instance = 2 AND name = x'01'",
        ),
    ] {
        let (place, left, right) = twins();
        place.tamper(sql);
        let store = place.open();
        assert_eq!(store.records(left).unwrap_err().to_string(), corrupted_left_a, "{what}");
        assert_eq!(contents(&store, right).len(), 2, "{what}: the other instance is whole");
        // Writing the record anew mends it.
        commit(&store, vec![put(left, A, b"new")]).unwrap();
        assert_eq!(contents(&store, left)[0], (A, b"new".to_vec()), "{what}");
    }
}

#[test]
fn every_flipped_bit_of_a_value_is_noticed() {
    let (place, left, _) = twins();
    let read = |connection: &rusqlite::Connection| -> Vec<u8> {
        connection
            .query_row("SELECT sealed FROM record WHERE instance = 2 AND name = x'01'", [], |row| row.get(0))
            .unwrap()
    };
    let write = |sealed: &[u8]| {
        let connection = rusqlite::Connection::open(place.path()).unwrap();
        connection
            .execute("UPDATE record SET sealed = ?1 WHERE instance = 2 AND name = x'01'", [sealed])
            .unwrap();
    };
    let good = read(&rusqlite::Connection::open(place.path()).unwrap());
    for byte in (0..good.len()).step_by(5) {
        let mut bad = good.clone();
        bad[byte] ^= 1 << (byte % 8);
        write(&bad);
        assert!(matches!(place.open().records(left), Err(StoreError::CorruptedRecord { .. })), "byte {byte}");
    }
    write(&good);
    assert_eq!(contents(&place.open(), left).len(), 2);
}

#[test]
fn changed_rows_and_sets_of_records_are_named_and_leave_the_others_alone() {
    let changed = "instance 2 is corrupted: its row was changed, or a record was removed, added or put back to an earlier version";
    let key = "instance 2 is corrupted: the seal of its key does not hold";
    for (sql, sentence) in [
        ("UPDATE instance SET name = 'other' WHERE id = 2", changed),
        ("UPDATE instance SET handle = 77 WHERE id = 2", changed),
        ("UPDATE instance SET uuid = zeroblob(16) WHERE id = 2", changed),
        ("UPDATE instance SET attributes = 1 WHERE id = 2", changed),
        ("UPDATE instance SET parent = 3 WHERE id = 2", changed),
        ("UPDATE instance SET parent = NULL WHERE id = 2", changed),
        ("UPDATE instance SET sequence = sequence + 1 WHERE id = 2", changed),
        ("UPDATE instance SET seal = (SELECT seal FROM instance WHERE id = 3) WHERE id = 2", changed),
        ("UPDATE instance SET seal = x'' WHERE id = 2", changed),
        ("DELETE FROM record WHERE instance = 2 AND name = x'01'", changed),
        ("UPDATE record SET name = x'09' WHERE instance = 2 AND name = x'01'", changed),
        ("UPDATE record SET version = version + 1 WHERE instance = 2 AND name = x'01'", changed),
        ("INSERT INTO record (instance, name, version, sealed) VALUES (2, x'09', 2, x'')", changed),
        (
            "INSERT INTO record (instance, name, version, sealed) VALUES (2, zeroblob(40), 2, x'')",
            "instance 2 is corrupted: its records have names or versions of the wrong kind",
        ),
        (
            "UPDATE instance SET handle = -1 WHERE id = 2",
            "instance 2 is corrupted: its row has values of the wrong kind",
        ),
        ("DELETE FROM instance_key WHERE instance = 2", "instance 2 is corrupted: its key is missing"),
        ("UPDATE instance_key SET wrapped = x'01' WHERE instance = 2", key),
        (
            "UPDATE instance_key SET wrapped = (SELECT wrapped FROM instance_key WHERE instance = 3)
             WHERE instance = 2",
            key,
        ),
        // A whole instance under another's number.
        (
            "DELETE FROM instance WHERE id = 2; DELETE FROM instance_key WHERE instance = 2;
             DELETE FROM record WHERE instance = 2;
             UPDATE instance SET id = 2 WHERE id = 3; UPDATE instance_key SET instance = 2 WHERE instance = 3;
             UPDATE record SET instance = 2 WHERE instance = 3",
            key,
        ),
    ] {
        let (place, left, right) = twins();
        place.tamper(sql);
        let store = place.open();
        let damaged: Vec<_> =
            store.damaged().unwrap().iter().map(|damaged| (damaged.id, damaged.error.to_string())).collect();
        assert_eq!(damaged, [(left, sentence.into())], "{sql}");
        assert!(store.instances().unwrap().iter().all(|row| row.id != left), "{sql}");
        for refused in [store.records(left).err(), commit(&store, vec![put(left, A, b"")]).err()] {
            assert_eq!(refused.unwrap().to_string(), sentence, "{sql}");
        }
        if store.instances().unwrap().iter().any(|row| row.id == right) {
            commit(&store, vec![put(right, A, b"works")]).unwrap();
            assert_eq!(contents(&store, right).len(), 2);
        }
        commit(&store, vec![Op::DeleteInstance(left)]).unwrap();
        assert!(store.damaged().unwrap().is_empty());
        store.close();
        assert!(place.open().damaged().unwrap().is_empty(), "{sql}");
    }
}

#[test]
fn earlier_version_of_one_record_is_noticed_with_or_without_its_number() {
    for with_version in [false, true] {
        let (place, left, _) = twins();
        place.tamper("CREATE TABLE old AS SELECT * FROM record WHERE instance = 2 AND name = x'01'");
        let store = place.open();
        commit(&store, vec![put(left, A, b"newer")]).unwrap();
        store.close();
        place.tamper(
            "UPDATE record SET sealed = (SELECT sealed FROM old) WHERE instance = 2 AND name = x'01';
             DELETE FROM record WHERE FALSE",
        );
        if with_version {
            place.tamper(
                "UPDATE record SET version = (SELECT version FROM old) WHERE instance = 2 AND name = x'01'",
            );
        }
        let error = place.open().records(left).unwrap_err();
        match with_version {
            false => assert!(matches!(error, StoreError::CorruptedRecord { record, .. } if record == A)),
            true => assert!(matches!(error, StoreError::CorruptedInstance { .. })),
        }
    }
}

#[test]
fn instance_of_another_store_under_the_same_host_key_is_noticed() {
    let (place, left, _) = twins();
    let (other, ..) = twins();
    place.tamper(&format!(
        "ATTACH '{}' AS other;
         UPDATE instance SET (sequence, seal) = (SELECT sequence, seal FROM other.instance WHERE id = 2) WHERE id = 2;
         UPDATE instance_key SET wrapped = (SELECT wrapped FROM other.instance_key WHERE instance = 2)
         WHERE instance = 2;
         UPDATE record SET sealed = (SELECT sealed FROM other.record WHERE id = record.id) WHERE instance = 2",
        other.path().display()
    ));
    assert_eq!(place.open().damaged().unwrap()[0].id, left);
}

#[test]
fn wrong_host_key_is_called_so() {
    let (place, ..) = twins();
    let refused = Store::open(&place.path(), &HostKey::for_tests(2)).err().unwrap();
    assert!(matches!(refused, StoreError::WrongHostKey { .. }));
    assert!(refused.to_string().contains("the host key is not the one"));
    assert_eq!(place.open().instances().unwrap().len(), 3);
}

#[test]
fn newer_and_foreign_files_are_told_apart_and_left_alone() {
    let (place, ..) = twins();
    place.tamper("PRAGMA user_version = 2");
    let unchanged = |check: fn(&StoreError) -> bool| {
        let before = std::fs::read(place.path()).unwrap();
        let error = place.open_error();
        assert!(check(&error), "{error:?}");
        assert_eq!(std::fs::read(place.path()).unwrap(), before, "{error}");
    };
    unchanged(|error| matches!(error, StoreError::Newer { found: 2, known: 1, .. }));
    place.tamper("PRAGMA application_id = 1");
    unchanged(|error| matches!(error, StoreError::NotADatabase { .. }));
    std::fs::write(place.path(), b"").unwrap();
    unchanged(|error| matches!(error, StoreError::NotADatabase { .. }));
    std::fs::write(place.path(), [b'x'; 5000]).unwrap();
    unchanged(|error| matches!(error, StoreError::NotADatabase { .. }));
}

#[test]
fn damaged_structure_is_called_so() {
    let (place, ..) = twins();
    let mut bytes = std::fs::read(place.path()).unwrap();
    // The header stays; every page behind it is lost.
    bytes[4096..].fill(0xa5);
    std::fs::write(place.path(), bytes).unwrap();
    assert!(matches!(place.open_error(), StoreError::Damaged { .. }));
}
